//! An underlay of autonomous systems, as GT-ITM makes it: transit domains whose routers carry stub
//! domains (Zegura, Calvert, Bhattacharjee: How to Model an Internetwork, INFOCOM 1996).
//!
//! A link is shared by all routes over it, so one that breaks hurts many pairs at once. Routes obey
//! policy: a stub domain carries no transit, so a peering link between two stub domains serves only
//! those two. That is why an overlay finds ways that routing does not offer. When a link breaks,
//! routes stay as they are until [`Underlay::reroute`]: routing protocols take minutes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

use super::network::{LinkModel, Network};
use crate::rng::Rng;

/// The parameters of a topology, named as in GT-ITM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransitStub {
    /// Transit domains.
    pub transit_domains: u32,
    /// Routers of each transit domain.
    pub transit_routers: u32,
    /// Stub domains of each transit router.
    pub stubs: u32,
    /// Routers of each stub domain.
    pub stub_routers: u32,
    /// Further links from stub domains to transit routers: multihoming.
    pub extra_transit: u32,
    /// Peering links between stub domains.
    pub peerings: u32,
    /// Chance of a link between two routers of a domain beyond those that connect it.
    pub density: f64,
}

impl TransitStub {
    /// 6,510 routers.
    pub const LARGE: Self = Self {
        transit_domains: 10,
        transit_routers: 21,
        stubs: 3,
        stub_routers: 10,
        extra_transit: 200,
        peerings: 400,
        density: 0.2,
    };

    /// 124 routers.
    pub const SMALL: Self = Self {
        transit_domains: 2,
        transit_routers: 2,
        stubs: 6,
        stub_routers: 5,
        extra_transit: 6,
        peerings: 12,
        density: 0.3,
    };

    /// How many routers that makes.
    pub const fn routers(&self) -> u32 {
        self.transit_domains * self.transit_routers * (1 + self.stubs * self.stub_routers)
    }
}

impl Default for TransitStub {
    fn default() -> Self {
        Self::SMALL
    }
}

/// What a link between routers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Inside a domain.
    Internal,
    /// Between transit domains.
    Transit,
    /// From a stub domain to its provider.
    Provider,
    /// Between two stub domains; carries nothing for others.
    Peering,
    /// From a node to its first router.
    Access,
}

/// A link in both directions. Its two directed links are `2 * n` and `2 * n + 1` of the network's
/// shared ones.
#[derive(Clone, Copy, Debug)]
struct Edge {
    ends: [u32; 2],
    kind: LinkKind,
    delays: [Duration; 2],
}

/// Routers, links, and where the nodes' addresses are attached.
#[derive(Clone, Debug)]
pub struct Underlay {
    /// The domain of each router; transit domains come first.
    domains: Vec<u32>,
    transit_domains: u32,
    edges: Vec<Edge>,
    attached: Vec<(IpAddr, u32)>,
}

impl Underlay {
    /// A topology drawn by chance.
    pub fn generate(parameters: &TransitStub, rng: &mut Rng) -> Self {
        let mut underlay = Self {
            domains: Vec::new(),
            transit_domains: parameters.transit_domains,
            edges: Vec::new(),
            attached: Vec::new(),
        };
        let mut domain = 0;
        let mut transit = Vec::new();
        for _ in 0..parameters.transit_domains {
            transit.push(underlay.domain(domain, parameters.transit_routers, (3, 15), rng, 0.5));
            domain += 1;
        }
        underlay.join_transit(&transit, rng);
        let mut stubs = Vec::new();
        for provider in transit.iter().flatten().copied().collect::<Vec<_>>() {
            for _ in 0..parameters.stubs {
                let (routers, density) = (parameters.stub_routers, parameters.density);
                let stub = underlay.domain(domain, routers, (1, 3), rng, density);
                domain += 1;
                underlay.link(pick(&stub, rng), provider, LinkKind::Provider, (1, 6), rng);
                stubs.push(stub);
            }
        }
        if stubs.len() > 1 {
            for _ in 0..parameters.extra_transit {
                let (stub, domain) = (rng.below(stubs.len() as u32), pick(&transit, rng));
                let router = pick(&stubs[stub as usize], rng);
                underlay.link(router, pick(&domain, rng), LinkKind::Provider, (1, 10), rng);
            }
            for _ in 0..parameters.peerings {
                let (a, b) = (pick(&stubs, rng), pick(&stubs, rng));
                if a != b {
                    underlay.link(pick(&a, rng), pick(&b, rng), LinkKind::Peering, (1, 10), rng);
                }
            }
        }
        underlay
    }

    /// A connected domain; its routers.
    fn domain(
        &mut self,
        domain: u32,
        routers: u32,
        delay_ms: (u32, u32),
        rng: &mut Rng,
        density: f64,
    ) -> Vec<u32> {
        let first = self.domains.len() as u32;
        let all: Vec<u32> = (first..first + routers).collect();
        for &router in &all {
            self.domains.push(domain);
            if router > first {
                let earlier = first + rng.below(router - first);
                self.link(router, earlier, LinkKind::Internal, delay_ms, rng);
                for other in first..router {
                    if other != earlier && rng.chance(density / f64::from(routers)) {
                        self.link(router, other, LinkKind::Internal, delay_ms, rng);
                    }
                }
            }
        }
        all
    }

