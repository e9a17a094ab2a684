//! What is wrong with a host for a gateway with this configuration, each in one sentence.
//!
//! `look` gathers the signs, `judge` is a pure function of them. Nothing is changed.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use serde_json::Value;

use super::keeper::binding;
use super::kernel::{self, HostFacts};
use crate::config::{Config, EgressMode};
use crate::io::netlink::Netlink;
use crate::io::{nft, sysctl};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// It may be meant so, but often is not.
    Doubtful,
    /// The gateway will not work.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub what: String,
}

/// A base chain of nftables (also one of iptables, which is a table there).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    table: String,
    name: String,
    hook: String,
    drops: bool,
}

/// What was seen of the host, beside interfaces and routes.
#[derive(Clone, Debug, Default)]
struct Signs {
    tun_fault: Option<String>,
    nft_missing: bool,
    /// What the kernel says to our rules without applying them.
    rules_fault: Option<String>,
    chains: Vec<Chain>,
    /// Interfaces with a strict reverse path filter.
    strict: Vec<String>,
    /// Protocols and ports that the router's own programs have.
    taken: BTreeSet<(&'static str, u16)>,
    /// A gateway with this configuration runs.
    running: bool,
}

/// Examines the host.
pub fn examine(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let mut netlink = Netlink::open()?;
    let facts = HostFacts::gather(&mut netlink)?;
    Ok(judge(config, &facts, &look(config, &facts)))
}

fn look(config: &Config, facts: &HostFacts) -> Signs {
    let nft_missing = !nft::is_installed();
    let plan = kernel::plan(config, facts);
    let rules_fault = if nft_missing || plan.nft_body.is_empty() {
        None
    } else {
        nft::check(&nft::replacement(&plan.nft_table, &plan.nft_body)).err()
    };
    let own = plan.nft_table.split(' ').next_back().unwrap_or_default().to_owned();
    let strict = |name: &str| {
        sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter")).is_ok_and(|value| value == "1")
    };
    let uplinks = config.uplinks.iter().map(|uplink| uplink.interface.clone());
    Signs {
        tun_fault: tun_fault(),
        nft_missing,
        rules_fault: rules_fault.map(|error| format!("{error:#}")),
        chains: nft::list_chains().map(|json| chains(&json, &own)).unwrap_or_default(),
        strict: uplinks.filter(|name| strict("all") || strict(name)).collect(),
        taken: taken_ports(),
        running: std::os::unix::net::UnixStream::connect(&config.control.socket).is_ok(),
    }
}

fn tun_fault() -> Option<String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.err().map(|error| error.to_string())
}

/// The base chains in what `nft -j list chains` prints, without those of the table `own`.
fn chains(json: &Value, own: &str) -> Vec<Chain> {
    let list = json["nftables"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.filter_map(|entry| entry.get("chain"))
        .filter(|chain| chain.get("hook").is_some() && chain["table"] != own)
        .map(|chain| Chain {
            table: format!("{} {}", text(&chain["family"]), text(&chain["table"])),
            name: text(&chain["name"]),
            hook: text(&chain["hook"]),
            drops: chain["policy"] == "drop",
        })
        .collect()
}

/// The ports of sockets that wait for somebody, from the tables in /proc/net.
fn taken_ports() -> BTreeSet<(&'static str, u16)> {
    let mut taken = BTreeSet::new();
    for (protocol, files, waiting) in
        [("tcp", ["tcp", "tcp6"], Some("0A")), ("udp", ["udp", "udp6"], None)]
    {
        for file in files {
            let text = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
            taken.extend(waiting_ports(&text, waiting).map(|port| (protocol, port)));
        }
    }
    taken
}

fn waiting_ports<'t>(table: &'t str, state: Option<&'t str>) -> impl Iterator<Item = u16> + 't {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, now) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        state.is_none_or(|state| state == now).then_some(port)
    })
}

fn judge(config: &Config, facts: &HostFacts, signs: &Signs) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |severity, what: String| findings.push(Finding { severity, what });
    match &signs.tun_fault {
        Some(error) => note(
            Severity::Wrong,
            format!("/dev/net/tun cannot be opened ({error}): load the module `tun`, run as root"),
        ),
        None => note(Severity::Fine, "/dev/net/tun can be opened".to_owned()),
    }
    if signs.nft_missing {
        note(Severity::Wrong, "the command `nft` is missing: install nftables".to_owned());
    } else if let Some(error) = &signs.rules_fault {
        let what = "the kernel refuses the gateway's nftables rules";
        note(Severity::Wrong, format!("{what} ({error}): it lacks modules of nf_tables, or root"));
    } else {
        note(Severity::Fine, "the kernel takes the gateway's nftables rules".to_owned());
    }
    if let Some(what) = kernel::missing_interface(config, facts) {
        note(Severity::Wrong, what);
    }
    if let Some(what) = kernel::conflict(config, facts) {
        note(Severity::Wrong, what);
    }
    uplinks(config, facts, signs, &mut note);
    firewall(config, signs, &mut note);
    exit(config, facts, signs, &mut note);
    findings
}

