//! The sending side: window, timer, repetition.

use std::ops::Range;
use std::time::Duration;

use crate::time::Instant;

/// RFC 6298 section 2; the least one is that of Linux.
const RTO_FIRST: Duration = Duration::from_secs(1);
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(60);
/// RFC 6928.
const INITIAL_SEGMENTS: u64 = 10;
/// What the receiver has room for: no window scaling.
const WINDOW: u64 = 65_535;
const DUPLICATES: u32 = 3;

/// Reno (RFC 5681) with partial acknowledgements (RFC 6582). Places are bytes of the stream; what is
/// to be sent is told as ranges of it.
#[derive(Debug)]
pub(super) struct Sender {
    mss: u64,
    /// The first byte that is not acknowledged, the next one to send, and the first never sent.
    una: u64,
    next: u64,
    fresh: u64,
    cwnd: u64,
    ssthresh: u64,
    duplicates: u32,
    /// Fast recovery lasts until this is acknowledged.
    recover: Option<u64>,
    /// Until this is acknowledged, duplicates are echoes of what a time-out repeated.
    echoes_until: u64,
    smoothed: Option<(Duration, Duration)>,
    rto: Duration,
    timer: Option<Instant>,
    /// The segment that is timed: its end, and when it left.
    timed: Option<(u64, Instant)>,
    pub(super) timeouts: u64,
    pub(super) repeated: u64,
}

impl Sender {
    /// Nothing is sent yet.
    pub(super) const fn new() -> Self {
        Self {
            mss: super::segment::MSS as u64,
            una: 0,
            next: 0,
            fresh: 0,
            cwnd: 0,
            ssthresh: u64::MAX,
            duplicates: 0,
            recover: None,
            echoes_until: 0,
            smoothed: None,
            rto: RTO_FIRST,
            timer: None,
            timed: None,
            timeouts: 0,
            repeated: 0,
        }
    }

    /// The handshake is done: data may flow, in segments of at most so many bytes.
    pub(super) fn begin(&mut self, mss: u16) {
        self.mss = u64::from(mss.clamp(64, super::segment::MSS));
        self.cwnd = INITIAL_SEGMENTS * self.mss;
        (self.timer, self.rto) = (None, RTO_FIRST);
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.timer
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.una
    }

    /// No byte from here on was ever sent.
    pub(super) const fn fresh(&self) -> u64 {
        self.fresh
    }

    pub(super) const fn mss(&self) -> u64 {
        self.mss
    }

    /// True when the window lets more through.
    pub(super) fn has_room(&self) -> bool {
        self.next < self.una + self.cwnd.min(WINDOW)
    }

    /// The next byte that is to be sent.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The timer of a handshake or of data.
    pub(super) fn arm(&mut self, now: Instant) {
        self.timer = Some(now + self.rto);
    }