    /// Transit domains form a ring with chords.
    fn join_transit(&mut self, transit: &[Vec<u32>], rng: &mut Rng) {
        for (index, domain) in transit.iter().enumerate().skip(1) {
            let back = [index - 1, rng.below(index as u32) as usize];
            for other in back {
                let ends = (pick(domain, rng), pick(&transit[other], rng));
                self.link(ends.0, ends.1, LinkKind::Transit, (5, 40), rng);
            }
        }
        if let [first, .., last] = transit {
            self.link(pick(first, rng), pick(last, rng), LinkKind::Transit, (5, 40), rng);
        }
    }

    fn link(&mut self, a: u32, b: u32, kind: LinkKind, delay_ms: (u32, u32), rng: &mut Rng) {
        let (low, high) = (delay_ms.0 * 1_000, delay_ms.1 * 1_000);
        let delay = u64::from(low + rng.below(high - low + 1));
        // The way back may be up to a fifth longer or shorter.
        let back = delay * (80 + u64::from(rng.below(41))) / 100;
        let delays = [Duration::from_micros(delay), Duration::from_micros(back)];
        self.edges.push(Edge { ends: [a, b], kind, delays });
    }

    /// Attaches an address to a stub router drawn by chance, over an access link of its own.
    pub fn attach(&mut self, address: IpAddr, rng: &mut Rng) {
        let stub = |router: &u32| self.domains[*router as usize] >= self.transit_domains;
        let routers: Vec<u32> = (0..self.domains.len() as u32).filter(stub).collect();
        let at = pick(&routers, rng);
        let router = self.domains.len() as u32;
        self.domains.push(self.domains[at as usize]);
        self.link(router, at, LinkKind::Access, (1, 3), rng);
        self.attached.push((address, router));
    }

    /// Attaches an address where another one is: all links but the last are the same.
    pub fn attach_beside(&mut self, address: IpAddr, beside: IpAddr) {
        let Some(&(_, other)) = self.attached.iter().find(|node| node.0 == beside) else { return };
        let Some(&access) = self.edges.iter().find(|edge| edge.ends[0] == other) else { return };
        let router = self.domains.len() as u32;
        self.domains.push(self.domains[access.ends[1] as usize]);
        self.edges.push(Edge { ends: [router, access.ends[1]], ..access });
        self.attached.push((address, router));
    }

    /// How many routers, attached nodes included.
    pub const fn routers(&self) -> usize {
        self.domains.len()
    }

    /// How many links, each with two directions.
    pub const fn links(&self) -> usize {
        self.edges.len()
    }

    /// What a link is for.
    pub fn kind(&self, link: usize) -> Option<LinkKind> {
        self.edges.get(link).map(|edge| edge.kind)
    }

    /// The links that some attached pair's route uses at present.
    pub fn links_in_use(&self, network: &Network) -> Vec<usize> {
        let mut used = vec![false; self.edges.len()];
        for &(from, _) in &self.attached {
            for &(to, _) in &self.attached {
                for &link in network.route(from, to) {
                    used[link as usize / 2] = true;
                }
            }
        }
        (0..used.len()).filter(|&link| used[link]).collect()
    }

    /// Puts this underlay below a network, with `model` for everything but the delays.
    pub fn lay(&self, network: &mut Network, model: LinkModel) {
        let directions = self.edges.iter().flat_map(|edge| edge.delays);
        network.share(directions.map(|delay| LinkModel { delay, ..model }));
        self.reroute(network);
    }

    /// Changes both directions of a link.
    pub fn set(&self, network: &mut Network, link: usize, change: impl Fn(&mut LinkModel)) {
        network.set_shared(link * 2, &change);
        network.set_shared(link * 2 + 1, &change);
    }

    /// Routing has learnt what is up: every pair gets its shortest way that policy allows.
    pub fn reroute(&self, network: &mut Network) {
        let neighbours = self.neighbours(network);
        for &(from, start) in &self.attached {
            let came_by = self.tree(start, &neighbours);
            for &(to, end) in self.attached.iter().filter(|other| other.1 != start) {
                network.set_route(from, to, way(start, end, &came_by));
            }
        }
    }

    /// For each router: neighbour, directed link, its delay. Only what is up.
    fn neighbours(&self, network: &Network) -> Vec<Vec<(u32, u32, u64)>> {
        let mut neighbours = vec![Vec::new(); self.domains.len()];
        for (index, edge) in self.edges.iter().enumerate() {
            for (direction, [from, to]) in
                [edge.ends, [edge.ends[1], edge.ends[0]]].into_iter().enumerate()
            {
                let link = index * 2 + direction;
                if network.shared(link).is_some_and(|model| model.up) {
                    let weight = edge.delays[direction].as_micros() as u64;
                    neighbours[from as usize].push((to, link as u32, weight));
                }
            }
        }
        neighbours
    }

