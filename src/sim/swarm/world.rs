//! A plan carried out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ledger::Ledger;
use super::plan::{Mishap, Plan, What};
use super::record::Record;
use super::site::{configs, listen};
use super::{Outcome, Violation};
use crate::id::UplinkIndex;
use crate::rng::Rng;
use crate::sim::{
    Audit, Burst, LinkModel, RelayFault, Simulator, Tapped, TcpHosts, TransitStub, Underlay,
};
use crate::time::Instant;

/// Things happen at multiples of this.
const SLICE: Duration = Duration::from_millis(50);
/// How often tables are looked at.
const BOUNDS_INTERVAL: u32 = 100;
const UPLINK: UplinkIndex = UplinkIndex(0);

pub(super) struct World<'p> {
    pub(super) plan: &'p Plan,
    pub(super) simulator: Simulator,
    pub(super) underlay: Option<Underlay>,
    /// What each pair of sites is like when nothing is wrong.
    base: Vec<LinkModel>,
    /// Shared links that routes use, for [`What::Link`].
    links: Vec<usize>,
    pub(super) ledger: Ledger,
    pub(super) rng: Rng,
    start: Instant,
    /// Which mishaps are on.
    pub(super) active: Vec<bool>,
    /// The set of dead shared links changed then.
    pub(super) reroute_at: Option<Instant>,
    /// What the attacker heard long enough ago, and what is still under way.
    pub(super) letters: Vec<Tapped>,
    pub(super) under_way: VecDeque<(Instant, Tapped)>,
    pub(super) tcp: TcpHosts,
    record: Record,
    slices: u32,
}

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        let mut bytes = *b"swarm world: what happens in it?";
        bytes[..8].copy_from_slice(&plan.seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let (configs, clocks) = (configs(plan), &plan.clocks);
        let mut simulator = Simulator::stopped(configs, clocks, LinkModel::default(), plan.seed);
        simulator.watch();
        for site in 0..plan.sites {
            if let Some(model) = plan.boxes[usize::from(site)] {
                let outside = plan.underlay(site, 0);
                simulator.put_box(usize::from(site), UPLINK, model, outside);
            }
        }
        let pairs = usize::from(plan.sites) * usize::from(plan.sites);
        let delay = |rng: &mut Rng| Duration::from_micros(2_000 + u64::from(rng.below(60_000)));
        let mut base: Vec<_> = (0..pairs)
            .map(|_| LinkModel { delay: delay(&mut rng), ..LinkModel::default() })
            .collect();
        let mut links = Vec::new();
        let size = if plan.large { &TransitStub::LARGE } else { &TransitStub::SMALL };
        let underlay = plan.shared.then(|| {
            let mut underlay = Underlay::generate(size, &mut rng);
            for site in 0..plan.sites {
                for uplink in 0..plan.uplinks {
                    underlay.attach(plan.underlay(site, uplink), &mut rng);
                }
            }
            underlay.lay(&mut simulator.network, LinkModel::PERFECT);
            links = underlay.links_in_use(&simulator.network);
            base.fill(LinkModel { delay: Duration::ZERO, ..LinkModel::default() });
            underlay
        });
        let active = vec![false; plan.mishaps.len()];
        let start = simulator.now();
        let (ledger, letters) = (Ledger::new(plan), Vec::new());
        let (reroute_at, slices, under_way) = (None, 0, VecDeque::new());
        let mut world = Self {
            plan,
            simulator,
            underlay,
            base,
            links,
            ledger,
            rng,
            start,
            active,
            reroute_at,
            letters,
            under_way,
            tcp: TcpHosts::default(),
            record: Record::default(),
            slices,
        };
        world.lay_network(true);
        (0..usize::from(plan.sites)).for_each(|site| world.simulator.start(site));
        world.begin_tcp();
        world
    }

    /// The virtual time.
    pub(super) const fn now(&self) -> Instant {
        self.simulator.now()
    }

    pub(super) fn run(&mut self) -> Result<Outcome, Violation> {
        let storm_end = self.start + self.plan.storm;
        while self.simulator.now() < storm_end {
            self.change(self.simulator.now());
            self.traffic();
            self.attack();
            self.slice()?;
        }
        self.calm_down();
        let connected_after = self.demand_liveness(storm_end)?;
        self.check_audit()?;
        Ok(Outcome {
            packets: (self.ledger.sent(), self.ledger.arrived()),
            datagrams: self.simulator.carried(),
            connected_after,
            virtual_time: self.simulator.now() - self.start,
            digest: self.record.digest(&self.simulator),
        })
    }

    /// One slice of time, and a look at everything after it.
    pub(super) fn slice(&mut self) -> Result<(), Violation> {
        let deliveries = self.advance(self.simulator.now() + SLICE)?;
        let now = self.simulator.now();
        if self.plan.attacker > 0.0 {
            self.listen();
        }
        for delivery in deliveries {
            self.record.take(&delivery);
            let answer = self.ledger.delivered(&delivery);
            let answer = answer.map_err(|what| Violation { at: now, what })?;
            if let Some((exit, packet)) = answer {
                self.simulator.send(exit, &packet);
            }
        }
        let audit = self.simulator.audit();
        if let Some(what) = audit.and_then(|audit| audit.faults().first()) {
            return Err(Violation { at: now, what: what.clone() });
        }
        self.slices += 1;
        if self.slices.is_multiple_of(BOUNDS_INTERVAL) {
            self.check_bounds()?;
        }
        Ok(())
    }

    /// The audit has seen every turn.
    fn check_audit(&self) -> Result<(), Violation> {
        let (turns, seen) = (self.simulator.turns(), self.simulator.audit().map(Audit::turns));
        if seen == Some(turns) && turns > 0 {
            return Ok(());
        }
        let what = format!("the audit saw {seen:?} of {turns} turns");
        Err(Violation { at: self.simulator.now(), what })
    }

    fn check_bounds(&self) -> Result<(), Violation> {
        let at = self.simulator.now();
        let turns = self.simulator.most_turns_at_once();
        if turns > 50 {
            let what = format!("a timer ran {turns} times at one instant");
            return Err(Violation { at, what });
        }
        let links = usize::from(self.plan.uplinks).pow(2) + 4;
        for site in 0..self.simulator.len() {
            let Some(node) = self.simulator.node(site) else { continue };
            let sizes = node.table_sizes();
            let paths = usize::from(self.plan.sites) * (links + usize::from(self.plan.sites));
            if sizes.flows > self.plan.flows_max as usize
                || sizes.paths > paths
                || sizes.events > 256
                || sizes.mappings > self.plan.mappings_max as usize
            {
                let what = format!("node {site}: a table is too big: {sizes:?}");
                return Err(Violation { at, what });
            }
        }
        Ok(())
    }

    // What goes wrong.

    /// Begins and ends mishaps.
    fn change(&mut self, now: Instant) {
        let since = now - self.start;
        let mut changed = false;
        for index in 0..self.plan.mishaps.len() {
            let mishap = self.plan.mishaps[index];
            let on = mishap.at <= since && since < mishap.at + mishap.lasts;
            if on != std::mem::replace(&mut self.active[index], on) {
                changed = true;
                self.begin_or_end(&mishap, on);
            }
        }
        if changed {
            self.lay_network(false);
        }
        if self.reroute_at.is_some_and(|at| at <= now) {
            self.reroute_at = None;
            if let Some(underlay) = &self.underlay {
                underlay.reroute(&mut self.simulator.network);
            }
        }
    }

    /// What a mishap does to a node.
    pub(super) fn begin_or_end(&mut self, mishap: &Mishap, begins: bool) {
        let number = |site: u8| usize::from(site % self.plan.sites);
        let simulator = &mut self.simulator;
        match mishap.what {
            What::Kill(site) if begins => {
                simulator.kill(number(site));
                self.ledger.forget(number(site));
            }
            What::Kill(site) => {
                if simulator.node(number(site)).is_none() {
                    simulator.start(number(site));
                }
            }
            What::Freeze(site) if begins => simulator.freeze(number(site), mishap.lasts),
            What::Forget(site) if begins => simulator.reset_boxes(number(site)),
            What::Calendar(site, seconds) if begins => {
                simulator.set_calendar(number(site), i64::from(seconds) * 1_000_000_000);
            }
            What::Move(site) => self.move_site(site % self.plan.sites, begins),
            What::Reload(site) => self.reload(site % self.plan.sites, begins),
            What::Liar(site, percent, ms) => {
                let (loss, delay) = (f64::from(percent) / 100.0, Duration::from_millis(ms.into()));
                let fault = if begins { RelayFault { loss, delay } } else { RelayFault::default() };
                simulator.set_relay_fault(number(site), fault);
            }
            What::Cut(..)
            | What::Partition(..)
            | What::Uplink(..)
            | What::Link(_)
            | What::LossyLink(_)
            | What::Loss(..)
            | What::Detour(..)
            | What::Narrow(..)
            | What::Queue(..)
            | What::QueueLink(..)
            | What::Freeze(_)
            | What::Forget(_)
            | What::Calendar(..) => {}
        }
    }

    /// Another policy, or back to the first one.
    fn reload(&mut self, site: u8, other: bool) {
        let Some(config) = configs(self.plan).into_iter().nth(usize::from(site)) else { return };
        let config = if other { self.plan.reloads(site, &config) } else { config };
        let policy = config.policy();
        self.simulator.operate(usize::from(site), |node, now| node.set_policy(now, policy));
    }

    /// To a new address, or back.
    fn move_site(&mut self, site: u8, away: bool) {
        if self.plan.boxes[usize::from(site)].is_some() {
            return;
        }
        let home = listen(self.plan, site);
        let elsewhere = if self.plan.ipv6 {
            IpAddr::from([0x2001, 0xdb8, 0xfff, 0, 0, 0, 0, u16::from(site) + 1])
        } else {
            IpAddr::from([198, 19, 0, site + 1])
        };
        let address = if away { SocketAddr::new(elsewhere, home.port()) } else { home };
        self.simulator.readdress(usize::from(site), UPLINK, address);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others change pairs, or nothing")]
    /// Makes the network what the active mishaps make of it.
    pub(super) fn lay_network(&mut self, first: bool) {
        let mut models = self.base.clone();
        let rates = self.plan.rates;
        for model in &mut models {
            model.jitter = Duration::from_millis(u64::from(rates.jitter_ms));
            (model.loss, model.duplicate) = (rates.loss, rates.duplicate);
            model.corrupt = rates.corrupt;
        }
        let mut dead_uplinks = Vec::new();
        let mut links = vec![LinkModel::PERFECT; self.links.len()];
        for (mishap, _) in self.plan.mishaps.iter().zip(&self.active).filter(|(_, on)| **on) {
            match mishap.what {
                What::Uplink(site, uplink) => dead_uplinks.push((site, uplink)),
                What::Link(link) | What::LossyLink(link) | What::QueueLink(link, ..)
                    if !links.is_empty() =>
                {
                    let link = usize::from(link) % links.len();
                    spoil_link(&mut links[link], mishap.what);
                }
                _ => spoil(&mut models, self.plan.sites, mishap.what),
            }
        }
        self.set_pairs(&models, &dead_uplinks);
        self.set_links(&links, first);
    }

    fn set_pairs(&mut self, models: &[LinkModel], dead_uplinks: &[(u8, u8)]) {
        let (sites, uplinks) = (self.plan.sites, self.plan.uplinks);
        for a in 0..sites {
            for b in (0..sites).filter(|&b| b != a) {
                let model = models[pair(sites, a, b)];
                for (i, j) in (0..uplinks).flat_map(|i| (0..uplinks).map(move |j| (i, j))) {
                    let dead = dead_uplinks.contains(&(a, i)) || dead_uplinks.contains(&(b, j));
                    let (from, to) = (self.plan.underlay(a, i), self.plan.underlay(b, j));
                    self.simulator.network.set(from, to, |link| {
                        *link = model;
                        link.up &= !dead;
                    });
                }
            }
        }
    }

    /// Makes the links that routes share what `models` say, but for their delays.
    fn set_links(&mut self, models: &[LinkModel], first: bool) {
        let Some(underlay) = &self.underlay else { return };
        let network = &mut self.simulator.network;
        let mut changed = false;
        for (&link, model) in self.links.iter().zip(models) {
            changed |= network.shared(link * 2).is_some_and(|now| now.up != model.up);
            underlay.set(network, link, |now| *now = LinkModel { delay: now.delay, ..*model });
        }
        if let (true, false, Some(after)) = (changed, first, self.plan.reroutes_after) {
            self.reroute_at = Some(self.simulator.now() + after);
        }
    }
}

