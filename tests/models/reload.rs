//! A policy that was put in force while the overlay runs, against a gateway that was started with it:
//! the same flows must go the same ways.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use rongate::flow::{
    Class, ClassMatch, Classes, Egress, ExitPoint, FlowId, FlowKey, Marks, Priority, Scope, TagSet,
};
use rongate::id::{PeerIndex, UplinkIndex};
use rongate::metric::Metric;
use rongate::node::{ExitVia, Node, NodeConfig, NodePolicy, RelayConfig};
use rongate::path::Path;
use rongate::routing::RouterConfig;
use rongate::sim::{LinkModel, Mesh, Simulator, host};
use rongate::time::{Instant, WallClock};

const SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
/// Of flows that are older than the last policy, and of later ones.
const SOURCES: [u16; 2] = [700, 701];
/// Classes are told apart by the port of the destination.
const PORTS: std::ops::Range<u16> = 1..7;
const MESH: Mesh = Mesh { sites: 4, uplinks: 2, exits: true, ipv6: false };

/// Any policy of a node with three peers and two uplinks.
fn any_policy() -> impl Strategy<Value = NodePolicy> {
    let peers = || prop::option::of(prop::collection::btree_set(0u16..3, 0..3));
    let scope = (peers(), peers(), prop::option::of(0u8..2), prop::option::of(0u16..4));
    let scope = scope.prop_map(|(peers, relays, uplink, exit)| Scope {
        peers: peers.map(|set| set.into_iter().map(PeerIndex).collect()),
        relays: relays.map(|set| set.into_iter().map(PeerIndex).collect()),
        uplinks: uplink.map(|uplink| vec![UplinkIndex(uplink)]),
        exits: exit.map(|exit| match exit {
            3 => vec![ExitPoint::Local],
            peer => vec![ExitPoint::Peer(PeerIndex(peer))],
        }),
    });
    let metric =
        prop::sample::select(vec![Metric::Latency, Metric::Loss, Metric::Throughput, Metric::App]);
    let port = 1u16..6;
    let class = (port, scope.clone(), scope, metric, any::<(bool, bool)>(), 1u8..9).prop_map(
        |(port, only, avoid, metric, (multipath, high), tag)| Class {
            name: format!("class{port}"),
            matches: Some(ClassMatch {
                destination_ports: vec![port..=port],
                ..ClassMatch::default()
            }),
            only,
            avoid,
            metric,
            multipath,
            tag,
            priority: if high { Priority::High } else { Priority::Normal },
            ..Class::default()
        },
    );
    let via = prop::collection::vec(0u16..4, 0..3).prop_map(|via| {
        let exit = |n| match n {
            3 => ExitVia::Auto,
            peer => ExitVia::Peer(PeerIndex(peer)),
        };
        via.into_iter().map(exit).collect::<Vec<_>>()
    });
    let relay = (peers(), prop::collection::vec(1u8..9, 0..3)).prop_map(|(allowed, refused)| {
        let allowed = allowed.map(|set| set.into_iter().map(PeerIndex).collect());
        RelayConfig { allowed, rate_bps: None, refused: refused.into_iter().collect::<TagSet>() }
    });
    let roles = prop::collection::vec(any::<(bool, bool)>(), 3);
    (prop::collection::vec(class, 0..4), via, relay, roles).prop_map(
        |(classes, internet_via, relay, roles)| NodePolicy {
            classes: Classes::new(classes),
            internet_via_ipv6: internet_via.clone(),
            internet_via,
            relay,
            copies_bps: 1_000_000,
            routing: RouterConfig::default(),
            roles,
        },
    )
}

/// The configuration of site 0 with a policy.
fn config_with(policy: &NodePolicy) -> NodeConfig {
    let mut config = MESH.configs().remove(0);
    config.classes = policy.classes.clone();
    config.internet_via = policy.internet_via.clone();
    config.internet_via_ipv6 = policy.internet_via_ipv6.clone();
    config.relay = policy.relay.clone();
    config.copies_bps = policy.copies_bps;
    for (peer, (relay, egress)) in config.peers.iter_mut().zip(&policy.roles) {
        (peer.relay, peer.egress) = (*relay, *egress);
    }
    config
}

fn node_with(policy: &NodePolicy) -> Node {
    Node::new(config_with(policy), [3; 32], Instant::from_micros(1_000_000), WallClock(1 << 60))
}

/// An overlay whose first site has the policy. No two ways between sites are nearly equal: over the
/// second uplinks everything takes longer.
fn overlay(policy: &NodePolicy) -> Simulator {
    let mut configs = MESH.configs();
    configs[0] = config_with(policy);
    let mut simulator = Simulator::new(configs, LinkModel::default(), 7);
    let pairs = [(0, 1, 20), (0, 2, 12), (1, 2, 12), (0, 3, 15), (1, 3, 15), (2, 3, 10)];
    for (a, b, ms) in pairs {
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let delay = Duration::from_micros(ms * 1_000 + ms * 400 * u64::from(i + j));
            simulator.network.set_both(Mesh::underlay(a, i), Mesh::underlay(b, j), |link| {
                *link = LinkModel { delay, ..LinkModel::default() };
            });
        }
    }
    simulator
}

/// Who may get packets: hosts of the other sites, and a server in the Internet.
fn destinations() -> [Ipv4Addr; 4] {
    [Mesh::host(1, 5), Mesh::host(2, 5), Mesh::host(3, 5), SERVER]
}

