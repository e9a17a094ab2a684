//! What an authentic peer sends may be anything.

use std::collections::BTreeSet;

use super::*;
use crate::node::Label;
use crate::packet::testing::{Sample, Upper, assert_checksums, make_partial};
use crate::packet::{Headers, Vnet, checksum, tcp_flag};
use crate::sim::Mesh;
use crate::time::WallClock;

const NOW: Instant = Instant::from_micros(1_000_000);

/// Two nodes that are joined, and a turn's buffers.
struct Pair {
    nodes: [Node; 2],
    now: Instant,
    rx: RxBatch,
    out: Output,
}

impl Pair {
    fn connected() -> Self {
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let mut nodes =
            configs.into_iter().map(|config| Node::new(config, [3; 32], NOW, WallClock(1)));
        let nodes = [nodes.next().unwrap(), nodes.next().unwrap()];
        let mut pair = Self { nodes, now: NOW, rx: RxBatch::new(8), out: Output::new(64) };
        for _ in 0..1_000 {
            pair.now += std::time::Duration::from_millis(5);
            for from in [0, 1] {
                pair.nodes[from].handle_timeout(pair.now, WallClock(1), &mut pair.out);
                let mut to = 1 - from;
                while !pair.out.tx.is_empty() {
                    pair.carry(to);
                    to = 1 - to;
                }
            }
        }
        pair
    }

    /// Hands what was put out to node `to`, in one turn.
    fn carry(&mut self, to: usize) {
        self.rx.filled = 0;
        let listen = |site: usize| SocketAddr::new(Mesh::underlay(site as u8, 0), 4710);
        for transmit in self.out.tx.transmits() {
            let slot = &mut self.rx.slots[self.rx.filled];
            slot.buffer[..transmit.bytes().len()].copy_from_slice(transmit.bytes());
            (slot.len, slot.stride) = (transmit.bytes().len(), transmit.stride);
            slot.source = listen(1 - to);
            self.rx.filled += 1;
        }
        self.out.clear();
        self.nodes[to].handle_datagrams(self.now, &mut self.rx, &mut self.out);
        self.nodes[to].end_turn(self.now, &mut self.rx, &mut self.out);
    }

    /// Node 0 seals `plaintext`, whatever it is, and node 1 gets it.
    fn forge(&mut self, flags: Flags, plaintext: &[u8]) {
        let node = &mut self.nodes[0];
        let peer = PeerIndex(0);
        let path = Path::Direct(node.router.link_to(peer).unwrap());
        let route = node.route(peer, path, 0, Label::default()).unwrap();
        let fill = |place: &mut [u8]| place.copy_from_slice(plaintext);
        node.send(self.now, &route, flags, plaintext.len(), fill, &mut self.out).unwrap();
        self.carry(1);
    }

    /// Frames of a host behind node 0, in one turn.
    fn send(&mut self, frames: &mut [(Vec<u8>, Vnet)]) -> usize {
        for (frame, vnet) in frames {
            self.nodes[0].handle_tun_frame(self.now, frame, *vnet, &mut self.out);
        }
        self.nodes[0].end_turn(self.now, &mut self.rx, &mut self.out);
        self.out.tx.transmits().iter().map(|transmit| transmit.segments).sum()
    }

    /// What node 1 writes to its TUN, as hosts get it.
    fn written(&mut self) -> Vec<Vec<u8>> {
        let writes = self.out.tun_writes.iter().flat_map(|write| {
            let parts = self.out.parts[write.parts.clone()].iter();
            let frame: Vec<u8> =
                parts.flat_map(|&part| self.out.part(&self.rx, part)).copied().collect();
            let headers = Headers::parse(&frame).unwrap();
            let segmenter =
                crate::packet::Segmenter::new(&frame, &headers, write.vnet, usize::MAX).unwrap();
            (0..segmenter.count())
                .map(|index| {
                    let mut packet = vec![0; segmenter.segment_len(index)];
                    segmenter.write(index, &mut packet);
                    packet
                })
                .collect::<Vec<_>>()
        });
        let writes = writes.collect();
        self.out.clear();
        writes
    }

    fn dropped(&self, node: usize) -> Vec<(DropReason, u64)> {
        self.nodes[node].counters.drops().filter(|drop| drop.1 > 0).collect()
    }
}

/// From a host of site 0 to one of site 1.
fn across(upper: Upper, data: &[u8]) -> Sample {
    let mut sample = Sample::new(false, upper, data);
    (sample.source, sample.destination) = (Mesh::host(0, 9).into(), Mesh::host(1, 9).into());
    sample
}

fn tcp(flags: u8) -> Upper {
    Upper::Tcp { seq: 1, ack: 1, flags, options: vec![] }
}

#[test]
fn a_partial_checksum_arrives_complete() {
    for upper in [Upper::Udp, tcp(tcp_flag::SYN), tcp(tcp_flag::ACK)] {
        let mut pair = Pair::connected();
        let expected = across(upper, &[7; 900]).bytes();
        let mut frame = expected.clone();
        let vnet = make_partial(&mut frame);
        pair.send(&mut [(frame, vnet)]);
        pair.carry(1);
        assert_eq!(pair.written(), [expected]);
    }
}

