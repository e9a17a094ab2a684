//! What control traffic costs: probes, reports, advertisements and rekeys, IP and UDP headers counted.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the table, for whoever asks for it")]

use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::node::FaultKind;
use rongate::path::Path;
use rongate::sim::{LinkModel, Mesh, RelayFault, Simulator};

/// IPv4 and UDP headers of a datagram.
const HEADERS: u64 = 28;
/// `probing.budget` of every node, in bits per second.
const BUDGET: f64 = 33_000.0;

fn mesh(sites: u8) -> Simulator {
    let link = LinkModel { delay: Duration::from_millis(20), ..LinkModel::default() };
    Simulator::new(Mesh { sites, ..Mesh::default() }.configs(), link, 1)
}

/// Bits that each node sent in a second, on average and at most.
fn cost(simulator: &mut Simulator, what: &str, span: Duration) -> (f64, f64) {
    let sent = |simulator: &Simulator| -> Vec<u64> {
        let of = |site| {
            let tally = simulator.node(site).unwrap().counters().underlay_tx;
            tally.bytes + HEADERS * tally.packets
        };
        (0..simulator.len()).map(of).collect()
    };
    let before = sent(simulator);
    simulator.run_for(span);
    let bits = |(after, before)| (after - before) as f64 * 8.0;
    let rates = sent(simulator).into_iter().zip(before).map(bits);
    let rates: Vec<_> = rates.map(|bits| bits / span.as_secs_f64()).collect();
    let average = rates.iter().sum::<f64>() / rates.len() as f64;
    let most = rates.iter().copied().fold(0.0, f64::max);
    println!("| {} nodes, {what} | {average:.0} | {most:.0} |", simulator.len());
    (average, most)
}

fn ping(from: u8, to: u8) -> Vec<u8> {
    let [from, to]: [Ipv4Addr; 2] = [from, to].map(|site| Mesh::host(site, 5));
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .udp(4000, 4001)
        .write(&mut packet, b"ping")
        .unwrap();
    packet
}

/// Every site sends one packet to four others, so that eight of its paths are in use.
fn use_eight_paths(simulator: &mut Simulator, sites: u8) {
    for site in 0..sites {
        for step in [1, 3, 7, 12] {
            simulator.send(site.into(), &ping(site, (site + step) % sites));
        }
        simulator.run_for(Duration::from_millis(50));
    }
    simulator.run_for(Duration::from_secs(10));
    assert_eq!(simulator.take_deliveries().len(), 4 * usize::from(sites));
}

fn all_reach_all(simulator: &Simulator) -> bool {
    let peers = || (0..simulator.len() as u16 - 1).map(PeerIndex);
    (0..simulator.len()).all(|site| {
        let node = simulator.node(site).unwrap();
        peers().all(|peer| node.path(peer, Metric::Latency).is_some())
    })
}

/// A fifth of what OSPF with BFD sends per neighbour at 100 ms.
#[test]
fn idle_nodes_send_little() {
    for (sites, limit) in [(4, 1_500.0), (12, 5_000.0)] {
        let mut simulator = mesh(sites);
        simulator.run_for(Duration::from_secs(60));
        let (average, _) = cost(&mut simulator, "idle", Duration::from_secs(130));
        assert!(average <= limit, "{sites} nodes: {average}");
        // A probe or an answer of 75 bytes for each link in 5 s, at least.
        assert!(average >= f64::from(sites - 1) * 75.0 * 8.0 / 5.0, "{sites} nodes: {average}");
        assert!(all_reach_all(&simulator));
    }
}

