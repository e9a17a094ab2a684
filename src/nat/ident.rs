//! Identifications of IPv4 packets that can be taken apart.

use std::net::Ipv6Addr;

use super::end::halves;
use crate::rng::Rng;
use crate::table::HashSeed;

const COUNTERS: usize = 1024;

/// Counters, one for many triples of source, destination and protocol. Each triple's own packets get
/// different numbers until its counter has gone round, and nobody can tell from one triple's numbers
/// what is sent to another destination (RFC 7739 section 5.3 argues the same for IPv6).
#[derive(Debug)]
pub(super) struct Identifications {
    counters: Box<[u16]>,
    seed: HashSeed,
}

impl Identifications {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let counters = (0..COUNTERS).map(|_| rng.next_u32() as u16).collect();
        Self { counters, seed: HashSeed::new(rng) }
    }

    /// The first of as many numbers in a row as there are packets.
    pub(super) fn next(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        packets: u16,
    ) -> u16 {
        let [_, source] = halves(source);
        let [_, destination] = halves(destination);
        let hash = self.seed.hash([source, destination, protocol.into()]);
        let counter = &mut self.counters[hash as usize % COUNTERS];
        let first = *counter;
        *counter = first.wrapping_add(packets);
        first
    }
}
