//! Control messages: what two nodes tell each other inside their tunnel.
//!
//! The body of a data datagram with the CONTROL flag is a list of frames
//! `type u8 | length u16 | body`. A body may be longer than this version knows; the rest is
//! ignored, and so are frames of unknown type. A body that is too short is an error.

use std::slice::ChunksExact;

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
    /// Smoothed variation of the one-way delay, in units of 10 us.
    pub jitter: u16,
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
        bytes[2..4].copy_from_slice(&self.jitter.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.expected.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.received.to_be_bytes());
        bytes
    }

    /// Reads the twelve bytes.
    pub fn parse(bytes: [u8; REPORT_LEN]) -> Self {
        Self {
            path: PathId(u16::from_be_bytes(array(&bytes, 0))),
            jitter: u16::from_be_bytes(array(&bytes, 2)),
            expected: u32::from_be_bytes(array(&bytes, 4)),
            received: u32::from_be_bytes(array(&bytes, 8)),
        }
    }
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
}

/// Reads the frames of a control body one by one; ends after the first error.
#[derive(Clone, Debug)]
pub struct ControlIter<'a> {
    rest: &'a [u8],
}

impl<'a> ControlIter<'a> {
    /// Reads `body`.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn next_frame(&mut self) -> Result<(u8, &'a [u8]), DropReason> {
        let (head, rest) =
            self.rest.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(DropReason::BadControl)?;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (body, rest) = rest.split_at_checked(len).ok_or(DropReason::BadControl)?;
        self.rest = rest;
        Ok((head[0], body))
    }
}

impl<'a> Iterator for ControlIter<'a> {
    type Item = Result<Control<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.next_frame().and_then(|(kind, body)| parse_body(kind, body)) {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(reason) => {
                    self.rest = &[];
                    return Some(Err(reason));
                }
            }
        }
        None
    }
}

fn parse_body(kind: u8, body: &[u8]) -> Result<Option<Control<'_>>, DropReason> {
    let known_len = match kind {
        PROBE => 12,
        PROBE_REPLY => 20,
        REPORT => REPORT_LEN,
        ADVERTISEMENT => ADVERTISEMENT_FIXED_LEN,
        ADVERTISEMENT_ACK => 13,
        PATH_CHALLENGE | PATH_RESPONSE => 8,
        MTU_PROBE | MTU_ACK => 2,
        CLOSE => 1,
        _ => return Ok(None),
    };
    if body.len() < known_len {
        return Err(DropReason::BadControl);
    }
    let number64 = |at| u64::from_be_bytes(array(body, at));
    let number32 = |at| u32::from_be_bytes(array(body, at));
    let number16 = |at| u16::from_be_bytes(array(body, at));
    Ok(Some(match kind {
        PROBE => Control::Probe(Probe { seq: number32(0), sent_us: number64(4) }),
        PROBE_REPLY => Control::ProbeReply(ProbeReply {
            seq: number32(0),
            sent_us: number64(4),
            hold_us: number32(12),
            path: PathId(number16(16)),
            loss: number16(18),
        }),
        REPORT => Control::Report(Report::parse(array(body, 0))),
        ADVERTISEMENT => return parse_advertisement(body).map(Some),
        ADVERTISEMENT_ACK => Control::AdvertisementAck(AdvertisementAck {
            epoch: number64(0),
            seq: number32(8),
            part: body[12],
        }),
        PATH_CHALLENGE => Control::PathChallenge(number64(0)),
        PATH_RESPONSE => Control::PathResponse(number64(0)),
        MTU_PROBE => Control::MtuProbe(number16(0)),
        MTU_ACK => Control::MtuAck(number16(0)),
        _ => Control::Close(body[0]),
    }))
}

fn parse_advertisement(body: &[u8]) -> Result<Control<'_>, DropReason> {
    let entries = &body[ADVERTISEMENT_FIXED_LEN..];
    let head = Advertisement {
        epoch: u64::from_be_bytes(array(body, 0)),
        seq: u32::from_be_bytes(array(body, 8)),
        part: body[12],
        parts: body[13],
        flags: body[14],
        spare_relay_kbit: u32::from_be_bytes(array(body, 15)),
    };
    let count = entries.len() / ENTRY_LEN;
    if head.part >= head.parts
        || !entries.len().is_multiple_of(ENTRY_LEN)
        || count > ADVERTISEMENT_ENTRIES_MAX
    {
        return Err(DropReason::BadControl);
    }
    Ok(Control::Advertisement(head, Entries(entries)))
}

