//! Benchmarks of gateways as programs: real hosts' traffic through real processes.
//!
//! ```text
//!   host-a ──lan0 gw-a wan0 ── wan0 gw-b lan0── host-b                 all but the relayed one
//!   host-a ──lan0 gw-a wan0 ── wan0 gw-r wan1 ── wan0 gw-b lan0── host-b               relayed
//! ```
//!
//! Every sample is a laboratory of its own, which the kernel takes down with its first process, and
//! holds one contender. Rounds are interleaved: each round measures every contender once, so that
//! what else the machine does hits all of them alike, and ratios are taken within a round.
//!
//! Files: `contender` says what is measured under which conditions, `site` builds the namespaces,
//! `start` brings the contender up, `sample` measures it, `probe` has the small programs that
//! hosts run for that; `rounds` runs it all, `bystanders` watches what else the machine does,
//! `report` keeps the samples, `statistic` has medians and ratios, `bars` what must be reached,
//! `table` the page and `plot` the pictures.

mod bars;
mod bystanders;
mod contender;
mod cpu;
mod plot;
pub mod probe;
mod report;
mod rounds;
mod sample;
mod site;
mod start;
mod statistic;
mod table;

pub use contender::{Contender, Kind, Mode, Plan};
pub use report::{Report, Row};
pub use rounds::{Progress, Rounds, run};
pub use sample::{Sample, inside};
