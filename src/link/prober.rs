//! Numbered probes, and what their answers and silence say about a path's liveness.

use std::time::Duration;

use super::flaps::FlapHistory;
use super::sent::Sent;
use super::{Estimator, Reported};
use crate::metric::{LinkReport, Liveness};
use crate::rng::Rng;
use crate::time::Instant;

/// When a [`Prober`] changes its mind.
#[derive(Clone, Copy, Debug)]
pub struct ProberConfig {
    /// Bounds of the time-out for an answer.
    pub timeout: (Duration, Duration),
    /// Consecutive misses that make an outage (the paper's number of lost probes).
    pub misses_to_down: u32,
    /// Consecutive answers that end one.
    pub answers_to_up: u32,
    /// Longest pause between probes while a path is suspect or recovering.
    pub quick: Duration,
    /// Pause between probes of a path that is down: at first, doubling, and at last. It never ends
    /// up more than twice as fast as the interval of a path that is up.
    pub down: (Duration, Duration),
    /// When a turn was late, a due answer may take so much longer, once.
    pub grace: Duration,
}

impl ProberConfig {
    /// What every node uses.
    pub const STANDARD: Self = Self {
        timeout: (Duration::from_millis(50), Duration::from_secs(1)),
        misses_to_down: 4,
        answers_to_up: 3,
        quick: Duration::from_millis(100),
        down: (Duration::from_millis(250), Duration::from_secs(2)),
        grace: Duration::from_millis(50),
    };
}

/// A probe to be sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeToSend {
    /// Its number.
    pub seq: u32,
}

/// What an answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyOutcome {
    /// The round trip; `None` for an answer to nothing we sent, or a second one.
    pub rtt: Option<Duration>,
    /// The new state, if it changed.
    pub change: Option<Liveness>,
}

/// Probes one path and judges it.
///
/// Drive it: send what [`Prober::poll_probe`] gives, hand in answers with [`Prober::on_reply`] and
/// the passing of time with [`Prober::handle_timeout`] at [`Prober::poll_timeout`]. Received
/// datagrams are handled before deadlines.
///
/// A miss, or traffic that nobody reports ([`Prober::on_silence`]), makes the path `Suspect` and
/// starts quick probes; [`ProberConfig::misses_to_down`] misses in a row, none answered since, make
/// it `Down`. An answer clears suspicion at once, but an outage only ends after
/// [`ProberConfig::answers_to_up`] answers in a row; a path that never was up needs one.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Shared: there are as many probers as paths.
    config: &'static ProberConfig,
    estimator: Estimator,
    state: Liveness,
    since: Instant,
    was_up: bool,
    interval: Duration,
    down_pause: Duration,
    last_probe: Option<Instant>,
    next_probe: Instant,
    next_seq: u32,
    sent: Sent,
    /// The first deadline of those that wait for an answer; asked for far more often than it changes.
    answer_due: Option<Instant>,
    /// When the newest was sent of all that is known to have gone there and been answered.
    proven_at: Option<Instant>,
    /// Traffic that was sent then had no report when it was due.
    silent_since: Option<Instant>,
    /// The round trip to be expected before the first answer.
    expected: Option<Duration>,
    misses: u32,
    answers: u32,
    last_heard: Option<Instant>,
    flaps: FlapHistory,
    /// Chance for the pauses. A generator that is fit for keys would be as large as all the rest.
    jitter: u64,
}

impl Prober {
    /// A path that is down is asked this soon after it was last asked, when something came from
    /// there; and so long at the quick pace after an answer.
    const LATELY: Duration = Duration::from_secs(1);
    /// Who probes a dead path is heard at least so often, unless the budget is spent.
    const HEARD: Duration = Duration::from_secs(5);

    /// A prober for a path that is not known yet. The first probe is due at once.
    pub fn new(
        now: Instant,
        config: &'static ProberConfig,
        interval: Duration,
        mut rng: Rng,
    ) -> Self {
        Self {
            config,
            estimator: Estimator::new(),
            state: Liveness::Down,
            since: now,
            was_up: false,
            interval,
            down_pause: config.down.0,
            last_probe: None,
            next_probe: now,
            next_seq: 0,
            sent: Sent::NONE,
            answer_due: None,
            proven_at: None,
            silent_since: None,
            expected: None,
            misses: 0,
            answers: 0,
            last_heard: None,
            flaps: FlapHistory::default(),
            jitter: rng.next_u64(),
        }
    }

