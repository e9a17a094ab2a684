//! What the NAT costs without any input or output, with ten thousand mappings and with a million:
//! making them, looking one up at random and rewriting a packet, and ending them all. `cargo bench
//! --bench nat` prints nanoseconds for each; the smallest of many rounds is what other work on the
//! machine disturbs least.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rongate::nat::{MappingId, Nat, NatConfig, NatLimits, Realm};
use rongate::packet::{Headers, Ports, Vnet, checksum, tcp_flag};
use rongate::rng::Rng;
use rongate::time::Instant;

const SIZES: [u32; 2] = [10_000, 1_000_000];
/// Mappings of one host.
const PORTS: u16 = 100;
const REALM: Realm = Realm(3);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const ROUND: usize = 20_000;
const ROUNDS: usize = 60;
/// Packets that are looked up together: one, as many as the gateway reads from its TUN before it
/// handles the first, as many as peers send in a turn.
const TURNS: [usize; 3] = [1, 16, 64];

/// A packet whose ends are set before each use.
struct Packet {
    bytes: Vec<u8>,
    headers: Headers,
}

impl Packet {
    fn new(protocol: u8, flags: u8) -> Self {
        let mut bytes = vec![0x45, 0, 0, 140, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        bytes.extend_from_slice(&[10, 0, 0, 1, 203, 0, 113, 80]);
        bytes.resize(140, 7);
        if protocol == 6 {
            (bytes[32], bytes[33]) = (0x50, flags);
        } else {
            (bytes[24], bytes[25]) = (0, 120);
        }
        checksum::fill_ipv4(&mut bytes[..20]);
        let Ok(headers) = Headers::parse(&bytes) else { unreachable!("it is well formed") };
        Self { bytes, headers }
    }

    fn set(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) {
        self.bytes[12..16].copy_from_slice(&from.0.octets());
        self.bytes[16..20].copy_from_slice(&to.0.octets());
        self.bytes[20..22].copy_from_slice(&from.1.to_be_bytes());
        self.bytes[22..24].copy_from_slice(&to.1.to_be_bytes());
        self.headers.source = from.0.into();
        self.headers.destination = to.0.into();
        self.headers.ports = Some(Ports { src: from.1, dst: to.1 });
    }

    fn outbound(&mut self, nat: &mut Nat, now: Instant) -> bool {
        nat.outbound(now, REALM, &mut self.bytes, &self.headers, &Vnet::default()).is_ok()
    }

    fn inbound(&mut self, nat: &mut Nat, now: Instant) -> bool {
        nat.inbound(now, &mut self.bytes, &self.headers, &Vnet::default()).is_ok()
    }
}

/// An address of host `n` and its port.
fn inside(n: u32) -> (Ipv4Addr, u16) {
    let host = n / u32::from(PORTS);
    (Ipv4Addr::from_bits(0x0a00_0001 + host), 5_000 + (n % u32::from(PORTS)) as u16)
}

fn nat(now: Instant, mappings: u32) -> Nat {
    let Ok(pool) = "198.18.0.0/25".parse() else { unreachable!("a network") };
    let config = NatConfig {
        limits: NatLimits::of_mappings(mappings, 10_000),
        ..NatConfig::new(vec![pool], 40_000..=59_999)
    };
    Nat::new(now, &config, Rng::new([7; 32]))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// Fills a NAT and returns nanoseconds for each mapping: of the best thousandth part, and in all.
fn fill(nat: &mut Nat, mappings: u32, now: Instant, packet: &mut Packet) -> (f64, f64) {
    let part = mappings / 1_000;
    let (mut best, mut all) = (f64::MAX, 0.0);
    for first in (0..mappings).step_by(part as usize) {
        let start = clock();
        for n in first..first + part {
            packet.set(inside(n), (SERVER, 443));
            assert!(packet.outbound(nat, now), "there is room");
        }
        let each = start.elapsed().as_nanos() as f64 / f64::from(part);
        best = best.min(each);
        all += each / 1_000.0;
    }
    (best, all)
}

/// Nanoseconds for each of many packets of random mappings, so many in a turn: of the best round, and
/// of the median. What `end` gives for a mapping is got together before the time is taken.
fn rounds(
    rng: &mut Rng,
    (mappings, in_turn): (u32, usize),
    end: impl Fn(u32) -> (Ipv4Addr, u16),
    mut turn: impl FnMut(&[(Ipv4Addr, u16)]) -> bool,
) -> (f64, f64) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let chosen: Vec<_> = (0..ROUND).map(|_| end(rng.below(mappings))).collect();
            let start = clock();
            assert!(chosen.chunks(in_turn).all(&mut turn), "every mapping is known");
            start.elapsed().as_nanos() as f64 / ROUND as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[ROUNDS / 2])
}

