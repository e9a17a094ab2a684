//! Attackers against real nodes in virtual time: outsiders who record, replay, forge, cut, splice
//! and re-source datagrams, and members who lie.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rongate::id::{PeerIndex, UplinkIndex};
use rongate::packet::{Gso, Vnet};
use rongate::path::PathId;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator, Tapped};
use rongate::telemetry::DropReason;
use rongate::tunnel::{Identity, Source, Suites, TunnelConfig, Tunnels};
use rongate::wire::{Control, ControlWriter, Flags, RelayRepr};
use support::udp;

const UPLINK: UplinkIndex = UplinkIndex(0);
const INTERNET: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(site: u8) -> SocketAddr {
    SocketAddr::new(Mesh::underlay(site, 0), 4710)
}

fn elsewhere() -> SocketAddr {
    "203.0.113.200:9".parse().unwrap()
}

fn mesh(sites: u8) -> Mesh {
    Mesh { sites, ..Mesh::default() }
}

/// A mesh in which everybody has had time to meet everybody.
fn running(mesh: Mesh) -> Simulator {
    let mut simulator = Simulator::new(mesh.configs(), LinkModel::default(), 1);
    simulator.run_for(Duration::from_secs(5));
    simulator.take_tapped();
    simulator.take_deliveries();
    simulator
}

/// "Fragmentation needed" from `from` to `to` about `about`.
fn too_big(from: Ipv4Addr, to: Ipv4Addr, about: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 576 },
    );
    etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        .icmpv4(kind)
        .write(&mut packet, &about[..28])
        .unwrap();
    packet
}

fn source(packet: &[u8]) -> (Ipv4Addr, u16) {
    let address: [u8; 4] = packet[12..16].try_into().unwrap();
    (address.into(), u16::from_be_bytes([packet[20], packet[21]]))
}

fn drops(simulator: &Simulator, node: usize, reason: DropReason) -> u64 {
    let counters = simulator.node(node).unwrap().counters();
    counters.drops().find(|drop| drop.0 == reason).map_or(0, |drop| drop.1)
}

/// A member of the overlay whose gateway is not ours: it has its own keys, and says what it likes.
struct Rogue {
    tunnels: Tunnels,
    site: u8,
}

impl Rogue {
    const PATH: PathId = PathId(0);

    /// Takes the place of `site` and makes itself a tunnel to site 0.
    fn join(simulator: &mut Simulator, site: u8) -> Self {
        simulator.kill(usize::from(site));
        simulator.run_for(ms(100));
        let config = TunnelConfig {
            identity: Identity::from_private([site + 1; 32]),
            preshared_key: None,
            suites: Suites::default(),
            peers: vec![Identity::from_private([1; 32]).public()],
            load_threshold: TunnelConfig::LOAD_THRESHOLD,
        };
        let mut tunnels = Tunnels::new(simulator.now(), config, Rng::new([99; 32]));
        let mut message = Vec::new();
        simulator.take_tapped();
        tunnels.initiate(simulator.now(), simulator.wall(), PeerIndex(0), &mut message).unwrap();
        simulator.inject(0, UPLINK, at(site), &message);
        simulator.run_for(ms(1));
        let response = simulator.take_tapped();
        let response = response.iter().find(|t| t.destination == at(site) && t.bytes[0] == 2);
        let response = &response.expect("a response").bytes;
        let (now, wall) = (simulator.now(), simulator.wall());
        let from = Source::Direct(at(0));
        tunnels.handle_handshake(now, wall, from, response, &mut message).unwrap();
        Self { tunnels, site }
    }

    fn seal(&mut self, simulator: &Simulator, flags: Flags, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; 32 + plaintext.len()];
        datagram[16..16 + plaintext.len()].copy_from_slice(plaintext);
        let mut sealer = self.tunnels.sealer(simulator.now(), PeerIndex(0), Self::PATH).unwrap();
        sealer.seal(flags, &mut datagram).unwrap();
        datagram
    }

    /// Sends an inner packet, and says what site 0 delivered of it.
    fn send(&mut self, simulator: &mut Simulator, packet: &[u8]) -> Vec<Vec<u8>> {
        simulator.take_deliveries();
        let datagram = self.seal(simulator, Flags::NONE, packet);
        simulator.inject(0, UPLINK, at(self.site), &datagram);
        simulator.run_for(ms(1));
        simulator.take_deliveries().into_iter().map(|delivery| delivery.packet).collect()
    }
}

