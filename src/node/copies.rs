//! Second copies of packets over a second path, and how the receiver tells them apart.
//!
//! A packet goes twice in three cases: its path is suspect, until that is decided; its flow begins
//! after a silence, when nobody can know yet how its path is; its class demands it.

use super::encapsulate::Route;
use super::{Label, Node};
use crate::batch::Output;
use crate::flow::{ClassIndex, FlowId};
use crate::id::PeerIndex;
use crate::packet::{Headers, Segmenter, Vnet};
use crate::path::Path;
use crate::routing::Demand;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::{COPY_ID_LEN, Flags};

/// Bytes of copies for one suspicion; when they are spent, packets take the other path alone.
pub(super) const COPIES_PER_SUSPICION: u32 = 256 * 1024;
/// The first packets of a flow, and of one that was silent for a second, go twice.
const FIRST_PACKETS: u64 = 3;

/// The copy ids that came from one peer. Ids count up in each session; of each pair the first one
/// passes.
///
/// Both copies of a packet are sealed with the keys of one session, so ids are told apart by it: a
/// sender that restarts may begin anywhere, also just behind the ids of its life before.
#[derive(Clone, Debug, Default)]
pub(super) struct CopyWindow {
    /// The newest session first.
    sessions: [Option<Box<SessionCopies>>; Self::SESSIONS],
}

/// The ids that came in one session.
#[derive(Clone, Debug)]
struct SessionCopies {
    /// Our index of the session.
    receiver: u32,
    seen: [u64; Self::WORDS],
    /// The highest id.
    top: u32,
}

impl CopyWindow {
    /// As many as keys are kept: the current ones, those before and those that come next.
    const SESSIONS: usize = 3;

    pub(super) fn new() -> Self {
        Self::default()
    }

    /// True for the first packet with this id in the session with our index `receiver`. What is too
    /// old to tell counts as seen.
    pub(super) fn admit(&mut self, receiver: u32, id: u32) -> bool {
        let of = |session: &&mut Box<SessionCopies>| session.receiver == receiver;
        if let Some(session) = self.sessions.iter_mut().flatten().find(of) {
            return session.admit(id);
        }
        let fresh = SessionCopies { receiver, seen: [0; SessionCopies::WORDS], top: id };
        self.sessions.rotate_right(1);
        let place = &mut self.sessions[0];
        let session = match place {
            Some(session) => {
                **session = fresh;
                session
            }
            None => place.insert(Box::new(fresh)),
        };
        session.admit(id)
    }
}

impl SessionCopies {
    const WORDS: usize = 128;
    const BITS: u32 = Self::WORDS as u32 * 64;

    fn admit(&mut self, id: u32) -> bool {
        let ahead = id.wrapping_sub(self.top);
        let behind = ahead.wrapping_neg();
        if ahead > 0 && ahead < 1 << 31 {
            if ahead >= Self::BITS {
                self.seen = [0; Self::WORDS];
            } else {
                for step in 1..=ahead {
                    self.unmark(self.top.wrapping_add(step));
                }
            }
            self.top = id;
        } else if behind >= Self::BITS {
            return false;
        }
        let word = &mut self.seen[(id / 64) as usize % Self::WORDS];
        let bit = 1 << (id % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn unmark(&mut self, id: u32) {
        self.seen[(id / 64) as usize % Self::WORDS] &= !(1 << (id % 64));
    }
}

/// What second copies for classes that demand them may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyBudget {
    bytes_per_second: u64,
    credit: u64,
    at: Instant,
}

impl CopyBudget {
    pub(super) fn new(now: Instant, bits_per_second: u64) -> Self {
        let bytes_per_second = bits_per_second / 8;
        Self { bytes_per_second, credit: Self::burst(bytes_per_second), at: now }
    }

    /// What half a second earns, and at least a train.
    fn burst(bytes_per_second: u64) -> u64 {
        (bytes_per_second / 2).max(65_536)
    }

