//! Which paths are measured, and how often: probes go where they decide something.

use std::time::Duration;

use super::Node;
use super::paths::path_state;
use super::peer::PathState;
use crate::id::PeerIndex;
use crate::link::{Endpoint, Intervals, ProbeBudget};
use crate::metric::{Liveness, Metric};
use crate::path::Path;
use crate::time::Instant;

/// A relayed path stays measured for this long after nothing wants it any more.
pub(super) const RELAYED_LINGER: Duration = Duration::from_secs(30);
/// Paths to one peer that stay measured only because they would be taken if they were not.
const BELIED_MAX: usize = 4;
/// Paths that are probed fast.
const IN_USE_MAX: usize = 8;
/// Paths are probed fast for so long after the last data on them.
const FAST_LINGER: Duration = Duration::from_secs(300);
/// So long after an outage a path is watched closely.
const DOUBT: Duration = Duration::from_secs(300);

/// Whom a choice of paths concerns: the peers that may have changed, or whose paths, and those with
/// whom something goes on that depends on the time. Nothing is to be done for the others.
#[derive(Debug)]
pub(super) struct Care {
    /// Whom the present choice concerns.
    now: Vec<bool>,
    /// Nothing went on when it was last looked at: no traffic, no outage.
    calm: Vec<bool>,
    /// What it costs to probe the paths to each peer at their own pace, in idle links.
    weights: Vec<u16>,
    /// How often idle links were to be probed, at last.
    slow: Option<Duration>,
    round: usize,
}

impl Care {
    /// The router hears of each peer anew every so many choices, of which there is one in a second
    /// at least: well before it forgets ([`crate::routing::RouterConfig::measurement_expiry`]).
    const REPEAT: usize = 5;

    pub(super) fn new(peers: usize) -> Self {
        Self {
            now: vec![true; peers],
            calm: vec![false; peers],
            weights: vec![0; peers],
            slow: None,
            round: 0,
        }
    }

    pub(super) const fn begin(&mut self) {
        self.round = (self.round + 1) % Self::REPEAT;
    }

    /// True when the router is to be told of a peer again, whatever happened.
    pub(super) fn repeats(&self, index: usize) -> bool {
        index % Self::REPEAT == self.round || !self.calm[index]
    }

    /// True when this choice concerns a peer.
    pub(super) fn wants(&mut self, index: usize, changed: bool) -> bool {
        self.now[index] = changed || !self.calm[index];
        self.now[index]
    }
}

impl Node {
    /// Paths through relays that are chosen are measured end to end, and so are the alternates of
    /// those that are probed fast. Of all others, what their two links are said to be like is enough
    /// until they are used: measuring them would cost more than all links together.
    pub(super) fn measure_relayed(&mut self, now: Instant, peer: PeerIndex) {
        let spare = self.peers[peer.usize()].favoured;
        let mut relays = std::mem::take(&mut self.relays_scratch);
        for state in &mut self.peers.aside(peer.usize()).paths {
            if std::mem::take(&mut state.wanted) {
                state.wanted_until = now + RELAYED_LINGER;
            }
        }
        let policy = &self.policy;
        // Control messages go by latency.
        let matters = |demand| demand == Metric::Latency.into() || policy.asks_for(demand);
        self.router.relays_to_probe(peer, matters, &mut relays);
        for &(relay, _) in relays.iter().filter(|relay| relay.1 || spare) {
            self.measure_path(now, peer, relay);
            let path = Path::Via(relay);
            if let Some(state) = self.peers.aside(peer.usize()).state_mut(path) {
                state.wanted = true;
                state.belied = false;
            }
        }
        self.relays_scratch = relays;
        self.check_contradicted(now, peer);
    }

    /// Only its own answers make a path that is used bad, and bring back one that failed. They are asked
    /// for at once when its relay begins to say otherwise, but only then: a relay may say for ever that
    /// it works.
    fn check_contradicted(&mut self, now: Instant, peer: PeerIndex) {
        for at in 0..self.peers[peer.usize()].paths.len() {
            let Path::Via(relay) = self.peers[peer.usize()].paths[at].path else { continue };
            let works = self.relay_works(relay, peer);
            let state = &mut self.peers.aside(peer.usize()).paths[at];
            let mended = !std::mem::replace(&mut state.relay_works, works) && works;
            let hopeful = mended && state.prober.state() == Liveness::Down;
            let contradicted = !works && state.prober.state() == Liveness::Up;
            let changed = std::mem::replace(&mut state.contradicted, contradicted) != contradicted;
            if hopeful || changed {
                let state = &mut self.peers[peer.usize()].paths[at];
                if hopeful || contradicted {
                    state.prober.probe_soon(now);
                }
            }
        }
    }

