//! What becomes of nodes, besides what they do themselves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{BoxModel, Happening, Middlebox, NodeNumber, Simulator};
use crate::id::UplinkIndex;
use crate::node::Node;
use crate::time::Instant;

impl Simulator {
    /// Stops a node without a word, as `kill -9` would.
    pub fn kill(&mut self, number: NodeNumber) {
        let slot = &mut self.nodes[number];
        let Some(node) = slot.node.take() else { return };
        slot.timestamp_floor = slot.timestamp_floor.max(node.last_handshake_timestamp());
        slot.armed = None;
        slot.backlog.clear();
    }

    /// Starts a stopped node: a new incarnation that knows nothing but its configuration, and the
    /// handshake timestamp that its predecessor left.
    pub fn start(&mut self, number: NodeNumber) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let slot = &mut self.nodes[number];
        let (now, wall) = (slot.clock.local(self.now), slot.wall(self.now));
        slot.incarnation += 1;
        let mut config = slot.config.clone();
        config.epoch = wall.0.max(config.epoch + slot.incarnation);
        config.last_handshake_timestamp = slot.timestamp_floor;
        slot.node = Some(Node::new(config, seed, now, wall));
        slot.armed = None;
        self.arm(number);
    }

    /// A node does nothing for `duration` from now on: its host is busy. What comes meanwhile waits.
    pub fn freeze(&mut self, number: NodeNumber, duration: Duration) {
        let until = self.now + duration;
        self.nodes[number].frozen_until = until;
        self.schedule(until, Happening::Thaw { node: number });
    }

    /// A node's calendar is set anew; its monotonic clock runs on.
    pub fn set_calendar(&mut self, number: NodeNumber, ahead_ns: i64) {
        self.nodes[number].clock.wall_ahead_ns = ahead_ns;
    }

    /// Puts a middlebox before an uplink; peers see its outside address.
    pub fn put_box(
        &mut self,
        number: NodeNumber,
        uplink: UplinkIndex,
        model: BoxModel,
        address: IpAddr,
    ) {
        let inside = self.nodes[number].config.uplinks[uplink.usize()].listen;
        let middlebox = Middlebox::new(model, inside, address);
        self.owners.remove(&inside);
        self.outsides.insert(address, (number, uplink));
        self.nodes[number].boxes[uplink.usize()] = Some(middlebox);
    }

    /// The middleboxes of a node forget everything.
    pub fn reset_boxes(&mut self, number: NodeNumber) {
        self.nodes[number].boxes.iter_mut().flatten().for_each(Middlebox::reset);
    }

    /// An operator tells a running node something.
    pub fn operate(&mut self, number: NodeNumber, act: impl FnOnce(&mut Node, Instant)) {
        let slot = &mut self.nodes[number];
        let now = slot.clock.local(self.now);
        if let Some(node) = &mut slot.node {
            act(node, now);
            self.arm(number);
        }
    }

    /// Moves an uplink of a node to another address, as a NAT on the way or a new lease does.
    pub fn readdress(&mut self, number: NodeNumber, uplink: UplinkIndex, address: SocketAddr) {
        let listen = &mut self.nodes[number].config.uplinks[uplink.usize()].listen;
        self.owners.remove(&std::mem::replace(listen, address));
        self.owners.insert(address, (number, uplink));
    }
}
