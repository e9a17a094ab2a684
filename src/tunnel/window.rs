//! Which counters were seen: the anti-replay window, one for each key and path.
//!
//! A bitmap in the manner of RFC 6479: a ring of 64-bit words, of which whole words are cleared as
//! the highest counter moves on. A window of `n` bits accepts every unseen counter that is at most
//! `n - 64` below the highest. It begins small, doubles while a second's traffic exceeds it, and
//! becomes small again when idle, so that many quiet paths cost little and a fast one survives
//! heavy reordering.

use std::time::Duration;

use crate::path::PathId;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Bits of a new window.
pub(super) const BITS_MIN: usize = 1_024;
/// Bits of the largest window: 65 ms at a million datagrams a second.
pub(super) const BITS_MAX: usize = 65_536;
/// Most paths for each key: all 256 direct ones would fit, which no pair of nodes has.
pub(super) const PATHS_MAX: usize = 256;
/// A window is to hold the traffic of this time.
const SPAN: Duration = Duration::from_secs(1);
/// A window without traffic for so long becomes small again.
const IDLE: Duration = Duration::from_secs(10);

/// The counters seen of one key and path.
#[derive(Clone, Debug)]
pub(super) struct Window {
    words: Box<[u64]>,
    /// One more than the highest counter seen; zero before the first.
    top: u64,
    received: u64,
    span_began: Instant,
    span_top: u64,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        let words = vec![0; BITS_MIN / 64].into_boxed_slice();
        Self { words, top: 0, received: 0, span_began: now, span_top: 0 }
    }

    /// One more than the highest counter seen.
    pub(super) const fn expected(&self) -> u64 {
        self.top
    }

    /// How many were accepted.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn bits(&self) -> usize {
        self.words.len() * 64
    }

    /// Whether `counter` is new and not too old. Changes nothing.
    pub(super) fn check(&self, counter: u64) -> Result<(), DropReason> {
        if counter >= self.top {
            return if counter == u64::MAX { Err(DropReason::Replay) } else { Ok(()) };
        }
        let age = (self.top - 1) / 64 - counter / 64;
        if age >= self.words.len() as u64 || self.words[self.at(counter)] & bit(counter) != 0 {
            return Err(DropReason::Replay);
        }
        Ok(())
    }

    /// Marks a counter that [`Self::check`] let pass and that was authentic.
    pub(super) fn commit(&mut self, now: Instant, counter: u64) {
        if counter >= self.top {
            // Most come in order, and within a word there is nothing to clear.
            if counter == self.top && !counter.is_multiple_of(64) {
                self.top = counter + 1;
            } else {
                self.advance(counter);
                self.grow_if_fast(now);
            }
        }
        let at = self.at(counter);
        self.words[at] |= bit(counter);
        self.received += 1;
    }

    /// Gives memory back when there was no traffic for long. True when the window is still big.
    pub(super) fn shrink_if_idle(&mut self, now: Instant) -> bool {
        if self.bits() > BITS_MIN && now - self.span_began >= IDLE {
            if self.span_top == self.top {
                self.resize(BITS_MIN / 64);
            } else {
                self.begin_span(now);
            }
        }
        self.bits() > BITS_MIN
    }

    fn at(&self, counter: u64) -> usize {
        (counter / 64) as usize & (self.words.len() - 1)
    }

    fn advance(&mut self, counter: u64) {
        let first = if self.top == 0 { 0 } else { (self.top - 1) / 64 + 1 };
        let last = counter / 64;
        let count = (last + 1).saturating_sub(first).min(self.words.len() as u64);
        for word in last + 1 - count..=last {
            let at = word as usize & (self.words.len() - 1);
            self.words[at] = 0;
        }
        self.top = counter + 1;
    }

    fn grow_if_fast(&mut self, now: Instant) {
        if now - self.span_began > SPAN {
            self.begin_span(now);
        } else if self.top - self.span_top > self.bits() as u64 && self.bits() < BITS_MAX {
            self.resize(self.words.len() * 2);
        }
    }

    fn begin_span(&mut self, now: Instant) {
        self.span_began = now;
        self.span_top = self.top;
    }

    /// What the old window did not cover counts as seen.
    fn resize(&mut self, words: usize) {
        let old = std::mem::replace(&mut self.words, vec![u64::MAX; words].into_boxed_slice());
        let Some(last) = self.top.checked_sub(1).map(|highest| highest / 64) else {
            self.words.fill(0);
            return;
        };
        let kept = old.len().min(words) as u64;
        for word in (last + 1).saturating_sub(kept)..=last {
            self.words[word as usize & (words - 1)] = old[word as usize & (old.len() - 1)];
        }
    }
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

