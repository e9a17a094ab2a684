//! All samples, and what they were taken under.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::contender::{Contender, Kind, Mode};
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Version, machine and the like, in words.
    pub conditions: Vec<String>,
    /// All samples.
    pub rows: Vec<Row>,
    /// What the benchmark without input and output printed.
    #[serde(default)]
    pub datapath: Option<String>,
}

impl Report {
    /// Puts the rounds of `later` behind ours. Its conditions are added where they differ.
    pub fn append(&mut self, later: Self) {
        for mode in [Mode::Wire, Mode::Super] {
            let of_mode = |row: &&Row| row.mode == mode;
            let next = self.rows.iter().filter(of_mode).map(|row| row.round + 1).max();
            let rows = later.rows.iter().filter(of_mode).cloned();
            self.rows.extend(rows.map(|row| Row { round: row.round + next.unwrap_or(0), ..row }));
        }
        for condition in later.conditions {
            if !self.conditions.contains(&condition) {
                self.conditions.push(condition);
            }
        }
        self.datapath = later.datapath.or_else(|| self.datapath.take());
    }

    /// The figures that the benchmark without input and output has, by name: its lines
    /// `figure NAME NUMBER`.
    pub(crate) fn figures(&self) -> BTreeMap<&str, f64> {
        let lines = self.datapath.as_deref().unwrap_or_default().lines();
        lines
            .filter_map(|line| {
                let mut words = line.trim().strip_prefix("figure ")?.split_whitespace();
                Some((words.next()?, words.next()?.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::sample::Tcp;
    use super::*;

    /// A row of the mode `wire` with nothing but a throughput, or a failed one.
    pub(crate) fn row(kind: Kind, round: u32, mbit: Option<f64>) -> Row {
        let sample = |mbit| {
            let tcp1 = Some(Tcp { mbit, ..Tcp::default() });
            Sample { tcp1, ..Sample::default() }
        };
        let result = mbit.map(sample).ok_or_else(|| anyhow::anyhow!("no tunnel"));
        Row::new(&Contender::new(kind), Mode::Wire, round, 0.1, result)
    }

    #[test]
    fn later_rounds_are_put_behind() {
        let first = Report {
            conditions: vec!["a machine".into(), "Monday".into()],
            rows: vec![row(Kind::Plain, 0, Some(1.0)), row(Kind::Plain, 1, Some(2.0))],
            datapath: Some("old".into()),
        };
        let mut both = first;
        both.append(Report {
            conditions: vec!["a machine".into(), "Tuesday".into()],
            rows: vec![row(Kind::Plain, 0, Some(3.0))],
            datapath: None,
        });
        assert_eq!(both.rows.iter().map(|row| row.round).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(both.conditions, ["a machine", "Monday", "Tuesday"]);
        assert_eq!(both.datapath.as_deref(), Some("old"));
    }

    #[test]
    fn figures_are_read_from_lines_of_their_own() {
        let text = "a table 7\n  figure nat_extra_ns 85.5\nfigure broken\nfigure odd x\n";
        let report = Report { datapath: Some(text.into()), ..Report::default() };
        assert_eq!(report.figures(), BTreeMap::from([("nat_extra_ns", 85.5)]));
    }
}
