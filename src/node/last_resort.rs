//! Where packets go when no path is known to be usable: what was said to be dead may only be deaf.
//!
//! An outage is declared because no answers come. When only the way back is dead, what we send
//! arrives all the same; and on a path that loses most, something does. So the least bad path is tried
//! for a while, with a bounded rate. Beyond that hosts are told that the peer cannot be reached.

use std::time::Duration;

use super::Node;
use super::bucket::Bucket;
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::path::Path;
use crate::routing::Demand;
use crate::time::Instant;

/// What may be sent so, to all peers together.
const RATE_BPS: u64 = 1_000_000;
/// For so long after the last path was lost. Hosts are not told meanwhile.
const LASTS: Duration = Duration::from_secs(5);

pub(super) const fn bucket(now: Instant) -> Bucket {
    Bucket::new(now, Some(RATE_BPS))
}

impl Node {
    /// The path for `bytes` to a peer that no path is known to reach, if they may try.
    pub(super) fn last_resort(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        demand: Demand,
        bytes: usize,
    ) -> Option<Path> {
        if self.router.path(peer, Metric::Latency).is_some() {
            // There is a way, which is closed to the class.
            return None;
        }
        let (path, since) = self.router.last_resort(peer, demand)?;
        let may = now - since < LASTS && self.last_resort.take(now, bytes);
        may.then_some(path)
    }
}
