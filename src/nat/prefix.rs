//! IPv6 prefixes exchanged one for one (NPTv6, RFC 6296): no state, no ports, and a change that no
//! checksum sees.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::icmp::checked_quote;
use super::{Inbound, Nat, Realm};
use crate::packet::{Headers, IcmpKind, Vnet, rewrite};
use crate::telemetry::DropReason;

/// The longest prefix: what is behind it is the host's.
pub const PREFIX_LEN_MAX: u8 = 64;
/// Up to here the bits 48 to 63 take the adjustment, else the interface identifier does.
const SHORT: u8 = 48;

/// A prefix of inside hosts and the one that the Internet knows, of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPair {
    /// Whom the hosts are behind.
    pub realm: Realm,
    /// Theirs.
    pub inside: Ipv6Net,
    /// The one outside.
    pub outside: Ipv6Net,
}

impl PrefixPair {
    fn outward(&self, address: Ipv6Addr) -> Option<Ipv6Addr> {
        exchange(&self.inside, &self.outside, address)
    }

    fn inward(&self, address: Ipv6Addr) -> Option<Ipv6Addr> {
        exchange(&self.outside, &self.inside, address)
    }
}

/// The address with the other prefix, and one more word changed so that the sum of all stays
/// (RFC 6296 sections 3.1 to 3.6). None for those that have no counterpart.
fn exchange(from: &Ipv6Net, to: &Ipv6Net, address: Ipv6Addr) -> Option<Ipv6Addr> {
    let host = address.to_bits() & from.hostmask().to_bits();
    let mut words = Ipv6Addr::from_bits(to.network().to_bits() | host).segments();
    let at = if from.prefix_len() <= SHORT {
        3
    } else {
        // Subnet-router anycast addresses are no hosts'.
        let identified = words[4..].iter().any(|&word| word != 0);
        (4..8).find(|&at| words[at] != 0xffff).filter(|_| identified)?
    };
    if words[at] == 0xffff {
        return None;
    }
    let sum = u32::from(words[at]) + sum(from.network()) + u32::from(!(sum(to.network()) as u16));
    let adjusted = fold(sum);
    words[at] = if adjusted == 0xffff { 0 } else { adjusted };
    Some(words.into())
}

fn sum(address: Ipv6Addr) -> u32 {
    fold(address.segments().into_iter().map(u32::from).sum()).into()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

impl Nat {
    /// The pair whose inside prefix has an address.
    pub(super) fn pair_inside(&self, realm: Realm, address: IpAddr) -> Option<PrefixPair> {
        let IpAddr::V6(address) = address else { return None };
        let has = |pair: &&PrefixPair| pair.realm == realm && pair.inside.contains(&address);
        self.prefixes.iter().find(has).copied()
    }

    /// The pair whose outside prefix has an address.
    pub(super) fn pair_outside(&self, address: IpAddr) -> Option<PrefixPair> {
        let IpAddr::V6(address) = address else { return None };
        self.prefixes.iter().find(|pair| pair.outside.contains(&address)).copied()
    }
}

impl PrefixPair {
    /// Gives a packet from inside the outside prefix. An error of ICMP shows what the Internet
    /// knows.
    pub(super) fn rewrite_outbound(
        &self,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let outward = |address| match address {
            IpAddr::V6(address) => self.outward(address).ok_or(DropReason::ForeignSource),
            IpAddr::V4(_) => Err(DropReason::Malformed),
        };
        let mut source = headers.source;
        if headers.icmp == Some(IcmpKind::Error) {
            let quote = checked_quote(frame, headers)?;
            let has = |address| matches!(address, IpAddr::V6(ip) if self.inside.contains(&ip));
            if !has(quote.destination) || quote.source != headers.destination {
                return Err(DropReason::UnrelatedIcmpError);
            }
            if !has(source) {
                source = quote.destination;
            }
            let host = outward(quote.destination).map_err(|_| DropReason::UnrelatedIcmpError)?;
            rewrite::set_quoted_destination(frame, headers, host.into(), None)?;
        }
        let source = outward(source)?;
        rewrite::set_source(frame, headers, vnet, source.into(), None)
    }

    /// Gives a packet from outside the inside prefix.
    pub(super) fn rewrite_inbound(
        &self,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Inbound, DropReason> {
        let inward = |address| match address {
            IpAddr::V6(address) => self.inward(address).ok_or(DropReason::Unsolicited),
            IpAddr::V4(_) => Err(DropReason::Malformed),
        };
        let destination = inward(headers.destination)?;
        if headers.icmp == Some(IcmpKind::Error) {
            let quote = checked_quote(frame, headers)?;
            if quote.source != headers.destination {
                return Err(DropReason::UnrelatedIcmpError);
            }
            rewrite::set_quoted_source(frame, headers, destination.into(), None)?;
        }
        let destination = IpAddr::V6(destination);
        rewrite::set_destination(frame, headers, vnet, destination, None)?;
        Ok(Inbound { realm: self.realm, destination })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_example_of_rfc_6296_holds() {
        let (inside, outside) = (net("fd01:203:405::/48"), net("2001:db8:1::/48"));
        let (host, seen) = (address("fd01:203:405:1::1234"), address("2001:db8:1:d550::1234"));
        assert_eq!(exchange(&inside, &outside, host), Some(seen));
        assert_eq!(exchange(&outside, &inside, seen), Some(host));
    }

    #[test]
    fn what_has_no_counterpart_is_refused() {
        let (inside, outside) = (net("fd01:203:405::/48"), net("2001:db8:1::/48"));
        assert_eq!(exchange(&inside, &outside, address("fd01:203:405:ffff::1")), None);
        let (inside, outside) = (net("fd01:203:405:7::/64"), net("2001:db8:1:8::/64"));
        assert_eq!(exchange(&inside, &outside, address("fd01:203:405:7::")), None);
        let all = address("fd01:203:405:7:ffff:ffff:ffff:ffff");
        assert_eq!(exchange(&inside, &outside, all), None);
    }

    proptest! {
        #[test]
        fn each_way_is_the_others_inverse_and_no_checksum_sees_it(
            bits in any::<u128>(), prefixes in any::<[u64; 2]>(), len in 0u8..=PREFIX_LEN_MAX,
            ones in 0u32..4,
        ) {
            let nets = prefixes.map(|bits| {
                Ipv6Net::new(Ipv6Addr::from_bits(u128::from(bits) << 64), len).unwrap().trunc()
            });
            let ones = u128::MAX.checked_shl(64 - 16 * ones).unwrap_or(0) & u128::from(u64::MAX);
            let host = (bits | ones) & nets[0].hostmask().to_bits();
            let host = Ipv6Addr::from_bits(nets[0].network().to_bits() | host);
            if let Some(seen) = exchange(&nets[0], &nets[1], host) {
                prop_assert!(nets[1].contains(&seen));
                prop_assert_eq!(sum(host) % 0xffff, sum(seen) % 0xffff);
                // A word of zeros and one of ones are one number; zero is what is made.
                let back = exchange(&nets[1], &nets[0], seen);
                prop_assert_eq!(back, Some(host));
            }
        }
    }
}
