//! Policy on real gateways: what a class may not use is not used, an operator sees why, and a reload
//! changes it.
//!
//! ```text
//!   mit-h1 ─ mit ════ 10 ms, fails ════ utah ─ utah-h1
//!              ╚══ 8 ms ══ aros ══ 8 ms ══╝        closed to pings at first
//!              ╚══ 15 ms ═ cable ═ 15 ms ═╝
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::run;
use netns_tests::lab::{Gateway, Host, Lab, Scenario, Site, Topology, tools, wait_until};
use serde_yaml::Value;

use crate::common::{SECOND, edit_config, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("policy::closed_relay_explain_and_reload", closed_relay_explain_and_reload),
    Scenario::new("policy::what_a_packet_shows_decides", what_a_packet_shows_decides),
];

fn topology() -> Topology {
    let mit = Site::new("mit").config(
        "classes:\n\
         - {name: pings, match: {protocol: icmp}, avoid: {relays: [aros]}}\n\
         - {name: default}\n",
    );
    around(mit, "{delay: 10ms}")
}

/// Four sites; `direct` is what the links are like that have no other length.
fn around(mit: Site, direct: &str) -> Topology {
    Topology::new([mit, Site::new("utah"), Site::new("aros"), Site::new("cable")])
        .all_links(direct)
        .link("mit", "aros", "{delay: 8ms}")
        .link("aros", "utah", "{delay: 8ms}")
        .link("mit", "cable", "{delay: 15ms}")
        .link("cable", "utah", "{delay: 15ms}")
}

fn closed_relay_explain_and_reload() -> Result<()> {
    let mut lab = start(topology())?;
    lab.gateway("mit")?.wait_via("utah", None, 10 * SECOND)?;
    lab.cut("mit", "utah")?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        lab.gateway(site)?.wait_via(peer, Some("aros"), 10 * SECOND)?;
    }
    // A path that is only suspected is no outage yet, and nothing has been left for good.
    lab.gateway("mit")?.wait_status("the outage is known", 5 * SECOND, |status| {
        let outages = &status.peer("utah")?["availability"]["outages"];
        ensure!(*outages == 1, "{outages} outages");
        Ok(())
    })?;
    let (here, there) = (lab.host("mit", 1)?.v4, lab.host("utah", 1)?.v4);
    // Out by cable (15 + 15 ms), back by aros (8 + 8 ms).
    let ping = lab.host("mit", 1)?.expect_ping(there)?;
    ensure!((44.0..60.0).contains(&ping.min_ms), "{ping:?}");

    let mit = lab.gateway("mit")?;
    let flow = format!("icmp {here} {there}");
    let words: Vec<&str> = flow.split(' ').collect();
    let text = mit.command(&[&["explain"], &words[..]].concat())?.success()?.stdout;
    for part in ["of class `pings`: not relays aros", "through cable", "closed to the class"] {
        ensure!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let known = mit.command(&["explain", &there.to_string(), "--json"])?.success()?.stdout;
    let known: serde_json::Value = serde_json::from_str(&known)?;
    ensure!(known["rule"] == "default" && known["routing"]["previous"] == "direct", "{known:#}");
    ensure!(known["regret"]["rescued_packets"].is_u64(), "{known:#}");
    ensure!(known["candidates"][0]["samples"].as_u64() > Some(0), "{known:#}");

    // The other relay is closed instead, without a restart.
    edit_config(&mut lab, "mit", |config| {
        config["classes"][0]["avoid"]["relays"] =
            serde_yaml::from_str("[cable]").unwrap_or_default();
    })?;
    let reloaded = lab.gateway("mit")?.command(&["reload"])?.success()?.stdout;
    ensure!(reloaded == "classes\n", "{reloaded}");
    wait_until("pings go by aros both ways", 5 * SECOND, || {
        let ping = lab.host("mit", 1)?.expect_ping(there)?;
        ensure!((30.0..42.0).contains(&ping.min_ms), "{ping:?}");
        Ok(())
    })?;
    // What needs a restart is refused whole.
    edit_config(&mut lab, "mit", |config| {
        config["classes"] = Value::Null;
        config["tun"]["name"] = "ron9".into();
    })?;
    let refused = lab.gateway("mit")?.command(&["reload"])?;
    ensure!(!refused.status.success() && refused.stderr.contains("tun.name"), "{refused:?}");
    Ok(())
}

