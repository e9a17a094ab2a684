//! `rongate record`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::control_client::Client;
use super::pace::Pace;
use super::{Gateway, Outcome, output};
use crate::gateway::status::{LinkState, LinkStatus, Request, Status};
use crate::io::clock::Clock;
use crate::sim::scenario::{Row, Trace};
use crate::time::WallClock;

/// Record what a gateway measures of its links, as a trace that `rongate simulate` takes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate record > today.csv
  rongate record --interval 250ms --count 14400 > an-hour.csv
  cat mit.csv utah.csv > both.csv

A row is written when the best link to a peer changed noticeably. Half of the round trip counts as the
delay, and the loss that was measured as that of the way there. Recordings of several gateways, one behind
the other, are one trace: each says when it began.")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    #[command(flatten)]
    pace: Pace,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.gateway)?;
    let mut recorder = Recorder::default();
    output::write(&heading())?;
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

/// The first lines: recordings of several gateways, one behind the other, are one trace.
fn heading() -> String {
    let (_, calendar, _) = Clock::new(WallClock(0)).reading();
    format!("{}\n{}\n", Trace::HEADER, Trace::began(Duration::from_nanos(calendar.0)))
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
    use crate::sim::scenario::{self, Scenario};

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

    #[test]
    fn recordings_of_two_gateways_are_one_trace() {
        let record = |name: &str, peer: &str, began: u64, cut: Option<u64>| {
            let mut recorder = Recorder::default();
            let mut status = status::tests::example();
            status.node.name = name.to_owned();
            status.peers.truncate(1);
            status.peers[0].name = peer.to_owned();
            let mut text =
                format!("{}\n{}\n", Trace::HEADER, Trace::began(Duration::from_secs(began)));
            for second in 0..60 {
                let state = if cut.is_some_and(|cut| second >= cut) {
                    LinkState::Down
                } else {
                    LinkState::Up
                };
                status.peers[0].links.iter_mut().for_each(|link| link.state = state);
                text += &recorder.note(Duration::from_secs(second), &status);
            }
            text
        };
        // The second one began 20 s later; both see the same cut.
        let joined =
            record("mit", "utah", 1_000, Some(50)) + &record("utah", "mit", 1_020, Some(30));
        let trace = Trace::parse(&joined).unwrap();
        assert_eq!(trace.names, ["mit", "utah"]);
        let cuts: Vec<_> = trace.rows.iter().filter(|row| row.loss == 1.0).collect();
        assert_eq!(cuts.iter().map(|row| row.from).collect::<Vec<_>>(), [0, 1]);
        assert!(cuts.iter().all(|row| row.at == Duration::from_secs(50)), "{cuts:?}");
        let scenario = Scenario::parse("{ nodes: 2, duration: 100s, schemes: [direct] }").unwrap();
        let report = scenario::run(&scenario, 2, Some(&trace), &mut |_| {});
        // A fifth of a per cent is lost before.
        let lost = report.schemes[0].sent - report.schemes[0].arrived;
        assert!((100..=102).contains(&lost), "{lost}");
    }
}
