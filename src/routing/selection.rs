//! One decision, kept: which path serves one peer under one metric.

use super::explain::{Candidate, Standing};
use super::hysteresis::{Margin, SwitchCause};
use crate::metric::Liveness;
use crate::path::Path;
use crate::time::Instant;

/// What a decision is made by, besides the candidates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) margin: Margin,
    pub(super) hold_down: std::time::Duration,
}

impl Rules {
    /// A challenger is better by the margin, and by more than either cost may be off. It was measured
    /// more rarely than the path in use, which is averaged over twice as many round trips at least.
    fn is_better(&self, current: &Candidate, rival: &Candidate) -> bool {
        let doubt = rival.doubt + current.doubt / 2.0;
        self.margin.beaten(current.rank, rival.rank) && current.rank - rival.rank >= doubt
    }

    /// True when `rival` would be moved to from `current`, but for hold-down and back-off.
    pub(super) fn may_move(&self, current: &Candidate, rival: &Candidate) -> bool {
        rival.standing == Standing::Eligible && self.is_better(current, rival)
    }
}

/// The path that is decided on, and the one that is used at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selection {
    pub(super) chosen: Option<Path>,
    /// Used instead while the chosen path is suspect.
    pub(super) detour: Option<Path>,
    pub(super) alternate: Option<Path>,
    /// The least bad path, when none is usable.
    pub(super) last_resort: Option<Path>,
    pub(super) previous: Option<Path>,
    pub(super) switched_at: Option<Instant>,
    pub(super) cause: Option<SwitchCause>,
    pub(super) switches: u32,
}

/// What a decision changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The path that was chosen before failed.
    pub(super) failed: Option<Path>,
    pub(super) switched: bool,
    /// The path in use or the alternate is another one.
    pub(super) table: bool,
}

impl Selection {
    pub(super) fn in_use(&self) -> Option<Path> {
        self.detour.or(self.chosen)
    }

    /// Decides anew. `shares(a, b)` tells whether two paths can fail together at our or the peer's
    /// uplink; the alternate avoids it where possible.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        rules: &Rules,
        candidates: &[Candidate],
        shares: impl Fn(Path, Path) -> bool,
    ) -> Change {
        let before = (self.in_use(), self.alternate);
        let current = self.chosen.and_then(|path| candidates.iter().find(|c| c.path == path));
        let current = current.filter(|current| current.standing.is_usable());
        let mut change = Change::default();
        match current {
            Some(current) if current.report.state == Liveness::Up => {
                let is_rival = |c: &Candidate| c.path != current.path && c.barred_until.is_none();
                let rival = best(candidates, |c| is_rival(c) && rules.is_better(current, c));
                if let Some(rival) = rival
                    && self.hold_down_until(rules).is_none_or(|until| now >= until)
                {
                    self.switch(now, Some(rival.path), SwitchCause::Better);
                    change.switched = true;
                }
            }
            Some(_) => {}
            None => {
                change.failed = self.chosen;
                let next = self.replacement(rules, candidates);
                if next.is_some() || self.chosen.is_some() {
                    let first = self.cause.is_none();
                    let cause = if first { SwitchCause::First } else { SwitchCause::Outage };
                    self.switch(now, next, cause);
                    change.switched = true;
                }
            }
        }
        self.last_resort = if self.chosen.is_none() { last_resort(candidates) } else { None };
        self.alternate = self.chosen.and_then(|path| alternate(candidates, path, shares));
        let kept = current.filter(|current| self.chosen == Some(current.path));
        let found = kept.or_else(|| candidates.iter().find(|c| self.chosen == Some(c.path)));
        let suspect = found.is_some_and(|chosen| chosen.report.state != Liveness::Up);
        self.detour = if suspect { self.alternate } else { None };
        if self.detour.is_some() {
            // The other way round: what packets would go back to.
            self.alternate = self.chosen;
        }
        change.table = before != (self.in_use(), self.alternate);
        change
    }

    /// What takes the place of a path that failed: the detour that is already used, unless another
    /// one is clearly better; a path that failed itself not long ago only if there is no other;
    /// rather a relay that has less left than we send than none, for something passes; and rather a
    /// suspect path than none, as far as we know it ourselves.
    fn replacement(&self, rules: &Rules, candidates: &[Candidate]) -> Option<Path> {
        let unbarred = best(candidates, |c| c.barred_until.is_none());
        let detour = candidates
            .iter()
            .find(|c| Some(c.path) == self.detour && c.standing == Standing::Eligible);
        if let (Some(best), Some(detour)) = (unbarred, detour)
            && !rules.margin.beaten(detour.rank, best.rank)
        {
            return Some(detour.path);
        }
        let known = |c: &&Candidate| c.measured || c.path.relay().is_none();
        let usable = |c: &&Candidate| c.standing.is_usable() && known(c);
        let last = || candidates.iter().filter(usable).min_by(by_rank);
        let any = unbarred.or_else(|| best(candidates, |_| true));
        any.or_else(|| short(candidates).min_by(by_rank)).or_else(last).map(|c| c.path)
    }

    fn switch(&mut self, now: Instant, to: Option<Path>, cause: SwitchCause) {
        if cause != SwitchCause::First {
            self.switches = self.switches.wrapping_add(1);
        }
        self.previous = self.chosen;
        self.chosen = to;
        self.switched_at = Some(now);
        self.cause = Some(cause);
    }

    /// Until when a merely better path is not moved to. The first choice is made with what is known
    /// first, and may be corrected at once.
    pub(super) fn hold_down_until(&self, rules: &Rules) -> Option<Instant> {
        let held = self.cause.is_some_and(|cause| cause != SwitchCause::First);
        self.switched_at.filter(|_| held).map(|at| at + rules.hold_down)
    }
}

