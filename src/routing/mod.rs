//! Across links: which path to use for each peer and metric, and why.
//!
//! The [`Router`] takes what our own links measure (`update_direct`, `update_relayed`), what others
//! advertise ([`LinkStateDatabase`]), and keeps one table: for each peer and metric the path to use
//! and a disjoint other one. The [`Advertiser`] says what we advertise, to whom and when.
//!
//! A choice is made by separate mechanisms, each with a file or a name of its own: what a path
//! costs, which candidates are usable at all, which of near-equal relays this node prefers,
//! the margin and hold-down of hysteresis, the back-off of paths that flap, and the
//! detour that is taken while the chosen path is merely suspect. [`Explanation`] shows them all.
//!
//! What a class of flows asks for is a [`DemandSpec`]: a metric, the relays and uplinks that are open
//! to it, and whether its flows are spread over several paths.
//!
//! RON (Andersen et al., HotOS 2001 and SOSP 2001): one intermediate hop suffices, link state among
//! all nodes, latency, loss and throughput optimizers.

mod advertiser;
mod cells;
mod cost;
mod database;
mod demand;
mod event;
mod explain;
mod hysteresis;
mod router;
mod selection;
mod spread;

pub use advertiser::{Advertiser, AdvertiserConfig};
pub use cost::CostConfig;
pub use database::{Advertisement, Applied, LinkStateDatabase};
pub use demand::{Demand, DemandSpec};
pub use event::RouteEvent;
pub use explain::{Candidate, Explanation, Standing};
pub use hysteresis::{FlapConfig, HysteresisConfig, Margin, SwitchCause};
pub use router::{PeerInfo, Router, RouterConfig};
pub use spread::{SPREAD_MAX, Share};
