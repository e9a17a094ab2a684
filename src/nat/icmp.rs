//! ICMP errors through the NAT (RFC 5508 section 4): the quoted packet is rewritten as the packet
//! itself was, so that the host recognises it. They make nothing, keep nothing alive and end
//! nothing.

use super::end::{End, narrow};
use super::mapping::{InsideEnd, Mapping};
use super::translate::ends;
use super::{Nat, Realm, Transport};
use crate::packet::{Headers, IcmpKind, Vnet, checksum, rewrite};
use crate::telemetry::DropReason;

/// Destination unreachable, time exceeded and parameter problem (RFC 792).
const CARRIED: [u8; 3] = [3, 11, 12];
/// Destination unreachable, packet too big, time exceeded and parameter problem (RFC 4443).
const CARRIED_V6: [u8; 4] = [1, 2, 3, 4];

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
        if headers.destination != quote.source {
            return Err(DropReason::UnrelatedIcmpError);
        }
        let (remote, inside) = ends(&quote);
        let transport = carried(&quote, IcmpKind::Reply);
        let mapping = transport.and_then(|transport| {
            let inside = InsideEnd::new(transport, realm, inside, &remote);
            self.table.get(self.table.for_inside(&inside, remote)?)
        });
        let outside = self.table.outside(mapping.ok_or(DropReason::UnrelatedIcmpError)?);
        let port = quote.ports.map(|_| outside.port);
        let address = narrow(outside.address);
        rewrite::set_quoted_destination(frame, headers, address, port)?;
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
        let (source, remote) = ends(&quote);
        let outside = End::new(headers.destination, source.port);
        let transport = carried(&quote, IcmpKind::Query);
        let mapping = transport.and_then(|transport| {
            self.table.get(self.table.by_outside(transport, outside, remote)?).copied()
        });
        let mapping = mapping.ok_or(DropReason::UnrelatedIcmpError)?;
        let address = narrow(mapping.inside.address);
        let port = quote.ports.map(|_| mapping.inside.port);
        if address.is_ipv6() != headers.is_ipv6() {
            rewrite::set_quoted_source(frame, headers, quote.source, port)?;
            return Ok(mapping);
        }
        rewrite::set_quoted_source(frame, headers, address, port)?;
        rewrite::set_destination(frame, headers, vnet, address, None)?;
        Ok(mapping)
    }
}

/// Refuses kinds that are not to be passed on (RFC 5508 REQ-10; redirects and source quench are
/// not) and errors whose checksum is wrong (REQ-3). The quoted packet's own upper checksum is not
/// looked at (REQ-3 c).
pub(super) fn checked_quote(frame: &[u8], headers: &Headers) -> Result<Headers, DropReason> {
    let kind = frame.get(usize::from(headers.l4)).ok_or(DropReason::Malformed)?;
    let kinds: &[u8] = if headers.is_ipv6() { &CARRIED_V6 } else { &CARRIED };
    if !kinds.contains(kind) {
        return Err(DropReason::UnsupportedProtocol);
    }
    if !checksum::is_right(frame, headers) {
        return Err(DropReason::BadChecksum);
    }
    rewrite::quoted(frame, headers)
}

/// The transport of a quoted packet, unless it is a later fragment, which tells nothing.
pub(super) fn carried(quote: &Headers, query: IcmpKind) -> Option<Transport> {
    Transport::of(quote, query).filter(|_| !quote.is_later_fragment())
}