fn pair(sites: u8, a: u8, b: u8) -> usize {
    usize::from(a) * usize::from(sites) + usize::from(b)
}

pub(super) fn pairs_of(uplinks: u8) -> impl Iterator<Item = (u8, u8)> {
    (0..uplinks).flat_map(move |i| (0..uplinks).map(move |j| (i, j)))
}

/// What a mishap does to the ways between sites.
fn spoil(models: &mut [LinkModel], sites: u8, what: What) {
    let mut both = |a: u8, b: u8, change: &dyn Fn(&mut LinkModel)| {
        let (a, b) = (a % sites, b % sites);
        change(&mut models[pair(sites, a, b)]);
        change(&mut models[pair(sites, b, a)]);
    };
    match what {
        What::Cut(a, b, false) => both(a, b, &|model| model.up = false),
        What::Cut(a, b, true) => models[pair(sites, a % sites, b % sites)].up = false,
        What::Loss(a, b, percent) => both(a, b, &|model| model.loss = f64::from(percent) / 100.0),
        What::Detour(a, b, ms) => {
            both(a, b, &|model| model.delay += Duration::from_millis(u64::from(ms)));
        }
        What::Narrow(a, b, payload) => {
            both(a, b, &|model| model.max_payload = usize::from(payload));
        }
        What::Queue(a, b, kbit_s, wait_ms) => both(a, b, &|model| fill(model, kbit_s, wait_ms)),
        What::Partition(set, one_way) => {
            for a in 0..sites {
                for b in (0..sites).filter(|&b| b != a) {
                    let (inside, other) = (set >> a & 1 == 1, set >> b & 1 == 1);
                    if inside != other && (inside || !one_way) {
                        models[pair(sites, a, b)].up = false;
                    }
                }
            }
        }
        What::Uplink(..)
        | What::Link(_)
        | What::LossyLink(_)
        | What::QueueLink(..)
        | What::Kill(_)
        | What::Freeze(_)
        | What::Forget(_)
        | What::Move(_)
        | What::Reload(_)
        | What::Liar(..)
        | What::Calendar(..) => {}
    }
}

/// What a mishap does to a link that routes share.
fn spoil_link(model: &mut LinkModel, what: What) {
    if let What::QueueLink(_, kbit_s, wait_ms) = what {
        fill(model, kbit_s, wait_ms);
    } else if let What::LossyLink(_) = what {
        let (good, bad) = (Duration::from_secs(2), Duration::from_millis(300));
        model.burst = Some(Burst { good, bad, loss: 0.7 });
    } else {
        model.up = false;
    }
}

/// So little is left of a link that others fill.
fn fill(model: &mut LinkModel, kbit_s: u16, wait_ms: u16) {
    model.rate_bps = Some(u64::from(kbit_s) * 1_000);
    model.queue = Duration::from_millis(u64::from(wait_ms));
}
