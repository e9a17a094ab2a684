//! `recovery`: how fast real gateways leave dead and bad paths, as their hosts see it.
//!
//! ```text
//!   mit-h1 ─ mit ════ the direct path ═════ utah ─ utah-h1     200 packets a second each way
//!              ╚══════ aros, cable ══════════╝                 two relays
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use netns_tests::lab::process::{run, tail};
use netns_tests::lab::tick::Report;
use netns_tests::lab::{Lab, Site, Topology, clock, enter};

const SECOND: Duration = Duration::from_secs(1);
/// Packets a second in each direction.
const RATE: u32 = 200;
/// More than any sample takes.
const LIMIT: Duration = Duration::from_secs(90);
/// One-way delays of the direct path, in turn.
const DELAYS_MS: [u32; 3] = [5, 20, 40];

/// Recovery of real gateways in network namespaces of their own.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every row and writes the table.
    All {
        /// Repetitions of each row.
        #[arg(long, default_value_t = 30)]
        repeat: u32,
        /// Three repetitions.
        #[arg(long)]
        quick: bool,
        /// Only rows whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Writes the table to this file too.
        #[arg(long)]
        write: Option<PathBuf>,
        /// A condition to be told in the table.
        #[arg(long)]
        note: Vec<String>,
    },
    /// One sample, inside namespaces of its own.
    #[command(hide = true)]
    Inside { row: String, delay_ms: u32 },
}

/// A row of the table, and the unit of its samples.
struct Row {
    name: &'static str,
    unit: &'static str,
    sample: fn(u32) -> Result<f64>,
}

