use super::*;

#[test]
fn one_outside_endpoint_serves_all_remotes_and_lets_all_answer() {
    let mut lab = Lab::new(&config());
    for (upper, answer) in [
        (tcp(SYN), tcp(SYN | ACK)),
        (Upper::Udp, Upper::Udp),
        (Upper::EchoRequest, Upper::EchoReply),
    ] {
        let first = lab.out(SITE, "10.2.0.1:5000", SERVER, upper.clone()).unwrap();
        let other = lab.out(SITE, "10.2.0.1:5000", "203.0.113.9:99", upper).unwrap();
        assert_eq!(first, other);
        assert!(
            lab.nat.is_outside((*first.ip()).into()) && (40_000..=40_999).contains(&first.port())
        );
        for remote in [SERVER, "192.0.2.200:1"] {
            let got = lab.back(remote, first, answer.clone());
            assert_eq!(got, Ok((SITE, end("10.2.0.1:5000"))));
        }
    }
    assert_eq!(lab.nat.counts().mappings, 3);
}

#[test]
fn equal_inside_endpoints_of_different_realms_do_not_meet() {
    let mut lab = Lab::new(&config());
    let mut outside = Vec::new();
    for realm in [Realm::LOCAL, Realm(0), Realm(1)] {
        let mapped = lab.out(realm, "192.168.1.10:5000", SERVER, Upper::Udp).unwrap();
        assert!(!outside.contains(&mapped));
        outside.push(mapped);
        assert_eq!(lab.back(SERVER, mapped, Upper::Udp), Ok((realm, end("192.168.1.10:5000"))));
    }
    assert_eq!(Realm::LOCAL.peer(), None);
    assert_eq!(Realm(1).peer(), Some(crate::id::PeerIndex(1)));
}

#[test]
fn a_host_keeps_one_outside_address_for_all_it_does() {
    let mut lab = Lab::new(&config());
    let mut addresses = std::collections::BTreeSet::new();
    for host in 0..20 {
        let from = |port: u16| format!("10.2.0.{host}:{port}");
        let first = lab.out(SITE, &from(1), SERVER, Upper::Udp).unwrap();
        for port in 2..9 {
            let upper = if port % 2 == 0 { tcp(SYN) } else { Upper::EchoRequest };
            assert_eq!(lab.out(SITE, &from(port), SERVER, upper).unwrap().ip(), first.ip());
        }
        addresses.insert(*first.ip());
    }
    assert!(addresses.len() > 1, "hosts are spread over the pool");
}

#[test]
fn udp_ports_keep_their_parity() {
    let mut lab = Lab::new(&config());
    for port in 6_000..6_050 {
        let outside = lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, Upper::Udp).unwrap();
        assert_eq!(outside.port() % 2, port % 2);
    }
}

#[test]
fn nobody_gets_in_uninvited() {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    let unsolicited = Err(DropReason::Unsolicited);
    assert_eq!(lab.back(SERVER, mapped, tcp(SYN)), unsolicited);
    assert_eq!(lab.back(SERVER, mapped, Upper::EchoReply), unsolicited);
    let beside = SocketAddrV4::new(*mapped.ip(), mapped.port() ^ 1);
    assert_eq!(lab.back(SERVER, beside, Upper::Udp), unsolicited);
    assert_eq!(lab.back(SERVER, end("198.51.100.9:40000"), Upper::Udp), unsolicited);
    // Whoever asks for an echo asks the NAT, not a host behind it.
    let echo = lab.out(SITE, "10.2.0.1:7", SERVER, Upper::EchoRequest).unwrap();
    let mut request = packet(end(SERVER), echo, Upper::EchoRequest);
    assert_eq!(lab.arrive(&mut request), Ok(Arrival::Answered));
    assert_checksums(&request);
    let answer = Headers::parse(&request).unwrap();
    assert_eq!(
        (answer.source, answer.destination),
        ((*echo.ip()).into(), (*end(SERVER).ip()).into())
    );
}

