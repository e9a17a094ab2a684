//! From what is written to what it means. Goes on after a fault, so that all are found at once.

mod classes;
mod exit;
mod limits;
mod nat;
mod nat_events;
mod networks;
mod node;
mod peers;
mod routing;
mod scope;
mod servers;
mod uplinks;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::de::At;
use super::fault::{Faults, did_you_mean, quoted_list};
use super::key::KeySource;
use super::raw::{RawConfig, Text, Texts};
use super::types::{Config, ControlSection, HttpSection};
use super::units::{format_duration, parse_duration};
pub(super) use classes::{GROUPS, PRIORITIES, dscp_name, protocol_name};
pub use classes::{parse_dscp, parse_flow_label};
use networks::Claims;

/// Checks everything. None if there was any fault.
pub(super) fn validate(
    raw: &At<RawConfig>,
    keys: &dyn KeySource,
    faults: &mut Faults,
) -> Option<Config> {
    let mut claims = Claims::default();
    let file = &raw.value;
    let node = node::node(raw, keys, faults);
    let tun = uplinks::tun(raw, &mut claims, faults);
    let uplinks = uplinks::uplinks(raw, faults);
    let lan = uplinks::lan(raw, &mut claims, faults);
    let peers = peers::peers(raw, node.as_ref(), &mut claims, faults);
    peers::check_families(raw, &peers, &uplinks, faults);
    peers::check_links(raw, &peers, &uplinks, faults);
    let names = peers::Names::new(raw);
    let egress = exit::egress(raw, &names, &uplinks, &mut claims, faults);
    let internet = exit::internet(raw, &names, egress.is_some(), faults);
    let internet_ipv6 = exit::internet_ipv6(raw, &names, egress.is_some(), faults);
    let nat64 = exit::nat64(raw, faults);
    let servers = servers::servers(raw, &lan, faults);
    let known = classes::Known {
        names: &names,
        uplinks: &uplinks,
        interfaces: &lan.interfaces,
        local_exit: egress.is_some(),
    };
    let classes = classes::classes(file.classes.as_ref(), &known, faults);
    let relay = exit::relay(raw, &names, &classes, faults);
    let limits = limits::limits(file, faults);
    let around = nat::Surroundings { egress: egress.as_ref(), lan: &lan, peers: &peers };
    let written = file.nat.as_ref().map(|section| &section.value);
    let nat = nat::nat(written, &around, &mut claims, faults);
    if let Some(tun) = &tun {
        exit::check_ipv6(raw, tun, faults);
    }
    uplinks::check_interfaces(raw, faults);
    claims.check(faults);
    peers::check_endpoints(raw, &claims, faults);
    let control = control(file, node.as_ref().map_or("rongate", |node| &node.name), faults);
    let http = http(file, faults);
    let log = limits::log(file, faults);
    let nat_log = nat_events::nat_log(file, faults);
    Some(Config {
        node: node?,
        control,
        http,
        tun: tun?,
        lan,
        uplinks: uplinks.into_iter().collect::<Option<_>>()?,
        egress,
        relay,
        peers: peers.into_iter().collect::<Option<_>>()?,
        classes,
        internet,
        internet_ipv6,
        servers,
        nat64,
        probing: limits.probing,
        routing: limits.routing,
        flows: limits.flows,
        nat,
        nat_log,
        tunnel: limits.tunnel,
        log,
    })
}

pub(super) fn control(file: &RawConfig, node: &str, faults: &mut Faults) -> ControlSection {
    let socket = file.control.as_ref().and_then(|section| section.value.socket.as_ref());
    let default = || PathBuf::from(format!("/run/rongate/{node}.sock"));
    ControlSection {
        socket: socket.and_then(|at| absolute_path(at, faults)).unwrap_or_else(default),
    }
}

fn http(file: &RawConfig, faults: &mut Faults) -> Option<HttpSection> {
    let section = file.http.as_ref()?;
    let Some(at) = &section.value.listen else {
        let what = "write where the status page listens, like `127.0.0.1:9477`";
        faults.missing(section.position, &section.key_of("listen"), what);
        return None;
    };
    let what = "not an address with a port: write one like `127.0.0.1:9477`";
    Some(HttpSection { listen: word_or(at, what, faults)? })
}

