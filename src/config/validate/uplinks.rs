//! `tun`, `lan` and `uplinks`: the interfaces of this machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::{Claims, Kind, is_ordinary, ordinary};
use super::{choice, items, network, required, word};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawConfig, RawTun, RawUplink};
use crate::config::types::{LanSection, OnFailure, TunSection, UdpGso, Uplink};
use crate::config::units::{Listen, is_dns_label};
use crate::id::UplinkIndex;

/// Below it, Linux takes IPv6 away from an interface (RFC 8200, section 5).
const MTU_MIN: u16 = 1280;

pub(super) fn tun(
    raw: &At<RawConfig>,
    claims: &mut Claims,
    faults: &mut Faults,
) -> Option<TunSection> {
    let what = "write this node's address inside the overlay, like `10.77.0.1/24`";
    let Some(section) = &raw.value.tun else {
        faults.missing(raw.position, "tun.address", what);
        return None;
    };
    let listed = items(&section.value.address);
    if listed.is_empty() {
        match &section.value.address {
            Some(at) => faults.at(at, format!("the list is empty: {what}")),
            None => faults.missing(section.position, &section.key_of("address"), what),
        }
    }
    let address: Vec<_> = listed.iter().map(|at| tun_address(at, claims, faults)).collect();
    let name = match &section.value.name {
        Some(at) => interface(at, faults),
        None => Some("ron0".to_owned()),
    };
    let mtu = mtu(&section.value, faults);
    Some(TunSection { name: name?, address: address.into_iter().collect::<Option<_>>()?, mtu })
}

fn tun_address(at: &At<String>, claims: &mut Claims, faults: &mut Faults) -> Option<IpNet> {
    let Ok(net) = at.value.parse::<IpNet>() else {
        let message = format!(
            "`{}` is not an address with a prefix length: write one like `10.77.0.1/24`",
            at.value.escape_debug()
        );
        faults.at(at, message);
        return None;
    };
    let wide = net.max_prefix_len() - net.prefix_len() > 1;
    let edge = wide && (net.addr() == net.network() || net.is_v4_broadcast());
    if edge {
        faults
            .at(at, format!("`{net}` is the network, not an address in it: write the node's own"));
        return None;
    }
    if !is_ordinary(net.addr()) {
        faults.at(at, format!("`{net}` is in a special range: choose a unicast address"));
        return None;
    }
    claims.add(IpNet::from(net.addr()), Kind::Address, at);
    claims.add(net, Kind::Prefix, at);
    Some(net)
}

trait Broadcast {
    fn is_v4_broadcast(&self) -> bool;
}

impl Broadcast for IpNet {
    fn is_v4_broadcast(&self) -> bool {
        matches!(self, Self::V4(net) if net.addr() == net.broadcast())
    }
}

/// None for `auto`.
fn mtu(tun: &RawTun, faults: &mut Faults) -> Option<u16> {
    let at = tun.mtu.as_ref().filter(|at| at.value != "auto")?;
    match at.value.parse::<u16>() {
        Ok(mtu) if mtu >= MTU_MIN => return Some(mtu),
        Ok(mtu) => faults.at(
            at,
            format!("{mtu} is below {MTU_MIN}, where Linux removes IPv6: use {MTU_MIN} or more, or `auto`"),
        ),
        Err(_) => {
            let value = at.value.escape_debug();
            let message = format!(
                "`{value}` is not an MTU: write `auto` or bytes without a unit, {MTU_MIN} to 65535"
            );
            faults.at(at, message);
        }
    }
    None
}

pub(super) fn lan(raw: &At<RawConfig>, claims: &mut Claims, faults: &mut Faults) -> LanSection {
    let Some(section) = &raw.value.lan else {
        return LanSection {
            interfaces: Vec::new(),
            networks: Vec::new(),
            bypass: Vec::new(),
            on_failure: OnFailure::default(),
        };
    };
    let raw = &section.value;
    let interfaces = items(&raw.interfaces).iter().filter_map(|at| interface(at, faults));
    let interfaces = interfaces.collect();
    let networks = networks(items(&raw.networks), claims, faults);
    let bypass = items(&raw.bypass).iter().filter_map(|at| network(at, faults)).collect();
    let choices = [("block", OnFailure::Block), ("direct", OnFailure::Direct)];
    let on_failure = raw.on_failure.as_ref().and_then(|at| choice(at, &choices, faults));
    LanSection { interfaces, networks, bypass, on_failure: on_failure.unwrap_or_default() }
}

/// Networks behind a node.
pub(super) fn networks(
    listed: &[At<String>],
    claims: &mut Claims,
    faults: &mut Faults,
) -> Vec<IpNet> {
    let mut found = Vec::new();
    for at in listed {
        let Some(net) = network(at, faults).filter(|net| ordinary(at, *net, faults)) else {
            continue;
        };
        claims.add(net, Kind::Network, at);
        found.push(net);
    }
    found
}

