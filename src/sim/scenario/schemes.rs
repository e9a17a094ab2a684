//! Schemes that are models: they are asked at the same instants, and see the same underlay, as the
//! real nodes.

use std::collections::VecDeque;
use std::time::Duration;

use super::pending::PATIENCE;
use crate::rng::Rng;
use crate::sim::Truth;
use crate::time::Instant;

/// The true state of all directed pairs at one instant.
pub(super) struct Matrix {
    nodes: usize,
    pub(super) at: Instant,
    ways: Vec<Truth>,
}

impl Matrix {
    pub(super) fn new(at: Instant, nodes: usize, ways: Vec<Truth>) -> Self {
        Self { nodes, at, ways: ways.into_iter().map(in_time).collect() }
    }

    fn loss(&self, way: &[usize]) -> f64 {
        1.0 - way.windows(2).map(|hop| 1.0 - self.hop(hop).loss).product::<f64>()
    }

    fn delay(&self, way: &[usize]) -> Duration {
        way.windows(2).map(|hop| self.hop(hop).delay).sum()
    }

    fn hop(&self, hop: &[usize]) -> &Truth {
        &self.ways[hop[0] * self.nodes + hop[1]]
    }

    /// True when a datagram of now passes; each is a draw of its own.
    fn passes(&self, way: &[usize], rng: &mut Rng) -> Option<Duration> {
        let passes = !rng.chance(self.loss(way));
        passes.then(|| self.delay(way)).filter(|delay| *delay <= PATIENCE)
    }

    /// The way with the least loss, and of those the fastest, with at most one relay.
    fn best(&self, a: usize, b: usize) -> Vec<usize> {
        let relays = (0..self.nodes).filter(|&r| r != a && r != b);
        let mut best = vec![a, b];
        for relay in relays {
            let way = [a, relay, b];
            if self.better(&way, &best) {
                best = way.to_vec();
            }
        }
        best
    }

    fn best_of_two_hops(&self, a: usize, b: usize) -> Vec<usize> {
        let others = || (0..self.nodes).filter(move |&r| r != a && r != b);
        let mut best = self.best(a, b);
        for first in others() {
            for second in others().filter(|&second| second != first) {
                let way = [a, first, second, b];
                if self.better(&way, &best) {
                    best = way.to_vec();
                }
            }
        }
        best
    }

    fn better(&self, a: &[usize], b: &[usize]) -> bool {
        let (loss, than) = (self.loss(a), self.loss(b));
        loss < than || loss == than && self.delay(a) < self.delay(b)
    }
}

/// What takes too long is as good as down.
fn in_time(way: Truth) -> Truth {
    if way.delay <= PATIENCE { way } else { Truth { loss: 1.0, ..way } }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// How long it took, if it arrived.
    pub(super) delay: Option<Duration>,
    /// Which of two copies were lost, when there were two.
    pub(super) lost: Option<[bool; 2]>,
}

impl From<Option<Duration>> for Sent {
    fn from(delay: Option<Duration>) -> Self {
        Self { delay, lost: None }
    }
}

/// A model of how to send one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Direct,
    Random(u8),
    Best,
    TwoHop,
    Late(u16),
    Twice,
    Copies,
    Any,
}

