//! Four nodes made of probers, advertisers and routers alone, on a network that fails at random:
//! whoever can be reached is reached soon after any change, and quiet networks stay quiet.
//!
//! ```text
//!      20 ms
//!   0 ------- 1     every pair has a link; the delays differ, and each direction can fail
//!   | \     / |     by itself
//!   |   \ /   |
//!   |   / \   |
//!   2 ------- 3
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rongate::id::{NodeId, PeerIndex, UplinkIndex};
use rongate::link::{Prober, ProberConfig};
use rongate::metric::{LinkReport, Metric};
use rongate::path::{LinkId, Path};
use rongate::rng::Rng;
use rongate::routing::{
    Advertisement, Advertiser, AdvertiserConfig, PeerInfo, RouteEvent, Router, RouterConfig,
};
use rongate::time::Instant;

const NODES: usize = 4;
const LINK: LinkId = LinkId { local: UplinkIndex(0), remote: UplinkIndex(0) };
const IN_USE: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
enum Message {
    Probe { seq: u32, sent: Instant },
    Reply { seq: u32, sent: Instant },
    Advertisement(Advertisement, Vec<(NodeId, LinkReport)>),
    Ack { epoch: u64, seq: u32 },
}

/// A message under way, and the relay that it takes.
#[derive(Clone, Debug)]
struct Parcel {
    from: usize,
    to: usize,
    relay: Option<usize>,
    message: Message,
}

/// Node numbers to peer indices and back: a node's peers are all others in order.
fn index(me: usize, node: usize) -> PeerIndex {
    PeerIndex(if node < me { node } else { node - 1 } as u16)
}

fn node(me: usize, peer: PeerIndex) -> usize {
    if peer.usize() < me { peer.usize() } else { peer.usize() + 1 }
}

fn id(node: usize) -> NodeId {
    NodeId(500 + node as u32)
}

struct Node {
    me: usize,
    router: Router,
    advertiser: Advertiser,
    direct: Vec<Prober>,
    relayed: BTreeMap<(usize, usize), Prober>,
    rng: Rng,
    events: Vec<RouteEvent>,
    switches: usize,
}

impl Node {
    fn new(now: Instant, me: usize, mut rng: Rng) -> Self {
        let others: Vec<_> = (0..NODES).filter(|other| *other != me).map(id).collect();
        let infos = others.iter().map(|id| PeerInfo { id: *id, may_relay: true }).collect();
        let prober = |_| Prober::new(now, &ProberConfig::STANDARD, IN_USE, rng.fork());
        let config = AdvertiserConfig::for_budget(33_000, others.len());
        Self {
            me,
            direct: others.iter().map(prober).collect(),
            router: Router::new(RouterConfig::default(), id(me), infos, 1),
            advertiser: Advertiser::new(now, config, 1, &others),
            relayed: BTreeMap::new(),
            rng,
            events: Vec::new(),
            switches: 0,
        }
    }

    fn send(&self, to: usize, relay: Option<usize>, message: Message) -> Parcel {
        Parcel { from: self.me, to, relay, message }
    }

    fn prober(&mut self, other: usize, relay: Option<usize>) -> Option<&mut Prober> {
        match relay {
            Some(relay) => self.relayed.get_mut(&(other, relay)),
            None => self.direct.get_mut(index(self.me, other).usize()),
        }
    }

    fn receive(&mut self, now: Instant, parcel: Parcel, out: &mut Vec<Parcel>) {
        let Parcel { from, relay, .. } = parcel;
        match parcel.message {
            Message::Probe { seq, sent } => {
                out.push(self.send(from, relay, Message::Reply { seq, sent }));
            }
            Message::Reply { seq, sent } => {
                if let Some(prober) = self.prober(from, relay) {
                    prober.on_reply(now, seq, sent, Duration::ZERO);
                }
                self.report(now, from, relay);
            }
            Message::Advertisement(part, entries) => {
                let applied = self.router.apply(now, index(self.me, from), &part, entries);
                let (epoch, seq) = applied.known;
                out.push(self.send(from, relay, Message::Ack { epoch, seq }));
            }
            Message::Ack { epoch, seq } => {
                self.advertiser.on_ack(now, index(self.me, from), epoch, seq);
            }
        }
    }

