//! Out to the Internet through a remote exit.
//!
//! ```text
//!   mit-h1 ┐
//!   mit-h2 ┼ mit ═══ 10 ms ═══ utah ═══ 10 ms ═══ internet ─ server 203.0.113.80, .81
//!   mit-h3 ┘        (overlay)  exit │  (underlay)
//!                            172.16.5.1 (a network of utah's own that nobody may reach)
//! ```

use std::net::IpAddr;
use std::thread::scope;

use anyhow::{Result, anyhow, ensure};
use netns_tests::lab::process::run;
use netns_tests::lab::{Lab, Scenario, Site, Topology};
use serde_json::Value;

use crate::common::{MS, SECOND, start, watch_plaintext};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("exit::rewrite", rewrite),
    Scenario::new("exit::routed", routed),
    Scenario::new("exit::masquerade", masquerade),
    Scenario::new("exit::own_exit", own_exit),
    Scenario::new("exit::many_hosts", many_hosts),
    Scenario::new("exit::operators_tools", operators_tools),
    Scenario::new("exit::forbidden_places", forbidden_places),
    Scenario::new("exit::uninvited", uninvited),
    Scenario::new("exit::no_plaintext_before_exit", no_plaintext_before_exit),
];

const UTAH_WAN: &str = "192.0.2.17";

fn topology(egress: &str) -> Topology {
    Topology::new([
        Site::new("mit").hosts(3).config("{internet: {via: [utah]}}"),
        Site::new("utah").config(egress),
    ])
    .internet(2)
    .all_links("{delay: 10ms}")
}

fn rewrite() -> Result<()> {
    let egress = "{egress: {enabled: true, mode: rewrite, pool: [100.64.1.1/32], for: [mit]}}";
    everything(&start(topology(egress))?, UTAH_WAN)
}

fn routed() -> Result<()> {
    let egress = "{egress: {enabled: true, mode: routed, pool: [192.0.2.20/32], for: [mit]}}";
    everything(&start(topology(egress))?, "192.0.2.20")
}

fn masquerade() -> Result<()> {
    let egress = "{egress: {enabled: true, mode: masquerade, pool: [100.64.1.1/32], for: [mit]}}";
    everything(&start(topology(egress))?, UTAH_WAN)
}

/// TCP, UDP, ICMP, and errors about each, seen by an unmodified host.
fn everything(lab: &Lab, outside: &str) -> Result<()> {
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let reply = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == outside, "{reply:?}");
    host.verified_download(server.v4.into(), 3_000_000, 20 * SECOND)?;
    ensure!(host.dig(server.v4, "www.lab", "A")? == [server.v4.to_string()]);
    ensure!(host.dig(server.v4, "whoami.lab", "A")? == [outside]);
    let ping = host.expect_ping(server.v4)?;
    ensure!((40.0..80.0).contains(&ping.min_ms), "{ping:?}");
    for kind in [&["-I"][..], &[], &["-T", "-p", "80"]] {
        let hops = host.traceroute(server.v4, kind)?;
        let router: IpAddr = "203.0.113.1".parse()?;
        ensure!(hops.last() == Some(&Some(server.v4.into())), "{kind:?}: {hops:?}");
        ensure!(hops.contains(&Some(router)), "routers behind the exit: {kind:?}: {hops:?}");
    }
    // A closed port answers: reset for TCP, "port unreachable" for UDP.
    let closed = host.run("nc", &["-n", "-v", "-w", "5", "203.0.113.80", "81"], 9 * SECOND)?;
    ensure!(closed.stderr.contains("refused"), "{closed:?}");
    let closed =
        host.run("dig", &["@203.0.113.80", "-p", "5353", "+tries=1", "x.lab"], 9 * SECOND)?;
    ensure!(closed.stdout.contains("refused") || closed.elapsed < SECOND, "{closed:?}");
    // Too large for the Internet behind the exit: the host learns the path's MTU.
    lab.netns("internet")?.ip("link set srv0 mtu 1300")?;
    let large = host.run("ping", &["-c2", "-Mdo", "-s1330", "203.0.113.80"], 5 * SECOND)?;
    ensure!(large.stdout.to_lowercase().contains("frag needed"), "{large:?}");
    host.verified_download(server.v4.into(), 1_000_000, 20 * SECOND)?;
    Ok(())
}

