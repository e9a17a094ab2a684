//! YAML text to a validated configuration.

mod types;
mod units;

pub use types::*;
pub use units::{
    Endpoint, Listen, ParseUnitError, Rate, format_duration, parse_duration, parse_ports,
};
