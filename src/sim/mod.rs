//! Many nodes, one virtual clock, one seed.
//!
//! The nodes are the real ones; only time and the underlay are made up. Events are processed in the
//! order of their instants, those of one instant in the order in which they arose, so that a seed
//! gives the same run every time.
//!
//! - [`Simulator`] drives the nodes; [`Network`] carries their datagrams, over links that pairs
//!   share when an [`Underlay`] of autonomous systems is laid below it.
//! - [`Clock`] and [`Middlebox`] stand before a node: clocks that differ, NATs, firewalls.
//! - [`Audit`] watches every turn from outside: nothing leaks, nothing loops, the counters are true.
//! - [`TcpHosts`] speak TCP with each other, and tell how it went.
//! - [`scenario`] is a user's: what would an overlay have made of these outages?
//! - [`swarm`] draws whole worlds and their faults from a seed, and judges what the nodes make of
//!   them.

mod audit;
mod clock;
pub mod host;
mod middlebox;
mod network;
mod overlay;
mod places;
pub mod scenario;
pub mod swarm;
mod tcp;
mod turn;
mod under_way;
mod underlay;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use audit::{Audit, MARK};
pub use clock::Clock;
pub use middlebox::{BoxModel, Dependence, Middlebox};
pub use network::{Burst, Fate, LinkModel, Network, RelayFault, Rest, Side, Truth};
pub use overlay::Mesh;
use places::ByAddress;
pub use tcp::{Connection, Experience, TcpHosts, Way};
use under_way::GoingOn;
pub use underlay::{LinkKind, TransitStub, Underlay};

use crate::batch::{Output, RxBatch, Target};
use crate::id::UplinkIndex;
use crate::node::{Event, Node, NodeConfig};
use crate::packet::Vnet;
use crate::rng::Rng;
use crate::telemetry::Tally;
use crate::time::{Instant, WallClock};

/// Where the virtual calendar begins: 2001-10-21, the day SOSP '01 opened.
const WALL_START_NS: u64 = 1_003_622_400_000_000_000;
const TX_GROUPS: usize = 64;
/// Receive buffers of a turn.
const RX_SLOTS: usize = 8;
/// What a socket's receive buffer holds while nobody reads.
const BACKLOG_MAX: usize = 256;

/// A node's number in the simulation.
pub type NodeNumber = usize;

/// A packet that a node wrote to its TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// Where.
    pub node: NodeNumber,
    /// The IP packet; a super-packet is cut by then.
    pub packet: Vec<u8>,
}

/// What a host hands to its gateway: an IP packet or super-packet, with the offload header.
pub type Frame = (Vec<u8>, Vnet);

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

/// A datagram that reaches a node's uplink.
#[derive(Debug)]
struct Arriving {
    uplink: UplinkIndex,
    source: SocketAddr,
    /// When it was at the socket.
    at: Instant,
    /// The port of the middlebox that it comes to; zero without one.
    at_port: u16,
    bytes: Vec<u8>,
}

enum Happening {
    Datagram {
        node: NodeNumber,
        arriving: Arriving,
    },
    Timer {
        node: NodeNumber,
    },
    Thaw {
        node: NodeNumber,
    },
    /// A relay has kept a datagram for so long, and sends it now.
    Leaves {
        node: NodeNumber,
        target: Target,
        bytes: Vec<u8>,
    },
    /// A datagram comes before a link with a rate.
    GoesOn(Box<GoingOn>),
}

/// What is due when: an entry of the heap, which moves them around a lot.
#[derive(Clone, Copy)]
struct Scheduled {
    at: Instant,
    /// Order of arising.
    key: u64,
    /// Place in [`Simulator::happenings`].
    place: u32,
}

impl Ord for Scheduled {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.key).cmp(&(self.at, self.key))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Scheduled {}

struct SimNode {
    node: Option<Node>,
    config: NodeConfig,
    clock: Clock,
    /// What stands before each uplink.
    boxes: Vec<Option<Middlebox>>,
    /// The earliest timer that is scheduled.
    armed: Option<Instant>,
    /// It does nothing until then; what arrived meanwhile waits in the socket, at most
    /// [`BACKLOG_MAX`] datagrams.
    frozen_until: Instant,
    backlog: VecDeque<Arriving>,
    incarnation: u64,
    relay_fault: RelayFault,
    /// What the shell keeps across restarts.
    timestamp_floor: u64,
}

impl SimNode {
    fn wall(&self, now: Instant) -> WallClock {
        let true_wall = WALL_START_NS + self.clock.local(now).as_micros() * 1_000
            - self.clock.offset_us * 1_000;
        WallClock(true_wall.saturating_add_signed(self.clock.wall_ahead_ns))
    }
}

