//! Packets under way, and what became of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::tally::Tally;
use crate::time::Instant;

/// A packet that takes longer is lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What a scheme has sent and still waits for, and its books.
pub(super) struct Pending {
    pub(super) tally: Tally,
    /// Pair, when it was sent, and how long it took if it has arrived.
    packets: VecDeque<(usize, Instant, Option<Duration>)>,
    /// The number of the first of them.
    first: u64,
}

impl Pending {
    pub(super) const fn new(tally: Tally) -> Self {
        Self { tally, packets: VecDeque::new(), first: 0 }
    }

    /// A packet of a pair is sent; its number.
    pub(super) fn send(&mut self, pair: usize, now: Instant) -> u64 {
        self.packets.push_back((pair, now, None));
        self.first + self.packets.len() as u64 - 1
    }

    /// A packet arrived, or will.
    pub(super) fn arrived(&mut self, number: u64, at: Instant) {
        let index = number.checked_sub(self.first);
        let entry = index.and_then(|index| self.packets.get_mut(index as usize));
        let Some((_, sent, took)) = entry else { return };
        let delay = at - *sent;
        if delay <= PATIENCE && took.is_none_or(|took| delay < took) {
            *took = Some(delay);
        }
    }

    /// Enters those that nobody waits for any longer.
    pub(super) fn settle(&mut self, now: Instant) {
        while self.packets.front().is_some_and(|(_, sent, _)| now - *sent >= PATIENCE) {
            let Some((pair, _, took)) = self.packets.pop_front() else { break };
            self.first += 1;
            self.tally.add(pair, took.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_late_or_a_second_time_does_not_count() {
        let mut pending = Pending::new(Tally::new("x", 1, Duration::from_secs(5)));
        let at = |ms: u64| Instant::from_micros(ms * 1_000);
        for second in [0, 5, 10] {
            pending.send(0, at(second * 1_000));
        }
        pending.arrived(0, at(3_001));
        pending.arrived(1, at(5_040));
        pending.arrived(1, at(5_020));
        pending.arrived(1, at(5_030));
        pending.arrived(7, at(5_000));
        pending.settle(at(12_999));
        pending.arrived(2, at(13_000));
        pending.settle(at(13_000));
        let report = pending.tally.finish();
        assert_eq!((report.sent, report.arrived), (3, 2));
        assert!(report.latency_cdf[0].0 < 21.0, "{:?}", report.latency_cdf);
    }
}