/// One entry for each uplink of the file, none for a faulty one.
pub(super) fn uplinks(raw: &At<RawConfig>, faults: &mut Faults) -> Vec<Option<Uplink>> {
    let what = "list at least one, with `name`, `interface` and `listen`";
    let Some(list) = &raw.value.uplinks else {
        faults.missing(raw.position, "uplinks", what);
        return Vec::new();
    };
    if list.value.is_empty() {
        faults.at(list, format!("the list is empty: {what}"));
    }
    if list.value.len() > UplinkIndex::MAX_COUNT {
        let (count, max) = (list.value.len(), UplinkIndex::MAX_COUNT);
        faults.at(list, format!("{count} uplinks are too many: at most {max} are possible"));
    }
    let uplinks: Vec<_> = list.value.iter().map(|at| uplink(at, faults)).collect();
    check_duplicates(&list.value, faults);
    uplinks
}

fn uplink(section: &At<RawUplink>, faults: &mut Faults) -> Option<Uplink> {
    let raw = &section.value;
    let name = required(section, &raw.name, "name", "name the ISP, like `isp1`", faults)
        .and_then(|at| label(at, faults));
    let what = "name the network interface, like `eth0`";
    let interface = required(section, &raw.interface, "interface", what, faults)
        .and_then(|at| interface(at, faults));
    let what = "write where peers reach us, like `192.0.2.1:4710` or `auto:4710`";
    let listen =
        required(section, &raw.listen, "listen", what, faults).and_then(|at| listen(at, faults));
    let choices = [("auto", UdpGso::Auto), ("off", UdpGso::Off)];
    let gso = raw.gso.as_ref().and_then(|at| choice(at, &choices, faults)).unwrap_or_default();
    Some(Uplink { name: name?, interface: interface?, listen: listen?, gso })
}

fn listen(at: &At<String>, faults: &mut Faults) -> Option<Listen> {
    let listen: Listen = word(at, faults)?;
    let ordinary = listen.address().is_none_or(|address| match address.ip() {
        IpAddr::V6(ip) => !ip.is_multicast() && ip.to_ipv4_mapped().is_none(),
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
    });
    if !ordinary {
        faults.at(at, format!("`{}` is no address of an interface", at.value));
        return None;
    }
    Some(listen)
}

/// A name of an uplink or class.
pub(super) fn label(at: &At<String>, faults: &mut Faults) -> Option<String> {
    if !is_dns_label(&at.value) {
        let message = format!(
            "`{}` is not a usable name: use 1 to 63 lower-case letters, digits and hyphens",
            at.value.escape_debug()
        );
        faults.at(at, message);
        return None;
    }
    Some(at.value.clone())
}

/// A name that Linux accepts for a network interface.
fn interface(at: &At<String>, faults: &mut Faults) -> Option<String> {
    let name = at.value.as_str();
    let possible = (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%' | b'"' | b'\\'))
        && !matches!(name, "." | ".." | "all" | "default");
    if !possible {
        let message = format!(
            "`{}` is not an interface name: 1 to 15 characters without space, `/` or `:`",
            name.escape_debug()
        );
        faults.at(at, message);
        return None;
    }
    Some(name.to_owned())
}

fn check_duplicates(list: &[At<RawUplink>], faults: &mut Faults) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut listeners: BTreeMap<String, &str> = BTreeMap::new();
    for section in list {
        let raw = &section.value;
        if let Some(at) = &raw.name
            && let Some(first) = names.insert(&at.value, &section.key)
        {
            faults.at(at, format!("the name `{}` is taken by `{first}`", at.value));
        }
        let Some(at) = &raw.listen else { continue };
        let Ok(listen) = at.value.parse::<Listen>() else { continue };
        let place = match (listen, &raw.interface) {
            (Listen::Auto { .. }, Some(on)) => format!("{listen} on {}", on.value),
            (Listen::Auto { .. } | Listen::Address(_), _) => listen.to_string(),
        };
        if let Some(first) = listeners.insert(place, &section.key) {
            faults.at(at, format!("`{listen}` is taken by `{first}`"));
        }
    }
}

/// No interface may have two purposes.
pub(super) fn check_interfaces(raw: &At<RawConfig>, faults: &mut Faults) {
    let file = &raw.value;
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for section in file.uplinks.iter().flat_map(|list| &list.value) {
        if let Some(at) = &section.value.interface {
            taken.insert(&at.value, &at.key);
        }
    }
    let tun = file.tun.as_ref().and_then(|section| section.value.name.as_ref());
    let lan = file.lan.iter().flat_map(|section| items(&section.value.interfaces));
    for at in tun.into_iter().chain(lan) {
        if let Some(first) = taken.insert(&at.value, &at.key) {
            faults.at(at, format!("the interface `{}` has another use in `{first}`", at.value));
        }
    }
    if tun.is_none()
        && let Some(key) = taken.get("ron0")
    {
        let position = file.tun.as_ref().map_or(raw.position, |section| section.position);
        faults.push(
            position,
            "tun.name",
            format!("the default `ron0` is in use in `{key}`: choose another"),
        );
    }
}