/// A running simulation.
pub struct Simulator {
    now: Instant,
    nodes: Vec<SimNode>,
    owners: ByAddress<SocketAddr, (NodeNumber, UplinkIndex)>,
    /// Outside addresses of middleboxes.
    outsides: ByAddress<IpAddr, (NodeNumber, UplinkIndex)>,
    /// The underlay; change it at will between steps.
    pub network: Network,
    queue: BinaryHeap<Scheduled>,
    happenings: Vec<Option<Happening>>,
    free_places: Vec<u32>,
    next: u64,
    deliveries: Vec<Delivery>,
    /// Packets beside the nodes that arrived.
    beside: Vec<(u64, Instant)>,
    tap: Option<Vec<Tapped>>,
    events: Option<Vec<(Instant, NodeNumber, Event)>>,
    audit: Option<Audit>,
    /// Which node's timer ran last, when, and how often in a row.
    turns: (NodeNumber, Instant, u32),
    most_turns: u32,
    /// Datagrams that reached a node.
    carried: u64,
    /// Turns of all nodes.
    turn_count: u64,
    rng: Rng,
    rx: RxBatch,
    out: Output,
    /// Datagrams that the turn sent, with those that left before its end.
    sent: Tally,
    /// Kept for their capacity.
    leaving: Vec<(Target, Vec<u8>)>,
    arrived: Vec<Arriving>,
    spare: Vec<Vec<u8>>,
}

impl Simulator {
    /// Nodes with the given configurations over a network whose pairs are all like `default`.
    pub fn new(configs: Vec<NodeConfig>, default: LinkModel, seed: u64) -> Self {
        let clocks = vec![Clock::default(); configs.len()];
        let mut simulator = Self::stopped(configs, &clocks, default, seed);
        for number in 0..simulator.nodes.len() {
            simulator.start(number);
        }
        simulator
    }

