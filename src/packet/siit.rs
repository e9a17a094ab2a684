//! From IPv6 to IPv4 and back (RFC 7915), statelessly: headers, checksums, and ICMP with the packet
//! that an error quotes. Which address becomes which is the caller's business; ports stay.
//!
//! The translated packet is written to a buffer of its own, because its length differs. The hop
//! limit stays: whoever forwards the packet takes one off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{self, Delta, Sum, get, put};
use super::{Fragment, Gso, Headers, IcmpKind, Vnet, protocol, rewrite};
use crate::telemetry::DropReason;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const FRAGMENT_LEN: usize = 8;
const ICMP_LEN: usize = 8;
const FRAGMENT: u8 = 44;
const ROUTING: u8 = 43;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
/// A longer IPv4 packet asks for "fragmentation needed", a shorter one may be taken apart
/// (RFC 7915 section 5.1).
const ALWAYS_FITS: usize = 1_260;
/// Longest errors (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c)).
const ERROR_MAX_V4: usize = 576;
const ERROR_MAX_V6: usize = 1_280;
/// How much longer the IPv6 header is.
const DIFFERENCE: u32 = 20;
const MTU_MIN_V6: u32 = 1_280;
/// Lengths of packets that paths are likely to carry (RFC 1191 section 7.1).
const PLATEAUS: [u32; 10] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296];

/// The ends of a packet in the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends<A> {
    /// The sender.
    pub source: A,
    /// The receiver.
    pub destination: A,
}

/// Writes the IPv6 packet in `frame` to `out` as IPv4, and returns its offload header. TCP, UDP,
/// UDP-Lite, echoes, and fragments of the first three. A packet that may be taken apart on its way
/// still needs an identification of its own; a fragment has the lower half of the one it had.
pub fn to_ipv4(
    out: &mut Vec<u8>,
    frame: &[u8],
    headers: &Headers,
    vnet: &Vnet,
    ends: Ends<Ipv4Addr>,
) -> Result<Vnet, DropReason> {
    let upper = upper(frame, headers)?;
    if !headers.is_ipv6() || is_source_routed(frame, headers) {
        return Err(DropReason::Malformed);
    }
    let protocol = other_protocol(headers)?;
    let total = IPV4_LEN + upper.len();
    // What a train is cut into counts, not the train.
    let longest = match vnet.gso {
        Gso::None => total,
        Gso::Tcp { .. } | Gso::Udp => {
            let head = usize::from(vnet.header_len.saturating_sub(headers.l4));
            total.min(IPV4_LEN + head + usize::from(vnet.segment_size))
        }
    };
    let whole = longest > ALWAYS_FITS;
    let (id, flags) = match headers.fragment {
        Some(Fragment { id, offset, more }) => {
            (id as u16, (offset / 8) | if more { MORE } else { 0 })
        }
        None => (0, if whole { DONT_FRAGMENT } else { 0 }),
    };
    out.clear();
    let total = u16::try_from(total).map_err(|_| DropReason::TooBig)?;
    put_ipv4(out, headers, (total, id, flags), protocol, ends);
    out.extend_from_slice(upper);
    let new = (IpAddr::V4(ends.source), IpAddr::V4(ends.destination));
    turn_upper(&mut out[IPV4_LEN..], headers, new, upper.len() as u32, vnet)?;
    Ok(shifted(headers, vnet, IPV4_LEN))
}

