//! What a socket had no room for, until it has.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::batch::TxBatch;

/// Datagrams for one destination, back to back as they were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Train {
    destination: SocketAddr,
    tos: u8,
    stride: usize,
    len: usize,
}

impl Train {
    /// Whether datagrams may go on where this ends: the kernel cuts at the stride and takes no more
    /// than a train at once.
    fn goes_on(&self, destination: SocketAddr, tos: u8, stride: usize, len: usize) -> bool {
        (self.destination, self.tos, self.stride) == (destination, tos, stride)
            && self.len.is_multiple_of(stride)
            && self.len + len <= TxBatch::MAX_TRAIN_BYTES
    }
}

/// Trains that wait for room in the socket, in their order. What does not fit in is refused.
#[derive(Debug)]
pub(super) struct Rest {
    trains: VecDeque<Train>,
    bytes: VecDeque<u8>,
}

impl Rest {
    /// Most bytes that wait: what a turn can bring.
    pub(super) const BYTES: usize = 256 * 1_024;
    /// Small datagrams to changing destinations are a train each.
    const TRAINS: usize = 1_024;

    /// Takes no memory and keeps nothing.
    pub(super) const EMPTY: Self = Self { trains: VecDeque::new(), bytes: VecDeque::new() };

    /// Allocates all that it ever needs; the memory is touched when something waits.
    pub(super) fn new() -> Self {
        let trains = VecDeque::with_capacity(Self::TRAINS);
        Self { trains, bytes: VecDeque::with_capacity(Self::BYTES) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// How many datagrams wait.
    pub(super) fn datagrams(&self) -> u64 {
        self.trains.iter().map(|train| train.len.div_ceil(train.stride) as u64).sum()
    }

    /// Keeps a train behind the others. False when there is no room.
    pub(super) fn keep(
        &mut self,
        destination: SocketAddr,
        tos: u8,
        bytes: &[u8],
        stride: usize,
    ) -> bool {
        if self.bytes.len() + bytes.len() > Self::BYTES {
            return false;
        }
        let full = self.trains.len() >= Self::TRAINS;
        match self.trains.back_mut() {
            Some(last) if last.goes_on(destination, tos, stride, bytes.len()) => {
                last.len += bytes.len();
            }
            _ if full => return false,
            _ => self.trains.push_back(Train { destination, tos, stride, len: bytes.len() }),
        }
        self.bytes.extend(bytes);
        true
    }

    /// Hands out the trains in order. `send` says of how many bytes it is rid; less than all means
    /// that there is still no room.
    pub(super) fn drain(&mut self, mut send: impl FnMut(SocketAddr, u8, &[u8], usize) -> usize) {
        while let Some(train) = self.trains.front_mut() {
            let bytes = &self.bytes.make_contiguous()[..train.len];
            let done = send(train.destination, train.tos, bytes, train.stride).min(train.len);
            self.bytes.drain(..done);
            train.len -= done;
            if train.len > 0 {
                break;
            }
            self.trains.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn trains_leave_in_order_and_stop_where_there_is_no_room() {
        let mut rest = Rest::new();
        for number in 0..3u16 {
            assert!(rest.keep(to(number), number as u8, &[number as u8; 250], 100));
        }
        let mut left = Vec::new();
        // Room for one train and a datagram of the next one, then for everything.
        for mut room in [350, 10_000] {
            assert!(!rest.is_empty());
            rest.drain(|destination, tos, bytes, stride| {
                let done = bytes.len().min(room);
                room -= done;
                left.push((destination.port(), tos, bytes[..done].to_vec(), stride));
                done
            });
        }
        assert!(rest.is_empty());
        let expected = [(0, 250), (1, 100), (1, 150), (2, 250)];
        let expected =
            expected.map(|(number, len)| (number, number as u8, vec![number as u8; len], 100));
        assert_eq!(left, expected);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_trains() {
        let mut rest = Rest::new();
        let most = Rest::BYTES / 50_000;
        for _ in 0..most {
            assert!(rest.keep(to(1), 0, &[0; 50_000], 1_000));
        }
        assert!(!rest.keep(to(1), 0, &[0; 50_000], 1_000));
        assert!(rest.keep(to(1), 0, &[0; 100], 100), "a small one still fits");
        let capacity = rest.bytes.capacity();
        assert_eq!(rest.datagrams(), most as u64 * 50 + 1);
        rest.drain(|_, _, bytes, _| bytes.len());
        for number in 0..Rest::TRAINS as u16 {
            assert!(rest.keep(to(number), 0, &[0; 10], 10));
        }
        assert!(!rest.keep(to(1), 0, &[0; 10], 10));
        assert_eq!(rest.bytes.capacity(), capacity);
    }

    #[test]
    fn lone_datagrams_wait_as_long_as_there_is_room_for_their_bytes() {
        let mut rest = Rest::new();
        let most = Rest::BYTES / 100;
        for _ in 0..most {
            assert!(rest.keep(to(1), 0, &[0; 100], 100));
        }
        assert!(!rest.keep(to(1), 0, &[0; 100], 100));
        assert_eq!(rest.datagrams(), most as u64);
        rest.drain(|_, _, bytes, stride| {
            assert!(stride == 100 && bytes.len() <= TxBatch::MAX_TRAIN_BYTES);
            bytes.len()
        });
    }

    #[test]
    fn a_train_is_lengthened_only_by_what_is_cut_alike_and_goes_the_same_way() {
        let mut rest = Rest::new();
        let kept = [(1, 0, 200, 100), (1, 0, 150, 100), (1, 0, 100, 100), (1, 8, 100, 100)];
        let more = [(2, 8, 100, 100), (2, 8, 90, 90), (2, 8, 90, 100)];
        for (port, tos, len, stride) in kept.into_iter().chain(more) {
            assert!(rest.keep(to(port), tos, &vec![tos; len], stride));
        }
        let mut left = Vec::new();
        rest.drain(|destination, tos, bytes, stride| {
            left.push((destination.port(), tos, bytes.len(), stride));
            bytes.len()
        });
        let expected = [(1, 0, 350, 100), (1, 0, 100, 100), (1, 8, 100, 100), (2, 8, 100, 100)];
        assert_eq!(left[..4], expected);
        assert_eq!(left[4..], [(2, 8, 90, 90), (2, 8, 90, 100)]);
    }
}
