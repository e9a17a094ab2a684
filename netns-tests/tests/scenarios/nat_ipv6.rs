//! IPv6 hosts through a remote exit: to IPv4 (NAT64), and to IPv6 by a prefix or with ports.
//!
//! ```text
//!   mit-h1 fd00:1::11 ─ mit ═══ 10 ms ═══ utah ═══ 10 ms ═══ internet ─ server 203.0.113.80
//!                            (overlay)   exit │ (underlay)              2001:db8:80::80
//!                                2001:db8:2:100::/56 is routed to it
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::run_with_input;
use netns_tests::lab::{Host, Lab, Scenario, Site, Topology, wait_until};

use crate::common::{MS, SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("nat_ipv6::to_ipv4", to_ipv4),
    Scenario::new("nat_ipv6::by_prefix", by_prefix),
    Scenario::new("nat_ipv6::with_ports", with_ports),
    Scenario::new("nat_ipv6::on_link", on_link),
];

/// `203.0.113.80` as IPv6 hosts see it.
const SERVER_64: &str = "64:ff9b::cb00:7150";
const SERVER: &str = "2001:db8:80::80";

fn topology(utah: &str) -> Topology {
    Topology::new([
        Site::new("mit").config("{internet: {via: [utah], via_ipv6: [utah]}}"),
        Site::new("utah").config(utah),
    ])
    .internet(1)
    .all_links("{delay: 10ms}")
}

/// A large datagram, there and back. The first ones may be too big for a path that neither end knows
/// yet: then this socket is told so, or the server's kernel is.
fn echo(host: &Host, server: &str, size: u32) -> Result<()> {
    let same = host.netns().within(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(500 * MS))?;
        socket.connect((server, 7))?;
        let large: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let mut back = vec![0; size as usize + 1];
        for _ in 0..4 {
            let answered = socket.send(&large).and_then(|_| socket.recv(&mut back));
            match answered {
                Ok(length) => return Ok(back[..length] == large),
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    })?;
    ensure!(same, "an echo of {size} bytes came back damaged");
    Ok(())
}

fn to_ipv4() -> Result<()> {
    let lab = start(topology("{egress: {enabled: true, for: [mit]}}"))?;
    let host = lab.host("mit", 1)?;
    let server: IpAddr = SERVER_64.parse()?;
    let page = host.http_get(&format!("http://[{SERVER_64}]/whoami"), 5 * SECOND)?;
    ensure!(page.body.trim() == "192.0.2.17", "{page:?}");
    host.verified_download(server, 3_000_000, 20 * SECOND)?;
    let report = host.iperf(server, 1, &["-R"])?;
    ensure!(report.bits_per_second > 5e6, "{report:?}");
    ensure!(host.dig(server, "whoami.lab", "A")? == ["192.0.2.17"]);
    let ping = host.expect_ping(server)?;
    ensure!((40.0..80.0).contains(&ping.min_ms), "{ping:?}");
    for kind in [&["-I"][..], &[], &["-T", "-p", "80"]] {
        let hops = host.traceroute(server, kind)?;
        let router: IpAddr = "64:ff9b::cb00:7101".parse()?;
        ensure!(hops.last() == Some(&Some(server)), "{kind:?}: {hops:?}");
        ensure!(hops.contains(&Some(router)), "routers behind the exit: {kind:?}: {hops:?}");
    }
    // A closed port answers: reset for TCP, "port unreachable" for UDP.
    let closed = host.run("nc", &["-n", "-v", "-w", "5", SERVER_64, "81"], 9 * SECOND)?;
    ensure!(closed.stderr.contains("refused"), "{closed:?}");
    let refused = host.netns().within(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.connect((SERVER_64, 5353))?;
        socket.set_read_timeout(Some(4 * SECOND))?;
        socket.send(b"anybody there?")?;
        let error = socket.recv(&mut [0; 16]).err().context("an answer?")?;
        Ok(error.kind() == ErrorKind::ConnectionRefused)
    })?;
    ensure!(refused, "the host is not told that a port is closed");
    for size in [500, 1_300, 1_380, 9_000] {
        echo(&host, SERVER_64, size).with_context(|| format!("{size} bytes"))?;
    }
    // Too large for the Internet behind the exit: the host learns the path's MTU, in its family.
    lab.netns("internet")?.ip("link set srv0 mtu 1280")?;
    let large = host.run("ping", &["-6", "-c3", "-Mdo", "-s1300", SERVER_64], 6 * SECOND)?;
    ensure!(large.stdout.contains("mtu=1300"), "{large:?}");
    host.verified_download(server, 1_000_000, 20 * SECOND)?;
    Ok(())
}

fn by_prefix() -> Result<()> {
    let utah = "{egress: {enabled: true, for: [mit]}, nat: {prefixes: \
                [{inside: 'fd00:1::/64', outside: '2001:db8:2:110::/64'}]}}";
    let lab = start(topology(utah))?;
    everything(&lab, "2001:db8:2:110:")?;
    keeps_ports(&lab.host("mit", 1)?)
}

fn with_ports() -> Result<()> {
    let utah = "{egress: {enabled: true, for: [mit], pool: ['2001:db8:2:120::/120']}}";
    let lab = start(topology(utah))?;
    everything(&lab, "2001:db8:2:120:")?;
    forged(&lab)
}

