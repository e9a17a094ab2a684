//! Which probes of one path were sent, and what became of them.

use std::time::Duration;

use crate::time::Instant;

/// The probes that are remembered, each in the place of its number: which wait for their answer,
/// which were given up. There are as many of these as paths, so they are kept small.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: [Instant; Self::COUNT],
    /// How many microseconds an answer may take.
    patience_us: [u32; Self::COUNT],
    /// One bit each.
    pub(super) waiting: u32,
    pub(super) missed: u32,
    pub(super) excused: u32,
}

impl Sent {
    /// At the quickest pace they span more than the longest time-out.
    pub(super) const COUNT: usize = 32;
    pub(super) const NONE: Self = Self {
        at: [Instant::ZERO; Self::COUNT],
        patience_us: [0; Self::COUNT],
        waiting: 0,
        missed: 0,
        excused: 0,
    };

    pub(super) const fn slot(seq: u32) -> usize {
        seq as usize % Self::COUNT
    }

    pub(super) fn put(&mut self, seq: u32, at: Instant, patience: Duration) {
        let (slot, bit) = (Self::slot(seq), 1 << Self::slot(seq));
        self.at[slot] = at;
        self.waiting |= bit;
        self.missed &= !bit;
        self.excused &= !bit;
        self.wait_until(slot, at + patience);
    }

    pub(super) fn wait_until(&mut self, slot: usize, until: Instant) {
        let patience = (until - self.at[slot]).as_micros();
        self.patience_us[slot] = u32::try_from(patience).unwrap_or(u32::MAX);
    }

    pub(super) fn deadline(&self, slot: usize) -> Instant {
        self.at[slot] + Duration::from_micros(self.patience_us[slot].into())
    }

    /// The places whose bits are set.
    pub(super) fn places(mut bits: u32) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let slot = (bits != 0).then(|| bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            slot
        })
    }
}
