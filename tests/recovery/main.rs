//! How fast traffic leaves dead and bad paths: the rows of the recovery table in virtual time.
//!
//! `RONGATE_SEEDS=1000` runs each row with so many seeds instead of a few; `RONGATE_SAMPLES=FILE` keeps
//! every sample, and those that are there already are not taken again; `RONGATE_SEED=17` runs that one
//! only, and `RONGATE_TRACE=1` tells of every switch.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the table, for whoever asks for it")]

mod samples;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::sim::{Connection, Experience, Mesh, TcpHosts, Way};

use samples::{bounded, percentile, row, row_of};
use scene::{PAUSE, SLOW, Scene};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_black_hole_is_left() {
    bounded(row("black hole, both ways", |seed| {
        let mut scene = Scene::new(seed, 1);
        let start = scene.simulator.now();
        scene.link(|link| link.up = false);
        scene.run(ms(3_000));
        assert_eq!(scene.duplicates, 0);
        scene.gap(start).saturating_sub(scene.added())
    }));
}

#[test]
fn a_one_way_black_hole_is_left() {
    bounded(row("black hole, one way", |seed| {
        let mut scene = Scene::new(seed, 1);
        let start = scene.simulator.now();
        scene.one_way((seed % 2) as u8, |link| link.up = false);
        scene.run(ms(3_000));
        assert_eq!(scene.duplicates, 0);
        scene.gap(start).saturating_sub(scene.added())
    }));
}

#[test]
fn a_one_way_black_hole_is_left_by_a_transfer_without_answers() {
    bounded(row("black hole, one way, a transfer without answers", |seed| {
        let mut scene = Scene::new(seed, 1);
        (scene.answers, scene.bulk, scene.pause) = (false, true, ms(1));
        scene.run(ms(2_000 + seed % 50));
        let start = scene.simulator.now();
        scene.one_way(0, |link| link.up = false);
        scene.run(ms(3_000));
        scene.gap(start).saturating_sub(scene.added())
    }));
}

#[test]
fn a_redundant_class_loses_nothing() {
    row("black hole, `redundancy: 2`: packets lost", |seed| {
        let mut scene = Scene::new(seed, 2);
        let start = scene.simulator.now();
        scene.link(|link| link.up = false);
        scene.run(ms(5_000));
        let end = scene.simulator.now();
        scene.run(ms(500));
        let lost = scene.lost(0, start, end) + scene.lost(1, start, end);
        assert_eq!((lost, scene.duplicates), (0, 0), "seed {seed}");
        ms(lost as u64)
    });
}

#[test]
fn the_first_packet_after_an_unseen_failure_arrives() {
    let times = row("first packet after an unseen failure: later than one by the relay", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.traffic = false;
        scene.run(ms(3_000));
        scene.link(|link| link.up = false);
        let pause = ms(u64::from(scene.rng.below(300)));
        scene.run(pause);
        let sent = scene.simulator.now();
        let number = scene.sent[0].len();
        scene.send(0);
        scene.run(ms(300));
        let at = scene.arrived(0, number).unwrap_or_else(|| panic!("seed {seed}: lost"));
        // Either hop takes up to a millisecond more.
        (at - sent).saturating_sub(scene.relayed + ms(2))
    });
    assert!(times.iter().all(Duration::is_zero), "{times:?}");
}

/// How long it takes until a path that becomes lossy is left; it stays left while the loss lasts.
fn time_to_leave_loss(percent: u32, seed: u64) -> Duration {
    let mut scene = Scene::new(seed, 1);
    scene.link(|link| link.loss = f64::from(percent) / 100.0);
    let time = scene.time_to_leave(ms(20_000));
    assert!(time < ms(20_000), "seed {seed}: not left");
    let left = [scene.switches(0), scene.switches(1)];
    scene.pause = SLOW;
    scene.run(ms(60_000));
    assert_eq!([scene.switches(0), scene.switches(1)], left, "seed {seed}: returned");
    time
}

/// A lossy path is left within `limit` (90 %).
fn loss_is_left(percent: u32, limit: Duration) {
    let name = format!("{percent} % loss");
    let mut times = row(&name, |seed| time_to_leave_loss(percent, seed));
    assert!(percentile(&mut times, 90) <= limit, "{times:?}");
}

/// With these seeds the loss shows to one end alone, and so many probes in a row are lost that it
/// takes the path for dead for a moment.
#[test]
fn an_outage_that_one_end_sees_does_not_bring_the_other_back() {
    for seed in [492, 844] {
        time_to_leave_loss(10, seed);
    }
}

#[test]
fn heavy_loss_is_left() {
    loss_is_left(30, ms(600));
}

#[test]
fn medium_loss_is_left() {
    loss_is_left(10, ms(1_200));
}

