//! The nftables rules.
//!
//! The exit's outside is a stateless rewrite between the NAT's pool address and the uplink's: the
//! kernel's masquerade would break the NAT's promises (no endpoint-independent filtering, silent
//! changes of ports, short timers).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::HostFacts;
use super::plan::{REPLY_MARK, uplink_ipv4};
use crate::config::{Config, EgressMode, EgressSection};

/// The body of our table; empty when nothing is needed.
pub(super) fn body(config: &Config, facts: &HostFacts) -> String {
    let mut text = String::new();
    if !config.lan.interfaces.is_empty() {
        mark_replies(&mut text, &config.lan.interfaces);
    }
    if let Some(egress) = &config.egress {
        let outside = outside_addresses(config, facts);
        match egress.mode {
            EgressMode::Rewrite => rewrite(&mut text, config, egress, &outside),
            EgressMode::Masquerade => masquerade(&mut text, egress, &outside),
            EgressMode::Routed => {}
        }
    }
    text
}

/// Interface and address of every uplink that has IPv4, each interface once.
fn outside_addresses<'a>(config: &'a Config, facts: &HostFacts) -> Vec<(&'a str, Ipv4Addr)> {
    let mut outside: Vec<(&str, Ipv4Addr)> = Vec::new();
    for uplink in &config.uplinks {
        if let Some(address) = uplink_ipv4(uplink, facts)
            && !outside.iter().any(|&(interface, _)| interface == uplink.interface)
        {
            outside.push((&uplink.interface, address));
        }
    }
    outside
}

fn chain(text: &mut String, name: &str, kind_hook_priority: &str, rules: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{");
    let _ = writeln!(text, "\t\ttype {kind_hook_priority}; policy accept;");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    let _ = writeln!(text, "\t}}");
}

fn set_of(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{{ {} }}", quoted.join(", "))
}

/// Replies of hosts to connections from outside (port forwards) return the way these came.
fn mark_replies(text: &mut String, lan: &[String]) {
    let rule = format!("iifname {} ct direction reply meta mark set {REPLY_MARK:#x}", set_of(lan));
    chain(text, "mark_replies", "filter hook prerouting priority -140", &[rule]);
}

fn rewrite(
    text: &mut String,
    config: &Config,
    egress: &EgressSection,
    outside: &[(&str, Ipv4Addr)],
) {
    // One outside address can stand for one inside address only.
    let Some(pool) = egress.pool.first().map(|pool| pool.addr()) else { return };
    let tun = &config.tun.name;
    let ports = format!("{}-{}", egress.ports.start(), egress.ports.end());
    let mut inward = vec![
        "iifname \"lo\" return".to_owned(),
        format!("iifname \"{tun}\" ip saddr {pool} notrack"),
    ];
    let mut outward = Vec::new();
    for &(interface, wan) in outside {
        let to = format!("notrack ip daddr set {pool}");
        for protocol in ["udp", "tcp"] {
            inward.push(format!("ip daddr {wan} {protocol} dport {ports} {to}"));
        }
        inward.push(format!("ip daddr {wan} icmp type echo-reply icmp id {ports} {to}"));
        // An ICMP error quotes our packet: bit 136 is its protocol, 160 its source address, 224
        // its source port, 256 the id of its echo request (RFC 792; a header without options).
        let errors = format!(
            "ip daddr {wan} icmp type {{ destination-unreachable, time-exceeded, \
             parameter-problem }} @th,160,32 {:#010x}",
            wan.to_bits()
        );
        inward.push(format!("{errors} @th,136,8 {{ 6, 17 }} @th,224,16 {ports} {to}"));
        inward.push(format!("{errors} @th,136,8 1 @th,256,16 {ports} {to}"));
        outward.push(format!("oifname \"{interface}\" ip saddr {pool} ip saddr set {wan}"));
    }
    chain(text, "exit_in", "filter hook prerouting priority -310", &inward);
    chain(text, "exit_out", "filter hook postrouting priority 300", &outward);
    // Only an expression on connections makes the kernel put fragments together, and the rules
    // above see ports in the first fragment alone.
    let rule = format!("iifname \"{tun}\" ct state invalid counter");
    chain(text, "defragment", "filter hook prerouting priority -140", &[rule]);
}

fn masquerade(text: &mut String, egress: &EgressSection, outside: &[(&str, Ipv4Addr)]) {
    let interfaces: Vec<_> = outside.iter().map(|&(name, _)| name.to_owned()).collect();
    if interfaces.is_empty() {
        return;
    }
    let pool: Vec<_> = egress.pool.iter().map(|pool| pool.trunc().to_string()).collect();
    let rule =
        format!("oifname {} ip saddr {{ {} }} masquerade", set_of(&interfaces), pool.join(", "));
    chain(text, "exit_masquerade", "nat hook postrouting priority 100", &[rule]);
}