/// Parses a value; the error says what is wrong with it.
fn word<T>(at: &At<String>, faults: &mut Faults) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    let parsed = at.value.parse();
    parsed.map_err(|error: T::Err| refuse(at, &error.to_string(), faults)).ok()
}

/// Parses a value; `what` says what is wrong with it.
fn word_or<T: FromStr>(at: &At<String>, what: &str, faults: &mut Faults) -> Option<T> {
    at.value.parse().map_err(|_| refuse(at, what, faults)).ok()
}

/// Notes a fault of a value, which is shown.
fn refuse(at: &At<String>, what: &str, faults: &mut Faults) {
    faults.at(at, format!("`{}`: {what}", at.value.escape_debug()));
}

/// The value that a word stands for.
fn choice<T: Copy>(at: &At<String>, choices: &[(&str, T)], faults: &mut Faults) -> Option<T> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == at.value) {
        return Some(*value);
    }
    let names = || choices.iter().map(|(name, _)| *name);
    faults
        .at(at, format!("unknown value `{}`: {}", at.value.escape_debug(), hint(&at.value, names)));
    None
}

/// What to write instead of `word`.
fn hint<'n, I: Iterator<Item = &'n str>>(word: &str, names: impl Fn() -> I) -> String {
    match did_you_mean(word, names()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("possible here are {}", quoted_list(names())),
    }
}

/// A whole number within bounds.
fn number<T: TryFrom<u64>>(
    at: &At<u64>,
    bounds: RangeInclusive<u64>,
    faults: &mut Faults,
) -> Option<T> {
    if !bounds.contains(&at.value) {
        let (low, high) = bounds.into_inner();
        faults.at(at, format!("{} is out of bounds: use {low} to {high}", at.value));
        return None;
    }
    T::try_from(at.value).ok()
}

/// A duration within bounds.
fn duration(
    at: &At<String>,
    bounds: RangeInclusive<Duration>,
    faults: &mut Faults,
) -> Option<Duration> {
    let parsed = parse_duration(&at.value);
    let value = parsed.map_err(|error| refuse(at, &error.to_string(), faults)).ok()?;
    if !bounds.contains(&value) {
        let (low, high) = bounds.into_inner();
        let (low, high) = (format_duration(low), format_duration(high));
        faults.at(at, format!("`{}` is out of bounds: use {low} to {high}", at.value));
        return None;
    }
    Some(value)
}

/// The items of a list; none for an absent one.
fn items(list: &Texts) -> &[At<String>] {
    list.as_ref().map_or(&[], |list| &list.value)
}

/// A network, written with its prefix length and without host bits.
fn network(at: &At<String>, faults: &mut Faults) -> Option<IpNet> {
    let what = "not a network: write `ADDRESS/LENGTH`, like `10.1.0.0/16`";
    let net: IpNet = match at.value.parse() {
        Ok(net) => net,
        Err(_) => {
            match at.value.parse::<std::net::IpAddr>() {
                Ok(address) => {
                    let one = IpNet::from(address);
                    faults.at(
                        at,
                        format!(
                            "`{address}` has no prefix length: write `{one}` for this one address"
                        ),
                    );
                }
                Err(_) => refuse(at, what, faults),
            }
            return None;
        }
    };
    if net != net.trunc() {
        let message = format!("`{net}` has bits set behind its prefix: write `{}`", net.trunc());
        faults.at(at, message);
        return None;
    }
    Some(net)
}

/// An absolute path.
fn absolute_path(at: &At<String>, faults: &mut Faults) -> Option<PathBuf> {
    let path = PathBuf::from(&at.value);
    if !path.is_absolute() {
        faults.at(at, format!("`{}` is not an absolute path: begin it with `/`", at.value));
        return None;
    }
    Some(path)
}

/// A required value of a section.
fn required<'a>(
    section: &At<impl Sized>,
    value: &'a Text,
    key: &str,
    what: &str,
    faults: &mut Faults,
) -> Option<&'a At<String>> {
    if value.is_none() {
        faults.missing(section.position, &section.key_of(key), what);
    }
    value.as_ref()
}
