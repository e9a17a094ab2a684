//! Watches every turn of every node from outside.
//!
//! - Nothing that a host wrote is on the wire in plaintext: hosts put [`MARK`] into their packets.
//! - Nothing loops: a sealed datagram leaves its source once, and at most one relay.
//! - The counters are true: what a node counts as sent, received, delivered and dropped is what
//!   went in and came out; each packet that comes in is sent, delivered, kept, or dropped with a
//!   reason.

use std::collections::BTreeSet;

use super::turn::Input;
use super::{Delivery, NodeNumber};
use crate::nat::Nat;
use crate::node::Node;
use crate::telemetry::{Counters, Tally};
use crate::time::Instant;
use crate::wire::relay::HOP_LIMIT;
use crate::wire::{self, DataHeader, Flags, MessageType, RelayHeader};

/// What a packet of a simulated host has in its payload. It must never be seen on the wire.
pub const MARK: [u8; 8] = *b"\xf1mArk\xe7\x13\x0a";

/// Sealed datagrams remembered at least; one comes back within milliseconds if at all.
const REMEMBERED: usize = 20_000;
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
    /// What left for the last hop, by its inner header: two generations.
    relayed: [BTreeSet<[u8; 16]>; 2],
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
    }

    /// A datagram leaves.
    pub(super) fn on_wire(&mut self, now: Instant, node: NodeNumber, bytes: &[u8]) {
        if contains_mark(bytes) {
            self.fault(now, node, "plaintext of a host is on the wire");
        }
        if let Some(inner) = on_last_hop(bytes) {
            if self.relayed.iter().any(|seen| seen.contains(&inner)) {
                self.fault(now, node, "a datagram was relayed twice");
            }
            if self.relayed[0].len() >= REMEMBERED {
                self.relayed.swap(0, 1);
                self.relayed[0].clear();
            }
            self.relayed[0].insert(inner);
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
        let mut received = Tally::default();
        if let Input::Datagrams(arrived) = input {
            for arriving in arrived {
                received.add(1, arriving.bytes.len() as u64);
            }
        }
        let dropped: u64 =
            after.drops().zip(before.drops()).map(|(after, before)| after.1 - before.1).sum();
        let delta = |after: Tally, before: Tally| Tally {
            packets: after.packets - before.packets,
            bytes: after.bytes - before.bytes,
        };
        let counted_sent = delta(after.underlay_tx, before.underlay_tx);
        let counted_received = delta(after.underlay_rx, before.underlay_rx);
        let to_tun = delta(after.tun_tx, before.tun_tx).packets;
        if counted_sent != sent {
            self.fault(now, number, &format!("sent {sent:?}, but counted {counted_sent:?}"));
        }
        if counted_received != received {
            let words = format!("received {received:?}, but counted {counted_received:?}");
            self.fault(now, number, &words);
        }
        // ICMP errors that the node itself makes are no traffic of anybody.
        let written = delivered.iter().filter(|delivery| contains_mark(&delivery.packet)).count();
        if !(written..=delivered.len()).contains(&(to_tun as usize)) {
            let words = format!("counted {to_tun} packets to the TUN, wrote {}", delivered.len());
            self.fault(now, number, &words);
        }
        let kept = books.held.saturating_sub(self.held);
        let out_of_it = dropped + sent.packets + delivered.len() as u64 + kept;
        let due = must_show(input);
        if out_of_it < due {
            let words =
                format!("of {due} packets {out_of_it} left, wait, or were dropped with a reason");
            self.fault(now, number, &words);
        }
    }
}

/// How many packets of what came in must be sent, held, delivered or dropped in the same turn. A part of
/// a split packet is kept, a control message or handshake is understood, and of the frames of one
/// turn several may leave in one datagram.
fn must_show(input: Input<'_>) -> u64 {
    match input {
        Input::Frames => 1,
        Input::Timer => 0,
        Input::Datagrams(arrived) => {
            arrived.iter().filter(|arriving| carries_packets(&arriving.bytes)).count() as u64
        }
    }
}

/// True for a datagram with whole packets, relayed or not.
fn carries_packets(datagram: &[u8]) -> bool {
    let inner = match wire::peek(datagram) {
        Ok(MessageType::Relay) => datagram.get(wire::RELAY_OVERHEAD..).unwrap_or_default(),
        _ => datagram,
    };
    DataHeader::parse(inner)
        .is_ok_and(|header| !header.flags.has(Flags::CONTROL) && !header.flags.has(Flags::SPLIT))
}

/// The inner header of a sealed datagram that leaves its relay.
fn on_last_hop(datagram: &[u8]) -> Option<[u8; wire::DATA_HEADER_LEN]> {
    let header = RelayHeader::parse(datagram).ok()?;
    let inner = datagram.get(wire::RELAY_OVERHEAD..)?;
    let last = header.repr.hop_limit < HOP_LIMIT && DataHeader::parse(inner).is_ok();
    last.then(|| inner.first_chunk().copied()).flatten()
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
    fn what_is_relayed_twice_is_seen() {
        let mut audit = Audit::default();
        audit.on_wire(NOW, 0, &relayed(HOP_LIMIT));
        audit.on_wire(NOW, 1, &relayed(HOP_LIMIT - 1));
        assert!(audit.faults().is_empty());
        audit.on_wire(NOW, 2, &relayed(HOP_LIMIT - 1));
        assert_eq!(audit.faults().len(), 1);
    }

    #[test]
    fn counters_that_do_not_add_up_are_seen() {
        let mut audit = Audit::default();
        let (mut after, none) = (Counters::default(), Tally::default());
        audit.begin(books(&after));
        audit.end(NOW, 0, Input::Frames, books(&after), none, &[]);
        assert_eq!(audit.faults().len(), 1, "nothing became of the frame");
        after.drop(crate::telemetry::DropReason::NoRoute);
        audit.end(NOW, 0, Input::Frames, books(&after), none, &[]);
        let held = Books { held: 1, ..books(&after) };
        audit.begin(books(&after));
        audit.end(NOW, 0, Input::Frames, held, none, &[]);
        assert_eq!(audit.faults().len(), 1, "it waits");
        after.underlay_tx.add(1, 100);
        audit.end(NOW, 0, Input::Timer, books(&after), none, &[]);
        assert_eq!(audit.faults().len(), 2, "nothing was sent");
        assert_eq!(audit.turns(), 4);
    }

    #[test]
    fn each_datagram_with_packets_must_show() {
        let mut audit = Audit::default();
        let arriving = || crate::sim::Arriving {
            uplink: crate::id::UplinkIndex(0),
            source: "192.0.2.1:1".parse().unwrap(),
            at: NOW,
            at_port: 0,
            bytes: relayed(HOP_LIMIT),
        };
        let arrived = [arriving(), arriving()];
        let mut after = Counters::default();
        audit.begin(books(&after));
        after.underlay_rx.add(2, 2 * arrived[0].bytes.len() as u64);
        after.drop(crate::telemetry::DropReason::Forged);
        audit.end(NOW, 0, Input::Datagrams(&arrived), books(&after), Tally::default(), &[]);
        assert_eq!(audit.faults().len(), 1, "one of two vanished");
        after.drop(crate::telemetry::DropReason::Forged);
        audit.end(NOW, 0, Input::Datagrams(&arrived), books(&after), Tally::default(), &[]);
        assert_eq!(audit.faults().len(), 1);
    }
}
