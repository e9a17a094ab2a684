//! The receiving side: bytes in order, each checked.

use std::collections::BTreeMap;

use super::segment;

/// Pieces beyond a hole that are kept.
const AHEAD_MAX: usize = 256;

/// What came of a stream.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Everything before it came.
    next: u64,
    /// What came beyond a hole: beginning and end.
    ahead: BTreeMap<u64, u64>,
}

impl Receiver {
    /// Everything before this byte came.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes bytes of the stream with this key, of which everything before `fresh` was ever sent.
    pub(super) fn take(
        &mut self,
        key: u64,
        seq: u32,
        payload: &[u8],
        fresh: u64,
    ) -> Result<(), &'static str> {
        let start = segment::near(self.next, seq);
        let end = start + payload.len() as u64;
        if end > fresh {
            return Err("has bytes that were never sent");
        }
        let right = |(at, &value): (u64, &u8)| segment::byte(key, at) == value;
        if !(start..end).zip(payload).all(right) {
            return Err("has bytes of elsewhere");
        }
        if self.ahead.len() < AHEAD_MAX || start <= self.next {
            let known = self.ahead.entry(start).or_insert(end);
            *known = end.max(*known);
        }
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() <= self.next) {
            self.next = self.next.max(first.remove());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_delivered_in_order_and_strange_ones_are_refused() {
        let mut receiver = Receiver::default();
        let mut take = |range: std::ops::Range<u64>| {
            let payload = segment::bytes(9, range.clone());
            receiver.take(9, range.start as u32, &payload, 100).map(|()| receiver.next())
        };
        assert_eq!(take(10..20), Ok(0));
        assert_eq!(take(30..40), Ok(0));
        assert_eq!(take(0..12), Ok(20));
        assert_eq!(take(5..9), Ok(20), "known already");
        assert_eq!(take(20..30), Ok(40));
        assert!(take(95..101).is_err());
        let other = segment::bytes(8, 40..50);
        assert!(receiver.take(9, 40, &other, 100).is_err());
        let moved = segment::bytes(9, 48..58);
        assert!(receiver.take(9, 40, &moved, 100).is_err());
    }
}
