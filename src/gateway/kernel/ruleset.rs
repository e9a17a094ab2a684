//! The nftables rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::HostFacts;
use super::plan::{REPLY_MARK, outside_ipv6, takes_over_any_default, uplink_ipv4};
use super::rewrite::rewrite;
use crate::config::{Config, EgressMode, EgressSection};

/// The bit of a connection's mark that says that it came through the tunnel.
const TUNNEL_BIT: u32 = 0x1000_0000;

/// The body of our table; empty when nothing is needed.
pub(super) fn body(config: &Config, facts: &HostFacts) -> String {
    let mut body = Body::default();
    // Connection tracking costs every packet, so it is not asked for where no route goes by the mark.
    if !config.lan.interfaces.is_empty() && takes_over_any_default(config) {
        mark_replies(&mut body, &config.tun.name, &config.lan.interfaces);
    }
    if let Some(egress) = &config.egress {
        match egress.mode {
            EgressMode::Rewrite => rewrite(&mut body, config, facts),
            EgressMode::Masquerade => {
                masquerade(&mut body, egress, &outside_interfaces(config, facts));
            }
            EgressMode::Routed if egress.pool.is_empty() => {}
            EgressMode::Routed => untracked(&mut body, egress),
        }
    }
    let ipv6: Vec<_> = outside_ipv6(config).map(|net| net.to_string()).collect();
    if !ipv6.is_empty() {
        let set = format!("{{ {} }}", ipv6.join(", "));
        let mut rules = forged_ipv6(config);
        rules.extend([format!("ip6 saddr {set} notrack"), format!("ip6 daddr {set} notrack")]);
        body.chain("exit_untracked6", Some("filter hook prerouting priority -310"), &rules);
    }
    body.0
}

/// What comes from outside with a source of our hosts would count as theirs at the NAT.
fn forged_ipv6(config: &Config) -> Vec<String> {
    let own = config.lan.networks.iter().filter(|net| net.addr().is_ipv6());
    let own: Vec<_> = own.map(ToString::to_string).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let uplinks: BTreeSet<_> =
        config.uplinks.iter().map(|uplink| format!("\"{}\"", uplink.interface)).collect();
    let uplinks = uplinks.into_iter().collect::<Vec<_>>().join(", ");
    vec![format!("iifname {{ {uplinks} }} ip6 saddr {{ {} }} counter drop", own.join(", "))]
}

/// The text of a table while it is written.
#[derive(Default)]
pub(super) struct Body(String);

impl Body {
    /// A chain; `hook` as in `filter hook prerouting priority -140`, none for one that is jumped to.
    pub(super) fn chain(&mut self, name: &str, hook: Option<&str>, rules: &[String]) {
        let text = &mut self.0;
        let _ = writeln!(text, "\tchain {name} {{");
        if let Some(hook) = hook {
            let _ = writeln!(text, "\t\ttype {hook}; policy accept;");
        }
        for rule in rules {
            let _ = writeln!(text, "\t\t{rule}");
        }
        let _ = writeln!(text, "\t}}");
    }

    /// A set that rules fill; `key` as in `typeof ip daddr`.
    pub(super) fn set(&mut self, name: &str, key: &str, size: u32, timeout: &str) {
        let _ = writeln!(
            self.0,
            "\tset {name} {{\n\t\t{key}\n\t\tsize {size}\n\t\tflags dynamic,timeout\n\t\ttimeout \
             {timeout}\n\t}}"
        );
    }
}

/// Interface and address of every uplink that has IPv4, each interface once.
pub(super) fn outside_interfaces<'a>(
    config: &'a Config,
    facts: &HostFacts,
) -> Vec<(&'a str, Ipv4Addr)> {
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

fn set_of(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{{ {} }}", quoted.join(", "))
}

fn pool_set(egress: &EgressSection) -> String {
    let pool: Vec<_> = egress.pool.iter().map(|pool| pool.trunc().to_string()).collect();
    format!("{{ {} }}", pool.join(", "))
}

/// Replies of hosts to connections from outside (port forwards) return the way these came. What came
/// through the tunnel returns through the tunnel, least of all in plaintext: its connections are
/// marked.
fn mark_replies(body: &mut Body, tun: &str, lan: &[String]) {
    let rules = [
        format!("iifname \"{tun}\" ct state new ct mark set ct mark or {TUNNEL_BIT:#x}"),
        format!(
            "iifname {} ct direction reply ct mark and {TUNNEL_BIT:#x} == 0 meta mark set \
             {REPLY_MARK:#x}",
            set_of(lan)
        ),
    ];
    body.chain("mark_replies", Some("filter hook prerouting priority -140"), &rules);
}

/// The kernel need not follow the connections of a pool that is routed to us: its table would fill.
fn untracked(body: &mut Body, egress: &EgressSection) {
    let pool = pool_set(egress);
    let rules = [format!("ip saddr {pool} notrack"), format!("ip daddr {pool} notrack")];
    body.chain("exit_untracked", Some("filter hook prerouting priority -310"), &rules);
}

fn masquerade(body: &mut Body, egress: &EgressSection, outside: &[(&str, Ipv4Addr)]) {
    let interfaces: Vec<_> = outside.iter().map(|&(name, _)| name.to_owned()).collect();
    if interfaces.is_empty() {
        return;
    }
    let rule = format!("oifname {} ip saddr {} masquerade", set_of(&interfaces), pool_set(egress));
    body.chain("exit_masquerade", Some("nat hook postrouting priority 100"), &[rule]);
}
