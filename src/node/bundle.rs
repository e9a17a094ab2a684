//! Small packets of a turn that go the same way, gathered into one datagram.
//!
//! A bundle is open while its turn lasts, so nothing waits for it. There is at most one for each
//! peer, and whatever else goes to that peer is sent behind it: no packet overtakes another.

use super::Node;
use super::encapsulate::{Route, Unsent, with_report};
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::packet::Segmenter;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::Flags;
use crate::wire::data::BUNDLE_LEN_LEN;

/// Longest body of a bundle: the largest inner packet of a jumbo underlay has no need of one.
const BODY_MAX: usize = 1_536;

/// One datagram's plaintext under way.
#[derive(Debug)]
struct Bundle {
    route: Option<Route>,
    flags: Flags,
    packets: usize,
    len: usize,
    /// [`BODY_MAX`] bytes.
    body: Vec<u8>,
}

/// Those under way. One more peer makes the oldest leave.
#[derive(Debug)]
pub(super) struct Bundles {
    open: [Bundle; Self::MAX],
    victim: usize,
}

impl Bundles {
    const MAX: usize = 4;
    /// So many packets are to fit at least, else the copy is not worth it.
    const WORTHWHILE: usize = 3;

    pub(super) fn new() -> Self {
        let bundle = || Bundle {
            route: None,
            flags: Flags::NONE,
            packets: 0,
            len: 0,
            body: vec![0; BODY_MAX],
        };
        Self { open: std::array::from_fn(|_| bundle()), victim: 0 }
    }

    /// True for packets so small that several of them fit into a datagram for `mtu` bytes.
    pub(super) fn suits(len: usize, mtu: usize) -> bool {
        (len + BUNDLE_LEN_LEN) * Self::WORTHWHILE <= mtu.min(BODY_MAX)
    }

    fn of(&self, peer: PeerIndex) -> Option<usize> {
        let to = |bundle: &Bundle| bundle.route.is_some_and(|route| route.peer == peer);
        self.open.iter().position(to)
    }
}

impl Node {
    /// Adds the packets of a train to the bundle for its way.
    pub(super) fn bundle_train(
        &mut self,
        now: Instant,
        unsent: &Unsent,
        flags: Flags,
        segmenter: &Segmenter<'_>,
        mtu: usize,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let route = &unsent.route;
        self.can_seal(now, route.peer)?;
        for index in unsent.next..segmenter.count() {
            // Closing one bundle begins two groups at most.
            if !out.tx.has_room(2) && index > unsent.next {
                self.unsent = Some(unsent.from(index, segmenter));
                break;
            }
            let at = self.bundle_for(now, route, flags, segmenter.segment_len(index), mtu, out);
            let bundle = &mut self.bundles.open[at];
            let start = bundle.len + BUNDLE_LEN_LEN;
            let len = segmenter.write(index, &mut bundle.body[start..]);
            bundle.body[bundle.len..start].copy_from_slice(&(len as u16).to_be_bytes());
            bundle.len = start + len;
            bundle.packets += 1;
        }
        Ok(())
    }

    /// The open bundle that takes a packet of `len` bytes.
    fn bundle_for(
        &mut self,
        now: Instant,
        route: &Route,
        flags: Flags,
        len: usize,
        mtu: usize,
        out: &mut Output,
    ) -> usize {
        let limit = mtu.min(BODY_MAX);
        if let Some(at) = self.bundles.of(route.peer) {
            let bundle = &self.bundles.open[at];
            let same = bundle.route.is_some_and(|open| open.is_same_way(route));
            if same && bundle.flags == flags && bundle.len + BUNDLE_LEN_LEN + len <= limit {
                return at;
            }
            self.close(now, at, out);
        }
        let free = self.bundles.open.iter().position(|bundle| bundle.route.is_none());
        let at = free.unwrap_or_else(|| {
            self.bundles.victim = (self.bundles.victim + 1) % Bundles::MAX;
            self.close(now, self.bundles.victim, out);
            self.bundles.victim
        });
        let bundle = &mut self.bundles.open[at];
        (bundle.route, bundle.flags) = (Some(*route), flags);
        at
    }

    /// Sends the bundle for a peer, if there is one: something else follows.
    pub(super) fn close_bundle(&mut self, now: Instant, peer: PeerIndex, out: &mut Output) {
        if let Some(at) = self.bundles.of(peer) {
            self.close(now, at, out);
        }
    }

    /// Seals the small packets that wait for others of this turn. [`Self::end_turn`] does it; the
    /// shell may before, when they shall not wait for a long frame.
    pub fn close_bundles(&mut self, now: Instant, out: &mut Output) {
        for at in 0..Bundles::MAX {
            self.close(now, at, out);
        }
    }

    fn close(&mut self, now: Instant, at: usize, out: &mut Output) {
        let Some(route) = self.bundles.open[at].route.take() else { return };
        let (packets, len) = (self.bundles.open[at].packets, self.bundles.open[at].len);
        let flags = self.bundles.open[at].flags;
        // One packet alone is no bundle.
        let (flags, start) = match packets {
            1 => (flags, BUNDLE_LEN_LEN),
            _ => (flags.with(Flags::BUNDLE), 0),
        };
        let report = self.report_for(now, &route, len - start, route.mtu);
        let (reporting, total) = with_report(len - start, report.is_some());
        let body = std::mem::take(&mut self.bundles.open[at].body);
        let fill = |place: &mut [u8]| {
            let (packets, rest) = place.split_at_mut(len - start);
            packets.copy_from_slice(&body[start..len]);
            if let Some(report) = &report {
                rest.copy_from_slice(&report.emit());
            }
        };
        let sent = self.send(now, &route, flags.with(reporting), total, fill, out);
        match (sent, report) {
            (Err(reason), _) => self.counters.drop_many(reason, packets as u64),
            (Ok(()), Some(report)) => self.note_reported(now, route.peer, &report),
            (Ok(()), None) => {}
        }
        let bundle = &mut self.bundles.open[at];
        (bundle.body, bundle.packets, bundle.len) = (body, 0, 0);
    }
}
