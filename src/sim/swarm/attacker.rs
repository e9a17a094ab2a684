//! An attacker who hears everything, and may send to anybody in anybody's name.
//!
//! It acts in the storm only: whoever carries lost datagrams over a dead link later makes that link
//! seem alive, and no bound for leaving it holds.

use std::net::SocketAddr;
use std::time::Duration;

use super::world::World;
use crate::id::UplinkIndex;
use crate::sim::Tapped;

/// Datagrams that the attacker keeps.
const LETTERS_MAX: usize = 300;
/// Longer than any datagram is under way.
const UNDER_WAY_MAX: Duration = Duration::from_secs(2);

impl World<'_> {
    /// The attacker hears everything. It never overtakes what it heard: who is faster than the
    /// original can spoil a relayed datagram, whose relay tag does not cover the payload.
    pub(super) fn listen(&mut self) {
        let now = self.simulator.now();
        let tapped = self.simulator.take_tapped();
        self.under_way.extend(tapped.into_iter().map(|tapped| (now, tapped)));
        while self.under_way.front().is_some_and(|(at, _)| now - *at > UNDER_WAY_MAX) {
            let Some((_, tapped)) = self.under_way.pop_front() else { break };
            let at = self.rng.below(LETTERS_MAX as u32) as usize;
            match self.letters.get_mut(at) {
                Some(place) => *place = tapped,
                None => self.letters.push(tapped),
            }
        }
    }

    /// Replays, changes, cuts and splices what was heard, and invents.
    pub(super) fn attack(&mut self) {
        if self.letters.is_empty() || !self.rng.chance(self.plan.attacker) {
            return;
        }
        let letter = self.letter();
        let mut bytes = letter.bytes;
        match self.rng.below(6) {
            0 => {
                let bit = self.rng.below(bytes.len() as u32 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(1 + self.rng.below(bytes.len() as u32) as usize),
            2 => {
                let other = self.letter().bytes;
                let at = self.rng.below(bytes.len().min(other.len()) as u32) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at..]);
            }
            3 => {
                let from = self.rng.below(bytes.len() as u32) as usize;
                self.rng.fill(&mut bytes[from..]);
            }
            _ => {}
        }
        let destination = (0..self.plan.sites).find_map(|site| {
            let uplink = (0..self.plan.uplinks)
                .find(|&i| self.plan.underlay(site, i) == letter.destination.ip());
            uplink.map(|uplink| (usize::from(site), UplinkIndex(uplink)))
        });
        let Some((node, uplink)) = destination else { return };
        let source = if self.rng.chance(0.5) {
            letter.source
        } else {
            SocketAddr::from(([203, 0, 113, 66], self.rng.next_u32() as u16))
        };
        if !bytes.is_empty() {
            self.simulator.inject(node, uplink, source, &bytes);
        }
    }

    fn letter(&mut self) -> Tapped {
        let at = self.rng.below(self.letters.len() as u32) as usize;
        self.letters[at].clone()
    }
}
