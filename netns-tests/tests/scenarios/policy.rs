//! Policy on real gateways: what a class may not use is not used, an operator sees why, and a reload
//! changes it.
//!
//! ```text
//!   mit-h1 ─ mit ════ 10 ms, fails ════ utah ─ utah-h1
//!              ╚══ 8 ms ══ aros ══ 8 ms ══╝        closed to pings at first
//!              ╚══ 15 ms ═ cable ═ 15 ms ═╝
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::{Scenario, Site, Topology, wait_until};
use serde_yaml::Value;

use crate::common::{SECOND, edit_config, start};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::new("policy::closed_relay_explain_and_reload", closed_relay_explain_and_reload)];

fn topology() -> Topology {
    let mit = Site::new("mit").config(
        "classes:\n\
         - {name: pings, match: {protocol: icmp}, avoid: {relays: [aros]}}\n\
         - {name: default}\n",
    );
    Topology::new([mit, Site::new("utah"), Site::new("aros"), Site::new("cable")])
        .all_links("{delay: 10ms}")
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
