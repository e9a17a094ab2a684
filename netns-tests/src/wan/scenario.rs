//! The YAML text an emulation starts from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::params::{LinkParams, LinkSettings};
use super::trace;
use super::units::Time;

/// Most sites of one emulation.
pub const SITES_MAX: usize = 256;

/// Sites, links between them, and what happens when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Determines every random choice.
    pub seed: u64,
    /// The underlay attachments, by name.
    pub sites: BTreeMap<String, Site>,
    /// Settings of every link, before `links`.
    pub default: LinkSettings,
    /// Settings of some links; later entries win.
    pub links: Vec<LinkEntry>,
    /// Changes at given times after the start.
    pub events: Vec<Event>,
    /// Files with more events: see [`Trace`].
    pub traces: Vec<Trace>,
    /// Events wait until the control socket says `start`, instead of starting at once.
    pub wait_for_start: bool,
    /// Ends the run after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Time>,
    /// The addresses of the routers on the way (sources of ICMP errors).
    pub routers: Routers,
    /// How the process is scheduled.
    pub scheduling: Scheduling,
    /// When figures are not to be trusted.
    pub guard: Guard,
}

/// One underlay attachment: an interface in a network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// A name under `/run/netns`, a path, or `pid:NUMBER`; absent for the emulator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Name of the interface to make.
    pub interface: String,
    /// The interface's addresses. Packets to them are sorted to this site, and packets to their
    /// networks too, as long as no other site has an address in the same network.
    pub addresses: Vec<IpNet>,
    /// More destinations that are sorted to this site.
    pub prefixes: Vec<IpNet>,
    /// MTU of the interface.
    pub mtu: u32,
    /// Gives the namespace a default route through the interface.
    pub default_route: bool,
    /// Drops what the site sends from sources that do not belong to it (RFC 2827).
    pub filter_source: bool,
    /// Packets that the interface holds for the emulator before the kernel drops.
    pub txqueuelen: u32,
    /// Lets the kernel hand over super-packets (TSO, USO) and packets without checksum.
    pub offload: bool,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            netns: None,
            interface: "wan0".into(),
            addresses: Vec::new(),
            prefixes: Vec::new(),
            mtu: 1500,
            default_route: false,
            filter_source: false,
            txqueuelen: 2000,
            offload: true,
        }
    }
}

/// Settings for the links from `from` to `to`: a site's name, or `*` for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// Sending site.
    pub from: String,
    /// Receiving site.
    pub to: String,
    /// The other direction too.
    #[serde(default)]
    pub both: bool,
    /// What changes.
    pub set: LinkSettings,
}

/// Settings that apply from a moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Time after the start.
    pub at: Time,
    /// Sending site.
    pub from: String,
    /// Receiving site.
    pub to: String,
    /// The other direction too.
    #[serde(default)]
    pub both: bool,
    /// What changes.
    pub set: LinkSettings,
}

/// A CSV file of events. Its first line names the columns: `at,from,to` and any link settings, as
/// in `at,from,to,down,delay`; an empty cell changes nothing; `at` without unit is in seconds.
/// Lines that start with `#` are skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The file, relative to the scenario's folder.
    pub file: PathBuf,
    /// Added to every `at`.
    #[serde(default)]
    pub offset: Time,
}

/// The addresses that ICMP errors come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routers {
    /// Network of the IPv4 routers; a router's host part is its place on the way.
    pub v4: std::net::Ipv4Addr,
    /// Network of the IPv6 routers.
    pub v6: std::net::Ipv6Addr,
}

impl Default for Routers {
    /// Benchmarking (RFC 2544) and documentation (RFC 3849) space.
    fn default() -> Self {
        Self {
            v4: std::net::Ipv4Addr::new(198, 18, 0, 0),
            v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0),
        }
    }
}

/// How the process is scheduled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scheduling {
    /// SCHED_FIFO priority; 0 for the normal class. The kernel ends the process if it then runs for
    /// 0.3 s without sleeping.
    pub realtime: u8,
    /// The last part of every sleep is spent looking at the clock: more exact, more CPU.
    pub spin: Time,
}

/// Limits beyond which a run's figures are declared invalid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// 99th percentile of how late packets were written, and of how late the emulator woke.
    pub lateness_p99: Time,
    /// Packets that the kernel dropped before we could read them, as a fraction.
    pub tun_drops: f64,
    /// Failed writes to a TUN (other than to an interface that is down).
    pub write_errors: u64,
    /// Bytes of packets under way; more are dropped, and make the run invalid.
    pub memory: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            lateness_p99: Time::from_millis(20),
            tun_drops: 0.001,
            write_errors: 0,
            memory: 512 << 20,
        }
    }
}

/// A change of some links, ready to apply: link indices are `from * sites + to`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) at: Time,
    pub(crate) links: Vec<usize>,
    pub(crate) set: LinkSettings,
}

