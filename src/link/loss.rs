//! Loss from two kinds of evidence: probes one by one, and counters of traffic.

use std::time::Duration;

use crate::float;
use crate::time::Instant;

/// How strongly `lost` of `total` speak for more loss than `usual`: the logarithm of the likelihood
/// ratio. By Chernoff's bound, chance alone reaches `x` at most once in `exp(x)` independent looks.
fn evidence(lost: f64, total: f64, usual: f64) -> f64 {
    let fraction = (lost / total).min(1.0);
    if total <= 0.0 || fraction <= usual {
        return 0.0;
    }
    let good = total - lost.min(total);
    let clean = if good > 0.0 { good * float::ln((1.0 - fraction) / (1.0 - usual)) } else { 0.0 };
    lost * float::ln(fraction / usual) + clean
}

/// The loss that `lost` of `total` prove with 99.5 % confidence (Wilson's interval, one side).
fn lower_bound(lost: u32, total: u32) -> f64 {
    if lost == 0 || total == 0 {
        return 0.0;
    }
    const Z: f64 = 2.576;
    let n = f64::from(total);
    let p = f64::from(lost.min(total)) / n;
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + Z * Z / n)).max(0.0)
}

/// What became of the last [`ProbeWindow::LEN`] probes (the paper's 100-sample average), and a
/// slow average over more of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeWindow {
    /// A set bit is a lost probe; bit 0 is the newest.
    lost: u128,
    len: u32,
    slow: f64,
}

impl ProbeWindow {
    pub(super) const LEN: u32 = 100;
    const SHORT: u32 = 16;
    /// Loss of round trips that is nothing to act on.
    const USUAL: f64 = 0.02;
    const PROOF: f64 = 8.0;
    /// Gain of the slow average. At 1 % loss a hundred samples scatter from 0 to 4 %, which is no
    /// ground for moving anything; this one scatters by less than half a percent.
    const SLOW_GAIN: f64 = 1.0 / 256.0;

    pub(super) const fn new() -> Self {
        Self { lost: 0, len: 0, slow: 0.0 }
    }

    pub(super) fn push(&mut self, lost: bool) {
        self.lost = (self.lost << 1 | u128::from(lost)) & mask(Self::LEN);
        self.len = (self.len + 1).min(Self::LEN);
        self.slow += Self::SLOW_GAIN * (f64::from(u8::from(lost)) - self.slow);
    }

    /// A probe that was counted as lost was answered after all.
    pub(super) fn forgive_newest(&mut self) {
        if self.lost != 0 {
            self.lost &= self.lost - 1;
            self.slow = (self.slow - Self::SLOW_GAIN).max(0.0);
        }
    }

    /// Takes back the newest `count` outcomes: they belong to an outage.
    pub(super) fn forget_newest(&mut self, count: u32) {
        let count = count.min(self.len);
        let lost = (self.lost & mask(count)).count_ones();
        self.slow = (self.slow - f64::from(lost) * Self::SLOW_GAIN).max(0.0);
        self.lost = self.lost.checked_shr(count).unwrap_or(0);
        self.len -= count;
    }

    /// The plain fraction of the window; `None` while it is empty.
    pub(super) fn fraction(&self) -> Option<f64> {
        (self.len > 0).then(|| f64::from(self.lost.count_ones()) / f64::from(self.len))
    }

    /// The loss that is certain enough to act on: the slow average, or what the last 16 or 100
    /// samples prove; fewer samples count as so many good ones. The windows are looked at again with
    /// each probe, so they must prove it well.
    pub(super) fn certain(&self) -> f64 {
        let proven = |lost: u32, total: u32| {
            let proof = evidence(f64::from(lost), f64::from(total), Self::USUAL);
            if proof > Self::PROOF { lower_bound(lost, total) } else { 0.0 }
        };
        let short = proven((self.lost & mask(Self::SHORT)).count_ones(), Self::SHORT);
        self.slow.max(short).max(proven(self.lost.count_ones(), Self::LEN))
    }
}

const fn mask(bits: u32) -> u128 {
    (1u128 << bits) - 1
}

/// Page's sequential test (CUSUM) of one loss against [`TrafficLoss::FREE`]: evidence adds up from
/// where the samples began to speak for it.
#[derive(Clone, Copy, Debug)]
struct PageTest {
    evidence: f64,
    /// Since the evidence was last nothing.
    total: f64,
    lost: f64,
}

