//! Two gateways that talk directly.
//!
//! ```text
//!   mit-h1 ┐                                   ┌ utah-h1
//!   mit-h2 ┴ mit ─ wan0 ══ 10 ms ══ wan0 ─ utah┘
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::{Lab, Scenario, Site, Topology, wait_until};

use crate::common::{MS, SECOND, start, watch_plaintext};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("direct::tools", tools_v4_outside),
    Scenario::new("direct::tools_over_ipv6", tools_v6_outside),
    Scenario::new("direct::tools_rootless", tools_v4_outside).rootless(),
    Scenario::new("direct::commands", commands),
    Scenario::new("direct::no_plaintext", no_plaintext),
    Scenario::new("direct::lossy_underlay", lossy_underlay),
    Scenario::new("direct::stranger", stranger),
];

fn topology() -> Topology {
    Topology::new([Site::new("mit").hosts(2), Site::new("utah")]).all_links("{delay: 10ms}")
}

fn tools_v4_outside() -> Result<()> {
    tools(&start(topology())?)
}

fn tools_v6_outside() -> Result<()> {
    tools(&start(topology().outer_v6())?)
}

/// Unmodified hosts, IPv4 and IPv6 inside.
fn tools(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    for host in [&a, &lab.host("mit", 2)?] {
        let ping = host.expect_ping(b.v4)?;
        ensure!((20.0..40.0).contains(&ping.min_ms), "{ping:?}");
        host.expect_ping(b.v6)?;
        b.expect_ping(host.v4)?;
    }
    let _server = b.start_servers(&[b.v4.into(), b.v6.into()])?;
    a.verified_download(b.v4.into(), 5_000_000, 20 * SECOND)?;
    a.verified_download(b.v6.into(), 5_000_000, 20 * SECOND)?;
    let whoami = a.http_get(&format!("http://{}/whoami", b.v4), 5 * SECOND)?;
    ensure!(whoami.body.trim() == a.v4.to_string(), "sites see real addresses: {whoami:?}");
    let _iperf = b.start_iperf()?;
    ensure!(a.iperf(b.v4, 2, &[])?.bytes > 1_000_000);
    ensure!(a.iperf(b.v6, 2, &["-R"])?.bytes > 1_000_000);
    let udp = a.iperf(b.v4, 2, &["-u", "-b", "5M", "-l", "1200"])?;
    ensure!(udp.loss < 0.02, "{udp:?}");
    let hops = a.traceroute(b.v4, &["-I"])?;
    ensure!(hops.last() == Some(&Some(b.v4.into())) && hops.len() <= 4, "{hops:?}");
    // The routers themselves are reached by their overlay addresses.
    a.expect_ping(lab.topology().plan("utah")?.overlay().0)?;
    lab.router("mit")?.expect_ping(b.v4)?;
    Ok(())
}

/// What operators' scripts rely on.
fn commands() -> Result<()> {
    let mut lab = start(topology())?;
    let b = lab.host("utah", 1)?;
    lab.host("mit", 1)?.expect_ping(b.v4)?;
    let gateway = lab.gateway("mit")?;
    gateway.wait_via("utah", None, 10 * SECOND)?;
    let status = gateway.status()?;
    ensure!(status.0["node"]["name"] == "mit", "{status:?}");
    for pointer in [
        "/node/uptime_s",
        "/flows/active",
        "/flows/created",
        "/flows/expired",
        "/nat/mappings",
        "/nat/ports_in_use",
        "/nat/ports_total",
        "/traffic/tun_rx/packets",
        "/traffic/tun_tx/bytes",
        "/traffic/underlay_rx/packets",
        "/traffic/underlay_tx/bytes",
        "/peers/0/tunnel/age_s",
        "/peers/0/links/0/rtt_ms",
        "/peers/0/links/0/jitter_ms",
        "/peers/0/links/0/loss",
        "/peers/0/links/0/mtu",
        "/peers/0/links/0/last_heard_ms",
        "/peers/0/paths/latency/metric",
    ] {
        status.number(pointer)?;
    }
    let rtt = status.number("/peers/0/links/0/rtt_ms")?;
    ensure!((19.0..40.0).contains(&rtt), "{rtt} ms");
    ensure!(status.number("/traffic/tun_rx/packets")? >= 3.0);
    ensure!(status.links("utah")?[0]["state"] == "up");
    ensure!(status.0["drops"].is_object());
    for command in ["status", "peers", "paths"] {
        let text = gateway.command(&[command])?.success()?.stdout;
        ensure!(text.contains("utah"), "{command}: {text}");
    }
    let flows = gateway.command(&["flows"])?.success()?.stdout;
    ensure!(flows.contains("10.2.0.11"), "{flows}");
    let explained = gateway.command(&["explain", "10.2.0.11"])?.success()?.stdout;
    ensure!(explained.contains("utah"), "{explained}");
    Ok(())
}

