//! Volleys of others as they come in.

use std::time::Duration;

use super::ANSWER;
use crate::id::PeerIndex;
use crate::path::PathId;
use crate::time::Instant;
use crate::wire::{Volley, VolleyReport};

/// The last volley of a peer: one that comes in, or came in lately.
#[derive(Clone, Copy, Debug)]
struct Coming {
    peer: PeerIndex,
    path: PathId,
    seq: u16,
    count: u8,
    first_at: Instant,
    last_at: Instant,
    /// A bit for each datagram that arrived.
    arrived: u16,
    is_finished: bool,
    reported_at: Option<Instant>,
}

/// Volleys of others: one of each peer, so that nobody displaces those of others.
#[derive(Debug, Default)]
pub(super) struct Incoming(Vec<Coming>);

impl Incoming {
    /// Peers of which a volley is remembered. Those of further ones are ignored.
    const MAX: usize = 64;
    /// Longest volley that is taken in.
    const LENGTH_MAX: u8 = 16;
    /// A peer gets no more than one answer in this time.
    const PAUSE: Duration = Duration::from_millis(200);

    /// Takes note of a datagram of a volley. The answer, when it is the last one.
    pub(super) fn on_volley(
        &mut self,
        (peer, path): (PeerIndex, PathId),
        at: Instant,
        volley: Volley,
    ) -> Option<VolleyReport> {
        let Volley { seq, index, count } = volley;
        if !(2..=Self::LENGTH_MAX).contains(&count) || index >= count {
            return None;
        }
        self.0.retain(|coming| at - coming.last_at <= ANSWER);
        let coming = self.of(Coming {
            peer,
            path,
            seq,
            count,
            first_at: at,
            last_at: at,
            arrived: 0,
            is_finished: false,
            reported_at: None,
        })?;
        if coming.is_finished || (coming.path, coming.count) != (path, count) {
            return None;
        }
        coming.first_at = coming.first_at.min(at);
        coming.last_at = coming.last_at.max(at);
        coming.arrived |= 1 << index;
        if index + 1 < count {
            return None;
        }
        coming.is_finished = true;
        let arrived = coming.arrived.count_ones() as u8;
        let lately = coming.reported_at.is_some_and(|before| at - before < Self::PAUSE);
        if arrived < 2 || lately {
            return None;
        }
        coming.reported_at = Some(at);
        let span_us = (coming.last_at - coming.first_at).as_micros();
        let span_us = u32::try_from(span_us).unwrap_or(u32::MAX);
        Some(VolleyReport { path, seq, arrived, span_us })
    }

    /// What is known of a volley, `fresh` if it is a new one. `None` when there is no room for it, or
    /// when a later one of this peer came already.
    fn of(&mut self, fresh: Coming) -> Option<&mut Coming> {
        let Some(place) = self.0.iter().position(|coming| coming.peer == fresh.peer) else {
            if self.0.len() >= Self::MAX {
                return None;
            }
            self.0.push(fresh);
            return self.0.last_mut();
        };
        let known = &mut self.0[place];
        if known.seq != fresh.seq {
            if fresh.seq.wrapping_sub(known.seq) > u16::MAX / 2 {
                return None;
            }
            *known = Coming { reported_at: known.reported_at, ..fresh };
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: PeerIndex = PeerIndex(3);
    const PATH: PathId = PathId(0x12);

    fn at(us: u64) -> Instant {
        Instant::from_micros(10_000_000 + us)
    }

    /// Datagrams `(when, number, index)` of volleys of four; the answers as
    /// `(number, arrived, span)`.
    fn answers(datagrams: &[(u64, u16, u8)]) -> Vec<(u16, u8, u32)> {
        let mut incoming = Incoming::default();
        let answer = |&(us, seq, index): &(u64, u16, u8)| {
            let report =
                incoming.on_volley((FAR, PATH), at(us), Volley { seq, index, count: 4 })?;
            assert_eq!(report.path, PATH);
            Some((report.seq, report.arrived, report.span_us))
        };
        datagrams.iter().filter_map(answer).collect()
    }

    #[test]
    fn what_is_no_volley_is_ignored() {
        for (count, index, answered) in [
            (0, 0, false),
            (1, 0, false),
            (17, 16, false),
            (255, 254, false),
            (4, 4, false),
            (4, 255, false),
            (2, 1, true),
            (16, 15, true),
        ] {
            let mut incoming = Incoming::default();
            let mut take =
                |index| incoming.on_volley((FAR, PATH), at(0), Volley { seq: 9, index, count });
            take(0);
            assert_eq!(take(index).is_some(), answered, "{count} {index}");
        }
    }

    #[test]
    fn the_last_datagram_of_a_volley_brings_the_answer_once() {
        let whole = [(0, 7, 0), (10, 7, 1), (20, 7, 2), (30, 7, 3)];
        assert_eq!(answers(&whole), [(7, 4, 30)]);
        assert_eq!(answers(&[(0, 7, 1), (5, 7, 0), (20, 7, 3), (30, 7, 2)]), [(7, 3, 20)]);
        assert_eq!(
            answers(&[(0, 7, 3), (5, 7, 0), (20, 7, 3)]),
            [],
            "of one datagram is no answer"
        );
        assert_eq!(answers(&[(0, 7, 0), (5, 7, 0), (20, 7, 3)]), [(7, 2, 20)], "twice is once");
        // What is late begins nothing anew.
        let late = [&whole[..], &[(900_000, 7, 0), (900_001, 7, 3)]].concat();
        assert_eq!(answers(&late).len(), 1);
    }

    #[test]
    fn a_newer_volley_ends_an_older_one_and_a_much_later_one_may_have_any_number() {
        let newer = [(0, 7, 0), (5, 8, 0), (6, 7, 3), (7, 8, 3)];
        assert_eq!(answers(&newer), [(8, 2, 2)]);
        let wrapped = [(0, u16::MAX, 0), (5, 0, 0), (7, 0, 3)];
        assert_eq!(answers(&wrapped), [(0, 2, 2)]);
        let begun_anew = |us| [(0, 700, 0), (1, 700, 3), (us, 7, 0), (us + 9, 7, 3)];
        assert_eq!(answers(&begun_anew(4_000_000)), [(700, 2, 1)]);
        assert_eq!(answers(&begun_anew(5_000_002)), [(700, 2, 1), (7, 2, 9)]);
    }

    #[test]
    fn there_is_one_answer_in_a_fifth_of_a_second() {
        let volleys = |us| [(0, 7, 0), (1, 7, 3), (us, 8, 0), (us, 8, 3)];
        assert_eq!(answers(&volleys(200_000)).len(), 1);
        assert_eq!(answers(&volleys(200_001)).len(), 2);
    }

    #[test]
    fn nobody_displaces_the_volleys_of_others() {
        let mut incoming = Incoming::default();
        let mut take = |peer, us, seq, index| {
            let volley = Volley { seq, index, count: 4 };
            incoming.on_volley((PeerIndex(peer), PATH), at(us), volley)
        };
        take(0, 0, 1, 0);
        for seq in 0..1_000 {
            take(1, 1, seq, 0);
        }
        for peer in 2..1_000 {
            take(peer, 2, 1, 0);
        }
        assert_eq!(take(0, 50, 1, 3).map(|report| (report.arrived, report.span_us)), Some((2, 50)));
        assert_eq!(take(999, 60, 1, 3), None, "there was no room");
        // Those that came to nothing are forgotten.
        take(999, 5_000_051, 2, 0);
        assert!(take(999, 5_000_052, 2, 3).is_some());
    }
}
