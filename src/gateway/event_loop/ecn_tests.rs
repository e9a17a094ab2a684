//! Congestion marks on their way from real sockets to inner packets (RFC 6040).

use std::net::SocketAddr;
use std::time::Duration;

use crate::batch::{Output, RxBatch};
use crate::id::UplinkIndex;
use crate::io::clock::Clock;
use crate::io::stamps::Stamps;
use crate::io::underlay::{Received, Receiver, UnderlaySocket};
use crate::node::Node;
use crate::packet::testing::{Sample, Upper};
use crate::packet::{Ecn, Gso, Headers, Vnet, tcp_flag};
use crate::sim::Mesh;
use crate::telemetry::DropReason;
use crate::time::{Instant, WallClock};

const SEGMENT: usize = 1_000;
const ECT: u8 = 2;
const CE: u8 = 3;

/// Two nodes, and a socket for each of them.
struct Pair {
    nodes: Vec<Node>,
    sockets: Vec<UnderlaySocket>,
    receiver: Receiver,
    now: Instant,
    rx: RxBatch,
    out: Output,
}

impl Pair {
    fn connected() -> Self {
        let now = Instant::from_micros(1_000_000);
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let nodes = configs.into_iter().map(|config| Node::new(config, [3; 32], now, WallClock(1)));
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open = || UnderlaySocket::open("lo", local, true).unwrap();
        let clock = Clock::new(WallClock(0));
        let mut pair = Self {
            nodes: nodes.collect(),
            sockets: vec![open(), open()],
            receiver: Receiver::new(64, Stamps::new(clock)),
            now,
            rx: RxBatch::new(64),
            out: Output::new(64),
        };
        for _ in 0..1_000 {
            pair.now += Duration::from_millis(5);
            for from in [0, 1] {
                pair.nodes[from].handle_timeout(pair.now, WallClock(1), &mut pair.out);
                let mut from = from;
                while !pair.out.tx.is_empty() {
                    pair.cross(from, |_| 0);
                    from = 1 - from;
                }
            }
        }
        pair
    }

    /// Sends what was put out by `from` over the sockets and hands it to the other node, in one turn.
    /// `mark` gives the outer type of service for the datagrams of each half of a train.
    fn cross(&mut self, from: usize, mark: impl Fn(usize) -> u8) {
        let to = self.sockets[1 - from].local();
        for transmit in self.out.tx.transmits() {
            let half = transmit.segments.div_ceil(2) * transmit.stride;
            for (at, bytes) in transmit.bytes().chunks(half).enumerate() {
                self.sockets[from].send(to, mark(at), bytes, transmit.stride).unwrap();
            }
        }
        self.out.clear();
        self.rx.filled = 0;
        let raw = self.sockets[1 - from].raw();
        while self.receiver.receive(raw, UplinkIndex(0), &mut self.rx, 64) == Received::Some {}
        for slot in &mut self.rx.slots {
            // The sockets' addresses are not those of the nodes, and the clock is not theirs.
            slot.source = SocketAddr::new(Mesh::underlay(from as u8, 0), 4710);
            slot.received_at = None;
        }
        let node = &mut self.nodes[1 - from];
        node.handle_datagrams(self.now, &mut self.rx, &mut self.out);
        node.end_turn(self.now, &mut self.rx, &mut self.out);
    }

    /// A train of `packets` TCP packets that bear `tos`, from a host of node 0.
    fn send(&mut self, tos: u8, packets: usize) {
        let upper = Upper::Tcp { seq: 1, ack: 1, flags: tcp_flag::ACK, options: vec![] };
        let mut sample = Sample::new(false, upper, &vec![7; SEGMENT * packets]);
        (sample.source, sample.destination) = (Mesh::host(0, 9).into(), Mesh::host(1, 9).into());
        sample.tos = tos;
        let mut frame = sample.bytes();
        let vnet = Vnet {
            needs_checksum: false,
            gso: Gso::Tcp { ecn: false },
            header_len: 40,
            segment_size: SEGMENT as u16,
            ..Vnet::default()
        };
        self.nodes[0].handle_tun_frame(self.now, &mut frame, vnet, &mut self.out);
        self.nodes[0].end_turn(self.now, &mut self.rx, &mut self.out);
        let segments: usize = self.out.tx.transmits().iter().map(|train| train.segments).sum();
        assert_eq!(segments, packets);
    }

    /// What node 1 writes to its TUN: mark and number of packets of each frame.
    fn written(&self) -> Vec<(Ecn, u32)> {
        let writes = self.out.tun_writes.iter().map(|write| {
            let parts = self.out.parts[write.parts.clone()].iter();
            let frame: Vec<u8> =
                parts.flat_map(|&part| self.out.part(&self.rx, part)).copied().collect();
            let headers = Headers::parse(&frame).unwrap();
            (Ecn::of_tos(headers.tos), write.segments)
        });
        writes.collect()
    }
}

#[test]
fn a_mark_of_the_way_reaches_the_packets_that_got_it_and_no_others() {
    let mut pair = Pair::connected();
    pair.send(ECT, 20);
    let outer: Vec<_> = pair.out.tx.transmits().iter().map(|train| train.target.tos).collect();
    assert_eq!(outer, [ECT], "the outer mark is the inner one");
    pair.cross(0, |half| [ECT, CE][half]);
    // The sockets handed over whole trains, and no train of two kinds.
    let trains: Vec<_> = pair.rx.slots[..pair.rx.filled].iter().map(|slot| slot.tos).collect();
    assert_eq!(trains, [ECT, CE]);
    assert!(pair.rx.slots[..2].iter().all(|slot| slot.len > 9 * slot.stride));
    assert_eq!(pair.written(), [(Ecn::of_tos(ECT), 10), (Ecn::of_tos(CE), 10)]);
}

#[test]
fn packets_that_cannot_bear_a_mark_are_dropped_by_it() {
    let mut pair = Pair::connected();
    pair.send(0, 20);
    pair.cross(0, |half| [0, CE][half]);
    assert_eq!(pair.written(), [(Ecn::of_tos(0), 10)]);
    assert_eq!(pair.nodes[1].counters_mut().dropped(DropReason::EcnMismatch), 10);
}
