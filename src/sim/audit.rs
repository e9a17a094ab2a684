//! Watches every turn of every node from outside.
//!
//! - Nothing that a host wrote is on the wire in plaintext: hosts put [`MARK`] into their packets.
//! - Nothing loops: a sealed datagram leaves its source once, and at most one relay once
//!   ([`loops`]).
//! - The counters are true: what a node counts as read, received, sent, relayed and written is what
//!   went in and came out; each packet that comes in is sent, delivered, kept, or dropped with a
//!   reason, once ([`books`]).
//!
//! What it cannot see: which packets a datagram was, so that in a turn with a control message or a
//! handshake that came, one packet may be taken for another; and in which of its reasons a drop was
//! counted.

mod books;
mod loops;

pub(super) use books::Read;
use books::{Left, Told};
use loops::Loops;

use super::turn::Input;
use super::{Delivery, NodeNumber};
use crate::nat::Nat;
use crate::node::Node;
use crate::packet::{Headers, IcmpKind};
use crate::telemetry::{Counters, Tally};
use crate::time::Instant;

/// What a packet of a simulated host has in its payload. It must never be seen on the wire.
pub const MARK: [u8; 8] = *b"\xf1mArk\xe7\x13\x0a";

/// More faults than this are not told.
const FAULTS_MAX: usize = 20;

/// What a node says of itself.
#[derive(Clone, Copy)]
pub(super) struct Books<'a> {
    counters: &'a Counters,
    /// Fragments that its NAT holds.
    held: u64,
}

impl<'a> Books<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        Self { counters: node.counters(), held: node.nat().map_or(0, Nat::fragments_held) }
    }
}

/// The audit's books.
#[derive(Debug, Default)]
pub struct Audit {
    before: Counters,
    /// Fragments that its NAT held when the turn began.
    held: u64,
    /// What left in the turn.
    left: Left,
    loops: Loops,
    faults: Vec<String>,
    turns: u64,
}

impl Audit {
    /// What was found, in words.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// How many turns were looked at.
    pub const fn turns(&self) -> u64 {
        self.turns
    }

    fn fault(&mut self, now: Instant, node: NodeNumber, what: &str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{now} node {node}: {what}"));
        }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, books: Books<'_>) {
        self.before = books.counters.clone();
        self.held = books.held;
        self.left = Left::default();
    }

    /// The node sealed a datagram.
    pub(super) fn sealed(&mut self, datagram: &[u8]) {
        self.left.sealed(datagram);
    }

    /// The node relays a datagram.
    pub(super) fn relayed(&mut self, datagram: &[u8]) {
        self.left.relayed.add(1, datagram.len() as u64);
    }

    /// A datagram leaves.
    pub(super) fn on_wire(&mut self, now: Instant, node: NodeNumber, bytes: &[u8]) {
        if contains_mark(bytes) {
            self.fault(now, node, "plaintext of a host is on the wire");
        }
        if let Some(what) = self.loops.sends(node, bytes) {
            self.fault(now, node, &what);
        }
    }

    /// A turn ended, and brought forth `sent` and `delivered`.
    pub(super) fn end(
        &mut self,
        now: Instant,
        number: NodeNumber,
        input: Input<'_>,
        books: Books<'_>,
        sent: Tally,
        delivered: &[Delivery],
    ) {
        self.turns += 1;
        let (before, after) = (&self.before, books.counters);
        let delta = |after: Tally, before: Tally| Tally {
            packets: after.packets - before.packets,
            bytes: after.bytes - before.bytes,
        };
        let (mut received, mut read) = (Tally::default(), Tally::default());
        match input {
            Input::Datagrams(arrived) => {
                for arriving in arrived {
                    received.add(1, arriving.bytes.len() as u64);
                }
            }
            Input::Frames(frames) => read = frames.tally,
            Input::Timer => {}
        }
        let told = Told {
            dropped: dropped(after) - dropped(before),
            copies: delta(after.copies, before.copies),
            held: (books.held, self.held),
            written: delivered,
        };
        let mut wrong = Vec::new();
        for (what, seen, counted) in [
            ("read", read, delta(after.tun_rx, before.tun_rx)),
            ("received", received, delta(after.underlay_rx, before.underlay_rx)),
            ("sent", sent, delta(after.underlay_tx, before.underlay_tx)),
            ("relayed", self.left.relayed, delta(after.relayed, before.relayed)),
        ] {
            if seen != counted {
                wrong.push(format!("{what} {seen:?}, but counted {counted:?}"));
            }
        }
        let written = delta(after.tun_tx, before.tun_tx).packets;
        if written != delivered.len() as u64 {
            wrong.push(format!(
                "wrote {} packets to the TUN, but counted {written}",
                delivered.len()
            ));
        }
        wrong.extend(match input {
            Input::Frames(read) => books::of_frames(read, &self.left, told),
            Input::Datagrams(arrived) => books::of_datagrams(arrived, &self.left, told),
            Input::Timer => books::of_timer(&self.left, told),
        });
        for what in wrong {
            self.fault(now, number, &what);
        }
    }
}

