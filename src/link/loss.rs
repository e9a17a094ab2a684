//! Loss from two kinds of evidence: probes one by one, and counters of traffic.

use std::time::Duration;

use crate::time::Instant;

/// The loss that `lost` of `total` prove with 99.5 % confidence (Wilson's interval, one side).
///
/// A short window is judged by it, so that a few unlucky packets prove nothing and many do at once.
/// The window is looked at again with each packet, so less confidence would be wrong all the time.
pub(super) fn lower_bound(lost: u32, total: u32) -> f64 {
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
    /// samples prove; fewer samples count as so many good ones.
    pub(super) fn certain(&self) -> f64 {
        let short = (self.lost & mask(Self::SHORT)).count_ones();
        let short = lower_bound(short, Self::SHORT);
        self.slow.max(short).max(lower_bound(self.lost.count_ones(), Self::LEN))
    }
}

const fn mask(bits: u32) -> u128 {
    (1u128 << bits) - 1
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    begun: Instant,
    received: u32,
    lost: u32,
}

impl Bucket {
    const fn total(&self) -> u32 {
        self.received.saturating_add(self.lost)
    }
}

/// Loss of traffic, in buckets of at least 100 ms and 20 packets.
#[derive(Clone, Debug)]
pub(super) struct TrafficWindow {
    open: Bucket,
    closed: [Bucket; Self::BUCKETS],
    next: usize,
}

impl TrafficWindow {
    const BUCKETS: usize = 32;
    const MIN_SPAN: Duration = Duration::from_millis(100);
    const MIN_PACKETS: u32 = 20;
    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_secs(1);

    pub(super) const fn new() -> Self {
        const EMPTY: Bucket = Bucket { begun: Instant::ZERO, received: 0, lost: 0 };
        Self { open: EMPTY, closed: [EMPTY; Self::BUCKETS], next: 0 }
    }

    pub(super) fn add(&mut self, now: Instant, received: u32, lost: u32) {
        if self.open.total() == 0 || now - self.open.begun > Self::LONG {
            self.open = Bucket { begun: now, received: 0, lost: 0 };
        }
        self.open.received = self.open.received.saturating_add(received);
        self.open.lost = self.open.lost.saturating_add(lost);
        let ripe = now - self.open.begun >= Self::MIN_SPAN;
        if ripe && self.open.total() >= Self::MIN_PACKETS {
            self.closed[self.next] = self.open;
            self.next = (self.next + 1) % Self::BUCKETS;
            self.open = Bucket::default();
        }
    }

    /// `None` when no bucket of the long window is filled.
    pub(super) fn fraction(&self, now: Instant) -> Option<f64> {
        let (received, lost) = self.sum(now, Self::LONG);
        let total = received.saturating_add(lost);
        if total == 0 {
            return None;
        }
        let (short_received, short_lost) = self.sum(now, Self::SHORT);
        let short = lower_bound(short_lost, short_received.saturating_add(short_lost));
        Some((f64::from(lost) / f64::from(total)).max(short))
    }

    fn sum(&self, now: Instant, span: Duration) -> (u32, u32) {
        let young = |bucket: &&Bucket| bucket.total() > 0 && now - bucket.begun <= span;
        self.closed.iter().filter(young).fold((0u32, 0u32), |(received, lost), bucket| {
            (received.saturating_add(bucket.received), lost.saturating_add(bucket.lost))
        })
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_in_a_short_window_proves_little_and_many_prove_much() {
        assert_eq!(lower_bound(0, 16), 0.0);
        assert!(lower_bound(1, 16) < 0.02);
        assert!(lower_bound(2, 16) < 0.03);
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

    #[test]
    fn traffic_counts_only_in_ripe_buckets_and_ages() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut window = TrafficWindow::new();
        window.add(at(0), 1000, 500);
        assert_eq!(window.fraction(at(0)), None, "no 100 ms have passed");
        window.add(at(100), 0, 0);
        assert!((window.fraction(at(100)).unwrap() - 1.0 / 3.0).abs() < 1e-3);
        window.add(at(200), 10, 0);
        window.add(at(400), 5, 0);
        let few = window.fraction(at(400)).unwrap();
        assert!((few - 1.0 / 3.0).abs() < 1e-3, "15 packets make no bucket");
        assert_eq!(window.fraction(at(60_000)), None);
    }
}
