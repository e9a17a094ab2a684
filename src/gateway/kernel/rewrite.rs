//! The exit's outside by rules without state (`mode: rewrite`), and what keeps the router's own
//! sockets out of it.
//!
//! The kernel's masquerade would break the NAT's promises: no endpoint-independent filtering,
//! silent changes of ports, short timers, and a table that a flood of connections fills.

use std::net::Ipv4Addr;

use super::HostFacts;
use super::outside::{OutsidePair, outside_pairs};
use super::ruleset::{Body, outside_interfaces};
use crate::config::{Config, EgressSection};

/// Protocols whose ports the NAT changes: TCP, UDP, UDP-Lite.
const WITH_PORTS: &str = "{ 6, 17, 136 }";
/// All that it knows more of than addresses.
const KNOWN: &str = "{ 1, 6, 17, 136 }";
/// Replies to ICMP queries, all with an identifier (RFC 792, RFC 950).
const REPLIES: &str = "{ echo-reply, timestamp-reply, info-reply, address-mask-reply }";
/// Errors that a NAT passes on (RFC 5508 REQ-10).
const ERRORS: &str = "{ destination-unreachable, time-exceeded, parameter-problem }";
/// Lengths of an IPv4 header in words of 32 bits.
const HEADER_WORDS: std::ops::RangeInclusive<u32> = 5..=15;
/// The router's own endpoints inside the exit's ports that are remembered.
const OWN_MAX: u32 = 65_536;

/// Adds the chains.
pub(super) fn rewrite(body: &mut Body, config: &Config, facts: &HostFacts) {
    let Some(egress) = &config.egress else { return };
    let pairs = outside_pairs(config, facts);
    let inward = inward_pairs(config, facts, &pairs);
    if !inward.is_empty() {
        own_sockets(body, egress, &inward);
    }
    exit_in(body, config, egress, &inward);
    exit_out(body, config, facts, &pairs);
    // Only an expression on connections makes the kernel put fragments together, and the rules
    // above see ports in the first fragment alone.
    let rule = format!("iifname \"{}\" ct state invalid counter", config.tun.name);
    body.chain("defragment", Some("filter hook prerouting priority -140"), &[rule]);
}

/// Which outside address is exchanged with which of the pool. One pool address takes what comes to
/// any uplink.
fn inward_pairs(
    config: &Config,
    facts: &HostFacts,
    pairs: &[OutsidePair],
) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    if let [OutsidePair { internal, uplink: None, .. }] = pairs {
        let outside = outside_interfaces(config, facts);
        return outside.into_iter().map(|(_, wan)| (wan, *internal)).collect();
    }
    pairs.iter().filter_map(|pair| Some((pair.outside?, pair.internal))).collect()
}

fn addresses(inward: &[(Ipv4Addr, Ipv4Addr)]) -> String {
    let list: Vec<_> = inward.iter().map(|(wan, _)| wan.to_string()).collect();
    format!("{{ {} }}", list.join(", "))
}

fn ports(egress: &EgressSection) -> String {
    format!("{}-{}", egress.ports.start(), egress.ports.end())
}

/// The router's own sockets and pings may have ports and identifiers among the exit's: chosen before
/// the gateway ran, bound by name, or random. Whom they talk to is remembered.
fn own_sockets(body: &mut Body, egress: &EgressSection, inward: &[(Ipv4Addr, Ipv4Addr)]) {
    let (from, ports) = (addresses(inward), ports(egress));
    let socket = "ip daddr . ip protocol . th dport . th sport";
    let query = "@nh,128,32 . @th,32,16";
    let other = "@nh,128,32 . @nh,72,8";
    body.set("own_sockets", &format!("typeof {socket}"), OWN_MAX, "5m");
    body.set("own_queries", &format!("typeof {query}"), OWN_MAX, "1m");
    body.set("own_others", &format!("typeof {other}"), OWN_MAX, "5m");
    body.set("exit_others", &format!("typeof {other}"), OWN_MAX, "5m");
    let rules = [
        format!(
            "ip saddr {from} ip protocol {WITH_PORTS} th sport {ports} update @own_sockets {{ \
             {socket} }}"
        ),
        format!(
            "ip saddr {from} icmp type {{ echo-request, timestamp-request }} @th,32,16 {ports} \
             update @own_queries {{ {query} }}"
        ),
        format!("ip saddr {from} ip protocol != {KNOWN} update @own_others {{ {other} }}"),
    ];
    body.chain("own_out", Some("filter hook output priority -310"), &rules);
}

