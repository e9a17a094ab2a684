//! What is measured of the paths to the peers, and how it reaches the router and the other nodes.

use std::time::Duration;

use super::copies::CopyWindow;
use super::peer::{LINKS_MAX, PathState, Peer, base_datagram, max_datagram};
use super::probing::RELAYED_LINGER;
use super::{Event, Node, NodeConfig};
use crate::batch::Output;
use crate::id::{NodeId, PeerIndex, UplinkIndex};
use crate::link::{Arrivals, Endpoint, MtuSearch, Outstanding, Prober, ProberConfig};
use crate::metric::{LinkReport, Liveness, Loss, Metric};
use crate::path::{LinkId, Path, PathId};
use crate::rng::Rng;
use crate::routing::{Advertisement, AdvertiserConfig, PeerInfo, RouteEvent, Router, RouterConfig};
use crate::time::Instant;
use crate::tunnel::{Identity, TunnelConfig, Tunnels};
use crate::wire::{self, AdvertisementAck, AdvertisementEntry, Control, ControlWriter, Entries};

/// A path counts as used for this long after the last data on it.
const USED_LINGER: Duration = Duration::from_secs(60);
/// Before the first answer, probes of a new path come this often.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);

/// The peers with a link for every useful pair of uplinks: those of one address family.
pub(super) fn peers(config: &NodeConfig, now: Instant, rng: &mut Rng) -> Vec<Peer> {
    let allowed = |list: &Option<Vec<PeerIndex>>, index: usize| {
        list.as_ref().is_none_or(|list| list.contains(&PeerIndex(index as u16)))
    };
    let egress = config.egress.as_ref();
    let peer = |(index, peer): (usize, &super::PeerConfig)| {
        let mut paths = Vec::new();
        for (local, uplink) in config.uplinks.iter().enumerate().take(UplinkIndex::MAX_COUNT) {
            let remotes = peer.endpoints.iter().enumerate().take(UplinkIndex::MAX_COUNT);
            for (remote, endpoint) in remotes.filter(|(_, e)| same_family(e, &uplink.listen)) {
                let link =
                    LinkId { local: UplinkIndex(local as u8), remote: UplinkIndex(remote as u8) };
                let endpoint = Endpoint::new(Some(*endpoint));
                let path = Path::Direct(link);
                let smoothing = config.routing.smoothing;
                paths.push(path_state(now, path, endpoint, &config.uplinks, smoothing, rng));
            }
        }
        Peer {
            name: peer.name.clone(),
            public_key: peer.public_key,
            id: peer.public_key.node_id(),
            addresses: peer.addresses.clone(),
            relay: peer.relay,
            egress: peer.egress,
            may_exit: egress.is_some_and(|egress| allowed(&egress.allowed, index)),
            may_relay: allowed(&config.relay.allowed, index),
            paths,
            links_refused: false,
            attempts: 0,
            sealable: false,
            relays: 0,
            unmeasured: None,
            favoured: false,
            rx: Default::default(),
            tx: Default::default(),
            sending: Default::default(),
            next_split: 0,
            next_copy: rng.next_u64() as u32,
            copies: CopyWindow::new(),
            arrivals: Arrivals::default(),
            account: Default::default(),
        }
    };
    config.peers.iter().enumerate().map(peer).collect()
}

const fn same_family(a: &std::net::SocketAddr, b: &std::net::SocketAddr) -> bool {
    a.is_ipv6() == b.is_ipv6()
}

pub(super) fn path_state(
    now: Instant,
    path: Path,
    endpoint: Endpoint,
    uplinks: &[super::UplinkConfig],
    smoothing: Duration,
    rng: &mut Rng,
) -> PathState {
    let (ipv6, mtu) = match path {
        Path::Direct(link) => uplinks
            .get(link.local.usize())
            .map_or((true, 1_280), |uplink| (uplink.listen.is_ipv6(), uplink.mtu)),
        // Over whichever uplink the relay is reached; a probe that is too long for it is lost.
        Path::Via(_) => (false, uplinks.iter().map(|uplink| uplink.mtu).max().unwrap_or(1_280)),
    };
    let search = MtuSearch::new(now, base_datagram(path, ipv6), max_datagram(path, ipv6, mtu));
    let mut prober = Prober::new(now, &ProberConfig::STANDARD, FIRST_INTERVAL, rng.fork());
    prober.set_smoothing(smoothing);
    PathState {
        path,
        endpoint,
        prober,
        mtu: search,
        routable: false,
        wanted: false,
        wanted_until: now + RELAYED_LINGER,
        belied: false,
        // The first probe is due anyway.
        relay_works: true,
        received: Default::default(),
        reported: Default::default(),
        outstanding: Outstanding::new(),
        excused_until: None,
        contradicted: false,
        copy_credit: 0,
        packets: 0,
        used_at: None,
        told: Default::default(),
    }
}

