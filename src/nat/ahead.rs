//! Looking up the packets of a turn together.
//!
//! With a million mappings, what a packet needs lies where no cache has it: its place in the index,
//! the mapping, the session of a TCP connection, each known only from the one before. While the
//! processor waits for those of one packet it can fetch those of others, if nothing it does depends on
//! them. So all packets' places in the index (from outside: in the port spaces) are read first, then
//! all mappings, then all sessions; the look-up itself finds everything close by.

use std::hint::black_box;

use super::mapping::{InsideEnd, Mapping};
use super::pool::Place;
use super::session::{NONE, Session};
use super::table::Table;
use super::translate::ends;
use super::{Nat, Realm, Transport};
use crate::packet::{Headers, IcmpKind};

/// So many mappings fit into caches anyway.
const CACHED: usize = 10_000;

impl Nat {
    /// Most packets of one look ahead.
    pub const AHEAD_MAX: usize = 64;

    /// True when a look ahead saves time.
    pub fn is_large(&self) -> bool {
        self.table.mappings.len() > CACHED
    }

    /// Brings what packets need that [`Nat::outbound`] is about to be given into the caches, of at most
    /// [`Self::AHEAD_MAX`]. Changes nothing. Returns how many of them seem to have mappings.
    pub fn look_ahead<'h>(&self, packets: impl Iterator<Item = (Realm, &'h Headers)>) -> usize {
        let mut hashes = [0; Self::AHEAD_MAX];
        let mut count = 0;
        let known = packets.filter_map(|(realm, headers)| self.table.hash_ahead(realm, headers));
        for (place, hash) in hashes.iter_mut().zip(known) {
            *place = hash;
            count += 1;
        }
        self.table.fetch_by_inside(&hashes[..count])
    }

    /// The same for packets that [`Nat::inbound`] is about to be given.
    pub fn look_ahead_inbound(&self, packets: impl Iterator<Item = Headers>) -> usize {
        let mut ids = [NONE; Self::AHEAD_MAX];
        let known = packets.filter_map(|headers| self.table.place_ahead(&headers));
        for (id, place) in ids.iter_mut().zip(known) {
            *id = self.table.pool.mapping(place).unwrap_or(NONE);
        }
        self.table.fetch(&mut ids)
    }
}

impl Table {
    /// What a packet from inside is found by, if it is one that has a mapping of its own.
    fn hash_ahead(&self, realm: Realm, headers: &Headers) -> Option<u64> {
        if headers.is_later_fragment() {
            return None;
        }
        let transport = Transport::of(headers, IcmpKind::Query)?;
        let (source, remote) = ends(headers);
        let inside = InsideEnd::new(transport, realm, source, &remote);
        let key = self.remote_key(transport, transport.remote(remote));
        Some(self.inside_hash(&inside, key))
    }

    /// What a packet from outside is found by, in nearly all cases.
    fn place_ahead(&self, headers: &Headers) -> Option<Place> {
        if headers.is_later_fragment() {
            return None;
        }
        let transport = Transport::of(headers, IcmpKind::Reply)?;
        let (_, outside) = ends(headers);
        let address = self.pool.index_of(outside.address)?;
        Some(Place { address, transport, port: outside.port })
    }

    fn fetch_by_inside(&self, hashes: &[u64]) -> usize {
        black_box(hashes.iter().fold(0, |all, &hash| all ^ self.by_inside.peek(hash)));
        let mut ids = [NONE; Nat::AHEAD_MAX];
        for (id, &hash) in ids.iter_mut().zip(hashes) {
            *id = self.by_inside.find(hash, |_| true).unwrap_or(NONE);
        }
        self.fetch(&mut ids)
    }

    /// Reads the mappings, then the newest session of each.
    fn fetch(&self, ids: &mut [u32; Nat::AHEAD_MAX]) -> usize {
        let read = ids.iter().filter_map(|&id| self.mappings.get(id).map(Mapping::read));
        black_box(read.fold(0, |all, bits| all ^ bits));
        let mut found = 0;
        for id in ids.iter_mut() {
            let mapping = self.mappings.get(*id);
            found += usize::from(mapping.is_some());
            *id = mapping.map_or(NONE, |mapping| mapping.sessions);
        }
        let read = ids.iter().filter_map(|&id| self.sessions.get(id).map(Session::read));
        black_box(read.fold(0, |all, bits| all ^ bits));
        found
    }
}

impl Mapping {
    /// Something of both its ends.
    fn read(&self) -> u64 {
        self.created.as_micros() ^ u64::from(self.remote.port) ^ self.kind as u64
    }
}

impl Session {
    /// Something of both its ends.
    fn read(&self) -> u64 {
        self.active.as_micros() ^ u64::from(self.remote.port) ^ u64::from(self.confirmed)
    }
}
