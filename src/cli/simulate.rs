//! `rongate simulate`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, Outcome, output, tell};
use crate::sim::scenario::{self, Report, Scenario, Trace};
use crate::sim::swarm::{self, Plan};

/// Simulate an overlay: real nodes in virtual time over an underlay that fails
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate simulate examples/outages.yaml
  rongate simulate examples/outages.yaml --seed 7 --json | jq '.[0].schemes[] | {name, availability}'
  rongate simulate examples/papers/ron.yaml --plot plots
  rongate simulate --swarm 74
  rongate simulate --swarm 0..1000

A scenario says how many nodes there are, what lies between them, what fails, and which schemes are
compared; docs/simulation.md describes it. The same scenario and seed give the same output. --swarm runs
worlds drawn from seeds instead, and looks for what must never be; exit status 1 when it is found.")]
pub(super) struct Arguments {
    /// Scenario file
    #[arg(value_name = "SCENARIO", required_unless_present = "swarm")]
    scenario: Option<PathBuf>,
    /// Seed instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print figures as JSON: a list with one entry for each number of nodes
    #[arg(long)]
    json: bool,
    /// Write plots (SVG) and tables (CSV) into this folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Run the worlds of these seeds: one, or FIRST..END
    #[arg(long, value_name = "SEEDS", conflicts_with_all = ["scenario", "seed", "json", "plot"],
          value_parser = seeds)]
    swarm: Option<(u64, u64)>,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let read = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match text.split_once("..") {
        None => read(text).map(|seed| (seed, seed + 1)),
        Some((first, end)) => Ok((read(first)?, read(end)?)),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if let Some((first, end)) = arguments.swarm {
        return run_swarm(first, end);
    }
    let Some(path) = &arguments.scenario else { return Ok(()) };
    let (mut scenario, trace) = load(path)?;
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    let mut reports = Vec::new();
    let by_overlays = scenario.by_overlays();
    let sizes = scenario.sizes();
    for (scenario, nodes) in by_overlays.iter().flat_map(|one| sizes.iter().map(move |n| (one, *n)))
    {
        let mut bar = Bar::new(&format!("{}, {nodes} nodes", scenario.name));
        reports.push(scenario::run(scenario, nodes, trace.as_ref(), &mut |done| bar.show(done)));
        bar.clear();
    }
    if let Some(folder) = &arguments.plot {
        write_files(folder, &reports)?;
    }
    if arguments.json {
        let value = serde_json::to_value(&reports).context("no JSON form")?;
        return output::write_json(&value);
    }
    let mut text: String = reports.iter().map(Report::summary).collect::<Vec<_>>().join("\n");
    if let Some((table, _)) = scenario::by_size(&reports) {
        text += "\n";
        text += &table;
    }
    output::write(&text)
}

fn load(path: &Path) -> Result<(Scenario, Option<Trace>), Failure> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let wrong = |path: &Path, what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let scenario = Scenario::parse(&read(path)?).map_err(|what| wrong(path, what))?;
    let Some(name) = &scenario.underlay.trace else { return Ok((scenario, None)) };
    let path = path.with_file_name(name);
    let trace = Trace::parse(&read(&path)?).map_err(|what| wrong(&path, what))?;
    let most = scenario.sizes().into_iter().max().unwrap_or(0);
    if trace.names.len() > usize::from(most) {
        let what = format!("it names {} nodes, the scenario has {most}", trace.names.len());
        return Err(wrong(&path, what));
    }
    Ok((scenario, Some(trace)))
}

fn write_files(folder: &Path, reports: &[Report]) -> Outcome {
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for report in reports {
        for (name, content) in report.files() {
            let name = match (reports.len(), report.overlays) {
                (1, _) => name,
                (_, 1) => format!("{}-{name}", report.nodes),
                (_, overlays) => format!("{overlays}x{}-{name}", report.nodes),
            };
            write(&name, &content)?;
        }
    }
    if let Some((_, plot)) = scenario::by_size(reports) {
        write("control.svg", &plot)?;
    }
    Ok(())
}

/// Runs of the smallest plan that still fails.
const MINIMISE_RUNS: u32 = 300;

fn run_swarm(first: u64, end: u64) -> Outcome {
    let mut bar = Bar::new("swarm");
    let mut failed = 0;
    let (mut datagrams, mut seconds) = (0, 0.0);
    for seed in first..end {
        let plan = Plan::draw(seed);
        match swarm::run(&plan) {
            Ok(outcome) => {
                datagrams += outcome.datagrams;
                seconds += outcome.virtual_time.as_secs_f64();
            }
            Err(violation) => {
                failed += 1;
                bar.clear();
                tell(&format!("seed {seed}: {violation}"));
                if let Some((plan, violation)) = swarm::minimise(&plan, MINIMISE_RUNS) {
                    output::write(&format!("{plan}\n{violation}\n"))?;
                }
            }
        }
        bar.show((seed + 1 - first) as f64 / (end - first) as f64);
    }
    bar.clear();
    let worlds = end.saturating_sub(first);
    let hours = seconds / 3_600.0;
    output::write(&format!(
        "{worlds} worlds, {hours:.1} virtual hours, {datagrams} datagrams, {failed} failed\n"
    ))?;
    if failed > 0 {
        return Err(Failure::Fault(anyhow::anyhow!("{failed} of {worlds} worlds failed")));
    }
    Ok(())
}

/// How far it is, on a terminal.
struct Bar {
    what: String,
    shown: Option<u32>,
}

impl Bar {
    const WIDTH: u32 = 40;

    fn new(what: &str) -> Self {
        Self { what: what.to_owned(), shown: None }
    }

    fn show(&mut self, done: f64) {
        let permille = (done * 1_000.0) as u32;
        if self.shown == Some(permille) || !std::io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(permille);
        let full = (permille * Self::WIDTH / 1_000).min(Self::WIDTH) as usize;
        let rest = Self::WIDTH as usize - full;
        let _ = write!(
            std::io::stderr(),
            "\r{} [{}{}] {:5.1}%",
            self.what,
            "#".repeat(full),
            ".".repeat(rest),
            f64::from(permille) / 10.0
        );
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(seeds("7"), Ok((7, 8)));
        assert_eq!(seeds("0..200"), Ok((0, 200)));
        assert!(seeds("a").is_err() && seeds("1..").is_err());
    }

    #[test]
    fn every_example_is_a_scenario() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut found = 0;
        for folder in [root.clone(), root.join("papers")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    assert!(load(&path).is_ok(), "{}: {:?}", path.display(), load(&path).err());
                    found += 1;
                }
            }
        }
        assert!(found >= 8, "{found}");
    }
}
