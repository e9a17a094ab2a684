//! A scenario carried out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use blake2::{Blake2s256, Digest as _};

use super::Scenario;
use super::failures::Failures;
use super::pending::{PATIENCE, Pending};
use super::report::{Control, Report, Timeline};
use super::schemes::{Matrix, Scheme};
use super::sites;
use super::tally::Tally;
use super::tcp::{Tcp, TcpReport};
use super::trace::{Row, Trace};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::path::Path;
use crate::rng::Rng;
use crate::sim::{Delivery, LinkModel, Simulator, Underlay, host};
use crate::telemetry::Tally as Traffic;
use crate::time::Instant;

/// Pairs whose paths are drawn.
const TIMELINE_PAIRS: usize = 40;
const PACKET_LEN: usize = 100;
/// What pairs' delays are drawn between unless the scenario says it.
const DELAYS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(60));
/// How often at least, in a run, the progress is told.
const STEPS: u32 = 1_000;

/// Carries a scenario out with so many nodes in each overlay; of several numbers of overlays, the first
/// counts. `progress` hears the fraction that is done.
pub fn run(
    scenario: &Scenario,
    nodes: u16,
    trace: Option<&Trace>,
    progress: &mut dyn FnMut(f64),
) -> Report {
    let mut run = Run::new(scenario, usize::from(nodes), trace, progress);
    run.warm_up();
    run.warm = run.traffic();
    run.tcp = Some(Tcp::new(scenario, &run.addresses, run.simulator.now()));
    let end = run.simulator.now() + scenario.duration;
    while run.simulator.now() < end {
        run.tick();
    }
    let tcp = run.tcp.take().map(|mut tcp| tcp.finish(run.simulator.now()));
    run.pass(run.simulator.now() + PATIENCE);
    let (tcp, tcp_wrong) = tcp.unwrap_or_default();
    run.finish(tcp, tcp_wrong)
}

struct Run<'s> {
    scenario: &'s Scenario,
    simulator: Simulator,
    underlay: Option<Underlay>,
    failures: Failures,
    rows: VecDeque<Row>,
    addresses: Vec<IpAddr>,
    /// Nodes of each overlay.
    each: usize,
    rng: Rng,
    /// Models with their books.
    models: Vec<(Scheme, Tally)>,
    matrices: VecDeque<Matrix>,
    overlay: Option<Pending>,
    /// The direct way where there are queues, of which a model knows nothing.
    direct: Option<Pending>,
    timeline: Timeline,
    /// From the end of the warm-up on.
    tcp: Option<Tcp>,
    warm: Traffic,
    digest: Blake2s256,
    begun: Instant,
    /// Hears the fraction that is done.
    progress: &'s mut dyn FnMut(f64),
}

