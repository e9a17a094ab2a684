//! The process: event loop, control thread, kernel set-up.

use std::path::Path;

use crate::config::Config;

pub mod status;

/// Runs a gateway until it is told to stop.
pub fn run(_config: Config, _config_path: &Path) -> anyhow::Result<()> {
    anyhow::bail!("the gateway cannot run yet")
}
