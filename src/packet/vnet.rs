//! The virtio-net header in front of every frame of a TUN with offload (`IFF_VNET_HDR`).
//!
//! Layout and constants: Virtual I/O Device (VIRTIO) Version 1.2, section 5.1.6; 10 bytes, without
//! `num_buffers`, in the byte order of the host.

use crate::telemetry::DropReason;

/// Length of the header.
pub const VNET_LEN: usize = 10;

const FLAG_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// One ordinary packet.
    #[default]
    None,
    /// A TCP super-packet over IPv4 or IPv6 (which of them, the IP header says).
    Tcp {
        /// CWR may be set on the first segment.
        ecn: bool,
    },
    /// A UDP super-packet: equal datagrams, the last one may be shorter.
    Udp,
}

/// The parsed virtio-net header. The default is an ordinary packet with complete checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// The checksum at `checksum_start + checksum_offset` covers only the pseudo-header and must
    /// be completed over everything from `checksum_start`.
    pub needs_checksum: bool,
    /// Kind of super-packet.
    pub gso: Gso,
    /// Length of all headers; a hint that must not be trusted.
    pub header_len: u16,
    /// Payload bytes in each segment of a super-packet.
    pub segment_size: u16,
    /// Where the checksummed part begins, from the start of the IP header.
    pub checksum_start: u16,
    /// Where in that part the checksum lies.
    pub checksum_offset: u16,
}

impl Vnet {
    /// Reads the header in front of a frame.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let bytes: &[u8; VNET_LEN] = bytes.first_chunk().ok_or(DropReason::BadOffload)?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let gso = match bytes[1] & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 | GSO_TCPV6 => Gso::Tcp { ecn: bytes[1] & GSO_ECN != 0 },
            GSO_UDP_L4 => Gso::Udp,
            _ => return Err(DropReason::BadOffload),
        };
        Ok(Self {
            needs_checksum: bytes[0] & FLAG_NEEDS_CSUM != 0,
            gso,
            header_len: word(2),
            segment_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        })
    }

    /// The header's bytes, for a frame of the given IP version.
    pub fn emit(&self, ipv6: bool) -> [u8; VNET_LEN] {
        let mut bytes = [0; VNET_LEN];
        bytes[0] = if self.needs_checksum { FLAG_NEEDS_CSUM } else { 0 };
        bytes[1] = match self.gso {
            Gso::None => GSO_NONE,
            Gso::Tcp { ecn } => {
                (if ipv6 { GSO_TCPV6 } else { GSO_TCPV4 }) | if ecn { GSO_ECN } else { 0 }
            }
            Gso::Udp => GSO_UDP_L4,
        };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        for gso in [Gso::None, Gso::Tcp { ecn: true }, Gso::Tcp { ecn: false }, Gso::Udp] {
            for ipv6 in [false, true] {
                let vnet = Vnet {
                    needs_checksum: true,
                    gso,
                    header_len: 52,
                    segment_size: 1340,
                    checksum_start: 20,
                    checksum_offset: 16,
                };
                assert_eq!(Vnet::parse(&vnet.emit(ipv6)), Ok(vnet));
            }
        }
    }

    #[test]
    fn short_and_unknown_headers_are_refused() {
        assert_eq!(Vnet::parse(&[0; 9]), Err(DropReason::BadOffload));
        assert_eq!(Vnet::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::BadOffload));
    }
}
