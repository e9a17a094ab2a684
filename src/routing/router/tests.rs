mod disjoint;
mod measured;
mod staying;
mod urgency;

use proptest::prelude::*;

use super::*;
use crate::id::UplinkIndex;
use crate::metric::{Liveness, Loss};
use crate::routing::RouteEvent;
use crate::routing::{Standing, SwitchCause};

const LINK: LinkId = link(0, 0);
const SECOND: LinkId = link(1, 1);

const fn link(local: u8, remote: u8) -> LinkId {
    LinkId { local: UplinkIndex(local), remote: UplinkIndex(remote) }
}

const fn peer(index: u16) -> PeerIndex {
    PeerIndex(index)
}

const fn id(index: u16) -> NodeId {
    NodeId(1000 - index as u32)
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(10_000_000 + ms * 1000)
}

fn report(rtt_ms: u32, loss: f64, state: Liveness) -> LinkReport {
    let loss = Loss::from_fraction(loss);
    LinkReport { latency_us: rtt_ms * 1000, jitter_us: 0, loss, state }
}

fn up(rtt_ms: u32) -> LinkReport {
    report(rtt_ms, 0.0, Liveness::Up)
}

/// A router of node 99 with `n` peers that may all relay.
struct Bench {
    router: Router,
    events: Vec<RouteEvent>,
    seq: u32,
}

impl Bench {
    fn new(n: u16) -> Self {
        let peers = (0..n).map(|i| PeerInfo { id: id(i), may_relay: true }).collect();
        let router = Router::new(RouterConfig::default(), NodeId(99), peers, 7);
        Self { router, events: Vec::new(), seq: 0 }
    }

    fn direct(&mut self, ms: u64, to: u16, report: LinkReport) {
        self.router.update_direct(at(ms), peer(to), LINK, Some(report));
    }

    fn advertise(&mut self, ms: u64, origin: u16, entries: &[(u16, LinkReport)]) {
        self.seq += 1;
        let part = Advertisement {
            epoch: 1,
            seq: self.seq,
            part: 0,
            parts: 1,
            delta: false,
            spare_relay_kbit: u32::MAX,
        };
        let entries = entries.iter().map(|(to, report)| (id(*to), *report));
        self.router.apply(at(ms), peer(origin), &part, entries);
    }

    fn recompute(&mut self, ms: u64) {
        self.events.clear();
        self.router.recompute(at(ms), &mut self.events);
    }

    fn path(&self, to: u16) -> Option<Path> {
        self.router.path(peer(to), Metric::Latency)
    }

    fn standing(&self, ms: u64, to: u16, path: Path) -> Standing {
        let explanation = self.router.explain(at(ms), peer(to), Metric::Latency).unwrap();
        explanation.candidates.iter().find(|c| c.path == path).unwrap().standing
    }

    /// Peer 0 is the destination at `direct` ms; peer 1 a relay at 10 + `second` ms.
    fn triangle(direct: u32, second: u32) -> Self {
        let mut bench = Self::new(2);
        bench.direct(0, 0, up(direct));
        bench.direct(0, 1, up(10));
        bench.advertise(0, 1, &[(0, up(second))]);
        bench.recompute(0);
        bench
    }
}

const DIRECT: Option<Path> = Some(Path::Direct(LINK));

const fn via(relay: u16) -> Option<Path> {
    Some(Path::Via(PeerIndex(relay)))
}

#[test]
fn the_shorter_way_is_taken_and_direct_when_equal() {
    assert_eq!(Bench::triangle(40, 10).path(0), via(1));
    assert_eq!(Bench::triangle(20, 40).path(0), DIRECT);
    assert_eq!(Bench::triangle(50, 40).path(0), DIRECT, "equal");
    assert_eq!(Bench::triangle(20, 40).router.alternate(peer(0), Metric::Latency), via(1));
}

#[test]
fn a_relay_needs_an_advertised_link_that_is_up() {
    let mut bench = Bench::new(3);
    bench.direct(0, 1, up(10));
    bench.recompute(0);
    assert_eq!(bench.path(0), None);
    assert_eq!(bench.standing(0, 0, Path::Via(peer(1))), Standing::NotAdvertised);
    assert_eq!(bench.standing(0, 0, Path::Via(peer(2))), Standing::RelayUnreachable);
    for state in [Liveness::Suspect, Liveness::Down] {
        bench.advertise(0, 1, &[(0, report(5, 0.0, state))]);
        bench.recompute(0);
        assert_eq!(bench.path(0), None);
    }
    bench.advertise(0, 1, &[(0, up(5))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), via(1));
    bench.advertise(0, 0, &[(1, report(5, 0.0, Liveness::Down))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), via(1), "the other end may not be able to tell that it is back");
}

