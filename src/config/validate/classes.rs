//! `classes`: which policy a flow gets.

use std::collections::BTreeMap;

use super::peers::Names;
use super::uplinks::label;
use super::{choice, hint, items, network, number, required, scope, word, word_or};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawClass, RawMatch, Texts};
use crate::config::types::Uplink;
use crate::config::units::{Rate, parse_ports};
use crate::flow::{Class, ClassMatch, Group, Priority};
use crate::metric::Metric;

/// Each new flow is compared with all of them.
const CLASSES_MAX: usize = 64;
/// A third copy would only load the paths that others need.
const REDUNDANCY_MAX: u64 = 2;
/// So many alternatives of one condition.
const ALTERNATIVES_MAX: usize = 64;

const METRICS: [(&str, Metric); 4] = [
    ("latency", Metric::Latency),
    ("loss", Metric::Loss),
    ("throughput", Metric::Throughput),
    ("app", Metric::App),
];

/// What a class can refer to.
pub(super) struct Known<'k> {
    pub(super) names: &'k Names<'k>,
    pub(super) uplinks: &'k [Option<Uplink>],
    pub(super) interfaces: &'k [String],
    pub(super) local_exit: bool,
}

pub(in crate::config) const GROUPS: [(&str, Group); 3] =
    [("flow", Group::Flow), ("hosts", Group::Hosts), ("source", Group::Source)];

