//! The nodes' configurations in a plan.

use std::net::SocketAddr;

use super::plan::Plan;
use super::world::MAPPINGS_MAX;
use crate::flow::FlowLimits;
use crate::nat::NatLimits;
use crate::node::NodeConfig;
use crate::sim::Mesh;

/// Where the gateway of a site listens: behind its middlebox, if it has one.
pub(super) fn listen(plan: &Plan, site: u8) -> SocketAddr {
    match plan.boxes[usize::from(site)] {
        Some(_) => SocketAddr::from(([172, 31, site, 1], Mesh::PORT)),
        None => SocketAddr::new(Mesh::underlay(site, 0), Mesh::PORT),
    }
}

/// The configurations of all sites.
pub(super) fn configs(plan: &Plan) -> Vec<NodeConfig> {
    let mesh = Mesh { sites: plan.sites, uplinks: plan.uplinks, exits: plan.exits };
    let mut configs = mesh.configs();
    for (site, config) in configs.iter_mut().enumerate() {
        config.flow_limits = FlowLimits { max_flows: plan.flows_max, ..FlowLimits::default() };
        if let Some(egress) = &mut config.egress {
            egress.nat.limits = NatLimits::of_mappings(MAPPINGS_MAX, MAPPINGS_MAX / 2);
        }
        if plan.boxes[site].is_some() {
            config.uplinks[0].listen = listen(plan, site as u8);
        }
        for peer in &mut config.peers {
            let other = peer.endpoints.first().map(SocketAddr::ip);
            let boxed = (0..plan.sites)
                .filter(|&site| plan.boxes[usize::from(site)].is_some())
                .any(|site| other == Some(Mesh::underlay(site, 0)));
            if boxed {
                peer.endpoints.clear();
            }
        }
    }
    configs
}
