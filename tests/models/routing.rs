//! The choice of paths over time: what a path costs, who is near-equal, margin, hold-down, back-off
//! of paths that failed, detours around suspect ones.
//!
//! The model is asked for everything anew in each step, from what was said last and from the whole
//! history of each path; only what was chosen, and when, is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rongate::id::{NodeId, PeerIndex, UplinkIndex};
use rongate::metric::{LinkReport, Liveness, Loss, Metric};
use rongate::path::{LinkId, Path};
use rongate::routing::{Advertisement, Margin, PeerInfo, Router, RouterConfig};
use rongate::time::Instant;

const PEERS: usize = 4;
const ME: NodeId = NodeId(99);
/// This node's own, of which its order of relays comes.
const SEED: u64 = 7;
/// The last peer may not relay.
const MUTE: usize = PEERS - 1;

const fn id(peer: usize) -> NodeId {
    NodeId(50 - 10 * peer as u32)
}

const fn index(peer: usize) -> PeerIndex {
    PeerIndex(peer as u16)
}

/// The link to each peer; those of two peers each leave by the same uplink.
const fn link(peer: usize) -> LinkId {
    LinkId { local: UplinkIndex(peer as u8 / 2), remote: UplinkIndex(0) }
}

/// Everything is looked at in every step.
fn config() -> RouterConfig {
    RouterConfig { pause: Duration::ZERO, idle_pause: Duration::ZERO, ..RouterConfig::default() }
}

fn router(config: RouterConfig) -> Router {
    let peer = |peer| PeerInfo { id: id(peer), may_relay: peer != MUTE };
    Router::new(config, ME, (0..PEERS).map(peer).collect(), SEED)
}

#[derive(Clone, Debug)]
enum Step {
    /// Our prober on the link to a peer.
    Direct(usize, Option<LinkReport>),
    /// Our prober on the path to the first through the second.
    Relayed(usize, usize, Option<LinkReport>),
    /// What a peer says of its links to the others and, last, to us.
    Says(usize, Vec<Option<LinkReport>>, bool),
    Wait(u64),
}

fn any_report() -> impl Strategy<Value = LinkReport> {
    let state = prop_oneof![
        6 => Just(Liveness::Up),
        1 => Just(Liveness::Suspect),
        2 => Just(Liveness::Down)
    ];
    let loss = prop::sample::select(vec![0.0, 0.0, 0.0, 0.005, 0.02, 0.1]);
    let ms = prop::sample::select(vec![10, 20, 21, 30, 40, 60, 61, 62, 100, 200]);
    let jitter = prop::sample::select(vec![0, 0, 0, 4, 25]);
    (ms, jitter, loss, state).prop_map(|(ms, jitter, loss, state)| LinkReport {
        latency_us: ms * 1_000,
        jitter_us: jitter * 1_000,
        loss: Loss::from_fraction(loss),
        state,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let maybe = || prop::option::weighted(0.9, any_report());
    // Nobody tells of jitter.
    let told = |report: LinkReport| LinkReport { jitter_us: 0, ..report };
    let said = prop::collection::vec(maybe().prop_map(move |said| said.map(told)), PEERS + 1);
    let wait = prop_oneof![4 => 1..900u64, 4 => 900..7_000u64, 1 => 7_000..400_000u64];
    prop_oneof![
        4 => (0..PEERS, maybe()).prop_map(|(peer, report)| Step::Direct(peer, report)),
        2 => (0..PEERS, 1..PEERS, maybe())
            .prop_map(|(to, other, report)| Step::Relayed(to, (to + other) % PEERS, report)),
        3 => (0..PEERS, said, prop::bool::weighted(0.1))
            .prop_map(|(peer, said, full)| Step::Says(peer, said, full)),
        4 => wait.prop_map(Step::Wait),
    ]
}

/// What one way to a peer is like.
#[derive(Clone, Copy, Debug)]
struct Way {
    path: Path,
    report: LinkReport,
    /// It may be chosen.
    eligible: bool,
    /// Who is on it may stay.
    usable: bool,
    /// We know it ourselves, not from others.
    known: bool,
    /// What a back-off counts: works, fails, or neither.
    seen: Option<bool>,
}

/// What was seen of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Works,
    Fails,
    FailsInUse,
    /// It was left for a better one, and loses packets.
    LeftForLoss,
}

/// Failures that are remembered, the last one, since when it works again, and how much longer than
/// usual it is stayed away from.
type Failures = (u32, Instant, Option<Instant>, f64);

/// What was decided for one peer and metric.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    chosen: Option<Path>,
    detour: Option<Path>,
    alternate: Option<Path>,
    /// When it was last changed, but for the very first choice.
    switched_at: Option<Instant>,
    began: bool,
}

