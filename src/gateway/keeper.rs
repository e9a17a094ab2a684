//! Keeps the host in step: routes and rules when addresses change, sockets when an uplink's
//! interface comes back or moves, timestamps on disk, and the configuration when asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use ipnet::IpNet;

use super::ask::{Answer, ExitChange, Line, ToLoop};
use super::control::Backend;
use super::kernel::{
    HostFacts, KernelSetup, OutsidePair, missing_command, outside_pairs, plan, uplink_address,
};
use super::logging;
use super::node_config::{self, closed_to_exit};
use super::status::{PacketFields, ReloadReport, Request};
use crate::config::{self, Config, UdpGso};
use crate::id::UplinkIndex;
use crate::io::clock::Clock;
use crate::io::files::TimestampKeeper;
use crate::io::netlink::Monitor;
use crate::io::underlay::UnderlaySocket;

/// Where an uplink's socket is bound: the address, and which incarnation of the interface.
pub(super) type Binding = Option<(SocketAddr, u32)>;

/// The control thread's half of the gateway.
pub(super) struct Keeper {
    /// To the loop.
    pub(super) line: Line<ToLoop>,
    /// What is in force.
    pub(super) config: Arc<Config>,
    /// Where it came from.
    pub(super) config_path: PathBuf,
    /// The kernel set-up.
    pub(super) kernel: KernelSetup,
    /// The host's notifications.
    pub(super) monitors: Vec<Monitor>,
    /// Handshake timestamps on disk.
    pub(super) timestamps: TimestampKeeper,
    /// The clock.
    pub(super) clock: Clock,
    /// How the sockets are bound.
    pub(super) bindings: Vec<Binding>,
    /// What the exit's addresses stand for, as the loop was told.
    pub(super) outside: Vec<OutsidePair>,
    /// What the exit's users may not reach, as the loop was told.
    pub(super) closed: Vec<IpNet>,
    /// The networks of our LAN's interfaces, as the loop was told.
    pub(super) lan_networks: Vec<(String, IpNet)>,
    /// The last complaint, so that it is not repeated every second.
    pub(super) complaint: String,
    /// The host changed and was not looked at yet.
    pub(super) stale: bool,
}

impl Keeper {
    /// What the plan for the kernel depends on.
    fn look(&mut self) -> anyhow::Result<HostFacts> {
        // Only the uplinks' routers are of interest, and only where there are several.
        Ok(if self.config.uplinks.len() > 1 {
            HostFacts::gather(self.kernel.netlink())?
        } else {
            HostFacts::gather_addresses(self.kernel.netlink())?
        })
    }

    /// Looks at the host and mends what no longer fits.
    fn refresh(&mut self) -> anyhow::Result<()> {
        let config = Arc::clone(&self.config);
        let facts = self.look()?;
        for (index, uplink) in config.uplinks() {
            let wanted = binding(&config, index, &facts);
            if wanted.is_none() || wanted == self.bindings[index.usize()] {
                continue;
            }
            let Some((address, _)) = wanted else { continue };
            let socket =
                UnderlaySocket::open(&uplink.interface, address, uplink.gso == UdpGso::Auto)?;
            if self.line.send(ToLoop::Uplink(index, Some(socket))) {
                self.bindings[index.usize()] = wanted;
            }
        }
        self.kernel.apply(&plan(&config, &facts))?;
        let outside = outside_pairs(&config, &facts);
        let closed = config.egress.as_ref().map(|egress| closed_to_exit(&config, egress, &facts));
        if let Some(closed) = closed
            && (outside != self.outside || closed != self.closed)
            && self
                .line
                .send(ToLoop::Exit(ExitChange { outside: outside.clone(), closed: closed.clone() }))
        {
            (self.outside, self.closed) = (outside, closed);
        }
        let named = |class: &config::Class| {
            class.matches.as_ref().is_some_and(|conditions| !conditions.interfaces.is_empty())
        };
        let networks = lan_networks(&config, &facts);
        let stale = networks != self.lan_networks && config.classes.iter().any(named);
        if stale { self.send_new_policy(&config, &facts) } else { Ok(()) }
    }

    /// Has the kernel and the loop follow a configuration, or neither of them.
    fn follow(&mut self, new: &Arc<Config>) -> anyhow::Result<()> {
        let facts = self.look().context("cannot look at the host")?;
        let [before, wanted] = [&*self.config, new].map(|config| plan(config, &facts));
        if before == wanted {
            return self.send_new_policy(new, &facts);
        }
        if let Some(why) = missing_command(&wanted) {
            bail!(why);
        }
        // The kernel first: what hosts send may be lost for a moment, and does not go beside the tunnel.
        let done = self.kernel.apply(&wanted).and_then(|()| self.send_new_policy(new, &facts));
        if done.is_err()
            && let Err(error) = self.kernel.apply(&before)
        {
            self.stale = true;
            self.complain(format!("cannot take back what a reload began: {error:#}"));
        }
        done
    }

    fn send_new_policy(&mut self, new: &Arc<Config>, facts: &HostFacts) -> anyhow::Result<()> {
        ensure!(self.send_policy(new, facts), "the gateway is too busy");
        Ok(())
    }

    /// Has the loop follow a configuration, as far as a running gateway can.
    fn send_policy(&mut self, config: &Arc<Config>, facts: &HostFacts) -> bool {
        let policy = Box::new(node_config::policy(config, facts));
        let sent = self.line.send(ToLoop::Policy(Arc::clone(config), policy));
        if sent {
            self.lan_networks = lan_networks(config, facts);
        }
        sent
    }
}

