//! Classes: what policy a flow gets.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::FlowKey;
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
}

impl ClassMatch {
    fn takes(&self, key: &FlowKey, dscp: u8) -> bool {
        self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && (!self.icmp || key.is_icmp())
            && self.dscp.is_none_or(|wanted| wanted == dscp)
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
    pub const MAX: usize = 255;

    /// The classes in order. One that takes all is added when the last one does not; more than
    /// [`Classes::MAX`] are cut off.
    pub fn new(mut classes: Vec<Class>) -> Self {
        classes.truncate(Self::MAX);
        if classes.last().is_none_or(|class| class.matches.is_some()) {
            classes.push(Class::default());
        }
        Self(classes)
    }

    /// The class of a flow whose first packet has this DSCP (0 to 63).
    pub fn classify(&self, key: &FlowKey, dscp: u8) -> ClassIndex {
        let takes = |class: &Class| class.matches.as_ref().is_none_or(|m| m.takes(key, dscp));
        let index = self.0.iter().position(takes).unwrap_or(self.0.len() - 1);
        ClassIndex(index as u8)
    }

    /// The class at a position that [`Classes::classify`] returned; the last one for any other.
    pub fn get(&self, index: ClassIndex) -> &Class {
        &self.0[usize::from(index.0).min(self.0.len() - 1)]
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
        let name = |key, dscp| classes.get(classes.classify(&key, dscp)).name.clone();
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
        assert_eq!(classes.classify(&key(1, "198.51.100.1", 80), 0), ClassIndex(1));
        assert_eq!(classes.classify(&key(6, "198.51.100.1", 80), 0), ClassIndex(0));
    }

    #[test]
    fn there_is_always_a_class() {
        let none = Classes::default();
        assert_eq!(none.get(none.classify(&key(6, "198.51.100.1", 1), 0)).name, "default");
        assert_eq!(none.get(ClassIndex(200)).name, "default");
    }
}
