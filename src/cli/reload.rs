//! `rongate reload`.

use clap::Args;

use super::{Gateway, Outcome, control_client, output, tell};
use crate::gateway::status::{ReloadReport, Request};

/// Make a gateway read its configuration again
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate reload
  rongate check --config mit.yaml && rongate reload

The keys that changed are printed. A file with a fault, or with a change that needs a restart, is
refused whole.")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut client = control_client::Client::connect(&arguments.gateway)?;
    if arguments.json {
        return output::write_json(&client.ask(&Request::Reload)?);
    }
    let report: ReloadReport = client.ask_for(&Request::Reload)?;
    if report.applied.is_empty() {
        tell("nothing changed");
    }
    output::write(&report.applied.iter().map(|key| format!("{key}\n")).collect::<String>())
}
