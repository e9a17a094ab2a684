//! Repeatable chance: an independent stream for every link and effect.

/// SplitMix64: small, fast, and good enough to lose packets by.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of `seed` and `labels`. Streams of different labels are independent, and adding a
    /// site or using one effect does not move the others' choices.
    pub(crate) fn new(seed: u64, labels: &[&str]) -> Self {
        // FNV-1a, with a separator after each label, spreads the names over the state.
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
        for label in labels {
            for byte in label.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        let mut random = Self(hash);
        random.next();
        random
    }

    /// A uniform 64-bit number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`; draws nothing when `p` is zero.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    /// A number in `0..bound`; `bound` must not be zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_repeatable_and_differ_by_label() {
        let take = |seed, labels: &[&str]| {
            let mut random = Random::new(seed, labels);
            (0..4).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(1, &["a", "b"]), take(1, &["a", "b"]));
        assert_ne!(take(1, &["a", "b"]), take(2, &["a", "b"]));
        assert_ne!(take(1, &["a", "b"]), take(1, &["b", "a"]));
        assert_ne!(take(1, &["ab", ""]), take(1, &["a", "b"]));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(3, &["x"]);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_600..10_400).contains(&n)), "{counts:?}");
        let hits = (0..100_000).filter(|_| random.chance(0.05)).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
    }
}
