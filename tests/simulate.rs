//! `rongate simulate` as its users run it: what it prints, what it writes, how it ends.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const SCENARIO: &str = "\
name: short
about: three sites for a minute
duration: 60s
warm_up: 10s
nodes: 3
every: 500ms
underlay: { delay: 5ms..60ms, jitter: 2ms, loss: 0.01 }
failures:
  - { what: pair, every: 30s, lasts: 10s }
schemes: [direct, overlay]
";

/// Exit status, stdout and stderr.
fn simulate(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rongate"));
    command.current_dir(folder).arg("simulate").args(arguments).env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A folder with the scenario as `short.yaml`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short.yaml"), SCENARIO).unwrap();
    folder
}

#[test]
fn a_scenario_gives_a_summary_or_json_and_a_seed_the_same_bytes() {
    let folder = folder();
    let folder = folder.path();
    let (status, summary, words) = simulate(folder, &["short.yaml"]);
    assert_eq!((status, words.as_str()), (0, ""));
    assert!(summary.contains("short") && summary.contains("overlay"), "{summary}");

    let json = |seed| {
        let (status, data, words) = simulate(folder, &["short.yaml", "--json", "--seed", seed]);
        assert_eq!((status, words.as_str()), (0, ""));
        data
    };
    let first = json("7");
    assert_eq!(first, json("7"), "the same seed");
    let digest = |data: &str| serde_json::from_str::<Value>(data).unwrap()[0]["digest"].clone();
    assert_ne!(digest(&first), digest(&json("8")), "another seed");
    let parsed: Value = serde_json::from_str(&first).unwrap();
    let report = &parsed.as_array().unwrap()[0];
    assert_eq!((&report["scenario"], &report["nodes"]), (&"short".into(), &3.into()));
    assert_eq!(report["schemes"].as_array().unwrap().len(), 2);
}

/// What the scenario gave on the machine where this was written: another machine, another compiler
/// and another profile must find the same. Every change of what nodes do, or of the simulator,
/// makes it something else; then, and only then, the digest of the failed test is put here.
const DIGEST: &str = "ad54e53b4bf1c9e89005c1a95a5932d42c1a3f9e2aff326264ef46758789c515";

#[test]
fn a_scenario_gives_the_same_run_on_every_machine() {
    let folder = folder();
    let (status, data, _) = simulate(folder.path(), &["short.yaml", "--json", "--seed", "7"]);
    assert_eq!(status, 0);
    let report = &serde_json::from_str::<Value>(&data).unwrap()[0];
    assert_eq!(report["digest"], DIGEST);
}

#[test]
fn plots_are_written_after_the_summary() {
    let folder = folder();
    let folder = folder.path();
    let (status, summary, words) = simulate(folder, &["short.yaml", "--plot", "a/plots"]);
    assert_eq!((status, words.as_str()), (0, ""));
    assert_eq!(simulate(folder, &["short.yaml"]).1, summary, "plots change nothing");
    let mut names: Vec<String> = fs::read_dir(folder.join("a/plots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.iter().any(|name| name.ends_with(".csv")), "{names:?}");
    for name in &names {
        let text = fs::read_to_string(folder.join("a/plots").join(name)).unwrap();
        if name.ends_with(".svg") {
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{name}");
        } else {
            assert!(name.ends_with(".csv") && text.lines().count() > 1, "{name}");
        }
    }
    assert!(names.iter().filter(|name| name.ends_with(".svg")).count() >= 3, "{names:?}");
}

#[test]
fn what_cannot_be_written_is_told_before_anything_runs() {
    let folder = folder();
    for plots in ["/proc/nowhere", "/proc"] {
        let (status, data, words) = simulate(folder.path(), &["short.yaml", "--plot", plots]);
        assert_eq!((status, data.as_str()), (1, ""), "{words}");
        assert!(words.starts_with("rongate: cannot ") && words.contains(plots), "{words}");
    }
}

#[test]
fn wrong_usage_and_wrong_scenarios_end_with_status_2_and_a_sentence() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("key.yaml"), format!("{SCENARIO}colour: red\n")).unwrap();
    let trace = SCENARIO.replace("underlay: {", "underlay: { trace: none.csv,");
    fs::write(folder.join("trace.yaml"), trace).unwrap();
    for (arguments, wanted) in [
        (&["none.yaml"][..], "none.yaml"),
        (&["key.yaml"], "colour"),
        (&["trace.yaml"], "none.csv"),
        (&[], "SCENARIO"),
        (&["--swarm", "5..3"], "5..3"),
        (&["--swarm", "5..5"], "5..5"),
        (&["--swarm", "18446744073709551616"], "18446744073709551616"),
        (&["short.yaml", "--swarm", "1"], "--swarm"),
    ] {
        let (status, data, words) = simulate(folder, arguments);
        assert_eq!((status, data.as_str()), (2, ""), "{arguments:?}: {words}");
        assert!(words.contains(wanted), "{arguments:?}: {words}");
    }
}

#[test]
fn a_swarm_tells_how_many_worlds_it_ran() {
    let folder = folder();
    let (status, data, words) = simulate(folder.path(), &["--swarm", "0..2"]);
    assert_eq!((status, words.as_str()), (0, ""));
    assert!(data.starts_with("2 worlds, ") && data.ends_with(" 0 failed\n"), "{data}");
    let last = u64::MAX.to_string();
    let (status, data, _) = simulate(folder.path(), &["--swarm", &last]);
    assert_eq!(status, 0);
    assert!(data.starts_with("1 worlds, ") && data.ends_with(" 0 failed\n"), "{data}");
}
