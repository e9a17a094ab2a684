//! A TCP segment as an IP packet.

use crate::packet::{Headers, checksum, protocol, tcp_flag};
use crate::sim::audit::MARK;
use crate::sim::host::{self, Endpoint};

/// What fits into the MTU of nearly every tunnel; the gateway may ask for less.
pub(super) const MSS: u16 = 1_340;
const HEADER_LEN: usize = 20;
const OPTION_LEN: usize = 4;
const WINDOW: u16 = u16::MAX;

/// What a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: Endpoint,
    pub(super) to: Endpoint,
    /// Of the first byte, modulo 2^32.
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// In a SYN.
    pub(super) mss: Option<u16>,
    pub(super) payload: Vec<u8>,
}

impl Segment {
    /// The IP packet with it.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut packet = host::ip_header(self.from, self.to, protocol::TCP);
        let options = if self.mss.is_some() { OPTION_LEN } else { 0 };
        packet.extend(self.from.1.to_be_bytes());
        packet.extend(self.to.1.to_be_bytes());
        packet.extend(self.seq.to_be_bytes());
        packet.extend(self.ack.to_be_bytes());
        packet.extend([((HEADER_LEN + options) as u8) << 2, self.flags]);
        packet.extend(WINDOW.to_be_bytes());
        packet.extend([0; 4]);
        if let Some(mss) = self.mss {
            packet.extend([2, OPTION_LEN as u8]);
            packet.extend(mss.to_be_bytes());
        }
        packet.extend(&self.payload);
        host::set_ip_length(&mut packet);
        if let Ok(headers) = Headers::parse(&packet) {
            checksum::complete(&mut packet, &headers);
        }
        packet
    }

    /// Reads a packet. `None` when it has no TCP; an error when it is damaged.
    pub(super) fn parse(packet: &[u8]) -> Result<Option<Self>, &'static str> {
        let Ok(headers) = Headers::parse(packet) else { return Err("does not parse") };
        let Some(ports) = headers.ports.filter(|_| headers.protocol == protocol::TCP) else {
            return Ok(None);
        };
        if !checksum::ipv4_is_right(packet, &headers) || !checksum::is_right(packet, &headers) {
            return Err("has a wrong checksum");
        }
        let (l4, payload) = (usize::from(headers.l4), usize::from(headers.payload));
        let header = packet.get(l4..payload).filter(|header| header.len() >= HEADER_LEN);
        let Some(header) = header else { return Err("has no whole header") };
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let option = header.get(HEADER_LEN..HEADER_LEN + OPTION_LEN);
        let option = option.filter(|option| option[..2] == [2, OPTION_LEN as u8]);
        Ok(Some(Self {
            from: (headers.source, ports.src),
            to: (headers.destination, ports.dst),
            seq: word(4),
            ack: word(8),
            flags: headers.tcp_flags,
            mss: option.map(|option| u16::from_be_bytes([option[2], option[3]])),
            payload: packet.get(payload..headers.total_len as usize).unwrap_or_default().to_vec(),
        }))
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_syn(&self) -> bool {
        self.has(tcp_flag::SYN)
    }
}

/// Byte `at` of the stream with this key: half of them the mark by which plaintext is recognised.
pub(super) const fn byte(key: u64, at: u64) -> u8 {
    let place = (at % 16) as usize;
    if place < MARK.len() {
        return MARK[place];
    }
    (key ^ (at >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()[place - MARK.len()]
}

/// Bytes of a stream.
pub(super) fn bytes(key: u64, range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|at| byte(key, at)).collect()
}

/// The place in a stream that a number modulo 2^32 means, near the one that is expected.
pub(super) const fn near(expected: u64, wire: u32) -> u64 {
    let ahead = wire.wrapping_sub(expected as u32) as i32;
    expected.saturating_add_signed(ahead as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_as_it_was_written_and_damage_is_noticed() {
        for text in [["10.1.0.5", "10.2.0.5"], ["fd01::5", "fd02::5"]] {
            let [from, to] = text.map(|text| (text.parse().unwrap(), 80));
            let (seq, ack, flags) = (7, 9, tcp_flag::SYN | tcp_flag::ACK);
            let segment =
                Segment { from, to, seq, ack, flags, mss: Some(1_000), payload: bytes(3, 5..90) };
            let mut packet = segment.emit();
            assert_eq!(Segment::parse(&packet), Ok(Some(segment)));
            let last = packet.len() - 1;
            packet[last] ^= 4;
            assert!(Segment::parse(&packet).is_err());
        }
    }

    #[test]
    fn places_are_found_again_across_the_wrap() {
        for expected in [0, 5, 0xffff_fff0, 0x1_0000_0003_u64] {
            for ahead in [0, 1, 70_000_u64] {
                let place = expected + ahead;
                assert_eq!(near(expected, place as u32), place);
            }
        }
        assert_eq!(near(0x1_0000_0003, 0xffff_fffd), 0xffff_fffd);
        assert!(bytes(1, 3..40).windows(8).any(|window| window == MARK));
    }
}