    fn report(&mut self, now: Instant, to: usize, relay: Option<usize>) {
        let Some(prober) = self.prober(to, relay) else { return };
        let (judged, report) = (prober.is_judged(), prober.report(now));
        let peer = index(self.me, to);
        match relay {
            None => self.router.update_direct(now, peer, LINK, Some(report)),
            Some(relay) => {
                let relay = index(self.me, relay);
                self.router.update_relayed(now, peer, relay, judged.then_some(report));
            }
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Parcel>) {
        let direct = (0..NODES).filter(|other| *other != self.me).map(|other| (other, None));
        let relayed = self.relayed.keys().map(|(to, relay)| (*to, Some(*relay)));
        let all: Vec<_> = direct.chain(relayed).collect();
        for (to, relay) in all {
            let Some(prober) = self.prober(to, relay) else { continue };
            if prober.poll_timeout().0 > now {
                continue;
            }
            let change = prober.handle_timeout(now, false);
            let probe = prober.poll_probe(now);
            if change.is_some() || probe.is_some() {
                self.report(now, to, relay);
            }
            if let Some(probe) = probe {
                out.push(self.send(to, relay, Message::Probe { seq: probe.seq, sent: now }));
            }
        }
        if self.router.poll_timeout().0 <= now {
            self.route(now);
        }
        let mut entries = Vec::new();
        while let Some((peer, part)) = self.advertiser.poll(now, &mut entries) {
            let relay = self.router.path(peer, Metric::Latency).and_then(Path::relay);
            let relay = relay.map(|relay| node(self.me, relay));
            let message = Message::Advertisement(part, std::mem::take(&mut entries));
            out.push(self.send(node(self.me, peer), relay, message));
        }
    }

    fn route(&mut self, now: Instant) {
        self.events.clear();
        self.router.recompute(now, &mut self.events);
        let switched = |event: &&RouteEvent| matches!(event, RouteEvent::Switched { metric, .. } if *metric == Metric::Latency);
        self.switches += self.events.iter().filter(switched).count();
        let mut wanted = Vec::new();
        for peer in (0..NODES as u16 - 1).map(PeerIndex) {
            let path = self.router.path(peer, Metric::Latency);
            self.advertiser.set_reachable(now, peer, path.is_some());
            self.advertiser.update(now, peer, self.router.direct_report(peer));
            let in_use = matches!(path, Some(Path::Direct(_)));
            self.direct[peer.usize()].set_interval(now, if in_use { IN_USE } else { IDLE });
            self.router.relays_to_probe(peer, |_| true, &mut wanted);
            let to = node(self.me, peer);
            let keep: Vec<_> = wanted.iter().map(|w| node(self.me, w.0)).collect();
            for relay in (0..NODES).filter(|relay| *relay != to && *relay != self.me) {
                if !keep.contains(&relay) && self.relayed.remove(&(to, relay)).is_some() {
                    self.router.update_relayed(now, peer, index(self.me, relay), None);
                }
            }
            for (relay, in_use) in keep.into_iter().zip(wanted.iter().map(|w| w.1)) {
                let rng = &mut self.rng;
                let interval = if in_use { IN_USE } else { IDLE };
                self.relayed
                    .entry((to, relay))
                    .or_insert_with(|| {
                        Prober::new(now, &ProberConfig::STANDARD, interval, rng.fork())
                    })
                    .set_interval(now, interval);
            }
        }
    }
}

/// One direction of a pair.
#[derive(Clone, Copy, Debug)]
struct Way {
    delay: Duration,
    works: bool,
    loss: f64,
}

struct World {
    now: Instant,
    nodes: Vec<Node>,
    ways: [[Way; NODES]; NODES],
    under_way: BTreeMap<(Instant, u64), Parcel>,
    sent: u64,
    rng: Rng,
    /// For each pair: since when it is without a working path although there is one.
    stranded: [[Option<Instant>; NODES]; NODES],
    longest: Duration,
}

impl World {
    #[expect(clippy::needless_range_loop, reason = "both halves of a symmetric matrix are set")]
    fn new(seed: u8) -> Self {
        let now = Instant::from_micros(1_000_000);
        let mut rng = Rng::new([seed; 32]);
        let way = Way { delay: Duration::ZERO, works: true, loss: 0.0 };
        let mut ways = [[way; NODES]; NODES];
        for a in 0..NODES {
            for b in 0..a {
                let delay = Duration::from_millis(10 + u64::from(rng.below(50)));
                ways[a][b].delay = delay;
                ways[b][a].delay = delay;
            }
        }
        let nodes = (0..NODES).map(|me| Node::new(now, me, rng.fork())).collect();
        Self {
            now,
            nodes,
            ways,
            under_way: BTreeMap::new(),
            sent: 0,
            rng,
            stranded: [[None; NODES]; NODES],
            longest: Duration::ZERO,
        }
    }

    fn carry(&mut self, parcels: &mut Vec<Parcel>) {
        for parcel in parcels.drain(..) {
            let hops = match parcel.relay {
                Some(relay) => vec![(parcel.from, relay), (relay, parcel.to)],
                None => vec![(parcel.from, parcel.to)],
            };
            let mut at = self.now;
            let mut arrives = true;
            for (a, b) in hops {
                let way = self.ways[a][b];
                at += way.delay;
                arrives &= way.works && !self.rng.chance(way.loss);
            }
            if arrives {
                self.sent += 1;
                self.under_way.insert((at, self.sent), parcel);
            }
        }
    }