impl Scheme {
    /// Reads a scheme's name.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "schemes: {name} is none of direct, overlay, random-1 to random-255, best, \
                 two-hop, late-1 to late-3600 (seconds), twice, copies, any"
            )
        };
        let numbered = |prefix: &str, most: u16| {
            let number = name.strip_prefix(prefix)?.parse().ok()?;
            (1..=most).contains(&number).then_some(number)
        };
        Ok(match name {
            "direct" => Self::Direct,
            "best" => Self::Best,
            "two-hop" => Self::TwoHop,
            "twice" => Self::Twice,
            "copies" => Self::Copies,
            "any" => Self::Any,
            _ => match (numbered("random-", 255), numbered("late-", 3_600)) {
                (Some(k), _) => Self::Random(k as u8),
                (_, Some(seconds)) => Self::Late(seconds),
                _ => return Err(wrong()),
            },
        })
    }

    /// How old the oldest matrix is that is needed.
    pub(super) fn memory(self) -> Duration {
        match self {
            Self::Late(seconds) => Duration::from_secs(u64::from(seconds)),
            Self::Direct
            | Self::Random(_)
            | Self::Best
            | Self::TwoHop
            | Self::Twice
            | Self::Copies
            | Self::Any => Duration::ZERO,
        }
    }

    /// One packet from `a` to `b`. The last matrix is of now.
    pub(super) fn send(
        self,
        a: usize,
        b: usize,
        matrices: &VecDeque<Matrix>,
        rng: &mut Rng,
    ) -> Sent {
        let Some(now) = matrices.back() else { return Sent::default() };
        let direct = [a, b];
        match self {
            Self::Direct => now.passes(&direct, rng).into(),
            Self::Best => now.passes(&now.best(a, b), rng).into(),
            Self::TwoHop => now.passes(&now.best_of_two_hops(a, b), rng).into(),
            Self::Late(_) => {
                let known = |matrix: &&Matrix| now.at - matrix.at >= self.memory();
                let then = matrices.iter().rev().find(known).or_else(|| matrices.front());
                then.and_then(|then| now.passes(&then.best(a, b), rng)).into()
            }
            Self::Random(k) => {
                let via = |rng: &mut Rng| {
                    let mut relays = relays(now.nodes, a, b, usize::from(k), rng).into_iter();
                    relays.find_map(|relay| now.passes(&[a, relay, b], rng))
                };
                now.passes(&direct, rng).or_else(|| via(rng)).into()
            }
            Self::Any => {
                let mut relays = (0..now.nodes).filter(|&r| r != a && r != b);
                let direct = now.passes(&direct, rng);
                direct.or_else(|| relays.find_map(|relay| now.passes(&[a, relay, b], rng))).into()
            }
            Self::Twice => both(now.passes(&direct, rng), now.passes(&direct, rng)),
            Self::Copies => {
                let relay = relays(now.nodes, a, b, 1, rng);
                let first = now.passes(&direct, rng);
                let second = relay.first().and_then(|&relay| now.passes(&[a, relay, b], rng));
                both(first, second)
            }
        }
    }
}

fn both(first: Option<Duration>, second: Option<Duration>) -> Sent {
    let delay = [first, second].into_iter().flatten().min();
    Sent { delay, lost: Some([first.is_none(), second.is_none()]) }
}

/// `k` different relays between `a` and `b`, by chance; fewer when there are fewer.
fn relays(nodes: usize, a: usize, b: usize, k: usize, rng: &mut Rng) -> Vec<usize> {
    let mut all: Vec<usize> = (0..nodes).filter(|&r| r != a && r != b).collect();
    let k = k.min(all.len());
    for at in 0..k {
        let other = at + rng.below((all.len() - at) as u32) as usize;
        all.swap(at, other);
    }
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four nodes; the given hops are dead, all others lose nothing and take 10 ms.
    fn matrices(dead: &[(usize, usize)]) -> VecDeque<Matrix> {
        let way = |index: usize| {
            let up = !dead.contains(&(index / 4, index % 4));
            let loss = if up { 0.0 } else { 1.0 };
            Truth { up, loss, delay: Duration::from_millis(10) }
        };
        VecDeque::from([Matrix::new(Instant::ZERO, 4, (0..16).map(way).collect())])
    }

    fn arrives(scheme: &str, dead: &[(usize, usize)]) -> bool {
        let mut rng = Rng::new([1; 32]);
        Scheme::parse(scheme).unwrap().send(0, 1, &matrices(dead), &mut rng).delay.is_some()
    }

    #[test]
    fn each_scheme_finds_the_ways_that_it_may_take() {
        let direct_dead = [(0, 1)];
        let only_two_relays = [(0, 1), (2, 1), (0, 3)];
        for (scheme, relayed, twice) in [
            ("direct", false, false),
            ("random-2", true, false),
            ("best", true, false),
            ("late-1", true, false),
            ("copies", true, false),
            ("any", true, false),
            ("two-hop", true, true),
        ] {
            assert!(arrives(scheme, &[]), "{scheme}");
            assert_eq!(arrives(scheme, &direct_dead), relayed, "{scheme}");
            assert_eq!(arrives(scheme, &only_two_relays), twice, "{scheme}");
        }
        assert!(Scheme::parse("random-0").is_err() && Scheme::parse("bset").is_err());
    }

    #[test]
    fn a_late_scheme_takes_the_way_that_was_good() {
        let mut all = matrices(&[]);
        let later = matrices(&[(0, 1)]).remove(0).unwrap();
        all.push_back(Matrix { at: Instant::ZERO + Duration::from_secs(5), ..later });
        let mut rng = Rng::new([1; 32]);
        assert_eq!(Scheme::Late(5).send(0, 1, &all, &mut rng).delay, None);
        assert!(Scheme::Best.send(0, 1, &all, &mut rng).delay.is_some());
    }
}
