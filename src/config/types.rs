//! The validated configuration. Whoever holds a [`Config`] need not check anything again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zeroize::ZeroizeOnDrop;

use super::units::{Endpoint, Listen, Rate};
use crate::addr::Nat64Prefix;
use crate::flow::{Class, ExitPoint};
use crate::id::{NodeId, PeerIndex, PublicKey, UplinkIndex};
use crate::nat::{NatLimits, NatPolicy, NatTimers, PrefixPair, Transport};
use crate::routing::{CostConfig, FlapConfig};
use crate::tunnel::Suite;

/// Everything a gateway is told. Names are resolved to indices, networks do not overlap, keys are
/// read.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node.
    pub node: NodeSection,
    /// The control socket.
    pub control: ControlSection,
    /// The status page; none when switched off.
    pub http: Option<HttpSection>,
    /// The TUN device.
    pub tun: TunSection,
    /// The hosts behind us.
    pub lan: LanSection,
    /// Our uplinks; at least one, at most [`UplinkIndex::MAX_COUNT`]. Index: [`UplinkIndex`].
    pub uplinks: Vec<Uplink>,
    /// What we offer as an exit; none when we are none.
    pub egress: Option<EgressSection>,
    /// What we offer as a relay.
    pub relay: RelaySection,
    /// The other nodes. Index: [`PeerIndex`].
    pub peers: Vec<Peer>,
    /// The classes, first match wins; the last one matches everything.
    pub classes: Vec<Class>,
    /// The exits that our own hosts use.
    pub internet: InternetVia,
    /// `internet.via_ipv6`.
    pub internet_ipv6: InternetVia,
    /// `internet.servers`: endpoints with their protocol.
    pub servers: Vec<(SocketAddr, u8)>,
    /// `internet.nat64`.
    pub nat64: Option<Nat64Prefix>,
    /// Probing.
    pub probing: ProbingSection,
    /// Choice of paths.
    pub routing: RoutingSection,
    /// The flow table.
    pub flows: FlowsSection,
    /// The NAT of our exit.
    pub nat: NatSection,
    /// The log of the NAT's mappings.
    pub nat_log: NatLogSection,
    /// Tunnels.
    pub tunnel: TunnelSection,
    /// Filter of the log, in the form of `RUST_LOG`.
    pub log: String,
}

impl Config {
    /// The peers with their indices.
    pub fn peers(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        (0..).map(PeerIndex).zip(&self.peers)
    }

    /// The uplinks with their indices.
    pub fn uplinks(&self) -> impl Iterator<Item = (UplinkIndex, &Uplink)> {
        (0..).map(UplinkIndex).zip(&self.uplinks)
    }

    /// The name of a peer.
    pub fn peer_name(&self, peer: PeerIndex) -> Option<&str> {
        self.peers.get(peer.usize()).map(|peer| peer.name.as_str())
    }

    /// The peer of this name.
    pub fn peer_named(&self, name: &str) -> Option<PeerIndex> {
        self.peers().find(|(_, peer)| peer.name == name).map(|(index, _)| index)
    }
}

/// 32 secret bytes: a private key or a pre-shared key. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `node`: who we are.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSection {
    /// A DNS label, unique in the overlay.
    pub name: String,
    /// The file of the private key, as written in the configuration.
    pub private_key_file: String,
    /// The X25519 private key.
    pub private_key: Secret,
    /// The public key that follows from it.
    pub public_key: PublicKey,
    /// The node id that follows from that.
    pub id: NodeId,
    /// The file of the pre-shared key, as written in the configuration.
    pub preshared_key_file: Option<String>,
    /// The key that all nodes of the overlay share, if they do.
    pub preshared_key: Option<Secret>,
    /// Where state is kept across restarts.
    pub state_dir: PathBuf,
}

/// `control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSection {
    /// Path of the Unix socket.
    pub socket: PathBuf,
}

/// `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSection {
    /// Where the status page listens.
    pub listen: SocketAddr,
}

/// `tun`: our interface to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunSection {
    /// Name of the interface.
    pub name: String,
    /// Our addresses inside the overlay with the length of its prefix; at least one.
    pub address: Vec<IpNet>,
    /// MTU of the interface; none for the largest that fits the uplinks.
    pub mtu: Option<u16>,
}

/// `lan`: the hosts behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanSection {
    /// The interfaces whose hosts' default route is taken over.
    pub interfaces: Vec<String>,
    /// What other nodes reach through us.
    pub networks: Vec<IpNet>,
    /// Destinations that keep the router's own routes.
    pub bypass: Vec<IpNet>,
    /// What hosts get while no gateway runs.
    pub on_failure: OnFailure,
}

/// What hosts get while no gateway runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing: no packet may leave in plaintext.
    #[default]
    Block,
    /// The router's own routes.
    Direct,
}

/// One entry of `uplinks`: an attachment to an ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Unique among the uplinks.
    pub name: String,
    /// The network interface.
    pub interface: String,
    /// Where peers reach us over it.
    pub listen: Listen,
    /// Who cuts trains into datagrams.
    pub gso: UdpGso,
}

/// Who cuts trains into datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpGso {
    /// The kernel, until it refuses.
    #[default]
    Auto,
    /// We do: each datagram leaves by a system call of its own.
    Off,
}

