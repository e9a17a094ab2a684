//! From the topology's plan to the WAN emulator's scenario.

use anyhow::Result;
use serde_json::json;
use serde_yaml::{Mapping, Value};

use super::topology::Topology;

/// The scenario of the WAN emulator for a topology.
pub(crate) fn wan_scenario(topology: &Topology) -> Result<Value> {
    let mut sites = serde_json::Map::new();
    for attachment in topology.attachments() {
        let site = json!({
            "netns": attachment.netns,
            "interface": attachment.interface,
            "addresses": attachment.addresses,
            "prefixes": attachment.prefixes,
            "mtu": attachment.mtu,
        });
        sites.insert(attachment.name, site);
    }
    let plan = &topology.wan;
    let mut links = Vec::new();
    for link in &plan.links {
        for (from, to) in pairs(topology, &link.from, &link.to)? {
            links.push(entry(from, to, link.both, &link.set));
        }
    }
    let mut events = Vec::new();
    for event in &plan.events {
        for (from, to) in pairs(topology, &event.from, &event.to)? {
            let mut event_entry = entry(from, to, event.both, &event.set);
            event_entry["at"] = json!(event.at);
            events.push(event_entry);
        }
    }
    Ok(serde_yaml::to_value(json!({
        "seed": plan.seed,
        "sites": sites,
        "default": plan.default,
        "links": links,
        "events": events,
    }))?)
}

fn entry(from: String, to: String, both: bool, set: &Mapping) -> serde_json::Value {
    json!({ "from": from, "to": to, "both": both, "set": set })
}

/// Every pair of attachments that two ends stand for, without links of an attachment to itself.
pub(crate) fn pairs(topology: &Topology, from: &str, to: &str) -> Result<Vec<(String, String)>> {
    let (from, to) = (topology.ends(from)?, topology.ends(to)?);
    let mut all = Vec::with_capacity(from.len() * to.len());
    for a in &from {
        all.extend(to.iter().filter(|&b| b != a).map(|b| (a.clone(), b.clone())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::topology::Site;

    #[test]
    fn sites_become_attachments_and_names_are_expanded() {
        let topology =
            Topology::new([Site::new("mit").uplinks(&["isp1", "isp2"]), Site::new("utah")])
                .all_links("{delay: 20ms}")
                .link("mit", "utah", "{loss: 0.1}");
        let scenario = wan_scenario(&topology).unwrap();
        assert_eq!(scenario["sites"]["mit-isp2"]["interface"], "wan1");
        assert_eq!(scenario["sites"]["utah-isp1"]["addresses"][0], "192.0.2.17/29");
        assert_eq!(scenario["default"]["delay"], "20ms");
        assert_eq!(scenario["links"][1]["from"], "mit-isp2");
        assert_eq!(scenario["links"][1]["to"], "utah-isp1");
        assert_eq!(scenario["links"].as_sequence().unwrap().len(), 2);
        assert_eq!(pairs(&topology, "mit", "mit").unwrap().len(), 2);
    }
}
