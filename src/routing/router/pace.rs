//! When paths are chosen anew.

use std::time::Duration;

use super::Router;
use crate::metric::{LinkReport, Loss};
use crate::time::Instant;

impl Router {
    /// Loss that grows by more than this at once (2 %) is worth a choice at once.
    const URGENT_LOSS: Loss = Loss(1_311);

    /// [`super::RouterConfig::pause`] is for so many peers.
    const MANY: usize = 50;

    pub(super) fn touch(
        &mut self,
        now: Instant,
        before: Option<LinkReport>,
        after: Option<LinkReport>,
    ) {
        if before != after {
            let state = |report: Option<LinkReport>| report.map(|report| report.state);
            let loss = |report: Option<LinkReport>| report.map_or(Loss::NONE, |report| report.loss);
            let lossy = loss(after).0 > loss(before).0.saturating_add(Self::URGENT_LOSS.0);
            let urgent = state(before) != state(after) || lossy;
            // What changed little waits until all peers are looked at anyway.
            if urgent || is_step(before, after) {
                self.schedule(now, urgent);
            }
        }
    }

    pub(super) fn schedule(&mut self, now: Instant, urgent: bool) {
        let at = if urgent { now } else { now.max(self.computed_at + self.pause()) };
        self.due = self.due.min(at);
        self.all_due = self.all_due.min(at);
    }

    /// In a large overlay much changes all the time, and a choice costs the more: there what is not
    /// urgent waits longer.
    fn pause(&self) -> Duration {
        let many = (self.peers.len() / Self::MANY).max(1) as u32;
        (self.config.pause * many).min(self.config.idle_pause.max(self.config.pause))
    }

    /// When to call [`Router::recompute`], and why.
    pub const fn poll_timeout(&self) -> (Instant, &'static str) {
        (self.due, "choose paths")
    }
}

/// True for a round trip that changed by more than noise.
fn is_step(before: Option<LinkReport>, after: Option<LinkReport>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let step = before.latency_us.abs_diff(after.latency_us);
    step >= 2_000 && step >= before.latency_us / 10
}
