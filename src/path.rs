//! How a node is reached: directly over one link, or through one relay.

use std::fmt;

use crate::id::{PeerIndex, UplinkIndex};

/// One of our uplinks to one uplink of a peer. The peer is known from the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Our end.
    pub local: UplinkIndex,
    /// The peer's end: the position in the peer's own list of uplinks.
    pub remote: UplinkIndex,
}

/// A way to a peer. At most one relay, by construction (RON: a single intermediate hop suffices).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Over the underlay, from uplink to uplink.
    Direct(LinkId),
    /// Through another node.
    Via(PeerIndex),
}

impl Path {
    /// The relay, if there is one.
    pub const fn relay(self) -> Option<PeerIndex> {
        match self {
            Self::Direct(_) => None,
            Self::Via(relay) => Some(relay),
        }
    }
}

/// A path as the sender names it on the wire; it is half of the nonce, so each one of a tunnel
/// has its own counter and its own replay window.
///
/// `0x00` `local << 4 | remote` is a direct path, `0x8000 | n` the path through the sender's `n`th
/// peer. A receiver learns the sender's uplink from it and treats the rest as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u16);

impl PathId {
    /// The uplink that the sender used, when the path is direct.
    pub const fn sender_uplink(self) -> Option<UplinkIndex> {
        if self.0 & 0xff00 == 0 { Some(UplinkIndex((self.0 >> 4) as u8)) } else { None }
    }

    /// True for a path through a relay.
    pub const fn is_relayed(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl From<Path> for PathId {
    fn from(path: Path) -> Self {
        match path {
            Path::Direct(link) => {
                Self(u16::from(link.local.0 & 0xf) << 4 | u16::from(link.remote.0 & 0xf))
            }
            Path::Via(relay) => Self(0x8000 | (relay.0 & 0x7fff)),
        }
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_ids_are_distinct_and_name_the_senders_uplink() {
        let link = LinkId { local: UplinkIndex(2), remote: UplinkIndex(15) };
        let direct = PathId::from(Path::Direct(link));
        assert_eq!(direct, PathId(0x2f));
        assert_eq!(direct.sender_uplink(), Some(UplinkIndex(2)));
        let relayed = PathId::from(Path::Via(PeerIndex(0x2f)));
        assert_eq!(relayed, PathId(0x802f));
        assert_eq!(relayed.sender_uplink(), None);
        assert!(relayed.is_relayed() && !direct.is_relayed());
    }
}
