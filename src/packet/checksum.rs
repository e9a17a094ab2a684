//! Ones-complement checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! A checksum is *complete* when it covers what its protocol says, *partial* when the field holds
//! only the folded pseudo-header sum, not complemented, and the rest is still to be added
//! ([`Vnet::needs_checksum`]). In a partial one only addresses and length count, ports do not.

use std::net::IpAddr;

use super::{Gso, Headers, Vnet, protocol};
use crate::telemetry::DropReason;

const IPV4_CHECKSUM: usize = 10;

/// A ones-complement sum under way, kept in the byte order of the host.
///
/// Cannot overflow below 2^18 pieces of 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit number.
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// Adds what `other` summed.
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds bytes that begin at an even offset of the checksummed part; an odd last one is padded
    /// with zero, so it must be the last.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut lanes = [0u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = self.0 + lanes.iter().sum::<u64>();
        let (words, last) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [byte] = last {
            sum += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        Self(sum)
    }

    /// The sum in 16 bits, as a partial checksum field holds it.
    #[must_use]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1); `len` is
/// that of upper-layer header and data.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: u32) -> Sum {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets())
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => Sum::ZERO,
    };
    addresses.word((len >> 16) as u16).word(len as u16).word(u16::from(protocol))
}

/// The change of a sum when 16-bit words are replaced: equation 3 of RFC 1624, which is right
/// where a sum passes through zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// `old` becomes `new`.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// `old` becomes `new`, both of the same even length and at an even offset.
    #[must_use]
    pub fn bytes(self, old: &[u8], new: &[u8]) -> Self {
        let removed = old.as_chunks::<2>().0.iter();
        let added = new.as_chunks::<2>().0.iter();
        removed.zip(added).fold(self, |delta, (old, new)| {
            delta.word(u16::from_be_bytes(*old), u16::from_be_bytes(*new))
        })
    }

    /// Both changes.
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The complete checksum field after the change.
    #[must_use]
    pub const fn complete(self, field: u16) -> u16 {
        !self.partial(!field)
    }

    /// The partial checksum field (a sum, not complemented) after the change.
    #[must_use]
    pub const fn partial(self, field: u16) -> u16 {
        let mut sum = self.0 + field as u64;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }
}

/// Writes the checksum of an IPv4 header; `header` ends where the header does.
pub fn fill_ipv4(header: &mut [u8]) {
    put(header, IPV4_CHECKSUM, 0);
    let checksum = Sum::ZERO.bytes(header).checksum();
    put(header, IPV4_CHECKSUM, checksum);
}

/// True when the checksum of the IPv4 header is right; IPv6 has none.
pub fn ipv4_is_right(frame: &[u8], headers: &Headers) -> bool {
    headers.is_ipv6() || {
        let len = frame.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
        frame.get(..len).is_some_and(|header| Sum::ZERO.bytes(header).fold() == 0xffff)
    }
}

/// True when the upper-layer checksum lies in the frame only as its pseudo-header sum.
///
/// A partial checksum that begins elsewhere (inside another tunnel's packet) leaves the upper-layer
/// one complete.
pub fn is_partial(headers: &Headers, vnet: &Vnet) -> bool {
    vnet.needs_checksum
        && vnet.checksum_start == headers.l4
        && headers.checksum_at()
            == Some(usize::from(vnet.checksum_start) + usize::from(vnet.checksum_offset))
}

/// The offload header of a single packet whose upper-layer checksum is partial. `None` for what
/// cannot have one that a flag alone describes: a fragment, or neither TCP nor UDP.
pub fn partial_vnet(headers: &Headers) -> Option<Vnet> {
    let (Some(at), None) = (headers.checksum_at(), headers.fragment) else { return None };
    matches!(headers.protocol, protocol::TCP | protocol::UDP).then_some(Vnet {
        needs_checksum: true,
        gso: Gso::None,
        header_len: headers.payload,
        segment_size: 0,
        checksum_start: headers.l4,
        checksum_offset: at as u16 - headers.l4,
    })
}

