//! IPv4 fragmentation (RFC 791), for packets that allow it on links with a small MTU.

use super::checksum;
use super::vnet::VNET_LEN;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Cuts an IPv4 packet with a finished checksum into frames of at most `mtu` IP bytes. Options are
/// repeated in every fragment.
pub(crate) fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(packet[0] & 15) * 4;
    let stride = ((mtu - header) & !7).max(8);
    let field = u16::from_be_bytes([packet[6], packet[7]]);
    let (base, more) = (field & OFFSET_MASK, field & MORE_FRAGMENTS);
    let payload = &packet[header..];
    let mut frames = Vec::with_capacity(payload.len().div_ceil(stride));
    for (number, piece) in payload.chunks(stride).enumerate() {
        let last = (number + 1) * stride >= payload.len();
        let offset = base + (number * stride / 8) as u16;
        let field = offset | if last { more } else { MORE_FRAGMENTS };
        let mut frame = vec![0; VNET_LEN];
        frame.extend_from_slice(&packet[..header]);
        frame.extend_from_slice(piece);
        let fragment = &mut frame[VNET_LEN..];
        let length = (header + piece.len()) as u16;
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        checksum::write_ipv4(fragment);
        frames.push(frame);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::segment::tests::packet;
    use crate::wan::vnet::{Ip, UDP};
    use proptest::prelude::*;

    fn joined(frames: &[Vec<u8>], mtu: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, frame) in frames.iter().enumerate() {
            let fragment = &frame[VNET_LEN..];
            assert!(fragment.len() <= mtu);
            let ip = Ip::parse(fragment).unwrap();
            assert_eq!(checksum::sum(&fragment[..ip.header], 0), 0xffff);
            let field = u16::from_be_bytes([fragment[6], fragment[7]]);
            assert_eq!(usize::from(field & OFFSET_MASK) * 8, payload.len());
            assert_eq!(field & MORE_FRAGMENTS != 0, number + 1 < frames.len());
            payload.extend_from_slice(&fragment[ip.header..]);
        }
        payload
    }

    proptest! {
        #[test]
        fn fragments_put_together_are_the_packet(size in 0usize..4000, mtu in 68usize..1500) {
            let mut whole = packet(4, UDP, 0, &vec![7; size]);
            whole[6] = 0;
            let frames = cut(&whole, mtu);
            prop_assert_eq!(joined(&frames, mtu), &whole[20..]);
            // A second, smaller link cuts the fragments again.
            let smaller = (mtu / 2).max(68);
            let again: Vec<Vec<u8>> =
                frames.iter().flat_map(|frame| cut(&frame[VNET_LEN..], smaller)).collect();
            prop_assert_eq!(joined(&again, smaller), &whole[20..]);
        }
    }
}
