//! Outside addresses and their ports: who has which, and which ones rest.
//!
//! Each address has a port space for each transport, made when it is first used: a bitmap of the
//! ports that are taken, and the mapping that has each. So the look-up of an inbound packet is an
//! array access that no sender can slow down. A freed port stays taken, without a mapping, until
//! its quarantine is over.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::Transport;
use crate::rng::Rng;
use crate::time::Instant;

/// No mapping has this port.
const NOBODY: u32 = u32::MAX;
const MAX_ADDRESSES: u32 = 1 << 16;
/// Addresses that are looked at for a new host when two random ones were full.
const SEARCH_MAX: u32 = 256;
/// Ports whose quarantine is ended for each new one that is asked for.
const WAKE_BATCH: usize = 64;
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// Position of an address in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressIndex(u16);

/// A port with its address and transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: AddressIndex,
    pub(super) transport: Transport,
    pub(super) port: u16,
}

#[derive(Debug)]
struct Prefix {
    base: u32,
    size: u32,
    /// Position of its first address.
    first: u32,
}

/// The ports of one address for one transport.
#[derive(Debug)]
struct PortSpace {
    taken: Box<[u64]>,
    mappings: Box<[u32]>,
    used: u32,
}

impl PortSpace {
    fn new(ports: u32) -> Self {
        let mut taken = vec![0; ports.div_ceil(64) as usize];
        if let (Some(last), tail @ 1..) = (taken.last_mut(), ports % 64) {
            *last = u64::MAX << tail;
        }
        Self {
            taken: taken.into_boxed_slice(),
            mappings: vec![NOBODY; ports as usize].into_boxed_slice(),
            used: 0,
        }
    }

    /// The first free position from `start` on, around the end, among those in `mask` of each word.
    fn next_free(&self, start: u32, mask: u64) -> Option<u32> {
        let words = self.taken.len();
        let first = start as usize / 64;
        for step in 0..=words {
            let at = (first + step) % words;
            let mut free = !self.taken[at] & mask;
            if step == 0 {
                free &= u64::MAX << (start % 64);
            }
            if free != 0 {
                return Some(at as u32 * 64 + free.trailing_zeros());
            }
        }
        None
    }
}

/// All outside endpoints.
#[derive(Debug)]
pub(super) struct Pool {
    prefixes: Vec<Prefix>,
    addresses: u32,
    first_port: u16,
    ports: u32,
    spaces: Vec<Option<PortSpace>>,
    /// Ports in quarantine with its end, in the order of ending: all rest equally long.
    resting: VecDeque<(Instant, Place)>,
    quarantine: Duration,
    used: u64,
}

impl Pool {
    pub(super) fn new(
        networks: &[Ipv4Net],
        ports: &RangeInclusive<u16>,
        quarantine: Duration,
    ) -> Self {
        let mut prefixes = Vec::new();
        let mut addresses = 0;
        for network in Ipv4Net::aggregate(&networks.to_vec()) {
            let whole = 1u64 << (32 - network.prefix_len());
            let size = whole.min(u64::from(MAX_ADDRESSES - addresses)) as u32;
            prefixes.push(Prefix { base: network.network().to_bits(), size, first: addresses });
            addresses += size;
        }
        let ports_count = u32::from(*ports.end()).saturating_sub(u32::from(*ports.start())) + 1;
        let spaces = (0..addresses as usize * Transport::COUNT).map(|_| None).collect();
        Self {
            prefixes,
            addresses,
            first_port: *ports.start(),
            ports: if ports.is_empty() { 0 } else { ports_count },
            spaces,
            resting: VecDeque::new(),
            quarantine,
            used: 0,
        }
    }

    /// Ports of all addresses and transports.
    pub(super) fn total(&self) -> u64 {
        u64::from(self.addresses) * u64::from(self.ports) * Transport::COUNT as u64
    }

