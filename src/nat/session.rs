//! Sessions: TCP connections, and whom an inside host has sent to where filtering asks for that.

use std::time::Duration;

use super::end::{End, halves};
use super::mapping::{InsideEnd, Kind, MappingId};
use super::table::Table;
use super::tcp::{Side, TcpState};
use super::{NatTimers, Realm};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// End of a list of sessions.
pub(super) const NONE: u32 = u32::MAX;

/// A mapping with one remote end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) mapping: u32,
    pub(super) remote: End,
    pub(super) state: State,
    /// It counts as one that the inside takes part in: of TCP, and the inside has sent a SYN.
    pub(super) confirmed: bool,
    pub(super) active: Instant,
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A TCP connection.
    Tcp(TcpState),
    /// The inside has sent to the remote end, or to any port of its address when the port is zero,
    /// and lets it in for so many seconds after the last time.
    Permit(u32),
}

impl Session {
    pub(super) fn deadline(&self, timers: &NatTimers) -> Instant {
        self.active
            + match self.state {
                State::Tcp(state) if state.is_established() => timers.tcp_established,
                State::Tcp(state) if state.is_opening() => timers.tcp_opening,
                State::Tcp(_) => timers.tcp_closing,
                State::Permit(seconds) => Duration::from_secs(seconds.into()),
            }
    }
}

impl Table {
    pub(super) fn session(&self, mapping: MappingId, remote: End) -> Option<u32> {
        let sessions = &self.sessions;
        let known = self.mappings.get(mapping.0)?;
        // The newest one is looked at first: most mappings have no other, and then neither the hash
        // nor the index is needed, whose place in memory is no cache's.
        if sessions.get(known.sessions).is_some_and(|newest| newest.remote == remote) {
            return Some(known.sessions);
        }
        if known.session_count <= 1 {
            return None;
        }
        self.by_remote.find(self.seed.hash(session_words(mapping.0, remote)), |id| {
            sessions.get(id).is_some_and(|s| s.mapping == mapping.0 && s.remote == remote)
        })
    }

    /// The TCP session with a remote end.
    pub(super) fn connection(&self, mapping: MappingId, remote: End) -> Option<u32> {
        self.session(mapping, remote).filter(|&id| {
            self.sessions.get(id).is_some_and(|session| matches!(session.state, State::Tcp(_)))
        })
    }

    /// Lets a remote end, or all ports of its address, in for `idle` from now on.
    pub(super) fn permit(
        &mut self,
        now: Instant,
        id: MappingId,
        remote: End,
        idle: Duration,
    ) -> Result<(), DropReason> {
        let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
        if let Some(session) = self.session(id, remote).and_then(|at| self.sessions.get_mut(at)) {
            session.active = now;
            return Ok(());
        }
        self.open(now, id, remote, State::Permit(seconds))
    }

    /// Whether a host may have so many more sessions for a packet that it sent, by the mapping if it
    /// has one. A single first one of a mapping is within its share in any case: the mapping itself
    /// was.
    pub(super) fn check_room(
        &self,
        inside: &InsideEnd,
        known: Option<MappingId>,
        more: u32,
    ) -> Result<(), DropReason> {
        if more == 0 {
            return Ok(());
        }
        self.check_room_of_all(inside.realm, more)?;
        let mapping = known.and_then(|id| self.get(id));
        if more == 1 && mapping.is_none_or(|mapping| mapping.session_count == 0) {
            return Ok(());
        }
        let host = mapping.map_or_else(|| self.known_host(inside), |mapping| Some(mapping.host));
        self.check_share(host, self.limits.max_sessions_per_host.saturating_sub(more - 1))
    }

    /// Whether there is room for so many more sessions, and the realm's share of it.
    fn check_room_of_all(&self, realm: Realm, more: u32) -> Result<(), DropReason> {
        if self.sessions.len() + more as usize > self.sessions.capacity() {
            return Err(DropReason::NatTableFull);
        }
        let share = self.limits.share_of_realm(self.limits.max_sessions.into());
        if u64::from(self.realms.sessions_of(realm)) + u64::from(more) > share {
            return Err(DropReason::NatSiteLimit);
        }
        Ok(())
    }

