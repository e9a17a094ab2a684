//! The status as OpenMetrics text (version 1.0.0).

use std::fmt::Write as _;

use crate::gateway::status::{LinkState, PeerStatus, SpanStatus, Status, TallyStatus, TunnelState};

/// The content type that scrapers expect.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all metrics.
pub(super) fn render(status: &Status) -> String {
    let mut text = Text(String::with_capacity(8_192));
    text.family("rongate_build", "info", "The running program.");
    text.sample("rongate_build_info", &[("version", &status.node.version)], 1.0);
    text.family("rongate_uptime_seconds", "gauge", "Time since the start.");
    text.sample("rongate_uptime_seconds", &[], status.node.uptime_s as f64);
    traffic(&mut text, status);
    text.family("rongate_dropped_packets", "counter", "Packets that ended here, by reason.");
    for (reason, &count) in &status.drops {
        text.sample("rongate_dropped_packets_total", &[("reason", reason)], count as f64);
    }
    flows(&mut text, status);
    peers(&mut text, &status.peers);
    accounts(&mut text, &status.peers);
    text.0.push_str("# EOF\n");
    text.0
}

fn traffic(text: &mut Text, status: &Status) {
    let traffic = &status.traffic;
    let rows: [(&str, &str, &TallyStatus); 5] = [
        ("tun", "rx", &traffic.tun_rx),
        ("tun", "tx", &traffic.tun_tx),
        ("underlay", "rx", &traffic.underlay_rx),
        ("underlay", "tx", &traffic.underlay_tx),
        ("relay", "tx", &traffic.relayed),
    ];
    text.family("rongate_packets", "counter", "Packets by side and direction.");
    for (side, direction, tally) in rows {
        let labels = [("side", side), ("direction", direction)];
        text.sample("rongate_packets_total", &labels, tally.packets as f64);
    }
    text.family("rongate_bytes", "counter", "Bytes by side and direction.");
    for (side, direction, tally) in rows {
        let labels = [("side", side), ("direction", direction)];
        text.sample("rongate_bytes_total", &labels, tally.bytes as f64);
    }
}

fn flows(text: &mut Text, status: &Status) {
    text.family("rongate_flows", "gauge", "Flows in the table.");
    text.sample("rongate_flows", &[], status.flows.active as f64);
    text.family("rongate_flows_created", "counter", "Flows since the start.");
    text.sample("rongate_flows_created_total", &[], status.flows.created as f64);
    text.family("rongate_nat_mappings", "gauge", "Mappings of the NAT.");
    text.sample("rongate_nat_mappings", &[], status.nat.mappings as f64);
    text.family("rongate_nat_ports", "gauge", "Outside ports of the NAT.");
    for (state, ports) in [
        ("used", status.nat.ports_in_use),
        ("free", status.nat.ports_total.saturating_sub(status.nat.ports_in_use)),
    ] {
        text.sample("rongate_nat_ports", &[("state", state)], ports as f64);
    }
}

fn peers(text: &mut Text, peers: &[PeerStatus]) {
    text.family("rongate_peer_up", "gauge", "Whether the tunnel with a peer has keys.");
    for peer in peers {
        let up = f64::from(u8::from(peer.tunnel.state == TunnelState::Up));
        text.sample("rongate_peer_up", &[("peer", &peer.name)], up);
    }
    text.family("rongate_peer_relayed", "gauge", "Whether the path goes through a relay.");
    for peer in peers {
        for (metric, path) in peer.paths.entries() {
            if let Some(path) = path {
                let labels = [("peer", peer.name.as_str()), ("metric", metric)];
                let relayed = f64::from(u8::from(path.via.is_some()));
                text.sample("rongate_peer_relayed", &labels, relayed);
            }
        }
    }
    links(text, peers, "rongate_link_up", "Whether a link answers.", |link| {
        Some(f64::from(u8::from(link.state == LinkState::Up)))
    });
    links(text, peers, "rongate_link_rtt_seconds", "Smoothed round-trip time.", |link| {
        link.rtt_ms.map(|ms| ms / 1e3)
    });
    links(text, peers, "rongate_link_loss_ratio", "Lost fraction.", |link| link.loss);
}

