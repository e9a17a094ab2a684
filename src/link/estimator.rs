//! Round-trip time, jitter and loss of one path, smoothed.

use std::time::Duration;

use super::loss::{LossMemory, ProbeWindow, Reported, TrafficLoss};
use crate::metric::{LinkReport, Liveness, Loss};
use crate::time::Instant;

/// Smoothed measurements of one path.
///
/// The gain of a sample grows with the time since the sample before: at four samples a second it is
/// that of RFC 6298 section 2 (1/8, and 1/4 for the variation), with dense samples from traffic it
/// is less, so that the smoothing spans about two seconds whatever the source, or as long as
/// [`Estimator::set_smoothing`] says.
#[derive(Clone, Debug)]
pub struct Estimator {
    rtt: Option<Rtt>,
    /// The next sample replaces the average: the path may not be what it was.
    restart: bool,
    minimum: WindowedMinimum,
    probes: ProbeWindow,
    /// None before the first report, which most paths never have.
    traffic: Option<Box<TrafficLoss>>,
    memory: LossMemory,
    round_trips: u64,
    smoothing_us: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rtt {
    smoothed_us: f64,
    variation_us: f64,
    jitter_us: f64,
    latest_us: f64,
    at: Instant,
    excursion: Option<Excursion>,
}

/// Samples in a row that are far above what was usual: noise, or a path that became longer.
#[derive(Clone, Copy, Debug)]
struct Excursion {
    /// What counts as far above.
    above_us: f64,
    least_us: f64,
    samples: u32,
    since: Instant,
}

impl Excursion {
    /// So many in a row, over so long, are no noise.
    const SAMPLES: u32 = 3;
    const SPAN: Duration = Duration::from_millis(100);
    const LEAST_STEP_US: f64 = 10_000.0;
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    /// What round trips are averaged over unless something else is said.
    pub const SMOOTHING: Duration = Duration::from_secs(2);
    /// Stands for a round trip that is not known.
    const UNKNOWN_US: f64 = u32::MAX as f64;
    /// Least slack of the time-out above the smoothed round trip: scheduling on both ends.
    const MIN_SLACK_US: f64 = 25_000.0;

    /// Nothing known.
    pub const fn new() -> Self {
        Self {
            rtt: None,
            restart: false,
            minimum: WindowedMinimum::new(),
            probes: ProbeWindow::new(),
            traffic: None,
            memory: LossMemory::NONE,
            round_trips: 0,
            smoothing_us: Self::SMOOTHING.as_micros() as u32,
        }
    }

    /// What round trips are averaged over: the weight of one is the time since the one before as a
    /// part of this, but 1/32 at least and 1/4 at most. More than an hour counts as an hour.
    pub fn set_smoothing(&mut self, smoothing: Duration) {
        let bounded = smoothing.clamp(Duration::from_millis(1), Duration::from_secs(3_600));
        self.smoothing_us = bounded.as_micros() as u32;
    }

    /// How many round trips were measured.
    pub const fn round_trips(&self) -> u64 {
        self.round_trips
    }

    /// A round trip, the other end's hold time already taken off.
    pub fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        self.round_trips += 1;
        let sample = micros(rtt);
        self.minimum.push(now, sample);
        self.rtt = Some(match self.rtt {
            Some(rtt) if !self.restart => {
                rtt.with(now, sample, self.round_trips, self.smoothing_us)
            }
            _ => Rtt {
                smoothed_us: sample,
                variation_us: sample / 2.0,
                jitter_us: 0.0,
                latest_us: sample,
                at: now,
                excursion: None,
            },
        });
        self.restart = false;
    }

    /// What became of a probe.
    pub fn on_probe(&mut self, lost: bool) {
        self.probes.push(lost);
        self.memory.on_samples(1, u32::from(lost));
    }

    /// A probe that was counted as lost was answered late.
    pub fn on_late_answer(&mut self) {
        self.probes.forgive_newest();
    }

    /// What became of our traffic, as the other end reports.
    pub fn on_traffic(&mut self, now: Instant, reported: &Reported) {
        let Reported { total, lost, late, .. } = *reported;
        let traffic = self.traffic.get_or_insert_with(|| Box::new(TrafficLoss::new()));
        match traffic.add(now, total, lost, late) {
            Some(fraction) => self.memory.prove(fraction),
            None => self.memory.on_samples(total, lost),
        }
    }

    /// True while loss that was proven by traffic is not disproved.
    pub fn is_lossy(&self) -> bool {
        self.memory.fraction() > 0.0
    }

    /// An outage began with the newest `misses` probes; they are no measure of loss.
    pub fn on_outage(&mut self, misses: u32) {
        self.probes.forget_newest(misses);
        self.traffic = None;
        self.restart = true;
    }

