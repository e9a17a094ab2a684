//! Multi-path by flow (RON section 3.4): the good paths to a peer, and which flow takes which.
//!
//! A flow stays on its path as long as that is a good one, so that its packets keep their order.

use super::explain::{Candidate, Standing};
use super::hysteresis::Margin;
use crate::float;
use crate::metric::Liveness;
use crate::path::Path;

/// Most paths that flows are spread over.
pub const SPREAD_MAX: usize = 4;
/// A path joins when it costs at most this many times the best one ...
const JOIN: f64 = 1.5;
/// ... and leaves when it costs more than this many times.
const LEAVE: f64 = 2.5;

/// A good path, and the share of flows that it takes, in parts of the sum of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The path.
    pub path: Path,
    /// Its score: what it can be expected to carry, compared with the others.
    pub weight: f64,
    /// Flows may take it: what a relay promises was seen to be true.
    pub proven: bool,
}

/// The good paths to one peer under one demand.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread(pub(super) Vec<Share>);

impl Spread {
    /// Chooses anew which paths are good. `score` tells what a path carries, and is told whether that
    /// was measured of all of them. True when the set changed.
    pub(super) fn decide(
        &mut self,
        margin: Margin,
        candidates: &[Candidate],
        score: impl Fn(&Candidate, bool) -> f64,
    ) -> bool {
        // A suspect path is left at once; one whose relay is full keeps the flows that it has.
        let stays = |c: &Candidate| {
            self.contains(c.path) && c.standing.is_usable() && c.report.state == Liveness::Up
        };
        let open = |c: &&Candidate| {
            (c.standing == Standing::Eligible || stays(c)) && c.barred_until.is_none()
        };
        let best = candidates.iter().filter(open).map(|c| c.cost).fold(f64::INFINITY, f64::min);
        let limit = |candidate: &Candidate| {
            let factor = if self.contains(candidate.path) { LEAVE } else { JOIN };
            best * factor + margin.absolute * factor
        };
        let mut good: Vec<&Candidate> =
            candidates.iter().filter(open).filter(|c| c.cost <= limit(c)).collect();
        good.sort_by(|a, b| a.rank.total_cmp(&b.rank));
        good.truncate(SPREAD_MAX);
        good.sort_by_key(|candidate| candidate.path);
        let known = good.iter().all(|c| c.capacity_kbit.is_some());
        let share = |c: &Candidate| Share {
            path: c.path,
            weight: score(c, known).max(1e-9),
            proven: c.measured || c.path.relay().is_none() || self.carries(c.path),
        };
        let shares: Vec<Share> = good.into_iter().map(share).collect();
        let of = |share: &Share| (share.path, share.proven);
        let changed = !shares.iter().map(of).eq(self.0.iter().map(of));
        self.0 = shares;
        changed
    }

    pub(super) fn contains(&self, path: Path) -> bool {
        self.0.iter().any(|share| share.path == path)
    }

    /// Flows may take the path.
    pub(super) fn carries(&self, path: Path) -> bool {
        self.0.iter().any(|share| share.path == path && share.proven)
    }

    /// The path for a flow with this hash, none while none is proven: weighted rendezvous hashing, so that a path that comes
    /// or goes moves no flow but those that it gets or had.
    pub(super) fn pick(&self, hash: u64) -> Option<Path> {
        let height = |share: &Share| {
            let mixed = mix(hash ^ mix(path_number(share.path)));
            let unit = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -share.weight / float::ln(unit)
        };
        let proven = self.0.iter().filter(|share| share.proven);
        proven.max_by(|a, b| height(a).total_cmp(&height(b))).map(|share| share.path)
    }
}

const fn path_number(path: Path) -> u64 {
    match path {
        Path::Direct(link) => 1 << 32 | (link.local.0 as u64) << 8 | link.remote.0 as u64,
        Path::Via(relay) => 2 << 32 | relay.0 as u64,
    }
}

