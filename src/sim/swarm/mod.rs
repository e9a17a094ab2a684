//! Whole worlds from a seed: their topology, their nodes' configuration, and what goes wrong.
//!
//! A run has two parts. In the **storm** everything of the [`Plan`] happens, and what must never be
//! is looked for all the time: packets that arrive changed, twice, or where they do not belong;
//! plaintext or loops on the wire; counters that do not add up; tables beyond their bounds; a NAT
//! that gives one outside endpoint to two hosts; deadlines that stay in the past. Then **liveness**
//! is demanded: a core of the sites is alive, enough of the underlay works, and every pair of the
//! core that has a way, directly or through one relay, must be connected within [`BOUND`] and stay
//! so.
//!
//! A run is determined by its plan, so a violation comes back with its seed, and [`minimise`] finds
//! out which part of the plan it takes.

mod attacker;
mod hosts;
mod ledger;
mod liveness;
mod minimise;
mod plan;
mod site;
mod tcp;
mod world;

pub use minimise::minimise;
pub use plan::{Mishap, Plan, Rates, SITES_MAX, What};

use std::fmt;
use std::time::Duration;

use crate::time::Instant;

/// After the storm every pair that has a way is connected within this time.
pub const BOUND: Duration = Duration::from_secs(10);

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it was seen.
    pub at: Instant,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// A run without violation, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packets of hosts that were sent and that arrived.
    pub packets: (u64, u64),
    /// Datagrams that reached a node.
    pub datagrams: u64,
    /// After the storm, when the last pair was connected.
    pub connected_after: Duration,
    /// How much virtual time passed.
    pub virtual_time: Duration,
}

/// Carries a plan out.
pub fn run(plan: &Plan) -> Result<Outcome, Violation> {
    world::World::new(plan).run()
}
