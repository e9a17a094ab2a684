//! Why packets go where they go.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{CandidateStatus, RegretStatus};

/// Of a packet to a destination, what classes may match besides it. All may be absent. Of a packet of
/// a flow only the last two are to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacketFields {
    /// The source; one of this node's own addresses when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// One of `lan.interfaces`: instead of `from`, some host behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `tcp`, `udp`, `sctp`, `icmp` or a protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The DSCP, 0 to 63; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// The IPv6 flow label, 20 bits; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_label: Option<u32>,
}

impl PacketFields {
    /// True when nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The decisions for a destination or a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub subject: String,
    /// The decisions in the order in which they are taken.
    pub steps: Vec<ExplanationStep>,
    /// The class, which is the rule that applies.
    #[serde(default)]
    pub rule: Option<String>,
    /// How the path was chosen; null when there is none to choose.
    #[serde(default)]
    pub routing: Option<RoutingStatus>,
    /// What packets to that peer gained or lost by not going directly.
    #[serde(default)]
    pub regret: Option<RegretStatus>,
    /// The ways there were to choose from, best first.
    #[serde(default)]
    pub candidates: Vec<CandidateStatus>,
}

/// One decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationStep {
    /// What was decided on: `packet` (what was assumed of it), `destination`, `class`, `rule`,
    /// `egress`, `path`, `last switch`, `next switch`, `regret`.
    pub question: String,
    /// The outcome with its reason, in one sentence.
    pub answer: String,
}

/// How a path was chosen. Costs are in microseconds by latency, a fraction by loss, the inverse of the
/// score by throughput, and the program's own unit by `app`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutingStatus {
    /// The metric that decided.
    pub metric: String,
    /// A challenger must be better by this fraction of the cost ...
    pub margin_relative: f64,
    /// ... and by this much.
    pub margin_absolute: f64,
    /// By latency, round trips on the path in use vary by so many milliseconds: a challenger must be
    /// better also by half of that and by its own `jitter_ms`, ...
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    /// ... taken so many times (`routing.margin_jitter`).
    #[serde(default)]
    pub margin_jitter: f64,
    /// Seconds after a switch without another one, unless the path fails.
    pub hold_down_s: f64,
    /// Of these, seconds left.
    pub hold_down_left_s: Option<f64>,
    /// Switches since the start.
    pub switches: u32,
    /// Seconds since the last one.
    pub switched_s: Option<f64>,
    /// Its cause.
    pub cause: Option<String>,
    /// The path before it: a relay's name, or `direct`.
    pub previous: Option<String>,
    /// The best other path, likewise.
    pub alternate: Option<String>,
    /// The paths that the class's flows are spread over, likewise.
    pub spread: Vec<String>,
}
