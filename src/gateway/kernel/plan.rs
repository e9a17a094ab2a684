//! The plan as a pure function of configuration and host.

use std::fmt;
use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::uplinks::{exit_routing, uplink_routing};
use super::{HostFacts, ruleset};
use crate::config::{Config, EgressMode, InternetVia, Listen, OnFailure, Uplink};
use crate::io::netlink::{MAIN_TABLE, Route, RouteKind, Rule};

/// The table that takes over the hosts' default route; those of the uplinks follow it.
pub(super) const TABLE: u32 = 4_710;
/// The mark of replies that go back the way their connection came.
pub(super) const REPLY_MARK: u32 = 0x4711;
/// Marks our routes for the operator's eye: `ip route show proto 171`.
pub(super) const PROTOCOL: u8 = 171;
/// Routes of last resort: everything else is better.
const LAST_RESORT: u32 = u32::MAX;

/// Order of our rules; all come after `local` (0) and before `main` (32766).
pub(super) mod preference {
    pub(in crate::gateway::kernel) const OURS: std::ops::RangeInclusive<u32> =
        REPLIES..=LAN_DEFAULT;
    pub(super) const REPLIES: u32 = 4_700;
    pub(in crate::gateway::kernel) const UPLINK_SPECIFIC: u32 = 4_701;
    pub(in crate::gateway::kernel) const UPLINK_DEFAULT: u32 = 4_702;
    pub(super) const LAN_BYPASS: u32 = 4_709;
    pub(super) const LAN_DEFAULT: u32 = 4_710;
}

/// Bytes that the tunnel adds to an inner packet, with the outer headers (IPv4 and IPv6).
const OVERHEAD: [u32; 2] = [108, 128];
/// The least MTU of the TUN: below it Linux takes IPv6 away from the interface, for good.
const MTU_MIN: u32 = 1_280;

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sysctl {
    /// The name, with slashes.
    pub(crate) name: String,
    /// What it shall be.
    pub(crate) value: SysctlValue,
}

/// What a kernel parameter shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SysctlValue {
    /// Exactly this.
    Set(String),
    /// This, if it is that now.
    Change {
        /// That.
        from: String,
        /// This.
        to: String,
    },
    /// The list it has, with this added.
    Append(String),
}

/// What the kernel shall look like. Its text lists it in the syntax of the usual tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelPlan {
    /// Parameters.
    pub(crate) sysctls: Vec<Sysctl>,
    /// Routes.
    pub(crate) routes: Vec<Route>,
    /// Rules, in the order in which they must be added.
    pub(crate) rules: Vec<Rule>,
    /// The nftables table, family and name.
    pub(crate) nft_table: String,
    /// Its body; empty when no table is needed.
    pub(crate) nft_body: String,
}

impl fmt::Display for KernelPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Sysctl { name, value } in &self.sysctls {
            match value {
                SysctlValue::Set(value) => writeln!(f, "sysctl {name} = {value}")?,
                SysctlValue::Change { from, to } => {
                    writeln!(f, "sysctl {name} = {to} if it is {from}")?;
                }
                SysctlValue::Append(value) => writeln!(f, "sysctl {name} += {value}")?,
            }
        }
        for route in &self.routes {
            writeln!(f, "route {route}")?;
        }
        for rule in &self.rules {
            writeln!(f, "rule {rule}")?;
        }
        if !self.nft_body.is_empty() {
            write!(f, "table {} {{\n{}}}\n", self.nft_table, self.nft_body)?;
        }
        Ok(())
    }
}

/// Computes the plan.
pub(crate) fn plan(config: &Config, facts: &HostFacts) -> KernelPlan {
    let mut plan = KernelPlan {
        nft_table: format!("inet rongate_{}", config.tun.name),
        nft_body: ruleset::body(config, facts),
        ..KernelPlan::default()
    };
    sysctls(config, &mut plan);
    overlay_routes(config, facts, &mut plan);
    lan_takeover(config, facts, &mut plan);
    if config.uplinks.len() > 1 {
        uplink_routing(config, facts, &mut plan);
        exit_routing(config, facts, &mut plan);
    }
    plan
}

/// The MTU of the TUN: as configured, or the largest that fits all uplinks.
pub(crate) fn tun_mtu(config: &Config, facts: &HostFacts) -> u32 {
    if let Some(mtu) = config.tun.mtu {
        return u32::from(mtu);
    }
    let of = |uplink: &Uplink| facts.interface(&uplink.interface).map(|i| i.mtu);
    let smallest = config.uplinks.iter().filter_map(of).min().unwrap_or(1_500);
    let ipv6 = config.uplinks.iter().any(|uplink| uplink.listen.is_ipv6());
    // An IP packet cannot be longer than its length field says.
    smallest.saturating_sub(OVERHEAD[usize::from(ipv6)]).clamp(MTU_MIN, 65_535)
}

