//! What the gateway does to its router's kernel, and undoes.
//!
//! ```text
//!   mit-h1 ─ lan0 ─ mit ─ wan0 ══ 10 ms ══ utah ─ utah-h1
//!                    ╚═══════════════════ internet ─ server
//! ```

use std::process::Command;
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::run;
use netns_tests::lab::programs::find_gateway;
use netns_tests::lab::{Lab, Scenario, Site, Topology, wait_until};

use crate::common::{MS, SECOND, edit_config, kernel_state, start, wait_ping, watch_plaintext};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("kernel::undone_at_exit", undone_at_exit),
    Scenario::new("kernel::cleaned_after_kill", cleaned_after_kill),
    Scenario::new("kernel::dies_safely", dies_safely),
    Scenario::new("kernel::dies_openly", dies_openly),
    Scenario::new("kernel::router_stays_usable", router_stays_usable),
    Scenario::new("kernel::port_forward", port_forward),
    Scenario::new("kernel::hosts_keep_their_default", hosts_keep_their_default),
    Scenario::new("kernel::reload_takes_the_default_over", reload_takes_the_default_over),
    Scenario::new("kernel::bypass", bypass),
    Scenario::new("kernel::clear_refusals", clear_refusals),
];

fn topology(lan: &str) -> Topology {
    let mit = format!("{{internet: {{via: [utah]}}, lan: {lan}}}");
    Topology::new([
        Site::new("mit").config(&mit),
        Site::new("utah").config("{egress: {enabled: true}}"),
    ])
    .internet(2)
    .all_links("{delay: 10ms}")
}

fn undone_at_exit() -> Result<()> {
    let mut lab = Lab::start(topology("{}"))?;
    let before = [kernel_state(&lab, "mit")?, kernel_state(&lab, "utah")?];
    lab.start_gateways()?;
    lab.host("mit", 1)?.expect_ping(lab.server()?.v4)?;
    ensure!(kernel_state(&lab, "mit")? != before[0], "it changes nothing?");
    for (site, before) in ["mit", "utah"].into_iter().zip(before) {
        lab.gateway(site)?.stop()?;
        let after = kernel_state(&lab, site)?;
        ensure!(after == before, "left behind at {site}:\n{}", difference(&before, &after));
    }
    Ok(())
}

fn difference(before: &str, after: &str) -> String {
    let only = |sign: char, a: &str, b: &str| -> String {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only('-', before, after) + &only('+', after, before)
}

/// A successor finds what a killed predecessor left, and leaves nothing itself.
fn cleaned_after_kill() -> Result<()> {
    let mut lab = Lab::start(topology("{}"))?;
    let before = kernel_state(&lab, "mit")?;
    lab.start_gateways()?;
    for _ in 0..3 {
        lab.gateway("mit")?.kill()?;
        lab.gateway("mit")?.start()?;
    }
    lab.gateway("mit")?.wait_tunnel("utah", 5 * SECOND)?;
    wait_ping(&lab, "mit", "utah")?;
    lab.gateway("mit")?.stop()?;
    let after = kernel_state(&lab, "mit")?;
    ensure!(after == before, "left behind:\n{}", difference(&before, &after));
    Ok(())
}

/// `on_failure: block`: what hosts send while no gateway runs goes nowhere, least of all in the
/// clear to the provider.
fn dies_safely() -> Result<()> {
    let mut lab = start(topology("{on_failure: block}"))?;
    let captures = watch_plaintext(&lab, "mit")?;
    let (host, far, server) = (lab.host("mit", 1)?, lab.host("utah", 1)?, lab.server()?);
    let ticks = [host.start_ticks(&far, far.v4, 50)?, host.start_echo_ticks(server.v4, 50)?];
    sleep(SECOND);
    lab.gateway("mit")?.kill()?;
    sleep(2 * SECOND);
    let ping = host.ping(far.v4, 2, 100 * MS)?;
    ensure!(ping.received == 0, "{ping:?}");
    let ping = host.ping(server.v4, 2, 100 * MS)?;
    ensure!(ping.received == 0, "{ping:?}");
    // The router itself goes on.
    lab.router("mit")?.expect_ping(server.v4)?;
    lab.gateway("mit")?.start()?;
    sleep(3 * SECOND);
    for stream in ticks {
        let report = stream.stop()?;
        ensure!(report.highest + 50 > report.sent, "it goes on after the restart: {report:?}");
    }
    captures.into_iter().try_for_each(|capture| capture.expect_nothing().map(|_| ()))
}

/// `on_failure: direct`: hosts fall back to the router's own way to the Internet, but sites'
/// networks are still not for the provider to see.
fn dies_openly() -> Result<()> {
    let mut lab = start(topology("{on_failure: direct}").kernel_routing())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let reply = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == "192.0.2.17", "{reply:?}");
    lab.gateway("mit")?.kill()?;
    wait_until("hosts go out directly", 5 * SECOND, || {
        let reply = host.http_get("http://203.0.113.80/whoami", SECOND)?;
        ensure!(reply.body.trim() == host.v4.to_string(), "{reply:?}");
        Ok(())
    })?;
    host.expect_ping(server.v4)?;
    Ok(())
}