#[test]
fn an_inner_datagram_without_its_relay_header_changes_nothing() {
    let mut simulator = running(mesh(3));
    simulator.network.set_both(at(0).ip(), at(1).ip(), |link| link.up = false);
    simulator.run_for(Duration::from_secs(5));
    simulator.take_tapped();
    let packet = udp((Mesh::host(0, 5), 1), (Mesh::host(1, 5), 2), b"over the relay");
    simulator.send(0, &packet);
    simulator.run_for(ms(12));
    let tapped = simulator.take_tapped();
    let on_last_hop =
        |t: &&Tapped| t.destination == at(1) && t.bytes[0] == 5 && t.bytes.len() > 76 + 40;
    let last_hop = tapped.iter().find(on_last_hop).expect("a relayed datagram");
    let before = drops(&simulator, 1, DropReason::RelaySpoofed);
    simulator.inject(1, UPLINK, at(2), &last_hop.bytes[44..]);
    simulator.run_for(ms(100));
    assert_eq!(drops(&simulator, 1, DropReason::RelaySpoofed), before + 1);
    let delivered = simulator.take_deliveries();
    assert!(delivered.iter().any(|d| d.node == 1 && d.packet == packet), "it came by its way");
}

#[test]
fn an_icmp_error_of_a_member_is_about_its_own_flows_only() {
    let mut simulator = running(mesh(3));
    let mut rogue = Rogue::join(&mut simulator, 2);
    let (host, theirs) = (Mesh::host(0, 5), Mesh::host(2, 5));
    let about_others = udp((host, 1), (Mesh::host(1, 5), 2), b"to another site");
    assert_eq!(rogue.send(&mut simulator, &too_big(theirs, host, &about_others)).len(), 0);
    assert_eq!(drops(&simulator, 0, DropReason::UnrelatedIcmpError), 1);
    let about_them = udp((host, 1), (theirs, 2), b"to them");
    let right = too_big(theirs, host, &about_them);
    assert_eq!(rogue.send(&mut simulator, &right), std::slice::from_ref(&right));
    // It tells somebody else than the one who sent the packet.
    let misled = too_big(theirs, Mesh::host(0, 6), &about_them);
    assert_eq!(rogue.send(&mut simulator, &misled).len(), 0);
}

#[test]
fn inner_sources_and_destinations_of_others_are_refused() {
    let mut simulator = running(Mesh { exits: true, ..mesh(3) });
    let mut rogue = Rogue::join(&mut simulator, 2);
    let (host, theirs) = (Mesh::host(0, 5), Mesh::host(2, 5));
    for from in [Mesh::host(1, 5), Mesh::host(0, 6), Mesh::overlay(0), Mesh::overlay(1), INTERNET] {
        assert_eq!(rogue.send(&mut simulator, &udp((from, 1), (host, 2), b"")).len(), 0, "{from}");
    }
    assert_eq!(drops(&simulator, 0, DropReason::SpoofedSource), 5);
    let to = [[127, 0, 0, 1], [10, 200, 0, 1], [169, 254, 1, 1], [224, 0, 0, 1], [10, 2, 0, 5]];
    for to in to.map(Ipv4Addr::from) {
        assert_eq!(rogue.send(&mut simulator, &udp((theirs, 1), (to, 2), b"")).len(), 0, "{to}");
    }
    assert_eq!(rogue.send(&mut simulator, &udp((theirs, 1), (host, 2), b"")).len(), 1);
}

#[test]
fn nobody_has_relayed_what_it_says_others_sent() {
    let mut simulator = running(mesh(3));
    let mut rogue = Rogue::join(&mut simulator, 2);
    let [victim, target] = [1, 0].map(|site: u8| Identity::from_private([site + 1; 32]).id());
    let own = Identity::from_private([3; 32]).id();
    let mut ask = |simulator: &mut Simulator, src, dst| {
        let repr = RelayRepr { src, dst, hop_limit: 2, class: 0, flow_hash: 0 };
        let inner = rogue.seal(simulator, Flags::NONE, b"whatever");
        let mut datagram = [&[0; 44][..], &inner].concat();
        let now = simulator.now();
        rogue.tunnels.seal_relay(now, PeerIndex(0), Rogue::PATH, &repr, &mut datagram).unwrap();
        let relayed = simulator.node(0).unwrap().counters().relayed.packets;
        let spoofed = drops(simulator, 0, DropReason::RelaySpoofed);
        simulator.inject(0, UPLINK, at(2), &datagram);
        simulator.run_for(ms(1));
        let counters = simulator.node(0).unwrap().counters();
        let refused = drops(simulator, 0, DropReason::RelaySpoofed) - spoofed;
        (counters.relayed.packets - relayed, refused)
    };
    let third = Identity::from_private([77; 32]).id();
    assert_eq!(ask(&mut simulator, own, victim), (1, 0), "its own datagram is relayed");
    assert_eq!(ask(&mut simulator, victim, victim), (0, 1));
    assert_eq!(ask(&mut simulator, target, victim), (0, 1));
    assert_eq!(ask(&mut simulator, third, victim), (0, 1));
}

