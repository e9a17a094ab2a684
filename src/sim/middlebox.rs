//! What stands between a node and the Internet: NATs and firewalls with the behaviours that RFC
//! 4787 names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::time::Instant;

/// What a mapping or a filter depends on (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing but the inside endpoint.
    Independent,
    /// On the remote address too.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// What of a remote endpoint counts.
    fn key(self, remote: SocketAddr) -> Option<(IpAddr, u16)> {
        match self {
            Self::Independent => None,
            Self::Address => Some((remote.ip(), 0)),
            Self::AddressAndPort => Some((remote.ip(), remote.port())),
        }
    }
}

/// How a middlebox behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxModel {
    /// Who gets the same outside port.
    pub mapping: Dependence,
    /// Who may send in.
    pub filtering: Dependence,
    /// Addresses and ports stay as they are: a firewall.
    pub firewall: bool,
    /// How long without packets from inside a mapping lives.
    pub lifetime: Duration,
}

#[derive(Clone, Debug)]
struct Mapping {
    outside_port: u16,
    /// The remote endpoints that were sent to, as far as the filter cares, and when last.
    permitted: BTreeMap<Option<(IpAddr, u16)>, Instant>,
    used: Instant,
}

/// A middlebox in front of one inside endpoint.
#[derive(Clone, Debug)]
pub struct Middlebox {
    model: BoxModel,
    inside: SocketAddr,
    address: IpAddr,
    mappings: BTreeMap<Option<(IpAddr, u16)>, Mapping>,
    next_port: u16,
}

impl Middlebox {
    /// Ports that are given away, from this on.
    const FIRST_PORT: u16 = 20_000;

    /// A box with the outside address `address` in front of `inside`.
    pub const fn new(model: BoxModel, inside: SocketAddr, address: IpAddr) -> Self {
        Self { model, inside, address, mappings: BTreeMap::new(), next_port: Self::FIRST_PORT }
    }

    /// The outside address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// A packet from inside: its source outside.
    pub fn outbound(&mut self, now: Instant, remote: SocketAddr) -> SocketAddr {
        self.expire(now);
        let (inside_port, firewall) = (self.inside.port(), self.model.firewall);
        let next = &mut self.next_port;
        let mapping = self.mappings.entry(self.model.mapping.key(remote)).or_insert_with(|| {
            *next = next.checked_add(1).unwrap_or(Self::FIRST_PORT);
            let outside_port = if firewall { inside_port } else { *next };
            Mapping { outside_port, permitted: BTreeMap::new(), used: now }
        });
        mapping.used = now;
        mapping.permitted.insert(self.model.filtering.key(remote), now);
        SocketAddr::new(self.address, mapping.outside_port)
    }

    /// A packet from outside to `port`: true when it may come in.
    pub fn inbound(&mut self, now: Instant, remote: SocketAddr, port: u16) -> bool {
        self.expire(now);
        let key = self.model.filtering.key(remote);
        let lifetime = self.model.lifetime;
        let permits = |mapping: &Mapping| {
            mapping.outside_port == port
                && mapping.permitted.get(&key).is_some_and(|&at| now - at <= lifetime)
        };
        self.mappings.values().any(permits)
    }

    /// Forgets everything, as a box that lost its power does; new mappings get other ports.
    pub fn reset(&mut self) {
        self.mappings.clear();
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.model.lifetime;
        self.mappings.retain(|_, mapping| now - mapping.used <= lifetime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat(mapping: Dependence, filtering: Dependence) -> Middlebox {
        let lifetime = Duration::from_secs(30);
        let model = BoxModel { mapping, filtering, firewall: false, lifetime };
        Middlebox::new(model, at("172.16.0.1:4710"), "192.0.2.1".parse().unwrap())
    }

    #[test]
    fn mapping_and_filtering_depend_on_what_they_say() {
        use Dependence::{Address, AddressAndPort, Independent};
        let now = Instant::from_micros(5);
        let remotes = [at("198.51.100.1:1"), at("198.51.100.1:2"), at("198.51.100.2:1")];
        for (kind, ports, passes) in [
            (Independent, 1, [true, true, true]),
            (Address, 2, [true, true, false]),
            (AddressAndPort, 3, [true, false, false]),
        ] {
            let mut by_mapping = nat(kind, Independent);
            let mut seen: Vec<_> =
                remotes.map(|remote| by_mapping.outbound(now, remote).port()).to_vec();
            seen.dedup();
            assert_eq!(seen.len(), ports, "{kind:?}");
            let mut by_filter = nat(Independent, kind);
            let port = by_filter.outbound(now, remotes[0]).port();
            assert_eq!(remotes.map(|remote| by_filter.inbound(now, remote, port)), passes);
        }
    }

    #[test]
    fn mappings_end_and_a_reset_box_gives_another_port() {
        let mut nat = nat(Dependence::Independent, Dependence::Independent);
        let (now, remote) = (Instant::from_micros(5), at("198.51.100.1:1"));
        let first = nat.outbound(now, remote);
        let late = now + Duration::from_secs(31);
        assert!(!nat.inbound(late, remote, first.port()));
        let second = nat.outbound(late, remote);
        nat.reset();
        assert_ne!(nat.outbound(late, remote), second);
    }
}
