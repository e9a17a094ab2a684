//! The smallest plan that still fails.

use std::time::Duration;

use super::plan::{Plan, Rates};
use super::settings::Settings;
use super::{Violation, run};
use crate::sim::Clock;

/// Leaves out of a failing plan whatever it fails without, in at most `runs` runs. Returns the plan
/// that is left, and its violation, which is of the same kind; `None` when the plan does not fail.
pub fn minimise(plan: &Plan, runs: u32) -> Option<(Plan, Violation)> {
    minimise_by(plan, runs, &|plan| run(plan).err())
}

fn minimise_by(
    plan: &Plan,
    mut runs: u32,
    fails: &dyn Fn(&Plan) -> Option<Violation>,
) -> Option<(Plan, Violation)> {
    let mut best = plan.clone();
    let mut violation = fails(&best)?;
    let kind = violation.kind();
    loop {
        let before = best.clone();
        for candidate in candidates(&best) {
            if runs == 0 {
                return Some((best, violation));
            }
            // An earlier success in this round may have made it moot.
            let Some(candidate) = candidate(&best).filter(|plan| *plan != best) else { continue };
            runs -= 1;
            if let Some(found) = fails(&candidate).filter(|found| found.kind() == kind) {
                (best, violation) = (candidate, found);
            }
        }
        if best == before {
            return Some((best, violation));
        }
    }
}

/// A smaller plan, unless it does not apply.
type Step = Box<dyn Fn(&Plan) -> Option<Plan>>;

/// Steps towards a smaller plan, big ones first.
fn candidates(plan: &Plan) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // Halves of the mishaps, quarters, ... single ones; from the end, so that positions hold.
    let mut size = plan.mishaps.len().div_ceil(2);
    while size > 0 {
        for start in (0..plan.mishaps.len()).step_by(size).rev() {
            steps.push(Box::new(move |plan| {
                let end = plan.mishaps.len().min(start + size);
                (start < end).then(|| {
                    let mut plan = plan.clone();
                    plan.mishaps.drain(start..end);
                    plan
                })
            }));
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    let mut simpler = |change: fn(&mut Plan)| {
        steps.push(Box::new(move |plan| {
            let mut plan = plan.clone();
            change(&mut plan);
            Some(plan)
        }));
    };
    simpler(|plan| plan.attacker = 0.0);
    simpler(|plan| plan.rates = Rates::default());
    simpler(|plan| plan.rates.corrupt = 0.0);
    simpler(|plan| plan.rates.duplicate = 0.0);
    simpler(|plan| plan.rates.loss = 0.0);
    simpler(|plan| plan.rates.jitter_ms = 0);
    simpler(|plan| plan.clocks.fill(Clock::default()));
    simpler(|plan| plan.boxes.fill(None));
    simpler(|plan| plan.stay_cut.clear());
    simpler(|plan| plan.stay_cut.truncate(1));
    simpler(|plan| plan.large = false);
    simpler(|plan| plan.shared = false);
    simpler(|plan| plan.reroutes_after = None);
    simpler(|plan| plan.exits = false);
    simpler(|plan| plan.ipv6 = false);
    simpler(|plan| plan.bursts = 0.0);
    simpler(|plan| plan.tcp = 0);
    simpler(|plan| plan.mappings_max = 1_024);
    simpler(|plan| plan.settings = Settings::default());
    simpler(|plan| plan.settings.classes = Settings::default().classes);
    simpler(|plan| plan.settings.reloaded = Settings::default().reloaded);
    simpler(|plan| plan.settings.ciphers = Settings::default().ciphers);
    simpler(|plan| plan.settings.preshared = false);
    simpler(|plan| plan.settings.hysteresis = None);
    simpler(|plan| plan.settings.relays = 0xff);
    simpler(|plan| plan.settings.relay_kbit_s = None);
    simpler(|plan| plan.settings.liars = 0);
    simpler(|plan| plan.settings.nat_ports = Settings::default().nat_ports);
    simpler(|plan| plan.settings.nat_life = None);
    simpler(|plan| plan.uplinks = 1);
    simpler(|plan| plan.core = 0xff);
    simpler(|plan| plan.flows_max = 4096);
    simpler(|plan| plan.storm = plan.storm.mul_f64(0.5));
    simpler(|plan| plan.storm = plan.storm.saturating_sub(Duration::from_secs(5)));
    simpler(|plan| {
        if plan.sites > 2 {
            plan.sites -= 1;
            plan.clocks.truncate(usize::from(plan.sites));
            plan.boxes.truncate(usize::from(plan.sites));
        }
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    fn violation(at: u64, what: &str) -> Option<Violation> {
        Some(Violation { at: Instant::from_micros(at), what: what.to_owned() })
    }

    #[test]
    fn another_violation_is_not_taken_for_the_same() {
        let plan = (0..).map(Plan::draw).find(|plan| plan.mishaps.len() > 8).unwrap();
        let wanted = plan.mishaps[5];
        // Without that mishap something else is wrong.
        let fails = |plan: &Plan| {
            if plan.mishaps.contains(&wanted) {
                let number = plan.mishaps.len();
                violation(number as u64, &format!("node {number}: a table is too big: {number}"))
            } else {
                violation(1, "node 1: a datagram was relayed twice")
            }
        };
        let (smallest, found) = minimise_by(&plan, 1_000, &fails).unwrap();
        assert_eq!(smallest.mishaps, [wanted]);
        assert_eq!(Some(found), violation(1, "node 1: a table is too big: 1"));
        assert_eq!(minimise_by(&plan, 1_000, &|_| None), None);
    }

    #[test]
    fn runs_are_bounded() {
        let count = std::cell::Cell::new(0);
        let fails = |_: &Plan| {
            count.set(count.get() + 1);
            violation(0, "always")
        };
        minimise_by(&Plan::draw(1), 7, &fails).unwrap();
        assert_eq!(count.get(), 8);
    }
}
