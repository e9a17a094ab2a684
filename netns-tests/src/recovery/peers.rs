//! Other programs on the same sites: what each needs to carry hosts' packets by another path.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Peer;
use super::scene::SITES;
use crate::lab::process::run;
use crate::lab::{Lab, Netns, Plan, Process, enter, tools};

/// Making a key takes long at times.
const KEY: Duration = Duration::from_secs(20);
const MTU: u32 = 1_400;

/// A site as a node of the other overlay.
struct Node<'l> {
    name: &'static str,
    plan: Plan,
    netns: &'l Netns,
}

impl Node<'_> {
    fn underlay(&self) -> Ipv4Addr {
        self.plan.uplink(0).0.addr()
    }

    fn inside(&self) -> Ipv4Addr {
        self.plan.overlay().0
    }

    fn lan(&self) -> String {
        self.plan.lan4().to_string()
    }

    /// A file of its own in the laboratory.
    fn file(&self, suffix: &str) -> PathBuf {
        Path::new(enter::DIRECTORY).join(format!("{}-peer{suffix}", self.name))
    }

    fn spawn(&self, program: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = self.netns.command(program);
        tools::with_libraries(command.args(arguments));
        Process::spawn(self.name, &mut command, &self.file(".log"))
    }
}

/// Starts a daemon at every site.
pub(super) fn start(peer: Peer, program: &Path, lab: &Lab) -> Result<Vec<Process>> {
    let mut nodes = Vec::new();
    for name in SITES {
        nodes.push(Node { name, plan: lab.topology().plan(name)?, netns: lab.netns(name)? });
    }
    match peer {
        Peer::OspfBfd => bird(program, &nodes),
        Peer::Babel => babel(program, &nodes),
        Peer::Tinc => tinc(program, &nodes),
        Peer::Nebula => nebula(program, &nodes),
    }
}

/// Every node but the one at `at`.
fn others<'n, 'l>(nodes: &'n [Node<'l>], at: usize) -> impl Iterator<Item = &'n Node<'l>> {
    nodes.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, node)| node)
}

