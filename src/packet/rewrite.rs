//! Changes to a packet in place; every checksum follows incrementally.
//!
//! All functions take the frame together with the [`Headers`] parsed from it and change only bytes:
//! the headers keep the old values, and whoever goes on with them updates or parses them. Where a
//! [`Vnet`] is asked for, it is the one the frame came with: in a partial checksum ports do not
//! count. Of a super-packet that lies in pieces the first one, with all the headers, suffices where
//! no quoted packet is asked about. After an error nothing was changed.

use std::net::IpAddr;

use super::checksum::{self, Delta, get, put};
use super::{Ecn, Headers, IcmpKind, Vnet, protocol, tcp_flag};
use crate::telemetry::DropReason;

const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;
const TCP_HEADER_LEN: usize = 20;
const MSS_OPTION: u8 = 2;
const MSS_OPTION_LEN: u8 = 4;

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Gives the packet another source: an address of the same family, and a port or ICMP query
/// identifier. `None` leaves the port, and is the only choice for a later fragment.
pub fn set_source(
    frame: &mut [u8],
    headers: &Headers,
    vnet: &Vnet,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    set_end(frame, headers, vnet, End::Source, address, port)
}

/// Gives the packet another destination; else as [`set_source`].
pub fn set_destination(
    frame: &mut [u8],
    headers: &Headers,
    vnet: &Vnet,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    set_end(frame, headers, vnet, End::Destination, address, port)
}

/// Gives the packet that an ICMP error quotes another source, for an error on its way in to the
/// host that sent the quoted packet (RFC 5508 section 4.2).
///
/// A quoted checksum is changed when it is there; the error's own one always. What the quote is
/// about is found with [`quoted`].
pub fn set_quoted_source(
    frame: &mut [u8],
    headers: &Headers,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    set_quoted_end(frame, headers, End::Source, address, port)
}

/// Gives the packet that an ICMP error quotes another destination, for an error that the receiver
/// of the quoted packet sends out; else as [`set_quoted_source`].
pub fn set_quoted_destination(
    frame: &mut [u8],
    headers: &Headers,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    set_quoted_end(frame, headers, End::Destination, address, port)
}

/// The headers of the packet that an ICMP error is about. Their offsets count from
/// [`Headers::payload`] of the error.
pub fn quoted(frame: &[u8], headers: &Headers) -> Result<Headers, DropReason> {
    if headers.icmp != Some(IcmpKind::Error) {
        return Err(DropReason::Malformed);
    }
    let range = usize::from(headers.payload)..headers.total_len as usize;
    Headers::parse_quoted(frame.get(range).ok_or(DropReason::Malformed)?)
}

/// Takes one from the hop limit, as every router does. [`DropReason::HopLimit`] when none would be
/// left: then the caller owes a "time exceeded".
pub fn decrement_hop_limit(frame: &mut [u8], headers: &Headers) -> Result<(), DropReason> {
    let at = if headers.is_ipv6() { 7 } else { 8 };
    let byte = frame.get_mut(at).ok_or(DropReason::Malformed)?;
    if *byte <= 1 {
        return Err(DropReason::HopLimit);
    }
    *byte -= 1;
    if !headers.is_ipv6() {
        let now = get(frame, 8).ok_or(DropReason::Malformed)?;
        change(frame, IPV4_CHECKSUM, |field| Delta::NONE.word(now + 0x100, now).complete(field));
    }
    Ok(())
}

/// Sets the identification of an IPv4 packet; IPv6 has none there.
pub fn set_identification(frame: &mut [u8], headers: &Headers, id: u16) -> Result<(), DropReason> {
    if headers.is_ipv6() {
        return Ok(());
    }
    let old = get(frame, IPV4_ID).ok_or(DropReason::Malformed)?;
    put(frame, IPV4_ID, id);
    change(frame, IPV4_CHECKSUM, |field| Delta::NONE.word(old, id).complete(field));
    Ok(())
}

/// Sets the whole type-of-service or traffic-class byte.
pub fn set_tos(frame: &mut [u8], headers: &Headers, tos: u8) -> Result<(), DropReason> {
    let old = get(frame, 0).ok_or(DropReason::Malformed)?;
    if headers.is_ipv6() {
        put(frame, 0, (old & 0xf00f) | u16::from(tos) << 4);
    } else {
        let new = (old & 0xff00) | u16::from(tos);
        put(frame, 0, new);
        change(frame, IPV4_CHECKSUM, |field| Delta::NONE.word(old, new).complete(field));
    }
    Ok(())
}

