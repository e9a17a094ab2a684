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

mod failures;
mod plot;
mod report;
mod run;
mod schemes;
mod sites;
mod tally;
mod tcp;
mod trace;

use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use report::{Control, Report, SchemeReport, Timeline, by_size};
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
    #[serde(deserialize_with = "duration")]
    pub duration: Duration,
    /// Before this nothing fails and nothing is measured.
    #[serde(deserialize_with = "duration")]
    pub warm_up: Duration,
    /// The nodes start one after the other within this time of the warm-up.
    #[serde(deserialize_with = "duration")]
    pub starts_within: Duration,
    /// How many nodes; with several numbers, one run for each.
    pub nodes: Nodes,
    /// How many overlays of so many nodes each, which know nothing of each other; the first nodes of
    /// all stand at the same place, and so on. With several numbers, one run for each.
    pub overlays: Nodes,
    /// What lies between them.
    pub underlay: UnderlayConfig,
    /// What fails by chance.
    pub failures: Vec<Failure>,
    /// What is compared.
    pub schemes: Vec<String>,
    /// Each directed pair sends a packet so often; models are asked as often.
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// To how many of the nodes that come next each one sends; to all unless given.
    pub talks_to: Option<u16>,
    /// No packets through the overlay: only its control traffic.
    pub silent: bool,
    /// What each node may send for probes, advertisements and rekeys, bits per second.
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
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderlayConfig {
    /// Autonomous systems whose links are shared: `small` (124 routers) or `large` (6,510). Without
    /// it every pair has a link of its own.
    pub transit_stub: Option<Size>,
    /// How long the underlay's routing takes to go round a dead link; never when absent.
    #[serde(deserialize_with = "some_duration")]
    pub reroutes_after: Option<Duration>,
    /// Delay of each pair's own link, drawn between these two.
    #[serde(deserialize_with = "durations")]
    pub delay: (Duration, Duration),
    /// Jitter of each pair.
    #[serde(deserialize_with = "duration")]
    pub jitter: Duration,
    /// Loss of each pair.
    pub loss: f64,
    /// What each link between routers passes, or each pair's own where there are none, bits per
    /// second; everything when absent.
    #[serde(deserialize_with = "some_rate")]
    pub rate: Option<u64>,
    /// With a rate: what would wait longer than this is lost.
    #[serde(deserialize_with = "duration")]
    pub queue: Duration,
    /// A file of what was measured or recorded, in the format of [`Trace`].
    pub trace: Option<String>,
}

impl Default for UnderlayConfig {
    fn default() -> Self {
        Self {
            transit_stub: None,
            reroutes_after: None,
            delay: (Duration::from_millis(5), Duration::from_millis(60)),
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(100),
            trace: None,
        }
    }
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
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// Mean time that one lasts.
    #[serde(deserialize_with = "duration")]
    pub lasts: Duration,
    /// Loss while it lasts; 1 is an outage.
    #[serde(default = "one")]
    pub loss: f64,
    /// Delay added while it lasts; links between routers keep theirs.
    #[serde(default, deserialize_with = "duration")]
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
    #[serde(default, deserialize_with = "some_rate")]
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
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.sizes();
        if sizes.is_empty() || sizes.iter().any(|&n| !(2..=NODES_MAX).contains(&n)) {
            return Err(format!("nodes: from 2 to {NODES_MAX}"));
        }
        let most = sizes.iter().max().copied().unwrap_or_default();
        let overlays = self.overlays.list();
        let wrong = |n: &u16| *n == 0 || most.saturating_mul(*n) > NODES_MAX;
        if overlays.is_empty() || overlays.iter().any(wrong) {
            return Err(format!("overlays: at least 1, and no more than {NODES_MAX} nodes in all"));
        }
        let knows_all = |scheme: &String| scheme != "overlay" && scheme != "direct";
        if overlays.iter().any(|n| *n > 1)
            && (self.schemes.iter().any(knows_all) || !self.tcp.is_empty())
        {
            return Err("overlays: with several, schemes are direct and overlay only".to_owned());
        }
        if self.starts_within > self.warm_up {
            return Err("starts_within: no longer than warm_up".to_owned());
        }
        if self.every.is_zero() || self.duration.is_zero() {
            return Err("every, duration: not zero".to_owned());
        }
        for scheme in &self.schemes {
            if scheme != "overlay" {
                schemes::Scheme::parse(scheme)?;
            }
        }
        let fractions = self.failures.iter().map(|f| f.loss).chain([self.underlay.loss]);
        if fractions.into_iter().any(|loss| !(0.0..=1.0).contains(&loss)) {
            return Err("loss: a fraction from 0 to 1".to_owned());
        }
        let zero = |f: &Failure| f.every.is_zero() || f.lasts.is_zero();
        if self.failures.iter().any(zero) {
            return Err("failures: every and lasts are not zero".to_owned());
        }
        let least = sizes.iter().min().copied().unwrap_or_default();
        let wrong = |flow: &TcpFlow| flow.from == flow.to || flow.from.max(flow.to) >= least;
        if self.tcp.iter().any(wrong) {
            return Err(format!("tcp: from and to are two nodes from 0 to {}", least - 1));
        }
        Ok(())
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

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::config::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn some_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let rate = text.parse::<crate::config::Rate>().map_err(D::Error::custom)?;
    Ok(Some(rate.bits_per_second().max(1)))
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Duration, Duration), D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let (low, high) = text.split_once("..").unwrap_or((&text, &text));
    let read = |text: &str| crate::config::parse_duration(text).map_err(D::Error::custom);
    let both = (read(low)?, read(high)?);
    if both.0 > both.1 {
        return Err(D::Error::custom("the first is the smaller one, like 5ms..60ms"));
    }
    Ok(both)
}

#[cfg(test)]
mod tests;
