//! What a laboratory consists of, as plain data: sites, uplinks, an Internet, the links between.
//!
//! Namespaces: the site's name for its gateway, `SITE-h1` ... for its hosts, `internet` and
//! `server`. Underlay attachments, the ends of emulated links: `SITE-UPLINK` and `internet`.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use super::addresses::{Plan, internet_router, server_address};

/// The whole laboratory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// The sites; a site's number is its place, from 1.
    pub sites: Vec<Site>,
    /// An Internet with servers, if wanted.
    pub internet: Option<Internet>,
    /// What joins the sites.
    pub underlay: Underlay,
    /// Which outer addresses the gateways use.
    pub outer: Family,
    /// The underlay carries the LANs' addresses too, so that the kernel alone joins the sites.
    pub kernel_routing: bool,
    /// The emulated links and what happens to them.
    pub wan: WanPlan,
}

/// A site: a gateway, its LAN with hosts, its uplinks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// A DNS label, at most 8 characters (it becomes part of interface names).
    pub name: String,
    /// How many hosts.
    #[serde(default = "one")]
    pub hosts: u8,
    /// The attachments to the underlay.
    #[serde(default = "one_uplink")]
    pub uplinks: Vec<Uplink>,
    /// Whether it is part of the overlay; if not, its router is an ordinary one.
    #[serde(default = "yes")]
    pub overlay: bool,
    /// Merged over the generated configuration of the gateway.
    #[serde(default)]
    pub gateway: Value,
    /// MTU of the LAN.
    #[serde(default = "mtu")]
    pub lan_mtu: u32,
}

/// One attachment of a site to the underlay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// MTU of the interface.
    #[serde(default = "mtu")]
    pub mtu: u32,
}

/// Servers behind a router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Internet {
    /// How many server addresses per family.
    pub servers: u8,
}

/// What joins the sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Underlay {
    /// The WAN emulator.
    #[default]
    Emulated,
    /// One veth pair between exactly two sites with one uplink each; for benchmarks.
    Wire,
}

/// An address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// The emulated links. Settings are those of the WAN emulator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WanPlan {
    /// Determines every random choice.
    pub seed: u64,
    /// Settings of all links.
    pub default: Mapping,
    /// Settings of some links.
    pub links: Vec<WanLink>,
    /// What changes when.
    pub events: Vec<WanEvent>,
}

/// Settings of the links between two ends: an attachment, a site (all its uplinks), or `*`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WanLink {
    /// Sending end.
    pub from: String,
    /// Receiving end.
    pub to: String,
    /// The other direction too.
    #[serde(default)]
    pub both: bool,
    /// The settings.
    pub set: Mapping,
}

/// Settings that apply from a moment on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WanEvent {
    /// Time after the start of the emulator, as in `2s`.
    pub at: String,
    /// Sending end.
    pub from: String,
    /// Receiving end.
    pub to: String,
    /// The other direction too.
    #[serde(default)]
    pub both: bool,
    /// The settings.
    pub set: Mapping,
}

/// An end of emulated links: an interface in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `SITE-UPLINK` or `internet`.
    pub name: String,
    /// Where the interface is.
    pub netns: String,
    /// The interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// More networks behind it.
    pub prefixes: Vec<IpNet>,
    /// Its MTU.
    pub mtu: u32,
}

fn one() -> u8 {
    1
}

fn yes() -> bool {
    true
}

fn mtu() -> u32 {
    1500
}

fn one_uplink() -> Vec<Uplink> {
    vec![Uplink { name: "isp1".into(), mtu: mtu() }]
}

impl Default for Internet {
    fn default() -> Self {
        Self { servers: 1 }
    }
}

impl Site {
    /// A site with one host and one uplink `isp1`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            hosts: one(),
            uplinks: one_uplink(),
            overlay: yes(),
            gateway: Value::Null,
            lan_mtu: mtu(),
        }
    }

    /// Another number of hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: u8) -> Self {
        self.hosts = hosts;
        self
    }

    /// Other uplinks.
    #[must_use]
    pub fn uplinks(mut self, names: &[&str]) -> Self {
        self.uplinks =
            names.iter().map(|name| Uplink { name: (*name).into(), mtu: mtu() }).collect();
        self
    }

    /// Another MTU of all its uplinks.
    #[must_use]
    pub fn uplink_mtu(mut self, mtu: u32) -> Self {
        for uplink in &mut self.uplinks {
            uplink.mtu = mtu;
        }
        self
    }

    /// It takes no part in the overlay.
    #[must_use]
    pub fn without_gateway(mut self) -> Self {
        self.overlay = false;
        self
    }

    /// YAML that is merged over the gateway's generated configuration; a literal of the scenario.
    ///
    /// # Panics
    /// If it is not YAML.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        let more: Value = serde_yaml::from_str(yaml).expect("configuration literal is YAML");
        merge(&mut self.gateway, more);
        self
    }
}

