//! The NAT as the node sees it: frames in, frames out.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::end::{End, narrow, wide};
use super::events::NatEvent;
use super::fragment::{FragmentKey, FragmentTable, Treatment};
use super::host::HostView;
use super::icmp::checked_quote;
use super::ident::Identifications;
use super::knock::Knocks;
use super::mapping::{InsideEnd, Mapping, MappingId, MappingView};
use super::table::{NatCounts, Table};
use super::{NatConfig, PrefixPair, Realm, Transport};
use crate::packet::{Fragment, Gso, Headers, IcmpKind, Vnet, icmp, rewrite};
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Where a packet from inside goes on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// To the Internet.
    Internet,
    /// Back to a host of ours: it was sent to an outside endpoint of the NAT and both its ends are
    /// rewritten.
    Hairpin(Inbound),
    /// Nowhere yet: a fragment that came before the first one of its packet. The NAT has it, and
    /// gives it back with [`Nat::take_released`].
    Held,
}

/// For whom a packet from outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Whom the host is behind.
    pub realm: Realm,
    /// The host: by now the packet's destination, unless that is IPv4 and this is IPv6: then the
    /// packet has the host's port, and [`super::to_ipv6`] makes it IPv6.
    pub destination: IpAddr,
}

/// What becomes of a packet from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It goes to a host of ours.
    Inside(Inbound),
    /// It asked an outside address for an echo and is the answer now, which goes back outside.
    Answered,
    /// Nowhere yet; as [`Outbound::Held`].
    Held,
}

/// A NAT between inside and outside of the same family, NAT44 and NAT66, and for IPv6 hosts to IPv4
/// (NAT64, [`Nat::outbound_64`]).
///
/// The headers handed in are those of the frame before the call; a frame that was rewritten must be
/// parsed anew. After an error the frame may be partly rewritten: it is to be dropped.
#[derive(Debug)]
pub struct Nat {
    pub(super) table: Table,
    pub(super) fragments: FragmentTable,
    pub(super) identifications: Identifications,
    pub(super) knocks: Knocks,
    bypass: Vec<IpNet>,
    pub(super) prefixes: Vec<PrefixPair>,
}

impl Nat {
    /// A NAT with its static mappings. `now` is the earliest time it will be told.
    pub fn new(now: Instant, config: &NatConfig, mut rng: Rng) -> Self {
        let fragments = FragmentTable::new(config.timers.fragments, &mut rng);
        let identifications = Identifications::new(&mut rng);
        let mut table = Table::new(now, config, rng);
        for mapping in config.static_mappings.iter().take(super::STATIC_MAX) {
            table.add_static(now, mapping);
        }
        Self {
            table,
            fragments,
            identifications,
            knocks: Knocks::new(config.policy.answer_unsolicited),
            bypass: config.bypass.clone(),
            prefixes: config.prefixes.clone(),
        }
    }

    /// True for an address of the pool, or of an outside prefix.
    pub fn is_outside(&self, address: IpAddr) -> bool {
        self.table.pool.index_of(wide(address)).is_some() || self.pair_outside(address).is_some()
    }

    /// True for a destination whose packets keep their inside source, and for the source of the
    /// answers.
    pub fn is_bypassed(&self, address: IpAddr) -> bool {
        self.bypass.iter().any(|net| net.contains(&address))
    }

