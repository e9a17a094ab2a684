//! Mappings: made and ended.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::end::{End, halves, is_v4, narrow};
use super::events::NatEvent;
use super::lookup::place_words;
use super::pool::{AddressIndex, Place, Wish};
use super::session::NONE;
use super::table::Table;
use super::{Realm, Transport};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Ports that are looked at for one that can be shared.
const SHARE_ATTEMPTS: usize = 16;

/// Names a mapping as long as it lives; afterwards the id may name another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u32);

/// The inside end of a mapping, and what else its packets have in common: what it is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InsideEnd {
    pub(super) transport: Transport,
    pub(super) realm: Realm,
    /// The family of the outside.
    pub(super) outside_v4: bool,
    pub(super) address: Ipv6Addr,
    pub(super) port: u16,
}

impl InsideEnd {
    pub(super) fn new(transport: Transport, realm: Realm, inside: End, remote: &End) -> Self {
        let outside_v4 = is_v4(remote.address);
        Self { transport, realm, outside_v4, address: inside.address, port: inside.port }
    }

    pub(super) fn words(&self) -> [u64; 3] {
        let [high, low] = halves(self.address);
        let rest = u64::from(self.realm.0) << 33 | u64::from(self.outside_v4) << 32;
        [high, low, rest | u64::from(self.port) << 16 | u64::from(self.transport.code())]
    }
}

/// Where a mapping comes from, and with it what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet from inside; silence ends it.
    Dynamic,
    /// A packet from inside when no port was free: its outside endpoint serves other hosts as well,
    /// with other remote ends.
    Shared,
    /// The configuration; nothing ends it.
    Static,
    /// The inside host asked for it by name; the end of its lease ends it.
    Leased,
}

/// An inside endpoint and its outside endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) inside: InsideEnd,
    /// The only remote end that it serves, or all; in one that is for an address the port is zero.
    pub(super) remote: End,
    pub(super) port: u16,
    pub(super) address: AddressIndex,
    pub(super) host: u32,
    pub(super) created: Instant,
    /// Its end, unless another packet comes (for TCP the sessions' ones count).
    pub(super) deadline: Instant,
    /// First of its sessions.
    pub(super) sessions: u32,
    pub(super) session_count: u32,
    /// TCP sessions that the inside takes part in.
    pub(super) confirmed: u32,
    pub(super) kind: Kind,
}

impl Mapping {
    pub(super) fn place(&self) -> Place {
        Place { address: self.address, transport: self.inside.transport, port: self.port }
    }

    /// It ends by itself, without regard to sessions.
    fn is_timed(&self) -> bool {
        match self.kind {
            Kind::Static => false,
            Kind::Leased => true,
            Kind::Dynamic | Kind::Shared => self.inside.transport != Transport::Tcp,
        }
    }
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
    pub inside: SocketAddr,
    /// The outside endpoint.
    pub outside: SocketAddr,
    /// Where it comes from.
    pub kind: Kind,
    /// When it was made.
    pub created: Instant,
    /// Sessions.
    pub sessions: u32,
}

impl Table {
    pub(super) fn get(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(id.0)
    }

    pub(super) fn outside(&self, mapping: &Mapping) -> End {
        End { address: self.pool.address(mapping.address), port: mapping.port }
    }

    /// Makes the mapping for a packet from inside.
    pub(super) fn create(
        &mut self,
        now: Instant,
        inside: InsideEnd,
        remote: End,
    ) -> Result<MappingId, DropReason> {
        let key = self.remote_key(inside.transport, remote);
        if self.mappings.is_full() {
            return Err(DropReason::NatTableFull);
        }
        let (host, address) = self.charge(now, &inside).inspect_err(|_| {
            if let Some(host) = self.known_host(&inside) {
                self.forget_idle(host);
            }
        })?;
        let chosen = self.choose_end(now, &inside, address, key, remote);
        let (port, key, kind) = chosen.inspect_err(|_| self.discharge(host, inside.transport))?;
        let deadline = now + self.idle_time(inside.transport, remote.port);
        let mapping = Mapping {
            inside,
            remote: key,
            port,
            address,
            host,
            created: now,
            deadline,
            sessions: NONE,
            session_count: 0,
            confirmed: 0,
            kind,
        };
        self.enter(mapping)
    }

    /// An outside port for a new mapping, the remote end that it is for, and its kind.
    fn choose_end(
        &mut self,
        now: Instant,
        inside: &InsideEnd,
        address: AddressIndex,
        key: End,
        remote: End,
    ) -> Result<(u16, End, Kind), DropReason> {
        let transport = inside.transport;
        if !transport.has_ports() {
            let place = Place { address, transport, port: 0 };
            let taken = self.exceptional(place, key).is_some();
            let free = !taken && self.exceptional(place, End::ANY).is_none();
            return free.then_some((0, key, Kind::Dynamic)).ok_or(DropReason::NatAmbiguous);
        }
        // An endpoint with another remote end at its own mapping has a port of its own already.
        let displaced = self.by_inside(inside, key).is_some();
        if !displaced {
            let parity =
                self.policy.parity && matches!(transport, Transport::Udp | Transport::UdpLite);
            let wish = Wish { port: inside.port, parity };
            if let Some(port) = self.pool.take(now, address, transport, wish, &mut self.rng) {
                return Ok((port, key, Kind::Dynamic));
            }
        }
        let shared = self.may_share(transport).then(|| self.share(address, transport, remote));
        let port = shared.flatten().ok_or(DropReason::NatPortsExhausted)?;
        Ok((port, remote, Kind::Shared))
    }

