//! The NAT as the node sees it: frames in, frames out.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::fragment::{FragmentKey, FragmentTable, Treatment};
use super::mapping::{InsideEnd, Mapping, MappingId, MappingView};
use super::table::{NatCounts, Table};
use super::{NatConfig, Realm, Transport};
use crate::packet::{Headers, IcmpKind, Vnet, rewrite};
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
}

/// For whom a packet from outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Whom the host is behind.
    pub realm: Realm,
    /// The host: by now the packet's destination.
    pub destination: Ipv4Addr,
}

/// A NAT44.
///
/// The headers handed in are those of the frame before the call; a frame that was rewritten must be
/// parsed anew. After an error the frame may be partly rewritten: it is to be dropped.
#[derive(Debug)]
pub struct Nat {
    pub(super) table: Table,
    fragments: FragmentTable,
}

impl Nat {
    /// A NAT without mappings. `now` is the earliest time it will be told.
    pub fn new(now: Instant, config: &NatConfig, mut rng: Rng) -> Self {
        let fragments = FragmentTable::new(config.timers.fragments, &mut rng);
        Self { table: Table::new(now, config, rng), fragments }
    }

    /// True for an address of the pool.
    pub fn is_outside(&self, address: Ipv4Addr) -> bool {
        self.table.pool.index_of(address).is_some()
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
        let destination = v4(headers.destination)?;
        if headers.is_later_fragment() {
            let key = fragment_key(headers, Some(realm)).ok_or(DropReason::Fragment)?;
            let treatment = self.fragments.find(now, &key).ok_or(DropReason::Fragment)?;
            rewrite::set_source(frame, headers, vnet, treatment.address.into(), None)?;
        } else if headers.icmp == Some(IcmpKind::Error) {
            self.error_from_inside(realm, frame, headers, vnet)?;
        } else {
            self.packet_from_inside(now, realm, frame, headers, vnet)?;
        }
        if !self.is_outside(destination) {
            return Ok(Outbound::Internet);
        }
        let headers = Headers::parse(frame)?;
        self.inbound(now, frame, &headers, vnet).map(Outbound::Hairpin)
    }

    fn packet_from_inside(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let (source, destination) = (v4(headers.source)?, v4(headers.destination)?);
        let transport = Transport::of(headers, IcmpKind::EchoRequest);
        let (transport, ports) =
            transport.zip(headers.ports).ok_or(DropReason::UnsupportedProtocol)?;
        let inside = InsideEnd { transport, realm, address: source, port: ports.src };
        let remote = SocketAddrV4::new(destination, ports.dst);
        let id = self.table.outbound(now, inside, remote, headers.tcp_flags)?;
        let outside = self.table.get(id).ok_or(DropReason::NatTableFull)?.outside;
        let address = *outside.ip();
        rewrite::set_source(frame, headers, vnet, address.into(), Some(outside.port()))?;
        if let Some(key) = fragment_key(headers, Some(realm)) {
            self.fragments.remember(now, key, Treatment { address, realm });
        }
        Ok(())
    }

    /// A packet or super-packet from outside to an address of the pool: gives it its inside
    /// destination. [`DropReason::Unsolicited`] when no mapping has the outside endpoint.
    pub fn inbound(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Inbound, DropReason> {
        if headers.is_later_fragment() {
            let key = fragment_key(headers, None).ok_or(DropReason::Fragment)?;
            let treatment = self.fragments.find(now, &key).ok_or(DropReason::Fragment)?;
            rewrite::set_destination(frame, headers, vnet, treatment.address.into(), None)?;
            return Ok(Inbound { realm: treatment.realm, destination: treatment.address });
        }
        let mapping = if headers.icmp == Some(IcmpKind::Error) {
            self.error_from_outside(frame, headers, vnet)?
        } else {
            self.packet_from_outside(now, frame, headers, vnet)?
        };
        let (address, realm) = (mapping.inside.address, mapping.inside.realm);
        if let Some(key) = fragment_key(headers, None) {
            self.fragments.remember(now, key, Treatment { address, realm });
        }
        Ok(Inbound { realm, destination: address })
    }

    fn packet_from_outside(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Mapping, DropReason> {
        let (source, destination) = (v4(headers.source)?, v4(headers.destination)?);
        let transport = Transport::of(headers, IcmpKind::EchoReply);
        let (transport, ports) = transport.zip(headers.ports).ok_or(DropReason::Unsolicited)?;
        let outside = SocketAddrV4::new(destination, ports.dst);
        let id = self.table.by_outside(transport, outside).ok_or(DropReason::Unsolicited)?;
        let remote = SocketAddrV4::new(source, ports.src);
        self.table.inbound(now, id, remote, headers.tcp_flags)?;
        let mapping = *self.table.get(id).ok_or(DropReason::Unsolicited)?;
        let (address, port) = (mapping.inside.address, mapping.inside.port);
        rewrite::set_destination(frame, headers, vnet, address.into(), Some(port))?;
        Ok(mapping)
    }

    /// Ends what was idle for long enough, in at most `budget` steps. Returns the steps left; none
    /// left means that it should be called again soon.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        self.table.expire(now, budget)
    }

    /// When [`Nat::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
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

    /// Ends a mapping and its sessions; its outside port rests. False when there is none.
    pub fn remove(&mut self, now: Instant, id: MappingId) -> bool {
        self.table.remove(now, id)
    }
}

/// The key of a fragment; none for a whole packet.
fn fragment_key(headers: &Headers, realm: Option<Realm>) -> Option<FragmentKey> {
    let (source, destination) = (v4(headers.source).ok()?, v4(headers.destination).ok()?);
    let id = headers.fragment?.id;
    Some(FragmentKey { realm, source, destination, protocol: headers.protocol, id })
}

/// The IPv4 address; the NAT carries nothing else.
pub(super) fn v4(address: IpAddr) -> Result<Ipv4Addr, DropReason> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(DropReason::UnsupportedProtocol),
    }
}