const ROWS: &[Row] = &[
    Row { name: "black hole, both ways", unit: "ms gap", sample: |d| black_hole(d, false, false) },
    Row { name: "black hole, one way", unit: "ms gap", sample: |d| black_hole(d, true, false) },
    Row { name: "redundancy 2, black hole", unit: "lost", sample: |d| black_hole(d, false, true) },
    Row { name: "relay in use killed", unit: "ms gap", sample: relay_killed },
    Row { name: "30 % loss", unit: "ms to leave", sample: |d| leave(d, "{loss: 0.3}") },
    Row { name: "10 % loss", unit: "ms to leave", sample: |d| leave(d, "{loss: 0.1}") },
    Row { name: "3 % loss", unit: "ms to leave", sample: |d| leave(d, "{loss: 0.03}") },
    Row { name: "100 ms more delay", unit: "ms to leave", sample: longer },
    Row { name: "direct path heals", unit: "ms to return", sample: heal },
];

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::All { repeat, quick, only, write, note } => {
            let repeat = if quick { 3 } else { repeat };
            let table = all(repeat, only.as_deref(), &note)?;
            if let Some(file) = write {
                fs::write(&file, &table).with_context(|| format!("write {}", file.display()))?;
            }
            write!(io::stdout(), "\n{table}")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Inside { row, delay_ms } => {
            let found = ROWS.iter().find(|candidate| candidate.name == row);
            let found = found.with_context(|| format!("no row `{row}`"))?;
            enter::prepare()?;
            match (found.sample)(delay_ms) {
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

fn all(repeat: u32, only: Option<&str>, notes: &[String]) -> Result<String> {
    let mut table = String::from(
        "# Recovery\n\nHow long hosts are cut off, and how fast bad paths are left, with real gateways in network \
         namespaces: two sites and two relays,\n200 packets of 64 bytes a second each way, the direct path 5, 20 and 40 ms \
         long in turn, either relay's two hops together\n10 and 20 ms longer. Gaps are those of the receiving host, less \
         the 10 ms that the relay adds. Written by `scripts/bench.sh recovery`.\n\n\
         | event | samples | unit | p50 | p90 | worst |\n|---|---|---|---|---|---|\n",
    );
    for row in ROWS.iter().filter(|row| only.is_none_or(|only| row.name.contains(only))) {
        let (mut values, mut failed) = (Vec::new(), 0);
        for number in 0..repeat {
            match sample(row, DELAYS_MS[number as usize % DELAYS_MS.len()]) {
                Ok(value) => values.push(value),
                Err(error) => {
                    failed += 1;
                    writeln!(io::stderr(), "{}: {error:#}", row.name)?;
                }
            }
        }
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (values.len() * percent).div_ceil(100).clamp(1, values.len().max(1)) - 1;
            values.get(index).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let line = format!(
            "| {} | {}{failures} | {} | {} | {} | {} |\n",
            row.name,
            values.len(),
            row.unit,
            at(50),
            at(90),
            at(100)
        );
        write!(io::stdout(), "{line}")?;
        table.push_str(&line);
    }
    for note in notes {
        table.push_str(&format!("\n{note}\n"));
    }
    Ok(table)
}

/// One sample in a laboratory of its own.
fn sample(row: &Row, delay_ms: u32) -> Result<f64> {
    let own = std::env::current_exe().context("find the running program")?;
    let mut command = enter::namespaced(own, false);
    command.args(["inside", row.name, &delay_ms.to_string()]);
    let finished = run(&mut command, LIMIT)?;
    ensure!(finished.status.success(), "{}", tail(&finished.stderr, 30));
    finished.stdout.trim().parse().with_context(|| format!("printed {}", finished.stdout))
}

/// What a relay adds to the one-way delay of the direct path.
const ADDED_MS: u32 = 10;

fn start(delay_ms: u32, redundant: bool) -> Result<Lab> {
    let redundancy = if redundant { 2 } else { 1 };
    let classes = format!("classes: [{{name: default, redundancy: {redundancy}}}]");
    let sites = ["mit", "utah", "aros", "cable"].map(|name| Site::new(name).config(&classes));
    let hop = |extra: u32| format!("{{delay: {}us}}", (delay_ms + extra) * 500);
    let topology = Topology::new(sites)
        .all_links("{delay: 20ms}")
        .link("mit", "utah", &format!("{{delay: {delay_ms}ms}}"))
        .link("mit", "aros", &hop(ADDED_MS))
        .link("aros", "utah", &hop(ADDED_MS))
        .link("mit", "cable", &hop(2 * ADDED_MS))
        .link("cable", "utah", &hop(2 * ADDED_MS));
    let mut lab = Lab::start(topology)?;
    lab.start_gateways()?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        lab.gateway(site)?.wait_via(peer, None, 10 * SECOND)?;
    }
    Ok(lab)
}

/// Ticks both ways before, during and after an event.
fn across(lab: &mut Lab, event: impl FnOnce(&mut Lab) -> Result<()>) -> Result<[Report; 2]> {
    let (a, b) = (lab.host("mit", 1)?, lab.host("utah", 1)?);
    let there = a.start_ticks_with(&b, b.v4, RATE, &["--size", "64"])?;
    let back = b.start_ticks_with(&a, a.v4, RATE, &["--size", "64"])?;
    sleep(5 * SECOND);
    event(lab)?;
    Ok([there.stop()?, back.stop()?])
}

/// The longest gap of either direction, less what the relay adds.
fn gap(reports: &[Report; 2]) -> Result<f64> {
    for report in reports {
        ensure!(report.duplicates == 0, "duplicates: {report:?}");
        ensure!(report.highest + 30 > report.sent, "cut off at the end: {report:?}");
    }
    let longest = reports.iter().map(|report| report.longest_gap_ms).fold(0.0, f64::max);
    Ok((longest - f64::from(ADDED_MS)).max(0.0))
}

fn black_hole(delay_ms: u32, one_way: bool, redundant: bool) -> Result<f64> {
    let mut lab = start(delay_ms, redundant)?;
    let reports = across(&mut lab, |lab| {
        if one_way {
            lab.cut_one_way("mit", "utah")?
        } else {
            lab.cut("mit", "utah")?
        }
        sleep(3 * SECOND);
        Ok(())
    })?;
    if redundant {
        return Ok(reports.iter().map(|report| report.lost() as f64).sum());
    }
    gap(&reports)
}

fn relay_killed(delay_ms: u32) -> Result<f64> {
    let mut lab = start(delay_ms, false)?;
    lab.cut("mit", "utah")?;
    for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
        lab.gateway(site)?.wait_via(peer, Some("aros"), 10 * SECOND)?;
    }
    let reports = across(&mut lab, |lab| {
        lab.gateway("aros")?.kill()?;
        sleep(3 * SECOND);
        Ok(())
    })?;
    gap(&reports)
}

/// Milliseconds until both ends have left the direct path. They must not be back after 5 s.
fn leave(delay_ms: u32, set: &str) -> Result<f64> {
    let mut lab = start(delay_ms, false)?;
    let mut took = 0.0;
    across(&mut lab, |lab| {
        let begun = clock::now();
        lab.set_links("mit", "utah", set)?;
        wait_relayed(lab, true, 30 * SECOND)?;
        took = begun.elapsed().as_secs_f64() * 1e3;
        sleep(5 * SECOND);
        wait_relayed(lab, true, SECOND).context("it went back")
    })?;
    Ok(took)
}

fn longer(delay_ms: u32) -> Result<f64> {
    leave(delay_ms, &format!("{{delay: {}ms}}", delay_ms + 100))
}

fn heal(delay_ms: u32) -> Result<f64> {
    let mut lab = start(delay_ms, false)?;
    lab.cut("mit", "utah")?;
    wait_relayed(&mut lab, true, 10 * SECOND)?;
    let mut took = 0.0;
    let reports = across(&mut lab, |lab| {
        let begun = clock::now();
        lab.heal("mit", "utah")?;
        wait_relayed(lab, false, 40 * SECOND)?;
        took = begun.elapsed().as_secs_f64() * 1e3;
        sleep(SECOND);
        Ok(())
    })?;
    for report in &reports {
        ensure!(report.lost() == 0, "lost on the way back: {report:?}");
    }
    Ok(took)
}

/// Waits until both ends use a relay, or neither does.
fn wait_relayed(lab: &mut Lab, relayed: bool, limit: Duration) -> Result<()> {
    let begun = clock::now();
    loop {
        let mut there = true;
        for (site, peer) in [("mit", "utah"), ("utah", "mit")] {
            let via = lab.gateway(site)?.status()?.via(peer, "latency")?;
            there &= via.is_some() == relayed;
        }
        if there {
            return Ok(());
        }
        if begun.elapsed() > limit {
            bail!("not after {limit:?}");
        }
        sleep(Duration::from_millis(10));
    }
}
