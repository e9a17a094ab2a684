//! Real nodes over a made-up underlay, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::telemetry::DropReason;
use rongate::time::Instant;

/// A UDP packet from a host to a host; the payload is the time of sending.
fn udp(from: Ipv4Addr, to: Ipv4Addr, at: Instant) -> Vec<u8> {
    support::udp((from, 4000), (to, 4001), &at.as_micros().to_be_bytes())
}

/// When a packet made by [`udp`] was sent, and from where to where.
fn read(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr, Instant) {
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let at = u64::from_be_bytes(packet[28..36].try_into().unwrap());
    (address(12), address(16), Instant::from_micros(at))
}

struct Pairs {
    sites: u8,
    /// For each directed pair: since when there is a usable path without a change of the underlay.
    usable_since: Vec<Option<Instant>>,
}

impl Pairs {
    /// How long after a change a pair may take to be connected.
    const BOUND: Duration = Duration::from_secs(5);

    fn index(&self, a: u8, b: u8) -> usize {
        usize::from(a) * usize::from(self.sites) + usize::from(b)
    }

    /// A link counts when both directions work: a node learns of its links by answers.
    fn link_up(simulator: &Simulator, a: u8, b: u8) -> bool {
        let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
        simulator.network.link(a, b).up && simulator.network.link(b, a).up
    }

    fn usable(&self, simulator: &Simulator, a: u8, b: u8) -> bool {
        let up = |x, y| Self::link_up(simulator, x, y);
        up(a, b) || (0..self.sites).any(|c| c != a && c != b && up(a, c) && up(c, b))
    }

    fn note_change(&mut self, simulator: &Simulator) {
        for a in 0..self.sites {
            for b in (0..self.sites).filter(|&b| b != a) {
                let index = self.index(a, b);
                let usable = self.usable(simulator, a, b);
                self.usable_since[index] = usable.then(|| simulator.now());
            }
        }
    }
}

/// Two hours of random outages: a pair that has had a usable path (direct, or through one relay)
/// for five seconds is connected, always.
///
/// `RONGATE_SEEDS=100..120` runs other seeds than the usual one.
#[test]
fn every_pair_with_a_usable_path_is_connected_within_five_seconds() {
    let seeds = std::env::var("RONGATE_SEEDS").unwrap_or_else(|_| "7..8".to_owned());
    let (first, end) = seeds.split_once("..").expect("RONGATE_SEEDS is like 1..10");
    for seed in first.parse().unwrap()..end.parse().unwrap() {
        two_hours_of_outages(seed);
    }
}

fn two_hours_of_outages(seed: u64) {
    let mesh = Mesh::default();
    let link = LinkModel { delay: Duration::from_millis(20), ..LinkModel::default() };
    let mut simulator = Simulator::new(mesh.configs(), link, seed);
    let mut rng = Rng::new([seed as u8; 32]);
    let mut pairs = Pairs { sites: mesh.sites, usable_since: vec![Some(simulator.now()); 16] };
    let end = simulator.now() + Duration::from_secs(2 * 3600);
    let mut next_change = simulator.now() + Duration::from_secs(20);
    let (mut sent, mut due, mut delivered) = (0u64, 0u64, 0u64);
    let mut changes = 0;
    while simulator.now() < end {
        if simulator.now() >= next_change {
            change_something(&mut simulator, &mut rng, mesh.sites);
            changes += 1;
            pairs.note_change(&simulator);
            next_change =
                simulator.now() + Duration::from_millis(2_000 + u64::from(rng.below(28_000)));
        }
        let start = simulator.now();
        let before = drops(&simulator, mesh.sites);
        let mut expected = Vec::new();
        for a in 0..mesh.sites {
            for b in (0..mesh.sites).filter(|&b| b != a) {
                let since = pairs.usable_since[pairs.index(a, b)];
                let (from, to) = (Mesh::host(a, 5), Mesh::host(b, 5));
                simulator.send(usize::from(a), &udp(from, to, start));
                sent += 1;
                if since.is_some_and(|since| start - since >= Pairs::BOUND) {
                    expected.push((from, to));
                }
            }
        }
        simulator.run_for(Duration::from_millis(500));
        let arrived: Vec<_> = simulator.take_deliveries().iter().map(|d| read(&d.packet)).collect();
        delivered += arrived.len() as u64;
        // What was sent in this interval had half a second for at most 40 ms of way.
        if next_change > start + Duration::from_millis(500) {
            due += expected.len() as u64;
            for (from, to) in expected {
                assert!(
                    arrived.contains(&(from, to, start)),
                    "{from} -> {to} not connected at {start}, usable for 5 s; seed {seed}\n{}",
                    story(&simulator, mesh.sites, from, &before)
                );
            }
        }
    }
    assert!(changes > 300, "{changes}");
    assert!(due * 5 > sent * 2, "of {sent} packets only {due} were due");
    assert!(delivered >= due);
    for site in 0..usize::from(mesh.sites) {
        let node = simulator.node(site).unwrap();
        let sizes = node.table_sizes();
        assert!(sizes.flows <= 64 && sizes.paths <= 64 && sizes.events <= 256, "{sizes:?}");
    }
}

