//! Our own exit to the Internet: the NAT, and what it does with a packet that leaves.

use std::net::IpAddr;

use ipnet::IpNet;

use super::deliver::Admitted;
use super::{EgressConfig, Label, Node};
use crate::batch::Output;
use crate::metric::Metric;
use crate::nat::{Nat, NatConfig, Outbound, Realm};
use crate::packet::{Headers, Vnet};
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// What we offer to the overlay as a way to the Internet.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) nat: Nat,
    /// The router's own addresses and local networks, and what the operator adds.
    pub(super) denied: Vec<IpNet>,
    /// Special-purpose destinations that the operator allows.
    pub(super) permitted: Vec<IpNet>,
}

impl Exit {
    pub(super) fn new(now: Instant, config: &EgressConfig, rng: Rng) -> Self {
        let nat = NatConfig {
            pool: config.pool.clone(),
            ports: config.ports.clone(),
            limits: config.limits,
            timers: config.timers,
        };
        Self {
            nat: Nat::new(now, &nat, rng),
            denied: config.denied.clone(),
            permitted: config.permitted.clone(),
        }
    }

    /// True for an outside address of our NAT.
    pub(super) fn in_pool(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.nat.is_outside(address),
            IpAddr::V6(_) => false,
        }
    }
}

impl Node {
    /// Gives a packet for the Internet its outside source. One for an outside address of our own
    /// NAT turns round: it goes to the inside host that has it.
    pub(super) fn translate_outbound(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        let exit = self.exit.as_mut().ok_or(DropReason::ExitRefused)?;
        let outbound = exit.nat.outbound(now, realm, frame, headers, vnet)?;
        let headers = Headers::parse(frame)?;
        let Outbound::Hairpin(inbound) = outbound else { return Ok(Admitted::ToTun(headers)) };
        let Some(peer) = inbound.realm.peer() else { return Ok(Admitted::ToTun(headers)) };
        let path = self.router.path(peer, Metric::Latency).ok_or(DropReason::NoPath)?;
        let route = self.route(peer, path, headers.tos, Label::default());
        let route = route.ok_or(DropReason::NoPath)?;
        self.encapsulate(now, &route, frame, &headers, vnet, out)?;
        Ok(Admitted::Gone)
    }
}
