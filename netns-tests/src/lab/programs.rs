//! Where the programs are that a laboratory starts.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// Names the gateway program to test; without it the one beside the test binary is taken.
pub const GATEWAY: &str = "RONGATE_BIN";

/// A program built by this workspace: beside the running binary, or one directory above it (test
/// binaries are in `deps/`).
pub fn find_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    for directory in own.ancestors().skip(1).take(2) {
        let candidate = directory.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no program `{name}` beside {}: build the workspace first", own.display())
}

/// The gateway program `rongate`.
pub fn find_gateway() -> Result<PathBuf> {
    let Some(path) = std::env::var_os(GATEWAY) else { return find_program("rongate") };
    let path = PathBuf::from(path);
    ensure!(path.is_file(), "{GATEWAY} names {}, which is no file", path.display());
    Ok(std::path::absolute(path)?)
}
