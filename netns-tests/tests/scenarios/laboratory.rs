//! The laboratory itself, with kernel forwarding instead of gateways.
//!
//! ```text
//!   mit-h1 ─ mit ─ wan0 ══ emulator or wire ══ wan0 ─ utah ─ utah-h1
//!            └─── wan1 ══    (emulator)     ══ internet ─ server
//! ```

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::lab::payload::MARKER;
use netns_tests::lab::{Capture, Lab, Process, Scenario, Site, Topology, enter, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("laboratory::wire", wire).without_gateway(),
    Scenario::new("laboratory::wire_rootless", wire).without_gateway().rootless(),
    Scenario::new("laboratory::delay", delay).without_gateway(),
    Scenario::new("laboratory::delay_rootless", delay).without_gateway().rootless(),
    Scenario::new("laboratory::outage", outage).without_gateway(),
    Scenario::new("laboratory::one_way_outage", one_way_outage).without_gateway(),
    Scenario::new("laboratory::events", events).without_gateway(),
    Scenario::new("laboratory::internet", internet).without_gateway(),
    Scenario::new("laboratory::capture", capture).without_gateway(),
    Scenario::new("laboratory::renumber", renumber).without_gateway(),
    Scenario::new("laboratory::killed", killed).without_gateway(),
];

const MS: Duration = Duration::from_millis(1);

fn two_sites() -> Topology {
    Topology::new([Site::new("mit").hosts(2), Site::new("utah")]).kernel_routing()
}

fn wire() -> Result<()> {
    let topology = Topology::new([Site::new("mit"), Site::new("utah")]);
    let lab = Lab::start(topology.wire().kernel_routing())?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    a.expect_ping(b.v4)?;
    a.expect_ping(b.v6)?;
    let _server = b.start_iperf()?;
    let rate = a.iperf(b.v4, 1, &[])?;
    ensure!(rate.bits_per_second > 1e6, "{rate:?}");
    let hops = a.traceroute(b.v4, &["-I"])?;
    ensure!(hops.len() == 3 && hops[2] == Some(b.v4.into()), "{hops:?}");
    let ticks = a.start_ticks(&b, b.v4, 200)?;
    std::thread::sleep(1000 * MS);
    let report = ticks.stop()?;
    ensure!(report.sent >= 150 && report.lost() == 0, "{report:?}");
    Ok(())
}

fn delay() -> Result<()> {
    let lab = Lab::start(two_sites().all_links("{delay: 20ms}"))?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    for address in [std::net::IpAddr::from(b.v4), b.v6.into()] {
        let ping = a.ping(address, 10, 50 * MS)?;
        ensure!(ping.received == 10, "{ping:?}");
        ensure!(ping.min_ms >= 40.0 && ping.min_ms < 44.0, "{ping:?}");
    }
    // The second host stands behind the site's switch like the first.
    lab.host("mit", 2)?.expect_ping(b.v4)?;
    let ping = lab.host("mit", 2)?.expect_ping(a.v4)?;
    ensure!(ping.min_ms < 5.0, "inside the LAN: {ping:?}");
    lab.finish()?;
    Ok(())
}

fn outage() -> Result<()> {
    let lab = Lab::start(two_sites().all_links("{delay: 5ms}"))?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let ticks = a.start_ticks(&b, b.v4, 500)?;
    std::thread::sleep(500 * MS);
    lab.cut("mit", "utah")?;
    std::thread::sleep(800 * MS);
    lab.heal("mit", "utah")?;
    std::thread::sleep(500 * MS);
    let report = ticks.stop()?;
    ensure!((700.0..1000.0).contains(&report.longest_gap_ms), "{report:?}");
    ensure!((350..500).contains(&report.lost()), "{report:?}");
    ensure!(report.gaps.len() == 1, "{report:?}");
    ensure!((5.0..8.0).contains(&report.delay.median_ms), "{report:?}");
    Ok(())
}

fn one_way_outage() -> Result<()> {
    let lab = Lab::start(two_sites())?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    lab.cut_one_way("mit", "utah")?;
    let (forth, back) = (a.start_ticks(&b, b.v4, 100)?, b.start_ticks(&a, a.v4, 100)?);
    std::thread::sleep(500 * MS);
    let (forth, back) = (forth.stop()?, back.stop()?);
    ensure!(forth.received == 0 && forth.sent > 20, "{forth:?}");
    ensure!(back.lost() == 0 && back.received > 20, "{back:?}");
    Ok(())
}

