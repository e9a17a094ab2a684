//! The header around a datagram that goes over a relay.
//!
//! ```text
//! 0      1       2         4                8             16
//! | type | flags | path_id | receiver_index | counter u64 |
//! 16        20        24          25      26          28       44
//! | src u32 | dst u32 | hop_limit | class | flow_hash | tag 16 | inner datagram ...
//! ```

use super::data::emit_header;
use super::{DATA_HEADER_LEN, MessageType, RELAY_OVERHEAD, TAG_LEN, array};
use crate::id::NodeId;
use crate::path::PathId;
use crate::telemetry::DropReason;

/// Length of the addressing after the 16-byte header.
pub const ADDRESSING_LEN: usize = 12;
/// Where the tag begins.
pub(crate) const TAG_AT: usize = DATA_HEADER_LEN + ADDRESSING_LEN;
/// Longest associated data of a relay tag: everything before the tag, the inner length, and a
/// whole handshake message.
pub(crate) const AAD_MAX: usize = TAG_AT + 4 + super::handshake::INIT_LEN;

/// Hop limit of a relayed datagram when it leaves its source: the relay and the destination.
pub const HOP_LIMIT: u8 = 2;

/// What a relay has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRepr {
    /// The node that sealed the inner datagram.
    pub src: NodeId,
    /// The node that it is for.
    pub dst: NodeId,
    /// Nodes that may still receive it, this one included; see [`HOP_LIMIT`].
    pub hop_limit: u8,
    /// The flow's class, as an index that the overlay's nodes share.
    pub class: u8,
    /// Tells flows apart for queueing.
    pub flow_hash: u16,
}

impl RelayRepr {
    /// True when both have the same way to go; class and flow may differ.
    pub fn is_same_way(&self, other: &Self) -> bool {
        (self.src, self.dst, self.hop_limit) == (other.src, other.dst, other.hop_limit)
    }

    /// The addressing bytes.
    pub fn emit(&self) -> [u8; ADDRESSING_LEN] {
        let mut bytes = [0; ADDRESSING_LEN];
        bytes[0..4].copy_from_slice(&self.src.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.dst.0.to_be_bytes());
        bytes[8] = self.hop_limit;
        bytes[9] = self.class;
        bytes[10..12].copy_from_slice(&self.flow_hash.to_be_bytes());
        bytes
    }
}

/// Everything in front of a relayed datagram but the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayHeader {
    /// The path of this hop, as its sender names it.
    pub path: PathId,
    /// Which of the receiver's relay keys.
    pub receiver_index: u32,
    /// Counts up for each (relay key, path).
    pub counter: u64,
    /// Who to whom.
    pub repr: RelayRepr,
}

impl RelayHeader {
    /// Reads the header. The inner datagram must be one that may be relayed and complete.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        if datagram.len() < MessageType::Relay.min_len() {
            return Err(DropReason::Truncated);
        }
        if datagram[0] != MessageType::Relay as u8 {
            return Err(DropReason::UnknownType);
        }
        if datagram[1] != 0 {
            return Err(DropReason::BadControl);
        }
        if super::peek(&datagram[RELAY_OVERHEAD..])? == MessageType::Relay {
            return Err(DropReason::RelayHopLimit);
        }
        Ok(Self {
            path: PathId(u16::from_be_bytes(array(datagram, 2))),
            receiver_index: u32::from_be_bytes(array(datagram, 4)),
            counter: u64::from_be_bytes(array(datagram, 8)),
            repr: RelayRepr {
                src: NodeId(u32::from_be_bytes(array(datagram, 16))),
                dst: NodeId(u32::from_be_bytes(array(datagram, 20))),
                hop_limit: datagram[24],
                class: datagram[25],
                flow_hash: u16::from_be_bytes(array(datagram, 26)),
            },
        })
    }

    /// The addressing of a datagram that has the same way to go as `repr` and whose header was
    /// parsed before: class and flow are its own.
    pub fn labelled(repr: &RelayRepr, datagram: &[u8]) -> Result<RelayRepr, DropReason> {
        let label = datagram.get(25..28).ok_or(DropReason::Truncated)?;
        let flow_hash = u16::from_be_bytes([label[1], label[2]]);
        Ok(RelayRepr { class: label[0], flow_hash, ..*repr })
    }

    /// The 28 bytes in front of the tag.
    pub fn emit(&self) -> [u8; TAG_AT] {
        let mut bytes = [0; TAG_AT];
        let header =
            emit_header(MessageType::Relay, 0, self.path, self.receiver_index, self.counter);
        bytes[..DATA_HEADER_LEN].copy_from_slice(&header);
        bytes[DATA_HEADER_LEN..].copy_from_slice(&self.repr.emit());
        bytes
    }
}

