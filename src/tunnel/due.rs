//! When something is due for which peer. Of hundreds few are concerned at a time, and to look at the
//! others, each with its keys somewhere else in memory, costs more than what is done for the few.

use crate::id::PeerIndex;
use crate::time::Instant;

/// For each peer a time that is not later than its first deadline.
#[derive(Debug)]
pub(super) struct Due {
    at: Vec<Instant>,
}

impl Due {
    const NEVER: Instant = Instant::from_micros(u64::MAX);

    /// Something is due for every peer at once.
    pub(super) fn new(now: Instant, peers: usize) -> Self {
        Self { at: vec![now; peers] }
    }

    /// A deadline appeared.
    pub(super) fn expect(&mut self, peer: PeerIndex, at: Instant) {
        if let Some(due) = self.at.get_mut(peer.usize()) {
            *due = (*due).min(at);
        }
    }

    /// Something changed that is to be noticed when anything is due next.
    pub(super) fn look(&mut self, peer: PeerIndex) {
        self.expect(peer, Instant::ZERO);
    }

    /// The first peer from `from` on for which something may be due.
    pub(super) fn next(&self, now: Instant, from: usize) -> Option<PeerIndex> {
        let found = self.at.get(from..)?.iter().position(|at| *at <= now)?;
        Some(PeerIndex((from + found) as u16))
    }

    /// The first deadline of a peer, as it is now.
    pub(super) fn set(&mut self, peer: PeerIndex, first: Option<(Instant, &'static str)>) {
        if let Some(due) = self.at.get_mut(peer.usize()) {
            *due = first.map_or(Self::NEVER, |first| first.0);
        }
    }

    /// The first deadline of all peers; `find` tells one of a peer, and is asked for those only of
    /// which it may be the one.
    pub(super) fn first(
        &mut self,
        find: impl Fn(usize) -> Option<(Instant, &'static str)>,
    ) -> Option<(Instant, &'static str)> {
        loop {
            let (at, peer) = self.at.iter().zip(0..).min_by_key(|(at, _)| **at)?;
            if *at == Self::NEVER {
                return None;
            }
            let found = find(peer);
            let due = found.map_or(Self::NEVER, |found| found.0);
            if due <= *at {
                return found;
            }
            self.at[peer] = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn what_is_over_by_now_is_no_deadline_and_nobody_else_is_asked() {
        let mut due = Due::new(at(1), 3);
        let times = [Some(at(9)), None, Some(at(5))];
        let find = |peer: usize| times[peer].map(|at| (at, "later"));
        assert_eq!(due.first(find), Some((at(5), "later")));
        let only_the_last = |peer: usize| if peer == 2 { find(peer) } else { panic!("asked") };
        assert_eq!(due.first(only_the_last), Some((at(5), "later")));
        assert_eq!((due.next(at(4), 0), due.next(at(5), 0)), (None, Some(PeerIndex(2))));
        due.set(PeerIndex(2), Some((at(7), "later")));
        due.look(PeerIndex(1));
        assert_eq!((due.next(at(4), 0), due.next(at(4), 2)), (Some(PeerIndex(1)), None));
        due.set(PeerIndex(1), None);
        due.expect(PeerIndex(0), at(6));
        due.expect(PeerIndex(0), at(8));
        assert_eq!(due.next(at(6), 0), Some(PeerIndex(0)));
        due.set(PeerIndex(0), None);
        due.set(PeerIndex(2), None);
        assert_eq!(due.first(|_| panic!("nothing is due")), None);
    }
}
