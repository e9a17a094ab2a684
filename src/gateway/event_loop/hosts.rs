//! What hosts sent: from the TUN's queues to the node, a frame at a time.

use anyhow::bail;

use super::sends::send_all;
use super::{EventLoop, TURN_BYTES};
use crate::batch::BUFFER_LEN;
use crate::io::tun::RawVnet;
use crate::node::TunVerdict;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Frames of a turn: small ones take their time too.
const TURN_FRAMES: usize = 64;
/// A frame that takes long to seal.
const BULKY: usize = 8 * 1024;

/// The frame that is being handled.
pub(super) struct Frame {
    buffer: Box<[u8]>,
    vnet: RawVnet,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_LEN].into_boxed_slice(), vnet: RawVnet::default() }
    }
}

impl EventLoop {
    /// Reads and handles frames, a turn's worth of them.
    pub(super) fn serve_hosts(&mut self, now: Instant) -> anyhow::Result<()> {
        let (mut bytes, mut frames) = (0, 0);
        while bytes < TURN_BYTES
            && frames < TURN_FRAMES
            && let Some(queue) = self.rounds.next()
        {
            let frame = &mut self.frame;
            match self.parts.tun.read(queue, &mut frame.vnet, &mut frame.buffer) {
                Ok(Some(len)) => {
                    let level = self.parts.node.priority_of(&frame.buffer[..len]) as usize;
                    self.rounds.took(queue, len, level);
                    self.take_frame(now, len);
                    bytes += len;
                    frames += 1;
                }
                Ok(None) => self.rounds.found_empty(queue),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBADFD | libc::ENODEV) => {
                        bail!("the TUN device `{}` is gone", self.parts.config.tun.name)
                    }
                    // The interface is down; it says when it is up again.
                    Some(libc::EIO) => self.rounds.found_empty(queue),
                    _ => {
                        frames += 1;
                        self.parts.node.counters_mut().drop(DropReason::Malformed);
                    }
                },
            }
        }
        Ok(())
    }

    /// Hands the frame to the node.
    fn take_frame(&mut self, now: Instant, len: usize) {
        // Small packets before it do not wait until all of it is sealed.
        if len >= BULKY && (1..BULKY).contains(&self.unsent) {
            self.parts.node.close_bundles(now, &mut self.out);
            self.send_batch();
        }
        let vnet = match self.frame.vnet.parse() {
            Ok(vnet) => vnet,
            Err(reason) => return self.parts.node.counters_mut().drop(reason),
        };
        let bytes = &mut self.frame.buffer[..len];
        self.unsent += len;
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
        self.flush_if_full();
    }
}