    /// A port in use or at rest where nobody has this remote end.
    fn share(&mut self, address: AddressIndex, transport: Transport, remote: End) -> Option<u16> {
        (0..SHARE_ATTEMPTS).find_map(|_| {
            let port = self.pool.any_port(&mut self.rng);
            let place = Place { address, transport, port };
            let owner = self.pool.mapping(place).map(MappingId);
            let met = owner.is_some_and(|id| {
                let of_one = self
                    .get(id)
                    .is_some_and(|owner| owner.kind != Kind::Dynamic || !owner.remote.is_any());
                of_one || self.session(id, remote).is_some()
            });
            (!met && self.exceptional(place, remote).is_none()).then_some(port)
        })
    }

    /// Puts a mapping into all tables. Its host is charged and its port taken already.
    pub(super) fn enter(&mut self, mapping: Mapping) -> Result<MappingId, DropReason> {
        let id = self.mappings.insert(mapping).ok_or(DropReason::NatTableFull)?;
        self.by_inside.insert(self.inside_hash(&mapping.inside, mapping.remote), id);
        if self.is_exceptional(&mapping) {
            self.by_place.insert(self.seed.hash(place_words(mapping.place(), mapping.remote)), id);
        } else {
            self.pool.assign(mapping.place(), id);
        }
        if mapping.is_timed() {
            self.mapping_timers.schedule(id, mapping.deadline);
        }
        self.created += 1;
        if self.events.wanted() {
            self.events.push(NatEvent::Created(self.view(id, &mapping)));
        }
        Ok(MappingId(id))
    }

    /// True for one that the pool's arrays cannot hold.
    fn is_exceptional(&self, mapping: &Mapping) -> bool {
        mapping.kind == Kind::Shared || !self.is_ordinary(mapping.place())
    }

    pub(super) fn is_ordinary(&self, place: Place) -> bool {
        place.transport.has_ports() && self.pool.has_port(place.port)
    }

    /// How long a mapping lives by itself after a packet to or from a remote port.
    pub(super) fn idle_time(&self, transport: Transport, remote_port: u16) -> Duration {
        match transport {
            Transport::Tcp => self.timers.tcp_opening,
            Transport::Udp | Transport::UdpLite => {
                let special = self.timers.udp_ports.iter().find(|(port, _)| *port == remote_port);
                special.map_or(self.timers.udp, |(_, time)| *time)
            }
            Transport::Icmp => self.timers.icmp,
            Transport::Other(_) => self.timers.other,
        }
    }

    /// Ends a mapping with all its sessions; its port rests from now on.
    pub(super) fn remove(&mut self, now: Instant, id: MappingId) -> bool {
        let Some(&mapping) = self.mappings.get(id.0) else { return false };
        let mut session = mapping.sessions;
        while let Some(dropped) = self.drop_session(session) {
            session = dropped.next;
        }
        self.mappings.remove(id.0);
        self.by_inside.remove(self.inside_hash(&mapping.inside, mapping.remote), id.0);
        self.mapping_timers.cancel(id.0);
        if mapping.kind == Kind::Leased {
            self.leases.remove(&id.0);
        }
        if self.is_exceptional(&mapping) {
            let hash = self.seed.hash(place_words(mapping.place(), mapping.remote));
            self.by_place.remove(hash, id.0);
        } else {
            self.pool.release(now, mapping.place(), mapping.inside.realm);
        }
        self.discharge(mapping.host, mapping.inside.transport);
        self.expired += 1;
        if self.events.wanted() {
            self.events.push(NatEvent::Ended(self.view(id.0, &mapping)));
        }
        true
    }

    /// What is to be done when a mapping's own timer has fired.
    pub(super) fn on_deadline(&mut self, now: Instant, id: u32) {
        let Some(mapping) = self.mappings.get_mut(id) else { return };
        if mapping.deadline > now {
            self.mapping_timers.schedule(id, mapping.deadline);
        } else if mapping.inside.transport == Transport::Tcp && mapping.confirmed > 0 {
            // The lease is over, but not the connections.
            mapping.kind = Kind::Dynamic;
            self.leases.remove(&id);
        } else {
            self.remove(now, MappingId(id));
        }
    }

    pub(super) fn iter_from(&self, first: MappingId) -> impl Iterator<Item = MappingView> {
        self.mappings.iter_from(first.0).map(|(id, mapping)| self.view(id, mapping))
    }

    fn view(&self, id: u32, mapping: &Mapping) -> MappingView {
        MappingView {
            id: MappingId(id),
            transport: mapping.inside.transport,
            realm: mapping.inside.realm,
            inside: SocketAddr::new(narrow(mapping.inside.address), mapping.inside.port),
            outside: self.outside(mapping).socket(),
            kind: mapping.kind,
            created: mapping.created,
            sessions: mapping.session_count,
        }
    }
}
