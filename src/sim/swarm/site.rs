//! The nodes' configurations in a plan.

use std::net::{Ipv6Addr, SocketAddr};

use super::plan::Plan;
use crate::flow::FlowLimits;
use crate::nat::NatLimits;
use crate::node::NodeConfig;
use crate::sim::Mesh;

/// Where the gateway of a site listens: behind its middlebox, if it has one.
pub(super) fn listen(plan: &Plan, site: u8) -> SocketAddr {
    match plan.boxes[usize::from(site)] {
        Some(_) if plan.ipv6 => {
            let inside = Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, u16::from(site), 1);
            SocketAddr::from((inside, Mesh::PORT))
        }
        Some(_) => SocketAddr::from(([172, 31, site, 1], Mesh::PORT)),
        None => SocketAddr::new(plan.underlay(site, 0), Mesh::PORT),
    }
}

/// The configurations of all sites.
pub(super) fn configs(plan: &Plan) -> Vec<NodeConfig> {
    let Plan { sites, uplinks, exits, ipv6, .. } = *plan;
    let mesh = Mesh { sites, uplinks, exits, ipv6 };
    let mut configs = mesh.configs();
    for (site, config) in configs.iter_mut().enumerate() {
        config.flow_limits = FlowLimits { max_flows: plan.flows_max, ..FlowLimits::default() };
        if let Some(egress) = &mut config.egress {
            egress.nat.limits = NatLimits::of_mappings(plan.mappings_max, plan.mappings_max / 2);
        }
        plan.settings.apply(site as u8, config);
        config.mtu = if ipv6 { 1_372 } else { 1_392 };
        for (uplink, place) in config.uplinks.iter_mut().enumerate() {
            place.listen.set_ip(plan.underlay(site as u8, uplink as u8));
        }
        if plan.boxes[site].is_some() {
            config.uplinks[0].listen = listen(plan, site as u8);
        }
        for peer in &mut config.peers {
            let named = |site: &u8| {
                peer.endpoints.first().map(SocketAddr::ip) == Some(Mesh::underlay(*site, 0))
            };
            let Some(other) = (0..plan.sites).find(named) else { continue };
            for (uplink, endpoint) in peer.endpoints.iter_mut().enumerate() {
                endpoint.set_ip(plan.underlay(other, uplink as u8));
            }
            if plan.boxes[usize::from(other)].is_some() {
                peer.endpoints.clear();
            }
        }
    }
    configs
}
