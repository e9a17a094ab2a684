//! Runs the rows and writes the page.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::rows::Kind;
use super::samples::{self, Outcome};
use super::{Overlay, ROWS, Row};
use crate::lab::process::{run, tail};
use crate::lab::{clock, enter};

/// One-way delays of the direct path in milliseconds, in turn.
const DELAYS_MS: [u32; 4] = [5, 20, 40, 80];
/// More than a sample takes, and more than a long one.
const LIMIT: Duration = Duration::from_secs(180);
const LONG_LIMIT: Duration = Duration::from_secs(40 * 60);

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Repetitions of each row of our own.
    pub repeat: u32,
    /// Repetitions of each row for each other overlay.
    pub peer_repeat: u32,
    /// Repetitions of rows that take minutes.
    pub long_repeat: u32,
    /// Only rows whose name contains this.
    pub only: Option<String>,
    /// Other overlays.
    pub peers: Vec<Overlay>,
    /// Laboratories at a time.
    pub jobs: usize,
    /// Where samples are kept, each as soon as it is taken.
    pub samples: Option<PathBuf>,
    /// Those that are there already count.
    pub add: bool,
}

/// One sample that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) row: usize,
    pub(super) overlay: Overlay,
    /// Which repetition it is.
    pub(super) number: u32,
    pub(super) delay_ms: u32,
}

impl Job {
    fn is_same(&self, other: &Self) -> bool {
        (self.row, self.number) == (other.row, other.number) && self.overlay == other.overlay
    }
}

/// Takes one sample; to be called by process 1 of the laboratory's namespaces.
pub fn inside(overlay: &Overlay, row: &str, delay_ms: u32) -> Result<f64> {
    enter::prepare()?;
    let found = ROWS.iter().find(|candidate| candidate.name == row);
    (found.with_context(|| format!("no row `{row}`"))?.sample)(overlay, delay_ms)
}

impl Plan {
    fn wants(&self, row: &Row) -> bool {
        self.only.as_ref().is_none_or(|only| row.name.contains(only.as_str()))
    }

    fn wants_named(&self, part: &str) -> bool {
        ROWS.iter().any(|row| row.name.contains(part) && self.wants(row))
    }

    fn overlays(&self, row: &Row) -> Vec<Overlay> {
        let peers = if row.kind == Kind::Compared { &self.peers[..] } else { &[] };
        std::iter::once(Overlay::Rongate).chain(peers.iter().cloned()).collect()
    }

    fn repetitions(&self, row: &Row, overlay: &Overlay) -> u32 {
        match (row.kind, overlay) {
            (Kind::Long, _) => self.long_repeat,
            (_, Overlay::Rongate) => self.repeat,
            (_, Overlay::Peer(..)) => self.peer_repeat,
        }
    }

    /// In rounds, so that what else the machine does hits all rows alike; long ones first.
    fn jobs(&self) -> VecDeque<Job> {
        let mut all = Vec::new();
        for (row, what) in ROWS.iter().enumerate().filter(|(_, row)| self.wants(row)) {
            for overlay in self.overlays(what) {
                for number in 0..self.repetitions(what, &overlay) {
                    let delay_ms = DELAYS_MS[number as usize % DELAYS_MS.len()];
                    all.push(Job { row, overlay: overlay.clone(), number, delay_ms });
                }
            }
        }
        all.sort_by_key(|job| (ROWS[job.row].kind != Kind::Long, job.number));
        all.into()
    }

    /// The samples of an earlier run that this one goes on with; without one, the file is emptied.
    fn earlier(&self) -> Result<Vec<(Job, Outcome)>> {
        let Some(file) = &self.samples else { return Ok(Vec::new()) };
        if self.add && file.exists() {
            return samples::read(file, &self.peers);
        }
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(file, "").with_context(|| format!("write {}", file.display()))?;
        Ok(Vec::new())
    }

