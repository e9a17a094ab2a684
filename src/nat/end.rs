//! Addresses and ports of both families in one form, so that the tables know no families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first 96 bits of what stands for an IPv4 address.
const MAPPED: u128 = 0xffff;

/// An address with a port or identifier. An IPv4 address is written as IPv6 does (`::ffff:a.b.c.d`,
/// RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: Ipv6Addr,
    pub(super) port: u16,
}

impl End {
    /// Stands for every remote end.
    pub(super) const ANY: Self = Self { address: Ipv6Addr::UNSPECIFIED, port: 0 };

    pub(super) fn new(address: IpAddr, port: u16) -> Self {
        Self { address: wide(address), port }
    }

    pub(super) fn socket(self) -> SocketAddr {
        SocketAddr::new(narrow(self.address), self.port)
    }

    pub(super) fn is_any(&self) -> bool {
        *self == Self::ANY
    }
}

impl From<SocketAddr> for End {
    fn from(socket: SocketAddr) -> Self {
        Self::new(socket.ip(), socket.port())
    }
}

#[inline]
pub(super) const fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => Ipv6Addr::from_bits(MAPPED << 32 | address.to_bits() as u128),
        IpAddr::V6(address) => address,
    }
}

#[inline]
pub(super) const fn narrow(address: Ipv6Addr) -> IpAddr {
    if is_v4(address) {
        IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() as u32))
    } else {
        IpAddr::V6(address)
    }
}

/// Whether it stands for an IPv4 address.
#[inline]
pub(super) const fn is_v4(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == MAPPED
}

/// The address in two halves, for hashing.
pub(super) const fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}
