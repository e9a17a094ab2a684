//! A few nodes that are joined, for tests that look into them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Node, NodeConfig};
use crate::batch::{Output, RxBatch};
use crate::id::UplinkIndex;
use crate::sim::Mesh;
use crate::time::{Instant, WallClock};

/// What is on its way: to which site and uplink, from where, its datagrams and how long each is.
type Underway = (usize, UplinkIndex, SocketAddr, Vec<u8>, usize);

/// Nodes whose datagrams arrive at once.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    sites: u8,
    uplinks: u8,
}

impl Net {
    /// Sites that have known each other for some seconds.
    pub(super) fn joined(sites: u8, uplinks: u8) -> Self {
        Self::of(sites, uplinks, |_| {})
    }

    /// The same, each with what `change` makes of its configuration.
    pub(super) fn of(sites: u8, uplinks: u8, change: impl Fn(&mut NodeConfig)) -> Self {
        let now = Instant::from_micros(1_000_000);
        let node = |mut config: NodeConfig| {
            change(&mut config);
            Node::new(config, [3; 32], now, WallClock(1))
        };
        let configs = Mesh { sites, uplinks, ..Mesh::default() }.configs();
        let nodes = configs.into_iter().map(node).collect();
        let mut net = Self { nodes, now, sites, uplinks };
        for _ in 0..500 {
            net.now += Duration::from_millis(10);
            for from in 0..net.nodes.len() {
                let mut out = Output::new(64);
                net.nodes[from].handle_timeout(net.now, WallClock(1), &mut out);
                net.deliver(from, &mut out);
            }
        }
        net
    }

    fn end(site: usize, uplink: u8) -> SocketAddr {
        SocketAddr::new(Mesh::underlay(site as u8, uplink), Mesh::PORT)
    }

    fn collect(&self, from: usize, out: &mut Output, underway: &mut VecDeque<Underway>) {
        for sent in out.tx.transmits() {
            let ends = (0..self.sites).flat_map(|site| (0..self.uplinks).map(move |up| (site, up)));
            let is_end =
                |&(site, up): &(u8, u8)| Self::end(site.into(), up) == sent.target.destination;
            if let Some((site, up)) = ends.into_iter().find(is_end) {
                let source = Self::end(from, sent.target.uplink.0);
                let bytes = sent.bytes().to_vec();
                underway.push_back((site.into(), UplinkIndex(up), source, bytes, sent.stride));
            }
        }
        out.clear();
    }

    /// What node `from` put out arrives, and so does all that this causes.
    pub(super) fn deliver(&mut self, from: usize, out: &mut Output) {
        let mut underway = VecDeque::new();
        self.collect(from, out, &mut underway);
        let mut rx = RxBatch::new(1);
        while let Some((to, uplink, source, bytes, stride)) = underway.pop_front() {
            let slot = &mut rx.slots[0];
            slot.buffer[..bytes.len()].copy_from_slice(&bytes);
            (slot.len, slot.stride) = (bytes.len(), stride);
            (slot.uplink, slot.source) = (uplink, source);
            rx.filled = 1;
            self.nodes[to].handle_datagrams(self.now, &mut rx, out);
            self.nodes[to].end_turn(self.now, &mut rx, out);
            self.collect(to, out, &mut underway);
        }
    }
}
