//! `rongate paths`.

use clap::Args;

use super::output::{count, figure, percent, span, via};
use super::peers::link_state;
use super::table::Table;
use super::{Gateway, Outcome, control_client, output};
use crate::gateway::status::{CandidateStatus, Request, Status};

/// Show the path in use to each peer for each metric, and why
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate paths
  rongate paths --all                         with all ways there were to choose from
  rongate paths --json | jq -r '.[] | select(.paths.latency.via) | .name'

Metrics: latency in ms with a penalty for loss, loss as a fraction, throughput as a score.")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Show the candidates too
    #[arg(long)]
    all: bool,
    /// Print name and `paths` of the peers in the status document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if arguments.json {
        let mut status =
            control_client::Client::connect(&arguments.gateway)?.ask(&Request::Status)?;
        let peers = status["peers"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let paths = peers.into_iter().map(|mut peer| {
            serde_json::json!({"name": peer["name"].take(), "paths": peer["paths"].take()})
        });
        return output::write_json(&paths.collect());
    }
    control_client::show(&arguments.gateway, &Request::Status, false, |status: &Status| {
        let candidates = if arguments.all { candidates_of(status) } else { String::new() };
        table(status).render() + &candidates
    })
}

fn table(status: &Status) -> Table {
    let mut table = Table::new(&["PEER", "FOR", "VIA", ">METRIC", "UPLINK", ">SINCE", "REASON"]);
    for peer in &status.peers {
        for (name, path) in peer.paths.entries() {
            let cell = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            table.row([
                peer.name.clone(),
                name.to_owned(),
                path.map_or("unreachable", |path| via(path.via.as_deref())).to_owned(),
                value(name, path.and_then(|path| path.metric)),
                cell(path.and_then(|path| path.uplink.clone())),
                span(path.and_then(|path| path.since_s)),
                cell(path.and_then(|path| path.reason.clone())),
            ]);
        }
    }
    table
}

/// A metric with as many digits as it deserves.
fn value(metric: &str, value: Option<f64>) -> String {
    let digits = if metric == "loss" { 4 } else { 1 };
    figure(value, digits)
}

fn candidates_of(status: &Status) -> String {
    let mut text = String::new();
    for peer in &status.peers {
        for (name, path) in peer.paths.entries() {
            let Some(path) = path.filter(|path| !path.candidates.is_empty()) else { continue };
            text += &format!("\n{} for {name}:\n{}", peer.name, candidates(name, &path.candidates));
        }
    }
    text
}

/// A line for each way to a peer.
pub(super) fn candidates(metric: &str, candidates: &[CandidateStatus]) -> String {
    let mut table = Table::new(&[
        "VIA", "STATE", ">METRIC", ">RTT ms", ">JITTER", ">LOSS", ">SAMPLES", ">Mbit/s", "STANDING",
    ]);
    for candidate in candidates {
        table.row([
            via(candidate.via.as_deref()).to_owned(),
            link_state(candidate.state).to_owned(),
            value(metric, candidate.metric),
            figure(candidate.rtt_ms, 1),
            figure(candidate.jitter_ms, 1),
            percent(candidate.loss),
            candidate.samples.map_or_else(|| "-".to_owned(), count),
            figure(candidate.capacity_mbit, 1),
            candidate.reason.clone().unwrap_or_else(|| "in use".into()),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::LinkState;

    #[test]
    fn paths_and_candidates_have_lines() {
        let mut status = super::super::status::tests::example();
        status.peers[1].paths.loss = None;
        let shown = table(&status).render();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1], "utah  latency     direct          38.0  isp1    1h00m  best latency");
        assert_eq!(lines[5], "aros  loss        unreachable        -  -           -  -");
        let direct =
            CandidateStatus { state: LinkState::Up, metric: Some(3.0), ..Default::default() };
        let shown = candidates("latency", &[direct]);
        let head = "VIA     STATE  METRIC  RTT ms  JITTER  LOSS  SAMPLES  Mbit/s  STANDING\n";
        assert_eq!(
            shown,
            format!("{head}direct  up        3.0       -       -     -        -       -  in use\n")
        );
    }
}
