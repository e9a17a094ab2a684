//! What a path carries, by the dispersion of volleys: datagrams that leave back to back arrive as far
//! apart as the narrowest link takes for each (the packet-pair and packet-train methods).
//!
//! Traffic of others that gets between the datagrams makes the path look narrower, a queue behind the
//! narrowest link that holds up the first ones makes it look wider. The median of several volleys bears
//! some of both. Receivers that merge datagrams before they stamp them see no distance at all.

use std::time::Duration;

use crate::time::Instant;

/// What one volley says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispersion {
    /// Length of each datagram on the wire, IP header included.
    pub bytes: u32,
    /// How many left, and how many arrived.
    pub sent: u8,
    /// See there.
    pub arrived: u8,
    /// From the first arrival to the last one, in microseconds.
    pub span_us: u32,
}

impl Dispersion {
    /// What is faster cannot be told from the noise of clocks and interrupts: so much, or more.
    pub const MOST_KBIT: u32 = 1_000_000;

    /// The rate at which the volley arrived, in kbit/s, 1 at least. `None` when too little of it did,
    /// or more than was sent.
    pub fn rate_kbit(&self) -> Option<u32> {
        let enough = self.arrived >= 3 && self.arrived >= self.sent.div_ceil(2);
        if !enough || self.arrived > self.sent {
            return None;
        }
        let bits = u64::from(self.bytes) * 8 * u64::from(self.arrived - 1);
        let kbit = bits * 1_000 / u64::from(self.span_us.max(1));
        Some(kbit.clamp(1, Self::MOST_KBIT.into()) as u32)
    }
}

/// The rates of the last volleys on one path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capacity {
    rates: [u32; Self::VOLLEYS],
    len: usize,
    next: usize,
    at: Option<Instant>,
    /// The last median of enough volleys.
    median: Option<u32>,
}

impl Capacity {
    /// Volleys that are remembered.
    const VOLLEYS: usize = 5;
    /// Fewer are not believed.
    pub const BELIEVED: usize = 3;
    /// What is older says nothing beside what is measured today.
    const EXPIRY: Duration = Duration::from_secs(900);

    /// A volley arrived at this rate, in kbit/s.
    pub fn push(&mut self, now: Instant, kbit: u32) {
        if self.at.is_some_and(|at| now - at >= Self::EXPIRY) {
            (self.len, self.next) = (0, 0);
        }
        self.rates[self.next] = kbit;
        self.next = (self.next + 1) % Self::VOLLEYS;
        self.len = (self.len + 1).min(Self::VOLLEYS);
        self.at = Some(now);
        let mut rates = self.rates;
        let known = &mut rates[..self.len];
        known.sort_unstable();
        if known.len() >= Self::BELIEVED {
            self.median = Some(known[(known.len() - 1) / 2]);
        }
    }

    /// How many volleys there were of late.
    pub const fn volleys(&self) -> usize {
        self.len
    }

    /// What the last one said, in kbit/s.
    pub fn last_kbit(&self) -> Option<u32> {
        self.at?;
        Some(self.rates[(self.next + Self::VOLLEYS - 1) % Self::VOLLEYS])
    }

