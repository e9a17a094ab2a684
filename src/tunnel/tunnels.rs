//! The tunnels of a node, their timers and events.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cookie::{CookieJar, Recipient};
use super::due::Due;
use super::index::IndexTable;
use super::limit::Limits;
use super::noise::Agreements;
use super::peer::{Peer, REJECT_AFTER, RETRY_MIN, STALL_AFTER};
use super::{
    Identity, PresharedKey, ReceiveStats, Suites, TunnelConfig, TunnelEvent, TunnelState,
    TunnelStatus,
};
use crate::id::{NodeId, PeerIndex};
use crate::path::PathId;
use crate::rng::Rng;
use crate::time::Instant;

/// How often replay windows and keys are looked at that may be idle.
const MAINTENANCE: Duration = Duration::from_secs(10);
/// Most events that wait to be polled.
const EVENTS_PER_PEER: usize = 8;
/// A peer that closed its tunnel is called again after this time.
const FORGOTTEN_PAUSE: Duration = Duration::from_secs(1);

/// Every tunnel of a node.
///
/// The driving contract: after any call, carry out what [`Self::poll_event`] yields until it
/// yields nothing, and call [`Self::handle_timeout`] when [`Self::poll_timeout`] says. `now` never
/// goes back.
pub struct Tunnels {
    pub(super) identity: Identity,
    pub(super) agreements: Arc<Agreements>,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) suites: Suites,
    pub(super) recipient: Recipient,
    pub(super) jar: CookieJar,
    pub(super) limits: Limits,
    pub(super) indices: IndexTable,
    pub(super) rng: Rng,
    pub(super) peers: Vec<Peer>,
    /// Peers by public key and by node id, sorted.
    pub(super) by_key: Vec<([u8; 32], PeerIndex)>,
    by_id: Vec<(NodeId, PeerIndex)>,
    pub(super) last_timestamp: u64,
    events: VecDeque<TunnelEvent>,
    events_max: usize,
    /// Not later than the first deadline; what is earlier than due does no harm.
    deadline: Option<(Instant, &'static str)>,
    /// The same for each peer.
    pub(super) due: Due,
    maintenance_at: Instant,
}

impl Tunnels {
    /// No tunnel is up yet; an initiation is due for every peer at once.
    pub fn new(now: Instant, config: TunnelConfig, mut rng: Rng) -> Self {
        let peers: Vec<_> = config.peers.iter().map(|key| Peer::new(now, *key)).collect();
        let index = |i: usize| PeerIndex(u16::try_from(i).unwrap_or(u16::MAX));
        let mut by_key: Vec<_> =
            peers.iter().enumerate().map(|(i, peer)| (peer.public.0, index(i))).collect();
        by_key.sort_unstable();
        let mut by_id: Vec<_> =
            peers.iter().enumerate().map(|(i, peer)| (peer.id, index(i))).collect();
        by_id.sort_unstable();
        Self {
            recipient: Recipient::new(&config.identity.public()),
            agreements: Arc::new(Agreements::new(&config.identity, config.peers.iter().copied())),
            identity: config.identity,
            preshared_key: config.preshared_key,
            suites: config.suites,
            jar: CookieJar::new(rng.fork()),
            limits: Limits::new(now, config.load_threshold),
            indices: IndexTable::new(peers.len()),
            due: Due::new(now, peers.len()),
            events_max: peers.len() * EVENTS_PER_PEER,
            rng,
            peers,
            by_key,
            by_id,
            last_timestamp: 0,
            events: VecDeque::new(),
            deadline: Some((now, "initiate")),
            maintenance_at: now + MAINTENANCE,
        }
    }

    /// Our own node id.
    pub fn own_id(&self) -> NodeId {
        self.identity.id()
    }

    /// The node id of a peer.
    pub fn peer_id(&self, peer: PeerIndex) -> Option<NodeId> {
        self.peers.get(peer.usize()).map(|peer| peer.id)
    }

    /// The peer with a node id.
    pub fn peer_by_id(&self, id: NodeId) -> Option<PeerIndex> {
        let found = self.by_id.binary_search_by_key(&id, |entry| entry.0).ok()?;
        self.by_id.get(found).map(|entry| entry.1)
    }

    /// The peer that a receiver index of ours belongs to.
    pub fn peer_of(&self, receiver_index: u32) -> Option<PeerIndex> {
        self.indices.peer(receiver_index)
    }

    /// Datagrams (data and relay) that came from `peer` on a path, as the peer names it.
    pub fn receive_stats(&self, peer: PeerIndex, path: PathId) -> ReceiveStats {
        self.peers.get(peer.usize()).map_or_else(ReceiveStats::default, |p| p.receive_stats(path))
    }

    /// Datagrams (data and relay) that we sealed for `peer` on a path.
    pub fn sent(&self, peer: PeerIndex, path: PathId) -> u64 {
        self.peers.get(peer.usize()).map_or(0, |p| p.sent(path))
    }

    /// The last handshake timestamp used. The shell stores it, so that those of the next
    /// incarnation are greater.
    pub fn last_timestamp(&self) -> u64 {
        self.last_timestamp
    }

    /// The timestamp that the shell had stored.
    pub fn set_stored_timestamp(&mut self, timestamp: u64) {
        self.last_timestamp = self.last_timestamp.max(timestamp);
    }

    /// True when something can be sealed for the peer.
    pub fn is_up(&self, now: Instant, peer: PeerIndex) -> bool {
        let keys = self.peers.get(peer.usize()).and_then(|peer| peer.current.as_ref());
        keys.is_some_and(|keys| now < keys.born + REJECT_AFTER)
    }

