//! The fuzzer's targets with the inputs that it found worth keeping (`fuzz/corpus`), and with every
//! input cut short.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "they belong to the fuzzer's crate")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Runs a target with its corpus.
fn replay(name: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} has {} inputs", folder.display(), files.len());
    for file in files {
        let input = fs::read(&file).unwrap();
        let result = std::panic::catch_unwind(|| run(&input));
        assert!(result.is_ok(), "{} makes it panic", file.display());
    }
}

#[test]
fn the_parsers_stand_their_corpus() {
    replay("parsers", targets::parsers::run);
}

#[test]
fn a_node_stands_its_corpus() {
    replay("node", targets::node::run);
}

#[test]
fn the_configuration_stands_its_corpus() {
    replay("config", targets::config::run);
}

#[test]
fn the_control_socket_stands_its_corpus() {
    replay("control", targets::control::run);
}
