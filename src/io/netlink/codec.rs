//! Our plain values to and from rtnetlink messages.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::types::{Address, Interface, Route, RouteKind, Rule};

fn family(ipv6: bool) -> AddressFamily {
    if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

pub(super) fn get_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

pub(super) fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

pub(super) fn get_routes(ipv6: bool) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ipv6);
    RouteNetlinkMessage::GetRoute(message)
}

pub(super) fn get_rules(ipv6: bool) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(ipv6);
    RouteNetlinkMessage::GetRule(message)
}

pub(super) fn link_up_message(index: u32, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

pub(super) fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr().is_ipv6());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    if address.addr().is_ipv6() {
        // There is nobody on the TUN to find a duplicate with, and waiting breaks the start.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(super) fn interface(message: &RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let mut name = None;
    let mut mtu = 0;
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Mtu(value) = attribute {
            mtu = *value;
        }
    }
    Some(Interface {
        index: link.header.index,
        name: name?,
        mtu,
        up: link.header.flags.contains(LinkFlags::Up),
        loopback: link.header.flags.contains(LinkFlags::Loopback),
    })
}

fn name_of(interfaces: &[Interface], index: u32) -> Option<String> {
    interfaces.iter().find(|i| i.index == index).map(|i| i.name.clone())
}

pub(super) fn address(message: &RouteNetlinkMessage, interfaces: &[Interface]) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(address) = message else { return None };
    let mut local = None;
    let mut plain = None;
    let mut flags = AddressFlags::empty();
    for attribute in &address.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            plain = Some(*ip);
        } else if let AddressAttribute::Flags(bits) = attribute {
            flags = *bits;
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
    let header_unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Deprecated;
    Some(Address {
        interface: name_of(interfaces, address.header.index)?,
        network: IpNet::new(local.or(plain)?, address.header.prefix_len).ok()?,
        usable: address.header.scope == AddressScope::Universe
            && !flags.intersects(unusable)
            && !address.header.flags.intersects(header_unusable),
    })
}

fn to_ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(ip) = address {
        Some((*ip).into())
    } else if let RouteAddress::Inet6(ip) = address {
        Some((*ip).into())
    } else {
        None
    }
}

fn unspecified(ipv6: bool) -> IpAddr {
    crate::io::underlay::unspecified(ipv6)
}

pub(super) fn route(message: &RouteNetlinkMessage, interfaces: &[Interface]) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let ipv6 = header.address_family == AddressFamily::Inet6;
    let mut route = Route {
        destination: IpNet::new(unspecified(ipv6), 0).ok()?,
        table: u32::from(header.table),
        kind: if header.kind == RouteType::Unicast {
            RouteKind::Unicast
        } else if header.kind == RouteType::Unreachable {
            RouteKind::Unreachable
        } else {
            RouteKind::Other
        },
        gateway: None,
        interface: None,
        source: None,
        metric: 0,
        mtu: None,
        protocol: header.protocol.into(),
    };
    for attribute in &message.attributes {
        take_route_attribute(&mut route, attribute, header.destination_prefix_length, interfaces)?;
    }
    Some(route)
}

fn take_route_attribute(
    route: &mut Route,
    attribute: &RouteAttribute,
    prefix_length: u8,
    interfaces: &[Interface],
) -> Option<()> {
    if let RouteAttribute::Destination(ip) = attribute {
        route.destination = IpNet::new(to_ip(ip)?, prefix_length).ok()?;
    } else if let RouteAttribute::Gateway(ip) = attribute {
        route.gateway = to_ip(ip);
    } else if let RouteAttribute::PrefSource(ip) = attribute {
        route.source = to_ip(ip);
    } else if let RouteAttribute::Oif(index) = attribute {
        route.interface = name_of(interfaces, *index);
    } else if let RouteAttribute::Priority(metric) = attribute {
        route.metric = *metric;
    } else if let RouteAttribute::Table(table) = attribute {
        route.table = *table;
    } else if let RouteAttribute::Metrics(metrics) = attribute {
        let mtu = |metric: &RouteMetric| {
            if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None }
        };
        route.mtu = metrics.iter().find_map(mtu);
    } else if let RouteAttribute::MultiPath(hops) = attribute
        && let Some(hop) = hops.first()
    {
        // Of several next hops the first stands for all.
        route.interface = name_of(interfaces, hop.interface_index);
        for attribute in &hop.attributes {
            if let RouteAttribute::Gateway(ip) = attribute {
                route.gateway = to_ip(ip);
            }
        }
    }
    Some(())
}

