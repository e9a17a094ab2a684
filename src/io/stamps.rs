//! From the kernel's receive timestamps, which are calendar time, to our clock.

use std::time::Duration;

use super::clock::Clock;
use crate::time::Instant;

/// Both clocks, read as near to each other as can be.
#[derive(Clone, Copy, Debug)]
struct Reading {
    before: Instant,
    /// Nanoseconds since 1970.
    calendar: i64,
    after: Instant,
}

/// Turns timestamps into instants.
///
/// Calendar and monotonic clock run at one pace; only a step of the calendar changes their
/// distance. Since nobody knows whether a timestamp is from before or after a step, all of them are
/// disregarded for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    clock: Clock,
    /// Calendar time at [`Instant::ZERO`], in nanoseconds since 1970.
    epoch: Option<i64>,
    /// When the clocks were last read.
    read_at: Instant,
    /// No timestamp is believed before.
    believed_from: Instant,
    /// Whether the clocks could be read for the datagrams at hand; `None` before the first of them.
    read: Option<bool>,
}

impl Stamps {
    /// Readings further apart than this say nothing: something else ran between them.
    const APART: Duration = Duration::from_micros(50);
    const READINGS_MAX: usize = 3;
    /// What two readings of an unchanged distance differ by at most.
    const STEP: u64 = 2 * Self::APART.as_nanos() as u64;
    /// Longer than a datagram waits in a socket.
    const DISBELIEF: Duration = Duration::from_secs(1);

    pub(crate) const fn new(clock: Clock) -> Self {
        let zero = Instant::ZERO;
        Self { clock, epoch: None, read_at: zero, believed_from: zero, read: None }
    }

    /// What comes from now on was just taken from a socket.
    pub(crate) const fn begin(&mut self) {
        self.read = None;
    }

    /// When a datagram with this timestamp came, in nanoseconds since 1970. `None` when the
    /// calendar cannot be relied on.
    pub(crate) fn place(&mut self, stamp: i64) -> Option<Instant> {
        let read = self.read.unwrap_or_else(|| {
            let clock = self.clock;
            self.read_clocks(std::iter::repeat_with(|| {
                let (before, calendar, after) = clock.reading();
                Reading { before, calendar: calendar.0 as i64, after }
            }))
        });
        if read { self.convert(stamp) } else { None }
    }

    /// Settles the first reading that is near enough. Without one a step of the calendar may have
    /// gone unseen, and nothing of this time is believed. Says whether there was one.
    fn read_clocks(&mut self, readings: impl Iterator<Item = Reading>) -> bool {
        let near = readings
            .take(Self::READINGS_MAX)
            .find(|reading| reading.after.saturating_since(reading.before) <= Self::APART);
        if let Some(reading) = near {
            self.settle(reading);
        }
        self.read = Some(near.is_some());
        near.is_some()
    }

    /// Learns the distance of the clocks; notes when it has changed.
    fn settle(&mut self, reading: Reading) {
        let epoch = reading.calendar - nanos(reading.after);
        self.read_at = reading.after;
        match self.epoch {
            Some(old) if epoch.abs_diff(old) <= Self::STEP => {}
            old => {
                self.epoch = Some(epoch);
                if old.is_some() {
                    self.believed_from = reading.after + Self::DISBELIEF;
                }
            }
        }
    }

    fn convert(&self, stamp: i64) -> Option<Instant> {
        let since = u64::try_from(stamp.saturating_sub(self.epoch?)).ok()?;
        let at = Instant::from_micros(since / 1_000);
        let believed = self.read_at >= self.believed_from
            && self.read_at.saturating_since(at) <= Self::DISBELIEF;
        believed.then_some(at)
    }
}

const fn nanos(at: Instant) -> i64 {
    (at.as_micros() * 1_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallClock;

    const SECOND: i64 = 1_000_000_000;
    const EPOCH: i64 = 1_700_000_000 * SECOND;

    fn stamps() -> Stamps {
        Stamps::new(Clock::new(WallClock(0)))
    }

    /// A reading at so many microseconds, of a calendar that is `off` nanoseconds ahead.
    fn reading(micros: u64, off: i64) -> Reading {
        let at = Instant::from_micros(micros);
        Reading { before: at, calendar: EPOCH + nanos(at) + off, after: at }
    }

    #[test]
    fn a_timestamp_becomes_the_instant_of_its_arrival() {
        let mut stamps = stamps();
        assert_eq!(stamps.convert(EPOCH), None);
        stamps.settle(reading(5_000_000, 0));
        let at = stamps.convert(EPOCH + 4 * SECOND + 999_999_000);
        assert_eq!(at, Some(Instant::from_micros(4_999_999)));
        // Noise of the readings is no step.
        stamps.settle(reading(6_000_000, 40_000));
        let at = stamps.convert(EPOCH + 6 * SECOND);
        assert_eq!(at, Some(Instant::from_micros(6_000_000)));
    }

    #[test]
    fn after_a_step_of_the_calendar_nothing_is_believed_for_a_second() {
        for step in [3_600 * SECOND, -3_600 * SECOND, 5_000_000, -5_000_000] {
            let mut stamps = stamps();
            stamps.settle(reading(5_000_000, 0));
            stamps.settle(reading(6_000_000, step));
            // One from before the step, and one from behind it.
            assert_eq!(stamps.convert(EPOCH + 5 * SECOND + 999_000_000), None, "{step}");
            assert_eq!(stamps.convert(EPOCH + 6 * SECOND + step), None, "{step}");
            stamps.settle(reading(7_500_000, step));
            let at = stamps.convert(EPOCH + 7 * SECOND + 400_000_000 + step);
            assert_eq!(at, Some(Instant::from_micros(7_400_000)), "{step}");
        }
    }

    #[test]
    fn without_a_near_reading_nothing_is_believed() {
        let mut stamps = stamps();
        assert!(stamps.read_clocks([reading(5_000_000, 0)].into_iter()));
        let stamp = EPOCH + 4 * SECOND + 999_000_000;
        assert!(stamps.place(stamp).is_some());
        stamps.begin();
        let far = Reading { before: Instant::from_micros(5_000_000), ..reading(5_001_000, 0) };
        assert!(!stamps.read_clocks(std::iter::repeat(far)));
        assert_eq!(stamps.place(stamp), None);
        stamps.begin();
        assert!(stamps.read_clocks([far, reading(5_002_000, 0)].into_iter()));
        assert!(stamps.place(stamp).is_some());
    }

    #[test]
    fn a_stamp_from_long_before_the_reading_is_none() {
        let mut stamps = stamps();
        stamps.settle(reading(5_000_000_000, 0));
        assert_eq!(stamps.convert(EPOCH + 1_400 * SECOND), None);
        assert_eq!(stamps.convert(EPOCH + 4_998 * SECOND), None);
        let at = stamps.convert(EPOCH + 4_999 * SECOND);
        assert_eq!(at, Some(Instant::from_micros(4_999_000_000)));
    }

    #[test]
    fn a_stamp_from_before_the_start_of_the_clock_is_none() {
        let mut stamps = stamps();
        stamps.settle(reading(5_000_000, 0));
        assert_eq!(stamps.convert(EPOCH - 1), None);
        assert_eq!(stamps.convert(i64::MIN / 2), None);
    }
}
