use proptest::prelude::*;

use super::*;
use crate::packet::Fragmenter;
use crate::packet::testing::{Sample, Upper, any_sample, assert_checksums, make_partial};

const V4: Ends<Ipv4Addr> =
    Ends { source: Ipv4Addr::new(198, 51, 100, 4), destination: Ipv4Addr::new(203, 0, 113, 80) };

fn v6() -> Ends<Ipv6Addr> {
    Ends {
        source: "64:ff9b::cb00:7150".parse().unwrap(),
        destination: "fd00:2::5".parse().unwrap(),
    }
}

fn there(packet: &[u8], vnet: &Vnet) -> Result<(Vec<u8>, Vnet), DropReason> {
    let headers = Headers::parse(packet).unwrap();
    let mut out = Vec::new();
    let vnet = if headers.is_ipv6() {
        to_ipv4(&mut out, packet, &headers, vnet, V4)?
    } else {
        to_ipv6(&mut out, packet, &headers, vnet, v6())?
    };
    Ok((out, vnet))
}

/// An error about the packet, from a router of its family.
fn error_about(packet: &[u8], kind: [u8; 2], word: u32) -> Vec<u8> {
    let inner = Headers::parse(packet).unwrap();
    let mut error = Sample::new(inner.is_ipv6(), Upper::EchoReply, packet);
    error.destination = inner.source;
    let mut bytes = error.bytes();
    let at = if inner.is_ipv6() { 40 } else { 20 };
    bytes[at..at + 2].copy_from_slice(&kind);
    bytes[at + 4..at + 8].copy_from_slice(&word.to_be_bytes());
    let headers = Headers::parse(&bytes).unwrap();
    checksum::complete(&mut bytes, &headers);
    bytes
}

proptest! {
    #[test]
    fn the_other_family_has_the_same_payload_and_right_checksums(sample in any_sample()) {
        let packet = sample.bytes();
        let headers = Headers::parse(&packet).unwrap();
        let (turned, vnet) = there(&packet, &Vnet::default()).unwrap();
        assert_checksums(&turned);
        let after = Headers::parse(&turned).unwrap();
        prop_assert_eq!(vnet, Vnet::default());
        prop_assert_eq!(after.is_ipv6(), !headers.is_ipv6());
        prop_assert_eq!((after.ports, after.tcp_flags), (headers.ports, headers.tcp_flags));
        prop_assert_eq!((after.tos, after.hop_limit), (headers.tos, headers.hop_limit));
        prop_assert_eq!(&turned[usize::from(after.payload)..], &sample.data[..]);

        // And back with the ends that it had: the same upper layer, byte for byte.
        let mut back = Vec::new();
        match (headers.source, headers.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ends = Ends { source, destination };
                to_ipv4(&mut back, &turned, &after, &vnet, ends).unwrap();
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ends = Ends { source, destination };
                to_ipv6(&mut back, &turned, &after, &vnet, ends).unwrap();
            }
            _ => unreachable!("one family"),
        }
        assert_checksums(&back);
        let again = Headers::parse(&back).unwrap();
        prop_assert_eq!((again.source, again.destination), (headers.source, headers.destination));
    }

    #[test]
    fn a_partial_checksum_stays_partial_and_comes_out_right(sample in any_sample()) {
        prop_assume!(!matches!(sample.upper, Upper::EchoRequest | Upper::EchoReply));
        let mut packet = sample.bytes();
        let vnet = make_partial(&mut packet);
        let (mut turned, vnet) = there(&packet, &vnet).unwrap();
        let after = Headers::parse(&turned).unwrap();
        checksum::complete_partial(&mut turned, &after, &vnet).unwrap();
        // The kernel writes 0xffff for a TCP sum of zero as well; both are right.
        prop_assert!(checksum::is_right(&turned, &after));
    }

    #[test]
    fn errors_quote_what_the_host_knows(sample in any_sample(), code in 0u8..2) {
        let mut sample = sample;
        if let Upper::EchoReply = sample.upper {
            sample.upper = Upper::EchoRequest;
        }
        let packet = sample.bytes();
        let inner = Headers::parse(&packet).unwrap();
        let kind = if inner.is_ipv6() { 3 } else { 11 };
        let error = error_about(&packet, [kind, code], 0);
        let headers = Headers::parse(&error).unwrap();
        let mut out = Vec::new();
        if inner.is_ipv6() {
            error_to_ipv4(&mut out, &error, &headers, V4, V4).unwrap();
        } else {
            error_to_ipv6(&mut out, &error, &headers, v6(), v6()).unwrap();
        }
        let after = Headers::parse(&out).unwrap();
        let expected = if inner.is_ipv6() { 11 } else { 3 };
        prop_assert_eq!((out[usize::from(after.l4)], out[usize::from(after.l4) + 1]), (expected, code));
        prop_assert!(checksum::is_right(&out, &after));
        let quoted = rewrite::quoted(&out, &after).unwrap();
        prop_assert_eq!(quoted.ports, inner.ports);
        // What is quoted is the packet as its sender would have made it.
        let (whole, _) = there(&packet, &Vnet::default()).unwrap();
        let quote = &out[usize::from(after.payload)..];
        let l4 = usize::from(quoted.l4);
        prop_assert_eq!(&quote[l4..], &whole[l4..][..quote.len() - l4]);
    }

    #[test]
    fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..120), first in prop_oneof![Just(0x45u8), Just(0x60)]) {
        let mut frame = frame;
        if let Some(byte) = frame.first_mut() {
            *byte = first;
        }
        if let Ok(headers) = Headers::parse(&frame) {
            let mut out = Vec::new();
            let _ = to_ipv4(&mut out, &frame, &headers, &Vnet::default(), V4);
            let _ = to_ipv6(&mut out, &frame, &headers, &Vnet::default(), v6());
            let _ = error_to_ipv4(&mut out, &frame, &headers, V4, V4);
            let _ = error_to_ipv6(&mut out, &frame, &headers, v6(), v6());
        }
    }
}

