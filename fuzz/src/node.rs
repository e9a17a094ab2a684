//! A node among friends and a rogue: what hosts, outsiders and a member with keys of its own can
//! send it, in any order. Nothing panics, no counter lies, no table grows beyond its bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rongate::id::{PeerIndex, UplinkIndex};
use rongate::packet::{Headers, Vnet, checksum};
use rongate::path::PathId;
use rongate::rng::Rng;
use rongate::sim::{LinkModel, Mesh, Simulator, Tapped};
use rongate::tunnel::{Identity, Source, Suites, TunnelConfig, Tunnels};
use rongate::wire::{
    Advertisement, AdvertisementEntry, Control, ControlWriter, Flags, Probe, ProbeReply, RelayRepr,
    Report,
};

use super::bytes::Bytes;

const UPLINK: UplinkIndex = UplinkIndex(0);
const MESH: Mesh = Mesh { sites: 3, uplinks: 1, exits: true, ipv6: true };
/// Its place is taken by the rogue.
const ROGUE: u8 = 2;
const TAPPED_MAX: usize = 64;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut world = World::new();
    let mut steps = 0;
    while !bytes.is_empty() && steps < 60 {
        world.step(&mut bytes);
        steps += 1;
    }
    world.judge();
}

struct World {
    simulator: Simulator,
    rogue: Tunnels,
    /// What was on the wire lately.
    tapped: Vec<Tapped>,
}

fn at(site: u8) -> SocketAddr {
    SocketAddr::new(Mesh::underlay(site, 0), Mesh::PORT)
}

impl World {
    fn new() -> Self {
        let mut configs = MESH.configs();
        for config in &mut configs {
            if let Some(egress) = &mut config.egress {
                egress.pcp = true;
            }
        }
        let link = LinkModel { delay: Duration::from_micros(500), ..LinkModel::default() };
        let mut simulator = Simulator::stopped(configs, &[], link, 1);
        simulator.watch();
        simulator.take_tapped();
        simulator.start(0);
        simulator.start(1);
        simulator.run_for(Duration::from_millis(100));
        let config = TunnelConfig {
            identity: Identity::from_private([ROGUE + 1; 32]),
            preshared_key: None,
            suites: Suites::default(),
            peers: vec![Identity::from_private([1; 32]).public()],
            load_threshold: TunnelConfig::LOAD_THRESHOLD,
        };
        let rogue = Tunnels::new(simulator.now(), config, Rng::new([99; 32]));
        let mut world = Self { simulator, rogue, tapped: Vec::new() };
        world.join();
        world
    }

