//! An attacker who sees the underlay and can send anything from any address.
//!
//! ```text
//!   mit-h1 ─ mit ══ 10 ms ══ utah ─ utah-h1
//!              ╚════ eve ═════╝     (no gateway; forges sources, replays what was recorded)
//! ```

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::capture::{Datagram, Recording, inject};
use netns_tests::lab::overlay_config::PORT;
use netns_tests::lab::{Lab, Scenario, Site, Topology, wait_until};

use crate::common::{MS, SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("attack::replayed", replayed),
    Scenario::new("attack::forged", forged),
    Scenario::new("attack::noise", noise),
    Scenario::new("attack::replayed_handshakes", replayed_handshakes),
];

fn topology() -> Topology {
    Topology::new([Site::new("mit"), Site::new("utah"), Site::new("eve").without_gateway()])
        .all_links("{delay: 10ms}")
}

/// Records what mit sends to utah while its host pings.
fn record(lab: &Lab, count: usize) -> Result<Vec<Datagram>> {
    let recording = Recording::start(lab.netns("utah")?, "wan0", PORT)?;
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    a.ping(b.v4, 20, 20 * MS)?;
    let mut found = recording.collect(count, 3 * SECOND)?;
    found.retain(|datagram| datagram.to.ip().to_string() == "192.0.2.17");
    ensure!(found.len() >= count / 2, "{} datagrams", found.len());
    Ok(found)
}

/// What must not change, whatever an attacker sends.
fn state_of(lab: &mut Lab) -> Result<serde_json::Value> {
    let status = lab.gateway("utah")?.status()?;
    let link = &status.links("mit")?[0];
    let path = &status.peer("mit")?["paths"]["latency"]["via"];
    let tunnel = &status.peer("mit")?["tunnel"]["state"];
    Ok(serde_json::json!([link["endpoint"], link["state"], path, tunnel]))
}

fn total_drops(lab: &mut Lab) -> Result<u64> {
    Ok(lab.gateway("utah")?.status()?.drops().values().sum())
}

/// Sends `datagrams` as eve and checks that utah counts them as drops and is otherwise unmoved.
fn unmoved(lab: &mut Lab, datagrams: &[Datagram]) -> Result<()> {
    let (before, drops) = (state_of(lab)?, total_drops(lab)?);
    let delivered = lab.gateway("utah")?.status()?.number("/traffic/tun_tx/packets")?;
    for datagram in datagrams {
        inject(lab.netns("eve")?, datagram)?;
    }
    wait_until("every datagram is counted as dropped", 5 * SECOND, || {
        let counted = total_drops(lab)? - drops;
        let reasons = lab.gateway("utah")?.status()?.drops();
        ensure!(counted >= datagrams.len() as u64, "{counted} of {}: {reasons:?}", datagrams.len());
        Ok(())
    })?;
    let after = state_of(lab)?;
    ensure!(after == before, "moved from {before} to {after}");
    let now = lab.gateway("utah")?.status()?.number("/traffic/tun_tx/packets")?;
    ensure!(now - delivered < 1.0, "{} packets reached the LAN", now - delivered);
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    Ok(())
}

/// True datagrams again: from their true source, and from another address.
fn replayed() -> Result<()> {
    let mut lab = start(topology())?;
    let recorded = record(&lab, 20)?;
    unmoved(&mut lab, &recorded)?;
    let eve: SocketAddr = "192.0.2.25:4710".parse()?;
    let moved: Vec<_> =
        recorded.into_iter().map(|datagram| Datagram { from: eve, ..datagram }).collect();
    unmoved(&mut lab, &moved)
}

/// Every byte of a true datagram changed in turn; truncated and extended ones; parts of two joined.
fn forged() -> Result<()> {
    let mut lab = start(topology())?;
    let recorded = record(&lab, 20)?;
    let model = recorded.last().context("nothing was recorded")?;
    let with = |payload: Vec<u8>| Datagram { payload, ..model.clone() };
    let mut forged = Vec::new();
    for at in 0..model.payload.len() {
        let mut payload = model.payload.clone();
        payload[at] ^= 1;
        forged.push(with(payload));
    }
    for length in 1..model.payload.len() {
        forged.push(with(model.payload[..length].to_vec()));
    }
    for extra in [1, 16, 1000] {
        let mut payload = model.payload.clone();
        payload.resize(payload.len() + extra, 0x5a);
        forged.push(with(payload));
    }
    for other in recorded.iter().take(5) {
        let cut = 16.min(other.payload.len()).min(model.payload.len());
        let mut payload = other.payload[..cut].to_vec();
        payload.extend_from_slice(&model.payload[cut..]);
        forged.push(with(payload));
    }
    unmoved(&mut lab, &forged)
}

/// Datagrams of every size up to the largest, with nothing of ours in them.
fn noise() -> Result<()> {
    let mut lab = start(topology())?;
    let from: SocketAddr = "192.0.2.25:4710".parse()?;
    let to: SocketAddr = "192.0.2.17:4710".parse()?;
    let mut noise = Vec::new();
    for kind in 0..=255_u8 {
        for length in [1, 8, 16, 31, 32, 48, 148, 1400] {
            let mut payload: Vec<u8> = (0..length).map(|at| (at * 31 + 7) as u8).collect();
            payload[0] = kind;
            noise.push(Datagram { from, to, payload });
        }
    }
    noise.push(Datagram { from, to, payload: vec![4; 65_000] });
    unmoved(&mut lab, &noise)
}

/// The handshake of a start, recorded and sent again: a killed tunnel would be the proof.
fn replayed_handshakes() -> Result<()> {
    let mut lab = Lab::start(topology())?;
    let recording = Recording::start(lab.netns("utah")?, "wan0", PORT)?;
    lab.start_gateways()?;
    let mut recorded = recording.collect(4, 3 * SECOND)?;
    recorded.retain(|datagram| datagram.to.ip().to_string() == "192.0.2.17");
    recorded.truncate(4);
    ensure!(!recorded.is_empty(), "no handshake was recorded");
    lab.host("mit", 1)?.expect_ping(lab.host("utah", 1)?.v4)?;
    let age = |lab: &mut Lab| lab.gateway("utah")?.status()?.number("/peers/0/tunnel/age_s");
    // Until then further copies of an initiation are answered: they may come by another link.
    wait_until("the handshake is old", 6 * SECOND, || {
        let age = age(&mut lab)?;
        ensure!(age > 3.0, "{age}");
        Ok(())
    })?;
    let before = age(&mut lab)?;
    unmoved(&mut lab, &recorded)?;
    ensure!(age(&mut lab)? >= before, "a replayed handshake made a new tunnel");
    Ok(())
}
