//! The tables of the NAT: what a packet means for them, and what time does to them. Knows no
//! packets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::{Dependence, NatPolicy};
use super::end::End;
use super::events::Events;
use super::host::Host;
use super::lease::Lease;
use super::lookup::depends;
use super::mapping::{InsideEnd, Kind, Mapping, MappingId};
use super::pool::Pool;
use super::session::{Session, State};
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
    /// Sessions that live.
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
    pub(super) policy: NatPolicy,
    pub(super) seed: HashSeed,
    pub(super) rng: Rng,
    pub(super) mappings: Arena<Mapping>,
    pub(super) by_inside: HashIndex,
    /// Those that the pool's arrays cannot hold.
    pub(super) by_place: HashIndex,
    pub(super) mapping_timers: Wheel,
    pub(super) sessions: Arena<Session>,
    pub(super) by_remote: HashIndex,
    pub(super) session_timers: Wheel,
    pub(super) hosts: Arena<Host>,
    pub(super) by_host: HashIndex,
    pub(super) realms: super::realms::Realms,
    /// Mappings that were opened by name, at some time.
    pub(super) opened: u64,
    pub(super) leases: BTreeMap<u32, Lease>,
    pub(super) events: Events,
    pub(super) created: u64,
    pub(super) expired: u64,
}

impl Table {
    pub(super) fn new(now: Instant, config: &NatConfig, mut rng: Rng) -> Self {
        let mappings = config.limits.max_mappings as usize;
        let sessions = config.limits.max_sessions as usize;
        Self {
            pool: Pool::new(&config.pool, &config.ports, config.timers.quarantine, mappings),
            limits: config.limits,
            timers: config.timers.clone(),
            policy: config.policy,
            seed: HashSeed::new(&mut rng),
            rng,
            mappings: Arena::new(mappings),
            by_inside: HashIndex::new(mappings),
            by_place: HashIndex::new(mappings),
            mapping_timers: Wheel::new(now, mappings),
            sessions: Arena::new(sessions),
            by_remote: HashIndex::new(sessions),
            session_timers: Wheel::new(now, sessions),
            // Every host in it has a mapping.
            hosts: Arena::new(mappings),
            by_host: HashIndex::new(mappings),
            realms: super::realms::Realms::new(),
            opened: 0,
            leases: BTreeMap::new(),
            events: Events::new(config.policy.events),
            created: 0,
            expired: 0,
        }
    }

    /// A packet from inside: finds or makes what it needs and keeps it alive.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        inside: InsideEnd,
        remote: End,
        flags: u8,
    ) -> Result<MappingId, DropReason> {
        let transport = inside.transport;
        let remote = transport.remote(remote);
        let known = self.for_inside(&inside, remote);
        // What is missing is asked for first, so that nothing is made that nothing passes by: no
        // mapping without its sessions, no connection whose remote end may not answer.
        let permits = self.permits_needed(known, transport, remote);
        if transport != Transport::Tcp {
            self.check_room(&inside, known, permits)?;
            let id = known.map_or_else(|| self.create(now, inside, remote), Ok)?;
            let idle = self.idle_time(transport, remote.port);
            self.keep(now, id, idle);
            self.note_remote(now, id, transport, remote, idle)?;
            return Ok(id);
        }
        let session = known.and_then(|id| self.connection(id, remote));
        let id = if let (Some(id), Some(session)) = (known, session) {
            self.check_room(&inside, known, permits)?;
            self.advance(now, session, Side::Inside, flags);
            id
        } else {
            match (TcpState::first(Side::Inside, flags), known) {
                (Some(state), _) => {
                    self.check_room(&inside, known, 1 + permits)?;
                    let id = known.map_or_else(|| self.create(now, inside, remote), Ok)?;
                    self.open(now, id, remote, State::Tcp(state))?;
                    id
                }
                // RFC 6146 section 3.5.2.2: with a mapping it passes, but makes no session.
                (None, Some(id)) => {
                    self.check_room(&inside, known, permits)?;
                    id
                }
                (None, None) => return Err(DropReason::NatNoSession),
            }
        };
        self.note_remote(now, id, transport, remote, self.timers.tcp_established)?;
        Ok(id)
    }

    /// Remembers whom the inside has sent to, where the filter will ask. A TCP session does that by
    /// itself for its own remote end.
    fn note_remote(
        &mut self,
        now: Instant,
        id: MappingId,
        transport: Transport,
        remote: End,
        idle: Duration,
    ) -> Result<(), DropReason> {
        match self.noted(transport, remote) {
            Some(remote) => self.permit(now, id, remote, idle),
            None => Ok(()),
        }
    }

    /// The remote end as the filter will ask for it; `None` when it will not.
    fn noted(&self, transport: Transport, remote: End) -> Option<End> {
        let filtering = self.policy.of(transport).filtering;
        let by_session = transport == Transport::Tcp && filtering == Dependence::AddressAndPort;
        // Such a mapping is for one address anyway.
        let by_mapping = !transport.has_ports();
        let asks = filtering != Dependence::EndpointIndependent && !by_session && !by_mapping;
        asks.then(|| depends(filtering, remote))
    }

    /// How many sessions [`Self::note_remote`] will make.
    fn permits_needed(&self, known: Option<MappingId>, transport: Transport, remote: End) -> u32 {
        let noted = self.noted(transport, remote);
        let new = |&remote: &End| known.and_then(|id| self.session(id, remote)).is_none();
        u32::from(noted.filter(new).is_some())
    }

    /// A packet from outside: the mapping it goes by, if the filter lets it in.
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        transport: Transport,
        outside: End,
        remote: End,
        flags: u8,
    ) -> Result<MappingId, DropReason> {
        let remote = transport.remote(remote);
        let id = self.by_outside(transport, outside, remote).ok_or(DropReason::Unsolicited)?;
        if !self.lets_in(id, remote) {
            return Err(DropReason::NatFiltered);
        }
        match transport {
            Transport::Udp | Transport::UdpLite if self.timers.udp_inbound_refresh => {
                self.keep(now, id, self.idle_time(transport, remote.port));
            }
            Transport::Udp | Transport::UdpLite | Transport::Icmp | Transport::Other(_) => {}
            Transport::Tcp => {
                if let Some(session) = self.connection(id, remote) {
                    self.advance(now, session, Side::Outside, flags);
                } else if let Some(state) = TcpState::first(Side::Outside, flags) {
                    self.check_room_for_stranger(id)?;
                    self.open(now, id, remote, State::Tcp(state))?;
                }
            }
        }
        Ok(id)
    }

    /// The filter (RFC 4787 section 5). What was opened by name is open to all.
    pub(super) fn lets_in(&self, id: MappingId, remote: End) -> bool {
        let Some(mapping) = self.mappings.get(id.0) else { return false };
        if matches!(mapping.kind, Kind::Static | Kind::Leased) {
            return true;
        }
        let transport = mapping.inside.transport;
        if mapping.kind == Kind::Shared || !transport.has_ports() {
            // It was found by its remote end.
            return true;
        }
        let filtering = self.policy.of(transport).filtering;
        filtering == Dependence::EndpointIndependent
            || self.session(id, depends(filtering, remote)).is_some()
    }

    fn keep(&mut self, now: Instant, id: MappingId, idle: Duration) {
        if let Some(mapping) = self.mappings.get_mut(id.0) {
            mapping.deadline = mapping.deadline.max(now + idle);
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
            self.on_deadline(now, id);
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
