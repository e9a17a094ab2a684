//! Which sockets may have more to read.

use crate::id::UplinkIndex;

/// The ready list. A socket is on it from its edge until it said that it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    sockets: u32,
    first: usize,
}

impl Ready {
    /// Some socket may have more.
    pub(super) fn any_socket(&self) -> bool {
        self.sockets != 0
    }

    /// How many sockets may.
    pub(super) fn socket_count(&self) -> usize {
        self.sockets.count_ones() as usize
    }

    /// Socket `index` has something.
    pub(super) fn mark_socket(&mut self, index: usize) {
        if index < UplinkIndex::MAX_COUNT {
            self.sockets |= 1 << index;
        }
    }

    /// Socket `index` is empty.
    pub(super) fn clear_socket(&mut self, index: usize) {
        self.sockets &= !(1 << index);
    }

    /// The ready ones among `sockets` sockets, beginning with another one each time.
    pub(super) fn socket_order(&mut self, sockets: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, ready) = (self.first, self.sockets);
        self.first = if sockets == 0 { 0 } else { (first + 1) % sockets };
        (0..sockets).map(move |i| (first + i) % sockets).filter(move |&i| ready & (1 << i) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ready_socket_is_first_in_turn() {
        let mut ready = Ready::default();
        for index in [0, 2, 3] {
            ready.mark_socket(index);
        }
        let orders: Vec<Vec<_>> = (0..4).map(|_| ready.socket_order(4).collect()).collect();
        assert_eq!(orders, [[0, 2, 3], [2, 3, 0], [2, 3, 0], [3, 0, 2]]);
        assert_eq!(ready.socket_count(), 3);
        for index in [0, 2, 3] {
            ready.clear_socket(index);
        }
        assert!(!ready.any_socket());
        assert_eq!(ready.socket_order(0).count(), 0);
    }
}
