//! What the node counts: traffic, and the reason for every packet that ends here.
//!
//! A packet's fate is a value. Whoever refuses one returns a [`DropReason`]; the entry points of
//! the node fold it into [`Counters`]. Plain integers: the data path runs on one thread, and the
//! control thread reads published snapshots.

mod drop_reason;

pub use drop_reason::DropReason;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of packets (segments of a super-packet count one each).
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds `packets` with `bytes` in all.
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// Everything the node counts.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Read from the TUN.
    pub tun_rx: Tally,
    /// Written to the TUN.
    pub tun_tx: Tally,
    /// Received from the underlay.
    pub underlay_rx: Tally,
    /// Sent to the underlay, relayed datagrams included.
    pub underlay_tx: Tally,
    /// Relayed for others.
    pub relayed: Tally,
    /// Second copies of inner packets that were sent over a second path.
    pub copies: Tally,
    /// Packets of redundant classes that went once, for want of budget.
    pub copies_refused: u64,
    /// Datagrams that had to wait for room in a socket, also those that never left.
    pub waited: Tally,
    /// Of what was dropped, messages of the node's own that could not be sent: no packets of anybody.
    pub messages_unsent: u64,
    drops: [u64; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            tun_rx: Tally::default(),
            tun_tx: Tally::default(),
            underlay_rx: Tally::default(),
            underlay_tx: Tally::default(),
            relayed: Tally::default(),
            copies: Tally::default(),
            copies_refused: 0,
            waited: Tally::default(),
            messages_unsent: 0,
            drops: [0; DropReason::COUNT],
        }
    }
}

impl Counters {
    /// Counts one dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts a message of the node's own that could not be sent.
    pub fn drop_message(&mut self, reason: DropReason) {
        self.drop(reason);
        self.messages_unsent += 1;
    }

    /// Counts `packets` dropped packets.
    pub fn drop_many(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
    }

    /// How many packets ended for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every reason with its count, in the order of declaration.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_reason() {
        let mut counters = Counters::default();
        counters.drop(DropReason::Replay);
        counters.drop_many(DropReason::Replay, 2);
        assert_eq!(counters.dropped(DropReason::Replay), 3);
        assert_eq!(counters.drops().map(|(_, n)| n).sum::<u64>(), 3);
    }

    #[test]
    fn names_are_unique_snake_case() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
