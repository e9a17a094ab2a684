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
use crate::batch::Output;
use crate::telemetry::{Counters, Tally};
use crate::time::Instant;
use crate::wire;

/// What a packet of a simulated host has in its payload. It must never be seen on the wire.
pub const MARK: [u8; 8] = *b"\xf1mArk\xe7\x13\x0a";

/// Datagram type of a relay header, and of data.
const RELAY: u8 = 5;
const DATA: u8 = 4;
/// Flags of a data datagram, which are not secret.
const CONTROL: u8 = 0x01;
const SPLIT: u8 = 0x04;
/// Sealed datagrams remembered at least; one comes back within milliseconds if at all.
const REMEMBERED: usize = 20_000;
/// More faults than this are not told.
const FAULTS_MAX: usize = 20;

/// The audit's books.
#[derive(Debug, Default)]
pub struct Audit {
    before: Counters,
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
    pub(super) fn begin(&mut self, counters: &Counters) {
        self.before = counters.clone();
    }

    /// A datagram leaves.
    pub(super) fn on_wire(&mut self, now: Instant, node: NodeNumber, bytes: &[u8]) {
        if contains_mark(bytes) {
            self.fault(now, node, "plaintext of a host is on the wire");
        }
        let inner = bytes.get(wire::RELAY_OVERHEAD..wire::RELAY_OVERHEAD + 16);
        let on_last_hop = bytes.get(24) == Some(&1);
        if bytes.first() == Some(&RELAY)
            && on_last_hop
            && let Some(Ok(inner)) = inner.map(<[u8; 16]>::try_from)
            && inner[0] == DATA
        {
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

    /// A turn ended, and brought forth `out` and `delivered`.
    pub(super) fn end(
        &mut self,
        now: Instant,
        node: NodeNumber,
        input: Input<'_>,
        after: &Counters,
        out: &Output,
        delivered: &[Delivery],
    ) {
        self.turns += 1;
        let before = &self.before;
        let mut sent = Tally::default();
        for transmit in out.tx.transmits() {
            sent.add(transmit.segments as u64, transmit.bytes().len() as u64);
        }
        for forward in &out.forwards {
            let len = forward.range.end - forward.range.start;
            sent.add(u64::from(len.div_ceil(forward.stride)), u64::from(len));
        }
        let received = match input {
            Input::Datagram(bytes) => Tally { packets: 1, bytes: bytes.len() as u64 },
            Input::Frame | Input::Timer => Tally::default(),
        };
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
            self.fault(now, node, &format!("sent {sent:?}, but counted {counted_sent:?}"));
        }
        if counted_received != received {
            let words = format!("received {received:?}, but counted {counted_received:?}");
            self.fault(now, node, &words);
        }
        // ICMP errors that the node itself makes are no traffic of anybody.
        let written = delivered.iter().filter(|delivery| contains_mark(&delivery.packet)).count();
        if !(written..=delivered.len()).contains(&(to_tun as usize)) {
            let words = format!("counted {to_tun} packets to the TUN, wrote {}", delivered.len());
            self.fault(now, node, &words);
        }
        let out_of_it = dropped + sent.packets + delivered.len() as u64;
        if must_show(input) && out_of_it == 0 {
            self.fault(now, node, &format!("a packet vanished without a reason: {input:?}"));
        }
    }
}

/// True when what came in must be sent, delivered or dropped in the same turn. A part of a split
/// packet is kept, and a control message or handshake is understood.
fn must_show(input: Input<'_>) -> bool {
    let datagram = match input {
        Input::Frame => return true,
        Input::Timer => return false,
        Input::Datagram(bytes) => bytes,
    };
    let inner = match datagram.first() {
        Some(&RELAY) => datagram.get(wire::RELAY_OVERHEAD..).unwrap_or_default(),
        _ => datagram,
    };
    inner.first() == Some(&DATA) && inner.get(1).is_some_and(|flags| flags & (CONTROL | SPLIT) == 0)
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

    #[test]
    fn plaintext_on_the_wire_is_seen() {
        let mut audit = Audit::default();
        audit.on_wire(NOW, 0, &[&[0xf1; 20][..], &MARK[1..]].concat());
        assert_eq!(audit.faults().len(), 1, "{:?}", audit.faults());
        audit.on_wire(NOW, 0, &[&[0xf1; 20][..], &MARK[2..]].concat());
        assert_eq!(audit.faults().len(), 1);
    }

    #[test]
    fn what_is_relayed_twice_is_seen() {
        let mut datagram = [0; 100];
        (datagram[0], datagram[24], datagram[44]) = (RELAY, 2, DATA);
        let mut audit = Audit::default();
        audit.on_wire(NOW, 0, &datagram);
        datagram[24] = 1;
        audit.on_wire(NOW, 1, &datagram);
        assert!(audit.faults().is_empty());
        audit.on_wire(NOW, 2, &datagram);
        assert_eq!(audit.faults().len(), 1);
    }

    #[test]
    fn counters_that_do_not_add_up_are_seen() {
        let mut audit = Audit::default();
        let (mut after, out) = (Counters::default(), Output::new(1));
        audit.begin(&after);
        audit.end(NOW, 0, Input::Frame, &after, &out, &[]);
        assert_eq!(audit.faults().len(), 1, "nothing became of the frame");
        after.drop(crate::telemetry::DropReason::NoRoute);
        audit.end(NOW, 0, Input::Frame, &after, &out, &[]);
        assert_eq!(audit.faults().len(), 1);
        after.underlay_tx.add(1, 100);
        audit.end(NOW, 0, Input::Timer, &after, &out, &[]);
        assert_eq!(audit.faults().len(), 2, "nothing was sent");
    }
}