/// Writes control messages one after the other into a buffer.
#[derive(Debug)]
pub struct ControlWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> ControlWriter<'b> {
    /// Writes from the start of `buffer`.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes written.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a message. False, and nothing written, when there is no room.
    #[must_use]
    pub fn push(&mut self, message: &Control<'_>) -> bool {
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let mut tail: &[u8] = &[];
        let (kind, len) = match message {
            Control::Padding(len) => return self.pad(*len),
            Control::Probe(probe) => {
                (PROBE, put(&mut body, &[&probe.seq.to_be_bytes(), &probe.sent_us.to_be_bytes()]))
            }
            Control::ProbeReply(reply) => return self.push_reply(reply),
            Control::Report(report) => (REPORT, put(&mut body, &[&report.emit()])),
            Control::Advertisement(head, entries) => {
                tail = entries.0;
                (ADVERTISEMENT, put_advertisement(&mut body, head))
            }
            Control::AdvertisementAck(ack) => {
                let fields: [&[u8]; 3] =
                    [&ack.epoch.to_be_bytes(), &ack.seq.to_be_bytes(), &[ack.part]];
                (ADVERTISEMENT_ACK, put(&mut body, &fields))
            }
            Control::PathChallenge(token) => {
                (PATH_CHALLENGE, put(&mut body, &[&token.to_be_bytes()]))
            }
            Control::PathResponse(token) => {
                (PATH_RESPONSE, put(&mut body, &[&token.to_be_bytes()]))
            }
            Control::MtuProbe(size) => (MTU_PROBE, put(&mut body, &[&size.to_be_bytes()])),
            Control::MtuAck(size) => (MTU_ACK, put(&mut body, &[&size.to_be_bytes()])),
            Control::Close(reason) => (CLOSE, put(&mut body, &[&[*reason]])),
        };
        self.frame(kind, &body[..len], tail.len(), |place| place.copy_from_slice(tail))
    }

    /// Appends one part of an advertisement. False, and nothing written, when there is no room or
    /// there are more than [`ADVERTISEMENT_ENTRIES_MAX`] entries.
    #[must_use]
    pub fn push_advertisement(
        &mut self,
        head: &Advertisement,
        entries: &[AdvertisementEntry],
    ) -> bool {
        if entries.len() > ADVERTISEMENT_ENTRIES_MAX {
            return false;
        }
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let len = put_advertisement(&mut body, head);
        self.frame(ADVERTISEMENT, &body[..len], entries.len() * ENTRY_LEN, |place| {
            for (place, entry) in place.chunks_exact_mut(ENTRY_LEN).zip(entries) {
                place.copy_from_slice(&entry.emit());
            }
        })
    }

    /// Makes the body exactly `total` bytes long. False when it is longer already, or only one or
    /// two bytes shorter (a frame has at least three).
    #[must_use]
    pub fn pad_to(&mut self, total: usize) -> bool {
        if self.len == total {
            return true;
        }
        let len = total.checked_sub(self.len + FRAME_HEADER_LEN);
        len.and_then(|len| u16::try_from(len).ok()).is_some_and(|len| self.pad(len))
    }

    fn pad(&mut self, len: u16) -> bool {
        self.frame(PADDING, &[], usize::from(len), |place| place.fill(0))
    }

    fn push_reply(&mut self, reply: &ProbeReply) -> bool {
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let fields: [&[u8]; 5] = [
            &reply.seq.to_be_bytes(),
            &reply.sent_us.to_be_bytes(),
            &reply.hold_us.to_be_bytes(),
            &reply.path.0.to_be_bytes(),
            &reply.loss.to_be_bytes(),
        ];
        let len = put(&mut body, &fields);
        self.frame(PROBE_REPLY, &body[..len], 0, |_| {})
    }

    fn frame(
        &mut self,
        kind: u8,
        body: &[u8],
        tail_len: usize,
        write_tail: impl FnOnce(&mut [u8]),
    ) -> bool {
        let body_len = body.len() + tail_len;
        let end = self.len + FRAME_HEADER_LEN + body_len;
        let (Ok(length), Some(place)) =
            (u16::try_from(body_len), self.buffer.get_mut(self.len..end))
        else {
            return false;
        };
        place[0] = kind;
        place[1..3].copy_from_slice(&length.to_be_bytes());
        let (fixed, tail) = place[FRAME_HEADER_LEN..].split_at_mut(body.len());
        fixed.copy_from_slice(body);
        write_tail(tail);
        self.len = end;
        true
    }
}