type Drops = Vec<Vec<(DropReason, u64)>>;

fn drops(simulator: &Simulator, sites: u8) -> Drops {
    let of = |site| simulator.node(site).unwrap().counters().drops().collect();
    (0..usize::from(sites)).map(of).collect()
}

/// What there is to know when a packet did not arrive.
fn story(simulator: &Simulator, sites: u8, from: Ipv4Addr, before: &Drops) -> String {
    let mut text = String::new();
    for (site, (now, before)) in drops(simulator, sites).iter().zip(before).enumerate() {
        for ((reason, count), (_, earlier)) in now.iter().zip(before) {
            if count > earlier {
                text += &format!("{site}: {} packets dropped: {reason}\n", count - earlier);
            }
        }
    }
    for a in 0..sites {
        for b in (0..sites).filter(|&b| b != a) {
            let [x, y] = [a, b].map(|site| Mesh::underlay(site, 0));
            if !simulator.network.link(x, y).up {
                text += &format!("underlay {a} -> {b} is down\n");
            }
        }
    }
    let origin = usize::from(from.octets()[1] - 1);
    let node = simulator.node(origin).unwrap();
    for peer in node.peers(simulator.now()) {
        text += &format!("{origin}: {} tunnel {:?}\n", peer.name, peer.tunnel.state);
        for link in &peer.links {
            text += &format!("    {:?} heard {:?}\n", link.report, link.last_heard);
        }
        let explanation = node.explain(simulator.now(), peer.index, Metric::Latency).unwrap();
        text += &format!("    in use {:?}\n", explanation.in_use);
        for candidate in &explanation.candidates {
            text += &format!("    {candidate:?}\n");
        }
    }
    text
}

fn change_something(simulator: &mut Simulator, rng: &mut Rng, sites: u8) {
    let a = rng.below(u32::from(sites)) as u8;
    let b = (a + 1 + rng.below(u32::from(sites) - 1) as u8) % sites;
    let [from, to] = [a, b].map(|site| Mesh::underlay(site, 0));
    let up = rng.chance(0.6);
    if rng.chance(0.25) {
        simulator.network.set(from, to, |link| link.up = up);
    } else {
        simulator.network.set_both(from, to, |link| link.up = up);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut simulator = Simulator::new(Mesh::default().configs(), LinkModel::default(), 42);
        let mut digest = Vec::new();
        for second in 0..20u8 {
            let (from, to) = (Mesh::host(0, second), Mesh::host(1, 1));
            let packet = udp(from, to, simulator.now());
            simulator.send(0, &packet);
            simulator.run_for(Duration::from_secs(1));
            digest.extend(simulator.take_deliveries());
        }
        digest
    };
    let first = run();
    assert!(first.len() >= 18, "{}", first.len());
    assert_eq!(first, run());
}

/// A host that sleeps hears nothing, and its clock runs on. What it knew of the paths to peers with
/// which nothing goes on is no worse than what it knew of the others.
#[test]
fn what_was_measured_before_the_host_slept_is_not_forgotten() {
    let mut configs = Mesh::default().configs();
    // So little that idle paths are probed more rarely than the host sleeps.
    configs.iter_mut().for_each(|config| config.control_budget_bps = 200);
    let mut simulator = Simulator::new(configs, LinkModel::default(), 5);
    let [far, us] = [1, 0].map(|site| Mesh::underlay(site, 0));
    simulator.network.set_both(far, us, |link| link.delay = Duration::from_millis(100));
    simulator.run_for(Duration::from_secs(60));
    for round in 0..6 {
        simulator.run_for(Duration::from_millis(30_900));
        let set = |simulator: &mut Simulator, up| {
            for site in 1..4 {
                let other = Mesh::underlay(site, 0);
                simulator.network.set_both(us, other, |link| link.up = up);
            }
        };
        let is_measured = |simulator: &Simulator| {
            let node = simulator.node(0).unwrap();
            let why = node.explain(simulator.now(), PeerIndex(0), Metric::Latency).unwrap();
            let used = why.candidates.iter().find(|c| Some(c.path) == why.chosen);
            used.is_some_and(|used| used.path.relay().is_some() && used.measured)
        };
        assert!(is_measured(&simulator), "{round}");
        set(&mut simulator, false);
        simulator.run_for(Duration::from_millis(150));
        simulator.freeze(0, Duration::from_secs(8));
        simulator.run_for(Duration::from_millis(7_999));
        set(&mut simulator, true);
        simulator.run_for(Duration::from_millis(10));
        assert!(is_measured(&simulator), "{round}");
    }
}
