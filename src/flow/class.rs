//! Classes: what policy a flow gets.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{FlowKey, Scope};
use crate::metric::Metric;

/// A policy and the flows it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique among the classes.
    pub name: String,
    /// The flows it is for; none for all.
    pub matches: Option<ClassMatch>,
    /// What its path is chosen by.
    pub metric: Metric,
    /// How often each packet is sent, over different paths: 1 or 2.
    pub redundancy: u8,
    /// The DSCP of the outer packets; none copies the inner one.
    pub set_dscp: Option<u8>,
    /// What relays know the class by, the same in the whole overlay; 0 is for the nodes' own
    /// messages.
    pub tag: u8,
    /// What its flows may use; what is not named here is open to them.
    pub only: Scope,
    /// What its flows must not use.
    pub avoid: Scope,
    /// Which of its flows stay together.
    pub group: Group,
    /// What its flows may send in all, bits per second.
    pub rate_bps: Option<u64>,
    /// Who goes first when hosts send faster than we do.
    pub priority: Priority,
    /// Whether its flows are spread over all good paths.
    pub multipath: bool,
}

/// A set of [`Class::tag`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagSet([u64; 4]);

impl TagSet {
    /// True when the tag is in it.
    pub const fn contains(&self, tag: u8) -> bool {
        self.0[tag as usize / 64] & 1 << (tag % 64) != 0
    }

    /// Adds a tag.
    pub const fn insert(&mut self, tag: u8) {
        self.0[tag as usize / 64] |= 1 << (tag % 64);
    }
}

impl FromIterator<u8> for TagSet {
    fn from_iter<I: IntoIterator<Item = u8>>(tags: I) -> Self {
        let mut set = Self::default();
        tags.into_iter().for_each(|tag| set.insert(tag));
        set
    }
}

/// Which flows of a class keep to one path and one exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// Each flow is on its own.
    #[default]
    Flow,
    /// All flows between two hosts.
    Hosts,
    /// All flows of one host.
    Source,
}

/// Who goes first when frames wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// After those of high priority.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

impl Priority {
    /// How many there are.
    pub const COUNT: usize = 3;
}

impl Default for Class {
    /// The class of everything: by latency, no copies.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            matches: None,
            metric: Metric::Latency,
            redundancy: 1,
            set_dscp: None,
            tag: 1,
            only: Scope::default(),
            avoid: Scope::default(),
            group: Group::Flow,
            rate_bps: None,
            priority: Priority::Normal,
            multipath: false,
        }
    }
}

/// What a flow's first packet shows besides its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The DSCP, 0 to 63.
    pub dscp: u8,
    /// The IPv6 flow label (RFC 6437), 20 bits; zero in IPv4.
    pub flow_label: u32,
}

impl Marks {
    /// The marks of an IP packet whose header was found to be complete.
    pub fn of(packet: &[u8]) -> Self {
        let word = |at: usize| packet.get(at).copied().map_or(0, u32::from);
        let (version, second) = (word(0) >> 4, word(1));
        if version == 6 {
            let class = (word(0) & 15) << 4 | second >> 4;
            let flow_label = (second & 15) << 16 | word(2) << 8 | word(3);
            Self { dscp: (class >> 2) as u8, flow_label }
        } else {
            Self { dscp: (second >> 2) as u8, flow_label: 0 }
        }
    }
}

/// A test on a flow. All conditions must hold; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassMatch {
    /// The IP protocol number.
    pub protocol: Option<u8>,
    /// ICMP of either IP version.
    pub icmp: bool,
    /// The DSCP of the flow's first packet, 0 to 63.
    pub dscp: Option<u8>,
    /// The source address is in one of these.
    pub sources: Vec<IpNet>,
    /// The destination address is in one of these.
    pub destinations: Vec<IpNet>,
    /// The source port is in one of these.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The destination port is in one of these.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// The IPv6 flow label of the flow's first packet, 20 bits.
    pub flow_label: Option<u32>,
    /// The flow begins behind one of these interfaces.
    pub interfaces: Vec<String>,
    /// The networks of those interfaces. Filled in by whoever knows the host.
    pub interface_networks: Vec<IpNet>,
}

impl ClassMatch {
    fn takes(&self, key: &FlowKey, marks: Marks) -> bool {
        let behind = |net: &IpNet| net.contains(&key.source());
        self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && (!self.icmp || key.is_icmp())
            && self.dscp.is_none_or(|wanted| wanted == marks.dscp)
            && self.flow_label.is_none_or(|label| key.is_ipv6() && label == marks.flow_label)
            && (self.interfaces.is_empty() || self.interface_networks.iter().any(behind))
            && in_networks(&self.sources, key.source())
            && in_networks(&self.destinations, key.destination())
            && in_ports(&self.source_ports, key.source_port, key)
            && in_ports(&self.destination_ports, key.destination_port, key)
    }
}

fn in_networks(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address))
}

/// An ICMP identifier is no port.
fn in_ports(ranges: &[RangeInclusive<u16>], port: u16, key: &FlowKey) -> bool {
    ranges.is_empty() || !key.is_icmp() && ranges.iter().any(|range| range.contains(&port))
}

/// Position of a class in [`Classes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassIndex(pub u8);

/// All classes in order. The first one that takes a flow wins; the last one takes all.
#[derive(Clone, Debug)]
pub struct Classes(Vec<Class>);

impl Classes {
    /// Most classes there can be.
    pub const MAX: usize = 64;

    /// The classes in order. One that takes all is added when the last one does not; more than
    /// [`Classes::MAX`] are cut off.
    pub fn new(mut classes: Vec<Class>) -> Self {
        classes.truncate(Self::MAX);
        if classes.last().is_none_or(|class| class.matches.is_some()) {
            classes.push(Class::default());
        }
        Self(classes)
    }