    /// The median rate, the lower one of two, in kbit/s: of the last volleys when they are enough, else
    /// what it was when there last were. It does not expire, so that nobody takes a narrow path again
    /// only because it is not used.
    pub const fn kbit(&self) -> Option<u32> {
        self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    /// A volley of eight through two links with queues, of which the second is the wider one. Others
    /// fill a part of both.
    fn dispersion(mbit: u64, load: f64, rng: &mut Rng) -> Dispersion {
        let takes = |bytes: u64, mbit: u64| (bytes * 8_000 / mbit) as f64;
        // When each datagram is there, and when it gets through, in nanoseconds.
        let mut arrivals: Vec<(f64, bool)> = (0..8).map(|i| (i as f64 * 12_000.0, true)).collect();
        for rate in [mbit, mbit * 4] {
            let (begin, end) = (arrivals[0].0 - 5e7, arrivals.last().unwrap().0);
            let mut others = begin;
            loop {
                others += -(1.0 - rng.unit()).ln() * takes(1_500, rate) / load.max(1e-9);
                if others > end {
                    break;
                }
                arrivals.push((others, false));
            }
            arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut free = f64::MIN;
            for (at, ours) in &mut arrivals {
                let bytes = if *ours { 1_420 } else { 1_500 };
                free = free.max(*at) + takes(bytes, rate);
                *at = free;
            }
            arrivals.retain(|arrival| arrival.1);
        }
        let span_us = ((arrivals[7].0 - arrivals[0].0) / 1e3) as u32;
        Dispersion { bytes: 1_420, sent: 8, arrived: 8, span_us }
    }

    fn estimate(mbit: u64, load: f64, rng: &mut Rng) -> u32 {
        let mut capacity = Capacity::default();
        for second in 0..5 {
            capacity.push(at(second), dispersion(mbit, load, rng).rate_kbit().unwrap());
        }
        capacity.kbit().unwrap()
    }

    #[test]
    fn an_idle_path_is_measured_within_a_few_percent() {
        let mut rng = Rng::new([1; 32]);
        for mbit in [1, 10, 100, 400] {
            let kbit = estimate(mbit, 0.0, &mut rng);
            assert!(kbit.abs_diff(mbit as u32 * 1_000) <= mbit as u32 * 30, "{mbit}: {kbit}");
        }
    }

    #[test]
    fn beside_other_traffic_it_is_near_and_the_order_is_right() {
        for seed in 0..200 {
            let mut rng = Rng::new([seed; 32]);
            let estimates = [10, 30, 100].map(|mbit| estimate(mbit, 0.3, &mut rng));
            for (kbit, mbit) in estimates.into_iter().zip([10_000, 30_000, 100_000]) {
                assert!(kbit.abs_diff(mbit) <= mbit / 4, "seed {seed}: {kbit} of {mbit}");
            }
            assert!(estimates.is_sorted(), "seed {seed}: {estimates:?}");
        }
    }

    #[test]
    fn absurd_reports_are_bounded_or_worth_nothing() {
        let volley = |sent, arrived, span_us| Dispersion { bytes: 1_500, sent, arrived, span_us };
        for (sent, arrived) in [(8, 0), (8, 1), (8, 2), (8, 3), (8, 9), (0, 0), (0, 255), (255, 3)]
        {
            assert_eq!(volley(sent, arrived, 1_000).rate_kbit(), None, "{sent} {arrived}");
        }
        assert_eq!(volley(8, 8, 0).rate_kbit(), Some(Dispersion::MOST_KBIT));
        assert_eq!(volley(8, 8, u32::MAX).rate_kbit(), Some(1));
        let least = Dispersion { bytes: 1, ..volley(255, 255, u32::MAX) };
        assert_eq!(least.rate_kbit(), Some(1));
        let widest = Dispersion { bytes: u32::MAX, ..volley(255, 255, 1) };
        assert_eq!(widest.rate_kbit(), Some(Dispersion::MOST_KBIT));
    }

    #[test]
    fn one_wrong_volley_of_three_changes_little_and_old_ones_count_until_there_are_enough_new_ones()
    {
        let mut capacity = Capacity::default();
        assert_eq!((capacity.kbit(), capacity.volleys(), capacity.last_kbit()), (None, 0, None));
        for kbit in [10_000, Dispersion::MOST_KBIT] {
            capacity.push(at(0), kbit);
            assert_eq!((capacity.kbit(), capacity.last_kbit()), (None, Some(kbit)), "too few");
        }
        capacity.push(at(0), 10_500);
        assert_eq!(capacity.kbit(), Some(10_500));
        for second in [900, 901] {
            capacity.push(at(second), 5_000);
            assert_eq!(capacity.kbit(), Some(10_500), "two new ones are too few");
        }
        assert_eq!(capacity.volleys(), 2);
        capacity.push(at(902), 5_000);
        assert_eq!((capacity.kbit(), capacity.volleys()), (Some(5_000), 3));
        for _ in 0..5 {
            capacity.push(at(903), 20_000);
        }
        assert_eq!((capacity.kbit(), capacity.last_kbit()), (Some(20_000), Some(20_000)));
    }
}
