//! A datagram's way in: authenticate, then deliver, relay, or understand as control.

use std::net::SocketAddr;
use std::ops::Range;

use super::Node;
use super::deliver::arrived;
use super::peer::arrival_link;
use crate::batch::{Output, Part, RxBatch};
use crate::id::{PeerIndex, UplinkIndex};
use crate::packet::{Coalescer, Ecn};
use crate::path::{Path, PathId};
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;
use crate::wire::{self, DATA_HEADER_LEN, DataHeader, Flags, MessageType, Payload, TAG_LEN};

/// How a datagram came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) slot: usize,
    pub(super) uplink: UplinkIndex,
    pub(super) source: SocketAddr,
    pub(super) tos: u8,
    /// The relay that handed it over, and the node that the relay says it is from.
    pub(super) relay: Option<(PeerIndex, PeerIndex)>,
    /// When the kernel got it, or the turn began.
    pub(super) at: Instant,
}

/// The datagrams of a receive buffer that are still to be handled, all `stride` bytes long but the
/// last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagrams {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) stride: usize,
    /// What is to be left out at the beginning of each: a relay header that was dealt with.
    pub(super) offset: usize,
}

impl Datagrams {
    /// Where the first one lies.
    pub(super) fn first(&self) -> Option<Range<usize>> {
        let end = self.end.min(self.start + self.stride);
        (self.start < self.end).then(|| end.min(self.start + self.offset)..end)
    }

    /// Goes on to the next one.
    pub(super) const fn advance(&mut self) {
        self.start += self.stride;
    }
}

/// An opened plaintext that is a packet or a bundle of packets.
struct Sealed {
    peer: PeerIndex,
    slot: usize,
    body: Range<usize>,
    flags: Flags,
    ecn: Ecn,
}

impl Sealed {
    /// Gives its packets to the coalescer. Of a bundle those before a malformed one are taken; one
    /// without packets is malformed.
    fn take(
        self,
        coalescer: &mut Coalescer,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Self { peer, slot, body, flags, ecn } = self;
        let partial = flags.has(Flags::NEEDS_CHECKSUM);
        if !flags.has(Flags::BUNDLE) {
            let at = Part { slot: slot as u16, start: body.start as u32, end: body.end as u32 };
            if partial && coalescer.push_next(rx, out, at, peer, ecn) {
                return Ok(());
            }
            let packet = arrived(rx, peer, slot, body, ecn, partial)?;
            coalescer.push(rx, out, &packet);
            return Ok(());
        }
        let mut at = body.start;
        loop {
            let bundle = &rx.slots[slot].buffer[at..body.end];
            let place = wire::data::first_of_bundle(bundle)?;
            let range = at + place.start..at + place.end;
            at = range.end;
            let packet = arrived(rx, peer, slot, range, ecn, partial)?;
            coalescer.push(rx, out, &packet);
            if at == body.end {
                return Ok(());
            }
        }
    }
}

/// The header of a data datagram that carries whole packets and nothing else.
fn plain_header(datagram: &[u8]) -> Option<DataHeader> {
    let header = DataHeader::parse(datagram).ok()?;
    let rest = header.flags.without(Flags::NEEDS_CHECKSUM.with(Flags::BUNDLE));
    (rest == Flags::NONE).then_some(header)
}

impl Node {
    /// Handles all datagrams in the filled slots of `rx`. See the driving contract at [`Node`].
    pub fn handle_datagrams(&mut self, now: Instant, rx: &mut RxBatch, out: &mut Output) {
        for slot in 0..rx.filled.min(rx.slots.len()) {
            let received = &rx.slots[slot];
            let (len, stride) = (received.len.min(received.buffer.len()), received.stride.max(1));
            let arrival = Arrival {
                slot,
                uplink: received.uplink,
                source: received.source,
                tos: received.tos,
                relay: None,
                at: received.received_at.unwrap_or(now).min(now),
            };
            let packets = len.div_ceil(stride) as u64;
            self.counters.underlay_rx.add(packets, len as u64);
            if arrival.uplink.usize() >= self.uplinks.len() {
                self.counters.drop_many(DropReason::Malformed, packets);
                continue;
            }
            let mut rest = Datagrams { start: 0, end: len, stride, offset: 0 };
            self.handle_rest(now, &arrival, &mut rest, rx, out);
        }
        self.touch();
    }

