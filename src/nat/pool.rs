//! Outside addresses and their ports: who has which, and which ones rest.
//!
//! Each address has a port space for each transport, made when it is first used: a bitmap of the
//! ports that are taken, and the mapping that has each. So the look-up of an inbound packet is an
//! array access that no sender can slow down. A freed port stays taken, without a mapping, until
//! its quarantine is over.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::end::wide;
use super::realms::Realms;
use super::space::{NOBODY, PortSpace};
use super::{Realm, Transport};
use crate::rng::Rng;
use crate::time::Instant;

const MAX_ADDRESSES: u32 = 1 << 16;
/// Of one IPv6 network, so that a port space is not made for each host of its own.
const MAX_ADDRESSES_V6: u128 = 256;
/// Below are the well-known ports, a class of their own (RFC 4787 REQ-3 a).
const CLASS_LIMIT: u16 = 1024;
/// Addresses that are looked at for a new host when two random ones were full.
const SEARCH_MAX: u32 = 256;
/// Ports whose quarantine is ended for each new one that is asked for.
const WAKE_BATCH: usize = 64;
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// Position of an address in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressIndex(pub(super) u16);

/// A port with its address and transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: AddressIndex,
    pub(super) transport: Transport,
    pub(super) port: u16,
}

/// What a port should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// That of the inside port, whose class it gets.
    pub(super) port: u16,
    /// And its parity.
    pub(super) parity: bool,
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    base: u128,
    size: u32,
    /// Position of its first address.
    first: u32,
}

impl Prefix {
    fn holds(&self, index: AddressIndex) -> bool {
        u32::from(index.0).wrapping_sub(self.first) < self.size
    }
}

/// The networks that lie in no other. Those that adjoin are not joined, because each of them has its
/// own share of addresses.
fn outermost(mut nets: Vec<Ipv6Net>) -> Vec<Ipv6Net> {
    nets.sort_unstable_by_key(|net| (net.network(), net.prefix_len()));
    nets.dedup_by(|later, kept| kept.contains(&*later));
    nets
}

/// All outside endpoints.
#[derive(Debug)]
pub(super) struct Pool {
    prefixes: Vec<Prefix>,
    /// All addresses; those of IPv4 come first.
    addresses: u32,
    addresses_v4: u32,
    first_port: u16,
    ports: u32,
    spaces: Vec<Option<PortSpace>>,
    /// Ports in quarantine with its end, in the order of ending: all rest equally long.
    resting: VecDeque<(Instant, Place, Realm)>,
    /// How many of them are there after whom.
    pub(super) resting_of: Realms,
    quarantine: Duration,
    used: u64,
    /// Addresses that get no new hosts for now.
    closed: Vec<bool>,
}

impl Pool {
    pub(super) fn new(
        networks: &[IpNet],
        ports: &RangeInclusive<u16>,
        quarantine: Duration,
        resting: usize,
    ) -> Self {
        let of_v4 = |net: &IpNet| if let IpNet::V4(net) = net { Some(*net) } else { None };
        let of_v6 = |net: &IpNet| if let IpNet::V6(net) = net { Some(*net) } else { None };
        let v4: Vec<Ipv4Net> = networks.iter().filter_map(of_v4).collect();
        let v6: Vec<Ipv6Net> = networks.iter().filter_map(of_v6).collect();
        let mut prefixes = Vec::new();
        let mut addresses = 0;
        let mut add = |base: Ipv6Addr, size: u128| {
            let size = size.min(u128::from(MAX_ADDRESSES - addresses)) as u32;
            prefixes.push(Prefix { base: base.to_bits(), size, first: addresses });
            addresses += size;
            addresses
        };
        let mut addresses_v4 = 0;
        for net in Ipv4Net::aggregate(&v4) {
            addresses_v4 = add(wide(net.network().into()), 1 << (32 - net.prefix_len()));
        }
        for net in outermost(v6) {
            let bits = 128 - u32::from(net.prefix_len());
            let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
            add(net.network(), size.min(MAX_ADDRESSES_V6));
        }
        let ports_count = u32::from(*ports.end()).saturating_sub(u32::from(*ports.start())) + 1;
        let spaces = (0..addresses as usize * Transport::WITH_PORTS).map(|_| None).collect();
        Self {
            prefixes,
            addresses,
            addresses_v4,
            first_port: *ports.start(),
            ports: if ports.is_empty() { 0 } else { ports_count },
            spaces,
            resting: VecDeque::with_capacity(resting),
            resting_of: Realms::new(),
            quarantine,
            used: 0,
            closed: vec![false; addresses as usize],
        }
    }

