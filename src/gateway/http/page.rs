//! The status as one small page that needs nothing else.

use std::fmt::Write as _;

use crate::gateway::status::{LinkState, LinkStatus, PathStatus, PeerStatus, Status, TunnelState};

const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:60em;\
padding:0 1em;color:#222}table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}\
th,td{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid #ddd}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.up{color:#17703a}.suspect{color:#a66a00}\
.down{color:#b3261e}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}\
th,td{border-color:#444}}";

/// Writes the page.
pub(super) fn render(status: &Status) -> String {
    let node = &status.node;
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"2\"><title>{name}: rongate</title>\
         <style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n<p>Node {id}, rongate {version}, \
         running for {uptime}.</p>\n",
        name = escape(&node.name),
        id = escape(&node.id),
        version = escape(&node.version),
        uptime = duration(node.uptime_s),
    );
    peers(&mut html, &status.peers);
    links(&mut html, &status.peers);
    traffic(&mut html, status);
    drops(&mut html, status);
    html.push_str("<p><a href=\"/status\">JSON</a> <a href=\"/metrics\">metrics</a></p>\n");
    html.push_str("</body></html>\n");
    html
}

fn peers(html: &mut String, peers: &[PeerStatus]) {
    html.push_str("<h2>Peers</h2>\n<table><tr><th>Peer<th>Tunnel<th>Latency path<th>Loss path");
    html.push_str("<th>Throughput path</tr>\n");
    for peer in peers {
        let (class, state) = match peer.tunnel.state {
            TunnelState::Up => ("up", "up"),
            TunnelState::Handshaking => ("suspect", "handshaking"),
            TunnelState::Down => ("down", "down"),
        };
        let _ = write!(html, "<tr><td>{}<td class={class}>{state}", escape(&peer.name));
        for (_, path) in peer.paths.entries() {
            let _ = write!(html, "<td>{}", path_text(path));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

fn path_text(path: Option<&PathStatus>) -> String {
    match path {
        None => "none".to_owned(),
        Some(PathStatus { via: Some(relay), .. }) => format!("via {}", escape(relay)),
        Some(PathStatus { uplink: Some(uplink), .. }) => format!("direct, {}", escape(uplink)),
        Some(_) => "direct".to_owned(),
    }
}

fn links(html: &mut String, peers: &[PeerStatus]) {
    html.push_str("<h2>Links</h2>\n<table><tr><th>Peer<th>Uplink<th>Endpoint<th>State");
    html.push_str("<th>RTT<th>Jitter<th>Loss<th>MTU</tr>\n");
    for peer in peers {
        for link in &peer.links {
            link_row(html, &peer.name, link);
        }
    }
    html.push_str("</table>\n");
}

fn link_row(html: &mut String, peer: &str, link: &LinkStatus) {
    let state = match link.state {
        LinkState::Up => "up",
        LinkState::Suspect => "suspect",
        LinkState::Down => "down",
    };
    let ms = |value: Option<f64>| value.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
    let _ = writeln!(
        html,
        "<tr><td>{}<td>{}<td>{}<td class={state}>{state}<td class=n>{}<td class=n>{}\
         <td class=n>{}<td class=n>{}</tr>",
        escape(peer),
        escape(&link.uplink),
        escape(link.endpoint.as_deref().unwrap_or("not known yet")),
        ms(link.rtt_ms),
        ms(link.jitter_ms),
        link.loss.map_or_else(String::new, |loss| format!("{:.1} %", loss * 100.0)),
        link.mtu.map_or_else(String::new, |mtu| mtu.to_string()),
    );
}

fn traffic(html: &mut String, status: &Status) {
    html.push_str("<h2>Traffic</h2>\n<table><tr><th><th>Packets<th>Bytes</tr>\n");
    let traffic = &status.traffic;
    for (name, tally) in [
        ("from hosts", traffic.tun_rx),
        ("to hosts", traffic.tun_tx),
        ("received from the underlay", traffic.underlay_rx),
        ("sent to the underlay", traffic.underlay_tx),
        ("of that relayed for others", traffic.relayed),
    ] {
        let (packets, bytes) = (tally.packets, tally.bytes);
        let _ = writeln!(html, "<tr><td>{name}<td class=n>{packets}<td class=n>{bytes}</tr>");
    }
    let _ = writeln!(
        html,
        "</table>\n<p>{} flows, {} NAT mappings on {} of {} ports.</p>",
        status.flows.active, status.nat.mappings, status.nat.ports_in_use, status.nat.ports_total
    );
}

fn drops(html: &mut String, status: &Status) {
    let seen: Vec<_> = status.drops.iter().filter(|&(_, &count)| count > 0).collect();
    if seen.is_empty() {
        return;
    }
    html.push_str("<h2>Dropped</h2>\n<table><tr><th>Reason<th>Packets</tr>\n");
    for (reason, count) in seen {
        let _ = writeln!(html, "<tr><td>{}<td class=n>{count}</tr>", escape(reason));
    }
    html.push_str("</table>\n");
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_bring_markup_along() {
        let status = Status {
            peers: vec![PeerStatus { name: "<script>x</script>".into(), ..Default::default() }],
            ..Default::default()
        };
        let html = render(&status);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    }

    #[test]
    fn uptime_is_readable() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(7_384), "2 h 3 min");
        assert_eq!(duration(864_000), "10 days");
    }
}
