//! What counts of what is measured and what is advertised.

use super::*;

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

/// The first round trip on a path may be any.
#[test]
fn a_relay_that_is_only_just_measured_is_no_better_than_its_links() {
    let mut bench = Bench::triangle(40, 50);
    for (ms, first) in [(100, 20), (400, 10), (700, 30)] {
        bench.router.update_relayed(at(ms), peer(0), peer(1), Some(up(first)));
        bench.recompute(ms);
        assert_eq!(bench.path(0), DIRECT, "{first}");
    }
    // Its links became better, and so did it.
    bench.advertise(1_000, 1, &[(0, up(20))]);
    bench.recompute(1_000);
    assert_eq!(bench.path(0), via(1));
    // Once it is in use, it is known better than by its links.
    bench.advertise(7_000, 1, &[(0, up(90))]);
    bench.router.update_relayed(at(7_000), peer(0), peer(1), Some(up(30)));
    bench.recompute(7_000);
    assert_eq!(bench.path(0), via(1));
}

#[test]
fn a_measurement_is_needed_while_it_alone_keeps_from_moving() {
    let jitter = LinkReport { jitter_us: 60_000, ..up(20) };
    for measured in [up(50), jitter, report(20, 0.3, Liveness::Up)] {
        let mut bench = Bench::triangle(50, 40);
        bench.router.update_relayed(at(100), peer(0), peer(1), Some(measured));
        let asked = |bench: &mut Bench, ms, said| {
            bench.advertise(ms, 1, &[(0, up(said))]);
            bench.recompute(ms);
            assert_eq!(bench.path(0), DIRECT, "{measured:?}");
            bench
                .router
                .is_belied(at(ms), peer(0), peer(1), |demand| demand == Metric::Latency.into())
        };
        assert!(asked(&mut bench, 100, 10), "{measured:?}");
        assert!(!asked(&mut bench, 200, 40), "its links are no better");
        assert!(asked(&mut bench, 300, 10), "{measured:?}");
        bench.router.set_may_relay(at(300), peer(1), false);
        assert!(!asked(&mut bench, 400, 10), "it is never taken");
    }
    let mut bench = Bench::triangle(50, 40);
    bench.router.update_relayed(at(100), peer(0), peer(1), Some(up(50)));
    let (part, parts, delta) = (0, 1, false);
    for (seq, spare_relay_kbit) in [(1, u32::MAX), (2, 0)] {
        let part = Advertisement { epoch: 2, seq, part, parts, delta, spare_relay_kbit };
        bench.router.apply(at(100), peer(1), &part, [(id(0), up(10))]);
        bench.recompute(100);
        let belied = bench.router.is_belied(at(100), peer(0), peer(1), |_| true);
        assert_eq!(belied, spare_relay_kbit > 0, "one that is full is not taken either");
    }
}

#[test]
fn a_little_less_jitter_is_no_news() {
    let mut bench = Bench::triangle(40, 50);
    let mut is_news = |jitter_us| {
        bench.router.stale.take(peer(0), u8::MAX);
        bench.router.update_direct(
            at(500),
            peer(0),
            LINK,
            Some(LinkReport { jitter_us, ..up(40) }),
        );
        bench.router.stale.take(peer(0), u8::MAX) != 0
    };
    let found = [0, 499, 500, 999, 700, 1_000, 480].map(&mut is_news);
    assert_eq!(found, [false, false, true, false, false, true, true]);
}
