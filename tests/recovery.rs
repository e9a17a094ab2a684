//! How fast traffic leaves dead and bad paths: the rows of the recovery table in virtual time.
//!
//! `RONGATE_SEEDS=1000` runs each row with so many seeds instead of a few.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the table, for whoever asks for it")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::flow::{Class, Classes};
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::time::Instant;

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
        };
        let warm_up = ms(15_000 + u64::from(scene.rng.below(1_000)));
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
            self.simulator.run_for(PACKET_PAUSE);
            self.collect();
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
            // Not what our own node answers before it knows a way.
            if delivery.packet[9] != 17 {
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
    let mut payload = [0; 64];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .udp(4000, 4001)
        .write(&mut packet, &payload)
        .unwrap();
    packet
}

/// The value that so many percent of the samples do not exceed.
fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent).div_ceil(100).clamp(1, samples.len()) - 1]
}

/// Runs a row for every seed, prints its distribution and returns the samples.
fn row(name: &str, mut one: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    let mut samples: Vec<_> = (0..seeds()).map(&mut one).collect();
    let [p50, p90, p99, max] =
        [50, 90, 99, 100].map(|percent| percentile(&mut samples, percent).as_millis());
    println!("| {name} | {} | {p50} | {p90} | {p99} | {max} |", samples.len());
    samples
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
    row("black hole, redundancy 2: packets lost, as ms", |seed| {
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
    row("first packet after silence and failure", |seed| {
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
