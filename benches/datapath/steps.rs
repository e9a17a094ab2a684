//! What is measured: one step of a packet's way each.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rongate::batch::{Output, Part, RxBatch};
use rongate::flow::{FlowKey, FlowLimits, FlowTable};
use rongate::id::PeerIndex;
use rongate::nat::{Nat, NatConfig, NatLimits, Realm};
use rongate::packet::{Arrived, Coalescer, Gso, Headers, Offload, Segmenter};
use rongate::rng::Rng;
use rongate::sim::Mesh;
use rongate::time::Instant;

use super::overlay::{Frame, Overlay, Shape, TRAIN, across, outside, outward, tcp, tcp_train, udp};

/// Small packets of a turn.
const SMALL: usize = 64;
/// Flows in the tables that are looked up in.
const FLOWS: u32 = 100_000;
const NOW: Instant = Instant::from_micros(1_000_000);

/// Work that can be done again and again; only `run` is measured.
pub(crate) trait Work {
    fn prepare(&mut self) {}
    fn run(&mut self);
}

/// A step and what its cost is told for.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// How many of the unit one run is.
    pub(crate) per: usize,
    pub(crate) make: fn() -> Box<dyn Work>,
}

/// Every step.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "parse", unit: "packet", per: SMALL, make: || Box::new(Parse::new()) },
    Step { name: "flow look-up", unit: "train", per: SMALL, make: || Box::new(Lookup::new(FLOWS)) },
    Step { name: "nat out", unit: "train", per: SMALL, make: || Box::new(Translate::new(false)) },
    Step { name: "nat in", unit: "train", per: SMALL, make: || Box::new(Translate::new(true)) },
    Step { name: "cut", unit: "segment", per: TRAIN, make: || Box::new(Cut::new(true)) },
    Step { name: "cut, complete", unit: "segment", per: TRAIN, make: || Box::new(Cut::new(false)) },
    Step { name: "coalesce", unit: "segment", per: TRAIN, make: || Box::new(Merge::new()) },
    Step {
        name: "out",
        unit: "segment",
        per: TRAIN,
        make: || Way::train(Shape::Direct, Whose::Out),
    },
    Step { name: "in", unit: "segment", per: TRAIN, make: || Way::train(Shape::Direct, Whose::In) },
    Step {
        name: "out, relayed",
        unit: "segment",
        per: TRAIN,
        make: || Way::train(Shape::Relayed, Whose::Out),
    },
    Step {
        name: "relay",
        unit: "segment",
        per: TRAIN,
        make: || Way::train(Shape::Relayed, Whose::Relay),
    },
    Step {
        name: "in, relayed",
        unit: "segment",
        per: TRAIN,
        make: || Way::train(Shape::Relayed, Whose::In),
    },
    Step {
        name: "in, exit",
        unit: "segment",
        per: TRAIN,
        make: || Way::train(Shape::Exit, Whose::In),
    },
    Step { name: "out, exit", unit: "segment", per: TRAIN, make: || Box::new(Back::new()) },
    Step { name: "out, small", unit: "packet", per: SMALL, make: || Way::small(Whose::Out) },
    Step { name: "in, small", unit: "packet", per: SMALL, make: || Way::small(Whose::In) },
    Step { name: "connect", unit: "flow", per: SMALL, make: || Box::new(Connect::new()) },
    Step { name: "seal", unit: "segment", per: TRAIN, make: || Box::new(Cipher::new(false)) },
    Step { name: "open", unit: "segment", per: TRAIN, make: || Box::new(Cipher::new(true)) },
];

struct Parse {
    frames: Vec<Frame>,
}

impl Parse {
    fn new() -> Self {
        let one = |number: usize| tcp(across(), [number as u16, 80], 0x10, 100, Gso::None);
        Self { frames: (0..SMALL).map(one).collect() }
    }
}

impl Work for Parse {
    fn run(&mut self) {
        for (frame, _) in &self.frames {
            let headers = Headers::parse(black_box(frame));
            black_box(headers.map(|headers| FlowKey::of(&headers)).ok());
        }
    }
}

fn headers_of((frame, _): &Frame) -> Headers {
    match Headers::parse(frame) {
        Ok(headers) => headers,
        Err(reason) => unreachable!("{reason:?}"),
    }
}

/// Look-ups of flows that are far from each other.
struct Lookup {
    table: FlowTable,
    flows: u32,
    base: FlowKey,
    keys: Vec<FlowKey>,
    at: u32,
}

