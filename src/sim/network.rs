//! The underlay of a simulation: what happens to a datagram between two addresses.
//!
//! Every directed pair of addresses has a link of its own. In front of it a route may lie: links
//! that pairs share (see [`Underlay`](super::Underlay)), so that one broken link hurts many pairs.

use std::net::IpAddr;
use std::time::Duration;

use super::places::ByAddress;
use crate::rng::Rng;
use crate::time::Instant;

/// Losses in bursts (Gilbert 1960, Elliott 1963): the link is good or bad by turns, each for an
/// exponentially distributed time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Mean time in the good state.
    pub good: Duration,
    /// Mean time in the bad state.
    pub bad: Duration,
    /// Fraction of datagrams that vanish in the bad state.
    pub loss: f64,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkModel {
    /// One-way delay.
    pub delay: Duration,
    /// Added to the delay, uniform from zero to this; more than the distance of two datagrams
    /// reorders them.
    pub jitter: Duration,
    /// Fraction of datagrams that vanish.
    pub loss: f64,
    /// False in an outage: everything vanishes without a word.
    pub up: bool,
    /// Largest UDP payload that passes.
    pub max_payload: usize,
    /// Further losses, in bursts.
    pub burst: Option<Burst>,
    /// Bits per second; `None` for no limit.
    pub rate_bps: Option<u64>,
    /// With a rate: a datagram that would wait longer vanishes.
    pub queue: Duration,
    /// Fraction of datagrams that arrive twice.
    pub duplicate: f64,
    /// Fraction of datagrams that arrive with one bit changed.
    pub corrupt: f64,
}

impl LinkModel {
    /// Passes everything at once.
    pub const PERFECT: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        up: true,
        max_payload: usize::MAX,
        burst: None,
        rate_bps: None,
        queue: Duration::from_millis(100),
        duplicate: 0.0,
        corrupt: 0.0,
    };
}

impl Default for LinkModel {
    fn default() -> Self {
        Self { delay: Duration::from_millis(10), max_payload: 1472, ..Self::PERFECT }
    }
}

/// What a node does to datagrams that it relays, while its links are as good as they look: a member
/// that lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RelayFault {
    /// Fraction of them that it drops.
    pub loss: f64,
    /// How long it keeps the others.
    pub delay: Duration,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When it arrives, from its sending on; `None` when it vanishes.
    pub delay: Option<Duration>,
    /// When a second one arrives.
    pub again: Option<Duration>,
    /// A bit of it is changed.
    pub corrupt: bool,
}

/// What one way would do to a datagram now, without chance: the truth that measurements approach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Nothing on the way is down.
    pub up: bool,
    /// Fraction of datagrams that vanish; 1 in an outage.
    pub loss: f64,
    /// Mean one-way delay without queues.
    pub delay: Duration,
}

/// One directed link with its state.
#[derive(Clone, Debug)]
struct Link {
    model: LinkModel,
    /// The queue is empty then.
    free_at: Instant,
    /// The state of [`Burst`], and when it changes.
    bad: bool,
    flips_at: Instant,
}

impl Link {
    const fn new(model: LinkModel) -> Self {
        Self { model, free_at: Instant::ZERO, bad: false, flips_at: Instant::ZERO }
    }

    /// Brings the state of the bursts up to `now`.
    fn settle(&mut self, now: Instant, rng: &mut Rng) {
        let Some(burst) = self.model.burst else {
            (self.bad, self.flips_at) = (false, Instant::ZERO);
            return;
        };
        if self.flips_at == Instant::ZERO {
            self.flips_at = now + exponential(burst.good, rng);
        }
        while self.flips_at <= now {
            self.bad = !self.bad;
            let mean = if self.bad { burst.bad } else { burst.good };
            self.flips_at += exponential(mean, rng).max(Duration::from_micros(1));
        }
    }

    fn truth(&mut self, now: Instant, rng: &mut Rng) -> Truth {
        self.settle(now, rng);
        let model = &self.model;
        let burst = model.burst.filter(|_| self.bad).map_or(0.0, |burst| burst.loss);
        let loss = if model.up { 1.0 - (1.0 - model.loss) * (1.0 - burst) } else { 1.0 };
        Truth { up: model.up, loss, delay: model.delay + model.jitter / 2 }
    }