    pub(super) fn measure_path(&mut self, now: Instant, peer: PeerIndex, relay: PeerIndex) {
        let path = Path::Via(relay);
        if let Some(state) = self.peers.aside(peer.usize()).state_mut(path) {
            state.wanted_until = now + RELAYED_LINGER;
            return;
        }
        let promised = self.router.promised(peer, relay);
        let endpoint = Endpoint::new(None);
        let smoothing = self.router.config().smoothing;
        let mut state = path_state(now, path, endpoint, &self.uplinks, smoothing, &mut self.rng);
        if let Some(promised) = promised {
            state.prober.expect_rtt(Duration::from_micros(promised.latency_us.into()));
        }
        let paths = &mut self.peers[peer.usize()].paths;
        // There are as many of these lists as pairs of nodes, and most stay this short.
        paths.reserve_exact(1);
        paths.push(state);
    }

    /// Relayed paths that nothing has wanted for a while are measured no more. Those that do worse
    /// than their ends say, and would be taken for what these say, are: else hosts' packets would
    /// find out again and again.
    pub(super) fn forget_unwanted(&mut self, now: Instant, peer: PeerIndex) {
        let (router, policy) = (&mut self.router, &self.policy);
        let matters = |demand| demand == Metric::Latency.into() || policy.asks_for(demand);
        let paths = &mut self.peers[peer.usize()].paths;
        let mut belied = 0;
        for state in &mut *paths {
            state.belied &= !lingers(now, state);
            belied += usize::from(state.belied);
        }
        paths.retain_mut(|state| match state.path {
            Path::Via(relay) if is_forgotten(now, state) => {
                belied -= usize::from(std::mem::take(&mut state.belied));
                if belied < BELIED_MAX && router.is_belied(now, peer, relay, matters) {
                    belied += 1;
                    state.belied = true;
                    state.wanted_until = now + RELAYED_LINGER;
                    return true;
                }
                router.update_relayed(now, peer, relay, None);
                false
            }
            Path::Via(_) | Path::Direct(_) => true,
        });
        if paths.len() < paths.capacity() {
            paths.shrink_to_fit();
        }
    }

    /// Probes go where they decide something: to the paths that carry traffic most of all, and to
    /// those that were left for their loss or an outage, because only probes can show that they are
    /// well again.
    pub(super) fn spend_budget(&mut self, now: Instant) {
        let mut ranks = std::mem::take(&mut self.ranks_scratch);
        ranks.clear();
        for index in 0..self.peers.len() {
            if self.care.now[index] {
                self.rank_paths(now, index, &mut ranks);
            }
        }
        let all = self.care.weights.iter().map(|weight| usize::from(*weight)).sum::<usize>();
        // The latest use first.
        ranks.sort_unstable_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        ranks.truncate(IN_USE_MAX);
        let left = self.control_budget_bps - self.volleys.share_bps(self.control_budget_bps);
        let budget = ProbeBudget::new(left, ProbeBudget::RIDING_BYTES);
        let (mut fast, mut also_fast) = (0, 0);
        for (_, peer, at) in &ranks {
            let peer = &self.peers[peer.usize()];
            fast += fast_weight(peer.paths[*at].path);
            also_fast += slow_weight(&peer.paths[*at], peer.favoured);
        }
        let intervals = budget.intervals(fast, all - also_fast);
        let others_too = self.care.slow.replace(intervals.idle) != Some(intervals.idle);
        ranks.sort_unstable_by_key(|rank| (rank.1, rank.2));
        let mut fast_ones = ranks.iter().map(|rank| (rank.1, rank.2)).peekable();
        for index in 0..self.peers.len() {
            if !others_too && !self.care.now[index] {
                continue;
            }
            let is_fast = |at| fast_ones.next_if_eq(&(PeerIndex(index as u16), at)).is_some();
            self.set_intervals(now, index, intervals, is_fast);
        }
        self.ranks_scratch = ranks;
    }

