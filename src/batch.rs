//! The buffers between the shell and the node, and the rule of who owns them.
//!
//! The shell owns them all and lends them for one turn. What the node keeps within a turn are
//! positions (buffer, range), never references. Nothing here is allocated after start-up.
//!
//! - [`RxBatch`]: what the sockets received; the node opens datagrams in place.
//! - [`TxBatch`]: what goes to the underlay; the node seals straight into it. Datagrams for the
//!   same target collect in one buffer, so that they leave in one system call with UDP GSO.
//! - [`Output`]: a turn's results: the `TxBatch`, writes to the TUN as lists of parts of receive
//!   buffers, and relayed ranges that are sent from where they lie.

use std::net::SocketAddr;
use std::ops::Range;

use bytes::BytesMut;

use crate::id::UplinkIndex;
use crate::packet::Vnet;
use crate::time::Instant;

/// Size of each receive and send buffer: the largest UDP payload, and a little more.
pub const BUFFER_LEN: usize = 65_536;

/// So many buffers of zeros, of [`BUFFER_LEN`] bytes each, cut from one allocation: the system gives
/// its pages when they are first written to. A buffer that was allocated by itself would be cleared
/// by hand, and take up memory though nothing ever uses it.
pub fn buffers(count: usize) -> impl Iterator<Item = BytesMut> {
    let mut rest = BytesMut::zeroed(count * BUFFER_LEN);
    (0..count).map(move |_| rest.split_to(BUFFER_LEN))
}

/// Where a datagram goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The socket.
    pub uplink: UplinkIndex,
    /// The receiver.
    pub destination: SocketAddr,
    /// The outer type-of-service or traffic-class byte (DSCP and ECN).
    pub tos: u8,
}

/// Datagrams for one target, back to back: all `stride` bytes long, the last one may be shorter.
#[derive(Debug)]
pub struct Transmit {
    /// Where they go.
    pub target: Target,
    /// Length of each datagram but the last.
    pub stride: usize,
    /// How many datagrams.
    pub segments: usize,
    /// All of it is there from the start; what lies beyond `len` is left from earlier turns.
    buffer: BytesMut,
    len: usize,
    closed: bool,
}

impl Transmit {
    /// The datagrams.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn takes(&self, target: &Target, len: usize, limits: &TxLimits) -> bool {
        !self.closed
            && self.target == *target
            && len <= self.stride
            && self.segments < limits.segments
            && self.len + len <= limits.bytes
    }
}

#[derive(Clone, Copy, Debug)]
struct TxLimits {
    segments: usize,
    bytes: usize,
}

/// Datagrams waiting to be sent, grouped by target across frames. A group that nothing can be added
/// to any more may leave before the end of the turn.
///
/// Within one target the order is kept.
#[derive(Debug)]
pub struct TxBatch {
    groups: Vec<Transmit>,
    used: usize,
    limits: TxLimits,
}

impl TxBatch {
    /// Most datagrams in one GSO send that every kernel accepts.
    pub const MAX_SEGMENTS: usize = 64;
    /// Largest UDP payload over IPv4.
    pub const MAX_BYTES: usize = 65_507;
    /// Most bytes in one GSO send. With IPv6, UDP, Ethernet and two VLAN headers a train must stay
    /// below 65536 bytes: what is longer Linux cuts in software, datagram by datagram, even where
    /// the device would take it whole.
    pub const MAX_TRAIN_BYTES: usize = 65_535 - 40 - 8 - 14 - 8;

    /// A batch of at most `groups` system calls.
    pub fn new(groups: usize) -> Self {
        let idle = Target {
            uplink: UplinkIndex(0),
            destination: SocketAddr::from(([0, 0, 0, 0], 0)),
            tos: 0,
        };
        let groups = buffers(groups)
            .map(|buffer| Transmit {
                target: idle,
                stride: 0,
                segments: 0,
                buffer,
                len: 0,
                closed: true,
            })
            .collect();
        let limits = TxLimits { segments: Self::MAX_SEGMENTS, bytes: Self::MAX_TRAIN_BYTES };
        Self { groups, used: 0, limits }
    }

    /// Every datagram in a group of its own, for kernels without UDP GSO.
    pub fn without_gso(groups: usize) -> Self {
        Self { limits: TxLimits { segments: 1, bytes: Self::MAX_TRAIN_BYTES }, ..Self::new(groups) }
    }