impl Lookup {
    fn new(flows: u32) -> Self {
        let limits = FlowLimits { max_flows: flows, max_per_host: flows, ..FlowLimits::default() };
        let table = FlowTable::new(NOW, limits, &mut Rng::new([1; 32]));
        let base = FlowKey::of(&headers_of(&udp(across(), [1, 2])));
        let mut this = Self { table, flows, base, keys: Vec::new(), at: 0 };
        for number in 0..flows {
            let host = this.base.source();
            let _ = this.table.lookup_or_admit(NOW, this.key(number), host);
        }
        this
    }

    fn key(&self, number: u32) -> FlowKey {
        let mut key = self.base;
        (key.source_port, key.destination_port) = (number as u16, (number >> 16) as u16);
        key
    }
}

impl Work for Lookup {
    fn prepare(&mut self) {
        self.keys.clear();
        for number in self.at..self.at + SMALL as u32 {
            let far = u64::from(number) * 0x9e37_79b1 % u64::from(self.flows);
            self.keys.push(self.key(far as u32));
        }
        self.at = self.at.wrapping_add(SMALL as u32) % (1 << 30);
    }

    fn run(&mut self) {
        for key in &self.keys {
            black_box(self.table.lookup(black_box(key)));
        }
    }
}

/// The NAT alone, on the headers of trains of flows that it knows.
struct Translate {
    nat: Nat,
    inbound: bool,
    fresh: Vec<Frame>,
    frames: Vec<Frame>,
    headers: Vec<Headers>,
}

impl Translate {
    fn new(inbound: bool) -> Self {
        let config = NatConfig {
            limits: NatLimits::of_mappings(FLOWS, FLOWS),
            ..NatConfig::new(outside(), 1_024..=65_535)
        };
        let mut nat = Nat::new(NOW, &config, Rng::new([2; 32]));
        let [_, remote] = outward();
        let mut fresh = Vec::new();
        for number in 0..10_000u16 {
            let source = Mesh::host(0, (number % 200) as u8);
            let (mut frame, vnet) = tcp([source, remote], [number, 443], 0x02, 0, Gso::None);
            let headers = headers_of(&(frame.clone(), vnet));
            let result = nat.outbound(NOW, Realm(0), &mut frame, &headers, &vnet);
            assert!(result.is_ok(), "{result:?}");
            let outside = headers_of(&(frame, vnet));
            if number % 150 == 0 && fresh.len() < SMALL {
                let ports = outside.ports.map_or(0, |ports| ports.src);
                let std::net::IpAddr::V4(outside) = outside.source else { continue };
                fresh.push(if inbound {
                    tcp_train([remote, outside], [443, ports])
                } else {
                    tcp_train([source, remote], [number, 443])
                });
            }
        }
        let headers = fresh.iter().map(headers_of).collect();
        Self { nat, inbound, frames: fresh.clone(), fresh, headers }
    }
}

impl Work for Translate {
    fn prepare(&mut self) {
        for (frame, fresh) in self.frames.iter_mut().zip(&self.fresh) {
            frame.0[..40].copy_from_slice(&fresh.0[..40]);
        }
    }

    fn run(&mut self) {
        for ((frame, vnet), headers) in self.frames.iter_mut().zip(&self.headers) {
            let ok = if self.inbound {
                self.nat.inbound(NOW, frame, headers, vnet).is_ok()
            } else {
                self.nat.outbound(NOW, Realm(0), frame, headers, vnet).is_ok()
            };
            assert!(ok, "a known flow");
        }
    }
}

struct Cut {
    frame: Frame,
    partial: bool,
    out: Vec<u8>,
}

impl Cut {
    fn new(partial: bool) -> Self {
        Self { frame: tcp_train(across(), [1, 2]), partial, out: vec![0; 65_536] }
    }
}

impl Work for Cut {
    fn run(&mut self) {
        let headers = headers_of(&self.frame);
        let segmenter = Segmenter::new(&self.frame.0, &headers, self.frame.1, 1_388);
        let Ok(mut segmenter) = segmenter else { unreachable!("it can be cut") };
        if self.partial {
            segmenter.leave_partial();
        }
        let mut at = 0;
        for index in 0..segmenter.count() {
            at += segmenter.write(index, &mut self.out[at..]);
        }
        black_box(at);
    }
}

struct Merge {
    fresh: Vec<u8>,
    packets: Vec<Arrived>,
    coalescer: Coalescer,
    rx: RxBatch,
    out: Output,
}

