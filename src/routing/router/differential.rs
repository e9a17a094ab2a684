//! Choosing only what something concerns, among those that can matter, comes to the same as choosing
//! everything among all.

use super::*;
use crate::id::UplinkIndex;
use crate::metric::{Liveness, Loss};
use crate::rng::Rng;

const PEERS: u16 = 12;
const ME: NodeId = NodeId(99);

const fn link(number: u8) -> LinkId {
    LinkId { local: UplinkIndex(number), remote: UplinkIndex(number) }
}

const fn id(index: u16) -> NodeId {
    NodeId(1000 - index as u32)
}

fn any_peer(rng: &mut Rng) -> PeerIndex {
    PeerIndex(rng.below(PEERS.into()) as u16)
}

fn report(rng: &mut Rng) -> LinkReport {
    let state = match rng.below(10) {
        0 => Liveness::Down,
        1 => Liveness::Suspect,
        _ => Liveness::Up,
    };
    let loss = [0.05, 0.015, 0.0, 0.0, 0.0, 0.0][rng.below(6) as usize];
    let latency_us = (1 + rng.below(12)) * 4_000;
    let jitter_us = rng.below(3) * 3_000;
    LinkReport { latency_us, jitter_us, loss: Loss::from_fraction(loss), state }
}

fn demands(rng: &mut Rng) -> Vec<DemandSpec> {
    let relays = Some(vec![PeerIndex(1), PeerIndex(3)]);
    let mut specs = vec![
        DemandSpec::plain(Metric::App),
        DemandSpec { multipath: true, ..DemandSpec::plain(Metric::Throughput) },
        DemandSpec { uplinks: 1, ..DemandSpec::plain(Metric::Latency) },
        DemandSpec { relays, ..DemandSpec::plain(Metric::Loss) },
    ];
    specs.truncate(rng.below(5) as usize);
    specs
}

fn advertise(router: &mut Router, now: Instant, seq: u32, rng: &mut Rng) {
    let origin = any_peer(rng);
    let spare_relay_kbit = [0, 500, 2000, 2000, 2000, u32::MAX][rng.below(6) as usize];
    let (part, parts, delta) = (0, 1, false);
    let part = Advertisement { epoch: 1, seq, part, parts, delta, spare_relay_kbit };
    let mut entry = |_| {
        let other = rng.below(u32::from(PEERS) + 1) as u16;
        (if other == PEERS { ME } else { id(other) }, report(rng))
    };
    let entries: Vec<_> = (0..8).map(&mut entry).collect();
    router.apply(now, origin, &part, entries);
}

/// Something happens.
fn act(router: &mut Router, now: Instant, seq: u32, rng: &mut Rng) {
    let peer = any_peer(rng);
    match rng.below(100) {
        0..=34 => {
            let link = link(u8::from(rng.chance(0.3)));
            router.update_direct(now, peer, link, Some(report(rng)));
        }
        35..=49 => {
            let via = PeerIndex((peer.0 + 1 + rng.below(u32::from(PEERS) - 1) as u16) % PEERS);
            let report = Some(report(rng)).filter(|_| rng.chance(0.7));
            router.update_relayed(now, peer, via, report);
        }
        50..=88 => advertise(router, now, seq, rng),
        89 => router.update_direct(now, peer, link(1), None),
        90..=92 => router.set_need(peer, rng.below(4) * 700),
        93..=95 => {
            let paths = [Path::Direct(link(0)), Path::Via(any_peer(rng))];
            let until = now + Duration::from_millis(rng.below(8_000).into());
            let value = Some((f64::from(rng.below(9)), until)).filter(|_| rng.chance(0.8));
            router.set_app_value(now, peer, paths[rng.below(2) as usize], value);
        }
        96 => router.set_may_relay(now, peer, rng.chance(0.7)),
        97 => drop(router.set_demands(now, &demands(rng), &[])),
        98 => {
            let mut config = router.config;
            config.hysteresis.hold_down = Duration::from_secs(rng.below(9).into());
            config.hysteresis.jitter = f64::from(rng.below(4)) / 2.0;
            config.hysteresis.throughput.relative = f64::from(rng.below(10)) / 10.0;
            config.cost.free_loss = f64::from(rng.below(3)) / 50.0;
            config.cost.loss_penalty = Duration::from_secs(rng.below(5).into());
            config.cost.least_loss = f64::from(rng.below(4)) / 100.0;
            router.set_config(now, config);
        }
        _ => {}
    }
}

