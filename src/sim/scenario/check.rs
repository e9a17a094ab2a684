//! What a scenario must not say, though each of its values can be read.

use std::time::Duration;

use super::schemes::Scheme;
use super::{Failure, FailureKind, NODES_MAX, Scenario, TcpFlow};

/// Most packets of a pair.
const TICKS_MAX: u128 = 20_000_000;
/// Least time between two.
const EVERY_MIN: Duration = Duration::from_millis(1);

/// The key at fault, and what is wrong.
type Fault = (&'static str, String);

/// Finds what cannot be meant; the fault ends with the place, if that is found in the text.
pub(super) fn check(scenario: &Scenario, text: &str) -> Result<(), String> {
    let all = [numbers, times, schemes, underlay, failures, tcp];
    all.into_iter().try_for_each(|check| check(scenario)).map_err(|(key, what)| {
        let place =
            place(text, key).map(|(line, column)| format!(" at line {line} column {column}"));
        format!("{key}: {what}{}", place.unwrap_or_default())
    })
}

/// Where a key stands first, by the last part of its name; at the beginning of a line if there is such
/// a line.
fn place(text: &str, key: &str) -> Option<(usize, usize)> {
    let key = key.rsplit('.').next()?;
    let begins = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| " {,-".contains(c)) && line[at + key.len()..].starts_with(':')
    };
    let find =
        |line: &str| line.match_indices(key).map(|found| found.0).find(|at| begins(line, *at));
    let lines = || text.lines().enumerate();
    let first = lines().find(|(_, line)| find(line) == Some(0));
    let (number, line) = first.or_else(|| lines().find(|(_, line)| find(line).is_some()))?;
    Some((number + 1, find(line)? + 1))
}

fn wrong<T>(key: &'static str, what: impl Into<String>) -> Result<T, Fault> {
    Err((key, what.into()))
}

fn numbers(scenario: &Scenario) -> Result<(), Fault> {
    let most = scenario.sizes().into_iter().max().unwrap_or_default();
    if scenario.overlays.list().iter().any(|n| most.saturating_mul(*n) > NODES_MAX) {
        return wrong("overlays", format!("no more than {NODES_MAX} nodes in all"));
    }
    if scenario.talks_to == Some(0) {
        return wrong("talks_to", "at least 1; with `silent: true` nobody sends");
    }
    Ok(())
}

fn times(scenario: &Scenario) -> Result<(), Fault> {
    if scenario.duration.is_zero() {
        return wrong("duration", "not zero");
    }
    if scenario.starts_within > scenario.warm_up {
        return wrong("starts_within", "no longer than warm_up");
    }
    if scenario.every < EVERY_MIN || scenario.every > scenario.duration {
        return wrong("every", "from 1ms to the duration");
    }
    if scenario.duration.as_micros() / scenario.every.as_micros() > TICKS_MAX {
        return wrong("every", format!("the duration has more than {TICKS_MAX} of it"));
    }
    Ok(())
}

fn schemes(scenario: &Scenario) -> Result<(), Fault> {
    let schemes = &scenario.schemes;
    if schemes.is_empty() {
        return wrong("schemes", "at least one");
    }
    for (index, scheme) in schemes.iter().enumerate() {
        if scheme != "overlay" {
            Scheme::parse(scheme).map_err(|what| ("schemes", what))?;
        }
        if schemes[..index].contains(scheme) {
            return wrong("schemes", format!("{scheme} is there twice"));
        }
    }
    let models = schemes.iter().any(|scheme| scheme != "overlay" && scheme != "direct");
    let several = scenario.overlays.list().iter().any(|n| *n > 1);
    if several && (models || !scenario.tcp.is_empty()) {
        return wrong("overlays", "with several, schemes are direct and overlay only, without tcp");
    }
    if models && scenario.underlay.rate.is_some() {
        return wrong("underlay.rate", "with a rate, schemes are direct and overlay only");
    }
    Ok(())
}

fn underlay(scenario: &Scenario) -> Result<(), Fault> {
    let underlay = &scenario.underlay;
    if !(0.0..=1.0).contains(&underlay.loss) {
        return wrong("underlay.loss", "a fraction from 0 to 1");
    }
    if underlay.reroutes_after.is_some() && underlay.transit_stub.is_none() {
        return wrong("underlay.reroutes_after", "needs underlay.transit_stub");
    }
    if underlay.delay.is_some() && underlay.transit_stub.is_some() {
        return wrong("underlay.delay", "follows from underlay.transit_stub");
    }
    if underlay.queue.is_some() && underlay.rate.is_none() {
        return wrong("underlay.queue", "needs underlay.rate");
    }
    Ok(())
}

fn failures(scenario: &Scenario) -> Result<(), Fault> {
    for Failure { what, every, lasts, loss, delay } in &scenario.failures {
        if !(0.0..=1.0).contains(loss) {
            return wrong("failures", "loss is a fraction from 0 to 1");
        }
        if every.is_zero() || lasts.is_zero() {
            return wrong("failures", "every and lasts are not zero");
        }
        if *what == FailureKind::Link && scenario.underlay.transit_stub.is_none() {
            return wrong("failures", "what: link needs underlay.transit_stub");
        }
        if *what == FailureKind::Link && !delay.is_zero() {
            return wrong("failures", "links between routers keep their delay");
        }
    }
    Ok(())
}

fn tcp(scenario: &Scenario) -> Result<(), Fault> {
    let least = scenario.sizes().into_iter().min().unwrap_or_default();
    let bad = |flow: &TcpFlow| flow.from == flow.to || flow.from.max(flow.to) >= least;
    if scenario.tcp.iter().any(bad) {
        let most = least.saturating_sub(1);
        return wrong("tcp", format!("from and to are two nodes from 0 to {most}"));
    }
    Ok(())
}
