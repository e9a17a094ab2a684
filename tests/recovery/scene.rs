//! Two sites with traffic, two relays, and what arrives.

use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::flow::{Class, Classes};
use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::time::Instant;

use crate::{ms, support};

/// Port of large packets.
const LARGE: u16 = 5001;
/// Between two packets of a direction: 200 a second.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);
/// The same while only the choice of paths matters, and the path in question carries nothing.
pub(crate) const SLOW: Duration = Duration::from_millis(50);
/// UDP payload of a small packet.
const SMALL: usize = 64;

/// Sites 0 and 1 with traffic both ways, sites 2 and 3 as relays, at delays drawn from the seed.
pub(crate) struct Scene {
    pub(crate) simulator: Simulator,
    pub(crate) rng: Rng,
    pub(crate) sent: [Vec<Instant>; 2],
    /// When each packet arrived first, by its number; for each direction.
    arrived: [Vec<Option<Instant>>; 2],
    pub(crate) duplicates: u64,
    pub(crate) direct: Duration,
    pub(crate) relayed: Duration,
    pub(crate) traffic: bool,
    /// Site 1 sends as well.
    pub(crate) answers: bool,
    /// Between two packets of a direction.
    pub(crate) pause: Duration,
    /// Large packets are sent from site 0, and when they arrived.
    pub(crate) bulk: bool,
    pub(crate) large: Vec<Instant>,
    /// A packet of each direction; only its number changes.
    packets: [Vec<u8>; 2],
    /// Switches that were printed.
    traced: Option<[u32; 2]>,
}

impl Scene {
    pub(crate) fn new(seed: u64, redundancy: u8) -> Self {
        let mut rng = Rng::new([seed as u8 ^ 0x5a; 32]);
        for _ in 0..seed >> 8 {
            rng.next_u64();
        }
        let mut configs = Mesh::default().configs();
        for config in &mut configs {
            config.classes = Classes::new(vec![Class { redundancy, ..Class::default() }]);
        }
        let direct = ms(5 + u64::from(rng.below(36)));
        let simulator = Simulator::new(configs, LinkModel::default(), seed);
        // Either relay is slower than the direct path.
        let hop = direct / 2 + ms(3 + u64::from(rng.below(6)));
        let mut scene = Self {
            simulator,
            rng,
            sent: [Vec::new(), Vec::new()],
            arrived: Default::default(),
            duplicates: 0,
            direct,
            relayed: hop * 2,
            traffic: true,
            answers: true,
            pause: PAUSE,
            bulk: false,
            large: Vec::new(),
            packets: [0, 1].map(small_packet),
            traced: std::env::var_os("RONGATE_TRACE").map(|_| [0; 2]),
        };
        scene.set_delay(0, 1, direct);
        scene.set_hops(hop);
        scene.set_delay(2, 3, ms(20));
        // Two thirds of it without traffic, which costs more than all else.
        scene.simulator.run_for(ms(10_000));
        let warm_up = ms(5_000 + u64::from(scene.rng.below(1_000)));
        scene.run(warm_up);
        scene
    }

    fn set_delay(&mut self, a: u8, b: u8, delay: Duration) {
        let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
        self.simulator.network.set_both(a, b, |link| {
            *link = LinkModel { delay, jitter: ms(1), ..LinkModel::default() };
        });
    }

    /// Each hop by the first relay takes so long, and 8 ms more by the other one.
    pub(crate) fn set_hops(&mut self, hop: Duration) {
        for (relay, extra) in [(2, ms(0)), (3, ms(8))] {
            self.set_delay(0, relay, hop + extra);
            self.set_delay(relay, 1, hop + extra);
        }
        self.relayed = hop * 2;
    }

    /// No link reorders what it carries.
    pub(crate) fn steady(&mut self) {
        for a in 0..4 {
            for b in 0..a {
                let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
                self.simulator.network.set_both(a, b, |link| link.jitter = Duration::ZERO);
            }
        }
    }

    pub(crate) fn link(&mut self, change: impl FnMut(&mut LinkModel)) {
        let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
        self.simulator.network.set_both(a, b, change);
    }