    /// Shortest ways from `start` to all routers: the link and router by which each is reached.
    fn tree(&self, start: u32, neighbours: &[Vec<(u32, u32, u64)>]) -> Vec<Option<(u32, u32)>> {
        let mut cost = vec![u64::MAX; self.domains.len()];
        let mut came_by = vec![None; self.domains.len()];
        let mut heap = BinaryHeap::from([Reverse((0, start))]);
        cost[start as usize] = 0;
        while let Some(Reverse((so_far, router))) = heap.pop() {
            if so_far > cost[router as usize] {
                continue;
            }
            for &(to, link, weight) in &neighbours[router as usize] {
                let sum = so_far + weight;
                if sum < cost[to as usize] && self.allows(start, router, to) {
                    cost[to as usize] = sum;
                    came_by[to as usize] = Some((link, router));
                    heap.push(Reverse((sum, to)));
                }
            }
        }
        came_by
    }

    /// Policy: whoever entered a stub domain that is not its own stays there.
    fn allows(&self, start: u32, from: u32, to: u32) -> bool {
        let [start, from, to] = [start, from, to].map(|router| self.domains[router as usize]);
        from < self.transit_domains || from == start || to == from
    }
}

/// The links from `start` to `end`, in order.
fn way(start: u32, end: u32, came_by: &[Option<(u32, u32)>]) -> Option<Vec<u32>> {
    let mut links = Vec::new();
    let mut at = end;
    while at != start {
        let (link, from) = came_by[at as usize]?;
        links.push(link);
        at = from;
    }
    links.reverse();
    Some(links)
}

fn pick<T: Clone>(all: &[T], rng: &mut Rng) -> T {
    all[rng.below(all.len() as u32) as usize].clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const NOW: Instant = Instant::from_micros(1);

    fn laid(parameters: &TransitStub, nodes: u8) -> (Underlay, Network, Vec<IpAddr>) {
        let mut rng = Rng::new([5; 32]);
        let mut underlay = Underlay::generate(parameters, &mut rng);
        let addresses: Vec<IpAddr> = (1..=nodes).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        addresses.iter().for_each(|&address| underlay.attach(address, &mut rng));
        let mut network = Network::new(LinkModel::PERFECT, rng.fork());
        underlay.lay(&mut network, LinkModel::default());
        (underlay, network, addresses)
    }

    #[test]
    fn sizes_are_as_the_parameters_say_and_everybody_reaches_everybody() {
        assert_eq!(TransitStub::LARGE.routers(), 6_510);
        assert_eq!(TransitStub::SMALL.routers(), 124);
        let (underlay, mut network, addresses) = laid(&TransitStub::LARGE, 8);
        assert_eq!(underlay.routers(), 6_518);
        for &a in &addresses {
            for &b in addresses.iter().filter(|&&b| b != a) {
                let (there, back) = (network.truth(NOW, a, b), network.truth(NOW, b, a));
                assert!(there.up && there.delay < Duration::from_millis(400), "{there:?}");
                assert!(back.up);
            }
        }
    }

    #[test]
    fn a_stub_domain_carries_no_transit() {
        let (underlay, network, addresses) = laid(&TransitStub::SMALL, 16);
        let domain_at = |link: u32, end: usize| {
            let edge = &underlay.edges[link as usize / 2];
            underlay.domains[edge.ends[end ^ (link as usize & 1)] as usize]
        };
        let mut peered = 0;
        for &a in &addresses {
            for &b in addresses.iter().filter(|&&b| b != a) {
                let route = network.route(a, b);
                let own = [domain_at(route[0], 0), domain_at(route[route.len() - 1], 1)];
                for &link in route {
                    let passes = domain_at(link, 1);
                    assert!(passes < underlay.transit_domains || own.contains(&passes));
                    peered +=
                        usize::from(underlay.kind(link as usize / 2) == Some(LinkKind::Peering));
                }
            }
        }
        assert!(peered > 0, "peering links serve those who have them");
    }

    #[test]
    fn a_broken_link_hurts_several_pairs_until_routing_goes_round_it() {
        let (underlay, mut network, addresses) = laid(&TransitStub::SMALL, 16);
        let broken = |network: &mut Network| {
            let pairs = addresses.iter().flat_map(|&a| addresses.iter().map(move |&b| (a, b)));
            pairs.filter(|&(a, b)| a != b && !network.truth(NOW, a, b).up).count()
        };
        let transit = |link: &usize| underlay.kind(*link) == Some(LinkKind::Transit);
        let link = underlay.links_in_use(&network).into_iter().find(transit).unwrap();
        assert_eq!(broken(&mut network), 0);
        underlay.set(&mut network, link, |model| model.up = false);
        assert!(broken(&mut network) > 2);
        underlay.reroute(&mut network);
        assert_eq!(broken(&mut network), 0, "there are two ways between the transit domains");
    }
}