    /// Sets the pause between probes of a path that is up. True if it is another one.
    pub fn set_interval(&mut self, now: Instant, interval: Duration) -> bool {
        if interval == self.interval {
            return false;
        }
        if interval < self.interval && self.state == Liveness::Up {
            let last = self.last_probe.unwrap_or(now);
            self.next_probe = self.next_probe.min((last + interval).max(now));
        }
        if interval < self.interval && self.state == Liveness::Down {
            let longest = self.config.down.1.max(interval / 2);
            let last = self.last_probe.unwrap_or(now);
            self.down_pause = self.down_pause.min(longest);
            self.next_probe = self.next_probe.min((last + longest).max(now));
        }
        self.interval = interval;
        true
    }

    /// The probe that is due, if one is. It counts as sent at `now`.
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeToSend> {
        (now >= self.next_probe).then(|| self.send(now))
    }

    /// A datagram leaves on this path anyway: the probe that may ride on it. That is one due within
    /// half an interval; none while the path is not up, for then probes have their own pace.
    pub fn poll_riding_probe(&mut self, now: Instant) -> Option<ProbeToSend> {
        let near = self.next_probe - now <= self.interval / 2;
        (near && self.state == Liveness::Up).then(|| self.send(now))
    }

    /// There is reason for doubt (a refused send, traffic after silence): probe now, unless the
    /// last probe is only just gone.
    pub fn probe_soon(&mut self, now: Instant) {
        let earliest = self.last_probe.map_or(now, |last| last + self.config.timeout.0);
        self.next_probe = self.next_probe.min(earliest.max(now));
    }

    /// A probe before `until` would be lost by our own fault. While the path is in doubt it is sent.
    pub fn postpone(&mut self, until: Instant) {
        if self.state == Liveness::Up {
            self.next_probe = self.next_probe.max(until);
        }
    }

    fn send(&mut self, now: Instant) -> ProbeToSend {
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        self.sent.put(seq, now, self.timeout());
        self.find_answer_due();
        self.last_probe = Some(now);
        self.next_probe = now + self.pause(now);
        ProbeToSend { seq }
    }

    /// The pause after a probe that is sent now.
    fn pause(&mut self, now: Instant) -> Duration {
        match self.state {
            Liveness::Up => self.jittered(self.interval),
            Liveness::Suspect => self.quick_pause(),
            Liveness::Down if self.answers > 0 || self.answered_lately(now) => self.quick_pause(),
            Liveness::Down => {
                let pause = self.jittered(self.down_pause);
                let longest = self.config.down.1.max(self.interval / 2);
                self.down_pause = (self.down_pause * 2).min(longest);
                pause
            }
        }
    }

    /// A lossy path that comes back misses a probe now and then.
    fn answered_lately(&self, now: Instant) -> bool {
        self.proven_at.is_some_and(|at| now - at < Self::LATELY)
    }

    fn quick_pause(&self) -> Duration {
        let waiting = self.sent.waiting.count_ones();
        let timeout = self.timeout();
        if waiting >= self.config.misses_to_down { timeout } else { timeout.min(self.config.quick) }
    }

    /// Ten percent up or down, so that probes of many paths do not fall into step.
    fn jittered(&mut self, pause: Duration) -> Duration {
        // A linear congruential generator (Knuth's MMIX); its high bits are good enough.
        let next = self.jitter.wrapping_mul(6_364_136_223_846_793_005);
        self.jitter = next.wrapping_add(1_442_695_040_888_963_407);
        pause.mul_f64(0.9 + 0.2 * f64::from((self.jitter >> 32) as u32) / f64::from(u32::MAX))
    }

    fn timeout(&self) -> Duration {
        let (least, most) = self.config.timeout;
        let unmeasured = || self.expected.map(|rtt| rtt * 2 + self.config.grace);
        let timeout = self.estimator.timeout().or_else(unmeasured);
        timeout.map_or(most, |timeout| timeout.clamp(least, most))
    }

    /// What others say the round trip is: until the first answer, silence is judged by it.
    pub const fn expect_rtt(&mut self, rtt: Duration) {
        self.expected = Some(rtt);
    }

    /// True once the path was seen to work, or probed in vain so often that it is known not to.
    pub fn is_judged(&self) -> bool {
        self.estimator.rtt().is_some() || self.misses >= self.config.misses_to_down
    }

