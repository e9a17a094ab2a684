//! x

use anyhow::{Result, bail};

/// Runs.
pub fn run() -> Result<serde_json::Value> {
    bail!("not yet")
}