#[test]
fn a_relay_that_is_full_or_not_allowed_is_not_moved_to() {
    let mut bench = Bench::triangle(40, 10);
    let part =
        Advertisement { epoch: 2, seq: 1, part: 0, parts: 1, delta: false, spare_relay_kbit: 0 };
    bench.router.apply(at(0), peer(1), &part, [(id(0), up(10))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), via(1), "what goes there already stays");
    let mut fresh = Bench::new(2);
    fresh.direct(0, 1, up(10));
    fresh.router.apply(at(0), peer(1), &part, [(id(0), up(10))]);
    fresh.recompute(0);
    assert_eq!(fresh.standing(0, 0, Path::Via(peer(1))), Standing::RelayFull);
    assert_eq!(fresh.path(0), None);

    let peers =
        vec![PeerInfo { id: id(0), may_relay: true }, PeerInfo { id: id(1), may_relay: false }];
    let router = Router::new(RouterConfig::default(), NodeId(99), peers, 7);
    let mut bench = Bench { router, events: Vec::new(), seq: 0 };
    bench.direct(0, 1, up(10));
    bench.advertise(0, 1, &[(0, up(5))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), None);
    assert_eq!(bench.standing(0, 0, Path::Via(peer(1))), Standing::MayNotRelay);
}

#[test]
fn several_links_are_candidates_and_the_alternate_shares_no_uplink() {
    let mut bench = Bench::new(2);
    let to = peer(0);
    bench.router.update_direct(at(0), to, LINK, Some(up(20)));
    bench.router.update_direct(at(0), to, link(0, 1), Some(up(21)));
    bench.router.update_direct(at(0), to, SECOND, Some(up(90)));
    bench.direct(0, 1, up(5));
    bench.advertise(0, 1, &[(0, up(18))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), DIRECT);
    let alternate = |bench: &Bench| bench.router.alternate(to, Metric::Latency);
    assert_eq!(alternate(&bench), Some(Path::Direct(SECOND)));
    bench.router.update_direct(at(10), to, SECOND, None);
    bench.recompute(10);
    assert_eq!(alternate(&bench), Some(Path::Direct(link(0, 1))), "the next best otherwise");
    bench.router.update_direct(at(20), to, LINK, None);
    bench.recompute(20);
    assert_eq!(bench.path(0), Some(Path::Direct(link(0, 1))));
    assert_eq!(bench.router.link_to(to), Some(link(0, 1)));
}

#[test]
fn each_metric_has_its_own_path() {
    let mut bench = Bench::new(3);
    bench.direct(0, 0, report(20, 0.008, Liveness::Up));
    bench.direct(0, 1, up(30));
    bench.direct(0, 2, up(2));
    bench.advertise(0, 1, &[(0, up(30))]);
    bench.recompute(0);
    let path = |metric| bench.router.path(peer(0), metric);
    assert_eq!(path(Metric::Latency), DIRECT);
    assert_eq!(path(Metric::Loss), via(1));
    assert_eq!(path(Metric::Throughput), DIRECT);
    let mut probes = Vec::new();
    bench.router.relays_to_probe(peer(0), |_| true, &mut probes);
    assert_eq!(probes, [(peer(1), true)]);
    bench.router.relays_to_probe(peer(0), |demand| demand == Metric::Latency.into(), &mut probes);
    assert_eq!(probes, [(peer(1), false)], "in use for another metric, here the alternate");
    assert_eq!(bench.router.path(peer(9), Metric::Loss), None);
}

#[test]
fn equal_relays_are_spread_over_nodes_and_stay_chosen() {
    let mut chosen = std::collections::BTreeSet::new();
    for node in 0..20 {
        let peers = (0..6).map(|i| PeerInfo { id: id(i), may_relay: true }).collect();
        let router = Router::new(RouterConfig::default(), NodeId(node), peers, 7);
        let mut bench = Bench { router, events: Vec::new(), seq: 0 };
        for relay in 1..6 {
            bench.direct(0, relay, up(30));
            bench.advertise(0, relay, &[(0, up(30))]);
        }
        bench.recompute(0);
        let first = bench.path(0);
        chosen.insert(first);
        for round in 1..100 {
            for relay in 1..6 {
                let wobble = (round * 7 + u64::from(relay) * 13) % 5;
                bench.direct(round * 1000, relay, up(28 + wobble as u32));
            }
            bench.recompute(round * 1000);
        }
        let story = bench.router.explain(at(0), peer(0), Metric::Latency).unwrap();
        assert_eq!(story.switches, 0, "{:?} to {:?}", first, bench.path(0));
    }
    assert!(chosen.len() >= 3, "{chosen:?}");
}

