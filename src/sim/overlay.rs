//! Ready-made configurations: a full mesh of sites that look alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::flow::{Classes, FlowLimits};
use crate::nat::{NatConfig, NatLimits};
use crate::node::{EgressConfig, ExitVia, NodeConfig, PeerConfig, RelayConfig, UplinkConfig};
use crate::routing::RouterConfig;
use crate::tunnel::{Identity, Suites};

/// What the sites of a mesh have in common.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    /// How many sites, at most 200.
    pub sites: u8,
    /// Uplinks of each site, at most 4.
    pub uplinks: u8,
    /// Every site offers its exit, and uses the one among the others' that measures best.
    pub exits: bool,
    /// Sites, hosts and exits have IPv6 addresses as well.
    pub ipv6: bool,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { sites: 4, uplinks: 1, exits: false, ipv6: false }
    }
}

impl Mesh {
    /// UDP port of every simulated node.
    pub const PORT: u16 = 4710;

    /// The underlay address of an uplink of a site (both from zero).
    pub fn underlay(site: u8, uplink: u8) -> IpAddr {
        let block = [[192, 0, 2], [198, 51, 100], [203, 0, 113], [198, 18, 0]][usize::from(uplink)];
        IpAddr::V4(Ipv4Addr::new(block[0], block[1], block[2], site + 1))
    }

    /// The overlay address of a site.
    pub fn overlay(site: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, site + 1)
    }

    /// A host behind a site.
    pub fn host(site: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, site + 1, 0, host)
    }

    /// The same host's address of the other family.
    pub fn host6(site: u8, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, u16::from(site) + 1, 0, 0, 0, 0, 0, host.into())
    }

    /// The configurations of all sites, in order.
    pub fn configs(self) -> Vec<NodeConfig> {
        (0..self.sites).map(|site| self.config(site)).collect()
    }

    fn config(self, site: u8) -> NodeConfig {
        let uplinks = (0..self.uplinks).map(|uplink| UplinkConfig {
            listen: SocketAddr::new(Self::underlay(site, uplink), Self::PORT),
            mtu: 1500,
        });
        let others = (0..self.sites).filter(|&other| other != site);
        NodeConfig {
            name: format!("site{site}"),
            private_key: zeroize::Zeroizing::new(private_key(site)),
            preshared_key: None,
            suites: Suites::default(),
            addresses: self.addresses(site),
            mtu: 1392,
            lan_networks: self.networks(site),
            uplinks: uplinks.collect(),
            egress: self.exits.then(|| EgressConfig {
                nat: NatConfig {
                    limits: NatLimits::of_mappings(1_024, 256),
                    ..NatConfig::new(self.outsides(site), 40_000..=59_999)
                },
                pcp: false,
                allowed: None,
                denied: self.networks(site),
                permitted: Vec::new(),
            }),
            relay: RelayConfig::default(),
            peers: others.map(|other| self.peer(other)).collect(),
            classes: Classes::default(),
            internet_via_ipv6: if self.exits && self.ipv6 {
                vec![ExitVia::Auto]
            } else {
                Vec::new()
            },
            servers: Vec::new(),
            nat64: Some(crate::addr::Nat64Prefix::WELL_KNOWN),
            internet_via: if self.exits { vec![ExitVia::Auto] } else { Vec::new() },
            control_budget_bps: 33_000,
            copies_bps: 10_000_000,
            flow_limits: FlowLimits::default(),
            routing: RouterConfig::default(),
            epoch: 1,
            last_handshake_timestamp: 0,
        }
    }

    fn addresses(self, site: u8) -> Vec<IpAddr> {
        let six = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(site) + 1);
        let both = [Self::overlay(site).into(), six.into()];
        both[..self.families()].to_vec()
    }

    fn networks(self, site: u8) -> Vec<IpNet> {
        let six = Ipv6Net::new_assert(Self::host6(site, 0), 32);
        [network(site), six.into()][..self.families()].to_vec()
    }

    /// Whether an address is one of a host behind a site.
    pub fn is_behind(site: u8, address: IpAddr) -> bool {
        let mesh = Self { ipv6: true, ..Self::default() };
        mesh.networks(site).iter().any(|network| network.contains(&address))
    }

    /// The outside addresses of a site's exit, of both families.
    pub fn outside(site: u8) -> [IpAddr; 2] {
        let six = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, u16::from(site) + 1);
        [Ipv4Addr::new(100, 64, site + 1, 1).into(), six.into()]
    }

    fn outsides(self, site: u8) -> Vec<IpNet> {
        Self::outside(site)[..self.families()].iter().map(|&address| address.into()).collect()
    }

    fn families(self) -> usize {
        1 + usize::from(self.ipv6)
    }

    fn peer(self, site: u8) -> PeerConfig {
        let endpoints = (0..self.uplinks)
            .map(|uplink| SocketAddr::new(Self::underlay(site, uplink), Self::PORT));
        PeerConfig {
            name: format!("site{site}"),
            public_key: Identity::from_private(private_key(site)).public(),
            endpoints: endpoints.collect(),
            addresses: self.addresses(site),
            networks: self.networks(site),
            relay: true,
            egress: self.exits,
        }
    }
}

fn private_key(site: u8) -> [u8; 32] {
    [site + 1; 32]
}

fn network(site: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, site + 1, 0, 0), 16))
}
