//! One participant of the overlay as a pure state machine.
//!
//! A packet's three ways in are three files: `from_tun` (a host sent it), `from_underlay` (a node
//! sent it) and `on_timeout` (nobody sent it; something is due). They compose the modules below:
//! `flow` knows whose traffic it is, `nat` how its address changes, `link` how a path fares,
//! `routing` which way is best, `tunnel` seals and opens.
//!
//! - `encapsulate`: a decided train becomes sealed datagrams; `bundle`: small packets share one.
//! - `deliver`: an opened packet is checked (cryptokey routing) and goes to the TUN, or out by our
//!   exit (`exit`).
//! - `exit64`: IPv6 hosts that reach IPv4 by that exit.
//! - `alias`: how the exit's outside addresses look to the kernel.
//! - `relay`: a datagram for another node is sent on from where it lies.
//! - `copies`: packets that go over two paths, and which of them came first.
//! - `reports`: what arrived on which path, told to its sender, and what silence means.
//! - `volleys`: what paths carry, by how far apart datagrams arrive that left back to back.
//! - `control`: probes, advertisements and challenges inside the tunnels.
//! - `account`: outages that were crossed, and what the direct path would have given.
//! - `policy`: what the classes of flows may use, and what relays refuse.
//! - `paths`: what is measured of the paths to the peers, and how it reaches the router.

mod account;
mod alias;
mod answer;
mod bucket;
mod bundle;
mod choose_exit;
mod config;
mod control;
mod copies;
mod deliver;
mod encapsulate;
mod event;
mod exit;
mod exit64;
mod exit_endpoints;
mod exit_fragments;
mod faults;
mod from_internet;
mod from_tun;
mod from_underlay;
mod last_resort;
mod load;
mod nat_view;
mod on_timeout;
mod paths;
mod pcp;
mod peer;
mod peers;
mod policy;
mod prefixes;
mod probing;
mod reassembly;
mod relay;
mod reports;
mod snapshot;
mod volleys;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::IpNet;

pub use account::{Availability, Regret, Spans};
pub use config::{
    EgressConfig, ExitVia, NodeConfig, NodePolicy, PeerConfig, RelayConfig, UplinkConfig,
};
pub use event::Event;
pub use faults::{Extent, FaultKind, LinkFault};
pub use from_tun::TunVerdict;
pub use snapshot::{AppValueError, LinkSnapshot, PathSnapshot, PeerSnapshot, TableSizes};

use crate::batch::{Output, RxBatch};
use crate::flow::{Classes, FlowTable};
use crate::id::{NodeId, PeerIndex, PublicKey};
use crate::metric::LinkReport;
use crate::packet::{Coalescer, Offload};
use crate::rng::Rng;
use crate::routing::{Advertiser, AdvertiserConfig, RouteEvent, Router};
use crate::telemetry::Counters;
use crate::time::{Instant, WallClock};
use crate::tunnel::{Identity, Tunnels};
use bucket::Bucket;
use bundle::Bundles;
use copies::CopyBudget;
use encapsulate::{Label, Route, Unsent};
use exit::Exit;
use exit_endpoints::{ExitEndpoints, HostEnd};
use exit_fragments::ExitFragments;
use exit64::Translation;
use peers::Peers;
use policy::Policy;
use prefixes::{Owner, PrefixTable};
use reassembly::Reassembly;

/// Events kept until the shell takes them; the oldest give way.
const EVENTS_MAX: usize = 256;

