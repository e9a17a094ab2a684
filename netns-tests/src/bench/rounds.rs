//! Round after round, each contender in its turn.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bystanders::Bystanders;
use super::contender::{Contender, Kind, Mode, Plan};
use super::report::Row;
use super::sample::Sample;
use crate::lab::process::{run as run_bounded, tail};
use crate::lab::programs::GATEWAY;
use crate::lab::{clock, enter};

/// More than any sample takes.
const SAMPLE_LIMIT: Duration = Duration::from_secs(75);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// The modes and how many rounds each gets.
    pub modes: Vec<(Mode, u32)>,
    /// How long each measurement takes.
    pub plan: Plan,
    /// No round is begun that would probably end later than this.
    pub budget: Duration,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Samples taken.
    pub done: usize,
    /// Samples in all.
    pub all: usize,
    /// What the rest will probably take.
    pub remaining: Duration,
}

impl Rounds {
    /// Who takes part in a round of a mode. Another one is the first each time, so that nobody
    /// always follows the same one.
    fn order(&self, round: u32, mode: Mode) -> Vec<&Contender> {
        let takes_part = |kind: Kind| kind.takes_part(mode) && self.plan.measured(kind, mode).any();
        let mut order: Vec<_> =
            self.contenders.iter().filter(|contender| takes_part(contender.kind)).collect();
        let first = round as usize % order.len().max(1);
        order.rotate_left(first);
        order
    }

    /// About how long all of it takes.
    pub fn estimate(&self) -> Duration {
        let seconds = |mode, contender: &&Contender| {
            self.plan.seconds(self.plan.measured(contender.kind, mode))
        };
        let of_mode = |&(mode, count): &(Mode, u32)| {
            let order = self.order(0, mode);
            f64::from(count) * order.iter().map(|contender| seconds(mode, contender)).sum::<f64>()
        };
        Duration::from_secs_f64(self.modes.iter().map(of_mode).sum())
    }
}

/// Runs all rounds; `tell` hears of each sample. A failed sample is a row with an error.
pub fn run(rounds: &Rounds, mut tell: impl FnMut(&Row, Progress)) -> Vec<Row> {
    let bystanders = Bystanders::watch();
    let start = clock::now();
    let mut rows = Vec::new();
    let mut longest = Duration::ZERO;
    let most = rounds.modes.iter().map(|&(_, count)| count).max().unwrap_or_default();
    let all =
        rounds.modes.iter().map(|&(mode, count)| rounds.order(0, mode).len() * count as usize);
    let (all, estimate) = (all.sum(), rounds.estimate());
    for round in 0..most {
        for &(mode, _) in rounds.modes.iter().filter(|&&(_, count)| round < count) {
            if start.elapsed() + longest > rounds.budget {
                return rows;
            }
            let begun = clock::now();
            for contender in rounds.order(round, mode) {
                let since = bystanders.mark();
                let result = sample(contender, mode, &rounds.plan);
                let others = bystanders.share(since);
                let row = Row::new(contender, mode, round, others, result);
                rows.push(row.clone());
                let left = 1.0 - rows.len() as f64 / all as f64;
                let remaining = estimate.mul_f64(left.max(0.0));
                tell(&row, Progress { done: rows.len(), all, remaining });
            }
            longest = longest.max(begun.elapsed());
        }
    }
    rows
}

/// One sample in a laboratory of its own.
fn sample(contender: &Contender, mode: Mode, plan: &Plan) -> Result<Sample> {
    let own = std::env::current_exe().context("find the running program")?;
    let mut command = enter::namespaced(own, false);
    let inside = Inside { kind: contender.kind, mode, program: contender.program.clone(), plan };
    command.arg("inside").arg(serde_json::to_string(&inside)?);
    if let Some(program) = &contender.program {
        command.env(GATEWAY, program);
    }
    let finished = run_bounded(&mut command, SAMPLE_LIMIT)?;
    if !finished.status.success() {
        anyhow::bail!("{}", tail(&finished.stderr, 40));
    }
    let line = finished.stdout.lines().last().context("a sample printed nothing")?;
    Ok(serde_json::from_str(line)?)
}

/// What the inner process is told.
#[derive(serde::Serialize)]
struct Inside<'p> {
    kind: Kind,
    mode: Mode,
    program: Option<PathBuf>,
    plan: &'p Plan,
}