    /// The same with the overlays of samples that an earlier run took.
    fn with_peers_of(&self, done: &[(Job, Outcome)]) -> Self {
        let mut plan = self.clone();
        for (job, _) in done {
            if job.overlay != Overlay::Rongate && !plan.peers.contains(&job.overlay) {
                plan.peers.push(job.overlay.clone());
            }
        }
        plan
    }

    fn keep(&self, job: &Job, outcome: &Outcome) {
        let kept = self.samples.as_ref().map(|file| samples::append(file, job, outcome));
        if let Some(Err(error)) = kept {
            // The sample still counts in this run.
            let _ = writeln!(io::stderr(), "not kept: {error:#}");
        }
    }
}

/// The page, and the few lines of it that the README shows.
#[derive(Clone, Debug)]
pub struct Pages {
    /// All of it.
    pub page: String,
    /// Medians, overlay beside overlay.
    pub compact: String,
}

const REORDERING: &str = "
A flow that moves to a shorter path overtakes itself. Nothing is done about that: holding packets
back until those before have arrived would cost what the shorter path gains, and the sender's
kernel (RACK-TLP, RFC 8985) takes it for reordering, not for an outage. The rows show what it costs.
";

const README_BEGIN: &str = "<!-- written by scripts/bench.sh recovery --write: begin -->\n";
const README_END: &str = "<!-- written by scripts/bench.sh recovery --write: end -->\n";

