//! Many nodes lose their direct paths at once: what they send is spread over relays of different
//! capacity, and stays there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::sim::{LinkModel, Mesh, Simulator};

const SECOND: Duration = Duration::from_secs(1);
/// What sites 0, 1 and 2 relay, in bits per second; the fastest has least.
const RATES: [u64; 3] = [1_000_000, 2_000_000, 8_000_000];
/// All other sites but the last one send to that.
const SITES: u8 = 12;
/// Bytes of a packet; 50 a second are 430 kbit/s with all headers, 3.4 Mbit/s from all.
const LEN: usize = 1_000;

fn overlay(seed: u64) -> Simulator {
    let mut configs = Mesh { sites: SITES, ..Mesh::default() }.configs();
    for (site, config) in configs.iter_mut().enumerate() {
        config.relay.rate_bps = RATES.get(site).copied();
        for peer in &mut config.peers {
            peer.relay = ["site0", "site1", "site2"].contains(&peer.name.as_str());
        }
    }
    let link = LinkModel {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(1),
        ..LinkModel::default()
    };
    let mut simulator = Simulator::new(configs, link, seed);
    for site in 0..SITES {
        for relay in 0..3 {
            let delay = Duration::from_millis(12 + 3 * u64::from(relay));
            let [a, b] = [site, relay].map(|site| Mesh::underlay(site, 0));
            simulator.network.set_both(a, b, |link| link.delay = delay);
        }
    }
    simulator
}

/// Everybody sends for so long; how many packets of how many arrived.
fn send(simulator: &mut Simulator, span: Duration) -> (usize, usize) {
    let last = SITES - 1;
    let steps = span.as_millis() / 20;
    let mut sent = 0;
    simulator.take_deliveries();
    for _ in 0..steps {
        for site in 3..last {
            let (from, to) = (Mesh::host(site, 5), Mesh::host(last, 5));
            simulator.send(site.into(), &support::udp((from, 4_000), (to, 4_001), &[0; LEN]));
            sent += 1;
        }
        simulator.run_for(Duration::from_millis(20));
    }
    let arrived = simulator.take_deliveries();
    (arrived.iter().filter(|arrival| arrival.node == usize::from(last)).count(), sent)
}

fn switches(simulator: &Simulator) -> Vec<u32> {
    let to = PeerIndex(u16::from(SITES) - 2);
    let of = |site: u8| {
        let node = simulator.node(site.into()).unwrap();
        node.explain(simulator.now(), to, Metric::Latency).unwrap().switches
    };
    (3..SITES - 1).map(of).collect()
}

fn relayed(simulator: &Simulator) -> Vec<u64> {
    let of = |relay| simulator.node(relay).unwrap().counters().relayed.bytes;
    (0..3).map(of).collect()
}

#[test]
fn a_herd_spreads_over_relays_by_what_they_bear_and_settles() {
    let seeds = 1..11;
    let mut early_sum = 0.0;
    for seed in seeds.clone() {
        let mut simulator = overlay(seed);
        send(&mut simulator, SECOND * 15);
        let last = Mesh::underlay(SITES - 1, 0);
        for site in 3..SITES - 1 {
            let site = Mesh::underlay(site, 0);
            simulator.network.set_both(site, last, |link| link.up = false);
        }
        let (arrived, sent) = send(&mut simulator, SECOND * 10);
        let early = 1.0 - arrived as f64 / sent as f64;
        // Those that found a longer relay with room come back to a shorter one, one after the other.
        let (arrived, sent) = send(&mut simulator, SECOND * 90);
        let settling = 1.0 - arrived as f64 / sent as f64;
        let (switched, carried) = (switches(&simulator), relayed(&simulator));
        let (arrived, sent) = send(&mut simulator, SECOND * 60);
        let late = 1.0 - arrived as f64 / sent as f64;
        let more: Vec<u32> = switches(&simulator)
            .iter()
            .zip(&switched)
            .map(|(after, before)| after - before)
            .collect();
        let carried: Vec<f64> = relayed(&simulator)
            .iter()
            .zip(carried)
            .map(|(after, before)| (after - before) as f64 * 8.0 / 60.0)
            .collect();
        println!(
            "seed {seed}: lost {early:.3}, {settling:.4}, {late:.4}; switches {switched:?} and then \
             {more:?}; bits/s {carried:.0?}"
        );
        assert!(early < 0.3, "seed {seed}: {early} lost in the first ten seconds");
        early_sum += early;
        assert!(
            settling < 0.01 && late < 0.005,
            "seed {seed}: {settling} and {late} lost after that"
        );
        assert!(switched.iter().all(|count| *count <= 8), "seed {seed}: {switched:?} switches");
        assert!(
            more.iter().sum::<u32>() <= 12,
            "seed {seed}: {more:?} switches when all was settled"
        );
        let used = carried.iter().filter(|bits| **bits > 300_000.0).count();
        assert!(used >= 2, "seed {seed}: {carried:?}");
    }
    let mean = early_sum / seeds.count() as f64;
    assert!(mean < 0.2, "{mean} lost in the first ten seconds on average");
}

#[test]
fn who_sends_more_than_any_relay_has_left_is_relayed_all_the_same() {
    let mut simulator = overlay(1);
    let last = SITES - 1;
    let (from, to) = (Mesh::host(3, 5), Mesh::host(last, 5));
    let packet = support::udp((from, 4_000), (to, 4_001), &[0; LEN]);
    // 20 Mbit/s; the relay with most has 8.
    let send = |simulator: &mut Simulator| {
        simulator.take_deliveries();
        for _ in 0..2_500 {
            simulator.send(3, &packet);
            simulator.run_for(Duration::from_micros(400));
        }
        simulator.take_deliveries().iter().filter(|d| d.node == usize::from(last)).count()
    };
    simulator.run_for(SECOND * 10);
    // So long that no relay is measured any more.
    for _ in 0..40 {
        assert!(send(&mut simulator) > 2_400, "directly");
    }
    simulator
        .network
        .set_both(Mesh::underlay(3, 0), Mesh::underlay(last, 0), |link| link.up = false);
    send(&mut simulator);
    let arrived = send(&mut simulator);
    println!("{arrived} of 2500 arrived in the second second");
    assert!(arrived > 80, "{arrived} packets: what the smallest relay passes");
}
