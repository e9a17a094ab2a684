//! What is asked of the router beyond the path of a packet: what to measure, what to try last, and why
//! it chose so.

use super::{Hop, PATHS, Router, put};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::path::Path;
use crate::routing::demand::Demand;
use crate::routing::explain::Explanation;
use crate::time::Instant;

impl Router {
    /// What a path to a relay is to bear: what we send the peer.
    pub fn set_need(&mut self, peer: PeerIndex, kbit: u32) {
        if let Some(state) = self.peers.get_mut(peer.usize())
            && std::mem::replace(&mut state.need_kbit, kbit) != kbit
        {
            self.stale.mark(peer, PATHS);
        }
    }

    /// The least bad path to a peer that none is known to reach, and since when that is so. `None`
    /// before the peer was ever reached.
    pub fn last_resort(
        &self,
        peer: PeerIndex,
        demand: impl Into<Demand>,
    ) -> Option<(Path, Instant)> {
        let selection = self.selection(peer, demand)?;
        Some((selection.last_resort?, selection.switched_at?))
    }

    /// Relays towards `peer` that should be measured end to end under the demands that matter, at
    /// most [`Router::MAX_MEASURED`]: `true` for those in use or suspect, `false` for mere
    /// alternates.
    pub fn relays_to_probe(
        &self,
        peer: PeerIndex,
        matters: impl Fn(Demand) -> bool,
        out: &mut Vec<(PeerIndex, bool)>,
    ) {
        out.clear();
        let Some(state) = self.peers.get(peer.usize()) else { return };
        let chosen = || {
            let numbered = (0..).map(Demand).zip(&state.selections);
            numbered.filter(|(demand, _)| matters(*demand)).map(|(_, selection)| selection)
        };
        let used = chosen().flat_map(|s| [s.in_use(), s.chosen]).map(|path| (path, true));
        let spare = chosen().map(|s| (s.alternate, false));
        let good = state.spreads.iter().flat_map(|spread| &spread.0);
        let all = used.chain(spare).chain(good.map(|share| (Some(share.path), false)));
        for (path, in_use) in all {
            if let Some(relay) = path.and_then(Path::relay)
                && out.len() < Self::MAX_MEASURED
                && !out.iter().any(|known| known.0 == relay)
            {
                out.push((relay, in_use));
            }
        }
    }

    /// The path to `peer` through `relay` is measured, and would be moved to under a demand that
    /// matters if it were not: it does worse than its two links are said to, or its round trips
    /// differ too much.
    pub fn is_belied(
        &self,
        now: Instant,
        peer: PeerIndex,
        relay: PeerIndex,
        matters: impl Fn(Demand) -> bool,
    ) -> bool {
        let index = peer.usize();
        let Some(state) = self.peers.get(index) else { return false };
        let measured = state.relayed.iter().find(|entry| entry.0 == relay);
        let Some(&(_, (measured, _))) = measured.filter(|_| relay.usize() < self.peers.len())
        else {
            return false;
        };
        let hop = self.hop(relay.usize());
        let numbered = (0..).map(Demand).zip(self.demands.iter().zip(&state.selections));
        numbered.filter(|(demand, _)| matters(*demand)).any(|(demand, (spec, selection))| {
            let chosen = selection.chosen.filter(|path| path.relay() != Some(relay));
            let Some(chosen) = chosen.and_then(|path| self.gather_one(index, path)) else {
                return false;
            };
            let [known, said] =
                [Some(measured), None].map(|report| self.through(index, relay, hop, report));
            let mut all = [chosen, known, said];
            self.restrict(demand.usize(), &mut all);
            let rules =
                self.rules(self.weigh(now, index, spec.metric, self.most_spare(&all), &mut all));
            let [chosen, known, said] = &all;
            let moves_to = |c| rules.may_move(chosen, c);
            moves_to(said) && !moves_to(known)
        })
    }

