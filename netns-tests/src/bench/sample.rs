//! One sample: a site, a contender on it, and what the hosts measure.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contender::{Kind, Mode, Plan};
use super::cpu;
use super::probe::flows::Connects;
use super::probe::{self, Counted, Rtt};
use super::site::{MANY, Site};
use super::start::{Running, start};
use crate::lab::process::run_with_input;
use crate::lab::{Host, Process, clock, enter, wait_until};

const ECHO_PORT: u16 = 7_007;
const SINK_PORT: u16 = 7_009;
/// Payload of the small datagrams.
const SMALL: usize = 100;
/// Rate at which the cost of a small packet is measured, in packets per second.
const STEADY_RATE: u32 = 20_000;
const CONNECT_PORT: u16 = 7_011;
/// How many flows a table is filled with, and how many a second.
const TABLE_FLOWS: u32 = 101_000;
const TABLE_RATE: u32 = 25_000;
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// A TCP transfer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tcp {
    /// Million bits per second that arrived.
    pub mbit: f64,
    /// Segments that TCP sent again.
    pub retransmits: u64,
    /// Processor seconds of each daemon per 10^9 bytes that arrived.
    pub cpu_per_gb: Vec<f64>,
}

/// Small datagrams in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Small {
    /// Offered datagrams per second.
    pub offered: f64,
    /// Delivered datagrams per second.
    pub delivered: f64,
    /// Processor microseconds of each daemon per datagram that arrived.
    pub cpu_us: Vec<f64>,
}

/// Memory and time that many flows take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Resident memory of each daemon after the flows were begun, in megabytes.
    pub resident_mb: Vec<f64>,
    /// Flows in the table that has the most.
    pub flows: f64,
    /// Mappings in the NAT that has the most.
    pub mappings: f64,
}

/// Everything that was measured. What the contender was not asked for is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Round trips while nothing else happens.
    pub rtt_idle: Option<Rtt>,
    /// Round trips beside one TCP stream.
    pub rtt_load: Option<Rtt>,
    /// One TCP stream.
    pub tcp1: Option<Tcp>,
    /// Four of them.
    pub tcp4: Option<Tcp>,
    /// As many small datagrams as the sender can make.
    pub flood: Option<Small>,
    /// A rate of them that everyone can carry.
    pub steady: Option<Small>,
    /// New TCP connections.
    pub connects: Option<Connects>,
    /// Resident memory of each daemon before any traffic, in megabytes.
    pub idle_mb: Vec<f64>,
    /// The same after the traffic.
    pub resident_mb: Vec<f64>,
    /// Many flows.
    pub table: Option<Table>,
    /// What rongate dropped, by node and reason.
    pub drops: Value,
}

/// Takes a sample. To be called by process 1 of the laboratory's namespaces.
pub fn inside(kind: Kind, mode: Mode, program: Option<&Path>, plan: &Plan) -> Result<Sample> {
    enter::prepare()?;
    let site = Site::build(kind, mode)?;
    let mut running = start(kind, program, &site)?;
    let pids = running.pids()?;
    let measured = plan.measured(kind, mode);
    // Probing of the path's MTU and first advertisements are not part of the measurement.
    std::thread::sleep(Duration::from_millis(500));

    let mut sample = Sample { idle_mb: resident(&pids), ..Sample::default() };
    if measured.bulk {
        bulk(&site, &pids, plan, &mut sample)?;
    }
    if measured.small {
        sample.steady = Some(small(&site, &pids, plan.udp_seconds, Some(STEADY_RATE))?);
        sample.flood = Some(small(&site, &pids, plan.udp_seconds, None)?);
    }
    sample.resident_mb = resident(&pids);
    if measured.table {
        sample.table = Some(table(&site, &pids, &running)?);
    }
    if measured.connects {
        sample.connects = Some(connects(&site, plan)?);
    }
    sample.drops = running.drops()?;
    running.ensure_alive()?;
    Ok(sample)
}

fn resident(pids: &[u32]) -> Vec<f64> {
    pids.iter().filter_map(|&pid| cpu::resident_mb(pid)).collect()
}

fn bulk(site: &Site, pids: &[u32], plan: &Plan, sample: &mut Sample) -> Result<()> {
    let _echo = listener(&site.host_b, "echo", ECHO_PORT)?;
    let _iperf = site.host_b.start_iperf()?;
    sample.rtt_idle = Some(finish(&mut ping(site, plan.pings, Duration::from_millis(2))?)?);
    let pings = plan.tcp_seconds.saturating_sub(1) * 50;
    let mut beside = ping(site, pings, Duration::from_millis(15))?;
    sample.tcp1 = Some(tcp(site, pids, plan.tcp_seconds, 1)?);
    sample.rtt_load = Some(finish(&mut beside)?);
    sample.tcp4 = Some(tcp(site, pids, plan.tcp_seconds, 4)?);
    Ok(())
}

