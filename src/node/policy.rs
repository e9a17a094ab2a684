//! Policy: what the classes of flows ask for and may use, here and at relays (RON section 3.5).
//!
//! A class that asks for more than the best path by a metric has a demand of its own in the router.
//! A relay that does not carry a class says so, and is closed to the class for a while.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use super::bucket::Bucket;
use super::config::NodePolicy;
use super::copies::CopyBudget;
use super::prefixes::Owner;
use crate::addr;
use crate::batch::Output;
use crate::flow::{
    Class, ClassIndex, Egress, ExitPoint, FlowId, FlowKey, Group, Marks, Priority, TagSet,
};
use crate::id::{PeerIndex, UplinkIndex};
use crate::metric::Metric;
use crate::packet::Headers;
use crate::rng::Rng;
use crate::routing::{Demand, DemandSpec};
use crate::table::HashSeed;
use crate::time::Instant;
use crate::wire::Control;

/// The tag that nothing has but what is no class's: probes and the like. A relay that refuses it
/// carries nothing.
pub(super) const ANY_CLASS: u8 = 0;

/// How long a relay that refused a class is not asked again.
const REFUSAL_LASTS: Duration = Duration::from_secs(600);
/// A peer is told so often, at most, that we do not relay one of its classes.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// Refusals that are remembered, ours and those of others.
const REFUSALS_MAX: usize = 256;
/// How long a group of flows keeps an exit that nothing new uses.
const GROUP_LASTS: Duration = Duration::from_secs(7_200);
/// Groups whose exit is remembered.
const GROUPS: usize = 4_096;

/// A class and a relay that does not carry it; or a peer that we told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    peer: PeerIndex,
    tag: u8,
    until: Instant,
}

/// What is worked out of the classes.
#[derive(Debug)]
pub(super) struct Policy {
    /// Counts the policies that were in force. Never zero.
    pub(super) generation: u32,
    /// Tags that we do not relay.
    pub(super) refused: TagSet,
    pub(super) groups: Groups,
    /// By class.
    demands: Vec<Demand>,
    /// By class; none for classes without a rate.
    buckets: Vec<Option<Bucket>>,
    has_priorities: bool,
    /// What relays refused.
    refusals: Vec<Refusal>,
    /// What we told others.
    told: Vec<Refusal>,
}

impl Policy {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            generation: 0,
            refused: TagSet::default(),
            groups: Groups::new(rng),
            demands: Vec::new(),
            buckets: Vec::new(),
            has_priorities: false,
            refusals: Vec::new(),
            told: Vec::new(),
        }
    }

    /// What a class asks of its paths.
    pub(super) fn demand(&self, class: ClassIndex) -> Demand {
        self.demands.get(usize::from(class.0)).copied().unwrap_or_default()
    }

    /// Whether any class asks for this.
    pub(super) fn asks_for(&self, demand: Demand) -> bool {
        self.demands.contains(&demand)
    }

    /// Takes `bytes` off the rate of a class. False when it has none left.
    pub(super) fn admits(&mut self, now: Instant, class: ClassIndex, bytes: usize) -> bool {
        match self.buckets.get_mut(usize::from(class.0)) {
            Some(Some(bucket)) => bucket.take(now, bytes),
            Some(None) | None => true,
        }
    }
}

/// The exits that groups of flows use.
#[derive(Debug)]
pub(super) struct Groups {
    seed: HashSeed,
    /// None while no class has a group.
    places: Vec<Option<(u64, Egress, Instant)>>,
}

impl Groups {
    fn new(rng: &mut Rng) -> Self {
        Self { seed: HashSeed::new(rng), places: Vec::new() }
    }

    /// Makes the places, so that no packet does. What is known is kept.
    fn make(&mut self) {
        self.places.resize(GROUPS, None);
    }

    /// What flows that belong together share.
    pub(super) fn hash(&self, key: &FlowKey, class: ClassIndex, group: Group) -> u64 {
        let class = u64::from(class.0) << 8 | u64::from(key.is_ipv6());
        let [a, b, c, d] = key.hosts();
        match group {
            Group::Source => self.seed.hash([a, b, class]),
            Group::Hosts => self.seed.hash([a, b, c, d, class]),
            Group::Flow => {
                let [.., rest] = key.words();
                self.seed.hash([a, b, c, d, rest, class])
            }
        }
    }

    pub(super) fn exit_of(&self, now: Instant, group: u64) -> Option<Egress> {
        let (known, egress, at) = (*self.places.get(group as usize % GROUPS)?)?;
        (known == group && now - at < GROUP_LASTS).then_some(egress)
    }

