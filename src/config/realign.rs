//! The order of `peers` means nothing, but what refers to peers does so by their places. Before two
//! configurations are compared, the places of one are made those of the other.

use super::types::{Config, InternetVia};
use crate::flow::{ExitPoint, Scope};
use crate::id::PeerIndex;

impl Config {
    /// This configuration with its peers in the order that they have in `other`; those that `other`
    /// does not know come last.
    #[must_use]
    pub(super) fn in_order_of(&self, other: &Self) -> Self {
        let place = |name: &str| other.peer_named(name).map_or(usize::MAX, PeerIndex::usize);
        let mut order: Vec<usize> = (0..self.peers.len()).collect();
        order.sort_by_key(|&index| place(&self.peers[index].name));
        let mut new_place = vec![PeerIndex(0); order.len()];
        for (new, &old) in (0u16..).zip(&order) {
            new_place[old] = PeerIndex(new);
        }
        let mut config = self.clone();
        config.peers = order.iter().map(|&old| self.peers[old].clone()).collect();
        config.rename_peers(|old| new_place.get(old.usize()).copied().unwrap_or(old));
        config
    }

    /// Gives every reference to a peer its new place.
    fn rename_peers(&mut self, new: impl Fn(PeerIndex) -> PeerIndex) {
        let all = |list: &mut Vec<PeerIndex>| {
            list.iter_mut().for_each(|peer| *peer = new(*peer));
            list.sort_unstable();
        };
        let exit = |exit: &mut ExitPoint| {
            if let ExitPoint::Peer(peer) = exit {
                *peer = new(*peer);
            }
        };
        if let Some(egress) = &mut self.egress {
            all(&mut egress.allowed);
        }
        all(&mut self.relay.allowed);
        for via in [&mut self.internet, &mut self.internet_ipv6] {
            if let InternetVia::Ordered(exits) = via {
                exits.iter_mut().for_each(exit);
            }
        }
        for forward in &mut self.nat.forwards {
            forward.peer = forward.peer.map(&new);
        }
        for class in &mut self.classes {
            for Scope { peers, relays, exits, .. } in [&mut class.only, &mut class.avoid] {
                peers.iter_mut().for_each(all);
                relays.iter_mut().for_each(all);
                if let Some(exits) = exits {
                    exits.iter_mut().for_each(exit);
                    exits.sort_unstable();
                }
            }
        }
    }
}