    /// True when at least `groups` more groups can be begun. The shell flushes when it is not.
    pub fn has_room(&self, groups: usize) -> bool {
        self.used + groups <= self.groups.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Appends a datagram of `len` bytes for `target` and hands out its place, which holds anything
    /// until it is written. `None` when the batch is full or `len` exceeds what a datagram can be.
    pub fn push(&mut self, target: Target, len: usize) -> Option<&mut [u8]> {
        if len == 0 || len > Self::MAX_BYTES {
            return None;
        }
        let index = self.group_for(target, len)?;
        let group = &mut self.groups[index];
        let start = group.len;
        group.len += len;
        group.segments += 1;
        group.closed = len < group.stride;
        Some(&mut group.buffer[start..start + len])
    }

    /// Takes back the datagram that was pushed last for `target`.
    pub fn take_back(&mut self, target: Target) {
        let groups = &mut self.groups[..self.used];
        let Some(group) = groups.iter_mut().rev().find(|group| group.target == target) else {
            return;
        };
        group.segments = group.segments.saturating_sub(1);
        group.len = group.segments * group.stride;
        group.closed = false;
        // One that was begun for this datagram is the last one.
        self.used -= usize::from(group.segments == 0);
    }

    /// The group that takes the datagram: the newest one for its target, or a new one.
    fn group_for(&mut self, target: Target, len: usize) -> Option<usize> {
        let newest = self.groups[..self.used].iter().rposition(|g| g.target == target);
        if let Some(index) = newest {
            if self.groups[index].takes(&target, len, &self.limits) {
                return Some(index);
            }
            // The order within a target is kept.
            self.groups[index].closed = true;
        }
        let group = self.groups.get_mut(self.used)?;
        group.target = target;
        group.stride = len;
        group.segments = 0;
        group.len = 0;
        group.closed = false;
        self.used += 1;
        Some(self.used - 1)
    }

    /// Hands out the groups to which nothing can be added any more, and forgets them: sent at once,
    /// they are still in the processor's cache, and so is the buffer that the next one takes.
    pub fn drain_finished(&mut self, mut send: impl FnMut(&Transmit)) {
        let mut kept = 0;
        for index in 0..self.used {
            let group = &self.groups[index];
            if group.closed || !group.takes(&group.target, group.stride, &self.limits) {
                send(group);
            } else {
                self.groups.swap(kept, index);
                kept += 1;
            }
        }
        self.used = kept;
    }

    /// What is to be sent, in the order in which it was begun.
    pub fn transmits(&self) -> &[Transmit] {
        &self.groups[..self.used]
    }

    /// Forgets everything, after it was sent.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

/// One receive buffer with what one socket call put into it: datagrams of `stride` bytes from one
/// sender, the last one may be shorter (UDP GRO).
#[derive(Debug)]
pub struct RxSlot {
    /// The buffer, [`BUFFER_LEN`] bytes.
    pub buffer: BytesMut,
    /// Bytes received.
    pub len: usize,
    /// Length of each datagram but the last.
    pub stride: usize,
    /// The socket.
    pub uplink: UplinkIndex,
    /// The sender.
    pub source: SocketAddr,
    /// The outer type-of-service or traffic-class byte.
    pub tos: u8,
    /// When the kernel received it, if it said so.
    pub received_at: Option<Instant>,
}

/// The receive buffers of one turn.
#[derive(Debug)]
pub struct RxBatch {
    /// All slots, filled or not.
    pub slots: Vec<RxSlot>,
    /// How many of them are filled.
    pub filled: usize,
}

impl RxBatch {
    /// A batch of `slots` buffers.
    pub fn new(slots: usize) -> Self {
        let slots = buffers(slots)
            .map(|buffer| RxSlot {
                buffer,
                len: 0,
                stride: 0,
                uplink: UplinkIndex(0),
                source: SocketAddr::from(([0, 0, 0, 0], 0)),
                tos: 0,
                received_at: None,
            })
            .collect();
        Self { slots, filled: 0 }
    }
}

/// Where a piece of a TUN write lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the receive buffer, or [`Part::GENERATED`].
    pub slot: u16,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Part {
    /// The part lies in [`Output::generated`].
    pub const GENERATED: u16 = u16::MAX;
}

/// One frame for the TUN: the parts, in order, make up an IP packet or super-packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunWrite {
    /// The offload header.
    pub vnet: Vnet,
    /// True for IPv6.
    pub ipv6: bool,
    /// Range of [`Output::parts`].
    pub parts: Range<usize>,
    /// Packets in it, for the counters.
    pub segments: u32,
}

/// Datagrams to be sent on from the receive buffer where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Index of the receive buffer.
    pub slot: u16,
    /// Bytes of it.
    pub range: Range<u32>,
    /// Length of each datagram but the last.
    pub stride: u32,
    /// Where they go.
    pub target: Target,
}