    /// An authentic datagram came in on this path. It shows one direction only, so it neither
    /// clears suspicion nor ends an outage; but who can be heard may be reached again.
    pub fn on_receive(&mut self, now: Instant) {
        self.last_heard = Some(now);
        if self.state == Liveness::Down {
            let earliest = self.last_probe.map_or(now, |last| last + Self::LATELY);
            self.next_probe = self.next_probe.min(earliest.max(now));
        }
    }

    /// The other end's report on our traffic since its last one. What an outage swallowed does not
    /// count.
    pub fn on_traffic_report(&mut self, now: Instant, reported: &Reported) {
        if self.state != Liveness::Down {
            self.estimator.on_traffic(now, reported);
        }
    }

    /// An authentic answer: `sent_at` is our own time in it, `hold` how long the other end kept it.
    pub fn on_reply(
        &mut self,
        now: Instant,
        seq: u32,
        sent_at: Instant,
        hold: Duration,
    ) -> ReplyOutcome {
        self.last_heard = Some(now);
        let slot = self.sent.slot(seq);
        let sent = &mut self.sent;
        let bit = 1 << slot;
        let age = self.next_seq.wrapping_sub(seq);
        let known = (1..=sent.count()).contains(&age) && sent.at(slot) == sent_at;
        if !known || (sent.waiting | sent.missed) & bit == 0 {
            return ReplyOutcome::default();
        }
        let late = sent.missed & bit != 0;
        sent.waiting &= !bit;
        sent.missed &= !bit;
        self.find_answer_due();
        let rtt = (now - sent_at).saturating_sub(hold);
        self.estimator.on_rtt(now, rtt);
        if !late {
            self.estimator.on_probe(false);
            self.answers = self.answers.saturating_add(1);
        } else if self.state != Liveness::Down {
            self.estimator.on_late_answer();
        }
        self.prove(sent_at);
        let change = self.judge_answer(now);
        let cleared_lately = now - self.since < self.interval.max(Self::LATELY);
        if self.state == Liveness::Up && cleared_lately && self.estimator.is_in_doubt() {
            // Suspicion may have ended before there were answers enough to tell.
            let last = self.last_probe.unwrap_or(now);
            let pause = self.config.quick.max(self.interval / 4);
            self.next_probe = self.next_probe.min((last + pause).max(now));
        }
        ReplyOutcome { rtt: Some(rtt), change }
    }

    /// A report of the other end covers traffic that was sent at `sent_at`: like the answer to a
    /// probe sent then, but it does not end an outage. Returns the new state if it changed.
    pub fn on_progress(&mut self, now: Instant, sent_at: Instant) -> Option<Liveness> {
        self.last_heard = Some(now);
        self.prove(sent_at);
        if self.state == Liveness::Suspect { self.judge_answer(now) } else { None }
    }

    /// Traffic sent at `since` has no report although that is overdue. Returns the new state if it
    /// changed.
    pub fn on_silence(&mut self, now: Instant, since: Instant) -> Option<Liveness> {
        if self.state != Liveness::Up {
            return None;
        }
        self.silent_since = Some(since);
        self.next_probe = self.next_probe.min(now);
        self.enter(now, Liveness::Suspect)
    }

    fn prove(&mut self, sent_at: Instant) {
        self.proven_at = Some(self.proven_at.map_or(sent_at, |proven| proven.max(sent_at)));
        self.misses = self.count_misses();
    }

    /// When the newest was sent of all that is known to have gone there and been answered.
    pub const fn proven_at(&self) -> Option<Instant> {
        self.proven_at
    }

    fn judge_answer(&mut self, now: Instant) -> Option<Liveness> {
        let next = match self.state {
            Liveness::Up => return None,
            Liveness::Suspect => {
                let broken = self.silent_since.is_none_or(|since| self.proven_at >= Some(since));
                (self.misses == 0 && broken).then_some(Liveness::Up)?
            }
            Liveness::Down => {
                let enough = if self.was_up { self.config.answers_to_up } else { 1 };
                if self.answers < enough {
                    let quick = now + self.quick_pause().min(self.config.timeout.0);
                    self.next_probe = self.next_probe.min(quick);
                    return None;
                }
                Liveness::Up
            }
        };
        self.was_up = true;
        self.misses = 0;
        self.silent_since = None;
        let interval = self.jittered(self.interval);
        self.next_probe = self.last_probe.unwrap_or(now) + interval;
        self.enter(now, next)
    }

