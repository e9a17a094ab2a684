//! `nat`: what the exit's NAT holds, for how long, and how it behaves.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::limits::{seconds, shares};
use super::networks::{Claims, Kind};
use super::{choice, duration, items, network, number, refuse, word, word_or};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawForward, RawNat, RawPrefixes, Text};
use crate::config::types::{EgressMode, EgressSection, Forward, LanSection, NatSection, Peer};
use crate::config::units::parse_duration;
use crate::id::PeerIndex;
use crate::nat::{
    Behaviour, Dependence, NatLimits, NatPolicy, NatTimers, PREFIX_LEN_MAX, PerTransport,
    PrefixPair, Realm, Refusal, Reuse, Transport,
};

/// Mappings in all, at most.
const MAX: u64 = 4_194_304;
/// Remote UDP ports with times of their own, at most: each packet looks through them.
const UDP_PORTS_MAX: usize = 16;
/// Such times are for well-known services (RFC 4787 REQ-5 a).
const WELL_KNOWN: u16 = 1024;
/// What one site may have.
const SITE_PERCENT: u8 = 75;
const FORWARDS_MAX: usize = 4_096;
const BYPASS_MAX: usize = 64;
/// Each packet of IPv6 looks through them.
const PREFIXES_MAX: usize = 64;

/// What the rest of the file says that matters here.
pub(super) struct Surroundings<'a> {
    pub(super) egress: Option<&'a EgressSection>,
    pub(super) lan: &'a LanSection,
    pub(super) peers: &'a [Option<Peer>],
}

pub(super) fn nat(
    raw: Option<&RawNat>,
    around: &Surroundings<'_>,
    claims: &mut Claims,
    faults: &mut Faults,
) -> NatSection {
    let raw = raw.cloned().unwrap_or_default();
    let bypass: Vec<_> = items(&raw.bypass).iter().filter_map(|at| network(at, faults)).collect();
    if let Some(at) = raw.bypass.as_ref().filter(|_| bypass.len() > BYPASS_MAX) {
        faults.at(at, format!("{} networks are too many: at most {BYPASS_MAX}", bypass.len()));
    }
    let forwards = raw.forwards.as_ref().map_or(&[][..], |list| &list.value);
    if let Some(at) = raw.forwards.as_ref().filter(|_| forwards.len() > FORWARDS_MAX) {
        faults.at(at, format!("{} are too many: at most {FORWARDS_MAX}", forwards.len()));
    }
    let mut seen = Vec::new();
    for at in forwards {
        let Some(forward) = forward(at, around, faults) else { continue };
        let same = |other: &Forward| {
            (other.transport, other.port, other.address)
                == (forward.transport, forward.port, forward.address)
        };
        if seen.iter().any(same) {
            faults.at(at, "this outside endpoint is forwarded above already");
        }
        seen.push(forward);
    }
    NatSection {
        limits: limits(&raw, faults),
        timers: timers(&raw, faults),
        policy: policy(&raw, faults),
        pcp: raw.pcp.as_ref().is_some_and(|at| at.value),
        bypass,
        forwards: seen,
        prefixes: prefixes(&raw, around, claims, faults),
    }
}

fn prefixes(
    raw: &RawNat,
    around: &Surroundings<'_>,
    claims: &mut Claims,
    faults: &mut Faults,
) -> Vec<PrefixPair> {
    let listed = raw.prefixes.as_ref().map_or(&[][..], |list| &list.value);
    if let Some(at) = raw.prefixes.as_ref().filter(|_| listed.len() > PREFIXES_MAX) {
        faults.at(at, format!("{} are too many: at most {PREFIXES_MAX}", listed.len()));
    }
    listed.iter().filter_map(|at| prefix_pair(at, around, claims, faults)).collect()
}

fn prefix_pair(
    section: &At<RawPrefixes>,
    around: &Surroundings<'_>,
    claims: &mut Claims,
    faults: &mut Faults,
) -> Option<PrefixPair> {
    let mut prefix = |written: &Text, key: &str| {
        let Some(at) = written else {
            let what = "write an IPv6 prefix, like `fd00:2::/48`";
            faults.missing(section.position, &section.key_of(key), what);
            return None;
        };
        match network(at, faults)? {
            IpNet::V6(net) if net.prefix_len() <= PREFIX_LEN_MAX => Some((net, at.clone())),
            IpNet::V6(_) | IpNet::V4(_) => {
                let what = "not an IPv6 prefix of 64 bits or less: write one like `fd00:2::/48`";
                refuse(at, what, faults);
                None
            }
        }
    };
    let inside = prefix(&section.value.inside, "inside");
    let outside = prefix(&section.value.outside, "outside");
    let ((inside, inside_at), (outside, outside_at)) = (inside?, outside?);
    if inside.prefix_len() != outside.prefix_len() {
        let message = format!("`{outside}` is not as long as `{inside}`: write the same length");
        faults.at(&outside_at, message);
    }
    let [first, last] = [inside.network(), inside.broadcast()].map(|ip| owner(ip.into(), around));
    let Some(peer) = first.filter(|_| first == last) else {
        refuse(&inside_at, "no network of a peer has all of this prefix", faults);
        return None;
    };
    if peer.is_none() {
        let what = "it has hosts of ours: strangers would reach each of them, and this router; \
                    only prefixes of peers are exchanged";
        refuse(&inside_at, what, faults);
    }
    claims.add(outside.into(), Kind::Network, &outside_at);
    Some(PrefixPair { realm: peer.map_or(Realm::LOCAL, Realm::from), inside, outside })
}

