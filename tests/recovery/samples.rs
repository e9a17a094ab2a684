//! Rows of the table: a sample for each seed, kept in a file, and what they are held against.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::ms;

/// How many seeds, unless it is said.
const FEW: u64 = 20;

fn seeds(few: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    match number("RONGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RONGATE_SEEDS").unwrap_or(few),
    }
}

/// The value that so many percent of the samples do not exceed.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent).div_ceil(100).clamp(1, samples.len()) - 1]
}

/// Runs a row for every seed, prints its distribution and returns the samples.
pub(crate) fn row(name: &str, one: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    row_of(name, FEW, one)
}

/// The same for a row of which `few` seeds do where nothing is said.
pub(crate) fn row_of(name: &str, few: u64, mut one: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    let known = known_samples(name);
    let sample = |seed| match known.get(&seed) {
        Some(known) => *known,
        None => {
            let sample = one(seed);
            keep_sample(name, seed, sample);
            sample
        }
    };
    let mut samples: Vec<_> = seeds(few).map(sample).collect();
    let [p50, p90, p99, max] =
        [50, 90, 99, 100].map(|percent| percentile(&mut samples, percent).as_millis());
    println!("| {name} | {} | {p50} | {p90} | {p99} | {max} |", samples.len());
    samples
}

/// What an earlier run kept of a row, by seed.
fn known_samples(name: &str) -> BTreeMap<u64, Duration> {
    let file = std::env::var_os("RONGATE_SAMPLES");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let of_line = |line: &str| {
        let (row, rest) = line.split_once('\t')?;
        let (seed, us) = rest.split_once('\t')?;
        (row == name).then_some((seed.parse().ok()?, Duration::from_micros(us.parse().ok()?)))
    };
    text.lines().filter_map(of_line).collect()
}

fn keep_sample(name: &str, seed: u64, sample: Duration) {
    let Some(file) = std::env::var_os("RONGATE_SAMPLES") else { return };
    let mut line = String::new();
    writeln!(line, "{name}\t{seed}\t{}", sample.as_micros()).unwrap();
    let mut open = std::fs::File::options();
    let mut file = open.create(true).append(true).open(file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Beyond what the relay adds, half of the gaps are at most 100 ms and nearly all 200 ms.
pub(crate) fn bounded(mut gaps: Vec<Duration>) {
    assert!(percentile(&mut gaps, 50) <= ms(100), "{gaps:?}");
    assert!(percentile(&mut gaps, 99) <= ms(200), "{gaps:?}");
}
