//! Brings a contender up on a site that was built.

mod nebula;
mod rongate;
mod tinc;
mod wireguard;
mod yardstick;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::contender::{INNER_MTU, Kind};
use super::site::{HOST_A, HOST_B, LEFT, RIGHT, Site};
use crate::lab::gateway::Gateway;
use crate::lab::process::{run, run_with_input};
use crate::lab::programs::find_program;
use crate::lab::{Netns, Process, enter, wait_until};

const PORT: u16 = 4_710;
const TOOL: Duration = Duration::from_secs(5);
/// How long a contender may take until full-sized packets pass.
const READY: Duration = Duration::from_secs(20);

/// The running daemons, from site a to site b.
pub(crate) enum Running {
    /// The kernel does it.
    Kernel,
    Rongate(Vec<Gateway>),
    /// Two gateways and what is between them.
    Between(Box<[Gateway; 2]>, Process),
    Other(Vec<Process>),
}

impl Running {
    /// The process ids.
    pub(crate) fn pids(&mut self) -> Result<Vec<u32>> {
        match self {
            Self::Kernel => Ok(Vec::new()),
            Self::Rongate(gateways) => {
                gateways.iter_mut().map(|gateway| Ok(gateway.process_mut()?.pid())).collect()
            }
            Self::Between(ends, relay) => {
                let [a, b] = &mut **ends;
                Ok(vec![a.process_mut()?.pid(), relay.pid(), b.process_mut()?.pid()])
            }
            Self::Other(daemons) => Ok(daemons.iter().map(Process::pid).collect()),
        }
    }

    /// Fails if one of them has ended.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self {
            Self::Kernel => Ok(()),
            Self::Rongate(gateways) => {
                gateways.iter_mut().try_for_each(|gateway| gateway.process_mut()?.ensure_running())
            }
            Self::Between(ends, relay) => {
                relay.ensure_running()?;
                ends.iter_mut().try_for_each(|gateway| gateway.process_mut()?.ensure_running())
            }
            Self::Other(daemons) => daemons.iter_mut().try_for_each(Process::ensure_running),
        }
    }

    /// What rongate dropped, by name and reason.
    pub(crate) fn drops(&self) -> Result<Value> {
        let Self::Rongate(gateways) = self else { return Ok(Value::Null) };
        let mut all = serde_json::Map::new();
        for gateway in gateways {
            all.insert(gateway.site().into(), json!(gateway.status()?.drops()));
        }
        Ok(all.into())
    }

    /// The largest number that any gateway's status has at a JSON pointer.
    pub(crate) fn largest(&self, pointer: &str) -> Result<f64> {
        let Self::Rongate(gateways) = self else { return Ok(0.0) };
        gateways.iter().try_fold(0.0, |largest, gateway| {
            Ok(f64::max(largest, gateway.status()?.number(pointer)?))
        })
    }
}

