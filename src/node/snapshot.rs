//! What a node tells of itself: plain values, copied out for `status` and its like.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::peer::PathState;
use super::prefixes::Owner;
use super::{Availability, LinkFault, Node, Regret};
use crate::flow::{Class, ClassIndex, Egress, Flow, FlowCounts, FlowId, FlowKey, Marks};
use crate::id::{NodeId, PeerIndex, PublicKey};
use crate::metric::{LinkReport, Metric};
use crate::nat::{Nat, NatCounts};
use crate::path::{LinkId, Path};
use crate::routing::{Demand, Explanation};
use crate::telemetry::{Counters, Tally};
use crate::time::Instant;
use crate::tunnel::TunnelStatus;

/// One direct link.
#[derive(Clone, Debug)]
pub struct LinkSnapshot {
    /// Which one.
    pub link: LinkId,
    /// The far end, once known.
    pub endpoint: Option<SocketAddr>,
    /// What was measured; [`u32::MAX`] microseconds before the first answer.
    pub report: LinkReport,
    /// The largest IP packet of the underlay that passes, bytes.
    pub mtu: u32,
    /// Since when nothing authentic came over it.
    pub last_heard: Option<Instant>,
    /// What is wrong with it.
    pub fault: Option<LinkFault>,
}

/// The path in use for one metric.
#[derive(Clone, Debug)]
pub struct PathSnapshot {
    /// The path.
    pub path: Path,
    /// Its cost in the metric's unit.
    pub cost: Option<f64>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its index.
    pub index: PeerIndex,
    /// Its name.
    pub name: String,
    /// Its node id.
    pub id: NodeId,
    /// Its identity.
    pub public_key: PublicKey,
    /// Its addresses inside the overlay.
    pub addresses: Vec<IpAddr>,
    /// It may relay for us.
    pub relay: bool,
    /// It may be our exit.
    pub egress: bool,
    /// The tunnel.
    pub tunnel: TunnelStatus,
    /// The direct links.
    pub links: Vec<LinkSnapshot>,
    /// The paths in use, in the order of [`Metric::ALL`].
    pub paths: [Option<PathSnapshot>; Metric::COUNT],
    /// Received from it and sent to it.
    pub traffic: (Tally, Tally),
    /// Outages of the direct path.
    pub availability: Availability,
    /// What not going directly gained or lost.
    pub regret: Regret,
}

/// Sizes of the tables that could grow; for tests of their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Flows.
    pub flows: usize,
    /// Paths that are measured, to all peers together.
    pub paths: usize,
    /// Events that nobody took.
    pub events: usize,
    /// NAT mappings.
    pub mappings: usize,
}

/// There is no such peer, or too much is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another value")]
pub struct AppValueError;

impl Node {
    /// Our name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our id.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Our identity.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Time since the start.
    pub fn uptime(&self, now: Instant) -> Duration {
        now - self.started
    }

    /// What was counted.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many flows.
    pub fn flow_counts(&self) -> FlowCounts {
        self.flows.counts()
    }

    /// How much is in the NAT of our exit; `None` when we are no exit.
    pub fn nat_counts(&self) -> Option<NatCounts> {
        self.exit.as_ref().map(|exit| exit.nat.counts())
    }

    /// The NAT of our exit: its mappings and hosts.
    pub fn nat(&self) -> Option<&Nat> {
        self.exit.as_ref().map(|exit| &exit.nat)
    }

    /// The NAT of our exit: its events, and mappings that are to end.
    pub fn nat_mut(&mut self) -> Option<&mut Nat> {
        self.exit.as_mut().map(|exit| &mut exit.nat)
    }

