//! Policy on real nodes in virtual time: what classes may use, here and at relays, how much they may
//! send, how their flows are spread, and what a reload makes of all that.
//!
//! ```text
//!   site 0 ---- 20 ms ---- site 1
//!     |  \______   ______/  |        over site 2: 12 + 12 ms
//!   site 2      \_/      site 3      over site 3: 15 + 15 ms
//! ```

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rongate::flow::{
    Class, ClassMatch, Classes, Egress, ExitPoint, FlowKey, Group, Marks, Priority, Scope,
};
use rongate::id::{PeerIndex, UplinkIndex};
use rongate::metric::Metric;
use rongate::node::{ExitVia, Node, NodeConfig, NodePolicy};
use rongate::packet::Headers;
use rongate::path::Path;
use rongate::sim::{LinkModel, Mesh, Simulator, host};
use rongate::telemetry::DropReason;

/// Site 0's peers: sites 1, 2 and 3.
const FAR: PeerIndex = PeerIndex(0);
const NEAR_RELAY: PeerIndex = PeerIndex(1);
const OTHER_RELAY: PeerIndex = PeerIndex(2);
/// Packets to these ports are of the class under test.
const PORTS: std::ops::RangeInclusive<u16> = 9_000..=9_999;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Four sites; at site 0 there is a class `special` for [`PORTS`].
fn overlay(mesh: Mesh, special: Class, change: impl FnOnce(&mut [NodeConfig])) -> Simulator {
    let mut configs = mesh.configs();
    configs[0].classes = classes(special);
    change(&mut configs);
    let mut simulator = Simulator::new(configs, LinkModel::default(), 7);
    for uplink in 0..mesh.uplinks {
        for (a, b, delay) in [(0, 1, 20), (0, 2, 12), (2, 1, 12), (0, 3, 15), (3, 1, 15)] {
            let ends = [a, b].map(|site| Mesh::underlay(site, uplink));
            simulator.network.set_both(ends[0], ends[1], |link| {
                *link = LinkModel { delay: ms(delay), ..LinkModel::default() };
            });
        }
    }
    simulator.run_for(Duration::from_secs(10));
    simulator.take_deliveries();
    simulator
}

fn classes(special: Class) -> Classes {
    let matches = ClassMatch { destination_ports: vec![PORTS], ..ClassMatch::default() };
    let special = Class { name: "special".to_owned(), matches: Some(matches), tag: 7, ..special };
    Classes::new(vec![special, Class { tag: 2, ..Class::default() }])
}

fn cut(simulator: &mut Simulator, a: u8, b: u8) {
    let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
    simulator.network.set_both(a, b, |link| link.up = false);
}

fn packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), id: u64, len: usize) -> Vec<u8> {
    host::packet((from.0.into(), from.1), (to.0.into(), to.1), id, len)
}

/// Sends packets from site 0 to a port of a host, one every 10 ms; how many arrived at `site`.
fn send(simulator: &mut Simulator, site: u8, port: u16, packets: u64) -> usize {
    simulator.take_deliveries();
    for id in 0..packets {
        let to = if site == 0 { Ipv4Addr::new(8, 8, 8, 8) } else { Mesh::host(site, 5) };
        let packet = packet((Mesh::host(0, 5), 700), (to, port), id, 100);
        simulator.send(0, &packet);
        simulator.run_for(ms(10));
    }
    simulator.run_for(ms(200));
    simulator.take_deliveries().iter().filter(|d| d.node == usize::from(site)).count()
}

fn dropped(simulator: &Simulator, node: usize, reason: DropReason) -> u64 {
    simulator.node(node).unwrap().counters().dropped(reason)
}

fn relayed(simulator: &Simulator, node: usize) -> u64 {
    simulator.node(node).unwrap().counters().relayed.packets
}