fn exit_in(
    body: &mut Body,
    config: &Config,
    egress: &EgressSection,
    inward: &[(Ipv4Addr, Ipv4Addr)],
) {
    let ports = ports(egress);
    let mut rules = vec!["iifname \"lo\" return".to_owned()];
    let pool: Vec<_> = egress.pool.iter().map(|net| net.trunc().to_string()).collect();
    let pool = pool.join(", ");
    rules.push(format!("iifname \"{}\" ip saddr {{ {pool} }} notrack return", config.tun.name));
    for (number, (wan, internal)) in inward.iter().enumerate() {
        let to = format!("notrack ip daddr set {internal}");
        // An ICMP error quotes our packet behind its own 8 bytes: bit 68 is the length of the
        // quoted header, 136 its protocol, 160 and 192 its addresses.
        let mut quoted = vec![
            "@th,68,4 5 @th,136,8 1 @th,192,32 . @th,256,16 @own_queries return".to_owned(),
            "@th,192,32 . @th,136,8 @own_others return".to_owned(),
            format!("@th,192,32 . @th,136,8 @exit_others {to}"),
        ];
        for words in HEADER_WORDS {
            let upper = 64 + 32 * words;
            let header = format!("@th,68,4 {words} @th,136,8");
            quoted.push(format!("{header} {WITH_PORTS} @th,{upper},16 {ports} {to}"));
            quoted.push(format!("{header} 1 @th,{},16 {ports} {to}", upper + 32));
        }
        let quotes = format!("exit_quotes_{number}");
        body.chain(&quotes, None, &quoted);
        let mine = [
            format!(
                "ip protocol {WITH_PORTS} ip saddr . ip protocol . th sport . th dport \
                 @own_sockets return"
            ),
            "icmp type { echo-reply, timestamp-reply } @nh,96,32 . @th,32,16 @own_queries return"
                .to_owned(),
            format!("ip protocol {WITH_PORTS} th dport {ports} {to}"),
            "@nh,96,32 . @nh,72,8 @own_others return".to_owned(),
            format!("ip protocol != {KNOWN} @nh,96,32 . @nh,72,8 @exit_others {to}"),
            format!("icmp type {REPLIES} @th,32,16 {ports} {to}"),
            format!("icmp type {ERRORS} @th,160,32 {:#010x} goto {quotes}", wan.to_bits()),
        ];
        let chain = format!("exit_in_{number}");
        body.chain(&chain, None, &mine);
        rules.push(format!("ip daddr {wan} goto {chain}"));
    }
    body.chain("exit_in", Some("filter hook prerouting priority -310"), &rules);
}

fn exit_out(body: &mut Body, config: &Config, facts: &HostFacts, pairs: &[OutsidePair]) {
    let mut rules = vec![format!("oifname \"{}\" return", config.tun.name)];
    // Protocols without ports belong to the exit for whom its hosts talk to, unless the router does.
    let internal: Vec<_> = pairs.iter().map(|pair| pair.internal.to_string()).collect();
    if pairs.iter().any(|pair| pair.outside.is_some()) {
        rules.push(format!(
            "ip saddr {{ {} }} ip protocol != {KNOWN} update @exit_others {{ @nh,128,32 . \
             @nh,72,8 }}",
            internal.join(", ")
        ));
    }
    if let [OutsidePair { internal, uplink: None, .. }] = pairs {
        for (interface, wan) in outside_interfaces(config, facts) {
            rules.push(format!(
                "oifname \"{interface}\" ip saddr {internal} ip saddr set {wan} return"
            ));
        }
    }
    for OutsidePair { internal, outside, .. } in pairs {
        // Hosts next to the router as well see the address that the Internet sees.
        if let Some(outside) = outside {
            rules.push(format!("ip saddr {internal} ip saddr set {outside} return"));
        } else {
            rules.push(format!("ip saddr {internal} counter drop"));
        }
    }
    body.chain("exit_out", Some("filter hook postrouting priority 300"), &rules);
}
