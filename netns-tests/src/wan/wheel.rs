//! The timer wheel in which packets wait for their instant.
//!
//! Ticks of 4.096 us; a ring of 2^18 slots covers 1.07 s, a heap holds what is later and moves into
//! the ring as time advances. Each slot is a first-in-first-out list, so packets due in the same
//! tick leave in the order they came. A bitmap of two levels finds the next occupied slot, however
//! long nothing happened.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds per tick, as a power of two.
const TICK_BITS: u32 = 12;
const SLOTS: usize = 1 << 18;
const WORDS: usize = SLOTS / 64;
const NONE: u32 = u32::MAX;

struct Entry<T> {
    item: Option<T>,
    next: u32,
}

/// Items ordered by due time (to the tick, rounded up), then by insertion.
pub(crate) struct Wheel<T> {
    /// No item is due before this tick; the ring holds ticks `base .. base + SLOTS`.
    base: u64,
    heads: Box<[u32]>,
    tails: Box<[u32]>,
    occupied: Box<[u64]>,
    /// One bit for each word of `occupied`.
    summary: [u64; WORDS / 64],
    entries: Vec<Entry<T>>,
    free: u32,
    /// Items beyond the ring: (tick, insertion number, entry).
    later: BinaryHeap<Reverse<(u64, u64, u32)>>,
    inserted: u64,
    in_ring: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel at time zero.
    pub(crate) fn new() -> Self {
        Self {
            base: 0,
            heads: vec![NONE; SLOTS].into(),
            tails: vec![NONE; SLOTS].into(),
            occupied: vec![0; WORDS].into(),
            summary: [0; WORDS / 64],
            entries: Vec::new(),
            free: NONE,
            later: BinaryHeap::new(),
            inserted: 0,
            in_ring: 0,
        }
    }

