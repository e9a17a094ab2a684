//! How fast traffic leaves dead and bad paths: the rows of the recovery table in virtual time.
//!
//! `RONGATE_SEEDS=1000` runs each row with so many seeds instead of a few; `RONGATE_SAMPLES=FILE` keeps
//! every sample, and those that are there already are not taken again; `RONGATE_TRACE=1` tells of every
//! switch.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the table, for whoever asks for it")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::flow::{Class, Classes};
use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::time::Instant;

/// Port of large packets.
const LARGE: u16 = 5001;
const PACKET_PAUSE: Duration = Duration::from_millis(5);

fn seeds() -> u64 {
    std::env::var("RONGATE_SEEDS").map_or(20, |seeds| seeds.parse().unwrap())
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sites 0 and 1 with traffic both ways, sites 2 and 3 as relays, at delays drawn from the seed.
struct Scene {
    simulator: Simulator,
    rng: Rng,
    sent: [Vec<Instant>; 2],
    /// When each packet arrived first, by its number; for each direction.
    arrived: [BTreeMap<u64, Instant>; 2],
    duplicates: u64,
    direct: Duration,
    relayed: Duration,
    traffic: bool,
    /// Large packets are sent from site 0, and when they arrived.
    bulk: bool,
    large: Vec<Instant>,
    /// Switches that were printed.
    traced: Option<[u32; 2]>,
}

impl Scene {
    fn new(seed: u64, redundancy: u8) -> Self {
        let mut rng = Rng::new([seed as u8 ^ 0x5a; 32]);
        for _ in 0..seed >> 8 {
            rng.next_u64();
        }
        let mut configs = Mesh::default().configs();
        for config in &mut configs {
            config.classes = Classes::new(vec![Class { redundancy, ..Class::default() }]);
        }
        let direct = ms(5 + u64::from(rng.below(36)));
        let mut simulator = Simulator::new(configs, LinkModel::default(), seed);
        let mut delay = |a, b, delay: Duration| {
            let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
            simulator.network.set_both(a, b, |link| {
                *link = LinkModel { delay, jitter: ms(1), ..LinkModel::default() };
            });
        };
        delay(0, 1, direct);
        // Either relay is slower than the direct path.
        let hop = direct / 2 + ms(3 + u64::from(rng.below(6)));
        for (relay, extra) in [(2, ms(0)), (3, ms(8))] {
            delay(0, relay, hop + extra);
            delay(relay, 1, hop + extra);
        }
        delay(2, 3, ms(20));
        let mut scene = Self {
            simulator,
            rng,
            sent: [Vec::new(), Vec::new()],
            arrived: Default::default(),
            duplicates: 0,
            direct,
            relayed: hop * 2,
            traffic: true,
            bulk: false,
            large: Vec::new(),
            traced: std::env::var_os("RONGATE_TRACE").map(|_| [0; 2]),
        };
        // Two thirds of it without traffic, which costs more than all else.
        scene.simulator.run_for(ms(10_000));
        let warm_up = ms(5_000 + u64::from(scene.rng.below(1_000)));
        scene.run(warm_up);
        scene
    }

    fn link(&mut self, change: impl FnMut(&mut LinkModel)) {
        let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
        self.simulator.network.set_both(a, b, change);
    }

    fn one_way(&mut self, from: u8, change: impl FnMut(&mut LinkModel)) {
        let [a, b] = [from, 1 - from].map(|site| Mesh::underlay(site, 0));
        self.simulator.network.set(a, b, change);
    }

    /// 200 packets a second each way.
    fn run(&mut self, span: Duration) {
        let end = self.simulator.now() + span;
        while self.simulator.now() < end {
            if self.traffic {
                self.send(0);
                self.send(1);
            }
            if self.bulk {
                let (from, to) = (Mesh::host(0, 5), Mesh::host(1, 5));
                let mut packet = udp_of(1_352, LARGE, from, to, 0);
                // It may be fragmented: no header checksum is verified on its way.
                packet[6] = 0;
                self.simulator.send(0, &packet);
            }
            self.simulator.run_for(PACKET_PAUSE);
            self.collect();
            if self.traced.is_some() {
                self.trace();
            }
        }
    }

    /// Prints every switch with what led to it.
    fn trace(&mut self) {
        let Some(traced) = &mut self.traced else { return };
        for (site, seen) in traced.iter_mut().enumerate() {
            let node = self.simulator.node(site).unwrap();
            let why = node.explain(self.simulator.now(), PeerIndex(0), Metric::Latency).unwrap();
            if std::mem::replace(seen, why.switches) != why.switches {
                println!("{} site {site}: {:?} {:?}", self.simulator.now(), why.cause, why.chosen);
                for candidate in &why.candidates {
                    println!("    {candidate:?}");
                }
            }
        }
    }

    fn send(&mut self, from: usize) {
        let now = self.simulator.now();
        let number = self.sent[from].len() as u64;
        self.sent[from].push(now);
        let (source, destination) = (Mesh::host(from as u8, 5), Mesh::host(1 - from as u8, 5));
        self.simulator.send(from, &udp(source, destination, number));
    }

    fn collect(&mut self) {
        for delivery in self.simulator.take_deliveries() {
            // Not what our own node answers before it knows a way, nor later fragments.
            if delivery.packet[9] != 17 || delivery.packet[7] != 0 {
                continue;
            }
            if delivery.packet[22..24] == LARGE.to_be_bytes() {
                self.large.push(delivery.at);
                continue;
            }
            let number = u64::from_be_bytes(delivery.packet[28..36].try_into().unwrap());
            let direction = 1 - delivery.node;
            if self.arrived[direction].insert(number, delivery.at).is_some() {
                self.duplicates += 1;
            }
        }
    }

    /// The longest time without an arrival since `from`, of both directions.
    fn gap(&self, from: Instant) -> Duration {
        let gap = |arrived: &BTreeMap<u64, Instant>| {
            let mut times: Vec<_> = arrived.values().copied().collect();
            // An outage that lasts is one, too.
            times.push(self.simulator.now());
            times.sort_unstable();
            let late = times.windows(2).filter(|pair| pair[1] >= from);
            late.map(|pair| pair[1] - pair[0]).max().unwrap()
        };
        self.arrived.iter().map(gap).max().unwrap()
    }

    fn lost(&self, direction: usize, from: Instant, to: Instant) -> usize {
        let sent = self.sent[direction].iter().enumerate();
        sent.filter(|(number, at)| {
            **at >= from && **at < to && !self.arrived[direction].contains_key(&(*number as u64))
        })
        .count()
    }

    /// What a relay adds to the one-way delay.
    fn added(&self) -> Duration {
        self.relayed.saturating_sub(self.direct)
    }
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, number: u64) -> Vec<u8> {
    udp_of(64, 4001, from, to, number)
}

fn udp_of(len: usize, port: u16, from: Ipv4Addr, to: Ipv4Addr, number: u64) -> Vec<u8> {
    let mut payload = vec![0; len];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    support::udp((from, 4000), (to, port), &payload)
}

/// The value that so many percent of the samples do not exceed.
fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent).div_ceil(100).clamp(1, samples.len()) - 1]
}

