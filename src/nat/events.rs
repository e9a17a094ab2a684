//! What happened to mappings, for a log (RFC 6888 section 4): who had which outside endpoint when.
//! No destinations (REQ-12).

use std::collections::VecDeque;

use super::mapping::MappingView;

/// Events that wait; further ones are lost, and counted.
const WAITING_MAX: usize = 16_384;

/// The beginning or the end of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatEvent {
    /// It was made.
    Created(MappingView),
    /// It ended.
    Ended(MappingView),
}

#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<NatEvent>,
    lost: u64,
    wanted: bool,
}

impl Events {
    pub(super) fn new(wanted: bool) -> Self {
        let places = if wanted { WAITING_MAX } else { 0 };
        Self { waiting: VecDeque::with_capacity(places), lost: 0, wanted }
    }

    pub(super) const fn wanted(&self) -> bool {
        self.wanted
    }

    pub(super) fn push(&mut self, event: NatEvent) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn take(&mut self) -> Option<NatEvent> {
        self.waiting.pop_front()
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}
