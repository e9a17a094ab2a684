//! What a running gateway tells: the status document, and the requests and replies of the control
//! socket.
//!
//! The protocol is one JSON request on a line, answered by one JSON reply on a line; a connection
//! may carry several of them in turn. A request is `{"command":"status"}` and the like
//! ([`Request`]), a reply `{"ok":...}` or `{"error":"..."}` ([`Reply`]). The fields of [`Status`]
//! are relied on by operators' scripts: extend them, never rename one.

mod account;
mod explain;
mod fault;
mod metric;
mod nat;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use account::{AvailabilityStatus, RegretStatus, SpanStatus};
pub use explain::{Explanation, ExplanationStep, PacketFields, RoutingStatus};
pub use fault::{Direction, FaultStatus, Shared};
pub use metric::{AppValueList, AppValueStatus};
pub use nat::{
    NAT_LIMIT_MAX, NAT_SEARCH_MAX, NatFilter, NatHostList, NatHostStatus, NatMappingList,
    NatMappingStatus,
};

/// The longest request line that the gateway reads, in bytes.
pub const REQUEST_LEN_MAX: usize = 4096;

/// The most flows in one [`FlowList`].
pub const FLOWS_LIMIT_MAX: usize = 10_000;

/// A request to a running gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Answered by [`Status`].
    Status,
    /// Answered by [`FlowList`].
    Flows {
        /// At most so many flows, and never more than [`FLOWS_LIMIT_MAX`].
        #[serde(default = "default_flows_limit")]
        limit: usize,
        /// So many are skipped first.
        #[serde(default)]
        offset: usize,
    },
    /// Answered by [`Explanation`].
    Explain {
        /// A destination address, or a flow as `PROTOCOL SOURCE DESTINATION`.
        subject: String,
        /// What else is known of the packet.
        #[serde(default, skip_serializing_if = "PacketFields::is_empty")]
        packet: PacketFields,
    },
    /// Answered by [`NatMappingList`].
    Nat {
        /// Which mappings.
        #[serde(default)]
        filter: NatFilter,
        /// At most so many, and never more than [`NAT_LIMIT_MAX`].
        #[serde(default = "default_flows_limit")]
        limit: usize,
        /// Where to go on: [`NatMappingList::next`] of the answer before.
        #[serde(default)]
        from: u32,
    },
    /// Answered by [`NatHostList`].
    NatHosts {
        /// At most so many, and never more than [`NAT_LIMIT_MAX`].
        #[serde(default = "default_flows_limit")]
        limit: usize,
        /// Where to go on: [`NatHostList::next`] of the answer before.
        #[serde(default)]
        from: u32,
    },
    /// Ends a mapping. Answered by [`NatMappingStatus`].
    NatDelete {
        /// The protocol.
        protocol: String,
        /// The outside endpoint.
        outside: SocketAddr,
    },
    /// What a program says of a path, for classes with `metric: app`. Answered by [`AppValueList`].
    SetMetric {
        /// The peer that the path leads to.
        peer: String,
        /// The relay; none for the direct path.
        #[serde(default)]
        via: Option<String>,
        /// One of our uplinks; none for all. For the direct path.
        #[serde(default)]
        uplink: Option<String>,
        /// The value, less being better; none takes it back.
        value: Option<f64>,
        /// Seconds for which it holds, at most [`TTL_MAX_S`].
        #[serde(default = "default_ttl")]
        ttl_s: f64,
    },
    /// What programs say of paths. Answered by [`AppValueList`].
    Metrics,
    /// Reads the configuration file again. Answered by [`ReloadReport`].
    Reload,
}

/// The longest time for which a value of a program holds: a day.
pub const TTL_MAX_S: f64 = 86_400.0;

const fn default_ttl() -> f64 {
    60.0
}

const fn default_flows_limit() -> usize {
    100
}

/// The answer to a [`Request`]: what was asked for, or one sentence saying why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply<T> {
    /// The answer.
    #[serde(rename = "ok")]
    Ok(T),
    /// What went wrong, for the operator.
    #[serde(rename = "error")]
    Error(String),
}

/// All of a gateway at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeStatus,
    /// Our uplinks, in the order of the configuration.
    #[serde(default)]
    pub uplinks: Vec<UplinkStatus>,
    /// The peers, in the order of the configuration.
    pub peers: Vec<PeerStatus>,
    /// How many flows.
    pub flows: FlowTotals,
    /// The NAT of our exit; all zero where there is none.
    pub nat: NatStatus,
    /// Packets and bytes since the start.
    pub traffic: TrafficStatus,
    /// Dropped packets by reason; every reason is listed, in alphabetical order.
    pub drops: BTreeMap<String, u64>,
}

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `node.name`.
    pub name: String,
    /// The node id, 8 hexadecimal digits.
    pub id: String,
    /// The public key in base64.
    pub public_key: String,
    /// The program's version.
    pub version: String,
    /// Whole seconds since the start.
    pub uptime_s: u64,
}

