//! Volleys that measure what a path carries: when they leave, and what becomes of those that arrive.

mod incoming;

use std::time::Duration;

use super::control::body_for;
use super::peer::Peer;
use super::{Node, Route};
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::link::{Capacity, Dispersion};
use crate::metric::Liveness;
use crate::path::{Path, PathId};
use crate::time::Instant;
use crate::wire::{self, Control, Volley, VolleyReport};
use incoming::Incoming;

/// How often paths to measure are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Paths that are measured so.
const PATHS_MAX: usize = 32;
/// The share of the budget for control traffic that volleys may take while any is wanted.
const SHARE_PERCENT: u64 = 10;
/// The share is kept on the average of so long.
const CREDIT: Duration = Duration::from_secs(120);
/// What may be spent at first, in bits: one volley.
const FIRST_CREDIT: u64 = 4 * 1_500 * 8;
/// A path of which so many volleys are known ...
const ENOUGH: usize = Capacity::BELIEVED;
/// ... is measured again after so long.
const AGAIN: Duration = Duration::from_secs(120);
/// One that decides nothing, because it was found to be narrow, after so long.
const RARELY: Duration = Duration::from_secs(3_600);
/// An answer comes within this time, or never.
const ANSWER: Duration = Duration::from_secs(5);
/// Datagrams in a volley: on a path that passes so many quickly, on any other one, and after an answer
/// stayed away, for a short queue lost the end of it.
const LENGTHS: [u8; 3] = [8, 4, 3];
/// What takes no longer is quick.
const QUICK_MS: u64 = 20;
/// Until a path was measured, a volley is taken to drain at this rate ...
const UNKNOWN_KBIT: u32 = 1_000;
/// ... and within this time.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// A volley of ours.
#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u16,
    /// Length of the longest datagram on the wire.
    bytes: u32,
    count: u8,
    at: Instant,
}

/// A path that is measured.
#[derive(Debug)]
struct Measured {
    peer: PeerIndex,
    path: Path,
    capacity: Capacity,
    wanted: bool,
    /// The last volley.
    sent: Option<Sent>,
    /// Volleys in a row that nobody answered, the last one among them until its answer comes.
    unanswered: u8,
    /// All of the last volley that was answered arrived.
    whole: bool,
}

impl Measured {
    /// How many datagrams of so many bytes the next volley has, when no more than `most` bits are ever
    /// there for one. `None` when that is too little for any.
    fn length(&self, bytes: u32, most: u64) -> Option<u8> {
        let bits = |count: u8| u64::from(bytes) * 8 * u64::from(count);
        let [long, usual, short] = LENGTHS;
        let is_quick = |kbit| bits(long) / u64::from(kbit) < QUICK_MS;
        let known = self.whole && self.capacity.volleys() >= ENOUGH;
        let longest = if self.unanswered > 0 {
            short
        } else if known && self.capacity.last_kbit().is_some_and(is_quick) {
            long
        } else {
            usual
        };
        LENGTHS.into_iter().find(|count| *count <= longest && bits(*count) <= most)
    }
}

/// Our volleys and those of others.
#[derive(Debug, Default)]
pub(super) struct Volleys {
    paths: Vec<Measured>,
    incoming: Incoming,
    looked_at: Option<Instant>,
    /// Bits that volleys may cost; `None` before any was wanted.
    credit: Option<u64>,
    /// Numbers begin by chance, so that those of a life before are told apart.
    next_seq: Option<u16>,
    wanted_scratch: Vec<(PeerIndex, Path)>,
}

impl Volleys {
    /// What volleys may take of the budget for control traffic, in bits per second.
    pub(super) fn share_bps(&self, budget_bps: u64) -> u64 {
        if self.is_any_wanted() { budget_bps * SHARE_PERCENT / 100 } else { 0 }
    }

    fn is_any_wanted(&self) -> bool {
        self.paths.iter().any(|measured| measured.wanted)
    }

    /// Adds what the budget gave in `span`, at most what it gives in two minutes. Before the first path
    /// was wanted it gave nothing.
    fn earn(&mut self, span: Duration, budget_bps: u64) {
        let share = self.share_bps(budget_bps);
        if share == 0 {
            return;
        }
        let grown = (u128::from(share) * span.as_millis() / 1_000) as u64;
        let credit = self.credit.map_or(FIRST_CREDIT, |credit| credit.saturating_add(grown));
        self.credit = Some(credit.min(Self::most(budget_bps)));
    }

    /// What is ever there for one volley, in bits.
    const fn most(budget_bps: u64) -> u64 {
        budget_bps * SHARE_PERCENT / 100 * CREDIT.as_secs()
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
        let Sent { seq, bytes, count, at } = measured.sent?;
        if seq != report.seq || measured.unanswered == 0 || now - at > ANSWER {
            return None;
        }
        let VolleyReport { arrived, span_us, .. } = *report;
        measured.unanswered = 0;
        measured.whole = arrived == count;
        let kbit = Dispersion { bytes, sent: count, arrived, span_us }.rate_kbit()?;
        measured.capacity.push(now, kbit);
        Some((measured.path, measured.capacity.kbit()?))
    }

