//! The WAN emulator: an Internet in one process, between network namespaces.
//!
//! Every *site* is one underlay attachment: the emulator makes a TUN interface (`wan0`) inside the
//! site's network namespace and keeps its file descriptor. What the site's kernel sends arrives
//! here, is sorted by destination address to another site, suffers what the *directed link* between
//! the two does to it (`params`, `link`), waits in a timer wheel (`wheel`) and is written to the
//! other site's TUN. There is no bridge, no router and no queueing discipline of the kernel: all
//! effects are ours, per direction, and repeatable from a seed.
//!
//! `network` is the pure machine (time is an argument, frames go to a [`network::Sink`]); `emulator`
//! gives it a clock, descriptors and sleep. `control` changes links while it runs, `scenario` is the
//! YAML text it starts from, `trace` reads outage traces, `process` starts it as a child.
//!
//! **A packet is the unit of loss.** TUN offload hands over super-packets of up to 64 KiB. Where a
//! link only delays, they pass whole; where it drops, limits, reorders, duplicates, corrupts or has
//! a small MTU, they are cut into the packets a wire would see (`segment`).
//!
//! **Wrong figures are worse than none.** `report` keeps a lateness histogram, TUN drops and write
//! errors; beyond the scenario's [`scenario::Guard`] the run is invalid and the exit status says so.

mod attach;
pub(crate) mod checksum;
pub mod control;
mod emulator;
mod fragment;
mod histogram;
mod icmp;
mod link;
pub mod network;
pub mod params;
mod process;
mod random;
pub mod report;
mod routes;
pub mod scenario;
mod segment;
pub mod selftest;
mod server;
mod sys;
mod trace;
pub mod units;
mod vnet;
mod wheel;

pub use control::Control;
pub use emulator::{Options, run};
pub use params::{GilbertElliott, LinkParams, LinkSettings};
pub use process::WanEmulator;
pub use report::Report;
pub use scenario::{Scenario, Site};
pub use units::{Queue, Rate, Time};
