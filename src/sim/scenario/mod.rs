//! Scenarios of a user: what would an overlay have made of these outages?
//!
//! A [`Scenario`] is YAML. It says how many nodes there are, what lies between them, what fails, and
//! which schemes are compared. `overlay` is the real nodes; the others are models that see the same
//! underlay at the same instants:
//!
//! | scheme | a packet arrives when |
//! |---|---|
//! | `direct` | the direct way passes it |
//! | `random-K` | the direct way passes it, or one of K relays chosen at random (SOSR) |
//! | `best` | the way with the least loss at this instant passes it: direct, or one relay |
//! | `two-hop` | the same with up to two relays |
//! | `late-S` | the way that was best S seconds ago passes it: what probing every S seconds can do |
//! | `twice` | one of two copies on the direct way arrives |
//! | `copies` | the direct way or one relay chosen at random passes its copy |
//! | `any` | any way with at most one relay passes it: the bound of all the above but `two-hop` |

mod check;
mod failures;
mod files;
mod pending;
mod plot;
mod read;
mod report;
mod run;
mod schemes;
mod sites;
mod tally;
mod tcp;
mod trace;

use std::time::Duration;

use serde::Deserialize;

pub use report::{Control, PairReport, Report, SchemeReport, Timeline, by_size};
pub use run::run;
pub use tcp::TcpReport;
pub use trace::{Row, Trace};

use super::{LinkModel, TransitStub};

/// Most nodes of a scenario.
pub const NODES_MAX: u16 = 1_000;

/// What is to be simulated.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Its name, for the report.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// All chance comes from it.
    pub seed: u64,
    /// Virtual time.
    #[serde(deserialize_with = "read::duration")]
    pub duration: Duration,
    /// Before this nothing fails and nothing is measured.
    #[serde(deserialize_with = "read::duration")]
    pub warm_up: Duration,
    /// The nodes start one after the other within this time of the warm-up.
    #[serde(deserialize_with = "read::duration")]
    pub starts_within: Duration,
    /// How many nodes; with several numbers, one run for each.
    #[serde(deserialize_with = "read::nodes")]
    pub nodes: Nodes,
    /// How many overlays of so many nodes each, which know nothing of each other; the first nodes of
    /// all stand at the same place, and so on. With several numbers, one run for each.
    #[serde(deserialize_with = "read::overlays")]
    pub overlays: Nodes,
    /// What lies between them.
    pub underlay: UnderlayConfig,
    /// What fails by chance.
    pub failures: Vec<Failure>,
    /// What is compared.
    pub schemes: Vec<String>,
    /// Each directed pair sends a packet so often; models are asked as often.
    #[serde(deserialize_with = "read::duration")]
    pub every: Duration,
    /// To how many of the nodes that come next each one sends; to all unless given.
    pub talks_to: Option<u16>,
    /// No packets through the overlay: only its control traffic.
    pub silent: bool,
    /// What each node may send for probes, advertisements and rekeys, bits per second.
    #[serde(deserialize_with = "read::bits_per_second")]
    pub budget_bps: u64,
    /// Connections of hosts, by the overlay and by the direct way, if those are compared.
    pub tcp: Vec<TcpFlow>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "scenario".to_owned(),
            about: String::new(),
            seed: 1,
            duration: Duration::from_secs(600),
            warm_up: Duration::from_secs(30),
            starts_within: Duration::ZERO,
            nodes: Nodes::One(4),
            overlays: Nodes::One(1),
            underlay: UnderlayConfig::default(),
            failures: Vec::new(),
            schemes: vec!["direct".to_owned(), "overlay".to_owned()],
            every: Duration::from_secs(1),
            talks_to: None,
            silent: false,
            budget_bps: 33_000,
            tcp: Vec::new(),
        }
    }
}

/// How many.
#[derive(Clone, Debug)]
pub enum Nodes {
    /// A number.
    One(u16),
    /// Several numbers, one run for each.
    Several(Vec<u16>),
}

impl Nodes {
    fn list(&self) -> Vec<u16> {
        match self {
            Self::One(n) => vec![*n],
            Self::Several(all) => all.clone(),
        }
    }
}