/// Runs a row for every seed, prints its distribution and returns the samples.
fn row(name: &str, one: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    row_of(name, 1, one)
}

/// The same for one seed of `every`.
fn row_of(name: &str, every: u64, mut one: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    let known = known_samples(name);
    let sample = |seed| match known.get(&seed) {
        Some(known) => *known,
        None => {
            let sample = one(seed);
            keep_sample(name, seed, sample);
            sample
        }
    };
    let mut samples: Vec<_> = (0..seeds().div_ceil(every)).map(sample).collect();
    let [p50, p90, p99, max] =
        [50, 90, 99, 100].map(|percent| percentile(&mut samples, percent).as_millis());
    println!("| {name} | {} | {p50} | {p90} | {p99} | {max} |", samples.len());
    samples
}

/// What an earlier run kept of a row, by seed.
fn known_samples(name: &str) -> BTreeMap<u64, Duration> {
    let file = std::env::var_os("RONGATE_SAMPLES");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let of_line = |line: &str| {
        let (row, rest) = line.split_once('\t')?;
        let (seed, us) = rest.split_once('\t')?;
        (row == name).then_some((seed.parse().ok()?, Duration::from_micros(us.parse().ok()?)))
    };
    text.lines().filter_map(of_line).collect()
}

fn keep_sample(name: &str, seed: u64, sample: Duration) {
    let Some(file) = std::env::var_os("RONGATE_SAMPLES") else { return };
    let mut line = String::new();
    writeln!(line, "{name}\t{seed}\t{}", sample.as_micros()).unwrap();
    let mut open = std::fs::File::options();
    let mut file = open.create(true).append(true).open(file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Beyond what the relay adds, half of the gaps are at most 100 ms and nearly all 200 ms.
fn bounded(mut gaps: Vec<Duration>) {
    assert!(percentile(&mut gaps, 50) <= ms(100), "{gaps:?}");
    assert!(percentile(&mut gaps, 99) <= ms(200), "{gaps:?}");
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
    row("first packet after an unseen failure: its delay", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.traffic = false;
        scene.run(ms(3_000));
        scene.link(|link| link.up = false);
        let pause = ms(u64::from(scene.rng.below(300)));
        scene.run(pause);
        scene.send(0);
        let number = scene.sent[0].len() as u64 - 1;
        let sent = scene.simulator.now();
        scene.run(ms(300));
        let at = scene.arrived[0].get(&number).copied();
        let took = at.unwrap_or_else(|| panic!("seed {seed}: lost")) - sent;
        assert!(took <= scene.relayed + ms(12), "seed {seed}: {took:?}");
        took
    });
}

impl Scene {
    /// The path that site `from` uses to the other one goes through a relay.
    fn is_relayed(&self, from: usize) -> bool {
        let node = self.simulator.node(from).unwrap();
        // Peers are all other sites in order: the first one is site 0 or 1.
        let path = node.path(PeerIndex(0), Metric::Latency);
        path.is_some_and(|path| path.relay().is_some())
    }

    fn switches(&self, from: usize) -> u32 {
        let node = self.simulator.node(from).unwrap();
        let peer = PeerIndex(0);
        let metric = Metric::Latency;
        node.explain(self.simulator.now(), peer, metric).map_or(0, |why| why.switches)
    }

    /// Runs until both ends have been on the relay for two seconds without a break; how long it took
    /// to leave for it.
    fn time_to_leave(&mut self, limit: Duration) -> Duration {
        let start = self.simulator.now();
        let mut since = None;
        while self.simulator.now() - start < limit {
            self.run(ms(20));
            if !(self.is_relayed(0) && self.is_relayed(1)) {
                since = None;
                continue;
            }
            let since = *since.get_or_insert_with(|| self.simulator.now());
            if self.simulator.now() - since >= ms(2_000) {
                return since - start;
            }
        }
        limit
    }
}

/// A lossy path is left within `limit` (90 %), and stays left while the loss lasts.
fn loss_is_left(percent: u32, limit: Duration) {
    let mut times = row(&format!("{percent} % loss"), |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.link(|link| link.loss = f64::from(percent) / 100.0);
        let time = scene.time_to_leave(ms(20_000));
        for _ in 0..600 {
            scene.run(ms(100));
            let away = scene.is_relayed(0) && scene.is_relayed(1);
            assert!(away || time == ms(20_000), "seed {seed}: returned");
        }
        time
    });
    assert!(percentile(&mut times, 90) <= limit, "{times:?}");
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

#[test]
fn a_path_that_becomes_long_is_left() {
    let times = row("100 ms more delay", |seed| {
        let mut scene = Scene::new(seed, 1);
        scene.link(|link| link.delay += ms(100));
        scene.time_to_leave(ms(20_000))
    });
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

#[test]
fn a_flapping_path_is_left_for_good() {
    row("1 s of every 10 s for 5 minutes: packets lost in 10,000", |seed| {
        let mut scene = Scene::new(seed, 1);
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
        let lost = scene.lost(0, start, end).max(scene.lost(1, start, end));
        assert!(lost <= 600, "seed {seed}: {lost} of 60000 lost");
        ms(lost as u64 / 6)
    });
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
#[test]
fn a_noisy_network_stays_calm() {
    row_of("1 % loss and 40 ms of jitter everywhere for 30 minutes: switches", 20, |seed| {
        let mut scene = Scene::new(seed, 1);
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
