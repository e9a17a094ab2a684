//! IPv6 hosts reach IPv4 (NAT64, RFC 6146): their packets become IPv4 with an outside endpoint of
//! the pool, by the same mappings, timers, filters and shares as those of IPv4 hosts.
//!
//! A destination under the [`Nat64Prefix`] stands for the IPv4 address in it (RFC 6052). On the way
//! in a packet is first given the port of its inside endpoint, in IPv4, and then translated with
//! [`to_ipv6`]; names are a resolver's business (DNS64, RFC 6147).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::end::{End, narrow, wide};
use super::fragment::Treatment;
use super::icmp::{carried, checked_quote};
use super::mapping::InsideEnd;
use super::translate::{ends, fragment_key, part, whole};
use super::{Nat, Outbound, Realm, Transport};
use crate::addr::Nat64Prefix;
use crate::packet::siit::{self, Ends};
use crate::packet::{Headers, IcmpKind, Vnet, rewrite};
use crate::telemetry::DropReason;
use crate::time::Instant;

impl Nat {
    /// A packet or super-packet of an inside IPv6 host for an IPv4 address: writes what leaves to
    /// `out`, and returns its offload header. Else as [`Nat::outbound`]; the packet of a hairpin may
    /// still have to go through [`to_ipv6`].
    #[expect(clippy::too_many_arguments, reason = "a frame is its bytes and what is known of it")]
    pub fn outbound_64(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        prefix: Nat64Prefix,
        out: &mut Vec<u8>,
    ) -> Result<(Vnet, Outbound), DropReason> {
        let IpAddr::V6(destination) = headers.destination else {
            return Err(DropReason::Malformed);
        };
        let remote = prefix.embedded(destination).ok_or(DropReason::NoRoute)?;
        let vnet = if let Some(fragment) = headers.fragment.filter(|part| part.offset != 0) {
            let key = fragment_key(headers, fragment, Some(realm));
            let Some(treatment) = self.fragments.find(now, &key, part(headers, fragment)) else {
                self.fragments.hold(now, key, whole(frame, headers))?;
                return Ok((Vnet::default(), Outbound::Held));
            };
            let ends = Ends { source: v4(treatment.address)?, destination: remote };
            let vnet = siit::to_ipv4(out, frame, headers, vnet, ends)?;
            if let Some(id) = treatment.id {
                let translated = Headers::parse(out)?;
                rewrite::set_identification(out, &translated, id)?;
            }
            vnet
        } else if headers.icmp == Some(IcmpKind::Error) {
            self.error_from_ipv6(realm, frame, headers, remote, out)?;
            Vnet::default()
        } else {
            self.packet_from_ipv6(now, realm, frame, headers, vnet, remote, out)?
        };
        let onward = self.on_from(now, out, &vnet, remote.into())?;
        Ok((vnet, onward))
    }

    #[expect(clippy::too_many_arguments, reason = "a frame is its bytes and what is known of it")]
    fn packet_from_ipv6(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        remote: Ipv4Addr,
        out: &mut Vec<u8>,
    ) -> Result<Vnet, DropReason> {
        let transport = Transport::of(headers, IcmpKind::Query).filter(|t| t.has_ports());
        let transport = transport.ok_or(DropReason::UnsupportedProtocol)?;
        let (source, far) = ends(headers);
        let far = End { address: wide(remote.into()), port: far.port };
        let inside = InsideEnd::new(transport, realm, source, &far);
        let id = self.table.outbound(now, inside, far, headers.tcp_flags)?;
        let mapping = self.table.get(id).ok_or(DropReason::NatTableFull)?;
        let outside = self.table.outside(mapping);
        if transport == Transport::Tcp {
            self.knocks.answered(outside, far);
        }
        let ends = Ends { source: v4(outside.address)?, destination: remote };
        let vnet = siit::to_ipv4(out, frame, headers, vnet, ends)?;
        let translated = Headers::parse(out)?;
        rewrite::set_source(out, &translated, &vnet, ends.source.into(), Some(outside.port))?;
        let identification = self.identify(out, &translated, &vnet, outside.address)?;
        if let Some(fragment) = headers.fragment {
            let treatment = Treatment { address: outside.address, realm, id: identification };
            let key = fragment_key(headers, fragment, Some(realm));
            self.fragments.remember(now, key, treatment, part(headers, fragment));
        }
        Ok(vnet)
    }

    /// An error about a packet that came through a mapping, from its host or a router before it.
    fn error_from_ipv6(
        &self,
        realm: Realm,
        frame: &[u8],
        headers: &Headers,
        remote: Ipv4Addr,
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let quote = checked_quote(frame, headers)?;
        if headers.destination != quote.source {
            return Err(DropReason::UnrelatedIcmpError);
        }
        let (far, inside) = ends(&quote);
        let far = End { address: wide(remote.into()), port: far.port };
        let mapping = carried(&quote, IcmpKind::Reply).and_then(|transport| {
            let inside = InsideEnd::new(transport, realm, inside, &far);
            self.table.get(self.table.for_inside(&inside, far)?)
        });
        let outside = self.table.outside(mapping.ok_or(DropReason::UnrelatedIcmpError)?);
        let address = v4(outside.address)?;
        let from = Ends { source: address, destination: remote };
        let quoted = Ends { source: remote, destination: address };
        siit::error_to_ipv4(out, frame, headers, from, quoted)?;
        let translated = Headers::parse(out)?;
        let port = quote.ports.map(|_| outside.port);
        rewrite::set_quoted_destination(out, &translated, address.into(), port)
    }
}

/// Writes an IPv4 packet from outside, which has the port of its inside endpoint by now, to `out` as
/// the IPv6 packet for `destination`, and returns its offload header.
pub fn to_ipv6(
    frame: &[u8],
    headers: &Headers,
    vnet: &Vnet,
    destination: Ipv6Addr,
    prefix: Nat64Prefix,
    out: &mut Vec<u8>,
) -> Result<Vnet, DropReason> {
    let seen = |address: IpAddr| match address {
        IpAddr::V4(address) => Ok(prefix.embed(address)),
        IpAddr::V6(_) => Err(DropReason::Malformed),
    };
    let ends = Ends { source: seen(headers.source)?, destination };
    if headers.icmp != Some(IcmpKind::Error) {
        return siit::to_ipv6(out, frame, headers, vnet, ends);
    }
    let quote = rewrite::quoted(frame, headers)?;
    let quoted = Ends { source: destination, destination: seen(quote.destination)? };
    siit::error_to_ipv6(out, frame, headers, ends, quoted)?;
    Ok(Vnet::default())
}

fn v4(address: Ipv6Addr) -> Result<Ipv4Addr, DropReason> {
    match narrow(address) {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(DropReason::Malformed),
    }
}
