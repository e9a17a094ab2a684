//! How often each path may be probed, so that all probes together stay within a budget.

use std::time::Duration;

/// What probing may cost: `probing.budget` of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct ProbeBudget {
    bits_per_second: u64,
    bytes_per_interval: u64,
}

/// The intervals that fit a [`ProbeBudget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// For paths that carry traffic.
    pub in_use: Duration,
    /// For all other links.
    pub idle: Duration,
}

impl Intervals {
    /// The fastest probing of a path in use.
    pub const IN_USE_MIN: Duration = Duration::from_millis(250);
    /// Up to this interval an outage of a path in use is found within a second.
    pub const IN_USE_GOOD: Duration = Duration::from_millis(450);
    /// The fastest probing of an idle link.
    pub const IDLE_MIN: Duration = Duration::from_secs(1);
    /// How often idle links are probed where the budget allows.
    pub const IDLE_GOOD: Duration = Duration::from_secs(4);
}

impl ProbeBudget {
    /// What one path costs us in an interval when each end's probe rides on its answer to the other
    /// one where that is due: on average one and a half datagrams of 86 bytes, IP and UDP counted.
    pub const RIDING_BYTES: u64 = 129;
    /// The same when probes and answers are always separate: a probe and an answer of 80 bytes.
    pub const SEPARATE_BYTES: u64 = 160;
    /// The share for advertisements, handshakes and the quick probes of outages, in percent.
    const RESERVE: u64 = 20;

    /// A budget of `bits_per_second`, of which each path takes `bytes_per_interval` in its interval.
    pub const fn new(bits_per_second: u64, bytes_per_interval: u64) -> Self {
        Self { bits_per_second, bytes_per_interval }
    }

    /// The intervals for so many paths in use and idle links.
    ///
    /// First paths in use get what finds an outage within a second and idle links about 4 s; what
    /// is left makes paths in use, then idle links faster. What is missing stretches both alike.
    pub fn intervals(&self, in_use: usize, idle: usize) -> Intervals {
        let rate = (self.bits_per_second.max(8) * (100 - Self::RESERVE)) as f64 / 800.0;
        let cost_in_use = (in_use as u64 * self.bytes_per_interval) as f64;
        let cost_idle = (idle as u64 * self.bytes_per_interval) as f64;
        let wanted = cost_in_use / Intervals::IN_USE_GOOD.as_secs_f64()
            + cost_idle / Intervals::IDLE_GOOD.as_secs_f64();
        if wanted > rate {
            let stretch = (wanted / rate).min(10_000.0);
            return Intervals {
                in_use: Intervals::IN_USE_GOOD.mul_f64(stretch),
                idle: Intervals::IDLE_GOOD.mul_f64(stretch),
            };
        }
        let for_in_use = rate - cost_idle / Intervals::IDLE_GOOD.as_secs_f64();
        let in_use_s = quotient(cost_in_use, for_in_use)
            .clamp(Intervals::IN_USE_MIN.as_secs_f64(), Intervals::IN_USE_GOOD.as_secs_f64());
        let for_idle = rate - cost_in_use / in_use_s;
        let idle_s = quotient(cost_idle, for_idle)
            .clamp(Intervals::IDLE_MIN.as_secs_f64(), Intervals::IDLE_GOOD.as_secs_f64());
        Intervals {
            in_use: Duration::from_secs_f64(in_use_s),
            idle: Duration::from_secs_f64(idle_s),
        }
    }

    /// Bits per second that probing takes at these intervals.
    pub fn spent(&self, in_use: usize, idle: usize, intervals: Intervals) -> f64 {
        let bits = (8 * self.bytes_per_interval) as f64;
        bits * (in_use as f64 / intervals.in_use.as_secs_f64()
            + idle as f64 / intervals.idle.as_secs_f64())
    }
}

fn quotient(cost: f64, rate: f64) -> f64 {
    if cost <= 0.0 { 0.0 } else { cost / rate.max(1e-6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_peers_are_probed_at_full_speed() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::SEPARATE_BYTES);
        let intervals = budget.intervals(3, 2);
        assert_eq!(intervals.in_use, Intervals::IN_USE_MIN);
        assert_eq!(intervals.idle, Intervals::IDLE_MIN);
        assert_eq!(budget.intervals(0, 0).idle, Intervals::IDLE_MIN);
    }

    #[test]
    fn fifty_nodes_with_eight_paths_in_use_fit_33_kbit() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::RIDING_BYTES);
        let intervals = budget.intervals(8, 41);
        assert!(intervals.in_use <= Duration::from_millis(550), "{intervals:?}");
        assert!(intervals.idle <= Duration::from_millis(4_800), "{intervals:?}");
        assert!(budget.spent(8, 41, intervals) <= 33_000.0 * 0.8 + 1.0);
    }

    #[test]
    fn the_budget_holds_for_any_number_of_paths() {
        for bytes in [ProbeBudget::RIDING_BYTES, ProbeBudget::SEPARATE_BYTES] {
            let budget = ProbeBudget::new(33_000, bytes);
            for in_use in 0..400 {
                for idle in [0, 1, 7, 49, 399] {
                    let spent = budget.spent(in_use, idle, budget.intervals(in_use, idle));
                    assert!(spent <= 33_000.0, "{in_use} {idle}: {spent}");
                }
            }
        }
    }

    #[test]
    fn more_paths_never_make_probing_faster() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::RIDING_BYTES);
        let mut last = budget.intervals(1, 1);
        for in_use in 1..100 {
            let next = budget.intervals(in_use, 40);
            assert!(in_use == 1 || next.in_use >= last.in_use);
            last = next;
        }
    }
}
