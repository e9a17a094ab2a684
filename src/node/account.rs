//! What the overlay was worth to each peer's traffic: the outages of the direct path that it crossed
//! (availability), and what the direct path would have given (regret).

use std::time::Duration;

use super::Node;
use crate::id::PeerIndex;
use crate::metric::{LinkReport, Liveness, Metric};
use crate::path::Path;
use crate::time::Instant;

/// How long something took, over all times it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// How often.
    pub count: u64,
    /// In all.
    pub sum: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Spans {
    fn add(&mut self, span: Duration) {
        self.count += 1;
        self.sum += span;
        self.longest = self.longest.max(span);
    }
}

/// The outages of the direct path to one peer, and how long there was no path at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// Outages of the direct path that began; those of before the first contact do not count.
    pub outages: u64,
    /// Of those that ended, those during which another path served all the time from the moment that
    /// the outage was known.
    pub avoided: u64,
    /// Of those that ended, those without any path because a last hop had failed: ours to everybody,
    /// or everybody's to the peer.
    pub unavoidable: u64,
    /// The others that ended: there was no path for a while, but not for want of a last hop.
    pub unavoided: u64,
    /// From the last sign of life of the direct path until it was suspected.
    pub detection: Spans,
    /// From the last sign of life of the direct path until packets took another one.
    pub recovery: Spans,
    /// Since the first contact.
    pub observed: Duration,
    /// Of that, without any path.
    pub unreachable: Duration,
    /// Of that, without the direct path.
    pub direct_down: Duration,
    /// An outage goes on.
    pub ongoing: bool,
}

/// What packets to one peer gained or lost by not going directly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regret {
    /// Packets that went directly.
    pub direct: u64,
    /// Packets that went through relays.
    pub relayed: u64,
    /// Of these, packets that the direct path would not have carried, for it was down.
    pub rescued: u64,
    /// Round-trip milliseconds that relayed packets saved, each counted.
    pub saved_ms: f64,
    /// Round-trip milliseconds that they lost.
    pub lost_ms: f64,
    /// Packets that would have been lost directly less those lost on the way they took, by the loss
    /// that was measured on both.
    pub losses_avoided: f64,
}

/// The account of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    availability: Availability,
    pub(crate) regret: Regret,
    met: bool,
    settled_at: Option<Instant>,
    was: Sight,
    /// The direct path's last sign of life before it was suspected, and when that was.
    suspicion: Option<(Instant, Instant)>,
    /// When packets took another path in the present suspicion or outage.
    bypassed_at: Option<Instant>,
    /// During the present outage there was no path; and for want of a last hop.
    cut_off: bool,
    last_hop: bool,
}

/// What is seen of a peer at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// Of the direct path.
    pub(crate) direct: Liveness,
    /// When it is last known to have worked in both directions.
    pub(crate) whole: Option<Instant>,
    /// Packets have a path that is not known to be dead.
    pub(crate) reachable: bool,
    /// They have one through a relay.
    pub(crate) relayed: bool,
    /// Nobody reaches the peer, or we reach nobody.
    pub(crate) no_last_hop: bool,
}

impl Account {
    /// Takes note of what is seen now.
    pub(crate) fn observe(&mut self, now: Instant, sight: Sight) {
        let since = self.settled_at.replace(now).map_or(Duration::ZERO, |at| now - at);
        let before = std::mem::replace(&mut self.was, sight);
        if !self.met {
            self.met = sight.reachable && sight.direct == Liveness::Up;
            return;
        }
        let figures = &mut self.availability;
        figures.observed += since;
        if !before.reachable {
            figures.unreachable += since;
        }
        if before.direct == Liveness::Down {
            figures.direct_down += since;
        }
        if sight.direct == Liveness::Up {
            self.end();
            return;
        }
        let (whole, suspected) =
            *self.suspicion.get_or_insert_with(|| (sight.whole.unwrap_or(now).min(now), now));
        let figures = &mut self.availability;
        if sight.relayed && self.bypassed_at.is_none() {
            self.bypassed_at = Some(now);
            if figures.ongoing {
                figures.recovery.add(now - whole);
            }
        }
        if sight.direct == Liveness::Down && !figures.ongoing {
            figures.ongoing = true;
            figures.outages += 1;
            figures.detection.add(suspected - whole);
            if let Some(at) = self.bypassed_at {
                figures.recovery.add(at - whole);
            }
        }
        if figures.ongoing && !sight.reachable {
            self.cut_off = true;
            self.last_hop |= sight.no_last_hop;
        }
    }

