//! An inner packet that came out of a tunnel: may it be, and where does it go?
//!
//! Packets are merged first and judged after that, so that a train is looked up once.

use std::net::IpAddr;
use std::ops::Range;

use super::Node;
use super::exit_endpoints::HostEnd;
use super::peer::Peer;
use super::prefixes::Owner;
use crate::addr;
use crate::batch::{Output, Part, RxBatch, TunWrite};
use crate::flow::{Direction, Egress, FlowId, FlowKey};
use crate::id::PeerIndex;
use crate::nat::{Nat, pcp};
use crate::packet::{Arrived, Ecn, Headers, IcmpKind, Merged, Vnet, checksum, protocol, rewrite};
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;

/// Parses a packet that lies in a receive buffer and brings its congestion mark up to date.
pub(super) fn arrived(
    rx: &mut RxBatch,
    peer: PeerIndex,
    slot: usize,
    range: Range<usize>,
    outer: Ecn,
    partial: bool,
) -> Result<Arrived, DropReason> {
    let at = Part { slot: slot as u16, start: range.start as u32, end: range.end as u32 };
    let packet = &mut rx.slots[slot].buffer[range];
    let headers = checked(packet, outer, partial)?;
    Ok(Arrived { at, headers, peer, partial })
}

/// The headers of a packet, after its congestion mark was brought up to date (RFC 6040).
fn checked(packet: &mut [u8], outer: Ecn, partial: bool) -> Result<Headers, DropReason> {
    let mut headers = Headers::parse(packet)?;
    if partial && checksum::partial_vnet(&headers).is_none() {
        return Err(DropReason::BadOffload);
    }
    let ecn = headers.ecn().decapsulate(outer)?;
    if ecn != headers.ecn() {
        rewrite::set_ecn(packet, &headers, ecn)?;
        headers.tos = headers.tos & !3 | ecn as u8;
    }
    Ok(headers)
}

/// An inner packet, or the headers of a train of them, that is to be judged.
struct Judged<'p> {
    peer: PeerIndex,
    /// At least the headers.
    packet: &'p mut [u8],
    headers: &'p Headers,
    vnet: &'p Vnet,
    tally: Tally,
}

impl Node {
    /// Takes a packet that was put together here.
    pub(super) fn deliver_made(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        (outer, partial): (Ecn, bool),
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let headers = checked(packet, outer, partial)?;
        // Behind those of its flow that came before.
        self.coalescer.flush_between(rx, out, &headers);
        self.deliver_merged(now, rx, out);
        let vnet = if partial { checksum::partial_vnet(&headers) } else { None };
        let vnet = vnet.unwrap_or_default();
        let packet = &mut packet[..headers.total_len as usize];
        self.deliver_whole(now, peer, packet, &headers, &vnet, 1, out)
    }

    /// Judges what the coalescer has completed, and queues it for the TUN.
    pub(super) fn deliver_merged(&mut self, now: Instant, rx: &mut RxBatch, out: &mut Output) {
        for at in 0_usize.. {
            if at.is_multiple_of(Nat::AHEAD_MAX) {
                self.look_ahead();
            }
            let Some(merged) = self.coalescer.pop() else { break };
            if let Err(reason) = self.deliver_train(now, &merged, rx, out) {
                self.counters.drop_many(reason, merged.packets.into());
            }
            // What turned round at our exit cannot wait for a flush: it lies in the receive buffers.
            if let Some(unsent) = self.unsent.take() {
                self.counters.drop_many(DropReason::BatchFull, unsent.packets);
            }
        }
    }