/// Sets the congestion notification bits, for what [`Ecn::decapsulate`] found.
pub fn set_ecn(frame: &mut [u8], headers: &Headers, ecn: Ecn) -> Result<(), DropReason> {
    if headers.ecn() == ecn {
        return Ok(());
    }
    set_tos(frame, headers, (headers.tos & !3) | ecn as u8)
}

/// Sets the differentiated-services codepoint, `0..64`.
pub fn set_dscp(frame: &mut [u8], headers: &Headers, dscp: u8) -> Result<(), DropReason> {
    set_tos(frame, headers, (headers.tos & 3) | dscp << 2)
}

/// Lowers the maximum segment size that a TCP SYN announces to what fits packets of `mtu` bytes
/// without options (RFC 9293 section 3.7.1). Never raises it. True when it was changed.
pub fn clamp_mss(frame: &mut [u8], headers: &Headers, vnet: &Vnet, mtu: usize) -> bool {
    if !headers.has_tcp_flags(tcp_flag::SYN) || headers.is_later_fragment() {
        return false;
    }
    let ip_header_len = if headers.is_ipv6() { 40 } else { 20 };
    let fits = mtu.saturating_sub(ip_header_len + TCP_HEADER_LEN).min(usize::from(u16::MAX)) as u16;
    let l4 = usize::from(headers.l4);
    let Some(tcp) = frame.get_mut(l4..usize::from(headers.payload)) else { return false };
    let Some(at) = mss_value_at(tcp) else { return false };
    if get(tcp, at).is_none_or(|announced| announced <= fits) {
        return false;
    }
    let words = at & !1..(at + 3) & !1;
    let mut old = [0; 4];
    let old = &mut old[..words.len()];
    let Some(bytes) = tcp.get(words.clone()) else { return false };
    old.copy_from_slice(bytes);
    put(tcp, at, fits);
    if !checksum::is_partial(headers, vnet) {
        let delta = Delta::NONE.bytes(old, &tcp[words]);
        change(tcp, 16, |field| delta.complete(field));
    }
    true
}

/// Where in a TCP header the value of its MSS option lies.
fn mss_value_at(tcp: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER_LEN;
    loop {
        match *tcp.get(at)? {
            0 => return None,
            1 => at += 1,
            kind => {
                let len = *tcp.get(at + 1)?;
                if kind == MSS_OPTION {
                    let whole = len == MSS_OPTION_LEN && at + 4 <= tcp.len();
                    return whole.then_some(at + 2);
                }
                at += usize::from(len.max(2));
            }
        }
    }
}

fn set_end(
    frame: &mut [u8],
    headers: &Headers,
    vnet: &Vnet,
    end: End,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    let port_at = port_place(headers, end, port)?;
    if frame.len() < usize::from(headers.payload) {
        return Err(DropReason::Malformed);
    }
    let addresses = set_address(frame, headers, end, address)?;
    let mut ports = Delta::NONE;
    if let (Some(at), Some(port)) = (port_at, port) {
        change(frame, at, |old| {
            ports = ports.word(old, port);
            port
        });
    }
    let partial = checksum::is_partial(headers, vnet);
    set_upper_checksum(frame, headers, addresses, ports, partial);
    Ok(())
}

fn set_quoted_end(
    frame: &mut [u8],
    headers: &Headers,
    end: End,
    address: IpAddr,
    port: Option<u16>,
) -> Result<(), DropReason> {
    let inner = quoted(frame, headers)?;
    let port_at = port_place(&inner, end, port)?;
    let range = usize::from(headers.payload)..headers.total_len as usize;
    let quote = frame.get_mut(range).ok_or(DropReason::Malformed)?;
    let ip_checksum = if inner.is_ipv6() { None } else { get(quote, IPV4_CHECKSUM) };
    let upper_checksum = inner.checksum_at().and_then(|at| get(quote, at));

    // What the error's own checksum sees: each word of the quote that changes.
    let addresses = set_address(quote, &inner, end, address)?;
    let mut ports = Delta::NONE;
    if let (Some(at), Some(port)) = (port_at, port) {
        change(quote, at, |old| {
            ports = ports.word(old, port);
            port
        });
    }
    set_upper_checksum(quote, &inner, addresses, ports, false);
    let mut seen = addresses.join(ports);
    if let (Some(old), Some(new)) = (ip_checksum, get(quote, IPV4_CHECKSUM)) {
        seen = seen.word(old, new);
    }
    if let (Some(old), Some(at)) = (upper_checksum, inner.checksum_at())
        && let Some(new) = get(quote, at)
    {
        seen = seen.word(old, new);
    }
    if let Some(at) = headers.checksum_at() {
        change(frame, at, |field| seen.complete(field));
    }
    Ok(())
}

