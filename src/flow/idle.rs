//! How long a flow may be silent before it is forgotten.

use std::time::Duration;

use super::Direction;
use crate::packet::{protocol, tcp_flag};

/// Idle times by protocol and state.
///
/// Nothing is translated here, so forgetting a flow early costs a new choice of path and exit, not
/// a connection; the values are those of the NAT, so that the flow does not end before its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimes {
    /// TCP between handshake and end (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP that is not answered yet, or has ended (RFC 5382 REQ-5).
    pub tcp_transitory: Duration,
    /// UDP with an answer (RFC 4787 REQ-5).
    pub udp: Duration,
    /// UDP without one.
    pub udp_unreplied: Duration,
    /// ICMP (RFC 5508 REQ-2).
    pub icmp: Duration,
    /// All other protocols.
    pub other: Duration,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            udp: Duration::from_secs(5 * 60),
            udp_unreplied: Duration::from_secs(30),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(5 * 60),
        }
    }
}

/// What has been seen of a flow, as far as its idle time depends on it. TCP is followed only by its
/// flags: a wrong guess is mended by the next packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    replied: bool,
    fin_forward: bool,
    fin_reply: bool,
    reset: bool,
}

impl Progress {
    /// True when a packet of the other direction was seen.
    pub(super) fn is_replied(self) -> bool {
        self.replied
    }

    /// Takes note of a packet; `flags` is zero for all but TCP.
    pub(super) fn note(&mut self, direction: Direction, flags: u8) {
        let begins = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        if begins && direction == Direction::Forward && self.is_closed() {
            *self = Self::default();
        }
        match direction {
            Direction::Forward => self.fin_forward |= flags & tcp_flag::FIN != 0,
            Direction::Reply => {
                self.replied = true;
                self.fin_reply |= flags & tcp_flag::FIN != 0;
            }
        }
        self.reset |= flags & tcp_flag::RST != 0;
    }

    fn is_closed(self) -> bool {
        self.reset || self.fin_forward && self.fin_reply
    }

    pub(super) fn idle_time(self, protocol: u8, times: &IdleTimes) -> Duration {
        match protocol {
            protocol::TCP if self.replied && !self.is_closed() => times.tcp_established,
            protocol::TCP => times.tcp_transitory,
            protocol::UDP | protocol::UDP_LITE if self.replied => times.udp,
            protocol::UDP | protocol::UDP_LITE => times.udp_unreplied,
            protocol::ICMP | protocol::ICMPV6 => times.icmp,
            _ => times.other,
        }
    }
}