fn no_plaintext() -> Result<()> {
    let lab = start(topology())?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let captures = watch_plaintext(&lab, "mit")?;
    let _server = b.start_servers(&[b.v4.into()])?;
    a.verified_download(b.v4.into(), 500_000, 20 * SECOND)?;
    let ticks = a.start_ticks(&b, b.v6, 100)?;
    std::thread::sleep(500 * MS);
    ensure!(ticks.stop()?.received > 10);
    for capture in captures {
        let seen = capture.expect_nothing()?;
        ensure!(seen.bytes > 500_000, "{seen:?}");
    }
    Ok(())
}

/// Loss, disorder, copies and damage on the underlay: slower, never wrong.
fn lossy_underlay() -> Result<()> {
    let lab = start(topology().all_links(
        "{delay: 10ms, jitter: 2ms, loss: 0.01, reorder: 0.01, duplicate: 0.01, corrupt: 0.01, \
         corrupt_mended: true}",
    ))?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let _server = b.start_servers(&[b.v4.into()])?;
    a.verified_download(b.v4.into(), 1_000_000, 40 * SECOND)?;
    let ticks = a.start_ticks(&b, b.v4, 200)?;
    std::thread::sleep(3 * SECOND);
    let report = ticks.stop()?;
    ensure!(report.duplicates == 0, "copies made by the underlay reached a host: {report:?}");
    ensure!(report.lost() < report.sent / 10, "{report:?}");
    Ok(())
}

/// A peer with another key than the one we know gets nowhere, and does no harm.
fn stranger() -> Result<()> {
    let mut lab = Lab::start(topology())?;
    lab.prepare_gateways()?;
    let key = lab.gateway("mit")?.config["peers"][0]["public_key"].clone();
    let own = lab.gateway("utah")?.config["peers"][0]["public_key"].clone();
    ensure!(key != own);
    // Utah expects somebody else to be mit.
    let other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    lab.gateway("utah")?.config["peers"][0]["public_key"] = other.into();
    for site in ["mit", "utah"] {
        lab.gateway(site)?.start()?;
    }
    wait_until("several attempts were refused and counted", 10 * SECOND, || {
        let drops = lab.gateway("utah")?.status()?.drops();
        ensure!(drops.values().sum::<u64>() >= 2, "{drops:?}");
        Ok(())
    })?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        let status = lab.gateway(site)?.status()?;
        ensure!(status.tunnel_up(peer).is_err(), "{site}: {status:?}");
    }
    let ping = lab.host("mit", 1)?.ping(lab.host("utah", 1)?.v4, 2, 100 * MS)?;
    ensure!(ping.received == 0, "{ping:?}");
    // With the right key it comes up by itself.
    lab.gateway("utah")?.stop()?;
    lab.gateway("utah")?.config["peers"][0]["public_key"] = own;
    lab.gateway("utah")?.start()?;
    lab.gateway("mit")?.wait_tunnel("utah", 10 * SECOND)?;
    wait_until("hosts talk", 5 * SECOND, || {
        lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4).map(|_| ())
    })
}
