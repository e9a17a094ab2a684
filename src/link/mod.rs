//! One measured path to a peer: probes, estimators, liveness.
//!
//! A [`Prober`] belongs to one path: a direct link, or a relayed path that is in use or may be next.
//! It numbers probes, judges answers and silence, and feeds its [`Estimator`]; their summary is a
//! `LinkReport`, exactly what is advertised. How often each path is probed is decided across paths
//! by the [`ProbeBudget`].
//!
//! Traffic measures too. The receiver says what arrived ([`Arrivals`] decides when), which gives its
//! loss; and when what was sent is not reported in time ([`Outstanding`]), the path is suspect long
//! before a probe would have been missed.
//!
//! Two kinds of evidence are kept apart. *Liveness* is about consecutive probes that find no answer
//! and moves within a fraction of a second; *loss* is a fraction over a window and only changes the
//! path's cost. The probes that were lost in an outage do not count as loss afterwards.

mod arrivals;
mod budget;
mod capacity;
mod endpoint;
mod estimator;
mod flaps;
mod loss;
mod mtu;
mod outstanding;
mod prober;
mod sent;

pub use arrivals::Arrivals;
pub use budget::{Intervals, ProbeBudget};
pub use capacity::{Capacity, Dispersion};
pub use endpoint::{Challenge, Endpoint};
pub use estimator::Estimator;
pub use flaps::FlapHistory;
pub use loss::{Reported, ReportedLoss};
pub use mtu::MtuSearch;
pub use outstanding::Outstanding;
pub use prober::{ProbeToSend, Prober, ProberConfig, ReplyOutcome};