impl Scenario {
    /// Reads and checks a scenario file. Traces are read from its folder.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read scenario {}", path.display()))?;
        let mut scenario: Self = serde_yaml::from_str(&text)
            .with_context(|| format!("in scenario {}", path.display()))?;
        scenario.read_traces(path.parent().unwrap_or_else(|| Path::new(".")))?;
        scenario.validate().with_context(|| format!("in scenario {}", path.display()))?;
        Ok(scenario)
    }

    /// Adds a site.
    #[must_use]
    pub fn site(mut self, name: &str, site: Site) -> Self {
        self.sites.insert(name.into(), site);
        self
    }

    /// Sets the link from `from` to `to` (a name or `*`), one direction. `yaml` as in
    /// `{delay: 20ms, loss: 0.01}`.
    pub fn link(mut self, from: &str, to: &str, yaml: &str) -> Result<Self> {
        let set = settings(yaml)?;
        self.links.push(LinkEntry { from: from.into(), to: to.into(), both: false, set });
        Ok(self)
    }

    /// Sets both directions between two sites.
    pub fn between(mut self, from: &str, to: &str, yaml: &str) -> Result<Self> {
        let set = settings(yaml)?;
        self.links.push(LinkEntry { from: from.into(), to: to.into(), both: true, set });
        Ok(self)
    }

    /// Adds an event on the link from `from` to `to`.
    pub fn event(mut self, at: Time, from: &str, to: &str, yaml: &str) -> Result<Self> {
        let set = settings(yaml)?;
        self.events.push(Event { at, from: from.into(), to: to.into(), both: false, set });
        Ok(self)
    }

    /// Replaces `traces` by the events they hold.
    fn read_traces(&mut self, folder: &Path) -> Result<()> {
        for trace in std::mem::take(&mut self.traces) {
            let path = folder.join(&trace.file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read trace {}", path.display()))?;
            let events = trace::parse(&text, trace.offset)
                .with_context(|| format!("in trace {}", path.display()))?;
            self.events.extend(events);
        }
        Ok(())
    }

    /// Refuses what cannot work, in words that name the entry.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.sites.is_empty(), "sites: none is given");
        ensure!(self.sites.len() <= SITES_MAX, "sites: more than {SITES_MAX}");
        ensure!(self.traces.is_empty(), "traces: only a scenario file can name them");
        let mut seen = BTreeSet::<IpAddr>::new();
        let mut attachments = BTreeSet::new();
        for (name, site) in &self.sites {
            ensure!(name != "*" && !name.is_empty(), "sites: `{name}` is not a name");
            ensure!(
                (1..=15).contains(&site.interface.len()),
                "sites.{name}.interface: from 1 to 15 characters"
            );
            ensure!((68..=65_535).contains(&site.mtu), "sites.{name}.mtu: from 68 to 65535");
            ensure!(
                attachments.insert((&site.netns, &site.interface)),
                "sites.{name}: another site has the same netns and interface"
            );
            for address in &site.addresses {
                let fresh = seen.insert(address.addr());
                ensure!(fresh, "sites.{name}: {} is given twice", address.addr());
            }
        }
        self.link_table()?;
        self.changes()?;
        Ok(())
    }

    /// Every link's parameters at the start, at index `from * sites + to`.
    pub(crate) fn link_table(&self) -> Result<Vec<LinkParams>> {
        let mut base = LinkParams::default();
        self.default.apply(&mut base);
        base.validate().map_err(|error| anyhow::anyhow!("default: {error}"))?;
        let mut table = vec![base; self.sites.len() * self.sites.len()];
        for (number, entry) in self.links.iter().enumerate() {
            let place = || format!("links[{number}]");
            for link in self.select(&entry.from, &entry.to, entry.both).with_context(place)? {
                entry.set.apply(&mut table[link]);
                table[link].validate().map_err(anyhow::Error::msg).with_context(place)?;
            }
        }
        Ok(table)
    }

    /// The events in order of time.
    pub(crate) fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::with_capacity(self.events.len());
        for (number, event) in self.events.iter().enumerate() {
            let place = || format!("events[{number}]");
            let links = self.select(&event.from, &event.to, event.both).with_context(place)?;
            let mut probe = LinkParams::default();
            event.set.apply(&mut probe);
            probe.validate().map_err(anyhow::Error::msg).with_context(place)?;
            changes.push(Change { at: event.at, links, set: event.set.clone() });
        }
        changes.sort_by_key(|change| change.at);
        Ok(changes)
    }

    /// The links that a pair of names (or `*`) stands for.
    pub(crate) fn select(&self, from: &str, to: &str, both: bool) -> Result<Vec<usize>> {
        let (from, to) = (self.indices(from)?, self.indices(to)?);
        let mut links = BTreeSet::new();
        for &i in &from {
            for &j in to.iter().filter(|&&j| j != i) {
                links.insert(i * self.sites.len() + j);
                if both {
                    links.insert(j * self.sites.len() + i);
                }
            }
        }
        if links.is_empty() && self.sites.len() > 1 {
            bail!("a site has no link to itself");
        }
        Ok(links.into_iter().collect())
    }

    fn indices(&self, name: &str) -> Result<Vec<usize>> {
        if name == "*" {
            return Ok((0..self.sites.len()).collect());
        }
        match self.sites.keys().position(|site| site == name) {
            Some(index) => Ok(vec![index]),
            None => bail!(
                "`{name}` is not a site; there are {}",
                self.sites.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

/// Link settings from a line of YAML, as in `{delay: 20ms}`.
pub fn settings(yaml: &str) -> Result<LinkSettings> {
    serde_yaml::from_str(yaml).with_context(|| format!("link settings `{yaml}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
seed: 7
sites:
  a: {netns: ra, addresses: [192.0.2.1/24, '2001:db8:1::1/64']}
  b: {netns: rb, addresses: [198.51.100.1/24]}
  c: {netns: pid:17, interface: wan1, addresses: [203.0.113.1/24], mtu: 1400}
default: {delay: 20ms, jitter: 1ms}
links:
  - {from: a, to: '*', set: {loss: 0.01}}
  - {from: a, to: b, both: true, set: {delay: 40ms, ge: [0.01, 0.2, 1.0]}}
events:
  - {at: 2.5s, from: a, to: b, set: {down: false}}
  - {at: 2s, from: a, to: b, set: {down: true}}
";

    fn scenario() -> Scenario {
        serde_yaml::from_str(TEXT).unwrap()
    }

    #[test]
    fn links_inherit_and_later_entries_win() {
        let table = scenario().link_table().unwrap();
        let (ab, ba, ac, cb) = (&table[1], &table[3], &table[2], &table[7]);
        assert_eq!((ab.delay, ab.loss), (Time::from_millis(40), 0.01));
        assert_eq!((ba.delay, ba.loss), (Time::from_millis(40), 0.0));
        assert_eq!((ac.delay, ac.loss), (Time::from_millis(20), 0.01));
        assert_eq!((cb.delay, cb.jitter), (Time::from_millis(20), Time::from_millis(1)));
    }

    #[test]
    fn events_are_sorted_by_time() {
        let changes = scenario().changes().unwrap();
        assert_eq!(changes[0].at, Time(2_000_000_000));
        assert_eq!(changes[0].links, vec![1]);
        assert_eq!(changes[1].set.down, Some(false));
    }

    #[test]
    fn text_and_value_are_the_same_scenario() {
        let scenario = scenario();
        scenario.validate().unwrap();
        let again: Scenario =
            serde_yaml::from_str(&serde_yaml::to_string(&scenario).unwrap()).unwrap();
        assert_eq!(scenario, again);
    }

    #[test]
    fn the_example_is_right_and_shows_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wan.yaml");
        let scenario = Scenario::load(&path).unwrap();
        assert_eq!(scenario.events.len(), 3 + 4);
        let text = std::fs::read_to_string(&path).unwrap();
        let yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let shows = |place: &serde_yaml::Value, all: serde_yaml::Value| {
            for key in all.as_mapping().unwrap().keys() {
                assert!(place.get(key).is_some(), "the example lacks {key:?}");
            }
        };
        shows(&yaml, serde_yaml::to_value(&scenario).unwrap());
        shows(&yaml["default"], serde_yaml::to_value(LinkParams::default()).unwrap());
        shows(&yaml["sites"]["mit"], serde_yaml::to_value(&scenario.sites["mit"]).unwrap());
        shows(&yaml["guard"], serde_yaml::to_value(&scenario.guard).unwrap());
        shows(&yaml["scheduling"], serde_yaml::to_value(&scenario.scheduling).unwrap());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |change: fn(&mut Scenario)| {
            let mut scenario = scenario();
            change(&mut scenario);
            format!("{:#}", scenario.validate().unwrap_err())
        };
        assert!(error(|s| s.events[1].to = "x".into()).contains("events[1]: `x` is not a site"));
        assert!(error(|s| s.links[0].set.loss = Some(2.0)).contains("links[0]: loss"));
        assert!(error(|s| s.links[1].to = "a".into()).contains("no link to itself"));
        let twice = error(|s| {
            let address = s.sites["a"].addresses[0];
            s.sites.get_mut("b").unwrap().addresses.push(address);
        });
        assert!(twice.contains("192.0.2.1 is given twice"), "{twice}");
        assert!(serde_yaml::from_str::<Scenario>("{sitez: {}}").is_err());
    }
}
