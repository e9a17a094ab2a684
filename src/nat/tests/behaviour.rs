use super::*;
use crate::packet::testing::make_partial;

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

/// Seconds for which a mapping lives after what `drive` does with it.
fn lifetime(drive: impl FnOnce(&mut Lab, SocketAddrV4), upper: Upper) -> u64 {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, upper).unwrap();
    drive(&mut lab, mapped);
    let start = lab.now;
    while lab.nat.counts().mappings > 0 {
        let next = lab.nat.next_deadline().unwrap();
        assert!(next > lab.now, "a deadline that moves on");
        lab.now = next;
        lab.wait(0);
    }
    (lab.now - start).as_secs()
}

#[test]
fn udp_lives_five_minutes_from_the_last_packet_from_inside() {
    assert_eq!(lifetime(|_, _| {}, Upper::Udp), 300);
    let outbound = |lab: &mut Lab, _| {
        lab.wait(299);
        lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    };
    assert_eq!(lifetime(outbound, Upper::Udp), 300);
    let inbound = |lab: &mut Lab, mapped| {
        lab.wait(200);
        lab.back(SERVER, mapped, Upper::Udp).unwrap();
    };
    assert_eq!(lifetime(inbound, Upper::Udp), 100);
}

#[test]
fn udp_may_be_kept_alive_from_outside_where_that_is_configured() {
    let mut config = config();
    config.timers.udp_inbound_refresh = true;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    for _ in 0..5 {
        lab.wait(200);
        assert!(lab.back(SERVER, mapped, Upper::Udp).is_ok());
    }
}

#[test]
fn an_echo_lives_a_minute() {
    assert_eq!(lifetime(|_, _| {}, Upper::EchoRequest), 60);
}

#[test]
fn tcp_lives_by_its_state() {
    let from = "10.2.0.1:5000";
    assert_eq!(lifetime(|_, _| {}, tcp(SYN)), 240, "half open");
    let open = |lab: &mut Lab, mapped| {
        lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
        lab.out(SITE, from, SERVER, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(open, tcp(SYN)), 7_440, "established");
    let refreshed = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.wait(7_000);
        lab.back(SERVER, mapped, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(refreshed, tcp(SYN)), 7_440, "established, used");
    let half_closed = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.back(SERVER, mapped, tcp(FIN | ACK)).unwrap();
    };
    assert_eq!(lifetime(half_closed, tcp(SYN)), 7_440, "half closed");
    let closed = |lab: &mut Lab, mapped| {
        half_closed(lab, mapped);
        lab.out(SITE, from, SERVER, tcp(FIN | ACK)).unwrap();
        lab.back(SERVER, mapped, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(closed, tcp(SYN)), 240, "closed");
    let closed_late = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.wait(1_000);
        lab.back(SERVER, mapped, tcp(FIN | ACK)).unwrap();
        lab.out(SITE, from, SERVER, tcp(FIN | ACK)).unwrap();
    };
    assert_eq!(lifetime(closed_late, tcp(SYN)), 240, "closed after a long time");
    let reset = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.back(SERVER, mapped, tcp(RST)).unwrap();
    };
    assert_eq!(lifetime(reset, tcp(SYN)), 240, "reset");
    let injected = |lab: &mut Lab, mapped| {
        reset(lab, mapped);
        lab.wait(100);
        lab.out(SITE, from, SERVER, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(injected, tcp(SYN)), 7_440, "a reset that the inside did not accept");
    let reopened = |lab: &mut Lab, mapped| {
        closed(lab, mapped);
        lab.wait(100);
        lab.out(SITE, from, SERVER, tcp(SYN)).unwrap();
        lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
    };
    assert_eq!(lifetime(reopened, tcp(SYN)), 7_440, "the same five-tuple again");
}

#[test]
fn a_connection_that_ends_does_not_end_the_others_of_its_mapping() {
    let mut lab = Lab::new(&config());
    let from = "10.2.0.1:5000";
    let mapped = lab.out(SITE, from, SERVER, tcp(SYN)).unwrap();
    lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
    assert_eq!(lab.out(SITE, from, "203.0.113.9:22", tcp(SYN)), Ok(mapped));
    assert_eq!(lab.nat.counts().sessions, 2);
    lab.wait(300);
    assert_eq!(lab.nat.counts().sessions, 1);
    assert!(lab.back(SERVER, mapped, tcp(ACK)).is_ok());
}