    /// Adds what this link does to a datagram. False when it vanishes.
    fn carry(&mut self, now: Instant, len: usize, fate: &mut Fate, rng: &mut Rng) -> bool {
        let model = self.model;
        if !model.up || len > model.max_payload || happens(model.loss, rng) {
            return false;
        }
        if model.burst.is_some() {
            self.settle(now, rng);
            if self.bad && model.burst.is_some_and(|burst| rng.chance(burst.loss)) {
                return false;
            }
        }
        let mut delay = model.delay;
        if !model.jitter.is_zero() {
            delay += Duration::from_micros(
                (u64::from(rng.next_u32()) * model.jitter.as_micros() as u64) >> 32,
            );
        }
        if let Some(rate) = model.rate_bps {
            // IP and UDP headers count too.
            let takes = Duration::from_nanos((len as u64 + 28) * 8_000_000_000 / rate.max(1));
            let begins = self.free_at.max(now);
            if begins - now > model.queue {
                return false;
            }
            self.free_at = begins + takes;
            delay += self.free_at - now;
        }
        fate.delay = fate.delay.map(|sum| sum + delay);
        fate.again = fate.again.map(|sum| sum + delay);
        if happens(model.duplicate, rng) {
            fate.again = fate.delay.map(|sum| sum + Duration::from_micros(rng.next_u64() % 50_000));
        }
        fate.corrupt |= happens(model.corrupt, rng);
        true
    }
}

/// Like [`Rng::chance`], without asking for chance when there is none.
pub(super) fn happens(p: f64, rng: &mut Rng) -> bool {
    p > 0.0 && rng.chance(p)
}

/// A time with an exponential distribution.
pub(super) fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.unit()).ln())
}

/// All directed pairs; one that was never set behaves like the default.
#[derive(Debug)]
pub struct Network {
    default: LinkModel,
    pairs: ByAddress<(IpAddr, IpAddr), Pair>,
    /// Links that pairs share.
    shared: Vec<Link>,
    rng: Rng,
}

#[derive(Debug)]
struct Pair {
    link: Link,
    /// Positions in [`Network::shared`], in the order of the way.
    route: Vec<u32>,
    /// False when the underlay knows no way.
    reachable: bool,
}

impl Network {
    /// A network in which every pair is like `default`.
    pub fn new(default: LinkModel, rng: Rng) -> Self {
        Self { default, pairs: ByAddress::default(), shared: Vec::new(), rng }
    }

    /// How the pair behaves.
    pub fn link(&self, from: IpAddr, to: IpAddr) -> LinkModel {
        self.pairs.get(&(from, to)).map_or(self.default, |pair| pair.link.model)
    }

    /// Changes one direction of a pair.
    pub fn set(&mut self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut LinkModel)) {
        change(&mut self.pair(from, to).link.model);
    }

    /// Changes both directions of a pair.
    pub fn set_both(&mut self, a: IpAddr, b: IpAddr, mut change: impl FnMut(&mut LinkModel)) {
        self.set(a, b, &mut change);
        self.set(b, a, &mut change);
    }

    /// What one direction of a pair would do to a datagram now.
    pub fn truth(&mut self, now: Instant, from: IpAddr, to: IpAddr) -> Truth {
        ensure(&mut self.pairs, self.default, from, to);
        let mut whole = Truth { up: true, loss: 0.0, delay: Duration::ZERO };
        let Some(pair) = self.pairs.get_mut(&(from, to)) else { return whole };
        let mut add = |part: Truth| {
            whole.up &= part.up;
            whole.loss = 1.0 - (1.0 - whole.loss) * (1.0 - part.loss);
            whole.delay += part.delay;
        };
        add(pair.link.truth(now, &mut self.rng));
        for &link in &pair.route {
            if let Some(link) = self.shared.get_mut(link as usize) {
                add(link.truth(now, &mut self.rng));
            }
        }
        if !pair.reachable {
            add(Truth { up: false, loss: 1.0, delay: Duration::ZERO });
        }
        whole
    }

    /// What becomes of a datagram of `len` bytes.
    pub fn transit(&mut self, now: Instant, from: IpAddr, to: IpAddr, len: usize) -> Fate {
        let pair = ensure(&mut self.pairs, self.default, from, to);
        let mut fate = Fate { delay: Some(Duration::ZERO), again: None, corrupt: false };
        if !pair.reachable || !pair.link.carry(now, len, &mut fate, &mut self.rng) {
            return Fate::default();
        }
        for &link in &pair.route {
            let at = now + fate.delay.unwrap_or_default();
            let Some(link) = self.shared.get_mut(link as usize) else { continue };
            if !link.carry(at, len, &mut fate, &mut self.rng) {
                return Fate::default();
            }
        }
        fate
    }

    /// Links that pairs share from now on; what was there before is forgotten.
    pub fn share(&mut self, links: impl Iterator<Item = LinkModel>) {
        self.shared = links.map(Link::new).collect();
    }

    /// Changes a shared link, by its position.
    pub fn set_shared(&mut self, link: usize, change: impl FnOnce(&mut LinkModel)) {
        if let Some(link) = self.shared.get_mut(link) {
            change(&mut link.model);
        }
    }

    /// How a shared link behaves.
    pub fn shared(&self, link: usize) -> Option<LinkModel> {
        self.shared.get(link).map(|link| link.model)
    }

    /// The shared links that a pair's datagrams take, in order; `None` when there is no way.
    pub fn set_route(&mut self, from: IpAddr, to: IpAddr, route: Option<Vec<u32>>) {
        let pair = self.pair(from, to);
        pair.reachable = route.is_some();
        pair.route = route.unwrap_or_default();
    }

    /// The shared links of a pair's route.
    pub fn route(&self, from: IpAddr, to: IpAddr) -> &[u32] {
        self.pairs.get(&(from, to)).map_or(&[], |pair| &pair.route)
    }

    fn pair(&mut self, from: IpAddr, to: IpAddr) -> &mut Pair {
        ensure(&mut self.pairs, self.default, from, to)
    }
}

