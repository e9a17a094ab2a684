//! Everything that is not plain TCP, UDP and ping over IPv4: other protocols, static mappings,
//! bypass, shares, events, IPv6.

use std::net::IpAddr;

use super::*;
use crate::packet::icmp;

const HOST: &str = "10.2.0.1:5000";

/// A packet of a protocol without ports, or whose ports are not ours to change.
fn other(protocol: u8, from: &str, to: &str) -> Vec<u8> {
    let mut packet = packet(end(from), end(to), Upper::Udp);
    packet[9] = protocol;
    checksum::fill_ipv4(&mut packet[..20]);
    packet
}

#[test]
fn protocols_without_ports_go_by_both_addresses() {
    let (server, elsewhere) = ("203.0.113.80:0", "203.0.113.9:0");
    for protocol in [47, 50, 132, 99] {
        let mut lab = Lab::new(&config());
        let mut sent = other(protocol, HOST, server);
        let before = sent.clone();
        let (_, headers) = lab.send(SITE, &mut sent).unwrap();
        assert!(lab.nat.is_outside(headers.source));
        assert_eq!(sent[20..], before[20..], "nothing above IP is touched");
        let outside = socket(headers.source, 0);
        let answer = other(protocol, server, &outside.to_string());
        let (inbound, _) = lab.receive(&mut answer.clone()).unwrap();
        assert_eq!((inbound.realm, inbound.destination), (SITE, [10, 2, 0, 1].into()));
        let stranger = lab.receive(&mut other(protocol, elsewhere, &outside.to_string()));
        assert_eq!(stranger, Err(DropReason::Unsolicited));
        // An error about it finds its host.
        let mut error = [0; icmp::MAX_LEN];
        let router = Ipv4Addr::new(192, 0, 2, 1).into();
        let len = icmp::write_error(&mut error, icmp::Error::TimeExceeded, router, &sent, &headers);
        lab.receive(&mut error[..len]).unwrap();
        assert_eq!(error[28..len], before, "as the host has sent it");
        lab.nat.check();
        lab.wait(601);
        assert_eq!(lab.nat.counts().mappings, 0);
        assert_eq!(lab.receive(&mut answer.clone()), Err(DropReason::Unsolicited));
    }
}

#[test]
fn where_a_protocol_without_ports_would_be_ambiguous_the_second_host_is_refused() {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    let mut lab = Lab::new(&config);
    let send = |lab: &mut Lab, from, to, protocol| lab.send(SITE, &mut other(protocol, from, to));
    assert!(send(&mut lab, "10.2.0.1:0", "203.0.113.80:0", 47).is_ok());
    let second = send(&mut lab, "10.2.0.2:0", "203.0.113.80:0", 47);
    assert_eq!(second, Err(DropReason::NatAmbiguous));
    assert!(send(&mut lab, "10.2.0.2:0", "203.0.113.9:0", 47).is_ok(), "another remote");
    assert!(send(&mut lab, "10.2.0.2:0", "203.0.113.80:0", 50).is_ok(), "another protocol");
    lab.nat.check();
}

#[test]
fn udp_lite_has_ports_of_its_own() {
    let mut lab = Lab::new(&config());
    for coverage in [0_u16, 8] {
        let lite = |from, to| {
            let mut packet = packet(from, to, Upper::Udp);
            packet[9] = protocol::UDP_LITE;
            packet[24..26].copy_from_slice(&coverage.to_be_bytes());
            checksum::fill_ipv4(&mut packet[..20]);
            let headers = Headers::parse(&packet).unwrap();
            checksum::complete(&mut packet, &headers);
            packet
        };
        let mut sent = lite(end(HOST), end(SERVER));
        let (_, headers) = lab.send(SITE, &mut sent).unwrap();
        assert!(checksum::is_right(&sent, &headers));
        let mapped = source(&headers);
        assert_eq!(mapped.port() % 2, 0, "parity");
        let mut answer = lite(end(SERVER), mapped);
        let (_, headers) = lab.receive(&mut answer).unwrap();
        assert!(checksum::is_right(&answer, &headers));
        assert_eq!(destination(&headers), end(HOST));
        assert_eq!(lab.back(SERVER, mapped, Upper::Udp), Err(DropReason::Unsolicited));
    }
}