    fn deliver_train(
        &mut self,
        now: Instant,
        merged: &Merged,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Merged { peer, headers, vnet, packets, .. } = merged;
        let changes = |exit: &super::Exit| {
            exit.in_pool(headers.destination)
                || headers.is_ipv6() && self.beyond(headers.destination).is_ipv4()
        };
        if *packets > 1 && self.exit.as_ref().is_some_and(changes) {
            let mut frame = std::mem::take(&mut self.train_scratch);
            frame.clear();
            for &part in &out.parts[merged.parts.clone()] {
                frame.extend_from_slice(out.part(rx, part));
            }
            let result = self.deliver_whole(now, *peer, &mut frame, headers, vnet, *packets, out);
            self.train_scratch = frame;
            return result;
        }
        let first = out.parts[merged.parts.start];
        let range = first.start as usize..first.end as usize;
        let packet = &mut rx.slots[usize::from(first.slot)].buffer[range];
        let tally = tally_of(headers, *packets);
        let judged = Judged { peer: *peer, packet, headers, vnet, tally };
        let admitted = self.admit(now, judged, out)?;
        if admitted == Admitted::ToTun {
            self.counters.tun_tx.add(tally.packets, tally.bytes);
            out.tun_writes.push(TunWrite {
                vnet: *vnet,
                ipv6: headers.is_ipv6(),
                parts: merged.parts.clone(),
                segments: *packets,
            });
        }
        Ok(())
    }

    /// A packet or super-packet in one piece of ours.
    #[expect(clippy::too_many_arguments, reason = "a frame is its bytes and what is known of it")]
    fn deliver_whole(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
        packets: u32,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let tally = tally_of(headers, packets);
        let judged = Judged { peer, packet, headers, vnet, tally };
        if self.admit(now, judged, out)? == Admitted::Gone {
            return Ok(());
        }
        self.counters.tun_tx.add(tally.packets, tally.bytes);
        if out.write_generated(*vnet, packet) { Ok(()) } else { Err(DropReason::BatchFull) }
    }

    /// Cryptokey routing: the source must be behind the peer (or beyond it, when it is our exit and
    /// we asked), the destination must be ours, or the Internet when we are the peer's exit.
    fn admit(
        &mut self,
        now: Instant,
        judged: Judged<'_>,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        let Judged { peer, packet, headers, vnet, tally } = judged;
        let is_error = headers.icmp == Some(IcmpKind::Error);
        let answered =
            if is_error { None } else { self.flows.lookup(&FlowKey::of(headers).reversed()) };
        match self.prefixes.owner(headers.source) {
            Some(Owner::Peer(owner)) if owner == peer => {}
            None if self.is_from_exit(now, peer, packet, headers, answered) => {}
            _ => return Err(DropReason::SpoofedSource),
        }
        let to = self.prefixes.owner(headers.destination);
        if let Some(id) = answered {
            self.flows.record(now, id, Direction::Reply, tally, headers.tcp_flags);
        }
        if is_error && to == Some(Owner::Local) && !self.is_about_peer(now, peer, packet, headers) {
            return Err(DropReason::UnrelatedIcmpError);
        }
        match to {
            Some(Owner::Local) if self.is_pcp_request(peer, headers) => {
                self.serve_pcp(now, peer, packet, headers, vnet, out)?;
                Ok(Admitted::Gone)
            }
            Some(Owner::Local) => {
                self.note_lease(now, peer, packet, headers);
                Ok(Admitted::ToTun)
            }
            Some(Owner::Peer(_)) => Err(DropReason::ForeignDestination),
            None => self.leave_overlay(now, peer, packet, headers, vnet, out),
        }
    }

    /// True for a packet from the Internet that answers a flow of ours through this exit, or is an
    /// error about one.
    fn is_from_exit(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &[u8],
        headers: &Headers,
        answered: Option<FlowId>,
    ) -> bool {
        let source = self.beyond(headers.source);
        if !self.peers[peer.usize()].egress || addr::is_special_purpose(source) {
            return false;
        }
        if headers.is_later_fragment() {
            return self.exit_fragments.knows(now, peer, headers);
        }
        let (key, id) = if headers.icmp == Some(IcmpKind::Error) {
            let Ok(quoted) = rewrite::quoted(packet, headers) else { return false };
            let key = FlowKey::of(&quoted);
            (key, self.flows.lookup(&key))
        } else {
            (FlowKey::of(headers).reversed(), answered)
        };
        let flow = id.and_then(|id| self.flows.get(id));
        let expected = flow.is_some_and(|flow| flow.egress == Egress::PeerExit(peer))
            || self.is_endpoint_of(now, peer, &key)
            || self.is_server(now, peer, &key);
        if expected && headers.fragment.is_some() {
            self.exit_fragments.remember(now, peer, headers);
        }
        expected
    }

