//! What two nodes cost without any input or output: TCP trains of 64 KiB and small datagrams, sealed
//! by one node and opened by the other. `cargo bench --bench datapath` prints nanoseconds per
//! packet; the smallest of many turns is what other work on the machine disturbs least.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use rongate::batch::{Output, RxBatch, TxBatch};
use rongate::id::UplinkIndex;
use rongate::node::{Node, TunVerdict};
use rongate::packet::{Gso, Headers, Vnet, checksum};
use rongate::sim::Mesh;
use rongate::time::{Instant, WallClock};

const TURNS: usize = 20_000;
const MSS: usize = 1_352;
const TRAIN: usize = 45;

struct Pair {
    nodes: [Node; 2],
    listen: [SocketAddr; 2],
    now: Instant,
    rx: RxBatch,
    out: Output,
}

fn wall(now: Instant) -> WallClock {
    WallClock(1_700_000_000_000_000_000 + now.as_micros() * 1_000)
}

impl Pair {
    /// Two nodes with a tunnel, after some seconds of probing.
    fn connected() -> Self {
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let now = Instant::from_micros(1_000_000);
        let listen = [configs[0].uplinks[0].listen, configs[1].uplinks[0].listen];
        let mut seed = 0;
        let nodes = configs.into_iter().map(|config| {
            seed += 1;
            Node::new(config, [seed; 32], now, wall(now))
        });
        let Ok(nodes) = nodes.collect::<Vec<_>>().try_into() else { unreachable!("two sites") };
        let mut pair = Self { nodes, listen, now, rx: RxBatch::new(32), out: Output::new(64) };
        for _ in 0..5_000 {
            pair.now += Duration::from_millis(1);
            for from in [0, 1] {
                pair.nodes[from].handle_timeout(pair.now, wall(pair.now), &mut pair.out);
                pair.carry(from);
            }
        }
        pair
    }

    /// Moves what `from` sent into the receive buffers.
    fn transmit(&mut self, from: usize) {
        self.rx.filled = 0;
        for transmit in self.out.tx.transmits() {
            let slot = &mut self.rx.slots[self.rx.filled];
            slot.buffer[..transmit.bytes().len()].copy_from_slice(transmit.bytes());
            (slot.len, slot.stride) = (transmit.bytes().len(), transmit.stride);
            (slot.source, slot.uplink) = (self.listen[from], UplinkIndex(0));
            self.rx.filled += 1;
        }
        self.out.clear();
    }

    /// Hands what waits to the receiver, and its answers back, until there are none.
    fn carry(&mut self, mut from: usize) {
        while !self.out.tx.is_empty() {
            self.transmit(from);
            from = 1 - from;
            self.nodes[from].handle_datagrams(self.now, &mut self.rx, &mut self.out);
            self.nodes[from].end_turn(self.now, &mut self.rx, &mut self.out);
        }
        self.out.clear();
    }

    /// Nanoseconds per packet of one turn, at the sender and at the receiver.
    fn turn(&mut self, frames: &mut [(Vec<u8>, Vnet)], packets: usize) -> [f64; 2] {
        self.now += Duration::from_micros(50);
        let start = clock();
        for (frame, vnet) in &mut *frames {
            let verdict = self.nodes[0].handle_tun_frame(self.now, frame, *vnet, &mut self.out);
            assert_eq!(verdict, TunVerdict::Consumed);
        }
        let sealed = start.elapsed();
        let sent: usize = self.out.tx.transmits().iter().map(|transmit| transmit.segments).sum();
        assert_eq!(sent, packets, "every packet leaves in a datagram of its own");
        self.transmit(0);
        let start = clock();
        self.nodes[1].handle_datagrams(self.now, &mut self.rx, &mut self.out);
        self.nodes[1].end_turn(self.now, &mut self.rx, &mut self.out);
        let opened = start.elapsed();
        let delivered: u32 = self.out.tun_writes.iter().map(|write| write.segments).sum();
        assert_eq!(delivered as usize, packets, "every packet is delivered");
        self.out.clear();
        [sealed, opened].map(|time| time.as_nanos() as f64 / packets as f64)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// An IPv4 packet from host 0 to host 1 with a partial checksum, as the TUN hands it over.
fn packet(protocol: u8, upper: &[u8], checksum_offset: u16, gso: Gso) -> (Vec<u8>, Vnet) {
    let total = 20 + upper.len();
    let mut bytes = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, 64, protocol];
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&Mesh::host(0, 11).octets());
    bytes.extend_from_slice(&Mesh::host(1, 11).octets());
    bytes.extend_from_slice(upper);
    checksum::fill_ipv4(&mut bytes[..20]);
    let Ok(headers) = Headers::parse(&bytes) else { unreachable!("it is well formed") };
    let len = upper.len() as u32;
    let partial =
        checksum::pseudo_header(headers.source, headers.destination, protocol, len).fold();
    let at = 20 + usize::from(checksum_offset);
    bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    let segment_size = if gso == Gso::None { 0 } else { MSS as u16 };
    let vnet = Vnet {
        needs_checksum: true,
        gso,
        header_len: headers.payload,
        segment_size,
        checksum_start: 20,
        checksum_offset,
    };
    (bytes, vnet)
}

fn tcp_train() -> Vec<(Vec<u8>, Vnet)> {
    let mut upper = vec![0x12, 0x34, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff];
    upper.extend_from_slice(&[0; 4]);
    upper.extend((0..MSS * TRAIN).map(|i| i as u8));
    vec![packet(6, &upper, 16, Gso::Tcp { ecn: false })]
}

fn small_datagrams(flows: u16) -> Vec<(Vec<u8>, Vnet)> {
    let one = |number: u16| {
        let port = 2_000 + number % flows;
        let mut upper = vec![(port >> 8) as u8, port as u8, 0x1b, 0x61, 0, 108, 0, 0];
        upper.extend((0..100).map(|i| i as u8));
        packet(17, &upper, 6, Gso::None)
    };
    (0..TxBatch::MAX_SEGMENTS as u16).map(one).collect()
}

fn main() {
    let mut pair = Pair::connected();
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ns per packet: seal min, median; open min, median");
    let cases = [
        ("TCP train of 45 segments", tcp_train(), TRAIN),
        ("64 datagrams, one flow", small_datagrams(1), TxBatch::MAX_SEGMENTS),
        ("64 datagrams, 64 flows", small_datagrams(64), TxBatch::MAX_SEGMENTS),
    ];
    for (name, frames, packets) in cases {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            let mut frames = frames.clone();
            for (all, time) in times.iter_mut().zip(pair.turn(&mut frames, packets)) {
                all.push(time);
            }
        }
        let _ = write!(out, "{name:26}");
        for mut all in times {
            all.sort_by(f64::total_cmp);
            let _ = write!(out, " {:8.1} {:8.1}", all[0], all[all.len() / 2]);
        }
        let _ = writeln!(out);
    }
}
