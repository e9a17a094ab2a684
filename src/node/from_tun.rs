//! A frame's way out: whose traffic is it, where does it leave the overlay, which way is best.

use std::net::IpAddr;

use super::copies::Outbound;
use super::deliver::Admitted;
use super::exit_endpoints::HostEnd;
use super::prefixes::Owner;
use super::{Label, Node};
use crate::addr;
use crate::batch::Output;
use crate::flow::{ClassIndex, Direction, Egress, ExitPoint, FlowId, FlowKey, Marks};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::nat::Realm;
use crate::packet::{Gso, Headers, IcmpKind, Vnet, icmp, rewrite};
use crate::path::Path;
use crate::routing::Demand;
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;

/// What becomes of a frame from the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunVerdict {
    /// It is dealt with: sent, or dropped and counted.
    Consumed,
    /// The frame, changed in place, goes back to the TUN with this offload header: it leaves by our
    /// own exit, or comes back in from it.
    WriteBack(Vnet),
    /// The send batch is full: the shell sends it and calls [`Node::resume_tun_frame`].
    Flush,
}

/// A frame from the TUN with what is known of it.
pub(super) struct Train<'f> {
    pub(super) frame: &'f mut [u8],
    pub(super) headers: Headers,
    pub(super) vnet: Vnet,
    pub(super) packets: u64,
    /// Whose mapping of our NAT it came in by, when it is from the Internet.
    pub(super) came_in_by: Option<Realm>,
    /// It was taken off its class's rate already.
    pub(super) charged: bool,
}

impl<'f> Train<'f> {
    pub(super) const fn new(
        frame: &'f mut [u8],
        headers: Headers,
        vnet: Vnet,
        packets: u64,
    ) -> Self {
        Self { frame, headers, vnet, packets, came_in_by: None, charged: false }
    }
}

/// Whose traffic a train is. Without a place in the flow table it goes by its class alone.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    pub(super) id: Option<FlowId>,
    class: ClassIndex,
    demand: Demand,
}

impl Node {
    /// Handles one frame from the TUN: an IP packet or super-packet. See the driving contract at
    /// [`Node`].
    pub fn handle_tun_frame(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        vnet: Vnet,
        out: &mut Output,
    ) -> TunVerdict {
        let parsed = Headers::parse(frame);
        let packets = parsed.as_ref().map_or(1, |headers| train_len(headers, &vnet));
        let bytes = frame.len() as u64;
        self.counters.tun_rx.add(packets, bytes);
        self.touch();
        let verdict = parsed
            .and_then(|headers| self.forward(now, Train::new(frame, headers, vnet, packets), out));
        match verdict {
            Ok(TunVerdict::WriteBack(vnet)) => {
                self.counters.tun_tx.add(packets, bytes);
                TunVerdict::WriteBack(vnet)
            }
            Ok(verdict) => self.verdict(verdict),
            Err(reason) => {
                self.counters.drop_many(reason, packets);
                TunVerdict::Consumed
            }
        }
    }

    /// Goes on with a frame after [`TunVerdict::Flush`].
    pub fn resume_tun_frame(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        out: &mut Output,
    ) -> TunVerdict {
        let Some(unsent) = self.unsent.take() else { return TunVerdict::Consumed };
        let translated = self.take_unsent_translation();
        let frame = translated.as_deref().unwrap_or(frame);
        let result = Headers::parse(frame)
            .and_then(|headers| self.encapsulate_from(now, &unsent, frame, &headers, out));
        if let Some(packet) = translated {
            self.translation.is_unsent = self.unsent.is_some();
            self.give_back_translation(packet);
        }
        if let Err(reason) = result {
            self.counters.drop_many(reason, unsent.packets);
        }
        self.verdict(TunVerdict::Consumed)
    }

    /// The verdict, unless something is left to be sent.
    const fn verdict(&self, verdict: TunVerdict) -> TunVerdict {
        if self.unsent.is_some() { TunVerdict::Flush } else { verdict }
    }