    /// True for an ICMP error that tells the sender of a packet what became of it on its way to, or
    /// beyond, this peer: others' flows are none of its business.
    fn is_about_peer(
        &self,
        now: Instant,
        peer: PeerIndex,
        packet: &[u8],
        headers: &Headers,
    ) -> bool {
        let Ok(quoted) = rewrite::quoted(packet, headers) else { return false };
        if quoted.source != headers.destination {
            return false;
        }
        if self.prefixes.owner(quoted.destination) == Some(Owner::Peer(peer)) {
            return true;
        }
        let key = FlowKey::of(&quoted);
        let flow = self.flows.lookup(&key).and_then(|id| self.flows.get(id));
        flow.is_some_and(|flow| flow.egress == Egress::PeerExit(peer))
            || self.is_endpoint_of(now, peer, &key)
    }

    /// True when the source of the key has its mapping at the exit of this peer: then anybody may
    /// send to it, through that exit.
    fn is_endpoint_of(&self, now: Instant, peer: PeerIndex, key: &FlowKey) -> bool {
        HostEnd::source_of(key)
            .is_some_and(|end| self.exit_endpoints.exit_of(now, &end) == Some(peer))
    }

    /// True for an endpoint that anybody may reach. Its answers go by the exit that was asked.
    fn is_server(&mut self, now: Instant, peer: PeerIndex, key: &FlowKey) -> bool {
        let end = HostEnd::source_of(key).filter(|end| self.servers.contains(end));
        if let Some(end) = end {
            self.exit_endpoints.note(now, end, peer);
        }
        end.is_some()
    }

    /// An exit that gives one of our hosts a mapping may let strangers in by it.
    fn note_lease(&mut self, now: Instant, peer: PeerIndex, packet: &[u8], headers: &Headers) {
        let from_server = headers.ports.is_some_and(|ports| ports.src == pcp::PORT);
        if !from_server || headers.protocol != protocol::UDP {
            return;
        }
        let Peer { egress, addresses, .. } = &self.peers[peer.usize()];
        if !egress || !addresses.contains(&headers.source) {
            return;
        }
        let response = packet.get(usize::from(headers.payload)..headers.total_len as usize);
        if let Some((end, time)) = HostEnd::leased(headers.destination, response.unwrap_or(&[])) {
            self.exit_endpoints.note_for(now, end, peer, time);
        }
    }

    /// We are the exit: out to the Internet through the NAT.
    fn leave_overlay(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        if self.exit.is_none() {
            return Err(DropReason::ForeignDestination);
        }
        if !self.peers[peer.usize()].may_exit {
            return Err(DropReason::ExitRefused);
        }
        self.check_exit_destination(headers.destination)?;
        self.translate_outbound(now, peer.into(), packet, headers, vnet, out)
    }

    /// Exit flows never reach the router itself, local networks or special-purpose ranges.
    pub(super) fn check_exit_destination(&self, destination: IpAddr) -> Result<(), DropReason> {
        let Some(exit) = &self.exit else { return Err(DropReason::ExitRefused) };
        let destination = self.beyond(destination);
        // It turns round here; the router's own services are out of reach on this way.
        if exit.in_pool(destination) {
            return Ok(());
        }
        let within = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&destination));
        if within(&exit.denied) {
            return Err(DropReason::ExitForbidden);
        }
        if addr::is_special_purpose(destination)
            && !within(&exit.permitted)
            && !exit.nat.is_bypassed(destination)
        {
            return Err(DropReason::ExitForbidden);
        }
        Ok(())
    }
}

/// What became of a checked packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It goes to the TUN.
    ToTun,
    /// It was sent elsewhere.
    Gone,
}

/// What a packet or a train counts: each packet with headers of its own.
fn tally_of(headers: &Headers, packets: u32) -> Tally {
    let more = u64::from(packets.saturating_sub(1)) * u64::from(headers.payload);
    Tally { packets: packets.into(), bytes: u64::from(headers.total_len) + more }
}