/// Where the port (or echo identifier) of one end lies; an error if one is to be set and there is
/// none.
fn port_place(headers: &Headers, end: End, port: Option<u16>) -> Result<Option<usize>, DropReason> {
    if port.is_none() {
        return Ok(None);
    }
    if headers.ports.is_none() {
        return Err(DropReason::UnsupportedProtocol);
    }
    let offset = match (headers.icmp.is_some(), end) {
        (true, _) => 4,
        (false, End::Source) => 0,
        (false, End::Destination) => 2,
    };
    Ok(Some(usize::from(headers.l4) + offset))
}

/// Sets an address and the IPv4 header checksum. Returns the change of the address.
fn set_address(
    frame: &mut [u8],
    headers: &Headers,
    end: End,
    address: IpAddr,
) -> Result<Delta, DropReason> {
    match (address, headers.is_ipv6()) {
        (IpAddr::V4(address), false) => {
            let at = if end == End::Source { 12 } else { 16 };
            let place = frame.get_mut(at..at + 4).ok_or(DropReason::Malformed)?;
            let delta = Delta::NONE.bytes(place, &address.octets());
            place.copy_from_slice(&address.octets());
            change(frame, IPV4_CHECKSUM, |field| delta.complete(field));
            Ok(delta)
        }
        (IpAddr::V6(address), true) => {
            let at = if end == End::Source { 8 } else { 24 };
            let place = frame.get_mut(at..at + 16).ok_or(DropReason::Malformed)?;
            let delta = Delta::NONE.bytes(place, &address.octets());
            place.copy_from_slice(&address.octets());
            Ok(delta)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => Err(DropReason::Malformed),
    }
}

/// Brings the upper-layer checksum up to date. `addresses` counts where there is a pseudo-header,
/// `ports` where the checksum is complete.
fn set_upper_checksum(
    frame: &mut [u8],
    headers: &Headers,
    addresses: Delta,
    ports: Delta,
    partial: bool,
) {
    let Some(at) = headers.checksum_at() else { return };
    let addresses = if headers.protocol == protocol::ICMP { Delta::NONE } else { addresses };
    let udp = headers.protocol == protocol::UDP;
    change(frame, at, |field| match (partial, field) {
        (true, field) => addresses.partial(field),
        (false, 0) if udp => 0,
        (false, field) => {
            let checksum = addresses.join(ports).complete(field);
            checksum::transport_field(headers.protocol, checksum)
        }
    });
    if headers.protocol == protocol::ICMP
        && !partial
        && let Some(message) = frame.get_mut(usize::from(headers.l4)..headers.total_len as usize)
    {
        checksum::settle_icmp(message);
    }
}

/// Replaces the 16-bit field at `at`, if there is one.
fn change(bytes: &mut [u8], at: usize, with: impl FnOnce(u16) -> u16) {
    if let Some(old) = get(bytes, at) {
        put(bytes, at, with(old));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::checksum::complete_partial;
    use crate::packet::testing::{
        Sample, Upper, any_addresses, any_sample, assert_checksums, make_partial,
    };

    /// An ICMP error about `packet`, cut to `quote` bytes behind its IP header.
    fn error_about(packet: &[u8], quote: usize) -> Vec<u8> {
        let inner = Headers::parse(packet).unwrap();
        let len = (usize::from(inner.l4) + quote).min(packet.len());
        let mut error = Sample::new(inner.is_ipv6(), Upper::EchoReply, &packet[..len]);
        (error.source, error.destination) = (inner.destination, inner.source);
        let mut bytes = error.bytes();
        let at = if inner.is_ipv6() { 40 } else { 20 };
        bytes[at] = if inner.is_ipv6() { 3 } else { 11 };
        bytes[at + 4..at + 8].fill(0);
        let headers = Headers::parse(&bytes).unwrap();
        checksum::complete(&mut bytes, &headers);
        bytes
    }

    #[test]
    fn a_udp_packet_without_checksum_stays_so() {
        let mut packet = Sample::udp(false, b"data").bytes();
        put(&mut packet, 26, 0);
        let headers = Headers::parse(&packet).unwrap();
        set_source(&mut packet, &headers, &Vnet::default(), [10, 0, 0, 1].into(), Some(9)).unwrap();
        assert_eq!(get(&packet, 26), Some(0));
        assert_eq!(get(&packet, 20), Some(9));
    }

    #[test]
    fn what_cannot_be_rewritten_is_refused_and_unchanged() {
        let mut packet = Sample::udp(false, &[0; 64]).bytes();
        packet[7] = 1;
        let before = packet.clone();
        let headers = Headers::parse(&packet).unwrap();
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let result = set_source(&mut packet, &headers, &Vnet::default(), v4, Some(1));
        assert_eq!(result, Err(DropReason::UnsupportedProtocol), "a later fragment has no port");
        let v6 = IpAddr::from([1; 16]);
        let result = set_source(&mut packet, &headers, &Vnet::default(), v6, None);
        assert_eq!(result, Err(DropReason::Malformed));
        assert_eq!(packet, before);
        assert_eq!(quoted(&packet, &headers), Err(DropReason::Malformed));
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        for ipv6 in [false, true] {
            let mut sample = Sample::udp(ipv6, b"data");
            sample.hop_limit = 2;
            let mut packet = sample.bytes();
            let headers = Headers::parse(&packet).unwrap();
            assert_eq!(decrement_hop_limit(&mut packet, &headers), Ok(()));
            assert_checksums(&packet);
            assert_eq!(Headers::parse(&packet).unwrap().hop_limit, 1);
            let last = decrement_hop_limit(&mut packet, &headers);
            assert_eq!(last, Err(DropReason::HopLimit));
            assert_eq!(Headers::parse(&packet).unwrap().hop_limit, 1);
        }
    }

    #[test]
    fn mss_is_lowered_never_raised_and_only_on_syn() {
        for ipv6 in [false, true] {
            // Aligned, at an odd offset behind a NOP, and behind another option.
            for options in [
                vec![2, 4, 5, 0xb4],
                vec![1, 2, 4, 5, 0xb4, 1, 1, 0],
                vec![3, 3, 7, 2, 4, 5, 0xb4, 0],
            ] {
                for partial in [false, true] {
                    let upper = Upper::Tcp {
                        seq: 1,
                        ack: 0,
                        flags: tcp_flag::SYN,
                        options: options.clone(),
                    };
                    let mut packet = Sample::new(ipv6, upper, &[]).bytes();
                    let vnet = if partial { make_partial(&mut packet) } else { Vnet::default() };
                    let headers = Headers::parse(&packet).unwrap();
                    assert!(!clamp_mss(&mut packet, &headers, &vnet, 1_520));
                    assert!(clamp_mss(&mut packet, &headers, &vnet, 1_380));
                    complete_partial(&mut packet, &headers, &vnet).unwrap();
                    assert_checksums(&packet);
                    let at = usize::from(headers.l4);
                    let value = mss_value_at(&packet[at..headers.payload.into()]).unwrap();
                    let expected = if ipv6 { 1_320 } else { 1_340 };
                    assert_eq!(get(&packet[at..], value), Some(expected));
                }
            }
        }
        let upper =
            Upper::Tcp { seq: 1, ack: 0, flags: tcp_flag::ACK, options: vec![2, 4, 5, 0xb4] };
        let mut packet = Sample::new(false, upper, &[]).bytes();
        let headers = Headers::parse(&packet).unwrap();
        assert!(!clamp_mss(&mut packet, &headers, &Vnet::default(), 1_000));
    }

    #[test]
    fn broken_options_end_the_search() {
        for options in [vec![2, 3, 5, 0xb4], vec![9, 0, 9, 0], vec![1, 1, 1, 2], vec![0, 2, 4, 9]] {
            let upper = Upper::Tcp { seq: 1, ack: 0, flags: tcp_flag::SYN, options };
            let mut packet = Sample::new(false, upper, &[]).bytes();
            let headers = Headers::parse(&packet).unwrap();
            assert!(!clamp_mss(&mut packet, &headers, &Vnet::default(), 500));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn there_and_back_is_identity_and_each_way_is_right(
            sample in any_sample(),
            (four, six) in any::<([u8; 4], [u8; 16])>(),
            port: u16,
            partial: bool,
            destination: bool,
        ) {
            let mut packet = sample.bytes();
            let partial = partial && matches!(sample.upper, Upper::Tcp { .. } | Upper::Udp);
            let vnet = if partial { make_partial(&mut packet) } else { Vnet::default() };
            let before = packet.clone();
            let there = Headers::parse(&packet).unwrap();
            let new: IpAddr = if there.is_ipv6() { six.into() } else { four.into() };
            let ports = there.ports.unwrap();
            let (old, old_port) = if destination {
                (there.destination, ports.dst)
            } else {
                (there.source, ports.src)
            };
            let set = if destination { set_destination } else { set_source };
            set(&mut packet, &there, &vnet, new, Some(port)).unwrap();
            let back = Headers::parse(&packet).unwrap();
            prop_assert_eq!(if destination { back.destination } else { back.source }, new);
            let mut completed = packet.clone();
            complete_partial(&mut completed, &back, &vnet).unwrap();
            assert_checksums(&completed);
            set(&mut packet, &back, &vnet, old, Some(old_port)).unwrap();
            prop_assert_eq!(packet, before);
        }

        #[test]
        fn marks_keep_the_header_checksum(sample in any_sample(), tos: u8) {
            let mut packet = sample.bytes();
            let headers = Headers::parse(&packet).unwrap();
            set_tos(&mut packet, &headers, tos).unwrap();
            assert_checksums(&packet);
            let changed = Headers::parse(&packet).unwrap();
            prop_assert_eq!(changed.tos, tos);
            set_dscp(&mut packet, &changed, headers.dscp()).unwrap();
            let changed = Headers::parse(&packet).unwrap();
            set_ecn(&mut packet, &changed, headers.ecn()).unwrap();
            prop_assert_eq!(packet, sample.bytes());
        }

        #[test]
        fn errors_keep_both_their_own_checksum_and_the_quoted_ones(
            sample in any_sample(),
            quote in 8..200usize,
            (four, six) in any::<([u8; 4], [u8; 16])>(),
            port: u16,
            destination: bool,
        ) {
            let original = sample.bytes();
            let mut error = error_about(&original, quote);
            let before = error.clone();
            let headers = Headers::parse(&error).unwrap();
            let inner = quoted(&error, &headers).unwrap();
            prop_assert_eq!(inner.ports, Headers::parse(&original).unwrap().ports);
            let new: IpAddr = if inner.is_ipv6() { six.into() } else { four.into() };
            let set = if destination { set_quoted_destination } else { set_quoted_source };
            set(&mut error, &headers, new, Some(port)).unwrap();
            assert_checksums(&error);
            let at = usize::from(headers.payload);
            let changed = quoted(&error, &headers).unwrap();
            prop_assert_eq!(if destination { changed.destination } else { changed.source }, new);
            prop_assert!(checksum::ipv4_is_right(&error[at..], &changed));
            if error.len() - at == original.len() {
                assert_checksums(&error[at..]);
            }
            let ports = inner.ports.unwrap();
            let (old, port) = if destination {
                (inner.destination, ports.dst)
            } else {
                (inner.source, ports.src)
            };
            set(&mut error, &headers, old, Some(port)).unwrap();
            prop_assert_eq!(error, before);
        }

        #[test]
        fn damaged_packets_never_panic(
            sample in any_sample(),
            damage in prop::collection::vec((0..80usize, any::<u8>()), 0..8),
            (source, _) in any_addresses(),
            words: [u16; 3],
        ) {
            let mut packet = error_about(&sample.bytes(), 100);
            let len = packet.len().min(60);
            for (at, byte) in damage {
                packet[at % len] = byte;
            }
            let Ok(headers) = Headers::parse(&packet) else { return Ok(()) };
            let vnet = Vnet {
                needs_checksum: true,
                checksum_start: words[0] % 100,
                checksum_offset: words[1] % 50,
                ..Vnet::default()
            };
            for port in [None, Some(words[2])] {
                let _ = set_source(&mut packet, &headers, &vnet, source, port);
                let _ = set_quoted_destination(&mut packet, &headers, source, port);
                let _ = clamp_mss(&mut packet, &headers, &vnet, 100);
                let _ = complete_partial(&mut packet, &headers, &vnet);
                checksum::complete(&mut packet, &headers);
            }
        }
    }
}