/// Most links pass nothing in one direction: who is heard in vain is told so, and both ends go on
/// seeking the link.
#[test]
fn many_deaf_links_stay_within_the_budget() {
    let link = LinkModel { delay: Duration::from_millis(20), ..LinkModel::default() };
    let configs = Mesh { sites: 6, uplinks: 3, ..Mesh::default() }.configs();
    let mut simulator = Simulator::new(configs, link, 1);
    simulator.run_for(Duration::from_secs(60));
    let (before, _) = cost(&mut simulator, "45 links each", Duration::from_secs(60));
    let pairs = (0..6).flat_map(|a| (0..a).map(move |b| (a, b)));
    for ((a, b), (up, down)) in pairs.flat_map(|pair| {
        let uplinks = (0..3).flat_map(|up| (0..3).map(move |down| (up, down)));
        uplinks.filter(|uplinks| *uplinks != (0, 0)).map(move |uplinks| (pair, uplinks))
    }) {
        let [a, b] = [(a, up), (b, down)].map(|(site, uplink)| Mesh::underlay(site, uplink));
        // In some the one end is deaf, in others the other.
        let (from, to) = if (up + down) % 2 == 0 { (a, b) } else { (b, a) };
        simulator.network.set(from, to, |link| link.up = false);
    }
    simulator.run_for(Duration::from_secs(30));
    let (deaf, most) = cost(&mut simulator, "40 of them deaf", Duration::from_secs(130));
    assert!(most <= BUDGET, "{before} {deaf} {most}");
    let faults = (0..6).flat_map(|site| simulator.node(site).unwrap().peers(simulator.now()));
    let faults: Vec<_> = faults.flat_map(|peer| peer.links).filter_map(|link| link.fault).collect();
    assert_eq!(faults.len(), 6 * 5 * 8);
    let known = faults.iter().filter(|fault| fault.kind != FaultKind::Both).count();
    assert_eq!(known, faults.len(), "each end knows the direction");
    assert!(all_reach_all(&simulator));
}

/// The shortest way to everybody leads through a relay that says so, and passes nothing on: it is
/// asked whether it does now, but no more often than when it did.
#[test]
fn a_relay_that_passes_nothing_costs_no_more_than_one_that_does() {
    const SITES: u8 = 10;
    const RELAY: u8 = SITES - 1;
    let mut simulator = mesh(SITES);
    for site in 0..RELAY {
        let [a, b] = [site, RELAY].map(|site| Mesh::underlay(site, 0));
        simulator.network.set_both(a, b, |link| link.delay = Duration::from_millis(1));
    }
    simulator.run_for(Duration::from_secs(60));
    let all_relayed = |simulator: &Simulator| {
        let node = simulator.node(0).unwrap();
        let others = (0..u16::from(RELAY) - 1).map(PeerIndex);
        let paths: Vec<_> = others.map(|peer| node.path(peer, Metric::Latency)).collect();
        paths.iter().all(|path| matches!(path, Some(Path::Via(_))))
    };
    assert!(all_relayed(&simulator));
    let (before, _) = cost(&mut simulator, "all through one", Duration::from_secs(130));
    let fault = RelayFault { loss: 1.0, ..RelayFault::default() };
    simulator.set_relay_fault(RELAY.into(), fault);
    simulator.run_for(Duration::from_secs(120));
    let (after, _) = cost(&mut simulator, "which passes nothing", Duration::from_secs(130));
    assert!(!all_relayed(&simulator) && all_reach_all(&simulator));
    assert!(after <= before * 1.25, "{before} {after}");
    // Once it does, it is found out without any packet that tries.
    simulator.set_relay_fault(RELAY.into(), RelayFault::default());
    simulator.run_for(Duration::from_secs(60));
    assert!(all_relayed(&simulator));
}

#[test]
#[ignore = "takes a minute, optimised"]
fn fifty_nodes_keep_to_the_budget() {
    let mut simulator = mesh(50);
    simulator.run_for(Duration::from_secs(150));
    // More than one rekey of every tunnel.
    let (average, most) = cost(&mut simulator, "idle", Duration::from_secs(260));
    assert!(average <= BUDGET / 2.0 && most <= BUDGET, "{average} {most}");
    use_eight_paths(&mut simulator, 50);
    let (average, most) =
        cost(&mut simulator, "eight paths in use by each", Duration::from_secs(130));
    assert!(average <= BUDGET && most <= BUDGET, "{average} {most}");
}
