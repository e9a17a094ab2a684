//! `wan-emulator`: an Internet in one process, between network namespaces.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use netns_tests::wan::{self, Control, Scenario};

/// The run's figures are not to be trusted.
const EXIT_INVALID: u8 = 3;

/// Delays, loses, limits, reorders, duplicates and corrupts packets between network namespaces.
///
/// Exit status: 0 success, 1 a fault, 2 wrong usage or scenario, 3 the run is invalid: the machine
/// was too slow for the figures to be right.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario; prints a line when ready, and the report as JSON at the end.
    Run {
        /// YAML file.
        scenario: PathBuf,
        /// Listen for control at this Unix socket.
        #[arg(long)]
        control: Option<PathBuf>,
        /// End when standard input ends.
        #[arg(long)]
        until_eof: bool,
    },
    /// Check a scenario.
    Check {
        /// YAML file.
        scenario: PathBuf,
    },
    /// Change links of a running emulator, as in `set mit utah '{down: true}'`.
    Set {
        /// The emulator's control socket.
        #[arg(long)]
        control: PathBuf,
        /// The other direction too.
        #[arg(long)]
        both: bool,
        /// Sending site or `*`.
        from: String,
        /// Receiving site or `*`.
        to: String,
        /// Link settings in YAML.
        settings: String,
    },
    /// Print a running emulator's counters as JSON.
    Counters {
        /// The emulator's control socket.
        #[arg(long)]
        control: PathBuf,
    },
    /// Measure this machine: delay accuracy and packets per second, as JSON.
    Selftest,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    match execute(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wan-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { scenario, control, until_eof } => {
            let scenario = match Scenario::load(&scenario) {
                Ok(scenario) => scenario,
                Err(error) => return Ok(wrong_scenario(&error)),
            };
            let options = wan::Options { control, until_eof };
            let report = wan::run(&scenario, &options, || print(&"{\"ready\":true}"))?;
            print(&serde_json::to_string(&report)?);
            for problem in &report.problems {
                eprintln!("wan-emulator: invalid run: {problem}");
            }
            Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_INVALID) })
        }
        Command::Check { scenario } => match Scenario::load(&scenario) {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(error) => Ok(wrong_scenario(&error)),
        },
        Command::Set { control, both, from, to, settings } => {
            let control = Control::new(control);
            if both {
                control.set_both(&from, &to, &settings)?;
            } else {
                control.set(&from, &to, &settings)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Counters { control } => {
            print(&serde_json::to_string_pretty(&Control::new(control).counters()?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Selftest => {
            let figures = wan::selftest::run().context("selftest")?;
            print(&serde_json::to_string_pretty(&figures)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn wrong_scenario(error: &anyhow::Error) -> ExitCode {
    eprintln!("wan-emulator: {error:#}");
    ExitCode::from(2)
}

/// Writes a line; a reader that has gone is no fault.
fn print(text: &dyn std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}
