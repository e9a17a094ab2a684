//! The command line, one file per subcommand.
//!
//! Data goes to stdout, words go to stderr. Exit status 0 is success, 1 a fault, 2 wrong usage or
//! configuration. A reader that closes the pipe early is no fault.

mod check;
mod control_client;
mod doctor;
mod explain;
mod flows;
mod keygen;
mod metric;
mod nat;
mod output;
mod pace;
mod paths;
mod peers;
mod pubkey;
mod record;
mod reload;
mod run;
mod simulate;
mod status;
mod table;
mod top;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;

/// An overlay gateway: a Resilient Overlay Network for unmodified hosts.
#[derive(Debug, Parser)]
#[command(name = "rongate", version, max_term_width = 100)]
#[command(after_help = "Examples:
  rongate keygen --out mit.key              make a key
  rongate check --config mit.yaml           look for faults in a configuration
  rongate run --config mit.yaml             run a gateway
  rongate status                            ask it how it is
  rongate help flows                        read about a command")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    Keygen(keygen::Arguments),
    Pubkey(pubkey::Arguments),
    Status(status::Arguments),
    Peers(peers::Arguments),
    Paths(paths::Arguments),
    Flows(flows::Arguments),
    Nat(nat::Arguments),
    Explain(explain::Arguments),
    Metric(metric::Arguments),
    Top(top::Arguments),
    Reload(reload::Arguments),
    Record(record::Arguments),
    Simulate(simulate::Arguments),
}

/// Which gateway a command talks to.
#[derive(Args, Clone, Debug, Default)]
struct Gateway {
    /// Control socket of the gateway; by default that of `--config`, or else the only one in
    /// /run/rongate
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Configuration file of the gateway, to find its control socket
    #[arg(long, value_name = "FILE", conflicts_with = "control")]
    config: Option<PathBuf>,
}

/// Why a command ends without success.
#[derive(Debug)]
enum Failure {
    /// Status 2: the configuration is wrong.
    Config(ConfigError),
    /// Status 2: the command line is wrong.
    Usage(String),
    /// Status 1: something went wrong.
    Fault(anyhow::Error),
    /// Status 0: nobody reads our output any more.
    ClosedPipe,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Fault(error)
    }
}

type Outcome = Result<(), Failure>;

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Pubkey(arguments) => pubkey::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Peers(arguments) => peers::run(&arguments),
        Command::Paths(arguments) => paths::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments),
        Command::Nat(arguments) => nat::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Metric(arguments) => metric::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Record(arguments) => record::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
    };
    let (words, code) = match outcome {
        Ok(()) | Err(Failure::ClosedPipe) => return ExitCode::SUCCESS,
        Err(Failure::Config(error)) => (error.to_string(), 2),
        Err(Failure::Usage(words)) => (format!("rongate: {words}"), 2),
        Err(Failure::Fault(error)) => (format!("rongate: {error:#}"), 1),
    };
    tell(&words);
    ExitCode::from(code)
}

/// Says something to the operator. When stderr is gone, nobody is there to hear it.
fn tell(words: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{words}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("  rongate {}", command.get_name());
            assert!(help.starts_with("Examples:\n"), "{}", command.get_name());
            assert!(help.contains(&example), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_contract_of_the_command_line_holds() {
        for line in [
            "run --config f",
            "check --config f",
            "check --config f --print --json",
            "doctor --config f --all",
            "keygen",
            "keygen --out f",
            "pubkey",
            "status --json --control s",
            "peers --config f",
            "paths",
            "flows --limit 5 --offset 5 --json",
            "nat --host 10.1.0.5 --protocol tcp --outside :40123 --json",
            "nat hosts --control s",
            "nat delete udp 192.0.2.1:40123 --config f",
            "explain 10.2.0.5",
            "explain tcp 10.1.0.5:40000 10.2.0.5:80",
            "explain udp 10.1.0.5:40000 10.2.0.5:80 --dscp ef --json",
            "explain 10.2.0.5 --from 10.1.0.5 --protocol udp --from-port 7 --to-port 8 --dscp 46",
            "explain fd00:2::5 --interface lan0 --flow-label 0x12345 --control s",
            "metric set utah 12.5 --via aros --ttl 10m --json",
            "metric set utah 0 --uplink isp1 --config f",
            "metric clear utah --control s",
            "metric list",
            "top",
            "reload",
            "record --interval 250ms --count 4",
            "simulate s.yaml --seed 7 --json --plot d",
            "simulate --swarm 0..10",
        ] {
            let words = std::iter::once("rongate").chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
        for line in
            ["run", "check", "explain", "status --control a --config b", "frobnicate", "simulate"]
        {
            let words = std::iter::once("rongate").chain(line.split(' '));
            assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
