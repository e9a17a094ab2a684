//! Whose turn it is to be read: fair queueing of what hosts send.
//!
//! The TUN has several queues, and the kernel puts every flow into one of them by its hash. What
//! waits stays in the kernel until its turn: deficit round robin, queues that have just begun to
//! wait first (RFC 8290 without the CoDel part). So a ping does not stand behind a bulk flow, and
//! what is read is sealed at once, while it is still in the processor's cache.

use std::collections::VecDeque;

use crate::flow::Priority;

/// Levels; a lower number goes first.
const LEVELS: usize = Priority::COUNT;
/// The level of a queue that nothing was read from yet.
const NORMAL: usize = Priority::Normal as usize;
/// One frame in so many is of the lowest level that waits, so that no host starves others.
const FLOOR: u32 = 8;
/// Bytes that a queue may send before it is another one's turn.
const QUANTUM: i32 = 16 * 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    credit: i32,
    /// In one of the lists.
    listed: bool,
    /// It was found empty, and nothing came since.
    empty: bool,
    /// Of the frame that was last read from it.
    level: usize,
}

/// Whose turn it is among the queues of one level.
#[derive(Debug)]
struct Round {
    /// Queues that were empty a moment ago.
    sparse: VecDeque<u8>,
    /// The others.
    steady: VecDeque<u8>,
}

/// The queues that may hold something, in the order of their turns.
#[derive(Debug)]
pub(super) struct Rounds {
    queues: Vec<Queue>,
    rounds: [Round; LEVELS],
    /// Frames that were read.
    frames: u32,
}

impl Rounds {
    /// For this many queues, all of which may hold something.
    pub(super) fn new(queues: usize) -> Self {
        let mut this = Self {
            queues: vec![Queue { level: NORMAL, ..Queue::default() }; queues],
            rounds: std::array::from_fn(|_| Round {
                sparse: VecDeque::with_capacity(queues),
                steady: VecDeque::with_capacity(queues),
            }),
            frames: 0,
        };
        for index in 0..queues {
            this.mark(index);
        }
        this
    }

