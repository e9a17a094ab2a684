//! A connection of two hosts, and what its user would tell of it.

use std::time::Duration;

use super::receiver::Receiver;
use super::segment::{self, MSS, Segment};
use super::sender::Sender;
use crate::packet::tcp_flag;
use crate::sim::NodeNumber;
use crate::sim::host::Endpoint;
use crate::time::Instant;

/// A silence as long as this is a stall.
const STALL: Duration = Duration::from_secs(1);
/// Packets of a host that its gateway reads in one turn.
const BURST: usize = 64;

/// A host: behind which node, and its address and port.
pub(super) type Host = (NodeNumber, Endpoint);

/// What the receiving user saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experience {
    /// Bytes that came, in order.
    pub bytes: u64,
    /// Silences of a second or more while there was something to send.
    pub stalls: u64,
    /// All of them together.
    pub stalled: Duration,
    /// The longest silence.
    pub longest: Duration,
    /// Times when the sender's timer ran out.
    pub timeouts: u64,
    /// Segments that were sent again.
    pub repeated: u64,
}

/// The sender is the client; it opens the connection.
#[derive(Debug)]
pub struct Connection {
    client: Host,
    server: Host,
    key: u64,
    sender: Sender,
    receiver: Receiver,
    /// The client knows that the server is there.
    is_open: bool,
    /// What the user writes: bits per second, and bytes in all.
    rate_bps: Option<u64>,
    limit: u64,
    start: Instant,
    /// When the last byte came in order.
    progress: Instant,
    seen: Experience,
    /// Bytes that came in each second.
    seconds: Vec<u64>,
    out: Vec<(NodeNumber, Vec<u8>)>,
}

impl Connection {
    /// Calls the server at once. `rate_bps` is what the user writes, without limit when absent, and
    /// `limit` how many bytes in all.
    pub fn new(
        now: Instant,
        client: Host,
        server: Host,
        rate_bps: Option<u64>,
        limit: Option<u64>,
    ) -> Self {
        let key = u64::from(client.1.1) << 32 ^ u64::from(server.1.1) << 8 ^ client.0 as u64;
        let mut connection = Self {
            client,
            server,
            key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            sender: Sender::new(),
            receiver: Receiver::default(),
            is_open: false,
            rate_bps,
            limit: limit.unwrap_or(u64::MAX),
            start: now,
            progress: now,
            seen: Experience::default(),
            seconds: Vec::new(),
            out: Vec::new(),
        };
        connection.call();
        connection.sender.arm(now);
        connection
    }

    /// The two nodes, the sender's first.
    pub const fn nodes(&self) -> (NodeNumber, NodeNumber) {
        (self.client.0, self.server.0)
    }

    /// What the user wrote so far.
    fn written(&self, now: Instant) -> u64 {
        let rate = self.rate_bps.map_or(u64::MAX, |rate| {
            // Whole segments, but for the last one.
            let bytes = ((now - self.start).as_micros() * u128::from(rate) / 8_000_000) as u64;
            bytes / self.sender.mss() * self.sender.mss()
        });
        rate.min(self.limit)
    }

    /// When a user of this rate has written the segment with this byte.
    fn written_at(&self, byte: u64, rate_bps: u64) -> Instant {
        let bytes = (byte / self.sender.mss() + 1) * self.sender.mss();
        let micros = (u128::from(bytes) * 8_000_000).div_ceil(u128::from(rate_bps.max(1)));
        self.start + Duration::from_micros(micros as u64)
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let more = self.rate_bps.filter(|_| self.is_open && self.sender.has_room());
        let more = more
            .filter(|_| self.sender.next() < self.limit)
            .map(|rate| self.written_at(self.sender.next(), rate));
        [self.sender.deadline(), more].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Instant) {
        if self.sender.deadline().is_some_and(|at| at <= now) {
            if self.is_open {
                self.sender.on_timeout(now);
            } else {
                self.call();
                self.sender.back_off(now);
            }
        }
        self.fill(now, Vec::new());
    }

    /// A packet came out of a node's TUN. True when it is of this connection; an error when it is
    /// not what the other side sent.
    pub fn on_packet(
        &mut self,
        now: Instant,
        node: NodeNumber,
        packet: &[u8],
    ) -> Result<bool, &'static str> {
        let Some(segment) = Segment::parse(packet)? else { return Ok(false) };
        let ends = (segment.from, segment.to);
        if ends == (self.client.1, self.server.1) {
            if node != self.server.0 {
                return Err("went astray");
            }
            self.at_server(now, &segment)?;
        } else if ends == (self.server.1, self.client.1) {
            if node != self.client.0 {
                return Err("went astray");
            }
            self.at_client(now, &segment);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn at_server(&mut self, now: Instant, segment: &Segment) -> Result<(), &'static str> {
        if segment.is_syn() {
            self.answer(tcp_flag::SYN | tcp_flag::ACK, Some(MSS));
            return Ok(());
        }
        if segment.payload.is_empty() {
            return Ok(());
        }
        let before = self.receiver.next();
        let (seq, fresh) = (segment.seq.wrapping_sub(1), self.sender.fresh());
        self.receiver.take(self.key, seq, &segment.payload, fresh)?;
        let came = self.receiver.next() - before;
        if came > 0 {
            self.note_silence(now, before);
            self.progress = now;
            self.seen.bytes += came;
            let second = (now - self.start).as_secs() as usize;
            self.seconds.resize(self.seconds.len().max(second + 1), 0);
            self.seconds[second] += came;
        }
        self.answer(tcp_flag::ACK, None);
        Ok(())
    }