#[test]
fn a_claim_of_a_partial_checksum_that_cannot_be_is_refused() {
    let echo = across(Upper::EchoRequest, &[1; 40]).bytes();
    let mut fragment = across(Upper::Udp, &[1; 64]).bytes();
    fragment[6] = 0x20;
    checksum::fill_ipv4(&mut fragment[..20]);
    for packet in [echo, fragment] {
        for flags in [Flags::NEEDS_CHECKSUM, Flags::NEEDS_CHECKSUM.with(Flags::REPORT)] {
            let mut pair = Pair::connected();
            let mut plaintext = packet.clone();
            if flags.has(Flags::REPORT) {
                plaintext.extend_from_slice(&[0; 12]);
            }
            pair.forge(flags, &plaintext);
            assert_eq!(pair.written(), Vec::<Vec<u8>>::new());
            assert_eq!(pair.dropped(1), [(DropReason::BadOffload, 1)]);
        }
    }
}

#[test]
fn small_packets_of_a_turn_share_datagrams_and_keep_their_order() {
    let mut pair = Pair::connected();
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for number in 0..30u16 {
        let mut sample = across(Upper::Udp, &[number as u8; 100]);
        (sample.ports.0, sample.id) = (number % 2, number);
        // In between a big one of the same flow.
        if number == 11 {
            sample.data = vec![9; 1_000];
        }
        expected.push(sample.bytes());
        let mut frame = sample.bytes();
        let vnet = make_partial(&mut frame);
        frames.push((frame, vnet));
    }
    let sent = pair.send(&mut frames);
    assert!((4..=5).contains(&sent), "{sent}");
    pair.carry(1);
    let written = pair.written();
    assert_eq!(written.len(), expected.len());
    for port in [0, 1] {
        let of = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
            packets.iter().filter(|packet| packet[21] == port).cloned().collect()
        };
        let data = |packets: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            packets.iter().map(|packet| packet[28..].to_vec()).collect()
        };
        assert_eq!(data(of(&written)), data(of(&expected)));
    }
    written.iter().for_each(|packet| assert_checksums(packet));
    assert_eq!(pair.dropped(0), []);
}

#[test]
fn packets_with_and_without_complete_checksums_are_not_bundled_together() {
    let mut pair = Pair::connected();
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for number in 0..4 {
        let upper = if number < 2 { Upper::EchoRequest } else { Upper::Udp };
        let packet = across(upper, &[number; 50]).bytes();
        expected.push(packet.clone());
        frames.push((packet, Vnet::default()));
        if number > 2 {
            let (frame, vnet) = frames.last_mut().unwrap();
            *vnet = make_partial(frame);
        }
    }
    assert_eq!(pair.send(&mut frames), 2);
    pair.carry(1);
    let written = pair.written();
    // Packets that must not be fragmented may change their identification (RFC 6864).
    let unnamed = |packet: &Vec<u8>| [&packet[..4], &packet[6..10], &packet[12..]].concat();
    let sorted = |packets: &[Vec<u8>]| packets.iter().map(unnamed).collect::<BTreeSet<_>>();
    assert_eq!((written.len(), sorted(&written)), (4, sorted(&expected)));
    written.iter().for_each(|packet| assert_checksums(packet));
}

#[test]
fn a_single_small_packet_is_no_bundle() {
    let mut pair = Pair::connected();
    let packet = across(Upper::Udp, &[5; 50]).bytes();
    assert_eq!(pair.send(&mut [(packet.clone(), Vnet::default())]), 1);
    let datagram = pair.out.tx.transmits()[0].bytes();
    assert_eq!(datagram.len() % 16, (packet.len() + 32) % 16);
    assert_eq!(datagram[1] & Flags::BUNDLE.bits(), 0);
    pair.carry(1);
    assert_eq!(pair.written(), [packet]);
}

#[test]
fn of_a_malformed_bundle_the_packets_before_the_fault_pass() {
    let packet = across(Upper::Udp, &[1; 30]).bytes();
    let whole = [&(packet.len() as u16).to_be_bytes(), &packet[..]].concat();
    for fault in [&[0u8][..], &[0, 0, 1], &[0xff, 0xff, 1], &[0, 1]] {
        let mut pair = Pair::connected();
        pair.forge(Flags::BUNDLE, &[&whole[..], fault].concat());
        assert_eq!(pair.written(), std::slice::from_ref(&packet));
        assert_eq!(pair.dropped(1), [(DropReason::BadControl, 1)], "{fault:?}");
    }
    let mut pair = Pair::connected();
    pair.forge(Flags::BUNDLE, &[]);
    assert_eq!(pair.dropped(1), [(DropReason::BadControl, 1)]);
    assert_eq!(pair.written(), [] as [Vec<u8>; 0]);
}

#[test]
fn a_train_is_judged_as_its_packets_would_be() {
    let mut pair = Pair::connected();
    let mut spoofed = across(Upper::Udp, &[1; 600]);
    spoofed.source = Mesh::host(7, 1).into();
    let packet = spoofed.bytes();
    let bundled = [&(packet.len() as u16).to_be_bytes(), &packet[..]].concat();
    pair.forge(Flags::BUNDLE, &[&bundled[..], &bundled].concat());
    assert_eq!(pair.written(), Vec::<Vec<u8>>::new());
    assert_eq!(pair.dropped(1), [(DropReason::SpoofedSource, 2)]);
}
