//! The overlay of Figure 2 of "The Case for Resilient Overlay Networks" (Andersen, Balakrishnan,
//! Kaashoek, Morris; HotOS 2001), as a topology of the laboratory.
//!
//! Who is joined to whom, by which provider, and which links are private, is the paper's. Of the
//! delays it gives two: 97 ms there and back between MIT and ArosNet through the Internet, on
//! average, and 68 ms by the overlay's better ways, mostly Internet2 to Utah.

use anyhow::{Context, Result};
use netns_tests::lab::overlay_config::PORT;
use netns_tests::lab::{Lab, Site, Topology, server_address};
use serde_yaml::Value;

/// Two attachments, the one-way delay between them, and where it comes from.
struct Link(&'static str, &'static str, &'static str);

const LINKS: &[Link] = &[
    // 97 ms there and back: the paper, section 2.2.
    Link("mit-bbn", "arosnet-uunet", "48.5ms"),
    // The paper names the link. With the peering of Utah and ArosNet it makes the paper's 68 ms.
    Link("mit-internet2", "utah-internet2", "31ms"),
    // The paper names the link, "a local ISP, via a private peering link"; the delay is ours.
    Link("utah-peering", "arosnet-peering", "3ms"),
    // The paper names the link, "so students can quickly connect"; the delay is ours.
    Link("mit-peering", "mediaone-peering", "4ms"),
    // "The exchange between MediaOne and Qwest, which frequently went through Seattle": a long
    // way round; the delay is ours.
    Link("mediaone-att", "utah-qwest", "65ms"),
    // These are ours: the same two cities over and over, by one exchange or another.
    Link("mit-bbn", "utah-qwest", "38ms"),
    Link("mediaone-att", "mit-bbn", "12ms"),
    Link("mediaone-att", "arosnet-uunet", "42ms"),
    Link("utah-qwest", "arosnet-uunet", "25ms"),
    // The servers are near MIT; ours.
    Link("mit-bbn", "internet", "8ms"),
    Link("mediaone-att", "internet", "30ms"),
    Link("utah-qwest", "internet", "35ms"),
    Link("arosnet-uunet", "internet", "45ms"),
];

/// The map of what was built, for the screen.
pub(crate) const MAP: &str = "
 mediaone ··· 4 ms ··· mit ═══ Internet2, 31 ms ═══ utah ··· 3 ms ··· arosnet
    │                   │                            │                  │
  AT&T                 BBN                         Qwest             UUNET
 ───┴───────────────────┴─────── the Internet ───────┴──────────────────┴────
  one way:  BBN-UUNET 48.5   BBN-Qwest 38   AT&T-UUNET 42   AT&T-Qwest 65 ms
  ··· private peering, announced to nobody else     ═══ research network";

/// The sites, in the order of the map.
pub(crate) const SITES: [&str; 4] = ["mediaone", "mit", "utah", "arosnet"];

/// Four sites with the paper's uplinks, and an Internet with a server. Hosts at MediaOne go out
/// to the Internet at MIT.
pub(crate) fn topology() -> Topology {
    let sites = [
        Site::new("mediaone").uplinks(&["att", "peering"]).config("{internet: {via: [mit]}}"),
        Site::new("mit")
            .uplinks(&["bbn", "internet2", "peering"])
            .config("{egress: {enabled: true, for: [mediaone]}}"),
        Site::new("utah").uplinks(&["qwest", "internet2", "peering"]),
        Site::new("arosnet").uplinks(&["uunet", "peering"]),
    ];
    let all = sites.map(|site| site.config("{log: info}"));
    // What is not listed does not exist.
    let topology = Topology::new(all).internet(1).all_links("{down: true}");
    LINKS.iter().fold(topology, |topology, Link(from, to, delay)| {
        topology.link(from, to, &format!("{{down: false, delay: {delay}}}"))
    })
}

/// Tells every gateway only those addresses of a peer that some uplink of its own can reach, as an
/// operator would who knows the private links.
pub(crate) fn keep_reachable_endpoints(lab: &mut Lab) -> Result<()> {
    let topology = lab.topology().clone();
    for site in SITES {
        let gateway = lab.gateway(site)?;
        let peers = gateway.config.get_mut("peers").and_then(Value::as_sequence_mut);
        for peer in peers.context("the configuration has no peers")? {
            let name = peer.get("name").and_then(Value::as_str).context("a peer has no name")?;
            let endpoints = endpoints(&topology, site, name)?;
            peer["endpoints"] = serde_yaml::to_value(endpoints)?;
        }
        gateway.write_config()?;
    }
    Ok(())
}

fn endpoints(topology: &Topology, site: &str, peer: &str) -> Result<Vec<String>> {
    let (own, plan) = (topology.ends(site)?, topology.plan(peer)?);
    let reachable = |end: &String| {
        LINKS.iter().any(|Link(a, b, _)| {
            (a == end && own.iter().any(|own| own == b))
                || (b == end && own.iter().any(|own| own == a))
        })
    };
    let uplinks = topology.ends(peer)?.into_iter().enumerate();
    Ok(uplinks
        .filter(|(_, end)| reachable(end))
        .map(|(index, _)| format!("{}:{PORT}", plan.uplink(index).0.addr()))
        .collect())
}

/// Who has an address, in the words of the map.
pub(crate) fn whose(topology: &Topology, address: std::net::IpAddr) -> String {
    let std::net::IpAddr::V4(v4) = address else { return "?".into() };
    if v4 == server_address(0).0 {
        return "the server".into();
    }
    for site in SITES {
        let Ok(plan) = topology.plan(site) else { continue };
        if v4 == plan.gateway().0 || v4 == plan.overlay().0 {
            return format!("{site}'s gateway");
        }
        if (0..3).any(|index| v4 == plan.uplink(index).0.addr()) {
            return format!("{site}'s uplink");
        }
        if plan.lan4().contains(&v4) {
            return format!("a host of {site}");
        }
    }
    "a router of the Internet".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_figure_joins_is_an_endpoint() {
        let topology = topology();
        topology.validate().unwrap();
        assert_eq!(endpoints(&topology, "mit", "arosnet").unwrap(), ["192.0.2.33:4710"]);
        let utah = ["192.0.2.25:4710", "198.51.100.25:4710"];
        assert_eq!(endpoints(&topology, "mit", "utah").unwrap(), utah);
        assert_eq!(endpoints(&topology, "arosnet", "mediaone").unwrap(), ["192.0.2.9:4710"]);
    }

    #[test]
    fn the_map_fits_a_terminal_and_agrees_with_the_links() {
        assert!(MAP.lines().all(|line| line.chars().count() <= 78));
        for delay in ["48.5", "38", "42", "65", "31", "4 ms", "3 ms"] {
            assert!(MAP.contains(delay), "{delay}");
            let digits = delay.trim_end_matches(" ms");
            assert!(LINKS.iter().any(|link| link.2 == format!("{digits}ms")), "{delay}");
        }
    }

    #[test]
    fn addresses_have_owners() {
        let topology = topology();
        for (address, owner) in [
            ("10.2.0.1", "mit's gateway"),
            ("192.0.2.17", "mit's uplink"),
            ("10.4.0.11", "a host of arosnet"),
            ("203.0.113.80", "the server"),
            ("203.0.113.1", "a router of the Internet"),
        ] {
            assert_eq!(whose(&topology, address.parse().unwrap()), owner);
        }
    }
}
