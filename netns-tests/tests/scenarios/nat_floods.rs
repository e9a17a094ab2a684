//! Floods at the exit: who suffers, and who does not.
//!
//! ```text
//!   mit-h1 (serves itself)  ┬ mit ══ 10 ms ══╗
//!   mit-h2 (floods)         ┘                ╠ utah ═══ 10 ms ═══ internet ─ server
//!   aros-h1 (serves itself) ─ aros ═ 10 ms ══╝ exit
//! ```
//!
//! The exit has few ports, so that floods of a second fill what in life takes longer. During each
//! flood, connections that live go on and new ones are made by the others; a host's own flood may
//! cost that host its new connections, and a flood with made-up sources those of its site.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Host, Scenario, Site, Ticks, Topology, clock};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::common::{MS, SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("nat_floods::from_inside", from_inside),
    Scenario::new("nat_floods::from_outside", from_outside),
];

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 17);
/// Packets a second.
const RATE: u32 = 4_000;

fn topology() -> Topology {
    Topology::new([
        Site::new("mit").hosts(2).config("{internet: {via: [utah]}}"),
        Site::new("utah").config(
            "{egress: {enabled: true, ports: 40000-42999}, internet: {via: [local]}, \
             nat: {max: 8192, max_per_host: 1000}}",
        ),
        Site::new("aros").config("{internet: {via: [utah]}}"),
    ])
    .internet(1)
    .all_links("{delay: 10ms}")
}

/// An IPv4 packet with right checksums of its header; those above are left to whoever cares.
fn ipv4(
    protocol: u8,
    from: Ipv4Addr,
    to: Ipv4Addr,
    fragment: u16,
    id: u16,
    upper: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + upper.len() as u16).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(upper);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn ports(from: u16, to: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d]
}

/// A SYN or a datagram without checksum.
fn first_packet(tcp: bool, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut upper = ports(from.1, to.1).to_vec();
    if !tcp {
        upper.extend_from_slice(&[0, 12, 0, 0, 1, 2, 3, 4]);
        return ipv4(17, from.0, to.0, 0, 7, &upper);
    }
    upper.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
    let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, 6, 0, 20], &upper].concat();
    upper[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    ipv4(6, from.0, to.0, 0, 7, &upper)
}

/// An ICMP error that says of a packet that never was that its port is unreachable.
fn false_error(from: Ipv4Addr, to: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
    let mut upper = vec![3, 3, 0, 0, 0, 0, 0, 0];
    upper.extend_from_slice(quoted);
    let sum = checksum(&upper);
    upper[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(1, from, to, 0, 7, &upper)
}

/// Sends what `packet` makes of the numbers from 0 on, with any source, until told to stop. Returns
/// how many were sent.
fn flood(host: &Host, stop: &AtomicBool, packet: impl Fn(u32) -> Vec<u8> + Sync) -> Result<u32> {
    host.netns().within(|| {
        let socket =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let begin = clock::now();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = (begin.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            for number in sent..due {
                let packet = packet(number);
                let to = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20])?);
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
                // A full queue loses packets; so do floods.
                let _ = sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty());
            }
            sent = sent.max(due);
            sleep(5 * MS);
        }
        Ok(sent)
    })
}

/// What a host that minds its own business has of the exit: pages, each by a connection of its own, a
/// name, and pings. Returns the seconds of the slowest page.
fn new_connections(host: &Host) -> Result<f64> {
    let mut slowest: f64 = 0.0;
    for _ in 0..3 {
        let begin = clock::now();
        let page = host.http_get(&format!("http://{SERVER}/whoami"), 5 * SECOND)?;
        ensure!(page.body.trim() == OUTSIDE.to_string(), "{page:?}");
        slowest = slowest.max(begin.elapsed().as_secs_f64());
    }
    host.ping_with(IpAddr::from(SERVER), 2, 20 * MS, &[])
        .and_then(|ping| ensure_all(ping.received == ping.sent))?;
    ensure!(!host.dig(IpAddr::from(SERVER), "www.lab", "A")?.is_empty());
    Ok(slowest)
}

fn ensure_all(answered: bool) -> Result<()> {
    ensure!(answered, "not all pings were answered");
    Ok(())
}

/// Sends a flood for at least a second, while `served` make new connections.
fn during(
    name: &str,
    (from, packet): (&Host, &(dyn Fn(u32) -> Vec<u8> + Sync)),
    served: &[&Host],
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let begin = clock::now();
    let (sent, worked) = scope(|scope| {
        let flood = scope.spawn(|| flood(from, &stop, packet));
        sleep(400 * MS);
        let worked: Result<Vec<f64>> = served.iter().map(|host| new_connections(host)).collect();
        sleep(SECOND.saturating_sub(begin.elapsed()));
        stop.store(true, Ordering::Relaxed);
        (flood.join(), worked)
    });
    let took = begin.elapsed().as_secs_f64();
    let sent = sent.map_err(|_| anyhow::anyhow!("the flood broke off"))??;
    let slowest = worked.with_context(|| format!("{name}: new connections of others"))?;
    let slowest = slowest.into_iter().fold(0.0, f64::max) * 1_000.0;
    eprintln!("{name}: {sent} packets in {took:.1} s; slowest page of others {slowest:.0} ms");
    Ok(())
}