/// The networks of the interfaces that have hosts behind them, which classes may name.
pub(super) fn lan_networks(config: &Config, facts: &HostFacts) -> Vec<(String, IpNet)> {
    let is_lan = |name: &String| config.lan.interfaces.contains(name);
    let addresses = facts.addresses.iter().filter(|address| is_lan(&address.interface));
    addresses.map(|address| (address.interface.clone(), address.network.trunc())).collect()
}

/// Finds an address behind the interface that a question names, of the destination's family: what it
/// asks is about a host there.
fn find_host(
    networks: &[(String, IpNet)],
    to: &str,
    packet: &mut PacketFields,
) -> Result<(), String> {
    let (Some(interface), None) = (&packet.interface, packet.from) else { return Ok(()) };
    let ipv6 = to.contains(':');
    let usable = |net: &IpNet| match net {
        IpNet::V4(_) => !ipv6,
        IpNet::V6(net) => ipv6 && !net.addr().is_unicast_link_local(),
    };
    let here = networks.iter().filter(|(name, net)| name == interface && usable(net));
    packet.from = here.map(|(_, net)| net.hosts().next().unwrap_or_else(|| net.addr())).next();
    let version = if ipv6 { "IPv6" } else { "IPv4" };
    let what = "is not one of `lan.interfaces`, or has no network of";
    packet.from.map(|_| ()).ok_or_else(|| format!("`{interface}` {what} {version}"))
}

/// How the socket of an uplink should be bound; none while its interface lacks the address.
pub(super) fn binding(config: &Config, index: UplinkIndex, facts: &HostFacts) -> Binding {
    let uplink = config.uplinks.get(index.usize())?;
    let interface = facts.interface(&uplink.interface)?;
    let address = uplink_address(uplink, facts)?;
    let present = facts
        .addresses
        .iter()
        .any(|a| a.interface == uplink.interface && a.network.addr() == address.ip());
    present.then_some((address, interface.index))
}

impl Backend for Keeper {
    fn ask(&mut self, mut request: Request) -> Answer {
        if let Request::Explain { subject, packet } = &mut request
            && let Err(why) = find_host(&self.lan_networks, subject, packet)
        {
            return Answer::Refused(why);
        }
        self.line.ask(request)
    }

    /// Applies what can be applied to a running gateway, or nothing at all.
    fn reload(&mut self) -> Result<ReloadReport, String> {
        let new = config::load(&self.config_path).map_err(|error| error.to_string())?;
        let (changes, new) = self.config.diff(&new);
        let restart: Vec<_> = changes
            .iter()
            .filter(|change| change.needs_restart)
            .map(|change| change.key.as_str())
            .collect();
        if !restart.is_empty() {
            let keys = restart.join(", ");
            return Err(format!("nothing was applied: a restart is needed for {keys}"));
        }
        let new = Arc::new(new);
        if !changes.is_empty() {
            self.follow(&new).map_err(|error| format!("nothing was applied: {error:#}"))?;
        }
        logging::set_filter(&new.log);
        self.config = new;
        Ok(ReloadReport { applied: changes.into_iter().map(|change| change.key).collect() })
    }

    fn tend(&mut self, notified: bool) {
        let mut changed = false;
        for monitor in &self.monitors {
            changed |= monitor.drain();
        }
        if notified && changed {
            self.stale = true;
            // The rest of the burst is awaited; the next tick looks.
            return;
        }
        let wall = self.clock.wall(self.clock.now());
        if let Err(error) = self.timestamps.reserve(wall) {
            self.complain(format!("cannot keep the handshake timestamp: {error}"));
        }
        if std::mem::take(&mut self.stale)
            && let Err(error) = self.refresh()
        {
            self.stale = true;
            self.complain(format!("cannot follow a change of the host: {error:#}"));
        }
    }
}

impl Keeper {
    fn complain(&mut self, what: String) {
        if self.complaint != what {
            log::warn!("{what}");
            self.complaint = what;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_behind_the_interface_that_is_named() {
        let net = |name: &str, net: &str| (name.to_owned(), net.parse().unwrap());
        let networks = [
            net("lan0", "10.1.0.0/24"),
            net("lan1", "fe80::/64"),
            net("lan1", "10.1.7.0/24"),
            net("lan1", "fd00:1::/64"),
        ];
        let found = |interface: &str, to: &str| {
            let interface = Some(interface.to_owned());
            let mut packet = PacketFields { interface, ..PacketFields::default() };
            find_host(&networks, to, &mut packet).map(|()| packet.from.unwrap().to_string())
        };
        assert_eq!(found("lan1", "10.2.0.5"), Ok("10.1.7.1".to_owned()));
        assert!(found("lan1", "fd00:2::5").unwrap().starts_with("fd00:1::"));
        let why = found("lan0", "fd00:2::5").unwrap_err();
        assert_eq!(why, "`lan0` is not one of `lan.interfaces`, or has no network of IPv6");
        assert!(found("wan0", "10.2.0.5").is_err());
        let mut silent = PacketFields::default();
        assert_eq!(find_host(&networks, "10.2.0.5", &mut silent), Ok(()));
        assert_eq!(silent, PacketFields::default());
    }
}
