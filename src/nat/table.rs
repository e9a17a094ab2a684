//! The tables of the NAT: what a packet means for them, and what time does to them. Knows no
//! packets.

use std::net::SocketAddrV4;

use super::mapping::{Host, InsideEnd, Mapping, MappingId};
use super::pool::Pool;
use super::session::Session;
use super::tcp::{Side, TcpState};
use super::{NatConfig, NatLimits, NatTimers, Transport};
use crate::rng::Rng;
use crate::table::{Arena, HashIndex, HashSeed};
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wheel::Wheel;

/// How much there is, and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCounts {
    /// Mappings that live.
    pub mappings: u64,
    /// TCP sessions that live.
    pub sessions: u64,
    /// Outside ports that a mapping has or that rest after one, of all addresses and transports.
    pub ports_in_use: u64,
    /// Outside ports of all addresses and transports.
    pub ports_total: u64,
    /// Mappings made since the start.
    pub created: u64,
    /// Mappings that ended since the start.
    pub expired: u64,
}

/// All mappings and sessions. Memory of a mapping with its parts of index, wheel and pool: at most
/// 160 bytes; of a session about as much.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) pool: Pool,
    pub(super) limits: NatLimits,
    pub(super) timers: NatTimers,
    pub(super) seed: HashSeed,
    pub(super) rng: Rng,
    pub(super) mappings: Arena<Mapping>,
    pub(super) by_inside: HashIndex,
    pub(super) mapping_timers: Wheel,
    pub(super) sessions: Arena<Session>,
    pub(super) by_remote: HashIndex,
    pub(super) session_timers: Wheel,
    pub(super) hosts: Arena<Host>,
    pub(super) by_host: HashIndex,
    pub(super) created: u64,
    pub(super) expired: u64,
}

impl Table {
    pub(super) fn new(now: Instant, config: &NatConfig, mut rng: Rng) -> Self {
        let mappings = config.limits.max_mappings as usize;
        let sessions = config.limits.max_sessions as usize;
        Self {
            pool: Pool::new(&config.pool, &config.ports, config.timers.quarantine),
            limits: config.limits,
            timers: config.timers,
            seed: HashSeed::new(&mut rng),
            rng,
            mappings: Arena::new(mappings),
            by_inside: HashIndex::new(mappings),
            mapping_timers: Wheel::new(now, mappings),
            sessions: Arena::new(sessions),
            by_remote: HashIndex::new(sessions),
            session_timers: Wheel::new(now, sessions),
            // Every host in it has a mapping.
            hosts: Arena::new(mappings),
            by_host: HashIndex::new(mappings),
            created: 0,
            expired: 0,
        }
    }

    /// A packet from inside: finds or makes what it needs and keeps it alive.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        inside: InsideEnd,
        remote: SocketAddrV4,
        flags: u8,
    ) -> Result<MappingId, DropReason> {
        let known = self.by_inside(&inside);
        if inside.transport != Transport::Tcp {
            let id = known.map_or_else(|| self.create(now, inside), Ok)?;
            self.refresh(now, id);
            return Ok(id);
        }
        let session = known.and_then(|id| self.session(id, remote));
        if let (Some(id), Some(session)) = (known, session) {
            self.advance(now, session, Side::Inside, flags);
            return Ok(id);
        }
        match (TcpState::first(Side::Inside, flags), known) {
            (Some(state), _) => {
                // Checked first, so that no mapping is made that has no session.
                if self.sessions.is_full() {
                    return Err(DropReason::NatTableFull);
                }
                let id = known.map_or_else(|| self.create(now, inside), Ok)?;
                self.open(now, id, remote, state, self.limits.max_sessions_per_host)?;
                Ok(id)
            }
            // RFC 6146 section 3.5.2.2: with a mapping it passes, but makes no session.
            (None, Some(id)) => Ok(id),
            (None, None) => Err(DropReason::NatNoSession),
        }
    }

    /// A packet from outside to a mapping's outside endpoint.
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        id: MappingId,
        remote: SocketAddrV4,
        flags: u8,
    ) -> Result<(), DropReason> {
        let Some(mapping) = self.mappings.get(id.0) else { return Err(DropReason::Unsolicited) };
        match mapping.inside.transport {
            Transport::Udp if self.timers.udp_inbound_refresh => self.refresh(now, id),
            Transport::Udp | Transport::Icmp => {}
            Transport::Tcp => {
                if let Some(session) = self.session(id, remote) {
                    self.advance(now, session, Side::Outside, flags);
                } else if let Some(state) = TcpState::first(Side::Outside, flags) {
                    // What strangers begin leaves room for what the host itself begins.
                    let most = self.limits.max_sessions_per_host / 2;
                    self.open(now, id, remote, state, most)?;
                }
            }
        }
        Ok(())
    }

    fn refresh(&mut self, now: Instant, id: MappingId) {
        if let Some(mapping) = self.mappings.get_mut(id.0) {
            mapping.active = now;
        }
    }

    /// Ends what was idle for long enough and frees ports that have rested, in at most `budget`
    /// steps. Returns the steps left.
    pub(super) fn expire(&mut self, now: Instant, mut budget: usize) -> usize {
        self.pool.wake(now, budget);
        while let Some(id) = self.session_timers.pop(now, &mut budget) {
            let deadline = self.sessions.get(id).map(|session| session.deadline(&self.timers));
            match deadline {
                Some(deadline) if deadline > now => {
                    self.session_timers.schedule(id, deadline);
                }
                Some(_) => self.close(now, id),
                None => {}
            }
        }
        while let Some(id) = self.mapping_timers.pop(now, &mut budget) {
            let Some(mapping) = self.mappings.get(id) else { continue };
            let Some(idle) = self.idle_time(mapping.inside.transport) else { continue };
            let deadline = mapping.active + idle;
            if deadline > now {
                self.mapping_timers.schedule(id, deadline);
            } else {
                self.remove(now, MappingId(id));
            }
        }
        budget
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.session_timers.next_deadline(),
            self.mapping_timers.next_deadline(),
            self.pool.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub(super) fn counts(&self) -> NatCounts {
        NatCounts {
            mappings: self.mappings.len() as u64,
            sessions: self.sessions.len() as u64,
            ports_in_use: self.pool.used(),
            ports_total: self.pool.total(),
            created: self.created,
            expired: self.expired,
        }
    }
}