    /// The same for one session that somebody outside begins: half of a host's share is left for what
    /// the host itself begins.
    pub(super) fn check_room_for_stranger(&self, id: MappingId) -> Result<(), DropReason> {
        let mapping = self.get(id).ok_or(DropReason::NatTableFull)?;
        self.check_room_of_all(mapping.inside.realm, 1)?;
        if mapping.session_count == 0 {
            return Ok(());
        }
        self.check_share(Some(mapping.host), self.limits.max_sessions_per_host / 2)
    }

    /// Whether the host has fewer sessions than `below`. One that is not known has none.
    fn check_share(&self, host: Option<u32>, below: u32) -> Result<(), DropReason> {
        let host = host.and_then(|host| self.hosts.get(host));
        if host.is_some_and(|host| host.sessions >= below) {
            return Err(DropReason::NatHostLimit);
        }
        Ok(())
    }

    /// Makes a session; there is room, as [`Self::check_room`] says.
    pub(super) fn open(
        &mut self,
        now: Instant,
        id: MappingId,
        remote: End,
        state: State,
    ) -> Result<(), DropReason> {
        let mapping = self.mappings.get_mut(id.0).ok_or(DropReason::NatTableFull)?;
        let realm = mapping.inside.realm;
        let host = self.hosts.get_mut(mapping.host).ok_or(DropReason::NatTableFull)?;
        let confirmed = state == State::Tcp(TcpState::OutInit);
        let session = Session {
            mapping: id.0,
            remote,
            state,
            confirmed,
            active: now,
            previous: NONE,
            next: mapping.sessions,
        };
        let first = self.sessions.insert(session).ok_or(DropReason::NatTableFull)?;
        host.sessions += 1;
        self.realms.add_session(realm);
        mapping.sessions = first;
        mapping.session_count += 1;
        mapping.confirmed += u32::from(confirmed);
        if let Some(next) = self.sessions.get_mut(session.next) {
            next.previous = first;
        }
        self.by_remote.insert(self.seed.hash(session_words(id.0, remote)), first);
        self.session_timers.schedule(first, session.deadline(&self.timers));
        Ok(())
    }

    /// Moves a session by a packet.
    pub(super) fn advance(&mut self, now: Instant, id: u32, side: Side, flags: u8) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let State::Tcp(state) = session.state else { return };
        let before = session.deadline(&self.timers);
        let (state, refreshed) = state.after(side, flags);
        session.state = State::Tcp(state);
        if refreshed {
            session.active = now;
        }
        let inside_joined = state == TcpState::Established && !session.confirmed;
        session.confirmed |= inside_joined;
        let mapping = session.mapping;
        let after = session.deadline(&self.timers);
        // A deadline that moved later is found when the timer fires.
        if after < before {
            self.session_timers.schedule(id, after);
        }
        if inside_joined && let Some(mapping) = self.mappings.get_mut(mapping) {
            mapping.confirmed += 1;
        }
    }

    /// Ends a session, and its mapping with the last one that the inside took part in.
    pub(super) fn close(&mut self, now: Instant, id: u32) {
        let Some(session) = self.drop_session(id) else { return };
        let Some(mapping) = self.mappings.get_mut(session.mapping) else { return };
        if mapping.sessions == id {
            mapping.sessions = session.next;
        }
        mapping.session_count -= 1;
        mapping.confirmed -= u32::from(session.confirmed);
        let lives_by_sessions = matches!(mapping.kind, Kind::Dynamic | Kind::Shared);
        if session.confirmed && mapping.confirmed == 0 && lives_by_sessions {
            self.remove(now, MappingId(session.mapping));
        }
    }

    /// Takes a session out of everything but its mapping's account.
    pub(super) fn drop_session(&mut self, id: u32) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        self.by_remote.remove(self.seed.hash(session_words(session.mapping, session.remote)), id);
        self.session_timers.cancel(id);
        if let Some(previous) = self.sessions.get_mut(session.previous) {
            previous.next = session.next;
        }
        if let Some(next) = self.sessions.get_mut(session.next) {
            next.previous = session.previous;
        }
        let host = self.mappings.get(session.mapping).map(|mapping| mapping.host);
        if let Some(host) = host.and_then(|host| self.hosts.get_mut(host)) {
            host.sessions -= 1;
            self.realms.take_off_session(host.realm);
        }
        Some(session)
    }
}

fn session_words(mapping: u32, remote: End) -> [u64; 3] {
    let [high, low] = halves(remote.address);
    [high, low, u64::from(mapping) << 16 | u64::from(remote.port)]
}
