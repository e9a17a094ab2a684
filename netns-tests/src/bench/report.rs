//! Medians, ratios and the table.

use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::contender::{Contender, INNER_MTU, Kind, Mode};
use super::sample::Sample;

/// One sample of one contender in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The contender.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What the links carried.
    pub mode: Mode,
    /// The round, from 0.
    pub round: u32,
    /// The share of all processors that other processes used meanwhile.
    pub others: f64,
    /// What was measured.
    pub sample: Option<Sample>,
    /// Or why it was not.
    pub error: Option<String>,
}

impl Row {
    /// The row of a sample's result.
    pub fn new(
        contender: &Contender,
        mode: Mode,
        round: u32,
        others: f64,
        result: Result<Sample>,
    ) -> Self {
        let (sample, error) = match result {
            Ok(sample) => (Some(sample), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let (name, kind) = (contender.name.clone(), contender.kind);
        Self { name, kind, mode, round, others, sample, error }
    }
}

/// All rows and what they were measured with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version, machine and the like, in words.
    pub conditions: Vec<String>,
    /// All samples.
    pub rows: Vec<Row>,
}

type Value = fn(&Sample) -> f64;

/// The columns that hold a measured value: heading, value, decimals.
const COLUMNS: &[(&str, Value, usize)] = &[
    ("TCP 1 stream, Mbit/s", |s| s.tcp1.mbit, 0),
    ("TCP 4 streams, Mbit/s", |s| s.tcp4.mbit, 0),
    ("CPU s/GB, 1 stream", |s| total(&s.tcp1.cpu_per_gb), 2),
    ("CPU s/GB, 4 streams", |s| total(&s.tcp4.cpu_per_gb), 2),
    ("UDP 100 B flood, delivered kpps", |s| s.flood.delivered / 1e3, 1),
    ("CPU us/packet at 20 kpps", |s| total(&s.steady.cpu_us), 1),
    ("RTT idle p50, us", |s| s.rtt_idle.p50_us, 0),
    ("RTT idle p99, us", |s| s.rtt_idle.p99_us, 0),
    ("RTT beside TCP p50, us", |s| s.rtt_load.p50_us, 0),
    ("memory MB", |s| s.resident_mb.iter().copied().fold(0.0, f64::max), 0),
];

/// The columns that say how a contender stands to another one in the same round.
const RATIOS: &[(&str, Value)] = &[
    ("TCP 1", |s| s.tcp1.mbit),
    ("TCP 4", |s| s.tcp4.mbit),
    ("CPU/GB 1", |s| total(&s.tcp1.cpu_per_gb)),
    ("CPU/GB 4", |s| total(&s.tcp4.cpu_per_gb)),
    ("UDP pps", |s| s.flood.delivered),
    ("CPU/packet", |s| total(&s.steady.cpu_us)),
    ("RTT idle", |s| s.rtt_idle.p50_us),
];

/// Of all daemons; an empty sum of `f64` would be minus zero.
fn total(of_each: &[f64]) -> f64 {
    of_each.iter().fold(0.0, |sum, each| sum + each)
}

impl Report {
    /// The report for readers.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks\n\n");
        for line in &self.conditions {
            let _ = writeln!(text, "- {line}");
        }
        let _ = writeln!(
            text,
            "- Inner MTU {INNER_MTU} for all, underlay MTU 1500, TCP cubic, IPv4. Both hosts, both \
             gateways and the kernel's work for them share the processors, so throughput says how \
             much work the whole path is.\n- CPU is user and system time of all daemons together, \
             with all threads; 1 GB is 10^9 bytes that arrived.\n- Medians (smallest - largest) \
             over interleaved rounds. \"Others\" is the share of the machine that unrelated \
             processes used meanwhile."
        );
        for mode in [Mode::Wire, Mode::Super] {
            if self.rows.iter().any(|row| row.mode == mode) {
                self.mode_section(&mut text, mode);
            }
        }
        text
    }

    fn mode_section(&self, text: &mut String, mode: Mode) {
        let title = match mode {
            Mode::Wire => "`wire`: every link carries packets of at most its MTU, as a cable does",
            Mode::Super => "`super`: super-packets of up to 64 KiB cross the links whole",
        };
        let _ = writeln!(text, "\n## {title}\n");
        let _ = write!(text, "| | rounds |");
        for (heading, ..) in COLUMNS {
            let _ = write!(text, " {heading} |");
        }
        let _ = writeln!(text, " others |\n|---|{}", "---|".repeat(COLUMNS.len() + 2));
        let names = self.names(mode);
        for name in &names {
            self.value_line(text, mode, name);
        }
        for base in [Kind::Plain, Kind::WireguardGo] {
            let base = self.rows.iter().find(|row| row.kind == base && row.mode == mode);
            if let Some(base) = base.map(|row| row.name.clone()) {
                self.ratio_table(text, mode, &base, &names);
            }
        }
    }