/// The provider routes nothing to the exit, and gives it only the network of its link: one address of
/// that is the NAT's, and the router's kernel answers for it (README).
fn on_link() -> Result<()> {
    let utah = "{egress: {enabled: true, for: [mit], pool: ['2001:db8:99::5/128']}}";
    let lab = start(topology(utah))?;
    let (router, provider) = (lab.netns("utah")?, lab.netns("internet")?);
    router.ip("link add wan9 type veth peer name utah9 netns internet\n\
               address add 2001:db8:99::1/64 dev wan9 nodad\nlink set wan9 up")?;
    provider.ip("address add 2001:db8:99::2/64 dev utah9 nodad\nlink set utah9 up")?;
    router.ip("route add 2001:db8:80::80 via 2001:db8:99::2 dev wan9")?;
    let (host, server) = (lab.host("mit", 1)?, SERVER.parse::<IpAddr>()?);
    let unheard = host.ping(server, 2, 100 * MS)?;
    ensure!(unheard.received == 0, "nobody answered for the NAT's address yet: {unheard:?}");
    router.sysctls(&[("net/ipv6/conf/wan9/proxy_ndp", "1")])?;
    router.ip("neighbour add proxy 2001:db8:99::5 dev wan9")?;
    wait_until("an answer on the link", 10 * SECOND, || {
        host.expect_ping(server)?;
        let neighbours = provider.ip_output(&["-6", "neighbour", "show", "dev", "utah9"])?;
        ensure!(neighbours.contains("2001:db8:99::5 lladdr"), "{neighbours}");
        Ok(())
    })
}

/// Nobody outside passes for a host of the exit's own site: the router's kernel drops what claims to
/// be one, and counts it.
fn forged(lab: &Lab) -> Result<()> {
    let (host, server, router) = (lab.host("mit", 1)?, lab.server()?, lab.router("utah")?);
    ensure!(dropped_as_forged(&router)? == 0, "nothing forged was sent yet");
    let open = host.netns().within(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(4 * SECOND))?;
        Ok(socket)
    })?;
    let mut text = [0; 100];
    open.send_to(b"who", (SERVER, 9007))?;
    let length = open.recv(&mut text)?;
    let outside: SocketAddr = str::from_utf8(&text[..length])?.trim().parse()?;
    server.netns().ip("address add fd00:2::77/128 dev lo nodad")?;
    for (source, word) in [("fd00:2::77", "forged"), (SERVER, "genuine")] {
        server
            .netns()
            .within(|| Ok(UdpSocket::bind((source, 9100))?.send_to(word.as_bytes(), outside)?))?;
    }
    let length = open.recv(&mut text)?;
    ensure!(text[..length] == *b"genuine", "what was forged came in");
    let dropped = dropped_as_forged(&router)?;
    ensure!(dropped == 1, "{dropped} packets were dropped as forged");
    Ok(())
}

/// What the rule against sources of the exit's own hosts has counted.
fn dropped_as_forged(router: &Host) -> Result<u64> {
    let list = ["list", "chain", "inet", "rongate_ron0", "exit_untracked6"];
    let chain = router.run("nft", &list, 5 * SECOND)?.success()?.stdout;
    let rule = chain.lines().find(|line| line.contains("counter packets"));
    let rule = rule.with_context(|| chain.clone())?;
    ensure!(rule.contains("iifname") && rule.contains("fd00:2::/64"), "another rule: {rule}");
    ensure!(rule.trim_end().ends_with("drop"), "another rule: {rule}");
    let count = rule.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(count.with_context(|| rule.to_owned())?.parse()?)
}

fn everything(lab: &Lab, outside: &str) -> Result<()> {
    let host = lab.host("mit", 1)?;
    let server: IpAddr = SERVER.parse()?;
    let page = host.http_get(&format!("http://[{SERVER}]/whoami"), 5 * SECOND)?;
    let seen: Ipv6Addr = page.body.trim().parse().context(page.body.clone())?;
    ensure!(seen.to_string().starts_with(outside), "{seen}");
    host.verified_download(server, 3_000_000, 20 * SECOND)?;
    host.expect_ping(server)?;
    let hops = host.traceroute(server, &["-I"])?;
    ensure!(hops.last() == Some(&Some(server)), "{hops:?}");
    ensure!(hops.contains(&Some("2001:db8:80:ffff::1".parse()?)), "{hops:?}");
    echo(&host, SERVER, 9_000)?;
    // And the exit's IPv4 beside it.
    let page = host.http_get("http://203.0.113.80/whoami", 5 * SECOND)?;
    ensure!(page.body.trim() == "192.0.2.17", "{page:?}");
    host.expect_ping(SERVER_64.parse::<IpAddr>()?)?;
    Ok(())
}

/// A prefix leaves ports alone.
fn keeps_ports(host: &Host) -> Result<()> {
    wait_until("an answer to port 6000", 5 * SECOND, || {
        let arguments = ["-6", "-u", "-n", "-w", "1", "-p", "6000", SERVER, "9007"];
        let reply = run_with_input(host.command("nc").args(arguments), "who\n", 4 * SECOND)?;
        let seen = reply.stdout.lines().last().context("no answer")?;
        let seen: SocketAddr = seen.parse().context(seen.to_owned())?;
        ensure!(seen.port() == 6_000, "{seen}");
        Ok(())
    })
}