    /// The figures up to now, if all is still as it was when it was last looked at.
    pub(crate) fn availability(&self, now: Instant) -> Availability {
        let mut account = *self;
        account.observe(now, self.was);
        account.availability
    }

    /// All is well: nothing but time goes by.
    pub(crate) fn is_calm(&self) -> bool {
        self.met && self.was.reachable && self.was.direct == Liveness::Up
    }

    /// The direct path works.
    fn end(&mut self) {
        let figures = &mut self.availability;
        if std::mem::take(&mut figures.ongoing) {
            match (self.cut_off, self.last_hop) {
                (false, _) => figures.avoided += 1,
                (true, true) => figures.unavoidable += 1,
                (true, false) => figures.unavoided += 1,
            }
        }
        (self.suspicion, self.bypassed_at) = (None, None);
        (self.cut_off, self.last_hop) = (false, false);
    }

    /// Books packets that took a path, given what was measured of it and of the direct one.
    pub(crate) fn book(&mut self, packets: u64, relayed: Option<LinkReport>, direct: LinkReport) {
        let regret = &mut self.regret;
        let Some(used) = relayed else {
            regret.direct += packets;
            return;
        };
        regret.relayed += packets;
        if direct.state == Liveness::Down {
            regret.rescued += packets;
            return;
        }
        let known = |report: LinkReport| report.latency_us != u32::MAX;
        if known(used) && known(direct) {
            let gain_ms = (f64::from(direct.latency_us) - f64::from(used.latency_us)) / 1e3;
            let gain_ms = gain_ms * packets as f64;
            regret.saved_ms += gain_ms.max(0.0);
            regret.lost_ms += (-gain_ms).max(0.0);
        }
        regret.losses_avoided += packets as f64 * (direct.loss.fraction() - used.loss.fraction());
    }
}

impl Node {
    /// Books the packets since the last time, and what is seen of a peer. When nothing changed, it
    /// may as well be done later.
    pub(super) fn keep_account(&mut self, now: Instant, peer: PeerIndex) {
        let direct = self.router.direct_report(peer);
        let sight = self.sight(peer, direct.state);
        let entry = self.peers.aside(peer.usize());
        entry.account.observe(now, sight);
        for state in &mut entry.paths {
            let packets = std::mem::take(&mut state.packets);
            if packets > 0 {
                let used = state.path.relay().map(|_| state.prober.report(now));
                entry.account.book(packets, used, direct);
            }
        }
    }

    fn sight(&self, peer: PeerIndex, direct: Liveness) -> Sight {
        let path = self.router.path(peer, Metric::Latency);
        let entry = &self.peers[peer.usize()];
        let alive = |path| entry.state(path).is_none_or(|s| s.prober.state() != Liveness::Down);
        let reachable = path.is_some_and(alive);
        Sight {
            direct,
            whole: entry.links().filter_map(|(_, state)| state.prober.last_whole()).max(),
            reachable,
            relayed: reachable && path.is_some_and(|path| path.relay().is_some()),
            no_last_hop: !reachable && self.has_no_last_hop(peer),
        }
    }

    /// We reach nobody, or nobody reaches the peer.
    fn has_no_last_hop(&self, peer: PeerIndex) -> bool {
        let mut all = (0..self.peers.len() as u16).map(PeerIndex);
        let mut links = self.router.database().working_links(peer);
        all.all(|other| self.router.path(other, Metric::Latency).is_none())
            || !links.any(|link| link.is_some())
    }