/// A site with two interfaces with hosts behind them. By aros 8 + 8 ms, by cable 15 + 15 ms, directly
/// 40 ms; all answers come by aros.
fn with_two_lans() -> Result<Lab> {
    let mit = Site::new("mit").hosts(2).config(
        "lan: {interfaces: [lan0, lan1]}\n\
         classes:\n\
         - {name: marked, match: {dscp: ef}, avoid: {relays: [aros]}}\n\
         - {name: labelled, match: {flow_label: 0x12345}, only: {relays: []}}\n\
         - {name: behind, match: {interface: lan1}, only: {relays: []}, set_dscp: cs3}\n\
         - {name: second, match: {source: 10.1.0.12/32}, only: {relays: [cable]}, set_dscp: af41}\n\
         - {name: told, match: {protocol: tcp}, metric: app}\n\
         - {name: default}\n",
    );
    let mut lab = Lab::start(around(mit, "{delay: 40ms}"))?;
    lab.netns("mit")?.ip("link add lan1 type veth peer name eth1 netns mit-h1\n\
         address add 10.1.200.1/24 dev lan1\nlink set lan1 up")?;
    lab.netns("mit-h1")?.ip("address add 10.1.200.2/24 dev eth1\nlink set eth1 up\n\
         route add default via 10.1.200.1 table 100\nrule add from 10.1.200.2 lookup 100")?;
    lab.start_gateways()?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        lab.gateway(site)?.wait_via(peer, Some("aros"), 10 * SECOND)?;
    }
    Ok(lab)
}

fn what_a_packet_shows_decides() -> Result<()> {
    let mut lab = with_two_lans()?;
    let (first, second) = (lab.host("mit", 1)?, lab.host("mit", 2)?);
    let there = lab.host("utah", 1)?;
    ensure!(second.v4.to_string() == "10.1.0.12", "{}", second.v4);
    count_code_points(&lab.router("mit")?)?;

    let (to, to6) = (there.v4.to_string(), there.v6.to_string());
    let way = |host: &Host, options: &[&str], v6: bool, (from, to): (f64, f64)| {
        let target = if v6 { there.v6.into() } else { std::net::IpAddr::from(there.v4) };
        wait_until(&format!("{options:?} takes its way"), 10 * SECOND, || {
            let ping = host.ping_with(target, 3, SECOND / 20, options)?;
            ensure!(ping.received == 3 && (from..to).contains(&ping.min_ms), "{ping:?}");
            Ok(())
        })
    };
    let (aros, cable, direct) = ((31.0, 42.0), (45.0, 53.5), (55.0, 75.0));
    way(&first, &[], false, aros)?;
    way(&first, &["-Q", "0xb8"], false, cable)?;
    way(&first, &["-I", "10.1.200.2"], false, direct)?;
    way(&second, &[], false, cable)?;
    way(&second, &[], true, aros)?;
    send_labelled(&first, there.v6)?;

    // Outer packets: what the class says, else what the inner ones have.
    let router = lab.router("mit")?;
    for (name, at_least) in [("ef", 3), ("cs3", 3), ("af41", 3)] {
        let counted = counted(&router, name)?;
        ensure!(counted >= at_least, "{counted} packets with {name}");
    }
    ensure!(counted(&router, "af11")? == 0, "nobody asked for that");

    let mit = lab.gateway("mit")?;
    let rule = |arguments: &[&str]| -> Result<String> {
        let text = mit.command(&[&["explain", "--json"], arguments].concat())?.success()?.stdout;
        let explanation: serde_json::Value = serde_json::from_str(&text)?;
        Ok(explanation["rule"].as_str().with_context(|| text.clone())?.to_owned())
    };
    for (arguments, class) in [
        (&[&*to][..], "default"),
        (&[&to, "--dscp", "ef"], "marked"),
        (&[&to6, "--flow-label", "0x12345"], "labelled"),
        (&[&to, "--interface", "lan1"], "behind"),
        (&[&to, "--interface", "lan0"], "default"),
        (&[&to, "--from", "10.1.0.12"], "second"),
        (&[&to, "--protocol", "tcp", "--to-port", "80"], "told"),
        (&["udp", "10.1.200.2:7", &to], "behind"),
    ] {
        let found = rule(arguments)?;
        ensure!(found == class, "{arguments:?}: {found}");
    }
    let wrong = mit.command(&["explain", &to, "--interface", "wan0"])?;
    ensure!(wrong.stderr.contains("`wan0` is not one of `lan.interfaces`"), "{wrong:?}");
    let flows = mit.command(&["flows", "--json"])?.success()?.stdout;
    let flows: serde_json::Value = serde_json::from_str(&flows)?;
    let list = flows["flows"].as_array().with_context(|| flows.to_string())?;
    for (class, via) in [
        ("default", Some("aros")),
        ("marked", Some("cable")),
        ("labelled", None),
        ("behind", None),
        ("second", Some("cable")),
    ] {
        let flow = list.iter().find(|flow| flow["class"] == class);
        let flow = flow.with_context(|| format!("no flow of {class}: {flows:#}"))?;
        ensure!(flow["via"].as_str() == via, "{flow:#}");
    }
    a_program_says_what_is_best(mit, &to)
}