#[derive(Default)]
struct Model {
    direct: [Option<LinkReport>; PEERS],
    relayed: BTreeMap<(usize, usize), (LinkReport, Instant)>,
    said: BTreeMap<(usize, NodeId), LinkReport>,
    /// When each peer spoke last, and whether it has room for relaying.
    heard: [Option<(Instant, bool)>; PEERS],
    choices: [[Choice; Metric::COUNT]; PEERS],
    /// The first hop to each peer that was in use in the last step.
    hops: [Option<Path>; PEERS],
    /// What happened to each path to each peer.
    stories: BTreeMap<(usize, Path), Vec<(Instant, What)>>,
    /// This node's own order of relays to each peer, from 0 to 1.
    order: BTreeMap<(usize, usize), f64>,
}

impl Model {
    fn take(&mut self, now: Instant, step: &Step) {
        match step {
            Step::Direct(peer, report) => self.direct[*peer] = *report,
            Step::Relayed(to, relay, Some(report)) => {
                self.relayed.insert((*to, *relay), (*report, now));
            }
            Step::Relayed(to, relay, None) => {
                self.relayed.remove(&(*to, *relay));
            }
            Step::Says(peer, said, full) => {
                self.heard[*peer] = Some((now, !full));
                for (node, report) in entries(*peer, said) {
                    self.said.insert((*peer, node), report);
                }
            }
            Step::Wait(_) => {}
        }
    }

    /// What is too old is forgotten.
    fn forget(&mut self, now: Instant) {
        let config = config();
        self.relayed.retain(|_, (_, at)| now - *at <= config.measurement_expiry);
        for peer in 0..PEERS {
            if self.heard[peer].is_some_and(|(at, _)| now - at > config.advertisement_expiry) {
                self.heard[peer] = None;
                self.said.retain(|(origin, _), _| *origin != peer);
            }
        }
    }

    /// Our link to a peer: time and loss are the worse of what both ends say.
    fn own_link(&self, peer: usize) -> Option<LinkReport> {
        let ours = self.direct[peer]?;
        Some(both_ends(ours, self.said.get(&(peer, ME)).copied()))
    }

    /// What a relay's link to a peer is said to be like: alive or not is the relay's word.
    fn their_link(&self, relay: usize, to: usize) -> Option<LinkReport> {
        let there = *self.said.get(&(relay, id(to)))?;
        Some(both_ends(there, self.said.get(&(to, id(relay))).copied()))
    }

    fn ways(&self, to: usize) -> Vec<Way> {
        let direct = self.own_link(to).map(|report| Way {
            path: Path::Direct(link(to)),
            report,
            eligible: report.state == Liveness::Up,
            usable: report.state != Liveness::Down,
            known: true,
            seen: match report.state {
                Liveness::Up => Some(true),
                Liveness::Suspect => None,
                Liveness::Down => Some(false),
            },
        });
        let relays = (0..PEERS).filter(|&relay| relay != to);
        direct.into_iter().chain(relays.map(|relay| self.way_by(relay, to))).collect()
    }

    fn way_by(&self, relay: usize, to: usize) -> Way {
        let path = Path::Via(index(relay));
        let no = |seen| Way {
            path,
            report: LinkReport { latency_us: u32::MAX, ..LinkReport::default() },
            eligible: false,
            usable: false,
            known: false,
            seen,
        };
        if relay == MUTE {
            return no(None);
        }
        let Some(hop) = self.own_link(relay).filter(|hop| hop.state != Liveness::Down) else {
            return no(Some(false));
        };
        let told = self.their_link(relay, to);
        let both = told.map(|told| in_a_row(hop, told));
        let in_use = self.choices[to].iter().any(|choice| choice.chosen == Some(path));
        let measured = self.relayed.get(&(to, relay)).map(|(report, _)| {
            let mut report = *report;
            report.state = report.state.max(hop.state);
            if let (false, Some(both)) = (in_use, both) {
                report.loss = report.loss.max(both.loss);
                if both.state != Liveness::Down {
                    report.latency_us = report.latency_us.max(both.latency_us);
                }
            }
            report
        });
        let Some(report) = measured.or(both) else { return no(Some(false)) };
        let told_up = told.is_some_and(|told| told.state == Liveness::Up);
        let room = self.heard[relay].is_some_and(|(_, room)| room);
        let eligible = report.state == Liveness::Up && told_up && room;
        let down = report.state == Liveness::Down;
        let seen = if eligible { Some(true) } else { down.then_some(false) };
        Way { path, report, eligible, usable: !down, known: measured.is_some(), seen }
    }

