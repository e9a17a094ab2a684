//! Several uplinks, and uplinks whose address changes.
//!
//! ```text
//!            ┌ wan0 (isp1) ═══ 10 ms ═══╗
//!   mit-h1 ─ mit                        ╠═ wan0 ─ utah ─ utah-h1
//!            └ wan1 (isp2) ═══ 15 ms ═══╝
//! ```

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use netns_tests::lab::capture::Recording;
use netns_tests::lab::overlay_config::PORT;
use netns_tests::lab::{Lab, Scenario, Site, Topology};

use crate::common::{OUTAGE_LIMIT_MS, SECOND, expect_gap_below, sites, start, ticks_across};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("uplinks::one_dies", one_dies),
    Scenario::new("uplinks::interface_goes", interface_goes),
    Scenario::new("uplinks::both_ends", both_ends),
    Scenario::new("uplinks::roaming", roaming),
];

fn two_uplinks() -> Topology {
    Topology::new([Site::new("mit").uplinks(&["isp1", "isp2"]), Site::new("utah")])
        .all_links("{delay: 10ms}")
        .link("mit-isp2", "utah", "{delay: 15ms}")
}

/// The provider fails silently: the interface stays up.
fn one_dies() -> Result<()> {
    let mut lab = start(two_uplinks())?;
    ensure!(lab.gateway("mit")?.status()?.links("utah")?.len() == 2);
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.cut("mit-isp1", "*")?;
        std::thread::sleep(4 * SECOND);
        Ok(())
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    let ping = lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    ensure!((30.0..45.0).contains(&ping.min_ms), "it goes by isp2: {ping:?}");
    // What leaves by isp2 has isp2's address.
    let recording = Recording::start(lab.netns("utah")?, "wan0", PORT)?;
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    let mut recorded = recording.collect(6, 3 * SECOND)?;
    recorded.retain(|datagram| datagram.to.ip().to_string() == "192.0.2.17");
    let from: BTreeSet<_> =
        recorded.iter().map(|datagram| datagram.from.ip().to_string()).collect();
    ensure!(from.iter().eq(["198.51.100.9"]), "{from:?}");
    Ok(())
}

/// The interface goes down, and comes back.
fn interface_goes() -> Result<()> {
    let mut lab = start(two_uplinks())?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.netns("mit")?.ip("link set wan0 down")?;
        std::thread::sleep(4 * SECOND);
        lab.netns("mit")?.ip("link set wan0 up\nroute add default dev wan0 metric 100")?;
        std::thread::sleep(2 * SECOND);
        Ok(())
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    ensure!(lab.gateway("mit")?.is_running()?);
    Ok(())
}

/// Two uplinks at each end: any one of the four links is enough.
fn both_ends() -> Result<()> {
    let isps = &["isp1", "isp2"];
    let mut lab = start(
        Topology::new([Site::new("mit").uplinks(isps), Site::new("utah").uplinks(isps)])
            .all_links("{delay: 10ms}"),
    )?;
    ensure!(lab.gateway("mit")?.status()?.links("utah")?.len() == 4);
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        for (a, b) in [("mit-isp1", "utah-isp1"), ("mit-isp2", "utah"), ("mit-isp2", "utah-isp1")] {
            lab.cut(a, b)?;
            std::thread::sleep(4 * SECOND);
        }
        Ok(())
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)
}

/// A peer's provider gives it another address; nobody is told, and nothing is configured anew.
fn roaming() -> Result<()> {
    let mut topology = sites(&["mit", "utah", "aros"]);
    topology.sites[0] =
        Site::new("mit").config("{uplinks: [{name: isp1, interface: wan0, listen: 'auto:4710'}]}");
    let mut lab: Lab = start(topology)?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        let new = lab.renumber("mit")?;
        for peer in ["utah", "aros"] {
            let what = format!("mit at {new}");
            lab.gateway(peer)?.wait_status(&what, 10 * SECOND, |status| {
                let links = status.links("mit")?;
                let endpoint = format!("{new}:{PORT}");
                ensure!(links.iter().any(|link| link["endpoint"] == endpoint), "{links:?}");
                Ok(())
            })?;
        }
        Ok(())
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    lab.host("utah", 1)?.expect_ping(lab.host("mit", 1)?.v4)?;
    Ok(())
}