/// Values that a program gives paths decide for the class that asks for them, as long as they last.
fn a_program_says_what_is_best(mit: &Gateway, to: &str) -> Result<()> {
    let goes = |way: &str| {
        wait_until(&format!("tcp goes {way}"), 10 * SECOND, || {
            let told = mit.command(&["explain", to, "--protocol", "tcp"])?.success()?.stdout;
            ensure!(told.contains(way), "{told}");
            Ok(())
        })
    };
    goes("through aros")?;
    mit.command(&["metric", "set", "utah", "--via", "cable", "3", "--ttl", "10m"])?.success()?;
    goes("through cable")?;
    mit.command(&["metric", "set", "utah", "1.5"])?.success()?;
    goes("direct, over")?;
    let list = mit.command(&["metric", "list", "--json"])?.success()?.stdout;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let values = list["values"].as_array().with_context(|| list.to_string())?;
    let cable = values.iter().find(|value| value["via"] == "cable");
    ensure!(values.len() == 2 && cable.is_some_and(|cable| cable["value"] == 3.0), "{list:#}");
    mit.command(&["metric", "clear", "utah"])?.success()?;
    mit.command(&["metric", "clear", "utah", "--via", "cable"])?.success()?;
    goes("through aros")?;
    let refused = mit.command(&["metric", "set", "nobody", "1"])?;
    ensure!(!refused.status.success() && refused.stderr.contains("nobody"), "{refused:?}");
    Ok(())
}

/// Sends a few datagrams with the flow label 0x12345.
fn send_labelled(host: &Host, to: std::net::Ipv6Addr) -> Result<()> {
    const IPV6_FLOWINFO_SEND: i32 = 33;
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.IPPROTO_IPV6, {IPV6_FLOWINFO_SEND}, 1)\n\
         for _ in range(3): s.sendto(b'labelled', ('{to}', 9, 0x12345, 0))\n"
    );
    let mut python = host.netns().command(tools::python());
    run(python.args(["-c", &script]), 5 * SECOND)?.success()?;
    Ok(())
}

/// Has the kernel count what a gateway sends, by code point.
fn count_code_points(router: &Host) -> Result<()> {
    let mut rules = "add table inet marks; add chain inet marks out \
                     { type filter hook output priority 0; }"
        .to_owned();
    for name in ["ef", "cs3", "af41", "af11"] {
        rules += &format!("; add rule inet marks out oifname wan0 ip dscp {name} counter");
    }
    run(router.command("nft").arg(rules), 5 * SECOND)?.success()?;
    Ok(())
}

/// How many packets with this code point the gateway sent.
fn counted(router: &Host, name: &str) -> Result<u64> {
    let list = ["list", "chain", "inet", "marks", "out"];
    let chain = router.run("nft", &list, 5 * SECOND)?.success()?.stdout;
    let rule = chain.lines().find(|line| line.contains(&format!("dscp {name} ")));
    let rule = rule.with_context(|| chain.clone())?;
    let count = rule.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(count.with_context(|| rule.to_owned())?.parse()?)
}
