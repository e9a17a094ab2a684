//! ICMP errors through the NAT (RFC 5508 section 4): the quoted packet is rewritten as the packet
//! itself was, so that the host recognises it. They make nothing, keep nothing alive and end
//! nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::mapping::{InsideEnd, Mapping};
use super::translate::v4;
use super::{Nat, Realm, Transport};
use crate::packet::{Headers, IcmpKind, Vnet, checksum, rewrite};
use crate::telemetry::DropReason;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// An error with what it quotes, both found in order.
struct Quote {
    headers: Headers,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Nat {
    /// An error that an inside host sends about a packet it got through a mapping.
    pub(super) fn error_from_inside(
        &self,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let quote = checked_quote(frame, headers)?;
        // It goes to whom the packet came from.
        if v4(headers.destination)? != quote.source {
            return Err(DropReason::UnrelatedIcmpError);
        }
        let transport = Transport::of(&quote.headers, IcmpKind::EchoReply);
        let inside = transport.zip(quote.headers.ports).map(|(transport, ports)| InsideEnd {
            transport,
            realm,
            address: quote.destination,
            port: ports.dst,
        });
        let mapping = inside.and_then(|inside| self.table.by_inside(&inside));
        let mapping = mapping.and_then(|id| self.table.get(id));
        let outside = mapping.ok_or(DropReason::UnrelatedIcmpError)?.outside;
        let address = IpAddr::from(*outside.ip());
        rewrite::set_quoted_destination(frame, headers, address, Some(outside.port()))?;
        // Also when a router before the host sent it: it has no outside address of its own.
        rewrite::set_source(frame, headers, vnet, address, None)
    }

    /// An error from outside about a packet that went through a mapping. Returns the mapping.
    pub(super) fn error_from_outside(
        &self,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<Mapping, DropReason> {
        let quote = checked_quote(frame, headers)?;
        // By the addressee, not the quoted source: where a stateless rewrite stands between us and
        // the outside, the quote shows the address that the outside saw.
        let outside = v4(headers.destination)?;
        let transport = Transport::of(&quote.headers, IcmpKind::EchoRequest);
        let mapping = transport.zip(quote.headers.ports).and_then(|(transport, ports)| {
            let id = self.table.by_outside(transport, SocketAddrV4::new(outside, ports.src))?;
            self.table.get(id).copied()
        });
        let mapping = mapping.ok_or(DropReason::UnrelatedIcmpError)?;
        let address = IpAddr::from(mapping.inside.address);
        rewrite::set_quoted_source(frame, headers, address, Some(mapping.inside.port))?;
        rewrite::set_destination(frame, headers, vnet, address, None)?;
        Ok(mapping)
    }
}

/// Refuses kinds that are not to be passed on (RFC 5508 REQ-10; redirects and source quench are
/// not) and errors whose checksum is wrong (REQ-3). The quoted packet's own upper checksum is not
/// looked at (REQ-3 c).
fn checked_quote(frame: &[u8], headers: &Headers) -> Result<Quote, DropReason> {
    let kind = frame.get(usize::from(headers.l4)).copied();
    if !matches!(kind, Some(UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)) {
        return Err(DropReason::UnsupportedProtocol);
    }
    if !checksum::is_right(frame, headers) {
        return Err(DropReason::BadChecksum);
    }
    let quoted = rewrite::quoted(frame, headers)?;
    let (source, destination) = (v4(quoted.source)?, v4(quoted.destination)?);
    Ok(Quote { headers: quoted, source, destination })
}
