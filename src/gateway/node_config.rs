//! From the operator's configuration and the host to what the node must know.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::kernel::{HostFacts, uplink_address};
use crate::config::{self, Config, Endpoint, InternetVia, Listen, NatLogSection};
use crate::flow::{self, ExitPoint};
use crate::io::netlink::Address;
use crate::nat::{NatConfig, NatLimits, NatPolicy, Realm, StaticMapping};
use crate::node::{
    EgressConfig, ExitVia, NodeConfig, NodePolicy, PeerConfig, RelayConfig, UplinkConfig,
};
use crate::routing::{HysteresisConfig, Margin, RouterConfig};
use crate::time::WallClock;
use crate::tunnel::{PresharedKey, Suite, Suites};

/// What is neither configured nor seen on the host.
pub(super) struct Incarnation {
    /// MTU of the TUN.
    pub(super) mtu: u32,
    /// The greatest handshake timestamp that an earlier one may have used.
    pub(super) timestamp_floor: WallClock,
    /// Calendar time of the start.
    pub(super) wall: WallClock,
}

/// Makes the node's configuration. Resolves the names among the endpoints, which may wait for DNS.
pub(super) fn convert(
    config: &Config,
    facts: &HostFacts,
    incarnation: &Incarnation,
) -> anyhow::Result<NodeConfig> {
    let peers: anyhow::Result<Vec<_>> = config.peers.iter().map(peer).collect();
    Ok(NodeConfig {
        name: config.node.name.clone(),
        private_key: Zeroizing::new(config.node.private_key.0),
        preshared_key: config.node.preshared_key.as_ref().map(|key| PresharedKey::new(key.0)),
        suites: suites(&config.tunnel.suites),
        addresses: config.tun.address.iter().map(IpNet::addr).collect(),
        mtu: u16::try_from(incarnation.mtu).unwrap_or(u16::MAX),
        lan_networks: config.lan.networks.clone(),
        uplinks: config.uplinks.iter().map(|uplink| self::uplink(uplink, facts)).collect(),
        egress: egress(config, facts),
        relay: relay(config),
        peers: peers?,
        classes: classes(&config.classes, facts),
        internet_via: internet_via(&config.internet),
        internet_via_ipv6: internet_via(&config.internet_ipv6),
        nat64: config.nat64,
        servers: config.servers.clone(),
        control_budget_bps: config.probing.budget.bits_per_second(),
        copies_bps: config.routing.copies.bits_per_second(),
        flow_limits: flow::FlowLimits {
            max_flows: config.flows.max,
            max_per_host: config.flows.max_per_host,
            ..flow::FlowLimits::default()
        },
        routing: routing(&config.routing),
        epoch: incarnation.wall.0,
        last_handshake_timestamp: incarnation.timestamp_floor.0,
    })
}

fn suites(configured: &[Suite]) -> Suites {
    let preferred = configured.first().copied().unwrap_or(Suite::Aes256Gcm);
    if configured.len() > 1 { Suites::preferring(preferred) } else { Suites::only(preferred) }
}

fn uplink(uplink: &config::Uplink, facts: &HostFacts) -> UplinkConfig {
    let unspecified = |ipv6, port| SocketAddr::new(crate::io::underlay::unspecified(ipv6), port);
    let listen = uplink_address(uplink, facts).unwrap_or_else(|| match uplink.listen {
        Listen::Address(address) => address,
        Listen::Auto { ipv6, port } => unspecified(ipv6, port),
    });
    let mtu = facts.interface(&uplink.interface).map_or(1_500, |interface| interface.mtu);
    UplinkConfig { listen, mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }
}

fn peer(peer: &config::Peer) -> anyhow::Result<PeerConfig> {
    let endpoints: anyhow::Result<Vec<_>> = peer
        .endpoints
        .iter()
        .map(|endpoint| {
            resolve(endpoint).with_context(|| format!("the endpoint of peer `{}`", peer.name))
        })
        .collect();
    Ok(PeerConfig {
        name: peer.name.clone(),
        public_key: peer.public_key,
        endpoints: endpoints?,
        addresses: peer.address.clone(),
        networks: peer.networks.clone(),
        relay: peer.relay,
        egress: peer.egress,
    })
}

