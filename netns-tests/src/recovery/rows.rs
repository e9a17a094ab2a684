//! The events, and what is measured of each.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Overlay;
use super::scene::{ADDED_MS, RATE, SECOND, SITES, Scene, start};
use crate::lab::clock::monotonic_ns;
use crate::lab::tick::Report;
use crate::lab::{Host, Process, wait_until};

/// An event, and a sample of what it does to hosts.
pub struct Row {
    /// What happens.
    pub name: &'static str,
    pub(super) unit: &'static str,
    /// What is to be reached, in words.
    pub(super) bar: &'static str,
    /// Takes a sample; the direct path is so many milliseconds long.
    pub(super) sample: fn(&Overlay, u32) -> Result<f64>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of our gateways alone.
    Own,
    /// Of every overlay.
    Compared,
    /// Takes minutes; of our gateways alone.
    Long,
}

const fn own(
    name: &'static str,
    unit: &'static str,
    bar: &'static str,
    sample: fn(&Overlay, u32) -> Result<f64>,
) -> Row {
    Row { name, unit, bar, sample, kind: Kind::Own }
}

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "black hole, both ways",
        unit: "ms gap",
        bar: "p50 100, worst 200",
        sample: |overlay, delay| black_hole(overlay, delay, false),
        kind: Kind::Compared,
    },
    Row {
        name: "30 % loss until hosts lose less than 5 %",
        unit: "ms",
        bar: "faster than each other one",
        sample: settle,
        kind: Kind::Compared,
    },
    Row {
        name: "control traffic without hosts' traffic",
        unit: "bytes/s sent per node",
        bar: "a fifth of OSPF + BFD",
        sample: idle,
        kind: Kind::Compared,
    },
    own("black hole, one way", "ms gap", "p50 100, worst 200", |overlay, delay| {
        black_hole(overlay, delay, true)
    }),
    own("black hole, `redundancy: 2`", "packets lost", "0", redundant),
    own(
        "first packet after an unseen failure",
        "ms later than the median first one of five flows by the relay",
        "0",
        first_packet,
    ),
    own("30 % loss", "ms to leave", "p90 600", |_, delay| leave(delay, "{loss: 0.3}")),
    own("10 % loss", "ms to leave", "p90 1200", |_, delay| leave(delay, "{loss: 0.1}")),
    own("3 % loss", "ms to leave", "p90 8000", |_, delay| leave(delay, "{loss: 0.03}")),
    own("100 ms more delay", "ms to leave", "1000", longer),
    own("direct path heals", "ms to return, nothing lost", "30000", heal),
    own("packets over 1300 bytes vanish", "ms stall of a transfer", "3000", large_ones_vanish),
    own("bulk TCP across a black hole", "ms stall", "gap + one RTO", bulk),
    own("TCP moves to a path 60 ms shorter", "time-outs of TCP", "0", |_, delay| {
        Ok(shorter(delay)?[0])
    }),
    own("TCP moves to a path 60 ms shorter: sent again", "segments of 10,000", "", |_, delay| {
        let [_, again, sent] = shorter(delay)?;
        Ok(again * 1e4 / sent.max(1.0))
    }),
    own("relay in use is killed", "ms gap", "p50 100, worst 200", relay_killed),
    Row {
        name: "path fails 1 s every 10 s for 5 minutes",
        unit: "packets lost of 10,000, at most 4 switches at each end",
        bar: "100",
        sample: flapping,
        kind: Kind::Long,
    },
    Row {
        name: "1 % loss everywhere and 20 ms of jitter for 30 minutes",
        unit: "switches of the busier end",
        bar: "2",
        sample: noise,
        kind: Kind::Long,
    },
];

/// The longest gap of either direction, less what the relay adds.
fn gap(reports: &[Report; 2]) -> Result<f64> {
    for report in reports {
        ensure!(report.duplicates == 0, "duplicates: {report:?}");
        ensure!(report.highest + 30 > report.sent, "cut off at the end: {report:?}");
    }
    let longest = reports.iter().map(|report| report.longest_gap_ms).fold(0.0, f64::max);
    Ok((longest - f64::from(ADDED_MS)).max(0.0))
}

fn cut(scene: &Scene, one_way: bool) -> Result<()> {
    if one_way { scene.lab.cut_one_way("mit", "utah") } else { scene.lab.cut("mit", "utah") }
}

fn black_hole(overlay: &Overlay, delay_ms: u32, one_way: bool) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    // Others need longer.
    let watch = if *overlay == Overlay::Rongate { 3 } else { 20 };
    let reports = scene.across(|scene| {
        cut(scene, one_way)?;
        sleep(watch * SECOND);
        Ok(())
    })?;
    gap(&reports)
}

fn redundant(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 2)?;
    let reports = scene.across(|scene| {
        cut(scene, false)?;
        sleep(3 * SECOND);
        Ok(())
    })?;
    Ok(reports.iter().map(|report| report.lost() as f64).sum())
}

