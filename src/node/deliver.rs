//! An inner packet that came out of a tunnel: may it be, and where does it go?

use std::net::IpAddr;
use std::ops::Range;

use super::Node;
use super::prefixes::Owner;
use crate::addr;
use crate::batch::{Output, Part, RxBatch};
use crate::flow::{Direction, Egress, FlowId, FlowKey};
use crate::id::PeerIndex;
use crate::packet::{Ecn, Headers, IcmpKind, Vnet, rewrite};
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;

impl Node {
    /// Checks a packet that lies in a receive buffer, and queues it for the TUN.
    #[expect(clippy::too_many_arguments, reason = "a packet is where it lies and where it is from")]
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        slot: usize,
        range: Range<usize>,
        outer: Ecn,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let packet = &mut rx.slots[slot].buffer[range.clone()];
        let Admitted::ToTun(headers) = self.admit(now, peer, packet, outer, out)? else {
            return Ok(());
        };
        self.counters.tun_tx.add(1, u64::from(headers.total_len));
        let end = range.start + headers.total_len as usize;
        let at = Part { slot: slot as u16, start: range.start as u32, end: end as u32 };
        self.coalescer.push(rx, out, at, &headers, false);
        Ok(())
    }

    /// The same for a packet that was put together here.
    pub(super) fn deliver_made(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        outer: Ecn,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Admitted::ToTun(headers) = self.admit(now, peer, packet, outer, out)? else {
            return Ok(());
        };
        self.counters.tun_tx.add(1, u64::from(headers.total_len));
        let whole = &packet[..headers.total_len as usize];
        if out.write_generated(Vnet::default(), whole) {
            Ok(())
        } else {
            Err(DropReason::BatchFull)
        }
    }

    /// Cryptokey routing: the source must be behind the peer (or beyond it, when it is our exit and
    /// we asked), the destination must be ours, or the Internet when we are the peer's exit.
    fn admit(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        outer: Ecn,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        let headers = Headers::parse(packet)?;
        let merged = headers.ecn().decapsulate(outer)?;
        if merged != headers.ecn() {
            rewrite::set_ecn(packet, &headers, merged)?;
        }
        match self.prefixes.owner(headers.source) {
            Some(Owner::Peer(owner)) if owner == peer => {}
            None if self.is_from_exit(now, peer, packet, &headers) => {}
            _ => return Err(DropReason::SpoofedSource),
        }
        let to = self.prefixes.owner(headers.destination);
        if headers.icmp != Some(IcmpKind::Error) {
            self.note_reply(now, &headers);
        } else if to == Some(Owner::Local) && !self.is_about_peer(peer, packet, &headers) {
            return Err(DropReason::UnrelatedIcmpError);
        }
        match to {
            Some(Owner::Local) if self.is_pcp_request(peer, &headers) => {
                self.serve_pcp(now, peer, packet, &headers, out)?;
                Ok(Admitted::Gone)
            }
            Some(Owner::Local) => Ok(Admitted::ToTun(headers)),
            Some(Owner::Peer(_)) => Err(DropReason::ForeignDestination),
            None => self.leave_overlay(now, peer, packet, &headers, out),
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
    ) -> bool {
        if !self.peers[peer.usize()].egress || addr::is_special_purpose(headers.source) {
            return false;
        }
        if headers.is_later_fragment() {
            return self.exit_fragments.knows(now, peer, headers);
        }
        let id = if headers.icmp == Some(IcmpKind::Error) {
            rewrite::quoted(packet, headers)
                .ok()
                .and_then(|quoted| self.flows.lookup(&FlowKey::of(&quoted)))
        } else {
            self.answered_flow(headers)
        };
        let flow = id.and_then(|id| self.flows.get(id));
        let expected = flow.is_some_and(|flow| flow.egress == Egress::PeerExit(peer));
        if expected && headers.fragment.is_some() {
            self.exit_fragments.remember(now, peer, headers);
        }
        expected
    }

    /// True for an ICMP error that tells the sender of a packet what became of it on its way to, or
    /// beyond, this peer: others' flows are none of its business.
    fn is_about_peer(&self, peer: PeerIndex, packet: &[u8], headers: &Headers) -> bool {
        let Ok(quoted) = rewrite::quoted(packet, headers) else { return false };
        if quoted.source != headers.destination {
            return false;
        }
        if self.prefixes.owner(quoted.destination) == Some(Owner::Peer(peer)) {
            return true;
        }
        let flow = self.flows.lookup(&FlowKey::of(&quoted)).and_then(|id| self.flows.get(id));
        flow.is_some_and(|flow| flow.egress == Egress::PeerExit(peer))
    }

    /// The flow that a packet answers, if that is one of ours. The packets of a train follow each
    /// other, so the flow of the last one is remembered.
    fn answered_flow(&mut self, headers: &Headers) -> Option<FlowId> {
        let key = FlowKey::of(headers).reversed();
        let id = match self.last_reply {
            Some((last, id)) if last == key => id,
            _ => self.flows.lookup(&key),
        };
        self.last_reply = Some((key, id));
        id
    }

    /// Counts a packet that came back for the flow that it answers.
    fn note_reply(&mut self, now: Instant, headers: &Headers) {
        let Some(id) = self.answered_flow(headers) else { return };
        let tally = Tally { packets: 1, bytes: u64::from(headers.total_len) };
        self.flows.record(now, id, Direction::Reply, tally, headers.tcp_flags);
    }

    /// We are the exit: out to the Internet through the NAT.
    fn leave_overlay(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        packet: &mut [u8],
        headers: &Headers,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        if self.exit.is_none() {
            return Err(DropReason::ForeignDestination);
        }
        if !self.peers[peer.usize()].may_exit {
            return Err(DropReason::ExitRefused);
        }
        self.check_exit_destination(headers.destination)?;
        self.translate_outbound(now, peer.into(), packet, headers, &Vnet::default(), out)
    }

    /// Exit flows never reach the router itself, local networks or special-purpose ranges.
    pub(super) fn check_exit_destination(&self, destination: IpAddr) -> Result<(), DropReason> {
        let Some(exit) = &self.exit else { return Err(DropReason::ExitRefused) };
        let within = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&destination));
        if within(&exit.denied) {
            return Err(DropReason::ExitForbidden);
        }
        if addr::is_special_purpose(destination)
            && !within(&exit.permitted)
            && !exit.in_pool(destination)
            && !exit.nat.is_bypassed(destination)
        {
            return Err(DropReason::ExitForbidden);
        }
        Ok(())
    }
}

/// What became of a checked packet.
pub(super) enum Admitted {
    /// It goes to the TUN, and these are its headers now.
    ToTun(Headers),
    /// It was sent elsewhere.
    Gone,
}