/// A site that offers an exit uses it for its own hosts as well.
fn own_exit() -> Result<()> {
    let mut lab = start(
        Topology::new([
            Site::new("mit").config("{internet: {via: [local]}, egress: {enabled: true}}"),
            Site::new("utah"),
        ])
        .internet(1)
        .all_links("{delay: 10ms}"),
    )?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let reply = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(reply.body.trim() == "192.0.2.9", "{reply:?}");
    host.verified_download(server.v4.into(), 1_000_000, 20 * SECOND)?;
    host.expect_ping(server.v4)?;
    ensure!(lab.gateway("mit")?.status()?.number("/nat/mappings")? >= 1.0);
    Ok(())
}

/// What an operator sees of the NAT, and may do about it, at a running gateway.
fn operators_tools() -> Result<()> {
    let mut lab = start(topology("{egress: {enabled: true}}"))?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    host.dig(server.v4, "www.lab", "A")?;
    let inside = host.v4.to_string();
    let utah = lab.gateway("utah")?;
    let list = |filter: &[&str]| -> Result<Value> {
        let finished = utah.command(&[&["nat", "--json"], filter].concat())?.success()?;
        Ok(serde_json::from_str(&finished.stdout)?)
    };
    let all = list(&["--protocol", "udp", "--host", &inside])?;
    let mappings = all["mappings"].as_array().filter(|list| !list.is_empty());
    let mappings = mappings.ok_or_else(|| anyhow!("no mapping: {all}"))?;
    let outside = mappings[0]["outside"].as_str().unwrap_or_default().to_owned();
    ensure!(outside.starts_with(UTAH_WAN), "{all}");
    ensure!(list(&["--host", "10.1.0.99"])?["mappings"] == Value::Array(Vec::new()));
    for (arguments, word) in [
        (&["nat", "--outside", &outside][..], &inside),
        (&["nat", "hosts"], &inside),
        (&["nat", "delete", "udp", &outside], &outside),
    ] {
        let shown = utah.command(arguments)?.success()?;
        ensure!((shown.stdout + &shown.stderr).contains(word.as_str()), "{arguments:?}");
    }
    ensure!(list(&["--outside", &outside])?["mappings"] == Value::Array(Vec::new()));
    ensure!(utah.command(&["nat", "delete", "udp", &outside])?.success().is_err(), "twice");
    let trace = utah.command(&["record", "--interval", "100ms", "--count", "2"])?.success()?.stdout;
    ensure!(trace.lines().nth(1).is_some_and(|line| line.starts_with("# began at ")), "{trace}");
    ensure!(trace.lines().nth(2).is_some_and(|row| row.contains("utah,mit,0")), "{trace}");
    utah.doctor(&[])?.success()?;

    lab.gateway("utah")?.stop()?;
    doctor_finds_a_firewall(&mut lab)
}

fn doctor_finds_a_firewall(lab: &mut Lab) -> Result<()> {
    let utah = lab.gateway("utah")?;
    let before = utah.doctor(&["--all"])?.success()?.stdout;
    ensure!(!before.contains("inet site"), "{before}");
    let rules = "add table inet site; add chain inet site forward \
                 { type filter hook forward priority 0; policy drop; }";
    let mut nft = utah.netns().command("nft");
    run(nft.arg(rules), 5 * SECOND)?.success()?;
    let found = utah.doctor(&[])?;
    ensure!(found.stdout.contains("inet site"), "{found:?}");
    Ok(())
}