/// Connections from addresses that host a does not have: its kernel would refuse the answers, and
/// that of host b the connections.
fn connects(site: &Site, plan: &Plan) -> Result<Connects> {
    let port = CONNECT_PORT.to_string();
    for (host, direction) in [(&site.host_a, "sport"), (&site.host_b, "dport")] {
        let rules = format!(
            "table ip probe {{ chain early {{ type filter hook prerouting priority raw; \
             tcp {direction} {port} drop; }}; }}\n"
        );
        let mut nft = host.command("nft");
        run_with_input(nft.args(["-f", "-"]), &rules, Duration::from_secs(5))?.success()?;
    }
    let to = address(site.host_b.v4, CONNECT_PORT);
    let _server = listener(&site.host_b, "accept", CONNECT_PORT)?;
    let (from, count) = (MANY.to_string(), plan.connects.to_string());
    let arguments = ["--from", &from, "--to", &to, "--count", &count];
    finish(&mut probe_on(&site.host_a, "connect", &arguments)?)
}

fn table(site: &Site, pids: &[u32], running: &Running) -> Result<Table> {
    let mut sink = listener(&site.host_b, "sink", SINK_PORT)?;
    let (from, to) = (MANY.to_string(), address(site.host_b.v4, SINK_PORT));
    let (count, rate) = (TABLE_FLOWS.to_string(), TABLE_RATE.to_string());
    let arguments = ["--from", &from, "--to", &to, "--count", &count, "--rate", &rate];
    let _sent: Counted = finish(&mut probe_on(&site.host_a, "spread", &arguments)?)?;
    let received: Counted = finish(&mut sink)?;
    ensure!(received.packets > 0, "no datagram of many flows arrived");
    Ok(Table {
        resident_mb: resident(pids),
        flows: running.largest("/flows/active")?,
        mappings: running.largest("/nat/mappings")?,
    })
}

fn address(of: Ipv4Addr, port: u16) -> String {
    SocketAddr::from((of, port)).to_string()
}

fn probe_on(host: &Host, name: &str, arguments: &[&str]) -> Result<Process> {
    let own = std::env::current_exe().context("find the running program")?;
    let arguments = [&["probe", name][..], arguments].concat();
    host.start(name, &own, &arguments)
}

fn listener(host: &Host, name: &str, port: u16) -> Result<Process> {
    let process = probe_on(host, name, &["--at", &address(host.v4, port)])?;
    wait_until("a probe listens", Duration::from_secs(5), || {
        ensure!(process.log_text().contains(probe::LISTENING), "{}", process.log_text());
        Ok(())
    })?;
    Ok(process)
}

fn ping(site: &Site, count: u32, interval: Duration) -> Result<Process> {
    let to = address(site.host_b.v4, ECHO_PORT);
    let (count, interval) = (count.to_string(), interval.as_micros().to_string());
    let arguments = ["--to", &to, "--count", &count, "--interval-us", &interval];
    probe_on(&site.host_a, "ping", &arguments)
}

fn finish<T: DeserializeOwned>(process: &mut Process) -> Result<T> {
    let status = process.wait(PROBE_LIMIT)?;
    ensure!(status.success(), "{}: {}", process.name(), process.log_text());
    probe::told(&process.log_text())
}

fn used(pids: &[u32], before: &[f64]) -> Result<Vec<f64>> {
    Ok(cpu::seconds(pids)?.iter().zip(before).map(|(after, before)| after - before).collect())
}

fn tcp(site: &Site, pids: &[u32], seconds: u32, streams: u32) -> Result<Tcp> {
    let before = cpu::seconds(pids)?;
    let options = ["-C", "cubic", "-P", &streams.to_string()];
    let transfer = site.host_a.iperf(site.host_b.v4, seconds, &options)?;
    let gigabytes = transfer.bytes as f64 / 1e9;
    ensure!(gigabytes > 0.0, "iperf3: nothing arrived");
    Ok(Tcp {
        mbit: transfer.bits_per_second / 1e6,
        retransmits: transfer.retransmits,
        cpu_per_gb: used(pids, &before)?.iter().map(|seconds| seconds / gigabytes).collect(),
    })
}

fn small(site: &Site, pids: &[u32], seconds: f64, rate: Option<u32>) -> Result<Small> {
    let mut sink = listener(&site.host_b, "sink", SINK_PORT)?;
    let before = cpu::seconds(pids)?;
    let to = address(site.host_b.v4, SINK_PORT);
    let (size, seconds) = (SMALL.to_string(), seconds.to_string());
    let mut arguments = vec!["--to", &to, "--size", &size, "--seconds", &seconds];
    let rate = rate.map(|rate| rate.to_string());
    if let Some(rate) = &rate {
        arguments.extend(["--rate", rate]);
    }
    let start = clock::now();
    let sent: Counted = finish(&mut probe_on(&site.host_a, "flood", &arguments)?)?;
    let received: Counted = finish(&mut sink)
        .with_context(|| format!("after a flood of {:.1} s", start.elapsed().as_secs_f64()))?;
    let each = |seconds: &f64| seconds * 1e6 / received.packets.max(1) as f64;
    Ok(Small {
        offered: sent.rate(),
        delivered: received.rate(),
        cpu_us: used(pids, &before)?.iter().map(each).collect(),
    })
}
