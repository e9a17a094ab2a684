//! `lab`: brings up a laboratory from a topology file and keeps it until it is interrupted.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netns_tests::lab::{Lab, Process, Topology, enter, wait_until};
use nix::unistd::geteuid;

/// A laboratory of network namespaces to look around in.
///
/// It lives in namespaces of its own and goes with this process: there is nothing to clean up.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a laboratory; it stays until Enter or Ctrl-C is pressed.
    ///
    /// Example: lab up netns-tests/topologies/two-sites.yaml
    Up {
        /// The topology.
        file: PathBuf,
        /// Start the gateways too.
        #[arg(long)]
        gateways: bool,
        /// In a user namespace even as root.
        #[arg(long)]
        rootless: bool,
    },
    /// The inner side of `up`.
    #[command(hide = true)]
    Inside {
        /// The topology.
        file: PathBuf,
        /// Start the gateways too.
        #[arg(long)]
        gateways: bool,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Up { file, gateways, rootless } => up(&file, gateways, rootless)?,
        Command::Inside { file, gateways } => inside(&file, gateways)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(file: &Path, gateways: bool, rootless: bool) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Topology::from_yaml(&text).with_context(|| format!("in {}", file.display()))?;
    let file = std::path::absolute(file)?;
    let mut command = enter::namespaced(std::env::current_exe()?, rootless);
    command.arg("inside").arg(file);
    if gateways {
        command.arg("--gateways");
    }
    let log = std::env::temp_dir().join(format!("lab-{}.log", std::process::id()));
    let mut lab = Process::spawn("the laboratory", &mut command, &log)?;
    let result = wait_until("the laboratory is up", Duration::from_secs(60), || {
        let done = lab.log_text().contains("The lab is up") || lab.ended()?.is_some();
        anyhow::ensure!(done, "it is being built");
        Ok(())
    });
    let text = lab.log_text();
    fs::remove_file(&log)?;
    lab.ensure_running().with_context(|| text.clone())?;
    result.with_context(|| text.clone())?;
    let user = if rootless || !geteuid().is_root() { "--user --preserve-credentials " } else { "" };
    let first = first_child(lab.pid())?;
    writeln!(
        io::stdout(),
        "{text}Look around with:\n  nsenter --target {first} {user}--mount --pid --net \
         ip netns exec NAMESPACE COMMAND\nPress Enter to end it."
    )?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Process 1 of the laboratory, as it is numbered out here.
fn first_child(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().next().context("the laboratory has ended")?.parse()?)
}

fn inside(file: &Path, gateways: bool) -> Result<()> {
    enter::prepare()?;
    let topology = Topology::from_yaml(&fs::read_to_string(file)?)?;
    let mut lab = Lab::start(topology)?;
    if gateways {
        lab.start_gateways()?;
    }
    let names: Vec<&str> = lab.namespaces().collect();
    writeln!(io::stdout(), "Namespaces: {}\nThe lab is up.", names.join(" "))?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}
