//! Real nodes joined by copying: what one sends lies in the receive buffers of the next.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use rongate::batch::{Output, RxBatch};
use rongate::id::UplinkIndex;
use rongate::nat::NatLimits;
use rongate::node::{Node, NodeConfig, TunVerdict};
use rongate::packet::{Gso, Headers, Vnet, checksum};
use rongate::sim::Mesh;
use rongate::time::{Instant, WallClock};

/// Payload bytes of a full TCP segment; with its headers 1388 bytes.
pub(crate) const MSS: usize = 1_348;
/// Segments of a train.
pub(crate) const TRAIN: usize = 45;
/// Receive buffers of a turn.
const SLOTS: usize = 32;

/// How the two sites hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Site 0 and site 1.
    Direct,
    /// The same, and only site 2 joins them.
    Relayed,
    /// Site 1 is the exit of site 0.
    Exit,
}

/// A frame as the TUN hands it over.
pub(crate) type Frame = (Vec<u8>, Vnet);

pub(crate) struct Overlay {
    pub(crate) nodes: Vec<Node>,
    listen: Vec<SocketAddr>,
    pub(crate) now: Instant,
    pub(crate) rx: RxBatch,
    /// Where datagrams are put that are on their second hop.
    spare: RxBatch,
    pub(crate) out: Output,
}

fn wall(now: Instant) -> WallClock {
    WallClock(1_700_000_000_000_000_000 + now.as_micros() * 1_000)
}

fn configs(shape: Shape) -> Vec<NodeConfig> {
    let sites = if shape == Shape::Relayed { 3 } else { 2 };
    let mesh = Mesh { sites, exits: shape == Shape::Exit, ..Mesh::default() };
    let mut configs = mesh.configs();
    if shape == Shape::Relayed {
        for config in &mut configs[..2] {
            config.peers[0].endpoints.clear();
        }
    }
    for egress in configs.iter_mut().filter_map(|config| config.egress.as_mut()) {
        egress.nat.pool = outside();
        egress.nat.limits = NatLimits::of_mappings(262_144, 16_384);
    }
    configs
}

/// The pool of a NAT.
pub(crate) fn outside() -> Vec<IpNet> {
    let net = Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 24);
    net.into_iter().map(IpNet::from).collect()
}

impl Overlay {
    /// Nodes with tunnels, after some seconds of probing.
    pub(crate) fn connected(shape: Shape, millis: u64) -> Self {
        let configs = configs(shape);
        let now = Instant::from_micros(1_000_000);
        let listen = configs.iter().map(|config| config.uplinks[0].listen).collect();
        let nodes = configs.into_iter().zip(1..);
        let nodes = nodes.map(|(config, seed)| Node::new(config, [seed; 32], now, wall(now)));
        let mut this = Self {
            nodes: nodes.collect(),
            listen,
            now,
            rx: RxBatch::new(SLOTS),
            spare: RxBatch::new(SLOTS),
            out: Output::new(64),
        };
        this.run(millis);
        this
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            for from in 0..self.nodes.len() {
                self.nodes[from].handle_timeout(self.now, wall(self.now), &mut self.out);
                self.settle(from);
            }
        }
    }

    /// Carries what `from` has put out to where it goes, and the answers, until there are none.
    fn settle(&mut self, from: usize) {
        let mut flying = std::collections::VecDeque::new();
        self.launch(from, &mut flying);
        while let Some((from, to, bytes, stride)) = flying.pop_front() {
            let slot = &mut self.rx.slots[0];
            slot.buffer[..bytes.len()].copy_from_slice(&bytes);
            (slot.len, slot.stride, slot.source) = (bytes.len(), stride, self.listen[from]);
            self.rx.filled = 1;
            self.receive(to);
            self.launch(to, &mut flying);
        }
    }

    fn launch(
        &mut self,
        from: usize,
        flying: &mut std::collections::VecDeque<(usize, usize, Vec<u8>, usize)>,
    ) {
        let site = |to: SocketAddr| self.listen.iter().position(|listen| *listen == to);
        for transmit in self.out.tx.transmits() {
            if let Some(to) = site(transmit.target.destination) {
                flying.push_back((from, to, transmit.bytes().to_vec(), transmit.stride));
            }
        }
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let bytes = self.rx.slots[usize::from(forward.slot)].buffer[range].to_vec();
            if let Some(to) = site(forward.target.destination) {
                flying.push_back((from, to, bytes, forward.stride as usize));
            }
        }
        self.out.clear();
    }

    /// A turn of `site` that takes frames from the TUN. Returns the datagrams it sealed.
    pub(crate) fn send(&mut self, site: usize, frames: &mut [Frame]) -> usize {
        for (frame, vnet) in &mut *frames {
            let verdict = self.nodes[site].handle_tun_frame(self.now, frame, *vnet, &mut self.out);
            assert_eq!(verdict, TunVerdict::Consumed);
        }
        self.nodes[site].end_turn(self.now, &mut self.rx, &mut self.out);
        self.out.tx.transmits().iter().map(|transmit| transmit.segments).sum()
    }

    /// Moves what `from` sent into the receive buffers. All of it must go to one site.
    pub(crate) fn carry(&mut self, from: usize) {
        let mut filled = 0;
        let target = &mut self.spare;
        let mut put = |bytes: &[u8], stride: usize| {
            let slot = &mut target.slots[filled];
            slot.buffer[..bytes.len()].copy_from_slice(bytes);
            (slot.len, slot.stride) = (bytes.len(), stride);
            (slot.source, slot.uplink) = (self.listen[from], UplinkIndex(0));
            filled += 1;
        };
        for transmit in self.out.tx.transmits() {
            put(transmit.bytes(), transmit.stride);
        }
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let bytes = &self.rx.slots[usize::from(forward.slot)].buffer[range];
            put(bytes, forward.stride as usize);
        }
        self.spare.filled = filled;
        std::mem::swap(&mut self.rx, &mut self.spare);
        self.out.clear();
    }

    /// A turn of `site` that takes what lies in the receive buffers.
    pub(crate) fn receive(&mut self, site: usize) {
        self.nodes[site].handle_datagrams(self.now, &mut self.rx, &mut self.out);
        self.nodes[site].end_turn(self.now, &mut self.rx, &mut self.out);
    }

    /// Packets that wait to be written to the TUN.
    pub(crate) fn delivered(&self) -> usize {
        self.out.tun_writes.iter().map(|write| write.segments as usize).sum()
    }

    /// The first frame that waits to be written to the TUN, whole.
    pub(crate) fn first_write(&self) -> Frame {
        let write = &self.out.tun_writes[0];
        let parts = self.out.parts[write.parts.clone()].iter();
        let bytes = parts.flat_map(|part| self.out.part(&self.rx, *part)).copied();
        (bytes.collect(), write.vnet)
    }
}