/// One participant of the overlay.
///
/// # The driving contract
///
/// The shell runs in turns. In one turn, with one reading of the clock as `now` (which never goes
/// back), it calls in this order, each as often as it has something:
///
/// 1. [`handle_datagrams`](Self::handle_datagrams) with what the sockets received,
/// 2. [`handle_tun_frame`](Self::handle_tun_frame) for each frame from the TUN; a
///    [`TunVerdict::WriteBack`] frame is written to the TUN at once, and with
///    [`TunVerdict::Flush`] the shell sends the send batch and calls
///    [`resume_tun_frame`](Self::resume_tun_frame) with the same frame,
/// 3. [`handle_timeout`](Self::handle_timeout) if the deadline of
///    [`poll_timeout`](Self::poll_timeout) has passed,
/// 4. [`end_turn`](Self::end_turn), once, with the same `RxBatch`.
///
/// Then it carries out the [`Output`]: sends the forwards and the send batch, writes the frames to
/// the TUN, and clears it. Until then the receive buffers must stay as they are, because the output
/// points into them. The shell flushes before a call when the send batch has no room for
/// [`TX_HEADROOM`](Self::TX_HEADROOM) groups. Events are polled at any time.
pub struct Node {
    name: String,
    id: NodeId,
    public_key: PublicKey,
    addresses: Vec<IpAddr>,
    mtu: usize,
    uplinks: Vec<UplinkConfig>,
    peers: Peers,
    /// Sorted by id.
    ids: Vec<(NodeId, PeerIndex)>,
    prefixes: PrefixTable,
    tunnels: Tunnels,
    router: Router,
    advertiser: Advertiser,
    classes: Classes,
    flows: FlowTable,
    exit: Option<Exit>,
    internet_via: Vec<ExitVia>,
    internet_via_ipv6: Vec<ExitVia>,
    translation: Translation,
    control_budget_bps: u64,
    relay_bucket: Bucket,
    relay_load: load::RelayLoad,
    volleys: volleys::Volleys,
    /// What may go where nothing is known to be usable.
    last_resort: Bucket,
    policy: Policy,
    copy_budget: CopyBudget,
    coalescer: Coalescer,
    exit_fragments: ExitFragments,
    exit_endpoints: ExitEndpoints,
    /// Endpoints of our hosts that anybody may reach through an exit.
    servers: Vec<HostEnd>,
    reassembly: Reassembly,
    counters: Counters,
    events: VecDeque<Event>,
    rng: Rng,
    started: Instant,
    wall_base: (Instant, WallClock),
    expiry_due: Instant,
    faults: faults::Look,
    deadline: Cell<Option<(Instant, &'static str)>>,
    packet_scratch: Vec<u8>,
    split_scratch: Vec<u8>,
    fragment_scratch: Vec<u8>,
    /// The server through which hosts ask our exit for mappings.
    pcp: Option<crate::nat::pcp::PcpServer>,
    train_scratch: Vec<u8>,
    /// What is left of a frame that found the send batch full.
    unsent: Option<Unsent>,
    bundles: Bundles,
    reply_scratch: Vec<u8>,
    relays_scratch: Vec<(PeerIndex, bool)>,
    /// Whom the last choice of paths concerned.
    care: probing::Care,
    ranks_scratch: Vec<(Option<Instant>, PeerIndex, usize)>,
    entries_scratch: Vec<(NodeId, LinkReport)>,
    route_events: Vec<RouteEvent>,
    /// A link's state changed since the router was told.
    router_stale: bool,
}

impl Node {
    /// Groups of the send batch that one call may begin.
    pub const TX_HEADROOM: usize = 8;