/// Packets that were dropped, without messages of the node's own.
fn dropped(counters: &Counters) -> u64 {
    counters.drops().map(|drop| drop.1).sum::<u64>() - counters.messages_unsent
}

/// True for an ICMP error.
fn is_error(packet: &[u8]) -> bool {
    Headers::parse(packet).is_ok_and(|headers| headers.icmp == Some(IcmpKind::Error))
}

fn contains_mark(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == MARK[0]) {
        rest = &rest[at..];
        if rest.starts_with(&MARK) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::host;
    use crate::wire::relay::HOP_LIMIT;
    use crate::wire::{self, DataHeader, Flags, RelayHeader};

    const NOW: Instant = Instant::from_micros(1);

    fn books(counters: &Counters) -> Books<'_> {
        Books { counters, held: 0 }
    }

    #[test]
    fn plaintext_on_the_wire_is_seen() {
        let mut audit = Audit::default();
        audit.on_wire(NOW, 0, &[&[0xf1; 20][..], &MARK[1..]].concat());
        assert_eq!(audit.faults().len(), 1, "{:?}", audit.faults());
        audit.on_wire(NOW, 0, &[&[0xf1; 20][..], &MARK[2..]].concat());
        assert_eq!(audit.faults().len(), 1);
    }

    /// Data of 60 bytes behind a relay header.
    fn relayed(hop_limit: u8) -> Vec<u8> {
        let repr = wire::RelayRepr {
            src: crate::id::NodeId(1),
            dst: crate::id::NodeId(2),
            hop_limit,
            class: 0,
            flow_hash: 0,
        };
        let path = crate::path::PathId(0);
        let relay = RelayHeader { path, receiver_index: 1, counter: 1, repr };
        let data = DataHeader { flags: Flags::NONE, path, receiver_index: 2, counter: 3 };
        let mut datagram = vec![0; wire::RELAY_OVERHEAD + 60];
        let header = relay.emit();
        datagram[..header.len()].copy_from_slice(&header);
        datagram[wire::RELAY_OVERHEAD..][..wire::DATA_HEADER_LEN].copy_from_slice(&data.emit());
        datagram
    }

    #[test]
    fn what_more_than_two_send_or_one_sends_twice_is_seen() {
        let mut audit = Audit::default();
        // Whatever the relay header says.
        for (node, hop_limit, faults) in
            [(0, HOP_LIMIT, 0), (1, HOP_LIMIT - 1, 0), (2, HOP_LIMIT, 1), (0, HOP_LIMIT, 2)]
        {
            audit.on_wire(NOW, node, &relayed(hop_limit));
            assert_eq!(audit.faults().len(), faults, "node {node}");
        }
        let mut other = relayed(HOP_LIMIT);
        *other.last_mut().unwrap() ^= 1;
        audit.on_wire(NOW, 0, &other);
        assert_eq!(audit.faults().len(), 2, "sealed anew");
        audit.on_wire(NOW, 0, &other);
        assert_eq!(audit.faults().len(), 3, "sent twice");
    }

    fn frames(count: usize) -> Read {
        let ends = ["10.1.0.5", "10.2.0.5"].map(|text| (text.parse().unwrap(), 7));
        let packet = host::packet(ends[0], ends[1], 1, 100);
        Read::of(&vec![(packet, crate::packet::Vnet::default()); count])
    }

    /// A node that read `frames` packets dropped some and sent datagrams with these flags and so
    /// many bytes of plaintext.
    fn faults(frames_read: usize, dropped: u64, sent: &[(Flags, usize)]) -> usize {
        let mut audit = Audit::default();
        let mut after = Counters::default();
        audit.begin(books(&after));
        after.tun_rx.add(frames_read as u64, 100 * frames_read as u64);
        after.drop_many(crate::telemetry::DropReason::NoRoute, dropped);
        let mut tally = Tally::default();
        for &(flags, len) in sent {
            let path = crate::path::PathId(0);
            let header = DataHeader { flags, path, receiver_index: 2, counter: 3 };
            let datagram = [&header.emit()[..], &vec![0; len + wire::TAG_LEN]].concat();
            audit.sealed(&datagram);
            tally.add(1, datagram.len() as u64);
        }
        after.underlay_tx = tally;
        audit.end(NOW, 0, Input::Frames(&frames(frames_read)), books(&after), tally, &[]);
        audit.faults().len()
    }

    #[test]
    fn a_packet_of_many_that_vanishes_or_is_dropped_twice_is_seen() {
        use Flags as F;
        let (one, bundle) = ((F::NONE, 100), |packets: usize| (F::BUNDLE, 102 * packets));
        assert_eq!(faults(3, 1, &[one, one]), 0);
        assert_eq!(faults(3, 0, &[one, one]), 1, "one of three vanished");
        assert_eq!(faults(3, 2, &[one, one]), 1, "one was dropped and sent");
        assert_eq!(faults(12, 0, &[bundle(12)]), 0);
        assert_eq!(faults(12, 0, &[bundle(11)]), 1, "one of twelve vanished");
        assert_eq!(faults(12, 1, &[bundle(11)]), 0);
        assert_eq!(faults(12, 2, &[bundle(11)]), 1);
        assert_eq!(faults(1, 0, &[(F::CONTROL, 100)]), 1, "a message is no packet");
        assert_eq!(faults(1, 0, &[(F::SPLIT, 54), (F::SPLIT, 54)]), 0);
        assert_eq!(faults(1, 0, &[(F::REPORT, 112)]), 0);
        assert_eq!(faults(1, 0, &[(F::COPY, 104), (F::COPY, 104)]), 1, "no copy was counted");
    }

    #[test]
    fn counters_that_are_not_what_was_seen_are_seen() {
        let mut audit = Audit::default();
        let (mut after, none) = (Counters::default(), Tally::default());
        audit.begin(books(&after));
        audit.end(NOW, 0, Input::Frames(&frames(1)), books(&after), none, &[]);
        assert_eq!(audit.faults().len(), 2, "it was not counted, and nothing became of it");
        after.tun_rx.add(1, 100);
        let held = Books { held: 1, ..books(&after) };
        audit.end(NOW, 0, Input::Frames(&frames(1)), held, none, &[]);
        assert_eq!(audit.faults().len(), 2, "it waits");
        audit.begin(books(&after));
        for counter in 0..3 {
            let mut wrong = after.clone();
            [&mut wrong.underlay_tx, &mut wrong.relayed, &mut wrong.tun_tx][counter].add(1, 100);
            let before = audit.faults().len();
            audit.end(NOW, 0, Input::Timer, books(&wrong), none, &[]);
            assert_eq!(audit.faults().len(), before + 1);
        }
        after.drop(crate::telemetry::DropReason::NoRoute);
        let before = audit.faults().len();
        audit.end(NOW, 0, Input::Timer, books(&after), none, &[]);
        assert_eq!(audit.faults().len(), before + 1, "nothing had come");
    }

    #[test]
    fn each_datagram_with_packets_must_show_once() {
        let arriving = || crate::sim::Arriving {
            uplink: crate::id::UplinkIndex(0),
            source: "192.0.2.1:1".parse().unwrap(),
            at: NOW,
            at_port: 0,
            bytes: relayed(HOP_LIMIT),
        };
        let arrived = [arriving(), arriving()];
        for dropped in 0..4 {
            let mut audit = Audit::default();
            let mut after = Counters::default();
            audit.begin(books(&after));
            after.underlay_rx.add(2, 2 * arrived[0].bytes.len() as u64);
            after.drop_many(crate::telemetry::DropReason::Forged, dropped);
            audit.end(NOW, 0, Input::Datagrams(&arrived), books(&after), Tally::default(), &[]);
            assert_eq!(audit.faults().is_empty(), dropped == 2, "{dropped} of two");
        }
    }
}
