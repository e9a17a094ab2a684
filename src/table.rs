//! What the flow table and the NAT are built from: an [`Arena`] of entries with stable indices and
//! a [`HashIndex`] that finds them by key.
//!
//! Both have a fixed capacity, reserve their memory at the start (the system hands it out as it is
//! touched) and never move an entry, so that no packet pays for growth.

use crate::rng::Rng;

/// Entries of one kind, each with an index that stays the same for its life. Freed places are used
/// again, the last freed one first.
#[derive(Debug)]
pub struct Arena<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Arena<T> {
    /// Room for `capacity` entries (at most 2^31).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(1 << 31);
        Self { entries: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity), capacity }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// True when another entry would be refused.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Puts in an entry and returns its index; `None` when full.
    pub fn insert(&mut self, entry: T) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(entry);
            return Some(index);
        }
        if self.entries.len() >= self.capacity {
            return None;
        }
        self.entries.push(Some(entry));
        Some(self.entries.len() as u32 - 1)
    }

    /// Takes out an entry.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(entry)
    }

    /// The entry with this index.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_ref()
    }

    /// The entry with this index, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Entries in the order of their indices, from index `first` on.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &T)> {
        let first = first as usize;
        let rest = self.entries.get(first..).unwrap_or(&[]);
        rest.iter()
            .enumerate()
            .filter_map(move |(at, entry)| Some(((first + at) as u32, entry.as_ref()?)))
    }
}

/// Secret key of a [`HashIndex`]: whoever sends packets must not be able to make keys collide.
#[derive(Clone)]
pub struct HashSeed(u64, u64);

impl HashSeed {
    /// A new seed.
    pub fn new(rng: &mut Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }

