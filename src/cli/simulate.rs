//! `rongate simulate`.

use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, Outcome, output, tell};
use crate::sim::scenario::{self, Report, Scenario, Trace};
use crate::sim::swarm::{self, Plan, Violation};

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
worlds drawn from seeds instead, and looks for what must never be; exit status 1 when it is found. For
a single seed that fails, the smallest plan that still does is found out and printed.")]
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
    swarm: Option<RangeInclusive<u64>>,
}

/// At least one seed, so that nobody takes none for good news.
fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let read = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let Some((first, end)) = text.split_once("..") else {
        return read(text).map(|seed| seed..=seed);
    };
    let (first, end) = (read(first)?, read(end)?);
    match end.checked_sub(1).filter(|last| first <= *last) {
        Some(last) => Ok(first..=last),
        None => Err("there is no seed from FIRST to before END".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if let Some(seeds) = &arguments.swarm {
        return run_swarm(seeds.clone());
    }
    let Some(path) = &arguments.scenario else { return Ok(()) };
    let (mut scenario, trace) = load(path)?;
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    if let Some(folder) = &arguments.plot {
        make_writable(folder)?;
    }
    let mut reports = Vec::new();
    let by_overlays = scenario.by_overlays();
    let sizes = scenario.sizes();
    for (scenario, nodes) in by_overlays.iter().flat_map(|one| sizes.iter().map(move |n| (one, *n)))
    {
        let mut bar = Bar::new(&format!("{}, {nodes} nodes", scenario.name));
        reports.push(scenario::run(scenario, nodes, trace.as_ref(), &mut |done| bar.show(done)));
        bar.clear();
    }
    // First what cost the time: a file that cannot be written takes nothing away from it.
    let printed = print(&reports, arguments.json);
    if let Some(folder) = &arguments.plot {
        write_files(folder, &reports)?;
    }
    printed
}

fn print(reports: &[Report], json: bool) -> Outcome {
    if json {
        let value = serde_json::to_value(reports).context("no JSON form")?;
        return output::write_json(&value);
    }
    let mut text: String = reports.iter().map(Report::summary).collect::<Vec<_>>().join("\n");
    if let Some((table, _)) = scenario::by_size(reports) {
        text += "\n";
        text += &table;
    }
    output::write(&text)
}

/// Finds out before a long run whether files can be written there.
fn make_writable(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let trial = folder.join(format!(".rongate-{}", std::process::id()));
    std::fs::write(&trial, b"")
        .and_then(|()| std::fs::remove_file(&trial))
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    Ok(())
}

fn load(path: &Path) -> Result<(Scenario, Option<Trace>), Failure> {
    let wrong = |path: &Path, what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| wrong(path, format!("cannot read it: {error}")))
    };
    let scenario = Scenario::parse(&read(path)?).map_err(|what| wrong(path, what))?;
    let Some(name) = &scenario.underlay.trace else { return Ok((scenario, None)) };
    let (file, path) = (path, path.with_file_name(name));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        wrong(file, format!("underlay.trace: cannot read {}: {error}", path.display()))
    })?;
    let trace = Trace::parse(&text).map_err(|what| wrong(&path, what))?;
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

/// Most runs on the way to the smallest plan that still fails.
const MINIMISE_RUNS: u32 = 300;

fn run_swarm(seeds: RangeInclusive<u64>) -> Outcome {
    let (first, last) = (*seeds.start(), *seeds.end());
    let mut bar = Bar::new("swarm");
    let (mut worlds, mut failed) = (0, 0);
    let (mut datagrams, mut seconds) = (0, 0.0);
    for seed in seeds {
        let plan = Plan::draw(seed);
        match swarm::run(&plan) {
            Ok(outcome) => {
                datagrams += outcome.datagrams;
                seconds += outcome.virtual_time.as_secs_f64();
            }
            Err(violation) => {
                failed += 1;
                bar.clear();
                tell(&told(seed, &violation, first == last));
                if first == last {
                    minimise(&plan)?;
                }
            }
        }
        worlds += 1;
        bar.show(worlds as f64 / ((last - first) as f64 + 1.0));
    }
    bar.clear();
    let hours = seconds / 3_600.0;
    output::write(&format!(
        "{worlds} worlds, {hours:.1} virtual hours, {datagrams} datagrams, {failed} failed\n"
    ))?;
    if failed > 0 {
        return Err(Failure::Fault(anyhow::anyhow!("{failed} of {worlds} worlds failed")));
    }
    Ok(())
}

fn told(seed: u64, violation: &Violation, alone: bool) -> String {
    let how = match alone {
        true => "again: ",
        false => "again, and the smallest plan that fails so: ",
    };
    format!("seed {seed}: {violation}\n{how}rongate simulate --swarm {seed}")
}

fn minimise(plan: &Plan) -> Outcome {
    tell(&format!("looking for the smallest plan that fails so, in at most {MINIMISE_RUNS} runs"));
    match swarm::minimise(plan, MINIMISE_RUNS) {
        Some((plan, violation)) => output::write(&format!("{plan}\n{violation}\n")),
        None => Err(Failure::Fault(anyhow::anyhow!("the same seed did not fail again"))),
    }
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
    use crate::time::Instant;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(seeds("7"), Ok(7..=7));
        assert_eq!(seeds("0..200"), Ok(0..=199));
        assert_eq!(seeds("18446744073709551615"), Ok(u64::MAX..=u64::MAX));
        for wrong in ["a", "1..", "5..3", "5..5", "0..0", "18446744073709551616", "-1"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_failed_seed_is_told_with_the_command_that_shows_it_again() {
        let violation = Violation { at: Instant::ZERO, what: "a loop".to_owned() };
        for alone in [true, false] {
            let words = told(74, &violation, alone);
            assert!(words.starts_with("seed 74: t=0.000s: a loop\nagain"), "{words}");
            assert!(words.ends_with(": rongate simulate --swarm 74"), "{words}");
        }
    }

    #[test]
    fn a_trace_that_is_not_there_is_told_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "underlay: { trace: none.csv }").unwrap();
        let Err(Failure::Usage(told)) = load(&file) else { panic!("it is not there") };
        assert!(
            told.contains("a.yaml: underlay.trace: cannot read") && told.contains("none.csv"),
            "{told}"
        );
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
