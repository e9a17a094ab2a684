//! The peers of a node, and which of them something happened to.
//!
//! Most turns concern one or two peers of hundreds. So each peer's deadline is kept until the peer
//! may have changed, and only peers that are due or may have changed are served. Whoever can change
//! a peer goes through [`Peers`], which takes note of it: nothing can be forgotten.

use std::cell::Cell;
use std::ops::{Deref, Index, IndexMut};

use super::peer::Peer;
use crate::id::PeerIndex;
use crate::time::Instant;

/// A deadline and its reason.
pub(super) type Due = (Instant, &'static str);

/// What must be done again because the peer may have changed.
const DEADLINE: u8 = 1;
const SERVICE: u8 = 2;
const REPORT: u8 = 4;
const CARE: u8 = 8;
/// No deadline.
const NEVER: Instant = Instant::from_micros(u64::MAX);
const ALL: u8 = DEADLINE | SERVICE | REPORT | CARE;

/// Every peer, by [`PeerIndex`].
#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    /// One for each peer, apart from the peers themselves: they are looked at every time.
    marks: Vec<Cell<u8>>,
    /// The deadlines, [`NEVER`] for none, and apart from them their reasons: only the first one's is
    /// asked for.
    due: Vec<Cell<Instant>>,
    reasons: Vec<Cell<&'static str>>,
}

impl Peers {
    pub(super) fn new(list: Vec<Peer>) -> Self {
        let marks = vec![Cell::new(ALL); list.len()];
        let due = vec![Cell::new(NEVER); list.len()];
        let reasons = vec![Cell::new(""); list.len()];
        Self { list, marks, due, reasons }
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Peer> {
        self.marks.get(index)?.set(ALL);
        self.list.get_mut(index)
    }

    /// A peer, for changes of what no deadline, service or report depends on.
    pub(super) fn aside(&mut self, index: usize) -> &mut Peer {
        &mut self.list[index]
    }

    /// Something else changed that concerns a peer.
    pub(super) fn mark(&self, peer: PeerIndex) {
        if let Some(mark) = self.marks.get(peer.usize()) {
            mark.set(ALL);
        }
    }

    /// The first deadline of all peers, each as `find` tells it.
    pub(super) fn first_deadline(&self, find: impl Fn(&Peer) -> Option<Due>) -> Option<Due> {
        let mut at = 0;
        while let Some(index) = self.next_marked(at, DEADLINE) {
            self.marks[index].set(self.marks[index].get() & !DEADLINE);
            let (due, reason) = self.list.get(index).and_then(&find).unwrap_or((NEVER, ""));
            self.due[index].set(due);
            self.reasons[index].set(reason);
            at = index + 1;
        }
        let first = self.due.iter().map(Cell::get).min().filter(|first| *first < NEVER)?;
        let index = self.due.iter().position(|due| due.get() == first)?;
        Some((first, self.reasons[index].get()))
    }

    /// The first peer from `at` on that has a mark.
    fn next_marked(&self, at: usize, mark: u8) -> Option<usize> {
        let found = self.marks.get(at..)?.iter().position(|marks| marks.get() & mark != 0)?;
        Some(at + found)
    }

    /// The first peer from `from` on that may have changed since [`Self::served`], or that something
    /// is due for.
    pub(super) fn next_to_serve(&self, now: Instant, from: usize) -> Option<PeerIndex> {
        let (marks, due) = self.marks.get(from..).zip(self.due.get(from..))?;
        let needs = |(mark, due): (&Cell<u8>, &Cell<Instant>)| {
            mark.get() & SERVICE != 0 || due.get() <= now
        };
        let found = marks.iter().zip(due).position(needs)?;
        Some(PeerIndex((from + found) as u16))
    }

    /// All that was due for a peer is done.
    pub(super) fn served(&self, peer: PeerIndex) {
        self.clear(peer, SERVICE);
    }

    /// The first peer from `from` on that may have changed since it was last given here.
    pub(super) fn take_report(&self, from: usize) -> Option<PeerIndex> {
        let peer = PeerIndex(self.next_marked(from, REPORT)? as u16);
        self.clear(peer, REPORT);
        Some(peer)
    }

    /// The router is to be told of a peer again, although nothing may have changed.
    pub(super) fn mark_report(&self, peer: PeerIndex) {
        if let Some(mark) = self.marks.get(peer.usize()) {
            mark.set(mark.get() | REPORT);
        }
    }

    /// The router is to be told of all peers again.
    pub(super) fn mark_reports(&self) {
        self.marks.iter().for_each(|mark| mark.set(mark.get() | REPORT));
    }

    /// True when a peer may have changed since this was last asked: what follows from the choice of
    /// paths is to be looked at.
    pub(super) fn take_care(&self, peer: PeerIndex) -> bool {
        self.clear(peer, CARE)
    }

    fn clear(&self, peer: PeerIndex, what: u8) -> bool {
        let Some(mark) = self.marks.get(peer.usize()) else { return false };
        mark.replace(mark.get() & !what) & what != 0
    }
}

impl Deref for Peers {
    type Target = [Peer];