/// A flow that was there before: its packets do not suffer.
fn undisturbed(ticks: Ticks) -> Result<()> {
    let report = ticks.stop()?;
    let lost = 1.0 - report.received as f64 / report.sent.max(1) as f64;
    eprintln!("the live flow lost {:.2} %, gap {:.0} ms", lost * 100.0, report.longest_gap_ms);
    ensure!(lost < 0.03 && report.longest_gap_ms < 400.0, "{report:?}");
    Ok(())
}

fn from_inside() -> Result<()> {
    let mut lab = start(topology())?;
    let (own, floods, other) = (lab.host("mit", 1)?, lab.host("mit", 2)?, lab.host("aros", 1)?);
    let download = own.start_download(SERVER.into(), 700_000, "100k")?;
    let ticks = own.start_echo_ticks(IpAddr::from(SERVER), 100)?;
    let (from, to) = (floods.v4, SERVER);
    let port = |n: u32| (n % 60_000) as u16 + 1_024;
    let syns = |n| first_packet(true, (from, port(n)), (to, (n >> 4) as u16));
    let datagrams = |n| first_packet(false, (from, port(n)), (to, 9));
    // First ones alone, and later ones alone, in turn.
    let fragments = |n: u32| match n % 2 {
        0 => ipv4(
            17,
            from,
            to,
            0x2000,
            n as u16,
            &[&ports(port(n), 9)[..], &[0, 64, 0, 0], &[0; 24]].concat(),
        ),
        _ => ipv4(17, from, to, 0x2004, n as u16, &[0; 32]),
    };
    let errors = |n: u32| {
        let quoted = first_packet(false, (to, 9), (from, port(n)));
        false_error(from, to, &quoted)
    };
    let both = [&own, &other];
    during("one host, SYNs", (&floods, &syns), &both)?;
    during("one host, UDP", (&floods, &datagrams), &both)?;
    during("one host, fragments", (&floods, &fragments), &both)?;
    during("one host, ICMP errors", (&floods, &errors), &both)?;
    // Each from another address of the site: the site's share of ports is used up, and only that.
    // (So few addresses that the site's own router does not run out of places for neighbours.)
    let made_up = |n: u32| Ipv4Addr::new(10, 1, 1, (n % 100) as u8 + 1);
    let spoofed =
        |n: u32| first_packet(n.is_multiple_of(2), (made_up(n / 2), port(n / 200)), (to, 9));
    during("made-up hosts, SYNs and UDP", (&floods, &spoofed), &[&other])?;
    undisturbed(ticks)?;
    download.finish(20 * SECOND).context("a connection that lived before all floods")?;
    let drops = lab.gateway("utah")?.status()?.drops();
    eprintln!("drops at the exit: {drops:?}");
    for reason in ["nat_host_limit", "nat_site_limit", "unrelated_icmp_error"] {
        ensure!(drops.get(reason).is_some_and(|count| *count > 100), "{reason}: {drops:?}");
    }
    ensure!(!drops.contains_key("nat_table_full"), "{drops:?}");
    Ok(())
}

fn from_outside() -> Result<()> {
    let mut lab = start(topology())?;
    let (own, other, outside) = (lab.host("mit", 1)?, lab.host("aros", 1)?, lab.server()?);
    let download = own.start_download(SERVER.into(), 500_000, "100k")?;
    let ticks = own.start_echo_ticks(IpAddr::from(SERVER), 100)?;
    // Sources of the Internet's own network: its router filters no others.
    let stranger = |n: u32| Ipv4Addr::new(203, 0, 113, (n % 40) as u8 + 84);
    let port = |n: u32| 40_000 + (n % 3_000) as u16;
    let syns = |n| first_packet(true, (stranger(n), 80), (OUTSIDE, port(n)));
    let datagrams = |n| first_packet(false, (stranger(n), 9), (OUTSIDE, port(n)));
    let fragments = |n: u32| {
        let offset = if n.is_multiple_of(2) { 0x2000 } else { 0x2004 };
        let upper = [&ports(9, port(n))[..], &[0, 64, 0, 0], &[0; 24]].concat();
        ipv4(17, stranger(n), OUTSIDE, offset, n as u16, &upper)
    };
    let errors = |n| {
        let quoted = first_packet(true, (OUTSIDE, port(n)), (SERVER, 80));
        false_error(stranger(n), OUTSIDE, &quoted)
    };
    let both = [&own, &other];
    during("strangers, SYNs", (&outside, &syns), &both)?;
    during("strangers, UDP", (&outside, &datagrams), &both)?;
    during("strangers, fragments", (&outside, &fragments), &both)?;
    during("strangers, ICMP errors", (&outside, &errors), &both)?;
    undisturbed(ticks)?;
    download.finish(20 * SECOND).context("a connection that lived before all floods")?;
    let drops = lab.gateway("utah")?.status()?.drops();
    eprintln!("drops at the exit: {drops:?}");
    ensure!(drops.get("unsolicited").is_some_and(|count| *count > 1_000), "{drops:?}");
    Ok(())
}
