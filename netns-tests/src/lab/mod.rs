//! The laboratory: sites, gateways, hosts and an Internet, in network namespaces.
//!
//! A scenario describes a [`Topology`], starts a [`Lab`] from it, and then does what people and
//! the world do: hosts run ping, curl and iperf3, links fail, gateways are killed. Nothing in it
//! is simulated but the wide-area links, which the emulator in [`crate::wan`] makes.
//!
//! ```text
//!   mit-h1 ──eth0 ┐               ┌ wan0 ─ mit-isp1 ─┐           ┌─ utah-isp1 ─ wan0 ┐
//!                 ├─ lan0 ─ mit ──┤                  │ emulated  │                   ├ utah ─ ...
//!   mit-h2 ──eth0 ┘   (rongate)   └ wan1 ─ mit-isp2 ─┤  links    ├─ internet ─ wan0 ─┘
//!                                                    └───────────┘      └─ srv0 ── server
//! ```
//!
//! Files: `enter` makes the namespaces a whole laboratory lives and dies in, `topology` is the
//! description, `build` makes it real, `underlay` and `overlay_config` derive the emulator's and
//! the gateways' configuration; `gateway` and `host` are what scenarios act on, `tick` and
//! `capture` what they measure with, `harness` runs them.

pub mod addresses;
mod build;
pub mod capture;
pub mod clock;
pub mod dns;
pub mod enter;
pub mod gateway;
pub mod harness;
pub mod host;
pub mod netns;
pub mod overlay_config;
pub mod payload;
pub mod process;
pub mod programs;
pub mod reports;
mod sys;
pub mod tick;
pub mod tools;
pub mod topology;
mod underlay;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use addresses::{Plan, server_address};
pub use capture::{Capture, Captured};
pub use clock::wait_until;
pub use gateway::{Gateway, Status};
pub use harness::Scenario;
pub use host::{Download, Host, Ticks};
pub use netns::Netns;
pub use process::{Finished, Process};
pub use topology::{Family, Site, Topology, Underlay};

use build::Namespaces;

use crate::wan::{Control, Report, WanEmulator};

/// A running laboratory. Must be started inside namespaces of its own: see [`enter`].
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    directory: PathBuf,
    // Dropped in this order: gateways first, the emulated wires last.
    gateways: BTreeMap<String, Gateway>,
    servers: Vec<Process>,
    emulator: Option<WanEmulator>,
    namespaces: Namespaces,
}

impl Lab {
    /// Builds the topology and starts the emulator and the Internet's servers; no gateways yet.
    pub fn start(topology: Topology) -> Result<Self> {
        topology.validate()?;
        let directory = PathBuf::from(enter::DIRECTORY);
        ensure!(directory.is_dir(), "not inside a laboratory's namespaces");
        let namespaces = build::build(&topology)?;
        let mut lab = Self {
            topology,
            directory,
            gateways: BTreeMap::new(),
            servers: Vec::new(),
            emulator: None,
            namespaces,
        };
        lab.start_underlay()?;
        lab.start_servers()?;
        Ok(lab)
    }

    fn start_underlay(&mut self) -> Result<()> {
        match self.topology.underlay {
            Underlay::Wire => build::build_wire(&self.topology, &self.namespaces)?,
            Underlay::Emulated => {
                let scenario = serde_yaml::from_value(underlay::wan_scenario(&self.topology)?)
                    .context("the WAN plan of the topology")?;
                self.emulator = Some(WanEmulator::spawn(&scenario)?);
            }
        }
        build::add_uplink_routes(&self.topology, &self.namespaces)
    }

    fn start_servers(&mut self) -> Result<()> {
        let Some(internet) = &self.topology.internet else { return Ok(()) };
        let addresses: Vec<IpAddr> = (0..internet.servers)
            .map(server_address)
            .flat_map(|(v4, v6)| [v4.into(), v6.into()])
            .collect();
        let server = self.server()?;
        let process = server.start_servers(&addresses)?;
        self.servers.push(process);
        self.servers.push(server.start_iperf()?);
        Ok(())
    }

    /// What was built.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A namespace: a site's name for its gateway, `SITE-h1` for a host, `internet`, `server`.
    pub fn netns(&self, name: &str) -> Result<&Netns> {
        self.namespaces.get(name).with_context(|| format!("no namespace {name}"))
    }

    /// The names of all namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Host 1, 2 ... of a site.
    pub fn host(&self, site: &str, number: u8) -> Result<Host> {
        let (v4, v6) = self.topology.plan(site)?.host(number);
        let netns = self.netns(&format!("{site}-h{number}"))?.clone();
        Ok(Host { netns, directory: self.directory.clone(), v4, v6 })
    }

    /// The first server of the Internet.
    pub fn server(&self) -> Result<Host> {
        let (v4, v6) = server_address(0);
        let netns = self.netns("server")?.clone();
        Ok(Host { netns, directory: self.directory.clone(), v4, v6 })
    }