/// Outages of direct paths, and what they would have given.
fn accounts(text: &mut Text, peers: &[PeerStatus]) {
    text.family("rongate_outages", "counter", "Outages of the direct path that ended, by outcome.");
    for peer in peers {
        let known = &peer.availability;
        for (outcome, count) in [
            ("avoided", known.avoided),
            ("unavoidable", known.unavoidable),
            ("unavoided", known.unavoided),
        ] {
            let labels = [("peer", peer.name.as_str()), ("outcome", outcome)];
            text.sample("rongate_outages_total", &labels, count as f64);
        }
    }
    text.family("rongate_way_packets", "counter", "Packets of hosts to a peer, by way.");
    for peer in peers {
        for (way, count) in [
            ("direct", peer.regret.direct_packets),
            ("relayed", peer.regret.relayed_packets),
            ("rescued", peer.regret.rescued_packets),
        ] {
            let labels = [("peer", peer.name.as_str()), ("way", way)];
            text.sample("rongate_way_packets_total", &labels, count as f64);
        }
    }
    let sum = |span: SpanStatus| span.mean.unwrap_or(0.0) * span.count as f64 / 1e3;
    let account = |peer: &PeerStatus| {
        let (known, regret) = (&peer.availability, &peer.regret);
        [
            ("rongate_unreachable_seconds", "Time without any path.", known.unreachable_s),
            ("rongate_direct_down_seconds", "Time without the direct path.", known.direct_down_s),
            (
                "rongate_saved_seconds",
                "Round-trip time that relaying saved.",
                regret.saved_ms / 1e3,
            ),
            ("rongate_regret_seconds", "Round-trip time that relaying lost.", regret.lost_ms / 1e3),
            ("rongate_detect_seconds", "Time to suspicion, of all outages.", sum(known.detect_ms)),
            ("rongate_recover_seconds", "Time to another path, likewise.", sum(known.recover_ms)),
        ]
    };
    let rows: Vec<_> = peers.iter().map(|peer| (peer.name.as_str(), account(peer))).collect();
    for at in 0..rows.first().map_or(0, |row| row.1.len()) {
        let (name, help, _) = rows[0].1[at];
        text.family(name, "counter", help);
        for (peer, figures) in &rows {
            text.sample(&format!("{name}_total"), &[("peer", peer)], figures[at].2);
        }
    }
}

fn links(
    text: &mut Text,
    peers: &[PeerStatus],
    name: &str,
    help: &str,
    value: impl Fn(&crate::gateway::status::LinkStatus) -> Option<f64>,
) {
    text.family(name, "gauge", help);
    for peer in peers {
        for link in &peer.links {
            if let Some(value) = value(link) {
                let endpoint = link.endpoint.as_deref().unwrap_or_default();
                let labels = [
                    ("peer", peer.name.as_str()),
                    ("uplink", &link.uplink),
                    ("endpoint", endpoint),
                ];
                text.sample(name, &labels, value);
            }
        }
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::LinkStatus;

    #[test]
    fn every_sample_belongs_to_a_family_that_was_announced() {
        let status = Status {
            peers: vec![PeerStatus {
                name: "utah \"x\"".into(),
                links: vec![LinkStatus { loss: Some(0.5), ..Default::default() }],
                ..Default::default()
            }],
            drops: [("replay".to_owned(), 3)].into(),
            ..Default::default()
        };
        let text = render(&status);
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&family), "{line} is not of {family}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("rongate_dropped_packets_total{reason=\"replay\"} 3\n"));
        assert!(text.contains("peer=\"utah \\\"x\\\"\""));
        assert!(text.ends_with("# EOF\n"));
    }
}
