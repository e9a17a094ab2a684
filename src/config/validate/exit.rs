//! `egress`, `relay` and `internet`: what we do for others, and what others do for us.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::networks::{Claims, Kind, ordinary};
use super::peers::Names;
use super::{choice, hint, items, network, word, word_or};
use crate::addr::Nat64Prefix;
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawConfig, RawEgress, Texts};
use crate::config::types::{
    EgressMode, EgressSection, InternetVia, RelaySection, TunSection, Uplink,
};
use crate::config::units::parse_ports;
use crate::flow::{Class, ExitPoint};

/// In the range set aside for address translation (RFC 6598).
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 1, 1), 32);
const PORTS: RangeInclusive<u16> = 40_000..=59_999;
/// Well-known ports are not for clients (RFC 4787, section 4.2.3).
const PORT_MIN: u16 = 1024;
/// The NAT keeps a port table for each address.
const POOL_MAX: usize = 4096;
/// So many addresses of one IPv6 network are used.
const POOL_MAX_V6: usize = 256;

pub(super) fn egress(
    raw: &At<RawConfig>,
    names: &Names<'_>,
    uplinks: &[Option<Uplink>],
    claims: &mut Claims,
    faults: &mut Faults,
) -> Option<EgressSection> {
    let section = raw.value.egress.as_ref()?;
    let raw = &section.value;
    let modes = [
        ("rewrite", EgressMode::Rewrite),
        ("routed", EgressMode::Routed),
        ("masquerade", EgressMode::Masquerade),
    ];
    let mode = raw.mode.as_ref().and_then(|at| choice(at, &modes, faults)).unwrap_or_default();
    let ports = ports(raw, mode, uplinks, faults);
    let allowed = names.resolve_all(raw.r#for.as_ref(), faults);
    let deny = items(&raw.deny).iter().filter_map(|at| network(at, faults)).collect();
    let allow = items(&raw.allow).iter().filter_map(|at| network(at, faults)).collect();
    let enabled = raw.enabled.as_ref().is_some_and(|at| at.value);
    let (pool, pool_ipv6) = pool(section, mode, enabled, claims, faults);
    if !enabled {
        return None;
    }
    let outside = outside(section, mode, faults);
    check_uplinks(section, mode, &pool, uplinks, faults);
    check_outside(section, mode, &pool, &outside, uplinks, faults);
    Some(EgressSection { mode, pool, pool_ipv6, outside, ports, allowed, deny, allow })
}

fn ports(
    raw: &RawEgress,
    mode: EgressMode,
    uplinks: &[Option<Uplink>],
    faults: &mut Faults,
) -> RangeInclusive<u16> {
    let Some(at) = &raw.ports else { return PORTS };
    let ports = match parse_ports(&at.value) {
        Ok(ports) => ports,
        Err(error) => {
            super::refuse(at, &error.to_string(), faults);
            return PORTS;
        }
    };
    if *ports.start() < PORT_MIN {
        let message = format!(
            "`{}` has ports below {PORT_MIN}, which servers of this router may use: begin at \
             {PORT_MIN} or higher",
            at.value
        );
        faults.at(at, message);
    }
    let taken = uplinks.iter().flatten().find(|uplink| ports.contains(&uplink.listen.port()));
    if let Some(uplink) = taken.filter(|_| mode == EgressMode::Rewrite) {
        let message = format!(
            "`{}` has port {} in it, at which uplink `{}` listens: keep them apart",
            at.value,
            uplink.listen.port(),
            uplink.name
        );
        faults.at(at, message);
    }
    ports
}

fn pool(
    section: &At<RawEgress>,
    mode: EgressMode,
    enabled: bool,
    claims: &mut Claims,
    faults: &mut Faults,
) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let listed = items(&section.value.pool);
    if listed.is_empty() {
        if enabled && mode == EgressMode::Routed {
            let what = "mode `routed` needs the outside addresses that are routed to this router";
            faults.missing(section.position, &section.key_of("pool"), what);
        }
        if let Some(at) = &section.value.pool {
            faults.at(at, "the list is empty: write at least one network, or remove the key");
        }
        return (vec![POOL], Vec::new());
    }
    let (mut pool, mut pool_ipv6) = (Vec::new(), Vec::new());
    let mut addresses = 0;
    for at in listed {
        let Some(net) = network(at, faults).filter(|net| ordinary(at, *net, faults)) else {
            continue;
        };
        claims.add(net, Kind::Network, at);
        match net {
            IpNet::V4(net) => {
                addresses += 1_usize << (32 - net.prefix_len());
                pool.push(net);
            }
            IpNet::V6(net) => {
                addresses += (net.hosts().take(POOL_MAX_V6).count()).max(1);
                pool_ipv6.push(net);
            }
        }
    }
    if addresses > POOL_MAX {
        let message = format!("{addresses} addresses are too many: at most {POOL_MAX}");
        faults.push(section.position, &section.key_of("pool"), message);
    }
    if pool.is_empty() && mode != EgressMode::Routed {
        pool.push(POOL);
    }
    (pool, pool_ipv6)
}