/// While the default route is taken over, hosts still use the router's own services, and the
/// router's own traffic goes its own way.
fn router_stays_usable() -> Result<()> {
    let lab = start(topology("{}"))?;
    let (host, router) = (lab.host("mit", 1)?, lab.router("mit")?);
    let _server = router.start_servers(&[router.v4.into(), router.v6.into()])?;
    host.expect_ping(router.v4)?;
    host.expect_ping(router.v6)?;
    ensure!(host.dig(router.v4, "www.lab", "A")? == [router.v4.to_string()]);
    ensure!(host.http_get("http://10.1.0.1/whoami", 5 * SECOND)?.body.trim() == "10.1.0.11");
    // The WAN address of one's own router, too.
    host.expect_ping("192.0.2.9".parse::<std::net::IpAddr>()?)?;
    let reply = router.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == "192.0.2.9", "the router's own way: {reply:?}");
    Ok(())
}

/// Replies of a forwarded port leave by the way the request came in.
fn port_forward() -> Result<()> {
    forwards_a_port(&start(topology("{}"))?)
}

fn forwards_a_port(lab: &Lab) -> Result<()> {
    let (host, router) = (lab.host("mit", 1)?, lab.router("mit")?);
    let _server = host.start_servers(&[host.v4.into()])?;
    let rules = "table ip forward_port {\n chain in {\n type nat hook prerouting priority -100;\n\
                 iifname wan0 tcp dport 8080 dnat to 10.1.0.11:80\n }\n }";
    let mut nft = router.command("nft");
    netns_tests::lab::process::run_with_input(nft.args(["-f", "-"]), rules, 5 * SECOND)?
        .success()?;
    let reply = lab.server()?.http_get("http://192.0.2.9:8080/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == "203.0.113.80", "{reply:?}");
    Ok(())
}

/// Without a way to the Internet through the overlay nothing goes by policy, and no connection is
/// tracked: hosts reach other sites through the tunnel and the rest as before.
fn hosts_keep_their_default() -> Result<()> {
    let sites = [Site::new("mit").config("{internet: {via: []}}"), Site::new("utah")];
    let topology = Topology::new(sites).internet(2).all_links("{delay: 10ms}").kernel_routing();
    let lab = start(topology)?;
    let (host, far) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let captures = watch_plaintext(&lab, "mit")?;
    host.expect_ping(far.v4)?;
    captures.into_iter().try_for_each(|capture| capture.expect_nothing().map(|_| ()))?;
    let reply = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == host.v4.to_string(), "{reply:?}");
    let state = kernel_state(&lab, "mit")?;
    ensure!(!state.contains("mark_replies") && !state.contains("fwmark"), "{state}");
    forwards_a_port(&lab)
}

/// A reload that gives hosts a way to the Internet through the overlay takes their default route over
/// at once, and one that takes it away gives it back.
fn reload_takes_the_default_over() -> Result<()> {
    let sites = [
        Site::new("mit").config("{internet: {via: []}}"),
        Site::new("utah").config("{egress: {enabled: true}}"),
    ];
    let topology = Topology::new(sites).internet(2).all_links("{delay: 10ms}").kernel_routing();
    let mut lab = start(topology)?;
    let own = lab.host("mit", 1)?.v4.to_string();
    ensure!(seen_as(&lab)? == own);
    reload_exits(&mut lab, "[]")?;
    let before = kernel_state(&lab, "mit")?;
    reload_exits(&mut lab, "[utah]")?;
    let captures = watch_plaintext(&lab, "mit")?;
    let exit = seen_as(&lab)?;
    ensure!(exit != own, "the exit does not show: {exit}");
    captures.into_iter().try_for_each(|capture| capture.expect_nothing().map(|_| ()))?;
    reload_exits(&mut lab, "[]")?;
    ensure!(seen_as(&lab)? == own);
    let after = kernel_state(&lab, "mit")?;
    ensure!(after == before, "left behind:\n{}", difference(&before, &after));
    Ok(())
}