    fn both_ways(&self, a: usize, b: usize) -> bool {
        self.ways[a][b].works && self.ways[b][a].works
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut out = Vec::new();
        while self.now < end {
            self.now += TICK;
            while let Some(entry) = self.under_way.first_entry()
                && entry.key().0 <= self.now
            {
                let parcel = entry.remove();
                self.nodes[parcel.to].receive(self.now, parcel, &mut out);
            }
            for node in &mut self.nodes {
                node.tick(self.now, &mut out);
            }
            self.carry(&mut out);
            self.judge();
        }
    }

    fn judge(&mut self) {
        for a in 0..NODES {
            for b in (0..NODES).filter(|b| *b != a) {
                let through = |r: usize| self.both_ways(a, r) && self.both_ways(r, b);
                let relays = (0..NODES).filter(|r| *r != a && *r != b);
                let possible = self.both_ways(a, b) || relays.clone().any(through);
                let router = &self.nodes[a].router;
                let served = match router.path(index(a, b), Metric::Latency) {
                    Some(Path::Direct(_)) => self.ways[a][b].works,
                    Some(Path::Via(relay)) => {
                        let relay = node(a, relay);
                        self.ways[a][relay].works && self.ways[relay][b].works
                    }
                    None => false,
                };
                let since = &mut self.stranded[a][b];
                *since = if possible && !served { since.or(Some(self.now)) } else { None };
                if let Some(since) = *since {
                    self.longest = self.longest.max(self.now - since);
                }
            }
        }
    }

    fn switches(&self) -> usize {
        self.nodes.iter().map(|node| node.switches).sum()
    }

    fn set(&mut self, a: usize, b: usize, works: bool) {
        self.ways[a][b].works = works;
    }
}

#[test]
fn a_silent_black_hole_is_crossed_within_three_seconds_and_forgotten_after_it() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.run(Duration::from_secs(20));
        world.longest = Duration::ZERO;
        world.set(0, 1, false);
        world.set(1, 0, seed % 2 == 0);
        world.run(Duration::from_secs(60));
        assert!(world.longest <= Duration::from_millis(1_000), "seed {seed}: {:?}", world.longest);
        world.set(0, 1, true);
        world.set(1, 0, true);
        world.run(Duration::from_secs(60));
        assert!(world.longest <= Duration::from_millis(1_000), "seed {seed}: {:?}", world.longest);
        let mut fresh = World::new(seed);
        fresh.run(Duration::from_secs(60));
        let path = |world: &World| world.nodes[0].router.path(index(0, 1), Metric::Latency);
        assert_eq!(path(&world), path(&fresh), "seed {seed}: back on the path of before");
    }
}

#[test]
fn every_pair_that_can_be_connected_is_so_soon_after_any_change() {
    for seed in 100..104 {
        let mut world = World::new(seed);
        let mut chance = Rng::new([seed ^ 0x55; 32]);
        world.run(Duration::from_secs(20));
        world.longest = Duration::ZERO;
        let mut changes = 0;
        for _ in 0..120 {
            let (a, b) = (chance.below(4) as usize, chance.below(4) as usize);
            if a != b {
                let works = chance.chance(0.6);
                world.set(a, b, works);
                world.set(b, a, works || chance.chance(0.2));
                changes += 1;
            }
            world.run(Duration::from_millis(1_000 + u64::from(chance.below(14_000))));
        }
        let limit = Duration::from_secs(5);
        assert!(world.longest <= limit, "seed {seed}: {:?} stranded", world.longest);
        let switches = world.switches();
        assert!(switches <= changes * 12, "seed {seed}: {switches} switches, {changes} changes");
    }
}

#[test]
fn a_network_that_loses_one_percent_everywhere_hardly_makes_anyone_move() {
    let mut total = 0;
    for seed in 20..26 {
        let mut world = World::new(seed);
        for row in &mut world.ways {
            for way in row {
                way.loss = 0.005;
            }
        }
        world.run(Duration::from_secs(60));
        let before = world.switches();
        world.run(Duration::from_secs(600));
        let switches = world.switches() - before;
        assert!(switches <= 60, "seed {seed}: {switches} switches of 12 paths in ten minutes");
        total += switches;
    }
    assert!(total <= 6 * 30, "{total} switches in six times ten minutes");
}

#[test]
fn a_lossy_path_is_left_for_a_clean_longer_one() {
    let mut world = World::new(40);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let delay = Duration::from_millis(if (a, b) == (0, 1) { 20 } else { 15 });
        world.ways[a][b].delay = delay;
        world.ways[b][a].delay = delay;
    }
    world.run(Duration::from_secs(20));
    let path = |world: &World| world.nodes[0].router.path(index(0, 1), Metric::Latency);
    assert_eq!(path(&world), Some(Path::Direct(LINK)));
    world.ways[0][1].loss = 0.3;
    world.run(Duration::from_secs(8));
    assert!(matches!(path(&world), Some(Path::Via(_))), "30 % are lost");
    let before = world.switches();
    world.run(Duration::from_secs(120));
    assert!(matches!(path(&world), Some(Path::Via(_))));
    assert!(world.switches() - before <= 4, "{}", world.switches() - before);
}