/// True when the upper-layer checksum is right, or there is none to judge: another protocol, a
/// fragment, or UDP over IPv4 without one. UDP over IPv6 must have one (RFC 8200 section 8.1).
pub fn is_right(frame: &[u8], headers: &Headers) -> bool {
    let (Some(at), None) = (headers.checksum_at(), headers.fragment) else { return true };
    if headers.protocol == protocol::UDP && get(frame, at) == Some(0) {
        return !headers.is_ipv6();
    }
    full_sum(frame, headers).is_some_and(|sum| sum.fold() == 0xffff)
}

/// True for a UDP packet over IPv4 that was sent without a checksum; of one in fragments, for the
/// first one.
pub fn is_absent(frame: &[u8], headers: &Headers, vnet: &Vnet) -> bool {
    headers.protocol == protocol::UDP
        && !headers.is_ipv6()
        && headers.checksum_at().and_then(|at| get(frame, at)) == Some(0)
        && !is_partial(headers, vnet)
}

/// Writes the upper-layer checksum anew, whatever the field held. A protocol without a known one
/// and fragments are left alone.
pub fn complete(frame: &mut [u8], headers: &Headers) {
    let (Some(at), None) = (headers.checksum_at(), headers.fragment) else { return };
    put(frame, at, 0);
    if let Some(sum) = full_sum(frame, headers) {
        put(frame, at, transport_field(headers.protocol, sum.checksum()));
    }
}

/// Completes a partial checksum where `vnet` says: over everything from `checksum_start` to the end
/// of the packet. Without `needs_checksum` nothing happens.
pub fn complete_partial(
    frame: &mut [u8],
    headers: &Headers,
    vnet: &Vnet,
) -> Result<(), DropReason> {
    if !vnet.needs_checksum {
        return Ok(());
    }
    let covered = checked_partial(frame, headers, vnet)?;
    let at = covered.start + usize::from(vnet.checksum_offset);
    let sum = frame.get(covered).map_or(Sum::ZERO, |bytes| Sum::ZERO.bytes(bytes));
    put(frame, at, transport_field(protocol::UDP, sum.checksum()));
    Ok(())
}

/// What a partial checksum covers, if it lies within the upper-layer part of an unfragmented packet.
pub(super) fn checked_partial(
    frame: &[u8],
    headers: &Headers,
    vnet: &Vnet,
) -> Result<std::ops::Range<usize>, DropReason> {
    let start = usize::from(vnet.checksum_start);
    let end = headers.total_len as usize;
    let field_end = start + usize::from(vnet.checksum_offset) + 2;
    let inside = start >= usize::from(headers.l4) && field_end <= end && end <= frame.len();
    if !inside || headers.fragment.is_some() {
        return Err(DropReason::BadOffload);
    }
    Ok(start..end)
}

/// What goes into the field: a UDP checksum of zero would mean that there is none.
pub(super) const fn transport_field(protocol: u8, checksum: u16) -> u16 {
    match (protocol, checksum) {
        (protocol::UDP | protocol::UDP_LITE, 0) => 0xffff,
        (_, checksum) => checksum,
    }
}

/// Puts right what an update makes of an ICMP message over IPv4 that became all zeros, an echo reply
/// of identifier and number 0 without data: it has no pseudo-header, so this sum alone can be
/// a true zero, whose checksum is 0xffff and not the 0 of a sum that passed through zero.
pub(super) fn settle_icmp(message: &mut [u8]) {
    if message.len() >= 4 && message.iter().all(|byte| *byte == 0) {
        put(message, 2, 0xffff);
    }
}

/// The sum over pseudo-header, if the protocol has one, and what the checksum covers.
fn full_sum(frame: &[u8], headers: &Headers) -> Option<Sum> {
    let upper = frame.get(usize::from(headers.l4)..headers.total_len as usize)?;
    let (covered, len) = match headers.protocol {
        protocol::UDP => (usize::from(get(upper, 4)?), usize::from(get(upper, 4)?)),
        protocol::UDP_LITE => match usize::from(get(upper, 4)?) {
            0 => (upper.len(), upper.len()),
            coverage => (coverage, upper.len()),
        },
        _ => (upper.len(), upper.len()),
    };
    let pseudo = if headers.protocol == protocol::ICMP {
        Sum::ZERO
    } else {
        pseudo_header(headers.source, headers.destination, headers.protocol, len as u32)
    };
    Some(pseudo.bytes(upper.get(..covered)?))
}

