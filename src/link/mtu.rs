//! The largest datagram that gets through a path, found without trusting ICMP.
//!
//! Datagram Packetization Layer PMTU Discovery (RFC 8899): the base size is used until a larger one
//! is confirmed by its acknowledgement; the largest possible size is tried first, because it is
//! mostly right; then the gap is halved. A confirmed size is confirmed again from time to time, so
//! that a path that shrank does not stay a black hole.

use std::time::Duration;

use crate::time::Instant;

/// A probe of one size is lost when this many in a row got no answer.
const ATTEMPTS: u8 = 4;
/// The search ends when the gap is at most this many bytes.
const STEP: u16 = 8;
/// How often the result is confirmed; at once where traffic gives reason for doubt.
const CONFIRM: Duration = Duration::from_secs(60);
/// How often a larger size is looked for again (RFC 8899 `PMTU_RAISE_TIMER`).
const RAISE: Duration = Duration::from_secs(600);

/// The search on one path. Sizes are bytes of UDP payload.
#[derive(Clone, Debug)]
pub struct MtuSearch {
    base: u16,
    max: u16,
    proven: u16,
    /// The smallest size known not to pass, or one above `max`.
    failed: u16,
    /// The largest size that passed once and then did not.
    lost: u16,
    /// What passes since then, as the last search that came to an end has it; 0 for all.
    shrunk: u16,
    probe: Option<Probe>,
    due: Instant,
    raise_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u16,
    attempts: u8,
}

impl MtuSearch {
    /// A search between `base`, which is taken for granted, and `max`.
    pub fn new(now: Instant, base: u16, max: u16) -> Self {
        let max = max.max(base);
        Self {
            base,
            max,
            proven: base,
            failed: max + 1,
            lost: 0,
            shrunk: 0,
            probe: None,
            due: now,
            raise_at: now + RAISE,
        }
    }

    /// The largest size known to pass.
    pub const fn proven(&self) -> u16 {
        self.proven
    }

    /// The largest size that passes, within 8 bytes, when one larger by more did before and the base
    /// still does. While larger sizes are tried again, what was found before stands.
    pub const fn shrunk_to(&self) -> Option<u16> {
        if self.shrunk == 0 { None } else { Some(self.shrunk) }
    }

    /// True while larger sizes are still being tried.
    pub const fn searching(&self) -> bool {
        self.failed - self.proven > STEP
    }

    /// The size of a probe that is due, if one is. `timeout` is how long its answer may take.
    pub fn poll_probe(&mut self, now: Instant, timeout: Duration) -> Option<u16> {
        if now < self.due {
            return None;
        }
        if let Some(probe) = self.probe
            && probe.attempts >= ATTEMPTS
        {
            self.give_up(now, probe.size);
            if now < self.due {
                return None;
            }
        }
        if now >= self.raise_at {
            self.raise_at = now + RAISE;
            self.failed = self.max + 1;
        }
        let size = match self.probe {
            Some(probe) => probe.size,
            None => self.next_size(),
        };
        let attempts = self.probe.map_or(0, |probe| probe.attempts) + 1;
        self.probe = Some(Probe { size, attempts });
        self.due = now + timeout;
        Some(size)
    }

    /// A probe of `size` was acknowledged.
    pub fn on_ack(&mut self, now: Instant, size: u16) {
        if self.probe.is_none_or(|probe| probe.size != size) {
            return;
        }
        self.probe = None;
        self.proven = self.proven.max(size);
        if size == self.base && self.failed == self.base + 1 {
            // It was not the size that failed before.
            self.failed = self.max + 1;
        }
        self.failed = self.failed.max(self.proven + 1);
        self.due = if self.searching() { now } else { now + CONFIRM };
        self.conclude();
    }

    /// Traffic vanished that may have been too big: the proven size is confirmed now. A size that
    /// was given up may have been lost for the same reason: it is tried again soon.
    pub fn doubt(&mut self, now: Instant) {
        if self.lost > self.proven {
            self.raise_at = self.raise_at.min(now + CONFIRM);
        }
        if self.probe.is_none() && !self.searching() {
            self.due = self.due.min(now);
        }
    }

    /// When [`Self::poll_probe`] has something to do.
    pub const fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Begins again, for a path whose way may have changed.
    pub fn restart(&mut self, now: Instant) {
        *self = Self::new(now, self.base, self.max);
    }

    fn next_size(&self) -> u16 {
        if !self.searching() {
            return self.proven;
        }
        if self.failed > self.max {
            self.max
        } else {
            self.proven + (self.failed - self.proven) / 2
        }
    }

    fn give_up(&mut self, now: Instant, size: u16) {
        self.probe = None;
        self.failed = size.max(self.base + 1);
        if size <= self.proven {
            self.lost = self.lost.max(size);
            self.proven = self.base;
        }
        // Below the base there is nothing to be found.
        self.due = if size <= self.base { now + CONFIRM } else { now };
        self.conclude();
    }

