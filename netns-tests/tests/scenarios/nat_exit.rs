//! The exit's outside in mode `rewrite`: several uplinks, changing addresses, the router's own
//! sockets beside it, ICMP errors both ways, packets in fragments and too long for the tunnel.
//!
//! ```text
//!   mit-h1 .. h4 ─ mit ═══ 10 ms ═══ utah ┬ wan0 192.0.2.17 ═══ 10 ms ═══╗
//!                                   exit  └ wan1 198.51.100.17 ═ 10 ms ══╩ internet ─ server
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Capture, Host, Lab, Scenario, Site, Topology, wait_until};

use crate::common::{MS, SECOND, start, wait_ping};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("nat_exit::several_uplinks", several_uplinks),
    Scenario::new("nat_exit::renumbered", renumbered),
    Scenario::new("nat_exit::router_undisturbed", router_undisturbed),
    Scenario::new("nat_exit::icmp_and_fragments", icmp_and_fragments),
    Scenario::new("nat_exit::many_mappings", many_mappings),
    Scenario::new("nat_exit::protocols_without_ports", protocols_without_ports),
];

const SERVER: &str = "203.0.113.80";
const WAN: [&str; 2] = ["192.0.2.17", "198.51.100.17"];

fn exit(hosts: u8, egress: &str) -> Result<Lab> {
    let utah = format!("{{egress: {egress}}}");
    start(
        Topology::new([
            Site::new("mit").hosts(hosts).config("{internet: {via: [utah]}}"),
            Site::new("utah").uplinks(&["isp1", "isp2"]).config(&utah),
        ])
        .internet(2)
        .all_links("{delay: 10ms}"),
    )
}

/// What the server takes the host for.
fn seen(host: &Host, server: &str) -> Result<String> {
    Ok(host.http_get(&format!("http://{server}/whoami"), 4 * SECOND)?.body.trim().to_owned())
}

