//! Trains on their way through real nodes: they stay whole, and no packet costs an allocation after a
//! while to warm up.

#![expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]

#[path = "../benches/datapath/overlay.rs"]
mod overlay;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use overlay::{Frame, Overlay, Shape, across, outward, tcp, tcp_train, udp};
use rongate::batch::Output;
use rongate::flow::{Class, Classes, Group};
use rongate::node::TunVerdict;
use rongate::packet::{Gso, Headers, checksum};
use rongate::sim::Mesh;
use rongate::telemetry::DropReason;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn what_allocates_is_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// Turns in which replay windows reach their full size.
const WARM_UP: usize = 2_500;
const TURNS: usize = 200;
/// The turns whose allocations are counted. Each begins flows, and at an exit mappings, of its own.
const MEASURED: std::ops::Range<usize> = WARM_UP..WARM_UP + TURNS;

/// The traffic of one turn: `turn` makes the ports of two flows that are new with it.
fn frames(to: [std::net::Ipv4Addr; 2], turn: usize) -> Vec<Frame> {
    let port = 4_000 + turn as u16;
    let mut frames = vec![tcp_train(to, [2_000, 443]), tcp_train(to, [2_001, 443])];
    frames.extend((0..40).map(|number| udp(to, [3_000 + number % 7, 9])));
    frames.push(tcp(to, [port, 443], 0x02, 0, Gso::None));
    frames.push(udp(to, [port, 53]));
    frames
}

/// Turns of traffic from site 0 to site 1, through site 2 where there is no other way. Returns the
/// allocations at the sender, at the relay and at the receiver.
fn one_way(
    overlay: &mut Overlay,
    to: [std::net::Ipv4Addr; 2],
    turns: std::ops::Range<usize>,
) -> [u64; 3] {
    let relayed = overlay.nodes.len() > 2;
    let mut counts = [0; 3];
    for turn in turns {
        let mut frames = frames(to, turn);
        overlay.now += Duration::from_micros(100);
        counts[0] += allocations(|| {
            overlay.send(0, &mut frames);
        });
        overlay.carry(0);
        if relayed {
            counts[1] += allocations(|| overlay.receive(2));
            assert!(!overlay.out.forwards.is_empty(), "nothing was relayed");
            overlay.carry(2);
        }
        counts[2] += allocations(|| overlay.receive(1));
        assert!(overlay.delivered() >= 130, "{} packets", overlay.delivered());
        overlay.out.clear();
    }
    counts
}

#[test]
fn sending_and_receiving_allocate_nothing() {
    let mut overlay = Overlay::connected(Shape::Direct, 3_000);
    one_way(&mut overlay, across(), 0..WARM_UP);
    let flows = overlay.nodes[0].flow_counts().created;
    assert_eq!(one_way(&mut overlay, across(), MEASURED), [0; 3]);
    assert_eq!(overlay.nodes[0].flow_counts().created, flows + 2 * TURNS as u64);
}

#[test]
fn relaying_allocates_nothing() {
    let mut overlay = Overlay::connected(Shape::Relayed, 8_000);
    one_way(&mut overlay, across(), 0..WARM_UP);
    assert_eq!(one_way(&mut overlay, across(), MEASURED), [0; 3]);
}

/// The exit has a mapping for a connection from this port of site 0.
fn begin(overlay: &mut Overlay, port: u16) {
    overlay.send(0, &mut [tcp(outward(), [port, 443], 0x02, 0, Gso::None)]);
    overlay.carry(0);
    overlay.receive(1);
}

#[test]
fn translating_both_ways_allocates_nothing() {
    let mut overlay = Overlay::connected(Shape::Exit, 3_000);
    begin(&mut overlay, 2_001);
    overlay.out.clear();
    begin(&mut overlay, 2_000);
    let (syn, _) = overlay.first_write();
    let outside = Headers::parse(&syn).unwrap();
    overlay.out.clear();
    let (std::net::IpAddr::V4(address), Some(ports)) = (outside.source, outside.ports) else {
        panic!("{outside:?}")
    };
    let [_, remote] = outward();
    one_way(&mut overlay, outward(), 0..WARM_UP);
    let mappings = |overlay: &Overlay| overlay.nodes[1].nat_counts().map(|counts| counts.created);
    let before = mappings(&overlay).unwrap();
    assert_eq!(one_way(&mut overlay, outward(), MEASURED), [0; 3]);
    assert_eq!(mappings(&overlay), Some(before + 2 * TURNS as u64));
    let mut back = |turns| {
        let mut counts = [0; 2];
        for _ in 0..turns {
            let mut frames = [tcp_train([remote, address], [443, ports.src])];
            overlay.now += Duration::from_micros(100);
            counts[0] += allocations(|| {
                overlay.send(1, &mut frames);
            });
            overlay.carry(1);
            counts[1] += allocations(|| overlay.receive(0));
            assert_eq!(overlay.delivered(), overlay::TRAIN);
            overlay.out.clear();
        }
        counts
    };
    back(WARM_UP);
    assert_eq!(back(TURNS), [0; 2]);
}

