//! What arrives in a relay header: for us, or to be sent on.

use std::ops::Range;

use super::Node;
use super::from_underlay::Arrival;
use super::peer::by_id;
use crate::batch::{Forward, Output, RxBatch, Target};
use crate::id::PeerIndex;
use crate::path::Path;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::tunnel::RelayOpened;
use crate::wire::{self, MessageType, RelayRepr};

/// A token bucket for what we give to relaying.
#[derive(Debug)]
pub(super) struct RelayBucket {
    rate_bps: Option<u64>,
    /// Bits that may be sent at once.
    tokens: u64,
    at: Instant,
}

impl RelayBucket {
    /// The burst is what the rate carries in a tenth of a second, and at least two trains.
    const BURST_MIN: u64 = 2 * 65_536 * 8;

    pub(super) const fn new(now: Instant, rate_bps: Option<u64>) -> Self {
        Self { rate_bps, tokens: Self::BURST_MIN, at: now }
    }

    fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let Some(rate) = self.rate_bps else { return true };
        let earned = u128::from(rate) * (now - self.at).as_micros() / 1_000_000;
        let burst = (rate / 10).max(Self::BURST_MIN);
        if earned > 0 {
            self.tokens =
                burst.min(self.tokens + u64::try_from(earned).unwrap_or(u64::MAX).min(burst));
            self.at = now;
        }
        let bits = bytes as u64 * 8;
        let enough = self.tokens >= bits;
        if enough {
            self.tokens -= bits;
        }
        enough
    }
}

impl Node {
    /// Opens the relay header; then delivers what is inside, or sends it on.
    pub(super) fn handle_relay(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let datagram = &mut rx.slots[arrival.slot].buffer[range.clone()];
        let opened = self.tunnels.open_relay(now, datagram)?;
        self.heard(now, opened.hop, opened.hop_path, arrival, range.len());
        if opened.repr.dst == self.id {
            let inner = range.start + opened.inner.start..range.start + opened.inner.end;
            self.handle_last_hop(now, arrival, &opened, inner, rx, out)
        } else {
            self.send_on(now, arrival, &opened, range, rx, out)
        }
    }

    fn handle_last_hop(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        opened: &RelayOpened,
        inner: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if opened.repr.hop_limit != wire::relay::HOP_LIMIT - 1 {
            return Err(DropReason::RelayHopLimit);
        }
        let source = by_id(&self.ids, opened.repr.src).ok_or(DropReason::RelaySpoofed)?;
        if source == opened.hop {
            return Err(DropReason::RelaySpoofed);
        }
        let arrival = Arrival { relay: Some((opened.hop, source)), ..*arrival };
        let datagram = &rx.slots[arrival.slot].buffer[inner.clone()];
        if wire::peek(datagram)? == MessageType::Data {
            self.handle_data(now, &arrival, inner, rx, out)
        } else {
            self.handle_handshake(now, &arrival, inner, rx, out)
        }
    }

    /// We are the relay: the datagram leaves from where it lies, with a header for its last hop.
    fn send_on(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        opened: &RelayOpened,
        range: Range<usize>,
        rx: &mut RxBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let from = &self.peers[opened.hop.usize()];
        if opened.repr.src != from.id {
            return Err(DropReason::RelaySpoofed);
        }
        if opened.repr.hop_limit != wire::relay::HOP_LIMIT {
            return Err(DropReason::RelayHopLimit);
        }
        if !from.may_relay {
            return Err(DropReason::RelayRefused);
        }
        let to = by_id(&self.ids, opened.repr.dst).ok_or(DropReason::RelayUnknownDestination)?;
        if to == opened.hop {
            return Err(DropReason::RelayUnknownDestination);
        }
        let (path, target) = self.last_hop(to, arrival.tos).ok_or(DropReason::RelayNoLink)?;
        if !self.relay_bucket.take(now, range.len()) {
            return Err(DropReason::RelayRateLimited);
        }
        let repr = RelayRepr { hop_limit: opened.repr.hop_limit - 1, ..opened.repr };
        let datagram = &mut rx.slots[arrival.slot].buffer[range.clone()];
        self.tunnels.seal_relay(now, to, path.into(), &repr, datagram)?;
        self.counters.relayed.add(1, range.len() as u64);
        self.counters.underlay_tx.add(1, range.len() as u64);
        queue_forward(arrival.slot as u16, range, target, out);
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
    use std::time::Duration;

    #[test]
    fn the_rate_holds_over_time_and_bursts_are_bounded() {
        let start = Instant::from_micros(0);
        let mut bucket = RelayBucket::new(start, Some(8_000_000));
        let mut passed = 0;
        for ms in 0..10_000 {
            for _ in 0..4 {
                if bucket.take(start + Duration::from_millis(ms), 1_000) {
                    passed += 1_000;
                }
            }
        }
        assert!((9_900_000..10_300_000).contains(&passed), "{passed}");
        assert!(RelayBucket::new(start, None).take(start, 1 << 30));
    }

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