/// A mesh in which `host(0, 5)` has a mapping at the exit of site 1; its outside endpoint.
fn with_mapping(mesh: Mesh) -> (Simulator, (Ipv4Addr, u16)) {
    let mut simulator = running(mesh);
    // Site 0 alone measures; the nearest exit is site 1.
    simulator.send(0, &udp((Mesh::host(0, 5), 4000), (INTERNET, 53), b"question"));
    simulator.run_for(ms(50));
    let deliveries = simulator.take_deliveries();
    let out = deliveries.iter().find(|d| d.node == 1).expect("it leaves at site 1");
    (simulator, source(&out.packet))
}

#[test]
fn nobody_outside_passes_for_a_host_of_the_overlay() {
    let (mut simulator, outside) = with_mapping(Mesh { exits: true, ..mesh(2) });
    for from in [Mesh::host(1, 7), Mesh::overlay(1), Mesh::host(0, 9)] {
        simulator.send(1, &udp((from, 53), outside, b"I am one of yours"));
        simulator.run_for(ms(50));
        let arrived = simulator.take_deliveries();
        let inside = arrived.iter().filter(|d| d.node == 0);
        for delivery in inside {
            assert_ne!(source(&delivery.packet).0, from);
        }
    }
    simulator.send(1, &udp((INTERNET, 53), outside, b"answer"));
    simulator.run_for(ms(50));
    assert_eq!(simulator.take_deliveries().len(), 1);
}

#[test]
fn fragments_of_an_answer_come_back_from_the_exit() {
    let (mut simulator, outside) = with_mapping(Mesh { exits: true, ..mesh(2) });
    let whole = udp((INTERNET, 53), outside, &[7; 64]);
    let mut first = whole[..20 + 32].to_vec();
    let mut second = whole[..20].to_vec();
    second.extend_from_slice(&whole[20 + 32..]);
    for (fragment, field) in [(&mut first, 0x2000u16), (&mut second, 32 / 8)] {
        let len = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&len.to_be_bytes());
        fragment[4..6].copy_from_slice(&[0x12, 0x34]);
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        fix_ipv4_checksum(fragment);
        simulator.send(1, fragment);
    }
    simulator.run_for(ms(50));
    let arrived = simulator.take_deliveries();
    assert_eq!(arrived.iter().filter(|d| d.node == 0).count(), 2, "{arrived:?}");
    // A fragment of nothing that was asked for stays out.
    second[4] = 0x77;
    fix_ipv4_checksum(&mut second);
    simulator.send(1, &second);
    simulator.run_for(ms(50));
    assert_eq!(simulator.take_deliveries().len(), 0);
}

fn fix_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum: u32 =
        packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&folded.to_be_bytes());
}

#[test]
fn the_internet_is_told_of_errors_in_outside_addresses() {
    let (mut simulator, outside) = with_mapping(Mesh { exits: true, ..mesh(2) });
    simulator.network.set_both(at(0).ip(), at(1).ip(), |link| link.up = false);
    simulator.run_for(Duration::from_secs(10));
    let packet = udp((INTERNET, 53), outside, b"too late");
    simulator.send(1, &packet);
    let told = simulator.take_deliveries();
    let told = &told.first().expect("an error").packet;
    assert_eq!((told[9], told[20]), (1, 3));
    assert_eq!(Ipv4Addr::from(<[u8; 4]>::try_from(&told[16..20]).unwrap()), INTERNET);
    assert_eq!(source(told).0, outside.0, "from the outside address");
    assert_eq!(&told[28 + 12..28 + 24], &packet[12..24], "the packet as it was outside");
}