    fn forward(
        &mut self,
        now: Instant,
        mut train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        if !addr::is_unicast(train.headers.destination) {
            return Err(DropReason::NotUnicast);
        }
        if let Some(exit) = &self.exit {
            exit.aliases.take_off(train.frame, &mut train.headers, &train.vnet)?;
        }
        let from = self.prefixes.owner(train.headers.source);
        if self.exit.as_ref().is_some_and(|exit| exit.in_pool(train.headers.destination)) {
            let is_error = train.headers.icmp == Some(IcmpKind::Error);
            return match from {
                // Nobody outside has an address of the overlay.
                Some(Owner::Peer(_)) => Err(DropReason::SpoofedSource),
                // Whoever says so gets an outside source too; but the router itself, which tells of
                // what became of a packet, is the outside.
                Some(Owner::Local) if !is_error => self.turn_here(now, train, out),
                Some(Owner::Local) | None => self.return_to_ingress(now, train, out),
            };
        }
        if let (None, Some(Owner::Peer(peer))) = (from, self.bypassing(&train.headers)) {
            return self.return_bypassed(now, peer, train, out);
        }
        if from != Some(Owner::Local) {
            return Err(DropReason::ForeignSource);
        }
        rewrite::clamp_mss(train.frame, &train.headers, &train.vnet, self.mtu);
        let host = train.headers.source;
        let flow = self.flow_of(now, &train, host);
        match self.egress(now, flow, &train, out)? {
            Egress::Peer(peer) => self.send_to_peer(now, flow, peer, &train, out),
            Egress::PeerExit(peer) => {
                if let Some(end) = HostEnd::source_of(&FlowKey::of(&train.headers)) {
                    self.exit_endpoints.note(now, end, peer);
                }
                self.send_to_peer(now, flow, peer, &train, out)
            }
            Egress::LocalExit => {
                self.check_exit_destination(train.headers.destination)?;
                self.charge_class(now, flow.class, &train)?;
                self.leave_here(now, train, out)
            }
            Egress::Undecided | Egress::Local => Err(DropReason::NoRoute),
        }
    }

    /// Finds the flow or enters it on the account of `host`, and counts the train.
    pub(super) fn flow_of(&mut self, now: Instant, train: &Train<'_>, host: IpAddr) -> Flow {
        let key = FlowKey::of(&train.headers);
        let lookup = self.flows.lookup_or_admit(now, key, host);
        let Ok(lookup) = lookup else {
            let class = self.classes.classify(&key, Marks::of(train.frame));
            return Flow { id: None, class, demand: self.policy.demand(class) };
        };
        let known = self.flows.get(lookup.id).is_some_and(|f| f.policy == self.policy.generation);
        if !known {
            self.classify_flow(lookup.id, Marks::of(train.frame));
        }
        let tally = Tally { packets: train.packets, bytes: train.frame.len() as u64 };
        let flags = train.headers.tcp_flags;
        self.flows.record(now, lookup.id, Direction::Forward, tally, flags);
        let class = self.flows.get(lookup.id).map_or_else(ClassIndex::default, |flow| flow.class);
        Flow { id: Some(lookup.id), class, demand: self.policy.demand(class) }
    }

    /// Where a flow leaves the overlay. A flow to the Internet stays with its exit as long as that
    /// can be reached, because the exit's NAT holds its address.
    fn egress(
        &mut self,
        now: Instant,
        flow: Flow,
        train: &Train<'_>,
        out: &mut Output,
    ) -> Result<Egress, DropReason> {
        let pinned = flow.id.and_then(|id| self.flows.get(id)).map(|entry| entry.egress);
        let stays = match pinned {
            None | Some(Egress::Undecided) => false,
            Some(Egress::PeerExit(peer)) => self.router.path(peer, flow.demand).is_some(),
            Some(Egress::Local | Egress::LocalExit | Egress::Peer(_)) => true,
        };
        if let (true, Some(egress)) = (stays, pinned) {
            return Ok(egress);
        }
        let destination = train.headers.destination;
        let egress = match self.prefixes.owner(destination) {
            Some(Owner::Peer(peer)) => {
                self.classes.get(flow.class).permits_peer(peer).then_some(Egress::Peer(peer))
            }
            Some(Owner::Local) => None,
            None => self.exit_for(now, &train.headers, flow.class),
        };
        let Some(egress) = egress else {
            let closed = self.is_closed(destination, flow.class);
            let (error, reason) = if closed {
                (icmp::Error::AdminProhibited, DropReason::PolicyClosed)
            } else {
                (icmp::Error::NetUnreachable, DropReason::NoRoute)
            };
            self.answer_host(now, None, train.frame, &train.headers, error, out);
            return Err(reason);
        };
        if let Some(entry) = flow.id.and_then(|id| self.flows.get_mut(id)) {
            entry.egress = egress;
        }
        Ok(egress)
    }

    /// Takes a train off its class's rate.
    fn charge_class(
        &mut self,
        now: Instant,
        class: ClassIndex,
        train: &Train<'_>,
    ) -> Result<(), DropReason> {
        if self.policy.admits(now, class, train.frame.len()) {
            Ok(())
        } else {
            Err(DropReason::ClassRateLimited)
        }
    }

