//! Volleys that measure what a path carries: when they leave, and what becomes of those that arrive.

use std::time::Duration;

use super::Node;
use super::control::body_for;
use super::peer::Peer;
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::link::{Capacity, Dispersion};
use crate::metric::Liveness;
use crate::path::{Path, PathId};
use crate::time::Instant;
use crate::wire::{self, Control, Volley, VolleyReport};

/// How often paths to measure are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Paths that are measured so.
const PATHS_MAX: usize = 32;
/// The share of the budget for control traffic that volleys may take while any is wanted.
const SHARE_PERCENT: u64 = 10;
/// The share is kept on the average of so long.
const CREDIT: Duration = Duration::from_secs(120);
/// A path of which so many volleys are known ...
const ENOUGH: usize = 3;
/// ... is measured again after so long.
const AGAIN: Duration = Duration::from_secs(120);
/// An answer comes within this time, or never.
const ANSWER: Duration = Duration::from_secs(5);
/// Datagrams in a volley, and in one after an answer stayed away: a short queue lost the end of it.
const LENGTHS: [u8; 2] = [8, 4];
/// Longest volley that is taken in.
const LENGTH_MAX: u8 = 16;
/// Volleys that come in at once, of all peers.
const COMING_MAX: usize = 16;

/// A path that is measured.
#[derive(Debug)]
struct Measured {
    peer: PeerIndex,
    path: Path,
    capacity: Capacity,
    wanted: bool,
    /// The last volley: its number, length of a datagram on the wire, datagrams, and when it left.
    sent: Option<(u16, u32, u8, Instant)>,
    /// Volleys in a row that nobody answered, the last one among them until its answer comes.
    unanswered: u8,
}

/// A volley that is coming in.
#[derive(Clone, Copy, Debug)]
struct Coming {
    peer: PeerIndex,
    path: PathId,
    seq: u16,
    first_at: Instant,
    last_at: Instant,
    arrived: u8,
}

/// Our volleys and those of others.
#[derive(Debug, Default)]
pub(super) struct Volleys {
    paths: Vec<Measured>,
    coming: Vec<Coming>,
    looked_at: Option<Instant>,
    /// Bits that volleys may cost.
    credit: u64,
    next_seq: u16,
    wanted_scratch: Vec<(PeerIndex, Path)>,
}

impl Volleys {
    /// What volleys may take of the budget for control traffic, in bits per second.
    pub(super) fn share_bps(&self, budget_bps: u64) -> u64 {
        if self.paths.is_empty() { 0 } else { budget_bps * SHARE_PERCENT / 100 }
    }

    /// Takes note of a datagram of a volley. The answer, when it is the last one.
    fn on_volley(
        &mut self,
        (peer, path): (PeerIndex, PathId),
        at: Instant,
        volley: Volley,
    ) -> Option<VolleyReport> {
        if !(2..=LENGTH_MAX).contains(&volley.count) || volley.index >= volley.count {
            return None;
        }
        let this = |c: &Coming| (c.peer, c.path, c.seq) == (peer, path, volley.seq);
        let fresh = Coming { peer, path, seq: volley.seq, first_at: at, last_at: at, arrived: 0 };
        let place = match self.coming.iter().position(this) {
            Some(place) => place,
            None if self.coming.len() < COMING_MAX => {
                self.coming.push(fresh);
                self.coming.len() - 1
            }
            None => {
                let ages = (0..).zip(&self.coming);
                let place = ages.min_by_key(|(_, coming)| coming.last_at).map_or(0, |(at, _)| at);
                self.coming[place] = fresh;
                place
            }
        };
        let coming = &mut self.coming[place];
        coming.first_at = coming.first_at.min(at);
        coming.last_at = coming.last_at.max(at);
        coming.arrived = coming.arrived.saturating_add(1);
        if volley.index + 1 < volley.count {
            return None;
        }
        let coming = self.coming.swap_remove(place);
        let span_us = (coming.last_at - coming.first_at).as_micros();
        let span_us = u32::try_from(span_us).unwrap_or(u32::MAX);
        Some(VolleyReport { path, seq: volley.seq, arrived: coming.arrived, span_us })
    }

    /// The answer to a volley of ours: what the path carries, if that is known now.
    fn on_report(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        report: &VolleyReport,
    ) -> Option<(Path, u32)> {
        let ours = |m: &&mut Measured| m.peer == peer && PathId::from(m.path) == report.path;
        let measured = self.paths.iter_mut().find(ours)?;
        let (seq, bytes, sent, at) = measured.sent?;
        if seq != report.seq || measured.unanswered == 0 || now - at > ANSWER {
            return None;
        }
        measured.unanswered = 0;
        let VolleyReport { arrived, span_us, .. } = *report;
        let kbit = Dispersion { bytes, sent, arrived, span_us }.rate_kbit()?;
        measured.capacity.push(now, kbit);
        Some((measured.path, measured.capacity.kbit(now)?))
    }

