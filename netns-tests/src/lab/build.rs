//! Makes a topology real: namespaces, interfaces, addresses, routes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::addresses::{Plan, server_address};
use super::netns::Netns;
use super::process::run;
use super::topology::{Site, Topology, Underlay};

/// The namespaces of a laboratory, by name.
pub(crate) type Namespaces = BTreeMap<String, Netns>;

/// Makes everything but the underlay.
pub(crate) fn build(topology: &Topology) -> Result<Namespaces> {
    let mut all = Namespaces::new();
    for (number, site) in (1..).zip(&topology.sites) {
        build_site(&mut all, site, Plan(number))?;
    }
    if let Some(internet) = &topology.internet {
        build_internet(&mut all, internet.servers)?;
    }
    Ok(all)
}

fn add(all: &mut Namespaces, name: &str) -> Result<Netns> {
    let netns = Netns::add(name)?;
    netns.unlimited_icmp()?;
    all.insert(name.into(), netns.clone());
    Ok(netns)
}

fn veth(a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["link", "add", a.1, "netns", a.0.name(), "type", "veth"]);
    command.args(["peer", "name", b.1, "netns", b.0.name()]);
    run(&mut command, Duration::from_secs(5))?.success()?;
    Ok(())
}

/// A gateway and its LAN: one host hangs directly on `lan0`, more of them on a switch.
fn build_site(all: &mut Namespaces, site: &Site, plan: Plan) -> Result<()> {
    let gateway = add(all, &site.name)?;
    gateway.enable_forwarding()?;
    let (gateway4, gateway6) = plan.gateway();
    let (bits4, bits6) = (plan.lan4().prefix_len(), plan.lan6().prefix_len());
    let mtu = site.lan_mtu;

    let mut hosts = Vec::new();
    for number in 1..=site.hosts {
        hosts.push((number, add(all, &format!("{}-h{number}", site.name))?));
    }
    if let [(_, host)] = &hosts[..] {
        veth((&gateway, "lan0"), (host, "eth0"))?;
    } else {
        let switch = add(all, &format!("{}-lan", site.name))?;
        switch.ip(&format!("link add switch mtu {mtu} type bridge\nlink set switch up"))?;
        veth((&gateway, "lan0"), (&switch, "port0"))?;
        switch.ip(&format!("link set port0 mtu {mtu} master switch up"))?;
        for (number, host) in &hosts {
            let port = format!("port{number}");
            veth((host, "eth0"), (&switch, &port))?;
            switch.ip(&format!("link set {port} mtu {mtu} master switch up"))?;
        }
    }
    gateway.ip(&format!(
        "link set lan0 mtu {mtu} up\naddress add {gateway4}/{bits4} dev lan0\n\
         address add {gateway6}/{bits6} dev lan0 nodad"
    ))?;
    for (number, host) in &hosts {
        let (host4, host6) = plan.host(*number);
        host.ip(&format!(
            "link set eth0 mtu {mtu} up\naddress add {host4}/{bits4} dev eth0\n\
             address add {host6}/{bits6} dev eth0 nodad\n\
             route add default via {gateway4}\nroute add default via {gateway6}"
        ))?;
    }
    Ok(())
}

/// A router `internet` and behind it `server`, which has all server addresses.
fn build_internet(all: &mut Namespaces, servers: u8) -> Result<()> {
    let (router, server) = (add(all, "internet")?, add(all, "server")?);
    router.enable_forwarding()?;
    veth((&router, "srv0"), (&server, "eth0"))?;
    router.ip("link set srv0 up\naddress add 203.0.113.65/26 dev srv0\n\
         address add 2001:db8:80::1/64 dev srv0 nodad")?;
    server.ip("link set eth0 up")?;
    for index in 0..servers {
        let (v4, v6) = server_address(index);
        server.ip(&format!("address add {v4}/26 dev eth0\naddress add {v6}/64 dev eth0 nodad"))?;
    }
    server.ip("route add default via 203.0.113.65\nroute add default via 2001:db8:80::1")
}

/// Routes into the underlay, once its interfaces exist; the first uplink is preferred.
pub(crate) fn add_uplink_routes(topology: &Topology, all: &Namespaces) -> Result<()> {
    for site in &topology.sites {
        let gateway = &all[&site.name];
        for index in 0..site.uplinks.len() {
            let metric = 100 * (index + 1);
            gateway.ip(&format!(
                "route add default dev wan{index} metric {metric}\n\
                 route add ::/0 dev wan{index} metric {metric}"
            ))?;
        }
    }
    if topology.internet.is_some() {
        all["internet"].ip("route add default dev wan0\nroute add ::/0 dev wan0")?;
    }
    Ok(())
}

/// Joins the two gateways of a wire topology by a veth pair.
///
/// Segmentation offload is off everywhere, so that hosts and gateways meet packets as on a cable;
/// merging on receipt stays on, as real network cards have it.
pub(crate) fn build_wire(topology: &Topology, all: &Namespaces) -> Result<()> {
    debug_assert_eq!(topology.underlay, Underlay::Wire);
    let attachments = topology.attachments();
    let [a, b] = &attachments[..] else { unreachable!("validated: a wire has two ends") };
    veth((&all[&a.netns], &a.interface), (&all[&b.netns], &b.interface))?;
    for (end, other) in [(a, b), (b, a)] {
        let netns = &all[&end.netns];
        let mut lines = format!("link set {} mtu {} up\n", end.interface, end.mtu);
        for address in &end.addresses {
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            lines += &format!("address add {address} dev {}{nodad}\n", end.interface);
        }
        netns.ip(&lines)?;
        for prefix in &other.prefixes {
            let via = other
                .addresses
                .iter()
                .find(|address| address.addr().is_ipv4() == prefix.addr().is_ipv4());
            if let Some(via) = via {
                let via = via.addr();
                netns.ip(&format!("route add {prefix} via {via} dev {} onlink", end.interface))?;
            }
        }
    }
    for (netns, interface) in wire_interfaces(topology, all) {
        let mut command = netns.command("ethtool");
        command.args(["-K", &interface, "tso", "off", "gso", "off"]);
        command.args(["tx-udp-segmentation", "off", "gro", "on"]);
        run(&mut command, Duration::from_secs(5))?.success()?;
    }
    Ok(())
}

fn wire_interfaces<'a>(
    topology: &'a Topology,
    all: &'a Namespaces,
) -> impl Iterator<Item = (&'a Netns, String)> {
    topology.sites.iter().flat_map(|site| {
        let gateway = &all[&site.name];
        let hosts = (1..=site.hosts)
            .map(|number| (&all[&format!("{}-h{number}", site.name)], "eth0".to_owned()));
        [(gateway, "lan0".to_owned()), (gateway, "wan0".to_owned())].into_iter().chain(hosts)
    })
}
