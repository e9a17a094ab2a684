//! Which relays can matter to the choice for a peer, found out with little work for each.
//!
//! Of hundreds of relays a few are near the best; under no metric is any other one chosen, or next.
//! To gather and weigh them all was nearly all that routing costs in a large overlay. So times are
//! added up first, for all relays in one pass, and only those that are short enough are looked at
//! closely. What is decided is the same.

use super::Router;
use super::candidates::Hop;
use crate::id::{PeerIndex, UplinkIndex};
use crate::metric::{Liveness, Loss, Metric};
use crate::path::Path;
use crate::routing::explain::Candidate;

/// The first hop to a relay: what of it concerns all peers.
#[derive(Clone, Copy, Debug)]
struct First {
    latency_us: u32,
    /// It may relay and is reached.
    is_open: bool,
    spare_kbit: u32,
    uplink: UplinkIndex,
    lossless: bool,
}

impl First {
    const CLOSED: Self = Self {
        latency_us: 0,
        is_open: false,
        spare_kbit: 0,
        uplink: UplinkIndex(0),
        lossless: false,
    };
}

/// The relays as they are in one round of choices, and working space.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    first: Vec<First>,
    /// Some of them has jitter.
    jitter: bool,
    /// The round trip through each relay, or [`CLOSED`], [`SHORT`] or [`KEPT`].
    times: Vec<u32>,
}

/// Not to be looked at closely.
const CLOSED: u32 = u32::MAX;
/// To be looked at closely if there is hardly any other.
const SHORT: u32 = u32::MAX - 1;
/// To be looked at closely whatever its time is.
const KEPT: u32 = u32::MAX - 2;

/// The two shortest times by one uplink without any loss.
type Shortest = [u32; 2];

impl Sketch {
    /// A round begins. `spare` says what a relay has left for us, in kbit/s, if it may serve us.
    pub(super) fn begin(&mut self, hops: &[Hop], spare: impl Fn(usize) -> Option<u32>) {
        self.jitter = hops.iter().flatten().any(|hop| hop.1.jitter_us > 0);
        self.first.clear();
        self.first.extend(hops.iter().enumerate().map(|(relay, hop)| match hop {
            Some((link, report)) if report.state == Liveness::Up => First {
                latency_us: report.latency_us,
                is_open: spare(relay).is_some(),
                spare_kbit: spare(relay).unwrap_or(0),
                uplink: link.local,
                lossless: report.loss == Loss::NONE,
            },
            _ => First::CLOSED,
        }));
    }
}

impl Router {
    /// Appends to the direct candidates the relayed ones that can matter to the choice for a peer.
    /// Returns the most that any relay which may be chosen has left; `None` when all candidates are
    /// needed, and then appends nothing.
    pub(super) fn gather_promising(
        &self,
        index: usize,
        hops: &[Hop],
        sketch: &mut Sketch,
        candidates: &mut Vec<Candidate>,
    ) -> Option<u32> {
        if !self.is_plain(index) || self.weighs_all() || candidates.is_empty() {
            return None;
        }
        self.keep_what_is_used(index, &mut sketch.times);
        let (shortest, most) = self.add_up(index, sketch);
        // What is second to few, or to none, may be anything that works at all. Beyond that there is
        // the direct link, working or not.
        let few = !shortest.iter().any(|times| times[1] < KEPT);
        let present = if sketch.jitter { self.present(index) } else { 0 };
        let limits = shortest.map(|times| if few { SHORT } else { self.limit(times).max(present) });
        let measured = &self.peers[index].relayed;
        let begin = candidates.len();
        let firsts = sketch.times.iter().zip(&sketch.first);
        for (via, (time, first)) in (0..).map(PeerIndex).zip(firsts) {
            let limit = limits.get(first.uplink.usize()).copied().unwrap_or(SHORT);
            if *time == KEPT || *time <= limit {
                let measured = measured.iter().find(|measured| measured.0 == via);
                let measured = measured.map(|measured| measured.1.0);
                candidates.push(self.through(index, via, hops[via.usize()], measured));
            }
        }
        Some(most.max(self.most_spare(&candidates[begin..])))
    }

