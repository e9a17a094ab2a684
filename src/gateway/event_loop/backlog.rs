//! Frames read from the TUN that wait for their turn: fair queueing by flow.
//!
//! The kernel's own queue is first come, first served, and holds megabytes when frames are 64 KiB
//! long. So it is emptied every turn, and who goes next is decided here: deficit round robin, flows
//! that have just begun to queue first (RFC 8290 without the CoDel part). A ping does not wait
//! behind a bulk flow, and a bulk flow that sends faster than we can loses frames from its own
//! queue.

use std::collections::VecDeque;

use crate::batch::BUFFER_LEN;
use crate::io::tun::RawVnet;

/// Frames that can wait.
const SLOTS: usize = 64;
/// Queues; flows that share one share its turns.
const QUEUES: usize = 64;
/// Bytes that a queue may send before it is another one's turn.
const QUANTUM: i32 = 16 * 1024;

/// A frame that waits.
pub(super) struct Frame {
    /// It lies in the first `len` bytes.
    pub(super) buffer: Box<[u8]>,
    /// Length.
    pub(super) len: usize,
    /// The offload header it came with.
    pub(super) vnet: RawVnet,
}

#[derive(Default)]
struct Queue {
    /// Indices of slots, oldest first.
    slots: VecDeque<u8>,
    bytes: usize,
    credit: i32,
    listed: bool,
}

/// The waiting frames.
pub(super) struct Backlog {
    frames: Vec<Frame>,
    free: Vec<u8>,
    queues: Vec<Queue>,
    /// Queues that were empty a moment ago.
    sparse: VecDeque<u8>,
    /// The others that hold something.
    steady: VecDeque<u8>,
    bytes: usize,
    limit: usize,
    key: u64,
}

impl Backlog {
    /// Holds at most `limit` bytes. `key` keeps hosts from choosing whose queue they share.
    pub(super) fn new(limit: usize, key: u64) -> Self {
        let frame = || Frame {
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            len: 0,
            vnet: RawVnet::default(),
        };
        let queue = || Queue { slots: VecDeque::with_capacity(SLOTS), ..Queue::default() };
        Self {
            frames: (0..SLOTS).map(|_| frame()).collect(),
            free: (0..SLOTS as u8).rev().collect(),
            queues: (0..QUEUES).map(|_| queue()).collect(),
            sparse: VecDeque::with_capacity(QUEUES),
            steady: VecDeque::with_capacity(QUEUES),
            bytes: 0,
            limit,
            key,
        }
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == SLOTS
    }

    /// A place to read the next frame into, until [`admit`](Self::admit) takes it in.
    pub(super) fn vacant(&mut self) -> Option<&mut Frame> {
        let slot = *self.free.last()?;
        Some(&mut self.frames[usize::from(slot)])
    }

    /// Takes in what was read into the vacant place.
    pub(super) fn admit(&mut self) {
        let Some(slot) = self.free.pop() else { return };
        let frame = &self.frames[usize::from(slot)];
        let index = (flow_hash(self.key, &frame.buffer[..frame.len]) % QUEUES as u64) as u8;
        let queue = &mut self.queues[usize::from(index)];
        queue.slots.push_back(slot);
        queue.bytes += frame.len;
        self.bytes += frame.len;
        if !queue.listed {
            queue.listed = true;
            queue.credit = QUANTUM;
            self.sparse.push_back(index);
        }
    }

    /// The oldest frame of the longest queue, to be dropped, while more waits than should.
    pub(super) fn surplus(&mut self) -> Option<&Frame> {
        if self.bytes <= self.limit {
            return None;
        }
        let longest = (0..QUEUES).max_by_key(|&index| self.queues[index].bytes)?;
        let slot = self.take(longest)?;
        self.free.push(slot);
        Some(&self.frames[usize::from(slot)])
    }

    /// The frame whose turn it is. It stays in its place until [`release`](Self::release).
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            let from_sparse = !self.sparse.is_empty();
            let list = if from_sparse { &mut self.sparse } else { &mut self.steady };
            let index = list.pop_front()?;
            let queue = &mut self.queues[usize::from(index)];
            if queue.credit <= 0 {
                queue.credit += QUANTUM;
                self.steady.push_back(index);
                continue;
            }
            let Some(slot) = self.take(usize::from(index)) else {
                // A flow that comes back at once must not be first each time.
                if from_sparse {
                    self.steady.push_back(index);
                } else {
                    self.queues[usize::from(index)].listed = false;
                }
                continue;
            };
            self.queues[usize::from(index)].credit -= self.frames[usize::from(slot)].len as i32;
            let list = if from_sparse { &mut self.sparse } else { &mut self.steady };
            list.push_front(index);
            return Some(slot);
        }
    }

    /// The frame in a place that [`next`](Self::next) named.
    pub(super) fn frame(&mut self, slot: u8) -> &mut Frame {
        &mut self.frames[usize::from(slot)]
    }

    /// Makes a place vacant.
    pub(super) fn release(&mut self, slot: u8) {
        self.free.push(slot);
    }

    fn take(&mut self, index: usize) -> Option<u8> {
        let queue = &mut self.queues[index];
        let slot = queue.slots.pop_front()?;
        let len = self.frames[usize::from(slot)].len;
        queue.bytes -= len;
        self.bytes -= len;
        Some(slot)
    }
}

