//! The laboratory itself, with kernel forwarding instead of gateways.
//!
//! ```text
//!   mit-h1 ─ mit ─ wan0 ══ emulator or wire ══ wan0 ─ utah ─ utah-h1
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::lab::{Lab, Scenario, Site, Topology};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("laboratory::wire", wire).without_gateway(),
    Scenario::new("laboratory::wire_rootless", wire).without_gateway().rootless(),
];

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
    std::thread::sleep(Duration::from_secs(1));
    let report = ticks.stop()?;
    ensure!(
        report.sent >= 150 && report.lost() == 0 && report.received == report.sent,
        "{report:?}"
    );
    Ok(())
}
