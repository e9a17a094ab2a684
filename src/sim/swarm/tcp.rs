//! TCP connections between sites: in the storm, what comes must be what was sent; after it, a new
//! connection must come through.

use std::time::Duration;

use super::Violation;
use super::hosts::address;
use super::world::World;
use crate::sim::{Connection, Delivery, Way};
use crate::time::Instant;

/// What users write in the storm: enough to see trains, not so much that nothing else is seen.
const RATE_BPS: u64 = 300_000;
/// What must come through after it.
const LETTER: u64 = 20_000;
/// The last number of a host's address, and the first port.
const HOST: u8 = 20;
const PORT: u16 = 5_000;
const SERVER_PORT: u16 = 80;

impl World<'_> {
    /// The connections of the storm.
    pub(super) fn begin_tcp(&mut self) {
        let now = self.simulator.now();
        for index in 0..self.plan.tcp {
            let from = index % self.plan.sites;
            let to = (from + 1 + index / 2) % self.plan.sites;
            let to = if to == from { (from + 1) % self.plan.sites } else { to };
            let connection = self.connect(now, (from, to), index, (Some(RATE_BPS), None));
            self.tcp.add(Way::Overlay, connection);
        }
    }

    /// One more between each of some pairs of sites that have a way: they must be done soon.
    pub(super) fn demand_tcp(&mut self, pairs: &[(u8, u8)]) {
        let now = self.simulator.now();
        let every = (pairs.len() / usize::from(self.plan.tcp.max(1))).max(1);
        for (index, pair) in (0..self.plan.tcp).zip(pairs.iter().step_by(every)) {
            let index = index + self.plan.tcp;
            let connection = self.connect(now, *pair, index, (None, Some(LETTER)));
            self.tcp.add(Way::Overlay, connection);
        }
    }

    fn connect(
        &self,
        now: Instant,
        (from, to): (u8, u8),
        index: u8,
        (rate, limit): (Option<u64>, Option<u64>),
    ) -> Connection {
        let ipv6 = self.plan.ipv6 && index % 2 == 1;
        let end = |site: u8, port: u16| (usize::from(site), (address(site, HOST, ipv6), port));
        let client = end(from, PORT + u16::from(index));
        Connection::new(now, client, end(to, SERVER_PORT), rate, limit)
    }

    /// Runs until `end`, with every segment at its instant. What else was delivered.
    pub(super) fn advance(&mut self, end: Instant) -> Result<Vec<Delivery>, Violation> {
        if self.tcp.is_empty() {
            self.simulator.run_until(end);
            return Ok(self.simulator.take_deliveries());
        }
        let (others, wrong) = self.tcp.run_until(&mut self.simulator, end);
        let violation = |what| Err(Violation { at: self.simulator.now(), what });
        wrong.into_iter().next().map_or(Ok(others), violation)
    }

    /// The connections that had an end are at it.
    pub(super) fn check_tcp(&mut self, patience: Duration) -> Result<(), Violation> {
        let at = self.simulator.now();
        let first = usize::from(self.plan.tcp);
        match self.tcp.connections().skip(first).find(|(_, connection)| !connection.is_done()) {
            None => Ok(()),
            Some((_, connection)) => {
                let (from, to) = connection.nodes();
                let seen = connection.finish(at);
                let what =
                    format!("liveness: TCP {from} -> {to} not done in {patience:?}: {seen:?}");
                Err(Violation { at, what })
            }
        }
    }
}