#[test]
fn a_timestamp_query_is_answered_through_the_nat() {
    let mut lab = Lab::new(&config());
    let stamp = |from: SocketAddrV4, to: SocketAddrV4, kind| {
        let mut sample = Sample::new(false, Upper::EchoRequest, &[0; 12]);
        (sample.source, sample.destination) = ((*from.ip()).into(), (*to.ip()).into());
        sample.ports = (to.port(), to.port());
        if kind == 13 {
            sample.ports = (from.port(), 0);
        }
        let mut packet = sample.bytes();
        packet[20] = kind;
        let headers = Headers::parse(&packet).unwrap();
        checksum::complete(&mut packet, &headers);
        packet
    };
    let mut query = stamp(end(HOST), end(SERVER), 13);
    let (_, headers) = lab.send(SITE, &mut query).unwrap();
    let mapped = source(&headers);
    let mut reply = stamp(SocketAddrV4::new(*end(SERVER).ip(), mapped.port()), mapped, 14);
    let (_, headers) = lab.receive(&mut reply).unwrap();
    assert_eq!(destination(&headers), end(HOST));
}

#[test]
fn a_host_may_ping_the_outside_addresses() {
    let mut lab = Lab::new(&config());
    let mut ping = packet(end(HOST), end("198.51.100.5:0"), Upper::EchoRequest);
    let (to, headers) = lab.send(SITE, &mut ping).unwrap();
    assert_eq!(to, Outbound::Hairpin(Inbound { realm: SITE, destination: [10, 2, 0, 1].into() }));
    assert_eq!(headers.source, IpAddr::from([198, 51, 100, 5]));
    assert_eq!((headers.icmp, headers.ports.unwrap().dst), (Some(IcmpKind::Reply), 5000));
}

#[test]
fn remote_udp_ports_may_have_other_times() {
    let mut config = config();
    config.timers.udp_ports = vec![(53, Duration::from_secs(30))];
    let mut lab = Lab::new(&config);
    lab.out(SITE, HOST, "203.0.113.53:53", Upper::Udp).unwrap();
    lab.wait(31);
    assert_eq!(lab.nat.counts().mappings, 0);
    // The longest of a mapping's times counts.
    lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    lab.wait(200);
    lab.out(SITE, HOST, "203.0.113.53:53", Upper::Udp).unwrap();
    lab.wait(99);
    assert_eq!(lab.nat.counts().mappings, 1);
    lab.wait(2);
    assert_eq!(lab.nat.counts().mappings, 0);
}

fn forward(transport: Transport, inside: &str, port: u16) -> StaticMapping {
    StaticMapping {
        transport,
        realm: SITE,
        inside: end(inside).into(),
        address: Some([198, 51, 100, 6].into()),
        port,
    }
}

#[test]
fn static_mappings_are_open_and_stay() {
    let mut config = config();
    config.policy.tcp.filtering = Dependence::AddressAndPort;
    config.policy.udp.mapping = Dependence::AddressAndPort;
    config.static_mappings = vec![
        forward(Transport::Tcp, "10.2.0.1:80", 40_080),
        // Beyond the NAT's own ports, and the same host.
        forward(Transport::Udp, "10.2.0.1:53", 53),
        // The same outside endpoint again, and an address that is not ours: not used.
        forward(Transport::Tcp, "10.2.0.9:80", 40_080),
        StaticMapping {
            address: Some([192, 0, 2, 1].into()),
            ..forward(Transport::Tcp, "10.2.0.8:80", 40_081)
        },
    ];
    let mut lab = Lab::new(&config);
    assert_eq!(lab.nat.counts().mappings, 2);
    let (web, dns) = (end("198.51.100.6:40080"), end("198.51.100.6:53"));
    for _ in 0..3 {
        let call = lab.back(SERVER, web, tcp(SYN));
        assert_eq!(call, Ok((SITE, end("10.2.0.1:80"))));
        assert_eq!(lab.out(SITE, "10.2.0.1:80", SERVER, tcp(SYN | ACK)), Ok(web));
        assert_eq!(lab.back(SERVER, dns, Upper::Udp), Ok((SITE, end("10.2.0.1:53"))));
        assert_eq!(lab.out(SITE, "10.2.0.1:53", SERVER, Upper::Udp), Ok(dns));
        lab.wait(20_000);
        assert_eq!((lab.nat.counts().mappings, lab.nat.counts().sessions), (2, 0));
    }
    // What else the host does has the same outside address.
    let more = lab.out(SITE, "10.2.0.1:7777", SERVER, Upper::Udp).unwrap();
    assert_eq!(more.ip(), web.ip());
    // Other hosts reach it by its outside endpoint.
    let mut call = packet(end("10.2.0.2:1234"), web, tcp(SYN));
    let (to, headers) = lab.send(SITE, &mut call).unwrap();
    assert!(matches!(to, Outbound::Hairpin(_)));
    assert_eq!(destination(&headers), end("10.2.0.1:80"));
}

