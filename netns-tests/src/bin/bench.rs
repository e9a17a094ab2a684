//! `bench`: measures the gateway beside plain forwarding and other programs.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use netns_tests::bench::probe::{self, flows};
use netns_tests::bench::{
    self, Contender, Kind, Mode, Plan, Progress, Report, Rounds, Row, Sample,
};
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
    /// Only bulk transfers and round trips.
    #[arg(long)]
    bulk_only: bool,
    /// Seconds of each bulk transfer instead of the usual number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=20))]
    tcp_seconds: Option<u32>,
    /// Only this mode.
    #[arg(long)]
    mode: Option<Mode>,
    /// Only these kinds of contenders.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// All but these kinds of contenders.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Another gateway program to measure beside ours, two gateways joined directly.
    #[arg(long, value_name = "NAME=PROGRAM")]
    beside: Vec<String>,
    /// The program of another tunnel.
    #[arg(long, value_name = "KIND=PROGRAM", value_parser = peer)]
    peer: Vec<(Kind, PathBuf)>,
    /// A file with what `cargo bench --bench datapath` printed.
    #[arg(long)]
    datapath: Option<PathBuf>,
    /// Adds the rounds to those that are in the output directory already.
    #[arg(long)]
    add: bool,
    /// Where throughput.md, throughput.json and plots/ go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Writes docs/benchmarks.md, docs/plots/ and the figures in README.md of this tree too.
    #[arg(long, value_name = "ROOT")]
    write: Option<PathBuf>,
    /// Prints all samples as JSON instead of the page; progress goes to standard error.
    #[arg(long)]
    json: bool,
    /// A condition to be told in the report.
    #[arg(long)]
    note: Vec<String>,
    /// Seconds after which no round is begun any more.
    #[arg(long)]
    budget: Option<u64>,
}

fn peer(text: &str) -> Result<(Kind, PathBuf)> {
    let (kind, program) = text.split_once('=').context("KIND=PROGRAM is wanted")?;
    let kind = Kind::from_str(kind, true).map_err(|error| anyhow!(error))?;
    ensure!(kind.is_peer(), "{} is no other program", kind.name());
    Ok((kind, std::path::absolute(program)?))
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
    Accept {
        #[arg(long)]
        at: SocketAddrV4,
    },
    Connect {
        #[arg(long)]
        from: Ipv4Addr,
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        count: u32,
    },
    Spread {
        #[arg(long)]
        from: Ipv4Addr,
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        count: u32,
        #[arg(long)]
        rate: u32,
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
    let mut rounds = rounds(&arguments)?;
    rounds.contenders.retain(|contender| {
        !arguments.without.contains(&contender.kind)
            && (arguments.only.is_empty() || arguments.only.contains(&contender.kind))
    });
    for beside in &arguments.beside {
        let (name, program) = beside.split_once('=').context("--beside wants NAME=PROGRAM")?;
        let program = Some(std::path::absolute(program)?);
        rounds.contenders.push(Contender { name: name.into(), kind: Kind::Direct, program });
    }
    say(&format!("about {}; {}", minutes(rounds.estimate()), described(&rounds)));
    let rows = bench::run(&rounds, progress);
    let failed = rows.iter().filter(|row| row.sample.is_none()).count();
    let datapath = arguments.datapath.as_deref().map(fs::read_to_string).transpose()?;
    let conditions = arguments.note.iter().cloned().chain([machine()]).collect();
    let mut report = Report { conditions, rows, datapath };
    let json = arguments.out.join("throughput.json");
    if arguments.add && json.exists() {
        let mut all: Report = serde_json::from_str(&fs::read_to_string(&json)?)?;
        all.append(report);
        report = all;
    }
    write(&arguments, &json, &report)?;
    let mut out = io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "\n{}\nWritten to {}.", report.markdown(), arguments.out.display())?;
    }
    if failed > 0 {
        say(&format!("{failed} samples failed."));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn rounds(arguments: &Throughput) -> Result<Rounds> {
    let contenders = Contender::all(&arguments.peer);
    ensure!(arguments.rounds != Some(0) || arguments.add, "no rounds, and none to show again");
    let (mut plan, usual, budget) = if arguments.quick {
        (Plan::QUICK, [(Mode::Wire, 1), (Mode::Super, 1)], 200)
    } else {
        (Plan::FULL, [(Mode::Wire, 5), (Mode::Super, 5)], 2_400)
    };
    plan.bulk_only = arguments.bulk_only;
    plan.tcp_seconds = arguments.tcp_seconds.unwrap_or(plan.tcp_seconds);
    let chosen = usual.into_iter().filter(|(mode, _)| arguments.mode.is_none_or(|m| m == *mode));
    let modes = chosen.map(|(mode, count)| (mode, arguments.rounds.unwrap_or(count))).collect();
    let budget = Duration::from_secs(arguments.budget.unwrap_or(budget));
    Ok(Rounds { contenders, modes, plan, budget })
}

fn described(rounds: &Rounds) -> String {
    let modes: Vec<_> =
        rounds.modes.iter().map(|(mode, count)| format!("{count} of {}", mode.name())).collect();
    let names: Vec<_> = rounds.contenders.iter().map(|contender| contender.name.as_str()).collect();
    format!("rounds: {}; contenders: {}", modes.join(", "), names.join(", "))
}

fn write(arguments: &Throughput, json: &Path, report: &Report) -> Result<()> {
    fs::create_dir_all(&arguments.out)?;
    fs::write(json, serde_json::to_string_pretty(report)?)?;
    fs::write(arguments.out.join("throughput.md"), report.markdown())?;
    if let Err(error) = report.plot(&arguments.out.join("plots")) {
        ensure!(arguments.write.is_none(), "{error:#}");
        say(&format!("no plots: {error:#}"));
    }
    if let Some(root) = &arguments.write {
        fs::write(root.join("docs/benchmarks.md"), report.markdown())?;
        report.plot(&root.join("docs/plots"))?;
        let readme = root.join("README.md");
        fs::write(&readme, report.put_into(&fs::read_to_string(&readme)?)?)?;
    }
    Ok(())
}

/// Words go to standard error; whoever closed it still gets the files.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} minutes", seconds / 60, seconds % 60)
}

