//! A hierarchical timer wheel: any number of timers, each step of constant cost.
//!
//! Six levels of 64 slots (Varghese and Lauck, 1987). A slot of level 0 is one tick, a slot of
//! level `n` is 64^n ticks. A timer lies in the level of the highest digit (base 64) in which its
//! tick differs from the current one, so the slots behind the current tick are always empty and no
//! slot holds timers of two turns of the wheel. When the current tick enters a slot of a higher
//! level, its timers move down; each move counts against the caller's budget, so that a slot with a
//! million timers is spread over many turns.
//!
//! Timers are tokens that the owner chooses: small dense numbers, such as indices of a table.
//! An owner whose deadlines mostly move later (idle timers) need not touch the wheel for each
//! packet: it lets the timer fire and schedules it anew.

use std::time::Duration;

use crate::time::Instant;

/// Ticks are 2^17 microseconds: 131 ms.
const TICK_SHIFT: u32 = 17;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// Stands for "no timer" in a link and for "not scheduled" in a position.
const NONE: u32 = u32::MAX;

/// A timer's place: its neighbours in the slot's list, and when it is due.
#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
    /// Tick after the origin.
    tick: u32,
    /// `level * SLOTS + slot`, or `NONE`.
    position: u32,
}

const IDLE: Node = Node { previous: NONE, next: NONE, tick: 0, position: NONE };

/// The wheel. Memory: 16 bytes for each token up to the highest one ever scheduled.
#[derive(Debug)]
pub struct Wheel {
    origin: Instant,
    current: u32,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
    capacity: usize,
    scheduled: usize,
}

impl Wheel {
    /// How much later than asked a timer may fire (it never fires early).
    pub const RESOLUTION: Duration = Duration::from_micros(1 << TICK_SHIFT);

    /// An empty wheel for tokens below `capacity`. No timer may be due before `origin`; the wheel
    /// covers 17 years from there. Storage for all tokens is reserved at once, and touched only as
    /// far as it is used.
    pub fn new(origin: Instant, capacity: usize) -> Self {
        Self {
            origin,
            current: 0,
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            nodes: Vec::with_capacity(capacity),
            capacity,
            scheduled: 0,
        }
    }

    /// Number of scheduled timers.
    pub fn len(&self) -> usize {
        self.scheduled
    }

    /// True when no timer is scheduled.
    pub fn is_empty(&self) -> bool {
        self.scheduled == 0
    }

    /// Schedules the timer `token` for `at`, or moves it there. False, and nothing done, when the
    /// token is not below the capacity.
    pub fn schedule(&mut self, token: u32, at: Instant) -> bool {
        if token as usize >= self.capacity {
            return false;
        }
        if token as usize >= self.nodes.len() {
            self.nodes.resize(token as usize + 1, IDLE);
        }
        self.cancel(token);
        self.insert(token, self.tick_from(at));
        self.scheduled += 1;
        true
    }

    /// Forgets the timer; no effect when it is not scheduled.
    pub fn cancel(&mut self, token: u32) {
        let Some(&node) = self.nodes.get(token as usize) else { return };
        if node.position == NONE {
            return;
        }
        self.unlink(token, node);
        self.scheduled -= 1;
    }

    /// Takes out one timer that is due, spending one unit of `budget` for it and one for each timer
    /// moved to a lower level on the way. `None` when none is due or the budget is used up.
    pub fn pop(&mut self, now: Instant, budget: &mut usize) -> Option<u32> {
        let now = self.tick_until(now);
        while *budget > 0 {
            let first = self.first_slot();
            let Some((level, slot, start)) = first.filter(|&(_, _, start)| start <= now) else {
                // Nothing lies in between, so no timer changes its level by this.
                self.current = self.current.max(now);
                return None;
            };
            self.current = self.current.max(start);
            let token = self.heads[level * SLOTS + slot];
            let node = self.nodes[token as usize];
            *budget -= 1;
            self.unlink(token, node);
            if node.tick <= now {
                self.scheduled -= 1;
                return Some(token);
            }
            self.insert(token, node.tick);
        }
        None
    }

    /// Takes out due timers and hands each to `fired`, within `budget` steps. Returns the steps that
    /// are left; none left means that there may be more.
    pub fn expire(&mut self, now: Instant, mut budget: usize, mut fired: impl FnMut(u32)) -> usize {
        while let Some(token) = self.pop(now, &mut budget) {
            fired(token);
        }
        budget
    }

