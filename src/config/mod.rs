//! YAML text to a validated configuration.
//!
//! The text goes through four forms. `tree` reads YAML and keeps the place of every key and value.
//! `de` turns the tree into the serde structs of `raw`, which say what keys there are; it finds
//! unknown keys and values of the wrong shape. `validate` finds out what the values mean, resolves
//! names, reads keys, and compares sections with each other. The result is a [`Config`], which
//! nobody has to check again. Each step notes its faults and goes on, so that an operator sees all
//! of them at once, each with file, line, column, key, and what to do.
//!
//! `written` is the way back: a [`Config`] serialises as a file that gives the same one.
//!
//! All of this is pure; only [`load`] reads files.

mod de;
mod diff;
mod fault;
mod key;
mod load;
mod raw;
mod realign;
mod tree;
mod types;
mod units;
mod validate;
mod written;
mod written_class;
mod written_nat;

#[cfg(test)]
mod tests;

pub use diff::Change;
pub use fault::{ConfigError, Fault, Position};
pub use key::{KeyFileError, KeySource};
pub use load::{control_socket, load, read_key_file};
pub use types::*;
pub use units::{
    Endpoint, Listen, ParseUnitError, Rate, format_duration, parse_duration, parse_ports,
};

pub use validate::{parse_dscp, parse_flow_label};

pub use crate::flow::{Class, ClassMatch, ExitPoint};
pub use crate::tunnel::Suite;

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

/// The control socket that a configuration names, whatever else may be wrong with it. Reads no
/// keys, so that it works for whoever may not read them.
fn control_socket_of(text: &str, file: &str) -> Result<std::path::PathBuf, ConfigError> {
    let mut faults = Faults::default();
    let raw = tree::parse(text, &mut faults)
        .and_then(|root| de::read::<At<RawConfig>>(&root, &mut faults));
    let Some(raw) = raw else { return Err(faults.into_error(file)) };
    let mut faults = Faults::default();
    let node = raw.value.node.as_ref().and_then(|section| section.value.name.as_ref());
    let node = node.map_or("rongate", |name| name.value.as_str());
    let section = validate::control(&raw.value, node, &mut faults);
    if faults.is_empty() { Ok(section.socket) } else { Err(faults.into_error(file)) }
}

fn read(text: &str, keys: &dyn KeySource, faults: &mut Faults) -> Option<Config> {
    let root = tree::parse(text, faults)?;
    let raw: At<RawConfig> = de::read(&root, faults)?;
    validate::validate(&raw, keys, faults)
}