    /// The class of a flow whose first packet has these marks.
    pub fn classify(&self, key: &FlowKey, marks: Marks) -> ClassIndex {
        let takes = |class: &Class| class.matches.as_ref().is_none_or(|m| m.takes(key, marks));
        let index = self.0.iter().position(takes).unwrap_or(self.0.len() - 1);
        ClassIndex(index as u8)
    }

    /// The class at a position that [`Classes::classify`] returned; the last one for any other.
    pub fn get(&self, index: ClassIndex) -> &Class {
        &self.0[usize::from(index.0).min(self.0.len() - 1)]
    }

    /// True when some class goes before or after others.
    pub fn has_priorities(&self) -> bool {
        self.0.iter().any(|class| class.priority != Priority::Normal)
    }

    /// All classes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.0.iter()
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, matches: ClassMatch) -> Class {
        Class { name: name.to_owned(), matches: Some(matches), ..Class::default() }
    }

    fn key(protocol: u8, destination: &str, port: u16) -> FlowKey {
        let source = if destination.contains(':') { "2001:db8::1" } else { "10.1.0.9" };
        FlowKey::new(protocol, (source.parse().unwrap(), 999), (destination.parse().unwrap(), port))
            .unwrap()
    }

    fn classes() -> Classes {
        let nets = |text: &str| vec![text.parse().unwrap()];
        Classes::new(vec![
            class("voice", ClassMatch { protocol: Some(17), dscp: Some(46), ..Default::default() }),
            class("ping", ClassMatch { icmp: true, ..Default::default() }),
            class(
                "web",
                ClassMatch {
                    protocol: Some(6),
                    destination_ports: vec![80..=80, 8000..=8999],
                    ..Default::default()
                },
            ),
            class(
                "lab",
                ClassMatch { destinations: nets("2001:db8:7::/48"), ..Default::default() },
            ),
            class("never", ClassMatch { sources: nets("192.0.2.0/24"), ..Default::default() }),
        ])
    }

    #[test]
    fn the_first_class_whose_conditions_all_hold_wins() {
        let classes = classes();
        let name = |key, dscp| {
            let marks = Marks { dscp, ..Marks::default() };
            classes.get(classes.classify(&key, marks)).name.clone()
        };
        assert_eq!(name(key(17, "198.51.100.1", 8001), 46), "voice");
        assert_eq!(name(key(17, "198.51.100.1", 8001), 0), "default");
        assert_eq!(name(key(6, "198.51.100.1", 8999), 46), "web");
        assert_eq!(name(key(6, "198.51.100.1", 9000), 0), "default");
        assert_eq!(name(key(1, "198.51.100.1", 80), 0), "ping");
        assert_eq!(name(key(58, "2001:db8:7::1", 1), 0), "ping");
        assert_eq!(name(key(17, "2001:db8:7::1", 1), 0), "lab");
        assert_eq!(name(key(17, "2001:db8:8::1", 1), 0), "default");
    }

    #[test]
    fn an_echo_identifier_is_no_port() {
        let ports = ClassMatch { destination_ports: vec![1..=u16::MAX], ..Default::default() };
        let classes = Classes::new(vec![class("ports", ports)]);
        assert_eq!(classes.classify(&key(1, "198.51.100.1", 80), Marks::default()), ClassIndex(1));
        assert_eq!(classes.classify(&key(6, "198.51.100.1", 80), Marks::default()), ClassIndex(0));
    }

    #[test]
    fn flow_labels_and_interfaces_are_conditions_too() {
        let label = ClassMatch { flow_label: Some(0x1_2345), ..Default::default() };
        let lab = ClassMatch {
            interfaces: vec!["lan1".into()],
            interface_networks: vec!["10.1.0.0/24".parse().unwrap()],
            ..Default::default()
        };
        let gone = ClassMatch { interfaces: vec!["lan9".into()], ..Default::default() };
        let classes =
            Classes::new(vec![class("gone", gone), class("label", label), class("lab", lab)]);
        let name = |key, flow_label| {
            let marks = Marks { flow_label, ..Marks::default() };
            classes.get(classes.classify(&key, marks)).name.clone()
        };
        assert_eq!(name(key(17, "2001:db8::9", 1), 0x1_2345), "label");
        assert_eq!(name(key(17, "2001:db8::9", 1), 0x1_2346), "default");
        assert_eq!(name(key(17, "198.51.100.1", 1), 0x1_2345), "lab", "IPv4 has no label");
    }

    #[test]
    fn marks_are_read_where_each_version_has_them() {
        let six = [0x6b, 0x81, 0x23, 0x45];
        assert_eq!(Marks::of(&six), Marks { dscp: 46, flow_label: 0x1_2345 });
        assert_eq!(Marks::of(&[0x45, 46 << 2 | 3]), Marks { dscp: 46, flow_label: 0 });
        assert_eq!(Marks::of(&[]), Marks::default());
    }

    #[test]
    fn every_tag_has_a_place_of_its_own() {
        let set: TagSet = [0, 63, 64, 255].into_iter().collect();
        let members: Vec<u8> = (0..=255).filter(|tag| set.contains(*tag)).collect();
        assert_eq!(members, [0, 63, 64, 255]);
    }

    #[test]
    fn there_is_always_a_class() {
        let none = Classes::default();
        assert_eq!(
            none.get(none.classify(&key(6, "198.51.100.1", 1), Marks::default())).name,
            "default"
        );
        assert_eq!(none.get(ClassIndex(200)).name, "default");
    }
}