/// Writes the IPv4 packet in `frame` to `out` as IPv6; else as [`to_ipv4`]. A datagram without
/// checksum gets one, unless it is a fragment: that is refused (RFC 7915 section 4.5).
pub fn to_ipv6(
    out: &mut Vec<u8>,
    frame: &[u8],
    headers: &Headers,
    vnet: &Vnet,
    ends: Ends<Ipv6Addr>,
) -> Result<Vnet, DropReason> {
    let upper = upper(frame, headers)?;
    if headers.is_ipv6() {
        return Err(DropReason::Malformed);
    }
    let protocol = other_protocol(headers)?;
    let between = if headers.fragment.is_some() { FRAGMENT_LEN } else { 0 };
    out.clear();
    let payload = u16::try_from(between + upper.len()).map_err(|_| DropReason::TooBig)?;
    let first = if headers.fragment.is_some() { FRAGMENT } else { protocol };
    put_ipv6(out, headers, payload, first, ends);
    if let Some(Fragment { id, offset, more }) = headers.fragment {
        let place = (offset & !7) | u16::from(more);
        out.extend_from_slice(&[protocol, 0]);
        out.extend_from_slice(&place.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
    }
    let l4 = out.len();
    out.extend_from_slice(upper);
    let new = (IpAddr::V6(ends.source), IpAddr::V6(ends.destination));
    if !checksum::is_absent(frame, headers, vnet) {
        turn_upper(&mut out[l4..], headers, new, upper.len() as u32, vnet)?;
    } else if headers.fragment.is_some() || vnet.gso != Gso::None {
        return Err(DropReason::BadChecksum);
    } else {
        let translated = Headers::parse(out)?;
        checksum::complete(out, &translated);
    }
    Ok(shifted(headers, vnet, l4))
}

/// Writes an ICMPv6 error as one of IPv4, with the packet that it quotes (RFC 7915 section 5.2).
pub fn error_to_ipv4(
    out: &mut Vec<u8>,
    frame: &[u8],
    headers: &Headers,
    ends: Ends<Ipv4Addr>,
    quoted: Ends<Ipv4Addr>,
) -> Result<(), DropReason> {
    let (message, quote, inner) = parts(frame, headers)?;
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    let (kind, code, rest) = error_from_ipv6(message[0], message[1], word)?;
    let upper = quote.get(usize::from(inner.l4)..).ok_or(DropReason::Malformed)?;
    let protocol = other_protocol(&inner)?;
    let claimed = claimed_upper(quote, &inner);
    out.clear();
    put_ipv4(out, headers, (0, 0, DONT_FRAGMENT), protocol::ICMP, ends);
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&rest.to_be_bytes());
    let at = out.len();
    let total = (IPV4_LEN as u32 + claimed).min(u32::from(u16::MAX)) as u16;
    let (id, flags) = match inner.fragment {
        Some(Fragment { id, offset, more }) => {
            (id as u16, (offset / 8) | if more { MORE } else { 0 })
        }
        None => (0, DONT_FRAGMENT),
    };
    put_ipv4(out, &inner, (total, id, flags), protocol, quoted);
    let l4 = out.len();
    out.extend_from_slice(upper);
    let new = (IpAddr::V4(quoted.source), IpAddr::V4(quoted.destination));
    turn_upper(&mut out[l4..], &inner, new, claimed, &Vnet::default())?;
    debug_assert_eq!(at, IPV4_LEN + ICMP_LEN);
    out.truncate(ERROR_MAX_V4);
    let len = out.len() as u16;
    put(out, 2, len);
    checksum::fill_ipv4(&mut out[..IPV4_LEN]);
    finish_error(out)
}

/// Writes an ICMP error of IPv4 as one of IPv6, with the packet that it quotes (RFC 7915
/// section 4.2).
pub fn error_to_ipv6(
    out: &mut Vec<u8>,
    frame: &[u8],
    headers: &Headers,
    ends: Ends<Ipv6Addr>,
    quoted: Ends<Ipv6Addr>,
) -> Result<(), DropReason> {
    let (message, quote, inner) = parts(frame, headers)?;
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    let quoted_len = u32::from(get(quote, 2).unwrap_or_default());
    let (kind, code, rest) = error_from_ipv4(message[0], message[1], word, quoted_len)?;
    let upper = quote.get(usize::from(inner.l4)..).ok_or(DropReason::Malformed)?;
    let protocol = other_protocol(&inner)?;
    let claimed = claimed_upper(quote, &inner);
    out.clear();
    put_ipv6(out, headers, 0, protocol::ICMPV6, ends);
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&rest.to_be_bytes());
    let between = if inner.fragment.is_some() { FRAGMENT_LEN as u32 } else { 0 };
    let payload = (claimed + between).min(u32::from(u16::MAX)) as u16;
    put_ipv6(out, &inner, payload, if between > 0 { FRAGMENT } else { protocol }, quoted);
    if let Some(Fragment { id, offset, more }) = inner.fragment {
        out.extend_from_slice(&[protocol, 0]);
        out.extend_from_slice(&((offset & !7) | u16::from(more)).to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
    }
    let l4 = out.len();
    out.extend_from_slice(upper);
    let new = (IpAddr::V6(quoted.source), IpAddr::V6(quoted.destination));
    turn_upper(&mut out[l4..], &inner, new, claimed, &Vnet::default())?;
    out.truncate(ERROR_MAX_V6);
    let len = (out.len() - IPV6_LEN) as u16;
    put(out, 4, len);
    finish_error(out)
}

fn finish_error(out: &mut [u8]) -> Result<(), DropReason> {
    let headers = Headers::parse(out)?;
    checksum::complete(out, &headers);
    Ok(())
}