#[test]
fn flows_that_stay_together_allocate_nothing() {
    let mut overlay = Overlay::connected(Shape::Exit, 3_000);
    for port in [2_000, 2_001] {
        begin(&mut overlay, port);
        overlay.out.clear();
    }
    one_way(&mut overlay, outward(), 0..WARM_UP);
    let mut policy = Mesh { sites: 2, exits: true, ..Mesh::default() }.configs()[0].policy();
    policy.classes = Classes::new(vec![Class { group: Group::Source, ..Class::default() }]);
    overlay.nodes[0].set_policy(overlay.now, policy);
    let flows = overlay.nodes[0].flow_counts().created;
    assert_eq!(one_way(&mut overlay, outward(), MEASURED), [0; 3]);
    assert_eq!(overlay.nodes[0].flow_counts().created, flows + 2 * TURNS as u64);
}

/// Trains of two flows, sealed at site 0 and in the relay's receive buffers.
fn at_the_relay() -> Overlay {
    let mut overlay = Overlay::connected(Shape::Relayed, 8_000);
    // The first packets of a flow go twice where there are two ways, which here there are not.
    let mut frames = [tcp_train(across(), [2_000, 443]), tcp_train(across(), [2_001, 443])];
    let sealed = overlay.send(0, &mut frames);
    assert_eq!(sealed, 2 * overlay::TRAIN);
    overlay.carry(0);
    overlay
}

#[test]
fn a_relay_sends_on_what_it_received_in_one_piece() {
    let mut overlay = at_the_relay();
    let received = overlay.rx.filled;
    overlay.receive(2);
    assert_eq!(overlay.out.forwards.len(), received, "one send for each receive buffer");
    overlay.carry(2);
    overlay.receive(1);
    assert_eq!(overlay.delivered(), 2 * overlay::TRAIN);
    assert_eq!(overlay.out.tun_writes.len(), 2);
}

#[test]
fn a_damaged_datagram_costs_a_relayed_train_no_other() {
    let mut overlay = at_the_relay();
    let slot = &mut overlay.rx.slots[0];
    // A tag of the hop, and a ciphertext that only its receiver can judge.
    slot.buffer[5 * slot.stride + 30] ^= 1;
    slot.buffer[9 * slot.stride + 400] ^= 1;
    overlay.receive(2);
    overlay.carry(2);
    overlay.receive(1);
    assert_eq!(overlay.delivered(), 2 * overlay::TRAIN - 2);
    for site in [2, 1] {
        let forged = overlay.nodes[site].counters_mut().dropped(DropReason::Forged);
        assert_eq!(forged, 1, "site {site}");
    }
}

#[test]
fn a_train_is_translated_whole_and_its_checksums_are_right() {
    let mut overlay = Overlay::connected(Shape::Exit, 3_000);
    let syn = tcp(outward(), [2_000, 443], 0x02, 0, Gso::None);
    for mut frame in [syn, tcp_train(outward(), [2_000, 443])] {
        let packets = if frame.1.gso == Gso::None { 1 } else { overlay::TRAIN };
        overlay.send(0, std::slice::from_mut(&mut frame));
        overlay.carry(0);
        overlay.receive(1);
        assert_eq!((overlay.out.tun_writes.len(), overlay.delivered()), (1, packets));
        let (bytes, vnet) = overlay.first_write();
        let headers = Headers::parse(&bytes).unwrap();
        assert!(overlay::outside().iter().any(|net| net.contains(&headers.source)));
        assert!(checksum::ipv4_is_right(&bytes, &headers));
        assert!(checksum::is_partial(&headers, &vnet));
        let mut whole = bytes;
        checksum::complete_partial(&mut whole, &headers, &vnet).unwrap();
        assert!(checksum::is_right(&whole, &headers));
        overlay.out.clear();
    }
}

#[test]
fn a_train_that_must_be_fragmented_asks_for_a_flush_and_loses_nothing() {
    let mut overlay = Overlay::connected(Shape::Direct, 3_000);
    // Datagrams without "don't fragment", longer than what the path passes.
    let (mut frame, vnet) = udp_train(across(), 1_440, 40);
    frame[6] = 0;
    checksum::fill_ipv4(&mut frame[..20]);
    let (mut sent, mut flushes) = (0, 0);
    let mut out = Output::new(16);
    let mut send = |out: &mut Output| {
        sent += out.tx.transmits().iter().map(|transmit| transmit.segments).sum::<usize>();
        out.clear();
    };
    let node = &mut overlay.nodes[0];
    let mut verdict = node.handle_tun_frame(overlay.now, &mut frame, vnet, &mut out);
    while verdict == TunVerdict::Flush {
        send(&mut out);
        flushes += 1;
        verdict = node.resume_tun_frame(overlay.now, &mut frame, &mut out);
    }
    send(&mut out);
    assert_eq!((verdict, sent), (TunVerdict::Consumed, 80));
    assert!(flushes > 0);
    assert_eq!(node.counters_mut().dropped(DropReason::BatchFull), 0);
}

/// A UDP super-packet.
fn udp_train(addresses: [std::net::Ipv4Addr; 2], segment: usize, count: usize) -> Frame {
    let len = 8 + segment * count;
    let mut upper = vec![0x12, 0x34, 0, 9, (len >> 8) as u8, len as u8, 0, 0];
    upper.resize(len, 7);
    overlay::packet(addresses, 17, &upper, Gso::Udp, segment)
}
