//! Samples in a file, a line for each as soon as it is taken: a run that ends early loses none, and
//! another one goes on where it ended.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::table::Job;
use super::{Overlay, Peer, ROWS};

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// In the row's unit.
    #[serde(rename = "value")]
    Value(f64),
    /// It was watched for, and did not happen.
    #[serde(rename = "never")]
    Never,
    /// There is no sample, and why.
    #[serde(rename = "failed")]
    Failed(String),
}

impl Outcome {
    pub(super) fn new(sample: &Result<f64>) -> Self {
        match sample {
            Ok(value) if value.is_finite() => Self::Value(*value),
            Ok(_) => Self::Never,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }

    /// As a number that can be sorted.
    pub(super) const fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Never => Some(f64::INFINITY),
            Self::Failed(_) => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    row: String,
    overlay: String,
    number: u32,
    delay_ms: u32,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The samples of a file. What cannot be read, for it was not written to its end, or is of a row that
/// there is no longer, is left out.
pub(super) fn read(file: &Path, peers: &[Overlay]) -> Result<Vec<(Job, Outcome)>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.lines().filter_map(|line| of_line(line, peers)).collect())
}

fn of_line(line: &str, peers: &[Overlay]) -> Option<(Job, Outcome)> {
    let line: Line = serde_json::from_str(line).ok()?;
    let overlay = if line.overlay == Overlay::Rongate.name() {
        Overlay::Rongate
    } else {
        let named = |peer: &&Overlay| peer.name() == line.overlay;
        match peers.iter().find(named) {
            Some(peer) => peer.clone(),
            None => Overlay::Peer(Peer::from_name(&line.overlay)?, Default::default()),
        }
    };
    let row = ROWS.iter().position(|row| row.name == line.row)?;
    let job = Job { row, overlay, number: line.number, delay_ms: line.delay_ms };
    Some((job, line.outcome))
}

/// Appends one sample.
pub(super) fn append(file: &Path, job: &Job, outcome: &Outcome) -> Result<()> {
    let line = Line {
        row: ROWS[job.row].name.to_owned(),
        overlay: job.overlay.name().to_owned(),
        number: job.number,
        delay_ms: job.delay_ms,
        outcome: outcome.clone(),
    };
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    let mut open = File::options();
    let mut file = open.create(true).append(true).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_again_and_half_a_line_is_left_out() {
        let directory =
            std::env::temp_dir().join(format!("rongate-samples-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("samples.jsonl");
        let babel = Overlay::Peer(Peer::Babel, "/babeld".into());
        let job = |row, overlay: &Overlay, number| Job {
            row,
            overlay: overlay.clone(),
            number,
            delay_ms: 20,
        };
        let samples = [
            (job(0, &Overlay::Rongate, 0), Outcome::Value(61.5)),
            (job(1, &babel, 3), Outcome::Never),
            (job(2, &babel, 4), Outcome::Failed("no \"answer\"\nat all".into())),
        ];
        for (job, outcome) in &samples {
            append(&file, job, outcome).unwrap();
        }
        let mut text = fs::read_to_string(&file).unwrap();
        text += "{\"row\":\"no such row\",\"overlay\":\"rongate\",\"number\":0,\"delay_ms\":5,\
                 \"value\":1.0}\n{\"row\":\"bla";
        fs::write(&file, text).unwrap();
        let read = read(&file, std::slice::from_ref(&babel)).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(read, samples);
    }
}