#[test]
fn a_class_without_relays_is_refused_rather_than_relayed() {
    let only = Scope { relays: Some(vec![]), ..Scope::default() };
    let mut sim = overlay(Mesh::default(), Class { only, ..Class::default() }, |_| {});
    assert_eq!(send(&mut sim, 1, 9_000, 20), 20, "directly");
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(send(&mut sim, 1, 80, 20), 20, "others go through a relay");
    let before = dropped(&sim, 0, DropReason::PolicyClosed);
    assert_eq!(send(&mut sim, 1, 9_000, 20), 0);
    assert_eq!(dropped(&sim, 0, DropReason::PolicyClosed) - before, 20);
}

#[test]
fn a_class_keeps_away_from_the_relays_that_it_avoids() {
    let avoid = Scope { peers: Some(vec![NEAR_RELAY]), ..Scope::default() };
    let mut sim = overlay(Mesh::default(), Class { avoid, ..Class::default() }, |_| {});
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    let node = |sim: &Simulator, port| path_to(sim.node(0).unwrap(), port);
    assert_eq!(node(&sim, 80), Some(Path::Via(NEAR_RELAY)), "it is the shorter one");
    assert_eq!(node(&sim, 9_000), Some(Path::Via(OTHER_RELAY)));
    assert_eq!(send(&mut sim, 1, 9_000, 50), 50);
    assert_eq!(send(&mut sim, 2, 9_000, 5), 0, "it is no destination either");
    assert_eq!(send(&mut sim, 2, 80, 5), 5);
}

/// The path to site 1 for packets to a port.
fn path_to(node: &Node, port: u16) -> Option<Path> {
    let class = node.classify(&key(port), Marks::default());
    node.path(FAR, node.demand(class))
}

fn key(port: u16) -> FlowKey {
    let to = Mesh::host(1, 5);
    FlowKey::new(17, (Mesh::host(0, 5).into(), 700), (to.into(), port)).unwrap()
}

#[test]
fn a_class_takes_only_the_relays_that_it_names() {
    let only = Scope { relays: Some(vec![OTHER_RELAY]), ..Scope::default() };
    let mut sim = overlay(Mesh::default(), Class { only, ..Class::default() }, |_| {});
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    let before = [2, 3].map(|site| relayed(&sim, site));
    assert_eq!(send(&mut sim, 1, 9_000, 50), 50);
    let carried = [2, 3].map(|site| relayed(&sim, site));
    assert!(carried[1] >= before[1] + 50, "{before:?} {carried:?}");
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(OTHER_RELAY)));
    assert_eq!(path_to(sim.node(0).unwrap(), 80), Some(Path::Via(NEAR_RELAY)));
    // That one gone too, nothing is left to the class.
    cut(&mut sim, 0, 3);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(send(&mut sim, 1, 9_000, 20), 0);
    assert_eq!(send(&mut sim, 1, 80, 20), 20);
}

#[test]
fn a_class_says_which_frames_go_first_and_a_reload_changes_it() {
    let class = Class { priority: Priority::High, ..Class::default() };
    let mut sim = overlay(Mesh::default(), class, |_| {});
    let frame = |port| packet((Mesh::host(0, 5), 700), (Mesh::host(1, 5), port), 1, 100);
    let asked =
        |sim: &Simulator| [9_000, 80].map(|port| sim.node(0).unwrap().priority_of(&frame(port)));
    assert_eq!(asked(&sim), [Priority::High, Priority::Normal], "of flows that are new");
    assert_eq!(send(&mut sim, 1, 9_000, 3), 3);
    assert_eq!(asked(&sim), [Priority::High, Priority::Normal], "of flows that are known");
    let mut config = Mesh::default().configs().remove(0);
    config.classes = classes(Class { priority: Priority::Low, ..Class::default() });
    sim.operate(0, |node, now| node.set_policy(now, config.policy()));
    assert_eq!(asked(&sim), [Priority::Low, Priority::Normal], "after a reload");
}