impl Merge {
    fn new() -> Self {
        let frame = tcp_train(across(), [1, 2]);
        let headers = headers_of(&frame);
        let segmenter = Segmenter::new(&frame.0, &headers, frame.1, 1_388);
        let Ok(mut segmenter) = segmenter else { unreachable!("it can be cut") };
        segmenter.leave_partial();
        let mut rx = RxBatch::new(1);
        let mut packets = Vec::new();
        let mut at = 0;
        for index in 0..segmenter.count() {
            let start = at;
            at += segmenter.write(index, &mut rx.slots[0].buffer[at..]);
            let packet = rx.slots[0].buffer[start..at].to_vec();
            packets.push(Arrived {
                at: Part { slot: 0, start: start as u32, end: at as u32 },
                headers: headers_of(&(packet, frame.1)),
                peer: PeerIndex(0),
                partial: true,
            });
        }
        let coalescer = Coalescer::new(Offload { tcp: true, udp: true });
        let fresh = rx.slots[0].buffer[..60].to_vec();
        Self { fresh, packets, coalescer, rx, out: Output::new(1) }
    }
}

impl Work for Merge {
    fn prepare(&mut self) {
        self.rx.slots[0].buffer[..60].copy_from_slice(&self.fresh);
        self.out.clear();
    }

    fn run(&mut self) {
        for packet in &self.packets {
            self.coalescer.push(&mut self.rx, &mut self.out, packet);
        }
        self.coalescer.flush(&mut self.rx, &mut self.out);
        let merged = self.coalescer.pop().map_or(0, |merged| merged.packets);
        assert_eq!(merged as usize, TRAIN);
    }
}

/// Which node's work is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Out,
    Relay,
    In,
}

/// Frames on their whole way from site 0.
struct Way {
    overlay: Overlay,
    part: Whose,
    relayed: bool,
    fresh: Vec<Frame>,
    frames: Vec<Frame>,
    packets: usize,
}

impl Way {
    fn train(shape: Shape, part: Whose) -> Box<dyn Work> {
        let to = if shape == Shape::Exit { outward() } else { across() };
        let mut way = Self::new(shape, part, vec![tcp_train(to, [2_000, 443])], TRAIN);
        if shape == Shape::Exit {
            // The NAT wants to see the beginning.
            let syn = tcp(to, [2_000, 443], 0x02, 0, Gso::None);
            way.overlay.send(0, &mut [syn]);
            way.overlay.carry(0);
            way.overlay.receive(1);
            way.overlay.out.clear();
        }
        Box::new(way)
    }

    fn small(part: Whose) -> Box<dyn Work> {
        let one = |number: usize| udp(across(), [2_000 + number as u16 % 8, 9]);
        Box::new(Self::new(Shape::Direct, part, (0..SMALL).map(one).collect(), SMALL))
    }

    fn new(shape: Shape, part: Whose, fresh: Vec<Frame>, packets: usize) -> Self {
        let relayed = shape == Shape::Relayed;
        // Until the path's MTU is known.
        let overlay = Overlay::connected(shape, if relayed { 8_000 } else { 3_000 });
        Self { overlay, part, relayed, frames: fresh.clone(), fresh, packets }
    }

    fn send(&mut self) {
        let sent = self.overlay.send(0, &mut self.frames);
        assert!(sent <= self.packets + 1, "{sent} datagrams: the path's MTU is not known");
    }

    fn relay(&mut self) {
        self.overlay.receive(2);
        assert!(!self.overlay.out.forwards.is_empty(), "nothing was relayed");
    }
}

impl Work for Way {
    fn prepare(&mut self) {
        self.overlay.out.clear();
        self.overlay.now += std::time::Duration::from_micros(50);
        for (frame, fresh) in self.frames.iter_mut().zip(&self.fresh) {
            frame.0[..60].copy_from_slice(&fresh.0[..60]);
        }
        if self.part == Whose::Out {
            return;
        }
        self.send();
        self.overlay.carry(0);
        if self.part == Whose::In && self.relayed {
            self.relay();
            self.overlay.carry(2);
        }
    }

    fn run(&mut self) {
        match self.part {
            Whose::Out => self.send(),
            Whose::Relay => self.relay(),
            Whose::In => {
                self.overlay.receive(1);
                assert_eq!(self.overlay.delivered(), self.packets);
            }
        }
    }
}

/// Answers from the Internet at the exit.
struct Back {
    overlay: Overlay,
    fresh: Frame,
    frames: [Frame; 1],
}

impl Back {
    fn new() -> Self {
        let mut overlay = Overlay::connected(Shape::Exit, 3_000);
        let [_, remote] = outward();
        overlay.send(0, &mut [tcp(outward(), [2_000, 443], 0x02, 0, Gso::None)]);
        overlay.carry(0);
        overlay.receive(1);
        let outside = headers_of(&overlay.first_write());
        overlay.out.clear();
        let std::net::IpAddr::V4(address) = outside.source else { unreachable!("IPv4") };
        let port = outside.ports.map_or(0, |ports| ports.src);
        let fresh = tcp_train([remote, address], [443, port]);
        Self { overlay, frames: [fresh.clone()], fresh }
    }
}