    /// Number of waiting items.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.in_ring + self.later.len()
    }

    /// Lets `item` wait until `due_ns`; if that has passed, until the next [`Self::pop_due`].
    pub(crate) fn insert(&mut self, due_ns: u64, item: T) {
        let tick = due_ns.div_ceil(1 << TICK_BITS).max(self.base);
        let entry = self.allocate(item);
        self.inserted += 1;
        if tick - self.base < SLOTS as u64 {
            self.append(tick, entry);
        } else {
            self.later.push(Reverse((tick, self.inserted, entry)));
        }
    }

    /// When the next item is due, in nanoseconds.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.next_tick().map(|tick| tick << TICK_BITS)
    }

    /// Takes one item that is due at `now_ns`. Time must not go backwards.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        let now = now_ns >> TICK_BITS;
        let Some(tick) = self.next_tick().filter(|tick| *tick <= now) else {
            self.advance(now);
            return None;
        };
        self.advance(tick);
        let slot = tick as usize % SLOTS;
        let entry = self.heads[slot];
        let next = self.entries[entry as usize].next;
        self.heads[slot] = next;
        if next == NONE {
            self.tails[slot] = NONE;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            if self.occupied[slot / 64] == 0 {
                self.summary[slot / 4096] &= !(1 << (slot / 64 % 64));
            }
        }
        self.in_ring -= 1;
        let item = self.entries[entry as usize].item.take();
        self.entries[entry as usize].next = self.free;
        self.free = entry;
        item
    }

    /// Moves the ring on; items of the heap that it now covers come in, in their order, before
    /// anything later can be inserted behind them.
    fn advance(&mut self, tick: u64) {
        self.base = self.base.max(tick);
        while let Some(&Reverse((tick, _, entry))) = self.later.peek() {
            if tick - self.base >= SLOTS as u64 {
                break;
            }
            self.later.pop();
            self.append(tick, entry);
        }
    }

    fn append(&mut self, tick: u64, entry: u32) {
        let slot = tick as usize % SLOTS;
        match self.tails[slot] {
            NONE => {
                self.heads[slot] = entry;
                self.occupied[slot / 64] |= 1 << (slot % 64);
                self.summary[slot / 4096] |= 1 << (slot / 64 % 64);
            }
            tail => self.entries[tail as usize].next = entry,
        }
        self.tails[slot] = entry;
        self.in_ring += 1;
    }

    fn allocate(&mut self, item: T) -> u32 {
        let fresh = Entry { item: Some(item), next: NONE };
        if self.free == NONE {
            self.entries.push(fresh);
            return (self.entries.len() - 1) as u32;
        }
        let entry = self.free;
        self.free = self.entries[entry as usize].next;
        self.entries[entry as usize] = fresh;
        entry
    }

    fn next_tick(&self) -> Option<u64> {
        if self.in_ring > 0 {
            let start = self.base as usize % SLOTS;
            let slot = self.next_slot(start)?;
            let ahead = (slot + SLOTS - start) % SLOTS;
            return Some(self.base + ahead as u64);
        }
        self.later.peek().map(|Reverse((tick, ..))| *tick)
    }

    /// The first occupied slot at or after `start`, going round.
    fn next_slot(&self, start: usize) -> Option<usize> {
        let word = start / 64;
        let here = self.occupied[word] & (u64::MAX << (start % 64));
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        let word = self.next_word(word + 1).or_else(|| self.next_word(0))?;
        Some(word * 64 + self.occupied[word].trailing_zeros() as usize)
    }

    /// The first word at or after `start` that is not zero, to the end of the bitmap.
    fn next_word(&self, start: usize) -> Option<usize> {
        if start >= WORDS {
            return None;
        }
        let mut group = start / 64;
        let mut bits = self.summary[group] & (u64::MAX << (start % 64));
        while bits == 0 {
            group += 1;
            bits = *self.summary.get(group)?;
        }
        Some(group * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: u64 = 1 << TICK_BITS;
    const TURN: u64 = TICK * SLOTS as u64;

    /// What a wheel is, said plainly: a list sorted by (tick, insertion).
    #[derive(Default)]
    struct Model {
        base: u64,
        list: Vec<(u64, u32)>,
    }

    impl Model {
        fn insert(&mut self, due_ns: u64, item: u32) {
            let tick = due_ns.div_ceil(TICK).max(self.base);
            let place = self.list.partition_point(|(other, _)| *other <= tick);
            self.list.insert(place, (tick, item));
        }

        fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
            match self.list.first() {
                Some(&(tick, item)) if tick <= now_ns / TICK => {
                    self.base = self.base.max(tick);
                    self.list.remove(0);
                    Some(item)
                }
                _ => {
                    self.base = self.base.max(now_ns / TICK);
                    None
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Wait(u64),
        PopOne,
        PopAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Delays and gaps from within a tick to several turns of the ring, and just around them.
        let span = prop_oneof![
            4 => 0..4 * TICK,
            4 => 0..TURN / 10,
            2 => TURN - 3 * TICK..TURN + 3 * TICK,
            1 => 0..4 * TURN,
        ];
        prop_oneof![
            5 => span.clone().prop_map(Step::Insert),
            2 => span.prop_map(Step::Wait),
            2 => Just(Step::PopOne),
            2 => Just(Step::PopAll),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn behaves_like_a_sorted_list(
            start in 0..3 * TURN, steps in prop::collection::vec(step(), 1..120)
        ) {
            let (mut wheel, mut model) = (Wheel::new(), Model::default());
            let mut now = start;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(delay) => {
                        wheel.insert(now + delay, number as u32);
                        model.insert(now + delay, number as u32);
                    }
                    Step::Wait(gap) => now += gap,
                    Step::PopOne => prop_assert_eq!(wheel.pop_due(now), model.pop_due(now)),
                    Step::PopAll => loop {
                        let item = wheel.pop_due(now);
                        prop_assert_eq!(item, model.pop_due(now));
                        if item.is_none() {
                            break;
                        }
                    },
                }
                prop_assert_eq!(wheel.len(), model.list.len());
                let due = model.list.first().map(|(tick, _)| tick * TICK);
                prop_assert_eq!(wheel.next_due(), due);
            }
        }
    }

    #[test]
    fn an_idle_gap_longer_than_the_ring_loses_nothing() {
        let mut wheel = Wheel::new();
        wheel.insert(5 * TURN, 'a');
        wheel.insert(TURN / 2, 'b');
        assert_eq!(wheel.pop_due(100 * TURN), Some('b'));
        assert_eq!(wheel.pop_due(100 * TURN), Some('a'));
        assert_eq!(wheel.pop_due(100 * TURN), None);
        wheel.insert(100 * TURN + 9 * TICK, 'c');
        assert_eq!(wheel.next_due(), Some(100 * TURN + 9 * TICK));
        assert_eq!(wheel.pop_due(100 * TURN + 8 * TICK), None);
        assert_eq!(wheel.pop_due(200 * TURN), Some('c'));
    }

    #[test]
    fn freed_entries_are_used_again() {
        let mut wheel = Wheel::new();
        for round in 0..1000u64 {
            wheel.insert(round * TICK, round);
            assert_eq!(wheel.pop_due(round * TICK), Some(round));
        }
        assert_eq!(wheel.entries.len(), 1);
    }
}
