//! What is due: handshakes, probes, challenges, advertisements, expiry.

use std::time::Duration;

use super::control::body_for;
use super::peer::{PathState, Peer};
use super::peers::Due;
use super::{Event, Label, Node};
use crate::batch::{Output, Target};
use crate::id::{PeerIndex, UplinkIndex};
use crate::metric::Liveness;
use crate::path::Path;
use crate::time::{Instant, WallClock};
use crate::tunnel::TunnelEvent;
use crate::wire::{self, Control, Probe, RelayRepr};

/// A turn that comes this much after its deadline was late by our own fault; silence then does not
/// count as loss.
const LATE: Duration = Duration::from_millis(100);
/// Relays that an initiation goes through besides the direct links.
const INITIATION_RELAYS: usize = 2;
/// How long the answer to an MTU probe may take before the round trip is known.
const MTU_TIMEOUT: Duration = Duration::from_millis(500);
/// After a pause of the whole process that is as long as this, the router may be about to forget what
/// it was told before it, although nothing is known to be wrong with it.
const STOPPED: Duration = Duration::from_secs(3);
/// Flows and mappings looked at in one turn.
const EXPIRY_BUDGET: usize = 256;
/// How often expiry is looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

impl Node {
    /// Does everything that is due. See the driving contract at [`Node`].
    pub fn handle_timeout(&mut self, now: Instant, wall: WallClock, out: &mut Output) {
        self.wall_base = (now, wall);
        let late = self.poll_timeout().is_some_and(|(due, _)| now - due > LATE);
        self.tunnels.handle_timeout(now);
        self.drain_tunnel_events(now, out);
        let mut next = 0;
        while let Some(peer) = self.peers.next_to_serve(now, next) {
            self.serve_peer(now, peer, late, out);
            self.peers.served(peer);
            next = peer.usize() + 1;
        }
        self.router_stale = false;
        if now - self.expiry_due > STOPPED {
            self.peers.mark_reports();
        }
        self.update_routing(now);
        self.advertise(now, out);
        if now >= self.expiry_due {
            self.expiry_due = now + EXPIRY_INTERVAL;
            self.expire_refusals(now);
            self.observe_faults(now, out);
            self.observe_load(now);
            self.observe_capacity(now, out);
            let mut unfinished = self.flows.expire(now, EXPIRY_BUDGET) == 0;
            unfinished |= self.serve_exit(now, EXPIRY_BUDGET, out);
            if unfinished {
                self.expiry_due = now + Duration::from_millis(1);
            }
        }
        self.touch();
    }

