//! Tables by address: two of them are asked for every datagram. They are never gone through, so
//! their order, which is nobody's business, cannot matter.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by address or by pair of addresses.
pub(super) type ByAddress<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// A quick hash; nobody chooses addresses to slow a simulation down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mix(u64);

impl Mix {
    const fn take(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.take(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.take(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.take(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.take(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.take(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher as _;
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn pairs_of_addresses_differ_in_the_low_bits_and_in_the_high_ones() {
        let all: Vec<IpAddr> = (0..64).map(|site| Ipv4Addr::new(198, 18, 0, site).into()).collect();
        let build = BuildHasherDefault::<Mix>::default();
        let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
        let hashes: Vec<u64> = pairs.map(|pair| build.hash_one(pair)).collect();
        for shift in [0, 48] {
            let kinds: BTreeSet<u16> = hashes.iter().map(|hash| (hash >> shift) as u16).collect();
            assert!(kinds.len() > 3_500, "{} of {} at {shift}", kinds.len(), hashes.len());
        }
    }
}
