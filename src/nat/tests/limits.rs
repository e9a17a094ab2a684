//! What is refused, so that others keep their service.

use super::*;

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
fn a_mapping_takes_at_most_160_bytes() {
    use super::super::table::Table;
    const { assert!(Table::BYTES_PER_MAPPING <= 160) }
    const { assert!(Table::BYTES_PER_SESSION <= 160) }
}
