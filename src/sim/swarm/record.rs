//! A run as one number, to be compared with the same run elsewhere.

use blake2::{Blake2s256, Digest as _};

use crate::sim::{Delivery, Simulator};

/// What the nodes wrote to their TUNs, and when.
#[derive(Default)]
pub(super) struct Record(Blake2s256);

impl Record {
    pub(super) fn take(&mut self, delivery: &Delivery) {
        self.0.update(delivery.at.as_micros().to_le_bytes());
        self.0.update([delivery.node as u8]);
        self.0.update(&delivery.packet);
    }

    /// A digest of all that was taken, and of the traffic that the nodes counted.
    pub(super) fn digest(&self, simulator: &Simulator) -> u64 {
        let mut digest = self.0.clone();
        for node in (0..simulator.len()).filter_map(|number| simulator.node(number)) {
            let counted = node.counters();
            for tally in [counted.underlay_rx, counted.underlay_tx, counted.relayed, counted.copies]
            {
                digest.update(tally.packets.to_le_bytes());
                digest.update(tally.bytes.to_le_bytes());
            }
        }
        digest.update(simulator.carried().to_le_bytes());
        digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
