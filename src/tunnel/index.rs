//! Receiver indices: how a datagram finds its keys.
//!
//! The low bits of an index are a place in a table, the others are random. Looking one up is a
//! single load, and an index that was given up is not met again for long.

use crate::id::PeerIndex;
use crate::rng::Rng;

/// Indices that a peer may hold at a time: an initiation under way, and the next, the current and
/// two previous sets of keys. The table has room for more than that.
const PLACES_PER_PEER: usize = 8;

/// All our receiver indices, each with its peer.
#[derive(Clone, Debug)]
pub(super) struct IndexTable {
    places: Vec<Option<(u32, PeerIndex)>>,
}

impl IndexTable {
    pub(super) fn new(peers: usize) -> Self {
        let places = (peers * PLACES_PER_PEER).next_power_of_two().max(64);
        Self { places: vec![None; places] }
    }

    /// A new index for `peer`. `None` when the table is full, which the caller's limits rule out.
    pub(super) fn allocate(&mut self, rng: &mut Rng, peer: PeerIndex) -> Option<u32> {
        let mask = self.places.len() as u32 - 1;
        let random = rng.next_u32();
        for step in 0..self.places.len() as u32 {
            let index = random & !mask | random.wrapping_add(step) & mask;
            let place = &mut self.places[(index & mask) as usize];
            if place.is_none() {
                *place = Some((index, peer));
                return Some(index);
            }
        }
        None
    }

    pub(super) fn release(&mut self, index: u32) {
        let at = self.at(index);
        if self.places[at].is_some_and(|(held, _)| held == index) {
            self.places[at] = None;
        }
    }

    pub(super) fn peer(&self, index: u32) -> Option<PeerIndex> {
        self.places[self.at(index)].filter(|(held, _)| *held == index).map(|(_, peer)| peer)
    }

    fn at(&self, index: u32) -> usize {
        index as usize & (self.places.len() - 1)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.places.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_unique_until_released_and_the_table_is_bounded() {
        let mut rng = Rng::new([3; 32]);
        let mut table = IndexTable::new(2);
        let indices: Vec<_> = (0..64)
            .map(|i| table.allocate(&mut rng, PeerIndex(i % 2)).expect("a free place"))
            .collect();
        assert_eq!(table.allocate(&mut rng, PeerIndex(0)), None);
        for (i, &index) in indices.iter().enumerate() {
            assert_eq!(table.peer(index), Some(PeerIndex(i as u16 % 2)));
            assert_eq!(table.peer(index ^ 0x8000_0000), None);
        }
        table.release(indices[7] ^ 0x8000_0000);
        assert_eq!(table.held(), 64);
        table.release(indices[7]);
        assert_eq!(table.peer(indices[7]), None);
        assert!(table.allocate(&mut rng, PeerIndex(1)).is_some());
    }
}