/// Builds the associated data of a relay tag in `buffer`: the 28 header bytes, the inner length as
/// `u32`, then of an inner data datagram its header and tag, of a handshake message all of it.
///
/// `None` when `datagram` is too short, or the inner one is neither.
pub(crate) fn associated_data<'b>(
    datagram: &[u8],
    buffer: &'b mut [u8; AAD_MAX],
) -> Option<&'b [u8]> {
    let inner = datagram.get(RELAY_OVERHEAD..)?;
    buffer[..TAG_AT].copy_from_slice(datagram.get(..TAG_AT)?);
    buffer[TAG_AT..TAG_AT + 4].copy_from_slice(&u32::try_from(inner.len()).ok()?.to_be_bytes());
    let bound = &mut buffer[TAG_AT + 4..];
    let len = match super::peek(inner).ok()? {
        MessageType::Data => {
            bound[..DATA_HEADER_LEN].copy_from_slice(&inner[..DATA_HEADER_LEN]);
            let tag = &inner[inner.len() - TAG_LEN..];
            bound[DATA_HEADER_LEN..DATA_HEADER_LEN + TAG_LEN].copy_from_slice(tag);
            DATA_HEADER_LEN + TAG_LEN
        }
        MessageType::HandshakeInit | MessageType::HandshakeResponse | MessageType::CookieReply => {
            bound.get_mut(..inner.len())?.copy_from_slice(inner);
            inner.len()
        }
        MessageType::Relay => return None,
    };
    Some(&buffer[..TAG_AT + 4 + len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const BYTES: [u8; 28] = [
        5, 0, 0x00, 0x21,
        0x01, 0x02, 0x03, 0x04,
        0, 0, 0, 0, 0, 0, 0, 7,
        0xaa, 0xbb, 0xcc, 0xdd,
        0x11, 0x22, 0x33, 0x44,
        2, 3, 0x56, 0x78,
    ];

    fn header() -> RelayHeader {
        RelayHeader {
            path: PathId(0x21),
            receiver_index: 0x0102_0304,
            counter: 7,
            repr: RelayRepr {
                src: NodeId(0xaabb_ccdd),
                dst: NodeId(0x1122_3344),
                hop_limit: HOP_LIMIT,
                class: 3,
                flow_hash: 0x5678,
            },
        }
    }

    fn datagram(inner: &[u8]) -> Vec<u8> {
        [&BYTES[..], &[0xee; 16], inner].concat()
    }

    fn inner_data(payload: usize) -> Vec<u8> {
        let mut inner: Vec<u8> = (0..32 + payload).map(|i| i as u8).collect();
        inner[0] = 4;
        inner
    }

    #[test]
    fn header_is_these_bytes() {
        assert_eq!(header().emit(), BYTES);
        assert_eq!(RelayHeader::parse(&datagram(&inner_data(0))), Ok(header()));
    }

    #[test]
    fn a_relay_inside_a_relay_and_short_ones_are_refused() {
        let nested = datagram(&datagram(&inner_data(0)));
        assert_eq!(RelayHeader::parse(&nested), Err(DropReason::RelayHopLimit));
        let whole = datagram(&inner_data(0));
        let short = &whole[..whole.len() - 1];
        assert_eq!(RelayHeader::parse(short), Err(DropReason::Truncated));
        let mut flagged = whole.clone();
        flagged[1] = 1;
        assert_eq!(RelayHeader::parse(&flagged), Err(DropReason::BadControl));
    }

    #[test]
    fn associated_data_binds_header_length_and_tag_of_data() {
        let inner = inner_data(100);
        let mut buffer = [0; AAD_MAX];
        let aad = associated_data(&datagram(&inner), &mut buffer).unwrap();
        let expected = [&BYTES[..], &[0, 0, 0, 132], &inner[..16], &inner[116..]].concat();
        assert_eq!(aad, expected);
    }

    #[test]
    fn associated_data_binds_a_whole_handshake_message() {
        let mut inner = vec![9; super::super::handshake::INIT_LEN];
        inner[0] = 1;
        let mut buffer = [0; AAD_MAX];
        let aad = associated_data(&datagram(&inner), &mut buffer).unwrap();
        assert_eq!(aad, [&BYTES[..], &[0, 0, 0, 148], &inner].concat());
    }
}
