//! What the flows of a class may use, or must not: the operator's policy (RON section 3.5).

use super::Class;
use crate::id::{PeerIndex, UplinkIndex};

/// An exit to the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitPoint {
    /// Our own.
    Local,
    /// A peer's.
    Peer(PeerIndex),
}

/// A choice of peers, relays, uplinks and exits. A list that is absent names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Peers in any part: as destination, as relay and as exit.
    pub peers: Option<Vec<PeerIndex>>,
    /// Peers as relays.
    pub relays: Option<Vec<PeerIndex>>,
    /// Our uplinks, for packets to peers.
    pub uplinks: Option<Vec<UplinkIndex>>,
    /// Exits to the Internet.
    pub exits: Option<Vec<ExitPoint>>,
}

impl Scope {
    /// True when nothing is named.
    pub const fn is_empty(&self) -> bool {
        self.peers.is_none()
            && self.relays.is_none()
            && self.uplinks.is_none()
            && self.exits.is_none()
    }
}

/// Whether a list, as `only` and as `avoid`, leaves `item` open.
fn passes<T: PartialEq>(only: &Option<Vec<T>>, avoid: &Option<Vec<T>>, item: T) -> bool {
    only.as_ref().is_none_or(|list| list.contains(&item))
        && !avoid.as_ref().is_some_and(|list| list.contains(&item))
}

impl Class {
    /// Whether its flows may go to hosts behind a peer.
    pub fn permits_peer(&self, peer: PeerIndex) -> bool {
        passes(&self.only.peers, &self.avoid.peers, peer)
    }

    /// Whether its flows may go through a peer.
    pub fn permits_relay(&self, relay: PeerIndex) -> bool {
        self.permits_peer(relay) && passes(&self.only.relays, &self.avoid.relays, relay)
    }

    /// Whether its flows may leave over an uplink of ours.
    pub fn permits_uplink(&self, uplink: UplinkIndex) -> bool {
        passes(&self.only.uplinks, &self.avoid.uplinks, uplink)
    }

    /// Whether its flows may leave the overlay at an exit.
    pub fn permits_exit(&self, exit: ExitPoint) -> bool {
        let peer = match exit {
            ExitPoint::Local => true,
            ExitPoint::Peer(peer) => self.permits_peer(peer),
        };
        peer && passes(&self.only.exits, &self.avoid.exits, exit)
    }

    /// True when something is closed to its flows.
    pub const fn is_restricted(&self) -> bool {
        !self.only.is_empty() || !self.avoid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_open_and_what_is_avoided_is_not() {
        let [a, b] = [PeerIndex(0), PeerIndex(1)];
        let free = Class::default();
        assert!(free.permits_peer(a) && free.permits_relay(a) && !free.is_restricted());
        let class = Class {
            only: Scope {
                relays: Some(vec![a]),
                exits: Some(vec![ExitPoint::Local, ExitPoint::Peer(b)]),
                uplinks: Some(vec![UplinkIndex(1)]),
                ..Scope::default()
            },
            avoid: Scope { peers: Some(vec![b]), ..Scope::default() },
            ..Class::default()
        };
        assert!(class.is_restricted());
        assert!(class.permits_relay(a) && !class.permits_relay(b));
        assert!(class.permits_peer(a) && !class.permits_peer(b));
        assert!(class.permits_uplink(UplinkIndex(1)) && !class.permits_uplink(UplinkIndex(0)));
        assert!(class.permits_exit(ExitPoint::Local));
        assert!(!class.permits_exit(ExitPoint::Peer(a)), "not among the only ones");
        assert!(!class.permits_exit(ExitPoint::Peer(b)), "avoided in every part");
        let direct = Scope { relays: Some(vec![]), ..Scope::default() };
        let class = Class { only: direct, ..Class::default() };
        assert!(!class.permits_relay(a) && class.permits_peer(a));
    }
}
