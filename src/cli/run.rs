//! `rongate run`.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::{config, gateway};

/// Run a gateway until it is told to stop (SIGTERM, SIGINT)
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate run --config /etc/rongate/mit.yaml
  RUST_LOG=debug rongate run --config mit.yaml      with more to read

SIGHUP (or `rongate reload`) reads the file again. `rongate check` tells in advance what is wrong
with one.")]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = config::load(&arguments.config)?;
    Ok(gateway::run(config, &arguments.config)?)
}