/// The address and port at which an uplink listens, unless its interface has none.
pub(crate) fn uplink_address(uplink: &Uplink, facts: &HostFacts) -> Option<SocketAddr> {
    match uplink.listen {
        Listen::Address(address) => Some(address),
        Listen::Auto { ipv6, port } => facts
            .addresses
            .iter()
            .filter(|address| address.interface == uplink.interface && address.usable)
            .map(|address| address.network.addr())
            .find(|ip| ip.is_ipv6() == ipv6)
            .map(|ip| SocketAddr::new(ip, port)),
    }
}

/// The IPv4 address under which packets leave through the uplink's interface.
pub(super) fn uplink_ipv4(uplink: &Uplink, facts: &HostFacts) -> Option<std::net::Ipv4Addr> {
    if let Some(SocketAddr::V4(address)) = uplink_address(uplink, facts) {
        return Some(*address.ip());
    }
    facts.addresses.iter().filter(|a| a.interface == uplink.interface && a.usable).find_map(|a| {
        match a.network {
            IpNet::V4(network) => Some(network.addr()),
            IpNet::V6(_) => None,
        }
    })
}

pub(super) fn is_link_local(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_link_local(),
        IpNet::V6(network) => network.addr().is_unicast_link_local(),
    }
}

/// True when hosts may have an exit through the overlay or through the node itself. Without one
/// there is nothing to take their default route over for: peers' networks are in `main`. Where IPv4
/// has one and IPv6 has none, IPv6 is taken over too: it must not go beside the tunnel.
fn takes_over_default(config: &Config, ipv6: bool) -> bool {
    let has_exit = |via: &InternetVia| match via {
        InternetVia::Auto => true,
        InternetVia::Ordered(exits) => !exits.is_empty(),
    };
    has_exit(&config.internet) || ipv6 && has_exit(&config.internet_ipv6)
}

/// The same for any family that the overlay carries.
pub(super) fn takes_over_any_default(config: &Config) -> bool {
    families(config).any(|ipv6| takes_over_default(config, ipv6))
}

/// The families that the overlay carries, as flags "is IPv6".
fn families(config: &Config) -> impl Iterator<Item = bool> {
    [false, true]
        .into_iter()
        .filter(|&ipv6| config.tun.address.iter().any(|a| a.addr().is_ipv6() == ipv6))
}

fn sysctls(config: &Config, plan: &mut KernelPlan) {
    let mut push = |name: String, value| plan.sysctls.push(Sysctl { name, value });
    let one = || SysctlValue::Set("1".to_owned());
    let serves_hosts = !config.lan.interfaces.is_empty() || !config.lan.networks.is_empty();
    let tun = &config.tun.name;
    for ipv6 in families(config) {
        if ipv6 && (serves_hosts || outside_ipv6(config).next().is_some()) {
            // Forwarding turns router advertisements off, unless they are asked for by name.
            for uplink in &config.uplinks {
                let value = SysctlValue::Change { from: "1".to_owned(), to: "2".to_owned() };
                push(format!("net/ipv6/conf/{}/accept_ra", uplink.interface), value);
            }
            push("net/ipv6/conf/all/forwarding".to_owned(), one());
        } else if !ipv6 && (serves_hosts || config.egress.is_some()) {
            push("net/ipv4/ip_forward".to_owned(), one());
        }
    }
    // Strict filtering would drop what other nodes send from networks that we do not route.
    push(format!("net/ipv4/conf/{tun}/rp_filter"), SysctlValue::Set("2".to_owned()));
    if let Some(egress) = &config.egress
        && egress.mode == EgressMode::Rewrite
    {
        let ports = format!("{}-{}", egress.ports.start(), egress.ports.end());
        push("net/ipv4/ip_local_reserved_ports".to_owned(), SysctlValue::Append(ports));
    }
}

pub(super) fn route(destination: IpNet, table: u32) -> Route {
    Route {
        destination,
        table,
        kind: RouteKind::Unicast,
        gateway: None,
        interface: None,
        source: None,
        metric: 0,
        mtu: None,
        protocol: PROTOCOL,
    }
}

fn unreachable(destination: IpNet, table: u32) -> Route {
    Route { kind: RouteKind::Unreachable, metric: LAST_RESORT, ..route(destination, table) }
}

pub(super) fn default_net(ipv6: bool) -> IpNet {
    if ipv6 { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) }
}

/// In mode `rewrite` the kernel must not say that a packet is too long for the TUN: it would quote the
/// internal address, which its sender does not know. We say so ourselves.
fn pool_mtu(config: &Config, facts: &HostFacts) -> Option<u32> {
    config.egress.as_ref().filter(|egress| egress.mode == EgressMode::Rewrite)?;
    let of = |uplink: &Uplink| facts.interface(&uplink.interface).map(|i| i.mtu);
    config.uplinks.iter().filter_map(of).max()
}