    /// The latest samples are far above what was usual, too few as yet to be believed.
    pub fn is_in_doubt(&self) -> bool {
        self.rtt.is_some_and(|rtt| rtt.excursion.is_some())
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| Duration::from_micros(rtt.smoothed_us as u64))
    }

    /// The least round trip of the last minute.
    pub fn min_rtt(&self, now: Instant) -> Option<Duration> {
        self.minimum.get(now).map(|us| Duration::from_micros(us as u64))
    }

    /// Smoothed difference of successive round trips (RFC 3550 section 6.4.1); the first sixteen have
    /// equal weight.
    pub fn jitter(&self) -> Duration {
        Duration::from_micros(self.rtt.map_or(0.0, |rtt| rtt.jitter_us) as u64)
    }

    /// How long to wait for an answer: smoothed round trip and four times its variation, but at
    /// least 25 ms more than the round trip. `None` before the first sample.
    pub fn timeout(&self) -> Option<Duration> {
        self.rtt.map(|rtt| {
            let slack = (4.0 * rtt.variation_us).max(Self::MIN_SLACK_US);
            Duration::from_micros((rtt.smoothed_us + slack) as u64)
        })
    }

    /// Loss that is certain enough to act on: of probes (either way, so an upper bound of each
    /// direction) or of traffic, whichever is worse. A single lost probe hardly shows in it.
    pub fn loss(&self, now: Instant) -> Loss {
        let ample = self.traffic.as_ref().is_some_and(|traffic| traffic.is_ample(now));
        let probes = if ample { 0.0 } else { self.probes.certain() };
        Loss::from_fraction(probes.max(self.memory.fraction()))
    }

    /// The plain fraction of the last hundred probes that were lost, for display; `None` before
    /// the first.
    pub fn probe_loss(&self) -> Option<Loss> {
        self.probes.fraction().map(Loss::from_fraction)
    }

    /// The summary.
    pub fn report(&self, now: Instant, state: Liveness) -> LinkReport {
        let rtt_us = self.rtt.map_or(Self::UNKNOWN_US, |rtt| rtt.smoothed_us);
        LinkReport {
            latency_us: rtt_us as u32,
            jitter_us: self.jitter().as_micros().min(u128::from(u32::MAX)) as u32,
            loss: self.loss(now),
            state,
        }
    }
}

impl Rtt {
    /// With another sample, number `count` of all.
    fn with(self, now: Instant, sample: f64, count: u64, smoothing_us: u32) -> Self {
        let elapsed = micros(now - self.at) / f64::from(smoothing_us);
        let gain = elapsed.clamp(1.0 / 32.0, 1.0 / 4.0);
        let error = (sample - self.smoothed_us).abs();
        let step = (sample - self.latest_us).abs();
        Self {
            smoothed_us: self.smoothed_us + gain * (sample - self.smoothed_us),
            variation_us: self.variation_us + 2.0 * gain * (error - self.variation_us),
            jitter_us: self.jitter_us + (step - self.jitter_us) / (count - 1).clamp(1, 16) as f64,
            latest_us: sample,
            at: now,
            excursion: None,
        }
        .following(self, sample)
    }

    /// When the samples have moved up for good, so does the average, at once.
    fn following(mut self, before: Self, sample: f64) -> Self {
        let step = (4.0 * before.variation_us).max(Excursion::LEAST_STEP_US);
        let begun = before.excursion.unwrap_or(Excursion {
            above_us: before.smoothed_us + step,
            least_us: f64::INFINITY,
            samples: 0,
            since: self.at,
        });
        if sample <= begun.above_us {
            return self;
        }
        let least_us = begun.least_us.min(sample);
        let samples = begun.samples + 1;
        if samples >= Excursion::SAMPLES && self.at - begun.since >= Excursion::SPAN {
            self.smoothed_us = self.smoothed_us.max(least_us);
            return self;
        }
        self.excursion = Some(Excursion { least_us, samples, ..begun });
        self
    }
}

/// The least sample of the last minute, exact to ten seconds.
#[derive(Clone, Debug)]
struct WindowedMinimum {
    /// `(number of the ten-second span, least sample in it)`.
    spans: [(u32, f32); Self::SPANS],
}

impl WindowedMinimum {
    const SPANS: usize = 6;
    const SPAN_US: u64 = 10_000_000;

    const fn new() -> Self {
        Self { spans: [(0, f32::INFINITY); Self::SPANS] }
    }

