//! The router: reports in, a table of paths out.

mod answers;
mod candidates;
mod demands;
mod pace;

use std::time::Duration;

use self::candidates::{Hop, share, shares_uplink};
use super::cost::CostConfig;
use super::database::{Advertisement, Applied, LinkStateDatabase};
use super::demand::{Demand, DemandSpec};
use super::event::{self, RouteEvent};
use super::explain::{Candidate, Standing};
use super::hysteresis::{FlapConfig, FlapTable, HysteresisConfig, Margin};
use super::selection::{Rules, Selection};
use super::spread::Spread;
use crate::id::{NodeId, PeerIndex};
use crate::metric::{LinkReport, Metric};
use crate::path::{LinkId, Path};
use crate::time::Instant;

/// A peer, as routing sees it. Its position in the list is its [`PeerIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name in advertisements.
    pub id: NodeId,
    /// It may carry our traffic to third nodes.
    pub may_relay: bool,
}

/// The constants of routing. The default suits any overlay of up to some fifty nodes.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// What a path costs.
    pub cost: CostConfig,
    /// When a better path is better enough.
    pub hysteresis: HysteresisConfig,
    /// How long to stay away from paths that failed.
    pub flap: FlapConfig,
    /// Paths are chosen anew at most so often, unless a link's liveness changes.
    pub pause: Duration,
    /// And at least so often, for hold-downs and back-offs that end.
    pub idle_pause: Duration,
    /// An end-to-end measurement that is not repeated for so long is forgotten: nobody measures any
    /// more.
    pub measurement_expiry: Duration,
    /// What another node advertised is forgotten after this time without a refresh.
    pub advertisement_expiry: Duration,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            cost: CostConfig::default(),
            hysteresis: HysteresisConfig::default(),
            flap: FlapConfig::default(),
            pause: Duration::from_millis(200),
            idle_pause: Duration::from_secs(1),
            measurement_expiry: Duration::from_secs(10),
            advertisement_expiry: Duration::from_secs(240),
        }
    }
}

#[derive(Clone, Debug)]
struct PeerState {
    info: PeerInfo,
    /// Direct links by id.
    links: Vec<(LinkId, LinkReport)>,
    /// End-to-end measurements of paths through relays, and when each was last told.
    relayed: Vec<(PeerIndex, (LinkReport, Instant))>,
    flaps: FlapTable,
    /// The direct link to use: as a path to the peer itself and as first hop through it.
    hop: Selection,
    /// One for each demand.
    selections: Vec<Selection>,
    /// One for each demand; empty for those without multi-path.
    spreads: Vec<Spread>,
    /// What we send it, in kbit/s: a relay must have that left.
    need_kbit: u32,
    /// Values that applications gave paths, and until when they hold.
    app_values: Vec<(Path, (f64, Instant))>,
}

impl PeerState {
    fn link(&self, id: LinkId) -> Option<LinkReport> {
        self.links.iter().find(|link| link.0 == id).map(|link| link.1)
    }

    fn hop_link(&self) -> Option<(LinkId, LinkReport)> {
        match self.hop.in_use()? {
            Path::Direct(id) => self.link(id).map(|report| (id, report)),
            Path::Via(_) => None,
        }
    }
}

/// Chooses the path for each peer and metric.
///
/// Feed it with `update_*` and [`Router::apply`], call [`Router::recompute`] when
/// [`Router::poll_timeout`] is due, and look paths up in between: look-ups are two array accesses.
#[derive(Clone, Debug)]
pub struct Router {
    config: RouterConfig,
    seed: u64,
    peers: Vec<PeerState>,
    database: LinkStateDatabase,
    due: Instant,
    computed_at: Instant,
    /// When all peers are looked at, not only those that something urgent concerns.
    all_due: Instant,
    /// The peers that something concerns which cannot wait so long.
    concerned: Vec<bool>,
    generation: u64,
    demands: Vec<DemandSpec>,
    scratch: Vec<Candidate>,
    restricted_scratch: Vec<Candidate>,
    hops_scratch: Vec<Hop>,
}

impl Router {
    /// Direct links to one peer that are looked at.
    pub const MAX_LINKS: usize = 32;
    /// Paths to one peer through relays that are measured end to end.
    pub const MAX_MEASURED: usize = 8;

    /// A router of the node `me`. The `seed` gives this node its own order of near-equal relays.
    pub fn new(config: RouterConfig, me: NodeId, peers: Vec<PeerInfo>, seed: u64) -> Self {
        let ids: Vec<_> = peers.iter().map(|peer| peer.id).collect();
        let state = |info| PeerState {
            info,
            links: Vec::new(),
            relayed: Vec::new(),
            flaps: FlapTable::default(),
            hop: Selection::default(),
            selections: vec![Selection::default(); Metric::COUNT],
            spreads: vec![Spread::default(); Metric::COUNT],
            need_kbit: 0,
            app_values: Vec::new(),
        };
        let scratch = Vec::with_capacity(Self::MAX_LINKS + peers.len());
        Self {
            database: LinkStateDatabase::new(me, &ids, config.advertisement_expiry),
            config,
            seed: seed ^ u64::from(me.0) << 16,
            peers: peers.into_iter().map(state).collect(),
            due: Instant::ZERO,
            computed_at: Instant::ZERO,
            all_due: Instant::ZERO,
            concerned: vec![false; ids.len()],
            generation: 0,
            demands: Metric::ALL.map(DemandSpec::plain).into(),
            scratch,
            restricted_scratch: Vec::new(),
            hops_scratch: Vec::new(),
        }
    }