    fn deref(&self) -> &[Peer] {
        &self.list
    }
}

impl Index<usize> for Peers {
    type Output = Peer;

    fn index(&self, index: usize) -> &Peer {
        &self.list[index]
    }
}

impl IndexMut<usize> for Peers {
    fn index_mut(&mut self, index: usize) -> &mut Peer {
        if let Some(mark) = self.marks.get(index) {
            mark.set(ALL);
        }
        &mut self.list[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::paths;
    use crate::rng::Rng;

    const NOW: Instant = Instant::from_micros(7);
    const A: PeerIndex = PeerIndex(0);
    const B: PeerIndex = PeerIndex(1);

    fn needs_service(peers: &Peers, now: Instant, peer: PeerIndex) -> bool {
        peers.next_to_serve(now, peer.usize()) == Some(peer)
    }

    /// Whether a peer is to be reported; what comes behind it stays as it is.
    fn take_report(peers: &Peers, peer: PeerIndex) -> bool {
        let first = peers.next_marked(peer.usize(), REPORT) == Some(peer.usize());
        first && peers.take_report(peer.usize()) == Some(peer)
    }

    /// Three peers with which all is done, and whose deadlines were asked for.
    fn idle() -> Peers {
        let config = crate::sim::Mesh::default().configs().swap_remove(0);
        let peers = Peers::new(paths::peers(&config, NOW, &mut Rng::new([1; 32])));
        assert!(needs_service(&peers, NOW, A) && take_report(&peers, A), "they are new");
        for peer in (0..peers.len() as u16).map(PeerIndex) {
            peers.served(peer);
            take_report(&peers, peer);
            peers.take_care(peer);
        }
        assert_eq!(peers.first_deadline(|_| None), None);
        peers
    }

    #[test]
    fn whoever_may_change_a_peer_makes_it_be_looked_at() {
        let ways: [fn(&mut Peers); 3] = [
            |peers| peers[0].attempts += 1,
            |peers| peers.get_mut(0).unwrap().attempts += 1,
            |peers| peers.mark(A),
        ];
        for (number, way) in ways.into_iter().enumerate() {
            let mut peers = idle();
            way(&mut peers);
            assert!(needs_service(&peers, NOW, A), "{number}");
            assert_eq!(peers.first_deadline(|_| Some((NOW, "asked"))), Some((NOW, "asked")));
            assert!(take_report(&peers, A) && !take_report(&peers, A), "{number}");
            assert!(peers.take_care(A) && !peers.take_care(A), "{number}");
            peers.served(A);
            assert!(!needs_service(&peers, Instant::ZERO, A), "{number}");
        }
        let mut peers = idle();
        peers.aside(0).attempts += 1;
        assert!(!needs_service(&peers, NOW, A) && !take_report(&peers, A) && !peers.take_care(A));
        peers.mark_report(A);
        assert!(!needs_service(&peers, NOW, A) && take_report(&peers, A) && !peers.take_care(A));
    }

    #[test]
    fn a_deadline_is_kept_until_the_peer_may_have_changed_and_makes_it_due() {
        let mut peers = idle();
        let never = |_: &Peer| -> Option<Due> { panic!("nobody changed") };
        assert_eq!(peers.first_deadline(never), None);
        peers[1].attempts = 9;
        let due = |peer: &Peer| {
            let at = Instant::from_micros(10 * u64::from(peer.attempts));
            Some((at, "later"))
        };
        assert_eq!(peers.first_deadline(due), Some((Instant::from_micros(90), "later")));
        peers.served(B);
        assert!(!needs_service(&peers, Instant::from_micros(89), B));
        assert!(needs_service(&peers, Instant::from_micros(90), B));
        assert!(!needs_service(&peers, Instant::from_micros(90), A));
        assert_eq!(peers.first_deadline(never), Some((Instant::from_micros(90), "later")));
    }
}
