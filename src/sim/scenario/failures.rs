//! What fails by chance, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Failure, FailureKind, Row};
use crate::rng::Rng;
use crate::sim::network::exponential;
use crate::sim::{LinkKind, LinkModel, Network, Underlay};
use crate::time::Instant;

/// A change of one thing: position of the failure, position of the thing.
type Change = (Instant, usize, usize, bool);

/// All failures of a run.
pub(super) struct Failures {
    kinds: Vec<Failure>,
    /// How many things each kind has.
    heap: BinaryHeap<Reverse<Change>>,
    /// The shared links that may fail.
    links: Vec<usize>,
    addresses: Vec<IpAddr>,
    /// What every pair is like.
    pairs: Vec<LinkModel>,
    /// How many failures each shared link and each directed pair suffers, by kind.
    on_link: Vec<Vec<u16>>,
    on_pair: Vec<Vec<u16>>,
    reroutes_after: Option<Duration>,
    reroute_at: Option<Instant>,
}

impl Failures {
    pub(super) fn new(
        kinds: &[Failure],
        addresses: &[IpAddr],
        pairs: Vec<LinkModel>,
        underlay: Option<&Underlay>,
        reroutes_after: Option<Duration>,
        start: Instant,
        rng: &mut Rng,
    ) -> Self {
        let fails = |link: &usize| {
            underlay.and_then(|u| u.kind(*link)).is_some_and(|kind| kind != LinkKind::Access)
        };
        let links: Vec<usize> = (0..underlay.map_or(0, Underlay::links)).filter(fails).collect();
        let nodes = addresses.len();
        let mut heap = BinaryHeap::new();
        for (index, failure) in kinds.iter().enumerate() {
            let things = match failure.what {
                FailureKind::Link => links.len(),
                FailureKind::Pair => nodes * (nodes - 1) / 2,
                FailureKind::OneWay => nodes * nodes,
                FailureKind::Site => nodes,
            };
            for thing in 0..things {
                let at = start + exponential(failure.every, rng);
                heap.push(Reverse((at, index, thing, true)));
            }
        }
        Self {
            on_link: vec![vec![0; kinds.len()]; links.len()],
            on_pair: vec![vec![0; kinds.len()]; nodes * nodes],
            kinds: kinds.to_vec(),
            heap,
            links,
            addresses: addresses.to_vec(),
            pairs,
            reroutes_after,
            reroute_at: None,
        }
    }

    /// Brings the network to `now`.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        network: &mut Network,
        underlay: Option<&Underlay>,
        rng: &mut Rng,
    ) {
        while let Some(&Reverse((at, kind, thing, begins))) = self.heap.peek()
            && at <= now
        {
            self.heap.pop();
            let failure = &self.kinds[kind];
            let mean = if begins { failure.lasts } else { failure.every };
            self.heap.push(Reverse((at + exponential(mean, rng), kind, thing, !begins)));
            self.change(at, kind, thing, begins, network, underlay);
        }
        if self.reroute_at.is_some_and(|at| at <= now) {
            self.reroute_at = None;
            if let Some(underlay) = underlay {
                underlay.reroute(network);
            }
        }
    }

    fn change(
        &mut self,
        at: Instant,
        kind: usize,
        thing: usize,
        begins: bool,
        network: &mut Network,
        underlay: Option<&Underlay>,
    ) {
        let nodes = self.addresses.len();
        let count = |count: &mut u16| *count = if begins { *count + 1 } else { *count - 1 };
        match self.kinds[kind].what {
            FailureKind::Link => {
                count(&mut self.on_link[thing][kind]);
                let Some(underlay) = underlay else { return };
                let base = |model: &mut LinkModel| {
                    let delay = model.delay;
                    (model.up, model.loss) = (true, 0.0);
                    self.suffer(model, &self.on_link[thing]);
                    model.delay = delay;
                };
                underlay.set(network, self.links[thing], base);
                if let (true, Some(after)) = (self.kinds[kind].loss >= 1.0, self.reroutes_after) {
                    self.reroute_at.get_or_insert(at + after);
                }
            }
            FailureKind::Pair => {
                let (a, b) = unordered(thing, nodes);
                for (a, b) in [(a, b), (b, a)] {
                    count(&mut self.on_pair[a * nodes + b][kind]);
                    self.lay(a, b, network);
                }
            }
            FailureKind::OneWay => {
                let (a, b) = (thing / nodes, thing % nodes);
                if a != b {
                    count(&mut self.on_pair[thing][kind]);
                    self.lay(a, b, network);
                }
            }
            FailureKind::Site => {
                for other in (0..nodes).filter(|&other| other != thing) {
                    for (a, b) in [(thing, other), (other, thing)] {
                        count(&mut self.on_pair[a * nodes + b][kind]);
                        self.lay(a, b, network);
                    }
                }
            }
        }
    }

    /// A row of a trace comes true.
    pub(super) fn apply(&mut self, row: &Row, network: &mut Network) {
        let nodes = self.addresses.len();
        if row.from >= nodes || row.to >= nodes {
            return;
        }
        let model = &mut self.pairs[row.from * nodes + row.to];
        (model.up, model.loss) = (row.loss < 1.0, row.loss);
        model.delay = row.delay.unwrap_or(model.delay);
        self.lay(row.from, row.to, network);
    }

    /// Gives the network what one directed pair is like now.
    pub(super) fn lay(&self, a: usize, b: usize, network: &mut Network) {
        let index = a * self.addresses.len() + b;
        let mut model = self.pairs[index];
        self.suffer(&mut model, &self.on_pair[index]);
        network.set(self.addresses[a], self.addresses[b], |link| *link = model);
    }

    fn suffer(&self, model: &mut LinkModel, counts: &[u16]) {
        for (failure, _) in self.kinds.iter().zip(counts).filter(|(_, count)| **count > 0) {
            model.up &= failure.loss < 1.0;
            model.loss = 1.0 - (1.0 - model.loss) * (1.0 - failure.loss);
            model.delay += failure.delay;
        }
    }
}

/// The `index`th pair of different nodes.
const fn unordered(index: usize, nodes: usize) -> (usize, usize) {
    let mut rest = index;
    let mut a = 0;
    while a + 1 < nodes {
        let others = nodes - a - 1;
        if rest < others {
            return (a, a + 1 + rest);
        }
        rest -= others;
        a += 1;
    }
    (0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_once() {
        let all: Vec<_> = (0..6).map(|index| unordered(index, 4)).collect();
        assert_eq!(all, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
    }
}
