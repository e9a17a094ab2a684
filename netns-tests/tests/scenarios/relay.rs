//! Relays: the direct path fails silently, and traffic goes through a third gateway.
//!
//! ```text
//!   mit-h1 ─ mit ════ 10 ms, fails ════ utah ─ utah-h1
//!              ╚══ 8 ms ══ aros ══ 8 ms ══╝
//!              ╚══ 15 ms ═ cable ═ 15 ms ═╝
//! ```

use std::thread::sleep;

use anyhow::{Result, ensure};
use netns_tests::lab::{Lab, Scenario, Site, Topology, wait_until};

use crate::common::{
    MS, OUTAGE_LIMIT_MS, SECOND, expect_gap_below, sites, start, ticks_across, watch_plaintext,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("relay::outage_and_failback", outage_and_failback).seconds(120),
    Scenario::new("relay::one_way_outage", one_way_outage),
    Scenario::new("relay::one_way_outage_behind", one_way_outage_behind),
    Scenario::new("relay::handshake_through_relay", handshake_through_relay),
    Scenario::new("relay::relay_lost_too", relay_lost_too),
    Scenario::new("relay::bad_direct_path", bad_direct_path),
    Scenario::new("relay::relay_bears_little", relay_bears_little),
    Scenario::new("relay::relay_sees_ciphertext", relay_sees_ciphertext),
];

fn three() -> Topology {
    sites(&["mit", "utah", "aros"]).link("mit", "aros", "{delay: 8ms}").link(
        "aros",
        "utah",
        "{delay: 8ms}",
    )
}

fn four() -> Topology {
    joined(sites(&["mit", "utah", "aros", "cable"]))
}

fn joined(four: Topology) -> Topology {
    four.link("mit", "aros", "{delay: 8ms}")
        .link("aros", "utah", "{delay: 8ms}")
        .link("mit", "cable", "{delay: 15ms}")
        .link("cable", "utah", "{delay: 15ms}")
}

fn outage_and_failback() -> Result<()> {
    let mut lab = start(three())?;
    lab.gateway("mit")?.wait_via("utah", None, 10 * SECOND)?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.cut("mit", "utah")?;
        for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
            lab.gateway(site)?.wait_via(peer, Some("aros"), 5 * SECOND)?;
        }
        sleep(SECOND);
        // The way back is taken when the direct path has proved itself, without a new gap.
        lab.heal("mit", "utah")?;
        lab.gateway("mit")?.wait_via("utah", None, 60 * SECOND)
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    ensure!(report.gaps.iter().filter(|gap| gap.length_ms > 500.0).count() <= 1, "{report:?}");
    ensure!(report.duplicates == 0, "{report:?}");
    Ok(())
}

/// One direction fails; the other would still work. Both directions of traffic must survive it.
fn one_way(direction: (&str, &str)) -> Result<()> {
    let mut lab = start(three())?;
    lab.gateway("mit")?.wait_via("utah", None, 10 * SECOND)?;
    let report = ticks_across(&mut lab, direction, |lab| {
        lab.cut_one_way("mit", "utah")?;
        sleep(5 * SECOND);
        Ok(())
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    Ok(())
}

fn one_way_outage() -> Result<()> {
    one_way(("mit", "utah"))
}

fn one_way_outage_behind() -> Result<()> {
    one_way(("utah", "mit"))
}

/// Two gateways that never had a direct path find each other.
fn handshake_through_relay() -> Result<()> {
    let mut lab = Lab::start(three().link("mit", "utah", "{down: true}"))?;
    lab.start_gateways()?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 10 * SECOND)?;
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    lab.host("utah", 1)?.expect_ping(lab.host("mit", 1)?.v6)?;
    let flows = lab.gateway("mit")?.command(&["flows"])?.success()?.stdout;
    ensure!(flows.contains("aros"), "the flows' relay is not told: {flows}");
    Ok(())
}

/// The relay in use fails as well: first its link to the far end, then the process.
fn relay_lost_too() -> Result<()> {
    let mut lab = start(four())?;
    lab.cut("mit", "utah")?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 10 * SECOND)?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.cut("aros", "utah")?;
        lab.gateway("mit")?.wait_via("utah", Some("cable"), 10 * SECOND)
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)?;
    lab.heal("aros", "utah")?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 60 * SECOND)?;
    let report = ticks_across(&mut lab, ("mit", "utah"), |lab| {
        lab.gateway("aros")?.kill()?;
        lab.gateway("mit")?.wait_via("utah", Some("cable"), 10 * SECOND)
    })?;
    expect_gap_below(OUTAGE_LIMIT_MS, &report)
}

/// A path need not be dead to be left.
fn bad_direct_path() -> Result<()> {
    let mut lab = start(three())?;
    lab.gateway("mit")?.wait_via("utah", None, 10 * SECOND)?;
    lab.set_links("mit", "utah", "{delay: 120ms, loss: 0.2}")?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        lab.gateway(site)?.wait_via(peer, Some("aros"), 40 * SECOND)?;
    }
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    wait_until("hosts see a good path", 10 * SECOND, || {
        // The direct path loses a third of the round trips and takes 240 ms.
        let ping = a.ping(b.v4, 20, 50 * MS)?;
        ensure!(ping.received >= 19 && ping.avg_ms < 120.0, "{ping:?}");
        Ok(())
    })
}

/// The shorter relay says that it bears less than the hosts send; little goes by it, much does not.
fn relay_bears_little() -> Result<()> {
    let aros = Site::new("aros").config("relay: {rate: 1mbit}");
    let sites = [Site::new("mit"), Site::new("utah"), aros, Site::new("cable")];
    let mut lab = start(joined(Topology::new(sites).all_links("{delay: 10ms}")))?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    lab.gateway("mit")?.wait_via("utah", None, 10 * SECOND)?;
    lab.cut("mit", "utah")?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 10 * SECOND)?;
    // 4 Mbit/s.
    let ticks = a.start_ticks_with(&b, b.v4, 500, &["--size", "1000"])?;
    lab.gateway("mit")?.wait_via("utah", Some("cable"), 15 * SECOND)?;
    ticks.stop().map(|_| ())
}

/// The relay's kernel and uplink carry nothing that a host sent, in the clear.
fn relay_sees_ciphertext() -> Result<()> {
    let mut lab = start(three())?;
    lab.cut("mit", "utah")?;
    lab.gateway("mit")?.wait_via("utah", Some("aros"), 10 * SECOND)?;
    let captures = watch_plaintext(&lab, "aros")?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into()])?;
    a.verified_download(b.v4.into(), 500_000, 20 * SECOND)?;
    for capture in captures {
        ensure!(capture.expect_nothing()?.bytes > 1_000_000, "it came and went");
    }
    ensure!(lab.gateway("aros")?.status()?.number("/traffic/tun_tx/packets")? < 5.0);
    Ok(())
}
