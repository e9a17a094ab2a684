//! `rongate status`.

use std::fmt::Write as _;

use clap::Args;

use super::output::{count, figure, span};
use super::table::Table;
use super::{Gateway, Outcome, control_client, peers};
use crate::gateway::status::{Request, Status, TallyStatus, TunnelState};

/// Show how a gateway is: peers, flows, traffic, drops
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate status
  rongate status --json | jq '.drops | with_entries(select(.value > 0))'
  rongate status --json | jq -r '.peers[] | select(.tunnel.state != \"up\") | .name'")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Print the whole status document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    control_client::show(&arguments.gateway, &Request::Status, arguments.json, render)
}

fn render(status: &Status) -> String {
    let mut text = head(status);
    text += "\n";
    text += &peers::table(status).render();
    text += "\n";
    text += &traffic(status).render();
    let faults = peers::faults(status);
    if !faults.is_empty() {
        text += "\n";
        text += &faults.render();
    }
    let outages = outages(status);
    if !outages.is_empty() {
        text += "\n";
        text += &outages.render();
    }
    let regret = regret(status);
    if !regret.is_empty() {
        text += "\n";
        text += &regret.render();
    }
    let drops = drops(status);
    if !drops.is_empty() {
        text += "\n";
        text += &drops.render();
    }
    text
}

/// Who it is and how many of everything.
pub(super) fn head(status: &Status) -> String {
    let node = &status.node;
    let up = status.peers.iter().filter(|peer| peer.tunnel.state == TunnelState::Up).count();
    let mut text = String::new();
    let uptime = span(Some(node.uptime_s as f64));
    let _ = writeln!(
        text,
        "node     {} (id {}), up {uptime}, version {}",
        node.name, node.id, node.version
    );
    let _ = writeln!(text, "key      {}", node.public_key);
    for uplink in &status.uplinks {
        let local = uplink.local.as_deref().unwrap_or("no address");
        let _ = writeln!(text, "uplink   {}: {} at {local}", uplink.name, uplink.interface);
    }
    let _ = writeln!(text, "tunnels  {up} of {} up", status.peers.len());
    let flows = &status.flows;
    let _ = writeln!(
        text,
        "flows    {} active, {} created, {} expired",
        flows.active, flows.created, flows.expired
    );
    let nat = &status.nat;
    if nat.ports_total > 0 {
        let _ = writeln!(
            text,
            "nat      {} mappings, {} of {} ports in use",
            nat.mappings, nat.ports_in_use, nat.ports_total
        );
    }
    text
}

fn traffic(status: &Status) -> Table {
    let traffic = &status.traffic;
    let mut table = Table::new(&["TRAFFIC", ">PACKETS", ">BYTES"]);
    let mut row = |name: &str, tally: &TallyStatus| {
        table.row([name.to_owned(), count(tally.packets), count(tally.bytes)]);
    };
    row("from hosts", &traffic.tun_rx);
    row("to hosts", &traffic.tun_tx);
    row("from underlay", &traffic.underlay_rx);
    row("to underlay", &traffic.underlay_tx);
    row("relayed", &traffic.relayed);
    table
}

/// Outages of direct paths, of the peers that had any.
fn outages(status: &Status) -> Table {
    let head =
        ["OUTAGES", ">SEEN", ">AVOIDED", ">LAST HOP", ">CUT OFF", ">DETECT ms", ">RECOVER ms"];
    let mut table = Table::new(&head);
    for peer in &status.peers {
        let known = &peer.availability;
        if known.outages > 0 {
            table.row([
                peer.name.clone(),
                count(known.outages),
                count(known.avoided),
                count(known.unavoidable),
                span(Some(known.unreachable_s)),
                figure(known.detect_ms.mean, 0),
                figure(known.recover_ms.mean, 0),
            ]);
        }
    }
    table
}

/// What relaying gained and cost, of the peers that were reached through relays.
fn regret(status: &Status) -> Table {
    let mut table = Table::new(&[
        "RELAYED",
        ">PACKETS",
        ">RESCUED",
        ">ms SAVED",
        ">ms LOST",
        ">LOSSES AVOIDED",
    ]);
    for peer in &status.peers {
        let regret = &peer.regret;
        let compared = regret.relayed_packets.saturating_sub(regret.rescued_packets).max(1) as f64;
        if regret.relayed_packets > 0 {
            table.row([
                peer.name.clone(),
                count(regret.relayed_packets),
                count(regret.rescued_packets),
                figure(Some(regret.saved_ms / compared), 1),
                figure(Some(regret.lost_ms / compared), 1),
                figure(Some(regret.losses_avoided), 0),
            ]);
        }
    }
    table
}