    /// Gives an address of the pool another name. False when it is not in the pool, or the new one
    /// is already.
    pub(super) fn rename(&mut self, old: Ipv6Addr, new: Ipv6Addr) -> bool {
        let Some(index) = self.index_of(old) else { return false };
        if self.index_of(new).is_some() {
            return old == new;
        }
        let Some(at) = self.prefixes.iter().position(|prefix| prefix.holds(index)) else {
            return false;
        };
        let whole = self.prefixes.remove(at);
        let before = u32::from(index.0) - whole.first;
        let parts = [
            Prefix { size: before, ..whole },
            Prefix { base: new.to_bits(), size: 1, first: whole.first + before },
            Prefix {
                base: whole.base + u128::from(before) + 1,
                size: whole.size - before - 1,
                first: whole.first + before + 1,
            },
        ];
        self.prefixes.splice(at..at, parts.into_iter().filter(|part| part.size > 0));
        true
    }

    /// Whether new hosts may get the address.
    pub(super) fn set_open(&mut self, index: AddressIndex, open: bool) {
        if let Some(closed) = self.closed.get_mut(usize::from(index.0)) {
            *closed = !open;
        }
    }

    /// Whether new hosts may get the address.
    pub(super) fn is_open(&self, index: AddressIndex) -> bool {
        !self.closed.get(usize::from(index.0)).copied().unwrap_or(false)
    }

    /// Ports of all addresses and transports.
    pub(super) fn total(&self) -> u64 {
        u64::from(self.addresses) * u64::from(self.ports) * Transport::WITH_PORTS as u64
    }

    /// Ports of all addresses of a family, for one transport.
    pub(super) fn ports_of(&self, v4: bool) -> u64 {
        self.family(v4).len() as u64 * u64::from(self.ports)
    }

