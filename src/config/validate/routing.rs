//! `routing`: the constants of measuring, weighing and choosing paths.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::{rate, seconds};
use super::{duration, number};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawBackoff, RawConfig, RawRouting};
use crate::config::types::RoutingSection;
use crate::config::units::Rate;
use crate::routing::{CostConfig, FlapConfig, HysteresisConfig, RouterConfig};

/// What second copies may cost.
const COPIES: RangeInclusive<Rate> = Rate::from_kbit(0)..=Rate::from_kbit(10_000_000);
/// Of every time that is counted from an outage.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn routing(file: &RawConfig, faults: &mut Faults) -> RoutingSection {
    let raw = file.routing.as_ref().map(|section| section.value.clone()).unwrap_or_default();
    let RouterConfig { hysteresis, smoothing, .. } = RouterConfig::default();
    let HysteresisConfig { latency, loss, throughput, jitter, hold_down } = hysteresis;
    let mut time = |at: &Option<At<String>>, low, high| {
        let bounds = Duration::from_millis(low)..=Duration::from_millis(high);
        at.as_ref().and_then(|at| duration(at, bounds, faults))
    };
    let smoothing = time(&raw.smoothing, 100, 60_000).unwrap_or(smoothing);
    let margin_latency = time(&raw.margin_latency, 0, 1_000)
        .unwrap_or_else(|| Duration::from_micros(latency.absolute as u64));
    let hold_down = time(&raw.hold_down, 0, 60_000).unwrap_or(hold_down);
    let mut fraction = |at: &Option<At<f64>>, high: f64| {
        at.as_ref().and_then(|at| figure(at, 0.0..=high, "a fraction from ", faults))
    };
    RoutingSection {
        smoothing,
        margin: fraction(&raw.margin, 0.9).unwrap_or(latency.relative),
        margin_latency,
        margin_loss: fraction(&raw.margin_loss, 0.5).unwrap_or(loss.absolute),
        margin_throughput: fraction(&raw.margin_throughput, 0.9).unwrap_or(throughput.relative),
        margin_jitter: raw
            .margin_jitter
            .as_ref()
            .and_then(|at| figure(at, 0.0..=10.0, "", faults))
            .unwrap_or(jitter),
        hold_down,
        cost: cost(&raw, faults),
        backoff: backoff(raw.backoff.as_ref(), faults),
        copies: rate(raw.copies.as_ref(), COPIES, faults).unwrap_or(Rate::from_kbit(10_000)),
    }
}

/// What loss counts for.
fn cost(raw: &RawRouting, faults: &mut Faults) -> CostConfig {
    let default = CostConfig::default();
    let penalty = raw.loss_penalty.as_ref();
    let free = raw.free_loss.as_ref();
    let least = raw.least_loss.as_ref();
    CostConfig {
        loss_penalty: penalty
            .and_then(|at| duration(at, seconds(0, 600), faults))
            .unwrap_or(default.loss_penalty),
        free_loss: free
            .and_then(|at| figure(at, 0.0..=0.5, "a fraction from ", faults))
            .unwrap_or(default.free_loss),
        least_loss: least
            .and_then(|at| figure(at, 0.0001..=0.5, "a fraction from ", faults))
            .unwrap_or(default.least_loss),
    }
}

/// A pause cannot shrink, nor be forgotten before it ends.
fn backoff(written: Option<&At<RawBackoff>>, faults: &mut Faults) -> FlapConfig {
    let raw = written.map(|section| section.value.clone()).unwrap_or_default();
    let default = FlapConfig::default();
    let mut time = |at: &Option<At<String>>, low: Duration, high: Duration, default: Duration| {
        let written = at.as_ref().and_then(|at| duration(at, low..=high, faults));
        written.unwrap_or_else(|| default.max(low))
    };
    let hour = Duration::from_secs(3_600);
    let base = time(&raw.base, Duration::ZERO, hour, default.base);
    let longest = time(&raw.longest, base, LONGEST, default.longest);
    let forget = time(&raw.forget, longest.max(Duration::from_secs(1)), LONGEST, default.forget);
    let factor = raw.factor.as_ref().and_then(|at| number(at, 1..=100, faults));
    FlapConfig { base, factor: factor.unwrap_or(default.factor), longest, forget }
}

/// A number within bounds; `what` says of which kind.
fn figure(
    at: &At<f64>,
    bounds: RangeInclusive<f64>,
    what: &str,
    faults: &mut Faults,
) -> Option<f64> {
    if !bounds.contains(&at.value) {
        let (low, high) = bounds.into_inner();
        let message = format!("{} is out of bounds: use {what}{low} to {high}", at.value);
        faults.at(at, message);
        return None;
    }
    Some(at.value)
}
