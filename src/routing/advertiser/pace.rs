//! How often advertisements may go out, and what is worth one.

use std::time::Duration;

use crate::metric::{LinkReport, Liveness};

/// The pace of advertisements.
#[derive(Clone, Copy, Debug)]
pub struct AdvertiserConfig {
    /// Changes are published at most so often, unless a link's liveness changes.
    pub publish_pause: Duration,
    /// A peer that knows everything hears from us so often.
    pub refresh: Duration,
    /// Every so many refreshes is a full advertisement.
    pub full_every: u32,
    /// What is not acknowledged is repeated after this time, doubling up to the second one.
    pub retry: (Duration, Duration),
    /// Most entries in one part.
    pub part_entries: usize,
    /// Bytes per second for all that is not about liveness.
    pub bytes_per_second: f64,
    /// A round trip has changed when it did by this fraction and by 2 ms.
    pub latency_change: f64,
    /// Loss has changed when it did by this fraction of all packets.
    pub loss_change: f64,
}

impl AdvertiserConfig {
    /// Headers of a datagram with one advertisement over IPv4: IP, UDP, tunnel, frame.
    pub(super) const OVERHEAD: usize = 28 + 32 + 23;
    /// An entry's bytes.
    pub(super) const ENTRY: usize = 11;
    /// Bytes that may be sent at once when none were for a while.
    pub(super) const BURST_SECONDS: f64 = 20.0;
    /// Seconds for which nothing but changes of liveness is sent when these cost too much: much less
    /// than others keep what they were told.
    pub(super) const DEBT_SECONDS: f64 = 30.0;
    /// Full sets in one refresh period that a peer gets without regard to credit.
    pub(super) const HURRIED_MAX: u32 = 5;

    /// For `peers` peers, of the configured `probing.budget` the eighth part.
    pub fn for_budget(bits_per_second: u64, peers: usize) -> Self {
        let bytes_per_second = bits_per_second.max(64) as f64 / 64.0;
        // Refreshes take a third of it, full ones another.
        let round = peers as f64 * Self::OVERHEAD as f64;
        let full_round = peers as f64 * (Self::OVERHEAD + peers * Self::ENTRY) as f64;
        let refresh_s = (3.0 * round / bytes_per_second).clamp(60.0, 600.0);
        let full_s = 3.0 * full_round / bytes_per_second;
        Self {
            publish_pause: Duration::from_secs(1),
            refresh: Duration::from_secs_f64(refresh_s),
            full_every: ((full_s / refresh_s).ceil() as u32).max(10),
            retry: (Duration::from_millis(300), Duration::from_secs(5)),
            part_entries: 100,
            bytes_per_second,
            latency_change: 0.1,
            loss_change: 0.01,
        }
    }

    /// How long others should keep what we advertise: four refreshes.
    pub fn expiry(&self) -> Duration {
        self.refresh * 4
    }

    /// True when the difference is worth a message. What a dead link was like is not.
    pub(super) fn differs(&self, published: &LinkReport, measured: &LinkReport) -> bool {
        if published.state == Liveness::Down && measured.state == Liveness::Down {
            return false;
        }
        let (before, after) = (f64::from(published.latency_us), f64::from(measured.latency_us));
        let step = (after - before).abs();
        let loss = (published.loss.fraction() - measured.loss.fraction()).abs();
        published.state != measured.state
            || (step >= 2_000.0 && step >= before * self.latency_change)
            || loss >= self.loss_change
    }
}

/// True when a link came up or went down.
pub(super) fn turned(published: &LinkReport, measured: &LinkReport) -> bool {
    (published.state == Liveness::Down) != (measured.state == Liveness::Down)
}
