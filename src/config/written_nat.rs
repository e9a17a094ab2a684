//! The `nat` section, written out.

use std::net::IpAddr;

use ipnet::Ipv6Net;
use serde::Serialize;

use super::types::{Forward, NatSection};
use super::units::format_duration;
use crate::nat::{Dependence, PrefixPair, Refusal, Reuse};

#[derive(Serialize)]
pub(super) struct Nat {
    max: u32,
    max_per_host: u32,
    site_percent: u8,
    tcp_per_host: u32,
    udp_per_host: u32,
    icmp_per_host: u32,
    rate_per_host: u32,
    tcp_established: String,
    tcp_opening: String,
    tcp_transitory: String,
    udp: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    udp_ports: Vec<String>,
    udp_inbound_refresh: bool,
    icmp: String,
    other: String,
    quarantine: String,
    mapping: &'static str,
    mapping_tcp: &'static str,
    mapping_udp: &'static str,
    mapping_icmp: &'static str,
    filtering: &'static str,
    filtering_tcp: &'static str,
    filtering_udp: &'static str,
    filtering_icmp: &'static str,
    reuse: &'static str,
    parity: bool,
    refusal: &'static str,
    unsolicited: &'static str,
    pcp: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bypass: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    forwards: Vec<WrittenForward>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<WrittenPrefixes>,
}

#[derive(Serialize)]
struct WrittenPrefixes {
    inside: Ipv6Net,
    outside: Ipv6Net,
}

#[derive(Serialize)]
struct WrittenForward {
    protocol: &'static str,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    to: String,
}

impl Nat {
    pub(super) fn new(nat: &NatSection) -> Self {
        let NatSection { limits, timers, policy, pcp, bypass, forwards, prefixes } = nat;
        let pair =
            |pair: &PrefixPair| WrittenPrefixes { inside: pair.inside, outside: pair.outside };
        let udp_port = |(port, time): &(u16, _)| format!("{port} {}", format_duration(*time));
        Self {
            max: limits.max_mappings,
            max_per_host: limits.max_mappings_per_host,
            site_percent: limits.realm_percent,
            tcp_per_host: limits.per_transport.tcp,
            udp_per_host: limits.per_transport.udp,
            icmp_per_host: limits.per_transport.icmp,
            rate_per_host: limits.rate_per_host.unwrap_or(0),
            tcp_established: format_duration(timers.tcp_established),
            tcp_opening: format_duration(timers.tcp_opening),
            tcp_transitory: format_duration(timers.tcp_closing),
            udp: format_duration(timers.udp),
            udp_ports: timers.udp_ports.iter().map(udp_port).collect(),
            udp_inbound_refresh: timers.udp_inbound_refresh,
            icmp: format_duration(timers.icmp),
            other: format_duration(timers.other),
            quarantine: format_duration(timers.quarantine),
            mapping: dependence(policy.icmp.mapping),
            mapping_tcp: dependence(policy.tcp.mapping),
            mapping_udp: dependence(policy.udp.mapping),
            mapping_icmp: dependence(policy.icmp.mapping),
            filtering: dependence(policy.icmp.filtering),
            filtering_tcp: dependence(policy.tcp.filtering),
            filtering_udp: dependence(policy.udp.filtering),
            filtering_icmp: dependence(policy.icmp.filtering),
            reuse: match policy.reuse {
                Reuse::Never => "never",
                Reuse::WhenFull => "when_full",
            },
            parity: policy.parity,
            refusal: match policy.refusal {
                Refusal::Prohibited => "prohibited",
                Refusal::Unreachable => "unreachable",
                Refusal::Silent => "silent",
            },
            unsolicited: if policy.answer_unsolicited { "unreachable" } else { "silent" },
            pcp: *pcp,
            bypass: bypass.iter().map(ToString::to_string).collect(),
            forwards: forwards.iter().map(forward).collect(),
            prefixes: prefixes.iter().map(pair).collect(),
        }
    }
}

fn forward(forward: &Forward) -> WrittenForward {
    WrittenForward {
        protocol: forward.transport.name(),
        port: forward.port,
        address: forward.address,
        to: forward.to.to_string(),
    }
}

const fn dependence(dependence: Dependence) -> &'static str {
    match dependence {
        Dependence::EndpointIndependent => "endpoint-independent",
        Dependence::Address => "address",
        Dependence::AddressAndPort => "address-and-port",
    }
}