    /// The same with a clock for each node, and nobody started yet.
    pub fn stopped(
        configs: Vec<NodeConfig>,
        clocks: &[Clock],
        default: LinkModel,
        seed: u64,
    ) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let mut simulator = Self {
            now: Instant::from_micros(1_000_000),
            nodes: Vec::new(),
            owners: ByAddress::default(),
            outsides: ByAddress::default(),
            network: Network::new(default, rng.fork()),
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            free_places: Vec::new(),
            next: 0,
            deliveries: Vec::new(),
            beside: Vec::new(),
            tap: None,
            events: None,
            audit: None,
            turns: (0, Instant::ZERO, 0),
            most_turns: 0,
            carried: 0,
            turn_count: 0,
            rng,
            rx: RxBatch::new(RX_SLOTS),
            out: Output::new(TX_GROUPS),
            sent: Tally::default(),
            leaving: Vec::new(),
            arrived: Vec::new(),
            spare: Vec::new(),
        };
        for (number, config) in configs.into_iter().enumerate() {
            for (index, uplink) in config.uplinks.iter().enumerate() {
                simulator.owners.insert(uplink.listen, (number, UplinkIndex(index as u8)));
            }
            simulator.nodes.push(SimNode {
                node: None,
                boxes: vec![None; config.uplinks.len()],
                config,
                clock: clocks.get(number).copied().unwrap_or_default(),
                armed: None,
                frozen_until: Instant::ZERO,
                backlog: VecDeque::new(),
                incarnation: 0,
                relay_fault: RelayFault::default(),
                timestamp_floor: 0,
            });
        }
        simulator
    }

    /// The virtual time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// How many nodes there are, running or not.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True without nodes.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node, unless it is stopped.
    pub fn node(&self, number: NodeNumber) -> Option<&Node> {
        self.nodes[number].node.as_ref()
    }

    /// What the clock of a node shows.
    pub fn local(&self, number: NodeNumber) -> Instant {
        self.nodes[number].clock.local(self.now)
    }

    /// Stops a node without a word, as `kill -9` would.
    pub fn kill(&mut self, number: NodeNumber) {
        let slot = &mut self.nodes[number];
        let Some(node) = slot.node.take() else { return };
        slot.timestamp_floor = slot.timestamp_floor.max(node.last_handshake_timestamp());
        slot.armed = None;
        slot.backlog.clear();
    }

    /// Starts a stopped node: a new incarnation that knows nothing but its configuration, and the
    /// handshake timestamp that its predecessor left.
    pub fn start(&mut self, number: NodeNumber) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let slot = &mut self.nodes[number];
        let (now, wall) = (slot.clock.local(self.now), slot.wall(self.now));
        slot.incarnation += 1;
        let mut config = slot.config.clone();
        config.epoch = wall.0.max(config.epoch + slot.incarnation);
        config.last_handshake_timestamp = slot.timestamp_floor;
        slot.node = Some(Node::new(config, seed, now, wall));
        slot.armed = None;
        self.arm(number);
    }

    /// A node does nothing for `duration` from now on: its host is busy. What comes meanwhile waits.
    pub fn freeze(&mut self, number: NodeNumber, duration: Duration) {
        let until = self.now + duration;
        self.nodes[number].frozen_until = until;
        self.schedule(until, Happening::Thaw { node: number });
    }

    /// A node's calendar is set anew; its monotonic clock runs on.
    pub fn set_calendar(&mut self, number: NodeNumber, ahead_ns: i64) {
        self.nodes[number].clock.wall_ahead_ns = ahead_ns;
    }

    /// Puts a middlebox before an uplink; peers see its outside address.
    pub fn put_box(
        &mut self,
        number: NodeNumber,
        uplink: UplinkIndex,
        model: BoxModel,
        address: IpAddr,
    ) {
        let inside = self.nodes[number].config.uplinks[uplink.usize()].listen;
        let middlebox = Middlebox::new(model, inside, address);
        self.owners.remove(&inside);
        self.outsides.insert(address, (number, uplink));
        self.nodes[number].boxes[uplink.usize()] = Some(middlebox);
    }

    /// The middleboxes of a node forget everything.
    pub fn reset_boxes(&mut self, number: NodeNumber) {
        self.nodes[number].boxes.iter_mut().flatten().for_each(Middlebox::reset);
    }

    /// An operator tells a running node something.
    pub fn operate(&mut self, number: NodeNumber, act: impl FnOnce(&mut Node, Instant)) {
        let slot = &mut self.nodes[number];
        let now = slot.clock.local(self.now);
        if let Some(node) = &mut slot.node {
            act(node, now);
            self.arm(number);
        }
    }

    /// A host behind `number` sends an IP packet.
    pub fn send(&mut self, number: NodeNumber, packet: &[u8]) {
        self.send_frame(number, packet, Vnet::default());
    }

    /// Hands a datagram to a node as if it had come from `source`; for tests that play an attacker.
    pub fn inject(
        &mut self,
        number: NodeNumber,
        uplink: UplinkIndex,
        source: SocketAddr,
        bytes: &[u8],
    ) {
        if bytes.is_empty() {
            return;
        }
        let bytes = bytes.to_vec();
        let arriving = Arriving { uplink, source, at: self.now, at_port: 0, bytes };
        self.schedule(self.now, Happening::Datagram { node: number, arriving });
    }

    /// Runs for `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.queue.peek().is_some_and(|next| next.at <= end) {
            let Some(next) = self.queue.pop() else { break };
            self.now = self.now.max(next.at);
            if let Some(happening) = self.take(next.place) {
                self.carry_out(happening);
            }
        }
        self.now = self.now.max(end);
    }

    /// Runs until `end`, or until a node has delivered something, if that is earlier.
    pub fn run_to_delivery(&mut self, end: Instant) {
        while self.deliveries.is_empty() && self.queue.peek().is_some_and(|next| next.at <= end) {
            let Some(next) = self.queue.pop() else { break };
            self.now = self.now.max(next.at);
            if let Some(happening) = self.take(next.place) {
                self.carry_out(happening);
            }
        }
        if self.deliveries.is_empty() {
            self.now = self.now.max(end);
        }
    }

    fn take(&mut self, place: u32) -> Option<Happening> {
        self.free_places.push(place);
        self.happenings[place as usize].take()
    }

    /// The next event, if it is a datagram that comes to `number` at this very instant.
    fn next_with_it(&mut self, number: NodeNumber) -> Option<Arriving> {
        let next = self.queue.peek().filter(|next| next.at <= self.now)?;
        let place = next.place;
        match &self.happenings[place as usize] {
            Some(Happening::Datagram { node, .. }) if *node == number => {}
            _ => return None,
        }
        self.queue.pop();
        match self.take(place) {
            Some(Happening::Datagram { arriving, .. }) => Some(arriving),
            _ => None,
        }
    }

    /// What the nodes delivered since the last call, in order.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Everything that was sent since the last call; the first call begins the recording.
    pub fn take_tapped(&mut self) -> Vec<Tapped> {
        self.tap.replace(Vec::new()).unwrap_or_default()
    }

    /// The events of the nodes since the last call; the first call begins the recording.
    pub fn take_events(&mut self) -> Vec<(Instant, NodeNumber, Event)> {
        self.events.replace(Vec::new()).unwrap_or_default()
    }

    /// From now on every turn is audited.
    pub fn watch(&mut self) {
        self.audit.get_or_insert_default();
    }

    /// What the audit found so far.
    pub const fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// How many datagrams reached a node.
    pub const fn carried(&self) -> u64 {
        self.carried
    }

    /// How many turns the nodes had.
    pub const fn turns(&self) -> u64 {
        self.turn_count
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

    fn schedule(&mut self, at: Instant, happening: Happening) {
        let key = self.next;
        self.next += 1;
        let place = match self.free_places.pop() {
            Some(place) => {
                self.happenings[place as usize] = Some(happening);
                place
            }
            None => {
                self.happenings.push(Some(happening));
                (self.happenings.len() - 1) as u32
            }
        };
        self.queue.push(Scheduled { at, key, place });
    }
}