/// What one turn brings forth. The shell carries it out, then calls [`Output::clear`].
#[derive(Debug)]
pub struct Output {
    /// Datagrams for the underlay.
    pub tx: TxBatch,
    /// Frames for the TUN, in order.
    pub tun_writes: Vec<TunWrite>,
    /// The pieces of those frames.
    pub parts: Vec<Part>,
    /// Bytes of packets and headers that the node itself made.
    pub generated: Vec<u8>,
    /// Relayed datagrams.
    pub forwards: Vec<Forward>,
}

impl Output {
    /// Most bytes of generated packets in a turn.
    pub const GENERATED_MAX: usize = 256 * 1024;

    /// Most packets of a turn: what 32 receive buffers full of bundled IP headers hold. Memory that
    /// is not used is not touched.
    const PACKETS_MAX: usize = 98_304;
    /// Most relayed ranges of a turn: 32 receive buffers of the shortest relay datagrams.
    const FORWARDS_MAX: usize = 32 * 1_024;

    /// Empty, with `tx_groups` send buffers.
    pub fn new(tx_groups: usize) -> Self {
        Self {
            tx: TxBatch::new(tx_groups),
            tun_writes: Vec::with_capacity(Self::PACKETS_MAX),
            parts: Vec::with_capacity(Self::PACKETS_MAX),
            generated: Vec::with_capacity(Self::GENERATED_MAX),
            forwards: Vec::with_capacity(Self::FORWARDS_MAX),
        }
    }

    /// Copies a packet that the node made and queues it for the TUN. False when there is no room.
    pub fn write_generated(&mut self, vnet: Vnet, packet: &[u8]) -> bool {
        let Some(part) = self.generate(packet) else { return false };
        let ipv6 = packet.first().is_some_and(|b| b >> 4 == 6);
        let first = self.parts.len();
        self.parts.push(part);
        self.tun_writes.push(TunWrite { vnet, ipv6, parts: first..first + 1, segments: 1 });
        true
    }

    /// Copies bytes that the node made and says where they lie. `None` when there is no room.
    pub fn generate(&mut self, bytes: &[u8]) -> Option<Part> {
        if self.generated.len() + bytes.len() > Self::GENERATED_MAX {
            return None;
        }
        let start = self.generated.len() as u32;
        self.generated.extend_from_slice(bytes);
        Some(Part { slot: Part::GENERATED, start, end: self.generated.len() as u32 })
    }

    /// The bytes of a part.
    pub fn part<'a>(&'a self, rx: &'a RxBatch, part: Part) -> &'a [u8] {
        let range = part.start as usize..part.end as usize;
        if part.slot == Part::GENERATED {
            &self.generated[range]
        } else {
            &rx.slots[part.slot as usize].buffer[range]
        }
    }

