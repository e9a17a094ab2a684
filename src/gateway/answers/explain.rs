//! Why packets go where they go: the decisions in the order in which they are taken.

use super::subject::{Subject, subject};
use super::words::{self, rule};
use super::{Scene, egress_name, peers};
use crate::flow::{ClassIndex, Egress, Marks};
use crate::gateway::node_config::is_own;
use crate::gateway::status::{Explanation, ExplanationStep, PacketFields, RegretStatus};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::node::Node;
use crate::path::Path;
use crate::time::Instant;

/// Explains an address, or a flow given as `PROTOCOL SOURCE DESTINATION`. `packet` says more of what
/// is sent.
pub(super) fn explain(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    text: &str,
    packet: &PacketFields,
) -> Result<Explanation, String> {
    let Subject { key, marks, told } = subject(scene, text, packet)?;
    let mut explanation = Explanation { subject: text.to_owned(), ..Explanation::default() };
    let mut step = |question: &str, answer: String| {
        explanation.steps.push(ExplanationStep { question: question.to_owned(), answer });
    };
    if let Some(told) = told {
        step("packet", told);
    }
    let destination = key.destination();
    if is_own(scene.config, destination) {
        step("destination", format!("{destination} is this node's own address"));
        return Ok(explanation);
    }
    let flow = node.flow(&key);
    let index = flow.map_or_else(|| node.classify(&key, marks), |flow| flow.class);
    let (class, metric) = (&node.class(index).name, node.class(index).metric);
    let known = match flow {
        Some(_) if marks != Marks::default() => "in the flow table since its first packet",
        Some(_) => "it is in the flow table",
        None => "as a new flow",
    };
    step("class", format!("`{class}`, which wants the best {metric}; {known}"));
    let rule = rule(scene, node.class(index));
    step("rule", rule.clone().unwrap_or_else(|| "any way may be used".to_owned()));
    let egress = flow
        .map(|flow| flow.egress)
        .filter(|&egress| egress != Egress::Undecided)
        .or_else(|| node.egress_for(now, destination, index));
    let Some(egress) = egress else {
        let closed = if rule.is_some() { ", or the rule closes it" } else { "" };
        step("egress", format!("none: no network and no exit has {destination}{closed}"));
        return Ok(explanation);
    };
    let name = egress_name(node, egress);
    let peer = match egress {
        Egress::Undecided | Egress::Local => {
            step("egress", format!("{destination} is in one of our own networks"));
            return Ok(explanation);
        }
        Egress::LocalExit => {
            step("egress", "our own exit to the Internet".to_owned());
            return Ok(explanation);
        }
        Egress::Peer(peer) => {
            step("egress", format!("{destination} is in a network of {name}"));
            peer
        }
        Egress::PeerExit(peer) => {
            step("egress", format!("the exit of {name} to the Internet"));
            peer
        }
    };
    let stays = flow.and_then(|flow| flow.path);
    explain_path(node, now, scene, index, peer, stays, &mut explanation);
    Ok(explanation)
}

/// Why packets to a peer take the path that they take; `stays` is that of a flow that keeps its own.
fn explain_path(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    index: ClassIndex,
    peer: PeerIndex,
    stays: Option<Path>,
    explanation: &mut Explanation,
) {
    let (class, demand, name) = (&node.class(index).name, node.demand(index), node.peer_name(peer));
    let mut step = |question: &str, answer: String| {
        explanation.steps.push(ExplanationStep { question: question.to_owned(), answer });
    };
    let Some(path) = stays.or_else(|| node.path(peer, demand)) else {
        let closed = node.path(peer, Metric::Latency).is_some();
        let why = if closed {
            format!("every way to it is closed to class `{class}`, by its rule or by relays")
        } else {
            "it cannot be reached".to_owned()
        };
        step("path", format!("none to {name}: {why}"));
        return;
    };
    let Some(routing) = node.explain(now, peer, demand) else { return };
    let why = match routing.cause {
        _ if stays.is_some() => "one of the good paths",
        Some(cause) => cause.name(),
        None => "",
    };
    let since = routing.switched_at.map_or(0.0, |at| (now - at).as_secs_f64());
    step("path", format!("{}, for {since:.1} s: {why}", way(node, scene, path)));
    let status = words::routing_status(node, now, &routing);
    if let (Some(before), Some(cause)) = (&status.previous, &status.cause) {
        step("last switch", format!("{since:.1} s ago, from {before}: {cause}"));
    }
    step("next switch", words::next_switch(&status));
    let regret: Option<RegretStatus> =
        node.peers(now).iter().find(|p| p.index == peer).map(|p| p.regret.into());
    if let Some(regret) = &regret {
        step("regret", words::in_words(regret));
    }
    explanation.rule = Some(class.clone());
    explanation.routing = Some(status);
    explanation.regret = regret;
    explanation.candidates = peers::candidates(node, now, scene, &routing, path);
}

fn way(node: &Node, scene: &Scene<'_>, path: Path) -> String {
    match path {
        Path::Direct(_) => peers::uplink_name(scene, path)
            .map_or_else(|| "direct".to_owned(), |uplink| format!("direct, over {uplink}")),
        Path::Via(relay) => format!("through {}", node.peer_name(relay)),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
