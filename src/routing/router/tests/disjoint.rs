//! While there is a second path that shares no uplink and no relay with the first, it is known.

use std::collections::BTreeMap;

use super::*;
use crate::rng::Rng;

const PEERS: u16 = 5;
const UPLINKS: u32 = 3;

/// What the underlay is like: what the router is told, and nothing that it made of it.
struct Underlay {
    links: BTreeMap<(u16, LinkId), LinkReport>,
    between: BTreeMap<(u16, u16), LinkReport>,
}

impl Underlay {
    /// Something happens: to one of our links, or to one between two peers. All say again what they
    /// said before.
    fn change(&mut self, bench: &mut Bench, ms: u64, rng: &mut Rng) {
        let [a, b] = [0, 1].map(|_| rng.below(PEERS.into()) as u16);
        let state = [Liveness::Down, Liveness::Suspect, Liveness::Up, Liveness::Up];
        let state = state[rng.below(4) as usize];
        let report = report(5 + rng.below(90), 0.0, state);
        if a == b || rng.chance(0.4) {
            let link = link(rng.below(UPLINKS) as u8, rng.below(UPLINKS) as u8);
            if rng.chance(0.2) {
                self.links.remove(&(a, link));
                return bench.router.update_direct(at(ms), peer(a), link, None);
            }
            self.links.insert((a, link), report);
            bench.router.update_direct(at(ms), peer(a), link, Some(report));
        } else {
            self.between.insert((a, b), report);
        }
        for origin in 0..PEERS {
            let row = self.between.iter().filter(|entry| entry.0.0 == origin);
            let row: Vec<_> = row.map(|(ends, report)| (ends.1, *report)).collect();
            bench.advertise(ms, origin, &row);
        }
    }

    /// Our link that a path begins with: to relays, the one that we use.
    fn first(bench: &Bench, path: Path) -> Option<LinkId> {
        match path {
            Path::Direct(link) => Some(link),
            Path::Via(relay) => bench.router.link_to(relay),
        }
    }

    /// Every part of the path works.
    fn works(&self, bench: &Bench, to: u16, path: Path) -> bool {
        let up = |report: Option<&LinkReport>| report.is_some_and(|r| r.state == Liveness::Up);
        let Some(first) = Self::first(bench, path) else { return false };
        up(self.links.get(&(path.relay().map_or(to, |relay| relay.0), first)))
            && path.relay().is_none_or(|relay| up(self.between.get(&(relay.0, to))))
    }

    /// The two have no uplink and no relay in common.
    fn disjoint(bench: &Bench, a: Path, b: Path) -> bool {
        let [first_a, first_b] = [a, b].map(|path| Self::first(bench, path));
        let far = |path| match path {
            Path::Direct(link) => Some(link.remote),
            Path::Via(_) => None,
        };
        let ours = |first: Option<LinkId>| first.map(|link| link.local);
        let same_far = far(a).is_some() && far(a) == far(b);
        a != b && ours(first_a) != ours(first_b) && !same_far
    }

    /// All paths that work.
    fn working(&self, bench: &Bench, to: u16) -> Vec<Path> {
        let links = self.links.keys().filter(|key| key.0 == to);
        let relays = (0..PEERS).filter(|relay| *relay != to).map(|relay| Path::Via(peer(relay)));
        let all = links.map(|key| Path::Direct(key.1)).chain(relays);
        all.filter(|path| self.works(bench, to, *path)).collect()
    }
}

/// The path that was chosen, suspect or not, and the other one that is known besides.
fn two(bench: &Bench, to: u16, metric: Metric) -> (Option<Path>, Option<Path>) {
    let path = bench.router.path(peer(to), metric);
    let other = bench.router.alternate(peer(to), metric);
    if bench.router.suspected(peer(to), metric).is_some() { (other, path) } else { (path, other) }
}

#[test]
fn a_disjoint_second_path_is_known_whenever_there_is_one() {
    let (mut known, mut rivals) = (0, 0);
    for seed in 0..20 {
        let mut rng = Rng::new([seed; 32]);
        let mut bench = Bench::new(PEERS);
        let mut underlay = Underlay { links: BTreeMap::new(), between: BTreeMap::new() };
        let mut ms = 0;
        for step in 0..500 {
            underlay.change(&mut bench, ms, &mut rng);
            // What is not urgent is decided within a second.
            let settled = ms + if rng.chance(0.5) { 1_000 } else { 5_000 };
            while bench.router.poll_timeout().0 <= at(settled) {
                let now = bench.router.poll_timeout().0.max(at(ms));
                bench.router.recompute(now, &mut bench.events);
            }
            ms = settled;
            for to in 0..PEERS {
                let working = underlay.working(&bench, to);
                for metric in Metric::ALL {
                    let (first, second) = two(&bench, to, metric);
                    let Some(first) = first else { continue };
                    let free = |path: &Path| Underlay::disjoint(&bench, first, *path);
                    if working.iter().any(free) {
                        let right = second.filter(free).filter(|path| working.contains(path));
                        let context = format!("seed {seed}, step {step}, to {to} by {first:?}");
                        assert!(right.is_some(), "{context}: {second:?} of {working:?}");
                        known += 1;
                        rivals += u32::from(working.iter().any(|p| *p != first && !free(p)));
                    }
                }
            }
        }
    }
    assert!(known > 50_000 && rivals > known / 2, "{rivals} of {known} had a wrong one to take");
}
