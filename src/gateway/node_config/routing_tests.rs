//! Each key of `routing` decides something in the router that is made with it.

use super::tests::converted;
use crate::id::{NodeId, PeerIndex, UplinkIndex};
use crate::metric::{LinkReport, Liveness, Loss, Metric};
use crate::path::{LinkId, Path};
use crate::routing::{Advertisement, PeerInfo, Router};
use crate::time::Instant;

const FAR: PeerIndex = PeerIndex(0);
const RELAY: PeerIndex = PeerIndex(1);
const LINK: LinkId = LinkId { local: UplinkIndex(0), remote: UplinkIndex(0) };

/// What is measured from some second on: of the direct link to the peer, and of the way through the
/// relay.
struct Step {
    at_s: u64,
    direct: LinkReport,
    relayed: LinkReport,
}

fn up(rtt_ms: u32, loss: f64) -> LinkReport {
    let loss = Loss::from_fraction(loss);
    LinkReport { latency_us: rtt_ms * 1_000, jitter_us: 0, loss, state: Liveness::Up }
}

fn jittery(rtt_ms: u32, jitter_ms: u32) -> LinkReport {
    LinkReport { jitter_us: jitter_ms * 1_000, ..up(rtt_ms, 0.0) }
}

const DOWN: LinkReport =
    LinkReport { latency_us: u32::MAX, jitter_us: 0, loss: Loss::NONE, state: Liveness::Down };

fn step(at_s: u64, direct: LinkReport, relayed: LinkReport) -> Step {
    Step { at_s, direct, relayed }
}

/// Whether the direct path is in use after these steps, at a node with `routing` so configured.
fn stays_direct(routing: &str, metric: Metric, steps: &[Step]) -> bool {
    let node = converted(&[
        "uplinks: [{ name: isp1, interface: wan0, listen: \"auto:4710\" }]\n",
        &format!("routing: {{{routing}}}\n"),
    ]);
    let peers = [7, 8].map(|id| PeerInfo { id: NodeId(id), may_relay: true });
    let mut router = Router::new(node.routing, NodeId(99), peers.into(), 7);
    for (seq, step) in (1..).zip(steps) {
        let now = Instant::from_micros(step.at_s * 1_000_000);
        let hop = LinkReport { latency_us: 1_000, ..up(1, 0.0) };
        let rest = LinkReport {
            latency_us: step.relayed.latency_us.saturating_sub(1_000),
            ..step.relayed
        };
        router.update_direct(now, FAR, LINK, Some(step.direct));
        router.update_direct(now, RELAY, LINK, Some(hop));
        let part = Advertisement {
            epoch: 1,
            seq,
            part: 0,
            parts: 1,
            delta: false,
            spare_relay_kbit: u32::MAX,
        };
        router.apply(now, RELAY, &part, [(NodeId(7), rest)]);
        router.recompute(now, &mut Vec::new());
    }
    router.path(FAR, metric) == Some(Path::Direct(LINK))
}

/// Where the key changes the decision, and how it is without: stay on the direct path?
fn decides(key: &str, default_stays: bool, metric: Metric, steps: &[Step]) {
    assert_eq!(stays_direct("", metric, steps), default_stays, "without {key}");
    assert_eq!(stays_direct(key, metric, steps), !default_stays, "with {key}");
}

/// First there is the direct path alone, then another one.
fn then_another(direct: LinkReport, relayed: LinkReport) -> [Step; 2] {
    [step(1, direct, DOWN), step(20, direct, relayed)]
}

#[test]
fn margins_decide() {
    let latency = Metric::Latency;
    let (near, nearer) = (up(85, 0.0), up(80, 0.0));
    decides("margin: 0.3", false, latency, &then_another(up(100, 0.0), near));
    decides("margin_latency: 30ms", false, latency, &then_another(up(100, 0.0), nearer));
    let steps = then_another(jittery(100, 40), near);
    decides("margin_jitter: 0", true, latency, &steps);
    decides("margin_jitter: 0.5", true, latency, &steps);
    let steps = then_another(up(100, 0.05), up(100, 0.02));
    decides("margin_loss: 0.2", false, Metric::Loss, &steps);
    let steps = then_another(up(100, 0.01), up(50, 0.01));
    decides("margin_throughput: 0.6", false, Metric::Throughput, &steps);
}

#[test]
fn what_loss_counts_for_decides() {
    let steps = then_another(up(100, 0.05), up(150, 0.0));
    decides("free_loss: 0.1", false, Metric::Latency, &steps);
    decides("loss_penalty: 0s", false, Metric::Latency, &steps);
    let steps = then_another(up(100, 0.02), up(90, 0.005));
    decides("least_loss: 0.05", false, Metric::Throughput, &steps);
}

#[test]
fn the_hold_down_decides() {
    let steps = [
        step(1, up(100, 0.0), DOWN),
        step(20, up(100, 0.0), up(50, 0.0)),
        step(22, up(20, 0.0), up(50, 0.0)),
    ];
    decides("hold_down: 0s", false, Metric::Latency, &steps);
}

/// The direct path, the better one, fails and works again a second later, at each of these seconds;
/// at the last one it is looked at.
fn failing(failures: &[u64], looked_at: u64) -> Vec<Step> {
    let (direct, relayed) = (up(20, 0.0), up(80, 0.0));
    let mut steps = vec![step(1, direct, relayed)];
    for at in failures {
        // Used again before, so that it fails in use.
        steps.extend([step(at - 1, direct, relayed), step(*at, DOWN, relayed)]);
        steps.push(step(at + 1, direct, relayed));
    }
    steps.push(step(looked_at, direct, relayed));
    steps
}

#[test]
fn the_back_off_decides() {
    let latency = Metric::Latency;
    decides("backoff: {base: 60s}", true, latency, &failing(&[10], 18));
    let twice = failing(&[10, 30], 42);
    decides("backoff: {factor: 1}", false, latency, &twice);
    decides("backoff: {longest: 6s}", false, latency, &twice);
    decides("backoff: {forget: 2m}", false, latency, &failing(&[10, 160], 172));
}