    /// Missed probes that no answer to a later one has made harmless.
    fn count_misses(&self) -> u32 {
        self.unproven_misses().count() as u32
    }

    fn unproven_misses(&self) -> impl Iterator<Item = usize> {
        let later = |slot: &usize| self.proven_at.is_none_or(|proven| self.sent.at(*slot) > proven);
        Sent::places(self.sent.missed).filter(later)
    }

    /// Judges the silence up to `now`. `late` says that our own turn began late: then answers that
    /// are due may still be on their way through our own queues, and get a little more time, once.
    /// Returns the new state if it changed.
    pub fn handle_timeout(&mut self, now: Instant, late: bool) -> Option<Liveness> {
        if self.answer_due.is_none_or(|due| due > now) {
            return None;
        }
        let mut change = None;
        for seq in self.next_seq.saturating_sub(self.sent.count())..self.next_seq {
            let slot = self.sent.slot(seq);
            let sent = &mut self.sent;
            let bit = 1 << slot;
            if sent.waiting & bit == 0 || sent.deadline(slot) > now {
                continue;
            }
            if late && sent.excused & bit == 0 {
                sent.excused |= bit;
                sent.wait_until(slot, now + self.config.grace);
                continue;
            }
            sent.waiting &= !bit;
            sent.missed |= bit;
            change = self.on_miss(now).or(change);
        }
        self.find_answer_due();
        change
    }

    fn find_answer_due(&mut self) {
        let waiting = Sent::places(self.sent.waiting);
        self.answer_due = waiting.map(|slot| self.sent.deadline(slot)).min();
    }

    fn on_miss(&mut self, now: Instant) -> Option<Liveness> {
        let in_outage = self.state == Liveness::Down && self.answers == 0;
        if !in_outage {
            self.estimator.on_probe(true);
        }
        let before = self.misses;
        self.misses = self.count_misses();
        if self.misses == before {
            return None;
        }
        self.answers = 0;
        match self.state {
            Liveness::Up => {
                self.next_probe = self.next_probe.min(now);
                self.enter(now, Liveness::Suspect)
            }
            Liveness::Suspect if self.misses >= self.config.misses_to_down => {
                self.estimator.on_outage(self.misses);
                self.flaps.record(now);
                self.silent_since = None;
                self.down_pause = self.config.down.0;
                self.enter(now, Liveness::Down)
            }
            Liveness::Suspect | Liveness::Down => None,
        }
    }

    fn enter(&mut self, now: Instant, state: Liveness) -> Option<Liveness> {
        self.state = state;
        self.since = now;
        Some(state)
    }

    /// What is due next, and why.
    pub fn poll_timeout(&self) -> (Instant, &'static str) {
        match self.answer_due {
            Some(deadline) if deadline < self.next_probe => (deadline, "probe answer"),
            _ => (self.next_probe, "probe"),
        }
    }

    /// The path's liveness.
    pub const fn state(&self) -> Liveness {
        self.state
    }

    /// Since when.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The summary, as routing takes it and advertisements carry it.
    pub fn report(&self, now: Instant) -> LinkReport {
        self.estimator.report(now, self.state)
    }

    /// What round trips are averaged over: see [`Estimator::set_smoothing`].
    pub fn set_smoothing(&mut self, smoothing: Duration) {
        self.estimator.set_smoothing(smoothing);
    }

    /// The measurements behind the summary.
    pub const fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// When anything authentic last came in on this path.
    pub const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// When the path is last known to have worked in both directions.
    pub fn last_whole(&self) -> Option<Instant> {
        let there = self.proven_at? + self.estimator.rtt().unwrap_or_default();
        Some(there.min(self.last_heard?))
    }

    /// Lately something came in on this path, although probes that were sent well before then found
    /// no answer: what is sent here does not arrive.
    pub fn is_heard_in_vain(&self, now: Instant) -> bool {
        let missed = self.unproven_misses().map(|slot| self.sent.at(slot)).min();
        let (Some(heard), Some(missed)) = (self.last_heard, missed) else {
            return false;
        };
        now - heard < Self::HEARD && heard > missed + self.timeout()
    }

    /// The path's outages.
    pub const fn flaps(&self) -> &FlapHistory {
        &self.flaps
    }
}

#[cfg(test)]
mod tests;
