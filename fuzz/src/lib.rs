//! What is fed to the fuzzer: each module has one `run`, which may do anything with its bytes but
//! panic. `tests/corpora.rs` of the gateway runs them with the inputs of `corpus`.

pub mod bytes;
pub mod config;
pub mod control;
pub mod node;
pub mod parsers;
