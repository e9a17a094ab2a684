//! `rongate nat`.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};

use super::control_client::Client;
use super::output::span;
use super::table::Table;
use super::{Failure, Gateway, Outcome, output, tell};
use crate::gateway::status::{
    NAT_LIMIT_MAX, NatFilter, NatHostList, NatHostStatus, NatMappingList, NatMappingStatus, Request,
};

/// List the mappings of our exit's NAT, what each host uses, or end a mapping
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  rongate nat                                     all mappings, up to --limit
  rongate nat --host 10.1.0.5 --protocol tcp      those of one host
  rongate nat --outside 192.0.2.1:40123           whose endpoint is that?
  rongate nat --outside :40123 --json             the same port of any address
  rongate nat hosts --limit 10                    the hosts with the most mappings
  rongate nat delete udp 192.0.2.1:40123          end one, with its connections")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// What each inside host uses, the greatest first
    Hosts(Hosts),
    /// End a mapping; its port rests before it is used again
    Delete(Delete),
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    gateway: Gateway,
    /// Only of this inside host
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Only of hosts behind this node
    #[arg(long, value_name = "NODE")]
    site: Option<String>,
    /// Only tcp, udp, icmp, udplite, or a protocol number
    #[arg(long)]
    protocol: Option<String>,
    /// Only with this outside address, port, or both
    #[arg(long, value_name = "ADDRESS|:PORT|ADDRESS:PORT", value_parser = outside)]
    outside: Option<(Option<IpAddr>, Option<u16>)>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit)]
    limit: usize,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Hosts {
    #[command(flatten)]
    gateway: Gateway,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit)]
    limit: usize,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Delete {
    #[command(flatten)]
    gateway: Gateway,
    /// tcp, udp, icmp or udplite
    protocol: String,
    /// The outside endpoint, as in 192.0.2.1:40123
    outside: SocketAddr,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let wrong = || format!("use 1 to {NAT_LIMIT_MAX}");
    text.parse().ok().filter(|n| (1..=NAT_LIMIT_MAX).contains(n)).ok_or_else(wrong)
}

fn outside(text: &str) -> Result<(Option<IpAddr>, Option<u16>), String> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok((None, Some(port)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Some(address), None));
    }
    let both = text.parse::<SocketAddr>().map(|both| (Some(both.ip()), Some(both.port())));
    both.map_err(|_| "use an address, :PORT, or both as in 192.0.2.1:40123".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        None => list(&arguments.list),
        Some(Command::Hosts(hosts)) => list_hosts(hosts),
        Some(Command::Delete(which)) => delete(which),
    }
}

/// Asks until enough is found or the table ends: each answer looks at a part of it.
fn list(arguments: &List) -> Outcome {
    let (outside, port) = arguments.outside.unwrap_or_default();
    let filter = NatFilter {
        host: arguments.host,
        site: arguments.site.clone(),
        protocol: arguments.protocol.as_ref().map(|name| name.to_ascii_lowercase()),
        outside,
        port,
    };
    let mut client = Client::connect(&arguments.gateway)?;
    let mut found = NatMappingList::default();
    let mut from = Some(0);
    while let Some(first) = from
        && found.mappings.len() < arguments.limit
    {
        let limit = arguments.limit - found.mappings.len();
        let request = Request::Nat { filter: filter.clone(), limit, from: first };
        let part: NatMappingList = client.ask_for(&request)?;
        found.total = part.total;
        found.mappings.extend(part.mappings);
        from = part.next;
    }
    found.next = from;
    if arguments.json {
        return write_json(&found);
    }
    output::write(&render(&found))
}

fn list_hosts(arguments: &Hosts) -> Outcome {
    let mut client = Client::connect(&arguments.gateway)?;
    let mut hosts: Vec<NatHostStatus> = Vec::new();
    let mut from = Some(0);
    while let Some(first) = from {
        let request = Request::NatHosts { limit: NAT_LIMIT_MAX, from: first };
        let part: NatHostList = client.ask_for(&request)?;
        hosts.extend(part.hosts);
        hosts.sort_by(|a, b| (b.mappings, &a.site, &a.host).cmp(&(a.mappings, &b.site, &b.host)));
        hosts.truncate(arguments.limit);
        from = part.next;
    }
    if arguments.json {
        return write_json(&NatHostList { hosts, next: None });
    }
    output::write(&render_hosts(&hosts))
}

fn delete(arguments: &Delete) -> Outcome {
    let request = Request::NatDelete {
        protocol: arguments.protocol.to_ascii_lowercase(),
        outside: arguments.outside,
    };
    let ended: NatMappingStatus = Client::connect(&arguments.gateway)?.ask_for(&request)?;
    if arguments.json {
        return write_json(&ended);
    }
    tell(&format!("ended: {} {} at {}", ended.protocol, ended.inside, ended.outside));
    Ok(())
}

fn write_json(value: &impl serde::Serialize) -> Outcome {
    let value = serde_json::to_value(value).map_err(|error| Failure::Fault(error.into()))?;
    output::write_json(&value)
}

fn render(list: &NatMappingList) -> String {
    let titles = ["PROTO", "SITE", "INSIDE", "OUTSIDE", "KIND", ">SESSIONS", ">AGE"];
    let mut table = Table::new(&titles);
    for mapping in &list.mappings {
        table.row([
            mapping.protocol.clone(),
            mapping.site.clone(),
            mapping.inside.clone(),
            mapping.outside.clone(),
            mapping.kind.clone(),
            mapping.sessions.to_string(),
            span(Some(mapping.age_s)),
        ]);
    }
    let mut text = table.render();
    if list.next.is_some() {
        text += &format!("{} shown, {} mappings in all\n", list.mappings.len(), list.total);
    }
    text
}

fn render_hosts(hosts: &[NatHostStatus]) -> String {
    let titles =
        ["SITE", "HOST", "OUTSIDE", ">MAPPINGS", ">TCP", ">UDP", ">ICMP", ">OTHER", ">SESSIONS"];
    let mut table = Table::new(&titles);
    for host in hosts {
        table.row([
            host.site.clone(),
            host.host.clone(),
            host.outside.clone(),
            host.mappings.to_string(),
            host.tcp.to_string(),
            host.udp.to_string(),
            host.icmp.to_string(),
            host.other.to_string(),
            host.sessions.to_string(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outside_end_is_an_address_a_port_or_both() {
        let address = || Some("192.0.2.1".parse().unwrap());
        assert_eq!(outside("192.0.2.1"), Ok((address(), None)));
        assert_eq!(outside(":40123"), Ok((None, Some(40_123))));
        assert_eq!(outside("192.0.2.1:40123"), Ok((address(), Some(40_123))));
        assert!(outside("40123").is_err() && outside(":x").is_err());
    }

    #[test]
    fn a_part_of_the_table_says_so() {
        let mapping = NatMappingStatus {
            protocol: "udp".into(),
            site: "mit".into(),
            inside: "10.1.0.5:5000".into(),
            outside: "192.0.2.1:40123".into(),
            kind: "dynamic".into(),
            sessions: 0,
            age_s: 75.0,
        };
        let list = NatMappingList { total: 3, mappings: vec![mapping], next: Some(7) };
        let expected = "\
PROTO  SITE  INSIDE         OUTSIDE          KIND     SESSIONS    AGE
udp    mit   10.1.0.5:5000  192.0.2.1:40123  dynamic         0  1m15s
1 shown, 3 mappings in all
";
        assert_eq!(render(&list), expected);
    }
}
