//! Good files and the values they give.

use std::time::Duration;

use super::*;
use crate::flow::ClassMatch;
use crate::id::PeerIndex;
use crate::metric::Metric;

#[test]
fn absent_keys_have_working_defaults() {
    let config = parse(
        "node: {name: mit, private_key_file: mit.key}\n\
         tun: {address: 10.77.0.1/24}\n\
         uplinks: [{name: isp1, interface: wan0, listen: 'auto:4710'}]\n\
         peers: []\n",
    )
    .unwrap();
    assert_eq!(config.node.name, "mit");
    assert_eq!(config.node.public_key.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    assert_eq!(config.node.id, config.node.public_key.node_id());
    assert_eq!(config.node.preshared_key, None);
    assert_eq!(config.node.state_dir.to_str(), Some("/var/lib/rongate"));
    assert_eq!(config.control.socket.to_str(), Some("/run/rongate/mit.sock"));
    assert_eq!(config.http, None);
    assert_eq!(config.tun.name, "ron0");
    assert_eq!(config.tun.mtu, None);
    assert_eq!(config.lan.on_failure, OnFailure::Block);
    assert_eq!(config.uplinks[0].listen, Listen::Auto { ipv6: false, port: 4710 });
    assert_eq!(config.uplinks[0].gso, UdpGso::Auto);
    assert_eq!(config.egress, None);
    assert_eq!(config.relay, RelaySection { allowed: vec![], rate: None, refused: vec![] });
    assert_eq!(config.internet, InternetVia::Ordered(vec![]));
    assert_eq!(config.probing.budget, Rate::from_kbit(33));
    assert_eq!(config.routing.hold_down, Duration::from_secs(5));
    assert_eq!(config.nat.timers.tcp_established, Duration::from_secs(7_440));
    assert_eq!(config.log, "info");
    let [class] = config.classes.as_slice() else { panic!("one class by default") };
    assert_eq!((class.metric, class.redundancy), (Metric::Latency, 1));
    assert_eq!(class.matches, None);
}

#[test]
fn a_longer_pause_is_remembered_longer() {
    let backoff = |keys: &str| {
        parse(&format!("{BASE}routing: {{backoff: {{{keys}}}}}\n")).unwrap().routing.backoff
    };
    assert_eq!(backoff("factor: 4"), crate::routing::FlapConfig::default());
    let seconds = |keys| {
        let backoff = backoff(keys);
        [backoff.base, backoff.longest, backoff.forget].map(|duration| duration.as_secs())
    };
    assert_eq!(seconds("base: 10m"), [600, 600, 600]);
    assert_eq!(seconds("longest: 10m"), [5, 600, 600]);
    assert_eq!(seconds("base: 0s, longest: 0s, forget: 1s"), [0, 0, 1]);
}

#[test]
fn trains_of_one_uplink_may_be_cut_by_us() {
    let config = parse(
        &BASE.replace("    listen: 192.0.2.1:4710\n", "    listen: 192.0.2.1:4710\n    gso: off\n"),
    );
    assert_eq!(config.unwrap().uplinks[0].gso, UdpGso::Off);
}

#[test]
fn the_nat_is_as_the_standards_recommend_and_can_be_told_otherwise() {
    let nat = parse(BASE).unwrap().nat;
    assert_eq!(nat.policy, crate::nat::NatPolicy::default());
    assert_eq!(nat.timers, crate::nat::NatTimers::default());
    assert_eq!(nat.limits.rate_per_host, None);
    let text = "nat: {tcp_transitory: 5m, tcp_opening: 4m, udp_ports: [53 30s], filtering: address,\
                \x20filtering_udp: endpoint-independent, reuse: when_full, tcp_per_host: 100,\
                \x20rate_per_host: 50, bypass: [203.0.113.0/28], forwards: [{port: 40080,\
                \x20to: '10.2.0.5:80'}, {protocol: udp, port: 40053, to: '10.1.0.5:53'}]}\n";
    let config = parse(&format!("{BASE}{text}")).unwrap();
    let nat = &config.nat;
    assert_eq!(nat.timers.tcp_closing, Duration::from_secs(300));
    assert_eq!(nat.timers.tcp_opening, Duration::from_secs(240));
    assert_eq!(nat.timers.udp_ports, [(53, Duration::from_secs(30))]);
    assert_eq!(nat.policy.tcp.filtering, crate::nat::Dependence::Address);
    assert_eq!(nat.policy.udp.filtering, crate::nat::Dependence::EndpointIndependent);
    assert_eq!(nat.limits.per_transport.tcp, 100);
    assert_eq!(nat.limits.rate_per_host, Some(50));
    assert_eq!(nat.forwards[0].peer, Some(PeerIndex(0)));
    assert_eq!((nat.forwards[1].peer, nat.forwards[1].port), (None, 40_053));
}

#[test]
fn names_become_indices() {
    let text = changed("  ports: 40000-59999", "  for: [aros, utah]\n  ports: 1024-2047")
        + "relay: {for: aros, rate: 1.5mbit}\ninternet: {via: [utah, local]}\n";
    let config = parse(&text).unwrap();
    let egress = config.egress.as_ref().unwrap();
    assert_eq!(egress.allowed, [PeerIndex(0), PeerIndex(1)]);
    assert_eq!(egress.ports, 1024..=2047);
    assert_eq!(egress.pool, ["100.64.1.1/32".parse().unwrap()]);
    assert_eq!(config.relay.allowed, [PeerIndex(1)]);
    assert_eq!(config.relay.rate, Some(Rate::from_bits_per_second(1_500_000)));
    let exits = vec![ExitPoint::Peer(PeerIndex(0)), ExitPoint::Local];
    assert_eq!(config.internet, InternetVia::Ordered(exits));
    assert_eq!(config.peer_named("aros"), Some(PeerIndex(1)));
    assert_eq!(config.peer_named("mit"), None);
}

#[test]
fn without_a_choice_the_own_exit_comes_first() {
    let exits = vec![ExitPoint::Local, ExitPoint::Peer(PeerIndex(0))];
    assert_eq!(parse(BASE).unwrap().internet, InternetVia::Ordered(exits));
}

#[test]
fn classes_are_read_with_all_their_conditions() {
    let text = format!(
        "{BASE}classes:\n\
         - name: voice\n\
         \x20 match: {{protocol: udp, dscp: ef, source: 10.1.0.0/16, destination_ports: [53, 1-9]}}\n\
         \x20 redundancy: 2\n\
         - name: ping\n\
         \x20 match: {{protocol: icmp}}\n\
         \x20 set_dscp: 10\n\
         - {{name: rest, metric: throughput}}\n"
    );
    let classes = parse(&text).unwrap().classes;
    let voice = ClassMatch {
        protocol: Some(17),
        dscp: Some(46),
        sources: vec!["10.1.0.0/16".parse().unwrap()],
        destination_ports: vec![53..=53, 1..=9],
        ..ClassMatch::default()
    };
    assert_eq!(classes[0].matches, Some(voice));
    assert_eq!(classes[0].redundancy, 2);
    let ping = ClassMatch { icmp: true, ..ClassMatch::default() };
    assert_eq!(classes[1].matches, Some(ping));
    assert_eq!(classes[1].set_dscp, Some(10));
    assert_eq!((classes[2].metric, &classes[2].matches), (Metric::Throughput, &None));
}

#[test]
fn an_empty_section_is_as_good_as_none() {
    let config = parse(&format!("{BASE}relay:\nnat: ~\nflows: {{}}\n")).unwrap();
    assert_eq!(config, parse(BASE).unwrap());
}

#[test]
fn the_tun_prefix_may_hold_the_addresses_of_nodes_but_no_networks() {
    assert!(parse(BASE).is_ok());
    assert!(parse(&changed("[10.2.0.0/16]", "[10.77.0.128/25]")).is_err());
}

#[test]
fn two_families_need_an_uplink_for_one_of_them() {
    let six = "endpoints: ['[2001:db8::1]:4710', '203.0.113.1:4710']";
    assert!(parse(&changed("endpoints: ['203.0.113.1:4710']", six)).is_ok());
}