fn ensure(
    pairs: &mut ByAddress<(IpAddr, IpAddr), Pair>,
    default: LinkModel,
    from: IpAddr,
    to: IpAddr,
) -> &mut Pair {
    let fresh = || Pair { link: Link::new(default), route: Vec::new(), reachable: true };
    pairs.entry((from, to)).or_insert_with(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn two() -> (Network, IpAddr, IpAddr) {
        let network = Network::new(LinkModel::default(), Rng::new([3; 32]));
        (network, "192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap())
    }

    fn lost(network: &mut Network, from: IpAddr, to: IpAddr, of: u64) -> usize {
        let at = |i| NOW + Duration::from_millis(i * 10);
        (0..of).filter(|&i| network.transit(at(i), from, to, 100).delay.is_none()).count()
    }

    #[test]
    fn outages_loss_and_size_limits_apply_to_one_direction() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| link.up = false);
        assert_eq!(network.transit(NOW, a, b, 100), Fate::default());
        assert_eq!(network.transit(NOW, b, a, 100).delay, Some(Duration::from_millis(10)));
        assert_eq!(network.transit(NOW, b, a, 1473), Fate::default());
        network.set(b, a, |link| link.loss = 0.25);
        let lost = lost(&mut network, b, a, 4000);
        assert!((800..1200).contains(&lost), "{lost}");
    }

    #[test]
    fn bursts_lose_in_the_share_of_their_time() {
        let (mut network, a, b) = two();
        let (good, bad) = (Duration::from_secs(9), Duration::from_secs(1));
        network.set(a, b, |link| link.burst = Some(Burst { good, bad, loss: 0.5 }));
        let lost = lost(&mut network, a, b, 1_000_000);
        assert!((40_000..60_000).contains(&lost), "{lost} of a million, expected 5 %");
    }

    #[test]
    fn a_rate_makes_a_queue_and_the_queue_overflows() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| {
            (link.rate_bps, link.queue) = (Some(1_024_000), Duration::from_millis(20));
        });
        // 100 bytes and headers take a millisecond.
        let delays: Vec<_> =
            (0..30).filter_map(|_| network.transit(NOW, a, b, 100).delay).collect();
        assert_eq!(delays.len(), 21);
        assert_eq!(delays[0], Duration::from_millis(11));
        assert_eq!(delays[20], Duration::from_millis(31));
    }

    #[test]
    fn a_shared_link_hurts_every_pair_that_has_it_in_its_route() {
        let (mut network, a, b) = two();
        network.share([LinkModel::default(); 2].into_iter());
        network.set_route(a, b, Some(vec![0, 1]));
        network.set_route(b, a, Some(vec![1]));
        assert_eq!(network.transit(NOW, a, b, 9).delay, Some(Duration::from_millis(30)));
        network.set_shared(0, |link| link.up = false);
        assert_eq!(network.transit(NOW, a, b, 9), Fate::default());
        assert_eq!(network.transit(NOW, b, a, 9).delay, Some(Duration::from_millis(20)));
        let truth = network.truth(NOW, a, b);
        assert!(!truth.up && truth.loss == 1.0);
        network.set_route(b, a, None);
        assert_eq!(network.transit(NOW, b, a, 9), Fate::default());
    }

    #[test]
    fn what_is_doubled_or_corrupted_says_so() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| (link.duplicate, link.corrupt) = (1.0, 1.0));
        let fate = network.transit(NOW, a, b, 9);
        assert!(fate.again >= fate.delay && fate.corrupt);
    }
}