    /// The path that a flow takes to a peer now.
    fn path_of_flow(&mut self, flow: Flow, peer: PeerIndex, train: &Train<'_>) -> Option<Path> {
        if !self.classes.get(flow.class).multipath {
            return self.router.path(peer, flow.demand);
        }
        let entry = flow.id.and_then(|id| self.flows.get_mut(id));
        let key = FlowKey::of(&train.headers);
        let hash = self.policy.groups.hash(&key, flow.class, self.classes.get(flow.class).group);
        let present = entry.as_ref().and_then(|entry| entry.path);
        let path = self
            .router
            .path_of_flow(peer, flow.demand, hash, present)
            .or_else(|| self.router.path(peer, flow.demand));
        if let Some(entry) = entry {
            entry.path = path;
        }
        path
    }

    pub(super) fn send_to_peer(
        &mut self,
        now: Instant,
        flow: Flow,
        peer: PeerIndex,
        train: &Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        let path = self.path_of_flow(flow, peer, train);
        let class = self.classes.get(flow.class);
        let label = Label { class: class.tag, flow_hash: flow.id.map_or(0, hash_of) };
        let tos = match class.set_dscp {
            None => train.headers.tos,
            Some(dscp) => dscp << 2 | train.headers.tos & 3,
        };
        let path = path.or_else(|| self.last_resort(now, peer, flow.demand, train.frame.len()));
        let route = path.and_then(|path| self.route(peer, path, tos, label));
        let Some(route) = route else {
            let restricted = self.router.demand(flow.demand).is_some_and(|d| d.is_restricted());
            let closed = restricted && self.router.path(peer, Metric::Latency).is_some();
            let (error, reason) = if closed {
                (icmp::Error::AdminProhibited, DropReason::PolicyClosed)
            } else {
                (icmp::Error::HostUnreachable, DropReason::NoPath)
            };
            self.answer_host(now, train.came_in_by, train.frame, &train.headers, error, out);
            return Err(reason);
        };
        if !train.charged {
            self.charge_class(now, flow.class, train)?;
        }
        let outbound = Outbound {
            flow: flow.id,
            class: flow.class,
            demand: flow.demand,
            packets: train.packets,
            bytes: train.frame.len(),
        };
        self.count_packets(peer, route.path, train.packets);
        let second = self.second_route(now, peer, route.path, tos, label, &outbound);
        let route = route.of_mapping(train.came_in_by);
        let Train { frame, headers, vnet, .. } = train;
        match second {
            None => self.encapsulate(now, &route, frame, headers, vnet, out)?,
            Some(second) => {
                self.encapsulate_twice(now, &route, &second, frame, headers, vnet, out)?;
            }
        }
        Ok(TunVerdict::Consumed)
    }

    /// A packet of our own LAN for an outside address of our NAT: through our own exit or not at all.
    fn turn_here(
        &mut self,
        now: Instant,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        let flow = self.flow_of(now, &train, train.headers.source);
        if !self.classes.get(flow.class).permits_exit(ExitPoint::Local) {
            let error = icmp::Error::AdminProhibited;
            self.answer_host(now, None, train.frame, &train.headers, error, out);
            return Err(DropReason::PolicyClosed);
        }
        if let Some(entry) = flow.id.and_then(|id| self.flows.get_mut(id)) {
            entry.egress = Egress::LocalExit;
        }
        self.charge_class(now, flow.class, &train)?;
        self.leave_here(now, train, out)
    }

    /// Our own LAN's traffic through our own exit: back into the TUN with a new source.
    fn leave_here(
        &mut self,
        now: Instant,
        train: Train<'_>,
        out: &mut Output,
    ) -> Result<TunVerdict, DropReason> {
        self.check_exit_destination(train.headers.destination)?;
        let Train { frame, headers, vnet, .. } = train;
        match self.translate_outbound(now, Realm::LOCAL, frame, &headers, &vnet, out)? {
            Admitted::ToTun => Ok(TunVerdict::WriteBack(vnet)),
            Admitted::Gone => Ok(TunVerdict::Consumed),
        }
    }
}

/// What relays tell flows apart by.
const fn hash_of(id: FlowId) -> u16 {
    (id.0.wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// How many packets a frame stands for.
pub(super) fn train_len(headers: &Headers, vnet: &Vnet) -> u64 {
    if vnet.gso == Gso::None || vnet.segment_size == 0 {
        return 1;
    }
    (headers.payload_len() as u64).div_ceil(u64::from(vnet.segment_size)).max(1)
}
