//! When a better path is better enough, and how long to stay away from one that failed.

use std::time::Duration;

use crate::metric::Liveness;
use crate::path::Path;
use crate::time::Instant;

/// By how much a challenger must beat the path in use: both parts at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// As a fraction of the cost of the path in use.
    pub relative: f64,
    /// In the unit of the metric's cost.
    pub absolute: f64,
}

impl Margin {
    /// True when `challenger` is better than `incumbent` by both parts of the margin.
    pub fn beaten(&self, incumbent: f64, challenger: f64) -> bool {
        challenger < incumbent * (1.0 - self.relative) && incumbent - challenger >= self.absolute
    }

    /// Up to this much above the best cost, relays count as equal and the node's own order of them
    /// decides. A part of the margin, so that the order alone never makes a switch.
    pub(super) fn near(&self, best: f64) -> f64 {
        (best * self.relative).min(self.absolute.max(best * self.relative / 4.0)) / 2.0
    }
}

/// When to leave a path that works for a better one.
#[derive(Clone, Copy, Debug)]
pub struct HysteresisConfig {
    /// Margin for costs in microseconds.
    pub latency: Margin,
    /// Margin for loss fractions.
    pub loss: Margin,
    /// Margin for inverse scores.
    pub throughput: Margin,
    /// For costs in microseconds a challenger must also be better by so many times its own jitter
    /// and half of that of the path in use.
    pub jitter: f64,
    /// After a switch, no other one without need for so long.
    pub hold_down: Duration,
}

impl Default for HysteresisConfig {
    fn default() -> Self {
        Self {
            latency: Margin { relative: 0.10, absolute: 2_000.0 },
            loss: Margin { relative: 0.10, absolute: 0.01 },
            throughput: Margin { relative: 0.33, absolute: 0.0 },
            jitter: 1.0,
            hold_down: Duration::from_secs(5),
        }
    }
}

/// How long to stay away from a path that failed, counted from when it works again: `base` after
/// the first failure, times `factor` with each further one, `longest` at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlapConfig {
    /// After the first failure.
    pub base: Duration,
    /// Growth with each failure.
    pub factor: u32,
    /// The limit.
    pub longest: Duration,
    /// After this time without a failure all is forgiven.
    pub forget: Duration,
}

impl Default for FlapConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(5),
            factor: 4,
            longest: Duration::from_secs(120),
            forget: Duration::from_secs(300),
        }
    }
}

/// Why the path in use changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchCause {
    /// There was no path before.
    First,
    /// The path before is down, or is no path any more.
    Outage,
    /// Another path is better by the margin.
    Better,
}

impl SwitchCause {
    /// In words, for `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first path found",
            Self::Outage => "the path before failed",
            Self::Better => "better by the margin",
        }
    }
}

/// One path to one peer that failed while it was in use.
#[derive(Clone, Copy, Debug)]
struct Flap {
    path: Path,
    failures: u32,
    failed_at: Instant,
    /// Since when it works again.
    up_since: Option<Instant>,
    /// How much longer than others to stay away.
    stretch: f64,
}

/// The paths to one peer that failed while they were in use, for the back-off. Bounded: the oldest
/// failure makes room.
#[derive(Clone, Debug, Default)]
pub(super) struct FlapTable {
    flaps: Vec<Flap>,
}

impl FlapTable {
    const MAX: usize = 16;

    /// The paths that are remembered.
    pub(super) fn paths(&self) -> impl Iterator<Item = Path> {
        self.flaps.iter().map(|flap| flap.path)
    }

    /// The path in use failed. One outage counts once, whoever tells of it.
    pub(super) fn failed(&mut self, now: Instant, config: &FlapConfig, path: Path) {
        self.flaps.retain(|flap| now - flap.failed_at < config.forget);
        if self.flaps.iter().any(|flap| flap.path == path) {
            self.observe(now, config, path, Liveness::Down);
            return;
        }
        if self.flaps.len() >= Self::MAX {
            self.flaps.remove(0);
        }
        self.flaps.push(Flap { path, failures: 1, failed_at: now, up_since: None, stretch: 1.0 });
    }

    /// The path in use was left for its loss: as if it had failed, and stay away `stretch` times as
    /// long. When several demands leave it one after the other, it failed once.
    pub(super) fn left(&mut self, now: Instant, config: &FlapConfig, path: Path, stretch: f64) {
        if self.barred_until(now, config, path).is_none() {
            self.failed(now, config, path);
        }
        if let Some(flap) = self.flaps.iter_mut().find(|flap| flap.path == path) {
            flap.stretch = stretch;
        }
    }

