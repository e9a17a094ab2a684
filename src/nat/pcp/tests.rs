use std::net::Ipv4Addr;

use super::*;
use crate::nat::{Kind, MappingId, NatConfig};
use crate::packet::testing::{Sample, Upper};
use crate::packet::{Headers, Vnet, tcp_flag};
use crate::rng::Rng;
use crate::telemetry::DropReason;

const SITE: Realm = Realm(3);
const START: Instant = Instant::from_micros(77_000_000);
const NONCE: [u8; 12] = *b"twelve bytes";

struct Lab {
    nat: Nat,
    server: PcpServer,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        let pool = vec!["198.51.100.4/32".parse().unwrap()];
        let config = NatConfig::new(pool, 40_000..=40_099);
        let nat = Nat::new(START, &config, Rng::new([5; 32]));
        Self { nat, server: PcpServer::new(START), now: START + Duration::from_secs(100) }
    }

    fn ask(&mut self, client: &str, request: &[u8]) -> Vec<u8> {
        let mut out = [0xaa; MAX_LEN];
        let client = client.parse().unwrap();
        let Self { nat, server, now } = self;
        let len = server.handle(*now, nat, SITE, client, request, &mut out);
        out[..len].to_vec()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.nat.expire(self.now, 1_000_000);
    }
}