impl<'s> Run<'s> {
    fn new(
        scenario: &'s Scenario,
        nodes: usize,
        trace: Option<&Trace>,
        progress: &'s mut dyn FnMut(f64),
    ) -> Self {
        let mut bytes = *b"scenario: what would have been? ";
        bytes[..8].copy_from_slice(&scenario.seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let overlays = scenario.overlays.list().first().map_or(1, |n| usize::from(*n));
        let each = nodes;
        let nodes = each * overlays;
        let configs = sites::configs(overlays, each, scenario.budget_bps);
        let mut simulator = Simulator::stopped(configs, &[], LinkModel::default(), scenario.seed);
        let addresses: Vec<IpAddr> = (0..nodes).map(sites::underlay).collect();
        let underlay = scenario.underlay.transit_stub.map(|size| {
            let mut underlay = Underlay::generate(&size.parameters(), &mut rng);
            let (first, others) = addresses.split_at(each);
            first.iter().for_each(|&address| underlay.attach(address, &mut rng));
            for (&address, &beside) in others.iter().zip(first.iter().cycle()) {
                underlay.attach_beside(address, beside);
            }
            underlay.lay(&mut simulator.network, scenario.shared_model());
            underlay
        });
        let start = simulator.now() + scenario.warm_up;
        let pairs = pair_models(scenario, nodes, &mut rng);
        let failures = Failures::new(
            &scenario.failures,
            &addresses,
            pairs,
            underlay.as_ref(),
            scenario.underlay.reroutes_after,
            start,
            &mut rng,
        );
        for (a, b) in pairs_of(nodes) {
            failures.lay(a, b, &mut simulator.network);
        }
        let tally = |name: &str| Tally::new(name, nodes * nodes, scenario.every);
        let queues = scenario.underlay.rate.is_some();
        let models =
            scenario.schemes.iter().filter_map(|name| Some((name, Scheme::parse(name).ok()?)));
        let models = models.filter(|(_, scheme)| !queues || *scheme != Scheme::Direct);
        let models = models.map(|(name, scheme)| (scheme, tally(name))).collect();
        let has = |name: &str| scenario.schemes.iter().any(|scheme| scheme == name);
        Self {
            models,
            overlay: has("overlay").then(|| Pending::new(tally("overlay"))),
            direct: (queues && has("direct")).then(|| Pending::new(tally("direct"))),
            timeline: Timeline::new(overlays, each, TIMELINE_PAIRS, scenario.every),
            each,
            rows: trace.map_or_else(VecDeque::new, |trace| trace.rows.clone().into()),
            matrices: VecDeque::new(),
            tcp: None,
            warm: Traffic::default(),
            digest: Blake2s256::new(),
            begun: simulator.now(),
            scenario,
            simulator,
            underlay,
            failures,
            addresses,
            rng,
            progress,
        }
    }

    /// Starts the nodes, at once unless the scenario says otherwise, and lets them settle.
    fn warm_up(&mut self) {
        let nodes = if self.overlay.is_some() { self.addresses.len() } else { 0 };
        for node in 0..nodes {
            let after = self.scenario.starts_within.mul_f64(node as f64 / nodes as f64);
            if !after.is_zero() {
                self.pass(self.begun + after);
            }
            self.simulator.start(node);
        }
        self.pass(self.begun + self.scenario.warm_up);
    }

    /// Lets time pass until `end`.
    fn pass(&mut self, end: Instant) {
        let whole = self.scenario.warm_up + self.scenario.duration + PATIENCE;
        while self.simulator.now() < end {
            let step = (self.simulator.now() + whole / STEPS).min(end);
            let mut delivered = match &mut self.tcp {
                Some(tcp) => tcp.run_until(&mut self.simulator, step),
                None => {
                    self.simulator.run_until(step);
                    Vec::new()
                }
            };
            delivered.extend(self.simulator.take_deliveries());
            self.collect(&delivered);
            let done = self.simulator.now() - self.begun;
            (self.progress)(done.as_secs_f64() / whole.as_secs_f64());
        }
    }

    /// One packet of every pair by every scheme.
    fn tick(&mut self) {
        let now = self.simulator.now();
        let start = self.begun + self.scenario.warm_up;
        let network = &mut self.simulator.network;
        self.failures.advance(now, network, self.underlay.as_ref(), &mut self.rng);
        while self.rows.front().is_some_and(|row| start + row.at <= now) {
            let Some(row) = self.rows.pop_front() else { break };
            self.failures.apply(&row, network);
        }
        self.ask_models(now);
        self.use_direct(now);
        self.use_overlay(now);
        self.pass(now + self.scenario.every);
    }

    fn ask_models(&mut self, now: Instant) {
        if self.models.is_empty() {
            return;
        }
        let (nodes, network) = (self.addresses.len(), &mut self.simulator.network);
        let mut ways = Vec::with_capacity(nodes * nodes);
        for &from in &self.addresses {
            for &to in &self.addresses {
                ways.push(network.truth(now, from, to));
            }
        }
        let memory = self.models.iter().map(|model| model.0.memory()).max().unwrap_or_default();
        while self.matrices.get(1).is_some_and(|matrix| now - matrix.at >= memory) {
            self.matrices.pop_front();
        }
        self.matrices.push_back(Matrix::new(now, nodes, ways));
        let (talking, each) = (self.scenario.talks_to, self.each);
        for (scheme, tally) in &mut self.models {
            for (a, b) in pairs_of(nodes).filter(|&pair| talks(pair, each, talking)) {
                let sent = scheme.send(a, b, &self.matrices, &mut self.rng);
                tally.add(a * nodes + b, sent);
            }
        }
    }

    fn use_direct(&mut self, now: Instant) {
        let Some(direct) = &mut self.direct else { return };
        let (nodes, each) = (self.addresses.len(), self.each);
        for (a, b) in pairs_of(nodes).filter(|&pair| talks(pair, each, self.scenario.talks_to)) {
            let number = direct.send(a * nodes + b, now);
            let ends = (self.addresses[a], self.addresses[b]);
            self.simulator.send_beside(ends.0, ends.1, PACKET_LEN, number);
        }
    }

    fn use_overlay(&mut self, now: Instant) {
        let Some(overlay) = &mut self.overlay else { return };
        let (nodes, each) = (self.addresses.len(), self.each);
        let talking = self.scenario.talks_to;
        for (a, b) in pairs_of(nodes).filter(|&pair| talks(pair, each, talking)) {
            let first = a / each * each;
            let path = self.simulator.node(a).and_then(|node| {
                let peer = PeerIndex((if b < a { b - first } else { b - first - 1 }) as u16);
                node.path(peer, Metric::Latency)
            });
            let code = match path {
                None => 0,
                Some(Path::Direct(_)) => 1,
                Some(Path::Via(relay)) => {
                    2 + first as u16 + relay.0 + u16::from(usize::from(relay.0) >= a - first)
                }
            };
            self.timeline.note(a, b, code);
            if !self.scenario.silent {
                let id = overlay.send(a * nodes + b, now);
                let packet = host::packet(sites::host(a), sites::host(b), id, PACKET_LEN);
                self.simulator.send(a, &packet);
            }
        }
        self.timeline.end_tick();
    }

    /// Enters what arrived, and gives up on what is too late.
    fn collect(&mut self, delivered: &[Delivery]) {
        for delivery in delivered {
            self.digest.update(delivery.at.as_micros().to_le_bytes());
            self.digest.update(&delivery.packet);
            let Ok(Some(letter)) = host::open(&delivery.packet) else { continue };
            if let Some(overlay) = &mut self.overlay {
                overlay.arrived(letter.id, delivery.at);
            }
        }
        for (number, at) in self.simulator.take_beside() {
            if let Some(direct) = &mut self.direct {
                direct.arrived(number, at);
            }
        }
        let now = self.simulator.now();
        for pending in [&mut self.overlay, &mut self.direct].into_iter().flatten() {
            pending.settle(now);
        }
    }

    /// Everything that the nodes sent, with the headers of IP and UDP.
    fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        for node in (0..self.simulator.len()).filter_map(|number| self.simulator.node(number)) {
            let sent = node.counters().underlay_tx;
            sum.add(sent.packets, sent.bytes + 28 * sent.packets);
        }
        sum
    }

