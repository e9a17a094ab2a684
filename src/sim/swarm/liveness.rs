//! After the storm: a core of the sites is alive, and must find each other.

use std::time::Duration;

use super::plan::{Mishap, What};
use super::world::{World, pairs_of};
use super::{BOUND, Violation};
use crate::sim::RelayFault;
use crate::time::Instant;

/// After [`BOUND`] every packet must arrive for so long.
const CALM: Duration = Duration::from_secs(5);
/// What a packet may take when nothing is lost: two detours and a queue.
const TRANSIT_MAX: Duration = Duration::from_millis(1_500);

impl World<'_> {
    /// Heals everything but what stays.
    pub(super) fn calm_down(&mut self) {
        for index in 0..self.plan.mishaps.len() {
            if std::mem::take(&mut self.active[index]) {
                self.begin_or_end(&self.plan.mishaps[index], false);
            }
        }
        let core = self.core();
        for site in 0..self.plan.sites {
            match (core.contains(&site), self.simulator.node(usize::from(site)).is_some()) {
                (true, false) => self.simulator.start(usize::from(site)),
                (false, true) => self.simulator.kill(usize::from(site)),
                _ => {}
            }
            self.simulator.freeze(usize::from(site), Duration::ZERO);
            if self.plan.settings.liars >> site & 1 == 1 {
                let fault = RelayFault { loss: 1.0, ..RelayFault::default() };
                self.simulator.set_relay_fault(usize::from(site), fault);
            }
        }
        self.lay_network(true);
        if let Some(underlay) = &self.underlay {
            underlay.reroute(&mut self.simulator.network);
        }
        self.reroute_at = None;
        self.simulator.take_events();
        let cut = self.cut();
        let sites = self.plan.sites;
        for a in 0..sites {
            for b in (0..sites).filter(|&b| b != a) {
                let up = !cut.contains(&(a, b));
                for (i, j) in pairs_of(self.plan.uplinks) {
                    let (from, to) = (self.plan.underlay(a, i), self.plan.underlay(b, j));
                    self.simulator.network.set(from, to, |link| {
                        (link.up, link.loss, link.corrupt) = (up, 0.0, 0.0);
                    });
                }
            }
        }
    }

    fn core(&self) -> Vec<u8> {
        let chosen: Vec<u8> =
            (0..self.plan.sites).filter(|site| self.plan.core >> site & 1 == 1).collect();
        if chosen.len() < 2 { (0..self.plan.sites).collect() } else { chosen }
    }

    /// The pairs that stay cut: as many as leave every pair of the core that had a way one.
    fn cut(&self) -> Vec<(u8, u8)> {
        let ways = |cut: &[(u8, u8)]| self.connected(cut).len();
        let mut cut = Vec::new();
        let all = ways(&cut);
        for &(a, b) in &self.plan.stay_cut {
            let (a, b) = (a % self.plan.sites, b % self.plan.sites);
            cut.extend([(a, b), (b, a)]);
            if ways(&cut) < all {
                cut.truncate(cut.len() - 2);
            }
        }
        cut
    }

    /// The pairs of the core that have a way, directly or through a relay of the core.
    fn connected(&self, cut: &[(u8, u8)]) -> Vec<(u8, u8)> {
        let core = self.core();
        // One of two must be reachable without being asked for.
        let listed = |site: u8| self.plan.boxes[usize::from(site)].is_none();
        let direct = |a: u8, b: u8| a != b && (listed(a) || listed(b)) && !cut.contains(&(a, b));
        let mut pairs = Vec::new();
        for &a in &core {
            for &b in core.iter().filter(|&&b| b != a) {
                let relays = |c: &&u8| self.relays(**c) && direct(a, **c) && direct(**c, b);
                if direct(a, b) || core.iter().find(relays).is_some() {
                    pairs.push((a, b));
                }
            }
        }
        pairs
    }

    /// Transfers may fill relays that have a limit.
    fn is_crowded(&self) -> bool {
        self.plan.settings.relay_kbit_s.is_some() && self.plan.tcp > 0
    }

    /// Whether a site relays whatever others ask it to. Those whom it once refused do not ask again
    /// for ten minutes, and where a limit and transfers meet, it drops what is beyond.
    fn relays(&self, site: u8) -> bool {
        if self.is_crowded() {
            return false;
        }
        let refused = |mishap: &Mishap| matches!(mishap.what, What::Reload(at) if at % self.plan.sites == site);
        let refuses = self.plan.settings.reloaded.refuses.is_some();
        self.plan.settings.relays(site) && !(refuses && self.plan.mishaps.iter().any(refused))
    }

    /// What must work: packets between the pairs that have a way, and of every site that has one to
    /// somebody, packets to the Internet and back.
    fn demands(&self) -> Vec<Demand> {
        let pairs = self.connected(&self.cut());
        let mut demands: Vec<_> = pairs.iter().map(|&(a, b)| Demand::new(a, Some(b))).collect();
        if self.plan.exits && self.plan.roomy() {
            let connected = |site: &u8| pairs.iter().any(|pair| pair.0 == *site);
            demands.extend(self.core().into_iter().filter(connected).map(|a| Demand::new(a, None)));
        }
        demands
    }

    /// Everything that must work does within [`BOUND`], and goes on to.
    pub(super) fn demand_liveness(&mut self, since: Instant) -> Result<Duration, Violation> {
        let mut demands = self.demands();
        let end = since + BOUND + CALM + 2 * TRANSIT_MAX;
        let mut turn = 0_usize;
        let mut calls = false;
        while self.simulator.now() < end {
            let now = self.simulator.now();
            let calm = now >= since + BOUND && now < since + BOUND + CALM;
            // Transfers press other packets out of relays that are limited.
            let demanding = calm && !self.is_crowded();
            if calm && !std::mem::replace(&mut calls, true) {
                let pairs = self.connected(&self.cut());
                self.demand_tcp(&pairs);
            }
            // Each four times a second.
            for (index, demand) in demands.iter_mut().enumerate() {
                if (turn + index).is_multiple_of(5) && now < since + BOUND + CALM {
                    let id = match demand.to {
                        Some(to) => self.write_to(demand.from, to),
                        None => self.write_to_server(demand.from),
                    };
                    demand.waiting.push((id, now, demanding));
                }
            }
            turn += 1;
            self.slice()?;
            let now = self.simulator.now();
            for demand in &mut demands {
                let patience = if demand.to.is_some() { TRANSIT_MAX } else { 2 * TRANSIT_MAX };
                for &(id, at, demanded) in &demand.waiting {
                    if self.ledger.is_done(id) {
                        demand.first.get_or_insert(at);
                    } else if demanded && now - at > patience {
                        let what = self.story(demand.from, demand.to, at);
                        return Err(Violation { at, what });
                    }
                }
                demand
                    .waiting
                    .retain(|&(id, at, _)| !self.ledger.is_done(id) && now - at <= patience);
            }
        }
        self.check_tcp(end - since - BOUND)?;
        let slowest = demands.into_iter().filter_map(|demand| demand.first).max();
        Ok(slowest.map_or(Duration::ZERO, |at| at - since))
    }

    /// What there is to know when a pair is not connected.
    fn story(&mut self, a: u8, b: Option<u8>, at: Instant) -> String {
        let b = b.map_or_else(|| "the Internet".to_owned(), |b| b.to_string());
        let mut text = format!("liveness: {a} -> {b} lost a packet sent at {at}");
        for (at, number, event) in self.simulator.take_events() {
            text += &format!("\n  {at} site{number}: {event}");
        }
        for number in 0..self.simulator.len() {
            let Some(node) = self.simulator.node(number) else { continue };
            let now = self.simulator.local(number);
            for peer in node.peers(now) {
                let path = peer.paths[0].as_ref().map(|path| path.path);
                let tunnel = peer.tunnel.state;
                text += &format!("\n  site{number} to {}: {tunnel:?}, {path:?}", peer.name);
                for link in &peer.links {
                    let heard = link.last_heard.map(|at| now - at);
                    text += &format!(" [{:?} {:?} heard {heard:?}]", link.endpoint, link.report);
                }
            }
            let drops: Vec<_> = node.counters().drops().filter(|drop| drop.1 > 0).collect();
            text += &format!("\n  drops of {number}: {drops:?}");
        }
        text
    }
}

/// One thing that must work.
struct Demand {
    from: u8,
    /// A site; none for the Internet.
    to: Option<u8>,
    /// Packets that have not arrived yet: number, when sent, and whether they must arrive.
    waiting: Vec<(u64, Instant, bool)>,
    /// When the first one was sent that arrived.
    first: Option<Instant>,
}

impl Demand {
    const fn new(from: u8, to: Option<u8>) -> Self {
        Self { from, to, waiting: Vec::new(), first: None }
    }
}