/// A MAP request of 10.2.0.1.
fn map(protocol: u8, inside: u16, wished: u16, lifetime: u32, nonce: [u8; 12]) -> Vec<u8> {
    let mut request = vec![2, 1, 0, 0];
    request.extend_from_slice(&lifetime.to_be_bytes());
    request.extend_from_slice(&Ipv4Addr::new(10, 2, 0, 1).to_ipv6_mapped().octets());
    request.extend_from_slice(&nonce);
    request.extend_from_slice(&[protocol, 0, 0, 0]);
    request.extend_from_slice(&inside.to_be_bytes());
    request.extend_from_slice(&wished.to_be_bytes());
    request.extend_from_slice(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    request
}

/// Result code, lifetime and outside endpoint.
fn read(response: &[u8]) -> (u8, u32, SocketAddr) {
    assert_eq!((response[0], response[1], response[2]), (2, 0x81, 0));
    let lifetime = u32::from_be_bytes(field(response, 4).unwrap());
    let port = u16::from_be_bytes(field(response, 42).unwrap());
    let address = narrow(Ipv6Addr::from(field::<16>(response, 44).unwrap()));
    (response[3], lifetime, SocketAddr::new(address, port))
}

const HOST: &str = "10.2.0.1:9999";

#[test]
fn a_host_gets_keeps_and_gives_back_a_mapping() {
    let mut lab = Lab::new();
    let response = lab.ask(HOST, &map(6, 80, 40_080, 600, NONCE));
    assert_eq!(response.len(), 60);
    assert_eq!(response[8..12], 100_u32.to_be_bytes(), "the epoch");
    let (result, lifetime, outside) = read(&response);
    assert_eq!((result, lifetime), (0, 600));
    assert_eq!(outside, "198.51.100.4:40080".parse().unwrap(), "as wished");
    let view = lab.nat.iter_from(MappingId(0)).next().unwrap();
    assert_eq!((view.kind, view.inside), (Kind::Leased, "10.2.0.1:80".parse().unwrap()));
    lab.wait(500);
    assert_eq!(read(&lab.ask(HOST, &map(6, 80, 0, 600, NONCE))), (0, 600, outside), "prolonged");
    lab.wait(599);
    assert_eq!(lab.nat.counts().mappings, 1);
    // Only whoever made it may change it.
    assert_eq!(read(&lab.ask(HOST, &map(6, 80, 0, 600, [9; 12]))).0, 2);
    assert_eq!(read(&lab.ask(HOST, &map(6, 80, 0, 0, [9; 12]))).0, 2);
    let (result, lifetime, _) = read(&lab.ask(HOST, &map(6, 80, 0, 0, NONCE)));
    assert_eq!((result, lifetime, lab.nat.counts().mappings), (0, 0, 0));
    assert_eq!(read(&lab.ask(HOST, &map(6, 80, 0, 0, NONCE))).0, 0, "once more");
}

#[test]
fn a_lease_ends_by_itself() {
    let mut lab = Lab::new();
    assert_eq!(read(&lab.ask(HOST, &map(17, 53, 0, 1, NONCE))).1, 120, "at least two minutes");
    assert_eq!(read(&lab.ask(HOST, &map(17, 54, 0, u32::MAX, NONCE))).1, 86_400);
    lab.wait(119);
    assert_eq!(lab.nat.counts().mappings, 2);
    lab.wait(2);
    assert_eq!(lab.nat.counts().mappings, 1);
    lab.wait(86_400);
    assert_eq!(lab.nat.counts().mappings, 0);
}

#[test]
fn a_wish_that_cannot_be_granted_is_replaced_or_refused() {
    let mut lab = Lab::new();
    let (_, _, first) = read(&lab.ask(HOST, &map(6, 80, 40_080, 600, NONCE)));
    let (result, _, second) = read(&lab.ask(HOST, &map(6, 81, 40_080, 600, NONCE)));
    assert_eq!(result, 0);
    assert_ne!(first, second);
    let mut strict = map(6, 82, 40_080, 600, NONCE);
    strict.extend_from_slice(&[2, 0, 0, 0]);
    let response = lab.ask(HOST, &strict);
    assert_eq!((read(&response).0, read(&response).1), (11, 30));
    // Beyond the NAT's ports.
    let (result, _, other) = read(&lab.ask(HOST, &map(6, 83, 80, 600, NONCE)));
    assert!(result == 0 && (40_000..=40_099).contains(&other.port()));
    assert_eq!(lab.nat.counts().mappings, 3);
}

#[test]
fn a_host_has_a_share_of_the_leases() {
    let mut lab = Lab::new();
    let pool = vec!["198.51.100.4/32".parse().unwrap()];
    lab.nat = Nat::new(START, &NatConfig::new(pool, 40_000..=49_999), Rng::new([5; 32]));
    let results: Vec<_> =
        (1..=130).map(|port| read(&lab.ask(HOST, &map(6, port, 0, 600, NONCE))).0).collect();
    assert!(results[..128].iter().all(|result| *result == 0));
    assert_eq!(results[128..], [10, 10], "quota");
    assert_eq!(lab.nat.counts().mappings, 128);
}

#[test]
fn a_site_leaves_leases_to_other_sites() {
    let mut lab = Lab::new();
    let pool = vec!["198.51.100.0/29".parse().unwrap()];
    lab.nat = Nat::new(START, &NatConfig::new(pool, 30_000..=49_999), Rng::new([5; 32]));
    let mut wanted = LeaseRequest {
        transport: Transport::Tcp,
        realm: SITE,
        inside: HOST.parse().unwrap(),
        wished: None,
        only_wished: false,
        nonce: NONCE,
        lifetime: Duration::from_secs(600),
    };
    let made_up = |n: u16| SocketAddr::from(([10, 2, (n / 250) as u8, (n % 250) as u8 + 1], 80));
    let mut granted = 0;
    for n in 0..2_000 {
        wanted.inside = made_up(n);
        granted += u32::from(lab.nat.lease(lab.now, &wanted).is_ok());
        lab.now += Duration::from_millis(10);
    }
    assert_eq!(granted, 1_024);
    wanted.realm = Realm(4);
    assert!(lab.nat.lease(lab.now, &wanted).is_ok());
}

#[test]
fn what_is_not_understood_is_refused_with_its_reason() {
    let mut lab = Lab::new();
    let good = map(6, 80, 0, 600, NONCE);
    let changed = |at: usize, byte: u8| {
        let mut request = good.clone();
        request[at] = byte;
        request
    };
    let with = |more: &[u8]| [&good[..], more].concat();
    for (what, request, result) in [
        ("version", changed(0, 3), 1),
        ("PEER", changed(1, 2), 4),
        ("opcode", changed(1, 99), 4),
        ("all protocols", changed(36, 0), 9),
        ("GRE", changed(36, 47), 9),
        ("another client", changed(23, 9), 12),
        ("THIRD_PARTY", with(&[1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 5),
        ("option too long", with(&[2, 0, 0, 9]), 6),
        ("cut", good[..40].to_vec(), 3),
        ("odd length", with(&[0]), 3),
        ("too long", vec![2; 1_104], 3),
        ("header only", good[..20].to_vec(), 3),
    ] {
        let mut request = request;
        if what == "too long" {
            request[1] = 1;
        }
        let response = lab.ask(HOST, &request);
        assert_eq!(response[3], result, "{what}");
        assert!(response.len().is_multiple_of(4) && response.len() <= MAX_LEN, "{what}");
    }
    assert_eq!(lab.nat.counts().mappings, 0);
    for silent in [&[][..], &[2], &changed(1, 0x81)] {
        assert!(lab.ask(HOST, silent).is_empty());
    }
    let announce: Vec<_> = [&[2, 0, 0, 0], &good[4..24]].concat();
    assert_eq!(lab.ask(HOST, &announce)[..4], [2, 0x80, 0, 0]);
    assert_eq!(read(&lab.ask(HOST, &with(&[200, 0, 0, 3, 1, 2, 3, 0]))).0, 0, "optional option");
}

#[test]
fn the_forerunner_is_spoken_too() {
    let mut lab = Lab::new();
    let response = lab.ask(HOST, &[0, 0]);
    assert_eq!(response, [0, 128, 0, 0, 0, 0, 0, 100, 198, 51, 100, 4]);
    let ask = |port: u16, lifetime: u32| {
        let mut request = vec![0, 2, 0, 0];
        request.extend_from_slice(&port.to_be_bytes());
        request.extend_from_slice(&40_022_u16.to_be_bytes());
        request.extend_from_slice(&lifetime.to_be_bytes());
        request
    };
    let response = lab.ask(HOST, &ask(22, 7_200));
    assert_eq!(response[..4], [0, 130, 0, 0]);
    assert_eq!(
        response[8..],
        [&22_u16.to_be_bytes()[..], &40_022_u16.to_be_bytes(), &7_200_u32.to_be_bytes()].concat()
    );
    assert_eq!(lab.nat.counts().mappings, 1);
    let response = lab.ask(HOST, &ask(22, 0));
    assert_eq!((response[3], lab.nat.counts().mappings), (0, 0));
    assert_eq!(lab.ask(HOST, &[0, 9])[..4], [0, 137, 0, 5]);
    assert!(lab.ask(HOST, &[0, 1, 0]).is_empty());
}

/// A packet between the host's port 5000 and a server; flags of zero for UDP.
fn pass(lab: &mut Lab, flags: u8, outside: Option<SocketAddr>) -> Result<SocketAddr, DropReason> {
    let upper = match flags {
        0 => Upper::Udp,
        _ => Upper::Tcp { seq: 1, ack: 1, flags, options: vec![] },
    };
    let mut sample = Sample::new(false, upper, b"data");
    let (host, server) = (IpAddr::from([10, 2, 0, 1]), IpAddr::from([203, 0, 113, 80]));
    let Lab { nat, now, .. } = lab;
    let whole = Vnet::default();
    if let Some(outside) = outside {
        (sample.source, sample.destination) = (server, outside.ip());
        sample.ports = (443, outside.port());
        let mut packet = sample.bytes();
        let headers = Headers::parse(&packet).unwrap();
        nat.inbound(*now, &mut packet, &headers, &whole)?;
        let headers = Headers::parse(&packet).unwrap();
        return Ok(SocketAddr::new(headers.destination, headers.ports.unwrap().dst));
    }
    (sample.source, sample.destination, sample.ports) = (host, server, (5_000, 443));
    let mut packet = sample.bytes();
    let headers = Headers::parse(&packet).unwrap();
    nat.outbound(*now, SITE, &mut packet, &headers, &whole)?;
    let headers = Headers::parse(&packet).unwrap();
    Ok(SocketAddr::new(headers.source, headers.ports.unwrap().src))
}

#[test]
fn a_mapping_in_use_is_taken_over_and_survives_its_lease() {
    const SYN: u8 = tcp_flag::SYN;
    const ACK: u8 = tcp_flag::ACK;
    let mut lab = Lab::new();
    let kind = |lab: &Lab| lab.nat.iter_from(MappingId(0)).next().map(|view| view.kind);
    let inside: SocketAddr = "10.2.0.1:5000".parse().unwrap();
    let outside = pass(&mut lab, SYN, None).unwrap();
    assert_eq!(pass(&mut lab, SYN | ACK, Some(outside)), Ok(inside));
    assert_eq!(kind(&lab), Some(Kind::Dynamic));
    let (result, _, leased) = read(&lab.ask(HOST, &map(6, 5_000, 0, 120, NONCE)));
    assert_eq!((result, leased), (0, outside), "the endpoint that its packets have");
    assert_eq!((kind(&lab), lab.nat.counts().mappings), (Some(Kind::Leased), 1));
    // The lease ends, the connection does not.
    lab.wait(121);
    assert_eq!(kind(&lab), Some(Kind::Dynamic));
    assert_eq!(pass(&mut lab, ACK, Some(outside)), Ok(inside));
    assert_eq!(pass(&mut lab, ACK, None), Ok(outside));
    assert_eq!(read(&lab.ask(HOST, &map(6, 5_000, 0, 0, [9; 12]))).0, 0, "nobody's any more");
    lab.wait(7_441);
    assert_eq!(lab.nat.counts().mappings, 0);
    // Without a connection nothing is left of it.
    let outside = pass(&mut lab, 0, None).unwrap();
    assert_eq!(read(&lab.ask(HOST, &map(17, 5_000, 0, 600, NONCE))).2, outside);
    lab.wait(599);
    assert_eq!(pass(&mut lab, 0, Some(outside)), Ok(inside), "longer than silence would last");
    lab.wait(2);
    assert_eq!(pass(&mut lab, 0, Some(outside)), Err(DropReason::Unsolicited));
}