impl Pages {
    /// Writes docs/recovery.md and the figures in README.md of the tree at `root`.
    pub fn write(&self, root: &Path) -> Result<()> {
        let file = root.join("docs/recovery.md");
        fs::write(&file, &self.page).with_context(|| format!("write {}", file.display()))?;
        let file = root.join("README.md");
        let readme = fs::read_to_string(&file)?;
        let (before, rest) = readme.split_once(README_BEGIN).context("no mark for the figures")?;
        let (_, after) = rest.split_once(README_END).context("no end mark of the figures")?;
        let text = format!("{before}{README_BEGIN}{}{README_END}{after}", self.compact);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

/// Runs everything; progress goes to standard error.
pub fn all(plan: &Plan, notes: &[String]) -> Result<Pages> {
    let earlier = plan.earlier()?;
    let mut jobs = plan.jobs();
    jobs.retain(|job| !earlier.iter().any(|(known, _)| known.is_same(job)));
    let progress = Progress { count: jobs.len(), begun: clock::now() };
    let (queue, done) = (Mutex::new(jobs), Mutex::new(earlier));
    let before = lock(&done).len();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some(job) = take(&queue) {
                    let outcome = Outcome::new(&sample(&job));
                    let mut done = lock(&done);
                    plan.keep(&job, &outcome);
                    done.push((job, outcome));
                    progress.tell(done.len() - before, &done[done.len() - 1]);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let plan = &plan.with_peers_of(&done);
    Ok(Pages { page: page(plan, &done, notes), compact: compact(plan, &done) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Job>>) -> Option<Job> {
    lock(queue).pop_front()
}

/// How far a run is.
struct Progress {
    count: usize,
    begun: Instant,
}

impl Progress {
    fn tell(&self, number: usize, (job, outcome): &(Job, Outcome)) {
        let Row { name, unit, .. } = ROWS[job.row];
        let what = match outcome {
            Outcome::Value(value) => format!("{value:.0} {unit}"),
            Outcome::Never => "never".to_owned(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
        };
        let (overlay, delay) = (job.overlay.name(), job.delay_ms);
        let left = self.begun.elapsed() * (self.count - number) as u32 / number.max(1) as u32;
        // Nobody may be reading.
        let _ = writeln!(
            io::stderr(),
            "{number}/{} ({} min left) {name}, {overlay}, {delay} ms: {what}",
            self.count,
            left.as_secs().div_ceil(60)
        );
    }
}

/// One sample in a laboratory of its own.
fn sample(job: &Job) -> Result<f64> {
    let own = std::env::current_exe().context("find the running program")?;
    let mut command = enter::namespaced(own, false);
    command.args(["inside", ROWS[job.row].name, &job.delay_ms.to_string()]);
    if let Overlay::Peer(peer, program) = &job.overlay {
        command.arg("--peer").arg(format!("{}={}", peer.name(), program.display()));
    }
    let long = ROWS[job.row].kind == Kind::Long;
    let finished = run(&mut command, if long { LONG_LIMIT } else { LIMIT })?;
    ensure!(finished.status.success(), "{}", tail(&finished.stderr, 30));
    finished.stdout.trim().parse().with_context(|| format!("printed {}", finished.stdout))
}

fn page(plan: &Plan, done: &[(Job, Outcome)], notes: &[String]) -> String {
    let mut page = String::from(
        "# Recovery\n\n\
         How long hosts are cut off, and how fast bad paths are left: real gateways in network\n\
         namespaces, two sites with hosts and two relays, 200 packets of 64 bytes a second each way.\n\
         The direct path is 5, 20, 40 and 80 ms long in turn, one way; either relay's two hops\n\
         together 10 and 20 ms longer. Gaps are those of the receiving host, of the worse direction,\n\
         less the 10 ms that the relay adds. Written by `scripts/bench.sh recovery`.\n\n",
    );
    // Writing to a string does not fail.
    if !plan.peers.is_empty() {
        page.push_str("## Against others, in the same run\n\n");
        table(&mut page, plan, done, |row| row.kind == Kind::Compared);
        page.push_str(
            "\nAn endless time means: not within the 30 s that were watched, or a gap to the end of\n\
             20 s is a failed sample. All have the same four sites, links and packets.\n\n",
        );
    }
    page.push_str("## Every event\n\n");
    let others = plan.peers.is_empty();
    table(&mut page, plan, done, |row| others || row.kind != Kind::Compared);
    if plan.wants_named("TCP moves") {
        page.push_str(REORDERING);
    }
    failures(&mut page, done);
    for note in notes {
        let _ = write!(page, "\n{note}\n");
    }
    page
}

fn table(page: &mut String, plan: &Plan, done: &[(Job, Outcome)], wanted: impl Fn(&Row) -> bool) {
    page.push_str("| event | overlay | samples | unit | bar | p50 | p90 | worst |\n");
    page.push_str("|---|---|---|---|---|---|---|---|\n");
    for (at, row) in ROWS.iter().enumerate() {
        for overlay in plan.overlays(row).iter().filter(|_| wanted(row)) {
            let of_row = done.iter().filter(|(job, _)| job.row == at && job.overlay == *overlay);
            let samples: Vec<Option<f64>> = of_row.map(|(_, outcome)| outcome.value()).collect();
            if samples.is_empty() {
                continue;
            }
            let failed = samples.iter().filter(|sample| sample.is_none()).count();
            let mut values: Vec<f64> = samples.into_iter().flatten().collect();
            values.sort_by(f64::total_cmp);
            let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            let bar = if *overlay == Overlay::Rongate { row.bar } else { "" };
            let _ = writeln!(
                page,
                "| {} | {} | {}{failures} | {} | {bar} | {} | {} | {} |",
                row.name,
                overlay.settings(),
                values.len(),
                row.unit,
                percentile(&values, 50),
                percentile(&values, 90),
                percentile(&values, 100)
            );
        }
    }
}

/// Why samples failed, in one line each.
fn failures(page: &mut String, done: &[(Job, Outcome)]) {
    let failed = done.iter().filter_map(|(job, outcome)| match outcome {
        Outcome::Failed(why) => Some((job, why)),
        Outcome::Value(_) | Outcome::Never => None,
    });
    for (at, (job, why)) in failed.enumerate() {
        if at == 0 {
            page.push_str("\nFailed samples, and what was told last:\n\n");
        }
        let last = why.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let (name, overlay) = (ROWS[job.row].name, job.overlay.title());
        let _ = writeln!(page, "- {name}, {overlay}, {} ms: {}", job.delay_ms, last.trim());
    }
}

fn compact(plan: &Plan, done: &[(Job, Outcome)]) -> String {
    let overlays: Vec<&Overlay> = std::iter::once(&Overlay::Rongate).chain(&plan.peers).collect();
    let names: Vec<&str> = overlays.iter().map(|overlay| overlay.title()).collect();
    let mut text =
        format!("| medians | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (at, row) in ROWS.iter().enumerate().filter(|(_, row)| row.kind == Kind::Compared) {
        let cells = overlays.iter().map(|overlay| {
            let of_row = done.iter().filter(|(job, _)| job.row == at && job.overlay == **overlay);
            let mut values: Vec<f64> = of_row.filter_map(|(_, outcome)| outcome.value()).collect();
            values.sort_by(f64::total_cmp);
            percentile(&values, 50)
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(text, "| {}, {} | {} |", row.name, row.unit, cells.join(" | "));
    }
    text
}

/// Of sorted values, as text.
fn percentile(values: &[f64], percent: usize) -> String {
    let index = (values.len() * percent).div_ceil(100).max(1) - 1;
    match values.get(index) {
        Some(value) if value.is_infinite() => "never".to_owned(),
        Some(value) => format!("{value:.0}"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Peer;

    #[test]
    fn rounds_mix_rows_and_overlays() {
        let peers = vec![Overlay::Peer(Peer::Babel, "/babeld".into())];
        let plan = Plan { repeat: 2, peer_repeat: 1, peers, ..Plan::default() };
        let jobs = plan.jobs();
        let compared = ROWS.iter().filter(|row| row.kind == Kind::Compared).count();
        let long = ROWS.iter().filter(|row| row.kind == Kind::Long).count();
        assert_eq!(jobs.len(), 2 * (ROWS.len() - long) + compared);
        assert_eq!((jobs[0].row, jobs[1].row), (0, 0));
        assert_ne!(jobs[0].overlay, jobs[1].overlay);
        assert_eq!(jobs.back().map(|job| job.delay_ms), Some(20));
    }

    #[test]
    fn the_page_counts_failures_and_endless_times() {
        let plan = Plan { repeat: 2, jobs: 1, ..Plan::default() };
        let job = |row| Job { row, overlay: Overlay::Rongate, number: 0, delay_ms: 5 };
        let done = [
            (job(0), Outcome::Value(70.4)),
            (job(0), Outcome::Value(61.0)),
            (job(0), Outcome::Failed("the\nlaboratory | broke".into())),
            (job(1), Outcome::Never),
        ];
        let page = page(&plan, &done, &["A note.".into()]);
        assert!(
            page.contains("| 2, 1 failed | ms gap | p50 100, worst 200 | 61 | 70 | 70 |"),
            "{page}"
        );
        assert!(
            page.contains("| never | never | never |") && page.ends_with("\nA note.\n"),
            "{page}"
        );
        assert!(page.contains("rongate, 5 ms: laboratory | broke\n"), "{page}");
    }

    #[test]
    fn a_run_goes_on_where_another_one_ended() {
        let plan = Plan { repeat: 2, ..Plan::default() };
        let jobs = plan.jobs();
        let known = jobs[0].clone();
        let left = jobs.iter().filter(|job| !known.is_same(job)).count();
        assert_eq!(left, jobs.len() - 1);
        let babel = Overlay::Peer(Peer::Babel, PathBuf::new());
        let done = [(Job { overlay: babel, ..known }, Outcome::Value(1.0))];
        let page = page(&plan.with_peers_of(&done), &done, &[]);
        assert!(page.contains("Babel (babeld") && page.contains("| 1 | ms gap |"), "{page}");
    }
}
