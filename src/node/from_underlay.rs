//! A datagram's way in: authenticate, then deliver, relay, or understand as control.

use std::net::SocketAddr;
use std::ops::Range;

use super::Node;
use super::peer::arrival_link;
use crate::batch::{Output, RxBatch};
use crate::id::{PeerIndex, UplinkIndex};
use crate::packet::Ecn;
use crate::path::{Path, PathId};
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::{self, Flags, MessageType, Payload};

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
            let mut start = 0;
            while start < len {
                let end = len.min(start + stride);
                self.counters.underlay_rx.add(1, (end - start) as u64);
                if let Err(reason) = self.handle_datagram(now, &arrival, start..end, rx, out) {
                    self.counters.drop(reason);
                }
                start = end;
            }
        }
        self.touch();
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if arrival.uplink.usize() >= self.uplinks.len() {
            return Err(DropReason::Malformed);
        }
        match wire::peek(&rx.slots[arrival.slot].buffer[range.clone()])? {
            MessageType::Data => self.handle_data(now, arrival, range, rx, out),
            MessageType::Relay => self.handle_relay(now, arrival, range, rx, out),
            MessageType::HandshakeInit
            | MessageType::HandshakeResponse
            | MessageType::CookieReply => self.handle_handshake(now, arrival, range, rx, out),
        }
    }

    /// Opens a tunnel datagram and hands its plaintext on.
    pub(super) fn handle_data(
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
        let header = wire::DataHeader::parse(datagram)?;
        let owner = || self.tunnels.peer_of(header.receiver_index);
        if header.path.is_relayed() != arrival.relay.is_some()
            || arrival.relay.is_some_and(|(_, source)| owner().is_some_and(|peer| peer != source))
        {
            return Err(DropReason::RelaySpoofed);
        }
        let opened = self.tunnels.open(now, datagram)?;
        let peer = opened.peer;
        self.heard(now, peer, opened.path, arrival, range.len());
        let plaintext = range.start + opened.plaintext.start..range.start + opened.plaintext.end;
        let payload =
            Payload::parse(opened.flags, &rx.slots[arrival.slot].buffer[plaintext.clone()])?;
        let body = plaintext.start + payload.body.start..plaintext.start + payload.body.end;
        if let Some(report) = payload.report {
            self.on_report(now, peer, &report);
        }
        if opened.flags.has(Flags::CONTROL) {
            let bytes = &rx.slots[arrival.slot].buffer[body];
            return self.handle_control(now, peer, opened.path, arrival, bytes, out);
        }
        if opened.flags.has(Flags::BUNDLE) {
            return Err(DropReason::BadControl);
        }
        let entry = &mut self.peers[peer.usize()];
        entry.arrivals.on_data(now, opened.path, range.len());
        if payload.copy_id.is_some_and(|id| !entry.copies.admit(id)) {
            return Err(DropReason::DuplicateCopy);
        }
        let ecn = Ecn::of_tos(arrival.tos);
        if let Some(split) = payload.split {
            let mut packet = std::mem::take(&mut self.split_scratch);
            let bytes = &rx.slots[arrival.slot].buffer[body];
            let whole = self.reassembly.push(now, peer, split, bytes, &mut packet);
            let result =
                if whole { self.deliver_made(now, peer, &mut packet, ecn, out) } else { Ok(()) };
            self.split_scratch = packet;
            return result;
        }
        self.deliver(now, peer, arrival.slot, body, ecn, rx, out)
    }

    /// An authentic datagram of `peer` came: its path lives, and its address may have moved.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
        arrival: &Arrival,
        len: usize,
    ) {
        let Some(path) = self.arrival_path(now, peer, path, arrival) else { return };
        let entry = &mut self.peers[peer.usize()];
        entry.rx.add(1, len as u64);
        let Some(state) = entry.state_mut(path) else { return };
        state.prober.on_receive(now);
        if matches!(path, Path::Direct(_)) {
            state.endpoint.on_authentic(now, arrival.source, len, &mut self.rng);
        }
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