/// One of our uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// `uplinks[].name`.
    pub name: String,
    /// The network interface.
    pub interface: String,
    /// The address and port that we listen at; null while the interface has none.
    pub local: Option<String>,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// `peers[].name`.
    pub name: String,
    /// The node id, 8 hexadecimal digits.
    pub id: String,
    /// The tunnel with it.
    pub tunnel: TunnelStatus,
    /// The links to it, from each of our uplinks to each of its endpoints.
    pub links: Vec<LinkStatus>,
    /// The path in use for each metric.
    pub paths: PathsStatus,
    /// Whether this peer may carry our traffic to others.
    #[serde(default)]
    pub relay: bool,
    /// Whether this peer may be our way to the Internet.
    #[serde(default)]
    pub egress: bool,
    /// What was exchanged with it, on all paths.
    #[serde(default)]
    pub traffic: Directions,
    /// Outages of the direct path to it.
    #[serde(default)]
    pub availability: AvailabilityStatus,
    /// What its packets gained or lost by not going directly.
    #[serde(default)]
    pub regret: RegretStatus,
}

/// The encrypted association with a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Whether it has keys.
    pub state: TunnelState,
    /// Seconds since its keys were agreed on; null without keys.
    pub age_s: Option<f64>,
}

/// Whether a tunnel has keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelState {
    /// No keys, and no attempt to get some.
    #[default]
    Down,
    /// A handshake is under way.
    Handshaking,
    /// Keys are valid.
    Up,
}

/// Liveness of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Answers come.
    Up,
    /// An answer is overdue.
    Suspect,
    /// No answers.
    #[default]
    Down,
}

/// One link: our uplink to one endpoint of a peer. Figures are null until measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The name of our uplink.
    pub uplink: String,
    /// The peer's address and port; null for a peer that has not called yet.
    pub endpoint: Option<String>,
    /// Liveness.
    pub state: LinkState,
    /// Smoothed round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean deviation of the round-trip time in milliseconds.
    pub jitter_ms: Option<f64>,
    /// Lost fraction, from 0 to 1.
    pub loss: Option<f64>,
    /// Path MTU: the largest IP packet that gets through, in bytes.
    pub mtu: Option<u32>,
    /// Milliseconds since an authentic datagram came over it.
    pub last_heard_ms: Option<f64>,
    /// What is wrong with it; null when nothing is known to be, and for one that never worked.
    #[serde(default)]
    pub fault: Option<FaultStatus>,
}

/// The path in use for each metric; null while the peer cannot be reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathsStatus {
    /// For flows that want low delay.
    pub latency: Option<PathStatus>,
    /// For flows that want few losses.
    pub loss: Option<PathStatus>,
    /// For flows that want throughput.
    pub throughput: Option<PathStatus>,
}

impl PathsStatus {
    /// The three entries with the names of their metrics.
    pub fn entries(&self) -> [(&'static str, Option<&PathStatus>); 3] {
        [
            ("latency", self.latency.as_ref()),
            ("loss", self.loss.as_ref()),
            ("throughput", self.throughput.as_ref()),
        ]
    }
}

/// A path in use, and what else there was to choose from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The relay's name; null for a direct path.
    pub via: Option<String>,
    /// Its metric: milliseconds with loss penalty, lost fraction, or throughput score.
    pub metric: Option<f64>,
    /// The name of our uplink, for a direct path.
    #[serde(default)]
    pub uplink: Option<String>,
    /// Seconds since it was chosen.
    #[serde(default)]
    pub since_s: Option<f64>,
    /// How often another path was chosen since the start; it may wrap.
    #[serde(default)]
    pub switches: u32,
    /// Why it is used and not another, in one sentence.
    #[serde(default)]
    pub reason: Option<String>,
    /// All ways to the peer, this one included, best first.
    #[serde(default)]
    pub candidates: Vec<CandidateStatus>,
}

/// A way to a peer that may be chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The relay's name; null for the direct path.
    pub via: Option<String>,
    /// Its metric, in the unit of [`PathStatus::metric`]; null if unknown.
    pub metric: Option<f64>,
    /// Liveness: the worst of its links.
    pub state: LinkState,
    /// Why it is not used, or what holds it back; null for the one in use.
    #[serde(default)]
    pub reason: Option<String>,
    /// The name of our uplink, for a direct path.
    #[serde(default)]
    pub uplink: Option<String>,
    /// Round-trip time in milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Mean deviation of the round-trip time in milliseconds, as far as we measured them. By latency, a
    /// challenger must be better also by all of its own and half of that of the path in use.
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    /// Lost fraction, from 0 to 1.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Round trips that we measured on it; null when only its links are measured.
    #[serde(default)]
    pub samples: Option<u64>,
    /// What is compared: the metric's cost with this node's own order of near-equal relays. Less is
    /// better.
    #[serde(default)]
    pub rank: Option<f64>,
    /// What a program says of it, for classes that ask.
    #[serde(default)]
    pub app_value: Option<f64>,
    /// What it carries, by how far apart datagrams arrive that left back to back, in Mbit/s; 1,000 stands for more, too. Null
    /// where nothing depends on it: no class that is spread or goes by throughput uses the path.
    #[serde(default)]
    pub capacity_mbit: Option<f64>,
    /// Times it failed in use, as far as remembered.
    #[serde(default)]
    pub failures: u32,
    /// Seconds for which it is not returned to without need.
    #[serde(default)]
    pub barred_s: Option<f64>,
}