fn resolve(endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
    match endpoint {
        Endpoint::Address(address) => Ok(*address),
        Endpoint::Name { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve the name `{host}`"))?
            .next()
            .ok_or_else(|| anyhow!("the name `{host}` has no address")),
    }
}

fn egress(config: &Config, facts: &HostFacts) -> Option<EgressConfig> {
    let section = config.egress.as_ref()?;
    Some(EgressConfig {
        nat: nat(config, section),
        pcp: config.nat.pcp,
        allowed: Some(section.allowed.clone()),
        denied: closed_to_exit(config, section, facts),
        permitted: section.allow.clone(),
    })
}

/// What users of our exit do not reach: the router itself, the networks behind it, and what the
/// operator lists.
pub(super) fn closed_to_exit(
    config: &Config,
    section: &config::EgressSection,
    facts: &HostFacts,
) -> Vec<IpNet> {
    let is_uplink = |name: &str| config.uplinks.iter().any(|uplink| uplink.interface == name);
    let own = facts.addresses.iter().map(|address| IpNet::from(address.network.addr()));
    let local = facts
        .addresses
        .iter()
        .filter(|address| !is_uplink(&address.interface))
        .map(|address| address.network.trunc());
    let mut denied: Vec<IpNet> = section.deny.clone();
    denied.extend(own.chain(local));
    denied.extend(config.lan.networks.iter().map(IpNet::trunc));
    let uplinks = config.uplinks.iter().filter_map(|uplink| uplink.listen.address());
    denied.extend(uplinks.map(|address: SocketAddr| IpNet::from(address.ip())));
    denied.sort_unstable();
    denied.dedup();
    denied
}

fn nat(config: &Config, egress: &config::EgressSection) -> NatConfig {
    let section = &config.nat;
    let forward = |forward: &config::Forward| StaticMapping {
        transport: forward.transport,
        realm: forward.peer.map_or(Realm::LOCAL, Realm::from),
        inside: forward.to,
        address: forward.address,
        port: forward.port,
    };
    let pool = egress.pool.iter().copied().map(IpNet::V4);
    let pool = pool.chain(egress.pool_ipv6.iter().copied().map(IpNet::V6));
    let events = config.nat_log != NatLogSection::default();
    // Where there is nobody else to leave room for, none is left.
    let users = egress.allowed.len() + usize::from(!config.lan.networks.is_empty());
    let realm_percent = if users > 1 { section.limits.realm_percent } else { 100 };
    NatConfig {
        limits: NatLimits { realm_percent, ..section.limits },
        timers: section.timers.clone(),
        policy: NatPolicy { events, ..section.policy },
        static_mappings: section.forwards.iter().map(forward).collect(),
        bypass: section.bypass.clone(),
        prefixes: section.prefixes.clone(),
        ..NatConfig::new(pool.collect(), egress.ports.clone())
    }
}

fn relay(config: &Config) -> RelayConfig {
    let refused = config.classes.iter().filter(|class| config.relay.refused.contains(&class.name));
    RelayConfig {
        allowed: Some(config.relay.allowed.clone()),
        rate_bps: config.relay.rate.map(config::Rate::bits_per_second),
        refused: refused.map(|class| class.tag).collect(),
    }
}

/// The part of the node's configuration that a running node takes anew.
pub(super) fn policy(config: &Config, facts: &HostFacts) -> NodePolicy {
    NodePolicy {
        classes: classes(&config.classes, facts),
        internet_via: internet_via(&config.internet),
        internet_via_ipv6: internet_via(&config.internet_ipv6),
        relay: relay(config),
        copies_bps: config.routing.copies.bits_per_second(),
        routing: routing(&config.routing),
        roles: config.peers.iter().map(|peer| (peer.relay, peer.egress)).collect(),
    }
}

/// The classes, with the networks of the interfaces that they name.
fn classes(configured: &[config::Class], facts: &HostFacts) -> flow::Classes {
    let mut classes = configured.to_vec();
    for conditions in classes.iter_mut().filter_map(|class| class.matches.as_mut()) {
        let named = |address: &&Address| conditions.interfaces.contains(&address.interface);
        let addresses = facts.addresses.iter().filter(named);
        conditions.interface_networks = addresses.map(|address| address.network.trunc()).collect();
    }
    flow::Classes::new(classes)
}

fn internet_via(via: &InternetVia) -> Vec<ExitVia> {
    match via {
        InternetVia::Auto => vec![ExitVia::Auto],
        InternetVia::Ordered(exits) => exits
            .iter()
            .map(|exit| match exit {
                ExitPoint::Local => ExitVia::Local,
                ExitPoint::Peer(peer) => ExitVia::Peer(*peer),
            })
            .collect(),
    }
}

fn routing(section: &config::RoutingSection) -> RouterConfig {
    let (relative, latency) = (section.margin, section.margin_latency.as_micros() as f64);
    let throughput = section.margin_throughput;
    RouterConfig {
        cost: section.cost,
        hysteresis: HysteresisConfig {
            latency: Margin { relative, absolute: latency },
            loss: Margin { relative, absolute: section.margin_loss },
            throughput: Margin { relative: throughput, absolute: 0.0 },
            jitter: section.margin_jitter,
            hold_down: section.hold_down,
        },
        flap: section.backoff,
        smoothing: section.smoothing,
        ..RouterConfig::default()
    }
}

/// For the addresses of the node's own that `explain` is asked about.
pub(super) fn is_own(config: &Config, address: IpAddr) -> bool {
    config.tun.address.iter().any(|own| own.addr() == address)
}

#[cfg(test)]
mod routing_tests;
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    use crate::gateway::kernel::test_site;

    pub(super) fn converted(parts: &[&str]) -> NodeConfig {
        let (config, facts) = test_site(parts);
        from_site(&config, &facts)
    }

    /// What the node is told at a site for tests.
    pub(in crate::gateway) fn from_site(config: &Config, facts: &HostFacts) -> NodeConfig {
        let incarnation = Incarnation {
            mtu: 1_392,
            timestamp_floor: WallClock(7),
            wall: WallClock(1_800_000_000_000_000_000),
        };
        convert(config, facts, &incarnation).unwrap()
    }

    #[test]
    fn users_of_the_exit_reach_neither_the_router_nor_its_networks() {
        let node = converted(&[
            "uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]\n",
            "lan: { interfaces: [lan0], networks: [10.1.0.0/16] }\n",
            "egress: { enabled: true, deny: [198.51.100.128/25] }\n",
        ]);
        let denied = node.egress.unwrap().denied;
        let refused = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            denied.iter().any(|net| net.contains(&ip))
        };
        for ip in ["192.0.2.1", "10.1.0.1", "10.1.200.1", "127.0.0.1", "198.51.100.200"] {
            assert!(refused(ip), "{ip} must be refused");
        }
        for ip in ["192.0.2.254", "198.51.100.1", "198.18.0.80"] {
            assert!(!refused(ip), "{ip} is the Internet");
        }
    }

    #[test]
    fn what_is_configured_reaches_the_node() {
        let node = converted(&[
            "uplinks: [{ name: isp1, interface: wan0, listen: \"auto:4710\" }]\n",
            "relay: { for: [], rate: 200mbit }\n",
            "tunnel: { suites: [chacha20-poly1305] }\n",
            "internet: { via: auto }\n",
            "probing: { budget: 50kbit }\n",
            "routing: { smoothing: 10s }\n",
        ]);
        assert_eq!(node.uplinks[0].listen, "192.0.2.1:4710".parse().unwrap());
        assert_eq!(node.relay.allowed, Some(vec![]));
        assert_eq!(node.relay.rate_bps, Some(200_000_000));
        assert_eq!(node.suites, Suites::only(Suite::ChaCha20Poly1305));
        assert_eq!(node.internet_via, [ExitVia::Auto]);
        assert_eq!(node.control_budget_bps, 50_000);
        assert_eq!(node.routing.smoothing, Duration::from_secs(10));
        assert_eq!(node.last_handshake_timestamp, 7);
        assert_eq!(node.peers[0].endpoints.len(), 2);
    }
}
