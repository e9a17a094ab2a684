//! What is chosen at once, and what waits for how long.

use super::*;

/// The router looks at its paths whenever it wants to, up to that time.
fn run_until(bench: &mut Bench, ms: u64) {
    while bench.router.poll_timeout().0 <= at(ms) {
        let due = bench.router.poll_timeout().0;
        bench.router.recompute(due, &mut bench.events);
    }
}

/// Peer 0 is reached directly, at need through relay 1, and worse through relays 2 and 3; each is
/// 10 ms away.
fn three_relays() -> Bench {
    let mut bench = Bench::new(5);
    bench.direct(0, 0, up(20));
    bench.direct(0, 4, up(60));
    for (relay, rtt) in [(1, 20), (2, 60), (3, 90)] {
        bench.direct(0, relay, up(10));
        bench.advertise(0, relay, &[(0, up(rtt)), (4, up(300))]);
    }
    bench.recompute(0);
    assert_eq!(bench.path(0), DIRECT);
    assert_eq!(bench.router.alternate(peer(0), Metric::Latency), via(1));
    bench
}

#[test]
fn an_outage_is_urgent_only_where_a_path_hangs_on_it() {
    let dead = report(20, 0.0, Liveness::Down);
    let mut bench = three_relays();
    bench.advertise(10, 3, &[(0, dead), (4, up(300))]);
    assert_eq!(bench.router.poll_timeout().0, at(200), "nobody goes by this relay");
    let mut bench = three_relays();
    bench.advertise(10, 1, &[(0, dead), (4, up(300))]);
    assert_eq!(bench.router.poll_timeout().0, at(10), "the next path");
    run_until(&mut bench, 10);
    assert_eq!(bench.router.alternate(peer(0), Metric::Latency), via(2));
    let mut bench = three_relays();
    bench.direct(10, 0, dead);
    run_until(&mut bench, 10);
    assert_eq!(bench.path(0), via(1));
    bench.advertise(20, 1, &[(0, dead), (4, up(300))]);
    assert_eq!(bench.router.poll_timeout().0, at(20), "the path in use");
    run_until(&mut bench, 20);
    assert_eq!(bench.path(0), via(2));
}

#[test]
fn what_makes_the_only_path_is_urgent() {
    let mut bench = Bench::new(2);
    bench.direct(0, 1, up(10));
    bench.advertise(0, 1, &[(0, report(20, 0.0, Liveness::Down))]);
    bench.recompute(0);
    assert_eq!(bench.path(0), None);
    bench.advertise(10, 1, &[(0, up(20))]);
    assert_eq!(bench.router.poll_timeout().0, at(10));
    run_until(&mut bench, 10);
    assert_eq!(bench.path(0), via(1));
}

#[test]
fn others_wait_while_an_outage_is_decided_on() {
    let mut bench = three_relays();
    bench.direct(1_000, 0, report(20, 0.0, Liveness::Down));
    run_until(&mut bench, 1_000);
    assert_eq!((bench.path(0), bench.path(4)), (via(1), DIRECT));
    // A far better way to peer 4, and at once the way to peer 0 fails.
    bench.advertise(1_010, 2, &[(0, up(60)), (4, up(5))]);
    bench.advertise(1_010, 1, &[(0, report(20, 0.0, Liveness::Down)), (4, up(300))]);
    run_until(&mut bench, 1_010);
    assert_eq!((bench.path(0), bench.path(4)), (via(2), DIRECT));
    run_until(&mut bench, 1_199);
    assert_eq!(bench.path(4), DIRECT);
    run_until(&mut bench, 1_200);
    assert_eq!(bench.path(4), via(2), "its turn, with all others'");
}

#[test]
fn in_large_overlays_what_is_not_urgent_waits_longer() {
    for (peers, pause) in [(2, 200), (50, 200), (99, 200), (100, 400), (150, 600), (400, 1_000)] {
        let mut bench = Bench::new(peers);
        bench.direct(0, 0, up(20));
        bench.direct(0, 1, up(10));
        bench.advertise(0, 1, &[(0, up(40))]);
        bench.recompute(0);
        bench.direct(50, 0, up(25));
        assert_eq!(bench.router.poll_timeout().0, at(pause), "{peers} peers: a step");
        bench.advertise(60, 1, &[(0, up(30))]);
        assert_eq!(bench.router.poll_timeout().0, at(pause), "{peers} peers: an advertised one");
        bench.advertise(70, 1, &[(0, report(30, 0.0, Liveness::Down))]);
        assert_eq!(bench.router.poll_timeout().0, at(70), "{peers} peers: the next path fails");
        run_until(&mut bench, 70);
        bench.direct(80, 0, report(25, 0.0, Liveness::Suspect));
        assert_eq!(bench.router.poll_timeout().0, at(80), "{peers} peers: the path in use");
    }
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
