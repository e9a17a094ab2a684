//! Underlays that carry less than the hosts send.
//!
//! ```text
//!   mit-h1 (MTU 1500) ─ mit ══ 1500, 1400 or 1280, with or without ICMP ══ utah ─ utah-h1
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::{Lab, Scenario, Topology};

use crate::common::{MS, SECOND, sites, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("mtu::underlay_1500", underlay_1500),
    Scenario::new("mtu::underlay_1400_with_icmp", underlay_1400_with_icmp),
    Scenario::new("mtu::underlay_1400_silent", underlay_1400_silent),
    Scenario::new("mtu::underlay_1280_silent", underlay_1280_silent),
    Scenario::new("mtu::underlay_1280_over_ipv6", underlay_1280_over_ipv6),
    Scenario::new("mtu::interface_1280", interface_1280),
    Scenario::new("mtu::shrinks_under_way", shrinks_under_way),
];

fn topology(set: &str) -> Topology {
    sites(&["mit", "utah"]).link("mit", "utah", set)
}

fn underlay_1500() -> Result<()> {
    transfers(&start(topology("{}"))?)
}

fn underlay_1400_with_icmp() -> Result<()> {
    transfers(&start(topology("{mtu: 1400, pmtud: true}"))?)
}

fn underlay_1400_silent() -> Result<()> {
    transfers(&start(topology("{mtu: 1400, pmtud: false}"))?)
}

fn underlay_1280_silent() -> Result<()> {
    transfers(&start(topology("{mtu: 1280, pmtud: false}"))?)
}

fn underlay_1280_over_ipv6() -> Result<()> {
    transfers(&start(topology("{mtu: 1280, pmtud: false}").outer_v6())?)
}

/// The uplinks themselves have a small MTU.
fn interface_1280() -> Result<()> {
    let mut topology = sites(&["mit", "utah"]);
    topology.sites = topology.sites.into_iter().map(|site| site.uplink_mtu(1280)).collect();
    transfers(&start(topology)?)
}

/// A 1500-byte host never meets a black hole: TCP flows, large datagrams arrive in fragments, and
/// who forbids fragments is told the MTU.
fn transfers(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into(), b.v6.into()])?;
    a.verified_download(b.v4.into(), 5_000_000, 20 * SECOND)?;
    a.verified_download(b.v6.into(), 5_000_000, 20 * SECOND)?;
    for size in ["1200", "1372", "1472", "4000"] {
        let ping = a.ping_with(b.v4, 3, 100 * MS, &["-M", "dont", "-s", size])?;
        ensure!(ping.received >= 2, "{size} bytes in fragments: {ping:?}");
    }
    for address in [b.v4.to_string(), b.v6.to_string()] {
        let ping =
            a.run("ping", &["-c3", "-i0.2", "-W1", "-Mdo", "-s1452", &address], 6 * SECOND)?;
        let text = (ping.stdout + &ping.stderr).to_lowercase();
        let told = ["frag needed", "too big", "too long"].iter().any(|words| text.contains(words));
        ensure!(told, "{address}: neither through nor told: {text}");
    }
    // 1280 bytes always pass whole, as IPv6 demands.
    let ping = a.ping_with(b.v6, 3, 100 * MS, &["-M", "do", "-s", "1232"])?;
    ensure!(ping.received >= 2, "1280 bytes: {ping:?}");
    Ok(())
}

/// The path's MTU falls in the middle of a transfer, and nobody says so.
fn shrinks_under_way() -> Result<()> {
    let lab = start(topology("{rate: 40mbit}"))?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into()])?;
    let download = a.start_download(b.v4.into(), 10_000_000, "1M")?;
    std::thread::sleep(3 * SECOND);
    lab.set_links("mit", "utah", "{mtu: 1320, pmtud: false}")?;
    download.finish(40 * SECOND)
}
