//! Mappings and sessions: how they are made, found, kept and forgotten. Knows no packets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::pool::{AddressIndex, Place, Pool};
use super::tcp::{Side, TcpState};
use super::{NatConfig, NatLimits, NatTimers, Realm, Transport};
use crate::rng::Rng;
use crate::table::{Arena, HashIndex, HashSeed};
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wheel::Wheel;

/// End of a list of sessions.
const NONE: u32 = u32::MAX;

/// Names a mapping as long as it lives; afterwards the id may name another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);

/// The inside end of a mapping: what it is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InsideEnd {
    pub(super) transport: Transport,
    pub(super) realm: Realm,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

impl InsideEnd {
    fn words(&self) -> [u64; 2] {
        let who = u64::from(self.realm.0) << 32 | u64::from(self.address.to_bits());
        [who, u64::from(self.port) << 8 | self.transport.index() as u64]
    }
}

/// An inside endpoint and its outside endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) inside: InsideEnd,
    pub(super) outside: SocketAddrV4,
    address: AddressIndex,
    host: u32,
    created: Instant,
    /// Latest packet that keeps it alive (for TCP the sessions' instants count).
    active: Instant,
    /// First of its sessions.
    sessions: u32,
    session_count: u32,
    /// Sessions that the inside takes part in.
    confirmed: u32,
}

impl Mapping {
    fn place(&self) -> Place {
        Place { address: self.address, transport: self.inside.transport, port: self.outside.port() }
    }
}

/// A TCP mapping with one remote endpoint.
#[derive(Clone, Copy, Debug)]
struct Session {
    mapping: u32,
    remote: SocketAddrV4,
    state: TcpState,
    /// The inside has sent a SYN.
    confirmed: bool,
    active: Instant,
    previous: u32,
    next: u32,
}

impl Session {
    fn deadline(&self, timers: &NatTimers) -> Instant {
        let established = self.state.is_established();
        self.active + if established { timers.tcp_established } else { timers.tcp_transitory }
    }
}

/// An inside host: its outside address and its shares.
#[derive(Clone, Copy, Debug)]
struct Host {
    realm: Realm,
    inside: Ipv4Addr,
    address: AddressIndex,
    mappings: u32,
    sessions: u32,
}

