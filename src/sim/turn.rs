//! One turn of a node: what comes in, what comes out of it, and where that goes.

use super::audit::{Books, Read};
use super::network::{RelayFault, happens};
use super::{Arriving, BACKLOG_MAX, Delivery, Frame, Happening, NodeNumber, RX_SLOTS, Simulator};
use crate::batch::{BUFFER_LEN, RxBatch, RxSlot};
use crate::node::{Node, TunVerdict};
use crate::packet::{Gso, Headers, Segmenter, Vnet, checksum};
use crate::time::Instant;

/// Buffers that are kept for another use: how many, and how long ones.
const SPARE_MAX: usize = 4_096;
const SPARE_LEN: usize = 512;
/// Longest IP packet.
const PACKET_MAX: usize = 65_535;

/// What a turn began with; the audit wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    /// Frames from the TUN.
    Frames(&'a Read),
    /// Datagrams.
    Datagrams(&'a [Arriving]),
    /// A deadline.
    Timer,
}

impl Simulator {
    /// From now on a node does this to what it relays.
    pub fn set_relay_fault(&mut self, number: NodeNumber, fault: RelayFault) {
        self.nodes[number].relay_fault = fault;
    }

    /// A host behind `number` sends a frame with an offload header.
    pub fn send_frame(&mut self, number: NodeNumber, packet: &[u8], vnet: Vnet) {
        self.send_frames(number, vec![(packet.to_vec(), vnet)]);
    }

    /// Hosts behind `number` send frames that the gateway reads in one turn.
    pub fn send_frames(&mut self, number: NodeNumber, frames: Vec<Frame>) {
        let now = self.local(number);
        let before = self.deliveries.len();
        let read = self.audit.as_ref().map_or_else(Read::default, |_| Read::of(&frames));
        let Some(node) = self.nodes[number].node.as_mut() else { return };
        if let Some(audit) = &mut self.audit {
            audit.begin(Books::of(node));
        }
        for (mut frame, vnet) in frames {
            self.make_room(number);
            let Some(node) = self.nodes[number].node.as_mut() else { return };
            let mut verdict = node.handle_tun_frame(now, &mut frame, vnet, &mut self.out);
            while verdict == TunVerdict::Flush {
                self.flush(number);
                let Some(node) = self.nodes[number].node.as_mut() else { return };
                verdict = node.resume_tun_frame(now, &mut frame, &mut self.out);
            }
            if let TunVerdict::WriteBack(vnet) = verdict {
                self.deliver(number, frame, &vnet);
            }
        }
        self.end_turn(number, before, Input::Frames(&read));
    }

    pub(super) fn carry_out(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { node, arriving } => self.arrive(node, arriving),
            Happening::Timer { node } => self.wake(node),
            Happening::Thaw { node } => self.thaw(node),
            Happening::Leaves { node, target, bytes } => self.transmit(node, target, bytes),
            Happening::GoesOn(going_on) => self.go_on(*going_on),
        }
    }

    /// A datagram is at the socket, and those that come at the same instant.
    fn arrive(&mut self, number: NodeNumber, first: Arriving) {
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut next = Some(first);
        while let Some(arriving) = next {
            self.admit(number, arriving, &mut arrived);
            next = self.next_with_it(number);
        }
        self.receive(number, &mut arrived);
        self.arrived = arrived;
    }

    /// Whether the node reads a datagram now, or later, or never.
    fn admit(&mut self, number: NodeNumber, arriving: Arriving, arrived: &mut Vec<Arriving>) {
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
            arrived.push(arriving);
        } else if slot.backlog.len() < BACKLOG_MAX {
            slot.backlog.push_back(arriving);
        }
    }

    /// The node reads datagrams, in as many turns as it takes.
    fn receive(&mut self, number: NodeNumber, arrived: &mut Vec<Arriving>) {
        let mut done = 0;
        while done < arrived.len() {
            let slot = &mut self.nodes[number];
            let Some(node) = slot.node.as_mut() else { break };
            let clock = slot.clock;
            let taken = fill(&mut self.rx, &arrived[done..], |at| clock.local(at));
            self.carried += taken as u64;
            if let Some(audit) = &mut self.audit {
                audit.begin(Books::of(node));
            }
            node.handle_datagrams(clock.local(self.now), &mut self.rx, &mut self.out);
            let input = Input::Datagrams(&arrived[done..done + taken]);
            self.end_turn(number, self.deliveries.len(), input);
            done += taken;
        }
        for arriving in arrived.drain(..) {
            keep(&mut self.spare, arriving.bytes);
        }
    }

    fn thaw(&mut self, number: NodeNumber) {
        if self.nodes[number].frozen_until > self.now {
            return;
        }
        let mut waiting: Vec<_> = self.nodes[number].backlog.drain(..).collect();
        self.receive(number, &mut waiting);
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
            audit.begin(Books::of(node));
        }
        node.handle_timeout(now, wall, &mut self.out);
        self.count_turn(number);
        self.end_turn(number, self.deliveries.len(), Input::Timer);
    }

    fn end_turn(&mut self, number: NodeNumber, deliveries_before: usize, input: Input<'_>) {
        let now = self.local(number);
        self.turn_count += 1;
        self.make_room(number);
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
        let sent = std::mem::take(&mut self.sent);
        if let (Some(audit), Some(node)) = (&mut self.audit, &self.nodes[number].node) {
            let delivered = &self.deliveries[deliveries_before..];
            audit.end(self.now, number, input, Books::of(node), sent, delivered);
        }
        self.out.clear();
        self.arm(number);
    }

    /// Sends what waits when there may not be room for more.
    fn make_room(&mut self, number: NodeNumber) {
        if !self.out.tx.has_room(Node::TX_HEADROOM) {
            self.flush(number);
        }
    }

    /// Sends what waits in the send batch.
    fn flush(&mut self, number: NodeNumber) {
        let mut datagrams = std::mem::take(&mut self.leaving);
        for transmit in self.out.tx.transmits() {
            self.sent.add(transmit.segments as u64, transmit.bytes().len() as u64);
            for bytes in transmit.bytes().chunks(transmit.stride) {
                if let Some(audit) = &mut self.audit {
                    audit.sealed(bytes);
                }
                datagrams.push((transmit.target, copy(&mut self.spare, bytes)));
            }
        }
        self.out.tx.clear();
        for (target, bytes) in datagrams.drain(..) {
            self.transmit(number, target, bytes);
        }
        self.leaving = datagrams;
    }

    /// Carries out what a node's turn brought forth.
    fn collect(&mut self, number: NodeNumber) {
        self.flush(number);
        let mut datagrams = std::mem::take(&mut self.leaving);
        let fault = self.nodes[number].relay_fault;
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let buffer = &self.rx.slots[forward.slot as usize].buffer[range];
            for bytes in buffer.chunks(forward.stride as usize) {
                self.sent.add(1, bytes.len() as u64);
                if let Some(audit) = &mut self.audit {
                    audit.relayed(bytes);
                }
                if !happens(fault.loss, &mut self.rng) {
                    datagrams.push((forward.target, copy(&mut self.spare, bytes)));
                }
            }
        }
        for index in 0..self.out.tun_writes.len() {
            let write = &self.out.tun_writes[index];
            let mut packet = Vec::new();
            for part in &self.out.parts[write.parts.clone()] {
                packet.extend_from_slice(self.out.part(&self.rx, *part));
            }
            let vnet = write.vnet;
            self.deliver(number, packet, &vnet);
        }
        for (target, bytes) in datagrams.drain(..) {
            if fault.delay.is_zero() {
                self.transmit(number, target, bytes);
            } else {
                let leaves = Happening::Leaves { node: number, target, bytes };
                self.schedule(self.now + fault.delay, leaves);
            }
        }
        self.leaving = datagrams;
    }

    /// A frame comes out of the TUN; the kernel cuts it and completes its checksums.
    fn deliver(&mut self, node: NodeNumber, mut frame: Vec<u8>, vnet: &Vnet) {
        let at = self.now;
        let Ok(headers) = Headers::parse(&frame) else {
            return self.deliveries.push(Delivery { at, node, packet: frame });
        };
        if vnet.gso == Gso::None {
            let _ = checksum::complete_partial(&mut frame, &headers, vnet);
            return self.deliveries.push(Delivery { at, node, packet: frame });
        }
        let Ok(segmenter) = Segmenter::new(&frame, &headers, *vnet, PACKET_MAX) else {
            return self.deliveries.push(Delivery { at, node, packet: frame });
        };
        for index in 0..segmenter.count() {
            let mut packet = vec![0; segmenter.segment_len(index)];
            segmenter.write(index, &mut packet);
            self.deliveries.push(Delivery { at, node, packet });
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

/// Puts datagrams into receive buffers as the kernel does: those in a row from one sender that are
/// equally long share one. Returns how many found room.
fn fill(rx: &mut RxBatch, arrived: &[Arriving], local: impl Fn(Instant) -> Instant) -> usize {
    rx.filled = 0;
    for (index, arriving) in arrived.iter().enumerate() {
        let len = arriving.bytes.len();
        let joins = index > 0
            && takes(&rx.slots[rx.filled - 1], arriving)
            && rx.slots[rx.filled - 1].received_at == Some(local(arriving.at));
        if !joins {
            if rx.filled == RX_SLOTS {
                return index;
            }
            let slot = &mut rx.slots[rx.filled];
            (slot.len, slot.stride) = (0, len);
            (slot.uplink, slot.source, slot.tos) = (arriving.uplink, arriving.source, 0);
            slot.received_at = Some(local(arriving.at));
            rx.filled += 1;
        }
        let slot = &mut rx.slots[rx.filled - 1];
        slot.buffer[slot.len..slot.len + len].copy_from_slice(&arriving.bytes);
        slot.len += len;
    }
    arrived.len()
}

/// True when a datagram may stand behind those in the buffer.
fn takes(slot: &RxSlot, arriving: &Arriving) -> bool {
    let len = arriving.bytes.len();
    slot.len.is_multiple_of(slot.stride)
        && len <= slot.stride
        && slot.len + len <= BUFFER_LEN
        && (slot.uplink, slot.source) == (arriving.uplink, arriving.source)
}

/// Keeps a buffer for another use, unless it is long, as few datagrams are, or there are enough.
pub(super) fn keep(spare: &mut Vec<Vec<u8>>, bytes: Vec<u8>) {
    if spare.len() < SPARE_MAX && bytes.capacity() <= SPARE_LEN {
        spare.push(bytes);
    }
}

/// A copy in a buffer that was used before, if there is one.
fn copy(spare: &mut Vec<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    let mut copy = spare.pop().unwrap_or_default();
    copy.clear();
    copy.extend_from_slice(bytes);
    copy
}