    /// Handles datagrams that came the same way: in runs where they are alike, else one by one.
    pub(super) fn handle_rest(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        rest: &mut Datagrams,
        rx: &mut RxBatch,
        out: &mut Output,
    ) {
        while let Some(range) = rest.first() {
            if self.open_run(now, arrival, rest, rx, out)
                || self.relay_run(now, arrival, rest, rx, out)
            {
                continue;
            }
            rest.advance();
            let result = self.handle_datagram(now, arrival, range, rx, out);
            self.deliver_merged(now, rx, out);
            if let Err(reason) = result {
                self.counters.drop(reason);
            }
        }
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        match wire::peek(&rx.slots[arrival.slot].buffer[range.clone()])? {
            MessageType::Data => self.handle_data(now, arrival, range, rx, out),
            MessageType::Relay if arrival.relay.is_none() => {
                self.handle_relay(now, arrival, range, rx)
            }
            MessageType::Relay => Err(DropReason::UnknownType),
            MessageType::HandshakeInit
            | MessageType::HandshakeResponse
            | MessageType::CookieReply => self.handle_handshake(now, arrival, range, rx, out),
        }
    }

    /// Opens data datagrams in a row that one set of keys sealed for one path and that carry nothing
    /// but packets. Keys, path and peer are looked up once. False when the first one is none such.
    fn open_run(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        rest: &mut Datagrams,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> bool {
        let buffer = |rx: &RxBatch, range| plain_header(&rx.slots[arrival.slot].buffer[range]);
        let Some(first) = rest.first().and_then(|range| buffer(rx, range)) else { return false };
        let Ok(mut opener) = self.tunnels.opener(now, first.receiver_index) else { return false };
        let peer = opener.peer();
        if first.path.is_relayed() != arrival.relay.is_some()
            || arrival.relay.is_some_and(|(_, source)| source != peer)
        {
            return false;
        }
        let ecn = Ecn::of_tos(arrival.tos);
        let mut heard = Tally::default();
        while let Some(range) = rest.first()
            && !self.coalescer.is_crowded()
            && let Some(header) = buffer(rx, range.clone())
            && (header.receiver_index, header.path) == (first.receiver_index, first.path)
        {
            rest.advance();
            let datagram = &mut rx.slots[arrival.slot].buffer[range.clone()];
            if let Err(reason) = opener.open(now, &header, datagram) {
                self.counters.drop(reason);
                continue;
            }
            heard.add(1, range.len() as u64);
            let body = range.start + DATA_HEADER_LEN..range.end - TAG_LEN;
            let sealed = Sealed { peer, slot: arrival.slot, body, flags: header.flags, ecn };
            if let Err(reason) = sealed.take(&mut self.coalescer, rx, out) {
                self.counters.drop(reason);
            }
        }
        if heard.packets > 0 {
            self.tunnels.heard(now, peer, first.receiver_index);
            self.heard(now, peer, first.path, arrival, heard);
            let entry = &mut self.peers[peer.usize()];
            entry.arrivals.on_data(now, first.path, heard.bytes as usize);
        }
        self.deliver_merged(now, rx, out);
        true
    }

    /// Opens a tunnel datagram and hands its plaintext on.
    fn handle_data(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let datagram = &mut rx.slots[arrival.slot].buffer[range.clone()];
        // Whoever sees a relayed datagram could strip its header, and a relay could claim another
        // source. Judged before it is opened, because opening marks it as seen.
        let header = DataHeader::parse(datagram)?;
        let owner = || self.tunnels.peer_of(header.receiver_index);
        if header.path.is_relayed() != arrival.relay.is_some()
            || arrival.relay.is_some_and(|(_, source)| owner().is_some_and(|peer| peer != source))
        {
            return Err(DropReason::RelaySpoofed);
        }
        let opened = self.tunnels.open(now, datagram)?;
        let peer = opened.peer;
        let tally = Tally { packets: 1, bytes: range.len() as u64 };
        let ours = self.heard(now, peer, opened.path, arrival, tally);
        let plaintext = range.start + opened.plaintext.start..range.start + opened.plaintext.end;
        let payload =
            Payload::parse(opened.flags, &rx.slots[arrival.slot].buffer[plaintext.clone()])?;
        let body = plaintext.start + payload.body.start..plaintext.start + payload.body.end;
        if let Some(report) = payload.report {
            self.on_report(now, peer, ours, &report);
        }
        if opened.flags.has(Flags::CONTROL) {
            let bytes = &rx.slots[arrival.slot].buffer[body];
            return self.handle_control(now, peer, opened.path, arrival, bytes, out);
        }
        let entry = &mut self.peers[peer.usize()];
        entry.arrivals.on_data(now, opened.path, range.len());
        if payload.copy_id.is_some_and(|id| !entry.copies.admit(header.receiver_index, id)) {
            return Err(DropReason::DuplicateCopy);
        }
        let (flags, ecn) = (opened.flags, Ecn::of_tos(arrival.tos));
        if let Some(split) = payload.split {
            let mut packet = std::mem::take(&mut self.split_scratch);
            let bytes = &rx.slots[arrival.slot].buffer[body];
            let whole = self.reassembly.push(now, peer, split, bytes, &mut packet);
            let partial = flags.has(Flags::NEEDS_CHECKSUM);
            let result = if whole {
                self.deliver_made(now, peer, &mut packet, (ecn, partial), rx, out)
            } else {
                Ok(())
            };
            self.split_scratch = packet;
            return result;
        }
        let sealed = Sealed { peer, slot: arrival.slot, body, flags, ecn };
        sealed.take(&mut self.coalescer, rx, out)
    }

    /// Authentic datagrams of `peer` came: their path lives, and its address may have moved.
    /// Returns our name for it.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
        arrival: &Arrival,
        tally: Tally,
    ) -> Option<Path> {
        let path = self.arrival_path(now, peer, path, arrival)?;
        let entry = &mut self.peers[peer.usize()];
        entry.rx.add(tally.packets, tally.bytes);
        let Some(state) = entry.state_mut(path) else { return Some(path) };
        state.prober.on_receive(now);
        if matches!(path, Path::Direct(_)) {
            state.endpoint.on_authentic(now, arrival.source, tally.bytes as usize, &mut self.rng);
        }
        Some(path)
    }

