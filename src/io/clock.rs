//! The only clock.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::time::{Instant, WallClock};

/// Reads the host's clocks.
///
/// The monotonic one is `CLOCK_BOOTTIME`, so that time spent in suspend counts: keys age and
/// neighbours forget us while we sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    id: ClockId,
    /// Calendar time at `started`; never behind what a predecessor used.
    wall_floor: WallClock,
    started: Instant,
}

impl Clock {
    /// A clock whose calendar never reads less than `wall_floor`.
    pub(crate) fn new(wall_floor: WallClock) -> Self {
        let boottime = ClockId::CLOCK_BOOTTIME;
        let id = if clock_gettime(boottime).is_ok() { boottime } else { ClockId::CLOCK_MONOTONIC };
        let mut clock = Self { id, wall_floor, started: Instant::ZERO };
        clock.started = clock.now();
        clock
    }

    /// The clock to arm a timer with.
    pub(crate) fn is_boottime(&self) -> bool {
        self.id == ClockId::CLOCK_BOOTTIME
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(read(self.id).as_micros() as u64)
    }

    /// The monotonic clock, the calendar as it is, and the monotonic clock again.
    pub(crate) fn reading(&self) -> (Instant, WallClock, Instant) {
        let before = self.now();
        let calendar = WallClock(read(ClockId::CLOCK_REALTIME).as_nanos() as u64);
        (before, calendar, self.now())
    }

    /// Calendar time, but growing at least as fast as `now` from the floor on: a calendar that was
    /// set back must not make our handshakes look replayed.
    pub(crate) fn wall(&self, now: Instant) -> WallClock {
        let real = WallClock(read(ClockId::CLOCK_REALTIME).as_nanos() as u64);
        real.max(grown(self.wall_floor, now.saturating_since(self.started)))
    }
}

fn grown(floor: WallClock, elapsed: Duration) -> WallClock {
    WallClock(floor.0.saturating_add(elapsed.as_nanos() as u64))
}

/// A clock that exists cannot fail; zero would only be seen on a kernel without it.
fn read(id: ClockId) -> Duration {
    clock_gettime(id).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_never_reads_less_than_its_floor() {
        let real = Clock::new(WallClock(0));
        let now = real.now();
        let ahead = WallClock(real.wall(now).0 + 3_600_000_000_000);
        let clock = Clock::new(ahead);
        assert!(clock.wall(clock.now()) >= ahead);
        assert!(real.wall(now) < ahead);
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let clock = Clock::new(WallClock(0));
        let first = clock.now();
        assert!(clock.now() >= first && first > Instant::ZERO);
    }
}