    /// Until when a path is not returned to without need: it failed in use, and each failure since
    /// makes the pause after its return four times as long.
    fn is_barred(&self, now: Instant, peer: usize, path: Path) -> bool {
        let flap = config().flap;
        // Who left a relay for its loss stays away for a time of its own.
        let own = 1.0 + path.relay().map_or(0.0, |relay| self.order[&(peer, relay.usize())]);
        let barred = |now, (count, last, since, stretch): Failures| {
            let pause = (flap.base * flap.factor.pow((count - 1).min(6))).min(flap.longest);
            now - last < flap.forget && since.unwrap_or(now) + pause.mul_f64(stretch) > now
        };
        let mut memory: Option<Failures> = None;
        for &(at, what) in self.stories.get(&(peer, path)).into_iter().flatten() {
            memory = match (what, memory.filter(|(_, last, ..)| at - *last < flap.forget)) {
                (What::FailsInUse, None) => Some((1, at, None, 1.0)),
                (What::LeftForLoss, None) => Some((1, at, None, own)),
                (_, None) => None,
                (What::Works, Some((count, last, since, stretch))) => {
                    Some((count, last, since.or(Some(at)), stretch))
                }
                (What::LeftForLoss, Some(before)) if barred(at, before) => {
                    Some((before.0, before.1, before.2, own))
                }
                (What::LeftForLoss, Some((count, ..))) => Some((count + 1, at, None, own)),
                (_, Some((count, _, Some(_), stretch))) => Some((count + 1, at, None, stretch)),
                (_, Some(down)) => Some(down),
            };
        }
        memory.is_some_and(|memory| barred(now, memory))
    }

    fn note(&mut self, now: Instant, peer: usize, path: Path, what: What) {
        self.stories.entry((peer, path)).or_default().push((now, what));
    }

    fn decide(&mut self, now: Instant) {
        self.forget(now);
        for peer in 0..PEERS {
            // A link that works is in use as the first hop of paths through the peer.
            let works = self.direct[peer].is_some_and(|link| link.state != Liveness::Down);
            let hop = works.then_some(Path::Direct(link(peer)));
            if let (Some(path), None) = (self.hops[peer], hop) {
                self.note(now, peer, path, What::FailsInUse);
            }
            self.hops[peer] = hop;
        }
        for peer in 0..PEERS {
            let ways = self.ways(peer);
            for way in &ways {
                if let Some(works) = way.seen {
                    let what = if works { What::Works } else { What::Fails };
                    self.note(now, peer, way.path, what);
                }
            }
            for metric in Metric::ALL {
                let before = self.choices[peer][metric as usize];
                let after = self.decide_one(now, peer, metric, &ways, before);
                self.choices[peer][metric as usize] = after;
                let usable = |path| ways.iter().any(|way| way.path == path && way.usable);
                if let Some(path) = before.chosen.filter(|&path| !usable(path)) {
                    self.note(now, peer, path, What::FailsInUse);
                }
                let lossy = |path| {
                    let loss = |way: &Way| way.report.loss.fraction();
                    ways.iter().any(|way| way.path == path && loss(way) > config().cost.free_loss)
                };
                let left = before.chosen.filter(|&path| after.chosen != Some(path));
                if let Some(path) = left.filter(|&path| path.relay().is_some() && lossy(path)) {
                    self.note(now, peer, path, What::LeftForLoss);
                }
            }
        }
    }

