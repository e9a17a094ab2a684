//! `recovery`: how fast overlays leave dead and bad paths, as their hosts see it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use netns_tests::lab::enter;
use netns_tests::lab::process::tail;
use netns_tests::recovery::{self, Overlay, Peer, Plan};

/// Recovery of real gateways in network namespaces of their own.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every row and writes the table.
    All(All),
    /// One sample, inside namespaces of its own.
    #[command(hide = true)]
    Inside {
        row: String,
        delay_ms: u32,
        #[arg(long, value_parser = peer)]
        peer: Option<Overlay>,
    },
}

#[derive(Args)]
struct All {
    /// Repetitions of each row.
    #[arg(long, default_value_t = 30)]
    repeat: u32,
    /// Repetitions of each row for other overlays.
    #[arg(long, default_value_t = 10)]
    peer_repeat: u32,
    /// Repetitions of the rows that take 5 and 30 minutes; 0 leaves them out.
    #[arg(long, default_value_t = 3)]
    long_repeat: u32,
    /// Three repetitions, and none of long rows.
    #[arg(long)]
    quick: bool,
    /// Laboratories at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Measures another overlay beside: ospf-bfd, babel, tinc or nebula, and its program.
    #[arg(long, value_name = "NAME=PROGRAM", value_parser = peer)]
    peer: Vec<Overlay>,
    /// Keeps each sample in this file as soon as it is taken.
    #[arg(long, value_name = "FILE", default_value = "target/bench/recovery.jsonl")]
    samples: PathBuf,
    /// Goes on with the samples that are in the file: those that are there are not taken again.
    #[arg(long)]
    add: bool,
    /// Writes docs/recovery.md and the figures in README.md of this tree too.
    #[arg(long, value_name = "ROOT")]
    write: Option<PathBuf>,
    /// A condition to be told on the page.
    #[arg(long)]
    note: Vec<String>,
}

fn peer(text: &str) -> Result<Overlay, String> {
    let (name, program) = text.split_once('=').ok_or("it is written NAME=PROGRAM")?;
    let peer = Peer::from_name(name).ok_or("there are ospf-bfd, babel, tinc and nebula")?;
    Ok(Overlay::Peer(peer, program.into()))
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::All(wanted) => all(wanted),
        Command::Inside { row, delay_ms, peer } => {
            let overlay = peer.unwrap_or(Overlay::Rongate);
            match recovery::inside(&overlay, &row, delay_ms) {
                Ok(value) => writeln!(io::stdout(), "{value:.1}")?,
                Err(error) => {
                    for (file, text) in enter::logs() {
                        writeln!(io::stderr(), "--- end of {file}\n{}", tail(&text, 8))?;
                    }
                    writeln!(io::stderr(), "{error:#}")?;
                    return Ok(ExitCode::FAILURE);
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn all(wanted: All) -> Result<ExitCode> {
    let quick = |number: u32, otherwise: u32| if wanted.quick { number } else { otherwise };
    let plan = Plan {
        repeat: quick(3, wanted.repeat),
        peer_repeat: quick(3, wanted.peer_repeat),
        long_repeat: quick(0, wanted.long_repeat),
        only: wanted.only,
        peers: wanted.peer,
        jobs: wanted.jobs,
        samples: Some(wanted.samples),
        add: wanted.add,
    };
    let pages = recovery::all(&plan, &wanted.note)?;
    write!(io::stdout(), "{}", pages.page)?;
    if let Some(root) = wanted.write {
        pages.write(&root)?;
    }
    Ok(ExitCode::SUCCESS)
}