    /// Takes note of how a path does. To be called for each candidate in each recomputation: once
    /// a path has failed in use, its further failures count although it is not in use, until it is
    /// forgiven.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        config: &FlapConfig,
        path: Path,
        state: Liveness,
    ) {
        let Some(at) = self.flaps.iter().position(|flap| flap.path == path) else { return };
        let flap = &mut self.flaps[at];
        if now - flap.failed_at >= config.forget {
            self.flaps.remove(at);
            return;
        }
        match state {
            Liveness::Up => flap.up_since = flap.up_since.or(Some(now)),
            Liveness::Suspect => {}
            Liveness::Down => {
                if flap.up_since.take().is_some() {
                    flap.failures = flap.failures.saturating_add(1);
                    flap.failed_at = now;
                }
            }
        }
    }

    /// Until when the path must not be returned to without need. `None` when it is not barred. A
    /// path that does not work yet is barred at least for its full back-off from now.
    pub(super) fn barred_until(
        &self,
        now: Instant,
        config: &FlapConfig,
        path: Path,
    ) -> Option<Instant> {
        let flap = self.flaps.iter().find(|flap| flap.path == path)?;
        if now - flap.failed_at >= config.forget {
            return None;
        }
        let growth = config.factor.saturating_pow(flap.failures.saturating_sub(1).min(30));
        let pause = config.base.saturating_mul(growth).min(config.longest).mul_f64(flap.stretch);
        let until = flap.up_since.unwrap_or(now) + pause;
        (until > now).then_some(until)
    }

    /// When a path ceases to be barred, or a failure to be remembered, although nothing else
    /// happens. What does not work yet stays barred.
    pub(super) fn next_change(&self, now: Instant, config: &FlapConfig) -> Option<Instant> {
        let ends = self.flaps.iter().flat_map(|flap| {
            let works = flap.up_since.is_some();
            let barred_until = self.barred_until(now, config, flap.path).filter(|_| works);
            [barred_until, Some(flap.failed_at + config.forget)]
        });
        ends.flatten().filter(|at| *at > now).min()
    }

    /// True when nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.flaps.is_empty()
    }

    /// Failures of the path that are remembered.
    pub(super) fn failures(&self, path: Path) -> u32 {
        self.flaps.iter().find(|flap| flap.path == path).map_or(0, |flap| flap.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerIndex;

    #[test]
    fn what_several_demands_leave_failed_once() {
        let config = FlapConfig::default();
        let (start, path) = (Instant::from_micros(1_000_000), Path::Via(PeerIndex(1)));
        let mut flaps = FlapTable::default();
        flaps.left(start, &config, path, 1.5);
        flaps.observe(start, &config, path, Liveness::Up);
        flaps.left(start + Duration::from_millis(10), &config, path, 1.5);
        assert_eq!(flaps.failures(path), 1);
    }

    #[test]
    fn both_parts_of_the_margin_must_be_met() {
        let margin = Margin { relative: 0.10, absolute: 2_000.0 };
        assert!(!margin.beaten(100_000.0, 90_000.0), "exactly ten percent is not more");
        assert!(margin.beaten(100_000.0, 89_999.0));
        assert!(!margin.beaten(10_000.0, 8_001.0), "under two milliseconds");
        assert!(margin.beaten(10_000.0, 8_000.0));
        assert!(!margin.beaten(10_000.0, 20_000.0));
    }

    #[test]
    fn near_equality_is_well_within_the_margin() {
        for margin in [
            HysteresisConfig::default().latency,
            HysteresisConfig::default().loss,
            HysteresisConfig::default().throughput,
        ] {
            for best in [0.0, 0.001, 1.0, 5_000.0, 50_000.0, 1e7] {
                assert!(!margin.beaten(best + margin.near(best), best), "{margin:?} {best}");
            }
        }
    }

    #[test]
    fn the_back_off_doubles_counts_from_recovery_and_is_forgiven() {
        let config = FlapConfig::default();
        let path = Path::Via(PeerIndex(3));
        let mut table = FlapTable::default();
        // The last failure was ten seconds before the end of the loop.
        const FORGET: Duration = Duration::from_secs(290);
        let mut now = Instant::from_micros(1_000_000);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            table.failed(now, &config, path);
            table.failed(now, &config, path);
            now += Duration::from_secs(7);
            assert!(table.barred_until(now, &config, path).is_some(), "still down");
            table.observe(now, &config, path, Liveness::Up);
            let until = table.barred_until(now, &config, path);
            assert_eq!(table.next_change(now, &config), until, "then it may be returned to");
            pauses.push((until.unwrap() - now).as_secs());
            now += Duration::from_secs(3);
        }
        assert_eq!(pauses, [5, 20, 80, 120, 120, 120, 120, 120]);
        assert_eq!(table.next_change(now + Duration::from_secs(120), &config), Some(now + FORGET));
        now += Duration::from_secs(300);
        assert_eq!(table.next_change(now, &config), None);
        assert_eq!(table.barred_until(now, &config, path), None);
        table.observe(now, &config, path, Liveness::Down);
        table.observe(now, &config, path, Liveness::Up);
        assert_eq!(table.barred_until(now, &config, path), None, "forgiven, and not in use since");
        table.failed(now, &config, path);
        assert_eq!(table.failures(path), 1);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = FlapTable::default();
        for relay in 0..1000 {
            table.failed(Instant::ZERO, &FlapConfig::default(), Path::Via(PeerIndex(relay)));
        }
        assert_eq!(table.flaps.len(), FlapTable::MAX);
        assert_eq!(table.failures(Path::Via(PeerIndex(999))), 1);
    }
}
