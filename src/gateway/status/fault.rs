//! What is wrong with a link.

use serde::{Deserialize, Serialize};

use crate::node::{Extent, FaultKind, LinkFault};

/// What is wrong with a link that worked before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// In which direction nothing passes; null when only large packets vanish.
    pub direction: Option<Direction>,
    /// Packets of the underlay that are larger than so many bytes vanish; null when all do.
    pub larger_than: Option<u32>,
    /// What else fails alike.
    pub shared: Shared,
    /// All this in words.
    pub text: String,
}

/// In which direction nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both.
    Both,
    /// From us to the peer only.
    There,
    /// From the peer to us only.
    Back,
}

/// What else fails as one link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// All links of our uplink.
    OurUplink,
    /// All links to the same uplink of the peer, while another one is reached.
    TheirUplink,
}

impl From<LinkFault> for FaultStatus {
    fn from(fault: LinkFault) -> Self {
        let (direction, larger_than) = match fault.kind {
            FaultKind::Both => (Some(Direction::Both), None),
            FaultKind::There => (Some(Direction::There), None),
            FaultKind::Back => (Some(Direction::Back), None),
            FaultKind::Large(bytes) => (None, Some(bytes)),
        };
        let shared = match fault.extent {
            Extent::Link => Shared::Nothing,
            Extent::OurUplink => Shared::OurUplink,
            Extent::TheirUplink => Shared::TheirUplink,
        };
        Self { direction, larger_than, shared, text: fault.to_string() }
    }
}
