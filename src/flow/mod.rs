//! Whose traffic is this: classes and the flow table.
//!
//! A [`FlowKey`] is what tells flows apart; [`Classes`] say which policy a new one gets; the
//! [`FlowTable`] remembers for each flow its class and where it leaves the overlay, until it is idle
//! for long enough ([`IdleTimes`]).
//!
//! A flow is entered by the first packet of a host of ours. Packets that come back carry the
//! reversed key, which says whether we ever asked for them.
//!
//! Every table is bounded. At a limit new flows are refused with [`DropReason::FlowLimit`], and none
//! is thrown out for them; the node then sends a packet that needs no state by its class alone.
//!
//! [`DropReason::FlowLimit`]: crate::telemetry::DropReason::FlowLimit

mod class;
mod idle;
mod key;
mod scope;
mod table;

pub use class::{Class, ClassIndex, ClassMatch, Classes, Group, Marks, Priority, TagSet};
pub use idle::IdleTimes;
pub use key::FlowKey;
pub use scope::{ExitPoint, Scope};
pub use table::{Direction, Egress, Flow, FlowCounts, FlowId, FlowLimits, FlowTable, Lookup};
