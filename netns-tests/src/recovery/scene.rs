//! The sites, an overlay on them, and the traffic across an event.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Overlay, peers};
use crate::lab::tick::Report;
use crate::lab::{Host, Lab, Process, Site, Topology, clock, wait_until};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Packets a second in each direction.
pub(super) const RATE: u32 = 200;
/// What a relay adds to the one-way delay of the direct path.
pub(super) const ADDED_MS: u32 = 10;
/// All sites; the first two have hosts.
pub(super) const SITES: [&str; 4] = ["mit", "utah", "aros", "cable"];
/// How long an overlay may take until its hosts reach each other.
const READY: Duration = Duration::from_secs(60);

/// A running laboratory with an overlay.
pub(super) struct Scene {
    // The daemons end before the laboratory.
    _daemons: Vec<Process>,
    pub(super) lab: Lab,
    pub(super) delay_ms: u32,
}

/// Starts the overlay as it comes; `redundancy` is of our own classes.
pub(super) fn start(overlay: &Overlay, delay_ms: u32, redundancy: u32) -> Result<Scene> {
    let classes = format!("classes: [{{name: default, redundancy: {redundancy}}}]");
    let sites = SITES.map(|name| Site::new(name).config(&classes));
    let hop = |extra: u32| format!("{{delay: {}us}}", (delay_ms + extra) * 500);
    let topology = Topology::new(sites)
        .all_links("{delay: 20ms}")
        .link("mit", "utah", &format!("{{delay: {delay_ms}ms}}"))
        .link("mit", "aros", &hop(ADDED_MS))
        .link("aros", "utah", &hop(ADDED_MS))
        .link("mit", "cable", &hop(2 * ADDED_MS))
        .link("cable", "utah", &hop(2 * ADDED_MS));
    let mut lab = Lab::start(topology)?;
    let mut daemons = Vec::new();
    match overlay {
        Overlay::Rongate => {
            lab.start_gateways()?;
            for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
                lab.gateway(site)?.wait_via(peer, None, READY)?;
            }
        }
        Overlay::Peer(peer, program) => daemons = peers::start(*peer, program, &lab)?,
    }
    let scene = Scene { _daemons: daemons, lab, delay_ms };
    if *overlay != Overlay::Rongate {
        scene.wait_direct()?;
    }
    Ok(scene)
}

impl Scene {
    pub(super) fn hosts(&self) -> Result<[Host; 2]> {
        Ok([self.lab.host("mit", 1)?, self.lab.host("utah", 1)?])
    }

    /// Waits until the hosts' packets take the direct path.
    fn wait_direct(&self) -> Result<()> {
        let [a, b] = self.hosts()?;
        let direct = f64::from(2 * self.delay_ms) + 8.0;
        wait_until("hosts reach each other by the direct path", READY, || {
            let round_trip = a.expect_ping(b.v4)?.avg_ms;
            ensure!(round_trip < direct, "{round_trip} ms");
            Ok(())
        })
    }

    /// Ticks both ways before, during and after an event.
    pub(super) fn across(
        &mut self,
        event: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<[Report; 2]> {
        let [a, b] = self.hosts()?;
        let there = a.start_ticks_with(&b, b.v4, RATE, &["--size", "64"])?;
        let back = b.start_ticks_with(&a, a.v4, RATE, &["--size", "64"])?;
        sleep(5 * SECOND);
        event(self)?;
        Ok([there.stop()?, back.stop()?])
    }

    /// Waits until both ends of our own overlay use a relay, or neither does. Returns how long.
    pub(super) fn wait_relayed(&mut self, relayed: bool, limit: Duration) -> Result<Duration> {
        let begun = clock::now();
        loop {
            if self.are_relayed()? == [relayed; 2] {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < limit, "not after {limit:?}");
            sleep(Duration::from_millis(10));
        }
    }

    /// Whether each end of our own overlay uses a relay to the other one.
    pub(super) fn are_relayed(&mut self) -> Result<[bool; 2]> {
        let mut relayed = [false; 2];
        for ((site, peer), own) in [("mit", "utah"), ("utah", "mit")].into_iter().zip(&mut relayed)
        {
            *own = self.lab.gateway(site)?.status()?.via(peer, "latency")?.is_some();
        }
        Ok(relayed)
    }

    /// How often each end has changed its path so far.
    pub(super) fn switches(&mut self) -> Result<[f64; 2]> {
        let mut all = [0.0; 2];
        for ((site, peer), count) in [("mit", "utah"), ("utah", "mit")].into_iter().zip(&mut all) {
            let status = self.lab.gateway(site)?.status()?;
            let path = &status.peer(peer)?["paths"]["latency"];
            *count = path["switches"].as_f64().context("no count of switches")?;
        }
        Ok(all)
    }
}
