//! Traffic on a path whose arrival was not reported yet, and when that becomes suspicious.

use std::time::Duration;

use crate::time::Instant;

/// When traffic was sent on one path that no report of the receiver covers yet.
///
/// A report that counts more than the one before proves that what was sent a round trip ago came
/// through. How long such a proof takes beyond the round trip depends on how often the receiver has
/// something to report with, so it is learned: its mean and deviation, like a retransmission
/// time-out (RFC 6298). The silence is suspicious when it lasts longer than that allows.
#[derive(Clone, Debug)]
pub struct Outstanding {
    /// A ring of sending times, oldest at `first`; none before the path carries traffic, which
    /// most never do.
    marks: Option<Box<[Instant; Self::MARKS]>>,
    first: usize,
    count: usize,
    delay_us: f64,
    deviation_us: f64,
    /// Until then a volley of ours holds up what is sent.
    excused_until: Instant,
}

impl Default for Outstanding {
    fn default() -> Self {
        Self::new()
    }
}

impl Outstanding {
    const MARKS: usize = 32;
    /// Sending times closer than this count as one.
    const SPACING: Duration = Duration::from_millis(5);
    /// What is expected before anything was learned: the longest pause between two reports.
    const FIRST_DELAY_US: f64 = 100_000.0;
    /// Least slack beyond the time in which one report may be lost: scheduling on both ends.
    const MIN_SLACK_US: f64 = 10_000.0;
    /// Longest wait beyond the round trip.
    const MAX_WAIT_US: f64 = 500_000.0;

    /// Nothing sent.
    pub const fn new() -> Self {
        Self {
            marks: None,
            first: 0,
            count: 0,
            delay_us: Self::FIRST_DELAY_US,
            deviation_us: Self::FIRST_DELAY_US / 4.0,
            excused_until: Instant::ZERO,
        }
    }

    /// A volley leaves that may fill a queue until then: nobody waits for what is sent meanwhile.
    pub fn excuse(&mut self, until: Instant) {
        self.excused_until = self.excused_until.max(until);
    }

    /// A train of data leaves on the path.
    pub fn on_sent(&mut self, now: Instant) {
        if now < self.excused_until {
            return;
        }
        let newest = self.count.checked_sub(1).map(|last| self.at(last));
        let near = newest.is_some_and(|newest| now - newest < Self::SPACING);
        if self.count < Self::MARKS && !near {
            let marks = self.marks.get_or_insert_with(|| Box::new([Instant::ZERO; Self::MARKS]));
            marks[(self.first + self.count) % Self::MARKS] = now;
            self.count += 1;
        }
    }

    /// Since when traffic waits to be covered.
    pub fn oldest(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.at(0))
    }

    /// A report says that more has arrived, and so covers what was sent until `covered`: a round trip
    /// ago, or earlier if more is known.
    pub fn on_growth(&mut self, now: Instant, rtt: Duration, covered: Instant) {
        if let Some(oldest) = self.oldest()
            && oldest <= covered
        {
            let sample = (now.before(rtt) - oldest).as_micros() as f64;
            let error = (sample - self.delay_us).abs();
            self.deviation_us += (error - self.deviation_us) / 4.0;
            self.delay_us += (sample - self.delay_us) / 8.0;
        }
        self.cover(covered);
    }

    /// What was sent until `covered` is known to have arrived, or to be lost.
    pub fn cover(&mut self, covered: Instant) {
        while self.count > 0 && self.at(0) <= covered {
            self.first = (self.first + 1) % Self::MARKS;
            self.count -= 1;
        }
    }

    /// When the silence becomes suspicious.
    pub fn due(&self, rtt: Duration) -> Option<Instant> {
        let due = self.oldest()? + rtt + self.wait();
        Some(due.max(self.excused_until))
    }

    /// How long a proof may take beyond the round trip. One report may be lost.
    fn wait(&self) -> Duration {
        let slack = (4.0 * self.deviation_us).max(Self::MIN_SLACK_US);
        Duration::from_micros((2.0 * self.delay_us + slack).min(Self::MAX_WAIT_US) as u64)
    }

    /// The suspicion was unfounded: the next one takes a little more.
    pub fn be_patient(&mut self) {
        self.deviation_us = (self.deviation_us * 1.5).max(Self::MIN_SLACK_US / 2.0);
    }

    /// Forgets what was sent, not what was learned.
    pub const fn clear(&mut self) {
        self.count = 0;
    }

    fn at(&self, index: usize) -> Instant {
        let at = (self.first + index) % Self::MARKS;
        self.marks.as_ref().map_or(Instant::ZERO, |marks| marks[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    const RTT: Duration = Duration::from_millis(40);

    /// A packet every 5 ms from 1 s on, reports every `pause` ms, all until `end`.
    fn steady(pause: u64, end: u64) -> Outstanding {
        let mut outstanding = Outstanding::new();
        for ms in 1_000..end {
            if ms % 5 == 0 {
                outstanding.on_sent(at(ms));
            }
            if ms % pause == 0 && ms > 1_040 {
                outstanding.on_growth(at(ms), RTT, at(ms).before(RTT));
            }
        }
        outstanding
    }

    #[test]
    fn frequent_reports_make_a_silence_suspicious_within_tens_of_milliseconds() {
        let outstanding = steady(10, 5_000);
        let due = outstanding.due(RTT).unwrap();
        assert!(due - at(5_000) < Duration::from_millis(35), "{:?}", due - at(5_000));
        let slow = steady(100, 5_000);
        let due = slow.due(RTT).unwrap();
        assert!(due - at(4_900) > Duration::from_millis(150), "one report may be lost");
        assert!(due - at(4_900) < Duration::from_millis(350), "{:?}", due - at(4_900));
    }

    #[test]
    fn nothing_is_due_when_nothing_was_sent_or_all_is_covered() {
        let mut outstanding = Outstanding::new();
        assert_eq!(outstanding.due(RTT), None);
        outstanding.on_sent(at(100));
        assert!(outstanding.due(RTT).is_some());
        outstanding.on_growth(at(139), RTT, at(139).before(RTT));
        assert!(outstanding.due(RTT).is_some(), "the report is of what was sent before");
        outstanding.on_growth(at(140), RTT, at(140).before(RTT));
        assert_eq!(outstanding.due(RTT), None);
    }

    #[test]
    fn nobody_waits_for_what_a_volley_holds_up() {
        let mut outstanding = Outstanding::new();
        outstanding.on_sent(at(100));
        outstanding.excuse(at(2_000));
        assert_eq!(outstanding.due(RTT), Some(at(2_000)));
        outstanding.cover(at(100));
        outstanding.on_sent(at(1_999));
        assert_eq!(outstanding.due(RTT), None);
        outstanding.on_sent(at(2_000));
        assert!(outstanding.due(RTT) > Some(at(2_040)));
    }

    #[test]
    fn a_full_ring_keeps_the_oldest() {
        let mut outstanding = Outstanding::new();
        for ms in 0..10_000 {
            outstanding.on_sent(at(ms));
        }
        assert_eq!(outstanding.oldest(), Some(at(0)));
        outstanding.cover(at(9_999));
        assert_eq!(outstanding.oldest(), None);
    }

    #[test]
    fn an_unfounded_suspicion_makes_patient() {
        let mut outstanding = steady(10, 5_000);
        let first = outstanding.due(RTT).unwrap();
        for _ in 0..4 {
            outstanding.be_patient();
        }
        assert!(outstanding.due(RTT).unwrap() > first);
    }
}