    fn names(&self, mode: Mode) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|row| row.mode == mode) {
            if !names.contains(&row.name) {
                names.push(row.name.clone());
            }
        }
        // As in the first round, which begins with the first contender.
        names
    }

    fn of<'r>(&'r self, mode: Mode, name: &'r str) -> impl Iterator<Item = &'r Row> {
        self.rows.iter().filter(move |row| row.mode == mode && row.name == name)
    }

    fn value_line(&self, text: &mut String, mode: Mode, name: &str) {
        let samples: Vec<_> = self.of(mode, name).filter_map(|row| row.sample.as_ref()).collect();
        let _ = write!(text, "| {name} | {} |", samples.len());
        for (_, value, decimals) in COLUMNS {
            let values = samples.iter().map(|sample| value(sample)).collect();
            let _ = write!(text, " {} |", spread(values, *decimals, ""));
        }
        let others = self.of(mode, name).map(|row| row.others * 100.0).collect();
        let _ = writeln!(text, " {} |", spread(others, 0, " %"));
        for row in self.of(mode, name) {
            if let Some(error) = &row.error {
                let first = error.lines().last().unwrap_or_default();
                let _ = writeln!(text, "| {name}, round {}: failed | | {first} |", row.round + 1);
            }
        }
    }

    fn ratio_table(&self, text: &mut String, mode: Mode, base: &str, names: &[String]) {
        let _ = write!(text, "\nAgainst {base}, ratios within a round:\n\n| |");
        for (heading, _) in RATIOS {
            let _ = write!(text, " {heading} |");
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(RATIOS.len()));
        for name in names.iter().filter(|name| *name != base) {
            let _ = write!(text, "| {name} |");
            for (_, value) in RATIOS {
                let _ = write!(text, " {} |", spread(self.ratios(mode, name, base, *value), 2, ""));
            }
            text.push('\n');
        }
    }

    fn ratios(&self, mode: Mode, name: &str, base: &str, value: Value) -> Vec<f64> {
        let of_round = |name: &str, round: u32| {
            let row = self.of(mode, name).find(|row| row.round == round)?;
            row.sample.as_ref().map(value)
        };
        let rounds = self.of(mode, name).map(|row| row.round);
        rounds
            .filter_map(|round| Some((of_round(name, round)?, of_round(base, round)?)))
            .filter(|&(_, base)| base > 0.0)
            .map(|(own, base)| own / base)
            .collect()
    }
}

/// Median, smallest and largest.
fn spread(mut values: Vec<f64>, decimals: usize, unit: &str) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return "-".into() };
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    };
    if values.len() == 1 {
        return format!("{median:.decimals$}{unit}");
    }
    format!("{median:.decimals$}{unit} ({first:.decimals$} - {last:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Contender;

    fn row(kind: Kind, round: u32, mbit: f64) -> Row {
        let mut sample = Sample::default();
        sample.tcp1.mbit = mbit;
        Row::new(&Contender::new(kind), Mode::Wire, round, 0.1, Ok(sample))
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0], 1, ""), "2.0 (1.0 - 3.0)");
        assert_eq!(spread(vec![1.0, 2.0], 1, " %"), "1.5 % (1.0 - 2.0)");
        assert_eq!(spread(vec![7.0], 0, ""), "7");
        assert_eq!(spread(vec![], 0, ""), "-");
    }

    #[test]
    fn ratios_are_those_within_a_round_and_failed_samples_have_none() {
        let mut rows = vec![
            row(Kind::Plain, 0, 1_000.0),
            row(Kind::Direct, 0, 500.0),
            row(Kind::Plain, 1, 4_000.0),
            row(Kind::Direct, 1, 1_000.0),
            row(Kind::Plain, 2, 1_000.0),
        ];
        let failed = Err(anyhow::anyhow!("no tunnel"));
        rows.push(Row::new(&Contender::new(Kind::Direct), Mode::Wire, 2, 0.0, failed));
        let report = Report { conditions: vec!["a machine".into()], rows };
        let ratios = report.ratios(Mode::Wire, "rongate", "plain forwarding", |s| s.tcp1.mbit);
        assert_eq!(ratios, [0.5, 0.25]);
        let text = report.markdown();
        assert!(text.contains("| rongate | 2 | 750 (500 - 1000) |"), "{text}");
        assert!(text.contains("| rongate | 0.38 (0.25 - 0.50) |"), "{text}");
        assert!(text.contains("round 3: failed | | no tunnel |"), "{text}");
    }
}
