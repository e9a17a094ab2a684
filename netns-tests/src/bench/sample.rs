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
use super::probe::{self, Counted, Rtt};
use super::site::Site;
use super::start::{Running, start};
use crate::lab::{Host, Process, clock, enter, wait_until};

const ECHO_PORT: u16 = 7_007;
const SINK_PORT: u16 = 7_009;
/// Payload of the small datagrams.
const SMALL: usize = 100;
/// Rate at which the cost of a small packet is measured, in packets per second.
const STEADY_RATE: u32 = 20_000;
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

/// Everything that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Round trips while nothing else happens.
    pub rtt_idle: Rtt,
    /// Round trips beside one TCP stream.
    pub rtt_load: Rtt,
    /// One TCP stream.
    pub tcp1: Tcp,
    /// Four of them.
    pub tcp4: Tcp,
    /// As many small datagrams as the sender can make.
    pub flood: Small,
    /// A rate of them that everyone can carry.
    pub steady: Small,
    /// Resident memory of each daemon at the end, in megabytes.
    pub resident_mb: Vec<f64>,
    /// What rongate dropped, by node and reason.
    pub drops: Value,
}

/// Takes a sample. To be called by process 1 of the laboratory's namespaces.
pub fn inside(kind: Kind, mode: Mode, program: Option<&Path>, plan: &Plan) -> Result<Sample> {
    enter::prepare()?;
    let site = Site::build(kind, mode)?;
    let mut running = start(kind, program, &site)?;
    let pids = running.pids()?;
    let _echo = listener(&site.host_b, "echo", ECHO_PORT)?;
    let _iperf = site.host_b.start_iperf()?;
    // Probing of the path's MTU and first advertisements are not part of the measurement.
    std::thread::sleep(Duration::from_millis(500));

    let mut sample = Sample {
        rtt_idle: finish(&mut ping(&site, plan.pings, Duration::from_millis(2))?)?,
        ..Sample::default()
    };
    let pings = plan.tcp_seconds.saturating_sub(1) * 50;
    let mut beside = ping(&site, pings, Duration::from_millis(15))?;
    sample.tcp1 = tcp(&site, &pids, plan.tcp_seconds, 1)?;
    sample.rtt_load = finish(&mut beside)?;
    sample.tcp4 = tcp(&site, &pids, plan.tcp_seconds, 4)?;
    sample.steady = small(&site, &pids, plan.udp_seconds, Some(STEADY_RATE))?;
    sample.flood = small(&site, &pids, plan.udp_seconds, None)?;
    sample.resident_mb = pids.iter().filter_map(|&pid| cpu::resident_mb(pid)).collect();
    sample.drops = running.drops()?;
    ensure_alive(&mut running)?;
    Ok(sample)
}

fn ensure_alive(running: &mut Running) -> Result<()> {
    match running {
        Running::Kernel => Ok(()),
        Running::Rongate(gateways) => {
            gateways.iter_mut().try_for_each(|gateway| gateway.process_mut()?.ensure_running())
        }
        Running::Wireguard(daemons) => daemons.iter_mut().try_for_each(Process::ensure_running),
    }
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