    pub(super) fn take(&mut self, now: Instant, bytes: u64) -> bool {
        let micros = (now - self.at).as_micros() as u64;
        let earned = self.bytes_per_second.saturating_mul(micros) / 1_000_000;
        if earned > 0 {
            let burst = Self::burst(self.bytes_per_second);
            self.credit = self.credit.saturating_add(earned).min(burst);
            self.at = now;
        }
        let enough = self.credit >= bytes;
        if enough {
            self.credit -= bytes;
        }
        enough
    }
}

/// A train on its way to a peer, as far as copies are concerned.
#[derive(Clone, Copy)]
pub(super) struct Outbound {
    pub(super) flow: Option<FlowId>,
    pub(super) class: ClassIndex,
    pub(super) demand: Demand,
    pub(super) packets: u64,
    pub(super) bytes: usize,
}

impl Node {
    /// The second path for a train that goes by `path`, if it is to go twice.
    pub(super) fn second_path(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: Path,
        train: &Outbound,
    ) -> Option<Path> {
        let in_use = self.router.path(peer, train.demand);
        let alternate = self.router.alternate(peer, train.demand);
        // A flow of a class that is spread may be on the alternate.
        let other = if alternate == Some(path) { in_use } else { alternate };
        let other = other.filter(|other| *other != path)?;
        let bytes = train.bytes as u64;
        if in_use == Some(path) && self.router.suspected(peer, train.demand) == Some(other) {
            let state = self.peers[peer.usize()].state_mut(other)?;
            let left = u64::from(state.copy_credit).checked_sub(bytes)?;
            state.copy_credit = left as u32;
            return Some(other);
        }
        if self.classes.get(train.class).redundancy > 1 {
            if self.copy_budget.take(now, bytes) {
                return Some(other);
            }
            self.counters.copies_refused += train.packets;
            return None;
        }
        let begun = train.flow.and_then(|id| self.flows.get(id)).map(|flow| u64::from(flow.burst));
        begun.is_some_and(|begun| begun <= FIRST_PACKETS).then_some(other)
    }

    /// Cuts a train to what both paths pass and sends every packet over both.
    #[expect(clippy::too_many_arguments, reason = "a train is a frame with what describes it")]
    pub(super) fn encapsulate_twice(
        &mut self,
        now: Instant,
        route: &Route,
        second: &Route,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let mtu = route.mtu.min(second.mtu);
        let Ok(mut segmenter) = Segmenter::new(frame, headers, *vnet, mtu) else {
            // Too big for one of them: no copies of parts.
            return self.encapsulate(now, route, frame, headers, vnet, out);
        };
        self.close_bundle(now, route.peer, out);
        let partial = segmenter.leave_partial();
        let flags = if partial { Flags::COPY.with(Flags::NEEDS_CHECKSUM) } else { Flags::COPY };
        let count = segmenter.count();
        let entry = &mut self.peers[route.peer.usize()];
        let first_id = entry.next_copy;
        entry.next_copy = first_id.wrapping_add(count as u32);
        let mut sent = Ok(());
        for (route, is_copy) in [(route, false), (second, true)] {
            for index in 0..count {
                let id = first_id.wrapping_add(index as u32);
                let fill = |place: &mut [u8]| {
                    let (head, body) = place.split_at_mut(COPY_ID_LEN);
                    head.copy_from_slice(&id.to_be_bytes());
                    segmenter.write(index, body);
                };
                let len = COPY_ID_LEN + segmenter.segment_len(index);
                match self.send(now, route, flags, len, fill, out) {
                    Ok(()) if is_copy => self.counters.copies.add(1, len as u64),
                    Ok(()) => {}
                    Err(_) if is_copy => break,
                    Err(reason) => {
                        sent = Err(reason);
                        break;
                    }
                }
            }
            self.note_sent(now, route);
        }
        sent
    }

