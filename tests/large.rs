//! Large overlays of real nodes in virtual time: is every pair that can be connected connected, and
//! what does it cost?
//!
//! `RONGATE_NODES=50 RONGATE_HOURS=24 cargo test --profile lab --test large -- --ignored --nocapture`

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the figures, for whoever asks for them")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::node::{NodeConfig, PeerConfig, UplinkConfig};
use rongate::path::Path;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::time::Instant;
use rongate::tunnel::Identity;

/// IPv4 and UDP headers of a datagram.
const HEADERS: u64 = 28;
const SECOND: Duration = Duration::from_secs(1);

fn underlay(site: usize) -> IpAddr {
    Ipv4Addr::new(198, 18, (site / 200) as u8, (site % 200) as u8 + 1).into()
}

fn host(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 100 + (site / 200) as u8, (site % 200) as u8, 9)
}

fn private_key(site: usize) -> [u8; 32] {
    let mut key = [0x55; 32];
    key[..8].copy_from_slice(&(site as u64 + 1).to_be_bytes());
    key
}

/// A full mesh of up to 400 sites.
fn configs(sites: usize) -> Vec<NodeConfig> {
    let template = Mesh { sites: 2, ..Mesh::default() }.configs().swap_remove(0);
    let network = |site| ipnet::IpNet::new(host(site).into(), 24).unwrap().trunc();
    let address = |site: usize| {
        IpAddr::from(Ipv4Addr::new(10, 77, (site / 200) as u8, (site % 200) as u8 + 1))
    };
    let listen = |site| SocketAddr::new(underlay(site), Mesh::PORT);
    let peers: Vec<_> = (0..sites)
        .map(|site| PeerConfig {
            name: format!("site{site}"),
            public_key: Identity::from_private(private_key(site)).public(),
            endpoints: vec![listen(site)],
            addresses: vec![address(site)],
            networks: vec![network(site)],
            relay: true,
            egress: false,
        })
        .collect();
    let config = |site: usize| NodeConfig {
        name: format!("site{site}"),
        private_key: zeroize::Zeroizing::new(private_key(site)),
        addresses: vec![address(site)],
        lan_networks: vec![network(site)],
        uplinks: vec![UplinkConfig { listen: listen(site), mtu: 1_500 }],
        peers: [&peers[..site], &peers[site + 1..]].concat(),
        ..template.clone()
    };
    (0..sites).map(config).collect()
}

/// The index that `site` has for `other`, and back.
const fn index(site: usize, other: usize) -> PeerIndex {
    PeerIndex(if other > site { other - 1 } else { other } as u16)
}

const fn site_of(site: usize, index: PeerIndex) -> usize {
    let other = index.0 as usize;
    if other >= site { other + 1 } else { other }
}

struct World {
    simulator: Simulator,
    sites: usize,
    rng: Rng,
    /// For each ordered pair: since when a path of at most one relay works, unchanged.
    usable_since: Vec<Option<Instant>>,
    /// Pairs whose direct path is down, and until when.
    outages: Vec<(usize, usize, Instant)>,
    /// Pairs whose direct path loses packets or takes a detour, and until when.
    spells: Vec<(usize, usize, Instant, LinkModel)>,
}

impl World {
    /// Sites in a plane, up to 60 ms apart and 5 ms from everything.
    fn new(sites: usize, seed: u64) -> Self {
        let mut rng = Rng::new([seed as u8; 32]);
        let mut simulator = Simulator::new(configs(sites), LinkModel::default(), seed);
        let places: Vec<_> = (0..sites).map(|_| [rng.unit(), rng.unit()]).collect();
        for a in 0..sites {
            for b in 0..a {
                let [dx, dy] = [0, 1].map(|axis| places[a][axis] - places[b][axis]);
                // Routing in the underlay makes some ways longer than they need be.
                let detour = if rng.chance(0.1) { 2.5 } else { 1.1 };
                let ms = 5.0 + 42.0 * dx.hypot(dy) * detour;
                simulator.network.set_both(underlay(a), underlay(b), |link| {
                    link.delay = Duration::from_micros((ms * 1e3) as u64);
                    link.jitter = Duration::from_millis(1);
                });
            }
        }
        let usable_since = vec![None; sites * sites];
        Self { simulator, sites, rng, usable_since, outages: Vec::new(), spells: Vec::new() }
    }