/// The pool against the uplinks: the outside needs IPv4, and its addresses are not the kernel's.
fn check_uplinks(
    section: &At<RawEgress>,
    mode: EgressMode,
    pool: &[Ipv4Net],
    uplinks: &[Option<Uplink>],
    faults: &mut Faults,
) {
    let key = section.key_of("pool");
    let position = section.value.pool.as_ref().map_or(section.position, |at| at.position);
    for uplink in uplinks.iter().flatten() {
        let Some(address) = uplink.listen.address() else { continue };
        let std::net::IpAddr::V4(ip) = address.ip() else { continue };
        if let Some(net) = pool.iter().find(|net| net.contains(&ip)) {
            let message = format!(
                "`{net}` holds the address of uplink `{}`, which belongs to the kernel: choose \
                 other addresses; in mode `rewrite` internal ones, like `{POOL}`",
                uplink.name
            );
            faults.push(position, &key, message);
        }
    }
    let known = uplinks.iter().flatten();
    let ipv4 = known.clone().filter(|uplink| !uplink.listen.is_ipv6()).count();
    if mode == EgressMode::Routed || known.count() < uplinks.len() || uplinks.is_empty() {
        return;
    }
    if ipv4 == 0 {
        let at = section.value.enabled.as_ref().map_or(section.position, |at| at.position);
        let message = "the exit is for IPv4, but no uplink is IPv4: add one, or use mode `routed`";
        faults.push(at, &section.key_of("enabled"), message);
    }
}

/// The addresses that those of the pool stand for.
fn outside(section: &At<RawEgress>, mode: EgressMode, faults: &mut Faults) -> Vec<Ipv4Addr> {
    let Some(list) = section.value.outside.as_ref() else { return Vec::new() };
    if mode != EgressMode::Rewrite {
        faults.at(list, "only mode `rewrite` exchanges addresses: remove the key");
    }
    let what = "not an IPv4 address: write one of an uplink's interface, like `192.0.2.1`";
    let mut outside = Vec::new();
    for at in &list.value {
        let Some(address) = word_or(at, what, faults) else { continue };
        if outside.contains(&address) {
            faults.at(at, format!("`{address}` is listed twice"));
        } else {
            outside.push(address);
        }
    }
    outside
}

/// In mode `rewrite` every address of the pool stands for one outside address, except that a single
/// one goes wherever the default route goes.
fn check_outside(
    section: &At<RawEgress>,
    mode: EgressMode,
    pool: &[Ipv4Net],
    outside: &[Ipv4Addr],
    uplinks: &[Option<Uplink>],
    faults: &mut Faults,
) {
    let understood = items(&section.value.outside).len() == outside.len();
    if mode != EgressMode::Rewrite || !understood || uplinks.iter().any(Option::is_none) {
        return;
    }
    let internal: u64 = pool.iter().map(|net| 1_u64 << (32 - net.prefix_len())).sum();
    let ipv4 = uplinks.iter().flatten().filter(|uplink| !uplink.listen.is_ipv6()).count() as u64;
    let position = section.value.pool.as_ref().map_or(section.position, |at| at.position);
    let (known, of) = match outside.len() as u64 {
        0 => (ipv4, "the uplinks have"),
        listed => (listed, "`egress.outside` has"),
    };
    if internal > known.max(u64::from(outside.is_empty())) {
        let message = format!(
            "{internal} addresses are too many: in mode `rewrite` each stands for an outside \
             address, and {of} {known}; a single one, like `{POOL}`, goes with the default route"
        );
        faults.push(position, &section.key_of("pool"), message);
    } else if !outside.is_empty() && internal < known {
        let message = format!(
            "{known} addresses, but `egress.pool` has {internal}: write as many there, internal \
             ones like `{POOL}`"
        );
        let position = section.value.outside.as_ref().map_or(position, |at| at.position);
        faults.push(position, &section.key_of("outside"), message);
    }
}