impl Work for Back {
    fn prepare(&mut self) {
        self.overlay.out.clear();
        self.overlay.now += std::time::Duration::from_micros(50);
        self.frames[0].0[..60].copy_from_slice(&self.fresh.0[..60]);
    }

    fn run(&mut self) {
        assert_eq!(self.overlay.send(1, &mut self.frames), TRAIN);
    }
}

/// New TCP flows through the exit's NAT: SYN and SYN-ACK, the exit's work.
struct Connect {
    overlay: Overlay,
    next: u32,
    syns: Vec<Frame>,
    answers: Vec<Frame>,
}

impl Connect {
    fn new() -> Self {
        let overlay = Overlay::connected(Shape::Exit, 3_000);
        Self { overlay, next: 0, syns: Vec::new(), answers: Vec::new() }
    }
}

impl Work for Connect {
    fn prepare(&mut self) {
        self.overlay.out.clear();
        self.overlay.now += std::time::Duration::from_micros(200);
        let [_, remote] = outward();
        self.syns.clear();
        for number in self.next..self.next + SMALL as u32 {
            let host = Mesh::host(0, 1 + (number % 250) as u8);
            let ports = [1_024 + (number / 250) as u16, 443];
            self.syns.push(tcp([host, remote], ports, 0x02, 0, Gso::None));
        }
        self.next += SMALL as u32;
        self.overlay.send(0, &mut self.syns);
        self.overlay.carry(0);
    }

    fn run(&mut self) {
        let [_, remote] = outward();
        self.overlay.receive(1);
        assert_eq!(self.overlay.delivered(), SMALL);
        // What the Internet does is no part of it, but small.
        self.answers.clear();
        for write in &self.overlay.out.tun_writes {
            let part = self.overlay.out.parts[write.parts.start];
            let Ok(syn) = Headers::parse(self.overlay.out.part(&self.overlay.rx, part)) else {
                unreachable!("it was delivered")
            };
            let std::net::IpAddr::V4(address) = syn.source else { unreachable!("IPv4") };
            let port = syn.ports.map_or(0, |ports| ports.src);
            self.answers.push(tcp([remote, address], [443, port], 0x12, 0, Gso::None));
        }
        self.overlay.out.clear();
        self.overlay.send(1, &mut self.answers);
    }
}

/// The cipher alone, on what a train is.
struct Cipher {
    key: LessSafeKey,
    open: bool,
    sealed: Vec<(Vec<u8>, [u8; 16])>,
    work: Vec<(Vec<u8>, [u8; 16])>,
}

const AAD: [u8; 16] = [7; 16];

fn nonce(number: usize) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Cipher {
    fn new(open: bool) -> Self {
        let Ok(key) = UnboundKey::new(&AES_256_GCM, &[9; 32]) else { unreachable!("32 bytes") };
        let key = LessSafeKey::new(key);
        let mut this = Self {
            key,
            open: false,
            sealed: Vec::new(),
            work: vec![(vec![1; 1_388], [0; 16]); TRAIN],
        };
        this.run();
        (this.open, this.sealed) = (open, this.work.clone());
        this
    }
}

impl Work for Cipher {
    fn prepare(&mut self) {
        for (work, sealed) in self.work.iter_mut().zip(&self.sealed) {
            work.0.copy_from_slice(&sealed.0);
        }
    }

    fn run(&mut self) {
        for (number, (body, tag)) in self.work.iter_mut().enumerate() {
            let aad = Aad::from(&AAD);
            if self.open {
                let result = self.key.open_in_place_separate_tag(nonce(number), aad, tag, body);
                assert!(result.is_ok(), "it was sealed so");
            } else if let Ok(made) = self.key.seal_in_place_separate_tag(nonce(number), aad, body) {
                tag.copy_from_slice(made.as_ref());
            }
        }
    }
}

impl Step {
    /// Whether the step is more than the cipher.
    pub(crate) fn is_ours(&self) -> bool {
        !matches!(self.name, "seal" | "open")
    }
}

/// Look-ups among a million flows: too many to be counted under valgrind.
pub(crate) const AMONG_A_MILLION: Step = Step {
    name: "look-up in 1M",
    unit: "train",
    per: SMALL,
    make: || Box::new(Lookup::new(1_000_000)),
};

/// Two nodes, and new flows through both with each run.
pub(crate) fn many_flows() -> Box<dyn Work> {
    Box::new(Connect::new())
}