    /// Ports that a mapping has or that rest.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn index_of(&self, address: Ipv4Addr) -> Option<AddressIndex> {
        let bits = address.to_bits();
        self.prefixes.iter().find_map(|prefix| {
            let offset = bits.wrapping_sub(prefix.base);
            (offset < prefix.size).then(|| AddressIndex((prefix.first + offset) as u16))
        })
    }

    pub(super) fn address(&self, index: AddressIndex) -> Ipv4Addr {
        let index = u32::from(index.0);
        let prefix = self.prefixes.iter().rfind(|prefix| prefix.first <= index);
        prefix.map_or(Ipv4Addr::UNSPECIFIED, |p| (p.base + (index - p.first)).into())
    }

    /// An address for a host that has none: the emptier of two random ones.
    pub(super) fn choose(&mut self, transport: Transport, rng: &mut Rng) -> Option<AddressIndex> {
        let mut best: Option<(u32, u32)> = None;
        for _ in 0..2 {
            let candidate = rng.below(self.addresses);
            let used = self.used_at(candidate, transport)?;
            if best.is_none_or(|(_, least)| used < least) {
                best = Some((candidate, used));
            }
        }
        let (first, _) = best?;
        (0..self.addresses.min(SEARCH_MAX))
            .map(|step| (first + step) % self.addresses)
            .find(|&at| self.used_at(at, transport).is_some_and(|used| used < self.ports))
            .map(|at| AddressIndex(at as u16))
    }

    fn used_at(&self, address: u32, transport: Transport) -> Option<u32> {
        let at = address as usize * Transport::COUNT + transport.index();
        self.spaces.get(at).map(|space| space.as_ref().map_or(0, |space| space.used))
    }

    /// Gives `mapping` a random free port of the address (RFC 6056 section 3.3.1), of the wanted
    /// parity if one is left.
    pub(super) fn take(
        &mut self,
        now: Instant,
        address: AddressIndex,
        transport: Transport,
        parity: Option<u16>,
        rng: &mut Rng,
    ) -> Option<u16> {
        self.wake(now, WAKE_BATCH);
        if self.used_at(u32::from(address.0), transport)? >= self.ports {
            self.wake(now, usize::MAX);
        }
        let (first_port, ports) = (self.first_port, self.ports);
        let start = rng.below(ports);
        let space = self.spaces.get_mut(space_at(address, transport))?;
        let space = space.get_or_insert_with(|| PortSpace::new(ports));
        if space.used >= ports {
            return None;
        }
        let even_positions = 0x5555_5555_5555_5555;
        let wanted = match parity {
            Some(parity) if parity & 1 == first_port & 1 => even_positions,
            Some(_) => !even_positions,
            None => u64::MAX,
        };
        let position =
            space.next_free(start, wanted).or_else(|| space.next_free(start, u64::MAX))?;
        space.taken[position as usize / 64] |= 1 << (position % 64);
        space.used += 1;
        self.used += 1;
        Some(first_port + position as u16)
    }

    /// Says which mapping a taken port belongs to.
    pub(super) fn assign(&mut self, place: Place, mapping: u32) {
        let position = self.position(place.port);
        if let (Some(position), Some(space)) = (position, self.space_mut(place)) {
            space.mappings[position as usize] = mapping;
        }
    }

    /// The mapping that has this port.
    pub(super) fn mapping(&self, place: Place) -> Option<u32> {
        let space = self.spaces.get(space_at(place.address, place.transport))?.as_ref()?;
        let mapping = *space.mappings.get(self.position(place.port)? as usize)?;
        (mapping != NOBODY).then_some(mapping)
    }

    /// Takes the port from its mapping; it rests before it is free again.
    pub(super) fn release(&mut self, now: Instant, place: Place) {
        self.assign(place, NOBODY);
        self.resting.push_back((now + self.quarantine, place));
    }

    /// Ends the quarantine of up to `most` ports whose time has come.
    pub(super) fn wake(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(&(_, place)) = self.resting.front().filter(|(until, _)| *until <= now) else {
                return;
            };
            self.resting.pop_front();
            let position = self.position(place.port);
            if let (Some(position), Some(space)) = (position, self.space_mut(place)) {
                space.taken[position as usize / 64] &= !(1 << (position % 64));
                space.used -= 1;
                self.used -= 1;
            }
        }
    }

    /// When [`Pool::wake`] should be called: a little late, so that it finds many.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resting.front().map(|(until, _)| *until + WAKE_INTERVAL)
    }

    fn position(&self, port: u16) -> Option<u32> {
        let position = u32::from(port).checked_sub(u32::from(self.first_port))?;
        (position < self.ports).then_some(position)
    }

    fn space_mut(&mut self, place: Place) -> Option<&mut PortSpace> {
        self.spaces.get_mut(space_at(place.address, place.transport))?.as_mut()
    }
}

