//! The ICMP errors that a router owes (RFC 1812 section 4.3, RFC 4443), without extensions.
//!
//! How often it may send them is for the caller to limit.

use std::net::IpAddr;

use super::checksum::{self, Delta, put};
use super::{Gso, Headers, IcmpKind, Vnet, protocol};

/// Longest error: the smallest MTU of IPv6 (RFC 4443 section 2.4 (c)).
pub const MAX_LEN: usize = 1_280;

/// Longest error over IPv4 (RFC 1812 section 4.3.2.3).
const MAX_LEN_IPV4: usize = 576;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;
/// Precedence "internetwork control" (RFC 1812 section 4.3.2.5).
const TOS_IPV4: u8 = 0xc0;
const DONT_FRAGMENT: u16 = 0x4000;

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Its hop limit ran out on the way.
    TimeExceeded,
    /// There is no route to its network.
    NetUnreachable,
    /// There is a route, but the host cannot be reached.
    HostUnreachable,
    /// Nobody listens there.
    PortUnreachable,
    /// It is not allowed.
    AdminProhibited,
    /// It is longer than what follows and must not be fragmented: "fragmentation needed" or
    /// "packet too big".
    TooBig {
        /// Longest packet that gets through, in bytes.
        mtu: u16,
    },
}

impl Error {
    /// Type and code in ICMP (RFC 792, RFC 1812 section 5.2.7.1) or ICMPv6 (RFC 4443 section 3).
    const fn type_and_code(self, ipv6: bool) -> (u8, u8) {
        match (self, ipv6) {
            (Self::TimeExceeded, false) => (11, 0),
            (Self::NetUnreachable, false) => (3, 0),
            (Self::HostUnreachable, false) => (3, 1),
            (Self::PortUnreachable, false) => (3, 3),
            (Self::TooBig { .. }, false) => (3, 4),
            (Self::AdminProhibited, false) => (3, 13),
            (Self::TimeExceeded, true) => (3, 0),
            (Self::NetUnreachable, true) => (1, 0),
            (Self::AdminProhibited, true) => (1, 1),
            (Self::HostUnreachable, true) => (1, 3),
            (Self::PortUnreachable, true) => (1, 4),
            (Self::TooBig { .. }, true) => (2, 0),
        }
    }
}

/// True when an error about this packet may be sent: never about another ICMP error, a later
/// fragment, or to or from an address that does not name a single host (RFC 1812 section 4.3.2.7,
/// RFC 4443 section 2.4 (e)).
pub fn may_answer(headers: &Headers) -> bool {
    headers.icmp != Some(IcmpKind::Error)
        && !headers.is_later_fragment()
        && is_single_host(headers.source)
        && is_single_host(headers.destination)
}

fn is_single_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let reserved = address.octets()[0] == 0 || address.octets()[0] >= 240;
            !(reserved || address.is_multicast() || address.is_loopback())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
        }
    }
}

