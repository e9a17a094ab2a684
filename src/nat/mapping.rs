//! Mappings, and the hosts that have them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::pool::{AddressIndex, Place};
use super::session::NONE;
use super::table::Table;
use super::{Realm, Transport};
use crate::telemetry::DropReason;
use crate::time::Instant;

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
    pub(super) address: AddressIndex,
    pub(super) host: u32,
    pub(super) created: Instant,
    /// Latest packet that keeps it alive (for TCP the sessions' instants count).
    pub(super) active: Instant,
    /// First of its sessions.
    pub(super) sessions: u32,
    pub(super) session_count: u32,
    /// Sessions that the inside takes part in.
    pub(super) confirmed: u32,
}

impl Mapping {
    fn place(&self) -> Place {
        Place { address: self.address, transport: self.inside.transport, port: self.outside.port() }
    }
}

/// An inside host: its outside address and its shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) realm: Realm,
    pub(super) inside: Ipv4Addr,
    pub(super) address: AddressIndex,
    pub(super) mappings: u32,
    pub(super) sessions: u32,
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

impl Table {
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

    pub(super) fn create(
        &mut self,
        now: Instant,
        inside: InsideEnd,
    ) -> Result<MappingId, DropReason> {
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
    pub(super) fn idle_time(&self, transport: Transport) -> Option<Duration> {
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
