//! The mapping that a packet belongs to.

use super::Transport;
use super::config::{Dependence, Reuse};
use super::end::{End, halves};
use super::mapping::{InsideEnd, MappingId};
use super::pool::Place;
use super::table::Table;

impl Table {
    /// The part of a remote end that mappings of a transport depend on.
    pub(super) fn remote_key(&self, transport: Transport, remote: End) -> End {
        depends(self.policy.of(transport).mapping, remote)
    }

    /// The mapping of an inside endpoint for exactly this remote key.
    pub(super) fn by_inside(&self, inside: &InsideEnd, remote: End) -> Option<MappingId> {
        let mappings = &self.mappings;
        self.by_inside
            .find(self.inside_hash(inside, remote), |id| {
                mappings.get(id).is_some_and(|m| m.inside == *inside && m.remote == remote)
            })
            .map(MappingId)
    }

    /// The mapping that a packet from inside belongs to.
    pub(super) fn for_inside(&self, inside: &InsideEnd, remote: End) -> Option<MappingId> {
        let remote = inside.transport.remote(remote);
        let key = self.remote_key(inside.transport, remote);
        if self.opened > 0
            && !key.is_any()
            && let Some(opened) = self.by_inside(inside, End::ANY)
        {
            return Some(opened);
        }
        if !self.may_share(inside.transport) || self.by_place.is_empty() {
            return self.by_inside(inside, key);
        }
        // Where another host has this remote end at the same outside endpoint, this one cannot.
        let own = |id: &MappingId| {
            let taken = self.get(*id).map(|m| self.exceptional(m.place(), remote));
            taken.flatten().is_none_or(|other| other == *id)
        };
        self.by_inside(inside, remote).or_else(|| self.by_inside(inside, key).filter(own))
    }

    /// The mapping that a packet from outside belongs to.
    pub(super) fn by_outside(
        &self,
        transport: Transport,
        outside: End,
        remote: End,
    ) -> Option<MappingId> {
        let address = self.pool.index_of(outside.address)?;
        let place = Place { address, transport, port: outside.port };
        let remote = transport.remote(remote);
        if !self.by_place.is_empty() {
            let exceptional = if !transport.has_ports() {
                self.exceptional(place, remote).or_else(|| self.exceptional(place, End::ANY))
            } else if !self.pool.has_port(place.port) {
                self.exceptional(place, End::ANY)
            } else if self.may_share(transport) {
                self.exceptional(place, remote)
            } else {
                None
            };
            if exceptional.is_some() {
                return exceptional;
            }
        }
        self.pool.mapping(place).map(MappingId)
    }

    /// The mapping that has an outside endpoint for one remote end, or beyond the pool's ports.
    pub(super) fn exceptional(&self, place: Place, remote: End) -> Option<MappingId> {
        let mappings = &self.mappings;
        let hash = self.seed.hash(place_words(place, remote));
        let is = |id| mappings.get(id).is_some_and(|m| m.place() == place && m.remote == remote);
        self.by_place.find(hash, is).map(MappingId)
    }

    pub(super) fn may_share(&self, transport: Transport) -> bool {
        transport == Transport::Tcp && self.policy.reuse == Reuse::WhenFull
    }

    pub(super) fn inside_hash(&self, inside: &InsideEnd, remote: End) -> u64 {
        let [a, b, c] = inside.words();
        if remote.is_any() {
            return self.seed.hash([a, b, c]);
        }
        let [d, e] = halves(remote.address);
        self.seed.hash([a, b, c, d, e, u64::from(remote.port)])
    }
}

/// What is left of a remote end when only this much of it counts.
pub(super) const fn depends(on: Dependence, remote: End) -> End {
    match on {
        Dependence::EndpointIndependent => End::ANY,
        Dependence::Address => End { port: 0, ..remote },
        Dependence::AddressAndPort => remote,
    }
}

/// What a place with a remote end is found by.
pub(super) fn place_words(place: Place, remote: End) -> [u64; 4] {
    let [high, low] = halves(remote.address);
    let Place { address, transport, port } = place;
    let place = u64::from(address.0) << 32 | u64::from(port) << 16 | u64::from(transport.code());
    [place, high, low, u64::from(remote.port)]
}