#[test]
fn a_static_mapping_of_a_protocol_without_ports_takes_all_of_it() {
    let mut config = config();
    config.static_mappings = vec![forward(Transport::Other(47), "10.2.0.1:0", 0)];
    let mut lab = Lab::new(&config);
    for remote in ["203.0.113.80:0", "203.0.113.9:0"] {
        let (inbound, _) = lab.receive(&mut other(47, remote, "198.51.100.6:0")).unwrap();
        assert_eq!(inbound.destination, IpAddr::from([10, 2, 0, 1]));
        let (_, headers) = lab.send(SITE, &mut other(47, "10.2.0.1:0", remote)).unwrap();
        assert_eq!(headers.source, IpAddr::from([198, 51, 100, 6]));
    }
    assert_eq!(lab.nat.counts().mappings, 1);
}

#[test]
fn packets_to_bypassed_destinations_keep_their_source() {
    let mut config = config();
    config.bypass = vec!["203.0.113.0/28".parse().unwrap()];
    let mut lab = Lab::new(&config);
    let mut sent = packet(end(HOST), end("203.0.113.9:443"), tcp(SYN));
    let before = sent.clone();
    assert_eq!(lab.send(SITE, &mut sent).unwrap().0, Outbound::Internet);
    assert_eq!(sent, before);
    assert_eq!(lab.nat.counts().mappings, 0);
    assert!(lab.nat.is_bypassed([203, 0, 113, 9].into()));
    assert!(!lab.nat.is_bypassed([203, 0, 113, 80].into()));
    assert_ne!(lab.out(SITE, HOST, SERVER, tcp(SYN)), Ok(end(HOST)));
}

#[test]
fn each_transport_has_its_share_of_a_host() {
    let mut config = config();
    config.limits.per_transport = PerTransport { tcp: 5, udp: 7, icmp: 2, other: 1 };
    let mut lab = Lab::new(&config);
    let mut count = |upper: &Upper| {
        (0..20)
            .filter(|n| lab.out(SITE, &format!("10.2.0.1:{n}"), SERVER, upper.clone()).is_ok())
            .count()
    };
    assert_eq!([&tcp(SYN), &Upper::Udp, &Upper::EchoRequest].map(&mut count), [5, 7, 2]);
    assert_eq!(lab.out(SITE, "10.2.0.1:99", SERVER, Upper::Udp), Err(DropReason::NatHostLimit));
    assert!(lab.out(SITE, "10.2.0.2:99", SERVER, Upper::Udp).is_ok());
    lab.nat.check();
}

#[test]
fn a_site_full_of_made_up_hosts_leaves_room_for_others() {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    config.ports = 40_000..=40_099;
    config.limits.realm_percent = 75;
    let mut lab = Lab::new(&config);
    let made_up = |n: u16| format!("10.2.{}.{}:5000", n / 200, n % 200 + 1);
    let results: Vec<_> =
        (0..400).map(|n| lab.out(SITE, &made_up(n), SERVER, Upper::Udp)).collect();
    assert!(results[..75].iter().all(Result::is_ok));
    assert!(results[75..].iter().all(|result| *result == Err(DropReason::NatSiteLimit)));
    assert!(lab.out(SITE, &made_up(7), "203.0.113.9:1", Upper::Udp).is_ok(), "what lives, lives");
    assert!(lab.out(SITE, &made_up(399), SERVER, tcp(SYN)).is_ok(), "another kind of port");
    let other: Vec<_> =
        (0..30).map(|n| lab.out(Realm(4), &made_up(n), SERVER, Upper::Udp)).collect();
    assert!(other[..25].iter().all(Result::is_ok), "another site");
    lab.nat.check();
    lab.wait(301);
    lab.wait(121);
    assert!(lab.out(SITE, &made_up(399), SERVER, Upper::Udp).is_ok());
    lab.nat.check();
}

