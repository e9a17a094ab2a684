mod disjoint;
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
fn both_parts_of_the_margin_and_the_hold_down_guard_a_path_that_works() {
    let mut bench = Bench::triangle(100, 95);
    assert_eq!(bench.path(0), DIRECT);
    bench.advertise(300, 1, &[(0, up(82))]);
    bench.recompute(300);
    assert_eq!(bench.path(0), DIRECT, "8 % better");
    bench.advertise(600, 1, &[(0, up(75))]);
    bench.recompute(600);
    assert_eq!(bench.path(0), via(1), "15 % better");
    let switched = RouteEvent::Switched {
        peer: peer(0),
        metric: Metric::Latency,
        from: DIRECT,
        to: via(1),
        cause: SwitchCause::Better,
    };
    assert!(bench.events.contains(&switched), "{:?}", bench.events);
    bench.direct(900, 0, up(20));
    bench.recompute(5_599);
    assert_eq!(bench.path(0), via(1), "hold-down");
    bench.recompute(5_600);
    assert_eq!(bench.path(0), DIRECT);

    let mut small = Bench::triangle(13, 50);
    small.advertise(0, 1, &[(0, report(1, 0.0, Liveness::Up))]);
    small.recompute(0);
    assert_eq!(small.path(0), DIRECT, "15 % better, but less than 2 ms");
}

#[test]
fn a_suspect_path_is_left_at_once_but_not_for_good() {
    let mut bench = Bench::triangle(20, 40);
    let generation = bench.router.generation();
    bench.direct(10, 0, report(20, 0.0, Liveness::Suspect));
    assert_eq!(bench.router.poll_timeout().0, at(10), "liveness is urgent");
    bench.recompute(10);
    assert_eq!(bench.path(0), via(1));
    assert_eq!(bench.router.suspected(peer(0), Metric::Latency), DIRECT);
    assert_eq!(bench.router.alternate(peer(0), Metric::Latency), DIRECT);
    assert!(bench.router.generation() > generation);
    bench.direct(100, 0, up(20));
    bench.recompute(100);
    assert_eq!(bench.path(0), DIRECT, "no hold-down after a mere detour");
    assert_eq!(bench.router.suspected(peer(0), Metric::Latency), None);
    let explanation = bench.router.explain(at(100), peer(0), Metric::Latency).unwrap();
    assert_eq!((explanation.switches, explanation.cause), (0, Some(SwitchCause::First)));
}

#[test]
fn an_outage_moves_at_once_in_spite_of_hold_down_and_returning_waits() {
    let mut bench = Bench::triangle(100, 3);
    assert_eq!(bench.path(0), via(1));
    for (fail, back) in [(1_000, 5_000), (20_000, 20_000), (60_000, 80_000), (150_000, 120_000)] {
        bench.advertise(fail, 1, &[(0, report(3, 0.0, Liveness::Down))]);
        bench.recompute(fail);
        assert_eq!(bench.path(0), DIRECT, "at {fail}");
        bench.advertise(fail + 1_000, 1, &[(0, up(3))]);
        bench.recompute(fail + 1_000);
        let ready = (fail + 1_000 + back).max(fail + 5_000);
        bench.recompute(ready - 1);
        assert_eq!(bench.path(0), DIRECT, "back-off or hold-down at {ready}");
        bench.recompute(ready);
        assert_eq!(bench.path(0), via(1), "{ready}");
    }
    let explanation = bench.router.explain(at(272_000), peer(0), Metric::Latency).unwrap();
    let relay = explanation.candidates.iter().find(|c| c.path == Path::Via(peer(1))).unwrap();
    assert_eq!(relay.failures, 4, "three metrics see one outage each time");
}

#[test]
fn a_barred_path_is_better_than_none() {
    let mut bench = Bench::triangle(20, 40);
    bench.direct(100, 0, report(20, 0.0, Liveness::Down));
    bench.recompute(100);
    assert_eq!(bench.path(0), via(1));
    bench.direct(200, 1, report(20, 0.0, Liveness::Down));
    bench.direct(200, 0, up(20));
    bench.recompute(200);
    assert_eq!(bench.path(0), DIRECT);
}