    /// Goes on with the paths that are wanted, and forgets others when their measurement is old.
    fn set_wanted(&mut self, now: Instant) {
        for measured in &mut self.paths {
            measured.wanted = false;
        }
        for &(peer, path) in &self.wanted_scratch {
            let known = self.paths.iter_mut().find(|m| (m.peer, m.path) == (peer, path));
            if let Some(measured) = known {
                measured.wanted = true;
                continue;
            }
            if self.paths.len() >= PATHS_MAX {
                let Some(at) = self.paths.iter().position(|m| !m.wanted) else { return };
                self.paths.remove(at);
            }
            let capacity = Capacity::default();
            let fresh = Measured { peer, path, capacity, wanted: true, sent: None, unanswered: 0 };
            self.paths.push(fresh);
        }
        self.paths.retain(|m| m.wanted || m.capacity.kbit(now).is_some());
    }

    /// The path that is measured next: the one that has waited longest.
    fn next(&self, now: Instant) -> Option<usize> {
        let due = |m: &Measured| {
            let pause = if m.capacity.volleys() < ENOUGH { ANSWER } else { AGAIN };
            // Who never answers is asked more and more rarely.
            let pause = pause.max(ANSWER * (1 << m.unanswered.min(6)));
            m.wanted && m.sent.is_none_or(|(.., at)| now - at >= pause)
        };
        let all = self.paths.iter().enumerate().filter(|(_, measured)| due(measured));
        all.min_by_key(|(_, measured)| measured.sent.map(|sent| sent.3)).map(|(at, _)| at)
    }
}

impl Node {
    /// Sends a volley now and then on the paths whose capacity decides something.
    pub(super) fn observe_capacity(&mut self, now: Instant, out: &mut Output) {
        let first = self.volleys.looked_at.is_none();
        let before = *self.volleys.looked_at.get_or_insert(now);
        if !first && now - before < LOOK {
            return;
        }
        self.volleys.looked_at = Some(now);
        let mut wanted = std::mem::take(&mut self.volleys.wanted_scratch);
        wanted.clear();
        for index in 0..self.peers.len() {
            let used = |peer: &Peer| peer.paths.iter().any(|state| Self::is_used(now, state));
            if wanted.len() < PATHS_MAX && used(&self.peers[index]) {
                let (peer, policy) = (PeerIndex(index as u16), &self.policy);
                self.router.weighed_by_capacity(
                    peer,
                    |demand| policy.asks_for(demand),
                    &mut wanted,
                );
            }
        }
        wanted.truncate(PATHS_MAX);
        self.volleys.wanted_scratch = wanted;
        self.volleys.set_wanted(now);
        self.router.retain_capacities(|peer, path| {
            let known = self.volleys.paths.iter().find(|m| (m.peer, m.path) == (peer, path));
            known.is_some_and(|measured| measured.capacity.kbit(now).is_some())
        });
        let share = self.control_budget_bps * SHARE_PERCENT / 100;
        // As much as in two minutes: enough for the first few at once.
        let most = share * CREDIT.as_secs();
        let grown = share * (now - before).as_millis() as u64 / 1_000;
        self.volleys.credit = if first { most } else { most.min(self.volleys.credit + grown) };
        if let Some(at) = self.volleys.next(now) {
            self.send_volley(now, at, out);
        }
    }

    fn send_volley(&mut self, now: Instant, at: usize, out: &mut Output) {
        let Measured { peer, path, unanswered, .. } = self.volleys.paths[at];
        let Some(route) = self.route(peer, path, 0, super::Label::default()) else { return };
        let Some(state) = self.peers[peer.usize()].state(path) else { return };
        if state.prober.state() != Liveness::Up || self.can_seal(now, peer).is_err() {
            return;
        }
        let datagram = state.mtu.proven();
        let headers = if route.target.destination.is_ipv6() { 48 } else { 28 };
        let relay = if path.relay().is_some() { wire::RELAY_OVERHEAD as u32 } else { 0 };
        let bytes = u32::from(datagram) + relay + headers;
        let count = LENGTHS[usize::from(unanswered > 0)];
        // A relay sends it once more, on its own account.
        let bits = u64::from(bytes) * 8 * u64::from(count);
        let Some(rest) = self.volleys.credit.checked_sub(bits) else { return };
        self.volleys.credit = rest;
        let seq = self.volleys.next_seq;
        self.volleys.next_seq = seq.wrapping_add(1);
        let measured = &mut self.volleys.paths[at];
        measured.sent = Some((seq, bytes, count, now));
        measured.unanswered = measured.unanswered.saturating_add(1);
        for index in 0..count {
            let volley = Control::Volley(Volley { seq, index, count });
            self.send_message(now, &route, &volley, body_for(datagram), out);
        }
    }

    /// A datagram of a peer's volley came in.
    pub(super) fn on_volley(
        &mut self,
        peer: PeerIndex,
        path: PathId,
        at: Instant,
        volley: Volley,
    ) -> Option<VolleyReport> {
        self.volleys.on_volley((peer, path), at, volley)
    }

    /// A peer says how a volley of ours arrived.
    pub(super) fn on_volley_report(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        report: &VolleyReport,
    ) {
        if let Some((path, kbit)) = self.volleys.on_report(now, peer, report) {
            self.router.set_capacity(peer, path, kbit);
        }
    }
}