#[test]
fn a_member_cannot_make_us_flood_a_third_party() {
    let mut simulator = running(mesh(3));
    let mut rogue = Rogue::join(&mut simulator, 2);
    let mut body = vec![0; 65_000];
    let mut writer = ControlWriter::new(&mut body);
    let messages = [
        Control::PathChallenge(1),
        Control::Probe(rongate::wire::Probe { seq: 1, sent_us: 1 }),
        Control::MtuProbe(1_400),
    ];
    for message in messages.iter().cycle().take(300) {
        assert!(writer.push(message));
    }
    let len = writer.len();
    let datagram = rogue.seal(&simulator, Flags::CONTROL, &body[..len]);
    // A small one too, with as many different questions as it can hold.
    let mut body = [0; 64];
    let mut writer = ControlWriter::new(&mut body);
    assert!(messages.iter().all(|message| writer.push(message)));
    let len = writer.len();
    let small = rogue.seal(&simulator, Flags::CONTROL, &body[..len]);
    for datagram in [datagram, small] {
        simulator.take_tapped();
        simulator.inject(0, UPLINK, elsewhere(), &datagram);
        simulator.run_for(Duration::from_secs(5));
        let tapped = simulator.take_tapped();
        let sent = tapped.iter().filter(|t| t.destination == elsewhere());
        let (count, bytes) = sent.fold((0, 0), |(n, b), t| (n + 1, b + t.bytes.len()));
        assert!(bytes <= 3 * datagram.len(), "{bytes} for {}", datagram.len());
        assert!(count <= 8, "{count} datagrams for one");
    }
}

#[test]
fn a_path_that_passes_no_full_datagram_is_not_flooded_with_size_probes() {
    let link = LinkModel { max_payload: 600, delay: ms(1), ..LinkModel::default() };
    let mut simulator = Simulator::new(mesh(2).configs(), link, 3);
    simulator.run_for(Duration::from_secs(60));
    simulator.take_tapped();
    simulator.run_for(Duration::from_secs(60));
    let tapped = simulator.take_tapped();
    let from_one: usize = tapped.iter().filter(|t| t.source == at(0)).map(|t| t.bytes.len()).sum();
    assert!(from_one * 8 / 60 < 33_000, "{} bit/s", from_one * 8 / 60);
}

#[test]
fn replayed_and_mangled_datagrams_change_nothing() {
    let mut simulator = running(mesh(3));
    for port in 0..20 {
        simulator.send(0, &udp((Mesh::host(0, 5), port), (Mesh::host(1, 5), 9), b"secret"));
        simulator.run_for(ms(200));
    }
    let recorded = simulator.take_tapped();
    assert!(recorded.len() > 100);
    let endpoints = |simulator: &Simulator| {
        let node = simulator.node(1).unwrap();
        let peers = node.peers(simulator.now());
        peers.iter().flat_map(|p| p.links.iter().map(|l| l.endpoint)).collect::<Vec<_>>()
    };
    let (before, flows) = (endpoints(&simulator), simulator.node(1).unwrap().flow_counts());
    simulator.take_deliveries();
    let mut rng = Rng::new([5; 32]);
    simulator.take_tapped();
    let mut injected = 0;
    for tapped in recorded.iter().filter(|t| t.destination == at(1)) {
        let mut mangled = tapped.bytes.clone();
        let byte = rng.below(mangled.len() as u32) as usize;
        mangled[byte] ^= 1 << rng.below(8);
        let cut = &tapped.bytes[..rng.below(tapped.bytes.len() as u32) as usize];
        let spliced = [cut, &recorded[0].bytes[..]].concat();
        for bytes in [&tapped.bytes, &mangled, &spliced, &cut.to_vec()] {
            simulator.inject(1, UPLINK, elsewhere(), bytes);
            injected += bytes.len();
        }
    }
    simulator.run_for(Duration::from_secs(3));
    assert!(simulator.take_deliveries().is_empty());
    assert_eq!(endpoints(&simulator), before);
    assert_eq!(simulator.node(1).unwrap().flow_counts(), flows);
    let answered: usize = simulator
        .take_tapped()
        .iter()
        .filter(|t| t.destination == elsewhere())
        .map(|t| t.bytes.len())
        .sum();
    assert!(answered <= injected / 10, "{answered} of {injected}");
    simulator.send(0, &udp((Mesh::host(0, 5), 1), (Mesh::host(1, 5), 9), b"still there"));
    simulator.run_for(ms(100));
    assert_eq!(simulator.take_deliveries().len(), 1);
}

