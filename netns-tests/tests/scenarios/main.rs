//! Scenarios on real processes, each in namespaces of its own. See the laboratory's harness for how
//! they run; each file opens with its topology.

mod attack;
mod capacity;
mod common;
mod direct;
mod exit;
mod kernel;
mod laboratory;
mod mtu;
mod nat_behaviour;
mod nat_exit;
mod nat_floods;
mod nat_ipv6;
mod nat_log;
mod nat_ports;
mod nat_programs;
mod policy;
mod relay;
mod restart;
mod uplinks;

use std::process::ExitCode;

use netns_tests::lab::{Scenario, harness};

fn main() -> ExitCode {
    let all: Vec<Scenario> = [
        laboratory::SCENARIOS,
        direct::SCENARIOS,
        policy::SCENARIOS,
        relay::SCENARIOS,
        uplinks::SCENARIOS,
        exit::SCENARIOS,
        nat_behaviour::SCENARIOS,
        nat_exit::SCENARIOS,
        nat_floods::SCENARIOS,
        nat_ipv6::SCENARIOS,
        nat_log::SCENARIOS,
        nat_ports::SCENARIOS,
        nat_programs::SCENARIOS,
        mtu::SCENARIOS,
        restart::SCENARIOS,
        kernel::SCENARIOS,
        attack::SCENARIOS,
        capacity::SCENARIOS,
    ]
    .concat();
    harness::main(&all)
}