    pub(crate) fn one_way(&mut self, from: u8, change: impl FnMut(&mut LinkModel)) {
        let [a, b] = [from, 1 - from].map(|site| Mesh::underlay(site, 0));
        self.simulator.network.set(a, b, change);
    }

    /// Traffic each way.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.simulator.now() + span;
        while self.simulator.now() < end {
            if self.traffic {
                self.send(0);
                if self.answers {
                    self.send(1);
                }
            }
            if self.bulk {
                let (from, to) = (Mesh::host(0, 5), Mesh::host(1, 5));
                let mut packet = udp_of(1_352, LARGE, from, to);
                // It may be fragmented: no header checksum is verified on its way.
                packet[6] = 0;
                self.simulator.send(0, &packet);
            }
            self.simulator.run_for(self.pause);
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

    pub(crate) fn send(&mut self, from: usize) {
        let number = self.sent[from].len() as u64;
        self.sent[from].push(self.simulator.now());
        let payload = &mut self.packets[from][28..];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        payload[8..16].copy_from_slice(&(!number).to_be_bytes());
        self.simulator.send(from, &self.packets[from]);
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
            let number = u64::from_be_bytes(delivery.packet[28..36].try_into().unwrap()) as usize;
            let arrived = &mut self.arrived[1 - delivery.node];
            arrived.resize(arrived.len().max(number + 1), None);
            if arrived[number].is_some() {
                self.duplicates += 1;
            } else {
                arrived[number] = Some(delivery.at);
            }
        }
    }

    /// When packet `number` arrived.
    pub(crate) fn arrived(&self, direction: usize, number: usize) -> Option<Instant> {
        self.arrived[direction].get(number).copied().flatten()
    }

    /// The longest time without an arrival since `from`, of all directions with traffic.
    pub(crate) fn gap(&self, from: Instant) -> Duration {
        let gap = |arrived: &Vec<Option<Instant>>| {
            let mut times: Vec<_> = arrived.iter().flatten().copied().collect();
            // An outage that lasts is one, too.
            times.push(self.simulator.now());
            times.sort_unstable();
            let late = times.windows(2).filter(|pair| pair[1] >= from);
            late.map(|pair| pair[1] - pair[0]).max().unwrap()
        };
        let directions = if self.answers { 2 } else { 1 };
        self.arrived[..directions].iter().map(gap).max().unwrap()
    }

    pub(crate) fn lost(&self, direction: usize, from: Instant, to: Instant) -> usize {
        let sent = self.sent[direction].iter().enumerate();
        let lost = |(number, at): &(usize, &Instant)| {
            **at >= from && **at < to && self.arrived(direction, *number).is_none()
        };
        sent.filter(lost).count()
    }

    /// What a relay adds to the one-way delay.
    pub(crate) fn added(&self) -> Duration {
        self.relayed.saturating_sub(self.direct)
    }

    /// The path that site `from` uses to the other one goes through a relay.
    pub(crate) fn is_relayed(&self, from: usize) -> bool {
        let node = self.simulator.node(from).unwrap();
        // Peers are all other sites in order: the first one is site 0 or 1.
        let path = node.path(PeerIndex(0), Metric::Latency);
        path.is_some_and(|path| path.relay().is_some())
    }

    pub(crate) fn switches(&self, from: usize) -> u32 {
        let node = self.simulator.node(from).unwrap();
        let peer = PeerIndex(0);
        let metric = Metric::Latency;
        node.explain(self.simulator.now(), peer, metric).map_or(0, |why| why.switches)
    }

    /// Runs until both ends have been on the relay for two seconds without a break; how long it took
    /// to leave for it.
    pub(crate) fn time_to_leave(&mut self, limit: Duration) -> Duration {
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

/// A small packet from the host of site `from` to the one of the other. Its number is in it twice,
/// the second time as its complement, so that the checksum is the same for all.
fn small_packet(from: usize) -> Vec<u8> {
    let (source, destination) = (Mesh::host(from as u8, 5), Mesh::host(1 - from as u8, 5));
    let mut payload = [0; SMALL];
    payload[8..16].fill(0xff);
    support::udp((source, 4000), (destination, 4001), &payload)
}

fn udp_of(len: usize, port: u16, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    support::udp((from, 4000), (to, port), &vec![0; len])
}