#[test]
fn a_class_keeps_to_its_uplinks() {
    let only = Scope { uplinks: Some(vec![UplinkIndex(1)]), ..Scope::default() };
    let mesh = Mesh { uplinks: 2, ..Mesh::default() };
    let mut sim = overlay(mesh, Class { only, ..Class::default() }, |_| {});
    let mut uplinks = |port| {
        sim.take_tapped();
        assert_eq!(send(&mut sim, 1, port, 20), 20);
        let here = |uplink| Mesh::underlay(0, uplink);
        let long = sim.take_tapped().into_iter().filter(|t| t.bytes.len() >= 130);
        let from: BTreeSet<_> = long.map(|t| t.source.ip()).collect();
        (from.contains(&here(0)), from.contains(&here(1)))
    };
    assert_eq!(uplinks(9_000), (false, true));
    assert!(uplinks(80).0, "others use the first one too");
}

#[test]
fn a_relay_refuses_a_class_and_the_sender_finds_another_way() {
    let mut sim = overlay(Mesh::default(), Class::default(), |configs| {
        configs[2].relay.refused = [7].into_iter().collect();
    });
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(NEAR_RELAY)));
    let arrived = send(&mut sim, 1, 9_000, 100);
    assert!(arrived >= 96, "{arrived}: what was under way until the relay had spoken is lost");
    let refused = dropped(&sim, 2, DropReason::RelayClassRefused);
    assert!((1..=8).contains(&refused), "{refused}");
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(OTHER_RELAY)));
    assert_eq!(path_to(sim.node(0).unwrap(), 80), Some(Path::Via(NEAR_RELAY)));
    assert_eq!(send(&mut sim, 1, 9_000, 100), 100);
    assert_eq!(send(&mut sim, 1, 80, 100), 100);
    assert_eq!(dropped(&sim, 2, DropReason::RelayClassRefused), refused);
    // After a while it is asked again, and says the same.
    sim.run_for(Duration::from_secs(610));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(NEAR_RELAY)));
    assert!(send(&mut sim, 1, 9_000, 100) >= 96);
    assert!(dropped(&sim, 2, DropReason::RelayClassRefused) > refused);
}

#[test]
fn a_relay_that_does_not_serve_us_says_so_and_is_left_alone() {
    let mut sim = overlay(Mesh::default(), Class::default(), |configs| {
        configs[2].relay.allowed = Some(vec![PeerIndex(1), PeerIndex(2)]);
    });
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(2));
    send(&mut sim, 1, 80, 20);
    assert!(dropped(&sim, 2, DropReason::RelayRefused) > 0);
    assert!(sim.node(0).unwrap().is_refused(NEAR_RELAY, 0));
    for _ in 0..20 {
        sim.run_for(Duration::from_secs(10));
        assert_eq!(send(&mut sim, 1, 80, 20), 20);
        assert_eq!(path_to(sim.node(0).unwrap(), 80), Some(Path::Via(OTHER_RELAY)));
    }
}

#[test]
fn a_class_uses_the_exits_that_it_may() {
    let mesh = Mesh { exits: true, ..Mesh::default() };
    let only = Scope { exits: Some(vec![ExitPoint::Peer(OTHER_RELAY)]), ..Scope::default() };
    let mut sim = overlay(mesh, Class { only, ..Class::default() }, |configs| {
        configs[0].internet_via = vec![ExitVia::Peer(NEAR_RELAY), ExitVia::Peer(OTHER_RELAY)];
    });
    let exit = |sim: &Simulator, port| {
        let (node, destination) = (sim.node(0).unwrap(), Ipv4Addr::new(8, 8, 8, 8));
        let class = node.classify(&key(port), Marks::default());
        node.egress_for(sim.now(), destination.into(), class)
    };
    assert_eq!(exit(&sim, 80), Some(Egress::PeerExit(NEAR_RELAY)));
    assert_eq!(exit(&sim, 9_000), Some(Egress::PeerExit(OTHER_RELAY)));
    sim.kill(3);
    sim.run_for(Duration::from_secs(30));
    assert_eq!(exit(&sim, 9_000), None, "rather none than another one");
    let before = dropped(&sim, 0, DropReason::PolicyClosed);
    send(&mut sim, 0, 9_000, 5);
    assert_eq!(dropped(&sim, 0, DropReason::PolicyClosed) - before, 5);
}

