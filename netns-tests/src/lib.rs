//! Real processes on a real kernel: the WAN emulator, the laboratory, its scenarios, benchmarks.

pub mod bench;
pub mod lab;
pub mod recovery;
pub mod wan;
