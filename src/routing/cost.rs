//! What a path costs under each metric. Lower is better; the units differ by metric.

use std::time::Duration;

use crate::float;
use crate::metric::{LinkReport, Metric};

/// The constants of the cost functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostConfig {
    /// Latency metric: time added for each unit of loss, so that 1 % adds a hundredth of it.
    pub loss_penalty: Duration,
    /// Latency metric: loss up to this fraction is within the noise of measurement and free.
    pub free_loss: f64,
    /// Throughput metric: least loss assumed. With none lost of a hundred samples, the formula
    /// would promise infinity.
    pub least_loss: f64,
}

impl Default for CostConfig {
    fn default() -> Self {
        Self { loss_penalty: Duration::from_secs(4), free_loss: 0.01, least_loss: 0.005 }
    }
}

impl CostConfig {
    /// The cost of a path with this report.
    ///
    /// - `Latency`: round trip in microseconds, and the penalty for loss.
    /// - `Loss`: the fraction lost; among equals 100 ms of round trip weigh as 0.1 %.
    /// - `App`: as latency; what applications say is no report.
    /// - `Throughput`: the inverse of the paper's score `sqrt(1.5) / (rtt * sqrt(p))`, in seconds.
    pub fn cost(&self, metric: Metric, report: &LinkReport) -> f64 {
        let loss = report.loss.fraction();
        let rtt_us = f64::from(report.latency_us);
        match metric {
            Metric::Latency | Metric::App => {
                let penalised = (loss - self.free_loss).max(0.0);
                rtt_us + penalised * self.loss_penalty.as_micros() as f64
            }
            Metric::Loss => loss + rtt_us * 1e-8,
            Metric::Throughput => 1.0 / self.score(report),
        }
    }

    /// The throughput score in packets per second.
    pub fn score(&self, report: &LinkReport) -> f64 {
        let rtt = f64::from(report.latency_us.max(1)) * 1e-6;
        let loss = report.loss.fraction().max(self.least_loss);
        1.5f64.sqrt() / (rtt * loss.sqrt())
    }
}

/// What a rate is in packets of some 1,200 bytes, to be compared with a score; never zero.
pub(super) fn packets_per_second(kbit: u32) -> f64 {
    f64::from(kbit.max(1)) * 1_000.0 / 8.0 / 1_200.0
}

/// A number in `0.0..1.0` from the identities of a node, a destination and a relay. Each node has
/// its own order of near-equal relays, so that not all of them move to the same one.
pub(super) fn preference(seed: u64, destination: u32, relay: u32) -> f64 {
    let mut x = seed ^ (u64::from(destination) << 32 | u64::from(relay));
    // The finalizer of splitmix64.
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// The preference for a relay that bears only so much of what the best one does: of many nodes, as
/// many prefer it as it bears (weighted rendezvous hashing).
pub(super) fn weighted(preference: f64, share: f64) -> f64 {
    if share >= 1.0 {
        return preference;
    }
    1.0 - float::pow(1.0 - preference, 1.0 / share.max(1e-3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Liveness, Loss};

    fn report(rtt_ms: u32, loss: f64) -> LinkReport {
        LinkReport {
            latency_us: rtt_ms * 1000,
            jitter_us: 0,
            loss: Loss::from_fraction(loss),
            state: Liveness::Up,
        }
    }

    #[test]
    fn a_lossy_fast_path_is_not_fast() {
        let costs = CostConfig::default();
        let fast = costs.cost(Metric::Latency, &report(20, 0.05));
        let clean = costs.cost(Metric::Latency, &report(100, 0.0));
        assert!(clean < fast);
        assert!(
            costs.cost(Metric::Latency, &report(20, 0.005))
                < costs.cost(Metric::Latency, &report(25, 0.0))
        );
    }

    #[test]
    fn loss_counts_first_and_latency_decides_among_equals() {
        let costs = CostConfig::default();
        let cost = |rtt, loss| costs.cost(Metric::Loss, &report(rtt, loss));
        assert!(cost(300, 0.0) < cost(10, 0.01));
        assert!(cost(10, 0.01) < cost(20, 0.01));
    }

    #[test]
    fn the_score_is_the_papers() {
        let costs = CostConfig::default();
        let score = costs.score(&report(100, 0.04));
        assert!((score - 1.5f64.sqrt() / (0.1 * 0.2)).abs() / score < 1e-3);
        assert!(costs.score(&report(0, 0.0)).is_finite());
        assert!(
            costs.cost(Metric::Throughput, &report(50, 0.01))
                < costs.cost(Metric::Throughput, &report(20, 0.2))
        );
    }

    #[test]
    fn preferences_differ_by_node_and_spread() {
        let mean = (0..1000).map(|relay| preference(7, 1, relay)).sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        let first = |seed| {
            (0..10).min_by(|a, b| preference(seed, 1, *a).total_cmp(&preference(seed, 1, *b)))
        };
        let choices: std::collections::BTreeSet<_> = (0..50).map(first).collect();
        assert!(choices.len() >= 5, "{choices:?}");
    }

    #[test]
    fn as_many_prefer_a_relay_as_it_bears() {
        let shares = [1.0, 0.5, 0.25, 0.0];
        let mut chosen = [0; 4];
        for seed in 0..7_000 {
            let rank = |relay: &usize| weighted(preference(seed, 1, *relay as u32), shares[*relay]);
            let best = (0..4).min_by(|a, b| rank(a).total_cmp(&rank(b))).unwrap();
            chosen[best] += 1;
        }
        assert!((3_850..4_150).contains(&chosen[0]), "{chosen:?}");
        assert!((1_900..2_100).contains(&chosen[1]) && chosen[3] < 20, "{chosen:?}");
    }
}
