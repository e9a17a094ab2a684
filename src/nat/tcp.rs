//! The state of a TCP session, after RFC 6146 section 3.5.2 with the amendments of RFC 7857.
//!
//! The NAT looks at flags only, never at sequence numbers. Where a forged packet could do harm, the
//! state moves so that the worst is a shorter timer, which the next packet from inside mends.

use crate::packet::tcp_flag::{ACK, FIN, RST, SYN};

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcpState {
    /// The inside sent a SYN.
    OutInit,
    /// The outside sent a SYN.
    InInit,
    /// Both did.
    Established,
    /// The inside has sent a FIN.
    FinOut,
    /// The outside has sent a FIN.
    FinIn,
    /// Both have.
    FinBoth,
    /// One side has sent an RST.
    Reset,
}

impl TcpState {
    /// The state of a new session for its first packet; `None` when that cannot begin one.
    pub(super) fn first(side: Side, flags: u8) -> Option<Self> {
        if flags & (SYN | ACK | RST) != SYN {
            return None;
        }
        Some(match side {
            Side::Inside => Self::OutInit,
            Side::Outside => Self::InInit,
        })
    }

    /// True when the long timer applies.
    pub(super) fn is_established(self) -> bool {
        matches!(self, Self::Established | Self::FinOut | Self::FinIn)
    }

    /// True when the timer of connections under way applies.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, Self::OutInit | Self::InInit)
    }

    /// The state after a packet, and whether the timer starts anew.
    pub(super) fn after(self, side: Side, flags: u8) -> (Self, bool) {
        let inside = side == Side::Inside;
        let begins = flags & (SYN | ACK) == SYN;
        if flags & RST != 0 {
            return if self.is_established() { (Self::Reset, true) } else { (self, false) };
        }
        match self {
            Self::OutInit if flags & SYN != 0 && !inside => (Self::Established, true),
            Self::InInit if flags & SYN != 0 && inside => (Self::Established, true),
            Self::OutInit => (self, inside && begins),
            // Whoever knocks from outside cannot keep the session by knocking.
            Self::InInit => (self, false),
            Self::Established if flags & FIN != 0 => {
                (if inside { Self::FinOut } else { Self::FinIn }, true)
            }
            Self::FinOut if flags & FIN != 0 && !inside => (Self::FinBoth, true),
            Self::FinIn if flags & FIN != 0 && inside => (Self::FinBoth, true),
            Self::Established | Self::FinOut | Self::FinIn => (self, true),
            // A new connection over the same five-tuple.
            Self::FinBoth | Self::Reset if begins => {
                if inside {
                    (Self::OutInit, true)
                } else {
                    (Self::InInit, false)
                }
            }
            Self::FinBoth => (self, false),
            // The RST was not accepted: the inside goes on.
            Self::Reset if inside => (Self::Established, true),
            Self::Reset => (self, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Side::{Inside, Outside};
    use super::*;

    fn run(packets: &[(Side, u8)]) -> TcpState {
        let (side, flags) = packets[0];
        let first = TcpState::first(side, flags).unwrap();
        packets[1..].iter().fold(first, |state, &(side, flags)| state.after(side, flags).0)
    }

    #[test]
    fn only_a_syn_begins_a_session() {
        for flags in [0, ACK, SYN | ACK, SYN | RST, FIN, FIN | ACK, RST] {
            assert_eq!(TcpState::first(Inside, flags), None);
        }
        assert_eq!(TcpState::first(Inside, SYN), Some(TcpState::OutInit));
        assert_eq!(TcpState::first(Outside, SYN), Some(TcpState::InInit));
    }

    #[test]
    fn handshakes_establish_from_either_side_and_at_once() {
        assert_eq!(run(&[(Inside, SYN), (Outside, SYN | ACK)]), TcpState::Established);
        assert_eq!(run(&[(Outside, SYN), (Inside, SYN | ACK)]), TcpState::Established);
        assert_eq!(run(&[(Inside, SYN), (Outside, SYN)]), TcpState::Established);
        assert_eq!(run(&[(Inside, SYN), (Outside, ACK), (Inside, ACK)]), TcpState::OutInit);
    }

    #[test]
    fn both_ends_must_close() {
        let open = [(Inside, SYN), (Outside, SYN | ACK)];
        let with = |more: &[(Side, u8)]| run(&[&open[..], more].concat());
        assert_eq!(with(&[(Inside, FIN | ACK), (Inside, FIN | ACK)]), TcpState::FinOut);
        assert_eq!(with(&[(Outside, FIN | ACK), (Inside, ACK)]), TcpState::FinIn);
        assert_eq!(with(&[(Outside, FIN), (Inside, FIN)]), TcpState::FinBoth);
        assert_eq!(with(&[(Inside, FIN), (Outside, FIN), (Inside, ACK)]), TcpState::FinBoth);
        assert_eq!(with(&[(Inside, FIN), (Outside, FIN), (Inside, SYN)]), TcpState::OutInit);
    }

    #[test]
    fn a_reset_shortens_and_only_the_inside_takes_it_back() {
        let reset = [(Inside, SYN), (Outside, SYN | ACK), (Outside, RST)];
        let with = |more: &[(Side, u8)]| run(&[&reset[..], more].concat());
        assert_eq!(with(&[]), TcpState::Reset);
        assert_eq!(with(&[(Outside, ACK)]), TcpState::Reset);
        assert_eq!(with(&[(Inside, RST)]), TcpState::Reset);
        assert_eq!(with(&[(Inside, ACK)]), TcpState::Established);
        assert_eq!(with(&[(Inside, SYN)]), TcpState::OutInit);
        assert_eq!(TcpState::Reset.after(Outside, RST), (TcpState::Reset, false));
    }

    #[test]
    fn the_outside_cannot_prolong_what_is_not_established() {
        for state in [TcpState::OutInit, TcpState::InInit, TcpState::FinBoth, TcpState::Reset] {
            for flags in 0..=0x3f {
                let (after, refreshed) = state.after(Outside, flags);
                assert!(!refreshed || after == TcpState::Established && flags & SYN != 0);
            }
        }
    }
}
