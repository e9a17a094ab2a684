//! Which probes of one path were sent, and what became of them.

use std::time::Duration;

use crate::time::Instant;

/// When a probe was sent, and how many microseconds its answer may take.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    patience_us: u32,
}

/// The probes that are remembered, each in the place of its number: which wait for their answer,
/// which were given up. There are as many of these as paths, so they are kept small: there are few
/// places until one is needed again whose probe is not answered.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    few: [Mark; Self::FEW],
    many: Option<Box<[Mark; Self::COUNT]>>,
    /// One bit each, by place.
    pub(super) waiting: u32,
    pub(super) missed: u32,
    pub(super) excused: u32,
}

impl Sent {
    /// At the quickest pace they span more than the longest time-out.
    pub(super) const COUNT: usize = 32;
    const FEW: usize = 4;
    const NEVER: Mark = Mark { at: Instant::ZERO, patience_us: 0 };
    pub(super) const NONE: Self =
        Self { few: [Self::NEVER; Self::FEW], many: None, waiting: 0, missed: 0, excused: 0 };

    /// How many of the newest probes have a place.
    pub(super) const fn count(&self) -> u32 {
        if self.many.is_some() { Self::COUNT as u32 } else { Self::FEW as u32 }
    }

    pub(super) const fn slot(&self, seq: u32) -> usize {
        (seq % self.count()) as usize
    }

    fn mark(&self, slot: usize) -> Mark {
        match &self.many {
            Some(many) => many[slot % Self::COUNT],
            None => self.few[slot % Self::FEW],
        }
    }

    fn mark_mut(&mut self, slot: usize) -> &mut Mark {
        match &mut self.many {
            Some(many) => &mut many[slot % Self::COUNT],
            None => &mut self.few[slot % Self::FEW],
        }
    }

    /// When the probe in a place was sent.
    pub(super) fn at(&self, slot: usize) -> Instant {
        self.mark(slot).at
    }

    pub(super) fn put(&mut self, seq: u32, at: Instant, patience: Duration) {
        self.make_room(seq);
        let slot = self.slot(seq);
        let bit = 1 << slot;
        self.mark_mut(slot).at = at;
        self.waiting |= bit;
        self.missed &= !bit;
        self.excused &= !bit;
        self.wait_until(slot, at + patience);
    }

    /// So that no probe is forgotten that is neither answered nor one of the oldest of
    /// [`Self::COUNT`].
    fn make_room(&mut self, seq: u32) {
        let open = self.waiting | self.missed;
        if open == 0 {
            self.many = None;
        } else if self.many.is_none() && open & 1 << self.slot(seq) != 0 {
            let few = self.clone();
            self.many = Some(Box::new([Self::NEVER; Self::COUNT]));
            (self.waiting, self.missed, self.excused) = (0, 0, 0);
            for seq in (1..=few.count()).map(|age| seq.wrapping_sub(age)) {
                let (from, to) = (few.slot(seq), self.slot(seq));
                *self.mark_mut(to) = few.mark(from);
                self.waiting |= (few.waiting >> from & 1) << to;
                self.missed |= (few.missed >> from & 1) << to;
                self.excused |= (few.excused >> from & 1) << to;
            }
        }
    }

    pub(super) fn wait_until(&mut self, slot: usize, until: Instant) {
        let mark = self.mark_mut(slot);
        let patience = (until - mark.at).as_micros();
        mark.patience_us = u32::try_from(patience).unwrap_or(u32::MAX);
    }

    pub(super) fn deadline(&self, slot: usize) -> Instant {
        let mark = self.mark(slot);
        mark.at + Duration::from_micros(mark.patience_us.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn at(seq: u32) -> Instant {
        Instant::from_micros(1_000_000 + u64::from(seq) * 100_000)
    }

    #[test]
    fn whatever_is_answered_the_newest_32_that_are_not_are_remembered() {
        let mut rng = crate::rng::Rng::new([8; 32]);
        let mut sent = Sent::NONE;
        // Of each probe: 0 answered, 1 waiting, 2 missed.
        let mut truth: Vec<u8> = Vec::new();
        let (mut most, mut fewest) = (0, u32::MAX);
        for seq in 0..4_000_u32 {
            let answered = if seq / 500 % 2 == 0 { 0.97 } else { 0.4 };
            sent.put(seq, at(seq), PATIENCE);
            truth.push(1);
            for age in 0..3.min(seq) {
                let (seq, slot) = (seq - age, sent.slot(seq - age));
                let fate = &mut truth[seq as usize];
                if *fate == 1 && rng.chance(0.6) {
                    *fate = if rng.chance(answered) { 0 } else { 2 };
                    sent.waiting &= !(1 << slot);
                    sent.missed |= u32::from(*fate == 2) << slot;
                }
            }
            let newest = (seq + 1).saturating_sub(Sent::COUNT as u32)..=seq;
            for old in newest {
                let fate = truth[old as usize];
                let slot = sent.slot(old);
                let here = sent.at(slot) == at(old);
                let waits = here && sent.waiting >> slot & 1 == 1;
                let missed = here && sent.missed >> slot & 1 == 1;
                assert_eq!((waits, missed), (fate == 1, fate == 2), "{old} after {seq}");
                assert!(!waits || sent.deadline(slot) == at(old) + PATIENCE);
            }
            (most, fewest) = (most.max(sent.count()), fewest.min(sent.count()));
        }
        assert_eq!((most, fewest), (32, 4));
    }
}
