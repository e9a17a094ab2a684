//! Internet checksums (RFC 1071).

use super::vnet::{Ip, TCP, UDP, Vnet};

/// The ones' complement sum of `bytes`, folded to 16 bits, on top of `start`.
pub(crate) fn sum(bytes: &[u8], start: u16) -> u16 {
    let mut total = u64::from(start);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut rest = [0; 4];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    total += u64::from(u32::from_be_bytes(rest));
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum of the pseudo-header of `packet` for `length` bytes of `protocol`.
pub(crate) fn pseudo_header(packet: &[u8], protocol: u8, length: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let [_, _, high, low] = (length as u32).to_be_bytes();
    sum(&[0, protocol, high, low], sum(addresses, 0))
}

/// Writes the IPv4 header checksum.
pub(crate) fn write_ipv4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let checksum = !sum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes the TCP or UDP checksum of a packet whose transport header begins at `l4`.
pub(crate) fn write_transport(packet: &mut [u8], l4: usize, protocol: u8) {
    let at = l4 + if protocol == TCP { 16 } else { 6 };
    packet[at..at + 2].fill(0);
    let pseudo = pseudo_header(packet, protocol, packet.len() - l4);
    let checksum = match !sum(&packet[l4..], pseudo) {
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Finishes a checksum that the kernel left to us. `None` if the header points outside the packet.
pub(crate) fn complete(vnet: &Vnet, packet: &mut [u8]) -> Option<()> {
    if !vnet.needs_checksum() {
        return Some(());
    }
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    if at + 2 > packet.len() {
        return None;
    }
    let checksum = match !sum(&packet[start..], 0) {
        // Zero would mean "none" in UDP; TCP may carry either form of zero.
        0 => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Where the transport header of an unfragmented TCP or UDP packet without IPv6 extension headers
/// begins, and which it is.
pub(crate) fn transport(packet: &[u8], ip: &Ip) -> Option<(usize, u8)> {
    let fragment = ip.is_v4() && (packet[6] & 0x3f != 0 || packet[7] != 0);
    let least = match ip.protocol {
        TCP => 20,
        UDP => 8,
        _ => return None,
    };
    (!fragment && packet.len() >= ip.header + least).then_some((ip.header, ip.protocol))
}

/// True if all checksums of a packet are right.
#[cfg(test)]
pub(crate) fn verify(packet: &[u8]) -> bool {
    let Some(ip) = Ip::parse(packet) else { return false };
    let header = !ip.is_v4() || sum(&packet[..ip.header], 0) == 0xffff;
    let body = &packet[ip.header..];
    let payload = match ip.protocol {
        TCP | UDP | 58 => sum(body, pseudo_header(packet, ip.protocol, body.len())) == 0xffff,
        1 => sum(body, 0) == 0xffff,
        _ => true,
    };
    header && payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), 0xddf2);
        assert_eq!(sum(&[0x12, 0x34, 0x56], 0), 0x1234 + 0x5600);
    }

    proptest! {
        #[test]
        fn equals_the_plain_definition(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut total = 0u32;
            for (n, byte) in bytes.iter().enumerate() {
                total += u32::from(*byte) << (8 * ((n + 1) % 2));
                total = (total & 0xffff) + (total >> 16);
            }
            prop_assert_eq!(u32::from(sum(&bytes, 0)), total);
        }
    }
}