/// Several hosts at once, with the same ports and the same ICMP identifiers.
fn many_hosts() -> Result<()> {
    let mut lab = start(topology("{egress: {enabled: true}}"))?;
    let server = lab.server()?;
    let hosts = [lab.host("mit", 1)?, lab.host("mit", 2)?, lab.host("mit", 3)?];
    scope(|threads| {
        let work: Vec<_> = hosts
            .iter()
            .map(|host| {
                threads.spawn(|| {
                    let same_port = ["-sS", "--local-port", "50000", "-m", "20", "-o", "/dev/null"];
                    let mut arguments = same_port.to_vec();
                    arguments.push("http://203.0.113.80/bytes/1000000");
                    host.run("curl", &arguments, 25 * SECOND)?.success()?;
                    let ping = host.ping_with(server.v4, 20, 20 * MS, &["-e", "77"])?;
                    ensure!(ping.received >= 19, "{ping:?}");
                    host.dig("203.0.113.81".parse::<IpAddr>()?, "www.lab", "A")
                })
            })
            .collect();
        work.into_iter().try_for_each(|host| {
            let answer = host.join().map_err(|_| anyhow!("a host panicked"))??;
            ensure!(answer.len() == 1, "{answer:?}");
            Ok(())
        })
    })?;
    let status = lab.gateway("utah")?.status()?;
    ensure!(status.number("/nat/mappings")? >= 3.0, "{status:?}");
    Ok(())
}

/// An exit's user must not reach the exit's router or its own networks.
fn forbidden_places() -> Result<()> {
    let mut lab = Lab::start(topology("{egress: {enabled: true}}"))?;
    let utah = lab.router("utah")?;
    lab.netns("utah")?
        .ip("link add own0 type bridge\nlink set own0 up\naddress add 172.16.5.1/24 dev own0\n\
         address add 169.254.7.1/16 dev own0")?;
    let places = [UTAH_WAN, "172.16.5.1", "169.254.7.1"];
    let addresses = places.map(|place| place.parse::<IpAddr>());
    let addresses = addresses.into_iter().collect::<Result<Vec<_>, _>>()?;
    let _server = utah.start_servers(&addresses)?;
    lab.start_gateways()?;
    // It is there for those who may reach it.
    lab.server()?.http_get(&format!("http://{UTAH_WAN}/whoami"), 5 * SECOND)?;
    let host = lab.host("mit", 1)?;
    host.expect_ping(lab.server()?.v4)?;
    for place in places {
        let url = format!("http://{place}/whoami");
        let reply = host.run("curl", &["-sS", "-m", "2", &url], 5 * SECOND)?;
        ensure!(!reply.status.success(), "{place}: {reply:?}");
        let ping = host.ping(place.parse::<IpAddr>()?, 2, 50 * MS)?;
        // Pings of its outside address the NAT answers itself (RFC 5508 REQ-10).
        let wanted = if place == UTAH_WAN { 2 } else { 0 };
        ensure!(ping.received == wanted, "{place}: {ping:?}");
    }
    ensure!(!lab.gateway("utah")?.status()?.drops().is_empty(), "refusals are counted");
    Ok(())
}

/// The exit serves only whom it is for.
fn uninvited() -> Result<()> {
    let mut sites = topology("{egress: {enabled: true, for: [aros]}}");
    sites.sites.push(Site::new("aros").config("{internet: {via: [utah]}}"));
    let lab = start(sites)?;
    let server = lab.server()?;
    lab.host("aros", 1)?.expect_ping(server.v4)?;
    let ping = lab.host("mit", 1)?.ping(server.v4, 3, 50 * MS)?;
    ensure!(ping.received == 0, "{ping:?}");
    Ok(())
}

fn no_plaintext_before_exit() -> Result<()> {
    let lab = start(topology("{egress: {enabled: true}}"))?;
    let captures = watch_plaintext(&lab, "mit")?;
    lab.host("mit", 1)?.verified_download(lab.server()?.v4.into(), 300_000, 20 * SECOND)?;
    for capture in captures {
        capture.expect_nothing()?;
    }
    Ok(())
}