    /// Appends the paths to a peer that may be probed fast, and works out what they cost otherwise.
    fn rank_paths(
        &mut self,
        now: Instant,
        index: usize,
        ranks: &mut Vec<(Option<Instant>, PeerIndex, usize)>,
    ) {
        let peer = &self.peers[index];
        let peer_index = PeerIndex(index as u16);
        let in_use = self.router.path(peer_index, Metric::Latency);
        let recent = |at: &Instant| now - *at < FAST_LINGER;
        let heard_at = peer.arrivals.used_at().filter(recent);
        let is_active = peer.paths.iter().any(|state| state.used_at.is_some_and(|at| recent(&at)));
        let mut weight = 0;
        let mut well = true;
        for (at, state) in peer.paths.iter().enumerate() {
            weight += slow_weight(state, peer.favoured);
            well &= state.prober.state() == Liveness::Up;
            // Who only hears needs its path for reports.
            let heard = heard_at.filter(|_| in_use == Some(state.path));
            let used = state.used_at.max(heard).filter(recent);
            if used.is_some() || is_active && Self::is_doubtful(now, state) {
                ranks.push((used, peer_index, at));
            }
        }
        let idle = !is_active && heard_at.is_none();
        self.care.weights[index] = u16::try_from(weight).unwrap_or(u16::MAX);
        self.care.calm[index] = well && idle && peer.sealable && peer.account.is_calm();
    }

    fn set_intervals(
        &mut self,
        now: Instant,
        index: usize,
        intervals: Intervals,
        mut is_fast: impl FnMut(usize) -> bool,
    ) {
        let to = PeerIndex(index as u16);
        let reached = self.router.path(to, Metric::Latency).is_some();
        let linked = self.router.link_to(to).is_some();
        let peer = self.peers.aside(index);
        let was_favoured = std::mem::take(&mut peer.favoured);
        let mut changed = false;
        for (at, state) in peer.paths.iter_mut().enumerate() {
            let is_fast = is_fast(at);
            peer.favoured |= is_fast;
            let mut slow = intervals.idle * pace(state, was_favoured);
            // Whoever cannot be reached, or by a relay only, is sought, however little the budget
            // leaves.
            if !linked && matches!(state.path, Path::Direct(_)) {
                let sought = Intervals::IDLE_GOOD * if reached { 2 } else { 1 };
                slow = slow.min(sought);
            }
            let interval = if is_fast { intervals.in_use } else { slow };
            changed |= state.prober.set_interval(now, interval);
        }
        if changed || peer.favoured != was_favoured {
            self.peers.mark(to);
        }
    }

    /// True for a path that was left, or would be, for its loss or its outages.
    fn is_doubtful(now: Instant, state: &PathState) -> bool {
        let flaps = state.prober.flaps().downs_within(now, DOUBT) > 0;
        state.prober.estimator().is_lossy() || flaps && state.prober.state() != Liveness::Down
    }
}

/// True for a relayed path that nothing has wanted or used for a while.
fn is_forgotten(now: Instant, state: &PathState) -> bool {
    !state.wanted && now >= state.wanted_until && !lingers(now, state)
}

/// True for a path that was used not long ago.
fn lingers(now: Instant, state: &PathState) -> bool {
    state.used_at.is_some_and(|at| now - at < RELAYED_LINGER)
}

/// What probing a path costs at the pace of paths in use, in probes of a direct one: a relayed probe
/// is sent twice, with a longer header, and the far end seldom probes the same path.
const fn fast_weight(path: Path) -> usize {
    match path {
        Path::Direct(_) => 1,
        Path::Via(_) => 4,
    }
}

/// How much more rarely than an idle link a path is probed when it is not in use: the alternate of
/// one that is comes before those that nobody uses.
const fn pace(state: &PathState, favoured: bool) -> u32 {
    match state.path {
        Path::Direct(_) => 1,
        Path::Via(_) if state.contradicted => 1,
        Path::Via(_) if favoured => 2,
        Path::Via(_) => 4,
    }
}

/// The cost of a path that is probed at its own pace, in idle links.
const fn slow_weight(state: &PathState, favoured: bool) -> usize {
    fast_weight(state.path) / pace(state, favoured) as usize
}

#[cfg(test)]
mod tests;
