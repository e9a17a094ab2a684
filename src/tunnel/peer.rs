//! One tunnel: its keys in their places, and when it needs new ones.
//!
//! `next` holds keys that we made as responder and that the peer has not used yet; `current` are
//! the keys that seal; two `previous` sets still open what was in flight (two, because after
//! simultaneous initiations both ends may change their current keys twice).

use std::time::Duration;

use snow::HandshakeState;

use super::ReceiveStats;
use super::cookie::{COOKIE_LIFE, Recipient};
use super::keys::{Keys, REKEY_AFTER_DATAGRAMS};
use super::suite::Suite;
use super::window::PATHS_MAX;
use crate::id::{NodeId, PublicKey};
use crate::path::PathId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::handshake::{COOKIE_LEN, MAC_LEN, RESPONSE_LEN};

/// The initiator of a set of keys replaces it at this age.
pub(super) const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The responder does so only if the initiator has not.
pub(super) const REKEY_AFTER_RESPONDER: Duration = Duration::from_secs(135);
/// Either waits up to this much longer, so that not all tunnels of a node rekey at once.
pub(super) const REKEY_JITTER: Duration = Duration::from_secs(5);
/// Keys of this age neither seal nor open.
pub(super) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// The first repetition of an unanswered initiation.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait between repetitions, reached by doubling.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(3);
/// Sealing for so long without hearing anything makes us suspect that the peer lost its keys.
pub(super) const STALL_AFTER: Duration = Duration::from_secs(1);
/// How long a response is repeated to further copies of its initiation, and how often.
pub(super) const REPEAT_FOR: Duration = Duration::from_secs(2);
pub(super) const REPEATS_MAX: u8 = 16;

/// An initiation of ours that waits for its response.
pub(super) struct Initiation {
    pub(super) state: Box<HandshakeState>,
    pub(super) index: u32,
    pub(super) suite: Suite,
    pub(super) mac1: [u8; MAC_LEN],
    pub(super) sent_at: Instant,
    pub(super) with_cookie: bool,
}

/// The last initiation that we answered.
pub(super) struct Answered {
    pub(super) mac1: [u8; MAC_LEN],
    pub(super) at: Instant,
    pub(super) repeats: u8,
    pub(super) response: [u8; RESPONSE_LEN],
    /// Our index in the response.
    pub(super) index: u32,
}

/// Counts of sets of keys that are gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Retired {
    received: Vec<(PathId, ReceiveStats)>,
    sent: Vec<(PathId, u64)>,
}

impl Retired {
    fn add(&mut self, keys: &Keys) {
        for channel in [&keys.data, &keys.relay] {
            for (path, window) in channel.windows.iter() {
                if let Some(total) = entry(&mut self.received, path) {
                    // A peer chooses its counters.
                    total.expected = total.expected.wrapping_add(window.expected());
                    total.received = total.received.wrapping_add(window.received());
                }
            }
            for (path, count) in channel.sent.iter() {
                if let Some(total) = entry(&mut self.sent, path) {
                    *total += count;
                }
            }
        }
    }
}

/// The value of `path` in a sorted and bounded list.
fn entry<T: Default>(list: &mut Vec<(PathId, T)>, path: PathId) -> Option<&mut T> {
    let at = match list.binary_search_by_key(&path, |entry| entry.0) {
        Ok(at) => at,
        Err(_) if list.len() >= 2 * PATHS_MAX => return None,
        Err(at) => {
            list.reserve_exact(1);
            list.insert(at, (path, T::default()));
            at
        }
    };
    list.get_mut(at).map(|entry| &mut entry.1)
}

fn value<T: Copy + Default>(list: &[(PathId, T)], path: PathId) -> T {
    let found = list.binary_search_by_key(&path, |entry| entry.0);
    found.map_or_else(|_| T::default(), |at| list[at].1)
}

/// A peer and our tunnel to it.
pub(super) struct Peer {
    pub(super) public: PublicKey,
    pub(super) id: NodeId,
    pub(super) recipient: Recipient,
    pub(super) cookie: Option<([u8; COOKIE_LEN], Instant)>,
    pub(super) initiation: Option<Initiation>,
    pub(super) answered: Option<Box<Answered>>,
    pub(super) next: Option<Box<Keys>>,
    pub(super) current: Option<Box<Keys>>,
    pub(super) previous: [Option<Box<Keys>>; 2],
    /// Of the peer's last initiation that we accepted.
    pub(super) last_timestamp: u64,
    /// Initiations asked for since the tunnel last was as it should be.
    pub(super) attempt: u32,
    /// When the next initiation is due; none is wanted when `None`.
    pub(super) retry_at: Option<Instant>,
    /// An event asks for an initiation.
    pub(super) asked: bool,
    pub(super) unanswered_since: Option<Instant>,
    pub(super) last_received: Option<Instant>,
    retired: Retired,
}

impl Peer {
    pub(super) fn new(now: Instant, public: PublicKey) -> Self {
        Self {
            public,
            id: public.node_id(),
            recipient: Recipient::new(&public),
            cookie: None,
            initiation: None,
            answered: None,
            next: None,
            current: None,
            previous: [None, None],
            last_timestamp: 0,
            attempt: 0,
            retry_at: Some(now),
            asked: false,
            unanswered_since: None,
            last_received: None,
            retired: Retired::default(),
        }
    }