    fn decide_one(
        &self,
        now: Instant,
        peer: usize,
        metric: Metric,
        ways: &[Way],
        before: Choice,
    ) -> Choice {
        let margin = margin(metric);
        let rank = |way: &Way| self.rank(peer, metric, way, ways);
        let find = |path: Option<Path>| ways.iter().find(|way| Some(way.path) == path);
        let best = |allowed: &dyn Fn(&&Way) -> bool| {
            ways.iter().filter(allowed).min_by(|a, b| rank(a).total_cmp(&rank(b)))
        };
        let free = |way: &&Way| way.eligible && !self.is_barred(now, peer, way.path);
        let mut after = before;
        match find(before.chosen).filter(|way| way.usable) {
            Some(current) if current.report.state == Liveness::Up => {
                let hold_down = config().hysteresis.hold_down;
                let held = before.switched_at.is_some_and(|at| now < at + hold_down);
                let better = |way: &Way| {
                    let gain = rank(current) - rank(way);
                    beats(margin, rank(current), rank(way)) && gain >= doubt(metric, current, way)
                };
                let rival = best(&|way| free(way) && way.path != current.path && better(way));
                if let Some(rival) = rival
                    && !held
                {
                    (after.chosen, after.switched_at) = (Some(rival.path), Some(now));
                }
            }
            // What is suspect is waited for, on a detour.
            Some(_) => {}
            None => {
                let detour = find(before.detour).filter(|way| way.eligible);
                let fresh = best(&free);
                let stay = detour.filter(|detour| {
                    fresh.is_some_and(|fresh| !beats(margin, rank(detour), rank(fresh)))
                });
                let last_resort = || best(&|way| way.usable && way.known);
                let next = stay.or(fresh).or_else(|| best(&|way| way.eligible));
                after.chosen = next.or_else(last_resort).map(|way| way.path);
                if after.chosen.is_some() || before.chosen.is_some() {
                    // The first choice may be corrected at once.
                    after.switched_at = before.began.then_some(now);
                    after.began = true;
                }
            }
        }
        let others = |way: &&Way| way.eligible && Some(way.path) != after.chosen;
        let uplink = |path| self.uplink(path);
        let apart = |way: &&Way| others(way) && uplink(Some(way.path)) != uplink(after.chosen);
        let other = after.chosen.and_then(|_| best(&apart).or_else(|| best(&others)));
        let doubted = find(after.chosen).is_some_and(|way| way.report.state != Liveness::Up);
        (after.detour, after.alternate) = match other.map(|way| way.path) {
            Some(other) if doubted => (Some(other), after.chosen),
            other => (None, other),
        };
        after
    }

    fn uplink(&self, path: Option<Path>) -> Option<UplinkIndex> {
        match path? {
            Path::Direct(link) => Some(link.local),
            Path::Via(relay) => match self.hops[relay.usize()]? {
                Path::Direct(link) => Some(link.local),
                Path::Via(_) => None,
            },
        }
    }

    /// The cost, and for relays a part of what counts as near-equal by this node's own order.
    fn rank(&self, peer: usize, metric: Metric, way: &Way, ways: &[Way]) -> f64 {
        let cost = |way: &Way| cost(metric, &way.report);
        let least = ways.iter().filter(|way| way.eligible).map(cost).fold(f64::INFINITY, f64::min);
        let near = if least.is_finite() { near(margin(metric), least) } else { 0.0 };
        let order = way.path.relay().map_or(0.0, |relay| {
            let order = self.order[&(peer, relay.usize())];
            // A relay without room is the last among equals.
            let room = self.heard[relay.usize()].is_some_and(|(_, room)| room);
            if room { order } else { 1.0 - (1.0 - order).powf(1_000.0) }
        });
        cost(way) + near * order
    }
}

/// What both ends of a link say of it: the longer time and the greater loss. An end that hears
/// nothing knows of no time, and whether the link works is the first one's word.
fn both_ends(one: LinkReport, other: Option<LinkReport>) -> LinkReport {
    let mut both = one;
    if let Some(other) = other {
        both.loss = Loss(one.loss.0.max(other.loss.0));
        if other.state != Liveness::Down {
            both.latency_us = one.latency_us.max(other.latency_us);
            both.jitter_us = one.jitter_us.max(other.jitter_us);
        }
    }
    both
}

/// Two links in a row: what passes the first must pass the second.
fn in_a_row(first: LinkReport, second: LinkReport) -> LinkReport {
    let [passes, and_passes] = [first, second].map(|link| 1.0 - f64::from(link.loss.0) / 65_535.0);
    LinkReport {
        latency_us: first.latency_us + second.latency_us,
        jitter_us: first.jitter_us + second.jitter_us,
        loss: Loss(((1.0 - passes * and_passes) * 65_535.0).round() as u16),
        state: first.state.max(second.state),
    }
}

/// A round trip of 10 ms costs as much latency as a quarter of a per cent of loss beyond the first
/// per cent; loss comes before everything else but where it is equal; throughput is the inverse of
/// `sqrt(1.5) / (rtt * sqrt(p))` with at least half a per cent of loss.
fn cost(metric: Metric, report: &LinkReport) -> f64 {
    let (us, loss) = (f64::from(report.latency_us), f64::from(report.loss.0) / 65_535.0);
    match metric {
        Metric::Latency | Metric::App => us + (loss - 0.01).max(0.0) * 4_000_000.0,
        Metric::Loss => loss + us * 1e-8,
        Metric::Throughput => {
            let rtt = report.latency_us.max(1) as f64 * 1e-6;
            1.0 / (1.5_f64.sqrt() / (rtt * loss.max(0.005).sqrt()))
        }
    }
}