/// An IPv4 packet with a partial checksum.
pub(crate) fn packet(
    [source, destination]: [Ipv4Addr; 2],
    protocol: u8,
    upper: &[u8],
    gso: Gso,
    segment_size: usize,
) -> Frame {
    let total = 20 + upper.len();
    let mut bytes = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, 64, protocol];
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&source.octets());
    bytes.extend_from_slice(&destination.octets());
    bytes.extend_from_slice(upper);
    checksum::fill_ipv4(&mut bytes[..20]);
    let Ok(headers) = Headers::parse(&bytes) else { unreachable!("it is well formed") };
    let Some(vnet) = checksum::partial_vnet(&headers) else { unreachable!("TCP or UDP") };
    let len = upper.len() as u32;
    let partial =
        checksum::pseudo_header(headers.source, headers.destination, protocol, len).fold();
    let at = usize::from(vnet.checksum_start + vnet.checksum_offset);
    bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    (bytes, Vnet { gso, segment_size: segment_size as u16, ..vnet })
}

/// A TCP packet.
pub(crate) fn tcp(
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    flags: u8,
    payload: usize,
    gso: Gso,
) -> Frame {
    let mut upper = Vec::with_capacity(20 + payload);
    upper.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    upper.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    upper.extend((0..payload).map(|i| i as u8));
    packet(addresses, 6, &upper, gso, if gso == Gso::None { 0 } else { MSS })
}

/// A TCP super-packet of [`TRAIN`] segments.
pub(crate) fn tcp_train(addresses: [Ipv4Addr; 2], ports: [u16; 2]) -> Frame {
    tcp(addresses, ports, 0x10, MSS * TRAIN, Gso::Tcp { ecn: false })
}

/// A UDP packet of 100 bytes, headers not counted.
pub(crate) fn udp(addresses: [Ipv4Addr; 2], ports: [u16; 2]) -> Frame {
    let mut upper: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    upper.extend_from_slice(&[0, 108, 0, 0]);
    upper.extend((0..100).map(|i| i as u8));
    packet(addresses, 17, &upper, Gso::None, 0)
}

/// From a host of site 0 to one of site 1.
pub(crate) fn across() -> [Ipv4Addr; 2] {
    [Mesh::host(0, 11), Mesh::host(1, 11)]
}

/// From a host of site 0 to the Internet.
pub(crate) fn outward() -> [Ipv4Addr; 2] {
    [Mesh::host(0, 11), Ipv4Addr::new(198, 18, 5, 5)]
}
