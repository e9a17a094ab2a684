//! Unsolicited SYNs: whoever gets in by none is told so, but not before six seconds have passed, in
//! which the host inside may call the same remote end itself (simultaneous open, RFC 5382 REQ-4).

use std::collections::VecDeque;
use std::time::Duration;

use super::end::{End, narrow};
use super::translate::ends;
use crate::packet::{Headers, icmp, protocol, tcp_flag};
use crate::time::Instant;

/// SYNs that wait; further ones are never answered.
const WAITING_MAX: usize = 128;
/// Of one remote address.
const SHARE: usize = 8;
const DELAY: Duration = Duration::from_secs(6);
/// Longest IPv4 and TCP headers, or IPv6 with the start of TCP: what an error quotes.
const QUOTE_MAX: usize = 120;

#[derive(Clone, Copy, Debug)]
struct Knock {
    until: Instant,
    outside: End,
    remote: End,
    len: usize,
    quote: [u8; QUOTE_MAX],
}

#[derive(Debug)]
pub(super) struct Knocks {
    /// In the order of their times.
    waiting: VecDeque<Knock>,
    wanted: bool,
}

impl Knocks {
    pub(super) fn new(wanted: bool) -> Self {
        let places = if wanted { WAITING_MAX } else { 0 };
        Self { waiting: VecDeque::with_capacity(places), wanted }
    }

    /// A packet from outside that was refused: remembers it if it is a SYN.
    pub(super) fn note(&mut self, now: Instant, frame: &[u8], headers: &Headers) {
        let begins = headers.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST);
        if !self.wanted || headers.protocol != protocol::TCP || begins != tcp_flag::SYN {
            return;
        }
        let (remote, outside) = ends(headers);
        let same_remote = |knock: &&Knock| knock.remote.address == remote.address;
        let known = |knock: &Knock| knock.remote == remote && knock.outside == outside;
        if self.waiting.len() >= WAITING_MAX
            || self.waiting.iter().any(known)
            || self.waiting.iter().filter(same_remote).count() >= SHARE
        {
            return;
        }
        let end = frame.len().min(headers.total_len as usize).min(QUOTE_MAX);
        let mut quote = [0; QUOTE_MAX];
        quote[..end].copy_from_slice(&frame[..end]);
        self.waiting.push_back(Knock { until: now + DELAY, outside, remote, len: end, quote });
    }

    /// The inside calls the remote end itself: then its SYN is not unsolicited any more.
    pub(super) fn answered(&mut self, outside: End, remote: End) {
        if !self.waiting.is_empty() {
            self.waiting.retain(|knock| knock.outside != outside || knock.remote != remote);
        }
    }

    /// Writes "port unreachable" about the oldest one whose time has come.
    pub(super) fn take_answer(&mut self, now: Instant, out: &mut [u8]) -> usize {
        while let Some(knock) = self.waiting.pop_front_if(|knock| knock.until <= now) {
            let quote = &knock.quote[..knock.len];
            let Ok(headers) = Headers::parse_quoted(quote) else { continue };
            let source = narrow(knock.outside.address);
            let error = icmp::Error::PortUnreachable;
            let len = icmp::write_error(out, error, source, quote, &headers);
            if len > 0 {
                return len;
            }
        }
        0
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|knock| knock.until)
    }
}