#[test]
fn with_nothing_left_a_suspect_link_is_kept_and_a_dead_one_is_not() {
    let mut bench = Bench::new(1);
    bench.direct(0, 0, up(20));
    bench.recompute(0);
    bench.direct(10, 0, report(20, 0.0, Liveness::Suspect));
    bench.recompute(10);
    assert_eq!(bench.path(0), DIRECT);
    bench.direct(20, 0, report(20, 0.0, Liveness::Down));
    bench.recompute(20);
    assert_eq!((bench.path(0), bench.router.link_to(peer(0))), (None, None));
    assert_eq!(bench.router.direct_report(peer(0)).state, Liveness::Down);
    bench.direct(30, 0, report(20, 0.0, Liveness::Suspect));
    bench.recompute(30);
    assert_eq!(bench.path(0), DIRECT);
}

#[test]
fn a_measured_relayed_path_overrides_what_is_advertised() {
    let mut bench = Bench::triangle(60, 10);
    assert_eq!(bench.path(0), via(1));
    bench.router.update_relayed(at(400), peer(0), peer(1), Some(report(20, 0.3, Liveness::Up)));
    bench.recompute(600);
    assert_eq!(bench.path(0), DIRECT, "it promised 20 ms and loses 30 %");
    bench.router.update_relayed(at(700), peer(0), peer(1), None);
    bench.direct(700, 0, report(60, 0.0, Liveness::Down));
    bench.recompute(700);
    assert_eq!(bench.path(0), via(1));
    bench.router.update_relayed(at(800), peer(0), peer(1), Some(up(20)));
    bench.advertise(800, 1, &[(0, report(10, 0.0, Liveness::Down))]);
    bench.recompute(800);
    assert_eq!(bench.path(0), via(1), "it works, whatever is advertised");
    bench.router.update_relayed(at(900), peer(0), peer(1), Some(report(20, 0.0, Liveness::Down)));
    bench.recompute(900);
    assert_eq!(bench.path(0), None);
}

#[test]
fn a_relayed_path_that_never_answered_is_down_whatever_is_advertised() {
    let mut bench = Bench::triangle(60, 10);
    assert_eq!(bench.path(0), via(1));
    let refuted = LinkReport { latency_us: u32::MAX, ..report(0, 0.0, Liveness::Down) };
    bench.router.update_relayed(at(100), peer(0), peer(1), Some(refuted));
    bench.recompute(100);
    assert_eq!(bench.path(0), DIRECT);
    assert_eq!(bench.standing(100, 0, via(1).unwrap()), Standing::Down);
}

#[test]
fn an_outage_elsewhere_concerns_the_two_ends_alone_and_at_once() {
    let mut bench = Bench::new(4);
    for relay in 1..4 {
        bench.direct(0, relay, up(30));
        bench.advertise(0, relay, &[(0, up(30)), (1, up(30)), (2, up(30)), (3, up(30))]);
    }
    bench.recompute(0);
    let used = bench.path(0).and_then(Path::relay).unwrap();
    let dead = report(30, 0.0, Liveness::Down);
    bench.advertise(1, used.0, &[(0, dead)]);
    assert_eq!(bench.router.poll_timeout().0, at(1));
    // What else changed, a little, waits for the second in which all is looked at.
    let other = if used.0 == 1 { 2 } else { 1 };
    bench.direct(1, other, up(31));
    bench.recompute(1);
    let next = bench.path(0).and_then(Path::relay).unwrap();
    assert_ne!(next, used);
    assert_eq!(bench.router.poll_timeout().0, at(1_000));
}

#[test]
fn a_link_that_changes_concerns_those_to_whom_its_peer_is_a_way() {
    let mut bench = Bench::new(5);
    (1..5).for_each(|to| bench.direct(0, to, up(30)));
    bench.advertise(0, 1, &[(0, up(30))]);
    bench.router.update_relayed(at(0), peer(2), peer(1), Some(up(70)));
    bench.recompute(0);
    for (ms, may_relay) in [(2_000, true), (4_000, false)] {
        bench.router.set_may_relay(at(ms), peer(1), may_relay);
        bench.recompute(ms);
        bench.recompute(ms + 1);
        for to in 0..5 {
            bench.router.stale.take(peer(to), PATHS);
        }
        // Such a round decides on links, and on the paths to that peer only.
        bench.direct(ms + 2, 1, up(31 + u32::from(may_relay)));
        bench.router.stale.mark(peer(4), URGENT);
        bench.recompute(ms + 2);
        let concerned = |to| bench.router.stale.take(peer(to), PATHS) != 0;
        let is_way = [may_relay, true, may_relay, false];
        assert_eq!([0, 1, 2, 3].map(concerned), is_way, "{may_relay}");
    }
}

