//! The header of a data datagram, and how its plaintext is laid out.
//!
//! ```text
//! 0     1       2         4                8              16
//! | type | flags | path_id | receiver_index | counter u64 | ciphertext ... | tag 16 |
//! ```
//!
//! Plaintext: `[copy id u32, if COPY] [split header, if SPLIT] body [report 12, if REPORT]`.

use std::ops::Range;

use super::control::{REPORT_LEN, Report};
use super::{COPY_ID_LEN, DATA_HEADER_LEN, MessageType, array};
use crate::path::PathId;
use crate::telemetry::DropReason;

/// The flags of a data datagram. They are authenticated with the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The body is one inner IP packet, nothing else.
    pub const NONE: Self = Self(0);
    /// The body is control messages, not an inner IP packet.
    pub const CONTROL: Self = Self(0x01);
    /// The plaintext begins with a copy id: the same packet was sent on another path too.
    pub const COPY: Self = Self(0x02);
    /// The body is one part of an inner packet that was too big for the path.
    pub const SPLIT: Self = Self(0x04);
    /// The transport checksum of the inner packet covers the pseudo-header only; whoever hands the
    /// packet on completes it. Where it lies follows from the inner headers.
    pub const NEEDS_CHECKSUM: Self = Self(0x08);
    /// The body is several small inner packets, each after its length as `u16`.
    pub const BUNDLE: Self = Self(0x10);
    /// The plaintext ends with a receiver report.
    pub const REPORT: Self = Self(0x20);

    const DEFINED: u8 = 0x3f;

    /// Checks that only defined bits are set and that they go together.
    pub const fn from_bits(bits: u8) -> Result<Self, DropReason> {
        let control = bits & Self::CONTROL.0 != 0;
        let packet_only = Self::COPY.0 | Self::SPLIT.0 | Self::NEEDS_CHECKSUM.0 | Self::BUNDLE.0;
        let split_bundle = Self::SPLIT.0 | Self::BUNDLE.0;
        if bits & !Self::DEFINED != 0
            || (control && bits & packet_only != 0)
            || bits & split_bundle == split_bundle
        {
            return Err(DropReason::BadControl);
        }
        Ok(Self(bits))
    }

    /// The byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True when all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The first 16 bytes of a data datagram; also the associated data of its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// What the plaintext is.
    pub flags: Flags,
    /// The path, as the sender names it; half of the nonce.
    pub path: PathId,
    /// Which of the receiver's keys.
    pub receiver_index: u32,
    /// The other half of the nonce: counts up for each (key, path).
    pub counter: u64,
}

impl DataHeader {
    /// Reads the header of a datagram that [`super::peek`] found to be data.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        if datagram.len() < MessageType::Data.min_len() {
            return Err(DropReason::Truncated);
        }
        if datagram[0] != MessageType::Data as u8 {
            return Err(DropReason::UnknownType);
        }
        Ok(Self {
            flags: Flags::from_bits(datagram[1])?,
            path: PathId(u16::from_be_bytes(array(datagram, 2))),
            receiver_index: u32::from_be_bytes(array(datagram, 4)),
            counter: u64::from_be_bytes(array(datagram, 8)),
        })
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; DATA_HEADER_LEN] {
        emit_header(MessageType::Data, self.flags.0, self.path, self.receiver_index, self.counter)
    }
}

/// The 16 bytes that data and relay datagrams begin with.
pub(super) fn emit_header(
    kind: MessageType,
    flags: u8,
    path: PathId,
    receiver_index: u32,
    counter: u64,
) -> [u8; DATA_HEADER_LEN] {
    let mut bytes = [0; DATA_HEADER_LEN];
    bytes[0] = kind as u8;
    bytes[1] = flags;
    bytes[2..4].copy_from_slice(&path.0.to_be_bytes());
    bytes[4..8].copy_from_slice(&receiver_index.to_be_bytes());
    bytes[8..16].copy_from_slice(&counter.to_be_bytes());
    bytes
}

/// Which part of a split inner packet a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Names the packet, for each sender.
    pub packet: u16,
    /// Which part, from zero.
    pub part: u8,
    /// How many parts there are, at most [`Split::MAX_PARTS`].
    pub parts: u8,
}

impl Split {
    /// Length on the wire.
    pub const LEN: usize = 4;
    /// Most parts of a packet. Two suffice for every MTU from 1280 and below to 1500.
    pub const MAX_PARTS: u8 = 4;

    /// The bytes in front of the part.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [high, low] = self.packet.to_be_bytes();
        [high, low, self.part, self.parts]
    }

    fn parse(bytes: [u8; Self::LEN]) -> Result<Self, DropReason> {
        let [high, low, part, parts] = bytes;
        if !(2..=Self::MAX_PARTS).contains(&parts) || part >= parts {
            return Err(DropReason::BadControl);
        }
        Ok(Self { packet: u16::from_be_bytes([high, low]), part, parts })
    }
}

