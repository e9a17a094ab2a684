//! A user-space overlay gateway: a Resilient Overlay Network for unmodified hosts.
//!
//! The map, in the order of a packet's way: `gateway` (event loop) hands frames to `node`, which
//! asks `flow` whose traffic it is, `nat` how its addresses change, `routing` which way is best, and
//! has `tunnel` seal it. The core is pure: time, chance and bytes are arguments, and only `main`,
//! `cli`, `gateway` and `io` touch the host. `ARCHITECTURE.md` tells the rest.

pub mod addr;
pub mod batch;
pub mod cli;
pub mod config;
pub mod float;
pub mod flow;
pub mod gateway;
pub mod id;
pub mod io;
pub mod link;
pub mod metric;
pub mod nat;
pub mod node;
pub mod packet;
pub mod path;
pub mod rng;
pub mod routing;
pub mod sim;
pub mod table;
pub mod telemetry;
pub mod time;
pub mod tunnel;
pub mod wheel;
pub mod wire;