/// The finalizer of splitmix64.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerIndex;
    use crate::metric::LinkReport;

    fn via(relay: u16, cost: f64) -> Candidate {
        Candidate {
            path: Path::Via(PeerIndex(relay)),
            standing: Standing::Eligible,
            report: LinkReport { state: Liveness::Up, ..LinkReport::default() },
            measured: true,
            app_value: None,
            capacity_kbit: None,
            preference: 0.0,
            cost,
            doubt: 0.0,
            rank: cost,
            barred_until: None,
            failures: 0,
        }
    }

    const MARGIN: Margin = Margin { relative: 0.1, absolute: 2.0 };

    #[test]
    fn flows_are_spread_in_proportion_and_only_those_of_a_lost_path_move() {
        let mut spread = Spread::default();
        let candidates = [via(0, 100.0), via(1, 110.0), via(2, 120.0), via(3, 900.0)];
        let weight = |c: &Candidate, _| if c.path == Path::Via(PeerIndex(0)) { 2.0 } else { 1.0 };
        assert!(spread.decide(MARGIN, &candidates, weight));
        assert!(!spread.decide(MARGIN, &candidates, weight), "nothing changed");
        let before: Vec<Path> = (0..8_000).map(|hash| spread.pick(hash).unwrap()).collect();
        let share = |relay| before.iter().filter(|p| **p == Path::Via(PeerIndex(relay))).count();
        assert!((3_800..4_200).contains(&share(0)), "{}", share(0));
        assert!((1_800..2_200).contains(&share(1)), "{}", share(1));
        assert_eq!(share(3), 0, "too long");
        assert!(spread.decide(MARGIN, &[candidates[0], candidates[2]], weight));
        for (hash, path) in before.into_iter().enumerate() {
            if path != Path::Via(PeerIndex(1)) {
                assert_eq!(spread.pick(hash as u64), Some(path), "no need to move");
            }
        }
    }

    #[test]
    fn no_flow_takes_a_relay_that_only_promises() {
        let mut spread = Spread::default();
        let promised = Candidate { measured: false, ..via(1, 90.0) };
        spread.decide(MARGIN, &[promised], |_, _| 1.0);
        assert!(spread.contains(promised.path), "it is to be measured");
        assert_eq!(spread.pick(7), None);
        assert!(spread.decide(MARGIN, &[via(0, 100.0), promised], |_, _| 1.0));
        assert!((0..100).all(|hash| spread.pick(hash) == Some(via(0, 0.0).path)));
        assert!(spread.decide(MARGIN, &[via(0, 100.0), via(1, 90.0)], |_, _| 1.0));
        assert!((0..100).any(|hash| spread.pick(hash) == Some(promised.path)));
        // It was measured once: nothing moves when that is too long ago.
        assert!(!spread.decide(MARGIN, &[via(0, 100.0), promised], |_, _| 1.0));
        assert!(spread.carries(promised.path));
    }

    #[test]
    fn a_path_joins_and_leaves_at_different_costs() {
        let mut spread = Spread::default();
        spread.decide(MARGIN, &[via(0, 100.0), via(1, 200.0)], |_, _| 1.0);
        assert!(!spread.contains(Path::Via(PeerIndex(1))));
        spread.decide(MARGIN, &[via(0, 100.0), via(1, 140.0)], |_, _| 1.0);
        spread.decide(MARGIN, &[via(0, 100.0), via(1, 200.0)], |_, _| 1.0);
        assert!(spread.contains(Path::Via(PeerIndex(1))), "it was good a moment ago");
        spread.decide(MARGIN, &[via(0, 100.0), via(1, 300.0)], |_, _| 1.0);
        assert!(!spread.contains(Path::Via(PeerIndex(1))));
        let full = |relay| Candidate { standing: Standing::RelayFull, ..via(relay, 100.0) };
        assert!(!spread.decide(MARGIN, &[full(0), full(1)], |_, _| 1.0), "its flows stay");
        let mut suspect = full(0);
        suspect.report.state = Liveness::Suspect;
        assert!(spread.decide(MARGIN, &[suspect], |_, _| 1.0), "they leave");
        spread.decide(MARGIN, &[], |_, _| 1.0);
        assert_eq!(spread.pick(7), None);
    }
}
