//! What a node must know. Plain values: where they came from is the shell's business.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::id::{PeerIndex, PublicKey};

/// A node's whole configuration, already validated.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Our name in the overlay; for people only.
    pub name: String,
    /// X25519 private key.
    pub private_key: zeroize::Zeroizing<[u8; 32]>,
    /// A secret shared by the whole overlay, mixed into every handshake.
    pub preshared_key: Option<crate::tunnel::PresharedKey>,
    /// AEAD suites that we propose and accept.
    pub suites: crate::tunnel::Suites,
    /// Our addresses inside the overlay.
    pub addresses: Vec<IpAddr>,
    /// MTU of the TUN.
    pub mtu: u16,
    /// The networks of our LAN that others may reach.
    pub lan_networks: Vec<IpNet>,
    /// Our attachments to the underlay, in order.
    pub uplinks: Vec<UplinkConfig>,
    /// What we offer as an exit to the Internet, if anything.
    pub egress: Option<EgressConfig>,
    /// For whom we relay.
    pub relay: RelayConfig,
    /// The other nodes.
    pub peers: Vec<PeerConfig>,
    /// Flow classes; the first match wins and the last one matches all.
    pub classes: crate::flow::Classes,
    /// Exits for flows to the Internet, in order of preference.
    pub internet_via: Vec<ExitVia>,
    /// Exits for flows to the Internet over IPv6, in order of preference.
    pub internet_via_ipv6: Vec<ExitVia>,
    /// Under which prefix IPv6 hosts reach IPv4 through an exit; `None` when they do not.
    pub nat64: Option<crate::addr::Nat64Prefix>,
    /// Endpoints of our hosts, with their protocol (TCP or UDP), that anybody in the Internet may
    /// reach through the exits of peers.
    pub servers: Vec<(SocketAddr, u8)>,
    /// What probes, advertisements and rekeys may cost, in bits per second sent.
    pub control_budget_bps: u64,
    /// What second copies for redundant classes may cost, in bits per second of inner packets.
    pub copies_bps: u64,
    /// Bounds of the flow table.
    pub flow_limits: crate::flow::FlowLimits,
    /// Margins and hold-down of the path choice.
    pub routing: crate::routing::RouterConfig,
    /// One incarnation of the node; greater than that of any earlier one.
    pub epoch: u64,
    /// The handshake timestamp that an earlier incarnation used last, nanoseconds.
    pub last_handshake_timestamp: u64,
}

/// One uplink.
#[derive(Clone, Copy, Debug)]
pub struct UplinkConfig {
    /// The address and port that peers reach; unspecified address when it follows the interface.
    pub listen: SocketAddr,
    /// MTU of the interface.
    pub mtu: u16,
}

/// One other node.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its name; for people only.
    pub name: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// Where its uplinks are reached, in the order of its uplinks; empty when it always calls us.
    pub endpoints: Vec<SocketAddr>,
    /// Its addresses inside the overlay.
    pub addresses: Vec<IpAddr>,
    /// The networks behind it.
    pub networks: Vec<IpNet>,
    /// It may carry our traffic to third nodes.
    pub relay: bool,
    /// It may be our way to the Internet.
    pub egress: bool,
}

/// What we offer as an exit.
#[derive(Clone, Debug)]
pub struct EgressConfig {
    /// The NAT.
    pub nat: crate::nat::NatConfig,
    /// Whether hosts of its users may ask for mappings (PCP and NAT-PMP).
    pub pcp: bool,
    /// Who may use it; `None` for all peers.
    pub allowed: Option<Vec<PeerIndex>>,
    /// Further destinations that are refused: the router's own addresses and local networks too.
    pub denied: Vec<IpNet>,
    /// Destinations that are allowed although they are special-purpose.
    pub permitted: Vec<IpNet>,
}

/// For whom we relay.
#[derive(Clone, Debug, Default)]
pub struct RelayConfig {
    /// `None` for all peers.
    pub allowed: Option<Vec<PeerIndex>>,
    /// Bits per second for all of them; `None` for no limit.
    pub rate_bps: Option<u64>,
    /// Tags of the classes that we do not relay.
    pub refused: crate::flow::TagSet,
}

/// The part of a node's configuration that a running node can be given anew.
#[derive(Clone, Debug)]
pub struct NodePolicy {
    /// As in [`NodeConfig`].
    pub classes: crate::flow::Classes,
    /// As in [`NodeConfig`].
    pub internet_via: Vec<ExitVia>,
    /// As in [`NodeConfig`].
    pub internet_via_ipv6: Vec<ExitVia>,
    /// As in [`NodeConfig`].
    pub relay: RelayConfig,
    /// As in [`NodeConfig`].
    pub copies_bps: u64,
    /// As in [`NodeConfig`].
    pub routing: crate::routing::RouterConfig,
    /// Of each peer, whether it may carry our traffic, and whether it may be our way to the
    /// Internet.
    pub roles: Vec<(bool, bool)>,
}

impl NodeConfig {
    /// What of it a running node can be given anew.
    pub fn policy(&self) -> NodePolicy {
        NodePolicy {
            classes: self.classes.clone(),
            internet_via: self.internet_via.clone(),
            internet_via_ipv6: self.internet_via_ipv6.clone(),
            relay: self.relay.clone(),
            copies_bps: self.copies_bps,
            routing: self.routing,
            roles: self.peers.iter().map(|peer| (peer.relay, peer.egress)).collect(),
        }
    }
}

/// One entry of the list of exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitVia {
    /// Our own exit.
    Local,
    /// A peer's.
    Peer(PeerIndex),
    /// Whichever peer measures best.
    Auto,
}
