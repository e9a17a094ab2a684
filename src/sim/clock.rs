//! A node's own notion of time, which need not be anybody else's.

use crate::time::Instant;

/// How a node's clocks differ from the true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Where its monotonic clock stands at the beginning, microseconds.
    pub offset_us: u64,
    /// How much too fast it runs, parts per million.
    pub drift_ppm: i32,
    /// How much its calendar is ahead, nanoseconds.
    pub wall_ahead_ns: i64,
}

impl Clock {
    const MILLION: i128 = 1_000_000;

    /// What the node's clock shows.
    pub fn local(&self, now: Instant) -> Instant {
        if self.drift_ppm == 0 {
            return Instant::from_micros(now.as_micros().saturating_add(self.offset_us));
        }
        let now = i128::from(now.as_micros());
        let drift = now * i128::from(self.drift_ppm) / Self::MILLION;
        let local = now + drift + i128::from(self.offset_us);
        Instant::from_micros(u64::try_from(local).unwrap_or(0))
    }

    /// The first true instant at which the node's clock shows `local` or more.
    pub fn global(&self, local: Instant) -> Instant {
        if self.drift_ppm == 0 {
            return Instant::from_micros(local.as_micros().saturating_sub(self.offset_us));
        }
        let since = i128::from(local.as_micros()) - i128::from(self.offset_us);
        let guess = since * Self::MILLION / (Self::MILLION + i128::from(self.drift_ppm));
        let mut global = Instant::from_micros(u64::try_from(guess - 2).unwrap_or(0));
        while self.local(global) < local {
            global = Instant::from_micros(global.as_micros() + 1);
        }
        global
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_hardly_late() {
        for drift_ppm in [-500, -1, 0, 1, 300] {
            let clock = Clock { offset_us: 77_000_000, drift_ppm, wall_ahead_ns: 0 };
            for us in [78_000_000, 1_000_000_007, 86_400_000_000_001] {
                let due = Instant::from_micros(us);
                let at = clock.global(due);
                assert!(clock.local(at) >= due);
                assert!(clock.local(at).as_micros() - us <= 1, "{drift_ppm} {us}");
            }
        }
        let fast = Clock { drift_ppm: 100, ..Clock::default() };
        assert_eq!(fast.local(Instant::from_micros(10_000_000)).as_micros(), 10_001_000);
    }
}
