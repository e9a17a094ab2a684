//! Inner IP packets: what a host sent, or will receive.
//!
//! Nothing here keeps state between packets but [`Coalescer`], and nothing trusts a byte it reads.
//! A frame is parsed once into [`Headers`], a small copy of what the rest asks about; whoever
//! changes the frame works on its bytes at the offsets found there.
//!
//! - `parse`: bytes to [`Headers`], with lengths that agree with the frame.
//! - [`checksum`]: ones-complement sums, full, partial and incremental (RFC 1071, RFC 1624).
//! - [`rewrite`]: addresses, ports, hop limit, DSCP and ECN in place, also inside ICMP errors.
//! - [`icmp`]: the errors that a router owes (RFC 1812, RFC 4443).
//! - [`siit`]: from IPv6 to IPv4 and back (RFC 7915).
//! - [`Segmenter`]: a TUN frame into packets for the tunnel; [`Coalescer`] is its inverse.
//! - [`Fragmenter`]: an IPv4 packet into fragments (RFC 791).
//!
//! [`Vnet`] says what a TUN frame still lacks: a super-packet is cut, a partial checksum completed,
//! by whoever takes the frame off the host.

pub mod checksum;
mod coalesce;
mod ecn;
mod fragment;
pub mod icmp;
mod parse;
pub mod rewrite;
mod segment;
pub mod siit;
#[cfg(test)]
pub(crate) mod testing;
mod vnet;

pub use coalesce::{Arrived, Coalescer, Merged, Offload};
pub use ecn::Ecn;
pub use fragment::Fragmenter;
pub use parse::{Fragment, Headers, IcmpKind, MAX_EXTENSIONS, Ports, protocol, tcp_flag};
pub use segment::Segmenter;
pub use vnet::{Gso, VNET_LEN, Vnet};
