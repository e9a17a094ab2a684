//! What became of the packets of one scheme.

use std::time::Duration;

use super::report::{PairReport, SchemeReport, WINDOW_LOSSES};
use super::schemes::Sent;
use crate::float;

/// The window over which RON's evaluation averages loss.
pub(super) const WINDOW: Duration = Duration::from_secs(1_800);
/// Latencies are kept with a precision of two per cent, from 10 us up.
const STEP: f64 = 1.02;
const SLOTS: usize = 900;

/// Delays by size.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    slots: Vec<u64>,
    total: u64,
}

impl Histogram {
    fn new() -> Self {
        Self { slots: vec![0; SLOTS], total: 0 }
    }

    fn add(&mut self, delay: Duration) {
        let us = (delay.as_micros() as f64 / 10.0).max(1.0);
        let slot = (float::ln(us) / float::ln(STEP)) as usize;
        self.slots[slot.min(SLOTS - 1)] += 1;
        self.total += 1;
    }

    /// Milliseconds and the fraction of samples up to them, for every slot that is not empty.
    pub(super) fn cdf(&self) -> Vec<(f64, f64)> {
        let mut below = 0;
        let mut points = Vec::new();
        for (slot, &count) in self.slots.iter().enumerate().filter(|(_, count)| **count > 0) {
            below += count;
            let ms = float::pow(STEP, slot as f64 + 0.5) / 100.0;
            points.push((ms, below as f64 / self.total as f64));
        }
        points
    }
}

/// The value below which the fraction `q` of the points of a CDF lie.
pub(super) fn quantile(cdf: &[(f64, f64)], q: f64) -> Option<f64> {
    cdf.iter().find(|point| point.1 >= q).or_else(|| cdf.last()).map(|point| point.0)
}

/// One directed pair.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Packets lost in a row.
    lost: u32,
    /// Sent and lost in this window.
    window: (u32, u32),
    /// Sent and arrived in all.
    all: (u64, u64),
}

/// The books of one scheme.
pub(super) struct Tally {
    name: String,
    every: Duration,
    pairs: Vec<Pair>,
    sent: u64,
    arrived: u64,
    latency: Histogram,
    /// Seconds of each gap.
    gaps: Vec<f64>,
    windows: [u64; WINDOW_LOSSES.len()],
    window_count: u64,
    /// First copies that were lost, and with them the second.
    copies: Option<(u64, u64)>,
}

impl Tally {
    pub(super) fn new(name: &str, pairs: usize, every: Duration) -> Self {
        Self {
            name: name.to_owned(),
            every,
            pairs: vec![Pair::default(); pairs],
            sent: 0,
            arrived: 0,
            latency: Histogram::new(),
            gaps: Vec::new(),
            windows: [0; WINDOW_LOSSES.len()],
            window_count: 0,
            copies: None,
        }
    }

    /// The next packet of a pair.
    pub(super) fn add(&mut self, pair: usize, sent: Sent) {
        self.sent += 1;
        if let Some([first, second]) = sent.lost {
            let (firsts, both) = self.copies.get_or_insert_default();
            *firsts += u64::from(first);
            *both += u64::from(first && second);
        }
        let state = &mut self.pairs[pair];
        state.window.0 += 1;
        state.all.0 += 1;
        state.all.1 += u64::from(sent.delay.is_some());
        match sent.delay {
            Some(delay) => {
                self.arrived += 1;
                self.latency.add(delay);
                let lost = std::mem::take(&mut state.lost);
                if lost > 0 {
                    self.gaps.push(f64::from(lost) * self.every.as_secs_f64());
                }
            }
            None => {
                state.lost += 1;
                state.window.1 += 1;
            }
        }
        if f64::from(state.window.0) * self.every.as_secs_f64() >= WINDOW.as_secs_f64() {
            self.end_window(pair);
        }
    }

    fn end_window(&mut self, pair: usize) {
        let (sent, lost) = std::mem::take(&mut self.pairs[pair].window);
        let loss = f64::from(lost) / f64::from(sent);
        self.window_count += 1;
        for (count, bound) in self.windows.iter_mut().zip(WINDOW_LOSSES) {
            *count += u64::from(loss > bound);
        }
    }

    /// Ends the books: what is still lost at the end is a gap too.
    pub(super) fn finish(mut self) -> SchemeReport {
        for pair in &self.pairs {
            if pair.lost > 0 {
                self.gaps.push(f64::from(pair.lost) * self.every.as_secs_f64());
            }
        }
        self.gaps.sort_by(f64::total_cmp);
        // Every node has a row.
        let nodes = self.pairs.len().isqrt().max(1);
        let pairs = self.pairs.iter().enumerate().filter(|(_, pair)| pair.all.0 > 0);
        let pairs = pairs.map(|(index, Pair { all: (sent, arrived), .. })| PairReport {
            from: index / nodes,
            to: index % nodes,
            sent: *sent,
            arrived: *arrived,
        });
        let pairs = pairs.collect();
        let latency = self.latency.cdf();
        let many = self.gaps.len();
        let gap = |q: f64| (many > 0).then(|| self.gaps[((many - 1) as f64 * q) as usize]);
        SchemeReport {
            name: self.name,
            sent: self.sent,
            arrived: self.arrived,
            availability: self.arrived as f64 / self.sent.max(1) as f64,
            latency_ms: [0.5, 0.9, 0.99].map(|q| quantile(&latency, q)),
            gaps: many as u64,
            gap_s: [gap(0.5), gap(0.9), gap(1.0)],
            windows: self.window_count,
            windows_above: self.windows,
            avoided: None,
            second_lost_too: self
                .copies
                .filter(|copies| copies.0 > 0)
                .map(|(first, both)| both as f64 / first as f64),
            gap_list: self.gaps,
            pairs,
            latency_cdf: latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_windows_and_quantiles_are_what_was_added() {
        let mut tally = Tally::new("x", 1, Duration::from_secs(1));
        for index in 0..1_800_u64 {
            let lost = (100..130).contains(&index) || index == 500;
            let delay = (!lost).then(|| Duration::from_millis(10 + index % 90));
            tally.add(0, delay.into());
        }
        let report = tally.finish();
        assert_eq!((report.sent, report.arrived), (1_800, 1_769));
        assert_eq!(report.gap_list, [1.0, 30.0]);
        assert_eq!(report.pairs, [PairReport { from: 0, to: 0, sent: 1_800, arrived: 1_769 }]);
        assert_eq!((report.windows, report.windows_above[0], report.windows_above[1]), (1, 1, 0));
        let median = report.latency_ms[0].unwrap();
        assert!((53.0..57.0).contains(&median), "{median}");
    }
}
