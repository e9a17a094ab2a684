//! What hosts sent: from the TUN into the backlog, and from there to the node.

use anyhow::bail;

use super::{EventLoop, TURN_BYTES, send_all};
use crate::node::TunVerdict;
use crate::packet::Vnet;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// What the backlog holds: 3 ms at 4 Gbit/s. With less, one TCP stream loses throughput.
pub(super) const BACKLOG_BYTES: usize = 1_500_000;
/// Frames read from the TUN in a turn.
const READS: usize = 64;
/// A frame that takes long to seal.
const BULKY: usize = 8 * 1024;

impl EventLoop {
    /// Moves what waits in the TUN to the backlog.
    pub(super) fn read_tun(&mut self) -> anyhow::Result<()> {
        let mut frames = 0;
        while self.ready.tun && frames < READS {
            let Some(place) = self.backlog.vacant() else { break };
            frames += 1;
            match self.parts.tun.read(&mut place.vnet, &mut place.buffer) {
                Ok(Some(len)) => {
                    place.len = len;
                    self.backlog.admit();
                    self.drop_surplus();
                }
                Ok(None) => self.ready.tun = false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBADFD | libc::ENODEV) => {
                        bail!("the TUN device `{}` is gone", self.parts.config.tun.name)
                    }
                    // The interface is down; it says when it is up again.
                    Some(libc::EIO) => self.ready.tun = false,
                    _ => self.parts.node.counters_mut().drop(DropReason::Malformed),
                },
            }
        }
        Ok(())
    }

    fn drop_surplus(&mut self) {
        while let Some(frame) = self.backlog.surplus() {
            let packets = frame.vnet.parse().map_or(1, |vnet| packets_in(&vnet, frame.len));
            self.parts.node.counters_mut().drop_many(DropReason::TunBacklog, packets);
        }
    }

    /// Handles frames of the backlog, a turn's worth of bytes.
    pub(super) fn serve_hosts(&mut self, now: Instant) {
        let mut bytes = 0;
        while bytes < TURN_BYTES
            && let Some(slot) = self.backlog.next()
        {
            // Small packets before it do not wait until all of it is sealed.
            let bulky = self.backlog.frame(slot).len >= BULKY;
            if bulky && (1..BULKY).contains(&self.unsent) {
                self.parts.node.close_bundles(now, &mut self.out);
                self.send_batch();
            }
            bytes += self.take_frame(now, slot);
            self.backlog.release(slot);
            self.flush_if_full();
        }
    }

    /// Hands a frame to the node; its length.
    fn take_frame(&mut self, now: Instant, slot: u8) -> usize {
        let frame = self.backlog.frame(slot);
        let vnet = match frame.vnet.parse() {
            Ok(vnet) => vnet,
            Err(reason) => {
                self.parts.node.counters_mut().drop(reason);
                return frame.len;
            }
        };
        let bytes = &mut frame.buffer[..frame.len];
        self.unsent += bytes.len();
        let mut verdict = self.parts.node.handle_tun_frame(now, bytes, vnet, &mut self.out);
        while verdict == TunVerdict::Flush {
            send_all(&mut self.parts, &mut self.out);
            verdict = self.parts.node.resume_tun_frame(now, bytes, &mut self.out);
        }
        if let TunVerdict::WriteBack(vnet) = verdict
            && let Err(reason) = self.parts.tun.write(&vnet, bytes)
        {
            self.parts.node.counters_mut().drop(reason);
        }
        frame.len
    }
}

/// Packets that a frame of `len` bytes is to be cut into.
fn packets_in(vnet: &Vnet, len: usize) -> u64 {
    let payload = len.saturating_sub(usize::from(vnet.header_len));
    match vnet.segment_size {
        0 => 1,
        size => payload.div_ceil(usize::from(size)).max(1) as u64,
    }
}
