//! `classes` as a file would have them.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Serialize;

use super::types::Config;
use super::units::Rate;
use super::validate::{GROUPS, PRIORITIES, dscp_name, protocol_name};
use super::written::{Word, exit_name, names};
use crate::flow::{Class, ClassMatch, Scope};

#[derive(Serialize)]
pub(super) struct ClassSection<'c> {
    name: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#match: Option<Match<'c>>,
    metric: &'static str,
    redundancy: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_dscp: Option<Word>,
    tag: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<Choice<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avoid: Option<Choice<'c>>,
    group: &'static str,
    rate: String,
    priority: &'static str,
    multipath: bool,
}

#[derive(Serialize)]
struct Choice<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<&'c str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relays: Option<Vec<&'c str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uplinks: Option<Vec<&'c str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exits: Option<Vec<Word>>,
}

#[derive(Serialize)]
struct Match<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dscp: Option<Word>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    source: &'c [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination: &'c [IpNet],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ports: Vec<Word>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ports: Vec<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_label: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    interface: &'c [String],
}

impl<'c> ClassSection<'c> {
    pub(super) fn new(config: &'c Config, class: &'c Class) -> Self {
        let rate = class.rate_bps.map(Rate::from_bits_per_second);
        Self {
            name: &class.name,
            r#match: class.matches.as_ref().map(Match::new),
            metric: class.metric.name(),
            redundancy: class.redundancy,
            set_dscp: class.set_dscp.map(dscp),
            tag: class.tag,
            only: Choice::new(config, &class.only),
            avoid: Choice::new(config, &class.avoid),
            group: word_for(&GROUPS, class.group),
            rate: rate.map_or_else(|| "unlimited".into(), |rate| rate.to_string()),
            priority: word_for(&PRIORITIES, class.priority),
            multipath: class.multipath,
        }
    }
}

impl<'c> Choice<'c> {
    fn new(config: &'c Config, scope: &Scope) -> Option<Self> {
        let uplinks = scope.uplinks.as_ref().map(|list| {
            let names = list.iter().filter_map(|uplink| config.uplinks.get(uplink.usize()));
            names.map(|uplink| uplink.name.as_str()).collect()
        });
        let exits = scope.exits.as_ref();
        (!scope.is_empty()).then(|| Self {
            peers: scope.peers.as_ref().map(|list| names(config, list)),
            relays: scope.relays.as_ref().map(|list| names(config, list)),
            uplinks,
            exits: exits
                .map(|list| list.iter().filter_map(|exit| exit_name(config, *exit)).collect()),
        })
    }
}

impl<'c> Match<'c> {
    fn new(conditions: &'c ClassMatch) -> Self {
        let named = |number| protocol_name(number).map_or_else(|| number.into(), Word::from);
        let protocol = conditions.protocol.map(named);
        Self {
            protocol: if conditions.icmp { Some("icmp".into()) } else { protocol },
            dscp: conditions.dscp.map(dscp),
            source: &conditions.sources,
            destination: &conditions.destinations,
            source_ports: conditions.source_ports.iter().map(ports).collect(),
            destination_ports: conditions.destination_ports.iter().map(ports).collect(),
            flow_label: conditions.flow_label.map(|label| format!("{label:#x}")),
            interface: &conditions.interfaces,
        }
    }
}

fn word_for<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> &'static str {
    choices.iter().find(|choice| choice.1 == value).map_or("", |choice| choice.0)
}

fn dscp(number: u8) -> Word {
    dscp_name(number).map_or_else(|| number.into(), Word::from)
}

fn ports(range: &RangeInclusive<u16>) -> Word {
    let (first, last) = (*range.start(), *range.end());
    if first == last { first.into() } else { Word::Text(format!("{first}-{last}")) }
}
