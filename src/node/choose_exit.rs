//! Which exit a flow to the Internet takes: its class, its group and the operator's order decide.

use std::net::IpAddr;

use super::exit_endpoints::HostEnd;
use super::{ExitVia, Node};
use crate::addr;
use crate::flow::{ClassIndex, Egress, ExitPoint, FlowKey};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::packet::Headers;
use crate::time::Instant;

impl Node {
    /// The exit for a flow that has none: the one that has the mapping of its source already, or
    /// that the rest of its group uses, or the first one that may be used.
    pub(super) fn exit_for(
        &mut self,
        now: Instant,
        headers: &Headers,
        class: ClassIndex,
    ) -> Option<Egress> {
        if let Some(egress) = self.exit_of_endpoint(now, headers, class) {
            return Some(egress);
        }
        let key = FlowKey::of(headers);
        let group = self.group_of(&key, class);
        let known = group.and_then(|group| self.policy.groups.exit_of(now, group));
        let egress = known
            .filter(|egress| self.is_usable_exit(*egress, class))
            .filter(|egress| self.is_listed(*egress, self.beyond(headers.destination)))
            .or_else(|| self.choose_exit(now, headers.destination, class))?;
        if let Some(group) = group {
            self.policy.groups.note(now, group, egress);
        }
        Some(egress)
    }

    /// The exit that has the mapping of the packet's source already.
    fn exit_of_endpoint(
        &self,
        now: Instant,
        headers: &Headers,
        class: ClassIndex,
    ) -> Option<Egress> {
        let end = HostEnd::source_of(&FlowKey::of(headers))?;
        let egress = Egress::PeerExit(self.exit_endpoints.exit_of(now, &end)?);
        let beyond = self.beyond(headers.destination);
        let usable = self.is_usable_exit(egress, class) && self.is_listed(egress, beyond);
        (usable && !addr::is_special_purpose(beyond)).then_some(egress)
    }

    /// Whether the operator lists an exit for such destinations: what was used before need not be
    /// listed any more, and not every exit has IPv6.
    pub(super) fn is_listed(&self, egress: Egress, beyond: IpAddr) -> bool {
        let via = if beyond.is_ipv6() { &self.internet_via_ipv6 } else { &self.internet_via };
        let offers = |peer: PeerIndex| self.peers.get(peer.usize()).is_some_and(|p| p.egress);
        via.iter().any(|via| match (*via, egress) {
            (ExitVia::Local, Egress::LocalExit) => self.exit.is_some(),
            (ExitVia::Auto, Egress::PeerExit(peer)) => offers(peer),
            (ExitVia::Peer(listed), Egress::PeerExit(peer)) => listed == peer && offers(peer),
            _ => false,
        })
    }

    /// Whether flows of a class may and can leave there.
    fn is_usable_exit(&self, egress: Egress, class: ClassIndex) -> bool {
        let point = match egress {
            Egress::LocalExit if self.exit.is_some() => ExitPoint::Local,
            Egress::PeerExit(peer)
                if self.router.path(peer, self.policy.demand(class)).is_some() =>
            {
                ExitPoint::Peer(peer)
            }
            Egress::Undecided
            | Egress::Local
            | Egress::Peer(_)
            | Egress::LocalExit
            | Egress::PeerExit(_) => return false,
        };
        self.classes.get(class).permits_exit(point)
    }

    /// The first exit in the operator's order that flows of a class may use and that can be used
    /// now.
    pub(super) fn choose_exit(
        &self,
        now: Instant,
        destination: IpAddr,
        class: ClassIndex,
    ) -> Option<Egress> {
        let beyond = self.beyond(destination);
        if addr::is_special_purpose(beyond) {
            return None;
        }
        let via = if beyond.is_ipv6() { &self.internet_via_ipv6 } else { &self.internet_via };
        let exits = via.iter().filter_map(|via| match *via {
            ExitVia::Local => Some(Egress::LocalExit),
            ExitVia::Peer(peer) => Some(Egress::PeerExit(peer)),
            ExitVia::Auto => self.best_exit(now, class).map(Egress::PeerExit),
        });
        exits.into_iter().find(|egress| self.is_usable_exit(*egress, class))
    }

    fn best_exit(&self, now: Instant, class: ClassIndex) -> Option<PeerIndex> {
        // Values that a program gave paths to different exits have no unit in common.
        let policy = self.classes.get(class);
        let demand = match policy.metric {
            Metric::App => Metric::Latency.into(),
            Metric::Latency | Metric::Loss | Metric::Throughput => self.policy.demand(class),
        };
        let exits = (0..self.peers.len() as u16).map(PeerIndex);
        exits
            .filter(|peer| self.peers[peer.usize()].egress)
            .filter(|peer| policy.permits_exit(ExitPoint::Peer(*peer)))
            .filter_map(|peer| Some((self.router.cost(now, peer, demand)?, peer)))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map(|(_, peer)| peer)
    }
}
