//! Numbered, time-stamped datagrams, and what a receiver concludes from them.
//!
//! A sender emits them at a steady rate; gaps between arrivals measure how long an outage lasted
//! for a host, to the accuracy of the rate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// UDP port of the tick receiver.
pub const PORT: u16 = 4747;

/// UDP port of the echo service.
pub const ECHO_PORT: u16 = 7;

/// Smallest size of a tick.
pub const MIN_SIZE: usize = 28;

const MAGIC: [u8; 8] = *b"labtick1";

/// The content of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Tells one sender from another.
    pub stream: u32,
    /// Counts up from 0.
    pub sequence: u64,
    /// Monotonic clock at sending, in nanoseconds; the same clock in all namespaces.
    pub sent_ns: u64,
}

impl Tick {
    /// Writes the tick into the first bytes of `datagram`, which has at least [`MIN_SIZE`].
    pub fn emit(&self, datagram: &mut [u8]) {
        datagram[..8].copy_from_slice(&MAGIC);
        datagram[8..12].copy_from_slice(&self.stream.to_be_bytes());
        datagram[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        datagram[20..28].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// Reads a tick; `None` if the datagram is something else.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let fields = datagram.strip_prefix(&MAGIC)?;
        Some(Self {
            stream: u32::from_be_bytes(*fields.first_chunk()?),
            sequence: u64::from_be_bytes(*fields.get(4..)?.first_chunk()?),
            sent_ns: u64::from_be_bytes(*fields.get(12..)?.first_chunk()?),
        })
    }
}

/// A pause in the arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Start of the pause, in milliseconds after the first arrival.
    pub at_ms: f64,
    /// Length of the pause in milliseconds.
    pub length_ms: f64,
    /// Sequence number of the last tick before it.
    pub after: u64,
    /// Sequence number of the first tick after it.
    pub before: u64,
}

/// Delays in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// The smallest.
    pub min_ms: f64,
    /// The median.
    pub median_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// What a receiver saw of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Ticks sent, where the reporter knows (the sender does).
    pub sent: u64,
    /// Different ticks received.
    pub received: u64,
    /// Second and further copies.
    pub duplicates: u64,
    /// Ticks that arrived after one with a higher number.
    pub reordered: u64,
    /// The highest sequence number received.
    pub highest: u64,
    /// The longest pause between arrivals, in milliseconds.
    pub longest_gap_ms: f64,
    /// Pauses of at least twenty intervals, the longest first, at most 20 of them.
    pub gaps: Vec<Gap>,
    /// One-way delay, or round trip where ticks come back.
    pub delay: Delays,
    /// The delay of the very first tick, if it arrived.
    pub first_ms: Option<f64>,
    /// When the first one that arrived was sent, on the monotonic clock, in nanoseconds.
    pub start_ns: u64,
    /// How many of the ticks sent in each tenth of a second from then on have arrived.
    pub tenths: Vec<u32>,
}

impl Report {
    /// Milliseconds from a time on the monotonic clock, in nanoseconds, until every second of the
    /// stream loses at most a twentieth of `rate`; `None` if that never comes.
    pub fn settled_ms(&self, from_ns: u64, rate: u32) -> Option<f64> {
        const SECOND: usize = 10;
        // The last tenths may be incomplete.
        let whole = self.tenths.len().checked_sub(2)?;
        let enough = rate - rate / 20;
        let good = |from: usize| self.tenths[from..from + SECOND].iter().sum::<u32>() >= enough;
        let last = whole.checked_sub(SECOND)?;
        let settled = (0..=last).rev().take_while(|&from| good(from)).last()?;
        let since = self.start_ns as f64 + settled as f64 * 1e8 - from_ns as f64;
        Some((since / 1e6).max(0.0))
    }

    /// Ticks that were sent and never arrived.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Collects arrivals of one stream.
#[derive(Debug, Default)]
pub struct Collector {
    arrivals: Vec<(u64, u64, u64)>,
    seen: BTreeSet<u64>,
    duplicates: u64,
    reordered: u64,
    highest: u64,
}

impl Collector {
    /// Takes in one tick that arrived at `now_ns`.
    pub fn arrived(&mut self, tick: Tick, now_ns: u64) {
        if !self.seen.insert(tick.sequence) {
            self.duplicates += 1;
            return;
        }
        if tick.sequence < self.highest {
            self.reordered += 1;
        }
        self.highest = self.highest.max(tick.sequence);
        self.arrivals.push((now_ns, tick.sequence, now_ns.saturating_sub(tick.sent_ns)));
    }