/// The 16-bit field at `at`.
pub(super) fn get(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// Sets the 16-bit field at `at`; outside of `bytes` nothing happens.
pub(super) fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(word) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *word = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, any_sample, assert_checksums, make_partial};

    /// RFC 1071, as its section 4.1 has it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        assert_eq!(Sum::ZERO.bytes(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_holds() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xFFFF.
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).complete(0xdd2f), 0);
    }

    #[test]
    fn a_udp_packet_without_checksum_is_right_over_ipv4_only() {
        for ipv6 in [false, true] {
            let mut packet = Sample::udp(ipv6, b"data").bytes();
            let headers = Headers::parse(&packet).unwrap();
            assert!(is_right(&packet, &headers));
            put(&mut packet, headers.checksum_at().unwrap(), 0);
            assert_eq!(is_right(&packet, &headers), !ipv6);
        }
    }

    #[test]
    fn a_udp_checksum_that_sums_to_zero_is_sent_as_all_ones() {
        let mut sample = Sample::udp(false, &[0, 0]);
        let field = {
            let packet = sample.bytes();
            get(&packet, Headers::parse(&packet).unwrap().checksum_at().unwrap()).unwrap()
        };
        sample.data = field.to_be_bytes().to_vec();
        let mut packet = sample.bytes();
        let headers = Headers::parse(&packet).unwrap();
        complete(&mut packet, &headers);
        assert_eq!(get(&packet, headers.checksum_at().unwrap()), Some(0xffff));
        assert!(is_right(&packet, &headers));
    }

    #[test]
    fn a_partial_checksum_must_lie_within_the_upper_layer() {
        let mut packet = Sample::udp(false, b"data").bytes();
        let vnet = make_partial(&mut packet);
        let headers = Headers::parse(&packet).unwrap();
        for (start, offset) in [(0, 10), (19, 6), (20, 11), (20, u16::MAX), (u16::MAX, 0)] {
            let wrong = Vnet { checksum_start: start, checksum_offset: offset, ..vnet };
            let result = complete_partial(&mut packet, &headers, &wrong);
            assert_eq!(result, Err(DropReason::BadOffload), "{start}+{offset}");
        }
        assert!(is_partial(&headers, &vnet));
        assert_eq!(complete_partial(&mut packet, &headers, &vnet), Ok(()));
        assert_checksums(&packet);
    }

    proptest! {
        #[test]
        fn wide_sums_equal_naive_ones(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes));
        }

        #[test]
        fn updates_equal_recomputation(
            mut words in prop::collection::vec(prop_oneof![Just(0u16), Just(0xffff), any::<u16>()], 2..6),
            new in prop_oneof![Just(0u16), Just(0xffff), any::<u16>()],
        ) {
            words.push(1); // no sum of a real packet is zero
            let sum = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, &word| sum.word(word));
            let (old, before) = (words[0], sum(&words));
            words[0] = new;
            let after = sum(&words);
            let delta = Delta::NONE.word(old, new);
            prop_assert_eq!(delta.complete(before.checksum()), after.checksum());
            prop_assert_eq!(delta.partial(before.fold()), after.fold());
        }

        #[test]
        fn verification_agrees_with_etherparse(sample in any_sample(), flip in any::<prop::sample::Index>()) {
            let mut packet = sample.bytes();
            let headers = Headers::parse(&packet).unwrap();
            prop_assert!(is_right(&packet, &headers) && ipv4_is_right(&packet, &headers));
            // One flipped bit of the upper layer is always seen.
            let upper = usize::from(headers.payload)..packet.len();
            if !upper.is_empty() {
                let at = upper.start + flip.index(upper.len());
                packet[at] ^= 1;
                prop_assert!(!is_right(&packet, &headers));
                complete(&mut packet, &headers);
                assert_checksums(&packet);
            }
        }

        #[test]
        fn completing_a_partial_checksum_gives_the_full_one(sample in any_sample()) {
            let mut packet = sample.bytes();
            let expected = packet.clone();
            let headers = Headers::parse(&packet).unwrap();
            if headers.icmp.is_none() {
                let vnet = make_partial(&mut packet);
                complete_partial(&mut packet, &headers, &vnet).unwrap();
                assert_checksums(&packet);
                prop_assert!(is_right(&expected, &headers));
            }
        }
    }
}
