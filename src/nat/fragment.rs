//! Where the later fragments of a packet go: as the first one went.
//!
//! Only a first fragment has ports. What was done to it is remembered for a few seconds, so that
//! the others, which follow it as a rule, can be treated alike. The table is fixed: 64 sets of 8
//! places, the set chosen by the sender, so that one host with many fragmented packets can only
//! crowd out its own set; whole packets never need it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Realm;
use crate::rng::Rng;
use crate::table::HashSeed;
use crate::time::Instant;

const SETS: usize = 64;
const WAYS: usize = 8;

/// Which packet a fragment belongs to (RFC 791 section 2.3), and on which side it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentKey {
    /// None on the outside.
    pub(super) realm: Option<Realm>,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) id: u32,
}

/// What was done to the first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Treatment {
    /// The new source of an outbound packet, the new destination of an inbound one.
    pub(super) address: Ipv4Addr,
    /// Whom an inbound packet is for.
    pub(super) realm: Realm,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FragmentKey,
    treatment: Treatment,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct FragmentTable {
    sets: Box<[[Option<Entry>; WAYS]]>,
    seed: HashSeed,
    lifetime: Duration,
}

impl FragmentTable {
    pub(super) fn new(lifetime: Duration, rng: &mut Rng) -> Self {
        let sets = vec![[None; WAYS]; SETS].into_boxed_slice();
        Self { sets, seed: HashSeed::new(rng), lifetime }
    }

    /// Remembers a first fragment; not when its set is full of packets that are still expected.
    pub(super) fn remember(&mut self, now: Instant, key: FragmentKey, treatment: Treatment) {
        let until = now + self.lifetime;
        let set = self.set(&key);
        let ways = &mut self.sets[set];
        let known = ways.iter().position(|way| way.is_some_and(|entry| entry.key == key));
        let free = || ways.iter().position(|way| way.is_none_or(|entry| entry.until <= now));
        if let Some(way) = known.or_else(free) {
            ways[way] = Some(Entry { key, treatment, until });
        }
    }

    /// What to do with a later fragment.
    pub(super) fn find(&self, now: Instant, key: &FragmentKey) -> Option<Treatment> {
        let ways = self.sets[self.set(key)].iter().flatten();
        let mut matching = ways.filter(|entry| entry.key == *key && entry.until > now);
        matching.next().map(|entry| entry.treatment)
    }

    fn set(&self, key: &FragmentKey) -> usize {
        let side = key.realm.map_or(1 << 16, |realm| u64::from(realm.0));
        let sender = u64::from(key.source.to_bits());
        self.seed.hash([side << 32 | sender]) as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(realm: Option<Realm>, host: u8, id: u32) -> FragmentKey {
        FragmentKey {
            realm,
            source: Ipv4Addr::new(10, 0, 0, host),
            destination: Ipv4Addr::new(192, 0, 2, 1),
            protocol: 17,
            id,
        }
    }

    fn treatment(n: u8) -> Treatment {
        Treatment { address: Ipv4Addr::new(198, 51, 100, n), realm: Realm::LOCAL }
    }

    #[test]
    fn a_packet_is_known_for_its_time_and_by_its_whole_key() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        let here = key(Some(Realm(1)), 1, 7);
        table.remember(Instant::ZERO, here, treatment(1));
        let late = Instant::from_micros(4_999_999);
        assert_eq!(table.find(late, &here), Some(treatment(1)));
        for other in [key(Some(Realm(2)), 1, 7), key(None, 1, 7), key(Some(Realm(1)), 1, 8)] {
            assert_eq!(table.find(late, &other), None);
        }
        assert_eq!(table.find(Instant::from_micros(5_000_000), &here), None);
    }

    #[test]
    fn a_flood_of_one_host_crowds_out_neither_its_older_packets_nor_all_other_hosts() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        for id in 0..10_000 {
            table.remember(Instant::ZERO, key(None, 1, id), treatment(1));
        }
        assert_eq!(table.find(Instant::ZERO, &key(None, 1, 0)), Some(treatment(1)));
        assert_eq!(table.find(Instant::ZERO, &key(None, 1, 9_999)), None);
        let served = (2..102).filter(|&host| {
            table.remember(Instant::ZERO, key(None, host, 1), treatment(2));
            table.find(Instant::ZERO, &key(None, host, 1)).is_some()
        });
        assert!(served.count() > 90);
    }
}