    /// Concludes; `sent` is zero where it is not known.
    pub fn report(&self, sent: u64) -> Report {
        let mut gaps = self.gaps();
        gaps.sort_by(|a, b| b.length_ms.total_cmp(&a.length_ms));
        let longest_gap_ms = gaps.first().map_or(0.0, |gap| gap.length_ms);
        let intervals = self.arrivals.len().saturating_sub(1).max(1);
        let usual = gaps.get(intervals / 2).map_or(0.0, |gap| gap.length_ms);
        gaps.retain(|gap| gap.length_ms >= 20.0 * usual);
        gaps.truncate(20);
        Report {
            sent,
            received: self.arrivals.len() as u64,
            duplicates: self.duplicates,
            reordered: self.reordered,
            highest: self.highest,
            longest_gap_ms,
            gaps,
            delay: self.delays(),
            first_ms: self.arrivals.iter().find(|arrival| arrival.1 == 0).map(|first| ms(first.2)),
            start_ns: self.sent_times().min().unwrap_or(0),
            tenths: self.tenths(),
        }
    }

    fn sent_times(&self) -> impl Iterator<Item = u64> {
        self.arrivals.iter().map(|arrival| arrival.0 - arrival.2)
    }

    fn tenths(&self) -> Vec<u32> {
        let start = self.sent_times().min().unwrap_or(0);
        let mut tenths = Vec::new();
        for sent in self.sent_times() {
            let at = ((sent - start) / 100_000_000) as usize;
            if at >= tenths.len() {
                tenths.resize(at + 1, 0);
            }
            tenths[at] += 1;
        }
        tenths
    }

    fn gaps(&self) -> Vec<Gap> {
        let first = self.arrivals.first().map_or(0, |arrival| arrival.0);
        self.arrivals
            .windows(2)
            .map(|pair| Gap {
                at_ms: ms(pair[0].0 - first),
                length_ms: ms(pair[1].0.saturating_sub(pair[0].0)),
                after: pair[0].1,
                before: pair[1].1,
            })
            .collect()
    }

    fn delays(&self) -> Delays {
        let mut all: Vec<u64> = self.arrivals.iter().map(|arrival| arrival.2).collect();
        all.sort_unstable();
        let at = |per_cent: usize| {
            let index = (all.len() * per_cent / 100).min(all.len().saturating_sub(1));
            all.get(index).map_or(0.0, |&delay| ms(delay))
        };
        Delays { min_ms: at(0), median_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(sequence: u64) -> Tick {
        Tick { stream: 1, sequence, sent_ns: sequence * 1_000_000 }
    }

    #[test]
    fn a_tick_survives_the_wire() {
        let mut datagram = [0; 64];
        tick(7).emit(&mut datagram);
        assert_eq!(Tick::parse(&datagram), Some(tick(7)));
        assert_eq!(Tick::parse(&datagram[..27]), None);
        assert_eq!(Tick::parse(b"something else that is long enough"), None);
    }

    #[test]
    fn an_outage_is_one_gap_of_its_length() {
        let mut collector = Collector::default();
        for sequence in (0..100).chain(600..1000) {
            collector.arrived(tick(sequence), sequence * 1_000_000 + 20_000_000);
        }
        let report = collector.report(1000);
        assert_eq!((report.received, report.lost()), (500, 500));
        assert_eq!(report.gaps.len(), 1, "{:?}", report.gaps);
        assert_eq!((report.gaps[0].after, report.gaps[0].before), (99, 600));
        assert!((report.longest_gap_ms - 501.0).abs() < 1e-6);
        assert!((report.delay.median_ms - 20.0).abs() < 1e-6);
    }

    #[test]
    fn a_stream_settles_where_its_loss_ends() {
        let mut collector = Collector::default();
        // 200 a second for 10 s; from 3 s to 5 s every third is lost.
        let times = (0..2_000_u64).filter(|n| !(600..1_000).contains(n) || n % 3 > 0);
        for sequence in times {
            let sent_ns = 7_000_000_000 + sequence * 5_000_000;
            let tick = Tick { stream: 1, sequence, sent_ns };
            collector.arrived(tick, sent_ns + 20_000_000);
        }
        let report = collector.report(2_000);
        assert_eq!(report.first_ms, Some(20.0));
        let settled = report.settled_ms(10_000_000_000, 200).unwrap();
        assert!((1_700.0..=2_000.0).contains(&settled), "{settled}");
        assert_eq!(report.settled_ms(13_000_000_000, 200), Some(0.0));
        assert_eq!(Report::default().settled_ms(0, 200), None);
    }

    #[test]
    fn copies_and_disorder_are_told_apart() {
        let mut collector = Collector::default();
        for (sequence, at) in [(0, 0), (2, 1), (1, 2), (2, 3), (3, 4)] {
            collector.arrived(tick(sequence), at * 1_000_000 + 9_000_000);
        }
        let report = collector.report(4);
        assert_eq!((report.received, report.duplicates, report.reordered), (4, 1, 1));
        assert_eq!(report.lost(), 0);
    }
}
