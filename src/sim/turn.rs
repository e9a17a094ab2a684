//! One turn of a node: what comes in, what comes out of it, and where that goes.

use super::{Arriving, BACKLOG_MAX, Delivery, Happening, NodeNumber, Simulator, Tapped};
use crate::batch::Target;
use crate::node::{Node, TunVerdict};
use crate::packet::{Headers, Vnet, checksum};
use crate::time::Instant;

/// What a turn began with; the audit wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    /// A frame from the TUN.
    Frame,
    /// A datagram.
    Datagram(&'a [u8]),
    /// A deadline.
    Timer,
}

impl Simulator {
    /// A host behind `number` sends a frame with an offload header.
    pub fn send_frame(&mut self, number: NodeNumber, packet: &[u8], vnet: Vnet) {
        let mut frame = packet.to_vec();
        let now = self.local(number);
        let Some(node) = self.nodes[number].node.as_mut() else { return };
        if let Some(audit) = &mut self.audit {
            audit.begin(node.counters());
        }
        let verdict = node.handle_tun_frame(now, &mut frame, vnet, &mut self.out);
        debug_assert_ne!(verdict, TunVerdict::Flush, "one frame fits into an empty batch");
        let before = self.deliveries.len();
        if let TunVerdict::WriteBack(_) = verdict {
            self.deliveries.push(Delivery { at: self.now, node: number, packet: frame });
        }
        self.end_turn(number, before, Input::Frame);
    }

