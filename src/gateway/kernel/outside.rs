//! Which address of the Internet an address of the exit's pool stands for (`mode: rewrite`).

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::HostFacts;
use super::plan::{default_net, uplink_ipv4};
use crate::config::{Config, EgressMode, EgressSection, Uplink};
use crate::io::netlink::Address;

/// An address of the pool and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutsidePair {
    /// The address of the pool.
    pub(crate) internal: Ipv4Addr,
    /// What the Internet sees; none while no uplink has it.
    pub(crate) outside: Option<Ipv4Addr>,
    /// Position of the uplink that its packets leave by; none when the routes of `main` say.
    pub(super) uplink: Option<usize>,
}

/// The pairs, in the order of the pool; none in other modes, where the pool's addresses are final.
///
/// One pool address follows the router's default route. Several stand for one outside address each,
/// and leave by its uplink.
pub(crate) fn outside_pairs(config: &Config, facts: &HostFacts) -> Vec<OutsidePair> {
    let Some(egress) = config.egress.as_ref().filter(|e| e.mode == EgressMode::Rewrite) else {
        return Vec::new();
    };
    let all = |net: &Ipv4Net| u32::from(net.network())..=u32::from(net.broadcast());
    let pool: Vec<Ipv4Addr> = egress.pool.iter().flat_map(all).map(Ipv4Addr::from).collect();
    if let ([internal], []) = (&pool[..], &egress.outside[..]) {
        let outside = preferred(config, facts);
        return vec![OutsidePair { internal: *internal, outside, uplink: None }];
    }
    let outside = own_outside(config, egress, facts);
    pool.into_iter()
        .zip(outside)
        .map(|(internal, (outside, uplink))| OutsidePair { internal, outside, uplink })
        .collect()
}

/// The outside addresses in order, those that are configured or those of the uplinks with IPv4, each
/// with its uplink.
fn own_outside(
    config: &Config,
    egress: &EgressSection,
    facts: &HostFacts,
) -> Vec<(Option<Ipv4Addr>, Option<usize>)> {
    if egress.outside.is_empty() {
        let uplinks = config.uplinks.iter().enumerate().filter(|(_, u)| !u.listen.is_ipv6());
        return uplinks.map(|(at, uplink)| (present(uplink, facts), Some(at))).collect();
    }
    let uplink_with = |wanted: Ipv4Addr| {
        let has = |interface: &str| {
            facts.addresses.iter().any(|address| {
                address.interface == interface && address.network.addr() == wanted && address.usable
            })
        };
        config.uplinks.iter().position(|uplink| has(&uplink.interface))
    };
    let pair = |&wanted: &Ipv4Addr| {
        let uplink = uplink_with(wanted);
        (uplink.map(|_| wanted), uplink)
    };
    egress.outside.iter().map(pair).collect()
}

/// The IPv4 address of an uplink, if its interface has it now.
fn present(uplink: &Uplink, facts: &HostFacts) -> Option<Ipv4Addr> {
    let address = uplink_ipv4(uplink, facts)?;
    let is_there =
        |a: &Address| a.interface == uplink.interface && a.network.addr() == address && a.usable;
    facts.addresses.iter().any(is_there).then_some(address)
}

/// The address of the uplink that the router's default route prefers, or else of the first uplink
/// that has one.
fn preferred(config: &Config, facts: &HostFacts) -> Option<Ipv4Addr> {
    let metric = |interface: &str| {
        let defaults = facts.main_routes.iter().filter(|route| {
            route.destination == default_net(false) && route.interface.as_deref() == Some(interface)
        });
        defaults.map(|route| route.metric).min()
    };
    let known = config.uplinks.iter().filter_map(|uplink| {
        Some((metric(&uplink.interface).unwrap_or(u32::MAX), present(uplink, facts)?))
    });
    known.min_by_key(|(metric, _)| *metric).map(|(_, address)| address)
}

/// The network of an uplink's address: there its router is not needed.
pub(super) fn on_link(facts: &HostFacts, interface: &str, address: Ipv4Addr) -> Option<IpNet> {
    let is_own = |a: &&Address| a.interface == interface && a.network.addr() == address;
    let own = facts.addresses.iter().find(is_own)?;
    (own.network.prefix_len() < 32).then(|| own.network.trunc())
}
