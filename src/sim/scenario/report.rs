//! What a run gave: figures, a summary for people, tables and plots.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{TcpReport, plot, tcp};

/// The losses of RON's table of half-hour averages.
pub(super) const WINDOW_LOSSES: [f64; 10] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// What a run gave. The same scenario and seed give the same report, bit for bit.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What it is for.
    pub about: String,
    /// All chance came from it.
    pub seed: u64,
    /// How many nodes in each overlay.
    pub nodes: u16,
    /// How many overlays.
    pub overlays: u16,
    /// Measured time.
    pub duration_s: f64,
    /// Each scheme.
    pub schemes: Vec<SchemeReport>,
    /// What the nodes sent; none without `overlay`.
    pub control: Option<Control>,
    /// Connections of hosts.
    pub tcp: Vec<TcpReport>,
    /// Their segments that came and were not what was sent. Zero, or the overlay is broken.
    pub tcp_wrong: u64,
    /// Datagrams that reached a node.
    pub datagrams: u64,
    /// Over everything that the overlay delivered, and when.
    pub digest: String,
    /// The paths in use.
    #[serde(skip)]
    pub timeline: Timeline,
}

/// One scheme.
#[derive(Clone, Debug, Serialize)]
pub struct SchemeReport {
    /// Its name.
    pub name: String,
    /// Packets.
    pub sent: u64,
    /// Those that arrived.
    pub arrived: u64,
    /// Their fraction.
    pub availability: f64,
    /// One way: median, 90th and 99th percentile.
    pub latency_ms: [Option<f64>; 3],
    /// How often one or more packets of a pair in a row were lost.
    pub gaps: u64,
    /// How long: median, 90th percentile, longest.
    pub gap_s: [Option<f64>; 3],
    /// Half hours of a pair.
    pub windows: u64,
    /// Those with a loss above 0, 10, 20, ... 90 %.
    pub windows_above: [u64; WINDOW_LOSSES.len()],
    /// The fraction of the packets that `direct` lost that this scheme did not lose.
    pub avoided: Option<f64>,
    /// Of two copies, the fraction of second ones that were lost when the first was.
    pub second_lost_too: Option<f64>,
    /// Each directed pair that sent something.
    #[serde(skip)]
    pub pairs: Vec<PairReport>,
    /// Every gap, sorted.
    #[serde(skip)]
    pub gap_list: Vec<f64>,
    /// Milliseconds and the fraction up to them.
    #[serde(skip)]
    pub latency_cdf: Vec<(f64, f64)>,
}

/// What became of the packets of one directed pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairReport {
    /// The number of the sender's node.
    pub from: usize,
    /// That of the receiver's.
    pub to: usize,
    /// Packets.
    pub sent: u64,
    /// Those that arrived.
    pub arrived: u64,
}

impl PairReport {
    /// The fraction that arrived.
    pub fn availability(&self) -> f64 {
        self.arrived as f64 / self.sent.max(1) as f64
    }
}

/// What the nodes sent, headers of IP and UDP counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Control {
    /// Of one node, on average.
    pub kbit_s_per_node: f64,
    /// The same in datagrams.
    pub datagrams_s_per_node: f64,
    /// The packets of the hosts are in it.
    pub with_data: bool,
}

/// Ticks, and the path from then on.
type PathChanges = Vec<(u32, u16)>;

/// The path of each pair over time, as far as it is kept.
#[derive(Clone, Debug)]
pub struct Timeline {
    nodes: usize,
    /// Of nodes that know each other.
    pairs: usize,
    every: Duration,
    ticks: u32,
    /// Pair, and the ticks at which its path changed with what it became: 0 none, 1 direct, 2 and
    /// more the relay.
    pub(super) rows: Vec<((usize, usize), PathChanges)>,
    /// Path changes of each pair, in all.
    changes: u64,
    last: Vec<u16>,
}

impl Timeline {
    pub(super) fn new(overlays: usize, each: usize, pairs_max: usize, every: Duration) -> Self {
        let nodes = overlays * each;
        let of = |a: usize| (0..each).map(move |b| (a, a / each * each + b));
        let pairs = (0..nodes).flat_map(of).filter(|(a, b)| a != b);
        let rows = pairs.take(pairs_max).map(|pair| (pair, Vec::new())).collect();
        let last = vec![u16::MAX; nodes * nodes];
        Self { nodes, pairs: nodes * (each - 1), every, ticks: 0, rows, changes: 0, last }
    }

    pub(super) fn note(&mut self, a: usize, b: usize, code: u16) {
        let last = &mut self.last[a * self.nodes + b];
        if *last == code {
            return;
        }
        self.changes += u64::from(*last != u16::MAX);
        *last = code;
        let ticks = self.ticks;
        if let Some((_, row)) = self.rows.iter_mut().find(|(pair, _)| *pair == (a, b)) {
            row.push((ticks, code));
        }
    }