    pub(super) fn carry_out(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { node, arriving } => self.arrive(node, arriving),
            Happening::Timer { node } => self.wake(node),
            Happening::Thaw { node } => self.thaw(node),
        }
    }

    /// A datagram is at the socket.
    fn arrive(&mut self, number: NodeNumber, arriving: Arriving) {
        let slot = &mut self.nodes[number];
        if slot.node.is_none() {
            return;
        }
        if arriving.at_port != 0
            && let Some(middlebox) = &mut slot.boxes[arriving.uplink.usize()]
            && !middlebox.inbound(self.now, arriving.source, arriving.at_port)
        {
            return;
        }
        if slot.frozen_until <= self.now {
            return self.receive(number, self.now, &arriving);
        }
        if slot.backlog.len() < BACKLOG_MAX {
            slot.backlog.push_back((self.now, arriving));
        }
    }

    /// The node reads a datagram that arrived then.
    fn receive(&mut self, number: NodeNumber, arrived: Instant, arriving: &Arriving) {
        let slot = &mut self.nodes[number];
        let Some(node) = slot.node.as_mut() else { return };
        self.carried += 1;
        let (now, bytes) = (slot.clock.local(self.now), &arriving.bytes);
        let place = &mut self.rx.slots[0];
        place.buffer[..bytes.len()].copy_from_slice(bytes);
        place.len = bytes.len();
        place.stride = bytes.len();
        place.uplink = arriving.uplink;
        place.source = arriving.source;
        place.tos = 0;
        place.received_at = Some(slot.clock.local(arrived));
        self.rx.filled = 1;
        if let Some(audit) = &mut self.audit {
            audit.begin(node.counters());
        }
        node.handle_datagrams(now, &mut self.rx, &mut self.out);
        self.end_turn(number, self.deliveries.len(), Input::Datagram(bytes));
    }

    fn thaw(&mut self, number: NodeNumber) {
        if self.nodes[number].frozen_until > self.now {
            return;
        }
        while let Some((arrived, arriving)) = self.nodes[number].backlog.pop_front() {
            self.receive(number, arrived, &arriving);
        }
        self.arm(number);
    }

    fn wake(&mut self, number: NodeNumber) {
        let global = self.now;
        let slot = &mut self.nodes[number];
        // Another timer took the place of this one.
        if slot.armed != Some(global) {
            return;
        }
        slot.armed = None;
        if slot.frozen_until > global {
            return;
        }
        let (now, wall) = (slot.clock.local(global), slot.wall(global));
        let Some(node) = slot.node.as_mut() else { return };
        if node.poll_timeout().is_none_or(|(due, _)| due > now) {
            return self.arm(number);
        }
        if let Some(audit) = &mut self.audit {
            audit.begin(node.counters());
        }
        node.handle_timeout(now, wall, &mut self.out);
        self.count_turn(number);
        self.end_turn(number, self.deliveries.len(), Input::Timer);
    }

    fn end_turn(&mut self, number: NodeNumber, deliveries_before: usize, input: Input<'_>) {
        let now = self.local(number);
        if let Some(node) = self.nodes[number].node.as_mut() {
            node.end_turn(now, &mut self.rx, &mut self.out);
            while let Some(event) = node.poll_event() {
                if let Some(events) = &mut self.events {
                    events.push((self.now, number, event));
                }
            }
        }
        self.rx.filled = 0;
        self.collect(number);
        if let (Some(audit), Some(node)) = (&mut self.audit, &self.nodes[number].node) {
            let delivered = &self.deliveries[deliveries_before..];
            audit.end(self.now, number, input, node.counters(), &self.out, delivered);
        }
        self.out.clear();
        self.arm(number);
    }

    /// Carries out what a node's turn brought forth.
    fn collect(&mut self, number: NodeNumber) {
        let mut datagrams = std::mem::take(&mut self.leaving);
        for transmit in self.out.tx.transmits() {
            for bytes in transmit.bytes().chunks(transmit.stride) {
                datagrams.push((transmit.target, bytes.to_vec()));
            }
        }
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let buffer = &self.rx.slots[forward.slot as usize].buffer[range];
            for bytes in buffer.chunks(forward.stride as usize) {
                datagrams.push((forward.target, bytes.to_vec()));
            }
        }
        for write in &self.out.tun_writes {
            let mut packet = Vec::new();
            for part in &self.out.parts[write.parts.clone()] {
                packet.extend_from_slice(self.out.part(&self.rx, *part));
            }
            // The kernel does it when the packet leaves.
            if let Ok(headers) = Headers::parse(&packet) {
                let _ = checksum::complete_partial(&mut packet, &headers, &write.vnet);
            }
            self.deliveries.push(Delivery { at: self.now, node: number, packet });
        }
        for (target, bytes) in datagrams.drain(..) {
            self.transmit(number, target, bytes);
        }
        self.leaving = datagrams;
    }

    /// A datagram leaves a node: through its middlebox, over the network, to whoever owns the
    /// destination.
    fn transmit(&mut self, number: NodeNumber, target: Target, mut bytes: Vec<u8>) {
        let slot = &mut self.nodes[number];
        let mut source = slot.config.uplinks[target.uplink.usize()].listen;
        if let Some(middlebox) = &mut slot.boxes[target.uplink.usize()] {
            source = middlebox.outbound(self.now, target.destination);
        }
        let destination = target.destination;
        if let Some(audit) = &mut self.audit {
            audit.on_wire(self.now, number, &bytes);
        }
        if let Some(tap) = &mut self.tap {
            tap.push(Tapped { source, destination, bytes: bytes.clone() });
        }
        let ((node, uplink), at_port) = match self.owners.get(&destination) {
            Some(owner) => (*owner, 0),
            None => match self.outsides.get(&destination.ip()) {
                Some(owner) => (*owner, destination.port()),
                None => return,
            },
        };
        let fate = self.network.transit(self.now, source.ip(), destination.ip(), bytes.len());
        if fate.corrupt {
            let bit = self.rng.below(bytes.len() as u32 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        if let Some(delay) = fate.again {
            let arriving = Arriving { uplink, source, at_port, bytes: bytes.clone() };
            self.schedule(self.now + delay, Happening::Datagram { node, arriving });
        }
        if let Some(delay) = fate.delay {
            let arriving = Arriving { uplink, source, at_port, bytes };
            self.schedule(self.now + delay, Happening::Datagram { node, arriving });
        }
    }

    fn count_turn(&mut self, number: NodeNumber) {
        let (last, at, count) = self.turns;
        let count = if (last, at) == (number, self.now) { count + 1 } else { 1 };
        self.turns = (number, self.now, count);
        self.most_turns = self.most_turns.max(count);
        assert!(count < 10_000, "node {number} stands still at {}", self.now);
    }

    pub(super) fn arm(&mut self, number: NodeNumber) {
        let slot = &mut self.nodes[number];
        let Some((deadline, _why)) = slot.node.as_ref().and_then(Node::poll_timeout) else {
            return;
        };
        let due = slot.clock.global(deadline).max(self.now);
        // One that comes too early finds nothing to do and arms the next.
        if slot.armed.is_none_or(|armed| armed > due) {
            slot.armed = Some(due);
            self.schedule(due, Happening::Timer { node: number });
        }
    }
}