    /// Takes note of what a search found, if one has ended and the base passes.
    const fn conclude(&mut self) {
        if self.searching() || self.failed <= self.base + 1 {
            return;
        }
        if self.lost.saturating_sub(self.proven) <= STEP {
            self.shrunk = 0;
        } else if self.shrunk.abs_diff(self.proven) > STEP {
            self.shrunk = self.proven;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs the search against a path that passes `limit` bytes; says when it settled.
    fn settle(search: &mut MtuSearch, limit: u16, mut now: Instant) -> Instant {
        for _ in 0..200 {
            now = now.max(search.poll_timeout());
            if let Some(size) = search.poll_probe(now, Duration::from_millis(100))
                && size <= limit
            {
                search.on_ack(now, size);
            }
            if !search.searching() && search.probe.is_none() {
                break;
            }
        }
        now
    }

    #[test]
    fn the_common_case_takes_one_probe() {
        let mut search = MtuSearch::new(Instant::ZERO, 1232, 1472);
        assert_eq!(search.proven(), 1232);
        assert_eq!(search.poll_probe(Instant::ZERO, Duration::from_millis(100)), Some(1472));
        search.on_ack(Instant::ZERO, 1472);
        assert_eq!(search.proven(), 1472);
        assert!(!search.searching());
        assert_eq!(search.poll_timeout(), Instant::ZERO + CONFIRM);
    }

    #[test]
    fn a_path_that_shrinks_is_noticed_and_one_that_grows_is_found_again() {
        let mut search = MtuSearch::new(Instant::ZERO, 1232, 1472);
        let mut now = settle(&mut search, 1472, Instant::ZERO);
        now = settle(&mut search, 1300, now + CONFIRM);
        // The black hole is left at the latest when the confirmation failed four times.
        for _ in 0..4 {
            now = settle(&mut search, 1300, now);
        }
        assert!((1300 - STEP..=1300).contains(&search.proven()), "{}", search.proven());
        for _ in 0..60 {
            now = settle(&mut search, 1472, now + CONFIRM);
        }
        assert_eq!(search.proven(), 1472);
    }

    /// Runs the search until `end` on a path that passes `limit` bytes, and doubts it each second if
    /// `lossy`; notes what it says to have shrunk to.
    fn run(search: &mut MtuSearch, span: (u64, u64), limit: u16, lossy: bool) -> Vec<Option<u16>> {
        let mut said = vec![search.shrunk_to()];
        for ms in (span.0 * 1_000..span.1 * 1_000).step_by(50) {
            let now = Instant::from_micros(ms * 1_000);
            if lossy && ms % 1_000 == 0 {
                search.doubt(now);
            }
            let size = search.poll_probe(now, Duration::from_millis(50));
            if let Some(size) = size.filter(|size| *size <= limit) {
                search.on_ack(now, size);
            }
            if said.last() != Some(&search.shrunk_to()) {
                said.push(search.shrunk_to());
            }
        }
        said
    }

    #[test]
    fn a_black_hole_that_stays_is_told_once() {
        let mut search = MtuSearch::new(Instant::ZERO, 1232, 1472);
        assert_eq!(run(&mut search, (0, 1), 1472, false), [None]);
        let said = run(&mut search, (1, 2_000), 1300, false);
        assert!(matches!(said[..], [None, Some(1292..=1300)]), "{said:?}");
        assert_eq!(run(&mut search, (2_000, 2_700), 1472, false).last(), Some(&None));
    }

    #[test]
    fn sizes_lost_by_chance_are_no_black_hole_for_long() {
        let mut search = MtuSearch::new(Instant::ZERO, 1232, 1472);
        run(&mut search, (0, 1), 1472, false);
        // The confirmations alone are lost: the search ends just below.
        search.doubt(Instant::from_micros(1_000_000));
        for at in 0..4 {
            let now = Instant::from_micros(1_000_000 + at * 50_000);
            assert_eq!(search.poll_probe(now, Duration::from_millis(50)), Some(1472));
        }
        let said = run(&mut search, (2, 10), 1471, false);
        assert!(search.proven() < 1472);
        assert_eq!(said, [None]);
        // What is lost for half a minute is tried again within two.
        run(&mut search, (10, 40), 1300, true);
        assert!(search.proven() <= 1300);
        assert_eq!(run(&mut search, (40, 165), 1472, false).last(), Some(&None));
        assert_eq!(search.proven(), 1472);
    }

    proptest! {
        #[test]
        fn settles_just_below_the_limit(limit in 1232u16..1600) {
            let mut search = MtuSearch::new(Instant::ZERO, 1232, 1472);
            let end = settle(&mut search, limit, Instant::ZERO);
            let best = limit.min(1472);
            prop_assert!(search.proven() <= best && search.proven() + STEP >= best);
            prop_assert!(end - Instant::ZERO < Duration::from_secs(4));
        }
    }
}
