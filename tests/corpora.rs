//! The fuzzer's targets without the fuzzer: the inputs that it found worth keeping (`fuzz/corpus`),
//! each of them cut short, and thousands that are made of them at random, the same every time.
//!
//! `RONGATE_ROUNDS=50 cargo test -p rongate --test corpora` makes fifty times as many. An input that
//! makes a target panic is left in a file that the message names; it belongs into `fuzz/corpus`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use rongate::rng::Rng;

#[expect(unreachable_pub, reason = "they belong to the fuzzer's crate")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// As much as `scripts/fuzz.sh` lets the fuzzer write.
const LEN_MAX: usize = 4_096;

type Target = fn(&[u8]);

/// The inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} has {} inputs", folder.display(), files.len());
    let read = |path: PathBuf| {
        let input = fs::read(&path).unwrap();
        (path, input)
    };
    files.into_iter().map(read).collect()
}

/// Runs a target; what makes it panic is kept.
fn feed(name: &str, run: Target, input: &[u8], what: &str) {
    if std::panic::catch_unwind(|| run(input)).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("panic-{name}"));
        fs::write(&kept, input).unwrap();
        panic!("{name}: {what} makes it panic; the input is in {}", kept.display());
    }
}

/// Runs a target with its corpus, and with each input cut at so many places, or at all.
fn replay(name: &str, run: Target, cuts: usize) {
    for (path, input) in corpus(name) {
        feed(name, run, &input, &path.display().to_string());
        let places = cuts.min(input.len());
        for place in 0..places {
            let len = input.len() * place / places;
            feed(name, run, &input[..len], &format!("{}, cut to {len}", path.display()));
        }
    }
}

/// Runs a target with inputs that are made of its corpus.
fn vary(name: &str, run: Target, rounds: u32) {
    let more = std::env::var("RONGATE_ROUNDS").map_or(1, |text| text.parse().unwrap());
    let corpus: Vec<_> = corpus(name).into_iter().map(|(_, input)| input).collect();
    let mut rng = Rng::new(*b"made of the corpus, one by one.\0");
    let mut input = Vec::new();
    for round in 0..rounds * more {
        let any = |rng: &mut Rng| &corpus[rng.below(corpus.len() as u32) as usize];
        input.clone_from(any(&mut rng));
        for _ in 0..1 + rng.below(4) {
            change(&mut input, any(&mut rng), &mut rng);
        }
        input.truncate(LEN_MAX);
        feed(name, run, &input, &format!("round {round}"));
    }
}

/// One of the changes that fuzzers make.
fn change(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let place = |len: usize, rng: &mut Rng| rng.below(len as u32 + 1) as usize;
    let (at, len) = (place(input.len(), rng), 1 + rng.below(16) as usize);
    let end = input.len().min(at + len);
    match rng.below(8) {
        0 => input.truncate(at),
        1 | 2 => input[at..end].iter_mut().for_each(|byte| *byte ^= 1 << rng.below(8)),
        3 => {
            let value = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize];
            input[at..end].fill(value);
        }
        4 => {
            // The front of one and the rest of another.
            input.truncate(at);
            input.extend_from_slice(&other[place(other.len(), rng)..]);
        }
        5 => {
            let again = input[at..end].repeat(1 + rng.below(8) as usize);
            input.splice(at..at, again);
        }
        6 => drop(input.drain(at..end)),
        _ => {
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            input.splice(at..at, bytes);
        }
    }
}

#[test]
fn the_parsers_stand_their_corpus() {
    replay("parsers", targets::parsers::run, 48);
}

#[test]
fn the_parsers_stand_what_is_made_of_their_corpus() {
    vary("parsers", targets::parsers::run, 100_000);
}

#[test]
fn a_node_stands_its_corpus() {
    replay("node", targets::node::run, 4);
}

#[test]
fn a_node_stands_what_is_made_of_its_corpus() {
    vary("node", targets::node::run, 1_400);
}

#[test]
fn the_configuration_stands_its_corpus() {
    replay("config", targets::config::run, 96);
}

#[test]
fn the_configuration_stands_what_is_made_of_its_corpus() {
    vary("config", targets::config::run, 300_000);
}

#[test]
fn the_control_socket_stands_its_corpus() {
    replay("control", targets::control::run, usize::MAX);
}

#[test]
fn the_control_socket_stands_what_is_made_of_its_corpus() {
    vary("control", targets::control::run, 1_000_000);
}