/// Starts the daemons and waits until the hosts reach each other with packets of full size.
pub(crate) fn start(kind: Kind, program: Option<&Path>, site: &Site) -> Result<Running> {
    let given = || program.with_context(|| format!("{}: no program was given", kind.name()));
    let running = match kind {
        Kind::Plain => plain(site)?,
        Kind::Masquerade => masquerade(site)?,
        Kind::Direct | Kind::Takeover | Kind::Exit | Kind::ExitRouted => {
            rongate::joined(kind, site)?
        }
        Kind::Relay => rongate::relayed(site)?,
        Kind::BareRelay => rongate::joined_by(site, |relay| {
            let ends = [LEFT[0], RIGHT[1]].map(|end| format!("{end}:{PORT}"));
            let listen = format!("0.0.0.0:{PORT}");
            let mut command = relay.command(find_program("bare-relay")?);
            command.args(["--listen", &listen, "--between", &ends[0], &ends[1]]);
            let log = PathBuf::from(enter::DIRECTORY).join("bare-relay.log");
            Process::spawn("bare-relay", &mut command, &log)
        })?,
        Kind::BareTunnel => yardstick::start("bare-tunnel", &[], site)?,
        Kind::BarePlain => yardstick::start("bare-tunnel", &["--plain"], site)?,
        Kind::Naive => yardstick::start("naive-tunnel", &[], site)?,
        Kind::Stock => yardstick::start("stock-tunnel", &[], site)?,
        Kind::StockTuned => yardstick::start("stock-tunnel", &["--tuned"], site)?,
        Kind::WireguardGo => wireguard::start(given()?, &["-f"], site)?,
        Kind::Boringtun | Kind::Gotatun => {
            wireguard::start(given()?, &["-f", "--disable-drop-privileges"], site)?
        }
        Kind::Nebula => nebula::start(given()?, site)?,
        Kind::Tinc => tinc::start(given()?, site)?,
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
    site.gw_a.ip(&format!("route add {} via {}", lan_of(HOST_B), LEFT[1]))?;
    site.gw_b.ip(&format!("route add {} via {}", lan_of(HOST_A), LEFT[0]))?;
    Ok(Running::Kernel)
}

fn masquerade(site: &Site) -> Result<Running> {
    site.gw_a.ip(&format!("route add default via {}", LEFT[1]))?;
    site.gw_b.ip(&format!("route add {} via {}", lan_of(HOST_A), LEFT[0]))?;
    let rules = "table ip outside { chain out { type nat hook postrouting priority srcnat; \
                 oifname lan0 masquerade; }; }\n";
    let mut nft = site.gw_b.command("nft");
    run_with_input(nft.args(["-f", "-"]), rules, TOOL)?.success()?;
    Ok(Running::Kernel)
}

/// One end of a tunnel of others' programs.
struct End<'s> {
    /// A name for interfaces and files.
    name: &'static str,
    netns: &'s Netns,
    /// Where the other end reaches it.
    underlay: Ipv4Addr,
    /// Its address inside the tunnel.
    inside: Ipv4Addr,
    /// A host of its network.
    host: Ipv4Addr,
}

fn ends(site: &Site) -> [End<'_>; 2] {
    [("peer-a", &site.gw_a, 0, HOST_A), ("peer-b", &site.gw_b, 1, HOST_B)].map(
        |(name, netns, at, host)| End {
            name,
            netns,
            underlay: LEFT[at],
            inside: overlay(at as u8 + 1),
            host,
        },
    )
}

impl End<'_> {
    /// A file of its own in the laboratory.
    fn file(&self, suffix: &str) -> PathBuf {
        PathBuf::from(enter::DIRECTORY).join(format!("{}{suffix}", self.name))
    }

    fn spawn(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Process> {
        let program = program.as_ref();
        ensure!(program.is_file(), "{} is no file", program.display());
        let mut command = self.netns.command(program);
        Process::spawn(self.name, command.args(arguments), &self.file(".log"))
    }

    /// Gives the interface its address and the route to the other network.
    fn address(&self, interface: &str, other: &End<'_>) -> Result<()> {
        self.netns.ip(&format!(
            "address replace {}/24 dev {interface}\nlink set {interface} mtu {INNER_MTU} up\n\
             route replace {} dev {interface}",
            self.inside,
            lan_of(other.host)
        ))
    }

    fn wait_interface(&self, interface: &str, daemon: &mut Process) -> Result<()> {
        wait_until(&format!("{} has {interface}", self.name), TOOL, || {
            daemon.ensure_running()?;
            self.netns.ip_output(&["link", "show", interface]).map(|_| ())
        })
    }
}

/// What a tool prints, without the end of line.
fn ask(command: &mut Command, input: &str) -> Result<String> {
    Ok(run_with_input(command, input, TOOL)?.success()?.stdout.trim().to_owned())
}

/// The network of a host.
fn lan_of(host: Ipv4Addr) -> String {
    let [a, b, c, _] = host.octets();
    format!("{a}.{b}.{c}.0/24")
}

/// The address of a node inside the overlay.
fn overlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}