/// The address under which the Internet sees a host.
fn seen_as(lab: &Lab) -> Result<String> {
    let reply = lab.host("mit", 1)?.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    Ok(reply.body.trim().to_owned())
}

fn reload_exits(lab: &mut Lab, via: &str) -> Result<()> {
    let via: serde_yaml::Value = serde_yaml::from_str(via)?;
    edit_config(lab, "mit", |config| {
        config["internet"]["via"] = via;
        for peer in config["peers"].as_sequence_mut().into_iter().flatten() {
            peer["egress"] = true.into();
        }
    })?;
    lab.gateway("mit")?.command(&["reload"])?.success().map(|_| ())
}

/// Bypassed destinations keep the router's routes.
fn bypass() -> Result<()> {
    let lab = start(topology("{bypass: [203.0.113.81/32]}").kernel_routing())?;
    let host = lab.host("mit", 1)?;
    let reply = host.http_get("http://203.0.113.81/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == host.v4.to_string(), "{reply:?}");
    let reply = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == "192.0.2.17", "{reply:?}");
    Ok(())
}

/// What cannot work is refused in one clear sentence, and leaves the kernel as it was.
fn clear_refusals() -> Result<()> {
    let mut lab = Lab::start(topology("{}"))?;
    lab.prepare_gateways()?;
    let before = kernel_state(&lab, "mit")?;
    let router = lab.router("mit")?;
    let refused = |lab: &mut Lab, word: &str| -> Result<()> {
        lab.gateway("mit")?.write_config()?;
        let path = lab.gateway("mit")?.config_path();
        let mut command = router.command(&find_gateway()?.display().to_string());
        let end = run(command.arg("run").arg("--config").arg(path), 5 * SECOND)?;
        ensure!(!end.status.success(), "it started in spite of {word}");
        ensure!(end.stderr.contains(word), "no word of {word}: {}", end.stderr);
        ensure!(!end.stderr.contains("panicked"), "{}", end.stderr);
        Ok(())
    };
    // The port is taken.
    let holder = router.start("holder", "nc".as_ref(), &["-u", "-l", "192.0.2.9", "4710"])?;
    wait_until("the port is taken", 5 * SECOND, || {
        let sockets = router.run("ss", &["-Huln", "sport = :4710"], SECOND)?;
        ensure!(sockets.stdout.contains("192.0.2.9:4710"), "{sockets:?}");
        Ok(())
    })?;
    refused(&mut lab, "4710")?;
    drop(holder);
    // The name of the TUN is taken.
    lab.netns("mit")?.ip("link add ron0 type bridge")?;
    refused(&mut lab, "ron0")?;
    lab.netns("mit")?.ip("link del ron0")?;
    // The uplink's address is not ours.
    let listen = lab.gateway("mit")?.config["uplinks"][0]["listen"].clone();
    lab.gateway("mit")?.config["uplinks"][0]["listen"] = "192.0.2.200:4710".into();
    refused(&mut lab, "192.0.2.200")?;
    lab.gateway("mit")?.config["uplinks"][0]["listen"] = listen;
    // A second gateway with the same state.
    lab.gateway("mit")?.start()?;
    let path = lab.gateway("mit")?.config_path();
    let mut second: Command = router.command(&find_gateway()?.display().to_string());
    let end = run(second.arg("run").arg("--config").arg(path), 5 * SECOND)?;
    ensure!(!end.status.success() && lab.gateway("mit")?.is_running()?, "{end:?}");
    lab.gateway("mit")?.stop()?;
    let after = kernel_state(&lab, "mit")?;
    ensure!(after == before, "left behind:\n{}", difference(&before, &after));
    // A faulty configuration has exit status 2 and names the place.
    lab.gateway("mit")?.config["tun"]["mtu"] = 900.into();
    lab.gateway("mit")?.write_config()?;
    let path = lab.gateway("mit")?.config_path();
    let end = run(Command::new(find_gateway()?).arg("check").arg("--config").arg(path), SECOND)?;
    ensure!(end.status.code() == Some(2), "{end:?}");
    let line = end.stderr.lines().next().context("no message")?;
    ensure!(line.contains("mit.yaml:") && end.stderr.contains("mtu"), "{}", end.stderr);
    Ok(())
}