/// Until the hosts' loss has gone, watched for half a minute.
fn settle(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    let mut at = 0;
    let reports = scene.across(|scene| {
        at = monotonic_ns()?;
        scene.lab.set_links("mit", "utah", "{loss: 0.3}")?;
        sleep(30 * SECOND);
        Ok(())
    })?;
    let settled = reports.iter().map(|report| report.settled_ms(at, RATE));
    Ok(settled.map(|settled| settled.unwrap_or(f64::INFINITY)).fold(0.0, f64::max))
}

/// What the nodes send while no host does.
fn idle(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let scene = start(overlay, delay_ms, 1)?;
    let sent = || -> Result<u64> {
        SITES.iter().map(|site| Ok(scene.lab.netns(site)?.counters("wan0")?.tx_bytes)).sum()
    };
    sleep(20 * SECOND);
    let before = sent()?;
    let window = 20;
    sleep(window * SECOND);
    Ok((sent()? - before) as f64 / f64::from(window) / SITES.len() as f64)
}

fn first_packet(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    // Hosts and their routers know each other; nothing is sent between the sites.
    for (host, site) in scene.hosts()?.iter().zip(SITES) {
        host.expect_ping(scene.lab.topology().plan(site)?.gateway().0)?;
    }
    sleep(3 * SECOND);
    cut(&scene, false)?;
    let first = first_of_a_flow(&scene)?;
    scene.wait_relayed(true, 5 * SECOND)?;
    // The same by a relay that is known to be the way: what hosts and gateways need for a first
    // packet, they need for these too.
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(first_of_a_flow(&scene)?);
    }
    others.sort_by(f64::total_cmp);
    Ok((first - others[2]).max(0.0))
}

/// How long the first packet of a new flow is under way.
fn first_of_a_flow(scene: &Scene) -> Result<f64> {
    let [a, b] = scene.hosts()?;
    let there = a.start_ticks_with(&b, b.v4, RATE, &["--size", "64"])?;
    sleep(SECOND);
    let report = there.stop()?;
    report.first_ms.with_context(|| format!("the first was lost: {report:?}"))
}

fn relay_killed(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    cut(&scene, false)?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        scene.lab.gateway(site)?.wait_via(peer, Some("aros"), 10 * SECOND)?;
    }
    let reports = scene.across(|scene| {
        scene.lab.gateway("aros")?.kill()?;
        sleep(3 * SECOND);
        Ok(())
    })?;
    gap(&reports)
}

/// Milliseconds until both ends have left the direct path. They must not be back after 5 s.
fn leave(delay_ms: u32, set: &str) -> Result<f64> {
    let mut scene = start(&Overlay::Rongate, delay_ms, 1)?;
    let mut took = Duration::ZERO;
    scene.across(|scene| {
        scene.lab.set_links("mit", "utah", set)?;
        took = scene.wait_relayed(true, 30 * SECOND)?;
        sleep(5 * SECOND);
        scene.wait_relayed(true, Duration::ZERO).context("it went back").map(|_| ())
    })?;
    Ok(took.as_secs_f64() * 1e3)
}

fn longer(_: &Overlay, delay_ms: u32) -> Result<f64> {
    leave(delay_ms, &format!("{{delay: {}ms}}", delay_ms + 100))
}

fn heal(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    cut(&scene, false)?;
    scene.wait_relayed(true, 10 * SECOND)?;
    let mut took = Duration::ZERO;
    let reports = scene.across(|scene| {
        scene.lab.heal("mit", "utah")?;
        took = scene.wait_relayed(false, 40 * SECOND)?;
        sleep(SECOND);
        Ok(())
    })?;
    for report in &reports {
        ensure!(report.lost() == 0, "lost on the way back: {report:?}");
    }
    Ok(took.as_secs_f64() * 1e3)
}

fn flapping(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    let before = scene.switches()?;
    let reports = scene.across(|scene| {
        for _ in 0..30 {
            cut(scene, false)?;
            sleep(SECOND);
            scene.lab.heal("mit", "utah")?;
            sleep(9 * SECOND);
        }
        Ok(())
    })?;
    let after = scene.switches()?;
    for site in [0, 1] {
        ensure!(after[site] - before[site] <= 4.0, "switches from {before:?} to {after:?}");
    }
    let share = |report: &Report| report.lost() as f64 / report.sent.max(1) as f64;
    Ok(reports.iter().map(share).fold(0.0, f64::max) * 1e4)
}

fn noise(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    scene.lab.set_links("*", "*", "{loss: 0.01, jitter: 20ms}")?;
    let mut switches = [[0.0; 2]; 2];
    scene.across(|scene| {
        // What the noise itself moves belongs to its beginning.
        sleep(30 * SECOND);
        switches[0] = scene.switches()?;
        sleep(30 * 60 * SECOND);
        switches[1] = scene.switches()?;
        Ok(())
    })?;
    let moved = |site: usize| switches[1][site] - switches[0][site];
    Ok(f64::max(moved(0), moved(1)))
}

