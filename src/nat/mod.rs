//! How an address is rewritten: mappings, sessions, ports. NAT44 in user space.
//!
//! A **mapping** ties an inside endpoint (realm, address, port, transport) to an outside endpoint.
//! It serves all remote endpoints (endpoint-independent mapping and filtering, RFC 4787 REQ-1 and
//! REQ-8), all mappings of a host share one outside address (paired pooling, REQ-2), no outside
//! endpoint is ever shared (REQ-3), and hosts behind the same NAT reach each other by their outside
//! endpoints (hairpinning, REQ-9). TCP has **sessions** in addition, one for each remote endpoint,
//! because only they know when a connection is over; a TCP mapping lives as long as one of them
//! that its host takes part in.
//!
//! ```text
//!  inside frame --- outbound() --> by_inside (hash) --> Mapping --> source := outside endpoint
//!  outside frame -- inbound() ---> Pool (array) ------> Mapping --> destination := inside endpoint
//! ```
//!
//! ICMP errors are translated both ways with the packet they quote, and change no timer (RFC 5508).
//! A first fragment is remembered, so that the later ones can follow it.
//!
//! All memory is reserved at the start, except the port spaces: one allocation of about 4 bytes for
//! each port of an address when the address is first used for a transport.
//!
//! Read first: RFC 4787, RFC 5382, RFC 5508, RFC 6888, RFC 7857; RFC 6146 section 3.5 for TCP.

mod config;
mod fragment;
mod icmp;
mod mapping;
mod pool;
mod session;
mod table;
mod tcp;
mod translate;

pub use config::{NatConfig, NatLimits, NatTimers, Realm};
pub use mapping::{MappingId, MappingView};
pub use table::NatCounts;
pub use translate::{Inbound, Nat, Outbound};

use crate::packet::{Headers, IcmpKind, protocol};

/// What the NAT translates. Each has a port space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the identifier takes the place of the port.
    Icmp,
}

impl Transport {
    const COUNT: usize = 3;

    const fn index(self) -> usize {
        self as usize
    }

    /// That of a packet with ports; of ICMP only for an echo of the given kind.
    fn of(headers: &Headers, echo: IcmpKind) -> Option<Self> {
        headers.ports?;
        match headers.protocol {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            protocol::ICMP if headers.icmp == Some(echo) => Some(Self::Icmp),
            _ => None,
        }
    }

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests;
