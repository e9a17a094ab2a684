//! A [`Config`] as a file would have it: every key with its value, in the order and the spelling of
//! `config.example.yaml`. What is read from that file is the same [`Config`] again. Keys are named
//! by their files; no secret is in it.

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::types::{
    Config, EgressMode, EgressSection, InternetVia, OnFailure, RoutingSection, SyslogService,
    UdpGso,
};
use super::units::format_duration;
use super::written_class::ClassSection;
use super::written_nat::Nat;
use crate::flow::ExitPoint;
use crate::id::PeerIndex;
use crate::packet::protocol;

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Document::new(self).serialize(serializer)
    }
}

/// A value that is a number where it can be one.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Word {
    Number(u64),
    Text(String),
    List(Vec<Self>),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u8> for Word {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Word {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

#[derive(Serialize)]
struct Document<'c> {
    node: Node<'c>,
    control: Control<'c>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Http>,
    tun: Tun<'c>,
    lan: Lan<'c>,
    uplinks: Vec<Uplink<'c>>,
    egress: Egress<'c>,
    relay: Relay<'c>,
    peers: Vec<Peer<'c>>,
    classes: Vec<ClassSection<'c>>,
    internet: Internet,
    probing: Probing,
    routing: Routing,
    flows: Bounds,
    nat: Nat,
    #[serde(skip_serializing_if = "NatLog::is_empty")]
    nat_log: NatLog<'c>,
    tunnel: Tunnel,
    log: &'c str,
}

#[derive(Serialize)]
struct Node<'c> {
    name: &'c str,
    private_key_file: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    preshared_key_file: Option<&'c str>,
    state_dir: &'c Path,
}

#[derive(Serialize)]
struct Control<'c> {
    socket: &'c Path,
}

#[derive(Serialize)]
struct Http {
    listen: String,
}

#[derive(Serialize)]
struct Tun<'c> {
    name: &'c str,
    address: &'c [IpNet],
    mtu: Word,
}

#[derive(Serialize)]
struct Lan<'c> {
    interfaces: &'c [String],
    networks: &'c [IpNet],
    bypass: &'c [IpNet],
    on_failure: &'static str,
}

#[derive(Serialize)]
struct Uplink<'c> {
    name: &'c str,
    interface: &'c str,
    listen: String,
    gso: &'static str,
}

#[derive(Serialize)]
struct Egress<'c> {
    enabled: bool,
    #[serde(flatten)]
    offer: Option<Offer<'c>>,
}

#[derive(Serialize)]
struct Offer<'c> {
    mode: &'static str,
    pool: Vec<IpNet>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    outside: &'c [Ipv4Addr],
    ports: String,
    r#for: Vec<&'c str>,
    deny: &'c [IpNet],
    allow: &'c [IpNet],
}

#[derive(Serialize)]
struct Relay<'c> {
    r#for: Vec<&'c str>,
    rate: String,
    refuse: &'c [String],
}

#[derive(Serialize)]
struct Peer<'c> {
    name: &'c str,
    public_key: String,
    endpoints: Vec<String>,
    address: &'c [std::net::IpAddr],
    networks: &'c [IpNet],
    relay: bool,
    egress: bool,
}

#[derive(Serialize)]
struct Internet {
    via: Word,
    via_ipv6: Word,
    nat64: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    servers: Vec<String>,
}

#[derive(Serialize)]
struct Probing {
    budget: String,
}

#[derive(Serialize)]
struct Routing {
    smoothing: String,
    free_loss: f64,
    loss_penalty: String,
    least_loss: f64,
    margin: f64,
    margin_latency: String,
    margin_jitter: f64,
    margin_loss: f64,
    margin_throughput: f64,
    hold_down: String,
    backoff: Backoff,
    copies: String,
}

#[derive(Serialize)]
struct Backoff {
    base: String,
    factor: u32,
    longest: String,
    forget: String,
}

#[derive(Serialize)]
struct Bounds {
    max: u32,
    max_per_host: u32,
}

#[derive(Serialize)]
struct NatLog<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'c Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syslog: Option<String>,
}

impl NatLog<'_> {
    const fn is_empty(&self) -> bool {
        self.file.is_none() && self.syslog.is_none()
    }
}

#[derive(Serialize)]
struct Tunnel {
    suites: Vec<&'static str>,
}