#[test]
fn fragments_stay_fragments_and_make_up_the_packet() {
    let mut sample = Sample::udp(false, &[7; 3_000]);
    sample.dont_fragment = false;
    let packet = sample.bytes();
    let (whole, _) = there(&packet, &Vnet::default()).unwrap();
    let headers = Headers::parse(&packet).unwrap();
    let pieces = Fragmenter::new(&packet, &headers, 1_000).unwrap();
    let (mut joined, mut joined_v4) = (Vec::new(), Vec::new());
    for index in 0..pieces.count() {
        let mut piece = vec![0; pieces.fragment_len(index)];
        pieces.write(index, &mut piece);
        let before = Headers::parse(&piece).unwrap();
        let (turned, _) = there(&piece, &Vnet::default()).unwrap();
        let after = Headers::parse(&turned).unwrap();
        assert_eq!(after.fragment, before.fragment);
        assert_eq!(after.protocol, protocol::UDP);
        joined.extend_from_slice(&turned[usize::from(after.l4)..]);
        // And back.
        let (again, _) = there(&turned, &Vnet::default()).unwrap();
        let again_headers = Headers::parse(&again).unwrap();
        assert_eq!(again_headers.fragment, before.fragment);
        joined_v4.extend_from_slice(&again[20..]);
    }
    assert_eq!(joined, whole[40..], "and its checksum is that of the whole");
    assert_eq!(joined_v4.len(), 3_008);
}

#[test]
fn a_super_packet_is_one_in_the_other_family() {
    // Segments of 1,260 bytes and less may be taken apart on their way, as single packets may.
    for (segment_size, whole) in [(1_220, false), (1_221, true)] {
        let mut packet = Sample::tcp(true, 1, 0x10, &[9; 5_000]).bytes();
        let vnet = Vnet {
            gso: Gso::Tcp { ecn: false },
            segment_size,
            header_len: 60,
            ..make_partial(&mut packet)
        };
        let (turned, after) = there(&packet, &vnet).unwrap();
        let expected = Vnet { header_len: 40, checksum_start: 20, ..vnet };
        assert_eq!(after, expected);
        let headers = Headers::parse(&turned).unwrap();
        assert_eq!(headers.dont_fragment, whole);
        assert!(checksum::is_partial(&headers, &after));
    }
}

#[test]
fn a_datagram_without_checksum_gets_one_unless_it_is_a_fragment() {
    let mut packet = Sample::udp(false, b"data").bytes();
    put(&mut packet, 26, 0);
    let (turned, _) = there(&packet, &Vnet::default()).unwrap();
    assert_checksums(&turned);
    assert_ne!(get(&turned, 46), Some(0));
    packet[6] = 0x20;
    checksum::fill_ipv4(&mut packet[..20]);
    assert_eq!(there(&packet, &Vnet::default()), Err(DropReason::BadChecksum));
}