fn any_report() -> impl Strategy<Value = Option<LinkReport>> {
    let state = prop_oneof![
        4 => Just(Liveness::Up),
        1 => Just(Liveness::Suspect),
        1 => Just(Liveness::Down)
    ];
    let some = (1u32..300, 0u32..20, state)
        .prop_map(|(rtt, loss, state)| report(rtt, f64::from(loss) / 100.0, state));
    prop_oneof![5 => some.prop_map(Some), 1 => Just(None)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A first choice is the best there is, but for the order of near-equal relays.
    #[test]
    fn first_choices_agree_with_brute_force(
        direct in prop::collection::vec(any_report(), 5),
        hops in prop::collection::vec(prop::collection::vec(any_report(), 5), 5),
    ) {
        let mut bench = Bench::new(5);
        for (to, report) in direct.iter().enumerate() {
            bench.router.update_direct(at(0), peer(to as u16), LINK, *report);
        }
        for (origin, row) in hops.iter().enumerate() {
            let known = row.iter().enumerate().filter(|(to, _)| *to != origin);
            let entries: Vec<_> =
                known.filter_map(|(to, r)| r.map(|r| (to as u16, r))).collect();
            bench.advertise(0, origin as u16, &entries);
        }
        bench.recompute(0);
        let config = RouterConfig::default();
        for to in 0..5usize {
            for metric in Metric::ALL {
                let cost = |r: &LinkReport| config.cost.cost(metric, r);
                let alive = |r: &LinkReport| r.state == Liveness::Up;
                let relayed = (0..5).filter(|relay| *relay != to).filter_map(|relay| {
                    let first = direct[relay].filter(alive)?;
                    let there = hops[relay][to].filter(alive)?;
                    let back = hops[to][relay];
                    let second = there.measured_worse(back);
                    let sum = first.then(second);
                    Some((Path::Via(peer(relay as u16)), sum)).filter(|p| alive(&p.1))
                });
                let ways: Vec<_> = direct[to]
                    .filter(alive)
                    .map(|r| (Path::Direct(LINK), r))
                    .into_iter()
                    .chain(relayed)
                    .map(|(path, report)| (path, cost(&report)))
                    .collect();
                let least = ways.iter().map(|way| way.1).fold(f64::INFINITY, f64::min);
                match bench.router.path(peer(to as u16), metric) {
                    Some(path) => match ways.iter().find(|way| way.0 == path) {
                        Some(way) => {
                            let near = bench.router.margin(metric).near(least);
                            prop_assert!(way.1 <= least + near + 1e-9, "{way:?} {ways:?}");
                        }
                        None => {
                            prop_assert!(ways.is_empty(), "{path:?} of {ways:?}");
                            prop_assert_eq!(path, Path::Direct(LINK), "a suspect last resort");
                        }
                    },
                    None => prop_assert!(ways.is_empty(), "none of {ways:?}"),
                }
            }
        }
    }

    /// Whatever comes in: a relay is never its own destination, an alternate is another path, and
    /// what is used can be explained.
    #[test]
    fn invariants_hold_under_any_sequence(
        steps in prop::collection::vec((0u16..4, 0u16..4, any_report(), 0u64..3000), 1..60),
    ) {
        let mut bench = Bench::new(4);
        let mut ms = 0;
        for (a, b, report, pause) in steps {
            ms += pause;
            match (a == b, report) {
                (true, report) => {
                    bench.router.update_direct(at(ms), peer(a), LINK, report);
                }
                (false, Some(report)) => bench.advertise(ms, a, &[(b, report)]),
                (false, None) => bench.router.update_relayed(at(ms), peer(a), peer(b), None),
            }
            bench.recompute(ms);
            for to in 0..4 {
                for metric in Metric::ALL {
                    let path = bench.router.path(peer(to), metric);
                    prop_assert_ne!(path.and_then(Path::relay), Some(peer(to)));
                    if let Some(path) = path {
                        prop_assert_ne!(bench.router.alternate(peer(to), metric), Some(path));
                        let story = bench.router.explain(at(ms), peer(to), metric).unwrap();
                        let used = story.candidates.iter().find(|c| c.path == path);
                        prop_assert!(used.is_some_and(|c| c.standing.is_usable()), "{story:?}");
                        let cost = bench.router.cost(at(ms), peer(to), metric);
                        prop_assert_eq!(cost, used.map(|candidate| candidate.cost));
                    }
                }
            }
        }
    }
}