/// A hash of what tells flows apart. Fragments have no ports, so that all of a packet's get one
/// value.
fn flow_hash(key: u64, frame: &[u8]) -> u64 {
    let word = |at: usize| -> u64 {
        frame.get(at..at + 4).map_or(0, |b| u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]])))
    };
    let byte = |at: usize| frame.get(at).copied().unwrap_or_default();
    let mut hash = key;
    let mut mix = |value: u64| {
        hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    };
    let (protocol, ports) = if byte(0) >> 4 == 4 {
        mix(word(12) << 32 | word(16));
        let whole = word(4) & 0x3fff == 0;
        (byte(9), whole.then_some(usize::from(byte(0) & 15) * 4))
    } else {
        for at in [8, 16, 24, 32] {
            mix(word(at) << 32 | word(at + 4));
        }
        (byte(6), Some(40))
    };
    mix(u64::from(protocol));
    if let (6 | 17, Some(at)) = (protocol, ports) {
        mix(word(at));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 200_000;

    /// A UDP packet of the flow `port`, `number` at its end.
    fn push(backlog: &mut Backlog, port: u16, len: usize, number: u8) {
        let frame = backlog.vacant().unwrap();
        frame.len = len;
        let packet = &mut frame.buffer[..len];
        packet.fill(0);
        packet[0] = 0x45;
        packet[9] = 17;
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[len - 1] = number;
        backlog.admit();
    }

    fn pop(backlog: &mut Backlog) -> Option<(u16, u8)> {
        let slot = backlog.next()?;
        let frame = backlog.frame(slot);
        let bytes = &frame.buffer[..frame.len];
        let found = (u16::from_be_bytes([bytes[22], bytes[23]]), bytes[bytes.len() - 1]);
        backlog.release(slot);
        Some(found)
    }

    fn backlog() -> Backlog {
        Backlog::new(LIMIT, 1)
    }

    #[test]
    fn a_ping_does_not_wait_behind_a_bulk_flow() {
        let mut backlog = backlog();
        for number in 0..3 {
            push(&mut backlog, 1, 60_000, number);
        }
        assert_eq!(pop(&mut backlog), Some((1, 0)));
        push(&mut backlog, 2, 100, 9);
        assert_eq!(pop(&mut backlog), Some((2, 9)));
        assert_eq!(pop(&mut backlog), Some((1, 1)));
        assert_eq!(pop(&mut backlog), Some((1, 2)));
        assert_eq!(pop(&mut backlog), None);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_small_packet_of_a_bulk_flow_does_not_overtake_its_own() {
        let mut backlog = backlog();
        for (number, len) in [60_000, 60_000, 100, 60_000].into_iter().enumerate() {
            push(&mut backlog, 1, len, number as u8);
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut backlog)).map(|(_, n)| n).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn flows_share_by_bytes_not_by_frames() {
        let mut backlog = Backlog::new(usize::MAX, 1);
        for number in 0..4 {
            push(&mut backlog, 1, 48_000, number);
        }
        for number in 0..40 {
            push(&mut backlog, 2, 4_800, number);
        }
        let mut bytes = [0, 0];
        for _ in 0..22 {
            match pop(&mut backlog).unwrap().0 {
                1 => bytes[0] += 48_000,
                _ => bytes[1] += 4_800,
            }
        }
        let difference = i32::abs_diff(bytes[0], bytes[1]);
        assert!(difference <= 64_000, "{bytes:?}");
    }

    #[test]
    fn a_sparse_flow_that_comes_back_at_once_does_not_starve_the_others() {
        let mut backlog = backlog();
        push(&mut backlog, 1, 60_000, 0);
        push(&mut backlog, 1, 60_000, 1);
        let mut served = 0;
        for _ in 0..1_000 {
            push(&mut backlog, 2, 1_000, 0);
            served += u32::from(pop(&mut backlog).unwrap().0 == 1);
        }
        assert_eq!(served, 2);
    }

    #[test]
    fn what_is_too_much_is_taken_from_the_longest_queue() {
        let mut backlog = backlog();
        push(&mut backlog, 2, 1_000, 7);
        for number in 0..4 {
            push(&mut backlog, 1, 60_000, number);
        }
        assert_eq!(backlog.surplus().map(|frame| frame.buffer[frame.len - 1]), Some(0));
        assert!(backlog.surplus().is_none());
        let rest: Vec<_> = std::iter::from_fn(|| pop(&mut backlog)).collect();
        assert_eq!(rest, [(2, 7), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn when_every_place_is_taken_nothing_more_is_read() {
        let mut backlog = backlog();
        for number in 0..SLOTS {
            push(&mut backlog, number as u16, 100, 0);
        }
        assert!(backlog.vacant().is_none());
        assert!(pop(&mut backlog).is_some());
        assert!(backlog.vacant().is_some());
    }

    #[test]
    fn all_fragments_of_a_packet_hash_alike() {
        let mut first = [0; 40];
        first[0] = 0x45;
        first[9] = 17;
        first[6] = 0x20;
        first[20..24].copy_from_slice(&[1, 2, 3, 4]);
        let mut later = first;
        later[6] = 0;
        later[7] = 9;
        later[20..24].copy_from_slice(&[9, 9, 9, 9]);
        assert_eq!(flow_hash(5, &first), flow_hash(5, &later));
        let mut whole = first;
        whole[6] = 0;
        assert_ne!(flow_hash(5, &first), flow_hash(5, &whole));
        for len in 0..first.len() {
            flow_hash(5, &first[..len]);
            flow_hash(5, &[0x60; 40][..len]);
        }
    }
}