#[test]
fn light_loss_is_left() {
    loss_is_left(3, ms(8_000));
}

fn time_to_leave_delay(seed: u64) -> Duration {
    let mut scene = Scene::new(seed, 1);
    scene.link(|link| link.delay += ms(100));
    scene.time_to_leave(ms(20_000))
}

/// With this seed a report ends the suspicion before three probes are out.
#[test]
fn a_path_that_becomes_long_is_left_in_time_when_suspicion_ends_early() {
    let time = time_to_leave_delay(834);
    assert!(time <= ms(750), "{time:?}");
}

#[test]
fn a_path_that_becomes_long_is_left() {
    let times = row("100 ms more delay", time_to_leave_delay);
    assert!(times.iter().all(|time| *time <= ms(1_000)), "{times:?}");
}

#[test]
fn a_path_that_heals_is_returned_to_without_loss() {
    let times = row("return to a path that healed", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.link(|link| link.up = false);
        scene.run(ms(10_000));
        assert!(scene.is_relayed(0) && scene.is_relayed(1), "seed {seed}");
        let start = scene.simulator.now();
        scene.link(|link| link.up = true);
        while (scene.is_relayed(0) || scene.is_relayed(1))
            && scene.simulator.now() - start < ms(60_000)
        {
            scene.run(ms(100));
        }
        let end = scene.simulator.now();
        scene.run(ms(2_000));
        let after = end + ms(1_500);
        let lost = scene.lost(0, start, after) + scene.lost(1, start, after);
        assert_eq!((lost, scene.duplicates), (0, 0), "seed {seed}");
        end - start
    });
    assert!(times.iter().all(|time| *time <= ms(30_000)), "{times:?}");
}

/// A second of every ten is an outage, for five minutes.
fn flapping_is_left(name: &str, few: u64, pause: Duration) {
    row_of(name, few, |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.pause = pause;
        let start = scene.simulator.now();
        let before = [scene.switches(0), scene.switches(1)];
        for _ in 0..30 {
            scene.link(|link| link.up = false);
            scene.run(ms(1_000));
            scene.link(|link| link.up = true);
            scene.run(ms(9_000));
        }
        let end = scene.simulator.now();
        scene.run(ms(1_000));
        for site in [0, 1] {
            let switches = scene.switches(site) - before[site];
            assert!(switches <= 4, "seed {seed}: {switches} switches");
            assert!(scene.is_relayed(site), "seed {seed}");
        }
        let sent = scene.sent[0].iter().filter(|at| **at >= start && **at < end).count();
        let lost = scene.lost(0, start, end).max(scene.lost(1, start, end));
        assert!(lost * 100 <= sent, "seed {seed}: {lost} of {sent} lost");
        ms((lost * 10_000 / sent) as u64)
    });
}

#[test]
fn a_flapping_path_is_left_for_good() {
    flapping_is_left("1 s of every 10 s for 5 minutes: packets lost in 10,000", 20, PAUSE);
}

/// With less traffic more seeds can be tried.
#[test]
fn a_flapping_path_with_little_traffic_is_left_for_good() {
    let name = "1 s of every 10 s for 5 minutes, 20 packets a second: lost in 10,000";
    flapping_is_left(name, 20, SLOW);
}

#[test]
fn a_relay_that_dies_is_left() {
    bounded(row("relay in use killed", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.link(|link| link.up = false);
        scene.run(ms(15_000));
        let start = scene.simulator.now();
        let node = scene.simulator.node(0).unwrap();
        let path = node.path(PeerIndex(0), Metric::Latency);
        // Site 0's peers are sites 1, 2 and 3.
        let relay = path.unwrap().relay().unwrap().usize() + 1;
        scene.simulator.kill(relay);
        scene.run(ms(3_000));
        scene.gap(start).saturating_sub(ms(16))
    }));
}

/// All links lose one of a hundred and jitter by 40 ms: nothing is gained by moving.
fn noise_moves_nobody(name: &str, few: u64, pause: Duration) {
    row_of(name, few, |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.pause = pause;
        for a in 0..4 {
            for b in 0..a {
                let [x, y] = [a, b].map(|site| Mesh::underlay(site, 0));
                scene.simulator.network.set_both(x, y, |link| {
                    (link.loss, link.jitter) = (0.01, ms(40));
                });
            }
        }
        let before = [scene.switches(0), scene.switches(1)];
        let start = scene.simulator.now();
        scene.run(ms(30 * 60_000));
        let sent = scene.sent[0].iter().filter(|at| **at >= start).count();
        let lost = scene.lost(0, start, start + ms(30 * 60_000 - 1_000));
        assert!(lost * 50 < sent, "seed {seed}: {lost} of {sent} lost");
        let switches = [0, 1].map(|site| scene.switches(site) - before[site]);
        assert!(switches.iter().all(|count| *count <= 2), "seed {seed}: {switches:?} switches");
        ms(switches.into_iter().max().unwrap().into())
    });
}

