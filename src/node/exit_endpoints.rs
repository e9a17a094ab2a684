//! Which exit has the mapping of an endpoint of our hosts.
//!
//! The exit's NAT lets anybody in who knows a mapping's outside endpoint (endpoint-independent
//! filtering, RFC 4787 REQ-8), so a packet may come from an address that the host never sent to.
//! It is welcome when its exit is the one that the host's endpoint uses. New flows of the endpoint
//! keep to that exit, or else the same endpoint would have mappings at several exits (REQ-1).

use std::net::{IpAddr, SocketAddr};
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

/// The longest lease of a mapping, in seconds.
const LEASE_MAX: u32 = 86_400;

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

    /// A host's own server.
    pub(super) fn new(address: IpAddr, port: u16, protocol: u8) -> Self {
        Self { address, port, protocol }
    }

    /// What an exit says that it gives a host, for how long: the answer to a request for a mapping
    /// (RFC 6887 section 11.1, RFC 6886 section 3.3).
    pub(super) fn leased(host: IpAddr, response: &[u8]) -> Option<(Self, Duration)> {
        let word = |at: usize| Some(u16::from_be_bytes(*response.get(at..)?.first_chunk()?));
        let seconds = |at: usize| {
            let seconds = u32::from_be_bytes(*response.get(at..)?.first_chunk()?);
            Some(Duration::from_secs(seconds.min(LEASE_MAX).into()))
        };
        match *response.get(..4)? {
            [2, 0x81, _, 0] => {
                let end = Self::new(host, word(40)?, *response.get(36)?);
                Some((end, seconds(4)?))
            }
            [0, kind @ (129 | 130), 0, 0] => {
                let protocol = if kind == 129 { protocol::UDP } else { protocol::TCP };
                Some((Self::new(host, word(8)?, protocol), seconds(12)?))
            }
            _ => None,
        }
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
    /// None at all until the first endpoint is noted: a megabyte.
    sets: Box<[[Option<Entry>; WAYS]]>,
    seed: HashSeed,
}

impl ExitEndpoints {
    /// With room made at once when there are exits to use, so that no packet pays for it.
    pub(super) fn new(rng: &mut Rng, wanted: bool) -> Self {
        let mut table = Self { sets: Box::default(), seed: HashSeed::new(rng) };
        if wanted {
            table.make_room();
        }
        table
    }

    fn make_room(&mut self) {
        if self.sets.is_empty() {
            self.sets = vec![[None; WAYS]; SETS].into_boxed_slice();
        }
    }

    /// The endpoint sends through the exit of this peer.
    pub(super) fn note(&mut self, now: Instant, end: HostEnd, exit: PeerIndex) {
        self.note_for(now, end, exit, LIFETIME);
    }

    /// The endpoint has a mapping at the exit of this peer for so long.
    pub(super) fn note_for(&mut self, now: Instant, end: HostEnd, exit: PeerIndex, time: Duration) {
        self.make_room();
        let set = self.set(&end);
        let ways = &mut self.sets[set];
        let known = ways.iter().position(|way| way.is_some_and(|entry| entry.end == end));
        let free = || ways.iter().position(|way| way.is_none_or(|entry| entry.until <= now));
        if let Some(way) = known.or_else(free) {
            let same = ways[way].filter(|old| (old.end, old.exit) == (end, exit));
            let until = same.map_or(now, |old| old.until).max(now + time);
            ways[way] = Some(Entry { end, exit, until });
        }
    }

    /// The peer whose exit the endpoint uses.
    pub(super) fn exit_of(&self, now: Instant, end: &HostEnd) -> Option<PeerIndex> {
        let mut ways = self.sets.get(self.set(end))?.iter().flatten();
        ways.find(|entry| entry.end == *end && entry.until > now).map(|entry| entry.exit)
    }

    fn set(&self, end: &HostEnd) -> usize {
        self.seed.hash(end.words()) as usize % SETS
    }
}

/// The servers of the configuration.
pub(super) fn servers(configured: &[(SocketAddr, u8)]) -> Vec<HostEnd> {
    let end = |&(end, protocol): &(SocketAddr, u8)| HostEnd::new(end.ip(), end.port(), protocol);
    configured.iter().map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(port: u16) -> HostEnd {
        HostEnd { address: "10.1.0.5".parse().unwrap(), port, protocol: protocol::UDP }
    }

    #[test]
    fn an_endpoint_is_known_for_its_time_and_only_itself() {
        let mut table = ExitEndpoints::new(&mut Rng::new([1; 32]), false);
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
    fn a_lease_is_read_as_the_server_writes_it() {
        let host = "10.1.0.5".parse().unwrap();
        let mut pcp = [0; 60];
        pcp[..8].copy_from_slice(&[2, 0x81, 0, 0, 0, 0, 2, 88]);
        (pcp[36], pcp[41]) = (protocol::TCP, 80);
        let tcp = HostEnd::new(host, 80, protocol::TCP);
        assert_eq!(HostEnd::leased(host, &pcp), Some((tcp, Duration::from_secs(600))));
        pcp[3] = 8;
        assert_eq!(HostEnd::leased(host, &pcp), None, "refused");
        let pmp = [0, 130, 0, 0, 0, 0, 0, 9, 0, 80, 157, 0, 0, 0, 2, 88];
        assert_eq!(HostEnd::leased(host, &pmp), Some((tcp, Duration::from_secs(600))));
        assert_eq!(HostEnd::leased(host, &pmp[..14]), None);
        let mut table = ExitEndpoints::new(&mut Rng::new([1; 32]), false);
        table.note_for(Instant::ZERO, tcp, PeerIndex(3), Duration::from_secs(600));
        table.note(Instant::from_micros(1), tcp, PeerIndex(3));
        let late = Instant::from_micros(599_999_999);
        assert_eq!(table.exit_of(late, &tcp), Some(PeerIndex(3)), "a packet does not shorten it");
    }

    #[test]
    fn what_is_known_does_not_give_way_to_a_flood() {
        let mut table = ExitEndpoints::new(&mut Rng::new([1; 32]), false);
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