    /// Appends the paths to a peer whose capacity decides something under the demands that matter:
    /// those that flows are spread over, and the first two for throughput.
    pub fn weighed_by_capacity(
        &self,
        peer: PeerIndex,
        matters: impl Fn(Demand) -> bool,
        out: &mut Vec<(PeerIndex, Path)>,
    ) {
        let Some(state) = self.peers.get(peer.usize()) else { return };
        let mut note = |path: Option<Path>| {
            if let Some(path) = path
                && !out.contains(&(peer, path))
            {
                out.push((peer, path));
            }
        };
        for (demand, spec) in (0..).map(Demand).zip(&self.demands) {
            if !matters(demand) {
                continue;
            }
            if spec.multipath {
                self.shares(peer, demand).iter().for_each(|share| note(Some(share.path)));
            } else if spec.metric == Metric::Throughput
                && let Some(selection) = state.selections.get(demand.usize())
            {
                note(selection.chosen);
                note(selection.alternate);
            }
        }
    }

    /// What a path was found to carry, in kbit/s. At most [`Router::MAX_CAPACITIES`] are kept.
    pub fn set_capacity(&mut self, peer: PeerIndex, path: Path, kbit: u32) {
        let max = Self::MAX_CAPACITIES;
        let before = put(&mut self.capacities, (peer, path), Some(kbit), max);
        if before.is_ok_and(|before| before != Some(kbit)) {
            self.stale.mark(peer, PATHS);
        }
    }

    /// The same, if it is known.
    pub fn capacity(&self, peer: PeerIndex, path: Path) -> Option<u32> {
        let at = self.capacities.binary_search_by_key(&(peer, path), |entry| entry.0).ok()?;
        Some(self.capacities[at].1)
    }

    /// Forgets what is not known any more.
    pub fn retain_capacities(&mut self, known: impl Fn(PeerIndex, Path) -> bool) {
        let stale = &mut self.stale;
        self.capacities.retain(|&((peer, path), _)| {
            let kept = known(peer, path);
            if !kept {
                stale.mark(peer, PATHS);
            }
            kept
        });
    }

    /// What the path in use costs, in the unit of the metric; less is better. Under a metric of
    /// applications it allocates.
    pub fn cost(&self, now: Instant, peer: PeerIndex, demand: impl Into<Demand>) -> Option<f64> {
        let demand = demand.into();
        let path = self.path(peer, demand)?;
        let metric = self.demands.get(demand.usize())?.metric;
        if metric != Metric::App {
            let mut only = [self.gather_one(peer.usize(), path)?];
            self.weigh(now, peer.usize(), metric, self.most_spare(&only), &mut only);
            return Some(only[0].cost);
        }
        // Whether their values count depends on all candidates.
        let candidates = self.explain(now, peer, demand)?.candidates;
        candidates.iter().find(|candidate| candidate.path == path).map(|found| found.cost)
    }

    /// All that led to the present choice. Allocates: not for each packet. `None` for no peer.
    pub fn explain(
        &self,
        now: Instant,
        peer: PeerIndex,
        demand: impl Into<Demand>,
    ) -> Option<Explanation> {
        let (index, demand) = (peer.usize(), demand.into());
        let selection = *self.selection(peer, demand)?;
        let spec = self.demands.get(demand.usize())?;
        let mut candidates = Vec::new();
        self.gather_direct(index, &mut candidates);
        let hops: Vec<Hop> = self.hops().collect();
        self.gather_relayed(index, &hops, &mut candidates);
        self.restrict(demand.usize(), &mut candidates);
        let most = self.most_spare(&candidates);
        let metric = self.weigh(now, index, spec.metric, most, &mut candidates);
        let rules = self.rules(metric);
        Some(Explanation {
            peer,
            metric,
            chosen: selection.chosen,
            in_use: selection.in_use(),
            alternate: selection.alternate,
            previous: selection.previous,
            cause: selection.cause,
            switched_at: selection.switched_at,
            switches: selection.switches,
            hold_down: rules.hold_down,
            hold_down_until: selection.hold_down_until(&rules).filter(|until| *until > now),
            margin: rules.margin,
            margin_jitter: self.config.hysteresis.jitter,
            spread: self.shares(peer, demand).to_vec(),
            candidates,
        })
    }
}
