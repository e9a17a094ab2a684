//! IPv6 hosts: to IPv4 (NAT64), to IPv6 with ports (NAT66) and by prefix (NPTv6).

use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::addr::Nat64Prefix;
use crate::packet::{Fragmenter, Gso, checksum, icmp};

const PREFIX: Nat64Prefix = Nat64Prefix::WELL_KNOWN;
const HOST: &str = "fd00:2::5";
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

fn v6(text: &str) -> IpAddr {
    IpAddr::V6(text.parse().unwrap())
}

fn v6_octets(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn server() -> IpAddr {
    PREFIX.embed(SERVER_V4).into()
}

fn sample(from: (IpAddr, u16), to: (IpAddr, u16), upper: Upper, data: &[u8]) -> Vec<u8> {
    let mut sample = Sample::new(from.0.is_ipv6(), upper, data);
    (sample.source, sample.destination, sample.ports) = (from.0, to.0, (from.1, to.1));
    sample.bytes()
}

/// Sends a packet of an IPv6 host to IPv4, and returns what leaves.
fn leave(lab: &mut Lab, packet: &[u8]) -> Result<(Vec<u8>, Headers), DropReason> {
    let headers = Headers::parse(packet).unwrap();
    let mut out = Vec::new();
    let whole = Vnet::default();
    let (vnet, to) =
        lab.nat.outbound_64(lab.now, SITE, packet, &headers, &whole, PREFIX, &mut out)?;
    assert_eq!((vnet, to), (whole, Outbound::Internet));
    let headers = Headers::parse(&out).unwrap();
    if headers.fragment.is_none() {
        assert_checksums(&out);
    }
    Ok((out, headers))
}

/// Lets an IPv4 packet arrive from outside, and returns what its IPv6 host gets.
fn enter(lab: &mut Lab, packet: &[u8]) -> Result<(Vec<u8>, Headers), DropReason> {
    let mut packet = packet.to_vec();
    let Arrival::Inside(to) = lab.arrive(&mut packet)? else { panic!("not for a host") };
    let headers = Headers::parse(&packet).unwrap();
    let IpAddr::V6(host) = to.destination else { panic!("{to:?} is no IPv6 host") };
    let mut out = Vec::new();
    to_ipv6(&packet, &headers, &Vnet::default(), host, PREFIX, &mut out)?;
    let headers = Headers::parse(&out).unwrap();
    assert_eq!((to.realm, headers.destination), (SITE, IpAddr::V6(host)));
    if headers.fragment.is_none() {
        assert_checksums(&out);
    }
    Ok((out, headers))
}

fn answer(headers: &Headers, upper: Upper, data: &[u8]) -> Vec<u8> {
    let ports = headers.ports.unwrap();
    let from = if matches!(upper, Upper::EchoReply) { ports.src } else { ports.dst };
    let mut packet = sample((headers.destination, from), (headers.source, ports.src), upper, data);
    if headers.icmp.is_some() {
        packet[24..26].copy_from_slice(&ports.src.to_be_bytes());
        let headers = Headers::parse(&packet).unwrap();
        checksum::complete(&mut packet, &headers);
    }
    packet
}

#[test]
fn an_ipv6_host_talks_to_ipv4_servers_by_one_outside_endpoint() {
    for (upper, back) in [
        (Upper::Udp, Upper::Udp),
        (tcp(SYN), tcp(SYN | ACK)),
        (Upper::EchoRequest, Upper::EchoReply),
    ] {
        let mut lab = Lab::new(&config());
        let sent = sample((v6(HOST), 5_000), (server(), 443), upper.clone(), b"question");
        let (out, headers) = leave(&mut lab, &sent).unwrap();
        assert!(lab.nat.is_outside(headers.source));
        assert_eq!(headers.destination, IpAddr::V4(SERVER_V4));
        assert!(out.ends_with(b"question"));
        let other = PREFIX.embed(Ipv4Addr::new(198, 18, 0, 1)).into();
        let (_, second) =
            leave(&mut lab, &sample((v6(HOST), 5_000), (other, 80), upper, b"")).unwrap();
        let own = |headers: &Headers| (headers.source, headers.ports.unwrap().src);
        assert_eq!(own(&second), own(&headers), "endpoint-independent");
        let (inside, got) = enter(&mut lab, &answer(&headers, back, b"answer")).unwrap();
        assert_eq!((got.source, got.destination), (server(), v6(HOST)));
        assert_eq!(got.ports.unwrap().dst, 5_000);
        assert!(inside.ends_with(b"answer"));
        assert_eq!(lab.nat.counts().mappings, 1);
        lab.nat.check();
    }
}

#[test]
fn errors_reach_an_ipv6_host_and_an_ipv4_server_about_their_own_packets() {
    let mut lab = Lab::new(&config());
    let sent = sample((v6(HOST), 5_000), (server(), 443), Upper::Udp, b"a question of some length");
    let (out, headers) = leave(&mut lab, &sent).unwrap();
    let router = Ipv4Addr::new(192, 0, 2, 9);
    let mut error = [0; icmp::MAX_LEN];
    let cause = icmp::Error::TooBig { mtu: 1_300 };
    let len = icmp::write_error(&mut error, cause, router.into(), &out, &headers);
    let (told, got) = enter(&mut lab, &error[..len]).unwrap();
    assert_eq!(got.source, IpAddr::V6(PREFIX.embed(router)));
    assert_eq!((told[40], &told[44..48]), (2, &1_320_u32.to_be_bytes()[..]), "packet too big");
    assert_eq!(told[48..], sent, "as the host has sent it");

    // The host's own error, and one of a router in its site.
    let (inside, got) = enter(&mut lab, &answer(&headers, Upper::Udp, b"nobody listens")).unwrap();
    for source in [HOST, "fd00:2::1"] {
        let mut error = [0; icmp::MAX_LEN];
        let cause = icmp::Error::PortUnreachable;
        let len = icmp::write_error(&mut error, cause, v6(source), &inside, &got);
        let (told, outer) = leave(&mut lab, &error[..len]).unwrap();
        assert_eq!((outer.source, outer.destination), (headers.source, headers.destination));
        assert_eq!(told[20..22], [3, 3]);
        let quoted = crate::packet::rewrite::quoted(&told, &outer).unwrap();
        assert_eq!((quoted.source, quoted.destination), (headers.destination, headers.source));
        assert_eq!(quoted.ports.unwrap().dst, headers.ports.unwrap().src);
    }
    // About something else: nothing.
    let foreign = sample((server(), 443), (v6(HOST), 9), Upper::Udp, b"x");
    let headers = Headers::parse(&foreign).unwrap();
    let mut error = [0; icmp::MAX_LEN];
    let cause = icmp::Error::PortUnreachable;
    let len = icmp::write_error(&mut error, cause, v6(HOST), &foreign, &headers);
    assert_eq!(leave(&mut lab, &error[..len]).unwrap_err(), DropReason::UnrelatedIcmpError);
    assert_eq!(lab.nat.counts().mappings, 1);
}

#[test]
fn fragments_of_ipv4_answers_reach_an_ipv6_host_in_any_order() {
    let mut lab = Lab::new(&config());
    let sent = sample((v6(HOST), 5_000), (server(), 443), Upper::Udp, b"question");
    let (_, headers) = leave(&mut lab, &sent).unwrap();
    let mut whole = answer(&headers, Upper::Udp, &[7; 2_000]);
    whole[6] = 0;
    checksum::fill_ipv4(&mut whole[..20]);
    let parsed = Headers::parse(&whole).unwrap();
    let pieces = Fragmenter::new(&whole, &parsed, 1_400).unwrap();
    let piece = |index| {
        let mut piece = vec![0; pieces.fragment_len(index)];
        pieces.write(index, &mut piece);
        piece
    };
    assert_eq!(lab.arrive(&mut piece(1)), Ok(Arrival::Held));
    let (first, headers) = enter(&mut lab, &piece(0)).unwrap();
    assert_eq!(headers.ports.unwrap().dst, 5_000);
    let mut held = Vec::new();
    assert_eq!(lab.nat.take_released(&mut held), Some(None));
    let (second, later) = enter(&mut lab, &held).unwrap();
    assert_eq!((later.destination, later.fragment.unwrap().offset), (v6(HOST), 1_376));
    let sum = checksum::pseudo_header(server(), v6(HOST), protocol::UDP, 2_008);
    let sum = sum.bytes(&first[48..]).bytes(&second[48..]);
    assert_eq!(sum.fold(), 0xffff, "the whole has the right checksum");
}

#[test]
fn fragments_of_an_ipv6_host_leave_with_one_identification() {
    let mut lab = Lab::new(&config());
    let whole = sample((v6(HOST), 5_000), (server(), 443), Upper::Udp, &[7; 64]);
    let piece = |range: std::ops::Range<usize>, more: u16| {
        let mut piece = whole[..40].to_vec();
        piece[6] = 44;
        piece[4..6].copy_from_slice(&(8 + range.len() as u16).to_be_bytes());
        piece.extend_from_slice(&[protocol::UDP, 0]);
        piece.extend_from_slice(&(range.start as u16 | more).to_be_bytes());
        piece.extend_from_slice(&[0, 9, 0, 9]);
        piece.extend_from_slice(&whole[40 + range.start..40 + range.end]);
        piece
    };
    let (first, headers) = leave(&mut lab, &piece(0..40, 1)).unwrap();
    let (second, later) = leave(&mut lab, &piece(40..72, 0)).unwrap();
    assert_eq!(first[4..6], second[4..6], "one identification");
    assert_eq!(later.source, headers.source);
    assert_eq!(later.fragment.unwrap().offset, 40);
    let sum = checksum::pseudo_header(headers.source, headers.destination, protocol::UDP, 72);
    assert_eq!(sum.bytes(&first[20..]).bytes(&second[20..]).fold(), 0xffff);
}

#[test]
fn an_ipv6_host_and_an_ipv4_host_meet_at_their_outside_endpoints() {
    let mut lab = Lab::new(&config());
    let sent = sample((v6(HOST), 5_000), (server(), 443), Upper::Udp, b"");
    let (_, own) = leave(&mut lab, &sent).unwrap();
    let neighbour = lab.out(SITE, "10.2.0.9:6000", SERVER, Upper::Udp).unwrap();
    // From IPv6 to the IPv4 host.
    let to = (PREFIX.embed(*neighbour.ip()).into(), neighbour.port());
    let packet = sample((v6(HOST), 5_000), to, Upper::Udp, b"hello");
    let headers = Headers::parse(&packet).unwrap();
    let mut out = Vec::new();
    let whole = Vnet::default();
    let (_, turned) =
        lab.nat.outbound_64(lab.now, SITE, &packet, &headers, &whole, PREFIX, &mut out).unwrap();
    let there = Inbound { realm: SITE, destination: [10, 2, 0, 9].into() };
    assert_eq!(turned, Outbound::Hairpin(there));
    assert_checksums(&out);
    let headers = Headers::parse(&out).unwrap();
    assert_eq!(headers.source, own.source, "with the outside source");
    // And back.
    let back = socket(own.source, own.ports.unwrap().src);
    let mut packet = packet_of(end("10.2.0.9:6000"), back);
    let (turned, headers) = lab.send(SITE, &mut packet).unwrap();
    let here = Inbound { realm: SITE, destination: v6(HOST) };
    assert_eq!(turned, Outbound::Hairpin(here));
    let mut out = Vec::new();
    let host: Ipv6Addr = HOST.parse().unwrap();
    to_ipv6(&packet, &headers, &whole, host, PREFIX, &mut out).unwrap();
    assert_checksums(&out);
    let got = Headers::parse(&out).unwrap();
    assert_eq!(got.source, IpAddr::V6(PREFIX.embed(*neighbour.ip())));
    assert_eq!(got.ports.unwrap().dst, 5_000);
}

fn packet_of(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    packet(from, to, Upper::Udp)
}

#[test]
fn a_super_packet_of_an_ipv6_host_is_translated_once() {
    let mut lab = Lab::new(&config());
    let syn = sample((v6(HOST), 5_000), (server(), 443), tcp(SYN), b"");
    leave(&mut lab, &syn).unwrap();
    let mut train = sample((v6(HOST), 5_000), (server(), 443), tcp(ACK), &[1; 6_000]);
    let vnet = Vnet {
        gso: Gso::Tcp { ecn: false },
        segment_size: 1_220,
        header_len: 60,
        ..crate::packet::testing::make_partial(&mut train)
    };
    let headers = Headers::parse(&train).unwrap();
    let mut out = Vec::new();
    let (vnet, _) =
        lab.nat.outbound_64(lab.now, SITE, &train, &headers, &vnet, PREFIX, &mut out).unwrap();
    assert_eq!((vnet.segment_size, vnet.checksum_start, vnet.header_len), (1_220, 20, 40));
    let after = Headers::parse(&out).unwrap();
    checksum::complete_partial(&mut out, &after, &vnet).unwrap();
    assert!(checksum::is_right(&out, &after));
}

#[test]
fn what_rfc_6146_does_not_carry_is_refused() {
    let mut lab = Lab::new(&config());
    let mut gre = sample((v6(HOST), 5_000), (server(), 443), Upper::Udp, b"");
    gre[6] = 47;
    assert_eq!(leave(&mut lab, &gre).unwrap_err(), DropReason::UnsupportedProtocol);
    let elsewhere = sample((v6(HOST), 5_000), (v6("2001:db8::1"), 443), Upper::Udp, b"");
    assert_eq!(leave(&mut lab, &elsewhere).unwrap_err(), DropReason::NoRoute);
    let late = sample((v6(HOST), 5_000), (server(), 443), tcp(ACK), b"");
    assert_eq!(leave(&mut lab, &late).unwrap_err(), DropReason::NatNoSession);
    assert_eq!(lab.nat.counts().mappings, 0);
}

fn prefixes() -> NatConfig {
    let pair = PrefixPair {
        realm: SITE,
        inside: "fd00:2::/48".parse().unwrap(),
        outside: "2001:db8:2::/48".parse().unwrap(),
    };
    NatConfig { prefixes: vec![pair], ..config() }
}

#[test]
fn a_prefix_is_exchanged_without_mappings_in_both_directions() {
    let mut lab = Lab::new(&prefixes());
    let remote = v6("2001:db8:ffff::80");
    for upper in [Upper::Udp, tcp(ACK), Upper::EchoRequest] {
        let mut packet = sample((v6(HOST), 5_000), (remote, 443), upper, b"data");
        let before = packet.clone();
        let (to, headers) = lab.send(SITE, &mut packet).unwrap();
        assert_eq!(to, Outbound::Internet);
        assert!(headers.source.to_string().starts_with("2001:db8:2:"));
        assert_eq!(packet[40..], before[40..], "no checksum and no port changes");
        // Back, and to one who has not sent: it is a prefix, not a filter.
        for from in [remote, v6("2001:db8:ffff::81")] {
            let mut back = sample((from, 443), (headers.source, 5_000), Upper::Udp, b"data");
            let (inbound, _) = lab.receive(&mut back).unwrap();
            assert_eq!((inbound.realm, inbound.destination), (SITE, v6(HOST)));
        }
        // An error about it, from a router.
        let mut error = [0; icmp::MAX_LEN];
        let len =
            icmp::write_error(&mut error, icmp::Error::TimeExceeded, remote, &packet, &headers);
        lab.receive(&mut error[..len]).unwrap();
        assert_eq!(error[48..len], before);
    }
    // One of the host about what it got.
    let seen = lab.send(SITE, &mut sample((v6(HOST), 1), (remote, 2), Upper::Udp, b"")).unwrap().1;
    let mut got = sample((remote, 443), (seen.source, 7), Upper::Udp, b"data");
    let sent = got.clone();
    let (_, headers) = lab.receive(&mut got).unwrap();
    let mut error = [0; icmp::MAX_LEN];
    let len = icmp::write_error(&mut error, icmp::Error::PortUnreachable, v6(HOST), &got, &headers);
    lab.send(SITE, &mut error[..len]).unwrap();
    assert_eq!(error[48..len], sent, "as the remote has sent it");
    // One of a router before the host, whose address no prefix has.
    let router = v6("fd77::1");
    let len = icmp::write_error(&mut error, icmp::Error::PortUnreachable, router, &got, &headers);
    let (_, told) = lab.send(SITE, &mut error[..len]).unwrap();
    assert_eq!((told.source, told.destination), (seen.source, remote));
    assert_eq!(error[48..len], sent);
    // One about what was never for the site is nobody's.
    let mut other = got.clone();
    other[24..40].copy_from_slice(&v6_octets("fd00:3::5"));
    let other_headers = Headers::parse(&other).unwrap();
    let len =
        icmp::write_error(&mut error, icmp::Error::PortUnreachable, router, &other, &other_headers);
    assert!(lab.send(SITE, &mut error[..len]).is_err());
    assert_eq!(lab.nat.counts().mappings, 0);
    // Another site has no part in it.
    let mut packet = sample((v6(HOST), 5_000), (remote, 443), Upper::Udp, b"");
    assert_eq!(lab.send(Realm(4), &mut packet), Err(DropReason::NatPortsExhausted));
}

#[test]
fn hosts_behind_a_prefix_meet_at_their_outside_addresses() {
    let mut lab = Lab::new(&prefixes());
    let remote = v6("2001:db8:ffff::80");
    let seen = lab.send(SITE, &mut sample((v6(HOST), 1), (remote, 2), Upper::Udp, b"")).unwrap().1;
    let mut packet = sample((v6("fd00:2::6"), 1), (seen.source, 2), Upper::Udp, b"hello");
    let (turned, headers) = lab.send(SITE, &mut packet).unwrap();
    assert_eq!(turned, Outbound::Hairpin(Inbound { realm: SITE, destination: v6(HOST) }));
    assert!(headers.source.to_string().starts_with("2001:db8:2:"));
}

#[test]
fn several_ipv6_addresses_share_the_hosts() {
    let pool = ["2001:db8:4::/127", "2001:db8:5::9/128"].map(|net| net.parse().unwrap());
    let mut lab = Lab::new(&NatConfig { pool: pool.to_vec(), ..config() });
    let remote = v6("2001:db8:ffff::80");
    let mut seen = std::collections::BTreeSet::new();
    for host in 1..60_u16 {
        let address = v6(&format!("fd00:2::{host}"));
        let first = lab.send(SITE, &mut sample((address, 1), (remote, 2), Upper::Udp, b""));
        let second = lab.send(SITE, &mut sample((address, 2), (remote, 2), Upper::Udp, b""));
        let source = first.unwrap().1.source;
        assert_eq!(second.unwrap().1.source, source, "a host keeps its address");
        seen.insert(source);
    }
    assert_eq!(seen.len(), 3, "all addresses are used");
    lab.nat.check();
}