    /// A node that knows nothing yet but its configuration. `seed` must be secret and fresh in a
    /// gateway; in a simulation it makes runs repeatable.
    pub fn new(config: NodeConfig, seed: [u8; 32], now: Instant, wall: WallClock) -> Self {
        let mut rng = Rng::new(seed);
        let identity = Identity::from_private(*config.private_key);
        let public_key = identity.public();
        let id = public_key.node_id();
        let peers = paths::peers(&config, now, &mut rng);
        let ids = by_id(&peers);
        let tunnels = paths::tunnels(&config, identity, now, rng.fork());
        let pace = AdvertiserConfig::for_budget(config.control_budget_bps, peers.len());
        let router = paths::router(&config, id, &peers, &pace, rng.next_u64());
        let peer_ids: Vec<_> = peers.iter().map(|peer| peer.id).collect();
        let advertiser = Advertiser::new(now, pace, config.epoch, &peer_ids);
        let node_policy = config.policy();
        let uses_exits = config.peers.iter().any(|peer| peer.egress);
        let pcp = pcp_server(&config, now);
        let mut node = Self {
            exit: config.egress.as_ref().map(|egress| Exit::new(now, egress, rng.fork())),
            prefixes: prefix_table(&config),
            flows: FlowTable::new(now, config.flow_limits, &mut rng),
            relay_bucket: Bucket::new(now, config.relay.rate_bps),
            relay_load: Default::default(),
            last_resort: last_resort::bucket(now),
            volleys: Default::default(),
            policy: Policy::new(&mut rng),
            copy_budget: CopyBudget::new(now, config.copies_bps),
            name: config.name,
            id,
            public_key,
            addresses: config.addresses,
            mtu: usize::from(config.mtu),
            uplinks: config.uplinks,
            care: probing::Care::new(peers.len()),
            peers: Peers::new(peers),
            ids,
            tunnels,
            router,
            advertiser,
            classes: config.classes,
            internet_via: config.internet_via,
            internet_via_ipv6: config.internet_via_ipv6,
            translation: Translation::new(config.nat64),
            control_budget_bps: config.control_budget_bps,
            coalescer: Coalescer::new(Offload { tcp: true, udp: true }),
            exit_fragments: ExitFragments::new(),
            exit_endpoints: ExitEndpoints::new(&mut rng, uses_exits),
            servers: exit_endpoints::servers(&config.servers),
            reassembly: Reassembly::new(),
            counters: Counters::default(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            rng,
            started: now,
            wall_base: (now, wall),
            expiry_due: now,
            faults: faults::Look { due: now, heard_next: 0 },
            deadline: Cell::new(None),
            packet_scratch: Vec::with_capacity(crate::batch::BUFFER_LEN),
            split_scratch: Vec::with_capacity(crate::batch::BUFFER_LEN),
            fragment_scratch: Vec::new(),
            pcp,
            train_scratch: Vec::with_capacity(crate::batch::BUFFER_LEN),
            unsent: None,
            bundles: Bundles::new(),
            reply_scratch: Vec::with_capacity(256),
            relays_scratch: Vec::new(),
            ranks_scratch: Vec::new(),
            entries_scratch: Vec::new(),
            route_events: Vec::new(),
            router_stale: false,
        };
        node.set_policy(now, node_policy);
        node
    }

    /// Ends a turn: super-packets that were being put together are queued for the TUN.
    pub fn end_turn(&mut self, now: Instant, rx: &mut RxBatch, out: &mut Output) {
        self.coalescer.flush(rx, out);
        self.deliver_merged(now, rx, out);
        self.close_bundles(now, out);
    }

    /// The oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted. The shell adds what it alone knows: refused sends and writes.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Which super-packets the TUN takes; all kinds at first.
    pub fn set_offload(&mut self, offload: Offload) {
        self.coalescer.set_offload(offload);
    }

    /// The timestamp of the last initiation; the shell keeps it for the next incarnation.
    pub fn last_handshake_timestamp(&self) -> u64 {
        self.tunnels.last_timestamp()
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn wall(&self, now: Instant) -> WallClock {
        let (at, wall) = self.wall_base;
        WallClock(wall.0.saturating_add((now - at).as_nanos() as u64))
    }

    /// A deadline may have changed.
    fn touch(&mut self) {
        self.deadline.set(None);
    }
}

/// The numbers of the peers, in the order of their ids.
fn by_id(peers: &[peer::Peer]) -> Vec<(NodeId, PeerIndex)> {
    let mut ids: Vec<_> = (0..).map(PeerIndex).zip(peers).map(|(i, peer)| (peer.id, i)).collect();
    ids.sort_unstable();
    ids
}

fn pcp_server(config: &NodeConfig, now: Instant) -> Option<crate::nat::pcp::PcpServer> {
    let wanted = config.egress.as_ref().is_some_and(|egress| egress.pcp);
    wanted.then(|| crate::nat::pcp::PcpServer::new(now))
}

/// Everything that has an owner inside the overlay.
fn prefix_table(config: &NodeConfig) -> PrefixTable {
    let host = |address: &IpAddr| IpNet::from(*address);
    let own = config.addresses.iter().map(host).chain(config.lan_networks.iter().copied());
    let mut all: Vec<_> = own.map(|net| (net, Owner::Local)).collect();
    for (index, peer) in config.peers.iter().enumerate() {
        let owner = Owner::Peer(PeerIndex(index as u16));
        let nets = peer.addresses.iter().map(host).chain(peer.networks.iter().copied());
        all.extend(nets.map(|net| (net, owner)));
    }
    PrefixTable::new(all)
}

#[cfg(test)]
mod tests;
