//! Inner packets that the far end of a tunnel had to split, because the path is too small even for
//! the 1280 bytes that IPv6 demands.

use std::time::Duration;

use crate::id::PeerIndex;
use crate::time::Instant;
use crate::wire::Split;

/// Packets under assembly, all peers together. The oldest gives way: its other part is late.
const SLOTS: usize = 32;
/// Of these, places that one peer may have while they are live; then its own oldest gives way.
const SHARE: usize = 16;
/// Longest inner packet that may arrive in parts.
const PACKET_MAX: usize = 2_048;
/// How long the parts may lie apart.
const LIFETIME: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Slot {
    owner: Option<(PeerIndex, u16)>,
    parts: u8,
    have: u8,
    since: Instant,
    lengths: [usize; Split::MAX_PARTS as usize],
    bytes: Vec<u8>,
}

/// Packets under assembly.
#[derive(Debug)]
pub(crate) struct Reassembly {
    slots: Vec<Slot>,
}

impl Reassembly {
    pub(crate) fn new() -> Self {
        let bytes = || Vec::with_capacity(PACKET_MAX * Split::MAX_PARTS as usize);
        Self { slots: (0..SLOTS).map(|_| Slot { bytes: bytes(), ..Slot::default() }).collect() }
    }

    /// Takes one part; the whole packet when it was the last one missing. Each part has its own
    /// stretch of the slot, so that they may come in any order.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        split: Split,
        body: &[u8],
        packet: &mut Vec<u8>,
    ) -> bool {
        if body.len() > PACKET_MAX {
            return false;
        }
        let slot = self.slot_for(now, peer, split);
        if slot.parts != split.parts || slot.have & (1 << split.part) != 0 {
            return false;
        }
        let part = usize::from(split.part);
        slot.bytes[part * PACKET_MAX..][..body.len()].copy_from_slice(body);
        slot.lengths[part] = body.len();
        slot.have |= 1 << split.part;
        if slot.have.count_ones() < u32::from(split.parts) {
            return false;
        }
        packet.clear();
        for part in 0..usize::from(split.parts) {
            let start = part * PACKET_MAX;
            packet.extend_from_slice(&slot.bytes[start..start + slot.lengths[part]]);
        }
        slot.owner = None;
        packet.len() <= PACKET_MAX
    }

    fn slot_for(&mut self, now: Instant, peer: PeerIndex, split: Split) -> &mut Slot {
        let owner = (peer, split.packet);
        let live = |slot: &Slot| slot.owner.is_some() && now - slot.since < LIFETIME;
        let found = self.slots.iter().position(|slot| slot.owner == Some(owner) && live(slot));
        let index = found.unwrap_or_else(|| {
            let own = |slot: &Slot| slot.owner.is_some_and(|(owner, _)| owner == peer);
            let has = self.slots.iter().filter(|slot| own(slot) && live(slot)).count();
            let may = |i: &usize| has < SHARE || own(&self.slots[*i]);
            let oldest =
                (0..SLOTS).filter(may).min_by_key(|&i| (live(&self.slots[i]), self.slots[i].since));
            oldest.unwrap_or(0)
        });
        let slot = &mut self.slots[index];
        if found.is_none() {
            slot.owner = Some(owner);
            slot.parts = split.parts;
            slot.have = 0;
            slot.since = now;
            slot.bytes.resize(PACKET_MAX * Split::MAX_PARTS as usize, 0);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(5_000_000);
    const PEER: PeerIndex = PeerIndex(1);

    fn part(packet: u16, part: u8) -> Split {
        Split { packet, part, parts: 2 }
    }

    #[test]
    fn parts_in_any_order_make_the_packet() {
        let (mut table, mut packet) = (Reassembly::new(), Vec::new());
        assert!(!table.push(NOW, PEER, part(1, 1), b"def", &mut packet));
        assert!(!table.push(NOW, PEER, part(2, 0), b"other", &mut packet));
        assert!(!table.push(NOW, PEER, part(1, 1), b"again", &mut packet));
        assert!(table.push(NOW, PEER, part(1, 0), b"abc", &mut packet));
        assert_eq!(packet, b"abcdef");
    }

    #[test]
    fn late_parts_and_other_peers_parts_do_not_mix() {
        let (mut table, mut packet) = (Reassembly::new(), Vec::new());
        assert!(!table.push(NOW, PEER, part(1, 0), b"abc", &mut packet));
        assert!(!table.push(NOW, PeerIndex(2), part(1, 1), b"def", &mut packet));
        let late = NOW + LIFETIME;
        assert!(!table.push(late, PEER, part(1, 1), b"def", &mut packet));
    }

    #[test]
    fn one_peers_flood_leaves_room_for_others() {
        let (mut table, mut packet) = (Reassembly::new(), Vec::new());
        assert!(!table.push(NOW, PeerIndex(2), part(1, 0), b"abc", &mut packet));
        for id in 0..1_000 {
            assert!(!table.push(NOW, PEER, part(id, 0), b"flood", &mut packet));
        }
        assert!(table.push(NOW, PeerIndex(2), part(1, 1), b"def", &mut packet));
        assert_eq!(packet, b"abcdef");
    }

    #[test]
    fn a_flood_of_first_parts_takes_a_bounded_place() {
        let (mut table, mut packet) = (Reassembly::new(), Vec::new());
        for id in 0..10_000 {
            assert!(!table.push(NOW, PEER, part(id, 0), &[0; 1_000], &mut packet));
        }
        assert_eq!(table.slots.len(), SLOTS);
        assert!(!table.push(NOW, PEER, part(1, 1), &[0; PACKET_MAX + 1], &mut packet));
    }
}