fn progress(row: &Row, progress: Progress) {
    let what = match (&row.sample, &row.error) {
        (Some(sample), _) => described_sample(sample),
        (None, error) => format!("failed:\n{}\n", error.as_deref().unwrap_or("unknown")),
    };
    let Progress { done, all, remaining } = progress;
    say(&format!(
        "{done:3}/{all} {} left, {:5} {:24} {what} (others {:.0} %)",
        minutes(remaining),
        row.mode.name(),
        row.name,
        row.others * 100.0
    ));
}

fn described_sample(sample: &Sample) -> String {
    let mut words = Vec::new();
    if let (Some(one), Some(four)) = (&sample.tcp1, &sample.tcp4) {
        let cpu = one.cpu_per_gb.iter().fold(0.0, |sum, each| sum + each);
        words.push(format!("TCP {:.0} and {:.0} Mbit/s, {cpu:.2} CPU s/GB", one.mbit, four.mbit));
    }
    if let Some(rtt) = &sample.rtt_load {
        words.push(format!("RTT {:.0} us beside it", rtt.p50_us));
    }
    if let Some(flood) = &sample.flood {
        words.push(format!("{:.1} kpps", flood.delivered / 1e3));
    }
    if let Some(connects) = &sample.connects {
        words.push(format!("{:.0} new flows/s, {} lost", connects.rate(), connects.lost));
    }
    if let Some(table) = &sample.table {
        let most = table.resident_mb.iter().copied().fold(0.0, f64::max);
        words.push(format!("{most:.0} MB with {:.0} flows", table.flows));
    }
    words.join(", ")
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
        Probe::Accept { at } => flows::accept(at),
        Probe::Connect { from, to, count } => flows::connect(from, to, count),
        Probe::Spread { from, to, count, rate } => flows::spread(from, to, count, rate),
    }
}
