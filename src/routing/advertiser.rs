//! What we advertise, to whom and when.

mod pace;

use std::cell::Cell;
use std::time::Duration;

pub use self::pace::AdvertiserConfig;
use super::database::Advertisement;
use crate::id::{NodeId, PeerIndex};
use crate::metric::LinkReport;
use crate::time::Instant;

/// One peer: our link to it, and what it knows of us.
#[derive(Clone, Debug)]
struct Subscriber {
    id: NodeId,
    /// Our epoch as this peer is told it. Each has its own: one that claims to remember a later life
    /// of ours makes us jump, and must not drag what the others know along.
    epoch: u64,
    measured: LinkReport,
    published: LinkReport,
    /// The number of the advertisement in which `published` changed last.
    changed: u32,
    /// All that there is to tell of it was published.
    told: bool,
    reachable: bool,
    /// It may have forgotten what it acknowledged.
    doubted: bool,
    /// Newest number that it is known to have; zero for nothing.
    acked: u32,
    /// Newest number that was sent to it in full.
    sent: u32,
    /// The part that comes next.
    part: u8,
    retry: Duration,
    /// When what is not acknowledged is repeated, or the next refresh is due.
    due: Instant,
    refreshes: u32,
    /// Full sets that left for it without regard to credit, and since when they are counted.
    hurried: (u32, Instant),
}

/// Keeps every peer informed of our links: the changes that it lacks, repeated until it has them.
///
/// Each peer's acknowledgement says what it has, so a delta is made for it from there; a peer that
/// has nothing gets all. Tell it which peers can be reached at all, by whatever path.
#[derive(Clone, Debug)]
pub struct Advertiser {
    config: AdvertiserConfig,
    epoch: u64,
    seq: u32,
    /// Newest number that told of a change of liveness.
    urgent_seq: u32,
    spare_relay_kbit: u32,
    spare_told: bool,
    peers: Vec<Subscriber>,
    publish_due: Option<Instant>,
    published_at: Option<Instant>,
    credit: f64,
    credit_at: Instant,
    next_peer: usize,
    /// The first deadline, until something changes it.
    deadline: Cell<Option<Option<Instant>>>,
}

impl Advertiser {
    /// Nothing to tell yet: all links are down. `epoch` must grow with each start of the node.
    pub fn new(now: Instant, config: AdvertiserConfig, epoch: u64, peers: &[NodeId]) -> Self {
        let down = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
        let subscriber = |(id, refreshes): (&NodeId, u32)| Subscriber {
            id: *id,
            epoch,
            measured: down,
            published: down,
            changed: 1,
            told: true,
            reachable: false,
            doubted: false,
            acked: 0,
            sent: 0,
            part: 0,
            retry: config.retry.0,
            due: now,
            // They take turns at full ones: all at once would be more than can be sent in time.
            refreshes: refreshes % config.full_every.max(1),
            hurried: (0, now),
        };
        Self {
            epoch,
            seq: 1,
            urgent_seq: 1,
            spare_relay_kbit: u32::MAX,
            spare_told: true,
            peers: peers.iter().zip(0..).map(subscriber).collect(),
            publish_due: None,
            published_at: None,
            credit: config.bytes_per_second * AdvertiserConfig::BURST_SECONDS,
            credit_at: now,
            next_peer: 0,
            deadline: Cell::new(None),
            config,
        }
    }

