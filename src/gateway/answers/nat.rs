//! The NAT's mappings and hosts, a bounded part at a time.

use std::net::SocketAddr;

use crate::gateway::ask::Answer;
use crate::gateway::status::{
    NAT_LIMIT_MAX, NAT_SEARCH_MAX, NatFilter, NatHostList, NatHostStatus, NatMappingList,
    NatMappingStatus,
};
use crate::nat::{HostView, Kind, MappingId, MappingView, Realm, Transport};
use crate::node::Node;
use crate::time::Instant;

/// Mappings that pass the filter, from a place in the table on.
pub(super) fn mappings(
    node: &Node,
    now: Instant,
    filter: &NatFilter,
    limit: usize,
    from: u32,
) -> NatMappingList {
    let end = from.saturating_add(NAT_SEARCH_MAX);
    let mut list = NatMappingList {
        total: node.nat_counts().map_or(0, |counts| counts.mappings),
        ..NatMappingList::default()
    };
    for mapping in node.nat_mappings_from(MappingId(from)) {
        if mapping.id.0 >= end || list.mappings.len() >= limit.clamp(1, NAT_LIMIT_MAX) {
            list.next = Some(mapping.id.0);
            break;
        }
        if passes(node, filter, &mapping) {
            list.mappings.push(shown(node, now, &mapping));
        }
    }
    list
}

fn passes(node: &Node, filter: &NatFilter, mapping: &MappingView) -> bool {
    let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
    filter.host.is_none_or(|host| host == mapping.inside.ip())
        && filter.outside.is_none_or(|outside| outside == mapping.outside.ip())
        && filter.port.is_none_or(|port| port == mapping.outside.port())
        && filter.protocol.as_ref().is_none_or(|wanted| *wanted == protocol(mapping.transport))
        && is(&filter.site, site(node, mapping.realm))
}

fn shown(node: &Node, now: Instant, mapping: &MappingView) -> NatMappingStatus {
    let kind = match mapping.kind {
        Kind::Dynamic => "dynamic",
        Kind::Shared => "shared",
        Kind::Static => "static",
        Kind::Leased => "leased",
    };
    NatMappingStatus {
        protocol: protocol(mapping.transport),
        site: site(node, mapping.realm).to_owned(),
        inside: mapping.inside.to_string(),
        outside: mapping.outside.to_string(),
        kind: kind.to_owned(),
        sessions: mapping.sessions,
        age_s: now.saturating_since(mapping.created).as_secs_f64(),
    }
}

/// Hosts with what they use, from a place in the table on.
pub(super) fn hosts(node: &Node, limit: usize, from: u32) -> NatHostList {
    let end = from.saturating_add(NAT_SEARCH_MAX);
    let mut list = NatHostList::default();
    for host in node.nat_hosts_from(from) {
        if host.id >= end || list.hosts.len() >= limit.clamp(1, NAT_LIMIT_MAX) {
            list.next = Some(host.id);
            break;
        }
        list.hosts.push(shown_host(node, &host));
    }
    list
}

fn shown_host(node: &Node, host: &HostView) -> NatHostStatus {
    NatHostStatus {
        site: site(node, host.realm).to_owned(),
        host: host.inside.to_string(),
        outside: host.outside.to_string(),
        mappings: host.mappings,
        tcp: host.by_transport.tcp,
        udp: host.by_transport.udp,
        icmp: host.by_transport.icmp,
        other: host.by_transport.other,
        sessions: host.sessions,
    }
}

/// Ends the mapping of an outside endpoint.
pub(super) fn delete(node: &mut Node, now: Instant, wanted: &str, outside: SocketAddr) -> Answer {
    let transports = [Transport::Tcp, Transport::Udp, Transport::Icmp, Transport::UdpLite];
    let Some(transport) = transports.into_iter().find(|t| protocol(*t) == wanted) else {
        let refused = format!("`{wanted}` has no ports: name tcp, udp, icmp or udplite");
        return Answer::Refused(refused);
    };
    let Some(mapping) = node.nat_mapping_at(transport, outside) else {
        return Answer::Refused(format!("no host has {wanted} {outside}"));
    };
    if mapping.kind == Kind::Static {
        let refused = "it is in the configuration: remove it there".to_owned();
        return Answer::Refused(refused);
    }
    let shown = shown(node, now, &mapping);
    node.remove_nat_mapping(now, mapping.id);
    Answer::NatMapping(shown)
}

/// The name of a transport in listings and logs.
pub(in crate::gateway) fn protocol(transport: Transport) -> String {
    match transport {
        Transport::Tcp => "tcp".to_owned(),
        Transport::Udp => "udp".to_owned(),
        Transport::Icmp => "icmp".to_owned(),
        Transport::UdpLite => "udplite".to_owned(),
        Transport::Other(number) => number.to_string(),
    }
}

/// The node that a host is behind.
fn site(node: &Node, realm: Realm) -> &str {
    realm.peer().map_or_else(|| node.name(), |peer| node.peer_name(peer))
}
