//! Entering the laboratory: a mount, process, and network namespace of its own.
//!
//! The process that runs a scenario is process 1 of its own process namespace. When it ends, for
//! whatever reason, the kernel ends everything it started; with the last process go the network
//! namespaces, their interfaces, and the private `/run` with all files. So a laboratory cannot
//! leave anything behind, not even after `kill -9`, and two of them never meet.
//!
//! Without root the same happens inside a user namespace.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

use super::process::run;

/// Where a laboratory keeps its configuration files, sockets and logs; gone with it.
pub const DIRECTORY: &str = "/run/lab";

/// Set to any value, it makes root use a user namespace too.
pub const ROOTLESS: &str = "RONGATE_LAB_ROOTLESS";

/// A command that runs `program` as process 1 of fresh namespaces, killed with its parent.
///
/// `rootless` adds a user namespace, which whoever is not root needs anyway. The program must call
/// [`prepare`] before anything else.
pub fn namespaced(program: impl AsRef<OsStr>, rootless: bool) -> Command {
    let mut command = Command::new("unshare");
    if rootless || !geteuid().is_root() || std::env::var_os(ROOTLESS).is_some() {
        command.args(["--user", "--map-root-user"]);
    }
    // Temporary files of everything inside go with the laboratory.
    command
        .env("TMPDIR", "/run")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--"])
        .arg(program);
    command
}

/// The inner side of [`namespaced`]: a private `/run`, and loopback up.
pub fn prepare() -> Result<()> {
    ensure!(
        nix::unistd::getpid().as_raw() == 1,
        "not process 1 of its namespace: start the laboratory by its harness"
    );
    mount(Some("lab"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("mount a private /run")?;
    fs::create_dir_all(DIRECTORY)?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]), Duration::from_secs(5))?
        .success()
        .context("is the package iproute2 installed?")?;
    Ok(())
}

/// Every log file of the laboratory, with its text, in the order of their paths.
pub fn logs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect_logs(Path::new(DIRECTORY), &mut found);
    found.sort();
    found
}

fn collect_logs(directory: &Path, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_logs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let text = fs::read(&path).unwrap_or_default();
            let name = path.strip_prefix(DIRECTORY).unwrap_or(&path);
            found.push((name.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
}
