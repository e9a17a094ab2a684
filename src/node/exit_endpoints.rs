//! Which exit has the mapping of an endpoint of our hosts.
//!
//! The exit's NAT lets anybody in who knows a mapping's outside endpoint (endpoint-independent
//! filtering, RFC 4787 REQ-8), so a packet may come from an address that the host never sent to.
//! It is welcome when its exit is the one that the host's endpoint uses. New flows of the endpoint
//! keep to that exit, or else the same endpoint would have mappings at several exits (REQ-1).

use std::net::IpAddr;
use std::time::Duration;

use crate::flow::FlowKey;
use crate::id::PeerIndex;
use crate::packet::protocol;
use crate::rng::Rng;
use crate::table::HashSeed;
use crate::time::Instant;

const SETS: usize = 8_192;
const WAYS: usize = 4;
/// A NAT keeps a UDP mapping for so long (RFC 4787 REQ-5).
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// An endpoint of a host behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostEnd {
    address: IpAddr,
    port: u16,
    protocol: u8,
}

impl HostEnd {
    /// The source of a packet with this key, if its protocol has ports.
    pub(super) fn source_of(key: &FlowKey) -> Option<Self> {
        matches!(key.protocol, protocol::TCP | protocol::UDP | protocol::UDP_LITE).then(|| Self {
            address: key.source(),
            port: key.source_port,
            protocol: key.protocol,
        })
    }

    fn words(&self) -> [u64; 3] {
        let rest = u64::from(self.port) << 8 | u64::from(self.protocol);
        let address = match self.address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        [(address >> 64) as u64, address as u64, rest]
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    end: HostEnd,
    exit: PeerIndex,
    until: Instant,
}

/// The endpoints that sent something through a peer's exit lately. Where there is no room for one,
/// its flows are still known one by one.
#[derive(Debug)]
pub(super) struct ExitEndpoints {
    sets: Box<[[Option<Entry>; WAYS]]>,
    seed: HashSeed,
}

impl ExitEndpoints {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { sets: vec![[None; WAYS]; SETS].into_boxed_slice(), seed: HashSeed::new(rng) }
    }

    /// The endpoint sends through the exit of this peer.
    pub(super) fn note(&mut self, now: Instant, end: HostEnd, exit: PeerIndex) {
        let set = self.set(&end);
        let ways = &mut self.sets[set];
        let known = ways.iter().position(|way| way.is_some_and(|entry| entry.end == end));
        let free = || ways.iter().position(|way| way.is_none_or(|entry| entry.until <= now));
        if let Some(way) = known.or_else(free) {
            ways[way] = Some(Entry { end, exit, until: now + LIFETIME });
        }
    }

    /// The peer whose exit the endpoint uses.
    pub(super) fn exit_of(&self, now: Instant, end: &HostEnd) -> Option<PeerIndex> {
        let mut ways = self.sets[self.set(end)].iter().flatten();
        ways.find(|entry| entry.end == *end && entry.until > now).map(|entry| entry.exit)
    }

    fn set(&self, end: &HostEnd) -> usize {
        self.seed.hash(end.words()) as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(port: u16) -> HostEnd {
        HostEnd { address: "10.1.0.5".parse().unwrap(), port, protocol: protocol::UDP }
    }

    #[test]
    fn an_endpoint_is_known_for_its_time_and_only_itself() {
        let mut table = ExitEndpoints::new(&mut Rng::new([1; 32]));
        table.note(Instant::ZERO, end(7), PeerIndex(3));
        let late = Instant::from_micros(299_999_999);
        assert_eq!(table.exit_of(late, &end(7)), Some(PeerIndex(3)));
        assert_eq!(table.exit_of(late, &end(8)), None);
        assert_eq!(table.exit_of(late, &HostEnd { protocol: protocol::TCP, ..end(7) }), None);
        assert_eq!(table.exit_of(Instant::from_micros(300_000_000), &end(7)), None);
        table.note(late, end(7), PeerIndex(4));
        assert_eq!(table.exit_of(late, &end(7)), Some(PeerIndex(4)));
    }

    #[test]
    fn what_is_known_does_not_give_way_to_a_flood() {
        let mut table = ExitEndpoints::new(&mut Rng::new([1; 32]));
        table.note(Instant::ZERO, end(1), PeerIndex(3));
        for host in 0..4u8 {
            for port in 2..u16::MAX {
                let address = IpAddr::from([10, 1, 1, host]);
                table.note(Instant::ZERO, HostEnd { address, ..end(port) }, PeerIndex(5));
            }
        }
        assert_eq!(table.exit_of(Instant::ZERO, &end(1)), Some(PeerIndex(3)));
    }
}
