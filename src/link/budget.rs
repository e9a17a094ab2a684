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
    /// The slowest at which that is still so.
    pub const IN_USE_MAX: Duration = Duration::from_millis(600);
    /// How often idle links are probed where the budget allows: what is sent after a silence goes
    /// twice, so that faster is of no use to anybody.
    pub const IDLE_GOOD: Duration = Duration::from_secs(4);
    /// A NAT on the way may forget who was silent for 30 s (RFC 4787 recommends minutes, many do
    /// not); an interval is up to a tenth longer than told, and a probe may be lost.
    pub const IDLE_MAX: Duration = Duration::from_secs(22);
}

impl ProbeBudget {
    /// What one path costs us in an interval when each end's probe rides on its answer to the other
    /// one where that is due: on average one and a half datagrams of 86 bytes, IP and UDP counted.
    pub const RIDING_BYTES: u64 = 129;
    /// The same when probes and answers are always separate: a probe and an answer of 80 bytes.
    pub const SEPARATE_BYTES: u64 = 160;
    /// The share for advertisements, handshakes and the quick probes of outages, in percent.
    const RESERVE: u64 = 20;
    /// The same where paths in use cannot be probed as often as they should be.
    const RESERVE_LEAST: u64 = 15;
    /// Nothing is probed more rarely, in seconds.
    const LONGEST_S: f64 = 3_600.0;

    /// A budget of `bits_per_second`, of which each path takes `bytes_per_interval` in its interval.
    pub const fn new(bits_per_second: u64, bytes_per_interval: u64) -> Self {
        Self { bits_per_second, bytes_per_interval }
    }

    /// The intervals for so many paths in use and idle links.
    ///
    /// Paths in use get what finds an outage within a second and idle links 4 s; what is left makes
    /// paths in use faster. What is missing stretches both alike, as long as outages of paths in use
    /// are found within a second. Beyond that each has half of the budget, and who needs less leaves
    /// the rest to the other; but no link waits longer than [`Intervals::IDLE_MAX`], which with more
    /// than some 600 links costs more than 33 kbit/s.
    pub fn intervals(&self, in_use: usize, idle: usize) -> Intervals {
        let less = |reserve: u64| (self.bits_per_second.max(8) * (100 - reserve)) as f64 / 800.0;
        let rate = less(Self::RESERVE);
        let cost_in_use = (in_use as u64 * self.bytes_per_interval) as f64;
        let cost_idle = (idle as u64 * self.bytes_per_interval) as f64;
        let [min, good, max] =
            [Intervals::IN_USE_MIN, Intervals::IN_USE_GOOD, Intervals::IN_USE_MAX]
                .map(|interval| interval.as_secs_f64());
        let idle_good = Intervals::IDLE_GOOD.as_secs_f64();
        let seconds = |in_use: f64, idle: f64| Intervals {
            in_use: Duration::from_secs_f64(in_use),
            idle: Duration::from_secs_f64(idle),
        };
        let stretch = (cost_in_use / good + cost_idle / idle_good) / rate;
        if stretch <= 1.0 {
            let for_in_use = rate - cost_idle / idle_good;
            return seconds(quotient(cost_in_use, for_in_use).clamp(min, good), idle_good);
        }
        if stretch <= max / good {
            return seconds(good * stretch, idle_good * stretch);
        }
        let rate = less(Self::RESERVE_LEAST);
        let idle_max = idle_good * max / good;
        let wanted = [cost_in_use / max, cost_idle / idle_max];
        let for_idle = match wanted.map(|wanted| wanted <= rate / 2.0) {
            [true, _] => rate - wanted[0],
            [_, true] => wanted[1],
            _ => rate / 2.0,
        };
        let longest = Intervals::IDLE_MAX.as_secs_f64();
        let idle = quotient(cost_idle, for_idle).clamp(idle_max, longest);
        let for_in_use = (rate - cost_idle / idle).max(rate / 8.0);
        seconds(quotient(cost_in_use, for_in_use).clamp(max, Self::LONGEST_S), idle)
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
        assert_eq!(intervals.idle, Intervals::IDLE_GOOD);
        assert_eq!(budget.intervals(0, 0).idle, Intervals::IDLE_GOOD);
    }

    #[test]
    fn fifty_nodes_with_eight_paths_in_use_fit_33_kbit() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::RIDING_BYTES);
        let intervals = budget.intervals(8, 41);
        assert!(intervals.in_use <= Duration::from_millis(550), "{intervals:?}");
        assert!(intervals.idle <= Duration::from_millis(4_800), "{intervals:?}");
        assert!(budget.spent(8, 41, intervals) <= 33_000.0 * 0.80 + 1.0);
    }

    #[test]
    fn in_a_large_overlay_idle_links_wait_before_paths_in_use_do() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::RIDING_BYTES);
        let four_hundred = budget.intervals(8, 391);
        assert!(four_hundred.in_use < Intervals::IN_USE_MAX * 3 / 2, "{four_hundred:?}");
        assert!(four_hundred.idle > Intervals::IDLE_GOOD * 5, "{four_hundred:?}");
        assert!(four_hundred.idle <= Intervals::IDLE_MAX);
        assert!(budget.spent(8, 391, four_hundred) <= 33_000.0);
        assert_eq!(budget.intervals(8, 4_000).idle, Intervals::IDLE_MAX);
        for idle in [20, 41] {
            let relayed = budget.intervals(32, idle);
            assert!(relayed.idle < Intervals::IDLE_GOOD * 2, "{relayed:?}");
            assert!(relayed.in_use > Intervals::IN_USE_MAX);
            assert!(relayed.in_use < Intervals::IN_USE_MAX * 3, "{relayed:?}");
        }
    }

    #[test]
    fn paths_in_use_are_watched_as_closely_in_large_overlays() {
        let budget = ProbeBudget::new(33_000, ProbeBudget::RIDING_BYTES);
        for (nodes, in_use_ms, idle_ms) in
            [(50, 505, 4_500), (100, 601, 6_700), (200, 601, 14_000), (400, 860, 22_000)]
        {
            let found = budget.intervals(8, nodes - 9);
            let most = (Duration::from_millis(in_use_ms), Duration::from_millis(idle_ms));
            assert!(found.in_use <= most.0 && found.idle <= most.1, "{nodes}: {found:?}");
        }
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
