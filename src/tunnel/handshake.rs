//! Handshake messages: making and answering them.

use std::time::Duration;

use snow::HandshakeState;

use super::keys::Keys;
use super::noise::{KeyMaterial, Setup};
use super::peer::{
    Answered, Initiation, REKEY_AFTER, REKEY_AFTER_RESPONDER, REKEY_JITTER, REPEAT_FOR, REPEATS_MAX,
};
use super::suite::Suite;
use super::{HandshakeKind, HandshakeOutcome, Source, TunnelEvent, Tunnels};
use crate::id::PeerIndex;
use crate::telemetry::DropReason;
use crate::time::{Instant, WallClock};
use crate::wire::handshake::{
    CookieReply, INIT_HEADER_LEN, INIT_LEN, INIT_NOISE, INIT_PAYLOAD_LEN, InitHeader, RESPONSE_LEN,
    RESPONSE_NOISE, RESPONSE_PAYLOAD_LEN, ResponseHeader, VERSION, mac1,
};
use crate::wire::{self, MessageType};

/// For so long after our own first initiation, that of a peer with the higher key is ignored.
const SIMULTANEOUS: Duration = Duration::from_millis(500);
/// After an answer, our own initiation is put off for so long: the initiator may well finish.
const YIELD: Duration = Duration::from_secs(1);

/// An initiation that decrypted.
struct Initiated {
    state: HandshakeState,
    peer: PeerIndex,
    timestamp: u64,
}

impl Tunnels {
    /// Writes an initiation for `peer` into `out`, replacing what is there. It must be sent at
    /// once; the same message may be sent on several paths. It replaces the one before it: a
    /// response to that is not accepted any more.
    pub fn initiate(
        &mut self,
        now: Instant,
        wall: WallClock,
        peer: PeerIndex,
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        out.clear();
        let state = self.peers.get_mut(peer.usize()).ok_or(DropReason::NoTunnel)?;
        if let Some(old) = state.initiation.take() {
            self.indices.release(old.index);
        }
        state.asked = false;
        state.attempt = state.attempt.max(1);
        state.schedule_retry(now, &mut self.rng);
        let suite = self.suites.proposal(state.attempt - 1);
        // Whether or not this attempt comes to anything.
        if let Some(at) = state.retry_at {
            self.expect(peer, at, "initiate");
        }
        let index = self.indices.allocate(&mut self.rng, peer).ok_or(DropReason::NoTunnel)?;
        let header = InitHeader { suite: suite as u8, version: VERSION, sender_index: index };
        let mut message = [0; INIT_LEN];
        message[..INIT_HEADER_LEN].copy_from_slice(&header.emit());
        self.last_timestamp = wall.0.max(self.last_timestamp.saturating_add(1));
        let mut payload = [0; INIT_PAYLOAD_LEN];
        payload[..8].copy_from_slice(&self.last_timestamp.to_be_bytes());

        let setup = Setup {
            identity: &self.identity,
            agreements: &self.agreements,
            preshared_key: self.preshared_key.as_ref(),
            init_header: &header.emit(),
        };
        let state = &mut self.peers[peer.usize()];
        let noise = setup.initiator(&mut self.rng, &state.public).and_then(|mut noise| {
            noise.write_message(&payload, &mut message[INIT_NOISE]).ok()?;
            Some(Box::new(noise))
        });
        let Some(noise) = noise else {
            self.indices.release(index);
            return Err(DropReason::NoTunnel);
        };
        let cookie = state.fresh_cookie(now).copied();
        state.recipient.put_macs(&mut message, cookie.as_ref());
        state.initiation = Some(Initiation {
            state: noise,
            index,
            suite,
            mac1: mac1(&message),
            sent_at: now,
            with_cookie: cookie.is_some(),
        });
        out.extend_from_slice(&message);
        Ok(())
    }

