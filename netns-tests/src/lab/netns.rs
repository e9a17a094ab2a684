//! Network namespaces by name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::process::{run, run_with_input};

const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// A named network namespace (`/run/netns/NAME`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

/// Packets and bytes an interface has received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl Netns {
    /// Makes the namespace, with loopback up and address configuration that does not wait: no
    /// duplicate address detection, no router advertisements, no reverse path filter.
    pub fn add(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]), TOOL_LIMIT)?.success()?;
        let netns = Self { name: name.into() };
        netns.ip("link set lo up")?;
        netns.sysctls(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ])?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside, with a `/sys` that shows this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs lines of `ip` commands (without the word `ip`) inside.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        run_with_input(&mut command, lines, TOOL_LIMIT)?
            .success()
            .with_context(|| format!("in {}:\n{lines}", self.name))?;
        Ok(())
    }

    /// What `ip ARGUMENTS` prints inside.
    pub fn ip_output(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments);
        Ok(run(&mut command, TOOL_LIMIT)?.success()?.stdout)
    }

    /// Sets kernel parameters, named by their path under `/proc/sys`.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.within(|| {
            for (name, value) in settings {
                fs::write(format!("/proc/sys/{name}"), value)
                    .with_context(|| format!("set {name} to {value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// Lets the kernel forward between its interfaces, as a router does.
    pub fn enable_forwarding(&self) -> Result<()> {
        self.sysctls(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])
    }

    /// Lifts the kernel's limits on ICMP errors: a laboratory counts hops and refusals.
    pub fn unlimited_icmp(&self) -> Result<()> {
        self.sysctls(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")])
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    ///
    /// Processes started by `work` would be killed when that thread ends: use [`Self::command`].
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter_thread()?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("a helper thread in {} panicked", self.name))?
        })
    }

    /// Moves the calling thread, and only it, into the namespace.
    pub(crate) fn enter_thread(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))
    }

    /// Counters of one interface.
    pub fn counters(&self, interface: &str) -> Result<InterfaceCounters> {
        let table = self.within(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        parse_counters(&table, interface)
            .with_context(|| format!("no interface {interface} in {}", self.name))
    }

    /// Waits until `address` can be reached by one ping, at most for `limit`.
    pub fn wait_reachable(&self, address: IpAddr, limit: Duration) -> Result<()> {
        super::clock::wait_until(&format!("{} reaches {address}", self.name), limit, || {
            let target = address.to_string();
            let mut ping = self.command("ping");
            ping.args(["-n", "-c", "1", "-W", "1", &target]);
            run(&mut ping, Duration::from_secs(3))?.success().map(|_| ())
        })
    }
}

fn parse_counters(table: &str, interface: &str) -> Option<InterfaceCounters> {
    let line = table.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name.trim() == interface).then_some(rest)
    })?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(InterfaceCounters {
        rx_bytes: *fields.first()?,
        rx_packets: *fields.get(1)?,
        tx_bytes: *fields.get(8)?,
        tx_packets: *fields.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_interface() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
            lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  wan0:  10 20 0 0 0 0 0 0 30 40 0 0 0 0 0 0\n";
        assert_eq!(
            parse_counters(table, "wan0"),
            Some(InterfaceCounters { rx_bytes: 10, rx_packets: 20, tx_bytes: 30, tx_packets: 40 })
        );
        assert_eq!(parse_counters(table, "wan1"), None);
    }
}