pub(super) fn tunnels(config: &NodeConfig, identity: Identity, now: Instant, rng: Rng) -> Tunnels {
    let tunnel = TunnelConfig {
        identity,
        preshared_key: config.preshared_key.clone(),
        suites: config.suites,
        peers: config.peers.iter().map(|peer| peer.public_key).collect(),
        load_threshold: TunnelConfig::LOAD_THRESHOLD,
    };
    let mut tunnels = Tunnels::new(now, tunnel, rng);
    tunnels.set_stored_timestamp(config.last_handshake_timestamp);
    tunnels
}

pub(super) fn router(
    config: &NodeConfig,
    me: NodeId,
    peers: &[Peer],
    advertiser: &AdvertiserConfig,
    seed: u64,
) -> Router {
    let routing = RouterConfig { advertisement_expiry: advertiser.expiry(), ..config.routing };
    let infos = peers.iter().map(|peer| PeerInfo { id: peer.id, may_relay: peer.relay });
    Router::new(routing, me, infos.collect(), seed)
}

impl Node {
    /// True if the link is measured, now if not before. An authentic peer may have more uplinks
    /// than the configuration says, up to a limit.
    pub(super) fn ensure_link(&mut self, now: Instant, peer: PeerIndex, link: LinkId) -> bool {
        let entry = &mut self.peers[peer.usize()];
        let path = Path::Direct(link);
        if entry.state(path).is_some() {
            return true;
        }
        let links = entry.links().count();
        if links >= LINKS_MAX {
            if !std::mem::replace(&mut entry.links_refused, true) {
                let event = Event::LinksRefused { peer: entry.name.clone() };
                self.push_event(event);
            }
            return false;
        }
        let smoothing = self.router.config().smoothing;
        let endpoint = Endpoint::new(None);
        let state = path_state(now, path, endpoint, &self.uplinks, smoothing, &mut self.rng);
        entry.paths.reserve_exact(1);
        entry.paths.insert(links, state);
        true
    }

    /// Tells the router what may have changed, lets it choose, and measures what it wants measured.
    pub(super) fn update_routing(&mut self, now: Instant) {
        let mut next = 0;
        while let Some(peer) = self.peers.take_report(next) {
            let index = peer.usize();
            next = index + 1;
            let sealable = self.can_seal(now, peer).is_ok();
            for state in &self.peers[index].paths {
                let mut report = state.prober.report(now);
                if !sealable {
                    report.state = Liveness::Down;
                }
                match state.path {
                    Path::Direct(link) => self.router.update_direct(now, peer, link, Some(report)),
                    Path::Via(relay) => {
                        let report = Some(report).filter(|_| state.prober.is_judged());
                        self.router.update_relayed(now, peer, relay, report);
                    }
                }
            }
        }
        if self.router.poll_timeout().0 > now {
            return;
        }
        let mut events = std::mem::take(&mut self.route_events);
        self.router.recompute(now, &mut events);
        for event in events.drain(..) {
            self.report_route(event);
        }
        self.route_events = events;
        self.care.begin();
        for index in 0..self.peers.len() {
            let peer = PeerIndex(index as u16);
            self.advertiser.update(now, peer, self.router.direct_report(peer));
            let reachable = self.router.path(peer, Metric::Latency).is_some();
            self.advertiser.set_reachable(now, peer, reachable);
            if self.care.repeats(index) {
                // Loss of traffic fades, and the router forgets what is not repeated.
                self.peers.mark_report(peer);
            }
            let news = self.router.take_news(peer);
            if news {
                // Where its paths lead may have changed.
                self.peers.mark(peer);
            }
            let changed = self.peers.take_care(peer) || news;
            if self.care.wants(index, changed) {
                self.keep_account(now, peer);
                self.measure_relayed(now, peer);
                self.note_relays(now, peer);
            }
        }
        self.spend_budget(now);
    }

    /// A relay that newly has a link to a peer is a new way for a handshake that waits.
    fn note_relays(&mut self, now: Instant, peer: PeerIndex) {
        if self.peers[peer.usize()].sealable {
            self.peers.aside(peer.usize()).relays = 0;
            return;
        }
        let links = (0..).map(PeerIndex).zip(self.router.database().working_links(peer));
        let usable = links.filter(|(relay, link)| link.is_some() && self.relay_works(*relay, peer));
        let usable = usable.count();
        let before = std::mem::replace(&mut self.peers.aside(peer.usize()).relays, usable);
        if usable > before {
            self.tunnels.hasten(now, peer);
        }
    }

    /// Both links of a relayed path are said to work.
    pub(super) fn relay_works(&self, relay: PeerIndex, peer: PeerIndex) -> bool {
        let link = || self.router.database().link(relay, peer);
        self.peers[relay.usize()].relay
            && self.router.link_to(relay).is_some()
            && link().is_some_and(|link| link.state == Liveness::Up)
    }

