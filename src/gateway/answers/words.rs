//! Rules, choices and regret in words and figures.

use super::Scene;
use crate::flow::{Class, ExitPoint};
use crate::gateway::status::{RegretStatus, RoutingStatus};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::node::Node;
use crate::path::Path;
use crate::routing;
use crate::time::Instant;

/// What a class's flows are confined to, in words; none when everything is open.
pub(super) fn rule(scene: &Scene<'_>, class: &Class) -> Option<String> {
    let mut parts = Vec::new();
    for (word, scope) in [("only", &class.only), ("not", &class.avoid)] {
        let peers = |list: &Vec<PeerIndex>| {
            list.iter().filter_map(|peer| scene.config.peer_name(*peer)).collect::<Vec<_>>()
        };
        let uplinks = scope.uplinks.as_ref().map(|list| {
            let uplinks = list.iter().filter_map(|uplink| scene.config.uplinks.get(uplink.usize()));
            uplinks.map(|uplink| uplink.name.as_str()).collect::<Vec<_>>()
        });
        let exits = scope.exits.as_ref().map(|list| {
            let name = |exit: &ExitPoint| match exit {
                ExitPoint::Local => Some("local"),
                ExitPoint::Peer(peer) => scene.config.peer_name(*peer),
            };
            list.iter().filter_map(name).collect::<Vec<_>>()
        });
        let lists = [
            ("peers", scope.peers.as_ref().map(peers)),
            ("relays", scope.relays.as_ref().map(peers)),
            ("uplinks", uplinks),
            ("exits", exits),
        ];
        for (kind, list) in lists {
            if let Some(list) = list {
                let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
                parts.push(format!("{word} {kind} {list}"));
            }
        }
    }
    (!parts.is_empty()).then(|| format!("of class `{}`: {}", class.name, parts.join("; ")))
}

/// How a path was chosen.
pub(super) fn routing_status(
    node: &Node,
    now: Instant,
    routing: &routing::Explanation,
) -> RoutingStatus {
    let decided = routing.candidates.iter().find(|c| Some(c.path) == routing.chosen);
    let jitter = decided.filter(|_| routing.metric == Metric::Latency).map(|c| c.report.jitter_us);
    let name = |path: Path| path.relay().map_or("direct", |relay| node.peer_name(relay)).to_owned();
    RoutingStatus {
        metric: routing.metric.name().to_owned(),
        margin_relative: routing.margin.relative,
        margin_absolute: routing.margin.absolute,
        jitter_ms: jitter.map(|us| f64::from(us) / 1e3),
        margin_jitter: routing.margin_jitter,
        hold_down_s: routing.hold_down.as_secs_f64(),
        hold_down_left_s: routing.hold_down_until.map(|until| (until - now).as_secs_f64()),
        switches: routing.switches,
        switched_s: routing.switched_at.map(|at| (now - at).as_secs_f64()),
        cause: routing.cause.map(|cause| cause.name().to_owned()),
        previous: routing.previous.map(name),
        alternate: routing.alternate.map(name),
        spread: routing.spread.iter().map(|share| name(share.path)).collect(),
    }
}

/// What it takes to leave the path in use.
pub(super) fn next_switch(status: &RoutingStatus) -> String {
    let percent = status.margin_relative * 100.0;
    let mut text = format!("to what is better by {percent:.0} %");
    if status.metric == "latency" {
        text += &format!(" and {:.1} ms", status.margin_absolute / 1e3);
    } else if status.margin_absolute > 0.0 {
        text += &format!(" and {}", status.margin_absolute);
    }
    let (jitter, times) = (status.jitter_ms, status.margin_jitter);
    if let Some(jitter) = jitter.filter(|_| times > 0.0) {
        let times = if times == 1.0 { String::new() } else { format!("{times} times ") };
        text +=
            &format!(", and by {times}its own jitter and half of the {jitter:.1} ms of this one");
    }
    if let Some(left) = status.hold_down_left_s {
        text += &format!(", not in the next {left:.1} s unless the path fails");
    }
    text
}

/// Regret in a sentence.
pub(super) fn in_words(regret: &RegretStatus) -> String {
    let RegretStatus { direct_packets, relayed_packets, rescued_packets, .. } = *regret;
    let mean = |sum: f64| sum / relayed_packets.saturating_sub(rescued_packets).max(1) as f64;
    format!(
        "{direct_packets} packets went directly, {relayed_packets} through relays: \
         {rescued_packets} of them while the direct path was down, the others {:.1} ms sooner and \
         {:.1} ms later there and back in the mean; {:.1} losses avoided",
        mean(regret.saved_ms),
        mean(regret.lost_ms),
        regret.losses_avoided
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jitter_asks_of_a_challenger_is_said() {
        let mut status = RoutingStatus {
            metric: "latency".to_owned(),
            margin_relative: 0.1,
            margin_absolute: 2_000.0,
            jitter_ms: Some(6.5),
            margin_jitter: 1.0,
            hold_down_left_s: Some(1.5),
            ..RoutingStatus::default()
        };
        let said = "to what is better by 10 % and 2.0 ms, and by its own jitter and half of the \
                    6.5 ms of this one, not in the next 1.5 s unless the path fails";
        assert_eq!(next_switch(&status), said);
        status.margin_jitter = 1.5;
        assert_eq!(next_switch(&status), said.replace("its own", "1.5 times its own"));
        (status.margin_jitter, status.hold_down_left_s) = (0.0, None);
        assert_eq!(next_switch(&status), "to what is better by 10 % and 2.0 ms");
        (status.jitter_ms, status.margin_jitter) = (None, 1.0);
        assert_eq!(next_switch(&status), "to what is better by 10 % and 2.0 ms");
    }
}