impl<'c> Document<'c> {
    fn new(config: &'c Config) -> Self {
        Self {
            node: Node {
                name: &config.node.name,
                private_key_file: &config.node.private_key_file,
                preshared_key_file: config.node.preshared_key_file.as_deref(),
                state_dir: &config.node.state_dir,
            },
            control: Control { socket: &config.control.socket },
            http: config.http.map(|http| Http { listen: http.listen.to_string() }),
            tun: Tun {
                name: &config.tun.name,
                address: &config.tun.address,
                mtu: config.tun.mtu.map_or_else(|| "auto".into(), Word::from),
            },
            lan: lan(config),
            uplinks: config.uplinks.iter().map(uplink).collect(),
            egress: egress(config),
            relay: Relay {
                r#for: names(config, &config.relay.allowed),
                rate: config.relay.rate.map_or_else(|| "unlimited".into(), |r| r.to_string()),
                refuse: &config.relay.refused,
            },
            peers: config.peers.iter().map(peer).collect(),
            classes: config.classes.iter().map(|class| ClassSection::new(config, class)).collect(),
            internet: Internet {
                via: via(config, &config.internet),
                via_ipv6: via(config, &config.internet_ipv6),
                servers: config.servers.iter().map(server).collect(),
                nat64: config.nat64.map_or_else(|| "off".into(), |prefix| prefix.net().to_string()),
            },
            probing: Probing { budget: config.probing.budget.to_string() },
            routing: routing(&config.routing),
            flows: Bounds { max: config.flows.max, max_per_host: config.flows.max_per_host },
            nat: Nat::new(&config.nat),
            nat_log: nat_log(config),
            tunnel: Tunnel { suites: config.tunnel.suites.iter().map(|s| s.name()).collect() },
            log: &config.log,
        }
    }
}

fn routing(section: &RoutingSection) -> Routing {
    let RoutingSection { cost, backoff, .. } = section;
    Routing {
        smoothing: format_duration(section.smoothing),
        free_loss: cost.free_loss,
        loss_penalty: format_duration(cost.loss_penalty),
        least_loss: cost.least_loss,
        margin: section.margin,
        margin_latency: format_duration(section.margin_latency),
        margin_jitter: section.margin_jitter,
        margin_loss: section.margin_loss,
        margin_throughput: section.margin_throughput,
        hold_down: format_duration(section.hold_down),
        backoff: Backoff {
            base: format_duration(backoff.base),
            factor: backoff.factor,
            longest: format_duration(backoff.longest),
            forget: format_duration(backoff.forget),
        },
        copies: section.copies.to_string(),
    }
}

fn lan(config: &Config) -> Lan<'_> {
    Lan {
        interfaces: &config.lan.interfaces,
        networks: &config.lan.networks,
        bypass: &config.lan.bypass,
        on_failure: match config.lan.on_failure {
            OnFailure::Block => "block",
            OnFailure::Direct => "direct",
        },
    }
}

fn uplink(uplink: &super::Uplink) -> Uplink<'_> {
    Uplink {
        name: &uplink.name,
        interface: &uplink.interface,
        listen: uplink.listen.to_string(),
        gso: match uplink.gso {
            UdpGso::Auto => "auto",
            UdpGso::Off => "off",
        },
    }
}

fn server((end, number): &(std::net::SocketAddr, u8)) -> String {
    let name = if *number == protocol::UDP { "udp" } else { "tcp" };
    format!("{name} {end}")
}

fn pools(section: &EgressSection) -> Vec<IpNet> {
    let ipv4 = section.pool.iter().copied().map(IpNet::V4);
    ipv4.chain(section.pool_ipv6.iter().copied().map(IpNet::V6)).collect()
}

/// Of an exit that is not enabled, nothing else is known.
fn egress(config: &Config) -> Egress<'_> {
    let offer = config.egress.as_ref().map(|section| Offer {
        mode: match section.mode {
            EgressMode::Rewrite => "rewrite",
            EgressMode::Routed => "routed",
            EgressMode::Masquerade => "masquerade",
        },
        pool: pools(section),
        outside: &section.outside,
        ports: format!("{}-{}", section.ports.start(), section.ports.end()),
        r#for: names(config, &section.allowed),
        deny: &section.deny,
        allow: &section.allow,
    });
    Egress { enabled: offer.is_some(), offer }
}

fn peer(peer: &super::Peer) -> Peer<'_> {
    Peer {
        name: &peer.name,
        public_key: peer.public_key.to_string(),
        endpoints: peer.endpoints.iter().map(ToString::to_string).collect(),
        address: &peer.address,
        networks: &peer.networks,
        relay: peer.relay,
        egress: peer.egress,
    }
}

fn via(config: &Config, exits: &InternetVia) -> Word {
    match exits {
        InternetVia::Auto => "auto".into(),
        InternetVia::Ordered(exits) => {
            Word::List(exits.iter().filter_map(|exit| exit_name(config, *exit)).collect())
        }
    }
}

/// How an exit is written.
pub(super) fn exit_name(config: &Config, exit: ExitPoint) -> Option<Word> {
    match exit {
        ExitPoint::Local => Some("local".into()),
        ExitPoint::Peer(peer) => config.peer_name(peer).map(Word::from),
    }
}

fn nat_log(config: &Config) -> NatLog<'_> {
    let section = &config.nat_log;
    let syslog = section.syslog.as_ref().map(|syslog| match syslog {
        SyslogService::Local(path) => path.display().to_string(),
        SyslogService::Udp(address) => address.to_string(),
    });
    NatLog { file: section.file.as_deref(), syslog }
}

pub(super) fn names<'c>(config: &'c Config, peers: &[PeerIndex]) -> Vec<&'c str> {
    peers.iter().filter_map(|index| config.peer_name(*index)).collect()
}
