//! YAML text to a validated configuration.
//!
//! The text goes through four forms. `tree` reads YAML and keeps the place of every key and value.
//! `de` turns the tree into the serde structs of `raw`, which say what keys there are; it finds
//! unknown keys and values of the wrong shape. `validate` finds out what the values mean, resolves
//! names, reads keys, and compares sections with each other. The result is a [`Config`], which
//! nobody has to check again. Each step notes its faults and goes on, so that an operator sees all
//! of them at once, each with file, line, column, key, and what to do.
//!
//! All of this is pure; only [`load`] reads files.

mod de;
mod diff;
mod fault;
mod key;
mod load;
mod raw;
mod tree;
mod types;
mod units;
mod validate;

#[cfg(test)]
mod tests;

pub use diff::Change;
pub use fault::{ConfigError, Fault, Position};
pub use key::{KeyFileError, KeySource};
pub use load::{load, read_key_file};
pub use types::*;
pub use units::{
    Endpoint, Listen, ParseUnitError, Rate, format_duration, parse_duration, parse_ports,
};

use de::At;
use fault::Faults;
use raw::RawConfig;

impl Config {
    /// Reads a configuration. `file` is its name for messages; key files come from `keys`.
    pub fn parse(text: &str, file: &str, keys: &dyn KeySource) -> Result<Self, ConfigError> {
        let mut faults = Faults::default();
        let config = read(text, keys, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults.into_error(file)),
        }
    }
}

fn read(text: &str, keys: &dyn KeySource, faults: &mut Faults) -> Option<Config> {
    let root = tree::parse(text, faults)?;
    let raw: At<RawConfig> = de::read(&root, faults)?;
    validate::validate(&raw, keys, faults)
}