#[test]
fn sizes_and_reasons_of_errors_mean_the_same() {
    let v4 = Sample::udp(false, &[1; 2_000]).bytes();
    let turn = |error: Vec<u8>| {
        let headers = Headers::parse(&error).unwrap();
        let mut out = Vec::new();
        let done = if headers.is_ipv6() {
            error_to_ipv4(&mut out, &error, &headers, V4, V4)
        } else {
            error_to_ipv6(&mut out, &error, &headers, v6(), v6())
        };
        let at = if headers.is_ipv6() { 20 } else { 40 };
        done.map(|()| {
            (out[at], out[at + 1], u32::from_be_bytes(out[at + 4..at + 8].try_into().unwrap()))
        })
    };
    // RFC 7915 section 4.2: never below 1280; a router that does not tell is guessed at.
    assert_eq!(turn(error_about(&v4, [3, 4], 1_400)), Ok((2, 0, 1_420)));
    assert_eq!(turn(error_about(&v4, [3, 4], 576)), Ok((2, 0, 1_280)));
    assert_eq!(turn(error_about(&v4, [3, 4], 0)), Ok((2, 0, 2_022)));
    assert_eq!(turn(error_about(&v4, [3, 3], 0)), Ok((1, 4, 0)));
    assert_eq!(turn(error_about(&v4, [3, 2], 0)), Ok((4, 1, 6)));
    assert_eq!(turn(error_about(&v4, [3, 13], 0)), Ok((1, 1, 0)));
    assert_eq!(turn(error_about(&v4, [12, 0], 8 << 24)), Ok((4, 0, 7)));
    assert_eq!(turn(error_about(&v4, [5, 0], 0)), Err(DropReason::UnsupportedProtocol));
    let v6 = Sample::udp(true, &[1; 1_000]).bytes();
    assert_eq!(turn(error_about(&v6, [2, 0], 1_280)), Ok((3, 4, 1_260)));
    assert_eq!(turn(error_about(&v6, [1, 4], 0)), Ok((3, 3, 0)));
    assert_eq!(turn(error_about(&v6, [1, 1], 0)), Ok((3, 10, 0)));
    assert_eq!(turn(error_about(&v6, [4, 0], 7)), Ok((12, 0, 8 << 24)));
    assert_eq!(turn(error_about(&v6, [4, 2], 7)), Err(DropReason::UnsupportedProtocol));
    // A long one is cut to what such an error may have.
    let long = error_about(&v6, [1, 4], 0);
    let mut out = Vec::new();
    error_to_ipv4(&mut out, &long, &Headers::parse(&long).unwrap(), V4, V4).unwrap();
    assert_eq!(out.len(), 576);
}

#[test]
fn extensions_of_an_error_are_left_out() {
    let inner = Sample::udp(false, &[1; 100]).bytes();
    let mut error = error_about(&inner, [3, 13], 0);
    error[25] = 32;
    error.extend_from_slice(&[0; 12]);
    let total = error.len() as u16;
    put(&mut error, 2, total);
    checksum::fill_ipv4(&mut error[..20]);
    let headers = Headers::parse(&error).unwrap();
    checksum::complete(&mut error, &headers);
    let mut out = Vec::new();
    error_to_ipv6(&mut out, &error, &headers, v6(), v6()).unwrap();
    assert_eq!(out.len(), 40 + 8 + 20 + 128, "the quote alone, its header longer by 20");
}

#[test]
fn packets_with_further_places_to_go_are_refused() {
    let plain = Sample::udp(true, b"data").bytes();
    let with_routing = |left: u8| {
        let mut packet = plain[..40].to_vec();
        packet[6] = ROUTING;
        let len = get(&packet, 4).unwrap() + 8;
        put(&mut packet, 4, len);
        packet.extend_from_slice(&[protocol::UDP, 0, 2, left, 0, 0, 0, 0]);
        packet.extend_from_slice(&plain[40..]);
        packet
    };
    assert_eq!(there(&with_routing(1), &Vnet::default()), Err(DropReason::Malformed));
    assert_eq!(there(&with_routing(0), &Vnet::default()), there(&plain, &Vnet::default()));
}