    /// The rogue makes itself a tunnel to site 0.
    fn join(&mut self) {
        let simulator = &mut self.simulator;
        let mut message = Vec::new();
        simulator.take_tapped();
        let (now, wall) = (simulator.now(), simulator.wall());
        if self.rogue.initiate(now, wall, PeerIndex(0), &mut message).is_err() {
            return;
        }
        simulator.inject(0, UPLINK, at(ROGUE), &message);
        simulator.run_for(Duration::from_millis(1));
        let (now, wall) = (simulator.now(), simulator.wall());
        for tapped in simulator.take_tapped() {
            if tapped.destination == at(ROGUE) && tapped.bytes[0] == 2 {
                let from = Source::Direct(at(0));
                let _ = self.rogue.handle_handshake(now, wall, from, &tapped.bytes, &mut message);
            }
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() % 12 {
            0 => {
                let pause = u64::from(bytes.u8());
                self.simulator.run_for(Duration::from_millis(pause * pause / 8));
            }
            1 => {
                let vnet = Vnet::parse(bytes.take(10)).unwrap_or_default();
                let packet = frame(bytes);
                self.simulator.send_frame(bytes.below(2), &packet, vnet);
            }
            2 | 3 => {
                let packet = frame(bytes);
                self.simulator.send(bytes.below(2), &packet);
            }
            4 => {
                let source = [at(1), at(ROGUE), "203.0.113.66:9".parse().unwrap()][bytes.below(3)];
                self.simulator.inject(0, UPLINK, source, bytes.some());
            }
            5 => self.meddle(bytes),
            6 => {
                let packet = frame(bytes);
                self.say(bytes.u16(), Flags::NONE, &packet);
            }
            7 | 8 => {
                let (path, flags) = (bytes.u16(), bytes.u8());
                if let Ok(flags) = Flags::from_bits(flags) {
                    self.say(path, flags, bytes.some());
                }
            }
            9 => {
                let (path, body) = (bytes.u16(), control(bytes));
                self.say(path, Flags::CONTROL, &body);
            }
            10 => self.relay(bytes),
            _ => self.join(),
        }
        self.simulator.run_for(Duration::from_millis(1));
        self.tapped.extend(self.simulator.take_tapped());
        let surplus = self.tapped.len().saturating_sub(TAPPED_MAX);
        self.tapped.drain(..surplus);
        self.simulator.take_deliveries();
    }

    /// Something that was on the wire comes again, perhaps changed.
    fn meddle(&mut self, bytes: &mut Bytes<'_>) {
        if self.tapped.is_empty() {
            return;
        }
        let mut letter = self.tapped[bytes.below(self.tapped.len())].clone();
        for _ in 0..bytes.below(3) {
            let (place, change) = (bytes.below(letter.bytes.len()), bytes.u8());
            letter.bytes[place] ^= change;
        }
        if bytes.u8() & 1 == 1 {
            letter.source = at(ROGUE);
        }
        let to = usize::from(letter.destination == at(1));
        self.simulator.inject(to, UPLINK, letter.source, &letter.bytes);
    }

    fn sealed(&mut self, path: u16, flags: Flags, plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut datagram = vec![0; 32 + plaintext.len()];
        datagram[16..16 + plaintext.len()].copy_from_slice(plaintext);
        let now = self.simulator.now();
        let mut sealer = self.rogue.sealer(now, PeerIndex(0), PathId(path)).ok()?;
        sealer.seal(flags, &mut datagram).ok()?;
        Some(datagram)
    }

    /// The rogue says something authentic.
    fn say(&mut self, path: u16, flags: Flags, plaintext: &[u8]) {
        if let Some(datagram) = self.sealed(path, flags, plaintext) {
            self.simulator.inject(0, UPLINK, at(ROGUE), &datagram);
        }
    }

    /// The rogue wants something relayed, or pretends to have relayed it.
    fn relay(&mut self, bytes: &mut Bytes<'_>) {
        let ids = [0, 1, ROGUE].map(|site| Identity::from_private([site + 1; 32]).id());
        let repr = RelayRepr {
            src: ids[bytes.below(3)],
            dst: ids[bytes.below(3)],
            hop_limit: bytes.u8() % 4,
            class: bytes.u8(),
            flow_hash: bytes.u16(),
        };
        let (what, path) = (bytes.u8(), bytes.u16());
        let inner = if what & 1 == 1 || self.tapped.is_empty() {
            self.sealed(path, Flags::NONE, bytes.some())
        } else {
            Some(self.tapped[bytes.below(self.tapped.len())].bytes.clone())
        };
        let Some(inner) = inner else { return };
        let mut datagram = vec![0; 44];
        datagram.extend_from_slice(&inner);
        let now = self.simulator.now();
        let hop = PathId(path);
        if self.rogue.seal_relay(now, PeerIndex(0), hop, &repr, &mut datagram).is_ok() {
            self.simulator.inject(0, UPLINK, at(ROGUE), &datagram);
        }
    }

    fn judge(&self) {
        let faults = self.simulator.audit().map_or(&[][..], |audit| audit.faults());
        // A rogue may have datagrams relayed as often as it likes, also those that it saw.
        let fault = faults.iter().find(|fault| !fault.contains("a datagram loops"));
        assert!(fault.is_none(), "{fault:?}");
        for site in 0..2 {
            let Some(node) = self.simulator.node(site) else { continue };
            let sizes = node.table_sizes();
            assert!(sizes.events <= 256 && sizes.mappings <= 1_024, "{sizes:?}");
            for peer in node.peers(self.simulator.now()) {
                assert!(peer.links.len() <= 64, "{} links", peer.links.len());
            }
        }
        assert!(self.simulator.most_turns_at_once() < 60);
    }
}

/// An IP packet: raw bytes, or one of the shapes that get far, with some of its bytes changed.
fn frame(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let shape = bytes.u8();
    if shape.is_multiple_of(8) {
        return bytes.some().to_vec();
    }
    let addresses = [
        Mesh::host(0, 5),
        Mesh::host(1, 5),
        Mesh::host(ROGUE, 5),
        Mesh::overlay(0),
        Mesh::overlay(1),
        Ipv4Addr::new(8, 8, 8, 8),
        Ipv4Addr::new(100, 64, 1, 1),
        Ipv4Addr::new(100, 64, 2, 1),
    ];
    let (source, destination) = (addresses[bytes.below(8)], addresses[bytes.below(8)]);
    let ports = [bytes.u8(), bytes.u8()].map(|port| match port {
        0 => 5351,
        1..100 => u16::from(port),
        port => 39_900 + u16::from(port),
    });
    let payload = bytes.some();
    let protocol = [17, 6, 1][usize::from(shape / 8) % 3];
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    match protocol {
        17 => {
            packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
            packet.extend((payload.len() as u16 + 8).to_be_bytes());
            packet.extend([0, 0]);
        }
        6 => {
            packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
            packet.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, bytes.u8(), 1, 0, 0, 0, 0, 0]);
        }
        _ => packet.extend([bytes.u8(), bytes.u8(), 0, 0, 0, 7, 0, 9]),
    }
    packet.extend(payload);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    for _ in 0..shape / 64 {
        let (place, value) = (bytes.below(packet.len()), bytes.u8());
        packet[place] = value;
    }
    if let Ok(headers) = Headers::parse(&packet) {
        checksum::fill_ipv4(&mut packet[..usize::from(headers.l4)]);
        checksum::complete(&mut packet, &headers);
    }
    packet
}

