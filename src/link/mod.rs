//! One measured path to a peer: probes, estimators, liveness.

mod endpoint;
mod mtu;

pub use endpoint::{Challenge, Endpoint};
pub use mtu::MtuSearch;