pub(super) fn relay(
    raw: &At<RawConfig>,
    names: &Names<'_>,
    classes: &[Class],
    faults: &mut Faults,
) -> RelaySection {
    let section = raw.value.relay.as_ref().map(|section| &section.value);
    let listed = section.and_then(|section| section.r#for.as_ref());
    let rate = section.and_then(|section| section.rate.as_ref());
    RelaySection {
        allowed: names.resolve_all(listed, faults),
        rate: rate.filter(|at| at.value != "unlimited").and_then(|at| word(at, faults)),
        refused: section.map_or_else(Vec::new, |section| refused(&section.refuse, classes, faults)),
    }
}

/// Names of classes, in the order of the classes.
fn refused(list: &Texts, classes: &[Class], faults: &mut Faults) -> Vec<String> {
    let names = || classes.iter().map(|class| class.name.as_str());
    for at in items(list) {
        if !names().any(|name| name == at.value) {
            let value = at.value.escape_debug();
            faults.at(at, format!("there is no class `{value}`: {}", hint(&at.value, names)));
        }
    }
    let listed = |name: &&str| items(list).iter().any(|at| at.value == *name);
    names().filter(listed).map(str::to_owned).collect()
}

/// Without `via`: our own exit if we are one, then the peers that are, in the order of the file.
pub(super) fn internet(
    raw: &At<RawConfig>,
    names: &Names<'_>,
    local: bool,
    faults: &mut Faults,
) -> InternetVia {
    let listed = raw.value.internet.as_ref().and_then(|section| section.value.via.as_ref());
    match listed {
        Some(list) => via(list, names, local, faults),
        None => {
            let own = local.then_some(ExitPoint::Local);
            let all = own.into_iter().chain(names.exits().map(ExitPoint::Peer));
            InternetVia::Ordered(all.collect())
        }
    }
}

/// Without `via_ipv6`: nobody, because few exits have IPv6.
pub(super) fn internet_ipv6(
    raw: &At<RawConfig>,
    names: &Names<'_>,
    local: bool,
    faults: &mut Faults,
) -> InternetVia {
    let listed = raw.value.internet.as_ref().and_then(|section| section.value.via_ipv6.as_ref());
    listed.map_or(InternetVia::Ordered(Vec::new()), |list| via(list, names, local, faults))
}

/// IPv6 goes through the overlay only where the TUN has an address of it; else it would go beside.
pub(super) fn check_ipv6(raw: &At<RawConfig>, tun: &TunSection, faults: &mut Faults) {
    if tun.address.iter().any(|address| address.addr().is_ipv6()) {
        return;
    }
    let what = "`tun.address` has no IPv6 address: IPv6 would go past the tunnel; add one";
    let file = &raw.value;
    if let Some(at) = file.internet.as_ref().and_then(|section| section.value.via_ipv6.as_ref())
        && !at.value.is_empty()
    {
        faults.at(at, what);
    }
    if let Some(at) = file.nat.as_ref().and_then(|section| section.value.prefixes.as_ref())
        && !at.value.is_empty()
    {
        faults.at(at, what);
    }
}

/// Without `nat64`: the well-known prefix.
pub(super) fn nat64(raw: &At<RawConfig>, faults: &mut Faults) -> Option<Nat64Prefix> {
    let written = raw.value.internet.as_ref().and_then(|section| section.value.nat64.as_ref());
    let Some(at) = written else { return Some(Nat64Prefix::WELL_KNOWN) };
    if at.value == "off" {
        return None;
    }
    let IpNet::V6(net) = network(at, faults)? else {
        super::refuse(at, "not an IPv6 network: write one like `64:ff9b::/96`, or `off`", faults);
        return None;
    };
    let prefix = Nat64Prefix::new(net);
    if prefix.is_none() {
        super::refuse(at, "the length must be 32, 40, 48, 56, 64 or 96 (RFC 6052)", faults);
    }
    prefix
}

fn via(
    list: &At<Vec<At<String>>>,
    names: &Names<'_>,
    local: bool,
    faults: &mut Faults,
) -> InternetVia {
    if let [at] = list.value.as_slice()
        && at.value == "auto"
    {
        if !local && names.exits().next().is_none() {
            let message = "`auto` has nothing to choose from: no peer has `egress: true`, and \
                           `egress.enabled` is false here";
            faults.at(at, message);
        }
        return InternetVia::Auto;
    }
    let mut exits = Vec::new();
    for at in &list.value {
        let Some(exit) = exit_point(at, names, local, faults) else { continue };
        if exits.contains(&exit) {
            faults.at(at, format!("`{}` is listed twice", at.value));
        } else {
            exits.push(exit);
        }
    }
    InternetVia::Ordered(exits)
}

pub(super) fn exit_point(
    at: &At<String>,
    names: &Names<'_>,
    local: bool,
    faults: &mut Faults,
) -> Option<ExitPoint> {
    match at.value.as_str() {
        "auto" => {
            faults.at(at, "`auto` stands alone: write `via: auto`, or list exits by name");
            None
        }
        "local" => {
            if !local {
                let message = "`local` is no exit here: set `egress.enabled: true`, with `for: []` \
                               to keep it to yourself";
                faults.at(at, message);
            }
            local.then_some(ExitPoint::Local)
        }
        name => {
            let peer = names.resolve(at, &["local"], faults)?;
            if !names.exits().any(|exit| exit == peer) {
                let message = format!(
                    "peer `{name}` may not be an exit: set `peers[{}].egress: true`",
                    peer.0
                );
                faults.at(at, message);
            }
            Some(ExitPoint::Peer(peer))
        }
    }
}