/// The windows of one key, by path.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    /// Sorted by path.
    entries: Vec<(PathId, Window)>,
    /// Where the last one was found: trains come on one path.
    hint: usize,
}

impl Windows {
    fn find(&self, path: PathId) -> Result<usize, usize> {
        match self.entries.get(self.hint) {
            Some(entry) if entry.0 == path => Ok(self.hint),
            _ => self.entries.binary_search_by_key(&path, |entry| entry.0),
        }
    }

    /// Whether `counter` is new on `path`. Changes nothing.
    pub(super) fn check(&self, path: PathId, counter: u64) -> Result<(), DropReason> {
        match self.find(path) {
            Ok(at) => self.entries[at].1.check(counter),
            Err(_) if counter == u64::MAX => Err(DropReason::Replay),
            Err(_) => Ok(()),
        }
    }

    /// Marks a counter that was authentic, on a path that may be new.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        path: PathId,
        counter: u64,
    ) -> Result<(), DropReason> {
        let at = match self.find(path) {
            Ok(at) => at,
            Err(_) if self.entries.len() >= PATHS_MAX => return Err(DropReason::TooManyPaths),
            Err(at) => {
                self.entries.reserve_exact(1);
                self.entries.insert(at, (path, Window::new(now)));
                at
            }
        };
        self.hint = at;
        self.entries[at].1.commit(now, counter);
        Ok(())
    }

    pub(super) fn get(&self, path: PathId) -> Option<&Window> {
        self.find(path).ok().map(|at| &self.entries[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathId, &Window)> + '_ {
        self.entries.iter().map(|(path, window)| (*path, window))
    }

    /// True when some window is still big.
    pub(super) fn shrink_idle(&mut self, now: Instant) -> bool {
        let mut big = false;
        for (_, window) in &mut self.entries {
            big |= window.shrink_if_idle(now);
        }
        big
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn accept(window: &mut Window, now: Instant, counter: u64) -> bool {
        let new = window.check(counter).is_ok();
        if new {
            window.commit(now, counter);
        }
        new
    }

    #[test]
    fn each_counter_passes_once_in_any_order() {
        let mut window = Window::new(at(0));
        for counter in [0, 5, 3, 64, 63, 900, 1, 2, 4] {
            assert!(accept(&mut window, at(0), counter), "{counter}");
            assert!(!accept(&mut window, at(0), counter), "{counter}");
        }
        assert_eq!((window.expected(), window.received()), (901, 9));
    }

    #[test]
    fn too_old_and_last_possible_counters_are_refused() {
        let mut window = Window::new(at(0));
        assert!(accept(&mut window, at(0), 10_000));
        assert!(accept(&mut window, at(0), 10_000 - 960));
        assert!(!accept(&mut window, at(0), 10_000 - 1_024));
        assert!(!accept(&mut window, at(0), u64::MAX));
        assert!(accept(&mut window, at(0), u64::MAX - 1));
        assert!(!accept(&mut window, at(0), 9_999));
    }

    #[test]
    fn a_window_grows_with_traffic_and_shrinks_when_idle() {
        let mut window = Window::new(at(0));
        for counter in 0..200_000 {
            window.commit(at(counter / 200), counter);
        }
        assert_eq!(window.bits(), BITS_MAX);
        assert!(window.check(199_999 - 50_000).is_err(), "seen");
        let mut early = window.clone();
        assert!(accept(&mut early, at(1_000), 250_000));
        assert!(accept(&mut early, at(1_000), 200_100), "a hole in a big window");
        window.shrink_if_idle(at(11_500));
        assert!(window.shrink_if_idle(at(11_900)));
        assert!(!window.shrink_if_idle(at(22_000)));
        assert_eq!(window.bits(), BITS_MIN);
        assert!(window.check(199_999).is_err() && window.check(150_000).is_err());
        assert!(window.check(200_000).is_ok());
    }

    #[test]
    fn what_shares_its_place_with_newer_counters_is_too_old() {
        let bits = BITS_MIN as u64;
        let mut window = Window::new(at(0));
        for (counter, second) in [(0, 0), (70, 2), (bits + 69, 4)] {
            window.commit(at(second * 1_000), counter);
        }
        assert_eq!(window.bits(), BITS_MIN, "slow traffic");
        // Seen, and unseen, a whole window before the newest word; then the oldest that counts.
        for counter in [0, 1, 63, 64, 69, 70, 127] {
            assert_eq!(window.check(counter), Err(DropReason::Replay), "{counter}");
        }
        assert_eq!(window.check(128), Ok(()));
    }

    #[test]
    fn slow_traffic_keeps_a_window_small() {
        let mut window = Window::new(at(0));
        for counter in 0..5_000 {
            window.commit(at(counter * 2), counter);
        }
        assert_eq!(window.bits(), BITS_MIN);
    }

    #[test]
    fn paths_have_windows_of_their_own_up_to_a_limit() {
        let mut windows = Windows::default();
        for path in 0..PATHS_MAX as u16 {
            assert_eq!(windows.commit(at(0), PathId(path), 7), Ok(()));
            assert_eq!(windows.check(PathId(path), 7), Err(DropReason::Replay));
            assert_eq!(windows.check(PathId(path), 8), Ok(()));
        }
        let one_more = windows.commit(at(0), PathId(0x8000), 0);
        assert_eq!(one_more, Err(DropReason::TooManyPaths));
        assert_eq!(windows.commit(at(0), PathId(3), 8), Ok(()));
    }

    /// Every counter that was ever seen, and how big the window must be.
    struct Model {
        seen: BTreeSet<u64>,
        bits: u64,
        /// What was not covered when the size changed is not known any more.
        forgotten: u64,
        /// When the traffic began to be counted, in milliseconds, and at which counter.
        since: (u64, u64),
    }

    impl Default for Model {
        fn default() -> Self {
            Self { seen: BTreeSet::new(), bits: 1_024, forgotten: 0, since: (0, 0) }
        }
    }

    impl Model {
        /// One more than the highest counter seen.
        fn next(&self) -> u64 {
            self.seen.last().map_or(0, |highest| highest + 1)
        }

        /// The oldest counter that so many bits cover: whole words of 64, the newest one included.
        fn covered(&self, bits: u64) -> u64 {
            ((self.next().max(1) - 1) / 64 * 64 + 64).saturating_sub(bits)
        }

        fn accept(&mut self, now_ms: u64, counter: u64) -> bool {
            let oldest = self.covered(self.bits).max(self.forgotten);
            if self.seen.contains(&counter) || counter < oldest {
                return false;
            }
            let next = self.next();
            self.seen.insert(counter);
            // The traffic is looked at when a word is full, and when counters are missing.
            if counter > next || counter == next && counter.is_multiple_of(64) {
                if now_ms - self.since.0 > 1_000 {
                    self.since = (now_ms, counter + 1);
                } else if counter + 1 - self.since.1 > self.bits && self.bits < 65_536 {
                    self.resize(self.bits * 2);
                }
            }
            true
        }

        /// Small again after ten seconds in which nothing new came.
        fn shrink(&mut self, now_ms: u64) {
            if self.bits == 1_024 || now_ms - self.since.0 < 10_000 {
                return;
            }
            if self.since.1 == self.next() {
                self.resize(1_024);
            } else {
                self.since = (now_ms, self.next());
            }
        }

        fn resize(&mut self, bits: u64) {
            self.forgotten = self.forgotten.max(self.covered(self.bits.min(bits)));
            self.bits = bits;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a set of all counters seen: none passes twice, and a new one is refused only
        /// when it is too old for the size that the window must have by now.
        #[test]
        fn agrees_with_a_set(
            steps in prop::collection::vec((0u64..40, 0u64..3_000, 0u64..40), 1..600)
        ) {
            let mut window = Window::new(at(0));
            let mut model = Model::default();
            let mut now_ms = 0;
            for (kind, offset, wait_ms) in steps {
                now_ms += if kind == 0 { wait_ms * 400 } else { wait_ms };
                if kind < 3 {
                    model.shrink(now_ms);
                    let big = window.shrink_if_idle(at(now_ms));
                    prop_assert_eq!(big, model.bits > 1_024);
                }
                let top = model.seen.last().copied().unwrap_or(0u64);
                let counter = match kind % 5 {
                    0 => top + 1,
                    1 => top + offset,
                    2 => top.saturating_sub(offset / 8),
                    3 => top.saturating_sub(offset),
                    _ => top.saturating_sub(offset * 24),
                };
                let accepted = accept(&mut window, at(now_ms), counter);
                prop_assert_eq!(
                    accepted, model.accept(now_ms, counter),
                    "{} at {} ms, highest {}, {} bits", counter, now_ms, top, model.bits
                );
                prop_assert_eq!(window.bits() as u64, model.bits);
            }
            prop_assert_eq!(window.received(), model.seen.len() as u64);
            prop_assert_eq!(window.expected(), model.seen.last().map_or(0, |top| top + 1));
        }
    }
}