    /// What our own prober says of one direct link; `None` when there is no such link any more.
    /// Give it every link to the peer, not only the best: the router chooses among them.
    pub fn update_direct(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        link: LinkId,
        report: Option<LinkReport>,
    ) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        let before = put(&mut state.links, link, report, Self::MAX_LINKS);
        self.touch(now, before, report);
    }

    /// What our own prober measures end to end on the path to `peer` through `relay`; `None` when
    /// it is not measured any more. Overrides what is advertised, and is to be repeated every few
    /// seconds ([`RouterConfig::measurement_expiry`]). `None` also before its first answer: then what
    /// is advertised counts. A path that was probed in vain is `Down`.
    pub fn update_relayed(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        relay: PeerIndex,
        report: Option<LinkReport>,
    ) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        let timed = report.map(|report| (report, now));
        let before = put(&mut state.relayed, relay, timed, Self::MAX_MEASURED);
        self.touch(now, before.map(|before| before.0), report);
    }

    /// A part of an advertisement, from inside its origin's own tunnel. The result says what to
    /// acknowledge.
    pub fn apply(
        &mut self,
        now: Instant,
        origin: PeerIndex,
        part: &Advertisement,
        entries: impl IntoIterator<Item = (NodeId, LinkReport)>,
    ) -> Applied {
        let concerned = &mut self.concerned;
        let turned = |other: PeerIndex| {
            if let Some(concerned) = concerned.get_mut(other.usize()) {
                *concerned = true;
            }
        };
        let applied = self.database.apply(now, origin, part, entries, turned);
        if applied.urgent {
            // The link of the two ends is part of paths to either, and of no other.
            if let Some(concerned) = self.concerned.get_mut(origin.usize()) {
                *concerned = true;
            }
            self.due = self.due.min(now);
        } else if applied.changed {
            self.schedule(now, false);
        }
        applied
    }

    /// Chooses the paths anew that something concerns, now and then all; appends what changed to
    /// `events`.
    pub fn recompute(&mut self, now: Instant, events: &mut Vec<RouteEvent>) {
        let all = now >= self.all_due || !self.concerned.contains(&true);
        if all {
            self.computed_at = now;
            self.all_due = now + self.config.idle_pause;
        }
        self.due = self.all_due;
        self.database.expire(now);
        let oldest = self.config.measurement_expiry;
        for peer in &mut self.peers {
            peer.relayed.retain(|(_, (_, told_at))| now - *told_at <= oldest);
            peer.app_values.retain(|(_, (_, until))| now < *until);
        }
        let mut changed = false;
        // Links first: relayed paths begin with them.
        for index in 0..self.peers.len() {
            changed |= self.decide_hop(now, index);
        }
        let mut hops = std::mem::take(&mut self.hops_scratch);
        hops.clear();
        hops.extend(self.hops());
        for index in 0..self.peers.len() {
            if std::mem::take(&mut self.concerned[index]) || all {
                changed |= self.decide_paths(now, index, &hops, events);
            }
        }
        self.hops_scratch = hops;
        self.generation += u64::from(changed);
    }

    fn decide_hop(&mut self, now: Instant, index: usize) -> bool {
        let mut candidates = std::mem::take(&mut self.scratch);
        candidates.clear();
        self.gather_direct(index, &mut candidates);
        self.weigh(now, index, Metric::Latency, &mut candidates);
        let rules = self.rules(Metric::Latency);
        let state = &mut self.peers[index];
        let change = state.hop.decide(now, &rules, &candidates, shares_uplink);
        if let Some(path) = change.failed {
            state.flaps.failed(now, &self.config.flap, path);
        }
        self.scratch = candidates;
        change.table
    }

    fn decide_paths(
        &mut self,
        now: Instant,
        index: usize,
        hops: &[Hop],
        events: &mut Vec<RouteEvent>,
    ) -> bool {
        let mut candidates = std::mem::take(&mut self.scratch);
        candidates.clear();
        self.gather_direct(index, &mut candidates);
        self.gather_relayed(index, hops, &mut candidates);
        if !self.peers[index].flaps.is_empty() {
            for candidate in &candidates {
                let state = candidates::observed(candidate);
                self.peers[index].flaps.observe(now, &self.config.flap, candidate.path, state);
            }
        }
        let mut changed = false;
        for demand in 0..self.demands.len() {
            changed |= self.decide_demand(now, (index, demand), hops, &mut candidates, events);
        }
        self.scratch = candidates;
        changed
    }

    /// Decides on the paths of one demand, given all candidates.
    fn decide_demand(
        &mut self,
        now: Instant,
        (index, demand): (usize, usize),
        hops: &[Hop],
        all: &mut [Candidate],
        events: &mut Vec<RouteEvent>,
    ) -> bool {
        let mut open = std::mem::take(&mut self.restricted_scratch);
        let restricted = self.demands[demand].is_restricted();
        let candidates = if restricted {
            open.clear();
            open.extend_from_slice(all);
            self.restrict(demand, &mut open);
            &mut open
        } else {
            all
        };
        let metric = self.weigh(now, index, self.demands[demand].metric, candidates);
        let rules = self.rules(metric);
        let mut selection = self.peers[index].selections[demand];
        let before = selection;
        let shares = |a, b| share(hops, a, b);
        let change = selection.decide(now, &rules, candidates, shares);
        let mut changed = change.table;
        // A path that is closed has not failed.
        let failed = change.failed.filter(|path| {
            !candidates.iter().any(|c| c.path == *path && c.standing == Standing::Forbidden)
        });
        if self.demands[demand].multipath {
            changed |= self.spread(index, demand, rules.margin, candidates);
        }
        let overloaded = before.chosen.filter(|path| {
            change.switched && path.relay().is_some() && self.is_lossy(candidates, *path)
        });
        let stretch = overloaded.map_or(1.0, |path| 1.0 + self.order(index, path));
        let state = &mut self.peers[index];
        if let Some(path) = failed {
            state.flaps.failed(now, &self.config.flap, path);
        }
        if let Some(path) = overloaded {
            // Others left it for the same reason: not all are to be back at once.
            state.flaps.left(now, &self.config.flap, path, stretch);
        }
        state.selections[demand] = selection;
        if demand < Metric::COUNT {
            event::push(events, PeerIndex(index as u16), metric, &before, &selection);
        }
        self.restricted_scratch = open;
        changed
    }

    fn is_lossy(&self, candidates: &[Candidate], path: Path) -> bool {
        let lossy = |c: &Candidate| c.report.loss.fraction() > self.config.cost.free_loss;
        candidates.iter().any(|c| c.path == path && lossy(c))
    }

    const fn margin(&self, metric: Metric) -> Margin {
        match metric {
            Metric::Latency => self.config.hysteresis.latency,
            Metric::Loss => self.config.hysteresis.loss,
            Metric::Throughput => self.config.hysteresis.throughput,
            // Whatever the unit is: as far as latency in proportion.
            Metric::App => {
                Margin { relative: self.config.hysteresis.latency.relative, absolute: 0.0 }
            }
        }
    }

    const fn rules(&self, metric: Metric) -> Rules {
        Rules { margin: self.margin(metric), hold_down: self.config.hysteresis.hold_down }
    }

    /// The path for packets to `peer` now: the chosen one, or a detour while that is suspect.
    pub fn path(&self, peer: PeerIndex, demand: impl Into<Demand>) -> Option<Path> {
        self.selection(peer, demand)?.in_use()
    }

    fn selection(&self, peer: PeerIndex, demand: impl Into<Demand>) -> Option<&Selection> {
        self.peers.get(peer.usize())?.selections.get(demand.into().usize())
    }

    /// The best other path, over other uplinks where there are any: for second copies. While
    /// [`Router::path`] is a detour, it is the suspect path.
    pub fn alternate(&self, peer: PeerIndex, demand: impl Into<Demand>) -> Option<Path> {
        self.selection(peer, demand)?.alternate
    }

    /// The suspect path that [`Router::path`] is a detour around, if it is one.
    pub fn suspected(&self, peer: PeerIndex, demand: impl Into<Demand>) -> Option<Path> {
        let selection = self.selection(peer, demand)?;
        selection.detour.and(selection.chosen)
    }

    /// The direct link to use towards `peer`: for its own direct path, and as first hop of paths
    /// through it.
    pub fn link_to(&self, peer: PeerIndex) -> Option<LinkId> {
        self.peers.get(peer.usize())?.hop_link().map(|hop| hop.0)
    }

    /// The report on that link: what we advertise of the peer. Down when there is no link.
    pub fn direct_report(&self, peer: PeerIndex) -> LinkReport {
        let down = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
        let state = self.peers.get(peer.usize());
        state.and_then(PeerState::hop_link).map_or(down, |hop| hop.1)
    }

    /// Grows whenever any path, alternate or link to use changed. Flows may cache a path with it.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What others advertise.
    pub const fn database(&self) -> &LinkStateDatabase {
        &self.database
    }
}

/// Sets, replaces or removes an entry of a small table ordered by key; says what was there. At the
/// limit a new key is not taken.
fn put<K: Copy + Ord, V>(
    table: &mut Vec<(K, V)>,
    key: K,
    value: Option<V>,
    max: usize,
) -> Option<V> {
    match (table.binary_search_by_key(&key, |entry| entry.0), value) {
        (Ok(at), Some(value)) => Some(std::mem::replace(&mut table[at].1, value)),
        (Ok(at), None) => Some(table.remove(at).1),
        (Err(at), Some(value)) if table.len() < max => {
            table.insert(at, (key, value));
            None
        }
        (Err(_), _) => None,
    }
}

#[cfg(test)]
mod tests;