/// A point-to-point VXLAN for each pair, so that a routing protocol sees links.
fn vxlan_mesh(nodes: &[Node<'_>]) -> Result<()> {
    let mut id = 10;
    for (at, a) in nodes.iter().enumerate() {
        for b in &nodes[at + 1..] {
            for (own, other, last) in [(a, b, 1), (b, a, 2)] {
                let device = format!("vx-{}", other.name);
                own.netns.ip(&format!(
                    "link add {device} mtu {MTU} type vxlan id {id} local {} remote {} \
                     dstport {} dev wan0 nolearning\n\
                     address add 10.9.{id}.{last}/30 dev {device}\nlink set {device} up",
                    own.underlay(),
                    other.underlay(),
                    4_789 + id
                ))?;
            }
            id += 1;
        }
    }
    Ok(())
}

fn bird(program: &Path, nodes: &[Node<'_>]) -> Result<Vec<Process>> {
    vxlan_mesh(nodes)?;
    nodes
        .iter()
        .map(|node| {
            let config = format!(
                "log stderr all;\nrouter id {};\nprotocol device {{}}\n\
                 protocol kernel {{ ipv4 {{ export all; }}; }}\n\
                 protocol bfd {{ interface \"vx-*\" {{ interval 100 ms; multiplier 3; }}; }}\n\
                 protocol ospf v2 {{ ipv4 {{ import all; }}; area 0 {{\n\
                 interface \"vx-*\" {{ type ptp; cost 10; bfd yes; }};\n\
                 interface \"lan0\" {{ stub yes; cost 1; }}; }}; }}\n",
                node.inside()
            );
            let (file, socket) = (node.file(".conf"), node.file(".ctl"));
            fs::write(&file, config)?;
            let (file, socket) = (file.to_string_lossy(), socket.to_string_lossy());
            node.spawn(program, &["-f", "-c", &file, "-s", &socket])
        })
        .collect()
}

fn babel(program: &Path, nodes: &[Node<'_>]) -> Result<Vec<Process>> {
    vxlan_mesh(nodes)?;
    let mut daemons = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let devices: Vec<_> = others(nodes, at).map(|other| format!("vx-{}", other.name)).collect();
        let mut config = format!(
            "smoothing-half-life 1\nredistribute ip {} allow\nredistribute local deny\n",
            node.lan()
        );
        for device in &devices {
            config += &format!(
                "interface {device} type tunnel hello-interval 0.2 update-interval 1 \
                 link-quality true\n"
            );
        }
        let (file, state, pid) = (node.file(".conf"), node.file(".state"), node.file(".pid"));
        fs::write(&file, config)?;
        let [file, state, pid] = [file, state, pid].map(|path| path.display().to_string());
        let mut arguments = vec!["-c", &file, "-S", &state, "-I", &pid];
        arguments.extend(devices.iter().map(String::as_str));
        daemons.push(node.spawn(program, &arguments)?);
    }
    Ok(daemons)
}

fn tinc(program: &Path, nodes: &[Node<'_>]) -> Result<Vec<Process>> {
    for (at, node) in nodes.iter().enumerate() {
        let directory = node.file("");
        fs::create_dir_all(directory.join("hosts"))?;
        let mut config = format!(
            "Name = {}\nInterface = tinc0\nAddressFamily = ipv4\nPingInterval = 1\n\
             PingTimeout = 1\nMaxTimeout = 5\n",
            node.name
        );
        let mut up = format!(
            "#!/bin/sh\nip addr add {}/24 dev tinc0\nip link set tinc0 mtu {MTU} up\n",
            node.inside()
        );
        for other in others(nodes, at) {
            config += &format!("ConnectTo = {}\n", other.name);
            up += &format!("ip route add {} dev tinc0\n", other.lan());
        }
        fs::write(directory.join("tinc.conf"), config)?;
        let host = format!(
            "Address = {}\nSubnet = {}/32\nSubnet = {}\n",
            node.underlay(),
            node.inside(),
            node.lan()
        );
        fs::write(directory.join("hosts").join(node.name), host)?;
        let script = directory.join("tinc-up");
        fs::write(&script, up)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let mut keys = Command::new(program);
        run(keys.arg("-c").arg(&directory).args(["-K", "2048"]), KEY)?.success()?;
    }
    for (at, node) in nodes.iter().enumerate() {
        for other in others(nodes, at) {
            let public = other.file("/hosts").join(other.name);
            fs::copy(public, node.file("/hosts").join(other.name))?;
        }
    }
    nodes
        .iter()
        .map(|node| {
            let directory = node.file("");
            let pid = format!("--pidfile={}", node.file(".pid").display());
            node.spawn(program, &["-c", &directory.to_string_lossy(), "-D", &pid])
        })
        .collect()
}

/// The last two sites relay; `nebula-cert` must be beside `program`.
fn nebula(program: &Path, nodes: &[Node<'_>]) -> Result<Vec<Process>> {
    let tool = program.with_file_name("nebula-cert");
    let certificate = |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        run(command.current_dir(enter::DIRECTORY).args(arguments), KEY)?
            .success()
            .context("nebula-cert")
    };
    certificate(&["ca", "-name", "lab"])?;
    for node in nodes {
        let (name, address) = (format!("{}-peer", node.name), format!("{}/24", node.inside()));
        certificate(&["sign", "-name", &name, "-ip", &address, "-subnets", &node.lan()])?;
    }
    let mut daemons = Vec::new();
    for at in 0..nodes.len() {
        let file = nodes[at].file(".yaml");
        fs::write(&file, serde_json::to_string(&nebula_config(nodes, at))?)?;
        daemons.push(nodes[at].spawn(program, &["-config", &file.to_string_lossy()])?);
    }
    Ok(daemons)
}

/// JSON is YAML too.
fn nebula_config(nodes: &[Node<'_>], at: usize) -> serde_json::Value {
    let node = &nodes[at];
    let is_relay = at >= 2;
    let relays: Vec<_> = nodes[2..].iter().map(|relay| relay.inside().to_string()).collect();
    let relays = if is_relay { Vec::new() } else { relays };
    let mut map = serde_json::Map::new();
    let mut routes = Vec::new();
    for other in others(nodes, at) {
        let inside = other.inside().to_string();
        map.insert(inside.clone(), json!([format!("{}:4242", other.underlay())]));
        routes.push(json!({ "route": other.lan(), "via": inside, "mtu": MTU }));
    }
    let anything = json!([{ "port": "any", "proto": "any", "host": "any" }]);
    json!({
        "pki": {
            "ca": Path::new(enter::DIRECTORY).join("ca.crt"),
            "cert": node.file(".crt"),
            "key": node.file(".key"),
        },
        "static_host_map": map,
        "lighthouse": { "am_lighthouse": is_relay, "hosts": relays },
        "listen": { "host": "0.0.0.0", "port": 4242 },
        "punchy": { "punch": true },
        "relay": { "am_relay": is_relay, "use_relays": true, "relays": relays },
        "timers": { "connection_alive_interval": 1, "pending_deletion_interval": 2 },
        "tun": { "dev": "neb0", "mtu": MTU, "tx_queue": 500, "unsafe_routes": routes },
        "logging": { "level": "info", "format": "text" },
        "firewall": {
            "conntrack": { "tcp_timeout": "12m", "udp_timeout": "3m", "default_timeout": "10m" },
            "outbound": anything,
            "inbound": anything,
        },
    })
}
