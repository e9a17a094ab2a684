//! What every other node last advertised about its links.

use std::time::Duration;

use super::cells::Cells;
use crate::id::{NodeId, PeerIndex};
use crate::metric::{LinkReport, Liveness};
use crate::time::Instant;

/// One part of an advertisement, without its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The origin's incarnation.
    pub epoch: u64,
    /// Number within the epoch. All parts share it.
    pub seq: u32,
    /// Which part, from zero.
    pub part: u8,
    /// How many parts there are.
    pub parts: u8,
    /// Only what the receiver is not known to have; a receiver that has nothing of this epoch cannot
    /// build on it.
    pub delta: bool,
    /// What the origin can still relay, in kbit/s.
    pub spare_relay_kbit: u32,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// To be acknowledged: the epoch and number that we know in full. `(epoch, 0)` asks for all.
    pub known: (u64, u32),
    /// True when a link changed in any respect, or what the origin can relay.
    pub changed: bool,
    /// True when a link's liveness changed: paths should be chosen anew at once.
    pub urgent: bool,
}

#[derive(Clone, Debug)]
struct Origin {
    id: NodeId,
    epoch: u64,
    /// The newest number seen.
    latest: u32,
    /// The newest number of which every part is here.
    known: u32,
    /// Parts of `latest` that are here, one bit each.
    parts: u64,
    /// How many parts `latest` came in, and whether as a delta. Another cut starts anew.
    cut: (u8, bool),
    heard_at: Option<Instant>,
    spare_relay_kbit: u32,
    /// Of a life of the origin that we do not know in full yet: a bit for each column that it named.
    named: Option<Box<[u64]>>,
}

/// The latest advertisement of each peer: soft state that expires when it is not refreshed.
///
/// Bounded by construction: one cell for each ordered pair of configured nodes. Whoever is not a
/// peer of ours is not in it, neither as origin nor as the other end.
#[derive(Clone, Debug)]
pub struct LinkStateDatabase {
    me: NodeId,
    origins: Vec<Origin>,
    /// `(id, column)`, sorted; the last column is ourselves.
    columns: Vec<(NodeId, u16)>,
    /// Row by origin, column by other end.
    cells: Cells,
    expiry: Duration,
}

impl LinkStateDatabase {
    /// Most parts of one advertisement.
    pub const MAX_PARTS: u8 = 64;

    /// Nothing known of `peers`; what is not refreshed for `expiry` is forgotten.
    pub fn new(me: NodeId, peers: &[NodeId], expiry: Duration) -> Self {
        let all = peers.iter().chain(std::iter::once(&me));
        let mut columns: Vec<_> = all.copied().zip(0u16..).collect();
        columns.sort_unstable();
        let origin = |id: &NodeId| Origin {
            id: *id,
            epoch: 0,
            latest: 0,
            known: 0,
            parts: 0,
            cut: (0, false),
            heard_at: None,
            spare_relay_kbit: 0,
            named: None,
        };
        Self {
            me,
            origins: peers.iter().map(origin).collect(),
            cells: Cells::new(peers.len(), columns.len()),
            columns,
            expiry,
        }
    }

    /// Takes in a part that came in the origin's own tunnel. Older ones than the newest are ignored.
    /// `told` learns to which peers a link changed, and whether its liveness did; the number of
    /// peers stands for ourselves.
    pub fn apply(
        &mut self,
        now: Instant,
        origin: PeerIndex,
        part: &Advertisement,
        entries: impl IntoIterator<Item = (NodeId, LinkReport)>,
        mut told: impl FnMut(PeerIndex, bool),
    ) -> Applied {
        let row = origin.usize();
        let known = (part.epoch, 0);
        let ignored = Applied { known, changed: false, urgent: false };
        let Some(state) = self.origins.get_mut(row) else { return ignored };
        if part.parts == 0 || part.parts > Self::MAX_PARTS || part.part >= part.parts {
            return Applied { known: (state.epoch, state.known), ..ignored };
        }
        let heard = state.heard_at.is_some();
        if heard && (part.epoch, part.seq) < (state.epoch, state.latest) {
            return Applied { known: (state.epoch, state.known), ..ignored };
        }
        if part.delta && (part.epoch != state.epoch || state.known == 0) {
            // The origin believes that we have what it builds on: we lost it.
            return ignored;
        }
        if part.epoch != state.epoch || part.seq != state.latest {
            if part.epoch != state.epoch {
                state.known = 0;
                // It may have fewer links than in the life before.
                state.named = Some(vec![0; self.columns.len().div_ceil(64)].into());
            }
            state.epoch = part.epoch;
            state.latest = part.seq;
            state.parts = 0;
        }
        if state.cut != (part.parts, part.delta) {
            state.cut = (part.parts, part.delta);
            state.parts = 0;
        }
        state.parts |= 1 << part.part;
        if state.parts == u64::MAX >> (64 - u32::from(part.parts)) {
            state.known = part.seq;
        }
        state.heard_at = Some(now);
        let before = std::mem::replace(&mut state.spare_relay_kbit, part.spare_relay_kbit);
        let known = (state.epoch, state.known);
        let (mut changed, mut urgent) = self.merge(row, entries, &mut told);
        if known.1 > 0
            && let Some(named) = self.origins[row].named.take()
        {
            let left = self.drop_unnamed(row, &named, &mut told);
            (changed, urgent) = (changed || left, urgent || left);
        }
        let changed = changed || heard && before != part.spare_relay_kbit;
        Applied { known, changed, urgent }
    }

