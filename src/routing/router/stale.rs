//! What must be decided anew, because something changed that it was decided by.
//!
//! Of hundreds of peers, few are concerned by what came in since paths were last chosen; to choose
//! all of them anew, each among all relays, would be nearly all that routing costs. Nothing depends
//! on this for good: every peer has its turn now and then, changed or not.

use crate::id::PeerIndex;
use crate::time::Instant;

/// The direct link to use may be another one, or it is measured anew.
pub(super) const HOP: u8 = 1;
/// The choice of paths may be another one.
pub(super) const PATHS: u8 = 2;
/// Paths to the peer are not to wait for the others' turn.
pub(super) const URGENT: u8 = 4;
/// Whoever drives the router was not told yet that something changed for this peer.
pub(super) const NEWS: u8 = 8;

/// Marks for each peer.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    marks: Vec<u8>,
    /// When the time alone makes a difference to the choice for each peer.
    due: Vec<Option<Instant>>,
    round: usize,
}

impl Stale {
    /// Without any reason, a peer has its turn once in so many rounds.
    const ROUNDS: usize = 32;

    /// Everything is to be decided.
    pub(super) fn new(peers: usize) -> Self {
        Self { marks: vec![HOP | PATHS | NEWS; peers], due: vec![None; peers], round: 0 }
    }

    pub(super) fn mark(&mut self, peer: PeerIndex, what: u8) {
        if let Some(mark) = self.marks.get_mut(peer.usize()) {
            *mark |= what;
        }
    }

    pub(super) fn mark_all(&mut self, what: u8) {
        self.marks.iter_mut().for_each(|mark| *mark |= what);
    }

    /// Takes the marks off; what of them was there.
    pub(super) fn take(&mut self, peer: PeerIndex, what: u8) -> u8 {
        let Some(mark) = self.marks.get_mut(peer.usize()) else { return 0 };
        let found = *mark & what;
        *mark &= !what;
        found
    }

    /// Some peer has this mark.
    pub(super) fn any(&self, what: u8) -> bool {
        self.marks.iter().any(|mark| mark & what != 0)
    }

    /// The choice for a peer is to be made again then, if not before.
    pub(super) fn mark_at(&mut self, peer: PeerIndex, at: Option<Instant>) {
        if let (Some(due), Some(at)) = (self.due.get_mut(peer.usize()), at) {
            *due = Some(due.map_or(at, |due| due.min(at)));
        }
    }

    /// Marks those for whom the time alone makes a difference by now.
    pub(super) fn mark_due(&mut self, now: Instant) {
        for (due, mark) in self.due.iter_mut().zip(&mut self.marks) {
            if due.take_if(|due| *due <= now).is_some() {
                *mark |= HOP | PATHS;
            }
        }
    }

    /// All peers are looked at, and those whose turn it is are decided on whatever happened.
    pub(super) fn begin_round(&mut self) {
        let turn = self.round % Self::ROUNDS;
        let marks = self.marks.iter_mut().skip(turn).step_by(Self::ROUNDS);
        marks.for_each(|mark| *mark |= HOP | PATHS | NEWS);
        self.round = self.round.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn() {
        let mut stale = Stale::new(37);
        let peers = || (0..37).map(PeerIndex);
        peers().for_each(|peer| assert_eq!(stale.take(peer, HOP | PATHS), HOP | PATHS));
        assert!(!stale.any(HOP | PATHS) && stale.any(NEWS));
        let mut turns = [0; 37];
        for _ in 0..Stale::ROUNDS * 3 {
            stale.begin_round();
            for peer in peers() {
                turns[peer.usize()] += u32::from(stale.take(peer, PATHS) != 0);
            }
        }
        assert_eq!(turns, [3; 37]);
        let (peer, at) = (PeerIndex(36), Instant::from_micros);
        stale.mark_at(peer, Some(at(9)));
        stale.mark_at(peer, Some(at(7)));
        stale.mark_at(peer, None);
        stale.mark_due(at(6));
        assert_eq!(stale.take(peer, PATHS), 0);
        stale.mark_due(at(7));
        assert_eq!(stale.take(peer, PATHS), PATHS);
        stale.mark_due(at(9));
        assert_eq!(stale.take(peer, PATHS), 0, "it was decided");
        stale.mark(PeerIndex(99), PATHS);
        assert_eq!(stale.take(PeerIndex(99), PATHS), 0, "a stranger");
    }
}
