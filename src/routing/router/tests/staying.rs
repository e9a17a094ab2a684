//! When a path is kept, and when it is left.

use super::*;

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

/// Two paths with jitter look better in turns.
#[test]
fn an_advantage_within_the_jitter_moves_nobody() {
    let jitter = |rtt, jitter: u32| LinkReport { jitter_us: jitter * 1_000, ..up(rtt) };
    let moves = |direct: LinkReport, relayed: LinkReport| {
        let mut bench = Bench::triangle(40, 30);
        assert_eq!(bench.path(0), DIRECT);
        bench.direct(6_000, 0, direct);
        bench.direct(6_000, 1, up(10));
        bench.router.update_relayed(at(6_000), peer(0), peer(1), Some(relayed));
        bench.recompute(6_000);
        bench.path(0) == via(1)
    };
    assert!(moves(up(50), up(40)));
    // All of the challenger's counts, and half of the other's; up to a millisecond of the difference
    // is our own order of relays.
    assert!(moves(up(50), jitter(40, 9)) && !moves(up(50), jitter(40, 11)));
    assert!(moves(jitter(50, 18), up(40)) && !moves(jitter(50, 22), up(40)));
    assert!(moves(jitter(50, 10), jitter(40, 4)) && !moves(jitter(50, 10), jitter(40, 6)));
    // Loss is no matter of jitter.
    let lossy = report(40, 0.03, Liveness::Up);
    assert!(moves(LinkReport { jitter_us: 20_000, ..lossy }, jitter(60, 20)));
}