pub(in crate::config) const PRIORITIES: [(&str, Priority); 3] =
    [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

/// By IANA's protocol numbers.
const PROTOCOLS: [(&str, u8); 6] =
    [("tcp", 6), ("udp", 17), ("sctp", 132), ("gre", 47), ("esp", 50), ("ah", 51)];

/// RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622.
const DSCPS: [(&str, u8); 24] = [
    ("default", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
    ("cs0", 0),
];

/// The name of a code point that has one.
pub(in crate::config) fn dscp_name(number: u8) -> Option<&'static str> {
    DSCPS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// The name of a protocol that has one.
pub(in crate::config) fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

pub(super) fn classes(
    list: Option<&At<Vec<At<RawClass>>>>,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Vec<Class> {
    let Some(list) = list else { return vec![Class::default()] };
    if list.value.is_empty() {
        faults.at(list, "the list is empty: write at least one class, or remove the key");
    }
    if list.value.len() > CLASSES_MAX {
        let count = list.value.len();
        faults
            .at(list, format!("{count} classes are too many: at most {CLASSES_MAX} are possible"));
    }
    check_order(&list.value, faults);
    check_names(&list.value, faults);
    let classes = (1u8..).zip(list.value.iter().take(CLASSES_MAX));
    let classes: Vec<Class> =
        classes.filter_map(|(place, at)| class(at, place, known, faults)).collect();
    check_tags(&classes, &list.value, faults);
    classes
}

/// A relay knows a class by its tag alone.
fn check_tags(classes: &[Class], list: &[At<RawClass>], faults: &mut Faults) {
    if classes.len() < list.len() {
        return;
    }
    for (index, (class, section)) in classes.iter().zip(list).enumerate() {
        let Some(other) = classes[..index].iter().find(|other| other.tag == class.tag) else {
            continue;
        };
        let at = section.value.tag.as_ref().map_or(section.position, |at| at.position);
        let message = format!(
            "{} is the tag of class `{}` (by default a class's place in the list): use another one",
            class.tag, other.name
        );
        faults.push(at, &section.key_of("tag"), message);
    }
}

/// The first match wins, so what matches all comes last, and something must.
fn check_order(list: &[At<RawClass>], faults: &mut Faults) {
    let Some((last, others)) = list.split_last() else { return };
    for section in others.iter().filter(|section| section.value.r#match.is_none()) {
        let what = "without it the class takes all flows and those below it none: add a `match`, \
                    or move the class to the end";
        faults.missing(section.position, &section.key_of("match"), what);
    }
    if let Some(at) = &last.value.r#match {
        faults.at(
            at,
            "the last class must take what no other did: remove its `match`, or add a class \
             without one behind it",
        );
    }
}

fn check_names(list: &[At<RawClass>], faults: &mut Faults) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for at in list.iter().filter_map(|section| section.value.name.as_ref()) {
        if let Some(first) = names.insert(&at.value, &at.key) {
            faults.at(at, format!("the name `{}` is taken by `{first}`", at.value));
        }
    }
}

fn class(
    section: &At<RawClass>,
    place: u8,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Option<Class> {
    let raw = &section.value;
    let name = required(section, &raw.name, "name", "name the class, like `voice`", faults)
        .and_then(|at| label(at, faults));
    let matches = raw.r#match.as_ref().map(|at| class_match(at, known, faults));
    let metric = raw.metric.as_ref().and_then(|at| choice(at, &METRICS, faults));
    let bounds = 1..=REDUNDANCY_MAX;
    let redundancy = raw.redundancy.as_ref().and_then(|at| number(at, bounds, faults));
    let set_dscp = raw.set_dscp.as_ref().and_then(|at| dscp(at, faults));
    let tag = raw.tag.as_ref().and_then(|at| number(at, 1..=u64::from(u8::MAX), faults));
    let group = raw.group.as_ref().and_then(|at| choice(at, &GROUPS, faults));
    let priority = raw.priority.as_ref().and_then(|at| choice(at, &PRIORITIES, faults));
    let rate = raw.rate.as_ref().filter(|at| at.value != "unlimited");
    let rate: Option<Rate> = rate.and_then(|at| word(at, faults));
    Some(Class {
        name: name?,
        matches,
        metric: metric.unwrap_or_default(),
        redundancy: redundancy.unwrap_or(1),
        set_dscp,
        tag: tag.unwrap_or(place),
        only: scope::only(raw.only.as_ref(), known, faults),
        avoid: scope::avoid(raw.avoid.as_ref(), known, faults),
        group: group.unwrap_or_default(),
        rate_bps: rate.map(Rate::bits_per_second),
        priority: priority.unwrap_or_default(),
        multipath: raw.multipath.as_ref().is_some_and(|at| at.value),
    })
}

fn class_match(section: &At<RawMatch>, known: &Known<'_>, faults: &mut Faults) -> ClassMatch {
    let raw = &section.value;
    if *raw == RawMatch::default() {
        faults.at(section, "the section is empty: write a condition, or remove it to match all");
    }
    let icmp = raw.protocol.as_ref().is_some_and(|at| at.value == "icmp");
    let protocol = raw.protocol.as_ref().filter(|_| !icmp).and_then(|at| protocol(at, faults));
    if let Some(at) = raw.source_ports.as_ref().or(raw.destination_ports.as_ref())
        && (icmp || protocol.is_some_and(|protocol| ![6, 17, 132].contains(&protocol)))
    {
        faults.at(at, "this protocol has no ports: remove the condition, or use `tcp` or `udp`");
    }
    ClassMatch {
        protocol,
        icmp,
        dscp: raw.dscp.as_ref().and_then(|at| dscp(at, faults)),
        sources: alternatives(&raw.source, faults, network),
        destinations: alternatives(&raw.destination, faults, network),
        source_ports: alternatives(&raw.source_ports, faults, ports),
        destination_ports: alternatives(&raw.destination_ports, faults, ports),
        flow_label: raw.flow_label.as_ref().and_then(|at| flow_label(at, faults)),
        interfaces: alternatives(&raw.interface, faults, |at, faults| {
            lan_interface(at, known, faults)
        }),
        interface_networks: Vec::new(),
    }
}

/// An IPv6 flow label (RFC 6437).
fn flow_label(at: &At<String>, faults: &mut Faults) -> Option<u32> {
    let label = parse_flow_label(&at.value);
    if label.is_none() {
        super::refuse(at, "not a flow label: use 0 to 1048575, or 0x0 to 0xfffff", faults);
    }
    label
}

fn lan_interface(at: &At<String>, known: &Known<'_>, faults: &mut Faults) -> Option<String> {
    if known.interfaces.contains(&at.value) {
        return Some(at.value.clone());
    }
    super::refuse(at, "not one of `lan.interfaces`: only their hosts can be told apart", faults);
    None
}

/// The alternatives of a condition. An empty list would be no condition, which nobody means.
fn alternatives<T>(
    list: &Texts,
    faults: &mut Faults,
    read: impl Fn(&At<String>, &mut Faults) -> Option<T>,
) -> Vec<T> {
    if let Some(at) = list {
        if at.value.is_empty() {
            faults.at(at, "the list is empty and nothing can match: fill it, or remove the key");
        }
        if at.value.len() > ALTERNATIVES_MAX {
            faults.at(at, format!("too many entries: at most {ALTERNATIVES_MAX} are possible"));
        }
    }
    items(list).iter().filter_map(|at| read(at, faults)).collect()
}

fn ports(at: &At<String>, faults: &mut Faults) -> Option<std::ops::RangeInclusive<u16>> {
    parse_ports(&at.value).map_err(|error| super::refuse(at, &error.to_string(), faults)).ok()
}

fn protocol(at: &At<String>, faults: &mut Faults) -> Option<u8> {
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == at.value) {
        return Some(*number);
    }
    if at.value.starts_with(|c: char| c.is_ascii_digit()) {
        return word_or(at, "not a protocol number: use 0 to 255", faults);
    }
    let names = || PROTOCOLS.iter().map(|(name, _)| *name).chain(["icmp"]);
    let value = at.value.escape_debug();
    faults.at(
        at,
        format!("unknown protocol `{value}`: {} (or write its number)", hint(&at.value, names)),
    );
    None
}

fn dscp(at: &At<String>, faults: &mut Faults) -> Option<u8> {
    let number = parse_dscp(&at.value);
    if number.is_none() {
        let value = at.value.escape_debug();
        let message =
            format!("`{value}` is not a DSCP: use a name like `ef`, `af41` or `cs1`, or 0 to 63");
        faults.at(at, message);
    }
    number
}

/// Reads a code point: a name like `ef`, or 0 to 63.
pub fn parse_dscp(text: &str) -> Option<u8> {
    let named = DSCPS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok().filter(|number| *number <= 63))
}

/// Reads an IPv6 flow label: 20 bits, in decimal or after `0x`.
pub fn parse_flow_label(text: &str) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|label| *label <= 0xf_ffff)
}
