//! What a path carries, as two gateways find it out over interfaces that the kernel shapes.
//!
//! ```text
//!   mit-h1 ─ mit ─ wan0 ══ 10 Mbit/s there, 100 Mbit/s back ══ wan0 ─ utah ─ utah-h1
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Lab, Scenario, Site, Topology};

use crate::common::{SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::new("capacity::shaped", shaped)];

/// A queue that lets a datagram through when its time has come, and super-packets as they are.
fn shape(lab: &Lab, site: &str, mbit: u32) -> Result<()> {
    let commands = [
        "qdisc replace dev wan0 root handle 1: htb default 1".to_owned(),
        format!("class add dev wan0 parent 1: classid 1:1 htb rate {mbit}mbit burst 1 cburst 1"),
    ];
    for command in commands {
        let status = lab.netns(site)?.command("tc").args(command.split(' ')).status()?;
        ensure!(status.success(), "tc {command}: {status}");
    }
    Ok(())
}

fn shaped() -> Result<()> {
    let config = "classes: [{name: default, metric: throughput}]\nprobing: {budget: 500kbit}";
    let sites = ["mit", "utah"].map(|name| Site::new(name).config(config));
    let mut lab = start(Topology::new(sites).wire())?;
    shape(&lab, "mit", 10)?;
    shape(&lab, "utah", 100)?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let ticks = [a.start_ticks(&b, b.v4, 20)?, b.start_ticks(&a, a.v4, 20)?];
    for (site, peer, mbit) in [("mit", "utah", 10.0), ("utah", "mit", 100.0)] {
        let found =
            lab.gateway(site)?.wait_status("what its path carries", 40 * SECOND, |status| {
                let candidates = &status.peer(peer)?["paths"]["throughput"]["candidates"];
                candidates[0]["capacity_mbit"].as_f64().context("not measured")
            })?;
        // On a busy machine timers are late, and datagrams then closer to each other, or further apart.
        ensure!((mbit / 2.0..mbit * 2.0).contains(&found), "{site}: {found} of {mbit} Mbit/s");
    }
    ticks.into_iter().try_for_each(|ticks| ticks.stop().map(|_| ()))
}
