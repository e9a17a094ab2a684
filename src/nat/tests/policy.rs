//! What depends on the remote end: mapping, filtering, shared ports, calls from both sides.

use std::net::IpAddr;

use super::*;
use crate::packet::{icmp, rewrite};

const HOST: &str = "10.2.0.1:5000";
const SAME_ADDRESS: &str = "203.0.113.80:9";
const ELSEWHERE: &str = "203.0.113.9:443";

fn with(mapping: Dependence, filtering: Dependence) -> NatConfig {
    let mut config = config();
    let behaviour = Behaviour { mapping, filtering };
    let policy = &mut config.policy;
    (policy.tcp, policy.udp, policy.icmp) = (behaviour, behaviour, behaviour);
    config
}

fn filtered(filtering: Dependence) -> Lab {
    Lab::new(&with(Dependence::EndpointIndependent, filtering))
}

#[test]
fn an_address_filter_lets_in_whoever_was_sent_to_from_any_port() {
    for (upper, answer) in [
        (tcp(SYN), tcp(SYN | ACK)),
        (tcp(SYN), tcp(SYN)),
        (Upper::Udp, Upper::Udp),
        (Upper::EchoRequest, Upper::EchoReply),
    ] {
        let mut lab = filtered(Dependence::Address);
        let mapped = lab.out(SITE, HOST, SERVER, upper).unwrap();
        for inside in [SERVER, SAME_ADDRESS] {
            assert_eq!(lab.back(inside, mapped, answer.clone()), Ok((SITE, end(HOST))));
        }
        assert_eq!(lab.back(ELSEWHERE, mapped, answer), Err(DropReason::NatFiltered));
        lab.nat.check();
    }
}

#[test]
fn an_address_and_port_filter_lets_in_whoever_was_sent_to() {
    let mut lab = filtered(Dependence::AddressAndPort);
    let ping = lab.out(SITE, HOST, SERVER, Upper::EchoRequest).unwrap();
    assert!(lab.back(SERVER, ping, Upper::EchoReply).is_ok(), "an identifier is no remote port");
    assert_eq!(lab.back(ELSEWHERE, ping, Upper::EchoReply), Err(DropReason::NatFiltered));
    for (upper, answer) in [(tcp(SYN), tcp(SYN | ACK)), (Upper::Udp, Upper::Udp)] {
        let mut lab = filtered(Dependence::AddressAndPort);
        let mapped = lab.out(SITE, HOST, SERVER, upper.clone()).unwrap();
        assert!(lab.back(SERVER, mapped, answer.clone()).is_ok());
        for outside in [SAME_ADDRESS, ELSEWHERE] {
            let refused = lab.back(outside, mapped, answer.clone());
            assert_eq!(refused, Err(DropReason::NatFiltered));
        }
        assert_eq!(lab.out(SITE, HOST, ELSEWHERE, upper), Ok(mapped));
        assert!(lab.back(ELSEWHERE, mapped, answer).is_ok());
        lab.nat.check();
    }
}

#[test]
fn a_host_at_its_share_of_sessions_leaves_no_half_of_what_it_was_refused() {
    let mut config = with(Dependence::EndpointIndependent, Dependence::Address);
    // A connection with the permit for its remote address takes two.
    config.limits.max_sessions_per_host = 3;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, HOST, SERVER, tcp(SYN)).unwrap();
    for _ in 0..3 {
        assert_eq!(lab.out(SITE, HOST, ELSEWHERE, tcp(SYN)), Err(DropReason::NatHostLimit));
        assert_eq!(lab.nat.counts().sessions, 2);
    }
    assert_eq!(lab.back(ELSEWHERE, mapped, tcp(SYN)), Err(DropReason::NatFiltered));
    // One place is left, and enough for another connection with the same address.
    assert_eq!(lab.out(SITE, HOST, SAME_ADDRESS, tcp(SYN)), Ok(mapped));
    assert_eq!(lab.nat.counts().sessions, 3);
    lab.nat.check();
}

#[test]
fn new_ports_of_a_host_at_its_share_bring_one_session_each_at_most() {
    for filtering in [Dependence::Address, Dependence::AddressAndPort] {
        let mut config = with(Dependence::EndpointIndependent, filtering);
        config.limits.max_sessions_per_host = 3;
        let mut lab = Lab::new(&config);
        for port in 5_000..5_010 {
            // Whether it passes or not.
            let _ = lab.out(SITE, &format!("10.2.0.1:{port}"), SERVER, tcp(SYN));
        }
        let counts = lab.nat.counts();
        assert!(counts.sessions > 0 && counts.sessions <= 3 + counts.mappings, "{counts:?}");
        lab.nat.check();
    }
}