    /// SipHash-1-3 (Aumasson and Bernstein, 2012) of the words of a key.
    pub fn hash<const N: usize>(&self, words: [u64; N]) -> u64 {
        let mut state = [
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573,
        ];
        for word in words {
            absorb(&mut state, word);
        }
        absorb(&mut state, (N as u64 * 8) << 56);
        state[2] ^= 0xff;
        for _ in 0..3 {
            sip_round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

impl std::fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

#[inline]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    sip_round(state);
    state[0] ^= word;
}

#[inline]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// A place of the index: the upper half of the hash, and the entry's index plus one (zero: empty).
#[derive(Clone, Copy)]
struct Place {
    tag: u32,
    entry: u32,
}

impl Place {
    const EMPTY: u64 = 0;

    fn unpack(bits: u64) -> Self {
        Self { tag: (bits >> 32) as u32, entry: bits as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.entry)
    }
}

/// Finds the index of an entry by the hash of its key. It does not know the keys: look-ups are given
/// a closure that compares. Linear probing in a table at most half full, without tombstones.
#[derive(Debug)]
pub struct HashIndex {
    /// Packed, because only memory full of plain zeros is not touched when it is reserved.
    places: Vec<u64>,
    len: usize,
    capacity: usize,
}

impl HashIndex {
    /// Room for `capacity` keys, 16 to 32 bytes for each.
    pub fn new(capacity: usize) -> Self {
        let places = (capacity.max(4) * 2).next_power_of_two();
        Self { places: vec![Place::EMPTY; places], len: 0, capacity }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of the key with this hash; `matches` says whether an entry's key is the one.
    pub fn find(&self, hash: u64, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.home(tag);
        // An empty place always comes, because the table is at most half full.
        loop {
            let place = Place::unpack(self.places[at]);
            let entry = place.entry.checked_sub(1)?;
            if place.tag == tag && matches(entry) {
                return Some(entry);
            }
            at = self.after(at);
        }
    }

    /// What lies where the search for this hash begins. Nothing depends on it: reading several before
    /// any of them is searched for lets the processor wait for all of them at once.
    pub fn peek(&self, hash: u64) -> u64 {
        self.places[self.home(tag(hash))]
    }

    /// Adds a key that is not there yet. False when full.
    pub fn insert(&mut self, hash: u64, entry: u32) -> bool {
        if self.len >= self.capacity {
            return false;
        }
        let tag = tag(hash);
        let mut at = self.home(tag);
        while self.places[at] != Place::EMPTY {
            at = self.after(at);
        }
        self.places[at] = Place { tag, entry: entry + 1 }.pack();
        self.len += 1;
        true
    }

    /// Takes out the key with this hash that leads to `entry`. False when there is none.
    pub fn remove(&mut self, hash: u64, entry: u32) -> bool {
        let mut hole = self.home(tag(hash));
        while Place::unpack(self.places[hole]).entry != entry + 1 {
            if self.places[hole] == Place::EMPTY {
                return false;
            }
            hole = self.after(hole);
        }
        self.close(hole);
        self.len -= 1;
        true
    }

    /// Moves later keys of the run back, so that each stays reachable from its home.
    fn close(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut at = hole;
        loop {
            at = self.after(at);
            if self.places[at] == Place::EMPTY {
                break;
            }
            let place = Place::unpack(self.places[at]);
            let from_home = at.wrapping_sub(self.home(place.tag)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.places[hole] = place.pack();
                hole = at;
            }
        }
        self.places[hole] = Place::EMPTY;
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.places.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn siphash_depends_on_every_word_and_on_the_seed() {
        let seed = HashSeed(1, 2);
        let base = seed.hash([1, 2, 3]);
        assert_eq!(base, seed.hash([1, 2, 3]));
        for other in [[0, 2, 3], [1, 0, 3], [1, 2, 0]] {
            assert_ne!(base, seed.hash(other));
        }
        assert_ne!(base, HashSeed(1, 3).hash([1, 2, 3]));
        assert_ne!(seed.hash([0, 0]), seed.hash([0, 0, 0]));
    }

    #[test]
    fn siphash_1_3_agrees_with_the_standard_library() {
        fn reference(words: &[u64]) -> u64 {
            use std::hash::Hasher as _;
            // `DefaultHasher` is SipHash-1-3 with a zero key.
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            hasher.finish()
        }
        let seed = HashSeed(0, 0);
        assert_eq!(seed.hash([7, 0xdead_beef_0102_0304]), reference(&[7, 0xdead_beef_0102_0304]));
        assert_eq!(seed.hash([1, 2, 3, 4, 5]), reference(&[1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_full_arena_refuses_and_freed_indices_are_used_again() {
        let mut arena = Arena::new(2);
        assert_eq!(
            (arena.insert('a'), arena.insert('b'), arena.insert('c')),
            (Some(0), Some(1), None)
        );
        assert_eq!(arena.remove(0), Some('a'));
        assert_eq!(arena.remove(0), None);
        assert_eq!(arena.insert('d'), Some(0));
        assert!(arena.is_full());
        assert_eq!(arena.iter_from(1).collect::<Vec<_>>(), [(1, &'b')]);
        assert_eq!(arena.iter_from(9).count(), 0);
    }

    #[test]
    fn a_full_index_refuses_and_still_finds_an_end() {
        let mut index = HashIndex::new(4);
        for entry in 0..4 {
            assert!(index.insert(5 << 32, entry));
        }
        assert!(!index.insert(5 << 32, 4));
        assert_eq!(index.find(5 << 32, |_| false), None);
        assert!(!index.remove(5 << 32, 9));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_index_behaves_like_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u64..24, 0u32..8), 1..200),
        ) {
            // Few distinct hashes, so that runs grow, meet and wrap around.
            let hash = |key: u64| (key % 9 * 5) << 32 | key;
            let mut index = HashIndex::new(16);
            let mut model = BTreeMap::new();
            for (insert, key, salt) in steps {
                let entry = key as u32 * 8 + salt;
                if insert && !model.contains_key(&key) {
                    let fits = index.insert(hash(key), entry);
                    prop_assert_eq!(fits, model.len() < 16);
                    if fits {
                        model.insert(key, entry);
                    }
                } else if let Some(entry) = model.remove(&key) {
                    prop_assert!(index.remove(hash(key), entry));
                }
                for key in 0..24 {
                    let found = index.find(hash(key), |e| u64::from(e / 8) == key);
                    prop_assert_eq!(found, model.get(&key).copied());
                }
                prop_assert_eq!(index.len(), model.len());
            }
        }
    }
}
