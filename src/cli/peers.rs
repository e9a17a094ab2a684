//! `rongate peers`.

use clap::Args;

use super::output::{count, figure, percent, span, via};
use super::table::Table;
use super::{Gateway, Outcome, control_client, output};
use crate::gateway::status::{LinkState, LinkStatus, PeerStatus, Request, Status, TunnelState};

/// Show the peers, and the links to each of them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate peers
  rongate peers --json | jq '.[] | {name, rtt: .links[0].rtt_ms}'")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Print the `peers` of the status document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if arguments.json {
        let mut status =
            control_client::Client::connect(&arguments.gateway)?.ask(&Request::Status)?;
        return output::write_json(&status["peers"].take());
    }
    control_client::show(&arguments.gateway, &Request::Status, false, |status: &Status| {
        let faults = faults(status);
        let faults =
            if faults.is_empty() { String::new() } else { format!("\n{}", faults.render()) };
        format!("{}\n{}{faults}", table(status).render(), links(status).render())
    })
}

/// A line for each peer.
pub(super) fn table(status: &Status) -> Table {
    let mut table = Table::new(&[
        "PEER",
        "ID",
        "TUNNEL",
        ">AGE",
        ">LINKS",
        "VIA",
        ">RTT ms",
        ">LOSS",
        "ROLES",
        ">RX BYTES",
        ">TX BYTES",
    ]);
    for peer in &status.peers {
        let up = peer.links.iter().filter(|link| link.state == LinkState::Up).count();
        let best = best_link(peer);
        let path = peer.paths.latency.as_ref();
        table.row([
            peer.name.clone(),
            peer.id.clone(),
            tunnel_state(peer.tunnel.state).to_owned(),
            span(peer.tunnel.age_s),
            format!("{up}/{}", peer.links.len()),
            path.map_or("-", |path| via(path.via.as_deref())).to_owned(),
            figure(best.and_then(|link| link.rtt_ms), 1),
            percent(best.and_then(|link| link.loss)),
            roles(peer),
            count(peer.traffic.rx.bytes),
            count(peer.traffic.tx.bytes),
        ]);
    }
    table
}

/// A line for each link.
fn links(status: &Status) -> Table {
    let mut table = Table::new(&[
        "PEER",
        "UPLINK",
        "ENDPOINT",
        "STATE",
        ">RTT ms",
        ">JITTER ms",
        ">LOSS",
        ">MTU",
        ">HEARD",
    ]);
    for peer in &status.peers {
        for link in &peer.links {
            // The last figures of a link that is down say nothing about it any more.
            let live = link.state != LinkState::Down;
            let known = |value: Option<f64>| value.filter(|_| live);
            table.row([
                peer.name.clone(),
                link.uplink.clone(),
                link.endpoint.clone().unwrap_or_else(|| "-".into()),
                link_state(link.state).to_owned(),
                figure(known(link.rtt_ms), 1),
                figure(known(link.jitter_ms), 1),
                percent(known(link.loss)),
                link.mtu.map_or_else(|| "-".into(), |mtu| mtu.to_string()),
                span(link.last_heard_ms.map(|ms| ms / 1_000.0)),
            ]);
        }
    }
    table
}

/// What is wrong with links, where anything is known to be.
pub(super) fn faults(status: &Status) -> Table {
    let mut table = Table::new(&["FAULT", "UPLINK", "ENDPOINT", "WHAT"]);
    for peer in &status.peers {
        for link in &peer.links {
            if let Some(fault) = &link.fault {
                table.row([
                    peer.name.clone(),
                    link.uplink.clone(),
                    link.endpoint.clone().unwrap_or_else(|| "-".into()),
                    fault.text.clone(),
                ]);
            }
        }
    }
    table
}

/// The link with the lowest delay among those that are up.
fn best_link(peer: &PeerStatus) -> Option<&LinkStatus> {
    let up = peer.links.iter().filter(|link| link.state == LinkState::Up);
    up.min_by(|a, b| {
        let key = |link: &LinkStatus| link.rtt_ms.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    })
}

fn roles(peer: &PeerStatus) -> String {
    let roles = [(peer.relay, "relay"), (peer.egress, "egress")];
    let roles: Vec<_> = roles.into_iter().filter(|(has, _)| *has).map(|(_, role)| role).collect();
    if roles.is_empty() { "-".into() } else { roles.join(",") }
}

const fn tunnel_state(state: TunnelState) -> &'static str {
    match state {
        TunnelState::Down => "down",
        TunnelState::Handshaking => "handshaking",
        TunnelState::Up => "up",
    }
}

pub(super) const fn link_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Suspect => "suspect",
        LinkState::Down => "down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_down_shows_no_stale_figures() {
        let mut status = super::super::status::tests::example();
        status.peers[0].links[0].state = LinkState::Down;
        let shown = links(&status).render();
        assert!(shown.contains("down        -          -     -  1500   0.1s\n"), "{shown}");
    }

    #[test]
    fn each_link_has_a_line() {
        let expected = "\
PEER  UPLINK  ENDPOINT           STATE  RTT ms  JITTER ms  LOSS   MTU  HEARD
utah  isp1    198.51.100.1:4710  up       37.4        0.8  0.2%  1500   0.1s
aros  isp1    -                  down        -          -     -     -      -
";
        assert_eq!(links(&super::super::status::tests::example()).render(), expected);
    }
}