/// What is routed to us for the hosts of our exit over IPv6: its pool and the outside prefixes.
pub(super) fn outside_ipv6(config: &Config) -> impl Iterator<Item = IpNet> {
    let pools = config.egress.iter().flat_map(|egress| &egress.pool_ipv6);
    let pairs = config.egress.iter().flat_map(|_| &config.nat.prefixes);
    pools.copied().chain(pairs.map(|pair| pair.outside)).map(|net| IpNet::V6(net.trunc()))
}

/// The peers' networks and our pool go to the TUN, or nowhere.
fn overlay_routes(config: &Config, facts: &HostFacts, plan: &mut KernelPlan) {
    let own: Vec<IpNet> = config.tun.address.iter().map(IpNet::trunc).collect();
    let tun = &config.tun.name;
    let mut remote: Vec<IpNet> = config
        .peers
        .iter()
        .flat_map(|peer| {
            let addresses = peer.address.iter().map(|&ip| IpNet::from(ip));
            peer.networks.iter().map(IpNet::trunc).chain(addresses)
        })
        .filter(|network| !own.iter().any(|own| own.contains(network)))
        .collect();
    remote.sort_unstable();
    remote.dedup();
    for &network in &remote {
        let same_family = |a: &&IpNet| a.addr().is_ipv6() == network.addr().is_ipv6();
        plan.routes.push(Route {
            interface: Some(tun.clone()),
            source: config.tun.address.iter().find(same_family).map(IpNet::addr),
            ..route(network, MAIN_TABLE)
        });
    }
    if config.lan.on_failure == OnFailure::Block {
        let networks = own.iter().filter(|network| network.prefix_len() < network.max_prefix_len());
        for &network in networks.chain(&remote) {
            plan.routes.push(unreachable(network, MAIN_TABLE));
        }
    }
    let pools = config.egress.iter().flat_map(|egress| &egress.pool);
    let outside = pools.map(|pool| IpNet::V4(pool.trunc())).chain(outside_ipv6(config));
    for pool in outside {
        let mtu = pool_mtu(config, facts).filter(|_| pool.addr().is_ipv4());
        plan.routes.push(Route { interface: Some(tun.clone()), mtu, ..route(pool, MAIN_TABLE) });
        plan.routes.push(unreachable(pool, MAIN_TABLE));
    }
}

pub(super) fn rule(ipv6: bool, preference: u32, table: u32) -> Rule {
    Rule {
        ipv6,
        preference,
        iif: None,
        from: None,
        to: None,
        mark: None,
        table,
        suppress_prefix_length: None,
    }
}

/// Hosts' packets go to the TUN, except to where the router itself is the way.
fn lan_takeover(config: &Config, facts: &HostFacts, plan: &mut KernelPlan) {
    if config.lan.interfaces.is_empty() {
        return;
    }
    for ipv6 in families(config).filter(|ipv6| takes_over_default(config, *ipv6)) {
        plan.routes.push(Route {
            interface: Some(config.tun.name.clone()),
            ..route(default_net(ipv6), TABLE)
        });
        if config.lan.on_failure == OnFailure::Block {
            plan.routes.push(unreachable(default_net(ipv6), TABLE));
        }
        plan.rules
            .push(Rule { mark: Some(REPLY_MARK), ..rule(ipv6, preference::REPLIES, MAIN_TABLE) });
        let kept: Vec<IpNet> = kept_networks(config, facts)
            .into_iter()
            .filter(|network| network.addr().is_ipv6() == ipv6)
            .collect();
        for interface in &config.lan.interfaces {
            let iif = Some(interface.clone());
            for &network in &kept {
                plan.rules.push(Rule {
                    iif: iif.clone(),
                    to: Some(network),
                    ..rule(ipv6, preference::LAN_BYPASS, MAIN_TABLE)
                });
            }
            plan.rules.push(Rule { iif, ..rule(ipv6, preference::LAN_DEFAULT, TABLE) });
        }
    }
}

/// Destinations that keep the router's own routes: its local networks and the bypassed ones.
fn kept_networks(config: &Config, facts: &HostFacts) -> Vec<IpNet> {
    let is_outside = |name: &str| {
        name == config.tun.name
            || config.uplinks.iter().any(|uplink| uplink.interface == name)
                && !config.lan.interfaces.iter().any(|lan| lan == name)
    };
    let is_loopback = |name: &str| facts.interface(name).is_some_and(|i| i.loopback);
    let kept: Vec<IpNet> = facts
        .addresses
        .iter()
        .filter(|a| !is_outside(&a.interface) && !is_loopback(&a.interface))
        .map(|a| a.network.trunc())
        .filter(|network| !is_link_local(network))
        .chain(config.lan.networks.iter().map(IpNet::trunc))
        .chain(config.lan.bypass.iter().map(IpNet::trunc))
        .collect();
    let mut kept = IpNet::aggregate(&kept);
    kept.sort_unstable();
    kept
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