#[test]
fn a_filter_forgets_whom_the_host_has_not_sent_to_for_long() {
    let mut lab = filtered(Dependence::AddressAndPort);
    let mapped = lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    lab.wait(200);
    lab.out(SITE, HOST, ELSEWHERE, Upper::Udp).unwrap();
    assert_eq!(lab.nat.counts().sessions, 2);
    lab.wait(150);
    assert_eq!(lab.back(SERVER, mapped, Upper::Udp), Err(DropReason::NatFiltered));
    assert!(lab.back(ELSEWHERE, mapped, Upper::Udp).is_ok());
    lab.wait(151);
    assert_eq!((lab.nat.counts().mappings, lab.nat.counts().sessions), (0, 0));
}

#[test]
fn each_transport_has_a_behaviour_of_its_own() {
    let mut config = config();
    config.policy.tcp.filtering = Dependence::AddressAndPort;
    let mut lab = Lab::new(&config);
    let udp = lab.out(SITE, HOST, SERVER, Upper::Udp).unwrap();
    let tcp_end = lab.out(SITE, HOST, SERVER, tcp(SYN)).unwrap();
    assert!(lab.back(ELSEWHERE, udp, Upper::Udp).is_ok());
    assert_eq!(lab.back(ELSEWHERE, tcp_end, tcp(SYN)), Err(DropReason::NatFiltered));
}

#[test]
fn errors_from_anywhere_pass_every_filter() {
    let mut lab = filtered(Dependence::AddressAndPort);
    let mut sent = packet(end(HOST), end(SERVER), Upper::Udp);
    let (_, headers) = lab.send(SITE, &mut sent).unwrap();
    let mut error = [0; icmp::MAX_LEN];
    let router = Ipv4Addr::new(192, 0, 2, 1).into();
    let len = icmp::write_error(&mut error, icmp::Error::TimeExceeded, router, &sent, &headers);
    assert!(lab.receive(&mut error[..len]).is_ok());
}

#[test]
fn mappings_may_depend_on_the_remote_end() {
    for upper in [tcp(SYN), Upper::Udp] {
        let mut by_address = Lab::new(&with(Dependence::Address, Dependence::EndpointIndependent));
        let mut by_both =
            Lab::new(&with(Dependence::AddressAndPort, Dependence::EndpointIndependent));
        let out = |lab: &mut Lab, to| lab.out(SITE, HOST, to, upper.clone()).unwrap();
        let first = out(&mut by_address, SERVER);
        assert_eq!(out(&mut by_address, SAME_ADDRESS), first);
        assert_ne!(out(&mut by_address, ELSEWHERE), first);
        let first = out(&mut by_both, SERVER);
        assert_eq!(out(&mut by_both, SERVER), first);
        let second = out(&mut by_both, SAME_ADDRESS);
        assert_ne!(second, first);
        assert_eq!(second.ip(), first.ip(), "paired");
        assert_eq!(by_both.back(SAME_ADDRESS, second, Upper::Udp).is_ok(), upper == Upper::Udp);
        by_address.nat.check();
        by_both.nat.check();
    }
}

/// The next answer to an unsolicited SYN.
fn answer(lab: &mut Lab) -> Option<Vec<u8>> {
    let mut out = vec![0; icmp::MAX_LEN];
    let len = lab.nat.take_answer(lab.now, &mut out);
    out.truncate(len);
    (len > 0).then_some(out)
}

#[test]
fn an_unsolicited_syn_is_answered_after_six_seconds() {
    let mut lab = Lab::new(&config());
    let nobody = end("198.51.100.5:40001");
    let knock = packet(end(SERVER), nobody, tcp(SYN));
    assert_eq!(lab.receive(&mut knock.clone()), Err(DropReason::Unsolicited));
    lab.wait(3);
    // The same SYN once more changes nothing.
    assert_eq!(lab.receive(&mut knock.clone()), Err(DropReason::Unsolicited));
    lab.now += Duration::from_micros(2_999_999);
    assert_eq!(answer(&mut lab), None);
    lab.now += Duration::from_micros(1);
    assert_eq!(lab.nat.next_deadline(), Some(lab.now));
    let error = answer(&mut lab).unwrap();
    assert_checksums(&error);
    let headers = Headers::parse(&error).unwrap();
    assert_eq!(headers.source, IpAddr::from(*nobody.ip()));
    assert_eq!(headers.destination, IpAddr::from(*end(SERVER).ip()));
    assert_eq!(error[20..22], [3, 3], "port unreachable");
    assert_eq!(error[28..], knock);
    assert_eq!(answer(&mut lab), None);
    for flags in [SYN | ACK, ACK, RST, FIN | ACK] {
        assert!(lab.back(SERVER, nobody, tcp(flags)).is_err());
    }
    lab.wait(10);
    assert_eq!(answer(&mut lab), None, "only a SYN is answered");
}