    fn report_route(&mut self, event: RouteEvent) {
        let name = |node: &Self, peer: PeerIndex| node.peers[peer.usize()].name.clone();
        let event = match event {
            RouteEvent::Switched { peer, metric, to, cause, .. } => {
                let what = to.map_or_else(
                    || "lost: no usable path".to_owned(),
                    |to| format!("is {} ({})", self.describe(peer, to), cause.name()),
                );
                Event::PathChanged { peer: name(self, peer), metric, what }
            }
            RouteEvent::DetourBegun { peer, metric, around, over } => {
                let (around, over) = (self.describe(peer, around), self.describe(peer, over));
                let what = format!("{around} is suspect, meanwhile {over}");
                Event::Detour { peer: name(self, peer), metric, what }
            }
            RouteEvent::DetourEnded { peer, metric, back_on } => {
                let what = format!("is {} again", self.describe(peer, back_on));
                Event::Detour { peer: name(self, peer), metric, what }
            }
        };
        self.push_event(event);
    }

    /// A path in words.
    pub(super) fn describe(&self, peer: PeerIndex, path: Path) -> String {
        match path {
            Path::Via(relay) => format!("via {}", self.peers[relay.usize()].name),
            Path::Direct(link) => {
                let far = self.peers[peer.usize()].address(link);
                let to = far.map_or_else(String::new, |address| format!(" to {address}"));
                match self.uplinks.get(link.local.usize()) {
                    Some(uplink) if self.uplinks.len() > 1 => {
                        format!("direct from {}{to}", uplink.listen)
                    }
                    _ => format!("direct{to}"),
                }
            }
        }
    }

    /// Sends what peers lack of our advertisements.
    pub(super) fn advertise(&mut self, now: Instant, out: &mut Output) {
        let mut entries = std::mem::take(&mut self.entries_scratch);
        while let Some((peer, head)) = self.advertiser.poll(now, &mut entries) {
            let wire_entries: Vec<_> = entries.iter().map(Self::entry_of).collect();
            let head = wire::Advertisement {
                epoch: head.epoch,
                seq: head.seq,
                part: head.part,
                parts: head.parts,
                flags: if head.delta { wire::Advertisement::DELTA } else { 0 },
                spare_relay_kbit: head.spare_relay_kbit,
            };
            let mut body = [0; super::control::BODY_MAX];
            let mut writer = ControlWriter::new(&mut body);
            if writer.push_advertisement(&head, &wire_entries) {
                let len = writer.len();
                self.tunnels.expect_answer(now, peer);
                self.send_body(now, peer, &body[..len], out);
            }
        }
        self.entries_scratch = entries;
    }

    fn entry_of((node, report): &(NodeId, LinkReport)) -> AdvertisementEntry {
        let flags = match report.state {
            Liveness::Up => AdvertisementEntry::UP,
            Liveness::Suspect => AdvertisementEntry::UP | AdvertisementEntry::SUSPECT,
            Liveness::Down => 0,
        };
        let LinkReport { latency_us, loss, .. } = *report;
        AdvertisementEntry { node: *node, latency_us, loss: loss.0, flags }
    }

    /// Takes in what a peer advertises; the answer to it.
    pub(super) fn on_advertisement(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        head: &wire::Advertisement,
        entries: Entries<'_>,
    ) -> Control<'static> {
        let part = Advertisement {
            epoch: head.epoch,
            seq: head.seq,
            part: head.part,
            parts: head.parts,
            delta: head.flags & wire::Advertisement::DELTA != 0,
            spare_relay_kbit: head.spare_relay_kbit,
        };
        let applied = self.router.apply(now, peer, &part, entries.iter().map(report_of));
        let (epoch, seq) = applied.known;
        Control::AdvertisementAck(AdvertisementAck { epoch, seq, part: head.part })
    }

    pub(super) fn on_advertisement_ack(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        ack: AdvertisementAck,
    ) {
        self.advertiser.on_ack(now, peer, ack.epoch, ack.seq);
    }

    /// True while a path carries data now and then.
    pub(super) fn is_used(now: Instant, state: &PathState) -> bool {
        state.used_at.is_some_and(|at| now - at < USED_LINGER)
    }

    /// What was lost of the peer's datagrams on a path since this was last asked.
    pub(super) fn receive_loss(&mut self, peer: PeerIndex, wire_path: PathId, path: Path) -> Loss {
        let stats = self.tunnels.receive_stats(peer, wire_path);
        let Some(state) = self.peers[peer.usize()].state_mut(path) else { return Loss::NONE };
        let before = std::mem::replace(&mut state.received, stats);
        let expected = stats.expected.wrapping_sub(before.expected);
        let received = stats.received.wrapping_sub(before.received);
        if expected == 0 {
            return Loss::NONE;
        }
        Loss::from_fraction(1.0 - received as f64 / expected as f64)
    }
}

fn report_of(entry: AdvertisementEntry) -> (NodeId, LinkReport) {
    let state = if entry.flags & AdvertisementEntry::UP == 0 {
        Liveness::Down
    } else if entry.flags & AdvertisementEntry::SUSPECT != 0 {
        Liveness::Suspect
    } else {
        Liveness::Up
    };
    let report =
        LinkReport { latency_us: entry.latency_us, jitter_us: 0, loss: Loss(entry.loss), state };
    (entry.node, report)
}