#[test]
fn knocking_from_outside_does_not_keep_a_mapping() {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    for n in 0..20 {
        if lab.back(&format!("203.0.113.66:{}", 1000 + n), mapped, tcp(SYN)).is_err() {
            break;
        }
        lab.wait(100);
    }
    assert_eq!(lab.nat.counts().mappings, 0);
    assert_eq!(lab.nat.counts().sessions, 0);
}

#[test]
fn a_call_from_outside_can_be_answered() {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    let caller = "203.0.113.66:999";
    assert_eq!(lab.back(caller, mapped, tcp(SYN)), Ok((SITE, end("10.2.0.1:5000"))));
    assert_eq!(lab.out(SITE, "10.2.0.1:5000", caller, tcp(SYN | ACK)), Ok(mapped));
    lab.wait(7_000);
    assert!(lab.back(caller, mapped, tcp(ACK)).is_ok(), "established");
}

#[test]
fn a_freed_outside_endpoint_rests_before_another_host_gets_it() {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    config.ports = 40_000..=40_000;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::EchoRequest).unwrap();
    lab.wait(61);
    assert_eq!(lab.nat.counts().mappings, 0);
    assert_eq!(lab.nat.counts().ports_in_use, 1);
    lab.wait(118);
    let other = |lab: &mut Lab| lab.out(SITE, "10.2.0.2:5000", SERVER, Upper::EchoRequest);
    assert_eq!(other(&mut lab), Err(DropReason::NatPortsExhausted));
    lab.wait(2);
    assert_eq!(lab.nat.counts().ports_in_use, 0);
    assert_eq!(other(&mut lab), Ok(mapped));
}

#[test]
fn exhaustion_refuses_the_new_and_keeps_the_old() {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    config.ports = 40_000..=40_009;
    let mut lab = Lab::new(&config);
    let from = |n: u16| format!("10.2.0.{n}:5000");
    let mapped: Vec<_> =
        (1..=10).map(|n| lab.out(SITE, &from(n), SERVER, Upper::Udp).unwrap()).collect();
    for n in 11..30 {
        let refused = lab.out(SITE, &from(n), SERVER, Upper::Udp);
        assert_eq!(refused, Err(DropReason::NatPortsExhausted));
    }
    for (n, mapped) in (1..).zip(mapped) {
        assert_eq!(lab.back(SERVER, mapped, Upper::Udp), Ok((SITE, end(&from(n)))));
    }
    assert!(lab.out(SITE, &from(11), SERVER, tcp(SYN)).is_ok(), "TCP has ports of its own");
    lab.nat.check();
}

#[test]
fn a_greedy_host_takes_no_more_than_its_share() {
    let mut lab = Lab::new(&config());
    let results: Vec<_> = (0..150)
        .map(|port| lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, Upper::Udp))
        .collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 100);
    assert_eq!(results[149], Err(DropReason::NatHostLimit));
    assert!(lab.out(SITE, "10.2.0.2:1", SERVER, Upper::Udp).is_ok());
    assert!(lab.out(Realm::LOCAL, "10.2.0.1:1", SERVER, Upper::Udp).is_ok());
}

#[test]
fn a_full_table_refuses() {
    let mut config = config();
    config.limits = NatLimits { max_sessions: 3, ..NatLimits::of_mappings(4, 4) };
    let mut lab = Lab::new(&config);
    for port in 1..=3 {
        assert!(lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, tcp(SYN)).is_ok());
    }
    let full = Err(DropReason::NatTableFull);
    assert_eq!(lab.out(SITE, "10.2.0.2:4", SERVER, tcp(SYN)), full, "sessions");
    assert_eq!(lab.nat.counts().mappings, 3, "no mapping without a session");
    assert!(lab.out(SITE, "10.2.0.2:4", SERVER, Upper::Udp).is_ok());
    assert_eq!(lab.out(SITE, "10.2.0.2:5", SERVER, Upper::Udp), full, "mappings");
    lab.nat.check();
}