/// How many flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// In the table.
    pub active: u64,
    /// Since the start.
    pub created: u64,
    /// Removed because they were idle or closed.
    pub expired: u64,
}

/// The NAT of our exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatStatus {
    /// Mappings in the table.
    pub mappings: u64,
    /// Outside ports taken, all protocols and addresses together.
    pub ports_in_use: u64,
    /// Outside ports there are, all protocols and addresses together.
    pub ports_total: u64,
    /// Sessions in the table.
    #[serde(default)]
    pub sessions: u64,
    /// Mappings made since the start.
    #[serde(default)]
    pub created: u64,
    /// Mappings that ended since the start.
    #[serde(default)]
    pub ended: u64,
    /// Beginnings and ends that the log of mappings lost because it was too slow.
    #[serde(default)]
    pub log_lost: u64,
}

/// Packets and bytes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Read from the TUN: sent by hosts.
    pub tun_rx: TallyStatus,
    /// Written to the TUN: towards hosts.
    pub tun_tx: TallyStatus,
    /// Received from the underlay.
    pub underlay_rx: TallyStatus,
    /// Sent to the underlay.
    pub underlay_tx: TallyStatus,
    /// Relayed for other nodes.
    #[serde(default)]
    pub relayed: TallyStatus,
    /// Second copies of packets that went over two paths.
    #[serde(default)]
    pub copies: TallyStatus,
    /// Datagrams that had to wait for room in a socket, also those that never left.
    #[serde(default)]
    pub waited: TallyStatus,
}

/// Packets and bytes of one peer in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directions {
    /// From the peer.
    pub rx: TallyStatus,
    /// To the peer.
    pub tx: TallyStatus,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TallyStatus {
    /// Number of packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<crate::telemetry::Tally> for TallyStatus {
    fn from(tally: crate::telemetry::Tally) -> Self {
        Self { packets: tally.packets, bytes: tally.bytes }
    }
}

/// A part of the flow table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowList {
    /// How many flows there are in all.
    pub total: u64,
    /// How many were skipped.
    pub offset: u64,
    /// The flows asked for.
    pub flows: Vec<FlowStatus>,
}

/// One flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// `tcp`, `udp`, `icmp`, `icmp6`, or the protocol's number.
    pub protocol: String,
    /// Source address, with port or ICMP identifier where the protocol has one.
    pub source: String,
    /// Destination address, with port where the protocol has one.
    pub destination: String,
    /// The name of its class.
    pub class: String,
    /// Where it leaves the overlay: a peer's name, or `local` for our own exit.
    pub egress: String,
    /// The relay's name; null on a direct path.
    pub via: Option<String>,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// Seconds since its first packet.
    pub age_s: f64,
    /// Seconds since its last packet.
    pub idle_s: f64,
}

/// What became of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Key paths that changed and are in force; empty when the file did not change.
    pub applied: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_have_the_documented_form() {
        let request: Request = serde_json::from_str(r#"{"command":"flows"}"#).unwrap();
        assert_eq!(request, Request::Flows { limit: 100, offset: 0 });
        assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"command":"status"}"#);
        assert!(serde_json::from_str::<Request>(r#"{"command":"halt"}"#).is_err());
        let refused: Reply<Status> = Reply::Error("no".into());
        assert_eq!(serde_json::to_string(&refused).unwrap(), r#"{"error":"no"}"#);
        let done = Reply::Ok(ReloadReport::default());
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"ok":{"applied":[]}}"#);
    }

    #[test]
    fn the_status_has_every_field_that_scripts_rely_on() {
        let status = Status {
            peers: vec![PeerStatus {
                links: vec![LinkStatus::default()],
                paths: PathsStatus { latency: Some(PathStatus::default()), ..Default::default() },
                ..Default::default()
            }],
            ..Default::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        for pointer in [
            "/node/name",
            "/node/id",
            "/node/public_key",
            "/node/version",
            "/node/uptime_s",
            "/peers/0/name",
            "/peers/0/id",
            "/peers/0/tunnel/state",
            "/peers/0/tunnel/age_s",
            "/peers/0/links/0/uplink",
            "/peers/0/links/0/endpoint",
            "/peers/0/links/0/state",
            "/peers/0/links/0/rtt_ms",
            "/peers/0/links/0/jitter_ms",
            "/peers/0/links/0/loss",
            "/peers/0/links/0/mtu",
            "/peers/0/links/0/last_heard_ms",
            "/peers/0/paths/latency/via",
            "/peers/0/paths/latency/metric",
            "/peers/0/paths/loss",
            "/peers/0/paths/throughput",
            "/flows/active",
            "/flows/created",
            "/flows/expired",
            "/nat/mappings",
            "/nat/ports_in_use",
            "/nat/ports_total",
            "/traffic/tun_rx/packets",
            "/traffic/tun_tx/bytes",
            "/traffic/underlay_rx/packets",
            "/traffic/underlay_tx/bytes",
            "/drops",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer} is missing");
        }
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