/// Sites 1 and 2 use the exit of site 0. Returns the outside end that it gave to a host of site 1.
fn met_at_our_exit(special: Class) -> (Simulator, (Ipv4Addr, u16)) {
    let mesh = Mesh { exits: true, ..Mesh::default() };
    let mut sim = overlay(mesh, special, |configs| {
        let outside = "203.0.113.99/32".parse().unwrap();
        configs[0].egress.as_mut().unwrap().nat.pool = vec![outside];
        // Their first peer is site 0.
        configs[1].internet_via = vec![ExitVia::Peer(PeerIndex(0))];
        configs[2].internet_via = vec![ExitVia::Peer(PeerIndex(0))];
    });
    let internet = (Ipv4Addr::new(8, 8, 8, 8), 53);
    sim.send(1, &packet((Mesh::host(1, 5), 9_000), internet, 1, 100));
    sim.run_for(ms(100));
    let left = sim.take_deliveries().into_iter().find(|d| d.node == 0).expect("by our exit");
    let headers = Headers::parse(&left.packet).unwrap();
    let IpAddr::V4(outside) = headers.source else { panic!("{headers:?}") };
    (sim, (outside, u16::from_be_bytes([left.packet[20], left.packet[21]])))
}

#[test]
fn hosts_that_meet_at_our_exit_are_taken_off_their_rate_once() {
    let (mut sim, outside) = met_at_our_exit(Class::default());
    sim.operate(0, |node, now| {
        let mut policy = group_policy(Group::Flow);
        let all = Class { rate_bps: Some(800_000), ..Class::default() };
        policy.classes = Classes::new(vec![all]);
        node.set_policy(now, policy);
    });
    // Three times what the rate lets through, for ten seconds.
    for id in 0..3_000 {
        sim.send(0, &packet((Mesh::host(0, 5), 700), outside, id, 1_000));
        if id % 3 == 2 {
            sim.run_for(ms(10));
        }
    }
    sim.run_for(ms(200));
    let arrived = sim.take_deliveries().iter().filter(|d| d.node == 1).count();
    assert!((1_000..=1_140).contains(&arrived), "{arrived}");
}

/// The sender is at the exit's own site, or behind the exit.
#[test]
fn hosts_that_meet_at_our_exit_are_told_why_a_packet_does_not_go_on() {
    let avoid = Scope { peers: Some(vec![NEAR_RELAY, OTHER_RELAY]), ..Scope::default() };
    let (mut sim, outside) = met_at_our_exit(Class { avoid, ..Class::default() });
    let told = |sim: &mut Simulator, site: u8, len: usize| {
        let host = Mesh::host(site, 5);
        sim.send(usize::from(site), &packet((host, 700), outside, 1, len));
        sim.run_for(ms(200));
        let told = sim.take_deliveries();
        let [told] = &told[..] else { panic!("{site}: {told:?}") };
        let headers = Headers::parse(&told.packet).unwrap();
        assert_eq!((told.node, headers.destination), (usize::from(site), IpAddr::V4(host)));
        // Of the packet as the host sent it.
        let quote = &told.packet[28..];
        assert_eq!(quote[12..20], [host.octets(), outside.0.octets()].concat());
        assert_eq!(quote[20..24], [700, outside.1].map(u16::to_be_bytes).concat());
        [told.packet[20], told.packet[21]]
    };
    assert_eq!(told(&mut sim, 0, 1_480), [3, 4], "too big");
    // What is left to the class is no way.
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    sim.take_deliveries();
    for site in [0, 2] {
        assert_eq!(told(&mut sim, site, 100), [3, 13], "prohibited");
    }
}

