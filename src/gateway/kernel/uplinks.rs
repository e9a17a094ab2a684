//! What belongs to one uplink leaves through it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::HostFacts;
use super::outside::{on_link, outside_pairs};
use super::plan::{KernelPlan, TABLE, default_net, preference, route, rule, uplink_address};
use crate::config::{Config, Uplink};
use crate::io::netlink::{MAIN_TABLE, Route, Rule};

/// What we send from an uplink's address leaves through that uplink, whatever `main` prefers.
pub(super) fn uplink_routing(config: &Config, facts: &HostFacts, plan: &mut KernelPlan) {
    for (number, uplink) in (1..).zip(&config.uplinks) {
        let Some(address) = uplink_address(uplink, facts) else { continue };
        let (ipv6, table) = (address.is_ipv6(), TABLE + number);
        let from = Some(IpNet::from(address.ip()));
        // More specific routes of the host still hold; its default does not.
        plan.rules.push(Rule {
            from,
            suppress_prefix_length: Some(0),
            ..rule(ipv6, preference::UPLINK_SPECIFIC, MAIN_TABLE)
        });
        plan.rules.push(Rule { from, ..rule(ipv6, preference::UPLINK_DEFAULT, table) });
        let interface = Some(uplink.interface.clone());
        plan.routes.push(Route {
            gateway: default_gateway(uplink, ipv6, facts),
            interface,
            ..route(default_net(ipv6), table)
        });
    }
}

/// What leaves from an address of the pool that stands for one uplink's leaves through that uplink,
/// wherever it goes: one inside endpoint has one outside endpoint for all destinations.
pub(super) fn exit_routing(config: &Config, facts: &HostFacts, plan: &mut KernelPlan) {
    for pair in outside_pairs(config, facts) {
        let (Some(outside), Some(at)) = (pair.outside, pair.uplink) else { continue };
        let Some(uplink) = config.uplinks.get(at) else { continue };
        let table = TABLE + at as u32 + 1;
        let from = Some(IpNet::from(IpAddr::V4(pair.internal)));
        plan.rules.push(Rule { from, ..rule(false, preference::UPLINK_DEFAULT, table) });
        let Some(network) = on_link(facts, &uplink.interface, outside) else { continue };
        let near = Route { interface: Some(uplink.interface.clone()), ..route(network, table) };
        if !plan.routes.contains(&near) {
            plan.routes.push(near);
        }
    }
}

/// The router that `main` names for the interface; none where it is not needed.
fn default_gateway(uplink: &Uplink, ipv6: bool, facts: &HostFacts) -> Option<IpAddr> {
    facts
        .main_routes
        .iter()
        .filter(|route| {
            route.destination == default_net(ipv6)
                && route.interface.as_deref() == Some(uplink.interface.as_str())
        })
        .min_by_key(|route| route.metric)
        .and_then(|route| route.gateway)
}
