//! What a node tells its operator.

use std::fmt;
use std::net::SocketAddr;

use super::peer::LINKS_MAX;
use crate::metric::Metric;

/// Something that an operator may want to read in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A peer has keys again.
    TunnelUp {
        /// Its name.
        peer: String,
    },
    /// A peer's keys expired without new ones.
    TunnelLost {
        /// Its name.
        peer: String,
    },
    /// A peer's address changed.
    Moved {
        /// Its name.
        peer: String,
        /// Where it is now.
        endpoint: SocketAddr,
    },
    /// The way to a peer changed.
    PathChanged {
        /// Its name.
        peer: String,
        /// For which metric.
        metric: Metric,
        /// The new way in words, and why.
        what: String,
    },
    /// Packets to a peer leave the chosen path for a moment, because it is suspect, or are back on it.
    Detour {
        /// The peer's name.
        peer: String,
        /// For which metric.
        metric: Metric,
        /// What they do, in words.
        what: String,
    },
    /// A peer has more uplinks than we take links to. Told once for each peer.
    LinksRefused {
        /// Its name.
        peer: String,
    },
    /// What is wrong with a direct link changed.
    LinkChanged {
        /// The peer's name.
        peer: String,
        /// The link.
        link: String,
        /// What is wrong, or that it works.
        what: String,
    },
}

impl Event {
    /// True for what jitter and single losses bring about all the time: it has decided nothing yet.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Detour { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TunnelUp { peer } => write!(f, "{peer}: tunnel up"),
            Self::TunnelLost { peer } => write!(f, "{peer}: tunnel lost, its keys expired"),
            Self::Moved { peer, endpoint } => write!(f, "{peer}: moved to {endpoint}"),
            Self::PathChanged { peer, metric, what } | Self::Detour { peer, metric, what } => {
                write!(f, "{peer}: {metric} path {what}")
            }
            Self::LinksRefused { peer } => {
                let most = LINKS_MAX;
                write!(f, "{peer}: more than {most} links, those beyond are not used")
            }
            Self::LinkChanged { peer, link, what } => write!(f, "{peer}: {link}: {what}"),
        }
    }
}
