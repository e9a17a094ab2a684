//! Cutting a super-packet into the packets a wire would see.
//!
//! As the kernel's own segmentation does: IPv4 identification counts up, TCP sequence numbers move
//! on, FIN and PSH belong to the last packet and CWR to the first (RFC 3168 section 6.1.2), and
//! every packet gets full checksums.

use super::checksum;
use super::vnet::{TCP, VNET_LEN, Vnet};

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Cuts one super-packet, packet by packet.
pub(crate) struct Cutter<'a> {
    packet: &'a [u8],
    protocol: u8,
    l4: usize,
    /// Bytes of all headers.
    headers: usize,
    /// Payload bytes of each packet but the last.
    stride: usize,
    /// Payload bytes that have been given out.
    done: usize,
    number: u16,
}

impl<'a> Cutter<'a> {
    /// Begins to cut; `None` if the offload header does not fit the packet.
    pub(crate) fn new(vnet: &Vnet, packet: &'a [u8]) -> Option<Self> {
        let version = packet.first()? >> 4;
        let protocol = vnet.train_protocol(version)?;
        let l4 = usize::from(vnet.csum_start);
        let least = if version == 4 { 20 } else { 40 };
        if l4 < least || vnet.gso_size == 0 {
            return None;
        }
        let l4_header = match protocol {
            TCP => usize::from(packet.get(l4 + 12)? >> 4) * 4,
            _ => 8,
        };
        let headers = l4 + l4_header;
        if packet.len() <= headers || (protocol == TCP && l4_header < 20) {
            return None;
        }
        let stride = usize::from(vnet.gso_size);
        Some(Self { packet, protocol, l4, headers, stride, done: 0, number: 0 })
    }

    /// Number of packets in all.
    pub(crate) fn packets(&self) -> usize {
        (self.packet.len() - self.headers).div_ceil(self.stride)
    }

    /// IP bytes of the largest packet.
    pub(crate) fn packet_size(&self) -> usize {
        self.headers + self.stride.min(self.packet.len() - self.headers)
    }

    /// IP bytes of all packets together.
    pub(crate) fn total_size(&self) -> usize {
        self.packet.len() + (self.packets() - 1) * self.headers
    }

    /// Writes the next packet into `frame`, behind an empty offload header. False at the end.
    pub(crate) fn next(&mut self, frame: &mut Vec<u8>) -> bool {
        let payload = &self.packet[self.headers + self.done..];
        if payload.is_empty() {
            return false;
        }
        let size = payload.len().min(self.stride);
        frame.clear();
        frame.extend_from_slice(&[0; VNET_LEN]);
        frame.extend_from_slice(&self.packet[..self.headers]);
        frame.extend_from_slice(&payload[..size]);
        self.write_headers(&mut frame[VNET_LEN..], size == payload.len());
        self.done += size;
        self.number = self.number.wrapping_add(1);
        true
    }

