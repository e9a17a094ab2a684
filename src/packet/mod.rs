//! Inner IP packets.
mod vnet;

pub use vnet::{Gso, VNET_LEN, Vnet};