    fn at_client(&mut self, now: Instant, segment: &Segment) {
        let mut ranges = Vec::new();
        if segment.is_syn() {
            if !self.is_open {
                self.is_open = true;
                self.sender.begin(segment.mss.unwrap_or(536));
            }
        } else if self.is_open {
            let ack = segment::near(self.sender.acknowledged(), segment.ack.wrapping_sub(1));
            self.sender.on_ack(now, ack, &mut ranges);
        }
        self.fill(now, ranges);
    }

    /// Sends the ranges, and what the window lets through.
    fn fill(&mut self, now: Instant, mut ranges: Vec<std::ops::Range<u64>>) {
        if self.is_open {
            self.sender.send(now, self.written(now), &mut ranges);
        }
        for range in ranges {
            let ends = (self.client.1, self.server.1);
            let segment = Segment {
                from: ends.0,
                to: ends.1,
                seq: (range.start + 1) as u32,
                ack: 1,
                flags: tcp_flag::ACK,
                mss: None,
                payload: segment::bytes(self.key, range),
            };
            self.out.push((self.client.0, segment.emit()));
        }
    }

    fn call(&mut self) {
        let segment = Segment {
            from: self.client.1,
            to: self.server.1,
            seq: 0,
            ack: 0,
            flags: tcp_flag::SYN,
            mss: Some(MSS),
            payload: Vec::new(),
        };
        self.out.push((self.client.0, segment.emit()));
    }

    fn answer(&mut self, flags: u8, mss: Option<u16>) {
        let segment = Segment {
            from: self.server.1,
            to: self.client.1,
            seq: u32::from(mss.is_none()),
            ack: (self.receiver.next() + 1) as u32,
            flags,
            mss,
            payload: Vec::new(),
        };
        self.out.push((self.server.0, segment.emit()));
    }

    /// The packets that are to be handed to nodes, at most as many as one reads in a turn.
    pub fn take_packets(&mut self) -> Vec<(NodeNumber, Vec<u8>)> {
        let many = self.out.len().min(BURST);
        self.out.drain(..many).collect()
    }

    /// The user waited for this byte, from when it was written.
    fn note_silence(&mut self, now: Instant, awaited: u64) {
        let written = self.rate_bps.map_or(self.start, |rate| self.written_at(awaited, rate));
        let silence = now - self.progress.max(written);
        self.seen.longest = self.seen.longest.max(silence);
        if silence >= STALL {
            self.seen.stalls += 1;
            self.seen.stalled += silence;
        }
    }

    /// True when everything that was to be sent came.
    pub fn is_done(&self) -> bool {
        self.receiver.next() >= self.limit
    }

    /// What there is to tell at the end.
    pub fn finish(&mut self, now: Instant) -> Experience {
        let awaited = self.receiver.next();
        if awaited < self.written(now) {
            self.note_silence(now, awaited);
            self.progress = now;
        }
        Experience {
            timeouts: self.sender.timeouts,
            repeated: self.sender.repeated,
            ..self.seen.clone()
        }
    }

    /// Bytes that came in each second since the beginning.
    pub fn seconds(&self) -> &[u64] {
        &self.seconds
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const DELAY: Duration = Duration::from_millis(10);

    /// What the user of a connection sees whose packets all get lost while `is_cut`.
    fn seen(
        rate_bps: Option<u64>,
        limit: Option<u64>,
        millis: u64,
        is_cut: impl Fn(Duration) -> bool,
    ) -> Experience {
        let start = Instant::from_micros(5_000_000);
        let end = start + Duration::from_millis(millis);
        let [client, server] = [0_u8, 1].map(|site| (usize::from(site), ([10, 0, site, 5], 80)));
        let [client, server] = [client, server].map(|(node, end)| (node, (end.0.into(), end.1)));
        let mut connection = Connection::new(start, client, server, rate_bps, limit);
        let (mut now, mut flying) = (start, VecDeque::new());
        loop {
            for (from, packet) in connection.take_packets() {
                if !is_cut(now - start) {
                    flying.push_back((now + DELAY, 1 - from, packet));
                }
            }
            let arrival = flying.front().map(|(at, ..)| *at);
            let next = [arrival, connection.deadline()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            now = next;
            if let Some((_, to, packet)) = flying.pop_front_if(|(at, ..)| *at <= now) {
                assert_eq!(connection.on_packet(now, to, &packet), Ok(true));
            }
            if connection.deadline().is_some_and(|at| at <= now) {
                connection.on_time(now);
            }
        }
        connection.finish(end)
    }

    #[test]
    fn it_is_no_stall_when_the_user_writes_nothing() {
        // A segment every 1.34 s, and a second and more after the last one.
        let slow = seen(Some(8_000), None, 61_500, |_| false);
        assert_eq!((slow.bytes, slow.stalls), (45 * 1_340, 0), "{slow:?}");
        assert!(slow.longest <= 2 * DELAY, "{slow:?}");
        let done = seen(None, Some(20_000), 60_000, |_| false);
        assert_eq!((done.bytes, done.stalls), (20_000, 0), "{done:?}");
    }

    #[test]
    fn a_slow_user_waits_from_when_something_was_written() {
        let cut = |at: Duration| (10..20).contains(&at.as_secs());
        let seen_over = |millis| seen(Some(8_000), None, millis, cut);
        // Written at 10.72 s; its repetition after 12.6 s is the first one that passes.
        let whole = seen_over(60_000);
        assert_eq!((whole.stalls, whole.stalled), (1, whole.longest), "{whole:?}");
        assert!((12_500..12_700).contains(&whole.longest.as_millis()), "{whole:?}");
        let unfinished = seen_over(18_720);
        assert_eq!((unfinished.stalls, unfinished.longest.as_millis()), (1, 8_000));
    }
}
