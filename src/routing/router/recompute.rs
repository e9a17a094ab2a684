//! Choosing paths anew.

use super::Router;
use super::candidates::{self, Hop, share, shares_uplink};
use super::stale::{HOP, NEWS, PATHS, URGENT};
use crate::id::PeerIndex;
use crate::metric::{Liveness, Metric};
use crate::path::Path;
use crate::routing::event::{self, RouteEvent};
use crate::routing::explain::{Candidate, Standing};
use crate::routing::selection::{Change, Rules, Selection};
use crate::time::Instant;

/// What became of a choice.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// The table of paths changed.
    table: bool,
    /// The same would perhaps not be decided again from the same input: what was decided is itself
    /// input to other choices.
    unsettled: bool,
    /// Until then no other path is moved to.
    held_until: Option<Instant>,
}

impl Outcome {
    fn of(now: Instant, rules: &Rules, change: Change, selection: &Selection) -> Self {
        Self {
            table: change.table,
            unsettled: change != Change::default(),
            held_until: selection.hold_down_until(rules).filter(|until| now < *until),
        }
    }

    fn and(self, other: Self) -> Self {
        let [mine, others] = [self.held_until, other.held_until];
        Self {
            table: self.table || other.table,
            unsettled: self.unsettled || other.unsettled,
            held_until: mine.into_iter().chain(others).min(),
        }
    }
}

impl Router {
    /// Chooses the paths anew that something concerns, now and then all whose input changed; appends
    /// what changed to `events`.
    pub fn recompute(&mut self, now: Instant, events: &mut Vec<RouteEvent>) {
        let all = now >= self.all_due || !self.stale.any(URGENT);
        if all {
            self.computed_at = now;
            self.all_due = now + self.config.idle_pause;
            self.stale.begin_round();
        }
        // Links are decided on in every round.
        self.stale.mark_due(now);
        self.due = self.all_due;
        self.expire(now);
        let mut changed = false;
        // Links first: relayed paths begin with them.
        for index in 0..self.peers.len() {
            if self.stale.take(PeerIndex(index as u16), HOP) != 0 {
                changed |= self.decide_hop(now, index);
                self.note_hop(index);
            }
        }
        let hops = std::mem::take(&mut self.hops);
        self.sketch.begin(&hops, |relay| {
            let spare = || self.database.spare_relay_kbit(PeerIndex(relay as u16));
            self.peers[relay].info.may_relay.then(spare)
        });
        for index in 0..self.peers.len() {
            let peer = PeerIndex(index as u16);
            let due = if all { URGENT | PATHS } else { URGENT };
            if self.stale.take(peer, due) != 0 {
                self.stale.take(peer, PATHS);
                changed |= self.decide_paths(now, index, &hops, events);
            }
        }
        self.hops = hops;
        self.generation += u64::from(changed);
    }

    /// Forgets what is too old.
    fn expire(&mut self, now: Instant) {
        if self.database.expire(now) {
            self.stale.mark_all(HOP | PATHS | NEWS);
        }
        let oldest = self.config.measurement_expiry;
        for (index, peer) in (0..).map(PeerIndex).zip(&mut self.peers) {
            let before = peer.relayed.len() + peer.app_values.len();
            if before == 0 {
                continue;
            }
            peer.relayed.retain(|(_, (_, told_at))| now - *told_at <= oldest);
            peer.app_values.retain(|(_, (_, until))| now < *until);
            if peer.relayed.len() + peer.app_values.len() < before {
                self.stale.mark(index, PATHS);
            }
        }
    }

    fn decide_hop(&mut self, now: Instant, index: usize) -> bool {
        let mut candidates = std::mem::take(&mut self.scratch);
        candidates.clear();
        self.gather_direct(index, &mut candidates);
        self.weigh(now, index, Metric::Latency, 0, &mut candidates);
        let rules = self.rules(Metric::Latency);
        let state = &mut self.peers[index];
        let change = state.hop.decide(now, &rules, &candidates, shares_uplink);
        if let Some(path) = change.failed {
            state.flaps.failed(now, &self.config.flap, path);
        }
        let outcome = Outcome::of(now, &rules, change, &state.hop);
        self.look_again(now, index, outcome, HOP);
        self.scratch = candidates;
        outcome.table
    }

