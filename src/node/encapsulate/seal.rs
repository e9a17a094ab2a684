//! Trains and lone packets are sealed in their place in the send batch.

use super::{Route, Unsent};
use crate::batch::Output;
use crate::packet::Segmenter;
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;
use crate::tunnel::{RelaySealer, Sealer, Tunnels};
use crate::wire::{self, Flags, RelayRepr, Report};

/// What seals a datagram: for the far end and, on a relayed path, for the first hop.
pub(super) struct WaySealer<'t> {
    sealer: Sealer<'t>,
    hop: Option<(RelaySealer<'t>, RelayRepr)>,
}

impl<'t> WaySealer<'t> {
    pub(super) fn new(
        tunnels: &'t mut Tunnels,
        now: Instant,
        route: &Route,
    ) -> Result<Self, DropReason> {
        let way = (route.peer, route.path.into());
        Ok(match &route.hop {
            None => Self { sealer: tunnels.sealer(now, way.0, way.1)?, hop: None },
            Some(hop) => {
                let (sealer, relay) = tunnels.relayed_sealers(now, way, (hop.relay, hop.path))?;
                Self { sealer, hop: Some((relay, hop.repr)) }
            }
        })
    }

    pub(super) fn seal(&mut self, flags: Flags, datagram: &mut [u8]) -> Result<(), DropReason> {
        match &mut self.hop {
            None => self.sealer.seal(flags, datagram).map(|_| ()),
            Some((relay, repr)) => {
                self.sealer.seal(flags, &mut datagram[wire::RELAY_OVERHEAD..])?;
                relay.seal(repr, datagram)
            }
        }
    }
}

/// A train that is about to be sealed.
pub(super) struct Cut<'c, 'f> {
    pub(super) unsent: &'c Unsent,
    pub(super) flags: Flags,
    pub(super) segmenter: &'c Segmenter<'f>,
    /// Rides on the last packet.
    pub(super) report: Option<Report>,
}

impl Cut<'_, '_> {
    /// Seals packet after packet in its place in the send batch, with room for a relay header of
    /// `OFFSET` bytes. Says what was sealed, which one could not go, and why.
    // Within its caller the loop would run out of registers.
    #[inline(never)]
    pub(super) fn seal<const OFFSET: usize>(
        &self,
        out: &mut Output,
        mut seal: impl FnMut(Flags, &mut [u8]) -> Result<(), DropReason>,
    ) -> (Tally, Option<(usize, DropReason)>) {
        let (target, segmenter) = (self.unsent.route.target, self.segmenter);
        let mut sent = Tally::default();
        let last = segmenter.count() - 1;
        for index in self.unsent.next..segmenter.count() {
            let len = segmenter.segment_len(index);
            let report = self.report.as_ref().filter(|_| index == last);
            let (reporting, body) = with_report(len, report.is_some());
            let total = OFFSET + wire::DATA_OVERHEAD + body;
            let Some(datagram) = out.tx.push(target, total) else {
                return (sent, Some((index, DropReason::BatchFull)));
            };
            let start = OFFSET + wire::DATA_HEADER_LEN;
            segmenter.write(index, &mut datagram[start..start + len]);
            if let Some(report) = report {
                datagram[start + len..start + body].copy_from_slice(&report.emit());
            }
            if let Err(reason) = seal(self.flags.with(reporting), datagram) {
                // What is not sealed must not stay: the whole batch is sent.
                datagram.fill(0);
                out.tx.take_back(target);
                return (sent, Some((index, reason)));
            }
            sent.add(1, total as u64);
        }
        (sent, None)
    }
}

/// The flags and body length of a packet that may carry a report.
pub(in crate::node) const fn with_report(len: usize, report: bool) -> (Flags, usize) {
    if report { (Flags::REPORT, len + wire::control::REPORT_LEN) } else { (Flags::NONE, len) }
}