#[test]
fn calls_from_both_sides_at_once_connect_behind_a_filter() {
    let mut lab = filtered(Dependence::AddressAndPort);
    let mapped = lab.out(SITE, HOST, ELSEWHERE, tcp(SYN)).unwrap();
    // Its SYN is faster than ours.
    assert_eq!(lab.back(SERVER, mapped, tcp(SYN)), Err(DropReason::NatFiltered));
    lab.wait(5);
    assert_eq!(lab.out(SITE, HOST, SERVER, tcp(SYN)), Ok(mapped));
    lab.wait(2);
    assert_eq!(answer(&mut lab), None, "it is not unsolicited any more");
    assert!(lab.back(SERVER, mapped, tcp(SYN)).is_ok(), "once more");
    assert!(lab.out(SITE, HOST, SERVER, tcp(SYN | ACK)).is_ok());
    lab.wait(7_000);
    assert!(lab.back(SERVER, mapped, tcp(ACK)).is_ok(), "established");
}

#[test]
fn a_flood_of_unsolicited_syns_gets_few_answers_and_silence_can_be_chosen() {
    let mut lab = Lab::new(&config());
    for port in 0..50 {
        let from = format!("203.0.113.66:{}", 1000 + port);
        assert!(lab.back(&from, end("198.51.100.5:40001"), tcp(SYN)).is_err());
    }
    lab.wait(7);
    assert_eq!((0..50).filter(|_| answer(&mut lab).is_some()).count(), 8);
    let mut silent = config();
    silent.policy.answer_unsolicited = false;
    let mut lab = Lab::new(&silent);
    assert!(lab.back(SERVER, end("198.51.100.5:40001"), tcp(SYN)).is_err());
    lab.wait(7);
    assert_eq!(answer(&mut lab), None);
}

/// One outside address with one port.
fn narrow(reuse: Reuse) -> Lab {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    config.ports = 40_000..=40_000;
    config.policy.reuse = reuse;
    Lab::new(&config)
}

#[test]
fn a_full_address_shares_its_tcp_ports_where_that_is_configured() {
    let mut lab = narrow(Reuse::WhenFull);
    let mapped = lab.out(SITE, HOST, SERVER, tcp(SYN)).unwrap();
    let other = "10.2.0.2:6000";
    let exhausted = Err(DropReason::NatPortsExhausted);
    assert_eq!(lab.out(SITE, other, SERVER, tcp(SYN)), exhausted, "this remote end is taken");
    assert_eq!(lab.out(SITE, other, ELSEWHERE, tcp(SYN)), Ok(mapped));
    assert_eq!(lab.back(SERVER, mapped, tcp(SYN | ACK)), Ok((SITE, end(HOST))));
    assert_eq!(lab.back(ELSEWHERE, mapped, tcp(SYN | ACK)), Ok((SITE, end(other))));
    assert_eq!(lab.out(SITE, other, ELSEWHERE, tcp(ACK)), Ok(mapped));
    assert_eq!(lab.out(SITE, HOST, ELSEWHERE, tcp(SYN)), exhausted, "it has become another's");
    assert_eq!(lab.nat.counts().mappings, 2);
    lab.nat.check();
    // An error about one of them goes to the right host.
    let mut sent = packet(end(other), end(ELSEWHERE), tcp(ACK));
    let (_, headers) = lab.send(SITE, &mut sent).unwrap();
    let mut error = [0; icmp::MAX_LEN];
    let router = Ipv4Addr::new(192, 0, 2, 1).into();
    let len = icmp::write_error(&mut error, icmp::Error::TimeExceeded, router, &sent, &headers);
    let (inbound, _) = lab.receive(&mut error[..len]).unwrap();
    assert_eq!(inbound.destination, IpAddr::from(*end(other).ip()));
    lab.wait(7_441);
    assert_eq!(lab.nat.counts().mappings, 0);
}

#[test]
fn a_resting_port_serves_another_remote_end_only_where_that_is_configured() {
    for (reuse, served) in [(Reuse::Never, false), (Reuse::WhenFull, true)] {
        let mut lab = narrow(reuse);
        let mapped = lab.out(SITE, HOST, SERVER, tcp(SYN)).unwrap();
        lab.wait(241);
        assert_eq!((lab.nat.counts().mappings, lab.nat.counts().ports_in_use), (0, 1));
        let again = lab.out(SITE, "10.2.0.2:6000", ELSEWHERE, tcp(SYN));
        assert_eq!(again.is_ok(), served);
        if served {
            // What is late for the first host does not reach the second.
            assert_eq!(lab.back(SERVER, mapped, tcp(SYN)), Err(DropReason::Unsolicited));
            assert!(lab.back(ELSEWHERE, mapped, tcp(SYN | ACK)).is_ok());
        }
        lab.nat.check();
    }
}

