//! What hosts sent: from the TUN's queues to the node, a frame at a time, unless the NAT has so many
//! mappings that it saves time to look at some frames before.

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

/// Frames that are read before the first of them is handled, where the NAT looks ahead. Its tables
/// are what it waits for then; no more, so that all stay in the processor's cache.
const FRAMES_AHEAD: usize = 16;

/// A place for a frame.
struct Frame {
    buffer: Box<[u8]>,
    vnet: RawVnet,
    len: usize,
}

impl Frame {
    fn new() -> Self {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Self { buffer, vnet: RawVnet::default(), len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// The frames that are being handled.
pub(super) struct Frames([Frame; FRAMES_AHEAD]);

impl Frames {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Frame::new()))
    }
}

/// What a turn has taken.
#[derive(Default)]
struct Taken {
    bytes: usize,
    frames: usize,
}

impl Taken {
    fn is_enough(&self) -> bool {
        self.bytes >= TURN_BYTES || self.frames >= TURN_FRAMES
    }
}

impl EventLoop {
    /// Reads and handles frames, a turn's worth of them.
    pub(super) fn serve_hosts(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut taken = Taken::default();
        loop {
            let most = if self.parts.node.looks_ahead() { FRAMES_AHEAD } else { 1 };
            let count = self.read_frames(most, &mut taken)?;
            if count == 0 {
                return Ok(());
            }
            if count > 1 {
                let frames = self.frames.0[..count].iter().map(Frame::bytes);
                self.parts.node.look_ahead_at(frames);
            }
            for at in 0..count {
                self.take_frame(now, at);
            }
        }
    }

    /// Reads at most this many frames, none after a large one: what is sealed should be what was read
    /// last.
    fn read_frames(&mut self, most: usize, taken: &mut Taken) -> anyhow::Result<usize> {
        let mut count = 0;
        while count < most
            && !taken.is_enough()
            && let Some(queue) = self.rounds.next()
        {
            let frame = &mut self.frames.0[count];
            match self.parts.tun.read(queue, &mut frame.vnet, &mut frame.buffer) {
                Ok(Some(len)) => {
                    frame.len = len;
                    let level = self.parts.node.priority_of(frame.bytes()) as usize;
                    self.rounds.took(queue, len, level);
                    taken.bytes += len;
                    taken.frames += 1;
                    count += 1;
                    if len >= BULKY {
                        break;
                    }
                }
                Ok(None) => self.rounds.found_empty(queue),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBADFD | libc::ENODEV) => {
                        bail!("the TUN device `{}` is gone", self.parts.config.tun.name)
                    }
                    // The interface is down; it says when it is up again.
                    Some(libc::EIO) => self.rounds.found_empty(queue),
                    _ => {
                        taken.frames += 1;
                        self.parts.node.counters_mut().drop(DropReason::Malformed);
                    }
                },
            }
        }
        Ok(count)
    }

    /// Hands a frame to the node.
    fn take_frame(&mut self, now: Instant, at: usize) {
        let len = self.frames.0[at].len;
        // Small packets before it do not wait until all of it is sealed.
        if len >= BULKY && (1..BULKY).contains(&self.unsent) {
            self.parts.node.close_bundles(now, &mut self.out);
            self.send_batch();
        }
        let vnet = match self.frames.0[at].vnet.parse() {
            Ok(vnet) => vnet,
            Err(reason) => return self.parts.node.counters_mut().drop(reason),
        };
        let bytes = &mut self.frames.0[at].buffer[..len];
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