    fn finish(mut self, tcp: Vec<TcpReport>, tcp_wrong: u64) -> Report {
        for report in &tcp {
            self.digest.update(report.bytes.to_le_bytes());
        }
        let sent = self.traffic();
        let (nodes, warm) = (self.addresses.len(), self.warm);
        let seconds = (self.scenario.duration + PATIENCE).as_secs_f64();
        let control = self.overlay.is_some().then(|| Control {
            kbit_s_per_node: (sent.bytes - warm.bytes) as f64 * 8e-3 / seconds / nodes as f64,
            datagrams_s_per_node: (sent.packets - warm.packets) as f64 / seconds / nodes as f64,
            with_data: !self.scenario.silent || !tcp.is_empty(),
        });
        let silent = self.scenario.silent;
        let overlay = self.overlay.filter(|_| !silent).map(|overlay| overlay.tally);
        let direct = self.direct.map(|direct| direct.tally);
        let models = self.models.into_iter().map(|(_, tally)| tally);
        let tallies = direct.into_iter().chain(models).chain(overlay);
        let mut report = Report {
            scenario: self.scenario.name.clone(),
            about: self.scenario.about.clone(),
            seed: self.scenario.seed,
            nodes: self.each as u16,
            overlays: (nodes / self.each) as u16,
            duration_s: self.scenario.duration.as_secs_f64(),
            schemes: tallies.map(Tally::finish).collect(),
            control,
            tcp,
            tcp_wrong,
            datagrams: self.simulator.carried(),
            digest: self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            timeline: self.timeline,
        };
        report.compare();
        report
    }
}

fn pairs_of(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).filter(move |&b| b != a).map(move |b| (a, b)))
}

/// Whether the first of two nodes sends to the second, when each does to so many that come next in
/// its own overlay of `each` nodes.
const fn talks((a, b): (usize, usize), each: usize, to: Option<u16>) -> bool {
    let fellows = a / each == b / each;
    match to {
        Some(to) => fellows && (b + each - a) % each <= to as usize,
        None => fellows,
    }
}

/// What each directed pair's own link is like.
fn pair_models(scenario: &Scenario, nodes: usize, rng: &mut Rng) -> Vec<LinkModel> {
    let base = scenario.pair_model();
    let (low, high) = scenario.underlay.delay.unwrap_or(DELAYS);
    let own = scenario.underlay.transit_stub.is_none();
    let mut models = vec![base; nodes * nodes];
    for (a, b) in pairs_of(nodes).filter(|(a, b)| own && a < b) {
        let delay = low + (high - low).mul_f64(rng.unit());
        for index in [a * nodes + b, b * nodes + a] {
            models[index].delay = delay;
        }
    }
    models
}
