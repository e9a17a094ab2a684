//! Programs of others that only some scenarios need: unpacked, not installed, because several of them
//! are services that would start. `scripts/lib.sh` fetches them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Names the directory that they were unpacked into.
pub const TOOLS: &str = "RONGATE_LAB_TOOLS";

/// Where `scripts/lib.sh` puts them if it is not told otherwise.
fn directory() -> PathBuf {
    if let Some(directory) = env::var_os(TOOLS) {
        return directory.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("rongate-lab/tools")
}

/// A program by its name: unpacked, or installed.
pub fn find_tool(name: &str) -> Result<PathBuf> {
    let root = directory();
    let unpacked = ["usr/bin", "usr/sbin"].map(|place| root.join(place).join(name));
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut all = unpacked.into_iter().chain(installed.map(|place| place.join(name)));
    match all.find(|candidate| candidate.is_file()) {
        Some(found) => Ok(found),
        None => bail!("no program `{name}`: `scripts/test.sh` fetches it, or install it"),
    }
}

/// Lets a command find the libraries and Python modules that came with the programs.
pub fn with_libraries(command: &mut Command) -> &mut Command {
    let root = directory();
    let libraries = root.join("usr/lib");
    let native = format!("{}-linux-gnu", env::consts::ARCH);
    let list = [libraries.join(native), libraries].map(|path| path.display().to_string());
    command
        .env("LD_LIBRARY_PATH", list.join(":"))
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
}

/// The Python that Debian's modules are for.
pub fn python() -> &'static Path {
    Path::new("/usr/bin/python3")
}
