//! Longest-prefix match from an inner address to whoever has it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::id::PeerIndex;

/// Behind whom an inner address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// Our own overlay address or our LAN.
    Local,
    /// A peer's address or network.
    Peer(PeerIndex),
}

/// One table for each prefix length in use, longest first; a look-up is a binary search in each.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixTable {
    v4: Vec<Level<u32>>,
    v6: Vec<Level<u128>>,
}

#[derive(Clone, Debug)]
struct Level<T> {
    mask: T,
    entries: Vec<(T, Owner)>,
}

impl PrefixTable {
    /// A table of all given prefixes. Of equal ones the first wins.
    pub(crate) fn new(prefixes: impl IntoIterator<Item = (IpNet, Owner)>) -> Self {
        let mut all: Vec<_> =
            prefixes.into_iter().map(|(net, owner)| (net.trunc(), owner)).collect();
        all.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        let mut table = Self::default();
        for (net, owner) in all {
            match net {
                IpNet::V4(net) => {
                    let mask = u32::from(net.netmask());
                    insert(&mut table.v4, mask, u32::from(net.network()), owner);
                }
                IpNet::V6(net) => {
                    let mask = u128::from(net.netmask());
                    insert(&mut table.v6, mask, u128::from(net.network()), owner);
                }
            }
        }
        table
    }

    /// Who has `address`, by the longest prefix.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(address) => {
                let address = u32::from(address);
                self.v4.iter().find_map(|level| find(&level.entries, address & level.mask))
            }
            IpAddr::V6(address) => {
                let address = u128::from(address);
                self.v6.iter().find_map(|level| find(&level.entries, address & level.mask))
            }
        }
    }
}

fn insert<T: Ord + Copy>(levels: &mut Vec<Level<T>>, mask: T, network: T, owner: Owner) {
    if levels.last().is_none_or(|level| level.mask != mask) {
        levels.push(Level { mask, entries: Vec::new() });
    }
    if let Some(level) = levels.last_mut()
        && let Err(at) = level.entries.binary_search_by_key(&network, |entry| entry.0)
    {
        level.entries.insert(at, (network, owner));
    }
}

fn find<T: Ord + Copy>(entries: &[(T, Owner)], network: T) -> Option<Owner> {
    let at = entries.binary_search_by_key(&network, |entry| entry.0).ok()?;
    Some(entries[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u16) -> Owner {
        Owner::Peer(PeerIndex(n))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = PrefixTable::new([
            ("10.0.0.0/8".parse().unwrap(), peer(1)),
            ("10.1.0.0/16".parse().unwrap(), Owner::Local),
            ("10.1.2.3/32".parse().unwrap(), peer(2)),
            ("fd00::/8".parse().unwrap(), peer(3)),
        ]);
        assert_eq!(table.owner("10.1.2.3".parse().unwrap()), Some(peer(2)));
        assert_eq!(table.owner("10.1.2.4".parse().unwrap()), Some(Owner::Local));
        assert_eq!(table.owner("10.2.0.0".parse().unwrap()), Some(peer(1)));
        assert_eq!(table.owner("11.0.0.0".parse().unwrap()), None);
        assert_eq!(table.owner("fd00::1".parse().unwrap()), Some(peer(3)));
        assert_eq!(table.owner("::1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            address in any::<u32>(),
        ) {
            let nets: Vec<(IpNet, Owner)> = nets
                .iter()
                .enumerate()
                .map(|(i, &(ip, len))| {
                    // Few distinct high bits, so that prefixes overlap.
                    let net = ipnet::Ipv4Net::new((ip & 0xc000_00ff).into(), len).unwrap();
                    (IpNet::V4(net.trunc()), peer(i as u16))
                })
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from(address & 0xc000_00ff));
            let best = nets
                .iter()
                .enumerate()
                .filter(|(_, (net, _))| net.contains(&address))
                .max_by_key(|(i, (net, _))| (net.prefix_len(), std::cmp::Reverse(*i)))
                .map(|(_, (_, owner))| *owner);
            prop_assert_eq!(PrefixTable::new(nets).owner(address), best);
        }
    }
}