    pub(super) const fn end_tick(&mut self) {
        self.ticks += 1;
    }

    /// How many pairs there are, drawn or not.
    pub(super) const fn pairs(&self) -> usize {
        self.pairs
    }

    /// Ticks so far, and how long each is.
    pub(super) const fn span(&self) -> (u32, Duration) {
        (self.ticks, self.every)
    }

    /// How often a pair changed its path, for each pair and hour.
    pub fn changes_per_pair_hour(&self) -> Option<f64> {
        let hours = f64::from(self.ticks) * self.every.as_secs_f64() / 3_600.0;
        (self.ticks > 0).then(|| self.changes as f64 / self.pairs as f64 / hours)
    }
}

impl Report {
    /// Compares every scheme with `direct`, if that is there.
    pub(super) fn compare(&mut self) {
        let direct = self.schemes.iter().find(|scheme| scheme.name == "direct");
        let Some(lost) = direct.map(|direct| direct.sent - direct.arrived) else { return };
        for scheme in self.schemes.iter_mut().filter(|scheme| scheme.name != "direct" && lost > 0) {
            let still = scheme.sent - scheme.arrived;
            scheme.avoided = Some((lost as f64 - still as f64) / lost as f64);
        }
    }

    /// The summary for people. `AVOIDED` is per cent of what `direct` lost, `TWICE` per cent of
    /// second copies that were lost with the first.
    pub fn summary(&self) -> String {
        let mut text = self.heading();
        if !self.schemes.is_empty() {
            let _ = writeln!(
                text,
                "\n{:<12} {:>11} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8}",
                "SCHEME",
                "ARRIVED",
                "LOST",
                "AVOIDED",
                "P50 ms",
                "P99 ms",
                "GAPS",
                "GAP P90",
                "LONGEST",
                "TWICE"
            );
        }
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for scheme in &self.schemes {
            let _ = writeln!(
                text,
                "{:<12} {:>10.4}% {:>9} {:>8} {:>8} {:>8} {:>9} {:>8}s {:>7}s {:>8}",
                scheme.name,
                scheme.availability * 100.0,
                scheme.sent - scheme.arrived,
                figure(scheme.avoided.map(|f| f * 100.0), 1),
                figure(scheme.latency_ms[0], 1),
                figure(scheme.latency_ms[2], 1),
                scheme.gaps,
                figure(scheme.gap_s[1], 1),
                figure(scheme.gap_s[2], 1),
                figure(scheme.second_lost_too.map(|f| f * 100.0), 1),
            );
        }
        if self.schemes.iter().any(|scheme| scheme.windows > 0) {
            text += "\nhalf hours of a pair with a loss above\n";
            let _ = write!(text, "{:<12}", "SCHEME");
            for bound in WINDOW_LOSSES {
                let _ = write!(text, " {:>6.0}%", bound * 100.0);
            }
            for scheme in &self.schemes {
                let _ = write!(text, "\n{:<12}", scheme.name);
                for count in scheme.windows_above {
                    let _ = write!(text, " {count:>7}");
                }
                let _ = write!(text, "  of {}", scheme.windows);
            }
            text.push('\n');
        }
        text += &tcp::table(&self.tcp, self.tcp_wrong);
        if let Some(control) = self.control {
            let what = if control.with_data { "data and control" } else { "control" };
            let _ = writeln!(
                text,
                "\n{what}: {:.2} kbit/s, {:.1} datagrams/s sent per node",
                control.kbit_s_per_node, control.datagrams_s_per_node
            );
        }
        if let Some(changes) = self.timeline.changes_per_pair_hour() {
            let _ = writeln!(text, "path changes: {changes:.2} per pair and hour");
        }
        text
    }

    fn heading(&self) -> String {
        let overlays = match self.overlays {
            1 => String::new(),
            overlays => format!("{overlays} overlays of "),
        };
        let hours = self.duration_s / 3_600.0;
        let Self { scenario, nodes, seed, .. } = self;
        format!("{scenario}: {overlays}{nodes} nodes, {hours:.2} hours, seed {seed}\n")
    }
}

/// Control traffic by number of nodes, as a table for people and a plot.
pub fn by_size(reports: &[Report]) -> Option<(String, String)> {
    if reports.len() < 2 || reports.windows(2).any(|two| two[0].overlays != two[1].overlays) {
        return None;
    }
    let mut text = format!("{:>6} {:>14} {:>14}\n", "NODES", "kbit/s each", "datagrams/s");
    let mut points = Vec::new();
    for report in reports {
        let control = report.control?;
        let _ = writeln!(
            text,
            "{:>6} {:>14.2} {:>14.1}",
            report.nodes, control.kbit_s_per_node, control.datagrams_s_per_node
        );
        points.push((f64::from(report.nodes), control.kbit_s_per_node));
    }
    Some((text, plot::line("nodes", "kbit/s sent per node", &points)))
}