    pub(super) fn note(&mut self, now: Instant, group: u64, egress: Egress) {
        if let Some(place) = self.places.get_mut(group as usize % GROUPS) {
            *place = Some((group, egress, now));
        }
    }
}

impl Node {
    /// Puts a policy in force: at the start, or in place of another. Flows are judged anew with
    /// their next packet; one to the Internet stays with its exit as long as it may.
    pub fn set_policy(&mut self, now: Instant, policy: NodePolicy) {
        self.classes = policy.classes;
        self.internet_via = policy.internet_via;
        self.internet_via_ipv6 = policy.internet_via_ipv6;
        self.relay_bucket = Bucket::new(now, policy.relay.rate_bps);
        self.copy_budget = CopyBudget::new(now, policy.copies_bps);
        self.router.set_config(now, policy.routing);
        for index in 0..self.peers.len() {
            for state in &mut self.peers.aside(index).paths {
                state.prober.set_smoothing(policy.routing.smoothing);
            }
        }
        for (index, (relay, egress)) in policy.roles.into_iter().enumerate() {
            let Some(peer) = self.peers.get_mut(index) else { break };
            let place = PeerIndex(index as u16);
            (peer.relay, peer.egress) = (relay, egress);
            let allowed = policy.relay.allowed.as_ref();
            peer.may_relay = allowed.is_none_or(|list| list.contains(&place));
            self.router.set_may_relay(now, place, relay);
        }
        let bucket = |class: &Class| class.rate_bps.map(|rate| Bucket::new(now, Some(rate)));
        self.policy.buckets = self.classes.iter().map(bucket).collect();
        if self.classes.iter().any(|class| class.group != Group::Flow) {
            self.policy.groups.make();
        }
        self.policy.refused = policy.relay.refused;
        self.policy.has_priorities = self.classes.has_priorities();
        self.policy.generation = self.policy.generation.wrapping_add(1).max(1);
        self.make_demands(now, &[]);
    }

    /// The policy in force, for comparison.
    pub fn policy_summary(&self) -> impl PartialEq + std::fmt::Debug {
        let demands: Vec<_> =
            self.policy.demands.iter().map(|d| self.router.demand(*d).cloned()).collect();
        let roles = self.peers.iter().map(|p| (p.relay, p.egress, p.may_relay));
        (
            self.classes.iter().cloned().collect::<Vec<_>>(),
            (self.internet_via.clone(), self.internet_via_ipv6.clone()),
            demands,
            (self.policy.refused, self.policy.has_priorities),
            roles.collect::<Vec<_>>(),
        )
    }

    /// Tells the router what the classes ask for, less the relays that refuse them.
    fn make_demands(&mut self, now: Instant, heirs: &[Demand]) {
        let specs: Vec<_> = self.classes.iter().map(|class| self.demand_of(class)).collect();
        self.policy.demands = self.router.set_demands(now, &specs, heirs);
        if self.policy.generation > 1 {
            // Packets do not wait for the next deadline.
            self.update_routing(now);
        }
        self.touch();
    }

    fn demand_of(&self, class: &Class) -> DemandSpec {
        let all = (0..self.peers.len() as u16).map(PeerIndex);
        let permitted: Vec<_> = all
            .filter(|&peer| class.permits_relay(peer) && !self.is_refused(peer, class.tag))
            .collect();
        let uplinks = (0..UplinkIndex::MAX_COUNT as u8)
            .filter(|uplink| class.permits_uplink(UplinkIndex(*uplink)))
            .fold(0, |mask, uplink| mask | 1u16 << uplink);
        DemandSpec {
            metric: class.metric,
            relays: (permitted.len() < self.peers.len()).then_some(permitted),
            uplinks,
            multipath: class.multipath,
        }
    }

    /// Whether a relay told us that it does not carry a class.
    pub fn is_refused(&self, relay: PeerIndex, tag: u8) -> bool {
        let refused = |refusal: &Refusal| refusal.tag == tag || refusal.tag == ANY_CLASS;
        self.policy.refusals.iter().any(|refusal| refusal.peer == relay && refused(refusal))
    }

    /// A relay does not carry a class of ours.
    pub(super) fn on_class_refused(&mut self, now: Instant, relay: PeerIndex, tag: u8) {
        let ours = tag == ANY_CLASS || self.classes.iter().any(|class| class.tag == tag);
        if !ours || !self.peers[relay.usize()].relay {
            return;
        }
        let refusal = Refusal { peer: relay, tag, until: now + REFUSAL_LASTS };
        if note(&mut self.policy.refusals, refusal) {
            self.renew_demands(now);
        }
    }

