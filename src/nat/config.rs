//! What the NAT is told at the start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::Transport;
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
    /// Outside addresses of both families, not necessarily contiguous; at most 65,536 are used, and
    /// of one IPv6 network at most 256.
    pub pool: Vec<IpNet>,
    /// Outside ports, and identifiers for ICMP queries.
    pub ports: RangeInclusive<u16>,
    /// How much it may hold.
    pub limits: NatLimits,
    /// How long things live.
    pub timers: NatTimers,
    /// What depends on the remote end.
    pub policy: NatPolicy,
    /// Mappings that are there from the start and never end; at most 4,096 are used.
    pub static_mappings: Vec<StaticMapping>,
    /// Destinations for which packets keep their inside source (RFC 6888 REQ-6).
    pub bypass: Vec<IpNet>,
    /// IPv6 prefixes that are exchanged one for one; their hosts need no mappings.
    pub prefixes: Vec<super::PrefixPair>,
}

impl NatConfig {
    /// These outside endpoints, and the default of everything else.
    pub fn new(pool: Vec<IpNet>, ports: RangeInclusive<u16>) -> Self {
        Self {
            pool,
            ports,
            limits: NatLimits::default(),
            timers: NatTimers::default(),
            policy: NatPolicy::default(),
            static_mappings: Vec::new(),
            bypass: Vec::new(),
            prefixes: Vec::new(),
        }
    }
}

/// How far the remote end counts (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Not at all.
    #[default]
    EndpointIndependent,
    /// By its address.
    Address,
    /// By its address and port.
    AddressAndPort,
}

/// How a transport's mappings behave (RFC 7857 section 4: for each one by itself).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// What a mapping is for: all remote ends, or one.
    pub mapping: Dependence,
    /// Who gets in by a mapping: everyone, or those that the inside host has sent to.
    pub filtering: Dependence,
}

/// When a TCP port may serve two hosts that have different remote ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Never: no outside endpoint is ever shared, and a freed one rests (RFC 4787 REQ-3, RFC 6888
    /// REQ-8).
    #[default]
    Never,
    /// When no port of the host's outside address is free: then also ports in use and resting ones,
    /// for one remote end each.
    WhenFull,
}

/// What an inside host is told when its packet is refused (RFC 5508 REQ-8 says prohibited, RFC 6888
/// REQ-11 unreachable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// Communication administratively prohibited.
    #[default]
    Prohibited,
    /// Host unreachable.
    Unreachable,
    /// Nothing.
    Silent,
}

/// The choices that the RFCs leave to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPolicy {
    /// Of TCP.
    pub tcp: Behaviour,
    /// Of UDP and UDP-Lite.
    pub udp: Behaviour,
    /// Of ICMP queries.
    pub icmp: Behaviour,
    /// Whether TCP ports are shared.
    pub reuse: Reuse,
    /// Even inside ports get even outside ports, odd ones odd, in UDP and UDP-Lite (RFC 4787 REQ-4).
    pub parity: bool,
    /// What inside hosts are told.
    pub refusal: Refusal,
    /// An unsolicited SYN is answered after six seconds (RFC 5382 REQ-4); else never.
    pub answer_unsolicited: bool,
    /// Whether [`super::NatEvent`]s are kept for someone who takes them.
    pub events: bool,
}

impl Default for NatPolicy {
    fn default() -> Self {
        let open = Behaviour::default();
        Self {
            tcp: open,
            udp: open,
            icmp: open,
            reuse: Reuse::Never,
            parity: true,
            refusal: Refusal::Prohibited,
            answer_unsolicited: true,
            events: false,
        }
    }
}

impl NatPolicy {
    /// That of a transport. Protocols without ports always go by both addresses.
    pub fn of(&self, transport: Transport) -> Behaviour {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp | Transport::UdpLite => self.udp,
            Transport::Icmp => self.icmp,
            Transport::Other(_) => {
                Behaviour { mapping: Dependence::Address, filtering: Dependence::Address }
            }
        }
    }
}

/// A port forward: an outside endpoint that always leads to the same inside endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticMapping {
    /// The transport.
    pub transport: Transport,
    /// Whom the inside host is behind.
    pub realm: Realm,
    /// The inside endpoint.
    pub inside: SocketAddr,
    /// The outside address, one of the pool; none for the pool's first of the inside's family.
    pub address: Option<IpAddr>,
    /// The outside port; it need not be one of [`NatConfig::ports`].
    pub port: u16,
}

