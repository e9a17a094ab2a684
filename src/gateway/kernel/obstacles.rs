//! What stands in the way of a plan, each in one sentence.

use ipnet::IpNet;

use super::HostFacts;
use super::plan::{KernelPlan, PROTOCOL, is_link_local};
use crate::config::Config;
use crate::io::nft;

/// The first interface that is configured and does not exist, as a sentence.
pub(crate) fn missing_interface(config: &Config, facts: &HostFacts) -> Option<String> {
    let lan = config.lan.interfaces.iter().map(|name| (name, "lan.interfaces"));
    let wan = config.uplinks.iter().map(|uplink| (&uplink.interface, "uplinks[].interface"));
    let (name, key) = lan.chain(wan).find(|(name, _)| facts.interface(name).is_none())?;
    Some(format!("there is no interface `{name}` ({key})"))
}

/// A route of the host that would take packets away from the overlay, as a sentence.
pub(crate) fn conflict(config: &Config, facts: &HostFacts) -> Option<String> {
    let peers =
        config.peers.iter().flat_map(|peer| {
            let addresses = peer.address.iter().map(|&ip| IpNet::from(ip));
            peer.networks.iter().copied().chain(addresses).map(move |network| {
                (network, format!("the network {network} of peer `{}`", peer.name))
            })
        });
    let own = config.tun.address.iter().map(|network| {
        (network.trunc(), format!("the overlay's network {} (tun.address)", network.trunc()))
    });
    for (network, what) in own.chain(peers) {
        let taken = facts.main_routes.iter().find(|route| {
            route.protocol != PROTOCOL
                && route.destination.prefix_len() > 0
                && network.contains(&route.destination)
                && route.interface.as_deref() != Some(config.tun.name.as_str())
                && !is_link_local(&route.destination)
        });
        if let Some(route) = taken {
            return Some(format!(
                "{what} conflicts with the route `{route}` of this host: \
                 remove the route or change the network"
            ));
        }
    }
    None
}

/// The command that the plan needs and the host lacks, as a sentence.
pub(crate) fn missing_command(plan: &KernelPlan) -> Option<&'static str> {
    let is_missing = !plan.nft_body.is_empty() && !nft::is_installed();
    is_missing.then_some("the command `nft` is missing: install nftables")
}