fn put(body: &mut [u8], fields: &[&[u8]]) -> usize {
    let mut at = 0;
    for field in fields {
        body[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    at
}

fn put_advertisement(body: &mut [u8], head: &Advertisement) -> usize {
    put(
        body,
        &[
            &head.epoch.to_be_bytes(),
            &head.seq.to_be_bytes(),
            &[head.part, head.parts, head.flags],
            &head.spare_relay_kbit.to_be_bytes(),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(messages: &[Control<'_>]) -> Vec<u8> {
        let mut buffer = [0; 1400];
        let mut writer = ControlWriter::new(&mut buffer);
        for message in messages {
            assert!(writer.push(message));
        }
        let len = writer.len();
        buffer[..len].to_vec()
    }

    #[test]
    #[rustfmt::skip]
    fn messages_are_these_bytes() {
        let messages = [
            Control::Probe(Probe { seq: 1, sent_us: 2 }),
            Control::ProbeReply(ProbeReply {
                seq: 1, sent_us: 2, hold_us: 3, path: PathId(0x21), loss: 4,
            }),
            Control::AdvertisementAck(AdvertisementAck { epoch: 5, seq: 6, part: 7 }),
            Control::PathChallenge(8),
            Control::PathResponse(8),
            Control::MtuProbe(1400),
            Control::MtuAck(1400),
            Control::Close(9),
            Control::Report(Report { path: PathId(1), jitter: 2, expected: 3, received: 4 }),
        ];
        let bytes = written(&messages);
        let expected: &[&[u8]] = &[
            &[1, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
            &[2, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0x21, 0, 4],
            &[5, 0, 13, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 7],
            &[6, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
            &[7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
            &[8, 0, 2, 0x05, 0x78],
            &[9, 0, 2, 0x05, 0x78],
            &[10, 0, 1, 9],
            &[3, 0, 12, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4],
        ];
        assert_eq!(bytes, expected.concat());
        let parsed: Result<Vec<_>, _> = ControlIter::new(&bytes).collect();
        assert_eq!(parsed, Ok(messages.to_vec()));
    }

    #[test]
    fn an_advertisement_of_a_hundred_entries_fits_a_small_underlay() {
        let entries: Vec<_> = (0..100)
            .map(|i| AdvertisementEntry {
                node: NodeId(i),
                latency_us: 1000 * i,
                loss: 7,
                flags: AdvertisementEntry::UP,
            })
            .collect();
        let head = Advertisement {
            epoch: 1,
            seq: 2,
            part: 3,
            parts: 4,
            flags: Advertisement::DELTA,
            spare_relay_kbit: 5,
        };
        let mut buffer = [0; 1280 - 40 - 8 - super::super::DATA_OVERHEAD];
        let mut writer = ControlWriter::new(&mut buffer);
        assert!(writer.push_advertisement(&head, &entries));
        let len = writer.len();
        #[rustfmt::skip]
        assert_eq!(buffer[..33], [
            4, 0x04, 0x5f,
            0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 3, 4, 1, 0, 0, 0, 5,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1,
        ]);
        let Some(Ok(Control::Advertisement(parsed, list))) =
            ControlIter::new(&buffer[..len]).next()
        else {
            panic!("no advertisement");
        };
        assert_eq!(parsed, head);
        assert_eq!(list.len(), 100);
        assert_eq!(list.iter().collect::<Vec<_>>(), entries);
    }

    #[test]
    fn unknown_types_and_longer_bodies_are_skipped_over() {
        let mut bytes = vec![0x77, 0, 2, 1, 2, 10, 0, 3, 9, 8, 7, 0, 0, 1, 0];
        bytes.extend(written(&[Control::PathChallenge(1)]));
        let parsed: Result<Vec<_>, _> = ControlIter::new(&bytes).collect();
        assert_eq!(parsed, Ok(vec![Control::Close(9), Control::PathChallenge(1)]));
    }

    #[test]
    fn short_bodies_end_the_list_with_an_error() {
        for bytes in [&[1][..], &[1, 0], &[1, 0, 12, 0], &[10, 0, 0], &[1, 0, 11, 0, 0]] {
            let parsed: Vec<_> = ControlIter::new(bytes).collect();
            assert_eq!(parsed, [Err(DropReason::BadControl)], "{bytes:?}");
        }
        let head = [4, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 5, 1];
        let parsed: Vec<_> = ControlIter::new(&head).collect();
        assert_eq!(parsed, [Err(DropReason::BadControl)], "a broken entry");
    }

    #[test]
    fn a_full_buffer_refuses_and_padding_fills_exactly() {
        let mut buffer = [0; 40];
        let mut writer = ControlWriter::new(&mut buffer);
        assert!(writer.push(&Control::MtuProbe(1)));
        assert!(!writer.pad_to(4) && !writer.pad_to(7) && !writer.pad_to(41));
        assert!(writer.pad_to(40));
        assert!(writer.pad_to(40));
        assert!(!writer.push(&Control::Close(0)));
        assert_eq!(writer.len(), 40);
        let parsed: Vec<_> = ControlIter::new(&buffer).collect();
        assert_eq!(parsed, [Ok(Control::MtuProbe(1))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let frames = ControlIter::new(&bytes).count();
            prop_assert!(frames <= bytes.len() / FRAME_HEADER_LEN + 1);
        }
    }
}