    /// Goes on with the paths that are wanted. What others carry is remembered while there is room.
    fn set_wanted(&mut self, wanted: &[(PeerIndex, Path)]) {
        for measured in &mut self.paths {
            measured.wanted = wanted.contains(&(measured.peer, measured.path));
        }
        self.paths.retain(|m| m.wanted || m.capacity.kbit().is_some());
        for &(peer, path) in wanted {
            if self.paths.iter().any(|m| (m.peer, m.path) == (peer, path)) {
                continue;
            }
            if self.paths.len() >= PATHS_MAX {
                let others = self.paths.iter().enumerate().filter(|(_, m)| !m.wanted);
                let oldest = others.min_by_key(|(_, m)| m.sent.map(|sent| sent.at));
                let Some((at, _)) = oldest else { return };
                self.paths.remove(at);
            }
            self.paths.push(Measured {
                peer,
                path,
                capacity: Capacity::default(),
                wanted: true,
                sent: None,
                unanswered: 0,
                whole: false,
            });
        }
    }

    fn is_due(&self, now: Instant, measured: &Measured) -> bool {
        let of_peer = |other: &Measured| other.wanted && other.peer == measured.peer;
        if !self.paths.iter().any(of_peer) {
            return false;
        }
        let pause = if measured.capacity.volleys() < ENOUGH {
            ANSWER
        } else if measured.wanted {
            AGAIN
        } else {
            RARELY
        };
        // Who never answers is asked more and more rarely.
        let pause = pause.max(ANSWER * (1 << measured.unanswered.min(6)));
        measured.sent.is_none_or(|sent| now - sent.at >= pause)
    }

    /// The path that is measured next, and with how many datagrams: the one that has waited longest of
    /// those that can be sent on now. `bytes` says how long a datagram is there on the wire, if so.
    fn next(
        &self,
        now: Instant,
        most: u64,
        bytes: impl Fn(PeerIndex, Path) -> Option<u32>,
    ) -> Option<(usize, u8)> {
        let due = self.paths.iter().enumerate().filter(|(_, m)| self.is_due(now, m));
        let ready = due.filter_map(|(at, measured)| {
            let count = measured.length(bytes(measured.peer, measured.path)?, most)?;
            Some((at, count, measured.sent.map(|sent| sent.at)))
        });
        ready.min_by_key(|(.., sent_at)| *sent_at).map(|(at, count, _)| (at, count))
    }
}

/// How a volley on a path would leave.
struct Way {
    route: Route,
    /// Length of the longest tunnel datagram.
    datagram: u16,
    /// The same on the wire.
    bytes: u32,
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
        let budget_bps = self.control_budget_bps;
        self.volleys.earn(now - before, budget_bps);
        self.volleys.set_wanted(&wanted);
        self.volleys.wanted_scratch = wanted;
        self.router.retain_capacities(|peer, path| {
            let known = self.volleys.paths.iter().find(|m| (m.peer, m.path) == (peer, path));
            known.is_some_and(|measured| measured.capacity.kbit().is_some())
        });
        let bytes = |peer, path| self.volley_way(now, peer, path).map(|way| way.bytes);
        let next = self.volleys.next(now, Volleys::most(budget_bps), bytes);
        if let Some((at, count)) = next {
            self.send_volley(now, at, count, out);
        }
    }

    /// How a volley would leave on a path, if one can now.
    fn volley_way(&self, now: Instant, peer: PeerIndex, path: Path) -> Option<Way> {
        let route = self.route(peer, path, 0, super::Label::default())?;
        let state = self.peers[peer.usize()].state(path)?;
        if state.prober.state() != Liveness::Up || self.can_seal(now, peer).is_err() {
            return None;
        }
        let datagram = state.mtu.proven();
        let headers = if route.target.destination.is_ipv6() { 48 } else { 28 };
        let relay = if path.relay().is_some() { wire::RELAY_OVERHEAD as u32 } else { 0 };
        Some(Way { route, datagram, bytes: u32::from(datagram) + relay + headers })
    }

    fn send_volley(&mut self, now: Instant, at: usize, count: u8, out: &mut Output) {
        let Measured { peer, path, .. } = self.volleys.paths[at];
        let Some(Way { route, datagram, bytes }) = self.volley_way(now, peer, path) else { return };
        // A relay sends it once more, on its own account.
        let bits = u64::from(bytes) * 8 * u64::from(count);
        let credit = self.volleys.credit.unwrap_or(0);
        // Until there is enough, this path waits, and those after it.
        let Some(rest) = credit.checked_sub(bits) else { return };
        self.volleys.credit = Some(rest);
        let seq = self.volleys.next_seq.unwrap_or_else(|| self.rng.next_u64() as u16);
        self.volleys.next_seq = Some(seq.wrapping_add(1));
        let measured = &mut self.volleys.paths[at];
        measured.sent = Some(Sent { seq, bytes, count, at: now });
        measured.unanswered = measured.unanswered.saturating_add(1);
        let kbit = measured.capacity.last_kbit().unwrap_or(UNKNOWN_KBIT);
        let drained = now + Duration::from_millis(bits / u64::from(kbit)).min(DRAIN_MAX);
        if let Some(state) = self.peers[peer.usize()].state_mut(path) {
            state.reported.excuse(now, count.into());
            state.outstanding.excuse(drained);
            state.prober.postpone(drained);
        }
        for index in 0..count {
            let volley = Control::Volley(Volley { seq, index, count });
            // Each is longer than the one before: neither our kernel nor any on the way merges such
            // datagrams, and each gets a time of its own when it arrives.
            let datagram = datagram - u16::from(count - 1 - index);
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
        self.volleys.incoming.on_volley((peer, path), at, volley)
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

#[cfg(test)]
mod tests;
