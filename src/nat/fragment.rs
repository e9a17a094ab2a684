//! Where the later fragments of a packet go: as the first one went.
//!
//! Only a first fragment has ports. What was done to it is remembered until the whole packet has
//! passed, or for a few seconds; fragments that come before it are held as long (RFC 4787 REQ-14).
//! Both tables are fixed: 256 sets of 8 places, the set chosen by the sender, and 128 buffers of
//! which one sender gets 16. So one host with many broken packets can only crowd out its own; whole
//! packets need neither.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Realm;
use super::end::halves;
use crate::rng::Rng;
use crate::table::HashSeed;
use crate::telemetry::DropReason;
use crate::time::Instant;

const SETS: usize = 256;
const WAYS: usize = 8;
const HELD_MAX: usize = 128;
const HELD_SHARE: usize = 16;
/// Longest fragment that is held.
const HELD_LEN: usize = 2_048;

/// Which packet a fragment belongs to (RFC 791 section 2.3), and on which side it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentKey {
    /// None on the outside.
    pub(super) realm: Option<Realm>,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) protocol: u8,
    pub(super) id: u32,
}

/// Which part of its packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) len: u32,
    pub(super) end: u32,
    pub(super) more: bool,
}

/// What was done to the first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Treatment {
    /// The new source of an outbound packet, the new destination of an inbound one.
    pub(super) address: Ipv6Addr,
    /// Whom an inbound packet is for.
    pub(super) realm: Realm,
    /// The new identification, where there is one.
    pub(super) id: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FragmentKey,
    treatment: Treatment,
    until: Instant,
    /// Bytes that have passed, and where the last fragment ends.
    passed: u32,
    total: Option<u32>,
}

impl Entry {
    /// Counts a fragment. True when it was the last one missing.
    fn pass(&mut self, part: Part) -> bool {
        self.passed = self.passed.saturating_add(part.len);
        if !part.more {
            self.total = Some(part.end);
        }
        self.total.is_some_and(|total| self.passed >= total)
    }
}

#[derive(Debug)]
struct Held {
    key: Option<FragmentKey>,
    until: Instant,
    released: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct FragmentTable {
    sets: Box<[[Option<Entry>; WAYS]]>,
    held: Box<[Held]>,
    /// How many of them are taken, and how many of these are to be given back.
    holding: usize,
    releasing: usize,
    lost: u64,
    seed: HashSeed,
    lifetime: Duration,
}

impl FragmentTable {
    pub(super) fn new(lifetime: Duration, rng: &mut Rng) -> Self {
        let sets = vec![[None; WAYS]; SETS].into_boxed_slice();
        let bytes = || Vec::with_capacity(HELD_LEN);
        let held = || Held { key: None, until: Instant::ZERO, released: false, bytes: bytes() };
        let held = (0..HELD_MAX).map(|_| held()).collect();
        let seed = HashSeed::new(rng);
        Self { sets, held, holding: 0, releasing: 0, lost: 0, seed, lifetime }
    }

    /// Remembers a first fragment; not when its set is full of packets that are still expected.
    /// Those of its packet that were held are released.
    pub(super) fn remember(
        &mut self,
        now: Instant,
        key: FragmentKey,
        treatment: Treatment,
        part: Part,
    ) {
        let until = now + self.lifetime;
        let set = self.set(&key);
        let ways = &mut self.sets[set];
        let known = ways.iter().position(|way| way.is_some_and(|entry| entry.key == key));
        let free = || ways.iter().position(|way| way.is_none_or(|entry| entry.until <= now));
        if let Some(way) = known.or_else(free) {
            let mut entry = Entry { key, treatment, until, passed: 0, total: None };
            entry.pass(part);
            ways[way] = Some(entry);
        }
        if self.holding == 0 {
            return;
        }
        for held in &mut self.held {
            if held.key == Some(key) && !held.released {
                held.released = true;
                self.releasing += 1;
            }
        }
    }

    /// What to do with a later fragment.
    pub(super) fn find(
        &mut self,
        now: Instant,
        key: &FragmentKey,
        part: Part,
    ) -> Option<Treatment> {
        let set = self.set(key);
        let ways = self.sets[set].iter_mut();
        let live = |entry: &Entry| entry.key == *key && entry.until > now;
        for way in ways {
            let Some(entry) = way.as_mut().filter(|entry| live(entry)) else { continue };
            let treatment = entry.treatment;
            if entry.pass(part) {
                *way = None;
            }
            return Some(treatment);
        }
        None
    }

    /// Keeps a fragment that came before its first one.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        key: FragmentKey,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let sender = |key: &FragmentKey| (key.realm, key.source);
        let live = |held: &Held| held.key.is_some() && (held.until > now || held.released);
        let own = |held: &&Held| live(held) && held.key.map(|k| sender(&k)) == Some(sender(&key));
        if bytes.len() > HELD_LEN || self.held.iter().filter(own).count() >= HELD_SHARE {
            return Err(DropReason::Fragment);
        }
        let free = self.held.iter().position(|held| !live(held)).ok_or(DropReason::Fragment)?;
        let held = &mut self.held[free];
        if held.key.is_some() {
            self.lost += 1;
        } else {
            self.holding += 1;
        }
        (held.key, held.until) = (Some(key), now + self.lifetime);
        held.bytes.clear();
        held.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Exchanges `frame` for a fragment that was released, and tells the side it came from.
    pub(super) fn take_released(&mut self, frame: &mut Vec<u8>) -> Option<Option<Realm>> {
        if self.releasing == 0 {
            return None;
        }
        let held = self.held.iter_mut().find(|held| held.released)?;
        let key = held.key.take()?;
        held.released = false;
        self.releasing -= 1;
        self.holding -= 1;
        frame.clear();
        frame.extend_from_slice(&held.bytes);
        Some(key.realm)
    }

