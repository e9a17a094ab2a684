//! Brings a contender up on a site that was built.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::contender::{INNER_MTU, Kind};
use super::site::{EXIT, HOST_A, HOST_B, LEFT, RIGHT, Site};
use crate::lab::gateway::{Gateway, generate_key};
use crate::lab::process::{run, run_with_input};
use crate::lab::{Netns, Process, enter, wait_until};

const PORT: u16 = 4_710;
const TOOL: Duration = Duration::from_secs(5);
/// How long a contender may take until full-sized packets pass.
const READY: Duration = Duration::from_secs(20);

/// The running daemons.
pub(crate) enum Running {
    /// The kernel does it.
    Kernel,
    Rongate(Vec<Gateway>),
    Wireguard(Vec<Process>),
}

impl Running {
    /// The process ids, from site a to site b.
    pub(crate) fn pids(&mut self) -> Result<Vec<u32>> {
        match self {
            Self::Kernel => Ok(Vec::new()),
            Self::Rongate(gateways) => {
                gateways.iter_mut().map(|gateway| Ok(gateway.process_mut()?.pid())).collect()
            }
            Self::Wireguard(daemons) => Ok(daemons.iter().map(Process::pid).collect()),
        }
    }

    /// What the daemons dropped, by name and reason.
    pub(crate) fn drops(&self) -> Result<Value> {
        let Self::Rongate(gateways) = self else { return Ok(Value::Null) };
        let mut all = serde_json::Map::new();
        for gateway in gateways {
            all.insert(gateway.site().into(), json!(gateway.status()?.drops()));
        }
        Ok(all.into())
    }
}

/// Starts the daemons and waits until the hosts reach each other with packets of full size.
pub(crate) fn start(kind: Kind, program: Option<&Path>, site: &Site) -> Result<Running> {
    let running = match kind {
        Kind::Plain => plain(site)?,
        Kind::Direct | Kind::Exit => rongate(kind, site)?,
        Kind::Relay => rongate_relayed(site)?,
        Kind::WireguardGo => {
            wireguard_go(program.context("wireguard-go: no program was given")?, site)?
        }
    };
    wait_until("full-sized packets between the hosts", READY, || {
        let size = (INNER_MTU - 28).to_string();
        let mut ping = site.host_a.command("ping");
        ping.args(["-n", "-c", "1", "-W", "1", "-M", "do", "-s", &size]);
        ping.arg(site.host_b.v4.to_string());
        run(&mut ping, TOOL)?.success()
    })?;
    Ok(running)
}

fn plain(site: &Site) -> Result<Running> {
    site.gw_a.ip(&format!("route add 10.2.0.0/24 via {}", LEFT[1]))?;
    site.gw_b.ip(&format!("route add 10.1.0.0/24 via {}", LEFT[0]))?;
    Ok(Running::Kernel)
}

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

fn rongate(kind: Kind, site: &Site) -> Result<Running> {
    let exit = kind == Kind::Exit;
    let mut uplinks_b = vec![("wan0", LEFT[1])];
    let mut more = [json!({}), json!({})];
    if exit {
        uplinks_b.push(("lan0", EXIT));
        more = [
            json!({ "internet": { "via": ["b"] } }),
            json!({ "egress": { "enabled": true, "mode": "rewrite" } }),
        ];
    }
    let [more_a, more_b] = more;
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

fn rongate_relayed(site: &Site) -> Result<Running> {
    let relay = site.relay.as_ref().context("the site has no relay")?;
    let running = launch(&[
        Member {
            name: "a",
            number: 1,
            netns: &site.gw_a,
            uplinks: vec![("wan0", LEFT[0])],
            lan: Some(HOST_A),
            calls: vec![("r", LEFT[1])],
            more: json!({}),
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
            more: json!({}),
        },
    ])?;
    if let Running::Rongate(gateways) = &running {
        gateways[0].wait_via("b", Some("r"), READY)?;
        gateways[2].wait_via("a", Some("r"), READY)?;
    }
    Ok(running)
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

fn lan_of(host: Ipv4Addr) -> String {
    let [a, b, c, _] = host.octets();
    format!("{a}.{b}.{c}.0/24")
}

fn overlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
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

fn wireguard_go(program: &Path, site: &Site) -> Result<Running> {
    ensure!(program.is_file(), "{} is no file", program.display());
    let ends = [
        ("wg-a", &site.gw_a, LEFT[0], overlay(1), HOST_A),
        ("wg-b", &site.gw_b, LEFT[1], overlay(2), HOST_B),
    ];
    let wg = |arguments: &[&str], input: &str| -> Result<String> {
        let finished = run_with_input(Command::new("wg").args(arguments), input, TOOL)?;
        Ok(finished.success()?.stdout.trim().to_owned())
    };
    let mut daemons = Vec::new();
    let mut keys = Vec::new();
    for (device, netns, ..) in ends {
        let mut command = netns.command(program);
        command.args(["-f", device]).env("WG_PROCESS_FOREGROUND", "1");
        let log = PathBuf::from(enter::DIRECTORY).join(format!("{device}.log"));
        daemons.push(Process::spawn(device, &mut command, &log)?);
        let private = wg(&["genkey"], "")?;
        let public = wg(&["pubkey"], &private)?;
        keys.push((private, public));
    }
    for (at, (device, netns, _, address, _)) in ends.into_iter().enumerate() {
        let (_, _, remote, remote_address, remote_host) = ends[1 - at];
        wait_until("wireguard-go is up", TOOL, || {
            daemons[at].ensure_running()?;
            let socket = format!("/var/run/wireguard/{device}.sock");
            ensure!(Path::new(&socket).exists(), "no {socket}");
            Ok(())
        })?;
        let file = PathBuf::from(enter::DIRECTORY).join(format!("{device}.conf"));
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n\
             Endpoint = {remote}:{PORT}\nAllowedIPs = {remote_address}/32, {}\n",
            keys[at].0,
            keys[1 - at].1,
            lan_of(remote_host),
        );
        fs::write(&file, text)?;
        let mut set = netns.command("wg");
        set.args(["setconf", device]).arg(&file);
        run(&mut set, TOOL)?.success()?;
        netns.ip(&format!(
            "address add {address}/24 dev {device}\nlink set {device} mtu {INNER_MTU} up\n\
             route add {} dev {device}",
            lan_of(remote_host)
        ))?;
    }
    site.gw_a.wait_reachable(IpAddr::V4(overlay(2)), READY)?;
    Ok(Running::Wireguard(daemons))
}