impl PageTest {
    const NEW: Self = Self { evidence: 0.0, total: 0.0, lost: 0.0 };

    /// The loss since the evidence began, once that exceeds `proof`.
    fn add(&mut self, fraction: f64, proof: f64, total: f64, lost: f64) -> Option<f64> {
        let free = TrafficLoss::FREE;
        self.evidence += lost * float::ln(fraction / free);
        self.evidence += (total - lost) * float::ln((1.0 - fraction) / (1.0 - free));
        if self.evidence <= 0.0 {
            *self = Self::NEW;
            return None;
        }
        self.total += total;
        self.lost += lost;
        (self.evidence > proof).then(|| {
            let found = self.lost / self.total;
            *self = Self::NEW;
            found
        })
    }
}

/// Loss of traffic, found by sequential tests for heavy, medium and light loss at once: heavy loss
/// shows within a fraction of a second, light loss at all.
#[derive(Clone, Debug)]
pub(super) struct TrafficLoss {
    tests: [PageTest; Self::TESTS.len()],
    /// Samples, forgotten gradually.
    recent: f64,
    at: Instant,
}

impl TrafficLoss {
    /// Loss that is nothing to act on.
    const FREE: f64 = 0.01;
    /// The loss that each test is for, and what it must prove: noise of 200 packets a second shall
    /// not pass in half an hour.
    const TESTS: [(f64, f64); 3] = [(0.30, 13.0), (0.10, 12.0), (0.03, 10.0)];
    /// What was measured before so long a silence says nothing any more.
    const FORGET: Duration = Duration::from_secs(30);
    /// With so many samples, probes have nothing to add, ...
    const AMPLE: f64 = 1_000.0;
    const RECENT: f64 = 4_096.0;
    /// ... if the latest are no older than this.
    const FRESH: Duration = Duration::from_secs(2);

    pub(super) const fn new() -> Self {
        Self { tests: [PageTest::NEW; Self::TESTS.len()], recent: 0.0, at: Instant::ZERO }
    }

    /// Of `total` packets `lost` are lost, of which `late` may only be late. Returns the loss when
    /// that is proven to be more than may be ignored.
    pub(super) fn add(&mut self, now: Instant, total: u32, lost: u32, late: u32) -> Option<f64> {
        if now - self.at > Self::FORGET {
            *self = Self::new();
        }
        self.at = now;
        let (total, late) = (f64::from(total), f64::from(late));
        let lost = f64::from(lost).min(total);
        self.recent = self.recent * float::exp(-total / Self::RECENT) + total;
        let mut found = None;
        for (test, (fraction, proof)) in self.tests.iter_mut().zip(Self::TESTS) {
            let proof = proof + late * float::ln(fraction / Self::FREE);
            found = test.add(fraction, proof, total, lost).or(found);
        }
        found
    }

    /// True while there is so much traffic that it tells more than probes.
    pub(super) fn is_ample(&self, now: Instant) -> bool {
        self.recent >= Self::AMPLE && now - self.at <= Self::FRESH
    }
}

/// Loss that was proven stays believed until the samples since speak against it: a path that was
/// left for its loss carries no traffic any more that could show it.
///
/// Wald's sequential test between the loss that is believed and a third of it, which is believed
/// next.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossMemory {
    fraction: f64,
    /// Logarithm of the likelihood ratio of the two.
    evidence: f64,
}

impl LossMemory {
    pub(super) const NONE: Self = Self { fraction: 0.0, evidence: 0.0 };
    /// A thousand to one.
    const CERTAIN: f64 = 6.9;
    const MAX: f64 = 0.5;
    /// Less is not worth believing.
    const LEAST: f64 = 0.015;

    pub(super) fn prove(&mut self, fraction: f64) {
        self.fraction = fraction.min(Self::MAX);
        self.evidence = Self::CERTAIN;
    }

    pub(super) fn on_samples(&mut self, total: u32, lost: u32) {
        if self.evidence <= 0.0 {
            return;
        }
        let (high, low) = (self.fraction, self.fraction / 3.0);
        let good = f64::from(total.saturating_sub(lost)) * float::ln((1.0 - high) / (1.0 - low));
        let bad = f64::from(lost) * float::ln(high / low);
        self.evidence = (self.evidence + good + bad).min(Self::CERTAIN);
        if self.evidence <= 0.0 {
            // So much it is not; a third of it is still possible.
            self.fraction = low;
            self.evidence = if low > Self::LEAST { Self::CERTAIN } else { 0.0 };
        }
    }

