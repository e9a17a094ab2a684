//! What several scenarios share.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::lab::payload::MARKER;
use netns_tests::lab::tick::Report;
use netns_tests::lab::{Capture, Lab, Site, Topology, wait_until};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The longest a silent black hole may interrupt hosts.
pub(crate) const OUTAGE_LIMIT_MS: f64 = 3000.0;

/// What hosts send and nobody may see on the underlay: web pages and ticks.
pub(crate) const PLAINTEXT: &[&[u8]] = &[MARKER, b"labtick1"];

/// Sites with one host and one uplink each, 10 ms apart.
pub(crate) fn sites(names: &[&str]) -> Topology {
    Topology::new(names.iter().map(|name| Site::new(name))).all_links("{delay: 10ms}")
}

/// Builds the topology with all gateways up and all tunnels established.
pub(crate) fn start(topology: Topology) -> Result<Lab> {
    let mut lab = Lab::start(topology)?;
    lab.start_gateways()?;
    Ok(lab)
}

/// Sends ticks from host 1 of `from` to host 1 of `to`, before, during and after `event`; returns
/// what arrived.
pub(crate) fn ticks_across(
    lab: &mut Lab,
    (from, to): (&str, &str),
    event: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Report> {
    let (a, b) = (lab.host(from, 1)?, lab.host(to, 1)?);
    let ticks = a.start_ticks(&b, b.v4, 100)?;
    sleep(SECOND);
    event(lab)?;
    sleep(SECOND);
    ticks.stop()
}

/// Waits until a gateway that was started again is back in use: host 1 of `from` reaches that of `to`.
pub(crate) fn wait_ping(lab: &Lab, from: &str, to: &str) -> Result<()> {
    let (a, b) = (lab.host(from, 1)?, lab.host(to, 1)?);
    wait_until(&format!("{from} reaches {to}"), 2 * SECOND, || a.expect_ping(b.v4).map(|_| ()))
}

/// Fails if hosts were cut off for longer than `limit_ms`, or to the end.
pub(crate) fn expect_gap_below(limit_ms: f64, report: &Report) -> Result<()> {
    ensure!(report.received > 50, "hardly anything arrived: {report:?}");
    ensure!(report.longest_gap_ms < limit_ms, "cut off for too long: {report:?}");
    ensure!(report.highest + 30 > report.sent, "cut off at the end: {report:?}");
    Ok(())
}

/// Looks for plaintext on every uplink of a site.
pub(crate) fn watch_plaintext(lab: &Lab, site: &str) -> Result<Vec<Capture>> {
    let uplinks = lab.topology().sites.iter().find(|candidate| candidate.name == site);
    let count = uplinks.map_or(0, |site| site.uplinks.len());
    let netns = lab.netns(site)?;
    (0..count).map(|index| Capture::start(netns, &format!("wan{index}"), PLAINTEXT)).collect()
}

/// Rewrites the configuration file of a site's gateway, which does not follow by itself.
pub(crate) fn edit_config(
    lab: &mut Lab,
    site: &str,
    change: impl FnOnce(&mut serde_yaml::Value),
) -> Result<()> {
    let path = lab.gateway(site)?.config_path();
    let mut config = serde_yaml::from_str(&std::fs::read_to_string(&path)?)?;
    change(&mut config);
    Ok(std::fs::write(path, serde_yaml::to_string(&config)?)?)
}

/// Everything that the gateway may have changed in a router's kernel.
pub(crate) fn kernel_state(lab: &Lab, site: &str) -> Result<String> {
    let router = lab.router(site)?;
    let mut state = String::new();
    for (program, arguments) in [
        ("ip", &["rule"][..]),
        ("ip", &["-6", "rule"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("ip", &["-o", "link", "show"]),
        ("nft", &["list", "ruleset"]),
    ] {
        let finished = router.run(program, arguments, 5 * SECOND)?.success()?;
        state.push_str(&format!("# {program} {}\n{}", arguments.join(" "), finished.stdout));
    }
    Ok(state)
}
