//! What arrives in a relay header: for us, or to be sent on.

use std::ops::Range;

use super::Node;
use super::from_underlay::{Arrival, Datagrams};
use super::peer::by_id;
use super::policy::ANY_CLASS;
use crate::batch::{Forward, Output, RxBatch, Target};
use crate::id::PeerIndex;
use crate::path::Path;
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;
use crate::wire::{self, RelayHeader, RelayRepr};

impl Node {
    /// Opens the headers of relay datagrams in a row that one hop authenticated and that have one
    /// way to go; then handles what is inside, or sends them on. All is looked up once. False when
    /// the first one is none such.
    pub(super) fn relay_run(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        rest: &mut Datagrams,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> bool {
        let buffer = &rx.slots[arrival.slot].buffer;
        let header = |range: Range<usize>| RelayHeader::parse(&buffer[range]).ok();
        let Some(first) = rest.first().and_then(header) else { return false };
        if arrival.relay.is_some() {
            return false;
        }
        let Ok(mut opener) = self.tunnels.opener(now, first.receiver_index) else { return false };
        let hop = opener.peer();
        let mut run = Datagrams { end: rest.start, ..*rest };
        let mut heard = Tally::default();
        while let Some(range) = rest.first()
            && let Some(header) = header(range.clone())
            && (header.receiver_index, header.path) == (first.receiver_index, first.path)
            && header.repr.is_same_way(&first.repr)
        {
            if let Err(reason) = opener.open_relay(now, &header, &buffer[range.clone()]) {
                self.counters.drop(reason);
                rest.advance();
                // What was opened before is dealt with first.
                break;
            }
            rest.advance();
            run.end = range.end;
            heard.add(1, range.len() as u64);
        }
        if heard.packets == 0 {
            return true;
        }
        self.tunnels.heard(now, hop, first.receiver_index);
        self.heard(now, hop, first.path, arrival, heard);
        let result = if first.repr.dst == self.id {
            self.handle_last_hop(now, arrival, hop, &first.repr, run, rx, out)
        } else {
            self.send_on(now, arrival, hop, &first.repr, run, rx, out)
        };
        if let Err(reason) = result {
            self.counters.drop_many(reason, heard.packets);
        }
        true
    }

    /// Why a relay datagram was not part of a run.
    pub(super) fn handle_relay(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &RxBatch,
    ) -> Result<(), DropReason> {
        let header = RelayHeader::parse(&rx.slots[arrival.slot].buffer[range])?;
        self.tunnels.opener(now, header.receiver_index).map(|_| ())
    }

    #[expect(clippy::too_many_arguments, reason = "datagrams are where they lie and their way")]
    fn handle_last_hop(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        hop: PeerIndex,
        repr: &RelayRepr,
        run: Datagrams,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if repr.hop_limit != wire::relay::HOP_LIMIT - 1 {
            return Err(DropReason::RelayHopLimit);
        }
        let source = by_id(&self.ids, repr.src).ok_or(DropReason::RelaySpoofed)?;
        if source == hop {
            return Err(DropReason::RelaySpoofed);
        }
        let arrival = Arrival { relay: Some((hop, source)), ..*arrival };
        let mut inner = Datagrams { offset: wire::RELAY_OVERHEAD, ..run };
        self.handle_rest(now, &arrival, &mut inner, rx, out);
        Ok(())
    }

    /// We are the relay: the datagrams leave from where they lie, with headers for the last hop.
    /// Fails only before the first one.
    #[expect(clippy::too_many_arguments, reason = "datagrams are where they lie and their way")]
    fn send_on(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        hop: PeerIndex,
        repr: &RelayRepr,
        mut run: Datagrams,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let from = &self.peers[hop.usize()];
        if repr.src != from.id {
            return Err(DropReason::RelaySpoofed);
        }
        if repr.hop_limit != wire::relay::HOP_LIMIT {
            return Err(DropReason::RelayHopLimit);
        }
        if !from.may_relay {
            // Else its silence would be taken for an outage that may end.
            self.refuse_class(now, hop, ANY_CLASS, out);
            return Err(DropReason::RelayRefused);
        }
        let mut refused = None;
        let to = by_id(&self.ids, repr.dst).ok_or(DropReason::RelayUnknownDestination)?;
        if to == hop {
            return Err(DropReason::RelayUnknownDestination);
        }
        let (path, target) = self.last_hop(to, arrival.tos).ok_or(DropReason::RelayNoLink)?;
        let mut sealer = self.tunnels.relay_sealer(now, to, path.into())?;
        while let Some(range) = run.first() {
            run.advance();
            let datagram = &mut rx.slots[arrival.slot].buffer[range.clone()];
            // Class and flow are each datagram's own.
            let sealed = RelayHeader::labelled(repr, datagram).and_then(|repr| {
                if self.policy.refused.contains(repr.class) {
                    refused = Some(repr.class);
                    return Err(DropReason::RelayClassRefused);
                }
                if !self.relay_bucket.take(now, range.len()) {
                    return Err(DropReason::RelayRateLimited);
                }
                let hop_limit = wire::relay::HOP_LIMIT - 1;
                sealer.seal(&RelayRepr { hop_limit, ..repr }, datagram)
            });
            if let Err(reason) = sealed {
                self.counters.drop(reason);
                continue;
            }
            self.counters.relayed.add(1, range.len() as u64);
            self.counters.underlay_tx.add(1, range.len() as u64);
            queue_forward(arrival.slot as u16, range, target, out);
        }
        if let Some(tag) = refused {
            self.refuse_class(now, hop, tag, out);
        }
        Ok(())
    }

    fn last_hop(&self, to: PeerIndex, tos: u8) -> Option<(Path, Target)> {
        let link = self.router.link_to(to)?;
        let destination = self.peers[to.usize()].address(link)?;
        Some((Path::Direct(link), Target { uplink: link.local, destination, tos }))
    }
}

/// Queues a range for sending, as part of the last one where it continues it.
fn queue_forward(slot: u16, range: Range<usize>, target: Target, out: &mut Output) {
    let (start, end, len) = (range.start as u32, range.end as u32, range.len() as u32);
    if let Some(last) = out.forwards.last_mut()
        && last.slot == slot
        && last.target == target
        && last.range.end == start
        && (last.range.end - last.range.start).is_multiple_of(last.stride)
        && len <= last.stride
    {
        last.range.end = end;
        return;
    }
    out.forwards.push(Forward { slot, range: start..end, stride: len, target });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UplinkIndex;

    #[test]
    fn datagrams_in_a_row_leave_as_one_train() {
        let mut out = Output::new(1);
        let target = Target {
            uplink: UplinkIndex(0),
            destination: std::net::SocketAddr::from(([192, 0, 2, 9], 1)),
            tos: 0,
        };
        for range in [0..100, 100..200, 200..240, 240..300] {
            queue_forward(0, range, target, &mut out);
        }
        queue_forward(1, 300..400, target, &mut out);
        let shape: Vec<_> = out.forwards.iter().map(|f| (f.range.clone(), f.stride)).collect();
        assert_eq!(shape, [(0..240, 100), (240..300, 60), (300..400, 100)]);
    }
}
