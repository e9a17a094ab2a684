//! Answers to operators' questions, made in the event loop from what the node tells.

mod explain;
mod metric;
mod nat;
mod peers;
mod subject;
mod words;

use std::net::{IpAddr, SocketAddr};

pub(super) use nat::protocol;

use super::ask::Answer;
use super::status::{
    FLOWS_LIMIT_MAX, FlowList, FlowStatus, FlowTotals, NatStatus, NodeStatus, Request, Status,
    TrafficStatus, UplinkStatus,
};
use crate::config::Config;
use crate::flow::{Egress, Flow, FlowId, FlowKey};
use crate::node::Node;
use crate::path::Path;
use crate::time::Instant;

/// What the node does not know about itself.
pub(super) struct Scene<'a> {
    /// The configuration.
    pub(super) config: &'a Config,
    /// Where each uplink's socket is bound.
    pub(super) local: Vec<Option<SocketAddr>>,
    /// Events that found no room on their way to the log of mappings.
    pub(super) nat_log_lost: u64,
}

/// Answers one question.
pub(super) fn answer(
    node: &mut Node,
    now: Instant,
    scene: &Scene<'_>,
    request: &Request,
) -> Answer {
    match request {
        Request::Nat { filter, limit, from } => {
            Answer::NatMappings(nat::mappings(node, now, filter, *limit, *from))
        }
        Request::NatHosts { limit, from } => Answer::NatHosts(nat::hosts(node, *limit, *from)),
        Request::NatDelete { protocol, outside } => nat::delete(node, now, protocol, *outside),
        Request::Status => Answer::Status(Box::new(status(node, now, scene))),
        Request::Flows { limit, offset } => Answer::Flows(flows(node, now, *limit, *offset)),
        Request::Explain { subject, packet } => {
            match explain::explain(node, now, scene, subject, packet) {
                Ok(explanation) => Answer::Explanation(Box::new(explanation)),
                Err(why) => Answer::Refused(why),
            }
        }
        Request::Metrics => Answer::AppValues(metric::list(node, now, scene)),
        Request::SetMetric { peer, via, uplink, value, ttl_s } => {
            let (via, uplink) = (via.as_deref(), uplink.as_deref());
            let subject = metric::Subject { peer, via, uplink };
            metric::set(node, now, scene, &subject, *value, *ttl_s)
        }
        Request::Reload => Answer::Refused("the event loop reads no files".to_owned()),
    }
}

fn status(node: &Node, now: Instant, scene: &Scene<'_>) -> Status {
    let counters = node.counters();
    let flows = node.flow_counts();
    let nat = node.nat_counts().unwrap_or_default();
    Status {
        node: NodeStatus {
            name: node.name().to_owned(),
            id: node.id().to_string(),
            public_key: node.public_key().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: node.uptime(now).as_secs(),
        },
        uplinks: uplinks(scene),
        peers: node.peers(now).iter().map(|peer| peers::peer(node, now, scene, peer)).collect(),
        flows: FlowTotals { active: flows.active, created: flows.created, expired: flows.expired },
        nat: NatStatus {
            mappings: nat.mappings,
            ports_in_use: nat.ports_in_use,
            ports_total: nat.ports_total,
            sessions: nat.sessions,
            created: nat.created,
            ended: nat.expired,
            log_lost: node.lost_nat_events() + scene.nat_log_lost,
        },
        traffic: TrafficStatus {
            tun_rx: counters.tun_rx.into(),
            tun_tx: counters.tun_tx.into(),
            underlay_rx: counters.underlay_rx.into(),
            underlay_tx: counters.underlay_tx.into(),
            relayed: counters.relayed.into(),
            copies: counters.copies.into(),
            waited: counters.waited.into(),
        },
        drops: counters.drops().map(|(r, count)| (r.name().to_owned(), count)).collect(),
    }
}

fn uplinks(scene: &Scene<'_>) -> Vec<UplinkStatus> {
    let uplinks = scene.config.uplinks.iter().zip(&scene.local);
    uplinks
        .map(|(uplink, local)| UplinkStatus {
            name: uplink.name.clone(),
            interface: uplink.interface.clone(),
            local: local.map(|address| address.to_string()),
        })
        .collect()
}

fn flows(node: &Node, now: Instant, limit: usize, offset: usize) -> FlowList {
    let limit = limit.min(FLOWS_LIMIT_MAX);
    let page = node.flows_from(FlowId(0)).skip(offset).take(limit);
    FlowList {
        total: node.flow_counts().active,
        offset: offset as u64,
        flows: page.map(|(_, flow)| flow_status(node, now, flow)).collect(),
    }
}

fn flow_status(node: &Node, now: Instant, flow: &Flow) -> FlowStatus {
    let key = &flow.key;
    FlowStatus {
        protocol: protocol_name(key),
        source: endpoint(key, key.source(), key.source_port),
        destination: if key.is_icmp() {
            key.destination().to_string()
        } else {
            endpoint(key, key.destination(), key.destination_port)
        },
        class: node.class(flow.class).name.clone(),
        egress: egress_name(node, flow.egress),
        via: via(node, flow),
        packets: flow.forward.packets + flow.reply.packets,
        bytes: flow.forward.bytes + flow.reply.bytes,
        age_s: (now - flow.first_seen).as_secs_f64(),
        idle_s: (now - flow.last_seen).as_secs_f64(),
    }
}

/// The relay that the flow's packets go through now.
fn via(node: &Node, flow: &Flow) -> Option<String> {
    let relay = node.path_of(flow).and_then(Path::relay);
    relay.map(|relay| node.peer_name(relay).to_owned())
}

fn egress_name(node: &Node, egress: Egress) -> String {
    match egress {
        Egress::Undecided => "undecided".to_owned(),
        Egress::Local | Egress::LocalExit => "local".to_owned(),
        Egress::Peer(peer) | Egress::PeerExit(peer) => node.peer_name(peer).to_owned(),
    }
}

fn protocol_name(key: &FlowKey) -> String {
    match key.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmp6".to_owned(),
        other => other.to_string(),
    }
}

fn endpoint(key: &FlowKey, address: IpAddr, port: u16) -> String {
    match key.protocol {
        6 | 17 => SocketAddr::new(address, port).to_string(),
        1 | 58 => format!("{address} id {port}"),
        _ => address.to_string(),
    }
}
