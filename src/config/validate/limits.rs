//! `probing`, `flows`, `tunnel`, `log`: figures within bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{choice, hint, number};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::RawConfig;
use crate::config::types::{FlowsSection, ProbingSection, RoutingSection, TunnelSection};
use crate::config::units::Rate;
use crate::tunnel::Suite;

pub(super) struct Limits {
    pub(super) probing: ProbingSection,
    pub(super) routing: RoutingSection,
    pub(super) flows: FlowsSection,
    pub(super) tunnel: TunnelSection,
}

pub(super) fn limits(file: &RawConfig, faults: &mut Faults) -> Limits {
    Limits {
        probing: probing(file, faults),
        routing: super::routing::routing(file, faults),
        flows: flows(file, faults),
        tunnel: tunnel(file, faults),
    }
}

pub(super) const fn seconds(low: u64, high: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(low)..=Duration::from_secs(high)
}

fn probing(file: &RawConfig, faults: &mut Faults) -> ProbingSection {
    // RON, section 6.2: 33 kbit/s of probes and routing for 50 nodes.
    let default = Rate::from_kbit(33);
    let (low, high) = (Rate::from_kbit(1), Rate::from_kbit(100_000));
    let written = file.probing.as_ref().and_then(|section| section.value.budget.as_ref());
    ProbingSection { budget: rate(written, low..=high, faults).unwrap_or(default) }
}

pub(super) fn rate(
    written: Option<&At<String>>,
    bounds: RangeInclusive<Rate>,
    faults: &mut Faults,
) -> Option<Rate> {
    let at = written?;
    let rate: Rate = super::word(at, faults)?;
    if !bounds.contains(&rate) {
        let (low, high) = bounds.into_inner();
        faults.at(at, format!("`{rate}` is out of bounds: use {low} to {high}"));
    }
    Some(rate)
}

/// A bound in all and one for each host, which cannot be higher.
pub(super) fn shares(
    max: Option<&At<u64>>,
    per_host: Option<&At<u64>>,
    defaults: (u32, u32),
    high: u64,
    faults: &mut Faults,
) -> (u32, u32) {
    let total: u32 = max.and_then(|at| number(at, 1..=high, faults)).unwrap_or(defaults.0);
    let share = per_host.and_then(|at| number(at, 1..=u64::from(total), faults));
    (total, share.unwrap_or_else(|| defaults.1.min(total)))
}

fn flows(file: &RawConfig, faults: &mut Faults) -> FlowsSection {
    let raw = file.flows.as_ref().map(|section| section.value.clone()).unwrap_or_default();
    let defaults = (262_144, 16_384);
    let (max, max_per_host) =
        shares(raw.max.as_ref(), raw.max_per_host.as_ref(), defaults, 4_194_304, faults);
    FlowsSection { max, max_per_host }
}

fn tunnel(file: &RawConfig, faults: &mut Faults) -> TunnelSection {
    let all = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let default = TunnelSection { suites: all.to_vec() };
    let written = file.tunnel.as_ref().and_then(|section| section.value.suites.as_ref());
    let Some(list) = written else { return default };
    if list.value.is_empty() {
        faults.at(list, "the list is empty: keep at least one suite, or remove the key");
    }
    let choices = all.map(|suite| (suite.name(), suite));
    let mut suites = Vec::new();
    for at in &list.value {
        let Some(suite) = choice(at, &choices, faults) else { continue };
        if suites.contains(&suite) {
            faults.at(at, format!("`{}` is listed twice", at.value));
        } else {
            suites.push(suite);
        }
    }
    TunnelSection { suites }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or `MODULE=LEVEL` with commas between them.
pub(super) fn log(file: &RawConfig, faults: &mut Faults) -> String {
    let Some(at) = &file.log else { return "info".into() };
    for part in at.value.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.contains(&level) {
            let (level, hint) = (level.escape_debug(), hint(level, || LEVELS.into_iter()));
            faults.at(at, format!("unknown level `{level}`: {hint}"));
        }
    }
    at.value.clone()
}
