//! Views of what a TUN with offload hands over: a virtio header, then an IP packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the header in front of every frame (`struct virtio_net_hdr`).
pub(crate) const VNET_LEN: usize = 10;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

const NEEDS_CSUM: u8 = 1;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The offload header of a frame (virtio 1.2, section 5.1.6), in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vnet {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

impl Vnet {
    /// Splits a frame into its header and its packet.
    pub(crate) fn split(frame: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, packet) = frame.split_first_chunk_mut::<VNET_LEN>()?;
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let vnet = Self {
            flags: header[0],
            gso_type: header[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        };
        Some((vnet, packet))
    }

    /// The header's bytes.
    #[cfg(test)]
    pub(crate) fn bytes(self) -> [u8; VNET_LEN] {
        let mut bytes = [0; VNET_LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (word, place) in words.iter().zip(bytes[2..].chunks_exact_mut(2)) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// True if the frame is a super-packet.
    pub(crate) fn is_train(&self) -> bool {
        self.gso_type & !GSO_ECN != 0
    }

    /// The transport protocol of a super-packet, if it is of a kind we asked for.
    pub(crate) fn train_protocol(&self, version: u8) -> Option<u8> {
        match (self.gso_type & !GSO_ECN, version) {
            (GSO_TCPV4, 4) | (GSO_TCPV6, 6) => Some(TCP),
            (GSO_UDP_L4, 4 | 6) => Some(UDP),
            _ => None,
        }
    }

    /// True if the transport checksum covers only the pseudo-header so far.
    pub(crate) fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

/// What the emulator must know of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Bytes of the header; for IPv6 of the fixed part.
    pub(crate) header: usize,
    /// The protocol, or for IPv6 the first next header.
    pub(crate) protocol: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
}

impl Ip {
    /// Reads the header of a whole packet; `None` if it is none or its length is wrong.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let h = packet.first_chunk::<20>()?;
        let header = usize::from(h[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if header < 20 || packet.len() < header || total != packet.len() {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(h[12], h[13], h[14], h[15]).into(),
            destination: Ipv4Addr::new(h[16], h[17], h[18], h[19]).into(),
            header,
            protocol: h[9],
            ttl: h[8],
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let h = packet.first_chunk::<40>()?;
        let payload = usize::from(u16::from_be_bytes([h[4], h[5]]));
        if payload + 40 != packet.len() {
            return None;
        }
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&h[at..at + 16]);
            IpAddr::from(Ipv6Addr::from(bytes))
        };
        Some(Self {
            source: address(8),
            destination: address(24),
            header: 40,
            protocol: h[6],
            ttl: h[7],
        })
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }
}

/// True if routers may not cut the packet: IPv6, or IPv4 with "don't fragment".
pub(crate) fn must_stay_whole(packet: &[u8]) -> bool {
    packet[0] >> 4 != 4 || packet[6] & 0x40 != 0
}
