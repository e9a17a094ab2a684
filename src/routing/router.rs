//! The router: reports in, a table of paths out.

mod answers;
mod candidates;
mod demands;
mod pace;
mod promising;
mod recompute;
mod stale;

use std::time::Duration;

use self::candidates::Hop;
use self::promising::Sketch;
use self::stale::{HOP, NEWS, PATHS, Stale, URGENT};
use super::cost::CostConfig;
use super::database::{Advertisement, Applied, LinkStateDatabase};
use super::demand::{Demand, DemandSpec};
use super::explain::Candidate;
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
    /// What round trips are averaged over, by those who measure them; the router takes what they
    /// tell.
    pub smoothing: Duration,
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
            smoothing: Duration::from_secs(2),
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

    /// A path that is chosen, or would be next, leads through this relay.
    fn uses(&self, relay: PeerIndex) -> bool {
        let via = Path::Via(relay);
        let uses = |s: &Selection| [s.chosen, s.detour, s.alternate].contains(&Some(via));
        self.selections.iter().any(uses) || self.spreads.iter().any(|spread| spread.contains(via))
    }

    /// The same, or there is no path.
    fn hangs_on(&self, relay: PeerIndex) -> bool {
        self.selections.iter().any(|selection| selection.chosen.is_none()) || self.uses(relay)
    }

    /// Makes room for what is measured of a path that is used, at the cost of one that is not.
    fn make_room(&mut self, relay: PeerIndex) {
        let known = self.relayed.iter().any(|entry| entry.0 == relay);
        if known || self.relayed.len() < Router::MAX_MEASURED || !self.uses(relay) {
            return;
        }
        if let Some(at) = self.relayed.iter().position(|entry| !self.uses(entry.0)) {
            self.relayed.remove(at);
        }
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
    /// What changed since it was decided by.
    stale: Stale,
    generation: u64,
    demands: Vec<DemandSpec>,
    scratch: Vec<Candidate>,
    restricted_scratch: Vec<Candidate>,
    /// The direct link to use towards each peer, as it was when paths were last chosen.
    hops: Vec<Hop>,
    sketch: Sketch,
    /// Every candidate is looked at closely.
    #[cfg(test)]
    weighs_all: bool,
    /// What paths were found to carry, in kbit/s.
    capacities: Vec<((PeerIndex, Path), u32)>,
}

impl Router {
    /// Direct links to one peer that are looked at.
    pub const MAX_LINKS: usize = 64;
    /// Paths whose capacity is kept.
    pub const MAX_CAPACITIES: usize = 64;
    /// Paths to one peer through relays that are measured end to end: those that are used come
    /// first.
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
            stale: Stale::new(ids.len()),
            generation: 0,
            demands: Metric::ALL.map(DemandSpec::plain).into(),
            scratch,
            restricted_scratch: Vec::new(),
            hops: vec![None; ids.len()],
            sketch: Sketch::default(),
            #[cfg(test)]
            weighs_all: false,
            capacities: Vec::new(),
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
        let report = report.map(coarse);
        let Ok(before) = put(&mut state.links, link, report, Self::MAX_LINKS) else { return };
        if before != report {
            self.stale.mark(peer, HOP | PATHS);
        }
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
        let report = report.map(coarse);
        let timed = report.map(|report| (report, now));
        state.make_room(relay);
        let Ok(before) = put(&mut state.relayed, relay, timed, Self::MAX_MEASURED) else { return };
        let before = before.map(|before| before.0);
        if before != report {
            self.stale.mark(peer, PATHS);
        }
        self.touch(now, before, report);
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
        let (count, spare) = (self.peers.len(), self.database.spare_relay_kbit(origin));
        let (stale, peers) = (&mut self.stale, &self.peers);
        let what = |to: PeerIndex, relay: PeerIndex, turned: bool| {
            let hangs = || peers.get(to.usize()).is_none_or(|state| state.hangs_on(relay));
            let urgent = if turned && hangs() { URGENT } else { 0 };
            PATHS | urgent | if turned { NEWS } else { 0 }
        };
        let told = |other: PeerIndex, turned: bool| {
            // The link of the two ends is part of paths to either, and of no other; unless it is
            // the one to us.
            stale.mark(other, what(other, origin, turned));
            let to_us = if other.usize() < count { 0 } else { HOP };
            stale.mark(origin, to_us | what(origin, other, turned));
        };
        let applied = self.database.apply(now, origin, part, entries, told);
        if self.database.spare_relay_kbit(origin) != spare {
            self.stale.mark_all(PATHS);
        }
        if self.stale.any(URGENT) {
            self.due = self.due.min(now);
        } else if applied.changed {
            self.schedule(now, false);
        }
        applied
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

    /// The report on that link: what we advertise of the peer. Down when there is no link; what is
    /// known of loss stays true, and is news to a peer that hears us all the same.
    pub fn direct_report(&self, peer: PeerIndex) -> LinkReport {
        let state = self.peers.get(peer.usize());
        state.and_then(PeerState::hop_link).map_or_else(
            || {
                let links = state.map_or(&[][..], |state| &state.links);
                let loss = links.iter().map(|link| link.1.loss).min().unwrap_or_default();
                LinkReport { latency_us: u32::MAX, loss, ..LinkReport::default() }
            },
            |hop| hop.1,
        )
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

/// A table that takes no new key.
#[derive(Debug)]
struct Full;

/// Sets, replaces or removes an entry of a small table ordered by key; says what was there.
///
/// # Errors
///
/// At the limit a new key is not taken.
/// A report with its jitter rounded down to half a millisecond, or every round trip would be news.
const fn coarse(report: LinkReport) -> LinkReport {
    LinkReport { jitter_us: report.jitter_us / 500 * 500, ..report }
}

fn put<K: Copy + Ord, V>(
    table: &mut Vec<(K, V)>,
    key: K,
    value: Option<V>,
    max: usize,
) -> Result<Option<V>, Full> {
    match (table.binary_search_by_key(&key, |entry| entry.0), value) {
        (Ok(at), Some(value)) => Ok(Some(std::mem::replace(&mut table[at].1, value))),
        (Ok(at), None) => Ok(Some(table.remove(at).1)),
        (Err(at), Some(value)) if table.len() < max => {
            // There are as many of these tables as pairs of nodes, and most stay this short.
            table.reserve_exact(1);
            table.insert(at, (key, value));
            Ok(None)
        }
        (Err(_), Some(_)) => Err(Full),
        (Err(_), None) => Ok(None),
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
