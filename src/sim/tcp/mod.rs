//! Hosts that speak TCP, as far as it takes to see what an overlay does to it: Reno with the
//! partial acknowledgements of RFC 6582, the timer of RFC 6298, delivery in order. One side sends,
//! the other acknowledges each segment; nobody closes.
//!
//! Every byte of a stream is known from its place, so a receiver notices whatever was changed, moved
//! or invented.

mod connection;
mod hosts;
mod receiver;
mod segment;
mod sender;

pub use connection::{Connection, Experience};
pub use hosts::{TcpHosts, Way};