/// All that a router tells of its choices.
fn choices(router: &Router) -> Vec<String> {
    let mut all = vec![format!("{:?}", router.poll_timeout())];
    for peer in (0..PEERS).map(PeerIndex) {
        all.push(format!("{peer:?} by {:?}", router.link_to(peer)));
        for demand in (0..router.demands.len() as u8).map(Demand) {
            let [path, alternate, suspected] = [Router::path, Router::alternate, Router::suspected]
                .map(|ask| ask(router, peer, demand));
            let last = router.last_resort(peer, demand).map(|last| last.0);
            let shares: Vec<_> = router.shares(peer, demand).iter().map(|s| s.path).collect();
            all.push(format!(
                "{peer:?} {demand:?}: {path:?} {alternate:?} {suspected:?} {last:?} {shares:?}"
            ));
        }
    }
    all
}

#[test]
fn to_choose_what_is_stale_is_to_choose_all() {
    for seed in 0..20 {
        let mut rng = Rng::new([seed; 32]);
        let peers = (0..PEERS).map(|index| PeerInfo { id: id(index), may_relay: true }).collect();
        let advertisement_expiry = Duration::from_secs(25);
        let config = RouterConfig { advertisement_expiry, ..RouterConfig::default() };
        let router = Router::new(config, ME, peers, 7);
        let mut routers = [router.clone(), router];
        routers[1].weighs_all = true;
        let mut now = Instant::from_micros(10_000_000);
        for seq in 1..600 {
            let pause = match rng.below(40) {
                0 => rng.below(40_000_000),
                1..=8 => rng.below(2_000_000),
                _ => rng.below(50_000),
            };
            let until = now + Duration::from_micros(pause.into());
            while let due = routers[0].poll_timeout().0
                && due <= until
            {
                now = now.max(due) + Duration::from_micros(1);
                routers[1].stale.mark_all(HOP | PATHS);
                routers.iter_mut().for_each(|router| router.recompute(now, &mut Vec::new()));
                let [some, all] = routers.each_ref().map(choices);
                assert_eq!(some, all, "seed {seed}, {now}");
            }
            now = now.max(until);
            let chance = rng.fork();
            routers.iter_mut().for_each(|router| act(router, now, seq, &mut chance.clone()));
        }
    }
}

#[test]
fn a_longer_path_without_jitter_is_seen_beside_shorter_ones_with_it() {
    let peers = (0..4).map(|index| PeerInfo { id: id(index), may_relay: true }).collect();
    let mut router = Router::new(RouterConfig::default(), ME, peers, 7);
    let measured = |ms: u32, jitter_ms: u32| LinkReport {
        latency_us: ms * 1_000,
        jitter_us: jitter_ms * 1_000,
        loss: Loss::NONE,
        state: Liveness::Up,
    };
    let (to, now) = (PeerIndex(0), Instant::from_micros(10_000_000));
    router.update_direct(now, to, link(0), Some(measured(100, 0)));
    router.recompute(now, &mut Vec::new());
    assert_eq!(router.path(to, Metric::Latency), Some(Path::Direct(link(0))));
    for (relay, first, jitter, second) in [(1, 20, 60, 30), (2, 20, 60, 31), (3, 40, 0, 30)] {
        let (epoch, seq, part, parts, delta) = (1, 1, 0, 1, false);
        let spare_relay_kbit = u32::MAX;
        let head = Advertisement { epoch, seq, part, parts, delta, spare_relay_kbit };
        router.update_direct(now, PeerIndex(relay), link(0), Some(measured(first, jitter)));
        router.apply(now, PeerIndex(relay), &head, [(id(0), measured(second, 0))]);
    }
    router.recompute(now + Duration::from_secs(2), &mut Vec::new());
    assert_eq!(router.path(to, Metric::Latency), Some(Path::Via(PeerIndex(3))));
}
