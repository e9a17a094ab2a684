//! Our datagrams: checked views and plain representations.
//!
//! Every datagram between two nodes begins with a type byte ([`MessageType`]). Handshake messages
//! set up the keys of a tunnel, data and relay datagrams use them. All numbers are big-endian.
//! This module knows where the bytes are; what they mean cryptographically is `tunnel`'s business.
//! `docs/protocol.md` is the normative description.

pub mod control;
pub mod data;
pub mod handshake;
pub mod relay;

pub use control::{
    Advertisement, AdvertisementAck, AdvertisementEntry, Control, ControlIter, ControlWriter,
    Entries, Probe, ProbeReply, Report, Volley, VolleyReport,
};
pub use data::{DataHeader, Flags, Payload, Split};
pub use relay::{RelayHeader, RelayRepr};

use crate::telemetry::DropReason;

/// Length of the authentication tag of both suites.
pub const TAG_LEN: usize = 16;
/// Length of the header of a data datagram.
pub const DATA_HEADER_LEN: usize = 16;
/// What a data datagram adds to its plaintext: header and tag.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// What relaying adds to a datagram: a header like that of data, the addressing, and a tag.
pub const RELAY_OVERHEAD: usize = DATA_HEADER_LEN + relay::ADDRESSING_LEN + TAG_LEN;
/// Length of the copy id in front of a packet that is sent redundantly.
pub const COPY_ID_LEN: usize = 4;
/// Length of a UDP header.
const UDP_LEN: usize = 8;

/// Bytes between the size of an inner packet and that of the outer one: the worst case, a
/// redundant packet on a relayed path. 108 over IPv4, 128 over IPv6.
pub const fn overhead(ipv6: bool) -> usize {
    let outer_ip = if ipv6 { 40 } else { 20 };
    outer_ip + UDP_LEN + RELAY_OVERHEAD + DATA_OVERHEAD + COPY_ID_LEN
}

/// The first byte of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// First message of a handshake.
    HandshakeInit = 1,
    /// Second message of a handshake.
    HandshakeResponse = 2,
    /// Proof-of-address challenge of a responder under load.
    CookieReply = 3,
    /// Sealed traffic or control messages of a tunnel.
    Data = 4,
    /// A datagram of types 1 to 4 on its way over a relay.
    Relay = 5,
}

impl MessageType {
    /// True for the three messages of a handshake.
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::HandshakeInit | Self::HandshakeResponse | Self::CookieReply)
    }

    /// The shortest valid datagram of this type.
    pub const fn min_len(self) -> usize {
        match self {
            Self::HandshakeInit => handshake::INIT_LEN,
            Self::HandshakeResponse => handshake::RESPONSE_LEN,
            Self::CookieReply => handshake::COOKIE_REPLY_LEN,
            Self::Data => DATA_OVERHEAD,
            Self::Relay => RELAY_OVERHEAD + DATA_OVERHEAD,
        }
    }
}

/// The type of a datagram, after a check of its length. Handshake messages have exactly one
/// length, the others at least [`MessageType::min_len`].
pub fn peek(datagram: &[u8]) -> Result<MessageType, DropReason> {
    let kind = match datagram.first() {
        None => return Err(DropReason::Truncated),
        Some(1) => MessageType::HandshakeInit,
        Some(2) => MessageType::HandshakeResponse,
        Some(3) => MessageType::CookieReply,
        Some(4) => MessageType::Data,
        Some(5) => MessageType::Relay,
        Some(_) => return Err(DropReason::UnknownType),
    };
    if datagram.len() < kind.min_len() {
        return Err(DropReason::Truncated);
    }
    if kind.is_handshake() && datagram.len() != kind.min_len() {
        return Err(DropReason::Malformed);
    }
    Ok(kind)
}

/// The `N` bytes at `at`; the caller has checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(field) = bytes.get(at..at + N) {
        out.copy_from_slice(field);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_add_up() {
        assert_eq!((DATA_OVERHEAD, RELAY_OVERHEAD), (32, 44));
        assert_eq!((overhead(false), overhead(true)), (108, 128));
        assert_eq!((1500 - overhead(false), 1500 - overhead(true)), (1392, 1372));
    }

    #[test]
    fn peek_checks_type_and_length() {
        assert_eq!(peek(&[]), Err(DropReason::Truncated));
        assert_eq!(peek(&[0; 100]), Err(DropReason::UnknownType));
        assert_eq!(peek(&[6; 100]), Err(DropReason::UnknownType));
        let lengths = [(1, 148), (2, 100), (3, 64), (4, 32), (5, 76)];
        for (byte, len) in lengths {
            let mut datagram = vec![0; len];
            datagram[0] = byte;
            assert_eq!(peek(&datagram).map(|kind| kind as u8), Ok(byte));
            assert_eq!(peek(&datagram[..len - 1]), Err(DropReason::Truncated));
            datagram.push(0);
            let longer = if byte <= 3 { Err(DropReason::Malformed) } else { Ok(byte) };
            assert_eq!(peek(&datagram).map(|kind| kind as u8), longer);
        }
    }
}