    /// When [`Wheel::pop`] should be called next. Exact for timers of the next few seconds; for
    /// later ones, the instant when they move to a lower level.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, _, start) = self.first_slot()?;
        Some(self.origin + Duration::from_micros(u64::from(start) << TICK_SHIFT))
    }

    /// The earliest occupied slot with the tick at which it begins.
    fn first_slot(&self) -> Option<(usize, usize, u32)> {
        let mut first: Option<(usize, usize, u32)> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let slot = self.occupied[level].trailing_zeros();
            let shift = level as u32 * SLOT_BITS;
            let above = u64::from(self.current) >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
            let start = (above + (u64::from(slot) << shift)) as u32;
            if first.is_none_or(|(_, _, earliest)| start < earliest) {
                first = Some((level, slot as usize, start));
            }
        }
        first
    }

    fn insert(&mut self, token: u32, tick: u32) {
        let tick = tick.max(self.current);
        let differing = 32 - (tick ^ self.current).leading_zeros();
        let level = (differing.saturating_sub(1) / SLOT_BITS) as usize;
        let slot = (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS;
        let position = level * SLOTS + slot;
        let next = self.heads[position];
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = token;
        }
        self.nodes[token as usize] = Node { previous: NONE, next, tick, position: position as u32 };
        self.heads[position] = token;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, token: u32, node: Node) {
        if let Some(next) = self.nodes.get_mut(node.next as usize) {
            next.previous = node.previous;
        }
        if let Some(previous) = self.nodes.get_mut(node.previous as usize) {
            previous.next = node.next;
        } else {
            let position = node.position as usize;
            self.heads[position] = node.next;
            if node.next == NONE {
                self.occupied[position / SLOTS] &= !(1 << (position % SLOTS));
            }
        }
        self.nodes[token as usize] = IDLE;
    }

    /// The first tick that is not before `at`.
    fn tick_from(&self, at: Instant) -> u32 {
        let micros = at.as_micros().saturating_sub(self.origin.as_micros());
        // One below the maximum, so that a tick is never confused with `NONE`.
        u32::try_from(micros.div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }

    /// The last tick that is not after `now`.
    fn tick_until(&self, now: Instant) -> u32 {
        let micros = now.as_micros().saturating_sub(self.origin.as_micros());
        u32::try_from(micros >> TICK_SHIFT).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    fn ticks(n: u64) -> Instant {
        Instant::from_micros(n * TICK)
    }

    #[test]
    fn a_timer_fires_never_early_and_at_most_one_tick_late() {
        let mut wheel = Wheel::new(Instant::ZERO, 4);
        let at = Instant::from_micros(5 * TICK + 1);
        assert!(wheel.schedule(3, at));
        assert_eq!(wheel.pop(at, &mut 10), None);
        assert_eq!(wheel.next_deadline(), Some(ticks(6)));
        assert_eq!(wheel.pop(at + Wheel::RESOLUTION, &mut 10), Some(3));
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn tokens_beyond_the_capacity_are_refused() {
        let mut wheel = Wheel::new(Instant::ZERO, 4);
        assert!(!wheel.schedule(4, ticks(1)));
        wheel.cancel(9);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn the_budget_bounds_the_work_of_a_crowded_slot_and_nothing_is_lost() {
        let mut wheel = Wheel::new(Instant::ZERO, 10_000);
        for token in 0..10_000 {
            wheel.schedule(token, ticks(100_000 + u64::from(token % 7)));
        }
        let mut fired = 0;
        let mut calls = 0;
        loop {
            let mut batch = 0;
            let left = wheel.expire(ticks(100_003), 100, |_| batch += 1);
            assert!(batch <= 100);
            fired += batch;
            calls += 1;
            if left > 0 {
                break;
            }
        }
        assert!((100..1_000).contains(&calls), "{calls} calls");
        let due = (0..10_000u32).filter(|t| t % 7 <= 3).count();
        assert_eq!(fired, due);
        assert_eq!(wheel.len(), 10_000 - due);
        wheel.expire(ticks(200_000), usize::MAX, |_| fired += 1);
        assert_eq!(fired, 10_000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u64),
        Cancel(u32),
        Advance(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Spans from one tick to gaps far longer than a turn of the lower levels.
        let span = prop_oneof![0..TICK * 3, 0..TICK * 200, 0..TICK * 9_000, 0..TICK * 3_000_000];
        prop_oneof![
            4 => (0u32..40, span.clone()).prop_map(|(t, d)| Step::Schedule(t, d)),
            1 => (0u32..40).prop_map(Step::Cancel),
            3 => (span, 0usize..60).prop_map(|(d, b)| Step::Advance(d, b)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn behaves_like_a_sorted_list(
            origin in 0u64..1 << 40,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let origin = Instant::from_micros(origin);
            let mut wheel = Wheel::new(origin, 40);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            let mut now = origin;
            for step in steps {
                match step {
                    Step::Schedule(token, delay) => {
                        let at = now + Duration::from_micros(delay);
                        wheel.schedule(token, at);
                        model.insert(token, at);
                    }
                    Step::Cancel(token) => {
                        wheel.cancel(token);
                        model.remove(&token);
                    }
                    Step::Advance(delay, budget) => {
                        now += Duration::from_micros(delay);
                        let mut fired = Vec::new();
                        let left = wheel.expire(now, budget, |token| fired.push(token));
                        for token in fired {
                            let at = model.remove(&token);
                            prop_assert!(at.is_some_and(|at| at <= now), "early or twice");
                        }
                        if left > 0 {
                            for (token, at) in &model {
                                prop_assert!(*at + Wheel::RESOLUTION > now, "{token} is late");
                            }
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let Some(first) = model.values().min() {
                    let next = wheel.next_deadline();
                    prop_assert!(next.is_some_and(|next| next < *first + Wheel::RESOLUTION));
                }
            }
        }
    }
}
