//! The outages of one path.

use std::time::Duration;

use crate::time::Instant;

/// The outages of a path: how many, and when the last ones began.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlapHistory {
    downs: u32,
    recent: [Option<Instant>; Self::RECENT],
}

impl FlapHistory {
    const RECENT: usize = 8;

    /// Outages since the start.
    pub const fn downs(&self) -> u32 {
        self.downs
    }

    /// Outages that began within `span` before `now`; counts no further than eight.
    pub fn downs_within(&self, now: Instant, span: Duration) -> usize {
        self.recent.iter().flatten().filter(|at| now - **at <= span).count()
    }

    /// When the last outage began.
    pub fn last(&self) -> Option<Instant> {
        self.downs.checked_sub(1).and_then(|n| self.recent[n as usize % Self::RECENT])
    }

    pub(super) fn record(&mut self, now: Instant) {
        self.recent[self.downs as usize % Self::RECENT] = Some(now);
        self.downs = self.downs.wrapping_add(1);
    }
}
