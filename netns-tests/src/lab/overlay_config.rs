//! The gateways' configuration files, generated from the topology.
//!
//! Every site peers with every other, may relay and may be an exit; what a scenario wants
//! otherwise it merges over that ([`super::topology::Site::config`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use serde_yaml::Value;

use super::addresses::Plan;
use super::topology::{Family, Site, Topology, merge};

/// The UDP port of every gateway.
pub const PORT: u16 = 4710;

/// The configuration of the gateway of `site`, whose files are in `directory`; `keys` has the public
/// key of every site.
pub fn gateway_config(
    topology: &Topology,
    site: &Site,
    keys: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<Value> {
    let name = &site.name;
    let plan = topology.plan(name)?;
    let mut peers = Vec::new();
    for peer in topology.overlay_sites().filter(|peer| peer.name != *name) {
        let key = keys.get(&peer.name).with_context(|| format!("no key of {}", peer.name))?;
        peers.push(peer_entry(topology, peer, key)?);
    }
    let (overlay4, overlay6) = plan.overlay();
    let uplinks: Vec<_> = (0..site.uplinks.len())
        .map(|index| {
            json!({
                "name": site.uplinks[index].name,
                "interface": format!("wan{index}"),
                "listen": endpoint(topology, plan, index),
            })
        })
        .collect();
    let generated = json!({
        "node": {
            "name": name,
            "private_key_file": format!("{name}.key"),
            "state_dir": directory.join("state"),
        },
        "control": { "socket": directory.join("control.sock") },
        "tun": {
            "name": "ron0",
            "address": [format!("{overlay4}/24"), format!("{overlay6}/64")],
        },
        "lan": { "interfaces": ["lan0"], "networks": [plan.lan4(), plan.lan6()] },
        "uplinks": uplinks,
        "peers": peers,
        "log": "debug",
    });
    let mut config = serde_yaml::to_value(generated)?;
    merge(&mut config, site.gateway.clone());
    Ok(config)
}

fn peer_entry(topology: &Topology, peer: &Site, key: &str) -> Result<serde_json::Value> {
    let plan = topology.plan(&peer.name)?;
    let endpoints: Vec<_> =
        (0..peer.uplinks.len()).map(|index| endpoint(topology, plan, index)).collect();
    let (overlay4, overlay6) = plan.overlay();
    Ok(json!({
        "name": peer.name,
        "public_key": key,
        "endpoints": endpoints,
        "address": [overlay4, overlay6],
        "networks": [plan.lan4(), plan.lan6()],
        "relay": true,
        "egress": true,
    }))
}

fn endpoint(topology: &Topology, plan: Plan, index: usize) -> String {
    let (v4, v6) = plan.uplink(index);
    let address = match topology.outer {
        Family::V4 => IpAddr::V4(v4.addr()),
        Family::V6 => IpAddr::V6(v6.addr()),
    };
    std::net::SocketAddr::new(address, PORT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_site_is_a_peer() {
        let mut topology = Topology::new([
            Site::new("mit").config("{internet: {via: [utah]}, tun: {mtu: 1300}}"),
            Site::new("utah").uplinks(&["isp1", "isp2"]),
            Site::new("aros"),
        ]);
        let keys = ["mit", "utah", "aros"].map(|name| (name.to_owned(), format!("key of {name}")));
        let keys = BTreeMap::from(keys);
        let directory = Path::new("/run/lab/mit");
        let config = gateway_config(&topology, &topology.sites[0], &keys, directory).unwrap();
        assert_eq!(config["node"]["state_dir"], "/run/lab/mit/state");
        assert_eq!(config["uplinks"][0]["listen"], "192.0.2.9:4710");
        assert_eq!(config["tun"]["mtu"], 1300);
        assert_eq!(config["tun"]["address"][0], "10.77.0.1/24");
        assert_eq!(config["internet"]["via"][0], "utah");
        let utah = &config["peers"][0];
        assert_eq!(utah["public_key"], "key of utah");
        assert_eq!(utah["endpoints"][1], "198.51.100.17:4710");
        assert_eq!(utah["networks"][0], "10.2.0.0/16");
        assert_eq!(config["peers"][2], Value::Null);

        topology.outer = Family::V6;
        let config = gateway_config(&topology, &topology.sites[0], &keys, directory).unwrap();
        assert_eq!(config["uplinks"][0]["listen"], "[2001:db8:1:1::1]:4710");
    }
}