    /// Our best direct link to a peer, as measured now.
    pub fn update(&mut self, now: Instant, peer: PeerIndex, report: LinkReport) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        state.measured = LinkReport { jitter_us: 0, ..report };
        let at = if pace::turned(&state.published, &report) {
            now
        } else if self.config.differs(&state.published, &report) {
            let pause = self.config.publish_pause;
            self.published_at.map_or(now, |at| now.max(at + pause))
        } else {
            return;
        };
        self.publish_due = Some(self.publish_due.map_or(at, |due| due.min(at)));
        self.deadline.set(None);
    }

    /// What we can still relay, in kbit/s; zero turns new traffic away. Unlimited at first.
    pub fn set_spare_relay(&mut self, now: Instant, kbit: u32) {
        if std::mem::replace(&mut self.spare_relay_kbit, kbit) != kbit {
            self.spare_told = false;
            self.publish_due = Some(self.publish_due.map_or(now, |due| due.min(now)));
            self.deadline.set(None);
        }
    }

    /// Whether anything can be sent to a peer: there is a tunnel and a path.
    pub fn set_reachable(&mut self, now: Instant, peer: PeerIndex, reachable: bool) {
        let retry = self.config.retry.0;
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        if reachable == state.reachable {
            return;
        }
        if reachable {
            state.retry = retry;
            state.due = now;
        }
        state.reachable = reachable;
        self.deadline.set(None);
    }

    /// The peer may have started anew and forgotten all: its tunnel has new keys. It is sent what it
    /// lacks as far as we know, nothing perhaps; its acknowledgement tells.
    pub fn doubt(&mut self, now: Instant, peer: PeerIndex) {
        let retry = self.config.retry.0;
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        self.deadline.set(None);
        state.doubted = true;
        state.part = 0;
        state.retry = retry;
        state.due = now;
    }

    /// A peer says what it knows of us in full. One that knows a later number than ours remembers
    /// an earlier life of this node: we jump above it.
    pub fn on_ack(&mut self, now: Instant, peer: PeerIndex, epoch: u64, seq: u32) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        self.deadline.set(None);
        if (epoch, seq) > (state.epoch, self.seq)
            && let Some(next) = epoch.checked_add(1)
        {
            state.epoch = next;
            state.acked = 0;
            state.sent = 0;
            state.part = 0;
            state.due = now;
            state.retry = self.config.retry.0;
            return;
        }
        // Nothing is above the last epoch: who claims it goes without.
        let known = if epoch == state.epoch { seq.min(self.seq) } else { 0 };
        if known != state.acked {
            state.part = 0;
        }
        state.acked = known;
        if std::mem::take(&mut state.doubted) && known == 0 {
            // It did forget.
            state.due = now;
        }
        if known == self.seq {
            state.retry = self.config.retry.0;
            state.due = now + self.config.refresh;
        }
    }

    /// The next part to be sent, its entries in `entries`. Call until `None`.
    pub fn poll(
        &mut self,
        now: Instant,
        entries: &mut Vec<(NodeId, LinkReport)>,
    ) -> Option<(PeerIndex, Advertisement)> {
        if self.poll_timeout().is_none_or(|(due, _)| due > now) {
            return None;
        }
        self.deadline.set(None);
        self.publish_if_due(now);
        self.earn(now);
        let count = self.peers.len();
        for offset in 0..count {
            let index = (self.next_peer + offset) % count;
            if self.due_at(index).is_some_and(|due| due <= now) {
                let part = self.emit(now, index, entries);
                // All parts for one peer in a row.
                self.next_peer = if self.peers[index].part > 0 { index } else { index + 1 };
                return Some((PeerIndex(index as u16), part));
            }
        }
        None
    }

    /// A datagram goes to `peer` anyway: what it lacks may ride on it, if that is one part.
    pub fn poll_riding(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        entries: &mut Vec<(NodeId, LinkReport)>,
    ) -> Option<Advertisement> {
        self.publish_if_due(now);
        let index = peer.usize();
        let state = self.peers.get(index)?;
        let lacking = state.sent < self.seq && state.acked > 0 && state.part == 0;
        if !lacking || !state.reachable || self.is_full(index) {
            return None;
        }
        Some(self.emit(now, index, entries))
    }

    fn publish_if_due(&mut self, now: Instant) {
        if self.publish_due.is_none_or(|due| due > now) {
            return;
        }
        self.publish_due = None;
        self.deadline.set(None);
        let next = self.seq.saturating_add(1);
        let mut any = !std::mem::replace(&mut self.spare_told, true);
        let mut urgent = false;
        for peer in &mut self.peers {
            let again = !std::mem::replace(&mut peer.told, true);
            if again || self.config.differs(&peer.published, &peer.measured) {
                urgent |= pace::turned(&peer.published, &peer.measured);
                any = true;
                peer.published = peer.measured;
                peer.changed = next;
            }
        }
        if !any {
            return;
        }
        self.seq = next;
        self.published_at = Some(now);
        if urgent {
            self.urgent_seq = next;
        }
        for peer in &mut self.peers {
            peer.part = 0;
            peer.retry = self.config.retry.0;
            peer.due = now;
        }
    }

    fn earn(&mut self, now: Instant) {
        let rate = self.config.bytes_per_second;
        let earned = (now - self.credit_at).as_secs_f64() * rate;
        self.credit = (self.credit + earned).min(rate * AdvertiserConfig::BURST_SECONDS);
        self.credit_at = now;
    }

    /// When something is due for a peer; changes of liveness do not wait for credit, unless the peer
    /// asks for all of them again and again.
    fn due_at(&self, index: usize) -> Option<Instant> {
        let peer = &self.peers[index];
        if !peer.reachable {
            return None;
        }
        let insatiable = peer.acked == 0 && peer.hurried.0 >= AdvertiserConfig::HURRIED_MAX;
        if self.credit >= 0.0 || peer.acked < self.urgent_seq && !insatiable {
            return Some(peer.due);
        }
        let wait = -self.credit / self.config.bytes_per_second;
        // A little more than needed, so that rounding does not bring us here too early.
        Some(peer.due.max(self.credit_at + Duration::from_secs_f64(wait + 0.001)))
    }

    /// A peer that has nothing gets all, and so does one that lacks more than fits one part: only
    /// the full set is always cut in the same places.
    fn is_full(&self, index: usize) -> bool {
        let peer = &self.peers[index];
        let lacking = self.peers.iter().filter(|other| other.changed > peer.acked).count();
        peer.acked == 0 || lacking > self.config.part_entries
    }

    fn emit(
        &mut self,
        now: Instant,
        index: usize,
        entries: &mut Vec<(NodeId, LinkReport)>,
    ) -> Advertisement {
        if self.peers[index].acked == self.seq && !self.peers[index].doubted {
            self.note_refresh(index);
        }
        self.deadline.set(None);
        let full = self.is_full(index);
        let size = self.config.part_entries.max(1);
        let parts = if full { self.peers.len().div_ceil(size).clamp(1, 64) } else { 1 };
        let part = usize::from(self.peers[index].part).min(parts - 1);
        let acked = self.peers[index].acked;
        let skip = if full { part * size } else { 0 };
        let wanted = self.peers.iter().filter(|other| full || other.changed > acked);
        entries.clear();
        entries.extend(wanted.skip(skip).take(size).map(|other| (other.id, other.published)));
        let bytes = AdvertiserConfig::OVERHEAD + entries.len() * AdvertiserConfig::ENTRY;
        // Hundreds of links that come up at once cost more than is earned in minutes. If all of that had
        // to be made up for, what others know of us would expire meanwhile.
        let least = -self.config.bytes_per_second * AdvertiserConfig::DEBT_SECONDS;
        self.credit = (self.credit - bytes as f64).max(least);
        if full && part + 1 == parts {
            self.note_full(now, index);
        }
        self.note_sent(now, index, part + 1 == parts);
        Advertisement {
            epoch: self.peers[index].epoch,
            seq: self.seq,
            part: part as u8,
            parts: parts as u8,
            delta: !full,
            spare_relay_kbit: self.spare_relay_kbit,
        }
    }

    fn note_full(&mut self, now: Instant, index: usize) {
        let (count, since) = self.peers[index].hurried;
        let anew = now - since >= self.config.refresh;
        self.peers[index].hurried = if anew { (1, now) } else { (count.saturating_add(1), since) };
    }

    fn note_refresh(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.refreshes = peer.refreshes.wrapping_add(1);
        if peer.refreshes.is_multiple_of(self.config.full_every.max(1)) {
            peer.acked = 0;
        }
    }

    fn note_sent(&mut self, now: Instant, index: usize, complete: bool) {
        let (retry_first, retry_last) = self.config.retry;
        let peer = &mut self.peers[index];
        if !complete {
            peer.part += 1;
            return;
        }
        peer.part = 0;
        if peer.acked == self.seq && !peer.doubted {
            peer.retry = retry_first;
            peer.due = now + self.config.refresh;
        } else {
            peer.due = now + peer.retry;
            peer.retry = (peer.retry * 2).min(retry_last);
        }
        peer.sent = self.seq;
    }

    /// When to call [`Advertiser::poll`], and why. `None` while no peer can be reached.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let first = self.deadline.get().unwrap_or_else(|| {
            let peers = (0..self.peers.len()).filter_map(|index| self.due_at(index));
            let first = peers.chain(self.publish_due).min();
            self.deadline.set(Some(first));
            first
        });
        first.map(|due| (due, "advertise"))
    }

    /// Our present epoch, but for peers that knew a later one, and number.
    pub const fn position(&self) -> (u64, u32) {
        (self.epoch, self.seq)
    }

    /// True when the peer has acknowledged all that we published.
    pub fn is_known_to(&self, peer: PeerIndex) -> bool {
        self.peers.get(peer.usize()).is_some_and(|state| state.acked == self.seq && !state.doubted)
    }
}

#[cfg(test)]
mod tests;
