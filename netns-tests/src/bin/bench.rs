//! `bench`: measures the gateway beside plain forwarding and other programs.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use netns_tests::bench::{self, Contender, Kind, Mode, Plan, Report, Rounds, Row, probe};
use netns_tests::lab::process::tail;
use serde::Deserialize;

/// Benchmarks in network namespaces of their own.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, cost and delay of two gateways and what stands between them.
    Throughput(Throughput),
    /// The inner side of a sample.
    #[command(hide = true)]
    Inside {
        /// What to measure, as JSON.
        what: String,
    },
    /// What the hosts of a sample run.
    #[command(hide = true)]
    Probe {
        #[command(subcommand)]
        probe: Probe,
    },
}

#[derive(clap::Args)]
struct Throughput {
    /// A first look: fewer rounds, shorter measurements.
    #[arg(long)]
    quick: bool,
    /// Rounds instead of the usual number.
    #[arg(long)]
    rounds: Option<u32>,
    /// Only this mode.
    #[arg(long)]
    mode: Option<Mode>,
    /// Only these kinds of contenders.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Another gateway program to measure beside ours, two gateways joined directly.
    #[arg(long, value_name = "NAME=PROGRAM")]
    beside: Vec<String>,
    /// The program wireguard-go.
    #[arg(long)]
    wireguard_go: Option<PathBuf>,
    /// Where throughput.md and throughput.json go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Writes the table to this file too.
    #[arg(long)]
    write: Option<PathBuf>,
    /// A condition to be told in the report.
    #[arg(long)]
    note: Vec<String>,
    /// Seconds after which no round is begun any more.
    #[arg(long)]
    budget: Option<u64>,
}

#[derive(Subcommand)]
enum Probe {
    Echo {
        #[arg(long)]
        at: SocketAddr,
    },
    Ping {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: u32,
        #[arg(long)]
        interval_us: u64,
    },
    Flood {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        size: usize,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        rate: Option<u32>,
    },
    Sink {
        #[arg(long)]
        at: SocketAddr,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Throughput(arguments) => throughput(arguments),
        Command::Inside { what } => inside(&what),
        Command::Probe { probe } => run_probe(&probe).map(|()| ExitCode::SUCCESS),
    }
}

fn throughput(arguments: Throughput) -> Result<ExitCode> {
    let mut contenders = Contender::all(arguments.wireguard_go);
    if !arguments.only.is_empty() {
        contenders.retain(|contender| arguments.only.contains(&contender.kind));
    }
    for beside in &arguments.beside {
        let (name, program) = beside.split_once('=').context("--beside wants NAME=PROGRAM")?;
        let program = Some(std::path::absolute(program)?);
        contenders.push(Contender { name: name.into(), kind: Kind::Direct, program });
    }
    let (plan, usual, budget) = if arguments.quick {
        (Plan::QUICK, [(Mode::Wire, 2), (Mode::Super, 1)], 240)
    } else {
        (Plan::FULL, [(Mode::Wire, 5), (Mode::Super, 4)], 800)
    };
    let chosen = usual.into_iter().filter(|(mode, _)| arguments.mode.is_none_or(|m| m == *mode));
    let modes = chosen.map(|(mode, count)| (mode, arguments.rounds.unwrap_or(count))).collect();
    let budget = Duration::from_secs(arguments.budget.unwrap_or(budget));
    let rows = bench::run(&Rounds { contenders, modes, plan, budget }, progress)?;
    let failed = rows.iter().filter(|row| row.sample.is_none()).count();
    let conditions = arguments.note.into_iter().chain([machine()]).collect();
    let report = Report { conditions, rows };
    let table = report.markdown();
    fs::create_dir_all(&arguments.out)?;
    let mut files = vec![arguments.out.join("throughput.md")];
    files.extend(arguments.write);
    for file in &files {
        fs::write(file, &table).with_context(|| format!("write {}", file.display()))?;
    }
    let json = arguments.out.join("throughput.json");
    fs::write(&json, serde_json::to_string_pretty(&report)?)?;
    let mut out = io::stdout();
    writeln!(out, "\n{table}\nWritten to {} and {}.", files[0].display(), json.display())?;
    if failed > 0 {
        writeln!(out, "{failed} samples failed.")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn progress(row: &Row) {
    let what = match (&row.sample, &row.error) {
        (Some(sample), _) => format!(
            "TCP {:.0} and {:.0} Mbit/s, {:.2} CPU s/GB, {:.1} kpps, {:.0} us",
            sample.tcp1.mbit,
            sample.tcp4.mbit,
            sample.tcp1.cpu_per_gb.iter().sum::<f64>() + 0.0,
            sample.flood.delivered / 1e3,
            sample.rtt_idle.p50_us
        ),
        (None, error) => format!("failed:\n{}\n", error.as_deref().unwrap_or("unknown")),
    };
    let (mode, others) = (row.mode.name(), row.others * 100.0);
    let line =
        format!("round {} {mode:5} {:26} {what} (others {others:.0} %)", row.round + 1, row.name);
    // Whoever closed our output still gets the files.
    let _ = writeln!(io::stdout(), "{line}");
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let count = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let release = kernel.split('-').next().unwrap_or_default().trim();
    format!("{count} processors ({model}), Linux {release}.")
}

#[derive(Deserialize)]
struct What {
    kind: Kind,
    mode: Mode,
    program: Option<PathBuf>,
    plan: Plan,
}

fn inside(what: &str) -> Result<ExitCode> {
    let What { kind, mode, program, plan } = serde_json::from_str(what)?;
    match bench::inside(kind, mode, program.as_deref(), &plan) {
        Ok(sample) => {
            writeln!(io::stdout(), "{}", serde_json::to_string(&sample)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let mut out = io::stderr();
            for (file, text) in netns_tests::lab::enter::logs() {
                writeln!(out, "--- end of {file}\n{}", tail(&text, 8))?;
            }
            writeln!(out, "{error:#}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn run_probe(probe: &Probe) -> Result<()> {
    match *probe {
        Probe::Echo { at } => probe::echo(at),
        Probe::Ping { to, count, interval_us } => {
            probe::ping(to, count, Duration::from_micros(interval_us))
        }
        Probe::Flood { to, size, seconds, rate } => {
            ensure!(size <= 1_472, "a datagram of {size} bytes does not fit");
            probe::flood(to, size, Duration::from_secs_f64(seconds), rate)
        }
        Probe::Sink { at } => probe::sink(at),
    }
}