/// A packet from a host of site 0 to the outside address of one of site 1.
#[test]
fn hosts_that_meet_at_our_exit_go_at_our_exit_go_by_their_classes() {
    let avoid = Scope { peers: Some(vec![NEAR_RELAY]), ..Scope::default() };
    let (mut sim, outside) = met_at_our_exit(Class { avoid, ..Class::default() });
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    let meet = |sim: &mut Simulator| {
        let before = [2, 3].map(|site| relayed(sim, site));
        sim.take_deliveries();
        for id in 0..50 {
            sim.send(0, &packet((Mesh::host(0, 5), 700), outside, id, 100));
            sim.run_for(ms(10));
        }
        sim.run_for(ms(200));
        let arrived = sim.take_deliveries().iter().filter(|d| d.node == 1).count();
        let [near, other] = [2, 3].map(|site| relayed(sim, site));
        (arrived, near - before[0] >= 50, other - before[1] >= 50)
    };
    assert_eq!(meet(&mut sim), (50, false, true));
    // The class of the packet as the host sent it says whether it may use our exit.
    sim.operate(0, |node, now| {
        let only = Scope { exits: Some(vec![ExitPoint::Peer(OTHER_RELAY)]), ..Scope::default() };
        let ports = vec![outside.1..=outside.1];
        let matches = ClassMatch { destination_ports: ports, ..ClassMatch::default() };
        let closed = Class { matches: Some(matches), only, ..Class::default() };
        let mut policy = group_policy(Group::Flow);
        policy.classes = Classes::new(vec![closed, Class::default()]);
        node.set_policy(now, policy);
    });
    let before = dropped(&sim, 0, DropReason::PolicyClosed);
    assert_eq!(meet(&mut sim).0, 0);
    assert_eq!(dropped(&sim, 0, DropReason::PolicyClosed) - before, 50);
}

#[test]
fn a_reload_takes_exits_and_relays_away_from_flows_that_live() {
    let mesh = Mesh { exits: true, ..Mesh::default() };
    let mut sim = overlay(mesh, Class::default(), |configs| {
        configs[0].internet_via = vec![ExitVia::Peer(NEAR_RELAY), ExitVia::Peer(OTHER_RELAY)];
    });
    send(&mut sim, 0, 9_000, 3);
    let exits = |sim: &Simulator| -> BTreeSet<Egress> {
        let flows = sim.node(0).unwrap().flows_from(rongate::flow::FlowId(0));
        flows.map(|(_, flow)| flow.egress).collect()
    };
    assert_eq!(exits(&sim), [Egress::PeerExit(NEAR_RELAY)].into());
    sim.operate(0, |node, now| {
        let mut policy = group_policy(Group::Flow);
        policy.internet_via = vec![ExitVia::Peer(OTHER_RELAY)];
        policy.roles[NEAR_RELAY.usize()] = (false, false);
        node.set_policy(now, policy);
    });
    send(&mut sim, 0, 9_000, 3);
    send(&mut sim, 0, 9_001, 3);
    assert_eq!(exits(&sim), [Egress::PeerExit(OTHER_RELAY)].into(), "old flows and new ones");
    cut(&mut sim, 0, 1);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(path_to(sim.node(0).unwrap(), 80), Some(Path::Via(OTHER_RELAY)));
}

#[test]
fn flows_of_one_host_keep_one_exit_when_their_class_says_so() {
    for (group, exits) in [(Group::Flow, 2), (Group::Source, 1)] {
        let mesh = Mesh { exits: true, ..Mesh::default() };
        let mut sim = overlay(mesh, Class { group, ..Class::default() }, |configs| {
            configs[0].internet_via = vec![ExitVia::Peer(NEAR_RELAY), ExitVia::Peer(OTHER_RELAY)];
        });
        send(&mut sim, 0, 9_000, 3);
        // The exit that comes first is away for a while, and the host begins another flow then.
        sim.operate(0, |node, now| {
            let mut policy = group_policy(group);
            policy.internet_via.reverse();
            node.set_policy(now, policy);
        });
        let packet = packet((Mesh::host(0, 5), 701), ([8, 8, 8, 8].into(), 9_001), 1, 100);
        sim.send(0, &packet);
        let flows = sim.node(0).unwrap().flows_from(rongate::flow::FlowId(0));
        let used: BTreeSet<_> = flows.map(|(_, flow)| flow.egress).collect();
        assert_eq!(used.len(), exits, "{group:?}: {used:?}");
    }
}

/// The policy of site 0 in the test of groups.
fn group_policy(group: Group) -> NodePolicy {
    let mut config = Mesh { exits: true, ..Mesh::default() }.configs().remove(0);
    config.classes = classes(Class { group, ..Class::default() });
    config.internet_via = vec![ExitVia::Peer(NEAR_RELAY), ExitVia::Peer(OTHER_RELAY)];
    config.policy()
}