    /// Every set of keys, the newest first.
    pub(super) fn all_keys(&self) -> impl Iterator<Item = &Keys> + '_ {
        let places = [&self.next, &self.current].into_iter().chain(&self.previous);
        places.filter_map(|place| place.as_deref())
    }

    /// The keys with one of our indices.
    pub(super) fn keys_mut(&mut self, local_index: u32) -> Option<&mut Keys> {
        let places = [&mut self.current, &mut self.next].into_iter().chain(&mut self.previous);
        places.filter_map(|place| place.as_deref_mut()).find(|keys| keys.local_index == local_index)
    }

    pub(super) fn fresh_cookie(&self, now: Instant) -> Option<&[u8; COOKIE_LEN]> {
        let fresh = self.cookie.as_ref().filter(|(_, at)| now - *at < COOKIE_LIFE);
        fresh.map(|(cookie, _)| cookie)
    }

    /// The tunnel needs new keys.
    pub(super) fn wants_keys(&self, now: Instant) -> bool {
        let stalled = self.unanswered_since.is_some_and(|since| now >= since + STALL_AFTER);
        stalled
            || self
                .current
                .as_ref()
                .is_none_or(|keys| now >= keys.rekey_at || keys.sealed >= REKEY_AFTER_DATAGRAMS)
    }

    /// Notes that another initiation is being made or asked for; the one after it is due later.
    pub(super) fn schedule_retry(&mut self, now: Instant, rng: &mut Rng) {
        let doublings = self.attempt.saturating_sub(1).min(8);
        let wait = (RETRY_MIN * (1 << doublings)).min(RETRY_MAX);
        self.retry_at = Some(now + wait.mul_f64(0.75 + 0.25 * rng.unit()));
    }

    /// Gives new keys of ours, as initiator, their place. Returns indices to be released.
    pub(super) fn establish(&mut self, keys: Box<Keys>) -> Option<u32> {
        self.push_current(keys)
    }

    /// The peer used `next`: it becomes current. Returns indices to be released.
    pub(super) fn promote_next(&mut self) -> [Option<u32>; 2] {
        let Some(keys) = self.next.take() else { return [None, None] };
        let initiation = self.initiation.take().map(|initiation| initiation.index);
        [self.push_current(keys), initiation]
    }

    fn push_current(&mut self, keys: Box<Keys>) -> Option<u32> {
        let [newer, older] = &mut self.previous;
        let dropped = older.take();
        *older = newer.take();
        *newer = self.current.replace(keys);
        if let Some(replaced) = newer {
            replaced.stop_sealing();
        }
        self.attempt = 0;
        self.retry_at = None;
        self.unanswered_since = None;
        dropped.map(|keys| self.retire(&keys))
    }

    /// Adds up the counts of keys that are given up. Returns their index.
    fn retire(&mut self, keys: &Keys) -> u32 {
        self.retired.add(keys);
        keys.local_index
    }

    /// Puts keys that we made as responder in their place. Returns the index of those replaced.
    pub(super) fn set_next(&mut self, keys: Box<Keys>) -> Option<u32> {
        self.next.replace(keys).map(|replaced| self.retire(&replaced))
    }

    /// Drops a set of keys that is too old. Returns its index and whether it was the current one.
    pub(super) fn expire_one(&mut self, now: Instant) -> Option<(u32, bool)> {
        let old = |place: &Option<Box<Keys>>| {
            place.as_ref().is_some_and(|keys| now >= keys.born + REJECT_AFTER)
        };
        if old(&self.current) {
            let keys = self.current.take()?;
            return Some((self.retire(&keys), true));
        }
        let [newer, older] = &mut self.previous;
        let places = [&mut self.next, newer, older];
        let keys = places.into_iter().find(|place| old(place))?.take()?;
        Some((self.retire(&keys), false))
    }

    /// Drops everything that belongs to the tunnel's keys. Returns the indices.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = u32> {
        let [newer, older] = &mut self.previous;
        let places = [self.next.take(), self.current.take(), newer.take(), older.take()];
        let keys = places.map(|place| place.map(|keys| self.retire(&keys)));
        let initiation = self.initiation.take().map(|initiation| initiation.index);
        self.answered = None;
        self.cookie = None;
        self.attempt = 0;
        self.unanswered_since = None;
        keys.into_iter().chain([initiation]).flatten()
    }

    pub(super) fn receive_stats(&self, path: PathId) -> ReceiveStats {
        let mut stats = value(&self.retired.received, path);
        for keys in self.all_keys() {
            for channel in [&keys.data, &keys.relay] {
                if let Some(window) = channel.windows.get(path) {
                    stats.expected = stats.expected.wrapping_add(window.expected());
                    stats.received = stats.received.wrapping_add(window.received());
                }
            }
        }
        stats
    }

    pub(super) fn sent(&self, path: PathId) -> u64 {
        let live: u64 =
            self.all_keys().map(|k| k.data.sent.get(path) + k.relay.sent.get(path)).sum();
        value(&self.retired.sent, path) + live
    }
}