/// How much the NAT may hold. At a limit new work is refused; what lives is never thrown out for it
/// (RFC 6888 REQ-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatLimits {
    /// Mappings in all.
    pub max_mappings: u32,
    /// Mappings of one host.
    pub max_mappings_per_host: u32,
    /// Sessions in all: of TCP, and of the others where filtering goes by remote end.
    pub max_sessions: u32,
    /// Sessions of one host. At most half of them are begun from outside.
    pub max_sessions_per_host: u32,
    /// Mappings of one host for one transport (RFC 6888 REQ-4); all without ports count as one.
    pub per_transport: PerTransport,
    /// What the hosts of one realm may have in all, in percent of the mappings, of the sessions, and
    /// of the ports of each transport: a site with a flood of made-up hosts leaves room for others.
    pub realm_percent: u8,
    /// New mappings of one host per second; as many may come at once (RFC 6888 REQ-4). None for no
    /// limit.
    pub rate_per_host: Option<u32>,
}

/// A number for each kind of transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerTransport {
    /// TCP.
    pub tcp: u32,
    /// UDP and UDP-Lite.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// Protocols without ports.
    pub other: u32,
}

impl PerTransport {
    pub(super) const fn all(n: u32) -> Self {
        Self { tcp: n, udp: n, icmp: n, other: n }
    }

    pub(super) fn of(&self, transport: Transport) -> u32 {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp | Transport::UdpLite => self.udp,
            Transport::Icmp => self.icmp,
            Transport::Other(_) => self.other,
        }
    }

    pub(super) fn of_mut(&mut self, transport: Transport) -> &mut u32 {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp | Transport::UdpLite => &mut self.udp,
            Transport::Icmp => &mut self.icmp,
            Transport::Other(_) => &mut self.other,
        }
    }
}

impl NatLimits {
    /// Limits for so many mappings in all and for one host, with twice as many sessions.
    pub const fn of_mappings(max: u32, max_per_host: u32) -> Self {
        Self {
            max_mappings: max,
            max_mappings_per_host: max_per_host,
            max_sessions: max.saturating_mul(2),
            max_sessions_per_host: max_per_host.saturating_mul(2),
            per_transport: PerTransport::all(u32::MAX),
            realm_percent: 100,
            rate_per_host: None,
        }
    }

    /// What of `all` there is the hosts of one realm may have; no limit when that is all.
    pub(super) fn share_of_realm(&self, all: u64) -> u64 {
        match u64::from(self.realm_percent.max(1)) {
            percent @ ..100 => (all * percent / 100).max(1),
            _ => u64::MAX,
        }
    }
}

impl Default for NatLimits {
    fn default() -> Self {
        Self::of_mappings(262_144, 8_192)
    }
}

/// How long things live without packets from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatTimers {
    /// A UDP mapping (RFC 4787 REQ-5: at least 2 minutes, 5 recommended).
    pub udp: Duration,
    /// Remote UDP ports with another time (RFC 4787 REQ-5 a). A mapping lives as long as any of its
    /// packets asks for.
    pub udp_ports: Vec<(u16, Duration)>,
    /// Whether UDP packets from outside keep a mapping alive too. Off by default: with
    /// endpoint-independent filtering anyone could (RFC 4787 REQ-6 leaves it open).
    pub udp_inbound_refresh: bool,
    /// A mapping for ICMP queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// A mapping of a protocol without ports.
    pub other: Duration,
    /// An established TCP session (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// A TCP session that opens (RFC 5382 REQ-5: at least 4 min; RFC 7857 section 2.1: apart from
    /// the next one).
    pub tcp_opening: Duration,
    /// A TCP session that closes or was reset (RFC 5382 REQ-5 and RFC 7857 section 2.2: at least
    /// 4 min).
    pub tcp_closing: Duration,
    /// For so long a freed port is not given to anyone (RFC 6888 REQ-8: 120 s).
    pub quarantine: Duration,
    /// For so long later fragments may follow the first one.
    pub fragments: Duration,
}

impl Default for NatTimers {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(5 * 60),
            udp_ports: Vec::new(),
            udp_inbound_refresh: false,
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(10 * 60),
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_opening: Duration::from_secs(4 * 60),
            tcp_closing: Duration::from_secs(4 * 60),
            quarantine: Duration::from_secs(120),
            fragments: Duration::from_secs(5),
        }
    }
}
