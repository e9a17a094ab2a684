//! How fast overlays of real processes leave dead and bad paths, as their hosts see it.
//!
//! ```text
//!   mit-h1 ─ mit ════ the direct path ═════ utah ─ utah-h1     200 packets a second each way
//!              ╚══════ aros, cable ══════════╝                 two relays
//! ```
//!
//! Every sample is a laboratory of its own. Files: `scene` builds the sites and an overlay on them,
//! `peers` has other people's overlays, `rows` are the events and what is measured of them,
//! `table` runs them and writes the page, `samples` keeps what was measured.

mod peers;
mod rows;
mod samples;
mod scene;
mod table;

use std::path::PathBuf;

pub use rows::{ROWS, Row};
pub use table::{Pages, Plan, all, inside};

/// What routes between the sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// This project's gateway.
    Rongate,
    /// Another program, at this path.
    Peer(Peer, PathBuf),
}

/// Other programs that move traffic to another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// OSPF with BFD by BIRD, over VXLAN.
    OspfBfd,
    /// Babel over VXLAN.
    Babel,
    /// Tinc.
    Tinc,
    /// Nebula.
    Nebula,
}

impl Peer {
    const ALL: [Self; 4] = [Self::OspfBfd, Self::Babel, Self::Tinc, Self::Nebula];

    /// The word for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OspfBfd => "ospf-bfd",
            Self::Babel => "babel",
            Self::Tinc => "tinc",
            Self::Nebula => "nebula",
        }
    }

    /// The peer with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// Program and settings, for the table.
    fn settings(self) -> &'static str {
        match self {
            Self::OspfBfd => "OSPF + BFD (BIRD, 100 ms x 3, over VXLAN, not encrypted)",
            Self::Babel => "Babel (babeld, hello 0.2 s, ETX, over VXLAN, not encrypted)",
            Self::Tinc => "tinc 1.0 (PingInterval and PingTimeout 1 s)",
            Self::Nebula => "Nebula (connection_alive_interval 1 s, pending_deletion_interval 2 s)",
        }
    }
}

impl Overlay {
    /// The word for the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rongate => "rongate",
            Self::Peer(peer, _) => peer.name(),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Rongate => "rongate",
            Self::Peer(Peer::OspfBfd, _) => "OSPF + BFD",
            Self::Peer(Peer::Babel, _) => "Babel",
            Self::Peer(Peer::Tinc, _) => "tinc",
            Self::Peer(Peer::Nebula, _) => "Nebula",
        }
    }

    fn settings(&self) -> &'static str {
        match self {
            Self::Rongate => "rongate (as it comes, encrypted)",
            Self::Peer(peer, _) => peer.settings(),
        }
    }
}
