//! A histogram of durations with about 3 % resolution and fixed size.

use super::report::Lateness;

/// Steps within each power of two.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// Durations in nanoseconds.
pub(crate) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), count: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// The value that a fraction `q` of all does not exceed, in nanoseconds; 0 when empty.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return upper_bound(index).min(self.max);
            }
        }
        0
    }

    pub(crate) fn summary(&self) -> Lateness {
        let us = |ns: u64| ns as f64 / 1e3;
        Lateness {
            count: self.count,
            p50_us: us(self.quantile(0.5)),
            p90_us: us(self.quantile(0.9)),
            p99_us: us(self.quantile(0.99)),
            max_us: us(self.max),
        }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - STEP_BITS;
    STEPS * (shift as usize + 1) + (ns >> shift) as usize - STEPS
}

/// The largest value that falls into bucket `index`.
fn upper_bound(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    let low = ((index % STEPS + STEPS) as u64) << shift;
    low + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_value_has_a_bucket() {
        for ns in [0, 1, 31, 32, 33, 63, 64, 1_000_000, u64::MAX / 2, u64::MAX] {
            let bound = upper_bound(bucket(ns));
            assert!(bound >= ns && (bound - ns) as f64 <= ns as f64 / STEPS as f64, "{ns} {bound}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn quantiles_are_close_to_the_sorted_list(
            mut values in prop::collection::vec(0u64..10_000_000, 1..300), q in 0.0..1.0f64
        ) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&ns| histogram.record(ns));
            values.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let found = histogram.quantile(q);
            prop_assert!(found >= exact && found - exact <= exact / STEPS as u64 + 1);
        }
    }
}