    /// The loss that is believed.
    pub(super) fn fraction(&self) -> f64 {
        if self.evidence > 0.0 { self.fraction } else { 0.0 }
    }
}

/// Turns a receiver's reports into losses. What was only reordered is not lost: a deficit counts
/// when all reports of a tenth of a second agree on it.
#[derive(Clone, Debug, Default)]
pub struct ReportedLoss {
    /// When, and how many datagrams were expected but had not come.
    deficits: Option<Box<[(Instant, u32); Self::KEPT]>>,
    next: usize,
    /// Deficit that has been counted.
    counted: u32,
    /// By how much the deficit went back lately: what was late, not lost.
    late: u32,
    late_at: Instant,
    last: Option<(u32, u32)>,
    last_at: Instant,
    /// So many losses are the fault of a volley of ours, and since when.
    excused: u32,
    excused_at: Option<Instant>,
}

/// What one report adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Datagrams that were sent since the report before, as far as the receiver knows.
    pub total: u32,
    /// Those that are certainly lost.
    pub lost: u32,
    /// So many of them may still turn out to be late.
    pub late: u32,
    /// Something arrived.
    pub grew: bool,
}

impl ReportedLoss {
    const KEPT: usize = 16;
    const AGREED: Duration = Duration::from_millis(100);
    /// Reordering is remembered for so long.
    const REORDERING: Duration = Duration::from_secs(10);
    const LATE_MAX: u32 = 4;
    /// A report may come this many datagrams late.
    const REORDERED: u32 = 65_536;
    /// What a volley displaced is reported within this time.
    const EXCUSE: Duration = Duration::from_secs(5);
    /// Most losses that are excused at once.
    const EXCUSED_MAX: u32 = 16;

    /// A volley of so many datagrams leaves: it may fill a queue and displace itself or others, and as
    /// many losses say nothing of what traffic meets without it.
    pub fn excuse(&mut self, now: Instant, datagrams: u32) {
        let before = if self.is_excused(now) { self.excused } else { 0 };
        self.excused = (before + datagrams).min(Self::EXCUSED_MAX);
        self.excused_at = Some(now);
    }

    /// A volley has only just left.
    pub fn is_excused(&self, now: Instant) -> bool {
        self.excused_at.is_some_and(|at| now - at <= Self::EXCUSE)
    }

    /// How many of the lost ones are no loss.
    fn take_excuse(&mut self, now: Instant, before: Instant, lost: u32) -> u32 {
        // Without traffic nothing is reported until there is some again.
        let first_since = self.excused_at.is_some_and(|at| before <= at + Self::EXCUSE / 5);
        if !first_since && !self.is_excused(now) {
            self.excused = 0;
        }
        let excused = lost.min(self.excused);
        self.excused -= excused;
        excused
    }

    /// A report with its two counts. `None` for the first one, and for one that is older than the
    /// last.
    pub fn on_report(&mut self, now: Instant, expected: u32, received: u32) -> Option<Reported> {
        let deficit = expected.wrapping_sub(received);
        let Some((expected_before, received_before)) = self.last else {
            self.begin(now, expected, received);
            return None;
        };
        let total = expected.wrapping_sub(expected_before);
        let arrived = received.wrapping_sub(received_before);
        if total > u32::MAX / 2 || arrived > u32::MAX / 2 {
            if expected_before.wrapping_sub(expected) >= Self::REORDERED {
                // The peer began anew.
                self.begin(now, expected, received);
            }
            return None;
        }
        self.note_late(now, expected_before.wrapping_sub(received_before), deficit);
        self.last = Some((expected, received));
        let before = std::mem::replace(&mut self.last_at, now);
        let deficits = self.deficits.get_or_insert_with(|| Box::new([(now, deficit); Self::KEPT]));
        deficits[self.next] = (now, deficit);
        self.next = (self.next + 1) % Self::KEPT;
        let recent = deficits.iter().filter(|(at, _)| now - *at <= Self::AGREED);
        let grown = recent.map(|(_, deficit)| deficit.wrapping_sub(self.counted) as i32).min();
        let lost = grown.unwrap_or(0).max(0) as u32;
        self.counted = self.counted.wrapping_add(lost);
        let excused = self.take_excuse(now, before, lost);
        let (total, lost) = (total.saturating_sub(excused), lost - excused);
        let late = (2 * self.late).min(Self::LATE_MAX);
        Some(Reported { total, lost, late, grew: arrived > 0 })
    }

