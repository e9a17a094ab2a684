//! `rongate check`.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, tell};
use crate::config;

/// Find all faults of a configuration without starting anything
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate check --config /etc/rongate/mit.yaml
  rongate check --config mit.yaml && rongate reload

Each fault is told with file, line, column, key, and what to do. Exit status 2 if there is any.")]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = config::load(&arguments.config)?;
    tell(&format!(
        "{}: valid: node {} (id {}) with {} uplink(s), {} peer(s) and {} class(es)",
        arguments.config.display(),
        config.node.name,
        config.node.id,
        config.uplinks.len(),
        config.peers.len(),
        config.classes.len()
    ));
    Ok(())
}