/// Which way packets go.
#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

/// Hands the packets of a turn over as the node does; each packet alone if they are one.
fn turn(
    (protocol, way): (u8, Way),
    nat: &mut Nat,
    now: Instant,
) -> impl FnMut(&[(Ipv4Addr, u16)]) -> bool + use<'_> {
    let mut packets: Vec<_> = (0..64).map(|_| Packet::new(protocol, tcp_flag::ACK)).collect();
    let server = (SERVER, 443);
    move |ends| {
        let packets = &mut packets[..ends.len()];
        for (packet, &end) in packets.iter_mut().zip(ends) {
            match way {
                Way::Out => packet.set(end, server),
                Way::In => packet.set(server, end),
            }
        }
        let ahead = nat.is_large() && ends.len() > 1;
        match way {
            Way::Out => {
                if ahead {
                    nat.look_ahead(packets.iter().map(|packet| (REALM, &packet.headers)));
                }
                packets.iter_mut().all(|packet| packet.outbound(nat, now))
            }
            Way::In => {
                if ahead {
                    nat.look_ahead_inbound(packets.iter().map(|packet| packet.headers));
                }
                packets.iter_mut().all(|packet| packet.inbound(nat, now))
            }
        }
    }
}

fn ends(nat: &Nat) -> Vec<(Ipv4Addr, u16)> {
    let v4 = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => (address, end.port()),
        IpAddr::V6(_) => unreachable!("the pool is IPv4"),
    };
    nat.iter_from(MappingId(0)).map(|view| v4(view.outside)).collect()
}

/// Ends everything in steps of 256, and returns the nanoseconds of the longest one and of all for
/// each mapping.
fn expire(nat: &mut Nat, now: Instant) -> (f64, f64) {
    let mappings = nat.counts().mappings as f64;
    let (mut longest, mut all) = (0.0_f64, 0.0);
    let mut left = 0;
    while left == 0 {
        let start = clock();
        left = nat.expire(now, 256);
        let time = start.elapsed().as_nanos() as f64;
        longest = longest.max(time);
        all += time;
    }
    (longest, all / mappings)
}

/// Nanoseconds of one access to memory that no cache holds, each known only after the one before: a
/// walk over as many records of 128 bytes as there are mappings, in random order.
fn memory(rng: &mut Rng, records: u32) -> f64 {
    let mut order: Vec<u32> = (0..records).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at as u32 + 1) as usize);
    }
    let mut next = vec![[0_u32; 32]; records as usize];
    for pair in order.windows(2) {
        next[pair[0] as usize][0] = pair[1];
    }
    let mut at = order[0];
    let start = clock();
    for _ in 1..records {
        at = next[at as usize][0];
    }
    let each = start.elapsed().as_nanos() as f64 / f64::from(records);
    assert_eq!(Some(&at), order.last(), "the walk ends at the last one");
    each
}

fn main() {
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "ns: new mapping best, mean; packet out, of a turn of each of {TURNS:?}, best, median;\n    \
         packet in, the same; longest 256 steps of expiry (us), expiry of a mapping"
    );
    let mut rng = Rng::new([9; 32]);
    for records in SIZES {
        let each = memory(&mut rng, records);
        let _ = writeln!(out, "one access to {records} records of 128 bytes: {each:.1}");
    }
    for (name, protocol, flags) in [("udp", 17, 0), ("tcp", 6, tcp_flag::SYN)] {
        for mappings in SIZES {
            let now = Instant::from_micros(1_000_000);
            let mut nat = nat(now, mappings);
            let made = fill(&mut nat, mappings, now, &mut Packet::new(protocol, flags));
            let outbound = TURNS.map(|packets| {
                let turn = turn((protocol, Way::Out), &mut nat, now);
                rounds(&mut rng, (mappings, packets), inside, turn)
            });
            let ends = ends(&nat);
            let inbound = TURNS.map(|packets| {
                let turn = turn((protocol, Way::In), &mut nat, now);
                rounds(&mut rng, (mappings, packets), |n| ends[n as usize], turn)
            });
            let (longest, each) = expire(&mut nat, now + Duration::from_secs(10_000));
            assert_eq!(nat.counts().mappings, 0, "all are over");
            let _ = write!(out, "{name} {mappings:8}:");
            let all = [&[made][..], &outbound, &inbound, &[(longest / 1_000.0, each)]];
            for (best, typical) in all.concat() {
                let _ = write!(out, " {best:8.1} {typical:8.1};");
            }
            let _ = writeln!(out);
        }
    }
}