#[test]
fn a_class_sends_no_more_than_its_rate() {
    let class = Class { rate_bps: Some(800_000), ..Class::default() };
    let mut sim = overlay(Mesh::default(), class, |_| {});
    let mut sent = 0;
    for _ in 0..1_000 {
        for _ in 0..3 {
            let (from, to) = ((Mesh::host(0, 5), 700), (Mesh::host(1, 5), 9_000));
            sim.send(0, &packet(from, to, sent, 1_000));
            sent += 1;
        }
        sim.run_for(ms(10));
    }
    sim.run_for(ms(200));
    let arrived = sim.take_deliveries().len() as u64;
    // 100 a second for ten seconds, and the burst at the beginning.
    assert!((1_000..=1_000 + 140).contains(&arrived), "{arrived}");
    assert_eq!(dropped(&sim, 0, DropReason::ClassRateLimited), sent - arrived);
    assert_eq!(send(&mut sim, 1, 80, 20), 20, "other classes have no limit");
}

#[test]
fn flows_are_spread_over_good_paths_and_keep_theirs() {
    let mut sim = overlay(Mesh::default(), Class { multipath: true, ..Class::default() }, |_| {});
    let paths = |sim: &mut Simulator| -> BTreeMap<u16, Option<Path>> {
        for port in 9_000..9_064 {
            let (from, to) = ((Mesh::host(0, 5), 700), (Mesh::host(1, 5), port));
            sim.send(0, &packet(from, to, 1, 100));
        }
        sim.run_for(ms(200));
        let flows = sim.node(0).unwrap().flows_from(rongate::flow::FlowId(0));
        flows.map(|(_, flow)| (flow.key.destination_port, flow.path)).collect()
    };
    // A relay gets flows once it was seen to pass what is sent through it.
    assert_eq!(send(&mut sim, 1, 9_000, 150), 150);
    let before = paths(&mut sim);
    let count = |paths: &BTreeMap<u16, Option<Path>>, path: Path| {
        paths.values().filter(|p| **p == Some(path)).count()
    };
    let relays = [Path::Via(NEAR_RELAY), Path::Via(OTHER_RELAY)];
    for relay in relays {
        assert!((8..32).contains(&count(&before, relay)), "{before:?}");
    }
    assert!(relayed(&sim, 2) > 0 && relayed(&sim, 3) > 0);
    sim.run_for(Duration::from_secs(20));
    assert_eq!(paths(&mut sim), before, "nobody moves without need");
    cut(&mut sim, 0, 2);
    sim.run_for(Duration::from_secs(10));
    let after = paths(&mut sim);
    assert_eq!(count(&after, relays[0]), 0);
    for (port, path) in before {
        assert!(path == Some(relays[0]) || after[&port] == path, "{port} moved without need");
    }
    assert_eq!(send(&mut sim, 1, 9_000, 50), 50);
}

#[test]
fn an_application_s_values_decide_while_they_last() {
    let class = Class { metric: Metric::App, ..Class::default() };
    let mut sim = overlay(Mesh::default(), class, |_| {});
    let direct = path_to(sim.node(0).unwrap(), 80);
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), direct, "without values, by latency");
    let set = |sim: &mut Simulator, relay, value, ttl| {
        sim.operate(0, |node, now| {
            node.set_app_value(now, FAR, Path::Via(relay), Some((value, now + ttl))).unwrap();
        });
        sim.run_for(ms(1_500));
    };
    set(&mut sim, OTHER_RELAY, 5.0, Duration::from_secs(60));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(OTHER_RELAY)));
    assert_eq!(path_to(sim.node(0).unwrap(), 80), direct, "other classes do not ask");
    sim.run_for(Duration::from_secs(6));
    set(&mut sim, NEAR_RELAY, 4.0, Duration::from_secs(20));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(NEAR_RELAY)));
    assert_eq!(send(&mut sim, 1, 9_000, 20), 20);
    sim.run_for(Duration::from_secs(20));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), Some(Path::Via(OTHER_RELAY)), "expired");
    // A path that fails is left, whatever it is said to be worth.
    cut(&mut sim, 0, 3);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(path_to(sim.node(0).unwrap(), 9_000), direct);
}