#[test]
fn what_cannot_begin_anything_makes_nothing() {
    let mut lab = Lab::new(&config());
    for flags in [ACK, SYN | ACK, RST, FIN | ACK] {
        let result = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(flags));
        assert_eq!(result, Err(DropReason::NatNoSession));
    }
    let reply = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::EchoReply);
    assert_eq!(reply, Err(DropReason::UnsupportedProtocol));
    let mut other = packet(end("10.2.0.1:5000"), end(SERVER), Upper::Udp);
    other[9] = 51;
    assert_eq!(lab.send(SITE, &mut other), Err(DropReason::UnsupportedProtocol), "AH");
    let mut six = Sample::udp(true, b"").bytes();
    assert_eq!(lab.send(SITE, &mut six), Err(DropReason::NatPortsExhausted), "no IPv6 pool");
    assert_eq!(lab.nat.counts(), Lab::new(&config()).nat.counts());
}

#[test]
fn hosts_behind_the_nat_meet_at_their_outside_endpoints() {
    let mut lab = Lab::new(&config());
    let a = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    let b = lab.out(Realm(4), "10.4.0.1:6000", SERVER, Upper::Udp).unwrap();
    let mut there = packet(end("10.2.0.1:5000"), b, Upper::Udp);
    let (to, headers) = lab.send(SITE, &mut there).unwrap();
    let inbound = Inbound { realm: Realm(4), destination: [10, 4, 0, 1].into() };
    assert_eq!(to, Outbound::Hairpin(inbound));
    assert_eq!((source(&headers), destination(&headers)), (a, end("10.4.0.1:6000")));
    // To nobody's endpoint.
    let nobody = SocketAddrV4::new(*b.ip(), b.port() ^ 1);
    let mut lost = packet(end("10.2.0.1:5000"), nobody, Upper::Udp);
    assert_eq!(lab.send(SITE, &mut lost), Err(DropReason::Unsolicited));
}

#[test]
fn a_hairpinned_connection_establishes_on_both_sides() {
    let mut lab = Lab::new(&config());
    let a = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    let b = lab.out(SITE, "10.2.0.2:6000", SERVER, tcp(SYN)).unwrap();
    for (from, to, flags) in
        [("10.2.0.1:5000", b, SYN), ("10.2.0.2:6000", a, SYN | ACK), ("10.2.0.1:5000", b, ACK)]
    {
        let (outbound, _) = lab.send(SITE, &mut packet(end(from), to, tcp(flags))).unwrap();
        assert!(matches!(outbound, Outbound::Hairpin(_)));
    }
    lab.wait(7_000);
    assert_eq!(lab.nat.counts().sessions, 2);
}

#[test]
fn mappings_are_listed_in_pages_and_can_be_ended() {
    let mut lab = Lab::new(&config());
    for port in 1..=9 {
        lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, tcp(SYN)).unwrap();
    }
    let first: Vec<_> = lab.nat.iter_from(MappingId(0)).take(5).collect();
    let rest: Vec<_> = lab.nat.iter_from(MappingId(first[4].id.0 + 1)).collect();
    assert_eq!((first.len(), rest.len()), (5, 4));
    let view = first[2];
    assert_eq!((view.transport, view.realm, view.sessions), (Transport::Tcp, SITE, 1));
    assert_eq!(view.inside, end("10.2.0.1:3").into());
    let outside = socket(view.outside.ip(), view.outside.port());
    assert!(lab.nat.remove(lab.now, view.id));
    assert!(!lab.nat.remove(lab.now, view.id));
    assert_eq!(lab.back(SERVER, outside, tcp(SYN | ACK)), Err(DropReason::Unsolicited));
    assert_eq!(lab.nat.counts().mappings, 8);
    lab.nat.check();
}