    fn push(&mut self, now: Instant, sample: f64) {
        let number = Self::number(now);
        // Exact to a microsecond up to 16 s.
        let sample = sample as f32;
        let span = &mut self.spans[number as usize % Self::SPANS];
        *span = if span.0 == number { (number, span.1.min(sample)) } else { (number, sample) };
    }

    fn get(&self, now: Instant) -> Option<f64> {
        let number = Self::number(now);
        let young = self.spans.iter().filter(|span| span.0 + Self::SPANS as u32 > number);
        let least = young.map(|span| span.1).fold(f32::INFINITY, f32::min);
        least.is_finite().then(|| f64::from(least))
    }

    /// Of the ten-second span; there are spans for a thousand years.
    const fn number(now: Instant) -> u32 {
        (now.as_micros() / Self::SPAN_US) as u32
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_micros() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn four_samples_a_second_are_smoothed_as_in_rfc_6298() {
        let mut estimator = Estimator::new();
        estimator.on_rtt(at(0), ms(80));
        assert_eq!(estimator.timeout(), Some(ms(240)));
        estimator.on_rtt(at(250), ms(160));
        assert_eq!(estimator.rtt(), Some(ms(90)));
        let variation = 0.75 * 40.0 + 0.25 * 80.0;
        let timeout = estimator.timeout().unwrap();
        assert_eq!(timeout, ms(90 + 4 * variation as u64));
    }

    #[test]
    fn dense_samples_do_not_make_the_average_jumpy() {
        let mut estimator = Estimator::new();
        estimator.on_rtt(at(0), ms(50));
        for i in 1..=4 {
            estimator.on_rtt(at(i), ms(450));
        }
        assert!(estimator.rtt().unwrap() < ms(100));
        assert!(estimator.jitter() > ms(15));
    }

    #[test]
    fn the_smoothing_is_as_long_as_is_said() {
        let after = |smoothing: u64| {
            let mut estimator = Estimator::new();
            estimator.set_smoothing(ms(smoothing));
            estimator.on_rtt(at(0), ms(80));
            estimator.on_rtt(at(250), ms(160));
            estimator.rtt().unwrap()
        };
        assert_eq!(after(1_000), ms(80 + 80 / 4));
        assert_eq!(after(4_000), ms(80 + 80 / 16));
        assert_eq!((after(1), after(600_000)), (ms(100), Duration::from_micros(82_500)));
    }

    #[test]
    fn a_path_that_became_longer_is_believed_after_three_samples() {
        let mut estimator = Estimator::new();
        for i in 0..40 {
            estimator.on_rtt(at(i * 250), ms(38 + i % 5));
        }
        for i in 40..43 {
            assert!(estimator.rtt().unwrap() < ms(80));
            estimator.on_rtt(at(i * 250), ms(140));
        }
        assert_eq!(estimator.rtt(), Some(ms(140)));
        // Single late answers do not do that.
        let mut estimator = Estimator::new();
        for i in 0..400 {
            estimator.on_rtt(at(i * 250), ms(if i % 9 < 2 { 140 } else { 40 }));
        }
        assert!(estimator.rtt().unwrap() < ms(95), "{:?}", estimator.rtt());
    }

    #[test]
    fn the_minimum_is_that_of_the_last_minute() {
        let mut estimator = Estimator::new();
        assert_eq!(estimator.min_rtt(at(0)), None);
        estimator.on_rtt(at(0), ms(20));
        estimator.on_rtt(at(30_000), ms(35));
        assert_eq!(estimator.min_rtt(at(30_000)), Some(ms(20)));
        estimator.on_rtt(at(61_000), ms(50));
        assert_eq!(estimator.min_rtt(at(61_000)), Some(ms(35)));
        assert_eq!(estimator.min_rtt(at(200_000)), None);
    }

    #[test]
    fn an_outage_is_no_loss_and_the_round_trip_starts_anew_after_it() {
        let mut estimator = Estimator::new();
        for i in 0..60 {
            estimator.on_rtt(at(i * 250), ms(40));
            estimator.on_probe(false);
        }
        for _ in 0..4 {
            estimator.on_probe(true);
        }
        assert!(estimator.loss(at(16_000)).fraction() > 0.01);
        estimator.on_outage(4);
        assert!(estimator.loss(at(16_000)).fraction() < 1e-3);
        assert_eq!(estimator.probe_loss(), Some(Loss::NONE));
        estimator.on_rtt(at(60_000), ms(90));
        assert_eq!(estimator.rtt(), Some(ms(90)));
    }

    #[test]
    fn an_unknown_path_is_infinitely_long() {
        let report = Estimator::new().report(at(0), Liveness::Down);
        assert_eq!(report.latency_us, u32::MAX);
        assert_eq!(report.state, Liveness::Down);
    }
}