#[test]
fn made_up_hosts_of_a_site_leave_sessions_for_others() {
    let mut config = config();
    config.limits.max_sessions = 40;
    config.limits.realm_percent = 75;
    let mut lab = Lab::new(&config);
    let remote = |n: u16| format!("203.0.113.9:{}", n + 1);
    let made_up = |n: u16| format!("10.2.0.{}:5000", n % 5 + 1);
    let results: Vec<_> =
        (0..40).map(|n| lab.out(SITE, &made_up(n), &remote(n), tcp(SYN))).collect();
    assert!(results[..30].iter().all(Result::is_ok));
    assert!(results[30..].iter().all(|result| *result == Err(DropReason::NatSiteLimit)));
    let refused = lab.out(SITE, "10.2.0.77:5000", SERVER, tcp(SYN));
    assert_eq!(refused, Err(DropReason::NatSiteLimit));
    assert_eq!(lab.nat.counts().mappings, 5, "none is made that has no session");
    assert!(lab.out(SITE, "10.2.0.1:5000", &remote(0), tcp(ACK)).is_ok(), "what lives, lives");
    for n in 0..10 {
        assert!(lab.out(Realm(4), "10.2.0.1:5000", &remote(n), tcp(SYN)).is_ok(), "another site");
    }
    lab.nat.check();
    lab.wait(241);
    assert!(lab.out(SITE, "10.2.0.77:5000", SERVER, tcp(SYN)).is_ok(), "when there is room again");
    lab.nat.check();
}

#[test]
fn where_the_filter_asks_none_is_made_that_nothing_passes_by() {
    for (upper, passed, sessions) in [(Upper::Udp, 33, 33), (tcp(SYN), 16, 32)] {
        let mut config = config();
        config.limits.max_sessions = 44;
        config.limits.realm_percent = 75;
        config.policy.udp.filtering = Dependence::Address;
        config.policy.tcp.filtering = Dependence::Address;
        let mut lab = Lab::new(&config);
        // The refused ones are sent again.
        for _ in 0..2 {
            for n in 0..40 {
                let result =
                    lab.out(SITE, &format!("10.2.0.{}:5000", n + 1), SERVER, upper.clone());
                match n < passed {
                    true => assert!(result.is_ok(), "{n}: {result:?}"),
                    false => assert_eq!(result, Err(DropReason::NatSiteLimit), "{n}"),
                }
            }
        }
        let counts = lab.nat.counts();
        assert_eq!((counts.mappings, counts.sessions), (passed, sessions));
        assert_eq!(counts.ports_in_use, passed);
        lab.nat.check();
    }
}

#[test]
fn a_host_makes_mappings_only_so_fast() {
    let mut config = config();
    config.limits.rate_per_host = Some(10);
    let mut lab = Lab::new(&config);
    let mut port = 0;
    let mut served = |lab: &mut Lab, host: u8| {
        let mut served = 0;
        for _ in 0..50 {
            port += 1;
            match lab.out(SITE, &format!("10.2.0.{host}:{port}"), SERVER, Upper::Udp) {
                Ok(_) => served += 1,
                Err(reason) => assert_eq!(reason, DropReason::NatRateLimited),
            }
        }
        served
    };
    assert_eq!(served(&mut lab, 1), 11, "a second's worth, and one");
    assert_eq!(served(&mut lab, 2), 11, "of each host");
    lab.now += Duration::from_millis(500);
    assert_eq!(served(&mut lab, 1), 5);
    // Those that live are served all the time.
    assert!(lab.out(SITE, "10.2.0.1:1", SERVER, Upper::Udp).is_ok());
    lab.wait(100);
    assert_eq!(served(&mut lab, 1), 11, "no more is saved up");
}