    /// Something came into a queue.
    pub(super) fn mark(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index) else { return };
        queue.empty = false;
        if !queue.listed {
            *queue = Queue { credit: QUANTUM, listed: true, empty: false, level: NORMAL };
            self.rounds[queue.level].sparse.push_back(index as u8);
        }
    }

    /// True when some queue may hold something.
    pub(super) fn any(&self) -> bool {
        self.queues.iter().any(|queue| queue.listed && !queue.empty)
    }

    /// The queue to read from; then [`Self::took`] or [`Self::found_empty`] is to be called.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.frames % FLOOR == FLOOR - 1 {
            return (0..LEVELS).rev().find_map(|level| self.next_of(level));
        }
        (0..LEVELS).find_map(|level| self.next_of(level))
    }

    fn next_of(&mut self, level: usize) -> Option<usize> {
        let Round { sparse, steady } = &mut self.rounds[level];
        loop {
            let list = if sparse.is_empty() { &mut *steady } else { &mut *sparse };
            let index = *list.front()?;
            let queue = &mut self.queues[usize::from(index)];
            if queue.empty {
                queue.listed = false;
                list.pop_front();
            } else if queue.credit <= 0 {
                queue.credit += QUANTUM;
                list.pop_front();
                steady.push_back(index);
            } else {
                return Some(usize::from(index));
            }
        }
    }

    /// The queue that [`Self::next`] named gave so many bytes of this level.
    pub(super) fn took(&mut self, index: usize, bytes: usize, level: usize) {
        let Some(queue) = self.queues.get_mut(index) else { return };
        queue.credit -= bytes as i32;
        self.frames = self.frames.wrapping_add(1);
        let level = level.min(LEVELS - 1);
        if level != queue.level {
            let Round { sparse, steady } = &mut self.rounds[queue.level];
            sparse.retain(|&at| usize::from(at) != index);
            steady.retain(|&at| usize::from(at) != index);
            queue.level = level;
            self.rounds[level].steady.push_back(index as u8);
        }
    }

    /// The queue that [`Self::next`] named was empty.
    pub(super) fn found_empty(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index) else { return };
        queue.empty = true;
        // A flow that comes back at once must not be first each time.
        let Round { sparse, steady } = &mut self.rounds[queue.level];
        if sparse.front().is_some_and(|&first| usize::from(first) == index) {
            sparse.pop_front();
            steady.push_back(index as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues as the kernel has them, with the lengths of their frames.
    struct Kernel {
        queues: Vec<VecDeque<usize>>,
        levels: Vec<usize>,
        rounds: Rounds,
    }

    impl Kernel {
        fn new(queues: usize) -> Self {
            let mut rounds = Rounds::new(queues);
            while let Some(index) = rounds.next() {
                rounds.found_empty(index);
            }
            Self { queues: vec![VecDeque::new(); queues], levels: vec![NORMAL; queues], rounds }
        }

        fn put(&mut self, index: usize, len: usize) {
            self.queues[index].push_back(len);
            self.rounds.mark(index);
        }

        /// Reads the next frame: the queue and the length.
        fn read(&mut self) -> Option<(usize, usize)> {
            loop {
                let index = self.rounds.next()?;
                match self.queues[index].pop_front() {
                    Some(len) => {
                        self.rounds.took(index, len, self.levels[index]);
                        return Some((index, len));
                    }
                    None => self.rounds.found_empty(index),
                }
            }
        }
    }

    #[test]
    fn a_ping_does_not_wait_behind_a_bulk_flow() {
        let mut kernel = Kernel::new(4);
        for _ in 0..3 {
            kernel.put(1, 60_000);
        }
        assert_eq!(kernel.read(), Some((1, 60_000)));
        kernel.put(2, 100);
        assert_eq!(kernel.read(), Some((2, 100)));
        assert_eq!(kernel.read(), Some((1, 60_000)));
        assert_eq!(kernel.read(), Some((1, 60_000)));
        assert!(kernel.rounds.any());
        assert_eq!(kernel.read(), None);
        assert!(!kernel.rounds.any());
    }

    #[test]
    fn flows_share_by_bytes_not_by_frames() {
        let mut kernel = Kernel::new(2);
        for _ in 0..40 {
            kernel.put(0, 48_000);
        }
        for _ in 0..400 {
            kernel.put(1, 4_800);
        }
        let mut bytes = [0; 2];
        for _ in 0..300 {
            let (index, len) = kernel.read().unwrap();
            bytes[index] += len;
        }
        assert!(usize::abs_diff(bytes[0], bytes[1]) <= 64_000, "{bytes:?}");
    }

    #[test]
    fn a_sparse_flow_that_comes_back_at_once_does_not_starve_the_others() {
        let mut kernel = Kernel::new(2);
        for _ in 0..20 {
            kernel.put(0, 60_000);
        }
        let mut bytes = [0; 2];
        // It always has a frame waiting, and is empty after each.
        while bytes[0] < 600_000 {
            if kernel.queues[1].is_empty() {
                kernel.put(1, 1_000);
            }
            let (index, len) = kernel.read().unwrap();
            bytes[index] += len;
            assert!(bytes[1] <= bytes[0] + 64_000, "{bytes:?}");
        }
        // And it is not starved itself.
        assert!(bytes[1] + 60_000 + 2 * QUANTUM as usize >= bytes[0], "{bytes:?}");
    }

    #[test]
    fn a_higher_level_goes_first_once_it_is_known() {
        let mut kernel = Kernel::new(3);
        kernel.levels = vec![2, 1, 0];
        for index in 0..3 {
            for _ in 0..3 {
                kernel.put(index, 20_000);
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| kernel.read()).map(|(index, _)| index).collect();
        assert_eq!(order.len(), 9);
        let last = |wanted| order.iter().rposition(|&index| index == wanted);
        assert!(last(2) < last(1) && last(1) < last(0), "{order:?}");
        for _ in 0..2 {
            kernel.put(0, 20_000);
        }
        assert_eq!(kernel.read(), Some((0, 20_000)));
        kernel.put(2, 100);
        assert_eq!(kernel.read(), Some((2, 100)), "it came last");
        assert_eq!(kernel.read(), Some((0, 20_000)));
        assert_eq!(kernel.read(), None);
        assert!(!kernel.rounds.any());
    }

    #[test]
    fn a_flood_of_high_level_leaves_the_others_their_floor() {
        let mut kernel = Kernel::new(2);
        kernel.levels = vec![0, 2];
        let mut low = 0;
        for _ in 0..80 {
            kernel.put(0, 1_000);
            kernel.put(1, 1_000);
            kernel.put(0, 1_000);
            low += u32::from(kernel.read().is_some_and(|(index, _)| index == 1));
        }
        assert!((9..=12).contains(&low), "{low}");
    }

    #[test]
    fn many_sparse_flows_take_turns() {
        let mut kernel = Kernel::new(16);
        for _ in 0..3 {
            for index in 0..16 {
                kernel.put(index, 10_000);
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| kernel.read()).map(|(index, _)| index).collect();
        assert_eq!(order.len(), 48);
        // A quantum is two of these frames.
        for (turns, frames) in [(&order[..32], 2), (&order[32..], 1)] {
            let mut turns = turns.to_vec();
            turns.sort_unstable();
            let fair: Vec<_> = (0..16).flat_map(|index| vec![index; frames]).collect();
            assert_eq!(turns, fair, "{order:?}");
        }
    }

    #[test]
    fn an_edge_while_a_queue_is_listed_as_empty_is_not_lost() {
        let mut kernel = Kernel::new(2);
        kernel.put(0, 100);
        assert_eq!(kernel.read(), Some((0, 100)));
        // Found empty, still listed.
        assert_eq!(kernel.rounds.next(), Some(0));
        kernel.rounds.found_empty(0);
        kernel.put(0, 200);
        assert!(kernel.rounds.any());
        assert_eq!(kernel.read(), Some((0, 200)));
        assert_eq!(kernel.read(), None);
    }

    #[test]
    fn at_the_start_every_queue_is_asked_once() {
        let mut rounds = Rounds::new(3);
        let mut asked = Vec::new();
        while let Some(index) = rounds.next() {
            asked.push(index);
            rounds.found_empty(index);
        }
        assert_eq!(asked, [0, 1, 2]);
        rounds.mark(99);
        assert_eq!(rounds.next(), None);
    }
}
