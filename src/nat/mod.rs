//! How an address is rewritten: mappings, sessions, ports. NAT44, NAT66, NAT64 (`nat64`) and NPTv6
//! (`prefix`) in user space.
//!
//! A **mapping** ties an inside endpoint (realm, address, port, transport) to an outside endpoint.
//! It serves all remote endpoints (endpoint-independent mapping and filtering, RFC 4787 REQ-1 and
//! REQ-8, unless the [`NatPolicy`] says otherwise), all mappings of a host share one outside address
//! (paired pooling, REQ-2), no outside endpoint is ever shared (REQ-3), and hosts behind the same NAT
//! reach each other by their outside endpoints (hairpinning, REQ-9). TCP has **sessions** in
//! addition, one for each remote endpoint, because only they know when a connection is over; a TCP
//! mapping lives as long as one of them that its host takes part in. Where filtering depends on the
//! remote end, sessions also say whom a host has sent to.
//!
//! ```text
//!  inside frame --- outbound() --> by_inside (hash) --> Mapping --> source := outside endpoint
//!  outside frame -- inbound() ---> Pool (array) ------> Mapping --> destination := inside endpoint
//! ```
//!
//! What has no place in the pool's arrays is found by another hash: mappings of protocols without
//! ports (by both addresses), shared ports, and static ones beyond the pool's ports.
//!
//! ICMP errors are translated both ways with the packet they quote, and change no timer (RFC 5508).
//! A first fragment is remembered, so that the later ones can follow it.
//!
//! All memory is reserved at the start, except the port spaces: one allocation of about 4 bytes for
//! each port of an address when the address is first used for a transport.
//!
//! Requirement by requirement, with the tests: `docs/nat.md`. Read first: RFC 4787, RFC 5382,
//! RFC 5508, RFC 6888, RFC 7857; RFC 6146 section 3.5 for TCP.

mod ahead;
mod config;
mod end;
mod events;
mod fragment;
mod host;
mod icmp;
mod ident;
mod knock;
mod lease;
mod lookup;
mod mapping;
mod nat64;
mod outside;
pub mod pcp;
mod pool;
mod prefix;
mod realms;
mod session;
mod space;
mod table;
mod tcp;
mod translate;

pub use config::{
    Behaviour, Dependence, NatConfig, NatLimits, NatPolicy, NatTimers, PerTransport, Realm,
    Refusal, Reuse, StaticMapping,
};
pub use events::NatEvent;
pub use host::HostView;
pub use lease::{LeaseError, LeaseRequest, Nonce};
pub use mapping::{Kind, MappingId, MappingView};
pub use nat64::to_ipv6;
pub use prefix::{PREFIX_LEN_MAX, PrefixPair};
pub use table::NatCounts;
pub use translate::{Arrival, Inbound, Nat, Outbound};

use crate::packet::{Headers, IcmpKind, protocol};

/// What the NAT translates. Each transport with ports has a port space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 queries; the identifier takes the place of the port.
    Icmp,
    /// UDP-Lite.
    UdpLite,
    /// Another IP protocol, which has no ports, or whose ports cannot be changed.
    Other(u8),
}

impl Transport {
    /// How many kinds have ports.
    const WITH_PORTS: usize = 4;

    /// Position among those with ports.
    const fn index(self) -> Option<usize> {
        match self {
            Self::Tcp => Some(0),
            Self::Udp => Some(1),
            Self::Icmp => Some(2),
            Self::UdpLite => Some(3),
            Self::Other(_) => None,
        }
    }

    const fn has_ports(self) -> bool {
        self.index().is_some()
    }

    /// The part of a remote end that tells it from others: an identifier names the inside, on both
    /// ways.
    const fn remote(self, end: end::End) -> end::End {
        match self {
            Self::Tcp | Self::Udp | Self::UdpLite => end,
            Self::Icmp | Self::Other(_) => end::End { port: 0, address: end.address },
        }
    }

    /// The protocol number; of ICMP that of IPv4.
    pub const fn code(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Icmp => protocol::ICMP,
            Self::UdpLite => protocol::UDP_LITE,
            Self::Other(number) => number,
        }
    }

    /// That of a packet; of ICMP only for a query or its answer, as `query` says. None for what a
    /// NAT cannot carry: the authentication header covers the addresses (RFC 4302).
    fn of(headers: &Headers, query: IcmpKind) -> Option<Self> {
        match headers.protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                (headers.icmp == Some(query)).then_some(Self::Icmp)
            }
            protocol::TCP => headers.ports.map(|_| Self::Tcp),
            protocol::UDP => headers.ports.map(|_| Self::Udp),
            protocol::UDP_LITE => headers.ports.map(|_| Self::UdpLite),
            AUTHENTICATION_HEADER => None,
            other => Some(Self::Other(other)),
        }
    }

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::UdpLite => "udplite",
            Self::Other(47) => "gre",
            Self::Other(50) => "esp",
            Self::Other(132) => "sctp",
            Self::Other(_) => "other",
        }
    }
}

/// Static mappings that are used.
const STATIC_MAX: usize = 4_096;
const AUTHENTICATION_HEADER: u8 = 51;

#[cfg(test)]
mod tests;