    /// Packets take a path to a peer.
    pub(super) fn count_packets(&mut self, peer: PeerIndex, path: Path, packets: u64) {
        if let Some(state) = self.peers[peer.usize()].state_mut(path) {
            state.packets += packets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Loss;

    const UP: Sight = Sight {
        direct: Liveness::Up,
        whole: None,
        reachable: true,
        relayed: false,
        no_last_hop: false,
    };

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn account(sights: &[(u64, Sight)]) -> Availability {
        let mut account = Account::default();
        for (ms, sight) in sights {
            account.observe(at(*ms), *sight);
        }
        account.availability
    }

    #[test]
    fn an_outage_that_is_got_round_is_avoided_and_timed() {
        let whole = Some(at(1_000));
        let suspect = Sight { direct: Liveness::Suspect, whole, relayed: true, ..UP };
        let down = Sight { direct: Liveness::Down, ..suspect };
        let figures =
            account(&[(0, UP), (1_000, UP), (1_080, suspect), (1_500, down), (9_500, UP)]);
        assert_eq!((figures.outages, figures.avoided), (1, 1));
        assert_eq!(figures.detection.longest, Duration::from_millis(80));
        assert_eq!(figures.recovery.longest, Duration::from_millis(80));
        assert_eq!(figures.direct_down, Duration::from_secs(8));
        assert_eq!(figures.unreachable, Duration::ZERO);
        assert_eq!(figures.observed, Duration::from_millis(9_500));
    }

    #[test]
    fn what_cuts_a_last_hop_is_unavoidable_and_other_cuts_are_not() {
        let down = Sight { direct: Liveness::Down, reachable: false, ..UP };
        let hop = Sight { no_last_hop: true, ..down };
        let around = Sight { direct: Liveness::Down, relayed: true, ..UP };
        let figures = account(&[(0, UP), (10, hop), (2_010, UP), (3_000, down), (3_500, around)]);
        assert_eq!((figures.outages, figures.unavoidable, figures.ongoing), (2, 1, true));
        assert_eq!(figures.unreachable, Duration::from_millis(2_500));
        let figures = account(&[(0, UP), (3_000, down), (3_500, around), (4_000, UP)]);
        assert_eq!((figures.unavoided, figures.recovery.count), (1, 1));
    }

    #[test]
    fn a_suspicion_that_was_wrong_is_no_outage_and_strangers_have_none() {
        let suspect = Sight { direct: Liveness::Suspect, ..UP };
        let detour = Sight { relayed: true, ..suspect };
        let figures = account(&[(0, UP), (10, suspect), (50, detour), (90, UP)]);
        assert_eq!((figures.outages, figures.recovery.count), (0, 0));
        let down = Sight { direct: Liveness::Down, reachable: false, ..UP };
        assert_eq!(account(&[(0, down), (9_000, down)]), Availability::default());
    }

    #[test]
    fn regret_is_what_the_direct_path_would_have_given() {
        let report = |ms: u32, loss, state| LinkReport {
            latency_us: ms * 1_000,
            jitter_us: 0,
            loss: Loss::from_fraction(loss),
            state,
        };
        let mut account = Account::default();
        let relayed = Some(report(30, 0.0, Liveness::Up));
        account.book(5, None, report(40, 0.1, Liveness::Up));
        account.book(10, relayed, report(40, 0.1, Liveness::Up));
        account.book(10, relayed, report(25, 0.0, Liveness::Up));
        account.book(7, relayed, report(25, 0.0, Liveness::Down));
        let regret = account.regret;
        assert_eq!((regret.direct, regret.relayed, regret.rescued), (5, 27, 7));
        assert_eq!((regret.saved_ms, regret.lost_ms), (100.0, 50.0));
        assert!((regret.losses_avoided - 1.0).abs() < 1e-3);
    }
}