#[test]
fn udp_and_icmp_ports_are_never_shared() {
    for upper in [Upper::Udp, Upper::EchoRequest] {
        let mut lab = narrow(Reuse::WhenFull);
        lab.out(SITE, HOST, SERVER, upper.clone()).unwrap();
        let refused = lab.out(SITE, "10.2.0.2:6000", ELSEWHERE, upper);
        assert_eq!(refused, Err(DropReason::NatPortsExhausted));
    }
}

/// As long as there are free ports everyone gets their own, and sharing changes nothing for others.
#[test]
fn ports_are_shared_only_when_none_is_free() {
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    config.ports = 40_000..=40_009;
    config.policy.reuse = Reuse::WhenFull;
    let mut lab = Lab::new(&config);
    let from = |n: u16| format!("10.2.0.{n}:5000");
    // Every second one could share with the one before; none does as long as there are ports.
    let to = |n: u16| if n.is_multiple_of(2) { SERVER } else { ELSEWHERE };
    let other = |n: u16| to(n + 1);
    let ends: Vec<_> = (0..10).map(|n| lab.out(SITE, &from(n), to(n), tcp(SYN)).unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = ends.iter().collect();
    assert_eq!(distinct.len(), 10, "each has a port of its own");
    assert!(lab.nat.iter_from(MappingId(0)).all(|mapping| mapping.kind == Kind::Dynamic));
    // Then each port serves one more connection, to the remote end that it does not serve yet.
    let shared: Vec<_> = (10..40).map(|n| lab.out(SITE, &from(n), to(n), tcp(SYN))).collect();
    assert_eq!(shared.iter().flatten().count(), 10, "each port once more");
    let refused = shared.iter().filter_map(|result| result.err());
    assert!(refused.clone().all(|reason| reason == DropReason::NatPortsExhausted));
    for (n, mapped) in (0..).zip(&ends) {
        assert_eq!(lab.back(to(n), *mapped, tcp(SYN | ACK)), Ok((SITE, end(&from(n)))));
        let sharer = (10..).zip(&shared).find(|(_, shared)| shared.as_ref() == Ok(mapped));
        let (sharer, _) = sharer.unwrap();
        assert_eq!(to(sharer), other(n));
        assert_eq!(lab.back(to(sharer), *mapped, tcp(SYN | ACK)), Ok((SITE, end(&from(sharer)))));
    }
    lab.nat.check();
}

#[test]
fn identifications_of_two_hosts_behind_one_address_differ() {
    let mut lab = narrow(Reuse::Never);
    let mut config = config();
    config.pool = vec!["198.51.100.4/32".parse().unwrap()];
    lab.nat = Nat::new(lab.now, &config, Rng::new([5; 32]));
    let mut seen = std::collections::BTreeSet::new();
    for host in 1..=40 {
        let mut sample = Sample::udp(false, b"some data");
        sample.source = Ipv4Addr::new(10, 2, 0, host).into();
        sample.dont_fragment = false;
        let mut packet = sample.bytes();
        lab.send(SITE, &mut packet).unwrap();
        assert!(seen.insert([packet[4], packet[5]]), "all hosts had the same one");
    }
    // What is never taken apart keeps its own.
    let mut atomic = packet(end(HOST), end(SERVER), Upper::Udp);
    let before = [atomic[4], atomic[5]];
    lab.send(SITE, &mut atomic).unwrap();
    assert_eq!([atomic[4], atomic[5]], before);
    // A train takes as many as it has packets.
    let mut sample = Sample::udp(false, &[0; 1_000]);
    sample.dont_fragment = false;
    let mut next = || {
        let mut train = sample.bytes();
        let headers = Headers::parse(&train).unwrap();
        let vnet = Vnet { gso: crate::packet::Gso::Udp, segment_size: 100, ..Vnet::default() };
        lab.nat.outbound(lab.now, SITE, &mut train, &headers, &vnet).unwrap();
        u16::from_be_bytes([train[4], train[5]])
    };
    let first = next();
    assert_eq!(next(), first.wrapping_add(10));
    rewrite::set_identification(&mut atomic, &Headers::parse(&sample.bytes()).unwrap(), 9).unwrap();
    assert_checksums(&atomic);
}
