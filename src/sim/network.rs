//! The underlay of a simulation: what happens to a datagram between two addresses.
//!
//! Every directed pair of addresses has a link of its own. In front of it a route may lie: links
//! that pairs share (see [`Underlay`](super::Underlay)), so that one broken link hurts many pairs.

use std::net::IpAddr;
use std::sync::Arc;
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

/// To which of two worlds a datagram belongs. They share everything but what waits in queues: what the
/// same hosts would see without an overlay is not slowed down by the overlay, nor slows it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Nodes send it.
    Overlay,
    /// Hosts send it on the direct way, without nodes.
    Direct,
}

/// The rest of a way: a datagram is before the first of these links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rest {
    /// The shared links of the whole way, as routing was when the datagram set out.
    route: Arc<[u32]>,
    /// The position of the next one.
    next: usize,
    side: Side,
    len: usize,
}

/// What becomes of a datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When it arrives, from its sending on; `None` when it vanishes.
    pub delay: Option<Duration>,
    /// When a second one arrives.
    pub again: Option<Duration>,
    /// A bit of it is changed.
    pub corrupt: bool,
    /// It has come only so far, both of them if there are two: before a shared link with a rate. Who is
    /// first there passes first, so what goes on is known only then: [`Network::go_on`].
    pub rest: Option<Rest>,
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
    /// The queue of each [`Side`] is empty then.
    free_at: [Instant; 2],
    /// The state of [`Burst`], and when it changes.
    bad: bool,
    flips_at: Instant,
}