#[test]
fn strangers_cannot_use_up_the_sessions_of_a_host() {
    let mut config = config();
    config.limits.max_sessions_per_host = 10;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    let knocks = (0..50)
        .filter(|n| lab.back(&format!("203.0.113.66:{}", 1000 + n), mapped, tcp(SYN)).is_ok());
    assert_eq!(knocks.count(), 4);
    for n in 0..5 {
        let server = format!("203.0.113.7:{}", 1 + n);
        assert!(lab.out(SITE, "10.2.0.1:5000", &server, tcp(SYN)).is_ok());
    }
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

/// Cuts a whole packet in pieces of at most `size` bytes of data, a multiple of eight.
fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let data = &packet[20..];
    let count = data.chunks(size).count();
    (data.chunks(size).enumerate())
        .map(|(n, chunk)| {
            let mut piece = [&packet[..20], chunk].concat();
            piece[2..4].copy_from_slice(&(20 + chunk.len() as u16).to_be_bytes());
            let more = u16::from(n + 1 < count) << 13;
            piece[6..8].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
            checksum::fill_ipv4(&mut piece[..20]);
            piece
        })
        .collect()
}

fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = pieces[0].clone();
    for piece in &pieces[1..] {
        packet.extend_from_slice(&piece[20..]);
    }
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6..8].fill(0);
    checksum::fill_ipv4(&mut packet[..20]);
    packet
}

#[test]
fn later_fragments_follow_the_first_both_ways() {
    let mut lab = Lab::new(&config());
    let mut sample = Sample::udp(false, &[7; 500]);
    sample.source = Ipv4Addr::new(10, 2, 0, 1).into();
    sample.destination = (*end(SERVER).ip()).into();
    sample.dont_fragment = false;
    let mut pieces = fragments(&sample.bytes(), 96);
    for piece in &mut pieces {
        assert!(lab.send(SITE, piece).is_ok());
    }
    let whole = joined(&pieces);
    assert_checksums(&whole);
    let mapped = source(&Headers::parse(&whole).unwrap());
    let mut answer = sample.clone();
    (answer.source, answer.destination) = (sample.destination, (*mapped.ip()).into());
    answer.ports = (sample.ports.1, mapped.port());
    let mut pieces = fragments(&answer.bytes(), 200);
    let mut stray = pieces[1].clone();
    assert_eq!(lab.arrive(&mut stray), Ok(Arrival::Held), "before the first");
    for piece in &mut pieces {
        let (inbound, _) = lab.receive(piece).unwrap();
        assert_eq!(inbound.realm, SITE);
    }
    let whole = joined(&pieces);
    assert_checksums(&whole);
    assert_eq!(destination(&Headers::parse(&whole).unwrap()), end("10.2.0.1:40000"));
    let mut held = Vec::new();
    assert_eq!(lab.nat.take_released(&mut held), Some(None));
    assert_eq!(held, stray, "it goes as soon as the first one came");
    assert_eq!(lab.nat.take_released(&mut held), None);
    let mut pieces = fragments(&answer.bytes(), 200);
    lab.receive(&mut pieces[0]).unwrap();
    lab.wait(6);
    assert_eq!(lab.arrive(&mut pieces[1]), Ok(Arrival::Held), "too late");
    lab.wait(6);
    assert_eq!(lab.nat.take_lost_fragments(), 1);
}

#[test]
fn partial_checksums_stay_partial_and_right() {
    let mut lab = Lab::new(&config());
    for upper in [tcp(SYN), Upper::Udp] {
        let mut frame = packet(end("10.2.0.1:5000"), end(SERVER), upper);
        let vnet = make_partial(&mut frame);
        let headers = Headers::parse(&frame).unwrap();
        lab.nat.outbound(lab.now, SITE, &mut frame, &headers, &vnet).unwrap();
        let headers = Headers::parse(&frame).unwrap();
        checksum::complete_partial(&mut frame, &headers, &vnet).unwrap();
        assert_checksums(&frame);
    }
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
fn a_mapping_takes_at_most_160_bytes() {
    use super::super::table::Table;
    const { assert!(Table::BYTES_PER_MAPPING <= 160) }
    const { assert!(Table::BYTES_PER_SESSION <= 160) }
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