#[test]
fn outages_are_accounted_for_and_so_is_what_the_direct_path_would_have_given() {
    let mut sim = overlay(Mesh::default(), Class::default(), |_| {});
    assert_eq!(send(&mut sim, 1, 80, 100), 100);
    cut(&mut sim, 0, 1);
    send(&mut sim, 1, 80, 500);
    let known = |sim: &Simulator| {
        let peers = sim.node(0).unwrap().peers(sim.now());
        (peers[0].availability, peers[0].regret)
    };
    let (availability, regret) = known(&sim);
    assert_eq!((availability.outages, availability.ongoing), (1, true));
    assert!(regret.direct >= 100 && regret.rescued > 300, "{regret:?}");
    let ends = [0, 1].map(|site| Mesh::underlay(site, 0));
    sim.network.set_both(ends[0], ends[1], |link| link.up = true);
    sim.run_for(Duration::from_secs(20));
    let (availability, _) = known(&sim);
    assert_eq!((availability.outages, availability.avoided), (1, 1), "{availability:?}");
    assert!(availability.detection.longest < Duration::from_secs(1), "{availability:?}");
    assert!(availability.recovery.longest < Duration::from_secs(1), "{availability:?}");
    assert_eq!(availability.unreachable, Duration::ZERO);
    // Nobody reaches a site that is gone.
    sim.kill(1);
    sim.run_for(Duration::from_secs(30));
    sim.start(1);
    sim.run_for(Duration::from_secs(30));
    let (availability, _) = known(&sim);
    assert_eq!((availability.outages, availability.unavoidable), (2, 1), "{availability:?}");
    assert!(availability.unreachable > Duration::from_secs(20), "{availability:?}");
}

#[test]
fn round_trips_are_averaged_over_what_is_configured_and_a_reload_changes_it() {
    let second = Duration::from_secs(1);
    let mut sim = overlay(Mesh::default(), Class::default(), |configs| {
        configs[0].routing.smoothing = 60 * second;
    });
    let rtt = |sim: &Simulator| {
        let report = sim.node(0).unwrap().peers(sim.now())[0].links[0].report;
        Duration::from_micros(report.latency_us.into())
    };
    let ends = [0, 1].map(|site| Mesh::underlay(site, 0));
    let delay = |sim: &mut Simulator, delay| {
        sim.network.set_both(ends[0], ends[1], |link| link.delay = delay);
        sim.run_for(40 * second);
        rtt(sim)
    };
    // By less than what is believed at once: an average that is long hardly moves.
    let slow = delay(&mut sim, ms(24));
    assert!(slow < ms(46), "{slow:?}");
    let mut config = Mesh::default().configs().remove(0);
    config.routing.smoothing = second;
    sim.operate(0, |node, now| node.set_policy(now, config.policy()));
    let quick = delay(&mut sim, ms(24));
    assert!(quick > ms(47), "{quick:?} after {slow:?}");
}

/// What still comes in does not make an outage of the other direction look short.
#[test]
fn an_outage_of_one_direction_is_timed_from_its_beginning() {
    let mut sim = overlay(Mesh::default(), Class::default(), |_| {});
    assert_eq!(send(&mut sim, 1, 80, 100), 100);
    let ends = [0, 1].map(|site| Mesh::underlay(site, 0));
    sim.network.set(ends[0], ends[1], |link| link.up = false);
    send(&mut sim, 1, 80, 500);
    let availability = sim.node(0).unwrap().peers(sim.now())[0].availability;
    assert_eq!(availability.outages, 1, "{availability:?}");
    // The answer to a packet is missed after more than a round trip.
    let least = sim.network.link(ends[0], ends[1]).delay * 2;
    for time in [availability.detection.longest, availability.recovery.longest] {
        assert!(time > least && time < Duration::from_secs(1), "{availability:?}");
    }
}