/// Length of the length in front of each packet of a bundle.
pub const BUNDLE_LEN_LEN: usize = 2;

/// Where in an opened plaintext everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The copy id, if the packet was sent on several paths.
    pub copy_id: Option<u32>,
    /// Which part of a split packet this is.
    pub split: Option<Split>,
    /// The inner packet, part of one, bundle, or control messages: range of the plaintext.
    pub body: Range<usize>,
    /// The report that rode along.
    pub report: Option<Report>,
}

impl Payload {
    /// Takes a plaintext apart as its flags say.
    pub fn parse(flags: Flags, plaintext: &[u8]) -> Result<Self, DropReason> {
        let mut body = 0..plaintext.len();
        let mut copy_id = None;
        if flags.has(Flags::COPY) {
            require(&body, COPY_ID_LEN)?;
            copy_id = Some(u32::from_be_bytes(array(plaintext, body.start)));
            body.start += COPY_ID_LEN;
        }
        let mut split = None;
        if flags.has(Flags::SPLIT) {
            require(&body, Split::LEN)?;
            split = Some(Split::parse(array(plaintext, body.start))?);
            body.start += Split::LEN;
        }
        let mut report = None;
        if flags.has(Flags::REPORT) {
            require(&body, REPORT_LEN)?;
            body.end -= REPORT_LEN;
            report = Some(Report::parse(array(plaintext, body.end)));
        }
        Ok(Self { copy_id, split, body, report })
    }
}

/// Where the first packet of a bundle lies.
pub fn first_of_bundle(bundle: &[u8]) -> Result<Range<usize>, DropReason> {
    let (len, rest) = bundle.split_first_chunk().ok_or(DropReason::BadControl)?;
    let len = usize::from(u16::from_be_bytes(*len));
    if len == 0 || len > rest.len() {
        return Err(DropReason::BadControl);
    }
    Ok(BUNDLE_LEN_LEN..BUNDLE_LEN_LEN + len)
}

fn require(body: &Range<usize>, len: usize) -> Result<(), DropReason> {
    if body.len() < len { Err(DropReason::BadControl) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const BYTES: [u8; 16] = [
        4, 0x20, 0x80, 0x2f,
        0xde, 0xad, 0xbe, 0xef,
        0, 0, 0, 1, 2, 3, 4, 5,
    ];

    #[test]
    fn header_is_these_bytes() {
        let header = DataHeader {
            flags: Flags::REPORT,
            path: PathId(0x802f),
            receiver_index: 0xdead_beef,
            counter: 0x1_0203_0405,
        };
        assert_eq!(header.emit(), BYTES);
        let mut datagram = BYTES.to_vec();
        datagram.resize(32, 0);
        assert_eq!(DataHeader::parse(&datagram), Ok(header));
        assert_eq!(DataHeader::parse(&datagram[..31]), Err(DropReason::Truncated));
    }

    #[test]
    fn undefined_and_contradicting_flags_are_refused() {
        for bits in [0x40, 0x80, 0x03, 0x05, 0x09, 0x11, 0x14] {
            assert_eq!(Flags::from_bits(bits), Err(DropReason::BadControl), "{bits:#x}");
        }
        for bits in [0x00, 0x01, 0x21, 0x2e, 0x32] {
            assert_eq!(Flags::from_bits(bits).map(Flags::bits), Ok(bits));
        }
    }

    #[test]
    fn payload_is_taken_apart_in_order() {
        let flags = Flags::COPY.with(Flags::SPLIT).with(Flags::REPORT);
        #[rustfmt::skip]
        let plaintext = [
            0, 0, 0, 9,
            0x12, 0x34, 1, 2,
            0x45, 0x46,
            0, 0x21, 0, 7, 0, 0, 0, 100, 0, 0, 0, 99,
        ];
        let payload = Payload::parse(flags, &plaintext).unwrap();
        assert_eq!(payload.copy_id, Some(9));
        assert_eq!(payload.split, Some(Split { packet: 0x1234, part: 1, parts: 2 }));
        assert_eq!(payload.body, 8..10);
        let report = Report { path: PathId(0x21), age: 7, expected: 100, received: 99 };
        assert_eq!(payload.report, Some(report));
        for len in 0..20 {
            let result = Payload::parse(flags, &plaintext[..len]);
            assert_eq!(result, Err(DropReason::BadControl), "{len}");
        }
    }

    #[test]
    fn impossible_parts_are_refused() {
        for (part, parts) in [(0, 0), (0, 1), (2, 2), (0, 5)] {
            let plaintext = [0, 1, part, parts];
            let result = Payload::parse(Flags::SPLIT, &plaintext);
            assert_eq!(result, Err(DropReason::BadControl), "{part}/{parts}");
        }
    }
}
