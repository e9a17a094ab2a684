//! Where the fields of the three handshake messages are.
//!
//! ```text
//! init      | 1 | suite | version u16 | sender u32 | e 32 | static 32+16 | payload 12+16 | mac1 16 | mac2 16 |
//! response  | 2 | suite | version u16 | sender u32 | receiver u32 | e 32 | payload 8+16 | mac1 16 | mac2 16 |
//! cookie    | 3 | zero 3 | receiver u32 | nonce 24 | cookie 16+16 |
//! ```

use std::ops::Range;

use super::{MessageType, TAG_LEN, array};

/// The version of the protocol that these pages describe.
pub const VERSION: u16 = 1;
/// Length of an initiation.
pub const INIT_LEN: usize = 8 + 32 + 48 + INIT_PAYLOAD_LEN + TAG_LEN + 2 * MAC_LEN;
/// Length of a response.
pub const RESPONSE_LEN: usize = 12 + 32 + RESPONSE_PAYLOAD_LEN + TAG_LEN + 2 * MAC_LEN;
/// Length of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 8 + COOKIE_NONCE_LEN + COOKIE_LEN + TAG_LEN;

/// Length of each of the two MACs at the end of an initiation or response.
pub(crate) const MAC_LEN: usize = 16;
/// Length of a cookie.
pub(crate) const COOKIE_LEN: usize = 16;
/// Length of the nonce of a cookie reply.
pub(crate) const COOKIE_NONCE_LEN: usize = 24;
/// Payload of an initiation: timestamp `u64` (ns), features `u32`.
pub(crate) const INIT_PAYLOAD_LEN: usize = 12;
/// Payload of a response: the sender index again (`u32`), features `u32`.
pub(crate) const RESPONSE_PAYLOAD_LEN: usize = 8;

/// The part of an initiation that Noise made.
pub(crate) const INIT_NOISE: Range<usize> = 8..INIT_LEN - 2 * MAC_LEN;
/// The part of a response that Noise made.
pub(crate) const RESPONSE_NOISE: Range<usize> = 12..RESPONSE_LEN - 2 * MAC_LEN;
/// The header of an initiation, which is bound into the Noise prologue.
pub(crate) const INIT_HEADER_LEN: usize = 8;

/// The plain fields of an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitHeader {
    /// The AEAD suite proposed for the tunnel.
    pub suite: u8,
    /// The protocol version.
    pub version: u16,
    /// How the initiator wants to be addressed.
    pub sender_index: u32,
}

impl InitHeader {
    /// Reads the fields of a datagram that [`super::peek`] found to be an initiation.
    pub fn parse(datagram: &[u8]) -> Self {
        Self {
            suite: array::<1>(datagram, 1)[0],
            version: u16::from_be_bytes(array(datagram, 2)),
            sender_index: u32::from_be_bytes(array(datagram, 4)),
        }
    }

    /// The first eight bytes.
    pub fn emit(&self) -> [u8; INIT_HEADER_LEN] {
        emit_common(MessageType::HandshakeInit, self.suite, self.version, self.sender_index)
    }
}

/// The plain fields of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The suite, as proposed.
    pub suite: u8,
    /// The protocol version.
    pub version: u16,
    /// How the responder wants to be addressed.
    pub sender_index: u32,
    /// The index that the initiator named.
    pub receiver_index: u32,
}

impl ResponseHeader {
    /// Reads the fields of a datagram that [`super::peek`] found to be a response.
    pub fn parse(datagram: &[u8]) -> Self {
        Self {
            suite: array::<1>(datagram, 1)[0],
            version: u16::from_be_bytes(array(datagram, 2)),
            sender_index: u32::from_be_bytes(array(datagram, 4)),
            receiver_index: u32::from_be_bytes(array(datagram, 8)),
        }
    }

    /// The first twelve bytes.
    pub fn emit(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let common = emit_common(
            MessageType::HandshakeResponse,
            self.suite,
            self.version,
            self.sender_index,
        );
        bytes[..8].copy_from_slice(&common);
        bytes[8..].copy_from_slice(&self.receiver_index.to_be_bytes());
        bytes
    }
}