impl Link {
    const fn new(model: LinkModel) -> Self {
        Self { model, free_at: [Instant::ZERO; 2], bad: false, flips_at: Instant::ZERO }
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

    /// Adds what this link does to a datagram that comes to it now. False when it vanishes.
    fn carry(&mut self, now: Instant, rest: &Rest, fate: &mut Fate, rng: &mut Rng) -> bool {
        let (model, len) = (self.model, rest.len);
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
            let free_at = &mut self.free_at[rest.side as usize];
            let begins = (*free_at).max(now);
            if begins - now > model.queue {
                return false;
            }
            *free_at = begins + takes;
            delay += *free_at - now;
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
    mean.mul_f64(-crate::float::ln(1.0 - rng.unit()))
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
    route: Arc<[u32]>,
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
        for &link in pair.route.iter() {
            if let Some(link) = self.shared.get_mut(link as usize) {
                add(link.truth(now, &mut self.rng));
            }
        }
        if !pair.reachable {
            add(Truth { up: false, loss: 1.0, delay: Duration::ZERO });
        }
        whole
    }

    /// What becomes of a datagram of `len` bytes, at least up to the first shared link with a rate.
    pub fn transit(
        &mut self,
        now: Instant,
        from: IpAddr,
        to: IpAddr,
        side: Side,
        len: usize,
    ) -> Fate {
        let pair = ensure(&mut self.pairs, self.default, from, to);
        let rest = Rest { route: pair.route.clone(), next: 0, side, len };
        let mut fate = Fate { delay: Some(Duration::ZERO), ..Fate::default() };
        if !pair.reachable || !pair.link.carry(now, &rest, &mut fate, &mut self.rng) {
            return Fate::default();
        }
        walk(&mut self.shared, now, rest, fate, &mut self.rng)
    }

    /// What becomes of a datagram that has come before a link; times count from now on.
    pub fn go_on(&mut self, now: Instant, rest: Rest) -> Fate {
        let fate = Fate { delay: Some(Duration::ZERO), ..Fate::default() };
        walk(&mut self.shared, now, rest, fate, &mut self.rng)
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
        pair.route = route.unwrap_or_default().into();
    }

    /// The shared links of a pair's route.
    pub fn route(&self, from: IpAddr, to: IpAddr) -> &[u32] {
        self.pairs.get(&(from, to)).map_or(&[], |pair| &pair.route)
    }

    fn pair(&mut self, from: IpAddr, to: IpAddr) -> &mut Pair {
        ensure(&mut self.pairs, self.default, from, to)
    }
}

/// Takes a datagram along the rest of its way, up to a link with a rate that it reaches only later.
fn walk(shared: &mut [Link], now: Instant, mut rest: Rest, mut fate: Fate, rng: &mut Rng) -> Fate {
    while let Some(&link) = rest.route.get(rest.next) {
        let so_far = fate.delay.unwrap_or_default();
        let Some(link) = shared.get_mut(link as usize) else { break };
        let is_there = so_far.is_zero() && fate.again.is_none();
        if link.model.rate_bps.is_some() && !is_there {
            fate.rest = Some(rest);
            return fate;
        }
        if !link.carry(now + so_far, &rest, &mut fate, rng) {
            return Fate::default();
        }
        rest.next += 1;
    }
    fate
}

fn ensure(
    pairs: &mut ByAddress<(IpAddr, IpAddr), Pair>,
    default: LinkModel,
    from: IpAddr,
    to: IpAddr,
) -> &mut Pair {
    let fresh = || Pair { link: Link::new(default), route: Arc::default(), reachable: true };
    pairs.entry((from, to)).or_insert_with(fresh)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    impl Network {
        fn pass(&mut self, now: Instant, from: IpAddr, to: IpAddr, len: usize) -> Fate {
            self.transit(now, from, to, Side::Overlay, len)
        }

        /// Sends datagrams of 100 bytes in this order, each at its instant; when they arrive, in the
        /// order of sending.
        fn carry_all(&mut self, sent: &[(Instant, IpAddr, IpAddr)]) -> Vec<Vec<Instant>> {
            let mut arrived = vec![Vec::new(); sent.len()];
            let mut due = BTreeMap::new();
            for (index, &(at, from, to)) in sent.iter().enumerate() {
                let fate = self.pass(at, from, to, 100);
                note(at, index, fate, &mut due, &mut arrived);
            }
            while let Some(((at, index, _), rest)) = due.pop_first() {
                let fate = self.go_on(at, rest);
                note(at, index, fate, &mut due, &mut arrived);
            }
            arrived
        }
    }

    type Due = BTreeMap<(Instant, usize, usize), Rest>;

    fn note(at: Instant, index: usize, fate: Fate, due: &mut Due, arrived: &mut [Vec<Instant>]) {
        for delay in [fate.delay, fate.again].into_iter().flatten() {
            match &fate.rest {
                Some(rest) => _ = due.insert((at + delay, index, due.len()), rest.clone()),
                None => arrived[index].push(at + delay),
            }
        }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Forty datagrams, `every` apart, by turns from afar, 50 ms before a link with that rate and a queue
    /// of 20 ms, and from nearby, 1 ms before it. 10 ms later there is another such link. When each
    /// arrives after its sending, the first ones from afar.
    fn far_and_near(
        rate_bps: Option<u64>,
        every: Duration,
        change: fn(&mut LinkModel),
    ) -> [Vec<Option<Duration>>; 2] {
        let (mut network, far, near) = two();
        let to = "192.0.2.3".parse().unwrap();
        for (from, delay) in [(far, ms(50)), (near, ms(1))] {
            network.set(from, to, |link| link.delay = delay);
            network.set(from, to, change);
        }
        let queue = ms(20);
        network.share([LinkModel { rate_bps, queue, ..LinkModel::default() }; 2].into_iter());
        for from in [far, near] {
            network.set_route(from, to, Some(vec![0, 1]));
        }
        let sent: Vec<_> = (0..40)
            .map(|index| (NOW + every * index, [far, near][index as usize % 2], to))
            .collect();
        let arrived = network.carry_all(&sent);
        let after = |from: usize| {
            let all = sent.iter().zip(&arrived).skip(from).step_by(2);
            all.map(|(sent, arrived)| arrived.first().map(|at| *at - sent.0)).collect()
        };
        [0, 1].map(after)
    }

    #[test]
    fn a_link_that_is_never_full_delays_nobody_whoever_set_out_first() {
        let free = far_and_near(None, ms(2), |_| {});
        assert_eq!(free[0][0], Some(ms(70)));
        assert_eq!(free[1][0], Some(ms(21)));
        // A datagram takes a microsecond.
        let fast = far_and_near(Some(1_024_000_000), ms(2), |_| {});
        for (free, fast) in free.iter().flatten().zip(fast.iter().flatten()) {
            assert_eq!(free.unwrap() + Duration::from_micros(2), fast.unwrap());
        }
    }

    #[test]
    fn who_comes_first_to_a_full_link_passes_first_and_nobody_waits_longer_than_its_queue() {
        // A datagram takes a millisecond; twice as many come.
        let [far, near] = far_and_near(Some(1_024_000), Duration::from_micros(500), |_| {});
        // Those from nearby are alone: one each millisecond, just what passes.
        assert!(near.iter().all(|delay| *delay == Some(ms(1 + 11 + 11))), "{near:?}");
        assert!(far.iter().all(|delay| *delay == Some(ms(50 + 11 + 11))), "{far:?}");
        let [far, near] = far_and_near(Some(256_000), Duration::from_micros(500), |_| {});
        for (delays, own) in [(far, 50), (near, 1)] {
            // Four milliseconds each, one comes each millisecond, at most 20 wait; the second link is
            // reached at the first one's pace.
            let waits: Vec<_> =
                delays.iter().flatten().map(|delay| *delay - ms(own + 28)).collect();
            let longest = *waits.iter().max().unwrap();
            assert!(ms(16) < longest && longest <= ms(20), "{waits:?}");
            assert!((8..=12).contains(&waits.len()), "{waits:?}");
        }
    }

    #[test]
    fn both_of_two_wait_their_turn() {
        let [far, _] = far_and_near(Some(1_024_000), ms(10), |link| link.duplicate = 1.0);
        assert!(far.iter().all(Option::is_some));
        let (mut network, a, b) = two();
        network.set(a, b, |link| link.duplicate = 1.0);
        network.share(
            [LinkModel { rate_bps: Some(1_024), queue: ms(60_000), ..LinkModel::default() }]
                .into_iter(),
        );
        network.set_route(a, b, Some(vec![0]));
        let arrived = network.carry_all(&[(NOW, a, b)]);
        // A second for each.
        assert_eq!(arrived[0], [NOW + ms(1_020), NOW + ms(2_020)]);
    }

    #[test]
    fn the_direct_way_has_queues_of_its_own() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| link.rate_bps = Some(1_024_000));
        for _ in 0..10 {
            network.pass(NOW, a, b, 100);
        }
        assert_eq!(network.transit(NOW, a, b, Side::Direct, 100).delay, Some(ms(11)));
        assert_eq!(network.pass(NOW, a, b, 100).delay, Some(ms(21)));
    }

