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
mod caught;
mod hosts;
mod ledger;
mod liveness;
mod minimise;
mod plan;
mod record;
mod settings;
mod site;
mod tcp;
mod world;

pub use minimise::minimise;
pub use plan::{Mishap, Plan, Rates, SITES_MAX, What};
pub use settings::{Ciphers, ClassPlan, Reloaded, Settings};

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

impl Violation {
    /// What kind of violation it is: the words without times, numbers and figures, so that it can be
    /// known again in another run. Of a panic the place counts.
    pub fn kind(&self) -> String {
        let line = self.what.lines().next().unwrap_or_default();
        let words = line.split(['(', '[', '{']).next().unwrap_or_default().split_whitespace();
        let figure =
            |word: &str| word.starts_with("t=") || word.starts_with(|c: char| c.is_ascii_digit());
        words.filter(|word| !figure(word)).collect::<Vec<_>>().join(" ")
    }
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
    /// Over each packet that was delivered, when and where, and the nodes' traffic.
    pub digest: u64,
}

/// Carries a plan out. A panic is a violation as any other.
pub fn run(plan: &Plan) -> Result<Outcome, Violation> {
    let mut world = None;
    let outcome = caught::caught(|| world.insert(world::World::new(plan)).run());
    outcome.unwrap_or_else(|what| {
        let at = world.map_or(Instant::ZERO, |world| world.now());
        Err(Violation { at, what })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(what: &str) -> String {
        Violation { at: Instant::ZERO, what: what.to_owned() }.kind()
    }

    #[test]
    fn a_panic_is_a_violation() {
        let mut plan = Plan::draw(3);
        plan.clocks.clear();
        plan.boxes.clear();
        let violation = run(&plan).unwrap_err();
        assert!(violation.what.starts_with("panic at src/sim/swarm/"), "{violation}");
        assert!(violation.what.contains("index out of bounds"), "{violation}");
    }

    #[test]
    fn figures_make_no_other_kind() {
        let twice =
            |at, id| kind(&format!("t={at}s node 3: a packet was delivered twice: L {{ {id} }}"));
        assert_eq!(twice("7.100", 5), "node a packet was delivered twice: L");
        assert_eq!(twice("7.100", 5), twice("65.020", 99));
        assert_eq!(
            kind("liveness: 1 -> 2 lost a packet sent at t=3.000s\n  t=1.000s site1: x"),
            kind("liveness: 4 -> 0 lost a packet sent at t=9.000s")
        );
        assert_ne!(kind("node 1: a datagram was relayed twice"), twice("1.000", 1));
        let panic =
            |line| kind(&format!("panic at src/a.rs:{line}:5: attempt to add with overflow"));
        assert_ne!(panic(1), panic(2), "another place");
    }
}
