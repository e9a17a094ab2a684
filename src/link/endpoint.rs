//! Where a link's far end is, and how it may move.
//!
//! A new source address of an authentic datagram is only a candidate: whoever sits on the way can
//! copy a datagram and send it from anywhere. Old and new address are challenged; the link moves
//! when the new one answers, and moves back when the old one answers after all, because then nobody
//! had moved (RFC 9000 sections 8.2 and 9.3, adapted). Until it answers, a candidate gets at most
//! three times the bytes that came from it, two of them by challenges.

use std::net::SocketAddr;
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Instant;

/// Challenges sent to a candidate before it is given up.
const ATTEMPTS: u8 = 3;
/// Time between challenges; doubles.
const RETRY: Duration = Duration::from_millis(250);
/// How long an answer from the old address still undoes a move.
const UNDO_WINDOW: Duration = Duration::from_secs(1);
/// Of the three times the received bytes that may go to an unproven address (RFC 9000 section 8.1)
/// challenges take two; answers to what came from there take the third.
const AMPLIFICATION: u64 = 2;

/// The far end of one link.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    configured: Option<SocketAddr>,
    current: Option<SocketAddr>,
    // Both are rare, and there are as many of these as paths.
    candidate: Option<Box<Candidate>>,
    moved: Option<Box<Moved>>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: SocketAddr,
    token: u64,
    attempts: u8,
    due: Instant,
    /// Whether something came from there; else it is a guess.
    heard: bool,
    received: u64,
    sent: u64,
}

#[derive(Clone, Copy, Debug)]
struct Moved {
    from: SocketAddr,
    token: u64,
    until: Instant,
}

/// A challenge to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The candidate.
    pub new: SocketAddr,
    /// The address in use, challenged too.
    pub old: Option<SocketAddr>,
    /// To be echoed.
    pub token: u64,
}

impl Endpoint {
    /// A far end at the configured address, or one that has to call first.
    pub const fn new(configured: Option<SocketAddr>) -> Self {
        Self { configured, current: configured, candidate: None, moved: None }
    }