    /// Ports that a mapping has or that rest.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn index_of(&self, address: Ipv6Addr) -> Option<AddressIndex> {
        let bits = address.to_bits();
        self.prefixes.iter().find_map(|prefix| {
            let offset = bits.wrapping_sub(prefix.base);
            let inside = offset < u128::from(prefix.size);
            inside.then(|| AddressIndex((prefix.first + offset as u32) as u16))
        })
    }

    pub(super) fn address(&self, index: AddressIndex) -> Ipv6Addr {
        let index = u32::from(index.0);
        let prefix = self.prefixes.iter().rfind(|prefix| prefix.first <= index);
        let bits = |p: &Prefix| Ipv6Addr::from_bits(p.base + u128::from(index - p.first));
        prefix.map_or(Ipv6Addr::UNSPECIFIED, bits)
    }

    /// The first address of a family.
    pub(super) fn first_address(&self, v4: bool) -> Option<AddressIndex> {
        let range = self.family(v4);
        (!range.is_empty()).then_some(AddressIndex(range.start as u16))
    }

    fn is_v4(&self, address: AddressIndex) -> bool {
        u32::from(address.0) < self.addresses_v4
    }

    fn family(&self, v4: bool) -> Range<u32> {
        if v4 { 0..self.addresses_v4 } else { self.addresses_v4..self.addresses }
    }

    /// An address of a family for a host that has none: the emptier of two random ones. If all that
    /// were looked at are full, one of them all the same with `or_full`.
    pub(super) fn choose(
        &mut self,
        v4: bool,
        transport: Transport,
        or_full: bool,
        rng: &mut Rng,
    ) -> Option<AddressIndex> {
        let family = self.family(v4);
        let count = family.end - family.start;
        let mut best: Option<(u32, u32)> = None;
        for _ in 0..2 {
            let candidate = rng.below(count);
            let used = self.used_at(family.start + candidate, transport)?;
            if best.is_none_or(|(_, least)| used < least) {
                best = Some((candidate, used));
            }
        }
        let (first, _) = best?;
        let may_be_had = |at: u32| {
            self.is_open(AddressIndex(at as u16))
                && self.used_at(at, transport).is_some_and(|used| used < self.ports)
        };
        let with_room = (0..count.min(SEARCH_MAX))
            .map(|step| family.start + (first + step) % count)
            .find(|&at| may_be_had(at));
        let full = (or_full && count > 0).then_some(family.start + first);
        with_room.or(full).map(|at| AddressIndex(at as u16))
    }

    /// Ports taken at an address; of a protocol without ports none ever is.
    fn used_at(&self, address: u32, transport: Transport) -> Option<u32> {
        if address >= self.addresses {
            return None;
        }
        let Some(kind) = transport.index() else { return (self.ports > 0).then_some(0) };
        let at = address as usize * Transport::WITH_PORTS + kind;
        self.spaces.get(at).map(|space| space.as_ref().map_or(0, |space| space.used))
    }

    /// Takes a random free port of the address (RFC 6056 section 3.3.1), of the wished class, and of
    /// the wished parity if one is left.
    pub(super) fn take(
        &mut self,
        now: Instant,
        address: AddressIndex,
        transport: Transport,
        wish: Wish,
        rng: &mut Rng,
    ) -> Option<u16> {
        self.wake(now, WAKE_BATCH);
        if self.used_at(u32::from(address.0), transport)? >= self.ports {
            self.wake(now, usize::MAX);
        }
        let range = self.class_of(wish.port);
        let start = range.start + rng.below(range.end - range.start);
        let (first_port, ports) = (self.first_port, self.ports);
        let space = self.spaces.get_mut(space_at(address, transport)?)?;
        let space = space.get_or_insert_with(|| PortSpace::new(ports));
        if space.used >= ports {
            return None;
        }
        let even_positions = 0x5555_5555_5555_5555;
        let wanted = match wish.parity {
            true if wish.port & 1 == first_port & 1 => even_positions,
            true => !even_positions,
            false => u64::MAX,
        };
        let of_parity = space.next_free(start, &range, wanted);
        let position = of_parity
            .or_else(|| space.next_free(start, &range, u64::MAX))
            // A host with a well-known port would rather have any than none.
            .or_else(|| space.next_free(range.end, &(range.end..ports), u64::MAX))?;
        space.set(position);
        self.used += 1;
        Some(first_port + position as u16)
    }

    /// The positions of the class of a port; all when there are none.
    fn class_of(&self, port: u16) -> Range<u32> {
        let limit = u32::from(CLASS_LIMIT.saturating_sub(self.first_port)).min(self.ports);
        let class = if port < CLASS_LIMIT { 0..limit } else { limit..self.ports };
        if class.is_empty() { 0..self.ports } else { class }
    }

    /// Takes one port for good, if it is free. A port outside the range is nobody's to take.
    pub(super) fn reserve(&mut self, place: Place) -> bool {
        let (position, ports) = (self.position(place.port), self.ports);
        let space = space_at(place.address, place.transport).and_then(|at| self.spaces.get_mut(at));
        let (Some(position), Some(space)) = (position, space) else { return false };
        let space = space.get_or_insert_with(|| PortSpace::new(ports));
        if space.is_taken(position) {
            return false;
        }
        space.set(position);
        self.used += 1;
        true
    }

    /// A random port of the range, taken or not.
    pub(super) fn any_port(&self, rng: &mut Rng) -> u16 {
        self.first_port + rng.below(self.ports) as u16
    }

    /// Whether the port is one that hosts get.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.position(port).is_some()
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
        let space = self.spaces.get(space_at(place.address, place.transport)?)?.as_ref()?;
        let mapping = *space.mappings.get(self.position(place.port)? as usize)?;
        (mapping != NOBODY).then_some(mapping)
    }

    /// Takes the port from its mapping; it rests before it is free again.
    pub(super) fn release(&mut self, now: Instant, place: Place, realm: Realm) {
        self.assign(place, NOBODY);
        self.resting.push_back((now + self.quarantine, place, realm));
        self.resting_of.add(realm, place.transport, self.is_v4(place.address));
    }

    /// Ends the quarantine of up to `most` ports whose time has come.
    pub(super) fn wake(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let due = self.resting.front().filter(|(until, _, _)| *until <= now);
            let Some(&(_, place, realm)) = due else { return };
            self.resting.pop_front();
            self.resting_of.take_off(realm, place.transport, self.is_v4(place.address));
            let position = self.position(place.port);
            if let (Some(position), Some(space)) = (position, self.space_mut(place)) {
                space.clear(position);
                self.used -= 1;
            }
        }
    }

    /// When [`Pool::wake`] should be called: a little late, so that it finds many.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resting.front().map(|(until, _, _)| *until + WAKE_INTERVAL)
    }

    fn position(&self, port: u16) -> Option<u32> {
        let position = u32::from(port).checked_sub(u32::from(self.first_port))?;
        (position < self.ports).then_some(position)
    }

    fn space_mut(&mut self, place: Place) -> Option<&mut PortSpace> {
        self.spaces.get_mut(space_at(place.address, place.transport)?)?.as_mut()
    }
}