/// The ICMP header of an error, what it quotes, and the headers of that. Extensions behind the quote
/// (RFC 4884) are left out.
fn parts<'f>(
    frame: &'f [u8],
    headers: &Headers,
) -> Result<(&'f [u8; ICMP_LEN], &'f [u8], Headers), DropReason> {
    let inner = rewrite::quoted(frame, headers)?;
    let upper = upper(frame, headers)?;
    let (message, quote) = upper.split_first_chunk().ok_or(DropReason::Malformed)?;
    // The length of the quote, in words of 8 or 4 bytes; zero where there is no extension.
    let words = if headers.is_ipv6() {
        usize::from(message[4]) * if matches!(message[0], 1 | 3) { 8 } else { 0 }
    } else {
        usize::from(message[5]) * 4
    };
    let len = if words == 0 { quote.len() } else { words.min(quote.len()) };
    Ok((message, &quote[..len], inner))
}

/// How many bytes the upper layer of a quoted packet had when it was whole.
fn claimed_upper(quote: &[u8], inner: &Headers) -> u32 {
    let l4 = u32::from(inner.l4);
    if inner.is_ipv6() {
        (IPV6_LEN as u32 + u32::from(get(quote, 4).unwrap_or_default())).saturating_sub(l4)
    } else {
        u32::from(get(quote, 2).unwrap_or_default()).saturating_sub(l4)
    }
}

fn upper<'f>(frame: &'f [u8], headers: &Headers) -> Result<&'f [u8], DropReason> {
    frame.get(usize::from(headers.l4)..headers.total_len as usize).ok_or(DropReason::Malformed)
}

/// The protocol number in the other family. Fragments of ICMP are not translated, because their
/// checksum covers the length of the whole (RFC 7915 section 4.2 and 5.2).
fn other_protocol(headers: &Headers) -> Result<u8, DropReason> {
    match (headers.protocol, headers.icmp, headers.fragment) {
        (protocol::TCP | protocol::UDP | protocol::UDP_LITE, _, _) => Ok(headers.protocol),
        (protocol::ICMP, Some(IcmpKind::Query | IcmpKind::Reply), None) => Ok(protocol::ICMPV6),
        (protocol::ICMPV6, Some(IcmpKind::Query | IcmpKind::Reply), None) => Ok(protocol::ICMP),
        _ => Err(DropReason::UnsupportedProtocol),
    }
}

/// A packet that is to go to further places first (RFC 7915 section 5.1).
fn is_source_routed(frame: &[u8], headers: &Headers) -> bool {
    let mut at = IPV6_LEN;
    let mut next = frame.get(6).copied();
    while at + 8 <= usize::from(headers.l4) {
        let (Some(kind), Some(&len)) = (next, frame.get(at + 1)) else { return true };
        if kind == ROUTING && frame.get(at + 3) != Some(&0) {
            return true;
        }
        next = frame.get(at).copied();
        at += if kind == FRAGMENT { FRAGMENT_LEN } else { (usize::from(len) + 1) * 8 };
    }
    false
}

fn put_ipv4(
    out: &mut Vec<u8>,
    headers: &Headers,
    (total, id, flags): (u16, u16, u16),
    protocol: u8,
    ends: Ends<Ipv4Addr>,
) {
    let at = out.len();
    out.extend_from_slice(&[0x45, headers.tos]);
    for word in [total, id, flags] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&[headers.hop_limit, protocol, 0, 0]);
    out.extend_from_slice(&ends.source.octets());
    out.extend_from_slice(&ends.destination.octets());
    checksum::fill_ipv4(&mut out[at..]);
}

fn put_ipv6(out: &mut Vec<u8>, headers: &Headers, payload: u16, next: u8, ends: Ends<Ipv6Addr>) {
    let tos = u32::from(headers.tos);
    out.extend_from_slice(&(6 << 28 | tos << 20).to_be_bytes());
    out.extend_from_slice(&payload.to_be_bytes());
    out.extend_from_slice(&[next, headers.hop_limit]);
    out.extend_from_slice(&ends.source.octets());
    out.extend_from_slice(&ends.destination.octets());
}

