//! Rates that are kept: what we give to relaying, and what a class may send.

use crate::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    rate_bps: Option<u64>,
    /// Bits that may be sent at once; less than none after a train that was longer than they were.
    tokens: i64,
    /// What was earned beyond whole bits, in millionths.
    fraction: u64,
    at: Instant,
}

impl Bucket {
    /// The burst is what the rate carries in a tenth of a second, and at least two trains.
    const BURST_MIN: i64 = 2 * 65_536 * 8;

    /// `None` for no limit.
    pub(super) const fn new(now: Instant, rate_bps: Option<u64>) -> Self {
        Self { rate_bps, tokens: Self::BURST_MIN, fraction: 0, at: now }
    }

    /// The rate; `None` for no limit.
    pub(super) const fn rate_bps(&self) -> Option<u64> {
        self.rate_bps
    }

    /// Takes what `bytes` cost. False, and nothing taken, when nothing is left: a train may cost
    /// more than there is, so that long ones are not worse off than short ones.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let Some(rate) = self.rate_bps else { return true };
        let burst = i64::try_from(rate / 10).unwrap_or(i64::MAX).max(Self::BURST_MIN);
        let earned = u128::from(rate) * (now - self.at).as_micros() + u128::from(self.fraction);
        self.at = now;
        self.fraction = (earned % 1_000_000) as u64;
        let bits = i64::try_from(earned / 1_000_000).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(bits).min(burst);
        let enough = self.tokens > 0;
        if enough {
            self.tokens = self.tokens.saturating_sub(bytes as i64 * 8);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_rate_holds_over_time_and_bursts_are_bounded() {
        let start = Instant::from_micros(0);
        let mut bucket = Bucket::new(start, Some(8_000_000));
        let mut passed = 0;
        for ms in 0..10_000 {
            for _ in 0..4 {
                if bucket.take(start + Duration::from_millis(ms), 1_000) {
                    passed += 1_000;
                }
            }
        }
        assert!((9_900_000..10_300_000).contains(&passed), "{passed}");
        assert!(Bucket::new(start, None).take(start, 1 << 30));
    }

    #[test]
    fn nothing_is_lost_between_packets_and_long_trains_have_their_share() {
        for (len, every_us) in [(100, 7), (64_000, 3_001)] {
            let start = Instant::from_micros(0);
            let mut bucket = Bucket::new(start, Some(1_500_000));
            let mut passed = 0;
            for step in 0..(20_000_000 / every_us) {
                if bucket.take(start + Duration::from_micros(step * every_us), len) {
                    passed += len;
                }
            }
            let bits = passed * 8 - Bucket::BURST_MIN as usize;
            assert!((29_900_000..30_600_000).contains(&bits), "{len}: {bits}");
        }
    }
}
