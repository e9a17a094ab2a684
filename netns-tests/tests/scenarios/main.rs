//! Scenarios on real processes, each in namespaces of its own. See the laboratory's harness for how
//! they run; each file opens with its topology.

mod laboratory;

use std::process::ExitCode;

use netns_tests::lab::{Scenario, harness};

fn main() -> ExitCode {
    let all: Vec<Scenario> = [laboratory::SCENARIOS].concat();
    harness::main(&all)
}