#[test]
fn a_noisy_network_stays_calm() {
    let name = "1 % loss and 40 ms of jitter everywhere for 30 minutes: switches";
    noise_moves_nobody(name, 1, PAUSE);
}

/// With less traffic more seeds can be tried.
#[test]
fn a_noisy_network_with_little_traffic_stays_calm() {
    let name = "1 % loss and 40 ms of jitter for 30 minutes, 20 packets a second: switches";
    noise_moves_nobody(name, 4, SLOW);
}

/// Packets above 1300 bytes vanish, alone or among small ones that pass.
#[test]
fn a_black_hole_for_large_packets_is_left() {
    let times = row("packets over 1300 bytes vanish", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.bulk = true;
        scene.traffic = seed % 2 == 0;
        scene.run(ms(5_000));
        let start = scene.simulator.now();
        scene.link(|link| link.max_payload = 1_300 - 28);
        scene.run(ms(10_000));
        scene.large.push(scene.simulator.now());
        let late = scene.large.windows(2).filter(|pair| pair[1] > start);
        late.map(|pair| pair[1] - pair[0]).max().unwrap()
    });
    assert!(times.iter().all(|time| *time <= ms(3_000)), "{times:?}");
}

/// A connection from site 0 to site 1 that writes all the time, as fast as a window of 64 KiB allows
/// on the longest path. Its packets stay in order on a link.
fn connection(scene: &mut Scene) -> TcpHosts {
    scene.steady();
    let ends = [0, 1].map(|site| (usize::from(site), (Mesh::host(site, 7).into(), 80)));
    let connection =
        Connection::new(scene.simulator.now(), ends[0], ends[1], Some(2_500_000), None);
    let mut hosts = TcpHosts::default();
    hosts.add(Way::Overlay, connection);
    hosts
}

/// What its user saw so far, after `span` more.
fn seen_after(scene: &mut Scene, hosts: &mut TcpHosts, span: Duration) -> Experience {
    let end = scene.simulator.now() + span;
    let (_, wrong) = hosts.run_until(&mut scene.simulator, end);
    assert!(wrong.is_empty(), "{wrong:?}");
    let (_, connection) = hosts.connections().next().unwrap();
    connection.finish(end)
}

/// A transfer is silent for a gap and a time-out of its sender at most: 200 ms each, beyond what the
/// relay adds and what the sender's timer allows for the round trip.
#[test]
fn a_transfer_survives_a_black_hole() {
    let times = row("TCP across a black hole: the longest silence", |seed| {
        let mut scene = Scene::new(seed, 1);
        let mut hosts = connection(&mut scene);
        let before = seen_after(&mut scene, &mut hosts, ms(3_000));
        scene.link(|link| link.up = false);
        let after = seen_after(&mut scene, &mut hosts, ms(10_000));
        assert!(after.bytes > before.bytes * 3, "seed {seed}: {before:?} {after:?}");
        after.longest.saturating_sub(scene.added())
    });
    assert!(times.iter().all(|time| *time <= ms(400)), "{times:?}");
}

/// What is sent after a switch overtakes what is under way. Without selective acknowledgements, so
/// that no sender of today is worse off.
#[test]
fn a_transfer_that_moves_to_a_shorter_path_runs_into_no_time_out() {
    let mut again = Vec::new();
    let timeouts = row("TCP moves to a path 60 ms shorter: time-outs", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.set_hops((scene.direct + ms(60)) / 2);
        scene.link(|link| link.up = false);
        scene.run(ms(8_000));
        assert!(scene.is_relayed(0) && scene.is_relayed(1), "seed {seed}");
        let mut hosts = connection(&mut scene);
        let before = seen_after(&mut scene, &mut hosts, ms(5_000));
        scene.link(|link| link.up = true);
        let mut steps = 0;
        while (scene.is_relayed(0) || scene.is_relayed(1)) && steps < 300 {
            seen_after(&mut scene, &mut hosts, ms(100));
            steps += 1;
        }
        assert!(steps < 300, "seed {seed}: not back");
        let after = seen_after(&mut scene, &mut hosts, ms(3_000));
        again.push((after.repeated - before.repeated, after.bytes - before.bytes));
        ms(after.timeouts - before.timeouts)
    });
    let [repeated, bytes] =
        [again.iter().map(|a| a.0).sum::<u64>(), again.iter().map(|a| a.1).sum()];
    println!("{repeated} segments sent again of {bytes} bytes");
    assert!(timeouts.iter().all(Duration::is_zero), "{timeouts:?}");
}
