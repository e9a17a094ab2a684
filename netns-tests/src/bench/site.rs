//! The namespaces of a sample and the links between them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::contender::{INNER_MTU, Kind, Mode};
use crate::lab::process::run;
use crate::lab::{Host, Netns, enter};

/// Hosts of the two sites; that of an exit is a server in the Internet.
pub(crate) const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
pub(crate) const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The first of the addresses behind host a that many flows come from.
pub(crate) const MANY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 128);
/// Outside addresses that are routed to the exit.
pub(crate) const POOL: &str = "198.18.0.0/28";
/// The exit's address in the network of the server.
pub(crate) const EXIT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The underlay address of gateway a, and of whoever is at the other end of its link.
pub(crate) const LEFT: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The second link of a relayed path: the relay, and gateway b.
pub(crate) const RIGHT: [Ipv4Addr; 2] =
    [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];

/// The namespaces.
pub(crate) struct Site {
    pub(crate) host_a: Host,
    pub(crate) host_b: Host,
    pub(crate) gw_a: Netns,
    pub(crate) gw_b: Netns,
    pub(crate) relay: Option<Netns>,
}

impl Site {
    /// Builds them for a contender.
    pub(crate) fn build(kind: Kind, mode: Mode) -> Result<Self> {
        let [host_a, gw_a, gw_b, host_b] = ["host-a", "gw-a", "gw-b", "host-b"].map(Netns::add);
        let (host_a, gw_a, gw_b, host_b) = (host_a?, gw_a?, gw_b?, host_b?);
        gw_a.enable_forwarding()?;
        gw_b.enable_forwarding()?;
        let relay = if kind.is_relayed() { Some(Netns::add("gw-r")?) } else { None };
        let far = if kind.is_exit() { SERVER } else { HOST_B };
        let far_gateway = if kind.is_exit() { EXIT } else { router_of(far) };

        let lan =
            |host, gateway, addresses| Link { mtu: INNER_MTU, ends: [host, gateway], addresses };
        let mut links = vec![
            lan((&host_a, "eth0"), (&gw_a, "lan0"), [HOST_A, router_of(HOST_A)]),
            lan((&host_b, "eth0"), (&gw_b, "lan0"), [far, far_gateway]),
        ];
        let wan = |ends, addresses| Link { mtu: 1_500, ends, addresses };
        match &relay {
            None => links.push(wan([(&gw_a, "wan0"), (&gw_b, "wan0")], LEFT)),
            Some(relay) => {
                links.push(wan([(&gw_a, "wan0"), (relay, "wan0")], LEFT));
                links.push(wan([(relay, "wan1"), (&gw_b, "wan0")], RIGHT));
            }
        }
        for link in &links {
            link.build(mode)?;
        }
        gw_a.ip(&format!("route add {MANY}/25 via {HOST_A}"))?;
        host_a.ip(&format!("route add default via {}", router_of(HOST_A)))?;
        host_b.ip(&format!("route add default via {far_gateway}"))?;
        let host = |netns, v4| Host {
            netns,
            directory: Path::new(enter::DIRECTORY).into(),
            v4,
            v6: Ipv6Addr::UNSPECIFIED,
        };
        Ok(Self { host_a: host(host_a, HOST_A), host_b: host(host_b, far), gw_a, gw_b, relay })
    }
}

fn router_of(host: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = host.octets();
    Ipv4Addr::new(a, b, c, 1)
}

struct Link<'n> {
    mtu: u32,
    ends: [(&'n Netns, &'n str); 2],
    addresses: [Ipv4Addr; 2],
}

impl Link<'_> {
    fn build(&self, mode: Mode) -> Result<()> {
        let limit = Duration::from_secs(5);
        let [(a, name_a), (b, name_b)] = self.ends;
        let mtu = self.mtu.to_string();
        let mut add = Command::new("ip");
        add.args(["link", "add", name_a, "mtu", &mtu, "netns", a.name(), "type", "veth", "peer"]);
        add.args(["name", name_b, "mtu", &mtu, "netns", b.name()]);
        run(&mut add, limit)?.success()?;
        for ((netns, name), address) in self.ends.into_iter().zip(self.addresses) {
            netns.ip(&format!("address add {address}/24 dev {name}\nlink set {name} up"))?;
            if mode == Mode::Wire {
                let mut command = netns.command("ethtool");
                command.args(["-K", name, "tso", "off", "gso", "off"]);
                command.args(["tx-udp-segmentation", "off", "gro", "on"]);
                run(&mut command, limit)?.success()?;
            }
        }
        Ok(())
    }
}
