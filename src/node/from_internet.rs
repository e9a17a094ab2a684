//! Packets from the Internet for inside hosts: those that come in by a mapping of our NAT, and those
//! of other inside hosts that turned round at it.

use std::net::IpAddr;

use super::Node;
use super::from_tun::{Train, TunVerdict, train_len};
use super::prefixes::Owner;
use crate::batch::Output;
use crate::flow::Egress;
use crate::id::PeerIndex;
use crate::nat::{Arrival, Inbound, Realm};
use crate::packet::{Headers, Vnet, rewrite};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Two hosts behind our NAT.
#[derive(Clone, Copy)]
pub(super) struct Meeting {
    /// Whom the sender is behind.
    pub(super) from: Realm,
    /// For whom its packet is.
    pub(super) inbound: Inbound,
}

impl Node {
    /// A packet from the Internet to an outside address of our NAT.
    pub(super) fn return_to_ingress(
        &mut self,
        now: Instant,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        let nat = &mut self.exit.as_mut().ok_or(DropReason::Unsolicited)?.nat;
        let begins_fragments = train.headers.fragment.is_some_and(|fragment| fragment.offset == 0);
        let inbound = match nat.inbound(now, train.frame, &train.headers, &train.vnet)? {
            Arrival::Inside(inbound) => inbound,
            Arrival::Answered => return Ok(TunVerdict::WriteBack(train.vnet)),
            Arrival::Held => return Ok(TunVerdict::Consumed),
        };
        let verdict = self.pass_inside(now, inbound, train, out)?;
        if begins_fragments {
            self.pass_released(now, out);
        }
        Ok(verdict)
    }

    /// A packet from the Internet that has its inside destination by now.
    fn pass_inside(
        &mut self,
        now: Instant,
        inbound: Inbound,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        if inbound.destination.is_ipv6() && !train.headers.is_ipv6() {
            return self.pass_inside_as_ipv6(now, inbound, train, out);
        }
        let Some(peer) = inbound.realm.peer() else {
            return Ok(TunVerdict::WriteBack(train.vnet));
        };
        let headers = Headers::parse(train.frame)?;
        let train = Train { headers, came_in_by: Some(inbound.realm), ..train };
        self.send_to_host(now, inbound.destination, peer, train, out)
    }

    /// A packet from outside for a host of a peer. Its flow is on the account of the host: senders
    /// outside are as many as they like.
    pub(super) fn send_to_host(
        &mut self,
        now: Instant,
        host: IpAddr,
        peer: PeerIndex,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        rewrite::clamp_mss(train.frame, &train.headers, &train.vnet, self.mtu);
        let flow = self.flow_of(now, &train, host);
        if let Some(entry) = flow.id.and_then(|id| self.flows.get_mut(id)) {
            entry.egress = Egress::Peer(peer);
        }
        self.send_to_peer(now, flow, peer, &train, out)
    }

    /// The same for a packet of another inside host, which turned round at our NAT. One of our own
    /// LAN was taken off its class's rate when it was let through.
    pub(super) fn meet_inside(
        &mut self,
        now: Instant,
        Meeting { from, inbound }: Meeting,
        frame: &mut [u8],
        vnet: &Vnet,
        came_in_by: Option<Realm>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let peer = inbound.realm.peer().ok_or(DropReason::NoRoute)?;
        let headers = Headers::parse(frame)?;
        let packets = train_len(&headers, vnet);
        let charged = from.peer().is_none();
        let train = Train { frame, headers, vnet: *vnet, packets, came_in_by, charged };
        self.send_to_host(now, inbound.destination, peer, train, out).map(|_| ())
    }

    /// The same for a host that has IPv6 only.
    fn pass_inside_as_ipv6(
        &mut self,
        now: Instant,
        inbound: Inbound,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        let Train { frame, vnet, packets, .. } = train;
        let mut left = 0;
        self.arrive_as_ipv6(frame, &vnet, inbound, |node, packet, headers, vnet| {
            // What found no room before this piece is lost.
            node.counters.drop_many(DropReason::BatchFull, std::mem::take(&mut left));
            node.unsent = None;
            if inbound.realm.peer().is_none() {
                return node.write_made_train(packet, &headers, &vnet, out);
            }
            let train = Train::new(packet, headers, vnet, packets);
            node.pass_inside(now, inbound, train, out)?;
            left = node.unsent.as_ref().map_or(0, |unsent| unsent.packets);
            Ok(())
        })?;
        self.translation.is_unsent = self.unsent.is_some();
        Ok(TunVerdict::Consumed)
    }

    /// A held fragment from the Internet, once more.
    pub(super) fn pass_in(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(frame)?;
        let vnet = Vnet::default();
        let train = Train::new(frame, headers, vnet, 1);
        match self.return_to_ingress(now, train, out)? {
            TunVerdict::WriteBack(_) => self.write_made(frame, out),
            TunVerdict::Consumed | TunVerdict::Flush => Ok(()),
        }
    }

    /// Whose host a packet is for that comes from where our NAT does not translate.
    pub(super) fn bypassing(&self, headers: &Headers) -> Option<Owner> {
        let nat = &self.exit.as_ref()?.nat;
        let owner = self.prefixes.owner(headers.destination)?;
        nat.is_bypassed(headers.source).then_some(owner)
    }

    /// A packet for a peer's host that knows it by its inside address.
    pub(super) fn return_bypassed(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        if !self.peers[peer.usize()].may_exit {
            return Err(DropReason::ExitRefused);
        }
        self.send_to_host(now, train.headers.destination, peer, train, out)
    }
}
