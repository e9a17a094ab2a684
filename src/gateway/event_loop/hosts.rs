//! What hosts sent: from the TUN's queues to the node, a frame at a time, unless the NAT has so many
//! mappings that it saves time to look at some frames before.

use anyhow::bail;
use bytes::BytesMut;

use super::rounds::Rounds;
use super::sends::send_all;
use super::{EventLoop, TURN_BYTES};
use crate::batch::buffers;
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
    buffer: BytesMut,
    vnet: RawVnet,
    len: usize,
}

impl Frame {
    fn new(buffer: BytesMut) -> Self {
        Self { buffer, vnet: RawVnet::default(), len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// The frames that are being handled.
pub(super) struct Frames(Box<[Frame]>);

impl Frames {
    pub(super) fn new() -> Self {
        Self(buffers(FRAMES_AHEAD).map(Frame::new).collect())
    }

    /// Fills at most `most` places, first to last, from the queues whose turn it is; `read` takes a
    /// frame from one. None is read after a large one: what is sealed should be what was read last.
    fn read(
        &mut self,
        rounds: &mut Rounds,
        most: usize,
        taken: &mut Taken,
        mut read: impl FnMut(usize, &mut Frame) -> anyhow::Result<Got>,
    ) -> anyhow::Result<usize> {
        let mut count = 0;
        while count < most.min(self.0.len())
            && !taken.is_enough()
            && let Some(queue) = rounds.next()
        {
            let frame = &mut self.0[count];
            match read(queue, frame)? {
                Got::Frame { level } => {
                    rounds.took(queue, frame.len, level);
                    taken.bytes += frame.len;
                    taken.frames += 1;
                    count += 1;
                    if frame.len >= BULKY {
                        break;
                    }
                }
                Got::Nothing => rounds.found_empty(queue),
                Got::Malformed => taken.frames += 1,
            }
        }
        Ok(count)
    }
}

/// What a queue gave.
enum Got {
    /// A frame of this priority.
    Frame { level: usize },
    /// None waits.
    Nothing,
    /// One that is none.
    Malformed,
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

    /// Reads at most this many frames.
    fn read_frames(&mut self, most: usize, taken: &mut Taken) -> anyhow::Result<usize> {
        let parts = &mut self.parts;
        self.frames.read(&mut self.rounds, most, taken, |queue, frame| {
            match parts.tun.read(queue, &mut frame.vnet, &mut frame.buffer) {
                Ok(Some(len)) => {
                    frame.len = len;
                    Ok(Got::Frame { level: parts.node.priority_of(frame.bytes()) as usize })
                }
                Ok(None) => Ok(Got::Nothing),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBADFD | libc::ENODEV) => {
                        bail!("the TUN device `{}` is gone", parts.config.tun.name)
                    }
                    // The interface is down; it says when it is up again.
                    Some(libc::EIO) => Ok(Got::Nothing),
                    _ => {
                        parts.node.counters_mut().drop(DropReason::Malformed);
                        Ok(Got::Malformed)
                    }
                },
            }
        })
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::rng::Rng;

    const QUEUES: usize = 5;

    /// The kernel's queues: of each frame its length, its place among those of its queue, and its
    /// priority. A length of zero is no frame.
    type Kernel = [VecDeque<(usize, u32, usize)>; QUEUES];

    fn read(kernel: &mut Kernel, queue: usize, frame: &mut Frame) -> Got {
        let Some((len, number, level)) = kernel[queue].pop_front() else { return Got::Nothing };
        if len == 0 {
            return Got::Malformed;
        }
        frame.len = len;
        frame.buffer[..8]
            .copy_from_slice(&[(queue as u32).to_be_bytes(), number.to_be_bytes()].concat());
        Got::Frame { level }
    }

    #[test]
    fn frames_read_ahead_are_handled_once_and_in_the_order_of_their_queue() {
        let mut rng = Rng::new([5; 32]);
        let mut kernel: Kernel = Default::default();
        let mut rounds = Rounds::new(QUEUES);
        let mut frames = Frames::new();
        let (mut put, mut handled) = ([0; QUEUES], [0; QUEUES]);
        let (mut most_ahead, mut lost) = (0, 0);
        for turn in 0..2_000 {
            for _ in 0..rng.below(40) {
                let queue = rng.below(QUEUES as u32) as usize;
                let len = [0, 60, 100, 1_400, 60_000][rng.below(5) as usize];
                kernel[queue].push_back((len, put[queue], rng.below(3) as usize));
                put[queue] += 1;
                rounds.mark(queue);
            }
            let mut taken = Taken::default();
            loop {
                let most = if turn % 3 == 0 { 1 } else { FRAMES_AHEAD };
                let got = |queue, frame: &mut Frame| Ok(read(&mut kernel, queue, frame));
                let count = frames.read(&mut rounds, most, &mut taken, got).unwrap();
                if count == 0 {
                    break;
                }
                most_ahead = most_ahead.max(count);
                for (at, frame) in frames.0[..count].iter().enumerate() {
                    let word =
                        |at: usize| u32::from_be_bytes(*frame.buffer[at..].first_chunk().unwrap());
                    let (queue, number) = (word(0) as usize, word(4));
                    assert!(number >= handled[queue], "{number} of {queue} in turn {turn}");
                    // What is left out is what was no frame.
                    lost += number - handled[queue];
                    handled[queue] = number + 1;
                    assert!(frame.len < BULKY || at + 1 == count, "read after a large one");
                }
            }
            assert!(taken.bytes < TURN_BYTES + 60_000 && taken.frames <= TURN_FRAMES);
        }
        assert_eq!(most_ahead, FRAMES_AHEAD);
        let (put, handled): (u32, u32) = (put.iter().sum(), handled.iter().sum());
        assert!(handled > 10_000 && lost * 4 < put, "{handled} of {put}, {lost} lost");
    }
}