    /// Whoever has only links that lose packets is not promised to be connected at once.
    fn is_clean(&self, a: usize, b: usize) -> bool {
        let clean = |a, b| {
            let link = self.simulator.network.link(underlay(a), underlay(b));
            link.up && link.loss == 0.0
        };
        clean(a, b) && clean(b, a)
    }

    fn works(&self, a: usize, b: usize) -> bool {
        let up = |a, b| self.simulator.network.link(underlay(a), underlay(b)).up;
        up(a, b) && up(b, a)
    }

    fn usable(&self, a: usize, b: usize) -> bool {
        let by = |c| c != a && c != b && self.is_clean(a, c) && self.is_clean(c, b);
        self.is_clean(a, b) || (0..self.sites).any(by)
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let sites = self.sites;
        (0..sites).flat_map(move |a| (0..sites).filter(move |b| *b != a).map(move |b| (a, b)))
    }

    /// The path that is in use works in truth.
    fn connected(&self, a: usize, b: usize) -> bool {
        let node = self.simulator.node(a).unwrap();
        match node.path(index(a, b), Metric::Latency) {
            None => false,
            Some(Path::Direct(_)) => self.works(a, b),
            Some(Path::Via(relay)) => {
                let relay = site_of(a, relay);
                self.works(a, relay) && self.works(relay, b)
            }
        }
    }