    /// How a tunnel is.
    pub fn status(&self, now: Instant, peer: PeerIndex) -> TunnelStatus {
        let Some(peer) = self.peers.get(peer.usize()) else {
            let state = TunnelState::Down;
            return TunnelStatus { state, age: None, suite: None, last_received: None };
        };
        let current = peer.current.as_ref().filter(|keys| now < keys.born + REJECT_AFTER);
        let under_way = peer.initiation.is_some() || peer.next.is_some();
        let state = match (current.is_some(), under_way && peer.wants_keys(now)) {
            (true, false) => TunnelState::Up,
            (true, true) => TunnelState::Rekeying,
            (false, true) => TunnelState::Connecting,
            (false, false) => TunnelState::Down,
        };
        TunnelStatus {
            state,
            age: current.map(|keys| now - keys.born),
            suite: current.map(|keys| keys.suite),
            last_received: peer.last_received,
        }
    }

    /// A new way to the peer appeared: an initiation that waits for its turn is due at once.
    pub fn hasten(&mut self, now: Instant, peer: PeerIndex) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        if state.retry_at.is_some() && state.wants_keys(now) {
            // Others say when there is a new way; they shall not set the pace.
            let last = state.initiation.as_ref().map(|initiation| initiation.sent_at);
            let at = last.map_or(now, |last| now.max(last + RETRY_MIN));
            state.attempt = 0;
            state.retry_at = state.retry_at.map(|due| due.min(at));
            self.expect(peer, at, "initiate");
        }
    }

    /// Drops all keys of a peer, for instance because it said that it stops. It is called again
    /// after a pause.
    pub fn forget(&mut self, now: Instant, peer: PeerIndex) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        for index in state.clear() {
            self.indices.release(index);
        }
        state.retry_at = Some(now + FORGOTTEN_PAUSE);
        self.expect(peer, now + FORGOTTEN_PAUSE, "initiate");
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadline
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        let event = self.events.pop_front();
        if let Some(TunnelEvent::WantInitiate(peer)) = event
            && let Some(state) = self.peers.get_mut(peer.usize())
        {
            state.asked = false;
        }
        event
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|(at, _)| now < at) {
            return;
        }
        let mut next = 0;
        while let Some(peer) = self.due.next(now, next) {
            self.expire(now, peer);
            self.ask_for_keys(now, peer);
            self.due.set(peer, self.peers.get(peer.usize()).and_then(first_deadline));
            next = peer.usize() + 1;
        }
        if now >= self.maintenance_at {
            self.maintenance_at = now + MAINTENANCE;
            self.give_back(now);
        }
        self.find_deadline();
    }

    fn expire(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(index.usize()) else { return };
        while let Some((released, was_current)) = peer.expire_one(now) {
            self.indices.release(released);
            if was_current {
                push(&mut self.events, self.events_max, TunnelEvent::Expired(index));
            }
        }
    }

    fn ask_for_keys(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(index.usize()) else { return };
        if !peer.wants_keys(now) {
            peer.retry_at = None;
            peer.attempt = 0;
        } else if peer.retry_at.is_none_or(|at| now >= at) {
            peer.attempt = peer.attempt.saturating_add(1);
            peer.schedule_retry(now, &mut self.rng);
            if !peer.asked {
                peer.asked = true;
                push(&mut self.events, self.events_max, TunnelEvent::WantInitiate(index));
            }
        }
    }

    fn give_back(&mut self, now: Instant) {
        for peer in &mut self.peers {
            let places = [&mut peer.next, &mut peer.current].into_iter().chain(&mut peer.previous);
            for keys in places.flatten() {
                keys.give_back(now);
            }
        }
    }

    pub(super) fn event(&mut self, event: TunnelEvent) {
        push(&mut self.events, self.events_max, event);
    }

    /// A deadline of a peer appeared.
    pub(super) fn expect(&mut self, peer: PeerIndex, at: Instant, why: &'static str) {
        self.due.expect(peer, at);
        if self.deadline.is_none_or(|(first, _)| at < first) {
            self.deadline = Some((at, why));
        }
    }

    fn find_deadline(&mut self) {
        self.deadline = self.due.first(|peer| self.peers.get(peer).and_then(first_deadline));
        let any = self.peers.iter().any(|peer| peer.current.is_some());
        let at = self.maintenance_at;
        if any && self.deadline.is_none_or(|(first, _)| at < first) {
            self.deadline = Some((at, "give memory back"));
        }
    }
}

/// Beyond the limit, which a node that polls never meets, events are lost; no state is.
fn push(events: &mut VecDeque<TunnelEvent>, max: usize, event: TunnelEvent) {
    if events.len() < max {
        events.push_back(event);
    }
}

/// The first thing that is due for a peer.
fn first_deadline(peer: &Peer) -> Option<(Instant, &'static str)> {
    let idle = peer.retry_at.is_none();
    let rekey = peer.current.as_ref().filter(|_| idle).map(|keys| (keys.rekey_at, "rekey"));
    let stall = peer.unanswered_since.filter(|_| idle).map(|at| (at + STALL_AFTER, "no answer"));
    let oldest = peer.all_keys().map(|keys| keys.born).min();
    let all = [
        peer.retry_at.map(|at| (at, "initiate")),
        rekey,
        stall,
        oldest.map(|born| (born + REJECT_AFTER, "keys expire")),
    ];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels")
            .field("identity", &self.identity)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}