/// Whatever happens, a node that has done what was due is at rest until later.
#[test]
fn no_deadline_stays_in_the_past() {
    for seed in [0, 3u8] {
        let mut configs = Mesh { uplinks: 1 + seed % 2, exits: seed > 1, ..mesh(4) }.configs();
        // One of them always calls; nobody knows where it is.
        for config in &mut configs {
            let wanderer = Identity::from_private([4; 32]).public();
            for peer in config.peers.iter_mut().filter(|peer| peer.public_key == wanderer) {
                peer.endpoints.clear();
            }
        }
        let link = LinkModel { loss: 0.05, jitter: ms(20), ..LinkModel::default() };
        let mut simulator = Simulator::new(configs, link, u64::from(seed));
        let mut rng = Rng::new([seed; 32]);
        for round in 0..250u32 {
            misfortune(&mut simulator, &mut rng, round);
            let (a, b) = (rng.below(4) as u8, rng.below(4) as u8);
            simulator.send(a.into(), &udp((Mesh::host(a, 1), 1), (Mesh::host(b, 1), 2), b"x"));
            simulator.run_for(ms(u64::from(1 + rng.below(4_000))));
        }
        let most = simulator.most_turns_at_once();
        assert!(most <= 4, "seed {seed}: {most} turns at one instant");
    }
}

fn misfortune(simulator: &mut Simulator, rng: &mut Rng, round: u32) {
    let (a, b) = (rng.below(4) as u8, rng.below(4) as u8);
    let site = usize::from(a);
    match rng.below(12) {
        0 => simulator.kill(site),
        1..=3 if simulator.node(site).is_none() => simulator.start(site),
        4 => {
            let address = format!("203.0.113.{}:4710", 1 + round % 250);
            simulator.readdress(3, UPLINK, address.parse().unwrap());
        }
        5 => simulator.run_for(Duration::from_secs(u64::from(rng.below(400)))),
        6 => simulator.network.set_both(at(a).ip(), at(b).ip(), |link| link.max_payload = 700),
        7 => simulator.network.set(at(a).ip(), at(b).ip(), |link| link.delay = Duration::ZERO),
        8..=9 => simulator.network.set(at(a).ip(), at(b).ip(), |link| link.up = false),
        _ => simulator.network.set_both(at(a).ip(), at(b).ip(), |link| link.up = true),
    }
}

/// Bytes without sense, and with a little: nothing panics, every one is counted.
#[test]
fn no_input_is_a_panic() {
    let mut simulator = running(Mesh { exits: true, ..mesh(3) });
    let mut rogue = Rogue::join(&mut simulator, 2);
    let mut rng = Rng::new([8; 32]);
    let seeds = [
        udp((Mesh::host(2, 5), 1), (Mesh::host(0, 5), 2), &[3; 200]),
        udp((Mesh::host(2, 5), 1), (INTERNET, 2), &[3; 200]),
        too_big(Mesh::host(2, 5), Mesh::host(0, 5), &[0x45; 60]),
    ];
    for round in 0..6_000 {
        let mut bytes = vec![0; rng.below(300) as usize];
        rng.fill(&mut bytes);
        if rng.chance(0.7) {
            bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=rng.below(6) {
                let byte = rng.below(bytes.len() as u32) as usize;
                bytes[byte] = rng.next_u32() as u8;
            }
            bytes.truncate(1 + rng.below(bytes.len() as u32) as usize);
        }
        let flags = Flags::from_bits(rng.next_u32() as u8 & 0x3f).unwrap_or(Flags::NONE);
        let sealed = rogue.seal(&simulator, flags, &bytes);
        simulator.inject(0, UPLINK, at(2), &sealed);
        simulator.inject(0, UPLINK, at(2), &bytes);
        let gso = [Gso::None, Gso::Tcp { ecn: false }, Gso::Udp][round % 3];
        let vnet = Vnet { gso, segment_size: rng.below(400) as u16, ..Vnet::default() };
        simulator.send_frame(0, &bytes, vnet);
        simulator.run_for(ms(1));
        simulator.take_tapped();
        simulator.take_deliveries();
    }
    let packet = udp((Mesh::host(0, 5), 1), (Mesh::host(1, 5), 2), b"still there");
    simulator.send(0, &packet);
    simulator.run_for(ms(50));
    assert!(simulator.take_deliveries().iter().any(|d| d.packet == packet));
}
