//! The scenario harness: the `main` of a test binary whose tests each get a laboratory.
//!
//! The binary runs itself again for each scenario, inside fresh namespaces, with a time limit. A
//! scenario therefore runs on the only thread of its process, and whatever it leaves running ends
//! with it. Scenarios run one after the other unless `--test-threads` says otherwise.

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::enter;
use super::process::{run, tail};
use super::programs::find_gateway;

/// Set to any value, it shows the output of scenarios as they run.
pub const VERBOSE: &str = "RONGATE_LAB_VERBOSE";

/// A directory where the logs of failed scenarios are kept.
pub const LOGS: &str = "RONGATE_LAB_LOGS";

/// One scenario: a function that builds its laboratory and fails if something is not as it must be.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    name: &'static str,
    run: fn() -> Result<()>,
    limit: Duration,
    gateway: bool,
    rootless: bool,
    pending: Option<&'static str>,
}

impl Scenario {
    /// A scenario on real gateways, limited to 60 s.
    pub const fn new(name: &'static str, run: fn() -> Result<()>) -> Self {
        let limit = Duration::from_secs(60);
        Self { name, run, limit, gateway: true, rootless: false, pending: None }
    }

    /// It tests the laboratory itself, with kernel forwarding, and needs no gateway program.
    pub const fn without_gateway(mut self) -> Self {
        self.gateway = false;
        self
    }

    /// It runs in a user namespace even for root.
    pub const fn rootless(mut self) -> Self {
        self.rootless = true;
        self
    }

    /// Another time limit, in seconds.
    pub const fn seconds(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// It is known to wait for something: reported as ignored with this reason, run by `--ignored`.
    pub const fn pending(mut self, reason: &'static str) -> Self {
        self.pending = Some(reason);
        self
    }
}

/// Runs the scenarios that the command line selects.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--inside") {
        return inside(scenarios, arguments.next().as_deref().unwrap_or_default());
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trials = scenarios.iter().map(|&scenario| trial(scenario)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(scenario: Scenario) -> Trial {
    Trial::ignorable_test(scenario.name, move || outside(scenario))
        .with_ignored_flag(scenario.pending.is_some())
        .with_kind(scenario.pending.unwrap_or_default())
}

fn outside(scenario: Scenario) -> Result<Completion, Failed> {
    if scenario.gateway {
        find_gateway()?;
    }
    let program = std::env::current_exe()?;
    let mut command = enter::namespaced(program, scenario.rootless);
    command.args(["--inside", scenario.name]);
    let end = run(&mut command, scenario.limit)?;
    if std::env::var_os(VERBOSE).is_some() {
        eprintln!("{}{}", end.stdout, end.stderr);
    }
    if !end.status.success() {
        return Err(format!("{}{}", end.stdout, end.stderr).into());
    }
    Ok(Completion::Completed)
}

fn inside(scenarios: &[Scenario], name: &str) -> ExitCode {
    let result = scenarios
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}"))
        .and_then(|scenario| {
            enter::prepare()?;
            catch_unwind(scenario.run).map_err(|_| anyhow!("panicked"))?
        });
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Before the logs and after them: a report may be cut at either end.
    eprintln!("--- {name} failed: {error:#}");
    for (file, text) in enter::logs() {
        eprintln!("--- end of {file}\n{}", tail(&text, 25));
        if let Err(error) = keep_log(name, &file, &text) {
            eprintln!("cannot keep it: {error:#}");
        }
    }
    eprintln!("--- {name} failed: {error:#}");
    ExitCode::FAILURE
}

fn keep_log(scenario: &str, file: &str, text: &str) -> Result<()> {
    let Some(directory) = std::env::var_os(LOGS) else { return Ok(()) };
    let path = PathBuf::from(directory).join(scenario.replace("::", "-")).join(file);
    std::fs::create_dir_all(path.parent().context("no directory")?)?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
