//! `rongate record`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::control_client::Client;
use super::pace::Pace;
use super::{Gateway, Outcome, output};
use crate::gateway::status::{LinkState, LinkStatus, Request, Status};
use crate::sim::scenario::{Row, Trace};

/// Record what a gateway measures of its links, as a trace that `rongate simulate` takes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate record > today.csv
  rongate record --interval 250ms --count 14400 > an-hour.csv

A row is written when the best link to a peer changed noticeably. Half of the round trip counts as the
delay, and the loss that was measured as that of the way there.")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    #[command(flatten)]
    pace: Pace,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.gateway)?;
    let mut recorder = Recorder::default();
    output::write(&format!("{}\n", Trace::HEADER))?;
    let (mut looks, mut at) = (0, Duration::ZERO);
    while arguments.pace.goes_on(looks) {
        let status: Status = client.ask_for(&Request::Status)?;
        output::write(&recorder.note(at, &status))?;
        looks += 1;
        // Steps of the interval, not of the clock: a trace is replayed in even steps.
        at = at.saturating_add(arguments.pace.interval);
        if arguments.pace.goes_on(looks) {
            std::thread::sleep(arguments.pace.interval);
        }
    }
    Ok(())
}

/// What was written last for each peer.
#[derive(Default)]
struct Recorder {
    trace: Trace,
    last: BTreeMap<usize, (f64, f64)>,
}

impl Recorder {
    /// The lines for what changed.
    fn note(&mut self, at: Duration, status: &Status) -> String {
        let mut lines = String::new();
        let from = self.trace.name(&status.node.name);
        for peer in &status.peers {
            let to = self.trace.name(&peer.name);
            let (loss, delay_ms) = best(&peer.links);
            let last = self.last.get(&to).copied();
            let same = |last: (f64, f64)| {
                (last.0 - loss).abs() < 0.005 && (last.1 - delay_ms).abs() < 0.05 * last.1.max(1.0)
            };
            if last.is_some_and(same) {
                continue;
            }
            self.last.insert(to, (loss, delay_ms));
            let delay = (delay_ms > 0.0).then(|| Duration::from_secs_f64(delay_ms / 1e3));
            lines += &self.trace.line(&Row { at, from, to, loss, delay });
            lines.push('\n');
        }
        lines
    }
}

/// Loss and half the round trip of the best link; an outage when none is up.
fn best(links: &[LinkStatus]) -> (f64, f64) {
    let up = links.iter().filter(|link| link.state != LinkState::Down);
    let figures = up.filter_map(|link| Some((link.rtt_ms?, link.loss.unwrap_or(0.0))));
    let best = figures.min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or((1.0, 0.0), |(rtt, loss)| (loss.min(0.999), rtt / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status;

    #[test]
    fn what_changed_is_written_and_can_be_read() {
        let mut recorder = Recorder::default();
        let mut status = status::tests::example();
        let mut text = format!("{}\n", Trace::HEADER);
        text += &recorder.note(Duration::ZERO, &status);
        assert_eq!(recorder.note(Duration::from_secs(1), &status), "");
        status.peers[0].links[0].state = LinkState::Down;
        text += &recorder.note(Duration::from_secs(2), &status);
        let trace = Trace::parse(&text).unwrap();
        assert_eq!(trace.names[1], "utah");
        let rows: Vec<_> =
            trace.rows.iter().filter(|row| row.to == 1).map(|row| (row.at, row.loss)).collect();
        assert_eq!(rows, [(Duration::ZERO, 0.0021), (Duration::from_secs(2), 1.0)]);
        assert_eq!(trace.rows[0].delay, Some(Duration::from_micros(18_720)));
    }
}