#[test]
fn a_measurement_that_nobody_repeats_is_forgotten() {
    let mut bench = Bench::triangle(60, 10);
    let dead = report(20, 0.0, Liveness::Down);
    bench.router.update_relayed(at(100), peer(0), peer(1), Some(dead));
    bench.recompute(100);
    assert_eq!(bench.path(0), DIRECT);
    bench.recompute(10_100);
    assert_eq!(bench.standing(10_100, 0, Path::Via(peer(1))), Standing::Down);
    bench.recompute(10_101);
    assert_eq!(bench.standing(10_101, 0, Path::Via(peer(1))), Standing::Eligible);
}

#[test]
fn of_more_measurements_than_are_kept_those_in_use_count_and_nobody_is_hurried() {
    let mut bench = Bench::new(12);
    for relay in 1..10 {
        bench.direct(0, relay, up(10));
        // The last one is the best, the one before it the next best.
        bench.advertise(0, relay, &[(0, up(200 - 20 * u32::from(relay)))]);
    }
    bench.recompute(0);
    assert_eq!(bench.path(0), via(9));
    let tell = |bench: &mut Bench, ms| {
        for relay in 1..10 {
            let rtt = up(210 - 20 * u32::from(relay));
            bench.router.update_relayed(at(ms), peer(0), peer(relay), Some(rtt));
        }
    };
    tell(&mut bench, 10);
    bench.recompute(10);
    for ms in [20, 30, 40] {
        tell(&mut bench, ms);
        assert!(bench.router.poll_timeout().0 > at(ms), "what is known is told again");
    }
    let dead = report(30, 0.0, Liveness::Down);
    bench.router.update_relayed(at(50), peer(0), peer(9), Some(dead));
    assert_eq!(bench.router.poll_timeout().0, at(50));
    bench.recompute(50);
    assert_eq!(bench.path(0), via(8));
    for remote in 0..=Router::MAX_LINKS as u8 {
        bench.router.update_direct(at(50), peer(10), link(0, remote), Some(up(10)));
    }
    bench.recompute(50);
    bench.router.update_direct(at(60), peer(10), link(0, Router::MAX_LINKS as u8), Some(up(10)));
    assert!(bench.router.poll_timeout().0 > at(60));
}

#[test]
fn the_loss_that_the_other_end_found_stays_true_in_an_outage_that_it_sees() {
    let mut bench = Bench::triangle(20, 40);
    let says = |bench: &mut Bench, ms, report| {
        bench.advertise(ms, 1, &[(0, up(40))]);
        let (seq, spare_relay_kbit) = (ms as u32, u32::MAX);
        let (part, parts, delta) = (0, 1, false);
        let part = Advertisement { epoch: 1, seq, part, parts, delta, spare_relay_kbit };
        bench.router.apply(at(ms), peer(0), &part, [(NodeId(99), report)]);
        bench.recompute(ms);
    };
    says(&mut bench, 20_000, report(20, 0.1, Liveness::Up));
    assert_eq!(bench.path(0), via(1));
    for ms in 50..90 {
        says(&mut bench, ms * 1_000, report(20, 0.1, Liveness::Down));
        assert_eq!(bench.path(0), via(1), "{ms}");
    }
    says(&mut bench, 90_000, up(20));
    assert_eq!(bench.path(0), DIRECT);
    // And so we tell it ourselves.
    let dead = report(20, 0.1, Liveness::Down);
    bench.direct(91_000, 0, dead);
    bench.recompute(91_000);
    let told = bench.router.direct_report(peer(0));
    assert_eq!((told.loss, told.latency_us), (dead.loss, u32::MAX));
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

#[test]
fn recomputation_is_paced_unless_liveness_changes() {
    let mut bench = Bench::triangle(20, 40);
    assert_eq!(bench.router.poll_timeout().0, at(1_000));
    bench.direct(50, 0, up(21));
    assert_eq!(bench.router.poll_timeout().0, at(1_000), "noise");
    bench.direct(50, 0, up(25));
    assert_eq!(bench.router.poll_timeout().0, at(200));
    bench.direct(60, 0, up(25));
    bench.direct(60, 1, report(10, 0.0, Liveness::Down));
    assert_eq!(bench.router.poll_timeout().0, at(60));
    let generation = bench.router.generation();
    let mut same = Bench::triangle(20, 40);
    same.recompute(500);
    assert_eq!(same.router.generation(), generation, "nothing changed");
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
