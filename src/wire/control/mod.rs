//! Control messages: what two nodes tell each other inside their tunnel.
//!
//! The body of a data datagram with the CONTROL flag is a list of frames
//! `type u8 | length u16 | body`. A body may be longer than this version knows; the rest is
//! ignored, and so are frames of unknown type. A body that is too short is an error.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::slice::ChunksExact;

pub use read::ControlIter;
pub use write::ControlWriter;

use super::array;
use crate::id::NodeId;
use crate::path::PathId;
use crate::telemetry::DropReason;

/// Length of a report, in a frame and as a trailer of data.
pub const REPORT_LEN: usize = 12;
/// Length of a frame's type and length.
pub const FRAME_HEADER_LEN: usize = 3;
/// Most entries in one part of an advertisement, so that it fits a 1280-byte underlay.
pub const ADVERTISEMENT_ENTRIES_MAX: usize = 100;

const ENTRY_LEN: usize = 11;
const ADVERTISEMENT_FIXED_LEN: usize = 19;

const PADDING: u8 = 0;
const PROBE: u8 = 1;
const PROBE_REPLY: u8 = 2;
const REPORT: u8 = 3;
const ADVERTISEMENT: u8 = 4;
const ADVERTISEMENT_ACK: u8 = 5;
const PATH_CHALLENGE: u8 = 6;
const PATH_RESPONSE: u8 = 7;
const MTU_PROBE: u8 = 8;
const MTU_ACK: u8 = 9;
const CLOSE: u8 = 10;
const CLASS_REFUSED: u8 = 11;
const HEARD: u8 = 12;
const VOLLEY: u8 = 13;
const VOLLEY_REPORT: u8 = 14;

/// A numbered measurement of the path on which it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its number, for each path.
    pub seq: u32,
    /// The sender's clock in microseconds; opaque to the receiver.
    pub sent_us: u64,
}

/// The answer to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// The probe's number.
    pub seq: u32,
    /// The probe's clock reading.
    pub sent_us: u64,
    /// Microseconds from the probe's arrival to this answer.
    pub hold_us: u32,
    /// The path that the probe came by, as its sender names it.
    pub path: PathId,
    /// What the receiver of the probe sees lost on that path, in 1/65535.
    pub loss: u16,
}

/// What a receiver saw on one path. Alone, or as the trailer of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The path, as the sender of the reported traffic names it.
    pub path: PathId,
    /// How long ago the last data came on the path, in units of 100 us; at least so long
    /// when it is the greatest value.
    pub age: u16,
    /// Datagrams that were sent as far as the receiver knows: one more than the highest counter,
    /// summed over the tunnel's keys, modulo 2^32.
    pub expected: u32,
    /// Datagrams that arrived, counted likewise. Between two reports, the loss is what `expected`
    /// grew more than `received` did.
    pub received: u32,
}

impl Report {
    /// Its twelve bytes.
    pub fn emit(&self) -> [u8; REPORT_LEN] {
        let mut bytes = [0; REPORT_LEN];
        bytes[0..2].copy_from_slice(&self.path.0.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.age.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.expected.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.received.to_be_bytes());
        bytes
    }

    /// Reads the twelve bytes.
    pub fn parse(bytes: [u8; REPORT_LEN]) -> Self {
        Self {
            path: PathId(u16::from_be_bytes(array(&bytes, 0))),
            age: u16::from_be_bytes(array(&bytes, 2)),
            expected: u32::from_be_bytes(array(&bytes, 4)),
            received: u32::from_be_bytes(array(&bytes, 8)),
        }
    }
}

/// One datagram of a volley: of such that leave back to back on one path, each a byte longer than the
/// one before so that nobody merges them, to show how far apart they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volley {
    /// The volley's number.
    pub seq: u16,
    /// Which datagram of it, from zero.
    pub index: u8,
    /// How many there are.
    pub count: u8,
}

/// How a [`Volley`] arrived, told when its last datagram did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolleyReport {
    /// The path, as the sender of the volley names it.
    pub path: PathId,
    /// The volley's number.
    pub seq: u16,
    /// How many datagrams arrived.
    pub arrived: u8,
    /// From the first arrival to the last one, in microseconds.
    pub span_us: u32,
}