fn space_at(address: AddressIndex, transport: Transport) -> usize {
    usize::from(address.0) * Transport::COUNT + transport.index()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(120);

    fn pool(networks: &[&str], ports: RangeInclusive<u16>) -> Pool {
        let networks: Vec<_> = networks.iter().map(|n| n.parse().unwrap()).collect();
        Pool::new(&networks, &ports, QUARANTINE)
    }

    #[test]
    fn addresses_of_scattered_and_overlapping_prefixes_are_numbered_once() {
        let pool = pool(&["198.51.100.8/30", "192.0.2.1/32", "198.51.100.9/32"], 1024..=1033);
        assert_eq!(pool.total(), 5 * 10 * Transport::COUNT as u64);
        for text in ["192.0.2.1", "198.51.100.8", "198.51.100.11"] {
            let address = text.parse().unwrap();
            assert_eq!(pool.address(pool.index_of(address).unwrap()), address);
        }
        for text in ["192.0.2.0", "192.0.2.2", "198.51.100.7", "198.51.100.12"] {
            assert_eq!(pool.index_of(text.parse().unwrap()), None);
        }
    }

    #[test]
    fn every_port_is_given_once_with_its_parity_as_long_as_there_is_one() {
        // An odd first port and a range that is no multiple of a word.
        let mut pool = pool(&["192.0.2.1/32"], 1025..=1024 + 101);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(Transport::Udp, &mut rng).unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..101 {
            let port =
                pool.take(Instant::ZERO, address, Transport::Udp, Some(4), &mut rng).unwrap();
            assert!((1025..=1125).contains(&port));
            assert!(seen.insert(port));
            assert_eq!(port.is_multiple_of(2), n < 50, "50 even ports, then the odd ones");
        }
        assert_eq!(pool.take(Instant::ZERO, address, Transport::Udp, None, &mut rng), None);
        assert_eq!(pool.choose(Transport::Udp, &mut rng), None);
        assert!(pool.take(Instant::ZERO, address, Transport::Tcp, None, &mut rng).is_some());
    }

    #[test]
    fn a_freed_port_rests() {
        let mut pool = pool(&["192.0.2.1/32"], 5000..=5000);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(Transport::Tcp, &mut rng).unwrap();
        let mut take =
            |pool: &mut Pool, now| pool.take(now, address, Transport::Tcp, None, &mut rng);
        let place = Place { address, transport: Transport::Tcp, port: 5000 };
        assert_eq!(take(&mut pool, Instant::ZERO), Some(5000));
        pool.assign(place, 7);
        assert_eq!(pool.mapping(place), Some(7));
        pool.release(Instant::ZERO, place);
        assert_eq!(pool.mapping(place), None);
        assert_eq!(pool.used(), 1);
        let end = Instant::ZERO + QUARANTINE;
        assert_eq!(take(&mut pool, Instant::from_micros(end.as_micros() - 1)), None);
        assert_eq!(take(&mut pool, end), Some(5000));
    }

    #[test]
    fn ports_outside_the_range_belong_to_nobody() {
        let pool = pool(&["192.0.2.1/32"], 5000..=5001);
        let address = pool.index_of("192.0.2.1".parse().unwrap()).unwrap();
        for port in [0, 4999, 5000, 5002, u16::MAX] {
            assert_eq!(pool.mapping(Place { address, transport: Transport::Icmp, port }), None);
        }
    }

    #[test]
    fn an_empty_pool_or_range_gives_nothing() {
        let mut rng = Rng::new([1; 32]);
        assert_eq!(pool(&[], 5000..=5001).choose(Transport::Tcp, &mut rng), None);
        #[expect(clippy::reversed_empty_ranges, reason = "it is the empty range that is tested")]
        let mut pool = pool(&["192.0.2.1/32"], 9..=8);
        assert_eq!(pool.choose(Transport::Tcp, &mut rng), None);
        assert_eq!(pool.total(), 0);
    }

    #[test]
    fn ports_are_spread_over_the_range() {
        let mut pool = pool(&["192.0.2.1/32"], 40_000..=59_999);
        let mut rng = Rng::new([9; 32]);
        let address = pool.choose(Transport::Udp, &mut rng).unwrap();
        let ports: Vec<_> = (0..400)
            .filter_map(|_| pool.take(Instant::ZERO, address, Transport::Udp, None, &mut rng))
            .collect();
        for quarter in 0..4 {
            let range = 40_000 + quarter * 5_000..45_000 + quarter * 5_000;
            let hits = ports.iter().filter(|port| range.contains(*port)).count();
            assert!((60..=140).contains(&hits), "{hits} of 400 in a quarter");
        }
        let next_to = ports.windows(2).filter(|w| w[1] == w[0].wrapping_add(1)).count();
        assert!(next_to < 5, "{next_to} ports can be guessed from the one before");
    }
}
