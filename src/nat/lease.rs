//! Mappings that an inside host asks for by name, and may give back (RFC 6887 section 11).

use std::net::SocketAddr;
use std::time::Duration;

use super::end::{End, wide};
use super::mapping::{InsideEnd, Kind, Mapping, MappingId};
use super::pool::{AddressIndex, Place, Wish};
use super::session::NONE;
use super::table::Table;
use super::{Nat, Realm, Transport};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Leases in all, of one site, and of one host.
const LEASES_MAX: usize = 4_096;
const REALM_SHARE: usize = LEASES_MAX / 4;
const SHARE: usize = 128;

/// Proves that whoever changes a lease made it.
pub type Nonce = [u8; 12];

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The transport; one with ports.
    pub transport: Transport,
    /// Whom the host is behind.
    pub realm: Realm,
    /// Its endpoint.
    pub inside: SocketAddr,
    /// The outside endpoint it would like; of the port zero stands for any.
    pub wished: Option<SocketAddr>,
    /// Rather none than another one.
    pub only_wished: bool,
    /// Proof for later.
    pub nonce: Nonce,
    /// For how long.
    pub lifetime: Duration,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The nonce is not the one that the lease was made with.
    #[error("not authorized")]
    NotAuthorized,
    /// No port, no place, or too fast.
    #[error("no resources")]
    NoResources,
    /// The host has its share.
    #[error("the host has its share")]
    HostLimit,
    /// The wished outside endpoint cannot be had.
    #[error("another one has it")]
    CannotProvide,
}

impl From<DropReason> for LeaseError {
    fn from(reason: DropReason) -> Self {
        use DropReason::{NatHostLimit, NatRateLimited, NatSiteLimit};
        if matches!(reason, NatHostLimit | NatSiteLimit | NatRateLimited) {
            Self::HostLimit
        } else {
            Self::NoResources
        }
    }
}

impl Nat {
    /// Makes or prolongs a mapping that the host keeps for a time, whether it sends or not, and
    /// through which everyone reaches it. Returns its outside endpoint. A mapping that a packet made
    /// is taken over as it is; a static one is returned and not changed.
    pub fn lease(&mut self, now: Instant, wanted: &LeaseRequest) -> Result<SocketAddr, LeaseError> {
        let id = self.table.lease(now, wanted)?;
        let mapping = self.table.get(id).ok_or(LeaseError::NoResources)?;
        Ok(self.table.outside(mapping).socket())
    }

    /// Ends a lease before its time; its port rests. Nothing happens when there is none.
    pub fn give_back(
        &mut self,
        now: Instant,
        transport: Transport,
        realm: Realm,
        inside: SocketAddr,
        nonce: Nonce,
    ) -> Result<(), LeaseError> {
        let end = End::from(inside);
        for outside_v4 in [true, false] {
            let (address, port) = (end.address, end.port);
            let inside = InsideEnd { transport, realm, outside_v4, address, port };
            let Some(id) = self.table.by_inside(&inside, End::ANY) else { continue };
            match self.table.leases.get(&id.0) {
                Some(lease) if lease.nonce == nonce => {
                    self.table.remove(now, id);
                }
                Some(_) => return Err(LeaseError::NotAuthorized),
                None => {}
            }
        }
        Ok(())
    }

    /// The outside address that a host has, or the pool's first one of its family.
    pub fn outside_address(&self, realm: Realm, inside: SocketAddr) -> Option<std::net::IpAddr> {
        let end = End::from(inside);
        let inside = InsideEnd::new(Transport::Udp, realm, end, &end);
        let host = self.table.known_host(&inside).and_then(|id| self.table.hosts.get(id));
        let first = || self.table.pool.first_address(inside.outside_v4);
        let address = host.map(|host| host.address).or_else(first)?;
        Some(super::end::narrow(self.table.pool.address(address)))
    }
}

/// What is kept of a lease besides its mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    nonce: Nonce,
    realm: Realm,
    host: u32,
}

