//! The ports of one outside address: which are taken, and by which mapping.

use std::ops::Range;

/// No mapping has this port.
pub(super) const NOBODY: u32 = u32::MAX;

/// The ports of one address for one transport.
#[derive(Debug)]
pub(super) struct PortSpace {
    taken: Box<[u64]>,
    pub(super) mappings: Box<[u32]>,
    pub(super) used: u32,
}

impl PortSpace {
    pub(super) fn new(ports: u32) -> Self {
        let mut taken = vec![0; ports.div_ceil(64) as usize];
        if let (Some(last), tail @ 1..) = (taken.last_mut(), ports % 64) {
            *last = u64::MAX << tail;
        }
        Self {
            taken: taken.into_boxed_slice(),
            mappings: vec![NOBODY; ports as usize].into_boxed_slice(),
            used: 0,
        }
    }

    pub(super) fn set(&mut self, position: u32) {
        self.taken[position as usize / 64] |= 1 << (position % 64);
        self.used += 1;
    }

    pub(super) fn clear(&mut self, position: u32) {
        self.taken[position as usize / 64] &= !(1 << (position % 64));
        self.used -= 1;
    }

    pub(super) fn is_taken(&self, position: u32) -> bool {
        self.taken[position as usize / 64] & 1 << (position % 64) != 0
    }

    /// The first free position from `start` on, around the end of `range`, among those in `mask` of
    /// each word. `start` lies in the range.
    pub(super) fn next_free(&self, start: u32, range: &Range<u32>, mask: u64) -> Option<u32> {
        self.first_free(start..range.end, mask)
            .or_else(|| self.first_free(range.start..start, mask))
    }

    fn first_free(&self, range: Range<u32>, mask: u64) -> Option<u32> {
        if range.is_empty() {
            return None;
        }
        let (first, last) = (range.start as usize / 64, (range.end as usize - 1) / 64);
        for at in first..=last {
            let mut free = !self.taken.get(at)? & mask;
            if at == first {
                free &= u64::MAX << (range.start % 64);
            }
            if free != 0 {
                let position = at as u32 * 64 + free.trailing_zeros();
                return (position < range.end).then_some(position);
            }
        }
        None
    }
}
