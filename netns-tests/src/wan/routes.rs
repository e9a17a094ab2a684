//! Which site an address belongs to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::scenario::Site;

/// Destinations by longest prefix. There are few, so they are simply tried in order.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    v4: Vec<(u32, u32, usize)>,
    v6: Vec<(u128, u128, usize)>,
}

impl Routes {
    /// Built from the sites in order: their addresses, their extra prefixes, and the networks of
    /// their addresses where no two sites share one.
    pub(crate) fn new<'a>(sites: impl Iterator<Item = &'a Site> + Clone) -> Self {
        let mut networks = BTreeMap::<IpNet, Option<usize>>::new();
        for (index, site) in sites.clone().enumerate() {
            for address in &site.addresses {
                let owner = networks.entry(address.trunc()).or_insert(Some(index));
                *owner = owner.filter(|owner| *owner == index);
            }
        }
        for (index, site) in sites.enumerate() {
            for address in &site.addresses {
                networks.insert(address.addr().into(), Some(index));
            }
            for prefix in &site.prefixes {
                networks.insert(prefix.trunc(), Some(index));
            }
        }
        let mut routes = Self::default();
        let mut owned: Vec<(IpNet, usize)> =
            networks.into_iter().filter_map(|(net, site)| Some((net, site?))).collect();
        owned.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        for (net, site) in owned {
            match net {
                IpNet::V4(net) => {
                    routes.v4.push((net.network().into(), net.netmask().into(), site));
                }
                IpNet::V6(net) => {
                    routes.v6.push((net.network().into(), net.netmask().into(), site));
                }
            }
        }
        routes
    }

    /// The site `address` belongs to.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(address) => {
                let bits = u32::from(address);
                self.v4.iter().find(|(net, mask, _)| bits & mask == *net).map(|entry| entry.2)
            }
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                self.v6.iter().find(|(net, mask, _)| bits & mask == *net).map(|entry| entry.2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(addresses: &[&str], prefixes: &[&str]) -> Site {
        let nets = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Site { addresses: nets(addresses), prefixes: nets(prefixes), ..Site::default() }
    }

    #[test]
    fn longest_prefix_wins_and_shared_networks_belong_to_nobody() {
        let sites = [
            site(&["192.0.2.1/24", "2001:db8:1::1/64"], &["100.64.0.0/10"]),
            site(&["198.51.100.1/24"], &["192.0.2.128/25", "0.0.0.0/0"]),
            site(&["203.0.113.1/24"], &[]),
            site(&["203.0.113.2/24"], &[]),
        ];
        let routes = Routes::new(sites.iter());
        let to = |address: &str| routes.lookup(address.parse().unwrap());
        assert_eq!(to("192.0.2.1"), Some(0));
        assert_eq!(to("192.0.2.9"), Some(0));
        assert_eq!(to("192.0.2.129"), Some(1));
        assert_eq!(to("100.65.1.1"), Some(0));
        assert_eq!(to("203.0.113.1"), Some(2));
        assert_eq!(to("203.0.113.2"), Some(3));
        assert_eq!(to("203.0.113.3"), Some(1));
        assert_eq!(to("2001:db8:1::99"), Some(0));
        assert_eq!(to("2001:db8:2::99"), None);
    }
}