/// What lies between the nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderlayConfig {
    /// Autonomous systems whose links are shared: `small` (124 routers) or `large` (6,510). Without
    /// it every pair has a link of its own.
    pub transit_stub: Option<Size>,
    /// How long the underlay's routing takes to go round a dead link; never when absent.
    #[serde(deserialize_with = "read::some_duration")]
    pub reroutes_after: Option<Duration>,
    /// Delay of each pair's own link, drawn between these two; from 5 to 60 ms when absent. Not with
    /// [`Self::transit_stub`], where it follows from the topology.
    #[serde(deserialize_with = "read::durations")]
    pub delay: Option<(Duration, Duration)>,
    /// Jitter of each pair.
    #[serde(deserialize_with = "read::duration")]
    pub jitter: Duration,
    /// Loss of each pair.
    pub loss: f64,
    /// What each link between routers passes, or each pair's own where there are none, bits per
    /// second; everything when absent.
    #[serde(deserialize_with = "read::some_rate")]
    pub rate: Option<u64>,
    /// With a rate: what would wait longer than this is lost; 100 ms when absent.
    #[serde(deserialize_with = "read::some_duration")]
    pub queue: Option<Duration>,
    /// A file of what was measured or recorded, in the format of [`Trace`].
    pub trace: Option<String>,
}

/// The size of a transit-stub topology.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// 124 routers.
    Small,
    /// 6,510 routers.
    Large,
}

impl Size {
    const fn parameters(self) -> TransitStub {
        match self {
            Self::Small => TransitStub::SMALL,
            Self::Large => TransitStub::LARGE,
        }
    }
}

/// Something that fails by chance, each thing of its kind on its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What kind of thing.
    pub what: FailureKind,
    /// Mean time from the end of one failure to the beginning of the next.
    #[serde(deserialize_with = "read::duration")]
    pub every: Duration,
    /// Mean time that one lasts.
    #[serde(deserialize_with = "read::duration")]
    pub lasts: Duration,
    /// Loss while it lasts; 1 is an outage.
    #[serde(default = "one")]
    pub loss: f64,
    /// Delay added while it lasts; not for links between routers.
    #[serde(default, deserialize_with = "read::duration")]
    pub delay: Duration,
}

/// A TCP connection between hosts behind two nodes, for all the measured time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpFlow {
    /// The number of the sender's node.
    pub from: u16,
    /// That of the receiver's.
    pub to: u16,
    /// What the sender's user writes, bits per second; as much as goes when absent.
    #[serde(default, deserialize_with = "read::some_rate")]
    pub rate: Option<u64>,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Each link between routers, in both directions.
    Link,
    /// Each pair of nodes, in both directions.
    Pair,
    /// Each directed pair.
    OneWay,
    /// Each node's attachment: nobody is reached from it.
    Site,
}

const fn one() -> f64 {
    1.0
}

impl Scenario {
    /// Reads a scenario; an error says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        check::check(&scenario, text)?;
        Ok(scenario)
    }

    /// The numbers of nodes, one run for each.
    pub fn sizes(&self) -> Vec<u16> {
        self.nodes.list()
    }

    /// One scenario for each number of overlays.
    pub fn by_overlays(&self) -> Vec<Self> {
        let one = |n| Self { overlays: Nodes::One(n), ..self.clone() };
        self.overlays.list().into_iter().map(one).collect()
    }

    /// What lies between routers, but for the delay.
    fn shared_model(&self) -> LinkModel {
        let UnderlayConfig { rate, queue, .. } = self.underlay;
        let queue = queue.unwrap_or(LinkModel::PERFECT.queue);
        LinkModel { rate_bps: rate, queue, ..LinkModel::PERFECT }
    }

    fn pair_model(&self) -> LinkModel {
        let base = if self.underlay.transit_stub.is_some() {
            LinkModel::PERFECT
        } else {
            LinkModel { delay: LinkModel::default().delay, ..self.shared_model() }
        };
        let (loss, jitter) = (self.underlay.loss, self.underlay.jitter);
        LinkModel { loss, jitter, max_payload: 1_472, ..base }
    }
}

#[cfg(test)]
mod tests;