/// The head of one part of a node's link-state advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The origin's incarnation.
    pub epoch: u64,
    /// Its number within the epoch; all parts of one advertisement share it.
    pub seq: u32,
    /// Which part, from zero.
    pub part: u8,
    /// How many parts there are, at least one.
    pub parts: u8,
    /// Bits for extensions; those unknown are ignored. See [`Advertisement::DELTA`].
    pub flags: u8,
    /// What the origin can still relay, in kbit/s.
    pub spare_relay_kbit: u32,
}

impl Advertisement {
    /// Flag: only the entries that changed since the advertisement before; others stand.
    pub const DELTA: u8 = 0x01;
}

/// One link of the origin: to a node, as the origin measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisementEntry {
    /// The other end.
    pub node: NodeId,
    /// Round-trip time of the best link, in microseconds.
    pub latency_us: u32,
    /// Loss in 1/65535, the worse of both directions.
    pub loss: u16,
    /// See the constants.
    pub flags: u8,
}

impl AdvertisementEntry {
    /// Flag: the link works.
    pub const UP: u8 = 0x01;
    /// Flag: answers are overdue.
    pub const SUSPECT: u8 = 0x02;
    /// The upper four bits are the origin's uplink of the best link.
    pub const UPLINK_SHIFT: u8 = 4;

    fn emit(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[0..4].copy_from_slice(&self.node.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.latency_us.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.loss.to_be_bytes());
        bytes[10] = self.flags;
        bytes
    }

    fn parse(bytes: &[u8]) -> Self {
        Self {
            node: NodeId(u32::from_be_bytes(array(bytes, 0))),
            latency_us: u32::from_be_bytes(array(bytes, 4)),
            loss: u16::from_be_bytes(array(bytes, 8)),
            flags: array::<1>(bytes, 10)[0],
        }
    }
}

/// The entries of a received advertisement, where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len() / ENTRY_LEN
    }

    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each entry.
    pub fn iter(&self) -> EntriesIter<'a> {
        EntriesIter(self.0.chunks_exact(ENTRY_LEN))
    }
}

impl<'a> IntoIterator for Entries<'a> {
    type Item = AdvertisementEntry;
    type IntoIter = EntriesIter<'a>;

    fn into_iter(self) -> EntriesIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Entries`].
#[derive(Clone, Debug)]
pub struct EntriesIter<'a>(ChunksExact<'a, u8>);

impl Iterator for EntriesIter<'_> {
    type Item = AdvertisementEntry;

    fn next(&mut self) -> Option<AdvertisementEntry> {
        self.0.next().map(AdvertisementEntry::parse)
    }
}

/// The receiver has this part of an advertisement, or knows a newer one by this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisementAck {
    /// The epoch that the receiver has of the origin.
    pub epoch: u64,
    /// The number within it.
    pub seq: u32,
    /// The part.
    pub part: u8,
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// So many bytes of nothing, to make a datagram longer.
    Padding(u16),
    /// A measurement.
    Probe(Probe),
    /// Its answer.
    ProbeReply(ProbeReply),
    /// What the receiver saw on a path.
    Report(Report),
    /// One part of the sender's links.
    Advertisement(Advertisement, Entries<'a>),
    /// Says which advertisement is known.
    AdvertisementAck(AdvertisementAck),
    /// Prove that you receive at this address: answer with the token.
    PathChallenge(u64),
    /// The token of a challenge.
    PathResponse(u64),
    /// This datagram, padded, makes an outer IP packet of so many bytes.
    MtuProbe(u16),
    /// A probe of that size arrived.
    MtuAck(u16),
    /// The sender stops; the reason is for the log.
    Close(u8),
    /// The sender does not relay packets of the class with this tag.
    ClassRefused(u8),
    /// On this direct path of the receiver's, as the receiver names it, its datagrams come in, but
    /// nothing answers what the sender sends there.
    Heard(PathId),
    /// One datagram of a volley.
    Volley(Volley),
    /// How a volley arrived.
    VolleyReport(VolleyReport),
}