/// Fails when the route's interface does not exist.
pub(super) fn route_message(route: &Route) -> io::Result<RouteMessage> {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.destination.addr().is_ipv6());
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = u8::try_from(route.table).unwrap_or(0);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = if route.gateway.is_none()
        && route.kind == RouteKind::Unicast
        && !route.destination.addr().is_ipv6()
    {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    header.kind = match route.kind {
        RouteKind::Unicast | RouteKind::Other => RouteType::Unicast,
        RouteKind::Unreachable => RouteType::Unreachable,
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    if let Some(gateway) = route.gateway {
        attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(name) = &route.interface {
        attributes.push(RouteAttribute::Oif(nix::net::if_::if_nametoindex(name.as_str())?));
    }
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let Some(mtu) = route.mtu {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(message)
}

pub(super) fn rule(message: &RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let header = &message.header;
    let mut rule = Rule {
        ipv6: header.family == AddressFamily::Inet6,
        preference: 0,
        iif: None,
        from: None,
        to: None,
        mark: None,
        table: u32::from(header.table),
        suppress_prefix_length: None,
    };
    for attribute in &message.attributes {
        if let RuleAttribute::Priority(preference) = attribute {
            rule.preference = *preference;
        } else if let RuleAttribute::Iifname(name) = attribute {
            rule.iif = Some(name.clone());
        } else if let RuleAttribute::Source(ip) = attribute {
            rule.from = IpNet::new(*ip, header.src_len).ok();
        } else if let RuleAttribute::Destination(ip) = attribute {
            rule.to = IpNet::new(*ip, header.dst_len).ok();
        } else if let RuleAttribute::FwMark(mark) = attribute {
            rule.mark = Some(*mark);
        } else if let RuleAttribute::Table(table) = attribute {
            rule.table = *table;
        } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
            // The kernel reports "none" as all ones.
            rule.suppress_prefix_length = Some(*length).filter(|&length| length != u32::MAX);
        }
    }
    Some(rule)
}

pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.ipv6);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.preference));
    attributes.push(RuleAttribute::Table(rule.table));
    if let Some(iif) = &rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.network()));
    }
    if let Some(mark) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_way_to_the_kernel_and_back() {
        let rule = Rule {
            ipv6: false,
            preference: 4709,
            iif: Some("lan0".into()),
            from: Some("192.0.2.1/32".parse().unwrap()),
            to: Some("10.1.0.0/16".parse().unwrap()),
            mark: Some(0x4711),
            table: 4710,
            suppress_prefix_length: Some(0),
        };
        let message = RouteNetlinkMessage::NewRule(rule_message(&rule));
        assert_eq!(super::rule(&message), Some(rule));
    }

    #[test]
    fn routes_survive_the_way_to_the_kernel_and_back() {
        let lo = Interface {
            index: nix::net::if_::if_nametoindex("lo").unwrap(),
            name: "lo".into(),
            mtu: 65_536,
            up: true,
            loopback: true,
        };
        for (destination, gateway) in
            [("10.2.0.0/16", Some("192.0.2.1")), ("0.0.0.0/0", None), ("fd00:2::/48", None)]
        {
            let route = Route {
                destination: destination.parse().unwrap(),
                table: 4710,
                kind: RouteKind::Unicast,
                gateway: gateway.map(|ip| ip.parse().unwrap()),
                interface: Some("lo".into()),
                source: None,
                metric: 7,
                mtu: gateway.map(|_| 1_500),
                protocol: 171,
            };
            let message = RouteNetlinkMessage::NewRoute(route_message(&route).unwrap());
            assert_eq!(super::route(&message, std::slice::from_ref(&lo)), Some(route));
        }
    }
}