    /// Links of an earlier life that the present one does not have. True when there were any.
    fn drop_unnamed(
        &mut self,
        row: usize,
        named: &[u64],
        told: &mut impl FnMut(PeerIndex, bool),
    ) -> bool {
        let mut any = false;
        for column in 0..self.columns.len() {
            let is_named = named[column / 64] & 1 << (column % 64) != 0;
            let stood = self.cells.get(row, column).map(|report| report.state);
            if !is_named && stood.is_some_and(|state| state != Liveness::Down) {
                let gone = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
                self.cells.set(row, column, gone);
                told(PeerIndex(column as u16), true);
                any = true;
            }
        }
        any
    }

    fn merge(
        &mut self,
        row: usize,
        entries: impl IntoIterator<Item = (NodeId, LinkReport)>,
        told: &mut impl FnMut(PeerIndex, bool),
    ) -> (bool, bool) {
        let width = self.columns.len();
        let (mut changed, mut urgent) = (false, false);
        for (id, report) in entries.into_iter().take(width) {
            let Some(column) = self.column(id) else { continue };
            if column == row {
                continue;
            }
            if let Some(named) = &mut self.origins[row].named {
                named[column / 64] |= 1 << (column % 64);
            }
            let before = self.cells.get(row, column);
            if self.cells.set(row, column, report) {
                let before = before.map_or(Liveness::Down, |report| report.state);
                let turned = before != report.state;
                (changed, urgent) = (true, urgent || turned);
                told(PeerIndex(column as u16), turned);
            }
        }
        (changed, urgent)
    }

    fn column(&self, id: NodeId) -> Option<usize> {
        let index = self.columns.binary_search_by_key(&id, |column| column.0).ok()?;
        self.columns.get(index).map(|column| usize::from(column.1))
    }