    /// The gateway machine of a site seen as a host: a router's own programs run there. Its
    /// addresses are those in the LAN.
    pub fn router(&self, site: &str) -> Result<Host> {
        let (v4, v6) = self.topology.plan(site)?.gateway();
        Ok(Host { netns: self.netns(site)?.clone(), directory: self.directory.clone(), v4, v6 })
    }

    /// Makes keys and configurations of all gateways, without starting them.
    pub fn prepare_gateways(&mut self) -> Result<()> {
        let mut keys = BTreeMap::new();
        let site_directory = |site: &str| self.directory.join(site);
        for site in self.topology.overlay_sites() {
            let directory = site_directory(&site.name);
            fs::create_dir_all(directory.join("state"))?;
            let key = gateway::generate_key(&directory.join(format!("{}.key", site.name)))?;
            keys.insert(site.name.clone(), key);
        }
        for site in self.topology.overlay_sites() {
            let directory = site_directory(&site.name);
            let config = overlay_config::gateway_config(&self.topology, site, &keys, &directory)?;
            let netns = self.netns(&site.name)?.clone();
            let gateway = Gateway::new(&site.name, netns, directory, config);
            gateway.write_config()?;
            self.gateways.insert(site.name.clone(), gateway);
        }
        Ok(())
    }

    /// Starts every gateway and waits until each has a way to each.
    pub fn start_gateways(&mut self) -> Result<()> {
        if self.gateways.is_empty() {
            self.prepare_gateways()?;
        }
        for gateway in self.gateways.values_mut() {
            gateway.spawn()?;
        }
        for gateway in self.gateways.values_mut() {
            gateway.wait_ready()?;
        }
        for (site, gateway) in &self.gateways {
            for peer in self.gateways.keys().filter(|peer| *peer != site) {
                gateway.wait_reachable(peer, Duration::from_secs(10))?;
            }
        }
        Ok(())
    }

    /// The gateway of a site, after [`Self::prepare_gateways`].
    pub fn gateway(&mut self, site: &str) -> Result<&mut Gateway> {
        self.gateways.get_mut(site).with_context(|| format!("no gateway at {site}"))
    }

    /// The running WAN emulator; its ends are attachments.
    pub fn wan(&self) -> Result<&Control> {
        Ok(self.emulator.as_ref().context("this laboratory has no emulator")?.control())
    }

    /// Changes the links between two ends (attachments, sites or `*`) in both directions; `set` as
    /// in `{delay: 80ms}`.
    pub fn set_links(&self, a: &str, b: &str, set: &str) -> Result<()> {
        for (from, to) in underlay::pairs(&self.topology, a, b)? {
            self.wan()?.set_both(&from, &to, set)?;
        }
        Ok(())
    }

    /// Changes the links of one direction.
    pub fn set_links_one_way(&self, from: &str, to: &str, set: &str) -> Result<()> {
        for (from, to) in underlay::pairs(&self.topology, from, to)? {
            self.wan()?.set(&from, &to, set)?;
        }
        Ok(())
    }

    /// A silent outage: nothing passes between two ends any more, and nobody is told.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.set_links(a, b, "{down: true}")
    }

    /// Like [`Self::cut`] in one direction only.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        self.set_links_one_way(from, to, "{down: true}")
    }

    /// The end of [`Self::cut`].
    pub fn heal(&self, a: &str, b: &str) -> Result<()> {
        self.set_links(a, b, "{down: false}")
    }

    /// Ends the emulator and returns its report; an error if its figures are not to be trusted.
    pub fn finish(mut self) -> Result<Report> {
        self.gateways.clear();
        self.servers.clear();
        self.emulator.take().context("this laboratory has no emulator")?.finish()
    }

    /// Moves the first uplink of a site to the next address of its network, as a provider that
    /// renumbers a customer does: the old address is gone at once.
    pub fn renumber(&self, site: &str) -> Result<IpAddr> {
        let (v4, v6) = self.topology.plan(site)?.uplink(0);
        let (new4, new6) = (next4(v4.addr()), v6.addr());
        let netns = self.netns(site)?;
        netns.ip(&format!(
            "address delete {v4} dev wan0\naddress add {new4}/{bits} dev wan0\n\
             route replace default dev wan0 metric 100",
            bits = v4.prefix_len()
        ))?;
        match self.topology.outer {
            Family::V4 => Ok(new4.into()),
            Family::V6 => Ok(new6.into()),
        }
    }
}

impl Drop for Lab {
    /// Leaves what the gateways say of themselves at the end among the logs, for failed scenarios.
    fn drop(&mut self) {
        for gateway in self.gateways.values() {
            if let Ok(status) = gateway.status() {
                let text = format!("{:#}\n", status.0);
                let _ = fs::write(self.directory.join(gateway.site()).join("status.log"), text);
            }
        }
    }
}

fn next4(address: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    (u32::from(address) + 1).into()
}