/// Lays `over` on `base`: mappings are merged key by key, all else is replaced.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over,
    }
}

impl Topology {
    /// Sites joined by the WAN emulator with perfect links.
    pub fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        Self { sites: sites.into_iter().collect(), ..Self::default() }
    }

    /// Reads a topology from YAML.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let topology: Self = serde_yaml::from_str(text)?;
        topology.validate()?;
        Ok(topology)
    }

    /// Adds an Internet with this many servers.
    #[must_use]
    pub fn internet(mut self, servers: u8) -> Self {
        self.internet = Some(Internet { servers });
        self
    }

    /// Joins two sites by a veth pair instead of the emulator.
    #[must_use]
    pub fn wire(mut self) -> Self {
        self.underlay = Underlay::Wire;
        self
    }

    /// Gateways talk over IPv6.
    #[must_use]
    pub fn outer_v6(mut self) -> Self {
        self.outer = Family::V6;
        self
    }

    /// The underlay routes the LANs; for tests of the laboratory itself.
    #[must_use]
    pub fn kernel_routing(mut self) -> Self {
        self.kernel_routing = true;
        self
    }

    /// Settings of all links, a YAML literal like `{delay: 20ms}`.
    ///
    /// # Panics
    /// If it is not a YAML mapping.
    #[must_use]
    pub fn all_links(mut self, set: &str) -> Self {
        self.wan.default = settings(set);
        self
    }

    /// Settings of the links between two ends, both directions.
    ///
    /// # Panics
    /// If it is not a YAML mapping.
    #[must_use]
    pub fn link(mut self, from: &str, to: &str, set: &str) -> Self {
        let set = settings(set);
        self.wan.links.push(WanLink { from: from.into(), to: to.into(), both: true, set });
        self
    }

    /// Settings of the link of one direction.
    ///
    /// # Panics
    /// If it is not a YAML mapping.
    #[must_use]
    pub fn link_one_way(mut self, from: &str, to: &str, set: &str) -> Self {
        let set = settings(set);
        self.wan.links.push(WanLink { from: from.into(), to: to.into(), both: false, set });
        self
    }

    /// The sites that take part in the overlay.
    pub fn overlay_sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.overlay)
    }

    /// The addresses of a site.
    pub fn plan(&self, site: &str) -> Result<Plan> {
        let index = self.sites.iter().position(|candidate| candidate.name == site);
        let index = index.with_context(|| format!("no site {site}"))?;
        Ok(Plan(u8::try_from(index + 1)?))
    }

    /// Refuses what cannot be built.
    pub fn validate(&self) -> Result<()> {
        ensure!((1..=31).contains(&self.sites.len()), "a laboratory has from 1 to 31 sites");
        for (index, site) in self.sites.iter().enumerate() {
            let name = &site.name;
            ensure!((1..=8).contains(&name.len()), "site {name}: from 1 to 8 characters");
            ensure!(!["internet", "server"].contains(&name.as_str()), "{name} is not for sites");
            ensure!(
                self.sites.iter().take(index).all(|other| other.name != *name),
                "two sites {name}"
            );
            ensure!(site.hosts <= 200, "site {name}: at most 200 hosts");
            ensure!((1..=3).contains(&site.uplinks.len()), "site {name}: from 1 to 3 uplinks");
        }
        if self.underlay == Underlay::Wire {
            let plain = self.sites.len() == 2
                && self.sites.iter().all(|site| site.uplinks.len() == 1)
                && self.internet.is_none();
            ensure!(plain, "a wire joins two sites with one uplink each, without an Internet");
        }
        for end in self.wan.links.iter().flat_map(|link| [&link.from, &link.to]) {
            self.ends(end)?;
        }
        for end in self.wan.events.iter().flat_map(|event| [&event.from, &event.to]) {
            self.ends(end)?;
        }
        Ok(())
    }

    /// All attachments to the underlay.
    pub fn attachments(&self) -> Vec<Attachment> {
        let mut all = Vec::new();
        for (number, site) in (1..).zip(&self.sites) {
            let plan = Plan(number);
            for (index, uplink) in site.uplinks.iter().enumerate() {
                let (v4, v6) = plan.uplink(index);
                let routed = self.kernel_routing && index == 0;
                let delegated = [IpNet::V6(plan.delegated())];
                let delegated = if index == 0 { &delegated[..] } else { &[] };
                let lans = [IpNet::V4(plan.lan4()), IpNet::V6(plan.lan6())];
                all.push(Attachment {
                    name: format!("{}-{}", site.name, uplink.name),
                    netns: site.name.clone(),
                    interface: format!("wan{index}"),
                    addresses: vec![v4.into(), v6.into()],
                    prefixes: if routed { lans.to_vec() } else { delegated.to_vec() },
                    mtu: uplink.mtu,
                });
            }
        }
        if self.internet.is_some() {
            let (v4, v6) = internet_router();
            let (server4, server6) = server_address(0);
            all.push(Attachment {
                name: "internet".into(),
                netns: "internet".into(),
                interface: "wan0".into(),
                addresses: vec![IpAddr::V4(v4).into(), IpAddr::V6(v6).into()],
                prefixes: vec![
                    Ipv4Net::new_assert(server4, 25).trunc().into(),
                    Ipv6Net::new_assert(server6, 48).trunc().into(),
                ],
                mtu: mtu(),
            });
        }
        all
    }

    /// The attachments that `name` stands for: one by its own name, a site's, or `*` for all.
    pub fn ends(&self, name: &str) -> Result<Vec<String>> {
        let wanted = |attachment: &Attachment| {
            name == "*" || attachment.name == name || attachment.netns == name
        };
        let names: Vec<String> = self
            .attachments()
            .into_iter()
            .filter(wanted)
            .map(|attachment| attachment.name)
            .collect();
        if names.is_empty() {
            bail!("no site or attachment {name}");
        }
        Ok(names)
    }
}

