//! `rongate check`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Outcome, output, tell};
use crate::config;

/// Find all faults of a configuration without starting anything
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate check --config /etc/rongate/mit.yaml
  rongate check --config mit.yaml && rongate reload
  rongate check --config mit.yaml --print       all keys, with the defaults filled in

Each fault is told with file, line, column, key, and what to do. Exit status 2 if there is any.")]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the configuration that is in effect, as YAML: every key, defaults filled in. Keys stay
    /// in their files
    #[arg(long)]
    print: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = config::load(&arguments.config)?;
    tell(&format!(
        "{}: valid: node {} (id {}) with {}, {} and {}",
        arguments.config.display(),
        config.node.name,
        config.node.id,
        many(config.uplinks.len(), "uplink", "uplinks"),
        many(config.peers.len(), "peer", "peers"),
        many(config.classes.len(), "class", "classes"),
    ));
    if arguments.json {
        let text = serde_json::to_string_pretty(&config).context("no JSON form")?;
        return output::write(&format!("{text}\n"));
    }
    if arguments.print {
        return output::write(&serde_yaml::to_string(&config).context("no YAML form")?);
    }
    Ok(())
}

/// A number with its noun.
fn many(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