    /// Forgets what was not refreshed. True when anything was forgotten.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut forgotten = false;
        for row in 0..self.origins.len() {
            let old = self.origins[row].heard_at.is_some_and(|at| now - at > self.expiry);
            if old {
                self.forget(row);
                forgotten = true;
            }
        }
        forgotten
    }

    fn forget(&mut self, row: usize) {
        self.cells.forget(row);
        let state = &mut self.origins[row];
        state.known = 0;
        state.latest = 0;
        state.parts = 0;
        state.heard_at = None;
        state.named = None;
    }

    /// What `origin` says of its link to `to`.
    pub fn report(&self, origin: PeerIndex, to: PeerIndex) -> Option<LinkReport> {
        self.cells.get(origin.usize(), to.usize())
    }

    /// What `origin` says of its link to us.
    pub fn report_on_us(&self, origin: PeerIndex) -> Option<LinkReport> {
        self.cells.get(origin.usize(), self.origins.len())
    }

    /// The link from `origin` to `to`, which does not exist unless `origin` advertises it. Its time
    /// and loss are the worse of both ends' reports.
    ///
    /// Whether it works is for `origin` alone to say, whose probes go all the way and back: when
    /// `to` cannot reach us but through this very link, its last word on it may be old and wrong,
    /// and to believe it would cut `to` off for good.
    pub fn link(&self, origin: PeerIndex, to: PeerIndex) -> Option<LinkReport> {
        let there = self.report(origin, to)?;
        Some(there.measured_worse(self.report(to, origin)))
    }

    /// For each peer in turn the round trip of [`Self::link`] from it to `to`, and whether that loses
    /// nothing; `None` unless the link is up.
    pub(crate) fn working_links(&self, to: PeerIndex) -> impl Iterator<Item = Option<(u32, bool)>> {
        self.cells.working(to.usize())
    }

    /// Relay capacity that `origin` has left, in kbit/s; zero when nothing is known of it.
    pub fn spare_relay_kbit(&self, origin: PeerIndex) -> u32 {
        self.origins
            .get(origin.usize())
            .filter(|state| state.heard_at.is_some())
            .map_or(0, |state| state.spare_relay_kbit)
    }

    /// Epoch and number that we know of `origin` in full, and when it was last heard.
    pub fn known(&self, origin: PeerIndex) -> Option<(u64, u32, Instant)> {
        let state = self.origins.get(origin.usize())?;
        state.heard_at.map(|at| (state.epoch, state.known, at))
    }

    /// Our own id, as others name us.
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// The id of a peer.
    pub fn id(&self, peer: PeerIndex) -> Option<NodeId> {
        self.origins.get(peer.usize()).map(|state| state.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Loss;

    const ME: NodeId = NodeId(100);
    const A: PeerIndex = PeerIndex(0);
    const B: PeerIndex = PeerIndex(1);

    fn database() -> LinkStateDatabase {
        LinkStateDatabase::new(ME, &[NodeId(9), NodeId(5)], Duration::from_secs(60))
    }

    fn up(latency_us: u32) -> LinkReport {
        LinkReport { latency_us, jitter_us: 0, loss: Loss::NONE, state: Liveness::Up }
    }

    fn full(epoch: u64, seq: u32) -> Advertisement {
        Advertisement { epoch, seq, part: 0, parts: 1, delta: false, spare_relay_kbit: 7 }
    }

    #[test]
    fn only_newer_advertisements_count() {
        let mut db = database();
        let now = Instant::from_micros(1);
        let applied =
            db.apply(now, A, &full(5, 10), [(NodeId(5), up(10)), (ME, up(20))], |_, _| ());
        assert_eq!(applied, Applied { known: (5, 10), changed: true, urgent: true });
        let old = db.apply(now, A, &full(5, 9), [(NodeId(5), up(99))], |_, _| ());
        assert_eq!(old, Applied { known: (5, 10), changed: false, urgent: false });
        assert_eq!(db.report(A, B), Some(up(10)));
        assert_eq!(db.report_on_us(A), Some(up(20)));
        let older_epoch = db.apply(now, A, &full(4, 99), [(NodeId(5), up(99))], |_, _| ());
        assert_eq!(older_epoch.known, (5, 10));
        let newer_epoch =
            db.apply(now, A, &full(6, 1), [(NodeId(5), up(30)), (ME, up(20))], |_, _| ());
        assert_eq!(newer_epoch, Applied { known: (6, 1), changed: true, urgent: false });
        assert_eq!(db.report(A, B), Some(up(30)));
    }

    #[test]
    fn a_delta_needs_something_to_build_on() {
        let mut db = database();
        let now = Instant::from_micros(1);
        let delta = Advertisement { delta: true, ..full(5, 2) };
        let refused = db.apply(now, A, &delta, [(NodeId(5), up(10))], |_, _| ());
        assert_eq!(refused, Applied { known: (5, 0), changed: false, urgent: false });
        assert_eq!(db.report(A, B), None);
        db.apply(now, A, &full(5, 2), [(NodeId(5), up(10)), (ME, up(20))], |_, _| ());
        let applied =
            db.apply(now, A, &Advertisement { seq: 3, ..delta }, [(ME, up(25))], |_, _| ());
        assert_eq!(applied.known, (5, 3));
        assert_eq!((db.report(A, B), db.report_on_us(A)), (Some(up(10)), Some(up(25))));
    }

    #[test]
    fn parts_are_known_only_together() {
        let mut db = database();
        let now = Instant::from_micros(1);
        let first = Advertisement { parts: 2, ..full(5, 8) };
        let second = Advertisement { part: 1, ..first };
        assert_eq!(db.apply(now, A, &second, [(ME, up(1))], |_, _| ()).known, (5, 0));
        assert_eq!(db.apply(now, A, &second, [(ME, up(1))], |_, _| ()).known, (5, 0));
        assert_eq!(db.apply(now, A, &first, [(NodeId(5), up(2))], |_, _| ()).known, (5, 8));
        let newer = Advertisement { seq: 9, delta: true, ..first };
        assert_eq!(db.apply(now, A, &newer, [], |_, _| ()).known, (5, 8));
        assert_eq!(
            db.apply(now, A, &Advertisement { part: 2, ..first }, [], |_, _| ()).known,
            (5, 8)
        );
        assert_eq!(
            db.apply(now, A, &Advertisement { parts: 65, ..first }, [], |_, _| ()).known,
            (5, 8)
        );
        assert_eq!(
            db.apply(now, A, &Advertisement { parts: 0, ..first }, [], |_, _| ()).known,
            (5, 8)
        );
    }

    #[test]
    fn strangers_and_self_loops_are_ignored() {
        let mut db = database();
        let now = Instant::from_micros(1);
        let applied =
            db.apply(now, A, &full(1, 1), [(NodeId(77), up(1)), (NodeId(9), up(1))], |_, _| ());
        assert!(!applied.changed);
        assert_eq!(db.apply(now, PeerIndex(50), &full(1, 1), [], |_, _| ()).known, (1, 0));
        assert_eq!(db.report(A, PeerIndex(50)), None);
        assert_eq!(db.report(PeerIndex(50), A), None);
    }

    #[test]
    fn a_link_is_the_worse_of_its_ends_and_needs_its_origin() {
        let mut db = database();
        let now = Instant::from_micros(1);
        db.apply(now, B, &full(1, 1), [(NodeId(9), up(50))], |_, _| ());
        assert_eq!(db.link(A, B), None);
        db.apply(now, A, &full(1, 1), [(NodeId(5), up(40))], |_, _| ());
        assert_eq!(db.link(A, B), Some(up(50)));
        assert_eq!(db.link(B, A), Some(up(50)));
        let dead = LinkReport { state: Liveness::Down, ..up(400) };
        db.apply(now, A, &full(1, 2), [(NodeId(5), dead)], |_, _| ());
        assert_eq!(db.link(B, A), Some(up(50)), "A may only not be able to tell that it is back");
        assert_eq!(db.link(A, B).unwrap().state, Liveness::Down);
    }

    #[test]
    fn a_new_life_has_only_the_links_that_it_names() {
        let mut database = database();
        let (origin, other) = (PeerIndex(0), PeerIndex(1));
        let mut told = Vec::new();
        let mut apply = |database: &mut LinkStateDatabase, part, names: &[NodeId]| {
            let entries: Vec<_> = names.iter().map(|id| (*id, up(10_000))).collect();
            database.apply(Instant::from_micros(9), origin, &part, entries, |peer, turned| {
                told.push((peer, turned))
            })
        };
        let states = |database: &LinkStateDatabase| {
            let reports = [database.report(origin, other), database.report_on_us(origin)];
            reports.map(|report| report.map(|report| report.state))
        };
        apply(&mut database, full(1, 1), &[NodeId(5), ME]);
        assert_eq!(states(&database), [Some(Liveness::Up); 2]);
        // The new one begins with a part, which says nothing of the rest.
        let part = |part| Advertisement { part, parts: 2, ..full(2, 1) };
        assert!(!apply(&mut database, part(0), &[ME]).urgent);
        assert_eq!(states(&database), [Some(Liveness::Up); 2]);
        assert!(apply(&mut database, part(1), &[]).urgent);
        assert_eq!(states(&database), [Some(Liveness::Down), Some(Liveness::Up)]);
        assert!(!apply(&mut database, full(2, 2), &[]).urgent, "of the same life");
        assert_eq!(told, [(other, true), (PeerIndex(2), true), (other, true)]);
    }

    #[test]
    fn what_is_not_refreshed_expires() {
        let mut db = database();
        let late = Instant::from_micros(1) + Duration::from_secs(61);
        db.apply(Instant::from_micros(1), A, &full(1, 1), [(NodeId(5), up(40))], |_, _| ());
        assert_eq!(db.spare_relay_kbit(A), 7);
        db.apply(late, B, &full(1, 1), [(NodeId(9), up(50))], |_, _| ());
        assert!(db.expire(late));
        assert_eq!((db.link(A, B), db.known(A), db.spare_relay_kbit(A)), (None, None, 0));
        assert!(db.known(B).is_some());
        assert!(!db.expire(late));
        let delta = Advertisement { delta: true, ..full(1, 2) };
        assert_eq!(db.apply(late, A, &delta, [], |_, _| ()).known, (1, 0));
    }
}