fn large_ones_vanish(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let scene = start(overlay, delay_ms, 1)?;
    let transfer = Transfer::start(&scene)?;
    sleep(5 * SECOND);
    scene.lab.set_links("mit", "utah", "{mtu: 1300, pmtud: false}")?;
    transfer.longest_stall_ms()
}

fn bulk(overlay: &Overlay, delay_ms: u32) -> Result<f64> {
    let mut scene = start(overlay, delay_ms, 1)?;
    let transfer = Transfer::start(&scene)?;
    sleep(5 * SECOND);
    cut(&scene, false)?;
    scene.wait_relayed(true, 5 * SECOND)?;
    transfer.longest_stall_ms()
}

/// A transfer moves from a long relayed path to the direct one, which overtakes what is under way:
/// time-outs of its sender, segments that it sent again, and segments in all.
fn shorter(delay_ms: u32) -> Result<[f64; 3]> {
    let mut scene = start(&Overlay::Rongate, delay_ms, 1)?;
    let slow = format!("{{delay: {}us}}", (delay_ms + 60) * 500);
    for relay in ["aros", "cable"] {
        for site in ["mit", "utah"] {
            scene.lab.set_links(site, relay, &slow)?;
        }
    }
    cut(&scene, false)?;
    scene.wait_relayed(true, 10 * SECOND)?;
    let transfer = Transfer::start_for(&scene, 25)?;
    sleep(5 * SECOND);
    let [_, sender] = scene.hosts()?;
    scene.lab.heal("mit", "utah")?;
    // What the machine does to a transfer meanwhile is no matter of the switch.
    let (mut before, mut latest) = (tcp_counters(&sender)?, tcp_counters(&sender)?);
    wait_until("both ends are back", 15 * SECOND, || {
        before = std::mem::replace(&mut latest, tcp_counters(&sender)?);
        ensure!(scene.are_relayed()? == [false; 2]);
        Ok(())
    })?;
    sleep(2 * SECOND);
    let after = tcp_counters(&sender)?;
    transfer.longest_stall_ms()?;
    Ok(std::array::from_fn(|at| after[at] - before[at]))
}

/// A host's TCP so far: time-outs, segments sent again, segments sent.
fn tcp_counters(host: &Host) -> Result<[f64; 3]> {
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let text = host.netns().within(|| Ok(read("netstat")? + &read("snmp")?))?;
    let counter = |table: &str, name: &str| -> Result<f64> {
        let mut lines = text.lines().filter(|line| line.split(':').next() == Some(table));
        let (names, values) = lines.next().zip(lines.next()).context("no such table")?;
        let found = names.split(' ').zip(values.split(' ')).find(|pair| pair.0 == name);
        Ok(found.with_context(|| format!("no counter {name}"))?.1.parse()?)
    };
    let [table, timeouts] = ["TcpExt", "TCPTimeouts"];
    Ok([counter(table, timeouts)?, counter("Tcp", "RetransSegs")?, counter("Tcp", "OutSegs")?])
}

/// A TCP transfer, of 12 s where nothing else is said, to host 1 of mit, observed by its receiver.
struct Transfer {
    _server: Process,
    client: Process,
}

impl Transfer {
    fn start(scene: &Scene) -> Result<Self> {
        Self::start_for(scene, 12)
    }

    fn start_for(scene: &Scene, seconds: u32) -> Result<Self> {
        let [a, b] = scene.hosts()?;
        let server = b.start_iperf()?;
        let (to, seconds) = (b.v4.to_string(), seconds.to_string());
        let arguments = ["-J", "-R", "-i", "0.1", "-t", &seconds, "-b", "40M", "-c", &to];
        let client = a.start("transfer", Path::new("iperf3"), &arguments)?;
        wait_until("the transfer runs", 5 * SECOND, || b.expect_ping(a.v4).map(|_| ()))?;
        Ok(Self { _server: server, client })
    }

    /// The longest time in which nothing arrived, in steps of 100 ms.
    fn longest_stall_ms(mut self) -> Result<f64> {
        let status = self.client.wait(40 * SECOND)?;
        let text = self.client.log_text();
        ensure!(status.success(), "the transfer broke: {text}");
        let report: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
        let intervals = report["intervals"].as_array().context("iperf3: no intervals")?;
        ensure!(intervals.len() > 100, "iperf3: {} intervals", intervals.len());
        let (mut longest, mut current) = (0.0_f64, 0.0);
        for interval in intervals {
            let sum = &interval["sum"];
            let seconds = sum["seconds"].as_f64().context("iperf3: no length")?;
            current = if sum["bytes"].as_u64() == Some(0) { current + seconds } else { 0.0 };
            longest = longest.max(current);
        }
        Ok(longest * 1e3)
    }
}