/// Writes an error about the packet in `frame` to the beginning of `out` and returns its length. It
/// goes from `source`, an address of ours in the packet's family, to the packet's sender, and quotes
/// as much of the packet as such an error may.
///
/// Zero, and nothing is sent, when no error is allowed ([`may_answer`]), `source` is of the other
/// family or `out` is shorter than [`MAX_LEN`].
pub fn write_error(
    out: &mut [u8],
    error: Error,
    source: IpAddr,
    frame: &[u8],
    headers: &Headers,
) -> usize {
    let ipv6 = headers.is_ipv6();
    if !may_answer(headers) || source.is_ipv6() != ipv6 || out.len() < MAX_LEN {
        return 0;
    }
    let (ip_len, max_len) =
        if ipv6 { (IPV6_HEADER_LEN, MAX_LEN) } else { (IPV4_HEADER_LEN, MAX_LEN_IPV4) };
    // The beginning of a packet will do, so that a train's headers serve for any of its packets.
    let packet = &frame[..frame.len().min(headers.total_len as usize)];
    let quote = &packet[..packet.len().min(max_len - ip_len - ICMP_HEADER_LEN)];
    let len = ip_len + ICMP_HEADER_LEN + quote.len();
    let out = &mut out[..len];

    match (source, headers.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out[0] = 0x45;
            out[1] = TOS_IPV4;
            put(out, 2, len as u16);
            // Identification is free to be zero in a packet that is never fragmented (RFC 6864).
            put(out, 4, 0);
            put(out, 6, DONT_FRAGMENT);
            out[8] = HOP_LIMIT;
            out[9] = protocol::ICMP;
            out[12..16].copy_from_slice(&source.octets());
            out[16..20].copy_from_slice(&destination.octets());
            checksum::fill_ipv4(&mut out[..IPV4_HEADER_LEN]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            put(out, 4, (len - IPV6_HEADER_LEN) as u16);
            out[6] = protocol::ICMPV6;
            out[7] = HOP_LIMIT;
            out[8..24].copy_from_slice(&source.octets());
            out[24..40].copy_from_slice(&destination.octets());
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => return 0,
    }

    let (kind, code) = error.type_and_code(ipv6);
    let mtu = if let Error::TooBig { mtu } = error { mtu } else { 0 };
    let message = &mut out[ip_len..];
    message[0] = kind;
    message[1] = code;
    put(message, 2, 0);
    put(message, 4, 0);
    put(message, 6, mtu);
    message[ICMP_HEADER_LEN..].copy_from_slice(quote);
    let pseudo = if ipv6 {
        checksum::pseudo_header(source, headers.source, protocol::ICMPV6, message.len() as u32)
    } else {
        checksum::Sum::ZERO
    };
    let sum = pseudo.bytes(message).checksum();
    put(message, 2, sum);
    len
}

/// Turns an unfragmented echo request into its reply, as the destination would send it. False, and
/// nothing changed, for any other packet.
pub fn turn_echo(frame: &mut [u8], headers: &Headers, vnet: &Vnet) -> bool {
    let ipv6 = headers.is_ipv6();
    let (request, reply) = if ipv6 { (128, 129) } else { (8, 0) };
    let l4 = usize::from(headers.l4);
    let is_echo = headers.icmp == Some(IcmpKind::Query) && frame.get(l4) == Some(&request);
    let whole = headers.fragment.is_none() && frame.len() >= headers.total_len as usize;
    if !is_echo || !whole || headers.has_options || vnet.gso != Gso::None {
        return false;
    }
    let addresses = if ipv6 { &mut frame[8..40] } else { &mut frame[12..20] };
    let middle = addresses.len() / 2;
    addresses.rotate_left(middle);
    frame[if ipv6 { 7 } else { 8 }] = HOP_LIMIT;
    if !ipv6 {
        checksum::fill_ipv4(&mut frame[..IPV4_HEADER_LEN]);
    }
    frame[l4] = reply;
    // Addresses that change places change no sum, and a partial one does not have the type in it.
    if !checksum::is_partial(headers, vnet) {
        let delta = Delta::NONE.word(u16::from(request) << 8, u16::from(reply) << 8);
        if let Some(field) = checksum::get(frame, l4 + 2) {
            put(frame, l4 + 2, delta.complete(field));
        }
        if let Some(message) = frame.get_mut(l4..headers.total_len as usize).filter(|_| !ipv6) {
            checksum::settle_icmp(message);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rewrite::quoted;
    use crate::packet::testing::{Sample, Upper, assert_checksums};
    use crate::packet::{Ports, tcp_flag};

    const ALL: [Error; 6] = [
        Error::TimeExceeded,
        Error::NetUnreachable,
        Error::HostUnreachable,
        Error::PortUnreachable,
        Error::AdminProhibited,
        Error::TooBig { mtu: 1_392 },
    ];

    fn router(ipv6: bool) -> IpAddr {
        let text = if ipv6 { "2001:db8::ff" } else { "192.0.2.254" };
        text.parse().unwrap()
    }

    fn error_about(error: Error, packet: &[u8]) -> Vec<u8> {
        let headers = Headers::parse(packet).unwrap();
        let mut out = vec![0xaa; MAX_LEN];
        let len = write_error(&mut out, error, router(headers.is_ipv6()), packet, &headers);
        out.truncate(len);
        out
    }

    #[test]
    fn an_error_goes_to_the_sender_and_quotes_its_packet() {
        for ipv6 in [false, true] {
            for error in ALL {
                for len in [0, 1, 5_000] {
                    let packet = Sample::tcp(ipv6, 1, tcp_flag::ACK, &vec![1; len]).bytes();
                    let about = Headers::parse(&packet).unwrap();
                    let bytes = error_about(error, &packet);
                    assert_checksums(&bytes);
                    let headers = Headers::parse(&bytes).unwrap();
                    assert_eq!(headers.total_len as usize, bytes.len());
                    assert_eq!((headers.source, headers.destination), (router(ipv6), about.source));
                    assert_eq!(headers.icmp, Some(IcmpKind::Error));
                    let inner = quoted(&bytes, &headers).unwrap();
                    assert_eq!(inner.destination, about.destination);
                    assert_eq!(inner.ports, Some(Ports { src: 40_000, dst: 443 }));
                    assert!(bytes.len() <= if ipv6 { 1_280 } else { 576 });
                    assert!(packet.starts_with(&bytes[headers.payload.into()..]));
                    assert!(!may_answer(&headers), "no error about an error");
                }
            }
        }
    }

    #[test]
    fn too_big_tells_the_mtu() {
        for (ipv6, kind, code) in [(false, 3, 4), (true, 2, 0)] {
            let packet = Sample::udp(ipv6, &[0; 1_400]).bytes();
            let bytes = error_about(Error::TooBig { mtu: 1_392 }, &packet);
            let at = if ipv6 { 40 } else { 20 };
            assert_eq!((bytes[at], bytes[at + 1]), (kind, code));
            assert_eq!(bytes[at + 4..at + 8], 1_392_u32.to_be_bytes());
        }
    }

    #[test]
    fn the_headers_of_a_train_serve_for_an_error_about_one_of_its_packets() {
        let train = Headers::parse(&Sample::udp(false, &[1; 3_000]).bytes()).unwrap();
        let packet = Sample::udp(false, &[1; 100]).bytes();
        let mut out = [0; MAX_LEN];
        let error = Error::TooBig { mtu: 1_280 };
        let len = write_error(&mut out, error, router(false), &packet, &train);
        assert_checksums(&out[..len]);
        assert_eq!(out[28..len], packet);
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let answers = |change: fn(&mut Sample)| {
            let mut sample = Sample::udp(false, b"data");
            change(&mut sample);
            !error_about(Error::TimeExceeded, &sample.bytes()).is_empty()
        };
        assert!(answers(|_| ()));
        assert!(answers(|sample| sample.upper = Upper::EchoRequest));
        assert!(!answers(|sample| sample.destination = [224, 0, 0, 251].into()));
        assert!(!answers(|sample| sample.destination = [255; 4].into()));
        assert!(!answers(|sample| sample.source = [0; 4].into()));
        assert!(!answers(|sample| sample.source = [127, 0, 0, 1].into()));
        let mut later = Sample::udp(false, &[0; 32]).bytes();
        later[7] = 2;
        assert!(error_about(Error::TimeExceeded, &later).is_empty());
    }

    #[test]
    fn the_wrong_family_or_too_little_room_gives_nothing() {
        let packet = Sample::udp(false, b"data").bytes();
        let headers = Headers::parse(&packet).unwrap();
        let mut out = [0; MAX_LEN];
        let error = Error::NetUnreachable;
        assert_eq!(write_error(&mut out, error, router(true), &packet, &headers), 0);
        assert_eq!(write_error(&mut out[1..], error, router(false), &packet, &headers), 0);
    }

    #[test]
    fn an_error_survives_translation() {
        let packet = Sample::tcp(false, 1, tcp_flag::ACK, &[1; 20]).bytes();
        let mut bytes = error_about(Error::TimeExceeded, &packet);
        let headers = Headers::parse(&bytes).unwrap();
        let inside = IpAddr::from([10, 0, 0, 5]);
        crate::packet::rewrite::set_quoted_source(&mut bytes, &headers, inside, Some(9)).unwrap();
        let vnet = Vnet::default();
        crate::packet::rewrite::set_destination(&mut bytes, &headers, &vnet, inside, None).unwrap();
        assert_checksums(&bytes);
        assert_checksums(&bytes[28..]);
    }

    #[test]
    fn a_reply_of_nothing_but_zeros_has_a_checksum_of_ones() {
        let message = |upper, id: u16, ipv6| {
            let mut bytes = Sample::new(ipv6, upper, b"").bytes();
            let headers = Headers::parse(&bytes).unwrap();
            let l4 = usize::from(headers.l4);
            bytes[l4 + 4..].fill(0);
            bytes[l4 + 4..l4 + 6].copy_from_slice(&id.to_be_bytes());
            checksum::complete(&mut bytes, &headers);
            let headers = Headers::parse(&bytes).unwrap();
            (bytes, headers)
        };
        let vnet = Vnet::default();
        let (mut answered, request) = message(Upper::EchoRequest, 0, false);
        assert!(turn_echo(&mut answered, &request, &vnet));
        let (mut renamed, reply) = message(Upper::EchoReply, 7, false);
        let source = reply.source;
        crate::packet::rewrite::set_source(&mut renamed, &reply, &vnet, source, Some(0)).unwrap();
        let (from, reply) = message(Upper::EchoReply, 0, true);
        let [source, destination] = ["192.0.2.1", "192.0.2.2"].map(|end| end.parse().unwrap());
        let ends = crate::packet::siit::Ends { source, destination };
        let mut translated = Vec::new();
        crate::packet::siit::to_ipv4(&mut translated, &from, &reply, &vnet, ends).unwrap();
        for bytes in [answered, renamed, translated] {
            assert_eq!(bytes[20..], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
            assert!(checksum::is_right(&bytes, &Headers::parse(&bytes).unwrap()));
        }
    }

    #[test]
    fn an_echo_request_becomes_its_reply() {
        for ipv6 in [false, true] {
            let sample = Sample::new(ipv6, Upper::EchoRequest, b"some data");
            let mut bytes = sample.bytes();
            let asked = Headers::parse(&bytes).unwrap();
            assert!(turn_echo(&mut bytes, &asked, &Vnet::default()));
            assert_checksums(&bytes);
            let headers = Headers::parse(&bytes).unwrap();
            assert_eq!((headers.source, headers.destination), (asked.destination, asked.source));
            assert_eq!((headers.icmp, headers.ports), (Some(IcmpKind::Reply), asked.ports));
            assert!(!turn_echo(&mut bytes, &headers, &Vnet::default()), "a reply is not answered");
        }
        let mut timestamp = Sample::new(false, Upper::EchoRequest, &[0; 12]).bytes();
        timestamp[20] = 13;
        let headers = Headers::parse(&timestamp).unwrap();
        assert!(!turn_echo(&mut timestamp, &headers, &Vnet::default()));
    }
}