    /// Our name for the path that an authentic datagram came by. A direct link that was not known
    /// is added: the peer has an uplink that the configuration does not mention.
    pub(super) fn arrival_path(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
        arrival: &Arrival,
    ) -> Option<Path> {
        match (path.sender_uplink(), arrival.relay) {
            (Some(remote), None) => {
                let link = arrival_link(arrival.uplink, remote);
                self.ensure_link(now, peer, link).then_some(Path::Direct(link))
            }
            (None, Some((relay, _))) => Some(Path::Via(relay)),
            _ => None,
        }
    }

    /// A handshake message; what answers it goes back the way it came.
    pub(super) fn handle_handshake(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        use crate::tunnel::Source;
        let source = match arrival.relay {
            None => Source::Direct(arrival.source),
            Some((relay, source)) => Source::Relayed { relay, src: self.peers[source.usize()].id },
        };
        let datagram = &rx.slots[arrival.slot].buffer[range];
        let mut reply = std::mem::take(&mut self.reply_scratch);
        reply.clear();
        let wall = self.wall(now);
        let result = self.tunnels.handle_handshake(now, wall, source, datagram, &mut reply);
        if !reply.is_empty() {
            self.reply_handshake(arrival, &reply, now, out);
        }
        self.reply_scratch = reply;
        self.drain_tunnel_events(now, out);
        result.map(|_| ())
    }

    fn reply_handshake(&mut self, arrival: &Arrival, reply: &[u8], now: Instant, out: &mut Output) {
        match arrival.relay {
            None => self.send_raw(arrival.uplink, arrival.source, reply, out),
            Some((relay, source)) => {
                self.send_handshake_via(now, relay, source, reply, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