#[test]
fn the_beginning_and_the_end_of_mappings_are_told_where_that_is_wanted() {
    let mut config = config();
    let mut lab = Lab::new(&config);
    lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    assert_eq!(lab.nat.take_event(), None);
    config.policy.events = true;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    let Some(NatEvent::Created(view)) = lab.nat.take_event() else { panic!("no event") };
    assert_eq!((view.inside, view.outside), (end(HOST).into(), mapped.into()));
    lab.wait(301);
    assert_eq!(lab.nat.take_event(), Some(NatEvent::Ended(view)));
    assert_eq!(lab.nat.take_event(), None);
    for port in 0..20_000_u16 {
        lab.out(SITE, &format!("10.2.{}.1:{port}", port >> 8), SERVER, Upper::EchoRequest).ok();
        lab.wait(61);
        if lab.nat.lost_events() > 0 {
            return;
        }
    }
    panic!("events are bounded");
}

#[test]
fn hosts_are_listed_with_what_they_use() {
    let mut lab = Lab::new(&config());
    for port in 1..=3 {
        lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, tcp(SYN)).unwrap();
    }
    let mapped = lab.out(SITE, "10.2.0.2:1", SERVER, Upper::Udp).unwrap();
    let hosts: Vec<_> = lab.nat.hosts_from(0).collect();
    assert_eq!(hosts.len(), 2);
    assert_eq!((hosts[0].mappings, hosts[0].by_transport.tcp, hosts[0].sessions), (3, 3, 3));
    assert_eq!(hosts[1].inside, IpAddr::from([10, 2, 0, 2]));
    assert_eq!(hosts[1].outside, IpAddr::from(*mapped.ip()));
    assert_eq!(lab.nat.hosts_from(hosts[1].id).count(), 1);
}

#[test]
fn ipv6_is_translated_with_ports_where_the_pool_has_ipv6() {
    let mut config = config();
    config.pool.push("2001:db8:ff::1/128".parse().unwrap());
    let mut lab = Lab::new(&config);
    let outside: IpAddr = "2001:db8:ff::1".parse().unwrap();
    for (upper, answer) in [
        (tcp(SYN), tcp(SYN | ACK)),
        (Upper::Udp, Upper::Udp),
        (Upper::EchoRequest, Upper::EchoReply),
    ] {
        let original = Sample::new(true, upper, b"some data").bytes();
        let asked = Headers::parse(&original).unwrap();
        let mut sent = original.clone();
        let (_, headers) = lab.send(SITE, &mut sent).unwrap();
        assert_eq!(headers.source, outside);
        let port = headers.ports.unwrap().src;
        let mut sample = Sample::new(true, answer, b"some data");
        (sample.source, sample.destination) = (asked.destination, outside);
        let is_echo = sample.upper == Upper::EchoReply;
        sample.ports = (if is_echo { port } else { 443 }, port);
        let (inbound, headers) = lab.receive(&mut sample.bytes()).unwrap();
        assert_eq!((inbound.realm, inbound.destination), (SITE, asked.source));
        assert_eq!(headers.ports.unwrap().dst, asked.ports.unwrap().src);
        // Errors.
        let sent_headers = Headers::parse(&sent).unwrap();
        let router = "2001:db8:9::1".parse().unwrap();
        let mut error = [0; icmp::MAX_LEN];
        let too_big = icmp::Error::TooBig { mtu: 1_280 };
        let len = icmp::write_error(&mut error, too_big, router, &sent, &sent_headers);
        lab.receive(&mut error[..len]).unwrap();
        assert_eq!(error[48..len], original, "as the host has sent it");
    }
    // A pinged outside address answers.
    let mut ping = Sample::new(true, Upper::EchoRequest, b"some data");
    ping.destination = outside;
    let mut ping = ping.bytes();
    assert_eq!(lab.arrive(&mut ping), Ok(Arrival::Answered));
    assert_checksums(&ping);
    lab.nat.check();
}