    /// Tests compare.
    #[cfg(test)]
    const fn weighs_all(&self) -> bool {
        self.weighs_all
    }

    #[cfg(not(test))]
    const fn weighs_all(&self) -> bool {
        false
    }

    /// The choice is by times, losses and what relays can bear, and by nothing else.
    fn is_plain(&self, index: usize) -> bool {
        self.capacities.is_empty()
            && self.peers[index].app_values.is_empty()
            && self.demands.iter().all(|demand| !demand.multipath && !demand.is_restricted())
            // Without any, all that lose nothing would be alike.
            && self.config.cost.least_loss > 0.0
            && self.config.cost.free_loss >= 0.0
    }

    /// Paths that are chosen, measured, or were left are always looked at.
    fn keep_what_is_used(&self, index: usize, times: &mut Vec<u32>) {
        times.clear();
        times.resize(self.peers.len(), 0);
        let state = &self.peers[index];
        let chosen = state.selections.iter().flat_map(|s| [s.chosen, s.detour, s.alternate]);
        let chosen = chosen.flatten().chain(state.flaps.paths()).filter_map(Path::relay);
        for relay in chosen.chain(state.relayed.iter().map(|measured| measured.0)) {
            if let Some(time) = times.get_mut(relay.usize())
                && relay.usize() != index
            {
                *time = KEPT;
            }
        }
        times[index] = CLOSED;
    }

    /// The time through each relay that may be chosen; the shortest ones by each uplink, and the
    /// most that any relay has left.
    fn add_up(
        &self,
        index: usize,
        sketch: &mut Sketch,
    ) -> ([Shortest; UplinkIndex::MAX_COUNT], u32) {
        let mut shortest = [[CLOSED; 2]; UplinkIndex::MAX_COUNT];
        let mut most = 0;
        let need = self.peers[index].need_kbit;
        let links = self.database.working_links(PeerIndex(index as u16));
        for ((time, first), link) in sketch.times.iter_mut().zip(&sketch.first).zip(links) {
            if *time == KEPT {
                continue;
            }
            *time = CLOSED;
            let Some((latency_us, lossless)) = link else { continue };
            if first.spare_kbit <= need {
                if first.is_open {
                    *time = SHORT;
                }
                continue;
            }
            most = most.max(first.spare_kbit);
            *time = first.latency_us.saturating_add(latency_us).min(KEPT - 1);
            if lossless
                && first.lossless
                && let Some([best, second]) = shortest.get_mut(first.uplink.usize())
            {
                if *time < *best {
                    (*best, *second) = (*time, *best);
                } else {
                    *second = (*second).min(*time);
                }
            }
        }
        (shortest, most)
    }

    /// A path that takes longer than this, which is no more than [`KEPT`], is worse than both the
    /// shortest ones without loss, under each metric, whatever it loses: their costs are in
    /// proportion to the time, and the order among near equals adds at most half of the relative
    /// margin of the best.
    fn limit(&self, [best, second]: Shortest) -> u32 {
        let margins = Metric::ALL.map(|metric| self.margin(metric).relative);
        let near = f64::from(best.max(1)) * margins.into_iter().fold(0.0, f64::max) / 2.0;
        // A thousandth more, and two, for rounding.
        second.saturating_add((near * 1.001) as u32).saturating_add(2).min(KEPT)
    }

    /// The present path is left for one that takes less time by more than its jitter: that may be
    /// another than the shortest, but none that is longer than the present one.
    fn present(&self, index: usize) -> u32 {
        let by_time = |metric| matches!(metric, Metric::Latency | Metric::App);
        let all = self.peers[index].selections.iter().zip(&self.demands);
        let chosen = all.filter(|(_, demand)| by_time(demand.metric)).filter_map(|(s, _)| s.chosen);
        let reports = chosen.filter_map(|path| self.gather_one(index, path)).map(|c| c.report);
        let costs = reports.map(|report| self.config.cost.cost(Metric::Latency, &report));
        let near = self.margin(Metric::Latency).relative / 2.0;
        let longest = costs.fold(0.0, f64::max) * (1.0 + near);
        ((longest * 1.001) as u32).saturating_add(2).min(KEPT)
    }
}
