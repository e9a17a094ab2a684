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

mod agenda;
mod audit;
mod clock;
pub mod host;
mod middlebox;
mod network;
mod operate;
mod overlay;
mod places;
pub mod scenario;
pub mod swarm;
mod tcp;
mod turn;
mod under_way;
mod underlay;

use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use agenda::Scheduled;
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

    /// The calendar.
    pub fn wall(&self) -> WallClock {
        WallClock(WALL_START_NS + self.now.as_micros() * 1_000)
    }
}
