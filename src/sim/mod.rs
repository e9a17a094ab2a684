//! Many nodes, one virtual clock, one seed.
//!
//! The nodes are the real ones; only time and the underlay are made up. Events are processed in the
//! order of their instants, those of one instant in the order in which they arose, so that a seed
//! gives the same run every time.

mod network;
mod overlay;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use network::{LinkModel, Network};
pub use overlay::Mesh;

use crate::batch::{Output, RxBatch};
use crate::id::UplinkIndex;
use crate::node::{Node, NodeConfig, TunVerdict};
use crate::packet::Vnet;
use crate::rng::Rng;
use crate::time::{Instant, WallClock};

/// Where the virtual calendar begins: 2001-10-21, the day SOSP '01 opened.
const WALL_START_NS: u64 = 1_003_622_400_000_000_000;
const TX_GROUPS: usize = 64;

/// A node's number in the simulation.
pub type NodeNumber = usize;

/// What a node wrote to its TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// Where.
    pub node: NodeNumber,
    /// The IP packet (or super-packet).
    pub packet: Vec<u8>,
}

/// A datagram as it left a node, whether or not it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

enum Happening {
    Datagram { node: NodeNumber, uplink: UplinkIndex, source: SocketAddr, bytes: Vec<u8> },
    Timer { node: NodeNumber, version: u64 },
}

struct SimNode {
    node: Option<Node>,
    config: NodeConfig,
    timer_version: u64,
    incarnation: u64,
}

/// A running simulation.
pub struct Simulator {
    now: Instant,
    nodes: Vec<SimNode>,
    owners: BTreeMap<SocketAddr, (NodeNumber, UplinkIndex)>,
    /// The underlay; change it at will between steps.
    pub network: Network,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    deliveries: Vec<Delivery>,
    tap: Option<Vec<Tapped>>,
    /// Which node's timer ran last, when, and how often in a row.
    turns: (NodeNumber, Instant, u32),
    most_turns: u32,
    rng: Rng,
    rx: RxBatch,
    out: Output,
}

impl Simulator {
    /// Nodes with the given configurations over a network whose pairs are all like `default`.
    pub fn new(configs: Vec<NodeConfig>, default: LinkModel, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let mut simulator = Self {
            now: Instant::from_micros(1_000_000),
            nodes: Vec::new(),
            owners: BTreeMap::new(),
            network: Network::new(default, rng.fork()),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            deliveries: Vec::new(),
            tap: None,
            turns: (0, Instant::ZERO, 0),
            most_turns: 0,
            rng,
            rx: RxBatch::new(1),
            out: Output::new(TX_GROUPS),
        };
        for (number, config) in configs.into_iter().enumerate() {
            for (index, uplink) in config.uplinks.iter().enumerate() {
                simulator.owners.insert(uplink.listen, (number, UplinkIndex(index as u8)));
            }
            simulator.nodes.push(SimNode { node: None, config, timer_version: 0, incarnation: 0 });
            simulator.start(number);
        }
        simulator
    }

    /// The virtual time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// A node, unless it is stopped.
    pub fn node(&self, number: NodeNumber) -> Option<&Node> {
        self.nodes[number].node.as_ref()
    }

    /// Stops a node without a word, as `kill -9` would.
    pub fn kill(&mut self, number: NodeNumber) {
        self.nodes[number].node = None;
    }