#[test]
fn looking_ahead_finds_what_packets_from_inside_go_by() {
    let mut lab = Lab::new(&config());
    let packets: Vec<_> = (0..80)
        .map(|n| {
            let upper = if n % 2 == 0 { Upper::Udp } else { tcp(SYN) };
            packet(end(&format!("10.2.0.1:{}", 5_000 + n)), end(SERVER), upper)
        })
        .collect();
    let headers: Vec<_> = packets.iter().map(|packet| Headers::parse(packet).unwrap()).collect();
    let ahead = |lab: &Lab, realm| lab.nat.look_ahead(headers.iter().map(|h| (realm, h)));
    assert_eq!(ahead(&lab, SITE), 0);
    for packet in &packets[..40] {
        lab.send(SITE, &mut packet.clone()).unwrap();
    }
    assert_eq!(ahead(&lab, SITE), 40);
    assert_eq!(ahead(&lab, Realm(4)), 0, "of another site");
    for packet in &packets[40..] {
        lab.send(SITE, &mut packet.clone()).unwrap();
    }
    assert_eq!(ahead(&lab, SITE), Nat::AHEAD_MAX);
}

#[test]
fn looking_ahead_finds_what_packets_from_outside_go_by() {
    let mut lab = Lab::new(&config());
    let mut answers = Vec::new();
    for n in 0..40 {
        let (upper, answer) = match n % 2 {
            0 => (Upper::Udp, Upper::Udp),
            _ => (tcp(SYN), tcp(SYN | ACK)),
        };
        let mapped = lab.out(SITE, &format!("10.2.0.1:{}", 5_000 + n), SERVER, upper).unwrap();
        let nobody = SocketAddrV4::new(*mapped.ip(), 999);
        answers.extend([mapped, nobody].map(|to| packet(end(SERVER), to, answer.clone())));
    }
    let headers: Vec<_> = answers.iter().map(|packet| Headers::parse(packet).unwrap()).collect();
    // Every second one, of as many as are looked at.
    assert_eq!(lab.nat.look_ahead_inbound(headers[..20].iter().copied()), 10);
    assert_eq!(lab.nat.look_ahead_inbound(headers.iter().copied()), Nat::AHEAD_MAX / 2);
    let back = packet(end(SERVER), end("203.0.113.9:40000"), Upper::Udp);
    let elsewhere = Headers::parse(&back).unwrap();
    assert_eq!(lab.nat.look_ahead_inbound([elsewhere].into_iter()), 0);
}

#[test]
fn a_renumbered_address_keeps_its_mappings_with_their_ports() {
    let mut lab =
        Lab::new(&NatConfig { pool: vec!["198.51.100.4/32".parse().unwrap()], ..config() });
    let before = lab.out(SITE, "10.1.0.5:5000", SERVER, Upper::Udp).unwrap();
    let new: Ipv4Addr = "203.0.113.200".parse().unwrap();
    assert!(lab.nat.rename((*before.ip()).into(), new.into()));
    lab.nat.check();
    let after = lab.out(SITE, "10.1.0.5:5000", SERVER, Upper::Udp).unwrap();
    assert_eq!(after, SocketAddrV4::new(new, before.port()));
    assert_eq!(lab.back(SERVER, after, Upper::Udp), Ok((SITE, end("10.1.0.5:5000"))));
    assert!(!lab.nat.is_outside((*before.ip()).into()));
    assert_eq!(lab.back(SERVER, before, Upper::Udp), Err(DropReason::Unsolicited));
}

#[test]
fn hosts_of_a_closed_address_get_another_one_and_keep_what_they_have() {
    let mut lab =
        Lab::new(&NatConfig { pool: vec!["198.51.100.4/31".parse().unwrap()], ..config() });
    let before = lab.out(SITE, "10.1.0.5:5000", SERVER, Upper::Udp).unwrap();
    lab.nat.set_usable((*before.ip()).into(), false);
    let kept = lab.out(SITE, "10.1.0.5:5000", SERVER, Upper::Udp).unwrap();
    assert_eq!(kept, before);
    let new = lab.out(SITE, "10.1.0.5:5001", SERVER, Upper::Udp).unwrap();
    assert_ne!(new.ip(), before.ip());
    // With no address left, the one it has is as good as any.
    lab.nat.set_usable((*new.ip()).into(), false);
    let last = lab.out(SITE, "10.1.0.5:5002", SERVER, Upper::Udp).unwrap();
    assert_eq!(last.ip(), new.ip());
}