fn uplinks(
    config: &Config,
    facts: &HostFacts,
    signs: &Signs,
    note: &mut impl FnMut(Severity, String),
) {
    for (index, uplink) in config.uplinks() {
        let name = &uplink.name;
        match binding(config, index, facts) {
            Some((address, _)) => {
                note(Severity::Fine, format!("uplink `{name}` has its address {}", address.ip()));
            }
            None => note(
                Severity::Doubtful,
                format!("uplink `{name}`: {} does not have its address now", uplink.interface),
            ),
        }
        let port = uplink.listen.port();
        if !signs.running && signs.taken.contains(&("udp", port)) {
            let what = format!("another program has UDP port {port} of uplink `{name}`");
            note(Severity::Wrong, what);
        }
    }
    if config.uplinks.len() > 1 {
        for interface in &signs.strict {
            note(
                Severity::Doubtful,
                format!(
                    "the reverse path filter of {interface} is strict, which drops what comes in \
                     by an uplink that is not the default route's: set rp_filter to 2"
                ),
            );
        }
    }
}

/// A drop in any table beats the accepts in all others.
fn firewall(config: &Config, signs: &Signs, note: &mut impl FnMut(Severity, String)) {
    let (tun, mut any) = (&config.tun.name, false);
    for Chain { table, name, hook, drops } in &signs.chains {
        let needs = match hook.as_str() {
            "forward" => format!("packets between {tun} and the other interfaces must be accepted"),
            "input" => {
                let ports: BTreeSet<u16> = config.uplinks.iter().map(|u| u.listen.port()).collect();
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                format!("UDP port {} must be accepted", ports.join(", "))
            }
            _ => continue,
        };
        if *drops {
            any = true;
            note(
                Severity::Doubtful,
                format!("table `{table}` drops in its chain `{name}` ({hook}) by default: {needs}"),
            );
        }
    }
    if !any {
        note(Severity::Fine, "no other table drops by default".to_owned());
    }
}

fn exit(
    config: &Config,
    facts: &HostFacts,
    signs: &Signs,
    note: &mut impl FnMut(Severity, String),
) {
    let Some(egress) = &config.egress else { return };
    let is_pool = |address: IpAddr| match address {
        IpAddr::V4(address) => egress.pool.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => egress.pool_ipv6.iter().any(|net| net.contains(&address)),
    };
    for address in facts.addresses.iter().filter(|a| is_pool(a.network.addr())) {
        let (ip, interface) = (address.network.addr(), &address.interface);
        note(
            Severity::Wrong,
            format!("{ip} is an address of the exit's pool and of {interface}: remove it there"),
        );
    }
    if egress.mode != EgressMode::Rewrite {
        return;
    }
    for (protocol, port) in signs.taken.iter().filter(|(_, port)| egress.ports.contains(port)) {
        note(
            Severity::Doubtful,
            format!(
                "a program of this router waits at {protocol} port {port}, which belongs to the \
                 exit: nobody outside reaches it; change `egress.ports` or the program"
            ),
        );
    }
    for pair in kernel::outside_pairs(config, facts).iter().filter(|p| p.outside.is_none()) {
        let internal = pair.internal;
        note(Severity::Doubtful, format!("the exit's {internal} has no outside address now"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::kernel::test_site;

    const SITE: &[&str] = &[
        "uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]\n",
        "lan: { interfaces: [lan0], networks: [10.1.0.0/16] }\n",
        "egress: { enabled: true }\n",
    ];

    fn faults(signs: &Signs) -> Vec<String> {
        let (config, facts) = test_site(SITE);
        let all = judge(&config, &facts, signs).into_iter();
        all.filter(|f| f.severity > Severity::Fine).map(|f| f.what).collect()
    }

    #[test]
    fn a_sound_host_has_no_faults() {
        assert_eq!(faults(&Signs::default()), [""; 0]);
    }

    #[test]
    fn a_drop_in_another_table_is_seen_and_our_own_table_is_not() {
        let json = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "inet", "table": "filter", "name": "fwd", "hook": "forward",
                       "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input",
                       "policy": "accept"}},
            {"chain": {"family": "inet", "table": "filter", "name": "jumped_to"}},
            {"chain": {"family": "inet", "table": "rongate_ron0", "name": "x", "hook": "forward",
                       "policy": "drop"}},
        ]});
        let signs = Signs { chains: chains(&json, "rongate_ron0"), ..Signs::default() };
        assert_eq!(
            faults(&signs),
            ["table `inet filter` drops in its chain `fwd` (forward) by default: packets between \
              ron0 and the other interfaces must be accepted"]
        );
    }

    #[test]
    fn ports_of_the_exit_and_of_the_uplink_that_programs_have_are_named() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 00000000:9C41 00000000:0000 0A 0\n   \
                     1: 0100007F:9C42 0100007F:0016 01 0\n";
        assert_eq!(waiting_ports(table, Some("0A")).collect::<Vec<_>>(), [40_001]);
        let taken = [("tcp", 40_001), ("tcp", 22), ("udp", 4_710)].into();
        let told = faults(&Signs { taken, ..Signs::default() });
        assert!(told[0].contains("UDP port 4710 of uplink `isp1`"), "{told:?}");
        assert!(told[1].contains("waits at tcp port 40001") && told.len() == 2, "{told:?}");
    }

    #[test]
    fn what_a_gateway_cannot_do_without_is_wrong() {
        let signs = Signs {
            tun_fault: Some("No such file or directory".into()),
            rules_fault: Some("Operation not supported".into()),
            ..Signs::default()
        };
        let told = faults(&signs);
        assert!(told[0].contains("/dev/net/tun") && told[1].contains("modules"), "{told:?}");
    }
}
