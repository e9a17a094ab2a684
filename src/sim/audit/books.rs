//! What went into a turn of a node, what came out of it, and whether the two are the same.
//!
//! Only what is seen from outside is counted: frames, datagrams with the flags that they bear in
//! clear, what was written to the TUN. The node's own word is taken for what it dropped, and for how
//! many of its datagrams were second copies.

use super::is_error;
use crate::packet::{Gso, Headers, Vnet, protocol};
use crate::sim::{Arriving, Delivery, Frame};
use crate::telemetry::Tally;
use crate::wire::control::REPORT_LEN;
use crate::wire::data::{BUNDLE_LEN_LEN, Split};
use crate::wire::relay::HOP_LIMIT;
use crate::wire::{self, COPY_ID_LEN, DataHeader, Flags, MessageType, RelayHeader};

/// An inner packet is no shorter.
const PACKET_MIN: usize = 20;

/// Shorter frames pass every path.
const RECUT_FROM: usize = 1_000;

/// The frames of a turn.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Read {
    /// Frames and their bytes, segments counted one each.
    pub(super) tally: Tally,
    /// The length of every packet in them.
    lens: Vec<usize>,
    /// There is TCP among them that may be cut otherwise for the path: the length of its headers.
    recut: Option<usize>,
}

impl Read {
    /// What a node reads when it gets these frames.
    pub(in crate::sim) fn of(frames: &[Frame]) -> Self {
        let mut read = Self::default();
        for (frame, vnet) in frames {
            let before = read.lens.len();
            read.frame(frame, vnet);
            read.tally.add((read.lens.len() - before) as u64, frame.len() as u64);
        }
        read
    }

    fn frame(&mut self, frame: &[u8], vnet: &Vnet) {
        let Ok(headers) = Headers::parse(frame) else { return self.lens.push(frame.len()) };
        if headers.protocol == protocol::TCP && frame.len() > RECUT_FROM {
            self.recut = Some(headers.payload.into());
        }
        if vnet.gso == Gso::None || vnet.segment_size == 0 {
            return self.lens.push(frame.len());
        }
        let (start, size) = (usize::from(headers.payload), usize::from(vnet.segment_size));
        let payload = frame.len().saturating_sub(start);
        if payload == 0 {
            return self.lens.push(frame.len());
        }
        self.lens.extend((0..payload).step_by(size).map(|at| start + size.min(payload - at)));
    }

    /// Between which bounds the lengths of so many of the packets add up.
    fn sum_of(&self, count: usize) -> std::ops::RangeInclusive<usize> {
        let mut lens = self.lens.clone();
        lens.sort_unstable();
        let count = count.min(lens.len());
        lens[..count].iter().sum()..=lens[lens.len() - count..].iter().sum()
    }
}

/// Datagrams of one kind: how many, and the bytes of packets in them.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    count: usize,
    bytes: usize,
}

impl Kind {
    const fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What left in a turn, less control messages and handshakes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    /// One packet each.
    single: Kind,
    /// Packets that go by two ways, both copies.
    copies: Kind,
    /// Parts of packets.
    parts: Kind,
    /// Several packets each.
    bundles: Kind,
    /// Relayed for others.
    pub(super) relayed: Tally,
}

impl Left {
    /// A datagram that the node itself sealed.
    pub(super) fn sealed(&mut self, datagram: &[u8]) {
        let Some((header, len)) = inner(datagram) else { return };
        let flags = header.flags;
        if flags.has(Flags::CONTROL) {
            return;
        }
        let mut bytes = len - wire::DATA_OVERHEAD;
        for (flag, extra) in
            [(Flags::REPORT, REPORT_LEN), (Flags::COPY, COPY_ID_LEN), (Flags::SPLIT, Split::LEN)]
        {
            bytes = bytes.saturating_sub(if flags.has(flag) { extra } else { 0 });
        }
        let kind = if flags.has(Flags::COPY) {
            &mut self.copies
        } else if flags.has(Flags::SPLIT) {
            &mut self.parts
        } else if flags.has(Flags::BUNDLE) {
            &mut self.bundles
        } else {
            &mut self.single
        };
        kind.add(bytes);
    }

    /// Datagrams with packets, of which several may be in one.
    const fn datagrams(&self) -> usize {
        self.single.count + self.copies.count + self.parts.count + self.bundles.count
    }
}

/// What the node says of a turn, and what it wrote to the TUN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// Packets that were dropped, for all reasons together.
    pub(super) dropped: u64,
    /// Second copies among what was sent; bytes with the ids of the copies.
    pub(super) copies: Tally,
    /// Fragments that wait in its NAT, now and when the turn began.
    pub(super) held: (u64, u64),
    /// What it wrote.
    pub(super) written: &'a [Delivery],
}

impl Told<'_> {
    /// Packets written to the TUN that are none of the node's own making, and their bytes.
    fn passed(&self) -> Kind {
        let mut passed = Kind::default();
        for delivery in self.written.iter().filter(|delivery| !is_error(&delivery.packet)) {
            passed.add(delivery.packet.len());
        }
        passed
    }
}

