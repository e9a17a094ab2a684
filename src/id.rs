//! Who is who: public keys, node ids and the small dense indices that stand for them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::{Blake2s256, Digest as _};

/// An X25519 public key: the identity of a node. Text form is base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The node id that follows from this key.
    pub fn node_id(&self) -> NodeId {
        let digest =
            Blake2s256::new().chain_update(b"rongate node id v1").chain_update(self.0).finalize();
        NodeId(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A text that is not the base64 form of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected 44 characters of base64 (32 bytes), as printed by `rongate pubkey`")]
pub struct ParseKeyError;

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| ParseKeyError)?;
        bytes.try_into().map(Self).map_err(|_| ParseKeyError)
    }
}

/// The 32-bit name of a node on the wire, derived from its public key. Two nodes of one overlay
/// with the same id are a configuration error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// Index of a peer in the configuration's list of peers. Dense: `0..peers.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u16);

impl PeerIndex {
    /// For indexing a `Vec` with an entry for each peer.
    pub const fn usize(self) -> usize {
        self.0 as usize
    }
}

/// Index of one of our uplinks in the configuration's list. At most [`UplinkIndex::MAX_COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkIndex(pub u8);

impl UplinkIndex {
    /// A path id has four bits for each end's uplink.
    pub const MAX_COUNT: usize = 16;

    /// For indexing a `Vec` with an entry for each uplink.
    pub const fn usize(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_text_round_trips_and_wrong_lengths_are_refused() {
        let key = PublicKey([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(ParseKeyError));
        assert_eq!("not base64!".parse::<PublicKey>(), Err(ParseKeyError));
    }

    #[test]
    fn node_id_is_stable() {
        assert_eq!(PublicKey([7; 32]).node_id(), PublicKey([7; 32]).node_id());
        assert_ne!(PublicKey([7; 32]).node_id(), PublicKey([8; 32]).node_id());
    }
}