/// Two outside addresses: hosts are spread over them, each keeps its own towards everybody, and those
/// of an uplink that goes away get the other one.
fn several_uplinks() -> Result<()> {
    let lab = exit(6, "{enabled: true, pool: [100.64.1.1/32, 100.64.1.2/32]}")?;
    let mut used = BTreeSet::new();
    for number in 1..=6 {
        let host = lab.host("mit", number)?;
        let outside = seen(&host, SERVER)?;
        for again in ["203.0.113.81", SERVER] {
            ensure!(seen(&host, again)? == outside, "host {number} has several addresses");
        }
        host.expect_ping(SERVER.parse::<IpAddr>()?)?;
        used.insert(outside);
    }
    // Each of six hosts takes the emptier of two random ones of two.
    let all: BTreeSet<String> = WAN.iter().map(|&wan| wan.to_owned()).collect();
    ensure!(used == all, "the uplinks are used unevenly: {used:?}");
    lab.netns("utah")?.ip("address delete 198.51.100.17/29 dev wan1")?;
    for number in 1..=6 {
        let host = lab.host("mit", number)?;
        // What was begun before keeps its address, and fails: each attempt is a short one.
        wait_until(&format!("host {number} has the other address"), 10 * SECOND, || {
            let page = host.http_get(&format!("http://{SERVER}/whoami"), SECOND)?;
            let outside = page.body.trim();
            ensure!(outside == WAN[0], "{outside}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The provider gives another address: mappings keep their ports, and nothing leaves with an
/// internal address.
fn renumbered() -> Result<()> {
    let mut topology = crate::nat_programs::topology();
    let follows = "{uplinks: [{name: isp1, interface: wan0, listen: 'auto:4710'}]}";
    topology.sites[1] = topology.sites[1].clone().config(follows);
    let lab = start(topology)?;
    let host = lab.host("mit", 1)?;
    let ask = || -> Result<String> {
        let arguments = ["-u", "-n", "-w", "1", "-p", "5000", SERVER, "9007"];
        let reply = netns_tests::lab::process::run_with_input(
            host.command("nc").args(arguments),
            "who\n",
            4 * SECOND,
        )?;
        reply.stdout.lines().last().map(str::to_owned).context("no answer")
    };
    let before = ask()?;
    let port = before.rsplit(':').next().context("no port")?.to_owned();
    ensure!(before.starts_with(WAN[0]), "{before}");
    let new = lab.renumber("utah")?;
    wait_until("the new address is used", 10 * SECOND, || {
        let after = ask()?;
        ensure!(after == format!("{new}:{port}"), "{before}, then {after}");
        Ok(())
    })
}

/// The router's own programs get their answers, even with ports and identifiers of the exit, while
/// hosts use the exit.
fn router_undisturbed() -> Result<()> {
    let lab = start(crate::nat_programs::topology())?;
    let (host, router, server) = (lab.host("mit", 1)?, lab.router("utah")?, lab.server()?);
    let to: IpAddr = SERVER.parse()?;
    host.expect_ping(to)?;
    for identifier in ["45000", "45001", "45002", "77"] {
        let ping = router.ping_with(to, 3, 20 * MS, &["-e", identifier])?;
        ensure!(ping.received == 3, "identifier {identifier}: {ping:?}");
    }
    let hops = router.traceroute(to, &["-I"])?;
    ensure!(hops.iter().all(Option::is_some) && hops.last() == Some(&Some(to)), "{hops:?}");
    for port in ["40000", "50001", "59999"] {
        let url = format!("http://{SERVER}/bytes/200000");
        let arguments = ["-sS", "-m", "5", "--local-port", port, "-o", "/dev/null", &url];
        router.run("curl", &arguments, 8 * SECOND)?.success()?;
        router
            .run(
                "dig",
                &[&format!("@{SERVER}"), "-b", &format!("0.0.0.0#{port}"), "+tries=1", "www.lab"],
                8 * SECOND,
            )?
            .success()?;
    }
    // Nobody is given a port of the exit by chance.
    let reserved = router.run("cat", &["/proc/sys/net/ipv4/ip_local_reserved_ports"], SECOND)?;
    ensure!(reserved.stdout.contains("40000-59999"), "{reserved:?}");
    // Services of the router stay reachable from outside, and the exit's hosts online.
    let _service = router.start_servers(&[WAN[0].parse()?])?;
    ensure!(seen(&server, WAN[0])? == SERVER);
    ensure!(seen(&host, SERVER)? == WAN[0]);
    Ok(())
}

/// What hosts behind the exit say about packets that they got is understood outside, and goes there
/// through the exit; large packets pass in fragments both ways.
fn icmp_and_fragments() -> Result<()> {
    let lab = start(crate::nat_programs::topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let captures = [Capture::start(lab.netns("mit")?, "wan0", &[b"anybody there?".as_slice()])?];
    // A mapping whose host does not listen any more: the sender outside is refused.
    let who = netns_tests::lab::process::run_with_input(
        host.command("nc").args(["-u", "-n", "-w", "1", "-p", "6000", SERVER, "9007"]),
        "who\n",
        4 * SECOND,
    )?;
    let outside: SocketAddr = who.stdout.trim().parse().context(who.stdout.clone())?;
    server.netns().within(|| {
        let socket = UdpSocket::bind((SERVER, 9100))?;
        socket.connect(outside)?;
        socket.set_read_timeout(Some(4 * SECOND))?;
        socket.send(b"anybody there?")?;
        let error = socket.recv(&mut [0; 16]).err().context("an answer?")?;
        ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    })?;
    // Fragments.
    for (size, wanted) in [("3000", 3), ("20000", 3)] {
        let ping = host.ping_with(SERVER.parse::<IpAddr>()?, 3, 50 * MS, &["-s", size])?;
        ensure!(ping.received == wanted, "{size}: {ping:?}");
    }
    // The answer of 1,380 bytes may not be taken apart and is too long for the tunnel: the server is
    // told so, in addresses that it knows, and its next one comes in pieces.
    for size in [9_000_u32, 1_380] {
        let same = host.netns().within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(500 * MS))?;
            socket.connect((SERVER, 7))?;
            let large: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let mut back = vec![0; 10_000];
            for _ in 0..4 {
                if let Ok(length) = socket.send(&large).and_then(|_| socket.recv(&mut back)) {
                    return Ok(back[..length] == large);
                }
            }
            Ok(false)
        })?;
        ensure!(same, "an echo of {size} bytes did not come back whole");
    }
    for capture in captures {
        capture.expect_nothing()?;
    }
    wait_ping(&lab, "mit", "utah")
}

/// With so many mappings that the exit looks at several frames from outside before it handles the
/// first, all of them still arrive, in their order.
fn many_mappings() -> Result<()> {
    let mut lab = start(crate::nat_programs::topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    wait_until("more than 10,000 mappings", 10 * SECOND, || {
        for number in [1, 2] {
            make_mappings(&lab.host("mit", number)?, 10_000..16_000)?;
        }
        let mappings = lab.gateway("utah")?.status()?.number("/nat/mappings")?;
        ensure!(mappings > 10_000.0, "{mappings}");
        Ok(())
    })?;
    host.verified_download(SERVER.parse()?, 3_000_000, 20 * SECOND)?;
    wait_until("a burst of small packets in order", 6 * SECOND, || burst(&host, &server))?;
    host.expect_ping(SERVER.parse::<IpAddr>()?)?;
    Ok(())
}

/// Sends a datagram from each port, to nobody.
fn make_mappings(host: &Host, ports: std::ops::Range<u16>) -> Result<()> {
    host.netns().within(|| {
        for port in ports {
            UdpSocket::bind(("0.0.0.0", port))?.send_to(b"nobody?", (SERVER, 9))?;
            if port % 50 == 0 {
                std::thread::sleep(MS);
            }
        }
        Ok(())
    })
}

/// The server sends to a mapping of the host, as fast as it can.
fn burst(host: &Host, server: &Host) -> Result<()> {
    let socket = host.netns().within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(SECOND))?;
        Ok(socket)
    })?;
    socket.send_to(b"who", (SERVER, 9007))?;
    let mut text = [0; 100];
    let length = socket.recv(&mut text)?;
    let outside: SocketAddr = str::from_utf8(&text[..length])?.trim().parse()?;
    server.netns().within(|| {
        let sender = UdpSocket::bind((SERVER, 9100))?;
        for number in 0..100_u8 {
            sender.send_to(&[number; 100], outside)?;
        }
        Ok(())
    })?;
    for number in 0..100_u8 {
        let length = socket.recv(&mut text)?;
        ensure!(text[..length] == [number; 100], "{:?} instead of {number}", &text[..length]);
    }
    Ok(())
}

/// GRE, ESP, SCTP and a protocol that nobody has given a name, by sockets that see whole packets.
fn protocols_without_ports() -> Result<()> {
    let lab = start(crate::nat_programs::topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let [asks, answers] = [("asks.py", ASKS), ("answers.py", ANSWERS)].map(|(name, text)| {
        let script = host.file(name);
        std::fs::write(&script, text).map(|()| script.display().to_string())
    });
    let _server = server.start_python("answers", &[&answers?, SERVER])?;
    let mut client = host.start_python("asks", &[&asks?, SERVER])?;
    let end = client.wait(10 * SECOND)?;
    let told = client.log_text();
    ensure!(end.success(), "{told}");
    for protocol in [47, 50, 132, 200] {
        let wanted = format!("{protocol}: hello from {}", WAN[0]);
        ensure!(told.lines().any(|line| line == wanted), "{told}");
    }
    Ok(())
}

/// Tells each sender what it said, and from which address.
const ANSWERS: &str = r#"
import select, socket, sys
raw = [socket.socket(socket.AF_INET, socket.SOCK_RAW, kind) for kind in (47, 50, 132, 200)]
for each in raw:
    each.bind((sys.argv[1], 0))
while True:
    for each in select.select(raw, [], [])[0]:
        packet, (address, _) = each.recvfrom(2048)
        each.sendto(packet[20:] + b" from " + address.encode(), (address, 0))
"#;

/// Asks by each protocol, again if there is no answer, until all have answered.
const ASKS: &str = r#"
import select, socket, sys
left = {kind: socket.socket(socket.AF_INET, socket.SOCK_RAW, kind) for kind in (47, 50, 132, 200)}
while left:
    for each in left.values():
        each.sendto(b"hello", (sys.argv[1], 0))
    for each in select.select(left.values(), [], [], 1)[0]:
        packet = each.recv(2048)
        kind = packet[9]
        print("%d: %s" % (kind, packet[20:].decode()), flush=True)
        left.pop(kind, None)
"#;