    /// Starts a stopped node: a new incarnation that knows nothing but its configuration.
    pub fn start(&mut self, number: NodeNumber) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let wall = self.wall();
        let slot = &mut self.nodes[number];
        slot.incarnation += 1;
        let mut config = slot.config.clone();
        config.epoch = wall.0.max(config.epoch + slot.incarnation);
        slot.node = Some(Node::new(config, seed, self.now, wall));
        self.arm(number);
    }

    /// A host behind `number` sends an IP packet.
    pub fn send(&mut self, number: NodeNumber, packet: &[u8]) {
        self.send_frame(number, packet, Vnet::default());
    }

    /// The same with an offload header.
    pub fn send_frame(&mut self, number: NodeNumber, packet: &[u8], vnet: Vnet) {
        let mut frame = packet.to_vec();
        let Some(node) = self.nodes[number].node.as_mut() else { return };
        let verdict = node.handle_tun_frame(self.now, &mut frame, vnet, &mut self.out);
        if let TunVerdict::WriteBack(_) = verdict {
            self.deliveries.push(Delivery { at: self.now, node: number, packet: frame });
        }
        self.end_turn(number);
    }

    /// Hands a datagram to a node as if it had come from `source`; for tests that play an attacker.
    pub fn inject(
        &mut self,
        number: NodeNumber,
        uplink: UplinkIndex,
        source: SocketAddr,
        bytes: &[u8],
    ) {
        let happening = Happening::Datagram { node: number, uplink, source, bytes: bytes.to_vec() };
        self.schedule(self.now, happening);
    }

    /// Runs for `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(&Reverse((at, key))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(happening) = self.happenings.remove(&key) {
                self.carry_out(happening);
            }
        }
        self.now = self.now.max(end);
    }

    /// What the nodes delivered since the last call, in order.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Everything that was sent since the last call; the first call begins the recording.
    pub fn take_tapped(&mut self) -> Vec<Tapped> {
        self.tap.replace(Vec::new()).unwrap_or_default()
    }

    /// How often at most a node's timer ran at one instant: a deadline that stays in the past would
    /// keep a real gateway busy.
    pub const fn most_turns_at_once(&self) -> u32 {
        self.most_turns
    }

    /// Moves an uplink of a node to another address, as a NAT on the way or a new lease does.
    pub fn readdress(&mut self, number: NodeNumber, uplink: UplinkIndex, address: SocketAddr) {
        let listen = &mut self.nodes[number].config.uplinks[uplink.usize()].listen;
        self.owners.remove(&std::mem::replace(listen, address));
        self.owners.insert(address, (number, uplink));
    }

    /// The calendar.
    pub fn wall(&self) -> WallClock {
        WallClock(WALL_START_NS + self.now.as_micros() * 1_000)
    }

    fn carry_out(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { node: number, uplink, source, bytes } => {
                let Some(node) = self.nodes[number].node.as_mut() else { return };
                let slot = &mut self.rx.slots[0];
                slot.buffer[..bytes.len()].copy_from_slice(&bytes);
                slot.len = bytes.len();
                slot.stride = bytes.len();
                slot.uplink = uplink;
                slot.source = source;
                slot.tos = 0;
                slot.received_at = Some(self.now);
                self.rx.filled = 1;
                node.handle_datagrams(self.now, &mut self.rx, &mut self.out);
                self.end_turn(number);
            }
            Happening::Timer { node: number, version } => {
                if self.nodes[number].timer_version != version {
                    return;
                }
                self.count_turn(number);
                let wall = self.wall();
                let Some(node) = self.nodes[number].node.as_mut() else { return };
                node.handle_timeout(self.now, wall, &mut self.out);
                self.end_turn(number);
            }
        }
    }

    fn end_turn(&mut self, number: NodeNumber) {
        if let Some(node) = self.nodes[number].node.as_mut() {
            node.end_turn(self.now, &mut self.rx, &mut self.out);
            while node.poll_event().is_some() {}
        }
        self.rx.filled = 0;
        self.collect(number);
        self.out.clear();
        self.arm(number);
    }

    /// Carries out what a node's turn brought forth.
    fn collect(&mut self, number: NodeNumber) {
        let mut datagrams = Vec::new();
        for transmit in self.out.tx.transmits() {
            for bytes in transmit.bytes().chunks(transmit.stride) {
                datagrams.push((transmit.target, bytes.to_vec()));
            }
        }
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let buffer = &self.rx.slots[forward.slot as usize].buffer[range];
            for bytes in buffer.chunks(forward.stride as usize) {
                datagrams.push((forward.target, bytes.to_vec()));
            }
        }
        for write in &self.out.tun_writes {
            let mut packet = Vec::new();
            for part in &self.out.parts[write.parts.clone()] {
                packet.extend_from_slice(self.out.part(&self.rx, *part));
            }
            self.deliveries.push(Delivery { at: self.now, node: number, packet });
        }
        for (target, bytes) in datagrams {
            let source = self.nodes[number].config.uplinks[target.uplink.usize()].listen;
            if let Some(tap) = &mut self.tap {
                let (destination, bytes) = (target.destination, bytes.clone());
                tap.push(Tapped { source, destination, bytes });
            }
            let Some(&(node, uplink)) = self.owners.get(&target.destination) else { continue };
            let (from, to): (IpAddr, IpAddr) = (source.ip(), target.destination.ip());
            if let Some(delay) = self.network.transit(from, to, bytes.len()) {
                let happening = Happening::Datagram { node, uplink, source, bytes };
                self.schedule(self.now + delay, happening);
            }
        }
    }

    fn count_turn(&mut self, number: NodeNumber) {
        let (last, at, count) = self.turns;
        let count = if (last, at) == (number, self.now) { count + 1 } else { 1 };
        self.turns = (number, self.now, count);
        self.most_turns = self.most_turns.max(count);
        assert!(count < 10_000, "node {number} stands still at {}", self.now);
    }

    fn arm(&mut self, number: NodeNumber) {
        let slot = &mut self.nodes[number];
        slot.timer_version += 1;
        let version = slot.timer_version;
        let Some((deadline, _why)) = slot.node.as_ref().and_then(Node::poll_timeout) else {
            return;
        };
        self.schedule(deadline.max(self.now), Happening::Timer { node: number, version });
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        let key = self.next;
        self.next += 1;
        self.queue.push(Reverse((at, key)));
        self.happenings.insert(key, happening);
    }
}