    fn write_headers(&self, packet: &mut [u8], last: bool) {
        let length = packet.len();
        let l4 = self.l4;
        if packet[0] >> 4 == 4 {
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(self.number);
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            checksum::write_ipv4(packet);
        } else {
            packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        }
        if self.protocol == TCP {
            let [a, b, c, d] = [4, 5, 6, 7].map(|at| packet[l4 + at]);
            let sequence = u32::from_be_bytes([a, b, c, d]).wrapping_add(self.done as u32);
            packet[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                packet[l4 + 13] &= !FIN_PSH;
            }
            if self.number > 0 {
                packet[l4 + 13] &= !CWR;
            }
        } else {
            packet[l4 + 4..l4 + 6].copy_from_slice(&((length - l4) as u16).to_be_bytes());
        }
        checksum::write_transport(packet, l4, self.protocol);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wan::vnet::{Ip, UDP};
    use proptest::prelude::*;

    /// A TCP or UDP packet with an empty checksum; TCP carries `flags` and 12 bytes of options.
    pub(crate) fn packet(version: u8, protocol: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let l4_header = if protocol == TCP { 32 } else { 8 };
        let l3_header = if version == 4 { 20 } else { 40 };
        let total = l3_header + l4_header + payload.len();
        let mut p = vec![0; l3_header + l4_header];
        if version == 4 {
            p[0] = 0x45;
            p[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            p[4..6].copy_from_slice(&0xfffe_u16.to_be_bytes());
            p[6] = 0x40;
            (p[8], p[9]) = (64, protocol);
            p[12..16].copy_from_slice(&[192, 0, 2, 1]);
            p[16..20].copy_from_slice(&[198, 51, 100, 1]);
        } else {
            p[0] = 0x60;
            p[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
            (p[6], p[7]) = (protocol, 64);
            p[8..10].copy_from_slice(&[0x20, 0x01]);
            p[23] = 1;
            p[24..26].copy_from_slice(&[0x20, 0x01]);
            p[39] = 2;
        }
        let l4 = l3_header;
        p[l4..l4 + 4].copy_from_slice(&[0x12, 0x34, 0x12, 0x66]);
        if protocol == TCP {
            p[l4 + 4..l4 + 8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
            (p[l4 + 12], p[l4 + 13]) = (8 << 4, flags);
            p[l4 + 20..l4 + 32].fill(1);
        } else {
            p[l4 + 4..l4 + 6].copy_from_slice(&((total - l4) as u16).to_be_bytes());
        }
        p.extend_from_slice(payload);
        if version == 4 {
            checksum::write_ipv4(&mut p);
        }
        p
    }

    /// The offload header and packet as the kernel hands them over, with a partial checksum.
    pub(crate) fn train(
        version: u8,
        protocol: u8,
        flags: u8,
        payload: &[u8],
        size: u16,
    ) -> (Vnet, Vec<u8>) {
        let mut p = packet(version, protocol, flags, payload);
        let l4 = if version == 4 { 20 } else { 40 };
        let offset = if protocol == TCP { 16 } else { 6 };
        let partial = checksum::pseudo_header(&p, protocol, p.len() - l4);
        p[l4 + offset..l4 + offset + 2].copy_from_slice(&partial.to_be_bytes());
        let gso_type = match (protocol, version) {
            (TCP, 4) => GSO_TCPV4,
            (TCP, _) => GSO_TCPV6,
            _ => GSO_UDP_L4,
        };
        let vnet = Vnet {
            flags: 1,
            gso_type: if size == 0 { 0 } else { gso_type },
            hdr_len: 0,
            gso_size: size,
            csum_start: l4 as u16,
            csum_offset: offset as u16,
        };
        (vnet, p)
    }

    use crate::wan::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

    fn cut(vnet: &Vnet, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::new(vnet, packet).unwrap();
        let (count, total) = (cutter.packets(), cutter.total_size());
        let mut frame = Vec::new();
        let mut packets = Vec::new();
        while cutter.next(&mut frame) {
            assert_eq!(frame[..VNET_LEN], [0; VNET_LEN]);
            packets.push(frame[VNET_LEN..].to_vec());
        }
        assert_eq!(packets.len(), count);
        assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), total);
        packets
    }

    proptest! {
        #[test]
        fn the_packets_put_together_are_the_super_packet(
            version in prop_oneof![Just(4u8), Just(6)],
            protocol in prop_oneof![Just(TCP), Just(UDP)],
            payload in prop::collection::vec(any::<u8>(), 1..6000),
            size in 1u16..2000,
        ) {
            let (vnet, whole) = train(version, protocol, 0x99, &payload, size);
            let l4 = if version == 4 { 20 } else { 40 };
            let headers = l4 + if protocol == TCP { 32 } else { 8 };
            let packets = cut(&vnet, &whole);
            let mut joined = Vec::new();
            for (number, packet) in packets.iter().enumerate() {
                prop_assert!(checksum::verify(packet), "packet {} of {}", number, packets.len());
                let last = number + 1 == packets.len();
                prop_assert!(last || packet.len() == headers + usize::from(size));
                if version == 4 {
                    let id = u16::from_be_bytes([packet[4], packet[5]]);
                    prop_assert_eq!(id, 0xfffe_u16.wrapping_add(number as u16));
                }
                if protocol == TCP {
                    let sequence = packet[l4 + 4..l4 + 8].try_into().unwrap();
                    let expected = 0xffff_ff00_u32.wrapping_add(joined.len() as u32);
                    prop_assert_eq!(u32::from_be_bytes(sequence), expected);
                    let flags = 0x10 | if last { 0x09 } else { 0 } | if number == 0 { 0x80 } else { 0 };
                    prop_assert_eq!(packet[l4 + 13], flags);
                    prop_assert_eq!(&packet[l4 + 20..headers], &whole[l4 + 20..headers]);
                } else {
                    let length = u16::from_be_bytes([packet[l4 + 4], packet[l4 + 5]]);
                    prop_assert_eq!(usize::from(length), packet.len() - l4);
                }
                prop_assert_eq!(&packet[12..20], &whole[12..20]);
                joined.extend_from_slice(&packet[headers..]);
            }
            prop_assert_eq!(joined, payload);
        }

        #[test]
        fn lying_headers_are_refused_without_panic(
            mut packet in prop::collection::vec(any::<u8>(), 0..120),
            version in prop_oneof![Just(0x45u8), Just(0x60)],
            gso_type in any::<u8>(), gso_size in 0u16..80, csum_start in 0u16..140,
        ) {
            if let Some(first) = packet.first_mut() {
                *first = version;
            }
            let vnet = Vnet {
                flags: 1, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset: 6,
            };
            if let Some(mut cutter) = Cutter::new(&vnet, &packet) {
                let mut frame = Vec::new();
                while cutter.next(&mut frame) {}
            }
            let _ = checksum::complete(&vnet, &mut packet);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for (version, protocol) in [(4, TCP), (4, UDP), (6, TCP), (6, UDP)] {
            let (vnet, mut whole) = train(version, protocol, 0x18, b"some payload of odd size!", 0);
            assert!(!checksum::verify(&whole));
            checksum::complete(&vnet, &mut whole).unwrap();
            assert!(checksum::verify(&whole));
            assert!(Ip::parse(&whole).is_some());
        }
    }
}