    #[test]
    fn what_is_under_way_keeps_its_way() {
        let (mut network, a, b) = two();
        network
            .share([LinkModel { rate_bps: Some(1_024_000), ..LinkModel::default() }].into_iter());
        network.set_route(a, b, Some(vec![0]));
        let fate = network.pass(NOW, a, b, 100);
        assert_eq!(fate.delay, Some(ms(10)));
        network.set_route(a, b, None);
        let there = NOW + ms(10);
        assert_eq!(network.go_on(there, fate.rest.clone().unwrap()).delay, Some(ms(11)));
        network.set_shared(0, |link| link.up = false);
        assert_eq!(network.go_on(there, fate.rest.unwrap()), Fate::default());
    }

    fn two() -> (Network, IpAddr, IpAddr) {
        let network = Network::new(LinkModel::default(), Rng::new([3; 32]));
        (network, "192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap())
    }

    fn lost(network: &mut Network, from: IpAddr, to: IpAddr, of: u64) -> usize {
        let at = |i| NOW + Duration::from_millis(i * 10);
        (0..of).filter(|&i| network.pass(at(i), from, to, 100).delay.is_none()).count()
    }

    #[test]
    fn outages_loss_and_size_limits_apply_to_one_direction() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| link.up = false);
        assert_eq!(network.pass(NOW, a, b, 100), Fate::default());
        assert_eq!(network.pass(NOW, b, a, 100).delay, Some(Duration::from_millis(10)));
        assert_eq!(network.pass(NOW, b, a, 1473), Fate::default());
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
        let delays: Vec<_> = (0..30).filter_map(|_| network.pass(NOW, a, b, 100).delay).collect();
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
        assert_eq!(network.pass(NOW, a, b, 9).delay, Some(Duration::from_millis(30)));
        network.set_shared(0, |link| link.up = false);
        assert_eq!(network.pass(NOW, a, b, 9), Fate::default());
        assert_eq!(network.pass(NOW, b, a, 9).delay, Some(Duration::from_millis(20)));
        let truth = network.truth(NOW, a, b);
        assert!(!truth.up && truth.loss == 1.0);
        network.set_route(b, a, None);
        assert_eq!(network.pass(NOW, b, a, 9), Fate::default());
    }

    #[test]
    fn what_is_doubled_or_corrupted_says_so() {
        let (mut network, a, b) = two();
        network.set(a, b, |link| (link.duplicate, link.corrupt) = (1.0, 1.0));
        let fate = network.pass(NOW, a, b, 9);
        assert!(fate.again >= fate.delay && fate.corrupt);
    }
}