    /// Gives up what was held for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.holding == self.releasing {
            return;
        }
        for held in &mut self.held {
            if held.key.is_some() && held.until <= now && !held.released {
                held.key = None;
                self.holding -= 1;
                self.lost += 1;
            }
        }
    }

    /// Fragments that are held, and those whose loss nobody took yet.
    pub(super) const fn unaccounted(&self) -> u64 {
        self.holding as u64 + self.lost
    }

    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn set(&self, key: &FragmentKey) -> usize {
        let side = key.realm.map_or(1 << 16, |realm| u64::from(realm.0));
        let [high, low] = halves(key.source);
        self.seed.hash([side, high, low]) as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::end::wide;

    fn key(realm: Option<Realm>, host: u8, id: u32) -> FragmentKey {
        FragmentKey {
            realm,
            source: wide([10, 0, 0, host].into()),
            destination: wide([192, 0, 2, 1].into()),
            protocol: 17,
            id,
        }
    }

    fn treatment(n: u8) -> Treatment {
        Treatment { address: wide([198, 51, 100, n].into()), realm: Realm::LOCAL, id: None }
    }

    const FIRST: Part = Part { len: 1_000, end: 1_000, more: true };
    const SECOND: Part = Part { len: 1_000, end: 2_000, more: true };
    const LAST: Part = Part { len: 500, end: 2_500, more: false };

    #[test]
    fn a_packet_is_known_for_its_time_and_by_its_whole_key() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        let here = key(Some(Realm(1)), 1, 7);
        table.remember(Instant::ZERO, here, treatment(1), FIRST);
        let late = Instant::from_micros(4_999_999);
        assert_eq!(table.find(late, &here, SECOND), Some(treatment(1)));
        for other in [key(Some(Realm(2)), 1, 7), key(None, 1, 7), key(Some(Realm(1)), 1, 8)] {
            assert_eq!(table.find(late, &other, SECOND), None);
        }
        assert_eq!(table.find(Instant::from_micros(5_000_000), &here, SECOND), None);
    }

    #[test]
    fn a_flood_of_one_host_crowds_out_neither_its_older_packets_nor_all_other_hosts() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        for id in 0..10_000 {
            table.remember(Instant::ZERO, key(None, 1, id), treatment(1), FIRST);
        }
        assert_eq!(table.find(Instant::ZERO, &key(None, 1, 0), SECOND), Some(treatment(1)));
        assert_eq!(table.find(Instant::ZERO, &key(None, 1, 9_999), SECOND), None);
        let served = (2..102).filter(|&host| {
            table.remember(Instant::ZERO, key(None, host, 1), treatment(2), FIRST);
            table.find(Instant::ZERO, &key(None, host, 1), SECOND).is_some()
        });
        assert!(served.count() > 90);
    }

    #[test]
    fn a_packet_that_has_passed_leaves_its_place() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        for id in 0..1_000 {
            table.remember(Instant::ZERO, key(None, 1, id), treatment(1), FIRST);
            // Also out of order.
            assert!(table.find(Instant::ZERO, &key(None, 1, id), LAST).is_some());
            assert!(table.find(Instant::ZERO, &key(None, 1, id), SECOND).is_some());
        }
        assert_eq!(table.find(Instant::ZERO, &key(None, 1, 999), SECOND), None);
    }

    #[test]
    fn early_fragments_wait_for_the_first_one() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        let mut frame = Vec::new();
        for (id, bytes) in [(1, b"one"), (2, b"two"), (1, b"six")] {
            assert_eq!(table.hold(Instant::ZERO, key(Some(Realm(4)), 1, id), bytes), Ok(()));
        }
        assert_eq!(table.take_released(&mut frame), None);
        table.remember(Instant::ZERO, key(Some(Realm(4)), 1, 1), treatment(1), FIRST);
        for bytes in [b"one", b"six"] {
            assert_eq!(table.take_released(&mut frame), Some(Some(Realm(4))));
            assert_eq!(frame, bytes);
        }
        assert_eq!(table.take_released(&mut frame), None);
        assert_eq!(table.take_lost(), 0);
        table.expire(Instant::from_micros(5_000_000));
        assert_eq!(table.take_lost(), 1);
    }

    #[test]
    fn a_flood_of_early_fragments_takes_its_share_of_the_buffers_only() {
        let mut table = FragmentTable::new(Duration::from_secs(5), &mut Rng::new([1; 32]));
        let held = |table: &mut FragmentTable, now, host| {
            (0..1_000).filter(|&id| table.hold(now, key(None, host, id), b"early").is_ok()).count()
        };
        assert_eq!(held(&mut table, Instant::ZERO, 1), HELD_SHARE);
        assert_eq!(held(&mut table, Instant::ZERO, 2), HELD_SHARE);
        assert_eq!(
            table.hold(Instant::ZERO, key(None, 3, 1), &[0; HELD_LEN + 1]),
            Err(DropReason::Fragment)
        );
        // Their time is over: the places are free, and what was in them is counted.
        assert_eq!(held(&mut table, Instant::from_micros(5_000_000), 1), HELD_SHARE);
        table.expire(Instant::from_micros(6_000_000));
        assert_eq!(table.take_lost(), 2 * HELD_SHARE as u64);
    }
}