/// Sends a packet of each flow; which number arrived where.
fn send(simulator: &mut Simulator, source: u16) -> BTreeSet<(u64, usize)> {
    simulator.take_deliveries();
    let from = (IpAddr::from(Mesh::host(0, 5)), source);
    for port in PORTS {
        for (place, to) in (0..).zip(destinations()) {
            let packet = host::packet(from, (to.into(), port), u64::from(port) * 10 + place, 100);
            simulator.send(0, &packet);
        }
    }
    simulator.run_for(Duration::from_millis(500));
    let deliveries = simulator.take_deliveries();
    let arrived = deliveries.iter().filter_map(|delivery| {
        let letter = host::open(&delivery.packet).ok()??;
        Some((letter.id, delivery.node))
    });
    arrived.collect()
}

fn key(to: Ipv4Addr, source: u16, port: u16) -> FlowKey {
    FlowKey::new(17, (Mesh::host(0, 5).into(), source), (to.into(), port)).unwrap()
}

/// Where the flow leaves the overlay, if the gateway knows it.
fn egress(node: &Node, key: FlowKey) -> Option<Egress> {
    let mut flows = node.flows_from(FlowId(0));
    flows.find(|(_, flow)| flow.key == key).map(|(_, flow)| flow.egress)
}

/// Whether the operator lets flows of the class leave the overlay there.
fn may_leave(policy: &NodePolicy, class: &Class, egress: Egress) -> bool {
    let Egress::PeerExit(peer) = egress else { return false };
    let listed = |via: &ExitVia| *via == ExitVia::Auto || *via == ExitVia::Peer(peer);
    policy.internet_via.iter().any(listed)
        && policy.roles[peer.usize()].1
        && class.permits_exit(ExitPoint::Peer(peer))
}

fn may_use(policy: &NodePolicy, class: &Class, path: Path) -> bool {
    match path {
        Path::Direct(link) => class.permits_uplink(link.local),
        // The first uplink is the better one to every relay.
        Path::Via(relay) => {
            policy.roles[relay.usize()].0
                && class.permits_relay(relay)
                && class.permits_uplink(UplinkIndex(0))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is worked out of a policy does not depend on those before.
    #[test]
    fn a_policy_put_in_force_is_as_if_it_had_always_been(
        first in any_policy(),
        second in any_policy(),
        third in any_policy(),
    ) {
        let now = Instant::from_micros(2_000_000);
        let mut node = node_with(&first);
        for policy in [&second, &third] {
            node.set_policy(now, policy.clone());
            let fresh = node_with(policy);
            prop_assert_eq!(
                format!("{:?}", node.policy_summary()),
                format!("{:?}", fresh.policy_summary())
            );
            for port in 0..7 {
                let key = key(SERVER, SOURCES[0], port);
                let class = node.classify(&key, Marks::default());
                prop_assert_eq!(class, fresh.classify(&key, Marks::default()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Flows old and new go where they would go had the gateway been started with the policy; those
    /// to the Internet stay with their exit where that is still allowed.
    #[test]
    fn flows_go_as_after_a_start_with_the_policy(
        first in any_policy(),
        second in any_policy(),
        third in any_policy(),
    ) {
        let [mut running, mut fresh] = [&first, &third].map(overlay);
        fresh.run_for(Duration::from_secs(25));
        running.run_for(Duration::from_secs(8));
        send(&mut running, SOURCES[0]);
        for policy in [&second, &third] {
            running.operate(0, |node, now| node.set_policy(now, policy.clone()));
            send(&mut running, SOURCES[0]);
        }
        running.run_for(Duration::from_secs(15));
        let new = [&mut running, &mut fresh].map(|sim| send(sim, SOURCES[1]));
        let old = [&mut running, &mut fresh].map(|sim| send(sim, SOURCES[0]));
        let nodes = [running.node(0).unwrap(), fresh.node(0).unwrap()];
        for port in PORTS {
            let place = nodes[1].classify(&key(SERVER, 0, port), Marks::default());
            let class = third.classes.get(place);
            let by_latency = matches!(class.metric, Metric::Latency | Metric::App);
            let told = |what: &str| format!("{what}, port {port}, {class:?} of {third:?}");
            for peer in (0..3).map(PeerIndex) {
                let paths = nodes.map(|node| node.path(peer, node.demand(place)));
                prop_assert_eq!(paths[0].is_some(), paths[1].is_some(), "{}", told("paths"));
                for path in paths.into_iter().flatten() {
                    prop_assert!(may_use(&third, class, path), "{path:?}: {}", told("closed"));
                }
                // By another metric nearly all ways here are equal, and history decides.
                if by_latency {
                    prop_assert_eq!(paths[0], paths[1], "{}", told("paths"));
                }
            }
            for sites in [&new, &old] {
                let of = |set: &BTreeSet<(u64, usize)>| {
                    let ids = u64::from(port) * 10..u64::from(port) * 10 + 3;
                    set.iter().filter(|(id, _)| ids.contains(id)).copied().collect::<Vec<_>>()
                };
                prop_assert_eq!(of(&sites[0]), of(&sites[1]), "{}", told("other sites"));
            }
            let exits = SOURCES.map(|source| nodes.map(|n| egress(n, key(SERVER, source, port))));
            let [stays, [now, wanted]] = exits;
            if by_latency || !third.internet_via.contains(&ExitVia::Auto) {
                prop_assert_eq!(now, wanted, "{}", told("exit of a new flow"));
            }
            if stays[0] != stays[1] {
                let stays = stays[0].unwrap_or_default();
                prop_assert!(may_leave(&third, class, stays), "{stays:?}: {}", told("old exit"));
            }
        }
    }
}
