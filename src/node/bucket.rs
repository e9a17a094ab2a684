//! Rates that are kept: what we give to relaying, and what a class may send.

use crate::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    rate_bps: Option<u64>,
    /// Bits that may be sent at once.
    tokens: u64,
    at: Instant,
}

impl Bucket {
    /// The burst is what the rate carries in a tenth of a second, and at least two trains.
    const BURST_MIN: u64 = 2 * 65_536 * 8;

    /// `None` for no limit.
    pub(super) const fn new(now: Instant, rate_bps: Option<u64>) -> Self {
        Self { rate_bps, tokens: Self::BURST_MIN, at: now }
    }

    /// Takes what `bytes` cost. False, and nothing taken, when there is not enough.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let Some(rate) = self.rate_bps else { return true };
        let earned = u128::from(rate) * (now - self.at).as_micros() / 1_000_000;
        let burst = (rate / 10).max(Self::BURST_MIN);
        if earned > 0 {
            self.tokens =
                burst.min(self.tokens + u64::try_from(earned).unwrap_or(u64::MAX).min(burst));
            self.at = now;
        }
        let bits = bytes as u64 * 8;
        let enough = self.tokens >= bits;
        if enough {
            self.tokens -= bits;
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
}
