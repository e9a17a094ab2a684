//! Inside hosts: the outside address each has, and its shares of what there is (RFC 6888 REQ-4 and
//! REQ-5).

use std::net::{IpAddr, Ipv6Addr};

use super::config::{PerTransport, StaticMapping};
use super::end::{End, halves, narrow, wide};
use super::mapping::{InsideEnd, Kind, Mapping};
use super::pool::{AddressIndex, Place};
use super::session::NONE;
use super::table::Table;
use super::{Realm, Transport};
use crate::telemetry::DropReason;
use crate::time::Instant;

const MICROS: u64 = 1_000_000;

/// An inside host, as long as it has mappings. One that uses outside addresses of both families is
/// two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) realm: Realm,
    pub(super) inside: Ipv6Addr,
    pub(super) outside_v4: bool,
    pub(super) address: AddressIndex,
    pub(super) mappings: u32,
    pub(super) sessions: u32,
    pub(super) by_transport: PerTransport,
    /// When the next mapping would be within the rate, if none had been saved up; it is a second
    /// behind at most.
    paid_until: Instant,
}

/// What an inside host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Its place in the listing.
    pub id: u32,
    /// Whom it is behind.
    pub realm: Realm,
    /// Its address.
    pub inside: IpAddr,
    /// Its outside address.
    pub outside: IpAddr,
    /// Its mappings.
    pub mappings: u32,
    /// Of these, by transport.
    pub by_transport: PerTransport,
    /// Its sessions.
    pub sessions: u32,
}