fn limits(raw: &RawNat, faults: &mut Faults) -> NatLimits {
    let defaults = (262_144, 8_192);
    let (max, max_per_host) =
        shares(raw.max.as_ref(), raw.max_per_host.as_ref(), defaults, MAX, faults);
    let mut share = |at: Option<&At<u64>>| {
        at.and_then(|at| number(at, 1..=u64::from(max_per_host), faults)).unwrap_or(max_per_host)
    };
    let per_transport = PerTransport {
        tcp: share(raw.tcp_per_host.as_ref()),
        udp: share(raw.udp_per_host.as_ref()),
        icmp: share(raw.icmp_per_host.as_ref()),
        other: max_per_host,
    };
    let rate = raw.rate_per_host.as_ref().and_then(|at| number(at, 0..=1_000_000, faults));
    NatLimits {
        per_transport,
        realm_percent: raw
            .site_percent
            .as_ref()
            .and_then(|at| number(at, 1..=100, faults))
            .unwrap_or(SITE_PERCENT),
        rate_per_host: rate.filter(|rate| *rate > 0),
        ..NatLimits::of_mappings(max, max_per_host)
    }
}

fn timers(raw: &RawNat, faults: &mut Faults) -> NatTimers {
    let defaults = NatTimers::default();
    let mut timer = |written: &Text, low: u64, default: Duration| {
        let written = written.as_ref();
        written.and_then(|at| duration(at, seconds(low, 604_800), faults)).unwrap_or(default)
    };
    let tcp_closing = timer(&raw.tcp_transitory, 240, defaults.tcp_closing);
    let timers = NatTimers {
        udp: timer(&raw.udp, 120, defaults.udp),
        udp_ports: Vec::new(),
        udp_inbound_refresh: raw.udp_inbound_refresh.as_ref().is_some_and(|at| at.value),
        icmp: timer(&raw.icmp, 60, defaults.icmp),
        other: timer(&raw.other, 120, defaults.other),
        tcp_established: timer(&raw.tcp_established, 7_440, defaults.tcp_established),
        tcp_opening: timer(&raw.tcp_opening, 240, tcp_closing),
        tcp_closing,
        quarantine: timer(&raw.quarantine, 0, defaults.quarantine),
        fragments: defaults.fragments,
    };
    let listed = items(&raw.udp_ports).iter();
    let udp_ports: Vec<_> = listed.filter_map(|at| udp_port(at, faults)).collect();
    if let Some(at) = raw.udp_ports.as_ref().filter(|_| udp_ports.len() > UDP_PORTS_MAX) {
        faults.at(at, format!("{} ports are too many: at most {UDP_PORTS_MAX}", udp_ports.len()));
    }
    NatTimers { udp_ports, ..timers }
}

/// A port and a time, like `53 30s`.
fn udp_port(at: &At<String>, faults: &mut Faults) -> Option<(u16, Duration)> {
    let what = "not a port with its time: write both, like `53 30s`";
    let parsed = at.value.split_once(' ').and_then(|(port, time)| {
        Some((port.parse::<u16>().ok()?, parse_duration(time.trim()).ok()?))
    });
    let Some((port, time)) = parsed else {
        refuse(at, what, faults);
        return None;
    };
    if port == 0 || port >= WELL_KNOWN {
        refuse(at, "only well-known ports, 1 to 1023, may have times of their own", faults);
    }
    if !seconds(1, 604_800).contains(&time) {
        refuse(at, "the time is out of bounds: use 1s to 168h", faults);
    }
    Some((port, time))
}

