//! The nodes of a scenario: as many as it wants, all alike.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use crate::flow::FlowLimits;
use crate::node::{NodeConfig, PeerConfig, UplinkConfig};
use crate::sim::Mesh;
use crate::sim::host::Endpoint;
use crate::tunnel::Identity;

/// The underlay address of a node.
pub(super) fn underlay(site: usize) -> IpAddr {
    IpAddr::from([198, 18, (site >> 8) as u8, site as u8])
}

/// A host behind a node.
pub(super) fn host(site: usize) -> Endpoint {
    (IpAddr::from([10, 128 + (site >> 8) as u8, site as u8, 5]), 4_000)
}

/// The configurations of all nodes: a full mesh, or several that know nothing of each other, of so
/// many nodes each.
pub(super) fn configs(overlays: usize, sites: usize, budget_bps: u64) -> Vec<NodeConfig> {
    let overlay = |first: usize| {
        let all: Vec<PeerConfig> = (first..first + sites).map(peer).collect();
        (0..sites).map(move |index| config(first, index, &all, budget_bps)).collect::<Vec<_>>()
    };
    (0..overlays).flat_map(|overlay_number| overlay(overlay_number * sites)).collect()
}

fn key(site: usize) -> [u8; 32] {
    let mut key = [7; 32];
    // Not the first byte: X25519 ignores some of its bits.
    key[8..16].copy_from_slice(&(site as u64 + 1).to_le_bytes());
    key
}

fn network(site: usize) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert([10, 128 + (site >> 8) as u8, site as u8, 0].into(), 24))
}

fn address(site: usize) -> IpAddr {
    IpAddr::from([10, 77, (site >> 8) as u8, site as u8])
}

fn peer(site: usize) -> PeerConfig {
    PeerConfig {
        name: format!("n{site}"),
        public_key: Identity::from_private(key(site)).public(),
        endpoints: vec![SocketAddr::new(underlay(site), Mesh::PORT)],
        addresses: vec![address(site)],
        networks: vec![network(site)],
        ..Mesh::default().configs().swap_remove(0).peers.swap_remove(0)
    }
}

fn config(first: usize, index: usize, all: &[PeerConfig], budget_bps: u64) -> NodeConfig {
    let site = first + index;
    let others = all.iter().enumerate().filter(|(other, _)| *other != index);
    let listen = SocketAddr::new(underlay(site), Mesh::PORT);
    let max = 2 * all.len() as u32 + 16;
    NodeConfig {
        name: format!("n{site}"),
        private_key: zeroize::Zeroizing::new(key(site)),
        addresses: vec![address(site)],
        lan_networks: vec![network(site)],
        uplinks: vec![UplinkConfig { listen, mtu: 1500 }],
        peers: others.map(|(_, peer)| peer.clone()).collect(),
        control_budget_bps: budget_bps,
        flow_limits: FlowLimits { max_flows: max, max_per_host: max, ..FlowLimits::default() },
        ..Mesh::default().configs().swap_remove(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_somebody_else() {
        let configs = configs(1, 400, 33_000);
        let mut keys: Vec<_> = configs[0].peers.iter().map(|peer| peer.public_key).collect();
        keys.push(configs[1].peers[0].public_key);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 400);
    }

    #[test]
    fn overlays_know_nothing_of_each_other() {
        let configs = configs(2, 3, 33_000);
        let names = |node: usize| -> Vec<_> {
            configs[node].peers.iter().map(|peer| peer.name.as_str()).collect()
        };
        assert_eq!((names(1), names(4)), (vec!["n0", "n2"], vec!["n3", "n5"]));
        assert_eq!(configs[4].name, "n4");
    }
}
