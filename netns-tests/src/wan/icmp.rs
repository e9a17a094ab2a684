//! ICMP errors that a router on the way sends back (RFC 792, RFC 1191, RFC 4443).

use std::net::IpAddr;

use super::checksum;
use super::vnet::{Ip, VNET_LEN};

/// What the router has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// The packet does not fit the next link, whose MTU is given.
    TooBig(u32),
    /// The TTL or hop limit ran out.
    TimeExceeded,
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Most IP bytes of an error (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
const SIZE_MAX_V4: usize = 576;
const SIZE_MAX_V6: usize = 1280;

/// A frame with the error about `packet`, from `router`. `None` about what must not be answered:
/// ICMP errors and later fragments.
pub(crate) fn error(
    packet: &[u8],
    ip: &Ip,
    router: IpAddr,
    complaint: Complaint,
) -> Option<Vec<u8>> {
    match (router, ip.source) {
        (IpAddr::V4(router), IpAddr::V4(host)) => {
            let later_fragment = packet[6] & 0x1f != 0 || packet[7] != 0;
            let kind = *packet.get(ip.header)?;
            if later_fragment || (ip.protocol == ICMP && !matches!(kind, 0 | 8)) {
                return None;
            }
            let (kind, code, mtu) = match complaint {
                Complaint::TooBig(mtu) => (3, 4, mtu),
                Complaint::TimeExceeded => (11, 0, 0),
            };
            let quote = &packet[..packet.len().min(SIZE_MAX_V4 - 28)];
            let mut frame = vec![0; VNET_LEN];
            frame.extend_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0]);
            frame.extend_from_slice(&router.octets());
            frame.extend_from_slice(&host.octets());
            message(&mut frame, kind, code, mtu, quote);
            let packet = &mut frame[VNET_LEN..];
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            checksum::write_ipv4(packet);
            let sum = !checksum::sum(&packet[20..], 0);
            packet[22..24].copy_from_slice(&sum.to_be_bytes());
            Some(frame)
        }
        (IpAddr::V6(router), IpAddr::V6(host)) => {
            if ip.protocol == ICMPV6 && packet.get(40)? & 0x80 == 0 {
                return None;
            }
            let (kind, mtu) = match complaint {
                Complaint::TooBig(mtu) => (2, mtu),
                Complaint::TimeExceeded => (3, 0),
            };
            let quote = &packet[..packet.len().min(SIZE_MAX_V6 - 48)];
            let mut frame = vec![0; VNET_LEN];
            frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, 64]);
            frame.extend_from_slice(&router.octets());
            frame.extend_from_slice(&host.octets());
            message(&mut frame, kind, 0, mtu, quote);
            let packet = &mut frame[VNET_LEN..];
            let length = packet.len() - 40;
            packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            let pseudo = checksum::pseudo_header(packet, ICMPV6, length);
            let sum = !checksum::sum(&packet[40..], pseudo);
            packet[42..44].copy_from_slice(&sum.to_be_bytes());
            Some(frame)
        }
        _ => None,
    }
}

fn message(frame: &mut Vec<u8>, kind: u8, code: u8, mtu: u32, quote: &[u8]) {
    frame.extend_from_slice(&[kind, code, 0, 0]);
    frame.extend_from_slice(&mtu.to_be_bytes());
    frame.extend_from_slice(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::segment::tests::packet;
    use crate::wan::vnet::{TCP, UDP};

    #[test]
    fn errors_quote_the_packet_and_carry_right_checksums() {
        for (version, router) in [(4, "198.18.0.1"), (6, "2001:db8:ffff::1")] {
            for (protocol, complaint) in
                [(TCP, Complaint::TooBig(1400)), (UDP, Complaint::TimeExceeded)]
            {
                let packet = packet(version, protocol, 0, &[7; 1401]);
                let ip = Ip::parse(&packet).unwrap();
                let frame = error(&packet, &ip, router.parse().unwrap(), complaint).unwrap();
                let reply = &frame[VNET_LEN..];
                assert!(checksum::verify(reply), "{version} {complaint:?}");
                let back = Ip::parse(reply).unwrap();
                assert_eq!(back.destination, ip.source);
                let (kind, max) = match (version, complaint) {
                    (4, Complaint::TooBig(_)) => ([3, 4], 576),
                    (4, Complaint::TimeExceeded) => ([11, 0], 576),
                    (_, Complaint::TooBig(_)) => ([2, 0], 1280),
                    (_, Complaint::TimeExceeded) => ([3, 0], 1280),
                };
                assert_eq!(reply[back.header..back.header + 2], kind);
                assert_eq!(reply.len(), max);
                let quote = &reply[back.header + 8..];
                assert_eq!(quote, &packet[..quote.len()]);
                let mtu = u32::from_be_bytes(reply[back.header + 4..][..4].try_into().unwrap());
                assert_eq!(mtu, if complaint == Complaint::TimeExceeded { 0 } else { 1400 });
                assert_eq!(error(reply, &back, router.parse().unwrap(), complaint), None);
            }
        }
    }
}