fn policy(raw: &RawNat, faults: &mut Faults) -> NatPolicy {
    let kinds = [
        ("endpoint-independent", Dependence::EndpointIndependent),
        ("address", Dependence::Address),
        ("address-and-port", Dependence::AddressAndPort),
    ];
    let mut kind = |written: &Text, default: Dependence| {
        written.as_ref().and_then(|at| choice(at, &kinds, faults)).unwrap_or(default)
    };
    let mapping = kind(&raw.mapping, Dependence::default());
    let filtering = kind(&raw.filtering, Dependence::default());
    let mut of = |own_mapping, own_filtering| Behaviour {
        mapping: kind(own_mapping, mapping),
        filtering: kind(own_filtering, filtering),
    };
    let tcp = of(&raw.mapping_tcp, &raw.filtering_tcp);
    let udp = of(&raw.mapping_udp, &raw.filtering_udp);
    let icmp = of(&raw.mapping_icmp, &raw.filtering_icmp);
    let reuse = [("never", Reuse::Never), ("when_full", Reuse::WhenFull)];
    let refusal = [
        ("prohibited", Refusal::Prohibited),
        ("unreachable", Refusal::Unreachable),
        ("silent", Refusal::Silent),
    ];
    let answers = [("unreachable", true), ("silent", false)];
    NatPolicy {
        tcp,
        udp,
        icmp,
        reuse: raw.reuse.as_ref().and_then(|at| choice(at, &reuse, faults)).unwrap_or_default(),
        parity: raw.parity.as_ref().is_none_or(|at| at.value),
        refusal: raw
            .refusal
            .as_ref()
            .and_then(|at| choice(at, &refusal, faults))
            .unwrap_or_default(),
        answer_unsolicited: raw
            .unsolicited
            .as_ref()
            .and_then(|at| choice(at, &answers, faults))
            .unwrap_or(true),
        events: false,
    }
}

fn forward(
    section: &At<RawForward>,
    around: &Surroundings<'_>,
    faults: &mut Faults,
) -> Option<Forward> {
    let raw = &section.value;
    let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];
    let transport = match &raw.protocol {
        None => Some(Transport::Tcp),
        Some(at) => choice(at, &transports, faults),
    };
    let port: Option<u16> = match &raw.port {
        Some(at) => number(at, 1..=65_535, faults),
        None => {
            faults.missing(section.position, &section.key_of("port"), "write the outside port");
            None
        }
    };
    if let (Some(at), Some(port), Some(egress)) = (&raw.port, port, around.egress)
        && egress.mode != EgressMode::Routed
        && !egress.ports.contains(&port)
    {
        let (low, high) = egress.ports.clone().into_inner();
        let message = format!("{port} is not the NAT's: outside mode `routed` use {low} to {high}");
        faults.at(at, message);
    }
    let address = raw.address.as_ref().and_then(|at| address(at, around, faults));
    let Some(to) = &raw.to else {
        let what = "write the inside endpoint, like `10.2.0.5:443`";
        faults.missing(section.position, &section.key_of("to"), what);
        return None;
    };
    let what = "not an address with a port: write one like `10.2.0.5:443`";
    let inside: std::net::SocketAddr = word_or(to, what, faults)?;
    if address.is_some_and(|address| address.is_ipv6() && inside.is_ipv4()) {
        refuse(to, "its outside address is IPv6: write an inside endpoint of IPv6", faults);
    }
    let Some(peer) = owner(inside.ip(), around) else {
        refuse(to, "no network of ours or of a peer has this address", faults);
        return None;
    };
    Some(Forward { transport: transport?, port: port?, address, to: inside, peer })
}

fn address(at: &At<String>, around: &Surroundings<'_>, faults: &mut Faults) -> Option<IpAddr> {
    let address: IpAddr = word(at, faults)?;
    let pool = around.egress.map_or(&[][..], |egress| &egress.pool);
    let pool_ipv6 = around.egress.map_or(&[][..], |egress| &egress.pool_ipv6);
    let known = pool.iter().any(|net| IpNet::V4(*net).contains(&address))
        || pool_ipv6.iter().any(|net| IpNet::V6(*net).contains(&address));
    if around.egress.is_some() && !known {
        refuse(at, "not an address of `egress.pool`", faults);
    }
    Some(address)
}

/// Whose host an address is: a peer's, or ours (none). The longest network decides.
fn owner(address: IpAddr, around: &Surroundings<'_>) -> Option<Option<PeerIndex>> {
    let mut best: Option<(u8, Option<PeerIndex>)> = None;
    let mut offer = |net: &IpNet, peer| {
        if net.contains(&address) && best.is_none_or(|(len, _)| len < net.prefix_len()) {
            best = Some((net.prefix_len(), peer));
        }
    };
    for net in &around.lan.networks {
        offer(net, None);
    }
    for (index, peer) in around.peers.iter().enumerate() {
        let Some(peer) = peer else { continue };
        let index = Some(PeerIndex(index as u16));
        peer.networks.iter().for_each(|net| offer(net, index));
        peer.address.iter().for_each(|address| offer(&IpNet::from(*address), index));
    }
    best.map(|(_, peer)| peer)
}
