//! Which addresses are no ordinary Internet destinations.
//!
//! The table follows the IANA registries of special-purpose addresses (RFC 6890, RFC 8190) and of
//! multicast addresses. Documentation prefixes (RFC 5737, RFC 3849, RFC 9637) and the benchmark
//! prefixes (RFC 2544, RFC 5180) are left out on purpose: they count as ordinary Internet, so that
//! laboratories can use them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// A range of addresses: base, prefix length, and where it is defined.
struct Range<A> {
    base: A,
    prefix: u32,
    #[cfg_attr(not(test), expect(dead_code, reason = "the table is also documentation"))]
    source: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32, source: &'static str) -> Range<u32> {
    Range { base: u32::from_be_bytes([a, b, c, d]), prefix, source }
}

const fn v6(segments: [u16; 8], prefix: u32, source: &'static str) -> Range<u128> {
    let [a, b, c, d, e, f, g, h] = segments;
    Range { base: Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits(), prefix, source }
}

const SPECIAL_V4: &[Range<u32>] = &[
    v4(0, 0, 0, 0, 8, "RFC 791: this network"),
    v4(10, 0, 0, 0, 8, "RFC 1918: private"),
    v4(100, 64, 0, 0, 10, "RFC 6598: shared"),
    v4(127, 0, 0, 0, 8, "RFC 1122: loopback"),
    v4(169, 254, 0, 0, 16, "RFC 3927: link-local"),
    v4(172, 16, 0, 0, 12, "RFC 1918: private"),
    v4(192, 0, 0, 0, 24, "RFC 6890: protocol assignments"),
    v4(192, 88, 99, 0, 24, "RFC 7526: 6to4 relays, deprecated"),
    v4(192, 168, 0, 0, 16, "RFC 1918: private"),
    v4(224, 0, 0, 0, 4, "RFC 5771: multicast"),
    v4(240, 0, 0, 0, 4, "RFC 1112: reserved, with limited broadcast (RFC 8190)"),
];

const SPECIAL_V6: &[Range<u128>] = &[
    // Unspecified, loopback, v4-mapped, v4-compatible, and NAT64 (RFC 6052, RFC 8215).
    v6([0; 8], 8, "RFC 4291: reserved"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "RFC 6666: discard only"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "RFC 9780: dummy prefix"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "RFC 4380: Teredo, embeds IPv4 addresses"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "RFC 4843: ORCHID, deprecated"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "RFC 7343: ORCHIDv2"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "RFC 3056: 6to4, embeds IPv4 addresses"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "RFC 9602: segment routing identifiers"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "RFC 4193: unique local"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "RFC 4291: link-local"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "RFC 3879: site-local, deprecated"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "RFC 4291: multicast"),
];

/// True for an address that no flow to or from the Internet may have: private, shared, loopback,
/// link-local, multicast, reserved, or one that hides an IPv4 address.
pub fn is_special_purpose(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_special_purpose_v4(address),
        IpAddr::V6(address) => is_special_purpose_v6(address),
    }
}

/// A prefix under which IPv6 hosts see the addresses of IPv4 (RFC 6052 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix(Ipv6Net);

impl Nat64Prefix {
    /// `64:ff9b::/96` (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self =
        Self(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96));

    /// None for a length other than 32, 40, 48, 56, 64 or 96, or with bits 64 to 71 set.
    pub fn new(net: Ipv6Net) -> Option<Self> {
        let known = [32, 40, 48, 56, 64, 96].contains(&net.prefix_len());
        let net = net.trunc();
        (known && net.network().octets()[8] == 0).then_some(Self(net))
    }

    /// The prefix.
    pub const fn net(self) -> Ipv6Net {
        self.0
    }

    /// Where the octets of the IPv4 address are: behind the prefix, but for the octet 8.
    fn places(self) -> [usize; 4] {
        let mut at = usize::from(self.0.prefix_len()) / 8;
        [0; 4].map(|_| {
            at += usize::from(at == 8);
            at += 1;
            at - 1
        })
    }

    /// What stands for an IPv4 address.
    pub fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.0.network().octets();
        for (at, octet) in self.places().into_iter().zip(address.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// The IPv4 address that an address stands for, if it is under the prefix.
    pub fn embedded(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        self.0.contains(&address).then(|| Ipv4Addr::from(self.places().map(|at| octets[at])))
    }
}

/// True for an address that one host can have beyond its own link: not unspecified, loopback,
/// link-local, multicast or broadcast.
pub fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_unicast_link_local()
                || a.is_multicast())
        }
    }
}

fn is_special_purpose_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    SPECIAL_V4.iter().any(|range| (bits ^ range.base) >> (32 - range.prefix) == 0)
}

fn is_special_purpose_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    SPECIAL_V6.iter().any(|range| (bits ^ range.base) >> (128 - range.prefix) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(text: &str) -> bool {
        is_special_purpose(text.parse().unwrap())
    }

    #[test]
    fn ipv4_addresses_are_embedded_as_in_rfc_6052() {
        // The table of section 2.4.
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let prefix = Nat64Prefix::new(prefix.parse().unwrap()).unwrap();
            let address = Ipv4Addr::new(192, 0, 2, 33);
            assert_eq!(prefix.embed(address), expected.parse::<Ipv6Addr>().unwrap());
            assert_eq!(prefix.embedded(prefix.embed(address)), Some(address));
            assert_eq!(prefix.embedded("2001:db9::1".parse().unwrap()), None);
        }
        assert_eq!(Nat64Prefix::new("2001:db8::/33".parse().unwrap()), None);
    }

    #[test]
    fn edges_of_every_ipv4_range_are_special_and_their_neighbours_of_unicast_space_are_not() {
        for range in SPECIAL_V4 {
            let last = range.base | (u32::MAX >> range.prefix);
            for edge in [range.base, last] {
                assert!(is_special_purpose_v4(edge.into()), "{}", range.source);
            }
        }
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "223.255.255.255",
            "8.8.8.8",
        ] {
            assert!(!special(address), "{address}");
        }
    }

    #[test]
    fn edges_of_every_ipv6_range_are_special_and_global_unicast_is_not() {
        for range in SPECIAL_V6 {
            let last = range.base | (u128::MAX >> range.prefix);
            for edge in [range.base, last] {
                assert!(is_special_purpose_v6(edge.into()), "{}", range.source);
            }
        }
        for address in
            ["2001:200::", "2001:4860:4860::8888", "2003::", "2a00::1", "3ffe::1", "fbff::"]
        {
            assert!(!special(address), "{address}");
        }
    }

    #[test]
    fn mapped_and_embedded_ipv4_is_special() {
        assert!(special("::ffff:8.8.8.8"));
        assert!(special("::8.8.8.8"));
        assert!(special("64:ff9b::10.0.0.1"));
        assert!(special("2002:0a00:0001::1"));
    }

    #[test]
    fn documentation_and_benchmark_prefixes_are_ordinary() {
        for address in
            ["192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "2001:db8::1", "3fff::1"]
        {
            assert!(!special(address), "{address}");
        }
        assert!(!special("2001:2::1"));
    }

    #[test]
    fn only_addresses_of_one_distant_host_are_unicast() {
        for text in ["10.1.2.3", "192.0.2.1", "100.64.0.1", "fd00::1", "2001:db8::1"] {
            assert!(is_unicast(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.5",
            "255.255.255.255",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_unicast(text.parse().unwrap()), "{text}");
        }
    }
}
