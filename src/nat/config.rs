//! What the NAT is told at the start.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::id::PeerIndex;

/// Whom an inside host is behind: our own networks or those of a peer. Inside addresses of
/// different realms are different even when they are equal (RFC 4787 REQ-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(pub u16);

impl Realm {
    /// Our own networks.
    pub const LOCAL: Self = Self(u16::MAX);

    /// The peer, unless it is our own side.
    pub fn peer(self) -> Option<PeerIndex> {
        (self != Self::LOCAL).then_some(PeerIndex(self.0))
    }
}

impl From<PeerIndex> for Realm {
    fn from(peer: PeerIndex) -> Self {
        Self(peer.0)
    }
}

/// The settings of a NAT.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// Outside addresses, not necessarily contiguous; at most 65,536 are used.
    pub pool: Vec<Ipv4Net>,
    /// Outside ports, and identifiers for ICMP echo.
    pub ports: RangeInclusive<u16>,
    /// How much it may hold.
    pub limits: NatLimits,
    /// How long things live.
    pub timers: NatTimers,
}

/// How much the NAT may hold. At a limit new work is refused; what lives is never thrown out for it
/// (RFC 6888 REQ-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatLimits {
    /// Mappings in all.
    pub max_mappings: u32,
    /// Mappings of one host.
    pub max_mappings_per_host: u32,
    /// TCP sessions in all.
    pub max_sessions: u32,
    /// TCP sessions of one host. At most half of them are begun from outside.
    pub max_sessions_per_host: u32,
}

impl NatLimits {
    /// Limits for so many mappings in all and for one host, with twice as many sessions.
    pub const fn of_mappings(max: u32, max_per_host: u32) -> Self {
        Self {
            max_mappings: max,
            max_mappings_per_host: max_per_host,
            max_sessions: max.saturating_mul(2),
            max_sessions_per_host: max_per_host.saturating_mul(2),
        }
    }
}

impl Default for NatLimits {
    fn default() -> Self {
        Self::of_mappings(262_144, 8_192)
    }
}

/// How long things live without packets from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTimers {
    /// A UDP mapping (RFC 4787 REQ-5: at least 2 minutes, 5 recommended).
    pub udp: Duration,
    /// Whether UDP packets from outside keep a mapping alive too. Off by default: with
    /// endpoint-independent filtering anyone could (RFC 4787 REQ-6 leaves it open).
    pub udp_inbound_refresh: bool,
    /// A mapping for ICMP echo (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// An established TCP session (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// A TCP session that opens, closes or was reset (RFC 5382 REQ-5 and RFC 7857 section 2.2: at
    /// least 4 min).
    pub tcp_transitory: Duration,
    /// For so long a freed port is not given to anyone (RFC 6888 REQ-8: 120 s).
    pub quarantine: Duration,
    /// For so long later fragments may follow the first one.
    pub fragments: Duration,
}

impl Default for NatTimers {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(5 * 60),
            udp_inbound_refresh: false,
            icmp: Duration::from_secs(60),
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            quarantine: Duration::from_secs(120),
            fragments: Duration::from_secs(5),
        }
    }
}