    /// Relays that refused a class are asked again after a while.
    pub(super) fn expire_refusals(&mut self, now: Instant) {
        let before = self.policy.refusals.len();
        self.policy.refusals.retain(|refusal| now < refusal.until);
        self.policy.told.retain(|refusal| now < refusal.until);
        if self.policy.refusals.len() < before {
            self.renew_demands(now);
        }
    }

    /// The same classes with other relays: each goes on with what was chosen for it.
    fn renew_demands(&mut self, now: Instant) {
        let heirs = std::mem::take(&mut self.policy.demands);
        self.make_demands(now, &heirs);
    }

    /// Tells a peer that we do not relay a class, if it was not told just now.
    pub(super) fn refuse_class(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        tag: u8,
        out: &mut Output,
    ) {
        let told = &mut self.policy.told;
        let lately = |t: &Refusal| (t.peer, t.tag) == (peer, tag) && now < t.until;
        if told.len() >= REFUSALS_MAX || told.iter().any(lately) {
            return;
        }
        note(told, Refusal { peer, tag, until: now + REFUSAL_PAUSE });
        self.send_control(now, peer, &Control::ClassRefused(tag), out);
    }

    /// Finds the class of a flow, and takes its exit away if that may not be used any more.
    pub(super) fn classify_flow(&mut self, id: FlowId, marks: Marks) {
        let Some(flow) = self.flows.get(id) else { return };
        let place = self.classes.classify(&flow.key, marks);
        let class = self.classes.get(place);
        let beyond = || self.beyond(flow.key.destination());
        let permitted = match flow.egress {
            Egress::Undecided | Egress::Local => true,
            Egress::Peer(peer) => class.permits_peer(peer),
            Egress::LocalExit => {
                class.permits_exit(ExitPoint::Local) && self.is_listed(flow.egress, beyond())
            }
            Egress::PeerExit(peer) => {
                class.permits_exit(ExitPoint::Peer(peer)) && self.is_listed(flow.egress, beyond())
            }
        };
        let multipath = class.multipath;
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.policy = self.policy.generation;
        flow.class = place;
        flow.path = flow.path.filter(|_| multipath);
        if !permitted {
            flow.egress = Egress::Undecided;
        }
    }

    /// The group of a flow, when flows of its class stay together.
    pub(super) fn group_of(&self, key: &FlowKey, class: ClassIndex) -> Option<u64> {
        let group = self.classes.get(class).group;
        (group != Group::Flow).then(|| self.policy.groups.hash(key, class, group))
    }

    /// True when a flow that can go nowhere could, if nothing were closed to its class.
    pub(super) fn is_closed(&self, destination: IpAddr, class: ClassIndex) -> bool {
        let plain = |peer: PeerIndex| self.router.path(peer, Metric::Latency).is_some();
        match self.prefixes.owner(destination) {
            Some(Owner::Peer(peer)) => !self.classes.get(class).permits_peer(peer),
            Some(Owner::Local) => false,
            None => {
                let beyond = self.beyond(destination);
                let peers = || (0..self.peers.len() as u16).map(PeerIndex);
                let reachable =
                    |peer| self.is_listed(Egress::PeerExit(peer), beyond) && plain(peer);
                !addr::is_special_purpose(beyond)
                    && (self.is_listed(Egress::LocalExit, beyond) || peers().any(reachable))
            }
        }
    }

    /// Who goes first when frames wait. `None` when all are alike, which is cheap to find out.
    pub fn priority_of(&self, frame: &[u8]) -> Priority {
        if !self.policy.has_priorities {
            return Priority::Normal;
        }
        let Ok(headers) = Headers::parse(frame) else { return Priority::Normal };
        let key = FlowKey::of(&headers);
        let known = self.flows.lookup(&key).and_then(|id| self.flows.get(id));
        let class = known
            .filter(|flow| flow.policy == self.policy.generation)
            .map_or_else(|| self.classes.classify(&key, Marks::of(frame)), |flow| flow.class);
        self.classes.get(class).priority
    }
}

/// Remembers a refusal, or that it holds on. At the limit new ones are not. True for a new one.
fn note(list: &mut Vec<Refusal>, refusal: Refusal) -> bool {
    let same = |known: &Refusal| (known.peer, known.tag) == (refusal.peer, refusal.tag);
    match list.iter().position(same) {
        Some(at) => list[at] = refusal,
        None if list.len() < REFUSALS_MAX => {
            list.push(refusal);
            return true;
        }
        None => {}
    }
    false
}
