//! What the overlay was worth: outages crossed, and what the direct path would have given.

use serde::{Deserialize, Serialize};

/// Outages of the direct path to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AvailabilityStatus {
    /// Outages that began since the first contact.
    pub outages: u64,
    /// One goes on.
    pub ongoing: bool,
    /// Outages that ended and during which another path served all the time.
    pub avoided: u64,
    /// Outages that ended and in which a last hop had failed: nobody reached the peer, or we nobody.
    pub unavoidable: u64,
    /// The others that ended: there was no path for a while.
    pub unavoided: u64,
    /// From the last sign of life until the path was suspected.
    pub detect_ms: SpanStatus,
    /// From the last sign of life until packets took another path.
    pub recover_ms: SpanStatus,
    /// Seconds since the first contact.
    pub observed_s: f64,
    /// Of these, without any path.
    pub unreachable_s: f64,
    /// Of these, without the direct path.
    pub direct_down_s: f64,
}

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanStatus {
    /// How often.
    pub count: u64,
    /// The mean; null when it never happened.
    pub mean: Option<f64>,
    /// The longest; null when it never happened.
    pub longest: Option<f64>,
}

/// What packets to one peer gained or lost by not going directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegretStatus {
    /// Packets that went directly.
    pub direct_packets: u64,
    /// Packets that went through relays.
    pub relayed_packets: u64,
    /// Of these, those while the direct path was down.
    pub rescued_packets: u64,
    /// Round-trip milliseconds that relayed packets saved, summed over them.
    pub saved_ms: f64,
    /// Round-trip milliseconds that they lost.
    pub lost_ms: f64,
    /// Packets that the direct path would have lost, less those that the ways taken lost, by the
    /// measured loss.
    pub losses_avoided: f64,
}

impl From<crate::node::Spans> for SpanStatus {
    fn from(spans: crate::node::Spans) -> Self {
        let happened = spans.count > 0;
        let ms = |span: std::time::Duration| span.as_secs_f64() * 1e3;
        Self {
            count: spans.count,
            mean: happened.then(|| ms(spans.sum) / spans.count as f64),
            longest: happened.then(|| ms(spans.longest)),
        }
    }
}

impl From<crate::node::Availability> for AvailabilityStatus {
    fn from(known: crate::node::Availability) -> Self {
        Self {
            outages: known.outages,
            ongoing: known.ongoing,
            avoided: known.avoided,
            unavoidable: known.unavoidable,
            unavoided: known.unavoided,
            detect_ms: known.detection.into(),
            recover_ms: known.recovery.into(),
            observed_s: known.observed.as_secs_f64(),
            unreachable_s: known.unreachable.as_secs_f64(),
            direct_down_s: known.direct_down.as_secs_f64(),
        }
    }
}

impl From<crate::node::Regret> for RegretStatus {
    fn from(known: crate::node::Regret) -> Self {
        Self {
            direct_packets: known.direct,
            relayed_packets: known.relayed,
            rescued_packets: known.rescued,
            saved_ms: known.saved_ms,
            lost_ms: known.lost_ms,
            losses_avoided: known.losses_avoided,
        }
    }
}