    /// The next deadline and its reason. The shell calls [`Self::handle_timeout`] then.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.deadline.get().is_none() {
            self.deadline.set(Some(self.next_deadline()));
        }
        self.deadline.get()
    }

    fn next_deadline(&self) -> (Instant, &'static str) {
        let mut next = (self.expiry_due, "expiry");
        let mut offer = |at: Instant, why: &'static str| {
            if at < next.0 {
                next = (at, why);
            }
        };
        if let Some((at, why)) = self.tunnels.poll_timeout() {
            offer(at, why);
        }
        let (at, why) = self.router.poll_timeout();
        offer(at, why);
        if let Some((at, why)) = self.advertiser.poll_timeout() {
            offer(at, why);
        }
        if self.router_stale {
            offer(Instant::ZERO, "a link changed");
        }
        if let Some((at, why)) = self.peers.first_deadline(Self::deadline_of) {
            offer(at, why);
        }
        next
    }

    /// The first thing that is due for one peer.
    fn deadline_of(peer: &Peer) -> Option<Due> {
        let mut next: Option<Due> = None;
        let mut offer = |at: Instant, why: &'static str| {
            if next.is_none_or(|next| at < next.0) {
                next = Some((at, why));
            }
        };
        if !peer.sealable {
            return None;
        }
        if let Some(at) = peer.arrivals.poll_timeout() {
            offer(at, "report");
        }
        // That a relayed path is wanted no more is seen when it would be probed next, before it is: to
        // wake up for that would spare nothing.
        for state in &peer.paths {
            if state.routable {
                let (at, why) = state.prober.poll_timeout();
                offer(at, why);
                if let Some(at) = Self::silence_due(state) {
                    offer(at, "overdue report");
                }
            }
            if state.routable && Self::mtu_wanted(state) {
                offer(state.mtu.poll_timeout(), "path mtu");
            }
            if let Some(at) = state.endpoint.poll_timeout() {
                offer(at, "path challenge");
            }
        }
        next
    }

    /// Acts on what the tunnels report.
    pub(super) fn drain_tunnel_events(&mut self, now: Instant, out: &mut Output) {
        while let Some(event) = self.tunnels.poll_event() {
            match event {
                TunnelEvent::WantInitiate(peer) => self.initiate(now, peer, out),
                TunnelEvent::Established(peer) => self.on_established(now, peer),
                TunnelEvent::Expired(peer) => {
                    self.peers.mark(peer);
                    let name = self.peers[peer.usize()].name.clone();
                    self.push_event(Event::TunnelLost { peer: name });
                }
            }
        }
    }

    /// Sends an initiation over every direct link. When it is not the first, also to where the peer
    /// is by configuration, and through relays.
    fn initiate(&mut self, now: Instant, peer: PeerIndex, out: &mut Output) {
        let mut message = std::mem::take(&mut self.reply_scratch);
        message.clear();
        let wall = self.wall(now);
        if self.tunnels.initiate(now, wall, peer, &mut message).is_ok() {
            let entry = &mut self.peers[peer.usize()];
            let attempt = entry.attempts;
            entry.attempts += 1;
            let targets: Vec<_> = entry
                .links()
                .flat_map(|(link, state)| {
                    let home = state.endpoint.home().filter(|_| attempt > 0);
                    let addresses = state.endpoint.address().into_iter().chain(home);
                    addresses.map(move |address| (link.local, address))
                })
                .collect();
            let direct = !targets.is_empty();
            for (uplink, address) in targets {
                self.send_raw(uplink, address, &message, out);
            }
            if attempt > 0 || !direct {
                self.initiate_through_relays(now, peer, attempt, &message, out);
            }
        }
        self.reply_scratch = message;
    }

    fn initiate_through_relays(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        attempt: u32,
        message: &[u8],
        out: &mut Output,
    ) {
        let usable: Vec<PeerIndex> = (0..self.peers.len() as u16)
            .map(PeerIndex)
            .filter(|&relay| {
                let entry = &self.peers[relay.usize()];
                relay != peer && entry.relay && self.router.link_to(relay).is_some()
            })
            .collect();
        if usable.is_empty() {
            return;
        }
        for step in 0..INITIATION_RELAYS.min(usable.len()) {
            let relay = usable[(attempt as usize * INITIATION_RELAYS + step) % usable.len()];
            self.send_handshake_via(now, relay, peer, message, out);
        }
    }

    /// Sends a handshake message to `peer` through `relay`.
    pub(super) fn send_handshake_via(
        &mut self,
        now: Instant,
        relay: PeerIndex,
        peer: PeerIndex,
        message: &[u8],
        out: &mut Output,
    ) {
        let Some(link) = self.router.link_to(relay) else { return };
        let Some(destination) = self.peers[relay.usize()].address(link) else { return };
        let repr = RelayRepr {
            src: self.id,
            dst: self.peers[peer.usize()].id,
            hop_limit: wire::relay::HOP_LIMIT,
            class: 0,
            flow_hash: 0,
        };
        if self.can_seal(now, relay).is_err() {
            return;
        }
        let target = Target { uplink: link.local, destination, tos: 0 };
        let total = wire::RELAY_OVERHEAD + message.len();
        let Some(datagram) = out.tx.push(target, total) else {
            self.counters.drop_message(crate::telemetry::DropReason::BatchFull);
            return;
        };
        datagram[wire::RELAY_OVERHEAD..].copy_from_slice(message);
        let path = Path::Direct(link).into();
        if let Err(reason) = self.tunnels.seal_relay(now, relay, path, &repr, datagram) {
            self.counters.drop_message(reason);
            out.tx.take_back(target);
            return;
        }
        self.counters.underlay_tx.add(1, total as u64);
    }

    /// Queues a datagram that needs no sealing.
    pub(super) fn send_raw(
        &mut self,
        uplink: UplinkIndex,
        destination: std::net::SocketAddr,
        datagram: &[u8],
        out: &mut Output,
    ) {
        let target = Target { uplink, destination, tos: 0 };
        if let Some(place) = out.tx.push(target, datagram.len()) {
            place.copy_from_slice(datagram);
            self.counters.underlay_tx.add(1, datagram.len() as u64);
        } else {
            self.counters.drop_message(crate::telemetry::DropReason::BatchFull);
        }
    }

    /// New keys: whatever was believed of the paths is asked again at once.
    fn on_established(&mut self, now: Instant, peer: PeerIndex) {
        let entry = &mut self.peers[peer.usize()];
        entry.attempts = 0;
        let first = !std::mem::replace(&mut entry.sealable, true);
        for state in &mut entry.paths {
            state.routable = true;
            state.prober.probe_soon(now);
        }
        if first {
            let event = Event::TunnelUp { peer: entry.name.clone() };
            self.push_event(event);
        }
        self.advertiser.doubt(now, peer);
        // Whoever loses the keys again at once, and cannot call us, must be called.
        self.tunnels.expect_answer(now, peer);
    }

    /// Probes, MTU probes and challenges on all paths to one peer.
    fn serve_peer(&mut self, now: Instant, peer: PeerIndex, late: bool, out: &mut Output) {
        let sealable = self.can_seal(now, peer).is_ok();
        self.peers[peer.usize()].sealable = sealable;
        if !sealable {
            return;
        }
        self.forget_unwanted(now, peer);
        if let Some(relay) = self.peers[peer.usize()].unmeasured.take() {
            self.measure_path(now, peer, relay);
        }
        self.report_alone(now, peer, out);
        for at in 0..self.peers[peer.usize()].paths.len() {
            self.serve_path(now, peer, at, late, out);
        }
    }

    /// Whether the size that a path passes is to be found out: large probes cost too much for paths
    /// that nothing uses.
    fn mtu_wanted(state: &PathState) -> bool {
        let wanted = state.mtu.searching() || Self::is_used(state.mtu.poll_timeout(), state);
        wanted && state.prober.state() == Liveness::Up
    }

    fn serve_path(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        at: usize,
        late: bool,
        out: &mut Output,
    ) {
        let path = self.peers[peer.usize()].paths[at].path;
        let route = self.route(peer, path, 0, Label::default());
        let state = &mut self.peers[peer.usize()].paths[at];
        let challenge = state.endpoint.poll_challenge(now, wire::DATA_OVERHEAD + 11);
        let mut probe = None;
        let mut mtu = None;
        state.routable = route.is_some();
        if state.routable {
            if state.prober.handle_timeout(now, late) == Some(Liveness::Down) {
                // What it swallows is no loss, and nothing of it will be reported.
                state.reported.restart();
                state.outstanding.clear();
            }
            self.judge_silence(now, peer, at);
            let state = &mut self.peers[peer.usize()].paths[at];
            probe = state.prober.poll_probe(now);
            if probe.is_some() && state.prober.state() == Liveness::Down {
                state.endpoint.call_home(now, &mut self.rng);
            }
            // In doubt, what vanishes may be anything.
            if Self::mtu_wanted(state) {
                let timeout = state.prober.estimator().timeout().unwrap_or(MTU_TIMEOUT);
                mtu = state.mtu.poll_probe(now, timeout);
            }
        }
        if let (Some(challenge), Path::Direct(link)) = (challenge, path) {
            for address in [Some(challenge.new), challenge.old].into_iter().flatten() {
                let route = self.route_to(peer, link, address, 0);
                self.send_message(now, &route, &Control::PathChallenge(challenge.token), 0, out);
            }
        }
        let Some(route) = route else { return };
        if let Some(probe) = probe {
            let probe = Probe { seq: probe.seq, sent_us: now.as_micros() };
            self.send_probe(now, &route, probe, out);
        }
        if let Some(size) = mtu {
            self.send_message(now, &route, &Control::MtuProbe(size), body_for(size), out);
        }
    }
}