    /// Where to send.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.current
    }

    /// The configured address, when the far end has moved away from it. Who cannot be called at
    /// its last address may have gone back there.
    pub fn home(&self) -> Option<SocketAddr> {
        self.configured.filter(|_| self.current != self.configured)
    }

    /// The far end is silent: when it has moved away from where it is by configuration, it is
    /// challenged there too. That address is the operator's word, so no allowance limits it.
    pub fn call_home(&mut self, now: Instant, rng: &mut Rng) {
        if self.candidate.is_none()
            && let Some(address) = self.home()
        {
            self.candidate = Some(Box::new(Candidate {
                address,
                token: rng.next_u64(),
                attempts: 0,
                due: now,
                heard: false,
                received: u64::from(u32::MAX),
                sent: 0,
            }));
        }
    }

    /// An authentic datagram of `bytes` came from `source`.
    pub fn on_authentic(&mut self, now: Instant, source: SocketAddr, bytes: usize, rng: &mut Rng) {
        if self.current == Some(source) {
            return;
        }
        match &mut self.candidate {
            Some(candidate) if candidate.address == source => {
                candidate.received = candidate.received.saturating_add(bytes as u64);
            }
            Some(candidate) if candidate.heard => {}
            _ => {
                let held = self.moved.as_ref().is_some_and(|m| m.from == source && now < m.until);
                if !held {
                    self.candidate = Some(Box::new(Candidate {
                        address: source,
                        token: rng.next_u64(),
                        attempts: 0,
                        due: now,
                        heard: true,
                        received: bytes as u64,
                        sent: 0,
                    }));
                }
            }
        }
    }

    /// The next challenge that is due; each costs `bytes` towards the candidate's allowance.
    pub fn poll_challenge(&mut self, now: Instant, bytes: usize) -> Option<Challenge> {
        let candidate = self.candidate.as_mut()?;
        if now < candidate.due {
            return None;
        }
        if candidate.attempts >= ATTEMPTS {
            self.candidate = None;
            return None;
        }
        candidate.due = now + RETRY * (1 << candidate.attempts);
        candidate.attempts += 1;
        if candidate.sent + bytes as u64 > AMPLIFICATION * candidate.received {
            return None;
        }
        candidate.sent += bytes as u64;
        Some(Challenge { new: candidate.address, old: self.current, token: candidate.token })
    }

    /// A challenge's answer came from `source`. True when the link moved.
    pub fn on_response(&mut self, now: Instant, source: SocketAddr, token: u64) -> bool {
        if let Some(moved) = &self.moved
            && moved.token == token
            && moved.from == source
            && now < moved.until
        {
            self.current = Some(source);
            self.moved = None;
            return true;
        }
        let Some(candidate) = self.candidate.as_deref().copied() else { return false };
        if candidate.token != token {
            return false;
        }
        if Some(source) == self.current {
            self.candidate = None;
            return false;
        }
        if source != candidate.address {
            return false;
        }
        let undo = |from| Box::new(Moved { from, token, until: now + UNDO_WINDOW });
        self.moved = self.current.map(undo);
        self.current = Some(source);
        self.candidate = None;
        true
    }

    /// When [`Self::poll_challenge`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.candidate.as_ref().map(|candidate| candidate.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn who_is_heard_elsewhere_is_no_longer_sought_at_home() {
        let mut rng = Rng::new([1; 32]);
        let mut endpoint = Endpoint::new(Some(address(1)));
        endpoint.current = Some(address(2));
        endpoint.call_home(NOW, &mut rng);
        endpoint.on_authentic(NOW, address(3), 1_000, &mut rng);
        assert_eq!(endpoint.poll_challenge(NOW, 27).map(|sent| sent.new), Some(address(3)));
        endpoint.on_authentic(NOW, address(4), 1_000, &mut rng);
        let later = NOW + RETRY;
        assert_eq!(endpoint.poll_challenge(later, 27).map(|sent| sent.new), Some(address(3)));
    }

    #[test]
    fn who_moved_is_also_known_by_its_configured_address() {
        let mut endpoint = Endpoint::new(Some(address(1)));
        assert_eq!(endpoint.home(), None);
        endpoint.current = Some(address(2));
        assert_eq!(endpoint.home(), Some(address(1)));
        assert_eq!(Endpoint { current: Some(address(2)), ..Endpoint::new(None) }.home(), None);
        let mut rng = Rng::new([1; 32]);
        endpoint.call_home(NOW, &mut rng);
        let challenge = endpoint.poll_challenge(NOW, 27).unwrap();
        assert_eq!((challenge.new, challenge.old), (address(1), Some(address(2))));
        assert!(endpoint.on_response(NOW, address(1), challenge.token));
        endpoint.call_home(NOW, &mut rng);
        assert_eq!(endpoint.poll_challenge(NOW, 27), None);
    }

    fn moving() -> (Endpoint, Challenge) {
        let mut endpoint = Endpoint::new(Some(address(1)));
        endpoint.on_authentic(NOW, address(2), 100, &mut Rng::new([0; 32]));
        let challenge = endpoint.poll_challenge(NOW, 60).unwrap();
        (endpoint, challenge)
    }

    #[test]
    fn moves_only_when_the_new_address_answers() {
        let (mut endpoint, challenge) = moving();
        assert_eq!((challenge.new, challenge.old), (address(2), Some(address(1))));
        assert_eq!(endpoint.address(), Some(address(1)));
        assert!(!endpoint.on_response(NOW, address(2), challenge.token ^ 1));
        assert!(!endpoint.on_response(NOW, address(3), challenge.token));
        assert!(endpoint.on_response(NOW, address(2), challenge.token));
        assert_eq!(endpoint.address(), Some(address(2)));
    }

    #[test]
    fn an_answer_from_the_old_address_ends_or_undoes_the_move() {
        let (mut endpoint, challenge) = moving();
        assert!(!endpoint.on_response(NOW, address(1), challenge.token));
        assert_eq!(endpoint.poll_timeout(), None);

        let (mut endpoint, challenge) = moving();
        assert!(endpoint.on_response(NOW, address(2), challenge.token));
        assert!(endpoint.on_response(NOW, address(1), challenge.token));
        assert_eq!(endpoint.address(), Some(address(1)));
    }

    #[test]
    fn a_silent_candidate_is_given_up_and_never_amplified() {
        let (mut endpoint, _) = moving();
        let (mut now, mut sent) = (NOW, 60);
        while let Some(due) = endpoint.poll_timeout() {
            now = due;
            if endpoint.poll_challenge(now, 150).is_some() {
                sent += 150;
            }
        }
        assert!(sent <= 300, "{sent}");
        assert!(now - NOW < Duration::from_secs(3));
        assert_eq!(endpoint.address(), Some(address(1)));
    }

    #[test]
    fn a_peer_without_configured_endpoint_is_learned() {
        let mut endpoint = Endpoint::new(None);
        endpoint.on_authentic(NOW, address(7), 100, &mut Rng::new([0; 32]));
        let challenge = endpoint.poll_challenge(NOW, 60).unwrap();
        assert_eq!(challenge.old, None);
        assert!(endpoint.on_response(NOW, address(7), challenge.token));
        assert_eq!(endpoint.address(), Some(address(7)));
    }
}