/// `egress`: what we offer as an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSection {
    /// How the outside is set up in the kernel.
    pub mode: EgressMode,
    /// Outside addresses of the NAT (internal ones in rewrite mode); at least one.
    pub pool: Vec<Ipv4Net>,
    /// `egress.pool`: outside addresses of IPv6, which are routed to this router in every mode.
    pub pool_ipv6: Vec<Ipv6Net>,
    /// What the pool's addresses stand for in rewrite mode, in the same order; empty for the
    /// uplinks' addresses.
    pub outside: Vec<Ipv4Addr>,
    /// Outside ports.
    pub ports: RangeInclusive<u16>,
    /// The peers that may use it, ascending.
    pub allowed: Vec<PeerIndex>,
    /// Further destinations refused to them.
    pub deny: Vec<IpNet>,
    /// Destinations open to them although they are in special-purpose ranges.
    pub allow: Vec<IpNet>,
}

/// How packets of the exit get their final source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressMode {
    /// A stateless rewrite between the pool and the uplink's address.
    #[default]
    Rewrite,
    /// None: the pool is routed to us.
    Routed,
    /// The kernel's masquerade.
    Masquerade,
}

/// `relay`: what we offer as a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySection {
    /// The peers that we relay for, ascending; empty when we relay for none.
    pub allowed: Vec<PeerIndex>,
    /// What we give them in all; none for no limit.
    pub rate: Option<Rate>,
    /// Names of the classes whose packets we do not relay, in the order of the classes.
    pub refused: Vec<String>,
}

/// One entry of `peers`: another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A DNS label, unique in the overlay.
    pub name: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// The node id that follows from the key.
    pub id: NodeId,
    /// Where it may be reached, one for each of its uplinks; empty if it always calls us.
    pub endpoints: Vec<Endpoint>,
    /// Its addresses inside the overlay.
    pub address: Vec<IpAddr>,
    /// What is reached through it.
    pub networks: Vec<IpNet>,
    /// Whether it may carry our traffic to third nodes.
    pub relay: bool,
    /// Whether it may be our way to the Internet.
    pub egress: bool,
}

/// `internet.via`: the exits that our own hosts use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InternetVia {
    /// The first one that works; none at all when empty.
    Ordered(Vec<ExitPoint>),
    /// The one that measures best.
    Auto,
}

/// `probing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbingSection {
    /// What this node sends as probes, advertisements and rekeys, in all.
    pub budget: Rate,
}

/// `routing`: what a path costs, and when a better one is worth a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoutingSection {
    /// What round trips are averaged over.
    pub smoothing: Duration,
    /// `free_loss`, `loss_penalty` and `least_loss`: what loss counts for.
    pub cost: CostConfig,
    /// A challenger must be better by this fraction (0 to 1) in latency or loss ...
    pub margin: f64,
    /// ... and in latency by this much ...
    pub margin_latency: Duration,
    /// ... and by so many times the jitter of both;
    pub margin_jitter: f64,
    /// in loss by this fraction of all packets;
    pub margin_loss: f64,
    /// in throughput by this fraction instead of `margin`.
    pub margin_throughput: f64,
    /// No change of mind for so long after a change, unless the path fails.
    pub hold_down: Duration,
    /// How long a path that failed is kept away from.
    pub backoff: FlapConfig,
    /// What second copies for redundant classes may cost in all.
    pub copies: Rate,
}

/// `flows`: bounds of the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsSection {
    /// Flows in all.
    pub max: u32,
    /// Flows of one host.
    pub max_per_host: u32,
}

/// `nat`: bounds and timers of the exit's NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatSection {
    /// How much there may be.
    pub limits: NatLimits,
    /// How long it lives.
    pub timers: NatTimers,
    /// What the RFCs leave to the operator.
    pub policy: NatPolicy,
    /// Whether hosts may ask for mappings (PCP, NAT-PMP).
    pub pcp: bool,
    /// Destinations for which packets keep their inside source.
    pub bypass: Vec<IpNet>,
    /// Outside endpoints that always lead to the same inside endpoint.
    pub forwards: Vec<Forward>,
    /// `prefixes`.
    pub prefixes: Vec<PrefixPair>,
}

/// One of `nat.forwards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The transport.
    pub transport: Transport,
    /// The outside port.
    pub port: u16,
    /// The outside address, one of the pool; none for its first.
    pub address: Option<IpAddr>,
    /// The inside endpoint, of our LAN or a peer's networks.
    pub to: SocketAddr,
    /// Whose host that is; none for our own.
    pub peer: Option<PeerIndex>,
}

/// `nat_log`: where beginnings and ends of mappings are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatLogSection {
    /// A file of JSON lines.
    pub file: Option<PathBuf>,
    /// A syslog service.
    pub syslog: Option<SyslogService>,
}

/// A syslog service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogService {
    /// That of this machine, by the path of its socket.
    Local(PathBuf),
    /// Another machine's, over UDP (RFC 5426).
    Udp(SocketAddr),
}

/// `tunnel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSection {
    /// AEAD suites that we accept, our own choice first; at least one.
    pub suites: Vec<Suite>,
}
