//! Packets of simulated hosts: each is recognised wherever it comes out, and every bit of it is
//! known.

use std::net::Ipv4Addr;

use super::audit::MARK;
use crate::packet::{Headers, checksum, protocol};

/// Headers, mark and id: the shortest packet.
pub const LEN_MIN: usize = HEADERS + MARK.len() + 8;
const HEADERS: usize = 28;

/// An address and a port.
pub type Endpoint = (Ipv4Addr, u16);

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
    let len = len.max(LEN_MIN);
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = protocol::UDP;
    packet[12..16].copy_from_slice(&from.0.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    checksum::fill_ipv4(&mut packet[..20]);
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[24..26].copy_from_slice(&(len as u16 - 20).to_be_bytes());
    packet[HEADERS..HEADERS + 8].copy_from_slice(&MARK);
    packet[HEADERS + 8..LEN_MIN].copy_from_slice(&id.to_be_bytes());
    for (at, byte) in packet[LEN_MIN..].iter_mut().enumerate() {
        *byte = filling(id, at);
    }
    if let Ok(headers) = Headers::parse(&packet) {
        checksum::complete(&mut packet, &headers);
    }
    packet
}

/// Byte `at` behind the id.
const fn filling(id: u64, at: usize) -> u8 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ (at as u8).wrapping_mul(29)
}

/// Reads a packet made by [`packet`]. `Ok(None)` when it is none (an ICMP error, a fragment); an
/// error when it was changed on the way.
pub fn open(packet: &[u8]) -> Result<Option<Letter>, &'static str> {
    let headers = Headers::parse(packet).map_err(|_| "does not parse")?;
    if headers.protocol != protocol::UDP || headers.fragment.is_some() || packet.len() < LEN_MIN {
        return Ok(None);
    }
    if !checksum::ipv4_is_right(packet, &headers) || !checksum::is_right(packet, &headers) {
        return Err("has a wrong checksum");
    }
    let address = |at: usize| -> Ipv4Addr {
        [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]].into()
    };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[HEADERS..HEADERS + 8] != MARK {
        return Err("is not what a host sent");
    }
    let id = packet[HEADERS + 8..LEN_MIN].iter().fold(0, |id, &byte| id << 8 | u64::from(byte));
    if packet[LEN_MIN..].iter().enumerate().any(|(at, &byte)| byte != filling(id, at)) {
        return Err("was changed");
    }
    Ok(Some(Letter { from: (address(12), port(20)), to: (address(16), port(22)), id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_packet_is_noticed() {
        let (from, to) = (([10, 1, 0, 5].into(), 7), ([10, 2, 0, 5].into(), 9));
        let original = packet(from, to, 77, 300);
        assert_eq!(open(&original), Ok(Some(Letter { from, to, id: 77 })));
        for bit in 0..300 * 8 {
            let mut changed = original.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(open(&changed), open(&original), "bit {bit}");
        }
    }
}
