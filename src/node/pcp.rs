//! The PCP server of our exit: hosts of its users ask it for mappings, at our own overlay address.

use std::net::{IpAddr, SocketAddr};

use super::Node;
use super::prefixes::Owner;
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::nat::{Realm, pcp};
use crate::packet::{Headers, Vnet, checksum, protocol};
use crate::telemetry::DropReason;
use crate::time::Instant;

const UDP_HEADER_LEN: usize = 8;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const HOP_LIMIT: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

impl Node {
    /// True for a request to the server from someone who may use our exit.
    pub(super) fn is_pcp_request(&self, peer: PeerIndex, headers: &Headers) -> bool {
        self.pcp.is_some()
            && headers.protocol == protocol::UDP
            && headers.fragment.is_none()
            && headers.ports.is_some_and(|ports| ports.dst == pcp::PORT)
            && self.addresses.contains(&headers.destination)
            && self.peers[peer.usize()].may_exit
    }

    /// Serves a datagram that a host of our own LAN has sent to the router. Writes the response to
    /// the beginning of `out`, which must have room for [`pcp::MAX_LEN`] bytes, and returns its
    /// length; zero for none.
    pub fn serve_lan_pcp(
        &mut self,
        now: Instant,
        client: SocketAddr,
        request: &[u8],
        out: &mut [u8],
    ) -> usize {
        if self.prefixes.owner(client.ip()) != Some(Owner::Local) {
            return 0;
        }
        self.touch();
        let (Some(server), Some(exit)) = (self.pcp, &mut self.exit) else { return 0 };
        server.handle(now, &mut exit.nat, Realm::LOCAL, client, request, out)
    }

    /// Serves a request, and sends the response back through the tunnel.
    pub(super) fn serve_pcp(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let (Some(server), Some(exit)) = (self.pcp, &mut self.exit) else {
            return Err(DropReason::ForeignDestination);
        };
        // For a partial one its sender vouches.
        if !checksum::is_partial(headers, vnet) && !checksum::is_right(packet, headers) {
            return Err(DropReason::BadChecksum);
        }
        let ports = headers.ports.ok_or(DropReason::Malformed)?;
        let request = usize::from(headers.payload)..headers.total_len as usize;
        let request = packet.get(request).ok_or(DropReason::Malformed)?;
        let client = SocketAddr::new(headers.source, ports.src);
        let mut reply = [0; IPV6_HEADER_LEN + UDP_HEADER_LEN + pcp::MAX_LEN];
        let start =
            UDP_HEADER_LEN + if headers.is_ipv6() { IPV6_HEADER_LEN } else { IPV4_HEADER_LEN };
        let len =
            server.handle(now, &mut exit.nat, peer.into(), client, request, &mut reply[start..]);
        if len == 0 {
            return Err(DropReason::Malformed);
        }
        let reply = &mut reply[..start + len];
        address_reply(reply, headers, ports.src);
        let headers = Headers::parse(reply)?;
        checksum::complete(reply, &headers);
        self.send_back(now, peer, reply, &headers, &Vnet::default(), out)
    }
}

/// Writes the headers of the answer to a UDP packet, all but the upper checksum.
fn address_reply(reply: &mut [u8], asked: &Headers, port: u16) {
    let total = reply.len();
    let l4 = match (asked.destination, asked.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            reply[0] = 0x45;
            reply[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            reply[6] = DONT_FRAGMENT;
            (reply[8], reply[9]) = (HOP_LIMIT, protocol::UDP);
            reply[12..16].copy_from_slice(&source.octets());
            reply[16..20].copy_from_slice(&destination.octets());
            checksum::fill_ipv4(&mut reply[..IPV4_HEADER_LEN]);
            IPV4_HEADER_LEN
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            reply[0] = 0x60;
            let len = (total - IPV6_HEADER_LEN) as u16;
            reply[4..6].copy_from_slice(&len.to_be_bytes());
            (reply[6], reply[7]) = (protocol::UDP, HOP_LIMIT);
            reply[8..24].copy_from_slice(&source.octets());
            reply[24..40].copy_from_slice(&destination.octets());
            IPV6_HEADER_LEN
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => return,
    };
    let len = (total - l4) as u16;
    reply[l4..l4 + 2].copy_from_slice(&pcp::PORT.to_be_bytes());
    reply[l4 + 2..l4 + 4].copy_from_slice(&port.to_be_bytes());
    reply[l4 + 4..l4 + 6].copy_from_slice(&len.to_be_bytes());
}