fn emit_common(kind: MessageType, suite: u8, version: u16, sender_index: u32) -> [u8; 8] {
    let [v1, v0] = version.to_be_bytes();
    let [s3, s2, s1, s0] = sender_index.to_be_bytes();
    [kind as u8, suite, v1, v0, s3, s2, s1, s0]
}

/// A cookie reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender index of the message that it answers.
    pub receiver_index: u32,
    /// Makes the key of this reply.
    pub nonce: [u8; COOKIE_NONCE_LEN],
    /// The sealed cookie with its tag.
    pub sealed: [u8; COOKIE_LEN + TAG_LEN],
}

impl CookieReply {
    /// Reads the fields of a datagram that [`super::peek`] found to be a cookie reply.
    pub fn parse(datagram: &[u8]) -> Self {
        Self {
            receiver_index: u32::from_be_bytes(array(datagram, 4)),
            nonce: array(datagram, 8),
            sealed: array(datagram, 8 + COOKIE_NONCE_LEN),
        }
    }

    /// All its bytes.
    pub fn emit(&self) -> [u8; COOKIE_REPLY_LEN] {
        let mut bytes = [0; COOKIE_REPLY_LEN];
        bytes[0] = MessageType::CookieReply as u8;
        bytes[4..8].copy_from_slice(&self.receiver_index.to_be_bytes());
        bytes[8..8 + COOKIE_NONCE_LEN].copy_from_slice(&self.nonce);
        bytes[8 + COOKIE_NONCE_LEN..].copy_from_slice(&self.sealed);
        bytes
    }
}

/// Everything that the first MAC covers.
pub(crate) fn mac1_input(message: &[u8]) -> &[u8] {
    message.get(..message.len().saturating_sub(2 * MAC_LEN)).unwrap_or_default()
}

/// Everything that the second MAC covers.
pub(crate) fn mac2_input(message: &[u8]) -> &[u8] {
    message.get(..message.len().saturating_sub(MAC_LEN)).unwrap_or_default()
}

/// The first MAC of an initiation or response.
pub(crate) fn mac1(message: &[u8]) -> [u8; MAC_LEN] {
    array(message, message.len().saturating_sub(2 * MAC_LEN))
}

/// The second MAC of an initiation or response.
pub(crate) fn mac2(message: &[u8]) -> [u8; MAC_LEN] {
    array(message, message.len().saturating_sub(MAC_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_these() {
        assert_eq!((INIT_LEN, RESPONSE_LEN, COOKIE_REPLY_LEN), (148, 100, 64));
        assert_eq!((INIT_NOISE, RESPONSE_NOISE), (8..116, 12..68));
    }

    #[test]
    fn headers_are_these_bytes() {
        let init = InitHeader { suite: 1, version: VERSION, sender_index: 0x0a0b_0c0d };
        assert_eq!(init.emit(), [1, 1, 0, 1, 0x0a, 0x0b, 0x0c, 0x0d]);
        assert_eq!(InitHeader::parse(&init.emit()), init);
        let response =
            ResponseHeader { suite: 2, version: VERSION, sender_index: 5, receiver_index: 6 };
        assert_eq!(response.emit(), [2, 2, 0, 1, 0, 0, 0, 5, 0, 0, 0, 6]);
        assert_eq!(ResponseHeader::parse(&response.emit()), response);
        let cookie = CookieReply { receiver_index: 7, nonce: [8; 24], sealed: [9; 32] };
        let bytes = [&[3, 0, 0, 0, 0, 0, 0, 7][..], &[8; 24], &[9; 32]].concat();
        assert_eq!(cookie.emit()[..], bytes);
        assert_eq!(CookieReply::parse(&bytes), cookie);
    }

    #[test]
    fn macs_are_the_last_32_bytes() {
        let message: Vec<u8> = (0..100).collect();
        assert_eq!(mac1_input(&message).len(), 68);
        assert_eq!(mac1(&message)[0], 68);
        assert_eq!(mac2_input(&message).len(), 84);
        assert_eq!(mac2(&message)[0], 84);
    }
}