/// A control message with fields of the fuzzer's choice.
fn control(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let ids = [0, 1, ROGUE].map(|site| Identity::from_private([site + 1; 32]).id());
    let mut buffer = [0; 1_400];
    let mut writer = ControlWriter::new(&mut buffer);
    for _ in 0..1 + bytes.below(3) {
        match bytes.u8() % 10 {
            0 => {
                let (seq, sent_us) = (bytes.u32(), u64::from(bytes.u32()));
                let _ = writer.push(&Control::Probe(Probe { seq, sent_us }));
            }
            1 => {
                let reply = ProbeReply {
                    seq: bytes.u8().into(),
                    sent_us: bytes.u32().into(),
                    hold_us: bytes.u32(),
                    path: PathId(bytes.u16()),
                    loss: bytes.u16(),
                };
                let _ = writer.push(&Control::ProbeReply(reply));
            }
            2 => {
                let report = Report {
                    path: PathId(bytes.u16()),
                    age: bytes.u16(),
                    expected: bytes.u32(),
                    received: bytes.u32(),
                };
                let _ = writer.push(&Control::Report(report));
            }
            3..6 => {
                let head = Advertisement {
                    epoch: u64::from(bytes.u8()) << (bytes.u8() % 57),
                    seq: bytes.u8().into(),
                    part: bytes.u8() % 4,
                    parts: bytes.u8() % 5,
                    flags: bytes.u8() % 4,
                    spare_relay_kbit: bytes.u32(),
                };
                let entries: Vec<_> = (0..bytes.below(4))
                    .map(|_| AdvertisementEntry {
                        node: ids[bytes.below(3)],
                        latency_us: bytes.u32(),
                        loss: bytes.u16(),
                        flags: bytes.u8(),
                    })
                    .collect();
                let _ = writer.push_advertisement(&head, &entries);
            }
            _ => {
                // The rest in the shape of a frame: type, length, body.
                let (kind, body) = (bytes.u8() % 12, bytes.some());
                let len = writer.len();
                let mut frame = vec![kind];
                frame.extend((body.len() as u16).to_be_bytes());
                frame.extend(body);
                if len + frame.len() > 1_400 {
                    break;
                }
                let mut so_far = buffer[..len].to_vec();
                so_far.extend(frame);
                return so_far;
            }
        }
    }
    let len = writer.len();
    buffer[..len].to_vec()
}