/// Brings the upper layer of a packet, `len` bytes long when whole, to the other family: the type of
/// an echo, and the checksum for the ends `new`. `headers` are those before.
fn turn_upper(
    upper: &mut [u8],
    headers: &Headers,
    new: (IpAddr, IpAddr),
    len: u32,
    vnet: &Vnet,
) -> Result<(), DropReason> {
    if headers.is_later_fragment() {
        return Ok(());
    }
    let is_icmp = headers.icmp.is_some();
    let pseudo = |(source, destination): (IpAddr, IpAddr)| match (is_icmp, source) {
        (false, _) => checksum::pseudo_header(source, destination, 0, 0),
        (true, IpAddr::V4(_)) => Sum::ZERO,
        (true, IpAddr::V6(_)) => {
            checksum::pseudo_header(source, destination, protocol::ICMPV6, len)
        }
    };
    let old = pseudo((headers.source, headers.destination));
    let mut delta = Delta::NONE.word(old.fold(), pseudo(new).fold());
    let partial = checksum::is_partial(headers, vnet);
    if is_icmp {
        let kind = upper.first_mut().ok_or(DropReason::Malformed)?;
        let turned = match (headers.is_ipv6(), *kind) {
            (true, 128) => 8,
            (true, 129) => 0,
            (false, 8) => 128,
            (false, 0) => 129,
            _ => return Err(DropReason::UnsupportedProtocol),
        };
        delta = delta.word(u16::from(*kind) << 8, u16::from(turned) << 8);
        *kind = turned;
        if partial {
            return Err(DropReason::BadOffload);
        }
    }
    let Some(at) = headers.checksum_at() else { return Ok(()) };
    let at = at - usize::from(headers.l4);
    // A quote may end before it.
    let Some(field) = get(upper, at) else { return Ok(()) };
    let udp = headers.protocol == protocol::UDP;
    put(
        upper,
        at,
        match (partial, field) {
            (true, field) => delta.partial(field),
            (false, 0) if udp => 0,
            (false, field) => checksum::transport_field(headers.protocol, delta.complete(field)),
        },
    );
    if is_icmp {
        checksum::settle_icmp(upper);
    }
    Ok(())
}

/// The offload header for the same payload behind another IP header.
fn shifted(headers: &Headers, vnet: &Vnet, l4: usize) -> Vnet {
    if *vnet == Vnet::default() {
        return *vnet;
    }
    let move_by = |offset: u16| (usize::from(offset) + l4).saturating_sub(headers.l4.into()) as u16;
    Vnet {
        header_len: move_by(vnet.header_len),
        checksum_start: if vnet.needs_checksum { move_by(vnet.checksum_start) } else { 0 },
        ..*vnet
    }
}

/// Type, code and the second word of an ICMPv6 error in IPv4.
fn error_from_ipv6(kind: u8, code: u8, word: u32) -> Result<(u8, u8, u32), DropReason> {
    Ok(match (kind, code) {
        (1, 0 | 2 | 3) => (3, 1, 0),
        (1, 1) => (3, 10, 0),
        (1, 4) => (3, 3, 0),
        (2, _) => (3, 4, word.saturating_sub(DIFFERENCE).clamp(68, 0xffff)),
        (3, 0 | 1) => (11, code, 0),
        (4, 0) => {
            let pointer = match word {
                0 | 1 => word,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return Err(DropReason::UnsupportedProtocol),
            };
            (12, 0, pointer << 24)
        }
        (4, 1) => (3, 2, 0),
        _ => return Err(DropReason::UnsupportedProtocol),
    })
}

/// Type, code and the second word of an ICMP error in IPv6. `quoted_len` is the length of the packet
/// that it is about.
fn error_from_ipv4(
    kind: u8,
    code: u8,
    word: u32,
    quoted_len: u32,
) -> Result<(u8, u8, u32), DropReason> {
    Ok(match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, 0),
        (3, 2) => (4, 1, 6),
        (3, 3) => (1, 4, 0),
        (3, 4) => {
            let told = word & 0xffff;
            // An old router does not say.
            let guess = || PLATEAUS.iter().copied().find(|&mtu| mtu < quoted_len).unwrap_or(68);
            let mtu = if told == 0 { guess() } else { told };
            (2, 0, (mtu + DIFFERENCE).max(MTU_MIN_V6))
        }
        (3, 9 | 10 | 13 | 15) => (1, 1, 0),
        (11, 0 | 1) => (3, code, 0),
        (12, 0 | 2) => {
            let pointer = match word >> 24 {
                pointer @ (0 | 1) => pointer,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return Err(DropReason::UnsupportedProtocol),
            };
            (4, 0, pointer)
        }
        _ => return Err(DropReason::UnsupportedProtocol),
    })
}

#[cfg(test)]
#[path = "siit_tests.rs"]
mod tests;