    /// A packet or super-packet of the inside host `headers.source` in `realm` that leaves: gives
    /// it its outside source, and makes a mapping if need be. It must not have been fragmented
    /// before its time to live was checked.
    pub fn outbound(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Outbound, DropReason> {
        if self.is_bypassed(headers.destination) {
            return Ok(Outbound::Internet);
        }
        // An error may come from a router that the prefix does not have.
        let host = match headers.icmp {
            Some(IcmpKind::Error) if headers.is_ipv6() => {
                checked_quote(frame, headers).map_or(headers.source, |quote| quote.destination)
            }
            _ => headers.source,
        };
        if let Some(pair) = self.pair_inside(realm, host) {
            pair.rewrite_outbound(frame, headers, vnet)?;
        } else if let Some(fragment) = headers.fragment.filter(|fragment| fragment.offset != 0) {
            let key = fragment_key(headers, fragment, Some(realm));
            let Some(treatment) = self.fragments.find(now, &key, part(headers, fragment)) else {
                self.fragments.hold(now, key, whole(frame, headers))?;
                return Ok(Outbound::Held);
            };
            rewrite::set_source(frame, headers, vnet, narrow(treatment.address), None)?;
            if let Some(id) = treatment.id {
                rewrite::set_identification(frame, headers, id)?;
            }
        } else if headers.icmp == Some(IcmpKind::Error) {
            self.error_from_inside(realm, frame, headers, vnet)?;
        } else {
            self.packet_from_inside(now, realm, frame, headers, vnet)?;
        }
        self.on_from(now, frame, vnet, headers.destination)
    }

    /// Where a packet that has its outside source goes on to: round, if its destination is an
    /// outside address too.
    pub(super) fn on_from(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        vnet: &Vnet,
        destination: IpAddr,
    ) -> Result<Outbound, DropReason> {
        if !self.is_outside(destination) {
            return Ok(Outbound::Internet);
        }
        let headers = Headers::parse(frame)?;
        match self.inbound(now, frame, &headers, vnet)? {
            Arrival::Inside(inbound) => Ok(Outbound::Hairpin(inbound)),
            Arrival::Held => Ok(Outbound::Held),
            // The answer is for the outside end that the host was just given.
            Arrival::Answered => {
                let headers = Headers::parse(frame)?;
                match self.inbound(now, frame, &headers, vnet)? {
                    Arrival::Inside(inbound) => Ok(Outbound::Hairpin(inbound)),
                    Arrival::Answered | Arrival::Held => Err(DropReason::Unsolicited),
                }
            }
        }
    }

    fn packet_from_inside(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let transport = Transport::of(headers, IcmpKind::Query);
        let transport = transport.ok_or(DropReason::UnsupportedProtocol)?;
        let (source, remote) = ends(headers);
        let inside = InsideEnd::new(transport, realm, source, &remote);
        let id = self.table.outbound(now, inside, remote, headers.tcp_flags)?;
        let mapping = self.table.get(id).ok_or(DropReason::NatTableFull)?;
        let outside = self.table.outside(mapping);
        if transport == Transport::Tcp {
            self.knocks.answered(outside, remote);
        }
        let port = transport.has_ports().then_some(outside.port);
        rewrite::set_source(frame, headers, vnet, narrow(outside.address), port)?;
        let identification = self.identify(frame, headers, vnet, outside.address)?;
        if let Some(fragment) = headers.fragment {
            let treatment = Treatment { address: outside.address, realm, id: identification };
            let key = fragment_key(headers, fragment, Some(realm));
            self.fragments.remember(now, key, treatment, part(headers, fragment));
        }
        Ok(())
    }

    /// Gives an IPv4 packet that can be taken apart an identification of its own: hosts that share
    /// an outside address choose theirs without knowing of each other (RFC 6864 section 5.1).
    pub(super) fn identify(
        &mut self,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
        outside: Ipv6Addr,
    ) -> Result<Option<u16>, DropReason> {
        if headers.is_ipv6() || headers.dont_fragment && headers.fragment.is_none() {
            return Ok(None);
        }
        let packets = if vnet.gso == Gso::None || vnet.segment_size == 0 {
            1
        } else {
            headers.payload_len().div_ceil(usize::from(vnet.segment_size)).max(1)
        };
        let remote = wide(headers.destination);
        let id = self.identifications.next(outside, remote, headers.protocol, packets as u16);
        rewrite::set_identification(frame, headers, id)?;
        Ok(Some(id))
    }

    /// A packet or super-packet from outside to an address of the pool: gives it its inside
    /// destination. [`DropReason::Unsolicited`] when no mapping has the outside endpoint,
    /// [`DropReason::NatFiltered`] when its host has not sent to this remote end.
    pub fn inbound(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Arrival, DropReason> {
        if let Some(pair) = self.pair_outside(headers.destination) {
            return pair.rewrite_inbound(frame, headers, vnet).map(Arrival::Inside);
        }
        if let Some(fragment) = headers.fragment.filter(|fragment| fragment.offset != 0) {
            let key = fragment_key(headers, fragment, None);
            let Some(treatment) = self.fragments.find(now, &key, part(headers, fragment)) else {
                self.fragments.hold(now, key, whole(frame, headers))?;
                return Ok(Arrival::Held);
            };
            let destination = narrow(treatment.address);
            if destination.is_ipv6() == headers.is_ipv6() {
                rewrite::set_destination(frame, headers, vnet, destination, None)?;
            }
            return Ok(Arrival::Inside(Inbound { realm: treatment.realm, destination }));
        }
        let mapping = if headers.icmp == Some(IcmpKind::Error) {
            self.error_from_outside(frame, headers, vnet)?
        } else {
            if icmp::turn_echo(frame, headers, vnet) {
                return Ok(Arrival::Answered);
            }
            self.packet_from_outside(now, frame, headers, vnet)?
        };
        let (address, realm) = (mapping.inside.address, mapping.inside.realm);
        if let Some(fragment) = headers.fragment {
            let treatment = Treatment { address, realm, id: None };
            let key = fragment_key(headers, fragment, None);
            self.fragments.remember(now, key, treatment, part(headers, fragment));
        }
        Ok(Arrival::Inside(Inbound { realm, destination: narrow(address) }))
    }

    fn packet_from_outside(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Mapping, DropReason> {
        let transport = Transport::of(headers, IcmpKind::Reply).ok_or(DropReason::Unsolicited)?;
        let (remote, outside) = ends(headers);
        let found = self.table.inbound(now, transport, outside, remote, headers.tcp_flags);
        let id = found.inspect_err(|_| self.knocks.note(now, frame, headers))?;
        let mapping = *self.table.get(id).ok_or(DropReason::Unsolicited)?;
        let port = transport.has_ports().then_some(mapping.inside.port);
        let host = narrow(mapping.inside.address);
        let same_family = host.is_ipv6() == headers.is_ipv6();
        let destination = if same_family { host } else { headers.destination };
        rewrite::set_destination(frame, headers, vnet, destination, port)?;
        Ok(mapping)
    }

    /// Gives back a fragment whose packet's first one has come since: it lies in `frame`, and is to
    /// be handed in once more, from the inside host's realm or (none) from outside.
    pub fn take_released(&mut self, frame: &mut Vec<u8>) -> Option<Option<Realm>> {
        self.fragments.take_released(frame)
    }

    /// Fragments that wait for the first one of their packet, or of whose loss nothing was said yet.
    pub fn fragments_held(&self) -> u64 {
        self.fragments.unaccounted()
    }

    /// Fragments that were held and whose first one never came, since the last call.
    pub fn take_lost_fragments(&mut self) -> u64 {
        self.fragments.take_lost()
    }

    /// Writes the next answer to an unsolicited SYN whose six seconds are over to the beginning of
    /// `out`, and returns its length; zero when there is none. It goes to the Internet as it is.
    pub fn take_answer(&mut self, now: Instant, out: &mut [u8]) -> usize {
        self.knocks.take_answer(now, out)
    }

    /// The oldest event that nobody took. There are none unless the policy asks for them.
    pub fn take_event(&mut self) -> Option<NatEvent> {
        self.table.events.take()
    }

    /// Events that were lost because nobody took them in time, since the start.
    pub fn lost_events(&self) -> u64 {
        self.table.events.lost()
    }

    /// Ends what was idle for long enough, in at most `budget` steps. Returns the steps left; none
    /// left means that it should be called again soon.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        self.fragments.expire(now);
        self.table.expire(now, budget)
    }

    /// When [`Nat::expire`] or [`Nat::take_answer`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline().into_iter().chain(self.knocks.next_deadline()).min()
    }

    /// How much there is, and was.
    pub fn counts(&self) -> NatCounts {
        self.table.counts()
    }

    /// Mappings in the order of their ids, beginning with `first`: a page is what the caller takes,
    /// the next one begins behind its last id.
    pub fn iter_from(&self, first: MappingId) -> impl Iterator<Item = MappingView> {
        self.table.iter_from(first)
    }

    /// Hosts with what they use, in pages as with [`Nat::iter_from`].
    pub fn hosts_from(&self, first: u32) -> impl Iterator<Item = HostView> {
        self.table.hosts_from(first)
    }

    /// Ends a mapping and its sessions; its outside port rests. False when there is none.
    pub fn remove(&mut self, now: Instant, id: MappingId) -> bool {
        self.table.remove(now, id)
    }
}

/// Source and destination, with ports where the protocol has some that are ours to change.
pub(super) fn ends(headers: &Headers) -> (End, End) {
    let ports = headers.ports.map_or((0, 0), |ports| (ports.src, ports.dst));
    (End::new(headers.source, ports.0), End::new(headers.destination, ports.1))
}

pub(super) fn fragment_key(
    headers: &Headers,
    fragment: Fragment,
    realm: Option<Realm>,
) -> FragmentKey {
    let (source, destination) = (wide(headers.source), wide(headers.destination));
    // IPv6 tells the packets of two hosts apart by addresses and identification alone.
    let protocol = if headers.is_ipv6() { 0 } else { headers.protocol };
    FragmentKey { realm, source, destination, protocol, id: fragment.id }
}

/// Where a fragment's bytes end in its packet, how many it has, and whether it is the last one.
pub(super) fn part(headers: &Headers, fragment: Fragment) -> super::fragment::Part {
    let len = headers.total_len - u32::from(headers.l4);
    super::fragment::Part { len, end: u32::from(fragment.offset) + len, more: fragment.more }
}

pub(super) fn whole<'f>(frame: &'f [u8], headers: &Headers) -> &'f [u8] {
    frame.get(..headers.total_len as usize).unwrap_or(frame)
}
