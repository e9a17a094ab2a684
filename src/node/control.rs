//! What peers tell each other inside their tunnels: probes, advertisements, challenges.

use std::time::Duration;

use super::from_underlay::Arrival;
use super::{Event, Label, Node};
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::metric::Liveness;
use crate::path::{LinkId, Path, PathId};
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::control::FRAME_HEADER_LEN;
use crate::wire::{self, Control, ControlIter, ControlWriter, Flags, Probe, ProbeReply};

/// Longest control body: a full MTU probe is padded while it is written, not in the buffer.
pub(super) const BODY_MAX: usize = 1_400;
/// Body length of a probe and of its reply alike, so that an answer is no longer than its cause.
const PROBE_BODY_LEN: usize = 26;

/// What a probe's answer says of loss is about traffic when there was some so lately.
const JUST_USED: Duration = Duration::from_secs(1);

impl Node {
    /// Acts on the control messages of one authentic datagram.
    pub(super) fn handle_control(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
        arrival: &Arrival,
        body: &[u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let ours = self.arrival_path(now, peer, path, arrival);
        let mut answers = self.answers(peer, ours, arrival, body.len());
        for message in ControlIter::new(body) {
            match message? {
                Control::Padding(_) => {}
                Control::Report(report) => self.on_report(now, peer, ours, &report),
                Control::Probe(probe) => {
                    let reply = self.probe_reply(now, peer, path, ours, arrival, probe);
                    self.answer_probe(now, peer, ours, arrival, path, reply, &mut answers, out);
                }
                Control::ProbeReply(reply) => self.on_probe_reply(peer, &reply, arrival.at),
                Control::Advertisement(head, entries) => {
                    let ack = self.on_advertisement(now, peer, &head, entries);
                    if answers.take(&ack) {
                        self.send_control(now, peer, &ack, out);
                    }
                }
                Control::AdvertisementAck(ack) => self.on_advertisement_ack(now, peer, ack),
                Control::PathChallenge(token) => {
                    let reply = Control::PathResponse(token);
                    self.reply_on_path(now, peer, arrival, path, &reply, &mut answers, out);
                }
                Control::PathResponse(token) => {
                    self.on_path_response(now, peer, ours, arrival, token);
                }
                Control::MtuProbe(size) => {
                    let reply = Control::MtuAck(size);
                    self.reply_on_path(now, peer, arrival, path, &reply, &mut answers, out);
                }
                Control::MtuAck(size) => {
                    if let Some(state) =
                        ours.and_then(|path| self.peers[peer.usize()].state_mut(path))
                    {
                        state.mtu.on_ack(now, size);
                    }
                }
                Control::Close(_) => self.tunnels.forget(now, peer),
                Control::ClassRefused(tag) => self.on_class_refused(now, peer, tag),
                Control::Heard(path) => self.on_heard(now, peer, path),
                Control::Volley(volley) => {
                    let report = self.on_volley(peer, path, arrival.at, volley);
                    if let Some(report) = report.map(Control::VolleyReport)
                        && answers.take(&report)
                    {
                        self.send_control(now, peer, &report, out);
                    }
                }
                Control::VolleyReport(report) => self.on_volley_report(now, peer, &report),
            }
        }
        Ok(())
    }

    /// What may answer one datagram. To an address that is not known to be the peer's goes no more
    /// than came from it.
    fn answers(
        &self,
        peer: PeerIndex,
        path: Option<Path>,
        arrival: &Arrival,
        body_len: usize,
    ) -> Answers {
        let known = match path {
            Some(Path::Direct(link)) => {
                self.peers[peer.usize()].address(link) == Some(arrival.source)
            }
            Some(Path::Via(_)) => true,
            None => false,
        };
        let bytes = if known { usize::MAX } else { wire::DATA_OVERHEAD + body_len };
        Answers { bytes, given: 0 }
    }

    /// What our answer to a probe says.
    fn probe_reply(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
        ours: Option<Path>,
        arrival: &Arrival,
        probe: Probe,
    ) -> ProbeReply {
        let hold = (now - arrival.at).as_micros();
        ProbeReply {
            seq: probe.seq,
            sent_us: probe.sent_us,
            hold_us: u32::try_from(hold).unwrap_or(u32::MAX),
            path,
            loss: ours.map_or(0, |ours| self.receive_loss(peer, path, ours).0),
        }
    }

    /// Answers a probe; a probe of ours that is due soon rides along.
    #[expect(clippy::too_many_arguments, reason = "a way back is what the way here was")]
    fn answer_probe(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        ours: Option<Path>,
        arrival: &Arrival,
        path: PathId,
        reply: ProbeReply,
        answers: &mut Answers,
        out: &mut Output,
    ) {
        let reply = Control::ProbeReply(reply);
        let proven = answers.bytes == usize::MAX && answers.given == 0;
        let state = ours.and_then(|ours| self.peers[peer.usize()].state_mut(ours));
        let riding = state.filter(|_| proven).and_then(|state| state.prober.poll_riding_probe(now));
        let Some(riding) = riding else {
            self.reply_on_path(now, peer, arrival, path, &reply, answers, out);
            return;
        };
        answers.take(&reply);
        let Some(route) = self.way_back(peer, arrival, path) else { return };
        let probe = Probe { seq: riding.seq, sent_us: now.as_micros() };
        let mut body = [0; 64];
        let mut writer = ControlWriter::new(&mut body);
        if writer.push(&reply) && writer.push(&Control::Probe(probe)) {
            let len = writer.len();
            self.send_filled(now, &route, &body[..len], len, out);
        }
    }

    /// The way that a datagram came: over the same link to the address that it really came from, or
    /// through the same relay.
    fn way_back(&self, peer: PeerIndex, arrival: &Arrival, path: PathId) -> Option<super::Route> {
        match (path.sender_uplink(), arrival.relay) {
            (Some(remote), None) => {
                let link = LinkId { local: arrival.uplink, remote };
                Some(self.route_to(peer, link, arrival.source, 0))
            }
            (None, Some((relay, _))) => self.route(peer, Path::Via(relay), 0, Label::default()),
            _ => None,
        }
    }

    /// Sends a message back the way a datagram came.
    #[expect(clippy::too_many_arguments, reason = "a way back is what the way here was")]
    fn reply_on_path(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        arrival: &Arrival,
        path: PathId,
        message: &Control<'_>,
        answers: &mut Answers,
        out: &mut Output,
    ) {
        if !answers.take(message) {
            return;
        }
        if let Some(route) = self.way_back(peer, arrival, path) {
            self.send_message(now, &route, message, 0, out);
        }
    }

    fn on_probe_reply(&mut self, peer: PeerIndex, reply: &ProbeReply, arrived: Instant) {
        let entry = &mut self.peers[peer.usize()];
        let state = entry.paths.iter_mut().find(|state| PathId::from(state.path) == reply.path);
        if let Some(state) = state {
            let sent_at = Instant::from_micros(reply.sent_us);
            let hold = Duration::from_micros(u64::from(reply.hold_us));
            // Probes arrive and traffic does not: nothing of it is reported then, and it may be too
            // large.
            let used = state.used_at.is_some_and(|at| arrived - at < JUST_USED);
            let excused = state.reported.is_excused(arrived);
            if used && !excused && reply.loss > u16::MAX / 2 {
                state.mtu.doubt(arrived);
            }
            if state.prober.on_reply(arrived, reply.seq, sent_at, hold).change.is_some() {
                self.router_stale = true;
            }
        }
    }

    fn on_path_response(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: Option<Path>,
        arrival: &Arrival,
        token: u64,
    ) {
        let Some(path) = path else { return };
        let entry = &mut self.peers[peer.usize()];
        let Some(state) = entry.state_mut(path) else { return };
        if state.endpoint.on_response(now, arrival.source, token) {
            state.routable = true;
            state.mtu.restart(now);
            state.prober.probe_soon(now);
            let event = Event::Moved { peer: entry.name.clone(), endpoint: arrival.source };
            self.push_event(event);
        }
    }

    /// Sends one control message, padded to `body_len` bytes of body when that is longer.
    pub(super) fn send_message(
        &mut self,
        now: Instant,
        route: &super::Route,
        message: &Control<'_>,
        body_len: usize,
        out: &mut Output,
    ) {
        let mut body = [0; BODY_MAX];
        let mut writer = ControlWriter::new(&mut body);
        if !writer.push(message) {
            return;
        }
        let written = writer.len();
        self.send_filled(now, route, &body[..written], body_len, out);
    }

    /// Sends a probe. Where its answer may have to prove an address first, it is as long as that.
    pub(super) fn send_probe(
        &mut self,
        now: Instant,
        route: &super::Route,
        probe: Probe,
        out: &mut Output,
    ) {
        let state = self.peers[route.peer.usize()].state(route.path);
        let proven = state.is_some_and(|state| state.prober.state() == Liveness::Up);
        let len = if proven { 0 } else { PROBE_BODY_LEN };
        // Of a dead way no answer is expected; but when all are dead, the peer may have lost its keys
        // and not know where we are. Nothing is asked of a way that no route leads over, so what was
        // known of it last is no sign of life.
        let alive = |state: &super::peer::PathState| {
            state.routable && state.prober.state() != Liveness::Down
        };
        if state.is_some_and(alive) || !self.peers[route.peer.usize()].paths.iter().any(alive) {
            self.tunnels.expect_answer(now, route.peer);
        }
        self.send_message(now, route, &Control::Probe(probe), len, out);
    }

    /// Sends a control body, padded to `wanted` bytes when that is longer.
    fn send_filled(
        &mut self,
        now: Instant,
        route: &super::Route,
        body: &[u8],
        wanted: usize,
        out: &mut Output,
    ) {
        let written = body.len();
        // What is behind the buffer's end is one long padding frame, made while it is written.
        let total = if wanted >= written + FRAME_HEADER_LEN { wanted } else { written };
        let fill = |place: &mut [u8]| {
            let (head, rest) = place.split_at_mut(written);
            head.copy_from_slice(body);
            rest.fill(0);
            if rest.len() >= FRAME_HEADER_LEN {
                let len = (rest.len() - FRAME_HEADER_LEN) as u16;
                rest[1..3].copy_from_slice(&len.to_be_bytes());
            }
        };
        if let Err(reason) = self.send(now, route, Flags::CONTROL, total, fill, out) {
            self.counters.drop_message(reason);
        }
    }

    /// Sends one control message over the best path to a peer, whichever that is.
    pub(super) fn send_control(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        message: &Control<'_>,
        out: &mut Output,
    ) {
        let mut body = [0; 64];
        let mut writer = ControlWriter::new(&mut body);
        if writer.push(message) {
            let len = writer.len();
            self.send_body(now, peer, &body[..len], out);
        }
    }

    /// Sends a control body over the best path to a peer, whichever that is. False when it
    /// could not be sent.
    pub(super) fn send_body(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        body: &[u8],
        out: &mut Output,
    ) -> bool {
        let path = self
            .router
            .path(peer, crate::metric::Metric::Latency)
            .or_else(|| self.router.link_to(peer).map(Path::Direct));
        let route = path.and_then(|path| self.route(peer, path, 0, Label::default()));
        let Some(route) = route else { return false };
        let fill = |place: &mut [u8]| place.copy_from_slice(body);
        let sent = self.send(now, &route, Flags::CONTROL, body.len(), fill, out);
        if let Err(reason) = sent {
            self.counters.drop_message(reason);
        }
        sent.is_ok()
    }
}

/// What one datagram may still cause: an answer of each kind, and so many bytes.
struct Answers {
    bytes: usize,
    given: u8,
}

impl Answers {
    /// Takes the allowance for an answer. What does not go where the datagram came from costs no
    /// bytes.
    const fn take(&mut self, answer: &Control<'_>) -> bool {
        let (kind, bytes) = if matches!(answer, Control::ProbeReply(_)) {
            (1, wire::DATA_OVERHEAD + PROBE_BODY_LEN)
        } else if matches!(answer, Control::PathResponse(_)) {
            (2, wire::DATA_OVERHEAD + FRAME_HEADER_LEN + 8)
        } else if matches!(answer, Control::MtuAck(_)) {
            (4, wire::DATA_OVERHEAD + FRAME_HEADER_LEN + 2)
        } else if matches!(answer, Control::VolleyReport(_)) {
            (16, 0)
        } else {
            (8, 0)
        };
        if self.given & kind != 0 || self.bytes < bytes {
            return false;
        }
        self.given |= kind;
        self.bytes -= bytes;
        true
    }
}

/// Body length of a message that makes a tunnel datagram of `datagram` bytes.
pub(super) const fn body_for(datagram: u16) -> usize {
    (datagram as usize).saturating_sub(wire::DATA_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AdvertisementAck, VolleyReport};

    #[test]
    fn there_is_one_answer_of_each_kind() {
        let mut answers = Answers { bytes: usize::MAX, given: 0 };
        let report = VolleyReport { path: PathId(1), seq: 2, arrived: 4, span_us: 3 };
        let all = [
            Control::VolleyReport(report),
            Control::AdvertisementAck(AdvertisementAck { epoch: 1, seq: 2, part: 0 }),
            Control::PathResponse(1),
            Control::MtuAck(1_280),
        ];
        assert!(all.iter().all(|answer| answers.take(answer)));
        assert!(!all.iter().any(|answer| answers.take(answer)));
    }
}