/// What can be told of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingView {
    /// Its name.
    pub id: MappingId,
    /// The transport.
    pub transport: Transport,
    /// Whom the inside host is behind.
    pub realm: Realm,
    /// The inside endpoint.
    pub inside: SocketAddrV4,
    /// The outside endpoint.
    pub outside: SocketAddrV4,
    /// When it was made.
    pub created: Instant,
    /// TCP sessions.
    pub sessions: u32,
}

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
    limits: NatLimits,
    timers: NatTimers,
    seed: HashSeed,
    rng: Rng,
    mappings: Arena<Mapping>,
    by_inside: HashIndex,
    mapping_timers: Wheel,
    sessions: Arena<Session>,
    by_remote: HashIndex,
    session_timers: Wheel,
    hosts: Arena<Host>,
    by_host: HashIndex,
    created: u64,
    expired: u64,
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

    pub(super) fn get(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(id.0)
    }

    /// The mapping of an inside endpoint.
    pub(super) fn by_inside(&self, inside: &InsideEnd) -> Option<MappingId> {
        let mappings = &self.mappings;
        let hash = self.seed.hash(inside.words());
        self.by_inside
            .find(hash, |id| mappings.get(id).is_some_and(|m| m.inside == *inside))
            .map(MappingId)
    }

    /// The mapping of an outside endpoint.
    pub(super) fn by_outside(
        &self,
        transport: Transport,
        outside: SocketAddrV4,
    ) -> Option<MappingId> {
        let address = self.pool.index_of(*outside.ip())?;
        self.pool.mapping(Place { address, transport, port: outside.port() }).map(MappingId)
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

    fn create(&mut self, now: Instant, inside: InsideEnd) -> Result<MappingId, DropReason> {
        if self.mappings.is_full() {
            return Err(DropReason::NatTableFull);
        }
        let (host, address) = self.host(&inside)?;
        let parity = (inside.transport == Transport::Udp).then_some(inside.port);
        let port = self.pool.take(now, address, inside.transport, parity, &mut self.rng);
        let Some(port) = port else {
            self.leave(host);
            return Err(DropReason::NatPortsExhausted);
        };
        let mapping = Mapping {
            inside,
            outside: SocketAddrV4::new(self.pool.address(address), port),
            address,
            host,
            created: now,
            active: now,
            sessions: NONE,
            session_count: 0,
            confirmed: 0,
        };
        let id = self.mappings.insert(mapping).ok_or(DropReason::NatTableFull)?;
        self.by_inside.insert(self.seed.hash(inside.words()), id);
        self.pool.assign(mapping.place(), id);
        if let Some(idle) = self.idle_time(inside.transport) {
            self.mapping_timers.schedule(id, now + idle);
        }
        self.created += 1;
        Ok(MappingId(id))
    }

    /// How long a mapping lives by itself; a TCP one lives by its sessions.
    fn idle_time(&self, transport: Transport) -> Option<Duration> {
        match transport {
            Transport::Tcp => None,
            Transport::Udp => Some(self.timers.udp),
            Transport::Icmp => Some(self.timers.icmp),
        }
    }

    /// The account of the host, charged with one more mapping, and the host's outside address.
    fn host(&mut self, inside: &InsideEnd) -> Result<(u32, AddressIndex), DropReason> {
        let (realm, address) = (inside.realm, inside.address);
        let hash = self.host_hash(realm, address);
        let hosts = &self.hosts;
        let known = self.by_host.find(hash, |id| {
            hosts.get(id).is_some_and(|host| (host.realm, host.inside) == (realm, address))
        });
        let id = match known {
            Some(id) => id,
            None => {
                let outside = self.pool.choose(inside.transport, &mut self.rng);
                let outside = outside.ok_or(DropReason::NatPortsExhausted)?;
                let host =
                    Host { realm, inside: address, address: outside, mappings: 0, sessions: 0 };
                let id = self.hosts.insert(host).ok_or(DropReason::NatTableFull)?;
                self.by_host.insert(hash, id);
                id
            }
        };
        let host = self.hosts.get_mut(id).ok_or(DropReason::NatTableFull)?;
        if host.mappings >= self.limits.max_mappings_per_host.max(1) {
            return Err(DropReason::NatPortsExhausted);
        }
        host.mappings += 1;
        Ok((id, host.address))
    }

    /// Takes one mapping off the host's account.
    fn leave(&mut self, id: u32) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        host.mappings -= 1;
        if host.mappings == 0 {
            let hash = self.seed.hash(host_words(host.realm, host.inside));
            self.by_host.remove(hash, id);
            self.hosts.remove(id);
        }
    }

    fn host_hash(&self, realm: Realm, address: Ipv4Addr) -> u64 {
        self.seed.hash(host_words(realm, address))
    }

    fn session(&self, mapping: MappingId, remote: SocketAddrV4) -> Option<u32> {
        let sessions = &self.sessions;
        self.by_remote.find(self.seed.hash(session_words(mapping.0, remote)), |id| {
            sessions.get(id).is_some_and(|s| s.mapping == mapping.0 && s.remote == remote)
        })
    }

    /// Makes a session, unless the host has `most` already.
    fn open(
        &mut self,
        now: Instant,
        id: MappingId,
        remote: SocketAddrV4,
        state: TcpState,
        most: u32,
    ) -> Result<(), DropReason> {
        let mapping = self.mappings.get_mut(id.0).ok_or(DropReason::NatTableFull)?;
        let host = self.hosts.get_mut(mapping.host).ok_or(DropReason::NatTableFull)?;
        // A mapping that was made for this very packet is within the share in any case.
        if host.sessions >= most && mapping.session_count > 0 {
            return Err(DropReason::NatTableFull);
        }
        let confirmed = state == TcpState::OutInit;
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
    fn advance(&mut self, now: Instant, id: u32, side: Side, flags: u8) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let before = session.deadline(&self.timers);
        let (state, refreshed) = session.state.after(side, flags);
        session.state = state;
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
    fn close(&mut self, now: Instant, id: u32) {
        let Some(session) = self.drop_session(id) else { return };
        let Some(mapping) = self.mappings.get_mut(session.mapping) else { return };
        if mapping.sessions == id {
            mapping.sessions = session.next;
        }
        mapping.session_count -= 1;
        mapping.confirmed -= u32::from(session.confirmed);
        if mapping.confirmed == 0 {
            self.remove(now, MappingId(session.mapping));
        }
    }

    /// Takes a session out of everything but its mapping's account.
    fn drop_session(&mut self, id: u32) -> Option<Session> {
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
        }
        Some(session)
    }

    /// Ends a mapping with all its sessions; its port rests from now on.
    pub(super) fn remove(&mut self, now: Instant, id: MappingId) -> bool {
        let Some(&mapping) = self.mappings.get(id.0) else { return false };
        let mut session = mapping.sessions;
        while let Some(dropped) = self.drop_session(session) {
            session = dropped.next;
        }
        self.mappings.remove(id.0);
        self.by_inside.remove(self.seed.hash(mapping.inside.words()), id.0);
        self.mapping_timers.cancel(id.0);
        self.pool.release(now, mapping.place());
        self.leave(mapping.host);
        self.expired += 1;
        true
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

    pub(super) fn iter_from(&self, first: MappingId) -> impl Iterator<Item = MappingView> {
        self.mappings.iter_from(first.0).map(|(id, mapping)| MappingView {
            id: MappingId(id),
            transport: mapping.inside.transport,
            realm: mapping.inside.realm,
            inside: SocketAddrV4::new(mapping.inside.address, mapping.inside.port),
            outside: mapping.outside,
            created: mapping.created,
            sessions: mapping.session_count,
        })
    }
}

fn host_words(realm: Realm, address: Ipv4Addr) -> [u64; 1] {
    [u64::from(realm.0) << 32 | u64::from(address.to_bits())]
}

fn session_words(mapping: u32, remote: SocketAddrV4) -> [u64; 2] {
    let remote_address = u64::from(remote.ip().to_bits());
    [u64::from(mapping) << 32 | remote_address, u64::from(remote.port())]
}
