//! Real processes on a real kernel: the WAN emulator, the laboratory, and its scenarios.

pub mod lab;
pub mod wan;
