//! How many handshake messages we work on: token buckets, in all and for each source.
//!
//! Below the load threshold everyone is served. Above it only senders that proved their address,
//! and each address has a bucket of its own. What comes through a relay has one always.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Source;
use crate::id::{NodeId, PeerIndex};
use crate::time::Instant;

/// Handshake messages a second for each source.
const SOURCE_RATE: u32 = 20;
/// Handshake messages at once for each source.
const SOURCE_BURST: u32 = 10;
/// Most sources that are remembered.
const SOURCES_MAX: usize = 1_024;
/// Cookies are demanded for so long after the threshold was last exceeded.
const LOAD_LASTS: Duration = Duration::from_secs(1);

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens_micro: u64,
    at: Instant,
}

impl Bucket {
    const fn full(now: Instant, burst: u32) -> Self {
        Self { tokens_micro: burst as u64 * 1_000_000, at: now }
    }

    fn refill(&mut self, now: Instant, rate: u32, burst: u32) {
        let passed = now.saturating_since(self.at).as_micros() as u64;
        self.at = now.max(self.at);
        let cap = u64::from(burst) * 1_000_000;
        let gained = passed.saturating_mul(u64::from(rate));
        self.tokens_micro = self.tokens_micro.saturating_add(gained).min(cap);
    }

    fn take(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        self.refill(now, rate, burst);
        let granted = self.tokens_micro >= 1_000_000;
        if granted {
            self.tokens_micro -= 1_000_000;
        }
        granted
    }
}

/// Who has a bucket: an IPv4 address, an IPv6 /48, or a node behind a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    V4([u8; 4]),
    V6([u8; 6]),
    Relayed(PeerIndex, NodeId),
}

impl Key {
    fn of(source: &Source) -> Self {
        match source {
            Source::Relayed { relay, src } => Self::Relayed(*relay, *src),
            Source::Direct(address) => Self::of_address(*address),
        }
    }

    fn of_address(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// The buckets.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    threshold: u32,
    all: Bucket,
    loaded_until: Instant,
    sources: BTreeMap<Key, Bucket>,
}

impl Limits {
    pub(super) fn new(now: Instant, threshold: u32) -> Self {
        Self {
            threshold,
            all: Bucket::full(now, threshold),
            loaded_until: now,
            sources: BTreeMap::new(),
        }
    }

    /// Counts one message. True while there are too many of them.
    pub(super) fn under_load(&mut self, now: Instant) -> bool {
        if !self.all.take(now, self.threshold, self.threshold) {
            self.loaded_until = now + LOAD_LASTS;
        }
        now < self.loaded_until
    }

    /// Takes one from the bucket of a source. False when it is empty, or a new source finds no
    /// room.
    pub(super) fn admit(&mut self, now: Instant, source: &Source) -> bool {
        let key = Key::of(source);
        if !self.sources.contains_key(&key) && self.sources.len() >= SOURCES_MAX {
            self.forget_idle(now);
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let bucket = self.sources.entry(key).or_insert_with(|| Bucket::full(now, SOURCE_BURST));
        bucket.take(now, SOURCE_RATE, SOURCE_BURST)
    }

    /// A bucket that is full again is as good as none.
    fn forget_idle(&mut self, now: Instant) {
        self.sources.retain(|_, bucket| {
            bucket.refill(now, SOURCE_RATE, SOURCE_BURST);
            bucket.tokens_micro < u64::from(SOURCE_BURST) * 1_000_000
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn direct(address: &str) -> Source {
        Source::Direct(address.parse().unwrap())
    }

    #[test]
    fn load_begins_above_the_threshold_and_passes() {
        let mut limits = Limits::new(at(0), 5);
        assert!((0..5).all(|_| !limits.under_load(at(0))));
        assert!(limits.under_load(at(0)));
        assert!(limits.under_load(at(900)));
        assert!(!limits.under_load(at(3_000)));
    }

    #[test]
    fn a_source_has_a_burst_and_a_rate_and_others_are_not_touched() {
        let mut limits = Limits::new(at(0), 5);
        let one = direct("192.0.2.1:1");
        let granted = (0..100).filter(|_| limits.admit(at(0), &one)).count();
        assert_eq!(granted, SOURCE_BURST as usize);
        assert!(!limits.admit(at(0), &direct("192.0.2.1:2")), "the port does not matter");
        assert!(limits.admit(at(0), &direct("192.0.2.2:1")));
        assert!(limits.admit(at(51), &one));
        assert!(!limits.admit(at(51), &one));
    }

    #[test]
    fn v6_sources_share_by_48_and_relayed_ones_by_relay_and_node() {
        let mut limits = Limits::new(at(0), 5);
        let drain = |limits: &mut Limits, source: &Source| {
            (0..100).filter(|_| limits.admit(at(0), source)).count()
        };
        assert_eq!(drain(&mut limits, &direct("[2001:db8:1::1]:1")), 10);
        assert_eq!(drain(&mut limits, &direct("[2001:db8:1:ffff::2]:1")), 0);
        assert_eq!(drain(&mut limits, &direct("[2001:db8:2::1]:1")), 10);
        let relayed = |relay, src| Source::Relayed { relay: PeerIndex(relay), src: NodeId(src) };
        assert_eq!(drain(&mut limits, &relayed(0, 1)), 10);
        assert_eq!(drain(&mut limits, &relayed(0, 2)), 10);
        assert_eq!(drain(&mut limits, &relayed(0, 1)), 0);
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_with_time() {
        let mut limits = Limits::new(at(0), 5);
        let source = |i: u32| Source::Direct(SocketAddr::from((i.to_be_bytes(), 1)));
        let admitted = (0..2_000).filter(|i| limits.admit(at(0), &source(*i))).count();
        assert_eq!(admitted, SOURCES_MAX);
        assert!(limits.admit(at(0), &source(5)), "a known source is still served");
        assert!(limits.admit(at(1_000), &source(5_000)));
    }
}
