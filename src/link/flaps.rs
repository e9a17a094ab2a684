//! The outages of one path.

use std::time::Duration;

use crate::time::Instant;

/// The outages of a path: how many, and when the last ones began.
#[derive(Clone, Debug, Default)]
pub struct FlapHistory {
    downs: u32,
    /// None before the first, which most paths never have.
    recent: Option<Box<[Option<Instant>; Self::RECENT]>>,
}

impl FlapHistory {
    const RECENT: usize = 8;

    /// Outages since the start.
    pub const fn downs(&self) -> u32 {
        self.downs
    }

    /// Outages that began within `span` before `now`; counts no further than eight.
    pub fn downs_within(&self, now: Instant, span: Duration) -> usize {
        let recent = self.recent.iter().flat_map(|recent| recent.iter().flatten());
        recent.filter(|at| now - **at <= span).count()
    }

    /// When the last outage began.
    pub fn last(&self) -> Option<Instant> {
        let last = self.downs.checked_sub(1)?;
        self.recent.as_ref()?[last as usize % Self::RECENT]
    }

    pub(super) fn record(&mut self, now: Instant) {
        let recent = self.recent.get_or_insert_default();
        recent[self.downs as usize % Self::RECENT] = Some(now);
        self.downs = self.downs.wrapping_add(1);
    }
}