fn margin(metric: Metric) -> Margin {
    let hysteresis = config().hysteresis;
    match metric {
        Metric::Latency | Metric::App => hysteresis.latency,
        Metric::Loss => hysteresis.loss,
        Metric::Throughput => hysteresis.throughput,
    }
}

/// Both parts of the margin.
fn beats(margin: Margin, incumbent: f64, challenger: f64) -> bool {
    let gain = incumbent - challenger;
    challenger < incumbent * (1.0 - margin.relative) && gain >= margin.absolute
}

/// Round trips differ, and so may what was made of them: all of it of the challenger, half of it of
/// the path in use.
fn doubt(metric: Metric, incumbent: &Way, challenger: &Way) -> f64 {
    match metric {
        Metric::Latency | Metric::App => {
            f64::from(challenger.report.jitter_us) + f64::from(incumbent.report.jitter_us) / 2.0
        }
        Metric::Loss | Metric::Throughput => 0.0,
    }
}

/// Half of the relative margin, or of a larger absolute one, never more than the former.
fn near(margin: Margin, least: f64) -> f64 {
    let relative = least * margin.relative;
    relative.min(margin.absolute.max(relative / 4.0)) / 2.0
}

fn entries(peer: usize, said: &[Option<LinkReport>]) -> Vec<(NodeId, LinkReport)> {
    let of = |(other, report): (usize, &Option<LinkReport>)| {
        let node = if other == PEERS { ME } else { id(other) };
        report.filter(|_| other != peer).map(|report| (node, report))
    };
    said.iter().enumerate().filter_map(of).collect()
}

/// This node's order of relays to each peer: what splitmix64 makes of its seed and the identities of
/// all three, as a fraction.
fn order() -> BTreeMap<(usize, usize), f64> {
    let fraction = |to: usize, relay: usize| {
        let both = u64::from(id(to).0) << 32 | u64::from(id(relay).0);
        let mut x = (SEED ^ u64::from(ME.0) << 16 ^ both).wrapping_add(0x9e37_79b9_7f4a_7c15);
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
            x = (x ^ (x >> shift)).wrapping_mul(factor);
        }
        // The upper 53 bits: all that a fraction holds.
        ((x ^ (x >> 31)) >> 11) as f64 * 2.0_f64.powi(-53)
    };
    (0..PEERS)
        .flat_map(|to| (0..PEERS).map(move |relay| (to, relay)))
        .map(|(to, relay)| ((to, relay), if relay == MUTE { 0.0 } else { fraction(to, relay) }))
        .collect()
}

fn say(
    router: &mut Router,
    now: Instant,
    seq: u32,
    peer: usize,
    said: &[Option<LinkReport>],
    full: bool,
) {
    let spare_relay_kbit = if full { 0 } else { u32::MAX };
    let part = Advertisement { epoch: 1, seq, part: 0, parts: 1, delta: false, spare_relay_kbit };
    router.apply(now, index(peer), &part, entries(peer, said));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn paths_are_chosen_left_and_returned_to_as_the_rules_say(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut router = router(config());
        let mut model = Model { order: order(), ..Model::default() };
        let mut now = Instant::from_micros(1_000_000);
        for (seq, step) in (1..).zip(&steps) {
            match step {
                Step::Direct(peer, report) => {
                    router.update_direct(now, index(*peer), link(*peer), *report);
                }
                Step::Relayed(to, relay, report) => {
                    router.update_relayed(now, index(*to), index(*relay), *report);
                }
                Step::Says(peer, said, full) => say(&mut router, now, seq, *peer, said, *full),
                Step::Wait(ms) => now += Duration::from_millis(*ms),
            }
            model.take(now, step);
            router.recompute(now, &mut Vec::new());
            model.decide(now);
            for peer in 0..PEERS {
                for metric in Metric::ALL {
                    let choice = &model.choices[peer][metric as usize];
                    let wanted = (
                        choice.detour.or(choice.chosen),
                        choice.alternate,
                        choice.detour.and(choice.chosen),
                    );
                    let to = index(peer);
                    let got =
                        (router.path(to, metric), router.alternate(to, metric), router.suspected(to, metric));
                    prop_assert_eq!(
                        got, wanted,
                        "step {} at {}: to {} by {}: {:?}",
                        seq, now, peer, metric, router.explain(now, to, metric)
                    );
                }
            }
        }
    }
}