    /// Every path through a peer begins with the direct link to it. That concerns those to whom there
    /// may be one: it may relay, and says something of its link to them or is measured.
    fn note_hop(&mut self, index: usize) {
        let hop = self.hop(index);
        let before = std::mem::replace(&mut self.hops[index], hop);
        if hop == before {
            return;
        }
        let relay = PeerIndex(index as u16);
        let link = |hop: Hop| hop.map(|hop| hop.0);
        // What leaves through the relay does so over another link from now on, which not every demand
        // may permit.
        let moved = before.is_some() && hop.is_some() && link(before) != link(hop);
        let what = if moved { PATHS | URGENT } else { PATHS };
        if self.peers[index].info.may_relay {
            for (to, state) in (0..).map(PeerIndex).zip(&self.peers) {
                let measured = || state.relayed.iter().any(|measured| measured.0 == relay);
                if self.database.link(relay, to).is_some() || measured() {
                    self.stale.mark(to, what);
                }
            }
        }
        let state = |hop: Hop| hop.map_or(Liveness::Down, |hop| hop.1.state);
        if link(before) != link(hop) {
            self.stale.mark_all(NEWS);
        } else if state(before) != state(hop) {
            self.stale.mark(relay, NEWS);
        }
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
        let mut sketch = std::mem::take(&mut self.sketch);
        let all_spare = self.gather_promising(index, hops, &mut sketch, &mut candidates);
        self.sketch = sketch;
        if all_spare.is_none() {
            self.gather_relayed(index, hops, &mut candidates);
        }
        if !self.peers[index].flaps.is_empty() {
            for candidate in &candidates {
                let state = candidates::observed(candidate);
                self.peers[index].flaps.observe(now, &self.config.flap, candidate.path, state);
            }
        }
        let mut outcome = Outcome::default();
        for demand in 0..self.demands.len() {
            let place = (index, demand);
            let one = self.decide_demand(now, place, hops, all_spare, &mut candidates, events);
            outcome = outcome.and(one);
        }
        let peer = PeerIndex(index as u16);
        if outcome.unsettled {
            self.stale.mark(peer, NEWS);
        }
        self.look_again(now, index, outcome, HOP | PATHS);
        self.scratch = candidates;
        outcome.table
    }

    /// Takes note of when the choice for a peer may be another one although nothing else changes.
    fn look_again(&mut self, now: Instant, index: usize, outcome: Outcome, what: u8) {
        let peer = PeerIndex(index as u16);
        if outcome.unsettled {
            self.stale.mark(peer, what);
        }
        self.stale.mark_at(peer, outcome.held_until);
        let flaps = &self.peers[index].flaps;
        self.stale.mark_at(peer, flaps.next_change(now, &self.config.flap));
    }

    /// Decides on the paths of one demand, given all candidates, or those that matter and what the
    /// best of all relays can bear.
    fn decide_demand(
        &mut self,
        now: Instant,
        (index, demand): (usize, usize),
        hops: &[Hop],
        all_spare: Option<u32>,
        all: &mut [Candidate],
        events: &mut Vec<RouteEvent>,
    ) -> Outcome {
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
        let most = all_spare.unwrap_or_else(|| self.most_spare(candidates));
        let metric = self.weigh(now, index, self.demands[demand].metric, most, candidates);
        let rules = self.rules(metric);
        let mut selection = self.peers[index].selections[demand];
        let before = selection;
        let shares = |a, b| share(hops, a, b);
        let change = selection.decide(now, &rules, candidates, shares);
        let mut outcome = Outcome::of(now, &rules, change, &selection);
        // A path that is closed has not failed.
        let failed = change.failed.filter(|path| {
            !candidates.iter().any(|c| c.path == *path && c.standing == Standing::Forbidden)
        });
        if self.demands[demand].multipath {
            outcome.table |= self.spread(index, demand, rules.margin, candidates);
            // Which paths are good depends on which ones were.
            outcome.unsettled = true;
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
        outcome
    }

    fn is_lossy(&self, candidates: &[Candidate], path: Path) -> bool {
        let lossy = |c: &Candidate| c.report.loss.fraction() > self.config.cost.free_loss;
        candidates.iter().any(|c| c.path == path && lossy(c))
    }

    /// True when something changed for a peer that others than the router may go by, since this was
    /// last asked: its paths, the link to it, or whether others reach it. Now and then also without
    /// any change.
    pub fn take_news(&mut self, peer: PeerIndex) -> bool {
        self.stale.take(peer, NEWS) != 0
    }
}
