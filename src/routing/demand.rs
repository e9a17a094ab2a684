//! What a class of flows asks of its paths.

use crate::id::{PeerIndex, UplinkIndex};
use crate::metric::Metric;

/// What is asked of the paths to any peer. Classes that ask for the same share the router's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandSpec {
    /// What the path is to be best at.
    pub metric: Metric,
    /// The peers that may relay, ascending; none for all that the configuration lets relay.
    pub relays: Option<Vec<PeerIndex>>,
    /// The uplinks of ours that may be used, one bit each. A path through a relay begins on the
    /// uplink that is best to the relay.
    pub uplinks: u16,
    /// Flows are spread over all good paths.
    pub multipath: bool,
}

impl DemandSpec {
    /// The best path of all by this metric.
    pub const fn plain(metric: Metric) -> Self {
        Self { metric, relays: None, uplinks: u16::MAX, multipath: false }
    }

    /// True when some paths are closed.
    pub const fn is_restricted(&self) -> bool {
        self.relays.is_some() || self.uplinks != u16::MAX
    }

    pub(super) fn permits_relay(&self, relay: PeerIndex) -> bool {
        self.relays.as_ref().is_none_or(|list| list.binary_search(&relay).is_ok())
    }

    pub(super) fn permits_uplink(&self, uplink: UplinkIndex) -> bool {
        1u16.checked_shl(u32::from(uplink.0)).is_some_and(|bit| self.uplinks & bit != 0)
    }
}

/// Position in the router's list of demands. The first ones are the metrics that we measure, with
/// nothing else asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand(pub u8);

impl Demand {
    /// For indexing.
    pub const fn usize(self) -> usize {
        self.0 as usize
    }
}

impl From<Metric> for Demand {
    /// The demand for nothing but the metric. Without values of an application, that is latency.
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Latency | Metric::App => Self(0),
            Metric::Loss => Self(1),
            Metric::Throughput => Self(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_the_first_demands_in_their_order() {
        for (position, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(Demand::from(metric).usize(), position);
        }
    }

    #[test]
    fn an_uplink_that_has_no_bit_is_closed() {
        let some = DemandSpec { uplinks: 0b10, ..DemandSpec::plain(Metric::Loss) };
        assert!(some.is_restricted() && some.permits_uplink(UplinkIndex(1)));
        assert!(!some.permits_uplink(UplinkIndex(0)) && !some.permits_uplink(UplinkIndex(200)));
    }
}