    /// A deficit only shrinks when something comes late.
    fn note_late(&mut self, now: Instant, before: u32, deficit: u32) {
        let late = (before.wrapping_sub(deficit) as i32).max(0) as u32;
        if late >= self.late || now - self.late_at > Self::REORDERING {
            self.late = late.min(Self::LATE_MAX);
            self.late_at = now;
        }
    }

    /// What follows has nothing to do with what was: an outage.
    pub fn restart(&mut self) {
        *self = Self { deficits: self.deficits.take(), ..Self::default() };
    }

    fn begin(&mut self, now: Instant, expected: u32, received: u32) {
        let deficit = expected.wrapping_sub(received);
        let mut deficits = self.deficits.take().unwrap_or_default();
        *deficits = [(now, deficit); Self::KEPT];
        *self = Self {
            deficits: Some(deficits),
            next: 0,
            counted: deficit,
            late: 0,
            late_at: now,
            last: Some((expected, received)),
            last_at: now,
            ..*self
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_losses_prove_little_and_many_prove_much() {
        assert_eq!(evidence(0.0, 16.0, 0.02), 0.0);
        assert_eq!(evidence(0.0, 0.0, 0.02), 0.0);
        assert!(evidence(2.0, 16.0, 0.02) < 3.0);
        assert!(evidence(8.0, 16.0, 0.02) > 15.0);
        assert!(evidence(16.0, 16.0, 0.02) > 60.0);
        assert!(lower_bound(8, 16) > 0.2);
        assert!(lower_bound(16, 16) > 0.7 && lower_bound(16, 16) < 1.0);
    }

    #[test]
    fn the_probe_window_forgets_after_a_hundred() {
        let mut window = ProbeWindow::new();
        for i in 0..300 {
            window.push(i % 10 == 0);
        }
        assert_eq!(window.fraction(), Some(0.1));
        assert!((0.04..0.11).contains(&window.certain()), "{}", window.certain());
        for _ in 0..100 {
            window.push(false);
        }
        assert_eq!(window.fraction(), Some(0.0));
    }

    #[test]
    fn heavy_loss_is_certain_within_a_few_probes_and_light_loss_never_looks_heavy() {
        let mut window = ProbeWindow::new();
        for i in 0..16 {
            window.push(i % 3 == 0);
        }
        assert!(window.certain() > 0.10, "{}", window.certain());
        let mut rng = crate::rng::Rng::new([1; 32]);
        let mut window = ProbeWindow::new();
        let over = (0..100_000).filter(|_| {
            window.push(rng.chance(0.01));
            window.certain() > 0.02
        });
        let over = over.count();
        assert!(over < 2_000, "1 % looks like more than 2 % in {over} of 100000");
    }

    #[test]
    fn late_answers_and_outages_take_losses_back() {
        let mut window = ProbeWindow::new();
        for i in 0..50 {
            window.push(i == 20);
        }
        let before = (window.fraction(), window.certain());
        window.push(true);
        window.forgive_newest();
        assert!(window.fraction() <= before.0 && window.certain() <= before.1);
        for _ in 0..4 {
            window.push(true);
        }
        window.forget_newest(4);
        assert!(window.fraction() <= before.0 && window.certain() <= before.1 + 1e-3);
        window.forget_newest(500);
        assert_eq!(window.fraction(), None);
        assert!(window.certain() < 1e-9);
    }

    const PAUSE: Duration = Duration::from_millis(5);

    /// Packets of traffic until loss is proven.
    fn packets_to_prove(seed: u8, fraction: f64, most: u32) -> Option<u32> {
        let mut rng = crate::rng::Rng::new([seed; 32]);
        let mut traffic = TrafficLoss::new();
        let mut now = Instant::from_micros(1);
        for _ in 0..5_000 {
            traffic.add(now, 1, 0, 0);
        }
        (0..most).find(|_| {
            now += PAUSE;
            traffic.add(now, 1, u32::from(rng.chance(fraction)), 0).is_some()
        })
    }

    #[test]
    fn the_heavier_the_loss_the_sooner_it_is_proven() {
        for (fraction, most) in [(0.30, 50), (0.10, 180), (0.03, 1_400)] {
            let mut took: Vec<_> =
                (0..100).map(|seed| packets_to_prove(seed, fraction, 10_000).unwrap()).collect();
            took.sort_unstable();
            assert!(took[89] <= most, "{fraction}: 90 % within {}", took[89]);
        }
        let noise = (0..20).filter(|seed| packets_to_prove(*seed, 0.01, 100_000).is_some());
        assert!(noise.count() <= 4, "1 % is noise");
    }

    #[test]
    fn proven_loss_is_believed_until_the_samples_contradict() {
        let mut rng = crate::rng::Rng::new([5; 32]);
        for (fraction, clean) in [(0.03, 400), (0.10, 500), (0.30, 600)] {
            let mut memory = LossMemory::NONE;
            memory.prove(fraction);
            for _ in 0..3_000 {
                memory.on_samples(1, u32::from(rng.chance(fraction)));
                assert!(memory.fraction() > 0.0, "{fraction} forgotten while it lasts");
            }
            for _ in 0..clean {
                memory.on_samples(1, 0);
            }
            assert_eq!(memory.fraction(), 0.0, "{fraction}");
        }
    }

    #[test]
    fn reordering_is_no_loss_and_loss_is_counted_once() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut reported = ReportedLoss::default();
        assert_eq!(reported.on_report(at(0), 100, 100), None);
        let mut rng = crate::rng::Rng::new([6; 32]);
        let (mut total, mut lost, mut received) = (0, 0, 0);
        for step in 1..1_000u32 {
            // Up to four are under way, and one of a hundred is lost.
            let expected = 100 + step * 2;
            received = received.max(expected - step / 50 - rng.below(5));
            if let Some(report) = reported.on_report(at(u64::from(step) * 10), expected, received) {
                total += report.total;
                lost += report.lost;
            }
        }
        assert!((1_900..=1_998).contains(&total), "{total}");
        assert!((18..=20).contains(&lost), "{lost}");
    }

    #[test]
    fn what_a_volley_displaced_is_no_loss_and_more_is() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let lost = |reported: &mut ReportedLoss, ms, expected, received| {
            reported.on_report(at(ms), expected, received).unwrap().lost
        };
        let begin = || {
            let mut reported = ReportedLoss::default();
            assert_eq!(reported.on_report(at(0), 100, 100), None);
            reported
        };
        let mut reported = begin();
        reported.excuse(at(1_000), 4);
        let first = reported.on_report(at(1_500), 110, 107).unwrap();
        assert_eq!(first, Reported { total: 7, lost: 0, late: 0, grew: true });
        assert_eq!(lost(&mut reported, 2_000, 120, 115), 1, "one of two was left of the allowance");
        assert_eq!(lost(&mut reported, 2_500, 130, 124), 1);
        // It expires, whatever was lost before.
        let mut reported = begin();
        reported.excuse(at(1_000), 4);
        assert_eq!(lost(&mut reported, 2_500, 110, 110), 0);
        assert!(reported.is_excused(at(6_000)) && !reported.is_excused(at(6_001)));
        assert_eq!(lost(&mut reported, 6_001, 120, 116), 4);
        // Without traffic nothing was reported before.
        let mut reported = begin();
        reported.excuse(at(1_000), 4);
        assert_eq!(lost(&mut reported, 60_000, 110, 106), 0);
        assert_eq!(lost(&mut reported, 60_500, 120, 115), 1);
        // However many volleys leave, it is bounded.
        let mut reported = begin();
        (0..100).for_each(|_| reported.excuse(at(1_000), 8));
        assert_eq!(lost(&mut reported, 1_500, 200, 160), 40 - 16);
    }

    #[test]
    fn old_reports_are_ignored_and_a_new_life_begins_anew() {
        let mut reported = ReportedLoss::default();
        let now = Instant::from_micros(1);
        reported.on_report(now, 1_000_000, 1_000_000);
        assert_eq!(reported.on_report(now, 999_990, 999_990), None);
        let next = reported.on_report(now, 1_000_010, 1_000_010).unwrap();
        assert_eq!(next, Reported { total: 10, lost: 0, late: 0, grew: true });
        assert_eq!(reported.on_report(now, 7, 7), None);
        assert_eq!(reported.on_report(now, 9, 9).unwrap().total, 2);
    }
}
