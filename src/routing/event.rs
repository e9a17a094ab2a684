//! What changed in the table of paths, for logs and counters.

use super::hysteresis::SwitchCause;
use super::selection::Selection;
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::path::Path;

/// Something an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// Another path was decided on; `to` is `None` when the peer cannot be reached any more.
    Switched {
        /// The peer.
        peer: PeerIndex,
        /// For traffic of this metric.
        metric: Metric,
        /// The path before.
        from: Option<Path>,
        /// The path that is used henceforth.
        to: Option<Path>,
        /// Why.
        cause: SwitchCause,
    },
    /// The chosen path is suspect: packets take another one for the moment.
    DetourBegun {
        /// The peer.
        peer: PeerIndex,
        /// For traffic of this metric.
        metric: Metric,
        /// The suspect path.
        around: Path,
        /// The path that is used meanwhile.
        over: Path,
    },
    /// The suspicion was unfounded: packets take the chosen path again.
    DetourEnded {
        /// The peer.
        peer: PeerIndex,
        /// For traffic of this metric.
        metric: Metric,
        /// The path that is used again.
        back_on: Path,
    },
}

/// Appends what a decision changed.
pub(super) fn push(
    events: &mut Vec<RouteEvent>,
    peer: PeerIndex,
    metric: Metric,
    before: &Selection,
    after: &Selection,
) {
    if let Some(cause) = after.cause
        && before.chosen != after.chosen
    {
        let (from, to) = (before.chosen, after.chosen);
        events.push(RouteEvent::Switched { peer, metric, from, to, cause });
        return;
    }
    match (before.detour, after.detour, after.chosen) {
        (None, Some(over), Some(around)) => {
            events.push(RouteEvent::DetourBegun { peer, metric, around, over });
        }
        (Some(_), None, Some(back_on)) => {
            events.push(RouteEvent::DetourEnded { peer, metric, back_on });
        }
        _ => {}
    }
}
