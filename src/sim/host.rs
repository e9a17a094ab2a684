//! Packets of simulated hosts: each is recognised wherever it comes out, and every bit of it is
//! known.

use std::net::IpAddr;

use super::audit::MARK;
use crate::packet::{Gso, Headers, Vnet, checksum, protocol};

/// Headers (of IPv6), mark and id: the shortest packet.
pub const LEN_MIN: usize = IPV6_HEADERS + LETTER_MIN;
const IPV4_HEADERS: usize = 28;
const IPV6_HEADERS: usize = 48;
const LETTER_MIN: usize = MARK.len() + 8;

/// An address and a port.
pub type Endpoint = (IpAddr, u16);

/// What a packet of a host says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it is from.
    pub from: Endpoint,
    /// Where it goes.
    pub to: Endpoint,
    /// Its number.
    pub id: u64,
}

/// A whole UDP packet of `len` bytes (at least [`LEN_MIN`]) that must not be fragmented.
pub fn packet(from: Endpoint, to: Endpoint, id: u64, len: usize) -> Vec<u8> {
    let mut packet = headers(from, to);
    let start = packet.len();
    packet.resize(len.max(LEN_MIN), 0);
    fill(&mut packet[start..], id);
    set_lengths(&mut packet);
    if let Ok(headers) = Headers::parse(&packet) {
        checksum::complete(&mut packet, &headers);
    }
    packet
}

/// The packets with these numbers, all `len` bytes long (at least [`LEN_MIN`]), as one
/// super-packet: what a host sends that leaves segmentation to its network card.
pub fn train(from: Endpoint, to: Endpoint, ids: &[u64], len: usize) -> (Vec<u8>, Vnet) {
    let mut packet = headers(from, to);
    let payload = len.max(LEN_MIN) - packet.len();
    for &id in ids {
        let start = packet.len();
        packet.resize(start + payload, 0);
        fill(&mut packet[start..], id);
    }
    set_lengths(&mut packet);
    let mut vnet = Vnet { gso: Gso::Udp, segment_size: payload as u16, ..Vnet::default() };
    if let Ok(headers) = Headers::parse(&packet)
        && let Some(at) = headers.checksum_at()
    {
        let len = headers.total_len - u32::from(headers.l4);
        let (source, destination) = (headers.source, headers.destination);
        let sum = checksum::pseudo_header(source, destination, protocol::UDP, len).fold();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        vnet.needs_checksum = true;
        vnet.header_len = headers.payload;
        vnet.checksum_start = headers.l4;
        vnet.checksum_offset = at as u16 - headers.l4;
    }
    (packet, vnet)
}

/// IP and UDP headers without lengths and checksums; both ends are of one family.
fn headers(from: Endpoint, to: Endpoint) -> Vec<u8> {
    let mut packet = ip_header(from, to, protocol::UDP);
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend([0; 4]);
    packet
}

/// An IP header without length and checksum; both ends are of one family.
pub(super) fn ip_header(from: Endpoint, to: Endpoint, protocol: u8) -> Vec<u8> {
    match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (source, destination) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            for address in [source, destination] {
                let IpAddr::V6(address) = address else { continue };
                packet.extend(address.octets());
            }
            packet
        }
    }
}

fn set_lengths(packet: &mut [u8]) {
    let l4 = set_ip_length(packet);
    let len = packet.len() - l4;
    packet[l4 + 4..l4 + 6].copy_from_slice(&(len as u16).to_be_bytes());
}

/// Completes the IP header of a packet. Where the next header begins.
pub(super) fn set_ip_length(packet: &mut [u8]) -> usize {
    let len = packet.len();
    let l4 = if packet[0] >> 4 == 4 { IPV4_HEADERS - 8 } else { IPV6_HEADERS - 8 };
    if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        checksum::fill_ipv4(&mut packet[..l4]);
    } else {
        packet[4..6].copy_from_slice(&((len - l4) as u16).to_be_bytes());
    }
    l4
}

fn fill(letter: &mut [u8], id: u64) {
    letter[..MARK.len()].copy_from_slice(&MARK);
    letter[MARK.len()..LETTER_MIN].copy_from_slice(&id.to_be_bytes());
    for (at, byte) in letter[LETTER_MIN..].iter_mut().enumerate() {
        *byte = filling(id, at);
    }
}

/// Byte `at` behind the id.
const fn filling(id: u64, at: usize) -> u8 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ (at as u8).wrapping_mul(29)
}

/// Reads a packet made by [`packet`]. `Ok(None)` when it is none (an ICMP error, a fragment); an
/// error when it was changed on the way.
pub fn open(packet: &[u8]) -> Result<Option<Letter>, &'static str> {
    let headers = Headers::parse(packet).map_err(|_| "does not parse")?;
    let start = usize::from(headers.payload);
    let Some(ports) = headers.ports else { return Ok(None) };
    let letter = packet.get(start..headers.total_len as usize).unwrap_or_default();
    let is_udp = headers.protocol == protocol::UDP && headers.fragment.is_none();
    if !is_udp || letter.len() < LETTER_MIN {
        return Ok(None);
    }
    if letter[..MARK.len()] != MARK {
        return Err("is not what a host sent");
    }
    if !checksum::ipv4_is_right(packet, &headers) || !checksum::is_right(packet, &headers) {
        return Err("has a wrong checksum");
    }
    let id = letter[MARK.len()..LETTER_MIN].iter().fold(0, |id, &byte| id << 8 | u64::from(byte));
    if letter[LETTER_MIN..].iter().enumerate().any(|(at, &byte)| byte != filling(id, at)) {
        return Err("was changed");
    }
    Ok(Some(Letter { from: (headers.source, ports.src), to: (headers.destination, ports.dst), id }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Segmenter;

    fn ends(ipv6: bool) -> (Endpoint, Endpoint) {
        let text = if ipv6 { ["fd01::5", "fd02::5"] } else { ["10.1.0.5", "10.2.0.5"] };
        let [from, to] = text.map(|text| text.parse().unwrap());
        ((from, 7), (to, 9))
    }

    #[test]
    fn every_change_of_a_packet_is_noticed() {
        for ipv6 in [false, true] {
            let (from, to) = ends(ipv6);
            let original = packet(from, to, 77, 300);
            assert_eq!(open(&original), Ok(Some(Letter { from, to, id: 77 })));
            // Traffic class, flow label and hop limit of IPv6 have no checksum.
            let free = |bit: usize| ipv6 && ((4..32).contains(&bit) || bit / 8 == 7);
            for bit in (0..300 * 8).filter(|&bit| !free(bit)) {
                let mut changed = original.clone();
                changed[bit / 8] ^= 1 << (7 - bit % 8);
                assert_ne!(open(&changed), open(&original), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_train_is_its_packets() {
        for ipv6 in [false, true] {
            let (from, to) = ends(ipv6);
            let (frame, vnet) = train(from, to, &[5, 6, 7], 300);
            let headers = Headers::parse(&frame).unwrap();
            let cut = Segmenter::new(&frame, &headers, vnet, 1_500).unwrap();
            assert_eq!(cut.count(), 3);
            for (index, id) in [5, 6, 7].into_iter().enumerate() {
                let mut segment = vec![0; cut.segment_len(index)];
                cut.write(index, &mut segment);
                assert_eq!(segment.len(), 300);
                assert_eq!(open(&segment), Ok(Some(Letter { from, to, id })));
            }
        }
    }
}