impl Table {
    /// The account of the host, charged with one more mapping, and the host's outside address.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        inside: &InsideEnd,
    ) -> Result<(u32, AddressIndex), DropReason> {
        let id = self.host(now, inside)?;
        self.move_host(id, inside.transport);
        let may_share = self.may_share(inside.transport);
        let limits = &self.limits;
        let host = self.hosts.get_mut(id).ok_or(DropReason::NatTableFull)?;
        let share = host.by_transport.of_mut(inside.transport);
        if host.mappings >= limits.max_mappings_per_host.max(1)
            || *share >= limits.per_transport.of(inside.transport).max(1)
        {
            return Err(DropReason::NatHostLimit);
        }
        if limits.realm_percent < 100 {
            // Ports that can be shared do not run out.
            let ports = if may_share {
                u64::MAX
            } else {
                limits.share_of_realm(self.pool.ports_of(inside.outside_v4))
            };
            let resting = u64::from(self.pool.resting_of.of_kind(inside));
            let all = limits.share_of_realm(limits.max_mappings.into());
            if !self.realms.has_room(inside, ports.saturating_sub(resting), all) {
                return Err(DropReason::NatSiteLimit);
            }
        }
        if let Some(rate) = limits.rate_per_host {
            let second_ago = Instant::from_micros(now.as_micros().saturating_sub(MICROS));
            let due = host.paid_until.max(second_ago);
            if due > now {
                return Err(DropReason::NatRateLimited);
            }
            let price = MICROS / u64::from(rate.max(1));
            host.paid_until = Instant::from_micros(due.as_micros() + price);
        }
        host.mappings += 1;
        *share += 1;
        self.realms.add(inside.realm, inside.transport, inside.outside_v4);
        Ok((id, host.address))
    }

    /// The account of the host, made if there is none.
    fn host(&mut self, now: Instant, inside: &InsideEnd) -> Result<u32, DropReason> {
        let key = (inside.realm, inside.address, inside.outside_v4);
        let hash = self.seed.hash(host_words(key));
        let hosts = &self.hosts;
        let known = self.by_host.find(hash, |id| {
            hosts.get(id).is_some_and(|host| (host.realm, host.inside, host.outside_v4) == key)
        });
        if let Some(id) = known {
            return Ok(id);
        }
        let or_full = self.may_share(inside.transport);
        let transport = inside.transport;
        let address = self.pool.choose(inside.outside_v4, transport, or_full, &mut self.rng);
        let address = address.ok_or(DropReason::NatPortsExhausted)?;
        self.add_host(now, inside, address)
    }

    fn add_host(
        &mut self,
        now: Instant,
        inside: &InsideEnd,
        address: AddressIndex,
    ) -> Result<u32, DropReason> {
        let host = Host {
            realm: inside.realm,
            inside: inside.address,
            outside_v4: inside.outside_v4,
            address,
            mappings: 0,
            sessions: 0,
            by_transport: PerTransport::all(0),
            paid_until: Instant::from_micros(now.as_micros().saturating_sub(MICROS)),
        };
        let id = self.hosts.insert(host).ok_or(DropReason::NatTableFull)?;
        self.by_host.insert(self.seed.hash(host.words()), id);
        Ok(id)
    }

    /// The account of a host that is known.
    pub(super) fn known_host(&self, inside: &InsideEnd) -> Option<u32> {
        let key = (inside.realm, inside.address, inside.outside_v4);
        let hosts = &self.hosts;
        self.by_host.find(self.seed.hash(host_words(key)), |id| {
            hosts.get(id).is_some_and(|host| (host.realm, host.inside, host.outside_v4) == key)
        })
    }

    /// Takes one mapping off the host's account.
    pub(super) fn discharge(&mut self, id: u32, transport: Transport) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        host.mappings -= 1;
        *host.by_transport.of_mut(transport) -= 1;
        self.realms.take_off(host.realm, transport, host.outside_v4);
        self.forget_idle(id);
    }

    /// Forgets a host without mappings.
    pub(super) fn forget_idle(&mut self, id: u32) {
        let Some(host) = self.hosts.get(id).filter(|host| host.mappings == 0) else { return };
        self.by_host.remove(self.seed.hash(host.words()), id);
        self.hosts.remove(id);
    }

    /// Enters a mapping that the configuration asks for. False when its outside endpoint is not in
    /// the pool, or taken.
    pub(super) fn add_static(&mut self, now: Instant, wanted: &StaticMapping) -> bool {
        let v4 =
            wanted.address.map_or_else(|| wanted.inside.is_ipv4(), |address| address.is_ipv4());
        let address = match wanted.address {
            Some(address) => self.pool.index_of(wide(address)),
            None => self.pool.first_address(v4),
        };
        let Some(address) = address else { return false };
        let port = if wanted.transport.has_ports() { wanted.port } else { 0 };
        let place = Place { address, transport: wanted.transport, port };
        let free = if self.is_ordinary(place) {
            self.pool.reserve(place)
        } else {
            self.exceptional(place, End::ANY).is_none()
        };
        let end = End::from(wanted.inside);
        let inside = InsideEnd {
            transport: wanted.transport,
            realm: wanted.realm,
            outside_v4: v4,
            address: end.address,
            port: if wanted.transport.has_ports() { end.port } else { 0 },
        };
        if !free || self.by_inside(&inside, End::ANY).is_some() {
            return false;
        }
        let known = self.known_host(&inside);
        let host = known.map_or_else(|| self.add_host(now, &inside, address), Ok);
        let Ok(host) = host else { return false };
        if let Some(account) = self.hosts.get_mut(host) {
            account.mappings += 1;
            *account.by_transport.of_mut(inside.transport) += 1;
            self.realms.add(inside.realm, inside.transport, v4);
        }
        self.opened += 1;
        let mapping = Mapping {
            inside,
            remote: End::ANY,
            port,
            address,
            host,
            created: now,
            deadline: now,
            sessions: NONE,
            session_count: 0,
            confirmed: 0,
            kind: Kind::Static,
        };
        self.enter(mapping).is_ok()
    }

    pub(super) fn hosts_from(&self, first: u32) -> impl Iterator<Item = HostView> {
        self.hosts.iter_from(first).map(|(id, host)| HostView {
            id,
            realm: host.realm,
            inside: narrow(host.inside),
            outside: narrow(self.pool.address(host.address)),
            mappings: host.mappings,
            by_transport: host.by_transport,
            sessions: host.sessions,
        })
    }
}

impl Host {
    fn words(&self) -> [u64; 3] {
        host_words((self.realm, self.inside, self.outside_v4))
    }
}

fn host_words((realm, inside, outside_v4): (Realm, Ipv6Addr, bool)) -> [u64; 3] {
    let [high, low] = halves(inside);
    [high, low, u64::from(realm.0) << 1 | u64::from(outside_v4)]
}
