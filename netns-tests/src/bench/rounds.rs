//! Round after round, each contender in its turn.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bystanders::Bystanders;
use super::contender::{Contender, Mode, Plan};
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

/// Runs all rounds; `tell` hears of each sample. A failed sample is a row with an error.
pub fn run(rounds: &Rounds, mut tell: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let bystanders = Bystanders::watch();
    let start = clock::now();
    let mut rows = Vec::new();
    let mut longest = Duration::ZERO;
    let most = rounds.modes.iter().map(|&(_, count)| count).max().unwrap_or_default();
    for round in 0..most {
        for &(mode, _) in rounds.modes.iter().filter(|&&(_, count)| round < count) {
            if start.elapsed() + longest > rounds.budget {
                return Ok(rows);
            }
            let begun = clock::now();
            // Another one is the first each time, so that nobody always follows the same one.
            let first = round as usize % rounds.contenders.len().max(1);
            let (late, early) = rounds.contenders.split_at(first);
            for contender in early.iter().chain(late) {
                let since = bystanders.mark();
                let result = sample(contender, mode, &rounds.plan);
                let others = bystanders.share(since);
                let row = Row::new(contender, mode, round, others, result);
                tell(&row);
                rows.push(row);
            }
            longest = longest.max(begun.elapsed());
        }
    }
    Ok(rows)
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
    kind: super::Kind,
    mode: Mode,
    program: Option<PathBuf>,
    plan: &'p Plan,
}