    /// Forgets everything, after it was carried out.
    pub fn clear(&mut self) {
        self.tx.clear();
        self.tun_writes.clear();
        self.parts.clear();
        self.generated.clear();
        self.forwards.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> Target {
        Target {
            uplink: UplinkIndex(0),
            destination: SocketAddr::from(([192, 0, 2, 1], port)),
            tos: 0,
        }
    }

    #[test]
    fn buffers_lie_in_one_piece_and_stay_apart() {
        let mut buffers: Vec<_> = buffers(3).collect();
        let places: Vec<_> = buffers.iter().map(|buffer| buffer.as_ptr().addr()).collect();
        assert_eq!(places[1] - places[0], BUFFER_LEN);
        assert_eq!(places[2] - places[1], BUFFER_LEN);
        buffers[1].fill(1);
        let sums = buffers.iter().map(|b| b.iter().map(|&byte| u32::from(byte)).sum());
        assert_eq!(sums.collect::<Vec<u32>>(), [0, BUFFER_LEN as u32, 0]);
    }

    #[test]
    fn datagrams_of_interleaved_targets_collect_in_one_group_each() {
        let mut tx = TxBatch::new(4);
        for i in 0..6 {
            tx.push(target(i % 2), 100).unwrap().fill(i as u8);
        }
        assert_eq!(tx.transmits().len(), 2);
        assert_eq!(tx.transmits()[1].segments, 3);
        assert_eq!(tx.transmits()[1].bytes()[100..200], [3; 100]);
    }

    #[test]
    fn a_short_datagram_ends_its_group_and_a_longer_one_begins_another() {
        let mut tx = TxBatch::new(8);
        for len in [100, 100, 60, 60, 100] {
            tx.push(target(1), len).unwrap();
        }
        let shape: Vec<_> = tx.transmits().iter().map(|t| (t.stride, t.segments)).collect();
        assert_eq!(shape, [(100, 3), (60, 1), (100, 1)]);
    }

    #[test]
    fn what_is_taken_back_is_not_sent() {
        let mut tx = TxBatch::new(8);
        tx.push(target(1), 100).unwrap().fill(1);
        tx.push(target(2), 100).unwrap().fill(2);
        tx.push(target(1), 60).unwrap().fill(3);
        tx.take_back(target(1));
        tx.push(target(1), 100).unwrap().fill(4);
        tx.push(target(3), 100).unwrap().fill(5);
        tx.take_back(target(3));
        tx.take_back(target(3));
        let bytes: Vec<_> = tx.transmits().iter().map(|t| (t.segments, t.bytes().len())).collect();
        assert_eq!(bytes, [(2, 200), (1, 100)]);
        assert_eq!(tx.transmits()[0].bytes()[100..], [4; 100]);
    }

    #[test]
    fn segment_and_byte_limits_hold_and_a_full_batch_refuses() {
        let mut tx = TxBatch::new(2);
        for _ in 0..TxBatch::MAX_SEGMENTS * 2 {
            assert!(tx.push(target(1), 10).is_some());
        }
        assert!(tx.push(target(1), 10).is_none());
        assert!(!tx.has_room(1));
        tx.clear();
        for _ in 0..44 {
            tx.push(target(1), 1_472).unwrap();
        }
        tx.push(target(1), 1_472).unwrap();
        assert_eq!(tx.transmits()[0].segments, 44);
        tx.clear();
        for _ in 0..46 {
            // All of them fit into one UDP payload, but not below 64 KiB with all headers.
            tx.push(target(1), 1_424).unwrap();
        }
        assert_eq!(tx.transmits()[0].segments, 45);
        tx.clear();
        assert!(tx.push(target(2), TxBatch::MAX_BYTES).is_some());
        assert!(tx.push(target(2), 70_000).is_none());
    }

    #[test]
    fn what_is_finished_leaves_early_and_in_order() {
        let mut tx = TxBatch::new(8);
        for (port, len, mark) in
            [(1, 100, 1), (2, 100, 2), (1, 60, 3), (1, 100, 4), (3, 50, 5), (3, 80, 6), (2, 100, 7)]
        {
            tx.push(target(port), len).unwrap().fill(mark);
        }
        let mut left = Vec::new();
        tx.drain_finished(|t| left.push((t.target.destination.port(), t.bytes()[0], t.segments)));
        assert_eq!(left, [(1, 1, 2), (3, 5, 1)]);
        let kept: Vec<_> = tx.transmits().iter().map(|t| (t.bytes()[0], t.segments)).collect();
        assert_eq!(kept, [(2, 2), (4, 1), (6, 1)]);
        for _ in 0..TxBatch::MAX_SEGMENTS {
            tx.push(target(1), 100).unwrap();
        }
        left.clear();
        tx.drain_finished(|t| left.push((t.target.destination.port(), t.bytes()[0], t.segments)));
        assert_eq!(left, [(1, 4, TxBatch::MAX_SEGMENTS)]);
        assert_eq!(tx.transmits().len(), 3);
    }

    #[test]
    fn without_gso_each_datagram_stands_alone() {
        let mut tx = TxBatch::without_gso(3);
        tx.push(target(1), 10).unwrap();
        tx.push(target(1), 10).unwrap();
        assert_eq!(tx.transmits().len(), 2);
    }
}