    /// Takes in a message of type 1, 2 or 3. Whatever the result, a `reply` that is not empty
    /// afterwards must be sent back the way the message came.
    pub fn handle_handshake(
        &mut self,
        now: Instant,
        _wall: WallClock,
        source: Source,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<HandshakeOutcome, DropReason> {
        reply.clear();
        match wire::peek(datagram)? {
            MessageType::HandshakeInit => self.handle_init(now, source, datagram, reply),
            MessageType::HandshakeResponse => self.handle_response(now, source, datagram, reply),
            MessageType::CookieReply => self.handle_cookie(now, source, datagram),
            MessageType::Data | MessageType::Relay => Err(DropReason::UnknownType),
        }
    }

    /// What is cheap comes first: the MAC, then load and rate.
    fn guard(
        &mut self,
        now: Instant,
        source: &Source,
        datagram: &[u8],
        sender_index: u32,
        reply: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        if !self.recipient.accepts(datagram) {
            return Err(DropReason::HandshakeMac);
        }
        let loaded = self.limits.under_load(now);
        match source {
            Source::Direct(_) if !loaded => return Ok(()),
            Source::Direct(address) if !self.jar.proves(now, *address, datagram) => {
                let cookie = self.jar.reply(now, *address, &self.recipient, datagram, sender_index);
                reply.extend(cookie.iter().flat_map(CookieReply::emit));
                return Err(DropReason::HandshakeCookieRequired);
            }
            Source::Relayed { src, .. } if self.peer_by_id(*src).is_none() => {
                return Err(DropReason::HandshakeUnknownPeer);
            }
            Source::Direct(_) | Source::Relayed { .. } => {}
        }
        if self.limits.admit(now, source) { Ok(()) } else { Err(DropReason::HandshakeRateLimited) }
    }

    fn handle_init(
        &mut self,
        now: Instant,
        source: Source,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<HandshakeOutcome, DropReason> {
        let header = InitHeader::parse(datagram);
        if header.version != VERSION {
            return Err(DropReason::HandshakeSuite);
        }
        self.guard(now, &source, datagram, header.sender_index, reply)?;
        let suite = Suite::from_wire(header.suite).filter(|suite| self.suites.allows(*suite));
        let suite = suite.ok_or(DropReason::HandshakeSuite)?;
        if let Some(peer) = self.repeat_response(now, &source, datagram, reply) {
            return Ok(HandshakeOutcome { peer, kind: HandshakeKind::Repeated });
        }
        let initiated = self.read_init(datagram)?;
        let peer = initiated.peer;
        let accepted = self.accept_init(now, &source, &initiated);
        if accepted == Err(DropReason::HandshakeSimultaneous) {
            // It is authentic: nobody may send it again once ours is through.
            self.peers[peer.usize()].last_timestamp = initiated.timestamp;
        }
        accepted?;
        self.respond(now, suite, header.sender_index, datagram, initiated)?;
        if let Some(answered) = &self.peers[peer.usize()].answered {
            reply.extend_from_slice(&answered.response);
        }
        Ok(HandshakeOutcome { peer, kind: HandshakeKind::Responded })
    }

    /// An initiation travels on several paths; every copy gets the response, because the way back
    /// of the first may be dead.
    fn repeat_response(
        &mut self,
        now: Instant,
        source: &Source,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> Option<PeerIndex> {
        let mac1 = mac1(datagram);
        let recent = |answered: &Answered| {
            answered.mac1 == mac1
                && now - answered.at < REPEAT_FOR
                && answered.repeats < REPEATS_MAX
        };
        let at = self.peers.iter().position(|peer| peer.answered.as_deref().is_some_and(recent))?;
        let peer = &mut self.peers[at];
        if let Source::Relayed { src, .. } = source
            && *src != peer.id
        {
            return None;
        }
        let answered = peer.answered.as_mut()?;
        answered.repeats += 1;
        reply.extend_from_slice(&answered.response);
        Some(PeerIndex(at as u16))
    }

    fn read_init(&mut self, datagram: &[u8]) -> Result<Initiated, DropReason> {
        let setup = Setup {
            identity: &self.identity,
            agreements: &self.agreements,
            preshared_key: self.preshared_key.as_ref(),
            init_header: &datagram[..INIT_HEADER_LEN],
        };
        let mut state = setup.responder(&mut self.rng).ok_or(DropReason::HandshakeUnknownPeer)?;
        let mut payload = [0; INIT_LEN];
        state
            .read_message(&datagram[INIT_NOISE], &mut payload)
            .map_err(|_| DropReason::HandshakeUnknownPeer)?;
        let key: [u8; 32] = state
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .ok_or(DropReason::HandshakeUnknownPeer)?;
        let found = self.by_key.binary_search_by_key(&key, |entry| entry.0);
        let peer = self.by_key[found.map_err(|_| DropReason::HandshakeUnknownPeer)?].1;
        let mut timestamp = [0; 8];
        timestamp.copy_from_slice(&payload[..8]);
        Ok(Initiated { state, peer, timestamp: u64::from_be_bytes(timestamp) })
    }

    /// Whether a decrypted initiation is to be answered. Changes nothing.
    fn accept_init(
        &self,
        now: Instant,
        source: &Source,
        initiated: &Initiated,
    ) -> Result<(), DropReason> {
        let peer = &self.peers[initiated.peer.usize()];
        if let Source::Relayed { src, .. } = source
            && *src != peer.id
        {
            return Err(DropReason::RelaySpoofed);
        }
        if initiated.timestamp <= peer.last_timestamp {
            return Err(DropReason::HandshakeReplay);
        }
        // The lower key's initiation stands, but only the first of a series: it may be that ours
        // never arrives and theirs does.
        let ours_stands = self.identity.public() < peer.public
            && peer.attempt <= 1
            && peer.initiation.as_ref().is_some_and(|ours| now - ours.sent_at < SIMULTANEOUS);
        if ours_stands { Err(DropReason::HandshakeSimultaneous) } else { Ok(()) }
    }

    /// Makes keys and response for an accepted initiation, and keeps both with the peer.
    fn respond(
        &mut self,
        now: Instant,
        suite: Suite,
        remote_index: u32,
        datagram: &[u8],
        initiated: Initiated,
    ) -> Result<(), DropReason> {
        let Initiated { mut state, peer: peer_index, timestamp } = initiated;
        let index = self.indices.allocate(&mut self.rng, peer_index);
        let index = index.ok_or(DropReason::HandshakeRateLimited)?;
        let header = ResponseHeader {
            suite: suite as u8,
            version: VERSION,
            sender_index: index,
            receiver_index: remote_index,
        };
        let mut response = [0; RESPONSE_LEN];
        response[..RESPONSE_NOISE.start].copy_from_slice(&header.emit());
        let mut payload = [0; RESPONSE_PAYLOAD_LEN];
        payload[..4].copy_from_slice(&index.to_be_bytes());
        let written = state.write_message(&payload, &mut response[RESPONSE_NOISE]);
        let rekey_at = self.rekey_at(now, REKEY_AFTER_RESPONDER);
        let keys = written.ok().map(|_| {
            let material = KeyMaterial::derive(state, suite);
            Keys::new(&material, suite, (index, remote_index), now, rekey_at)
        });
        let Some(keys) = keys else {
            self.indices.release(index);
            return Err(DropReason::HandshakeUnknownPeer);
        };
        let peer = &mut self.peers[peer_index.usize()];
        peer.recipient.put_macs(&mut response, peer.fresh_cookie(now));
        peer.last_timestamp = timestamp;
        let replaced = peer.set_next(Box::new(keys));
        if let Some(at) = peer.retry_at {
            let random = YIELD.mul_f64(0.5 * self.rng.unit());
            peer.retry_at = Some(at.max(now + YIELD + random));
        }
        let mac1 = mac1(datagram);
        peer.answered = Some(Box::new(Answered { mac1, at: now, repeats: 0, response, index }));
        if let Some(replaced) = replaced {
            self.indices.release(replaced);
        }
        self.expect(peer_index, now, "new keys");
        Ok(())
    }

    fn rekey_at(&mut self, now: Instant, after: Duration) -> Instant {
        now + after + REKEY_JITTER.mul_f64(self.rng.unit())
    }

    fn handle_response(
        &mut self,
        now: Instant,
        source: Source,
        datagram: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<HandshakeOutcome, DropReason> {
        let header = ResponseHeader::parse(datagram);
        if header.version != VERSION {
            return Err(DropReason::HandshakeSuite);
        }
        self.guard(now, &source, datagram, header.sender_index, reply)?;
        let index =
            self.indices.peer(header.receiver_index).ok_or(DropReason::HandshakeUnexpected)?;
        let peer = &mut self.peers[index.usize()];
        if let Source::Relayed { src, .. } = source
            && src != peer.id
        {
            return Err(DropReason::RelaySpoofed);
        }
        let ours = peer.initiation.as_mut().filter(|ours| ours.index == header.receiver_index);
        let ours = ours.ok_or(DropReason::HandshakeUnexpected)?;
        if header.suite != ours.suite as u8 {
            return Err(DropReason::HandshakeSuite);
        }
        let mut payload = [0; RESPONSE_LEN];
        ours.state
            .read_message(&datagram[RESPONSE_NOISE], &mut payload)
            .map_err(|_| DropReason::Forged)?;
        // The index in the header is not authenticated; this one is.
        let remote_index = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
        let ours = peer.initiation.take().ok_or(DropReason::HandshakeUnexpected)?;
        self.finish(now, index, ours, remote_index)?;
        Ok(HandshakeOutcome { peer: index, kind: HandshakeKind::Established })
    }

    /// The response was authentic: makes the keys current.
    fn finish(
        &mut self,
        now: Instant,
        index: PeerIndex,
        ours: Initiation,
        remote_index: u32,
    ) -> Result<(), DropReason> {
        let indices = (ours.index, remote_index);
        let material = KeyMaterial::derive(*ours.state, ours.suite);
        let rekey_at = self.rekey_at(now, REKEY_AFTER);
        let keys = Keys::new(&material, ours.suite, indices, now, rekey_at);
        let peer = &mut self.peers[index.usize()];
        peer.last_received = Some(now);
        if let Some(released) = peer.establish(Box::new(keys)) {
            self.indices.release(released);
        }
        self.event(TunnelEvent::Established(index));
        self.expect(index, now, "new keys");
        Ok(())
    }

    fn handle_cookie(
        &mut self,
        now: Instant,
        source: Source,
        datagram: &[u8],
    ) -> Result<HandshakeOutcome, DropReason> {
        let Source::Direct(_) = source else { return Err(DropReason::HandshakeUnexpected) };
        let cookie_reply = CookieReply::parse(datagram);
        let index = cookie_reply.receiver_index;
        let peer_index = self.indices.peer(index).ok_or(DropReason::HandshakeUnexpected)?;
        let peer = &mut self.peers[peer_index.usize()];
        let initiation = peer.initiation.as_ref().filter(|ours| ours.index == index);
        let answered = peer.answered.as_ref().filter(|answered| answered.index == index);
        let mac1 = match (initiation, answered) {
            (Some(ours), _) => ours.mac1,
            (None, Some(answered)) => mac1(&answered.response),
            (None, None) => return Err(DropReason::HandshakeUnexpected),
        };
        let cookie = peer.recipient.open_cookie(&cookie_reply, &mac1);
        peer.cookie = Some((cookie.ok_or(DropReason::HandshakeUnexpected)?, now));
        // At once only if this was the first cookie of the series: else two nodes that do not
        // agree on an address would send as fast as they can.
        if peer.initiation.as_ref().is_some_and(|ours| !ours.with_cookie) {
            peer.retry_at = Some(now);
            self.expect(peer_index, now, "initiate");
        }
        Ok(HandshakeOutcome { peer: peer_index, kind: HandshakeKind::Cookie })
    }
}
