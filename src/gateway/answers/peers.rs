//! Peers, links and paths in the words of the status document.

use super::Scene;
use crate::gateway::status::{
    CandidateStatus, Directions, LinkState, LinkStatus, PathStatus, PathsStatus, PeerStatus,
    TunnelState, TunnelStatus,
};
use crate::id::PeerIndex;
use crate::metric::{Liveness, Metric};
use crate::node::{LinkSnapshot, Node, PeerSnapshot};
use crate::path::Path;
use crate::routing::{Candidate, Explanation};
use crate::time::Instant;
use crate::tunnel;

pub(super) fn peer(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    peer: &PeerSnapshot,
) -> PeerStatus {
    let path = |metric| path(node, now, scene, peer.index, metric);
    PeerStatus {
        name: peer.name.clone(),
        id: peer.id.to_string(),
        tunnel: TunnelStatus {
            state: match peer.tunnel.state {
                tunnel::TunnelState::Down => TunnelState::Down,
                tunnel::TunnelState::Connecting => TunnelState::Handshaking,
                tunnel::TunnelState::Up | tunnel::TunnelState::Rekeying => TunnelState::Up,
            },
            age_s: peer.tunnel.age.map(|age| age.as_secs_f64()),
        },
        links: peer.links.iter().map(|snapshot| link(now, scene, snapshot)).collect(),
        paths: PathsStatus {
            latency: path(Metric::Latency),
            loss: path(Metric::Loss),
            throughput: path(Metric::Throughput),
        },
        relay: peer.relay,
        egress: peer.egress,
        traffic: Directions { rx: peer.traffic.0.into(), tx: peer.traffic.1.into() },
        availability: peer.availability.into(),
        regret: peer.regret.into(),
    }
}

fn link(now: Instant, scene: &Scene<'_>, snapshot: &LinkSnapshot) -> LinkStatus {
    let report = &snapshot.report;
    let measured = report.latency_us != u32::MAX;
    let ms = |us: u32| measured.then(|| f64::from(us) / 1e3);
    LinkStatus {
        uplink: uplink_name(scene, Path::Direct(snapshot.link)).unwrap_or_default(),
        endpoint: snapshot.endpoint.map(|endpoint| endpoint.to_string()),
        state: state(report.state),
        rtt_ms: ms(report.latency_us),
        jitter_ms: ms(report.jitter_us),
        loss: measured.then(|| report.loss.fraction()),
        mtu: Some(snapshot.mtu),
        last_heard_ms: snapshot.last_heard.map(|at| (now - at).as_secs_f64() * 1e3),
        fault: snapshot.fault.map(Into::into),
    }
}

fn path(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    peer: PeerIndex,
    metric: Metric,
) -> Option<PathStatus> {
    let path = node.path(peer, metric)?;
    let explanation = node.explain(now, peer, metric)?;
    let used = explanation.candidates.iter().find(|candidate| candidate.path == path);
    Some(PathStatus {
        via: path.relay().map(|relay| node.peer_name(relay).to_owned()),
        metric: used.and_then(|candidate| in_unit(metric, candidate.cost)),
        uplink: uplink_name(scene, path),
        since_s: explanation.switched_at.map(|at| (now - at).as_secs_f64()),
        switches: explanation.switches,
        reason: reason(&explanation, path),
        candidates: candidates(node, now, scene, &explanation, path),
    })
}

fn reason(explanation: &Explanation, path: Path) -> Option<String> {
    if explanation.chosen.is_some_and(|chosen| chosen != path) {
        return Some("the chosen path is suspect; this is the best other one".to_owned());
    }
    explanation.cause.map(|cause| cause.name().to_owned())
}

/// All candidates, best first; those that may not be used come last.
pub(super) fn candidates(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    explanation: &Explanation,
    in_use: Path,
) -> Vec<CandidateStatus> {
    let mut sorted: Vec<&Candidate> = explanation.candidates.iter().collect();
    sorted.sort_by(|a, b| {
        let usable = b.standing.is_usable().cmp(&a.standing.is_usable());
        usable.then(a.rank.total_cmp(&b.rank))
    });
    let status = |candidate: &Candidate| CandidateStatus {
        via: candidate.path.relay().map(|relay| node.peer_name(relay).to_owned()),
        metric: in_unit(explanation.metric, candidate.cost),
        state: state(candidate.report.state),
        reason: (candidate.path != in_use).then(|| {
            if candidate.barred_until.is_some() {
                "it failed in use and waits".to_owned()
            } else {
                standing(node, now, explanation.peer, candidate)
            }
        }),
        uplink: uplink_name(scene, candidate.path),
        rtt_ms: known_ms(candidate.report.latency_us),
        jitter_ms: known_ms(candidate.report.latency_us)
            .map(|_| f64::from(candidate.report.jitter_us) / 1e3),
        loss: known_ms(candidate.report.latency_us).map(|_| candidate.report.loss.fraction()),
        samples: node.samples(explanation.peer, candidate.path),
        rank: Some(candidate.rank).filter(|rank| rank.is_finite()),
        app_value: candidate.app_value,
        capacity_mbit: candidate.capacity_kbit.map(|kbit| f64::from(kbit) / 1e3),
        failures: candidate.failures,
        barred_s: candidate.barred_until.map(|until| (until - now).as_secs_f64()),
    };
    sorted.into_iter().map(status).collect()
}

/// Why a candidate may not be used, or that it may.
fn standing(node: &Node, now: Instant, peer: PeerIndex, candidate: &Candidate) -> String {
    let fault = match candidate.path {
        Path::Direct(link) => node.link_fault(now, peer, link),
        Path::Via(_) => None,
    };
    let name = candidate.standing.name();
    fault.map_or_else(|| name.to_owned(), |fault| format!("{name}: {fault}"))
}

fn known_ms(us: u32) -> Option<f64> {
    (us != u32::MAX).then(|| f64::from(us) / 1e3)
}

/// A cost as operators read it: milliseconds, a fraction, a score. None while it is unknown.
fn in_unit(metric: Metric, cost: f64) -> Option<f64> {
    let value = match metric {
        Metric::Latency => cost / 1e3,
        Metric::Loss | Metric::App => cost,
        Metric::Throughput => 1.0 / cost,
    };
    // A link that never answered costs as much as the field can hold: more than an hour.
    let known = metric != Metric::Latency || cost < f64::from(u32::MAX);
    (value.is_finite() && known).then_some(value)
}

pub(super) fn uplink_name(scene: &Scene<'_>, path: Path) -> Option<String> {
    let Path::Direct(link) = path else { return None };
    scene.config.uplinks.get(link.local.usize()).map(|uplink| uplink.name.clone())
}

const fn state(liveness: Liveness) -> LinkState {
    match liveness {
        Liveness::Up => LinkState::Up,
        Liveness::Suspect => LinkState::Suspect,
        Liveness::Down => LinkState::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_told_in_the_units_of_the_status_document() {
        assert_eq!(in_unit(Metric::Latency, 20_500.0), Some(20.5));
        assert_eq!(in_unit(Metric::Loss, 0.25), Some(0.25));
        assert_eq!(in_unit(Metric::Throughput, 0.5), Some(2.0));
        assert_eq!(in_unit(Metric::Throughput, 0.0), None);
        assert_eq!(in_unit(Metric::Latency, f64::from(u32::MAX)), None);
        assert_eq!(in_unit(Metric::Loss, f64::INFINITY), None);
    }
}