/// Link settings of a scenario's literal.
pub(crate) fn settings(yaml: &str) -> Mapping {
    serde_yaml::from_str(yaml).expect("link settings are a YAML mapping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_name_stands_for_all_its_uplinks() {
        let topology =
            Topology::new([Site::new("mit").uplinks(&["isp1", "isp2"]), Site::new("utah")])
                .internet(2);
        assert_eq!(topology.ends("mit").unwrap(), ["mit-isp1", "mit-isp2"]);
        assert_eq!(topology.ends("mit-isp2").unwrap(), ["mit-isp2"]);
        assert_eq!(topology.ends("internet").unwrap(), ["internet"]);
        assert_eq!(topology.ends("*").unwrap().len(), 4);
        assert!(topology.ends("nowhere").is_err());
    }

    #[test]
    fn yaml_describes_the_same() {
        let topology = Topology::from_yaml(
            "sites: [{name: mit, hosts: 2}, {name: utah, uplinks: [{name: a}, {name: b}]}]\n\
             internet: {servers: 2}\n\
             wan: {default: {delay: 20ms}, links: [{from: mit, to: utah, both: true, set: {}}]}",
        )
        .unwrap();
        assert_eq!(topology.attachments().len(), 4);
        assert!(Topology::from_yaml("sites: [{name: a}, {name: a}]").is_err());
        assert!(
            Topology::from_yaml("sites: [{name: a}]\nwan: {links: [{from: a, to: b, set: {}}]}")
                .is_err()
        );
    }

    #[test]
    fn configuration_is_merged_by_key() {
        let mut base: Value =
            serde_yaml::from_str("{tun: {name: ron0, mtu: auto}, log: info}").unwrap();
        merge(&mut base, serde_yaml::from_str("{tun: {mtu: 1300}, http: {listen: x}}").unwrap());
        let text = serde_yaml::to_string(&base).unwrap();
        let want: Value =
            serde_yaml::from_str("{tun: {name: ron0, mtu: 1300}, log: info, http: {listen: x}}")
                .unwrap();
        assert_eq!(base, want, "{text}");
    }
}
