//! Why a path is used: every candidate, what speaks for it, and the last switch.

use super::hysteresis::{Margin, SwitchCause};
use super::spread::Share;
use crate::id::PeerIndex;
use crate::metric::{LinkReport, Metric};
use crate::path::Path;
use crate::time::Instant;

/// Whether a candidate may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may be chosen.
    Eligible,
    /// It works well enough to stay on, but is not moved to.
    StayOnly,
    /// It is down, or nothing is known of it yet.
    Down,
    /// The configuration lets this peer not relay for us.
    MayNotRelay,
    /// We have no live direct link to the relay.
    RelayUnreachable,
    /// The relay does not advertise a link to the peer.
    NotAdvertised,
    /// The relay advertises that its link to the peer is not up.
    AdvertisedDown,
    /// The relay advertises that it has no capacity left.
    RelayFull,
    /// The relay has less capacity left than we send: taken when there is nothing else.
    RelayShort,
    /// The class of the flows may not use it.
    Forbidden,
}

impl Standing {
    /// In words, for `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::StayOnly => "suspect",
            Self::Down => "down",
            Self::MayNotRelay => "may not relay",
            Self::RelayUnreachable => "relay unreachable",
            Self::NotAdvertised => "relay advertises no link",
            Self::AdvertisedDown => "relay's link is not up",
            Self::RelayFull => "relay has no capacity left",
            Self::RelayShort => "relay has too little capacity left",
            Self::Forbidden => "closed to the class",
        }
    }

    /// True when packets that go this way already may stay on it.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Eligible | Self::StayOnly | Self::RelayFull | Self::RelayShort)
    }
}

/// One way to a peer, as it was weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The way.
    pub path: Path,
    /// Whether it may be used.
    pub standing: Standing,
    /// What is known of it; for a relay that is not measured end to end, both hops in a row.
    pub report: LinkReport,
    /// True for our own end-to-end measurement of a path through a relay.
    pub measured: bool,
    /// What an application says of it, when that is asked for.
    pub app_value: Option<f64>,
    /// What it was found to carry, in kbit/s; none where that was not measured.
    pub capacity_kbit: Option<u32>,
    /// Our own order of near-equal relays, from 0 to 1; less is better.
    pub(super) preference: f64,
    /// In the unit of the metric; less is better.
    pub cost: f64,
    /// The cost with this node's own order of near-equal relays: what is compared.
    pub rank: f64,
    /// By so much, in the unit of the cost, the cost may be off: how much round trips differ.
    pub(super) doubt: f64,
    /// It failed in use, and is not returned to without need before.
    pub barred_until: Option<Instant>,
    /// Its failures that are remembered.
    pub failures: u32,
}

/// The whole story of one peer and metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The peer.
    pub peer: PeerIndex,
    /// The metric that decided.
    pub metric: Metric,
    /// The path that was decided on.
    pub chosen: Option<Path>,
    /// The path that packets take: another one while the chosen one is suspect.
    pub in_use: Option<Path>,
    /// The best other path.
    pub alternate: Option<Path>,
    /// The path before the last switch.
    pub previous: Option<Path>,
    /// Why the last switch was made.
    pub cause: Option<SwitchCause>,
    /// When it was made.
    pub switched_at: Option<Instant>,
    /// Switches since the start, the first choice not counted.
    pub switches: u32,
    /// How long after a switch there is no other one without need.
    pub hold_down: std::time::Duration,
    /// Before this no switch to a path that is merely better.
    pub hold_down_until: Option<Instant>,
    /// By how much a challenger must be better.
    pub margin: Margin,
    /// By latency, also by so many times its own jitter and half of that of the path in use.
    pub margin_jitter: f64,
    /// The paths that flows are spread over, if they are.
    pub spread: Vec<Share>,
    /// Direct links first, then relays by index.
    pub candidates: Vec<Candidate>,
}