    /// A second copy's route, on which nothing is known of the flow but its class.
    pub(super) fn second_route(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: Path,
        tos: u8,
        label: Label,
        train: &Outbound,
    ) -> Option<Route> {
        let second = self.second_path(now, peer, path, train)?;
        self.route(peer, second, tos, label)
    }

    /// Data left on a path: a report of it will be due.
    pub(super) fn note_sent(&mut self, now: Instant, route: &Route) {
        let entry = &mut self.peers[route.peer.usize()];
        if let Some(state) = entry.state_mut(route.path) {
            state.outstanding.on_sent(now);
            state.used_at = Some(now);
        } else if let Path::Via(relay) = route.path
            && entry.unmeasured != Some(relay)
        {
            entry.unmeasured = Some(relay);
            self.router_stale = true;
            self.touch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Our index of a session.
    const NOW: u32 = 0x51;

    #[test]
    fn of_each_pair_the_first_passes_in_any_order() {
        let mut window = CopyWindow::new();
        for id in [u32::MAX - 1, 0, u32::MAX, 7, 3] {
            assert!(window.admit(NOW, id), "{id}");
            assert!(!window.admit(NOW, id), "{id}");
        }
        for id in 8..100_000 {
            assert!(window.admit(NOW, id));
        }
        assert!(!window.admit(NOW, 99_000) && !window.admit(NOW, 50_000));
        assert!(window.admit(NOW, 100_500));
        assert!(window.admit(NOW, 100_300) && !window.admit(NOW, 100_300));
    }

    #[test]
    fn a_jump_forgets_what_it_passes_and_nothing_else() {
        const BITS: u32 = SessionCopies::BITS;
        for ahead in [1, 63, 64, BITS - 1, BITS, BITS + 1, 1 << 30] {
            let mut window = CopyWindow::new();
            let seen: Vec<u32> = (0..BITS).map(|n| 7_000_000 + n).collect();
            assert!(seen.iter().all(|id| window.admit(NOW, *id)));
            let top = 7_000_000 + BITS - 1 + ahead;
            assert!(window.admit(NOW, top) && !window.admit(NOW, top), "{ahead}");
            let new = (1..BITS.min(ahead)).filter(|back| window.admit(NOW, top - back)).count();
            assert_eq!(new, BITS.min(ahead) as usize - 1, "those between are new: {ahead}");
            assert!(!seen.iter().any(|id| window.admit(NOW, *id)), "those before are not: {ahead}");
        }
    }

    #[test]
    fn another_session_begins_anew_wherever_its_ids_begin() {
        for begin in [3, 4_999_000, 4_990_000, 5_000_000, 5_000_001, 5_010_000] {
            let mut window = CopyWindow::new();
            assert!(window.admit(NOW, 5_000_000));
            for id in begin..begin + 20_000 {
                assert!(window.admit(NOW + 1, id), "{begin} {id}");
                assert!(!window.admit(NOW + 1, id), "{begin} {id}");
            }
        }
    }

    #[test]
    fn a_late_copy_of_the_session_before_does_not_pass_again() {
        let mut window = CopyWindow::new();
        assert!(window.admit(NOW, 5_000_000) && window.admit(NOW, 5_000_001));
        for session in NOW + 1..NOW + CopyWindow::SESSIONS as u32 {
            assert!(window.admit(session, 3));
            assert!(!window.admit(NOW, 5_000_000), "the second copy of the session before");
            assert!(!window.admit(session, 3));
        }
        assert!(window.admit(NOW, 5_000_002), "what a relay held up");
    }

    #[test]
    fn copies_for_classes_keep_to_their_budget() {
        let start = Instant::from_micros(1_000_000);
        let mut budget = CopyBudget::new(start, 8_000_000);
        let mut passed = 0;
        for ms in 0..10_000 {
            for _ in 0..4 {
                if budget.take(start + Duration::from_millis(ms), 1_000) {
                    passed += 1_000;
                }
            }
        }
        assert!((9_900_000..10_600_000).contains(&passed), "{passed}");
    }
}
