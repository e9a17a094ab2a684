//! What tells flows apart.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{Headers, protocol};

/// One direction of a flow, as its packets show it: addresses, protocol, and ports (for an ICMP
/// echo the identifier, in both places; for other protocols zero).
///
/// 38 bytes of content; an IPv4 address takes the first four bytes of its field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    source: [u8; 16],
    destination: [u8; 16],
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    ipv6: bool,
}

impl FlowKey {
    /// The key of these endpoints. `None` when the addresses are of different families.
    pub fn new(protocol: u8, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Option<Self> {
        if source.0.is_ipv6() != destination.0.is_ipv6() {
            return None;
        }
        Some(Self {
            source: octets(source.0),
            destination: octets(destination.0),
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            ipv6: source.0.is_ipv6(),
        })
    }

    /// The key of a packet. Later fragments have no ports: they share one key for each pair of
    /// hosts and protocol.
    pub fn of(headers: &Headers) -> Self {
        let (source_port, destination_port) = headers.ports.map_or((0, 0), |p| (p.src, p.dst));
        Self {
            source: octets(headers.source),
            destination: octets(headers.destination),
            source_port,
            destination_port,
            protocol: headers.protocol,
            ipv6: headers.is_ipv6(),
        }
    }

    /// The key of the packets that answer.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// The sender.
    pub fn source(&self) -> IpAddr {
        address(self.source, self.ipv6)
    }

    /// The receiver.
    pub fn destination(&self) -> IpAddr {
        address(self.destination, self.ipv6)
    }

    /// True for IPv6.
    pub const fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// True for ICMP of either IP version.
    pub const fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// The two ends without ports, for hashing what belongs together.
    pub fn hosts(&self) -> [u64; 4] {
        let [a, b] = halves(self.source);
        let [c, d] = halves(self.destination);
        [a, b, c, d]
    }

    /// Everything, for hashing.
    pub fn words(&self) -> [u64; 5] {
        let [a, b] = halves(self.source);
        let [c, d] = halves(self.destination);
        let rest = u64::from(self.source_port) << 32
            | u64::from(self.destination_port) << 16
            | u64::from(self.protocol) << 8
            | u64::from(self.ipv6);
        [a, b, c, d, rest]
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::net::SocketAddr;
        let source = SocketAddr::from((self.source(), self.source_port));
        let destination = SocketAddr::from((self.destination(), self.destination_port));
        write!(f, "{} {source} -> {destination}", self.protocol)
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowKey({self})")
    }
}

/// The two 64-bit halves of an address.
pub(super) fn halves(octets: [u8; 16]) -> [u64; 2] {
    let bits = u128::from_be_bytes(octets);
    [(bits >> 64) as u64, bits as u64]
}

/// The bytes of an address; of an IPv4 address in the first four.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: [u8; 16], ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from(octets).into()
    } else {
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, destination: &str) -> Option<FlowKey> {
        FlowKey::new(17, (source.parse().unwrap(), 1), (destination.parse().unwrap(), 2))
    }

    #[test]
    fn addresses_come_back_and_families_do_not_mix() {
        let four = key("10.0.0.1", "192.0.2.7").unwrap();
        assert_eq!(four.source(), "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(four.destination(), "192.0.2.7".parse::<IpAddr>().unwrap());
        let six = key("2001:db8::1", "2001:db8::2").unwrap();
        assert_eq!(six.destination(), "2001:db8::2".parse::<IpAddr>().unwrap());
        assert_eq!(key("10.0.0.1", "::1"), None);
        // The same bytes in another family are another key.
        let alike = key("a00:1::", "c000:207::").unwrap();
        assert_ne!(alike, four);
        assert_ne!(alike.words(), four.words());
    }

    #[test]
    fn reversing_swaps_both_ends_and_twice_is_nothing() {
        let key = key("10.0.0.1", "192.0.2.7").unwrap();
        let back = key.reversed();
        assert_eq!((back.source(), back.source_port), (key.destination(), 2));
        assert_eq!((back.destination(), back.destination_port), (key.source(), 1));
        assert_eq!(back.reversed(), key);
        assert_eq!(key.to_string(), "17 10.0.0.1:1 -> 192.0.2.7:2");
    }
}