impl Table {
    fn lease(&mut self, now: Instant, wanted: &LeaseRequest) -> Result<MappingId, LeaseError> {
        let end = End::from(wanted.inside);
        let inside = InsideEnd::new(wanted.transport, wanted.realm, end, &end);
        let until = now + wanted.lifetime;
        let Some(id) = self.by_inside(&inside, End::ANY) else {
            return self.new_lease(now, &inside, wanted, until);
        };
        if self.leases.get(&id.0).is_some_and(|lease| lease.nonce != wanted.nonce) {
            return Err(LeaseError::NotAuthorized);
        }
        let mapping = self.get(id).ok_or(LeaseError::NoResources)?;
        let (kind, host) = (mapping.kind, mapping.host);
        if wanted.only_wished && wanted.wished != Some(self.outside(mapping).socket()) {
            return Err(LeaseError::CannotProvide);
        }
        if kind == Kind::Dynamic {
            self.check_lease_room(wanted.realm, host)?;
            self.leases.insert(id.0, Lease { nonce: wanted.nonce, realm: wanted.realm, host });
            self.opened += 1;
        }
        if kind != Kind::Static
            && let Some(mapping) = self.mappings.get_mut(id.0)
        {
            mapping.kind = Kind::Leased;
            mapping.deadline = until;
            self.mapping_timers.schedule(id.0, until);
        }
        Ok(id)
    }

    fn new_lease(
        &mut self,
        now: Instant,
        inside: &InsideEnd,
        wanted: &LeaseRequest,
        until: Instant,
    ) -> Result<MappingId, LeaseError> {
        if self.mappings.is_full() {
            return Err(LeaseError::NoResources);
        }
        let charged = self.charge(now, inside);
        let (host, address) = charged.inspect_err(|_| {
            if let Some(host) = self.known_host(inside) {
                self.forget_idle(host);
            }
        })?;
        let room = self.check_lease_room(wanted.realm, host);
        let port = room.and_then(|()| self.lease_port(now, inside, address, wanted));
        let port = port.inspect_err(|_| self.discharge(host, inside.transport))?;
        let mapping = Mapping {
            inside: *inside,
            remote: End::ANY,
            port,
            address,
            host,
            created: now,
            deadline: until,
            sessions: NONE,
            session_count: 0,
            confirmed: 0,
            kind: Kind::Leased,
        };
        let id = self.enter(mapping)?;
        self.leases.insert(id.0, Lease { nonce: wanted.nonce, realm: wanted.realm, host });
        self.opened += 1;
        Ok(id)
    }

    /// The wished port if it is free at the host's outside address, else any.
    fn lease_port(
        &mut self,
        now: Instant,
        inside: &InsideEnd,
        address: AddressIndex,
        wanted: &LeaseRequest,
    ) -> Result<u16, LeaseError> {
        let transport = inside.transport;
        let wished = wanted.wished.map_or(0, |end| end.port());
        let here = wanted.wished.is_none_or(|end| {
            end.ip().is_unspecified() || wide(end.ip()) == self.pool.address(address)
        });
        if here && wished != 0 && self.pool.reserve(Place { address, transport, port: wished }) {
            return Ok(wished);
        }
        if wanted.only_wished {
            return Err(LeaseError::CannotProvide);
        }
        let wish = Wish { port: inside.port, parity: transport != Transport::Tcp };
        let port = self.pool.take(now, address, transport, wish, &mut self.rng);
        port.ok_or(LeaseError::NoResources)
    }

    /// A site with many hosts, real ones or made up, leaves room for those of other sites.
    fn check_lease_room(&self, realm: Realm, host: u32) -> Result<(), LeaseError> {
        if self.leases.len() >= LEASES_MAX {
            return Err(LeaseError::NoResources);
        }
        let of_realm = self.leases.values().filter(|lease| lease.realm == realm);
        let (site, own) = of_realm
            .fold((0, 0), |(site, own), lease| (site + 1, own + usize::from(lease.host == host)));
        if site < REALM_SHARE && own < SHARE { Ok(()) } else { Err(LeaseError::HostLimit) }
    }
}