fn events() -> Result<()> {
    let topology = Topology::from_yaml(
        "sites: [{name: mit}, {name: utah}]\n\
         kernel_routing: true\n\
         wan:\n  events:\n  - {at: 2s, from: mit, to: utah, both: true, set: {delay: 30ms}}\n",
    )?;
    let lab = Lab::start(topology)?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let before = a.ping(b.v4, 2, 20 * MS)?;
    ensure!(before.avg_ms < 10.0, "{before:?}");
    wait_until("the event", 5000 * MS, || {
        let after = a.ping(b.v4, 2, 20 * MS)?;
        ensure!((60.0..70.0).contains(&after.min_ms), "{after:?}");
        Ok(())
    })
}

fn internet() -> Result<()> {
    let lab = Lab::start(
        Topology::new([Site::new("mit").uplinks(&["isp1", "isp2"])]).internet(2).kernel_routing(),
    )?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    host.verified_download(server.v4.into(), 3_000_000, 20_000 * MS)?;
    host.verified_download(server.v6.into(), 300_000, 20_000 * MS)?;
    let reply = host.http_get("http://203.0.113.81/whoami", 5000 * MS)?;
    ensure!(reply.code == 200 && reply.body.trim() == host.v4.to_string(), "{reply:?}");
    let answer = host.dig(server.v4, "www.lab", "A")?;
    ensure!(answer == [server.v4.to_string()], "{answer:?}");
    let answer = host.dig(server.v6, "whoami.lab", "AAAA")?;
    ensure!(answer == [host.v6.to_string()], "{answer:?}");
    let hops = host.traceroute(server.v4, &[])?;
    ensure!(hops.len() == 3 && hops[2] == Some(server.v4.into()), "{hops:?}");
    let mut nc = host.command("nc");
    nc.args(["-N", "-w", "3", &server.v4.to_string(), "7"]);
    let echo = netns_tests::lab::process::run_with_input(&mut nc, "hello\n", 6000 * MS)?;
    ensure!(echo.stdout == "hello\n", "{echo:?}");
    let ticks = host.start_echo_ticks(server.v4, 100)?;
    std::thread::sleep(500 * MS);
    let report = ticks.stop()?;
    ensure!(report.received > 20 && report.lost() == 0, "{report:?}");
    ensure!(host.iperf(server.v4, 1, &["-R"])?.bytes > 100_000);
    // Both uplinks lead there, each with its own address.
    let router = lab.router("mit")?;
    for source in ["192.0.2.9", "198.51.100.9"] {
        router.run("ping", &["-c1", "-W1", "-I", source, "203.0.113.80"], 3000 * MS)?.success()?;
    }
    Ok(())
}

/// Without a gateway the capture must find what it looks for; otherwise its silence later would
/// prove nothing.
fn capture() -> Result<()> {
    let lab = Lab::start(two_sites().internet(1))?;
    let capture = Capture::start(lab.netns("mit")?, "wan0", &[MARKER])?;
    let quiet = Capture::start(lab.netns("utah")?, "wan0", &[MARKER])?;
    lab.host("mit", 1)?.verified_download(lab.server()?.v4.into(), 100_000, 10_000 * MS)?;
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    let seen = capture.stop()?;
    ensure!(seen.matches >= 2 && seen.bytes > 100_000 && seen.missed == 0, "{seen:?}");
    ensure!(quiet.expect_nothing()?.frames >= 6);
    Ok(())
}

fn renumber() -> Result<()> {
    let lab = Lab::start(two_sites().internet(1))?;
    let (router, server) = (lab.router("mit")?, lab.server()?);
    let whoami = || -> Result<String> {
        Ok(router.http_get("http://203.0.113.80/whoami", 3000 * MS)?.body.trim().into())
    };
    ensure!(whoami()? == "192.0.2.9");
    let new = lab.renumber("mit")?;
    ensure!(new.to_string() == "192.0.2.10", "{new}");
    ensure!(whoami()? == "192.0.2.10");
    lab.host("mit", 1)?.expect_ping(server.v4)?;
    Ok(())
}

/// Whatever runs inside a laboratory ends with it, even if nobody could clean up.
fn killed() -> Result<()> {
    let count = || -> Result<usize> {
        let mut found = 0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found += usize::from(line.starts_with(b"sleep\x00987"));
        }
        Ok(found)
    };
    let mut command: Command = enter::namespaced("sh", false);
    command.args(["-c", "ip link add type veth; setsid sleep 987 & exec sleep 987"]);
    let log = std::path::Path::new(enter::DIRECTORY).join("victim.log");
    let mut victim = Process::spawn("victim", &mut command, &log)?;
    wait_until("both are there", 5000 * MS, || {
        ensure!(count()? == 2, "{} processes", count()?);
        Ok(())
    })?;
    victim.kill()?;
    wait_until("none is left", 5000 * MS, || {
        ensure!(count()? == 0, "{} processes", count()?);
        Ok(())
    })
}
