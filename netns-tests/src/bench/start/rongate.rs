//! Our own gateways.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{PORT, READY, Running, lan_of, overlay};
use crate::bench::contender::{INNER_MTU, Kind};
use crate::bench::site::{EXIT, HOST_A, HOST_B, LEFT, POOL, RIGHT, Site};
use crate::lab::gateway::{Gateway, generate_key};
use crate::lab::{Netns, Process, enter};

/// One node of a rongate overlay as the harness describes it.
struct Member<'s> {
    name: &'static str,
    number: u8,
    netns: &'s Netns,
    /// Interfaces and addresses.
    uplinks: Vec<(&'static str, Ipv4Addr)>,
    lan: Option<Ipv4Addr>,
    /// Which peers it calls, where.
    calls: Vec<(&'static str, Ipv4Addr)>,
    /// Merged over its configuration.
    more: Value,
}

/// Two gateways with a link between them.
pub(super) fn joined(kind: Kind, site: &Site) -> Result<Running> {
    let exit = kind.is_exit();
    let mut uplinks_b = vec![("wan0", LEFT[1])];
    let takes_over = kind == Kind::Takeover;
    let [mut more_a, mut more_b] =
        [(); 2].map(|()| if takes_over { json!({}) } else { site_only() });
    if exit {
        uplinks_b.push(("lan0", EXIT));
        more_a = json!({ "internet": { "via": ["b"] } });
        // The default range with all ports that it may have, and a pool for many hosts.
        let mut egress = json!({ "enabled": true, "mode": "rewrite", "ports": "5000-65535" });
        if kind == Kind::ExitRouted {
            egress["mode"] = "routed".into();
            egress["pool"] = json!([POOL]);
        }
        more_b = json!({ "egress": egress });
    }
    launch(&[
        Member {
            name: "a",
            number: 1,
            netns: &site.gw_a,
            uplinks: vec![("wan0", LEFT[0])],
            lan: Some(HOST_A),
            calls: vec![("b", LEFT[1])],
            more: more_a,
        },
        Member {
            name: "b",
            number: 2,
            netns: &site.gw_b,
            uplinks: uplinks_b,
            lan: (!exit).then_some(HOST_B),
            calls: vec![("a", LEFT[0])],
            more: more_b,
        },
    ])
}

/// The hosts' default route is not taken over, as it is not by the other tunnels.
fn site_only() -> Value {
    json!({ "internet": { "via": [] } })
}

/// Two gateways that a third one joins.
pub(super) fn relayed(site: &Site) -> Result<Running> {
    let relay = site.relay.as_ref().context("the site has no relay")?;
    let running = launch(&[
        Member {
            name: "a",
            number: 1,
            netns: &site.gw_a,
            uplinks: vec![("wan0", LEFT[0])],
            lan: Some(HOST_A),
            calls: vec![("r", LEFT[1])],
            more: site_only(),
        },
        Member {
            name: "r",
            number: 3,
            netns: relay,
            uplinks: vec![("wan0", LEFT[1]), ("wan1", RIGHT[0])],
            lan: None,
            calls: vec![("a", LEFT[0]), ("b", RIGHT[1])],
            more: json!({}),
        },
        Member {
            name: "b",
            number: 2,
            netns: &site.gw_b,
            uplinks: vec![("wan0", RIGHT[1])],
            lan: Some(HOST_B),
            calls: vec![("r", RIGHT[0])],
            more: site_only(),
        },
    ])?;
    if let Running::Rongate(gateways) = &running {
        gateways[0].wait_via("b", Some("r"), READY)?;
        gateways[2].wait_via("a", Some("r"), READY)?;
    }
    Ok(running)
}

/// Two gateways that take a third node, which `start` starts, for each other.
pub(super) fn joined_by(
    site: &Site,
    start: impl FnOnce(&Netns) -> Result<Process>,
) -> Result<Running> {
    let relay = start(site.relay.as_ref().context("the site has no relay")?)?;
    let end = |name, number, netns, own, host, peer, seen| Member {
        name,
        number,
        netns,
        uplinks: vec![("wan0", own)],
        lan: Some(host),
        calls: vec![(peer, seen)],
        more: site_only(),
    };
    let running = launch(&[
        end("a", 1, &site.gw_a, LEFT[0], HOST_A, "b", LEFT[1]),
        end("b", 2, &site.gw_b, RIGHT[1], HOST_B, "a", RIGHT[0]),
    ])?;
    let Running::Rongate(gateways) = running else { bail!("no gateways") };
    let ends = <[Gateway; 2]>::try_from(gateways).ok().context("two gateways")?;
    Ok(Running::Between(Box::new(ends), relay))
}

/// Makes keys and configurations, starts all, waits for the tunnels.
fn launch(members: &[Member<'_>]) -> Result<Running> {
    let directory = |member: &Member<'_>| PathBuf::from(enter::DIRECTORY).join(member.name);
    let mut keys = Vec::new();
    for member in members {
        fs::create_dir_all(directory(member).join("state"))?;
        keys.push(generate_key(&directory(member).join("key"))?);
    }
    let mut gateways = Vec::new();
    for member in members {
        let peers: Vec<_> = members
            .iter()
            .zip(&keys)
            .filter(|(peer, _)| peer.name != member.name)
            .map(|(peer, key)| peer_entry(member, peer, key))
            .collect();
        let config = config(member, &directory(member), peers)?;
        let netns = member.netns.clone();
        let mut gateway = Gateway::new(member.name, netns, directory(member), config);
        gateway.spawn()?;
        gateways.push(gateway);
    }
    for gateway in &mut gateways {
        gateway.wait_ready()?;
    }
    for (gateway, member) in gateways.iter().zip(members) {
        for peer in members.iter().filter(|peer| peer.name != member.name) {
            gateway.wait_tunnel(peer.name, READY)?;
        }
    }
    Ok(Running::Rongate(gateways))
}

fn peer_entry(member: &Member<'_>, peer: &Member<'_>, key: &str) -> Value {
    let endpoints: Vec<_> = member
        .calls
        .iter()
        .filter(|(name, _)| *name == peer.name)
        .map(|(_, address)| format!("{address}:{PORT}"))
        .collect();
    json!({
        "name": peer.name,
        "public_key": key,
        "endpoints": endpoints,
        "address": [overlay(peer.number)],
        "networks": peer.lan.map(lan_of).into_iter().collect::<Vec<_>>(),
        "relay": true,
        "egress": true,
    })
}

fn config(member: &Member<'_>, directory: &Path, peers: Vec<Value>) -> Result<serde_yaml::Value> {
    let uplinks: Vec<_> = member
        .uplinks
        .iter()
        .map(|(interface, address)| {
            json!({
                "name": format!("isp-{interface}"),
                "interface": interface,
                "listen": format!("{address}:{PORT}"),
            })
        })
        .collect();
    let mut config = json!({
        "node": {
            "name": member.name,
            "private_key_file": "key",
            "state_dir": directory.join("state"),
        },
        "control": { "socket": directory.join("control.sock") },
        "tun": { "address": [format!("{}/24", overlay(member.number))], "mtu": INNER_MTU },
        "uplinks": uplinks,
        "peers": peers,
    });
    if let Some(host) = member.lan {
        config["lan"] = json!({ "interfaces": ["lan0"], "networks": [lan_of(host)] });
    }
    let more = member.more.as_object().context("more configuration is a mapping")?;
    for (key, value) in more {
        config[key] = value.clone();
    }
    Ok(serde_yaml::to_value(config)?)
}