fn space_at(address: AddressIndex, transport: Transport) -> Option<usize> {
    Some(usize::from(address.0) * Transport::WITH_PORTS + transport.index()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ANY: Wish = Wish { port: 5_000, parity: false };
    const EVEN: Wish = Wish { port: 5_000, parity: true };
    const QUARANTINE: Duration = Duration::from_secs(120);

    fn pool(networks: &[&str], ports: RangeInclusive<u16>) -> Pool {
        let networks: Vec<_> = networks.iter().map(|n| n.parse().unwrap()).collect();
        Pool::new(&networks, &ports, QUARANTINE, 0)
    }

    fn at(text: &str) -> Ipv6Addr {
        wide(text.parse().unwrap())
    }

    #[test]
    fn each_family_has_its_own_addresses() {
        let mut pool = pool(&["2001:db8::/64", "192.0.2.1/32"], 1024..=1033);
        let mut rng = Rng::new([1; 32]);
        for (v4, count) in [(true, 1), (false, 256)] {
            let chosen: BTreeSet<_> = (0..4_000)
                .map(|_| pool.choose(v4, Transport::Udp, false, &mut rng).unwrap().0)
                .collect();
            assert_eq!(chosen.len(), count);
            for index in chosen {
                let address = pool.address(AddressIndex(index));
                assert_eq!(address.to_ipv4_mapped().is_some(), v4);
                assert_eq!(pool.index_of(address), Some(AddressIndex(index)));
            }
        }
        assert_eq!(pool.index_of(at("2001:db8::100")), None, "the 257th");
    }

    #[test]
    fn ports_keep_their_class() {
        let mut pool = pool(&["192.0.2.1/32"], 1_000..=1_099);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(true, Transport::Tcp, false, &mut rng).unwrap();
        let mut take = |port| {
            let wish = Wish { port, parity: false };
            pool.take(Instant::ZERO, address, Transport::Tcp, wish, &mut rng)
        };
        for _ in 0..24 {
            assert!(take(80).is_some_and(|port| port < 1024));
        }
        for _ in 0..76 {
            assert!(take(5_000).is_some_and(|port| port >= 1024));
        }
        assert_eq!(take(5_000), None);
    }

    #[test]
    fn only_well_known_inside_ports_change_their_class() {
        let mut pool = pool(&["192.0.2.1/32"], 1_000..=1_099);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(true, Transport::Tcp, false, &mut rng).unwrap();
        let mut take = |port| {
            let wish = Wish { port, parity: false };
            pool.take(Instant::ZERO, address, Transport::Tcp, wish, &mut rng)
        };
        for _ in 0..76 {
            assert!(take(5_000).is_some_and(|port| port >= 1024));
        }
        assert_eq!(take(5_000), None, "24 well-known ones are left");
        for n in 0..24 {
            assert!(take(80).is_some(), "{n}");
        }
        assert_eq!(take(80), None);
    }

    #[test]
    fn a_reserved_port_is_given_to_nobody() {
        let mut pool = pool(&["192.0.2.1/32"], 5000..=5001);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(true, Transport::Tcp, false, &mut rng).unwrap();
        let place = |port| Place { address, transport: Transport::Tcp, port };
        assert!(pool.reserve(place(5000)));
        assert!(!pool.reserve(place(5000)) && !pool.reserve(place(80)));
        let port = pool.take(Instant::ZERO, address, Transport::Tcp, ANY, &mut rng);
        assert_eq!(port, Some(5001));
        assert!(!pool.reserve(place(5001)));
    }

    #[test]
    fn addresses_of_scattered_and_overlapping_prefixes_are_numbered_once() {
        let pool = pool(&["198.51.100.8/30", "192.0.2.1/32", "198.51.100.9/32"], 1024..=1033);
        assert_eq!(pool.total(), 5 * 10 * Transport::WITH_PORTS as u64);
        for text in ["192.0.2.1", "198.51.100.8", "198.51.100.11"] {
            assert_eq!(pool.address(pool.index_of(at(text)).unwrap()), at(text));
        }
        for text in ["192.0.2.0", "192.0.2.2", "198.51.100.7", "198.51.100.12"] {
            assert_eq!(pool.index_of(at(text)), None);
        }
    }

    #[test]
    fn ipv6_networks_that_adjoin_have_their_addresses_each() {
        let nets = ["2001:db8::100/120", "2001:db8::/120", "2001:db8::17/128", "2001:db8::2:0/112"];
        let pool = pool(&nets, 1024..=1033);
        assert_eq!(pool.total(), 3 * 256 * 10 * Transport::WITH_PORTS as u64);
        for text in
            ["2001:db8::", "2001:db8::ff", "2001:db8::100", "2001:db8::1ff", "2001:db8::2:ff"]
        {
            assert_eq!(pool.address(pool.index_of(at(text)).unwrap()), at(text));
        }
        for text in ["2001:db8::200", "2001:db8::2:100"] {
            assert_eq!(pool.index_of(at(text)), None);
        }
    }

    #[test]
    fn an_address_in_the_middle_of_a_prefix_is_renamed_alone() {
        let mut pool = pool(&["198.51.100.8/30"], 1024..=1033);
        let at = |text: &str| wide(text.parse().unwrap());
        let index = pool.index_of(at("198.51.100.9")).unwrap();
        assert!(pool.rename(at("198.51.100.9"), at("192.0.2.77")));
        assert_eq!(pool.index_of(at("192.0.2.77")), Some(index));
        assert_eq!(pool.address(index), at("192.0.2.77"));
        assert_eq!(pool.index_of(at("198.51.100.9")), None);
        for (text, place) in [("198.51.100.8", 0), ("198.51.100.10", 2), ("198.51.100.11", 3)] {
            assert_eq!(pool.index_of(at(text)), Some(AddressIndex(place)));
            assert_eq!(pool.address(AddressIndex(place)), at(text));
        }
        assert!(!pool.rename(at("192.0.2.77"), at("198.51.100.8")), "it has another place");
        assert!(!pool.rename(at("192.0.2.1"), at("192.0.2.2")), "not in the pool");
        assert!(pool.rename(at("192.0.2.77"), at("198.51.100.9")));
        assert_eq!(pool.index_of(at("198.51.100.9")), Some(index));
    }

    #[test]
    fn a_closed_address_gets_no_new_hosts() {
        let mut pool = pool(&["198.51.100.8/31"], 1024..=1033);
        let mut rng = Rng::new([1; 32]);
        pool.set_open(AddressIndex(0), false);
        for _ in 0..20 {
            assert_eq!(pool.choose(true, Transport::Udp, false, &mut rng), Some(AddressIndex(1)));
        }
        pool.set_open(AddressIndex(1), false);
        assert_eq!(pool.choose(true, Transport::Udp, false, &mut rng), None);
        pool.set_open(AddressIndex(0), true);
        assert_eq!(pool.choose(true, Transport::Udp, false, &mut rng), Some(AddressIndex(0)));
    }

    #[test]
    fn every_port_is_given_once_with_its_parity_as_long_as_there_is_one() {
        // An odd first port and a range that is no multiple of a word.
        let mut pool = pool(&["192.0.2.1/32"], 1025..=1024 + 101);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(true, Transport::Udp, false, &mut rng).unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..101 {
            let port = pool.take(Instant::ZERO, address, Transport::Udp, EVEN, &mut rng).unwrap();
            assert!((1025..=1125).contains(&port));
            assert!(seen.insert(port));
            assert_eq!(port.is_multiple_of(2), n < 50, "50 even ports, then the odd ones");
        }
        assert_eq!(pool.take(Instant::ZERO, address, Transport::Udp, ANY, &mut rng), None);
        assert_eq!(pool.choose(true, Transport::Udp, false, &mut rng), None);
        assert!(pool.take(Instant::ZERO, address, Transport::Tcp, ANY, &mut rng).is_some());
    }

    #[test]
    fn a_freed_port_rests() {
        let mut pool = pool(&["192.0.2.1/32"], 5000..=5000);
        let mut rng = Rng::new([1; 32]);
        let address = pool.choose(true, Transport::Tcp, false, &mut rng).unwrap();
        let mut take =
            |pool: &mut Pool, now| pool.take(now, address, Transport::Tcp, ANY, &mut rng);
        let place = Place { address, transport: Transport::Tcp, port: 5000 };
        assert_eq!(take(&mut pool, Instant::ZERO), Some(5000));
        pool.assign(place, 7);
        assert_eq!(pool.mapping(place), Some(7));
        pool.release(Instant::ZERO, place, Realm::LOCAL);
        assert_eq!(pool.mapping(place), None);
        assert_eq!(pool.used(), 1);
        let end = Instant::ZERO + QUARANTINE;
        assert_eq!(take(&mut pool, Instant::from_micros(end.as_micros() - 1)), None);
        assert_eq!(take(&mut pool, end), Some(5000));
    }

    #[test]
    fn ports_outside_the_range_belong_to_nobody() {
        let pool = pool(&["192.0.2.1/32"], 5000..=5001);
        let address = pool.index_of(at("192.0.2.1")).unwrap();
        for port in [0, 4999, 5000, 5002, u16::MAX] {
            assert_eq!(pool.mapping(Place { address, transport: Transport::Icmp, port }), None);
        }
    }

    #[test]
    fn an_empty_pool_or_range_gives_nothing() {
        let mut rng = Rng::new([1; 32]);
        assert_eq!(pool(&[], 5000..=5001).choose(true, Transport::Tcp, false, &mut rng), None);
        #[expect(clippy::reversed_empty_ranges, reason = "it is the empty range that is tested")]
        let mut pool = pool(&["192.0.2.1/32"], 9..=8);
        assert_eq!(pool.choose(true, Transport::Tcp, false, &mut rng), None);
        assert_eq!(pool.total(), 0);
    }

    #[test]
    fn ports_are_spread_over_the_range() {
        let mut pool = pool(&["192.0.2.1/32"], 40_000..=59_999);
        let mut rng = Rng::new([9; 32]);
        let address = pool.choose(true, Transport::Udp, false, &mut rng).unwrap();
        let ports: Vec<_> = (0..400)
            .filter_map(|_| pool.take(Instant::ZERO, address, Transport::Udp, ANY, &mut rng))
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