    /// The timer is due: it waits twice as long then.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.timeouts += 1;
        self.rto = (self.rto * 2).min(RTO_MAX);
        self.arm(now);
    }

    /// All that may be sent of a stream that has `written` bytes so far.
    pub(super) fn send(&mut self, now: Instant, written: u64, out: &mut Vec<Range<u64>>) {
        while self.next < written && self.has_room() {
            // Whole segments only, unless the stream ends there.
            let end = written.min(self.next + self.mss);
            self.put(now, self.next..end, out);
            self.next = end;
        }
    }

    fn put(&mut self, now: Instant, range: Range<u64>, out: &mut Vec<Range<u64>>) {
        if range.start < self.fresh {
            self.repeated += 1;
            // Karn: what was sent twice is not timed.
            self.timed = None;
        } else if self.timed.is_none() {
            self.timed = Some((range.end, now));
        }
        self.fresh = self.fresh.max(range.end);
        if self.timer.is_none() {
            self.arm(now);
        }
        out.push(range);
    }

    /// Everything before `ack` arrived.
    pub(super) fn on_ack(&mut self, now: Instant, ack: u64, out: &mut Vec<Range<u64>>) {
        if ack > self.fresh || ack < self.una {
            return;
        }
        if ack == self.una {
            return self.on_duplicate(now, out);
        }
        if let Some((_, sent)) = self.timed.take_if(|(end, _)| *end <= ack) {
            self.measure(now - sent);
        }
        let acknowledged = ack - self.una;
        self.una = ack;
        self.next = self.next.max(ack);
        self.duplicates = 0;
        match self.recover {
            Some(recover) if ack >= recover => {
                self.recover = None;
                self.cwnd = self.ssthresh;
            }
            Some(_) => {
                self.cwnd = self.cwnd.saturating_sub(acknowledged).max(self.mss) + self.mss;
                self.repeat_first(now, out);
            }
            None if self.cwnd < self.ssthresh => self.cwnd += acknowledged.min(self.mss),
            None => self.cwnd += (self.mss * self.mss / self.cwnd).max(1),
        }
        self.cwnd = self.cwnd.min(2 * WINDOW);
        self.timer = None;
        if self.una < self.fresh {
            self.arm(now);
        }
    }

    fn on_duplicate(&mut self, now: Instant, out: &mut Vec<Range<u64>>) {
        if self.una == self.fresh {
            return;
        }
        self.duplicates += 1;
        if self.recover.is_some() {
            self.cwnd = (self.cwnd + self.mss).min(2 * WINDOW);
        } else if self.duplicates == DUPLICATES && self.una >= self.echoes_until {
            self.halve();
            self.recover = Some(self.fresh);
            self.cwnd = self.ssthresh + u64::from(DUPLICATES) * self.mss;
            self.repeat_first(now, out);
        }
    }

    fn repeat_first(&mut self, now: Instant, out: &mut Vec<Range<u64>>) {
        let end = self.fresh.min(self.una + self.mss);
        self.put(now, self.una..end, out);
        self.arm(now);
    }

    fn halve(&mut self) {
        self.ssthresh = ((self.fresh - self.una) / 2).max(2 * self.mss);
    }

    /// The timer is due while data is under way: begins again with what is not acknowledged.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        self.halve();
        self.cwnd = self.mss;
        self.next = self.una;
        (self.recover, self.duplicates, self.timed) = (None, 0, None);
        self.echoes_until = self.fresh;
        self.back_off(now);
    }

    fn measure(&mut self, sample: Duration) {
        let (mean, variation) = match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, variation)) => {
                let off = mean.abs_diff(sample);
                ((mean * 7 + sample) / 8, (variation * 3 + off) / 4)
            }
        };
        self.smoothed = Some((mean, variation));
        self.rto = (mean + variation * 4).clamp(RTO_MIN, RTO_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1_000_000 + ms * 1_000)
    }

    /// Ten segments are under way.
    fn begun() -> Sender {
        let mut sender = Sender::new();
        sender.begin(MSS as u16);
        let mut out = Vec::new();
        sender.send(at(0), 1 << 30, &mut out);
        assert_eq!(out.len(), 10);
        assert_eq!((out[0].clone(), sender.fresh()), (0..MSS, 10 * MSS));
        sender
    }

    fn ack(sender: &mut Sender, ms: u64, ack: u64) -> Vec<Range<u64>> {
        let mut out = Vec::new();
        sender.on_ack(at(ms), ack, &mut out);
        sender.send(at(ms), 1 << 30, &mut out);
        out
    }

    #[test]
    fn slow_start_sends_two_segments_for_each_one_that_arrived() {
        let mut sender = begun();
        assert_eq!(ack(&mut sender, 50, MSS), [10 * MSS..11 * MSS, 11 * MSS..12 * MSS]);
        // A round trip of 50 ms: the timer is at its least.
        assert_eq!(sender.deadline(), Some(at(250)));
    }

    #[test]
    fn the_third_duplicate_repeats_the_first_segment_and_halves_the_window() {
        let mut sender = begun();
        ack(&mut sender, 50, MSS);
        assert_eq!(ack(&mut sender, 51, MSS), []);
        assert_eq!(ack(&mut sender, 52, MSS), []);
        assert_eq!(ack(&mut sender, 53, MSS).first(), Some(&(MSS..2 * MSS)));
        assert_eq!(sender.ssthresh, 11 * MSS / 2);
        // A partial acknowledgement shows the next hole.
        assert_eq!(ack(&mut sender, 100, 4 * MSS)[0], 4 * MSS..5 * MSS);
        assert!(sender.recover.is_some());
        ack(&mut sender, 150, 12 * MSS);
        assert_eq!((sender.recover, sender.cwnd), (None, 11 * MSS / 2));
        assert_eq!((sender.timeouts, sender.repeated), (0, 2));
    }

    #[test]
    fn silence_repeats_everything_ever_more_slowly() {
        let mut sender = begun();
        let mut due = Vec::new();
        for _ in 0..8 {
            let at = sender.deadline().unwrap();
            due.push(at);
            sender.on_timeout(at);
            let mut out = Vec::new();
            sender.send(at, 1 << 30, &mut out);
            assert_eq!((out.len(), out.first()), (1, Some(&(0..MSS))));
        }
        let pauses: Vec<_> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        // What was sent twice tells no time.
        ack(&mut sender, 300_000, MSS);
        assert_eq!(sender.smoothed, None);
        assert_eq!(ack(&mut sender, 300_001, MSS), []);
        assert_eq!(ack(&mut sender, 300_001, MSS), []);
        assert_eq!(ack(&mut sender, 300_001, MSS), [], "echoes are no loss");
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut sender = begun();
        assert_eq!(ack(&mut sender, 50, 11 * MSS), []);
        assert_eq!(sender.acknowledged(), 0);
    }
}