    /// Flows in the order of their ids, from `first` on.
    pub fn flows_from(&self, first: FlowId) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.flows.iter_from(first)
    }

    /// The flow with a key.
    pub fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.lookup(key).and_then(|id| self.flows.get(id))
    }

    /// A class.
    pub fn class(&self, class: ClassIndex) -> &Class {
        self.classes.get(class)
    }

    /// What a class asks of its paths.
    pub fn demand(&self, class: ClassIndex) -> Demand {
        self.policy.demand(class)
    }

    /// The class that a new flow with this key would get.
    pub fn classify(&self, key: &FlowKey, marks: Marks) -> ClassIndex {
        self.classes.classify(key, marks)
    }

    /// Where a new flow to `destination` would leave the overlay.
    pub fn egress_for(
        &self,
        now: Instant,
        destination: IpAddr,
        class: ClassIndex,
    ) -> Option<Egress> {
        match self.prefixes.owner(destination) {
            Some(Owner::Local) => Some(Egress::Local),
            Some(Owner::Peer(peer)) => {
                self.classes.get(class).permits_peer(peer).then_some(Egress::Peer(peer))
            }
            None => self.choose_exit(now, destination, class),
        }
    }

    /// The path that a flow takes now, when it goes to a peer.
    pub fn path_of(&self, flow: &Flow) -> Option<Path> {
        let (Egress::Peer(peer) | Egress::PeerExit(peer)) = flow.egress else { return None };
        flow.path.or_else(|| self.router.path(peer, self.demand(flow.class)))
    }

    /// How many round trips were measured on a path to a peer; none when it is not measured.
    pub fn samples(&self, peer: PeerIndex, path: Path) -> Option<u64> {
        let state = self.peers.get(peer.usize())?.state(path)?;
        Some(state.prober.estimator().round_trips())
    }

    /// What an application says of a path to a peer, less being better, and until when; `None` takes
    /// it back. Classes with the metric `app` go by it.
    pub fn set_app_value(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: Path,
        value: Option<(f64, Instant)>,
    ) -> Result<(), AppValueError> {
        if !self.router.set_app_value(now, peer, path, value) {
            return Err(AppValueError);
        }
        self.touch();
        Ok(())
    }

    /// What applications say of the paths to a peer.
    pub fn app_values(&self, peer: PeerIndex) -> impl Iterator<Item = (Path, f64, Instant)> {
        self.router.app_values(peer)
    }

    /// The path that a flow to `peer` takes now.
    pub fn path(&self, peer: PeerIndex, demand: impl Into<Demand>) -> Option<Path> {
        self.router.path(peer, demand)
    }

    /// Why.
    pub fn explain(
        &self,
        now: Instant,
        peer: PeerIndex,
        demand: impl Into<Demand>,
    ) -> Option<Explanation> {
        self.router.explain(now, peer, demand)
    }

    /// A peer's name.
    pub fn peer_name(&self, peer: PeerIndex) -> &str {
        self.peers.get(peer.usize()).map_or("?", |peer| &peer.name)
    }

    /// All peers, in the order of the configuration.
    pub fn peers(&self, now: Instant) -> Vec<PeerSnapshot> {
        (0..self.peers.len() as u16)
            .map(|index| self.peer_snapshot(now, PeerIndex(index)))
            .collect()
    }

    fn peer_snapshot(&self, now: Instant, index: PeerIndex) -> PeerSnapshot {
        let peer = &self.peers[index.usize()];
        let link = |(link, state): (LinkId, &PathState)| LinkSnapshot {
            link,
            endpoint: state.endpoint.address(),
            report: state.prober.report(now),
            mtu: u32::from(state.mtu.proven()) + self.outer_headers(link),
            last_heard: state.prober.last_heard(),
            fault: self.link_fault(now, index, link),
        };
        let path = |metric| {
            let path = self.router.path(index, metric)?;
            Some(PathSnapshot { path, cost: self.router.cost(now, index, metric) })
        };
        PeerSnapshot {
            index,
            name: peer.name.clone(),
            id: peer.id,
            public_key: peer.public_key,
            addresses: peer.addresses.clone(),
            relay: peer.relay,
            egress: peer.egress,
            tunnel: self.tunnels.status(now, index),
            links: peer.links().map(link).collect(),
            paths: Metric::ALL.map(path),
            traffic: (peer.rx, peer.tx),
            availability: peer.account.availability(now),
            regret: peer.account.regret,
        }
    }

    pub(super) fn outer_headers(&self, link: LinkId) -> u32 {
        let ipv6 = self.uplinks.get(link.local.usize()).is_some_and(|u| u.listen.is_ipv6());
        if ipv6 { 48 } else { 28 }
    }

    /// Sizes of the tables that could grow.
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            flows: self.flows.counts().active as usize,
            paths: self.peers.iter().map(|peer| peer.paths.len()).sum(),
            events: self.events.len(),
            mappings: self.nat_counts().map_or(0, |counts| counts.mappings as usize),
        }
    }
}
