//! `rongate top`.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;

use super::control_client::Client;
use super::output::count;
use super::pace::Pace;
use super::table::Table;
use super::{Gateway, Outcome, output, peers, status};
use crate::gateway::status::{Request, Status, TallyStatus};

/// Watch a gateway: peers, rates and drops, again and again
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate top
  rongate top --interval 250ms
  rongate top --count 10 > ten-seconds.txt")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    #[command(flatten)]
    pace: Pace,
}

/// Moves the cursor home and clears the screen (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.gateway)?;
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before: Status = client.ask_for(&Request::Status)?;
    let mut looks = 0;
    while arguments.pace.goes_on(looks) {
        std::thread::sleep(arguments.pace.interval);
        let now: Status = client.ask_for(&Request::Status)?;
        output::write(&format!("{clear}{}\n", render(&before, &now, arguments.pace.interval)))?;
        before = now;
        looks += 1;
    }
    Ok(())
}

fn render(before: &Status, now: &Status, interval: Duration) -> String {
    let mut text = status::head(now);
    text += "\n";
    text += &peers::table(now).render();
    text += "\n";
    text += &rates(before, now, interval.as_secs_f64()).render();
    let drops = drops(before, now);
    if !drops.is_empty() {
        text += "\n";
        text += &drops.render();
    }
    text
}

fn rates(before: &Status, now: &Status, seconds: f64) -> Table {
    let mut table = Table::new(&["TRAFFIC", ">PACKETS/s", ">BIT/s"]);
    let mut row = |name: &str, before: TallyStatus, now: TallyStatus| {
        let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
        let bits = rate(before.bytes, now.bytes).saturating_mul(8);
        table.row([name.to_owned(), count(rate(before.packets, now.packets)), count(bits)]);
    };
    let (a, b) = (&before.traffic, &now.traffic);
    row("from hosts", a.tun_rx, b.tun_rx);
    row("to hosts", a.tun_tx, b.tun_tx);
    row("from underlay", a.underlay_rx, b.underlay_rx);
    row("to underlay", a.underlay_tx, b.underlay_tx);
    row("relayed", a.relayed, b.relayed);
    table
}

/// What was dropped since the last look.
fn drops(before: &Status, now: &Status) -> Table {
    let mut table = Table::new(&["DROPPED", ">NOW", ">IN ALL"]);
    for (reason, total) in &now.drops {
        let new = total.saturating_sub(before.drops.get(reason).copied().unwrap_or(0));
        if new > 0 {
            table.row([reason.clone(), count(new), count(*total)]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let before = status::tests::example();
        let mut now = before.clone();
        now.traffic.tun_rx = TallyStatus { packets: 200, bytes: 250_000 };
        now.drops.insert("forged".into(), 12);
        let shown = rates(&before, &now, 2.0).render();
        assert!(shown.contains("from hosts           100  1.00M\n"), "{shown}");
        assert_eq!(drops(&before, &now).render(), "DROPPED  NOW  IN ALL\nforged     3      12\n");
    }
}