/// Every packet read was sealed, written back, kept, or dropped, and none of them twice. What is
/// wrong, in words.
pub(super) fn of_frames(read: &Read, left: &Left, told: Told<'_>) -> Option<String> {
    let wrong = || Some(format!("the packets do not add up: {read:?} became {left:?}, {told:?}"));
    let id_len = COPY_ID_LEN as u64;
    let seconds = (told.copies.packets as usize, told.copies.bytes as usize);
    let first_bytes = left.copies.bytes + (told.copies.packets * id_len) as usize;
    let (Some(firsts), Some(first_bytes)) =
        (left.copies.count.checked_sub(seconds.0), first_bytes.checked_sub(seconds.1))
    else {
        return wrong();
    };
    let passed = told.passed();
    let stopped = (told.dropped + told.held.0.saturating_sub(told.held.1)) as usize;
    let known = left.single.count + firsts + left.parts.count / 2 + passed.count + stopped;
    if left.relayed.packets > 0 {
        return wrong();
    }
    let bytes = left.single.bytes + first_bytes + left.parts.bytes + passed.bytes;
    let total: usize = read.lens.iter().sum();
    if let Some(headers) = read.recut {
        let right = match known.checked_sub(read.lens.len()) {
            // Each piece more has headers of its own.
            Some(more) if stopped + left.bundles.count == 0 => bytes == total + more * headers,
            Some(_) => true,
            None => left.bundles.count > 0,
        };
        return if right { None } else { wrong() };
    }
    // The rest went in bundles, and two of them at least in each.
    let Some(bundled) = read.lens.len().checked_sub(known) else { return wrong() };
    if bundled < 2 * left.bundles.count || (left.bundles.count == 0 && bundled > 0) {
        return wrong();
    }
    let bytes = (bytes + left.bundles.bytes).saturating_sub(bundled * BUNDLE_LEN_LEN);
    let missing = total.checked_sub(bytes);
    let right = missing.is_some_and(|missing| read.sum_of(stopped).contains(&missing));
    if right { None } else { wrong() }
}

/// Every datagram that came was understood as a message, or its packets were delivered, relayed,
/// kept, or dropped, and none of them twice. What is wrong, in words.
pub(super) fn of_datagrams(arrived: &[Arriving], left: &Left, told: Told<'_>) -> Option<String> {
    let (mut least, mut most) = (0, 0);
    for arriving in arrived {
        let (from, to) = packets_in(&arriving.bytes);
        (least, most) = (least + from, most + to);
    }
    let kept = told.held.0.saturating_sub(told.held.1) as usize;
    let released = told.held.1.saturating_sub(told.held.0) as usize;
    let gone = told.dropped as usize + left.relayed.packets as usize + kept;
    let (some, all) = (gone + told.passed().count, gone + told.written.len() + left.datagrams());
    let right = all >= least && some <= most + released;
    (!right).then(|| {
        format!(
            "of {least} to {most} packets {some} to {all} left, wait, or were dropped: {left:?}, {told:?}"
        )
    })
}

/// Nothing came, so nothing may come out but what had waited. What is wrong, in words.
pub(super) fn of_timer(left: &Left, told: Told<'_>) -> Option<String> {
    let released = told.held.1.saturating_sub(told.held.0);
    let gone = told.dropped + left.relayed.packets + told.passed().count as u64;
    (gone > released).then(|| format!("packets came from nowhere: {left:?}, {told:?}"))
}

/// How many packets must come out of a datagram, or be dropped, at least and at most. A part of a
/// split packet is kept, a control message or handshake is understood, or else dropped.
fn packets_in(datagram: &[u8]) -> (usize, usize) {
    let message = |datagram: &[u8]| match wire::peek(datagram) {
        Ok(
            MessageType::HandshakeInit | MessageType::HandshakeResponse | MessageType::CookieReply,
        ) => (0, 1),
        _ => (1, 1),
    };
    if RelayHeader::parse(datagram).is_ok_and(|header| header.repr.hop_limit == HOP_LIMIT) {
        return (1, 1);
    }
    match inner(datagram) {
        Some((header, _)) if header.flags.has(Flags::CONTROL) || header.flags.has(Flags::SPLIT) => {
            (0, 1)
        }
        Some((header, len)) if header.flags.has(Flags::BUNDLE) => {
            (1, 1 + len / (PACKET_MIN + BUNDLE_LEN_LEN))
        }
        Some(_) => (1, 1),
        None if RelayHeader::parse(datagram).is_ok() => {
            message(datagram.get(wire::RELAY_OVERHEAD..).unwrap_or_default())
        }
        None => message(datagram),
    }
}

/// The header of a data datagram, relayed or not, and its length without that of the relay.
fn inner(datagram: &[u8]) -> Option<(DataHeader, usize)> {
    let inner = match wire::peek(datagram) {
        Ok(MessageType::Relay) => datagram.get(wire::RELAY_OVERHEAD..)?,
        _ => datagram,
    };
    let header = DataHeader::parse(inner).ok()?;
    (inner.len() >= wire::DATA_OVERHEAD).then_some((header, inner.len()))
}
