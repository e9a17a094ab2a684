//! Which fragmented answers of our exits were admitted: only a first fragment has the ports by which
//! its flow is known; the others follow it.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::PeerIndex;
use crate::packet::Headers;
use crate::time::Instant;

/// Packets that are remembered; the oldest gives way.
const PLACES: usize = 64;
/// How long the fragments of one packet may lie apart.
const LIFETIME: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    peer: PeerIndex,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// The admitted first fragments.
#[derive(Debug, Default)]
pub(super) struct ExitFragments {
    places: Vec<(Key, Instant)>,
    next: usize,
}

impl ExitFragments {
    pub(super) fn new() -> Self {
        Self { places: Vec::with_capacity(PLACES), next: 0 }
    }

    /// A first fragment that was admitted.
    pub(super) fn remember(&mut self, now: Instant, peer: PeerIndex, headers: &Headers) {
        let Some(key) = key(peer, headers) else { return };
        let entry = (key, now + LIFETIME);
        if self.places.len() < PLACES {
            self.places.push(entry);
        } else {
            self.places[self.next] = entry;
            self.next = (self.next + 1) % PLACES;
        }
    }

    /// Whether a later fragment belongs to one of them.
    pub(super) fn knows(&self, now: Instant, peer: PeerIndex, headers: &Headers) -> bool {
        let Some(key) = key(peer, headers) else { return false };
        self.places.iter().any(|(known, until)| *known == key && now < *until)
    }
}

fn key(peer: PeerIndex, headers: &Headers) -> Option<Key> {
    let Headers { source, destination, protocol, .. } = *headers;
    Some(Key { peer, source, destination, protocol, id: headers.fragment?.id })
}
