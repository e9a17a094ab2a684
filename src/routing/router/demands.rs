//! Demands beyond the plain metrics: what operators close, what applications say, and the spreading
//! of flows.

use super::{HOP, NEWS, PATHS, Router, RouterConfig};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::path::Path;
use crate::routing::cost::packets_per_second;
use crate::routing::demand::{Demand, DemandSpec};
use crate::routing::explain::{Candidate, Standing};
use crate::routing::hysteresis::Margin;
use crate::routing::selection::Selection;
use crate::routing::spread::{Share, Spread};
use crate::time::Instant;

impl Router {
    /// Values of applications that are kept for one peer.
    pub const MAX_APP_VALUES: usize = 64;
    /// Demands that there can be.
    pub const MAX_DEMANDS: usize = 128;

    /// Replaces all demands but the plain metrics, which are always there. What was chosen for one
    /// that stays is kept; a new one goes on with what was chosen for the demand at its place in
    /// `heirs`, if there is one. Returns the place of each given demand.
    pub fn set_demands(
        &mut self,
        now: Instant,
        specs: &[DemandSpec],
        heirs: &[Demand],
    ) -> Vec<Demand> {
        let mut demands: Vec<DemandSpec> = Metric::ALL.map(DemandSpec::plain).into();
        let mut places = Vec::with_capacity(specs.len());
        for spec in specs {
            let known = demands.iter().position(|known| known == spec);
            let place = known.unwrap_or(demands.len());
            if known.is_none() && demands.len() < Self::MAX_DEMANDS {
                demands.push(spec.clone());
            }
            places.push(Demand(place.min(demands.len() - 1) as u8));
        }
        let heir = |spec: &DemandSpec| {
            let place = specs.iter().position(|given| given == spec)?;
            heirs.get(place).map(|heir| heir.usize())
        };
        let kept = |spec: &DemandSpec| self.demands.iter().position(|old| old == spec);
        let before: Vec<_> = demands.iter().map(|spec| kept(spec).or_else(|| heir(spec))).collect();
        for peer in &mut self.peers {
            let selection = |old: &Option<usize>| {
                old.and_then(|old| peer.selections.get(old)).copied().unwrap_or_default()
            };
            let selections: Vec<Selection> = before.iter().map(selection).collect();
            let spread = |old: &Option<usize>| {
                old.and_then(|old| peer.spreads.get(old)).cloned().unwrap_or_default()
            };
            let spreads: Vec<Spread> = before.iter().map(spread).collect();
            peer.selections = selections;
            peer.spreads = spreads;
        }
        if self.demands != demands {
            self.demands = demands;
            self.stale.mark_all(PATHS | NEWS);
            self.due = self.due.min(now);
            self.generation += 1;
        }
        places
    }

    /// What a demand asks for.
    pub fn demand(&self, demand: Demand) -> Option<&DemandSpec> {
        self.demands.get(demand.usize())
    }

    /// New constants. Those of advertisements stay.
    pub fn set_config(&mut self, now: Instant, config: RouterConfig) {
        let advertisement_expiry = self.config.advertisement_expiry;
        self.config = RouterConfig { advertisement_expiry, ..config };
        self.stale.mark_all(HOP | PATHS | NEWS);
        self.due = self.due.min(now);
    }

    /// The constants in force.
    pub const fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Whether a peer may carry our traffic to third nodes.
    pub fn set_may_relay(&mut self, now: Instant, peer: PeerIndex, may_relay: bool) {
        if let Some(state) = self.peers.get_mut(peer.usize()) {
            state.info.may_relay = may_relay;
            self.stale.mark_all(PATHS | NEWS);
            self.due = self.due.min(now);
        }
    }

    /// What an application says of a path to `peer`, less being better, until when; `None` takes it
    /// back. False when there is no such peer or it has its share of values.
    pub fn set_app_value(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: Path,
        value: Option<(f64, Instant)>,
    ) -> bool {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return false };
        if super::put(&mut state.app_values, path, value, Self::MAX_APP_VALUES).is_err() {
            return false;
        }
        self.stale.mark(peer, PATHS);
        self.due = self.due.min(now);
        true
    }

    /// What applications say of the paths to a peer, and until when.
    pub fn app_values(&self, peer: PeerIndex) -> impl Iterator<Item = (Path, f64, Instant)> {
        let values = self.peers.get(peer.usize()).map_or(&[][..], |peer| &peer.app_values);
        values.iter().map(|(path, (value, until))| (*path, *value, *until))
    }

    /// The paths that the flows of a demand are spread over, and what each takes; none when they
    /// all take one. Those that are not proven are measured, and take none yet.
    pub fn shares(&self, peer: PeerIndex, demand: Demand) -> &[Share] {
        let spread = self.peers.get(peer.usize()).and_then(|p| p.spreads.get(demand.usize()));
        spread.map_or(&[], |spread| &spread.0)
    }

    /// The path for a flow under a demand that spreads flows: its present one as long as that is
    /// good, else one by `hash`. `None` when flows are not spread, or no path is good.
    pub fn path_of_flow(
        &self,
        peer: PeerIndex,
        demand: Demand,
        hash: u64,
        present: Option<Path>,
    ) -> Option<Path> {
        let spread = self.peers.get(peer.usize())?.spreads.get(demand.usize())?;
        present.filter(|path| spread.carries(*path)).or_else(|| spread.pick(hash))
    }

    /// Closes what a demand does not permit.
    pub(super) fn restrict(&self, demand: usize, candidates: &mut [Candidate]) {
        let spec = &self.demands[demand];
        if !spec.is_restricted() {
            return;
        }
        for candidate in candidates {
            let permitted = match candidate.path {
                Path::Direct(link) => spec.permits_uplink(link.local),
                Path::Via(relay) => {
                    let hop = self.link_to(relay);
                    spec.permits_relay(relay) && hop.is_none_or(|h| spec.permits_uplink(h.local))
                }
            };
            if !permitted {
                candidate.standing = Standing::Forbidden;
            }
        }
    }

    /// Chooses the paths that flows are spread over.
    pub(super) fn spread(
        &mut self,
        index: usize,
        demand: usize,
        margin: Margin,
        candidates: &[Candidate],
    ) -> bool {
        let mut spread = std::mem::take(&mut self.peers[index].spreads[demand]);
        let score = |candidate: &Candidate, known: bool| {
            // A relay carries no more than it says.
            let most = candidate.path.relay().map_or(f64::INFINITY, |relay| {
                packets_per_second(self.database.spare_relay_kbit(relay))
            });
            let carries = known.then_some(candidate.capacity_kbit).flatten();
            let score = || self.config.cost.score(&candidate.report);
            carries.map_or_else(score, packets_per_second).min(most)
        };
        let changed = spread.decide(margin, candidates, score);
        self.peers[index].spreads[demand] = spread;
        changed
    }
}
