//! What is due when, and the time that passes.

use std::cmp::Ordering;
use std::time::Duration;

use super::{Arriving, Happening, NodeNumber, Simulator};
use crate::time::Instant;

/// What is due when: an entry of the heap, which moves them around a lot.
#[derive(Clone, Copy)]
pub(super) struct Scheduled {
    at: Instant,
    /// Order of arising.
    key: u64,
    /// Place in [`Simulator::happenings`].
    place: u32,
}

impl Ord for Scheduled {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.key).cmp(&(self.at, self.key))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Scheduled {}

impl Simulator {
    /// Runs for `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.queue.peek().is_some_and(|next| next.at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs until `end`, or until a node has delivered something, if that is earlier.
    pub fn run_to_delivery(&mut self, end: Instant) {
        while self.deliveries.is_empty() && self.queue.peek().is_some_and(|next| next.at <= end) {
            self.step();
        }
        if self.deliveries.is_empty() {
            self.now = self.now.max(end);
        }
    }

    /// The next event comes true.
    fn step(&mut self) {
        let Some(next) = self.queue.pop() else { return };
        self.now = self.now.max(next.at);
        if let Some(happening) = self.take(next.place) {
            self.carry_out(happening);
        }
    }

    fn take(&mut self, place: u32) -> Option<Happening> {
        self.free_places.push(place);
        self.happenings[place as usize].take()
    }

    /// The next event, if it is a datagram that comes to `number` at this very instant.
    pub(super) fn next_with_it(&mut self, number: NodeNumber) -> Option<Arriving> {
        let next = self.queue.peek().filter(|next| next.at <= self.now)?;
        let place = next.place;
        match &self.happenings[place as usize] {
            Some(Happening::Datagram { node, .. }) if *node == number => {}
            _ => return None,
        }
        self.queue.pop();
        match self.take(place) {
            Some(Happening::Datagram { arriving, .. }) => Some(arriving),
            _ => None,
        }
    }

    pub(super) fn schedule(&mut self, at: Instant, happening: Happening) {
        let key = self.next;
        self.next += 1;
        let place = match self.free_places.pop() {
            Some(place) => {
                self.happenings[place as usize] = Some(happening);
                place
            }
            None => {
                self.happenings.push(Some(happening));
                (self.happenings.len() - 1) as u32
            }
        };
        self.queue.push(Scheduled { at, key, place });
    }
}
