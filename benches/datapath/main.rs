//! What the data path's own code costs, without any input or output.
//!
//! ```text
//! cargo bench --bench datapath                 nanoseconds of each step, and instructions
//! cargo bench --bench datapath -- --check      instructions against benches/datapath/budgets.txt
//! cargo bench --bench datapath -- --bless      writes what is counted now as the budgets
//! cargo bench --bench datapath -- --memory     resident memory with many flows
//! ```
//!
//! Instructions are counted by valgrind, in our own code alone: the cipher and the C library's copies
//! choose theirs by the processor, and are left out. The smallest of many times is what other work
//! on the machine disturbs least.

mod count;
mod overlay;
mod steps;

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use steps::{STEPS, Step, Work};

/// How far a count may be from its budget. Compilers differ a little, and so do hosts.
const TOLERANCE: f64 = 0.08;
/// Runs whose instructions are counted.
const COUNTED: usize = 4;
const TIMED: usize = 4_000;

/// Writes a line; a closed pipe is nobody's fault.
macro_rules! say {
    ($($part:tt)*) => { let _ = writeln!(std::io::stdout(), $($part)*); };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => table(),
        ["--check"] => check(),
        ["--bless"] => bless(),
        ["--memory"] => memory(),
        ["--count", name] => {
            if let Some(step) = STEPS.iter().find(|step| step.name == name) {
                repeat((step.make)().as_mut(), COUNTED);
            }
            ExitCode::SUCCESS
        }
        ["--only", name] => {
            // For a profiler.
            if let Some(step) = STEPS.iter().find(|step| step.name == name) {
                repeat((step.make)().as_mut(), 20 * TIMED);
            }
            ExitCode::SUCCESS
        }
        _ => {
            say!("usage: datapath [--check | --bless | --memory | --only STEP]");
            ExitCode::from(2)
        }
    }
}

/// What valgrind counts: nothing else is called by this name.
#[inline(never)]
fn measured_run(work: &mut dyn Work) {
    black_box(work).run();
}

fn repeat(work: &mut dyn Work, times: usize) {
    for _ in 0..times {
        work.prepare();
        measured_run(work);
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// Nanoseconds per unit: the smallest and the median.
fn time(step: &Step) -> [f64; 2] {
    time_of(step, (step.make)())
}

fn time_of(step: &Step, mut work: Box<dyn Work>) -> [f64; 2] {
    let runs = if step.name == "connect" { 240 } else { TIMED };
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            work.prepare();
            let start = clock();
            measured_run(work.as_mut());
            start.elapsed().as_nanos() as f64 / step.per as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}

/// Nanoseconds that a run of one step takes longer than one of another: the median of turns in which
/// each runs once.
fn extra(without: &str, with: &str) -> f64 {
    let find = |name| STEPS.iter().find(|step| step.name == name).map(|step| (step.make)());
    let (Some(mut without), Some(mut with)) = (find(without), find(with)) else { return 0.0 };
    let run = |work: &mut dyn Work| {
        work.prepare();
        let start = clock();
        measured_run(work);
        start.elapsed().as_nanos() as f64
    };
    let mut differences: Vec<f64> = (0..TIMED)
        .map(|turn| {
            // Neither is always the one that finds the caches warm.
            if turn % 2 == 0 {
                let before = run(without.as_mut());
                run(with.as_mut()) - before
            } else {
                let after = run(with.as_mut());
                after - run(without.as_mut())
            }
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    differences[differences.len() / 2]
}

fn table() -> ExitCode {
    say!("step, unit: ns smallest, ns median, instructions of our own");
    let mut least = Vec::new();
    let counting = count::is_possible();
    million();
    for step in STEPS {
        let [smallest, median] = time(step);
        let count = if counting { count::instructions(step, COUNTED) } else { None };
        let count = count.map_or_else(|| "-".into(), |count| format!("{count:.0}"));
        say!("{:16} {:8} {smallest:8.1} {median:8.1} {count:>8}", step.name, step.unit);
        least.push((step.name, smallest));
    }
    let of = |name| least.iter().find(|entry| entry.0 == name).map_or(0.0, |entry| entry.1);
    say!("figure nat_extra_ns {:.1}", extra("in", "in, exit"));
    say!("figure out_segment_ns {:.1}", of("out") - of("seal"));
    say!("figure in_segment_ns {:.1}", of("in") - of("open"));
    say!("figure connects_per_s {:.0}", 1e9 / of("connect"));
    memory()
}

/// The budgets: a step's name, a tab, instructions per unit.
const BUDGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/datapath/budgets.txt");

fn check() -> ExitCode {
    if !count::is_possible() {
        say!("valgrind is missing");
        return ExitCode::FAILURE;
    }
    let text = std::fs::read_to_string(BUDGETS).unwrap_or_default();
    let mut failed = 0;
    for step in STEPS.iter().filter(|step| step.is_ours()) {
        let line = text.lines().find_map(|line| line.strip_prefix(step.name)?.strip_prefix('\t'));
        let budget: Option<f64> = line.and_then(|number| number.parse().ok());
        let (verdict, bad) = match (budget, count::instructions(step, COUNTED)) {
            (Some(budget), Some(count)) => {
                let change = count / budget - 1.0;
                let words = match change {
                    _ if change > TOLERANCE => "TOO MANY",
                    _ if change < -TOLERANCE => "ok; fewer than they were: bless them",
                    _ => "ok",
                };
                let change = change * 100.0;
                (
                    format!("{count:6.0} of {budget:6.0} ({change:+.1} %) {words}"),
                    words == "TOO MANY",
                )
            }
            (None, _) => ("has no budget".into(), true),
            (_, None) => ("could not be counted".into(), true),
        };
        failed += usize::from(bad);
        say!("{:16} instructions per {:8} {verdict}", step.name, step.unit);
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    say!("{failed} over budget; if it is meant: cargo bench --bench datapath -- --bless");
    ExitCode::FAILURE
}

fn bless() -> ExitCode {
    let mut text = String::new();
    for step in STEPS.iter().filter(|step| step.is_ours()) {
        let Some(count) = count::instructions(step, COUNTED) else {
            say!("{} could not be counted: is valgrind there?", step.name);
            return ExitCode::FAILURE;
        };
        text += &format!("{}\t{count:.0}\n", step.name);
    }
    say!("{}", text.trim_end());
    match std::fs::write(BUDGETS, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("{BUDGETS}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Look-ups among a million flows, and the memory of each: table, index, timers.
fn million() {
    let step = &steps::AMONG_A_MILLION;
    let before = resident();
    let work = (step.make)();
    let bytes = (resident() - before) * 1_048_576.0 / 1e6;
    let [smallest, median] = time_of(step, work);
    say!("{:16} {:8} {smallest:8.1} {median:8.1} {:>8}", step.name, step.unit, "-");
    say!("figure flow_bytes {bytes:.0}");
}

/// Resident memory, MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
    let kib = line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0);
    kib / 1_024.0
}

/// Resident memory of a node and its buffers, then with flows through the exit's NAT.
fn memory() -> ExitCode {
    let before = resident();
    let mut work = steps::many_flows();
    let idle = resident();
    let flows = 100_000;
    for _ in 0..flows / 64 {
        work.prepare();
        work.run();
    }
    let after = resident();
    say!("memory MiB: before {before:.1}, two nodes {idle:.1}, with {flows} flows {after:.1}");
    say!("memory bytes per flow at both nodes: {:.0}", (after - idle) * 1_048_576.0 / flows as f64);
    ExitCode::SUCCESS
}
