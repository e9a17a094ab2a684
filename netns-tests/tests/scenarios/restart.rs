//! Gateways that are stopped or killed in the middle of transfers, and started again.
//!
//! ```text
//!   mit-h1 ─ mit ════ 10 ms ════ utah ─ utah-h1
//!              ╚═ 8 ms ═ aros ═ 8 ms ═╝       utah ══ internet ─ server
//!              ╚═ 15 ms  cable  15 ms ╝
//! ```

use std::thread::sleep;

use anyhow::{Result, ensure};
use netns_tests::lab::{Gateway, Lab, Scenario, Site, Topology};

use crate::common::{
    OUTAGE_LIMIT_MS, SECOND, expect_gap_below, start, ticks_across, wait_ping, watch_plaintext,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("restart::ingress_killed", ingress_killed),
    Scenario::new("restart::ingress_stopped", ingress_stopped),
    Scenario::new("restart::egress_killed", egress_killed),
    Scenario::new("restart::relay_killed", relay_killed),
    Scenario::new("restart::exit_killed", exit_killed),
    Scenario::new("restart::all_killed", all_killed),
];

/// From the restart's ready report until hosts talk again.
const RESUME_LIMIT_MS: f64 = 2000.0;
/// How long the gateway is away.
const AWAY_MS: f64 = 1000.0;

fn topology() -> Topology {
    Topology::new([
        Site::new("mit").config("{internet: {via: [utah]}}"),
        Site::new("utah").config("{egress: {enabled: true}}"),
        Site::new("aros"),
        Site::new("cable"),
    ])
    .internet(1)
    .all_links("{delay: 10ms}")
    .link("mit", "aros", "{delay: 8ms}")
    .link("aros", "utah", "{delay: 8ms}")
    .link("mit", "cable", "{delay: 15ms}")
    .link("cable", "utah", "{delay: 15ms}")
}

/// Takes a gateway away for a second while ticks and a download cross it; both go on.
fn interrupted(lab: &mut Lab, site: &str, end: fn(&mut Gateway) -> Result<()>) -> Result<()> {
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into()])?;
    let download = a.start_download(b.v4.into(), 6_000_000, "1M")?;
    let report = ticks_across(lab, ("mit", "utah"), |lab| {
        end(lab.gateway(site)?)?;
        sleep(SECOND);
        lab.gateway(site)?.start()?;
        sleep(3 * SECOND);
        Ok(())
    })?;
    expect_gap_below(AWAY_MS + RESUME_LIMIT_MS, &report)?;
    download.finish(30 * SECOND)
}

/// The same by `kill -9`, while not a byte of plaintext leaves.
fn killed(site: &str) -> Result<()> {
    let mut lab = start(topology())?;
    let captures = watch_plaintext(&lab, site)?;
    interrupted(&mut lab, site, Gateway::kill)?;
    captures.into_iter().try_for_each(|capture| capture.expect_nothing().map(|_| ()))
}

fn ingress_killed() -> Result<()> {
    killed("mit")
}

fn egress_killed() -> Result<()> {
    killed("utah")
}

/// An operator who stops the gateway gets the router back as it was; hosts' connections live on.
fn ingress_stopped() -> Result<()> {
    interrupted(&mut start(topology())?, "mit", Gateway::stop)
}

/// The relay is killed in the middle of a transfer; another takes over, then it comes back.
fn relay_killed() -> Result<()> {
    let mut lab = start(topology())?;
    lab.cut("mit", "utah")?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 10 * SECOND)?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into()])?;
    let download = a.start_download(b.v4.into(), 6_000_000, "1M")?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.gateway("aros")?.kill()?;
        lab.gateway("mit")?.wait_via("utah", Some("cable"), 10 * SECOND)?;
        lab.gateway("aros")?.start()?;
        lab.gateway("mit")?.wait_tunnel("aros", 2 * SECOND)
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    download.finish(30 * SECOND)
}

/// Connections through a killed exit may end; new ones work within two seconds of its restart.
fn exit_killed() -> Result<()> {
    let mut lab = start(topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    host.expect_ping(server.v4)?;
    lab.gateway("utah")?.kill()?;
    sleep(SECOND);
    lab.gateway("utah")?.start()?;
    netns_tests::lab::wait_until("the exit works again", 2 * SECOND, || {
        host.http_get("http://203.0.113.80/whoami", SECOND).map(|_| ())
    })?;
    host.verified_download(server.v4.into(), 1_000_000, 20 * SECOND)?;
    Ok(())
}

/// A power cut: every gateway is gone at once; every one comes back by itself.
fn all_killed() -> Result<()> {
    let mut lab: Lab = start(topology())?;
    let names = ["mit", "utah", "aros", "cable"];
    for name in names {
        lab.gateway(name)?.kill()?;
    }
    for name in names {
        lab.gateway(name)?.start()?;
    }
    for (site, peer) in [("mit", "utah"), ("aros", "cable"), ("utah", "aros")] {
        lab.gateway(site)?.wait_tunnel(peer, 5 * SECOND)?;
        wait_ping(&lab, site, peer)?;
    }
    ensure!(lab.gateway("mit")?.is_running()?);
    Ok(())
}