fn drops(status: &Status) -> Table {
    let mut drops: Vec<_> = status.drops.iter().filter(|(_, count)| **count > 0).collect();
    drops.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    let mut table = Table::new(&["DROPPED", ">PACKETS"]);
    for (reason, packets) in drops {
        table.row([reason.clone(), count(*packets)]);
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gateway::status::*;

    /// A node with a direct peer and one behind a relay.
    pub(in crate::cli) fn example() -> Status {
        let link = LinkStatus {
            uplink: "isp1".into(),
            endpoint: Some("198.51.100.1:4710".into()),
            state: LinkState::Up,
            rtt_ms: Some(37.44),
            jitter_ms: Some(0.81),
            loss: Some(0.0021),
            mtu: Some(1500),
            last_heard_ms: Some(112.0),
            fault: None,
        };
        let direct = PathStatus {
            metric: Some(38.0),
            uplink: Some("isp1".into()),
            since_s: Some(3_600.0),
            reason: Some("best latency".into()),
            ..Default::default()
        };
        let relayed =
            PathStatus { via: Some("utah".into()), metric: Some(61.2), ..Default::default() };
        let paths = |path: PathStatus| PathsStatus {
            latency: Some(path.clone()),
            loss: Some(path.clone()),
            throughput: Some(path),
        };
        let utah = PeerStatus {
            name: "utah".into(),
            id: "0a0b0c0d".into(),
            tunnel: TunnelStatus { state: TunnelState::Up, age_s: Some(61.0) },
            links: vec![link],
            paths: paths(direct),
            relay: true,
            ..Default::default()
        };
        let down = LinkStatus { uplink: "isp1".into(), ..Default::default() };
        let aros = PeerStatus {
            name: "aros".into(),
            id: "01020304".into(),
            tunnel: TunnelStatus { state: TunnelState::Up, age_s: Some(5.0) },
            links: vec![down],
            paths: paths(relayed),
            ..Default::default()
        };
        Status {
            node: NodeStatus {
                name: "mit".into(),
                id: "00c0ffee".into(),
                public_key: "KEY=".into(),
                version: "0.1.0".into(),
                uptime_s: 90_061,
            },
            peers: vec![utah, aros],
            flows: FlowTotals { active: 3, created: 10, expired: 7 },
            drops: [("no_path".to_owned(), 4), ("replay".to_owned(), 0), ("forged".to_owned(), 9)]
                .into(),
            ..Default::default()
        }
    }

    #[test]
    fn faults_and_regret_are_shown_where_there_are_any() {
        let mut status = example();
        let text = "what we send does not arrive, what it sends does";
        status.peers[1].links[0].fault =
            Some(FaultStatus { text: text.into(), ..Default::default() });
        status.peers[1].regret = RegretStatus {
            relayed_packets: 30,
            rescued_packets: 10,
            saved_ms: 50.0,
            lost_ms: 8.0,
            losses_avoided: 3.0,
            ..Default::default()
        };
        let shown = render(&status);
        assert!(shown.contains(&format!("aros   isp1    -         {text}\n")), "{shown}");
        assert!(
            shown.contains("aros          30       10       2.5      0.4               3\n"),
            "{shown}"
        );
    }

    #[test]
    fn the_summary_is_aligned_and_leaves_out_zeros() {
        let expected = "\
node     mit (id 00c0ffee), up 1d01h, version 0.1.0
key      KEY=
tunnels  2 of 2 up
flows    3 active, 10 created, 7 expired

PEER  ID        TUNNEL    AGE  LINKS  VIA     RTT ms  LOSS  ROLES  RX BYTES  TX BYTES
utah  0a0b0c0d  up      1m01s    1/1  direct    37.4  0.2%  relay         0         0
aros  01020304  up       5.0s    0/1  utah         -     -  -             0         0

TRAFFIC        PACKETS  BYTES
from hosts           0      0
to hosts             0      0
from underlay        0      0
to underlay          0      0
relayed              0      0

DROPPED  PACKETS
forged         9
no_path        4
";
        assert_eq!(render(&example()), expected);
    }
}