/// The eligible candidate of least rank among those that `allowed` admits; the first of equals.
fn best(candidates: &[Candidate], allowed: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
    let eligible = |c: &&Candidate| c.standing == Standing::Eligible && allowed(c);
    candidates.iter().filter(eligible).min_by(by_rank)
}

/// Relays that have less left than we send.
fn short(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    candidates.iter().filter(|c| c.standing == Standing::RelayShort)
}

/// What may only seem dead: a direct path rather than a relay that says that it cannot reach the peer.
fn last_resort(candidates: &[Candidate]) -> Option<Path> {
    let seeming = |c: &&Candidate| {
        let relayed = matches!(c.standing, Standing::AdvertisedDown | Standing::StayOnly);
        c.standing == Standing::Down || relayed && c.path.relay().is_some()
    };
    let order = |c: &&Candidate| (c.path.relay().is_some(), c.standing == Standing::AdvertisedDown);
    let least = candidates
        .iter()
        .filter(seeming)
        .min_by(|a, b| order(a).cmp(&order(b)).then(a.rank.total_cmp(&b.rank)));
    least.map(|c| c.path)
}

fn by_rank(a: &&Candidate, b: &&Candidate) -> std::cmp::Ordering {
    a.rank.total_cmp(&b.rank)
}

/// The best other path, one that shares nothing with `path` if there is any; a relay that has too
/// little left only if there is no other.
fn alternate(
    candidates: &[Candidate],
    path: Path,
    shares: impl Fn(Path, Path) -> bool,
) -> Option<Path> {
    let (mut disjoint, mut any): (Option<&Candidate>, Option<&Candidate>) = (None, None);
    let better = |best: Option<&Candidate>, rival: &Candidate| {
        best.is_none_or(|best| rival.rank.total_cmp(&best.rank).is_lt())
    };
    for candidate in candidates.iter().filter(|c| c.standing == Standing::Eligible) {
        if candidate.path == path {
            continue;
        }
        if better(any, candidate) {
            any = Some(candidate);
        }
        if better(disjoint, candidate) && !shares(path, candidate.path) {
            disjoint = Some(candidate);
        }
    }
    let other = || short(candidates).filter(|c| c.path != path).min_by(by_rank);
    disjoint.or(any).or_else(other).map(|candidate| candidate.path)
}