    /// Pairs are counted as usable anew after each change that concerns them.
    fn changed(&mut self, a: usize, b: usize) {
        let now = self.simulator.now();
        for (x, y) in self.pairs() {
            if [x, y].iter().any(|site| *site == a || *site == b) {
                self.usable_since[x * self.sites + y] = self.usable(x, y).then_some(now);
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize, one_way: bool, span: Duration) {
        let [x, y] = [a, b].map(underlay);
        self.simulator.network.set(x, y, |link| link.up = false);
        if !one_way {
            self.simulator.network.set(y, x, |link| link.up = false);
        }
        self.outages.push((a, b, self.simulator.now() + span));
        self.changed(a, b);
    }

    /// For a while a direct path loses packets, or takes a detour, both ways.
    fn weaken(&mut self, a: usize, b: usize, span: Duration) {
        let [x, y] = [a, b].map(underlay);
        let same = |spell: &(usize, usize, Instant, LinkModel)| {
            (spell.0, spell.1) == (a, b) || (spell.0, spell.1) == (b, a)
        };
        if self.spells.iter().any(same) {
            return;
        }
        let before = self.simulator.network.link(x, y);
        self.spells.push((a, b, self.simulator.now() + span, before));
        let amount = self.rng.unit();
        if self.rng.chance(0.5) {
            self.simulator.network.set_both(x, y, |link| link.loss = 0.05 + 0.35 * amount);
        } else {
            let detour = Duration::from_secs_f64(0.02 + 0.13 * amount);
            self.simulator.network.set_both(x, y, |link| link.delay += detour);
        }
        // A round trip several times as long as before is an outage until the first answer comes.
        self.changed(a, b);
    }

    fn mend(&mut self) {
        let now = self.simulator.now();
        let (over, on): (Vec<_>, Vec<_>) = self.spells.iter().partition(|spell| spell.2 <= now);
        self.spells = on;
        for (a, b, _, before) in over {
            self.simulator.network.set_both(underlay(a), underlay(b), |link| {
                (link.loss, link.delay) = (before.loss, before.delay);
            });
            self.changed(a, b);
        }
        let (over, on): (Vec<_>, Vec<_>) = self.outages.iter().partition(|outage| outage.2 <= now);
        self.outages = on;
        for (a, b, _) in over {
            let still = |outage: &&(usize, usize, Instant)| {
                (outage.0, outage.1) == (a, b) || (outage.0, outage.1) == (b, a)
            };
            if self.outages.iter().any(|outage| still(&outage)) {
                continue;
            }
            self.simulator.network.set_both(underlay(a), underlay(b), |link| link.up = true);
            self.changed(a, b);
        }
    }

    /// Bits sent in all, headers counted.
    fn bits(&self) -> u64 {
        let of = |site| {
            let tally = self.simulator.node(site).unwrap().counters().underlay_tx;
            8 * (tally.bytes + HEADERS * tally.packets)
        };
        (0..self.sites).map(of).sum()
    }

    /// Until everybody reaches everybody; how long it took.
    fn settle(&mut self) -> Duration {
        let begun = self.simulator.now();
        while self.pairs().any(|(a, b)| !self.connected(a, b)) {
            self.simulator.run_for(SECOND);
            assert!(self.simulator.now() - begun < SECOND * 300, "not settled");
        }
        for (a, b) in self.pairs() {
            self.usable_since[a * self.sites + b] = Some(self.simulator.now());
        }
        self.simulator.now() - begun
    }
}

/// Processor seconds of this thread.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Resident memory in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}

fn variable(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// What became of the outages of direct paths.
#[derive(Debug, Default)]
struct Tally {
    outages: usize,
    /// Times in which a direct path lost packets or took longer.
    spells: usize,
    checks: u64,
    /// Checks in which a usable path was not used, by how long it had been usable.
    late: Vec<Duration>,
    unusable: u64,
}

/// Idle pairs whose way has been usable unchanged for so long are connected: a link that is probed
/// every 4 s (10 % jitter) is known to be dead after 5 s, and all others are told.
const BOUND: Duration = Duration::from_secs(6);

/// How many of the mishaps are loss or detours, not outages.
const WEAK: f64 = 0.4;

/// A pair's direct path fails or gets worse, or a site is cut off from half of all others.
fn mishap(world: &mut World, tally: &mut Tally) {
    let a = world.rng.below(world.sites as u32) as usize;
    let b = (a + 1 + world.rng.below(world.sites as u32 - 1) as usize) % world.sites;
    let one_way = world.rng.chance(0.25);
    // From some seconds to many minutes, the mean about a minute.
    let span = Duration::from_secs_f64(5.0 * (8.0_f64).powf(2.0 * world.rng.unit()));
    if world.rng.chance(0.02) {
        for c in (0..world.sites).filter(|c| *c != a) {
            if world.rng.chance(0.5) {
                world.cut(a, c, one_way, span);
            }
        }
    } else if world.rng.chance(WEAK) {
        world.weaken(a, b, span);
        tally.spells += 1;
        return;
    } else {
        world.cut(a, b, one_way, span);
    }
    tally.outages += 1;
}

/// Random outages, loss and detours without any traffic to show them.
fn storm(world: &mut World, span: Duration, outages_per_hour_and_pair: f64) -> Tally {
    let end = world.simulator.now() + span;
    let pairs = (world.sites * (world.sites - 1) / 2) as f64;
    let pause = 3_600.0 / (pairs * outages_per_hour_and_pair);
    let mut next = world.simulator.now();
    let mut tally = Tally::default();
    let mut step = 0_u32;
    while world.simulator.now() < end {
        while next <= world.simulator.now() {
            mishap(world, &mut tally);
            next += Duration::from_secs_f64(-pause * (1.0 - world.rng.unit()).ln());
        }
        world.mend();
        world.simulator.run_for(Duration::from_millis(500));
        step += 1;
        // Whoever has no outage near was looked at before.
        let near: Vec<_> = world.outages.iter().map(|(a, b, _)| (*a, *b)).collect();
        let everything = step.is_multiple_of(20);
        let looked_at: Vec<_> = if everything {
            world.pairs().collect()
        } else {
            near.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect()
        };
        for (a, b) in looked_at {
            let Some(since) = world.usable_since[a * world.sites + b] else {
                tally.unusable += 1;
                continue;
            };
            tally.checks += 1;
            if !world.connected(a, b) {
                let late = world.simulator.now() - since;
                tally.late.push(late);
                assert!(late < BOUND, "{}", story(world, a, b, late));
            }
        }
    }
    tally
}

fn story(world: &World, a: usize, b: usize, late: Duration) -> String {
    let node = world.simulator.node(a).unwrap();
    let why = node.explain(world.simulator.now(), index(a, b), Metric::Latency).unwrap();
    let mut text = format!("{a} to {b}: not connected, usable for {late:?}\n");
    text += &format!("in use {:?} since {:?}, {:?}\n", why.in_use, why.switched_at, why.cause);
    for candidate in &why.candidates {
        let real = candidate.path.relay().map_or_else(
            || world.works(a, b),
            |relay| {
                let relay = site_of(a, relay);
                world.works(a, relay) && world.works(relay, b)
            },
        );
        // Of many nodes only what explains the choice.
        if world.sites <= 20 || Some(candidate.path) == why.in_use || !real {
            text += &format!("    works {real}: {candidate:?}\n");
        }
    }
    text
}

fn run(sites: usize, hours: f64, rate: f64, seed: u64) {
    let before = resident();
    let mut world = World::new(sites, seed);
    world.simulator.watch();
    let settled = world.settle();
    // Past the rekeys that all have at once.
    let (cpu, bits) = (processor(), world.bits());
    let span = Duration::from_secs(if sites > 100 { 60 } else { 300 });
    world.simulator.run_for(span);
    let per_node = span.as_secs_f64() * sites as f64;
    let idle_cpu = (processor() - cpu) / per_node * 100.0;
    let idle_bits = (world.bits() - bits) as f64 / per_node;
    let (cpu, bits, begun) = (processor(), world.bits(), world.simulator.now());
    let mut tally = storm(&mut world, Duration::from_secs_f64(hours * 3_600.0), rate);
    let per_node = (world.simulator.now() - begun).as_secs_f64() * sites as f64;
    let storm_cpu = (processor() - cpu) / per_node * 100.0;
    let storm_bits = (world.bits() - bits) as f64 / per_node;
    tally.late.sort_unstable();
    let worst = tally.late.last().copied().unwrap_or_default();
    let memory = (resident() - before) / sites as f64 / 1e6;
    println!(
        "| {sites} | {:.0} | {idle_bits:.0} | {storm_bits:.0} | {idle_cpu:.2} | {storm_cpu:.2} | \
         {memory:.1} | {hours} | {} | {} | {} | {:.1} |",
        settled.as_secs_f64(),
        tally.outages,
        tally.spells,
        tally.checks,
        worst.as_secs_f64()
    );
    assert!(tally.unusable < tally.checks);
    let audit = world.simulator.audit().unwrap();
    assert!(audit.faults().is_empty(), "{:?}", audit.faults());
}

#[test]
fn twelve_nodes_recover_from_everything_that_can_be_recovered() {
    run(12, 1.0, 4.0, variable("RONGATE_SEED", 1.0) as u64);
}

/// Many links that come up at one moment cost more than their advertisements may for minutes. What
/// the nodes know of each other stays known all the same: there is a way round every outage.
#[test]
fn an_overlay_that_began_at_one_moment_gets_round_outages_minutes_later() {
    let mut world = World::new(36, 1);
    world.settle();
    world.simulator.run_for(SECOND * 285);
    let pairs = [(0, 1), (5, 30), (17, 18), (33, 9)];
    for (a, b) in pairs {
        world.cut(a, b, false, SECOND * 60);
    }
    world.simulator.run_for(SECOND * 20);
    for (a, b) in pairs {
        assert!(world.connected(a, b) && world.connected(b, a), "{a} and {b}");
    }
}

#[test]
#[ignore = "takes minutes, optimised"]
fn many_nodes_recover_from_everything_that_can_be_recovered() {
    let [nodes, hours] = [variable("RONGATE_NODES", 50.0), variable("RONGATE_HOURS", 6.0)];
    run(nodes as usize, hours, variable("RONGATE_RATE", 1.0), variable("RONGATE_SEED", 1.0) as u64);
}
