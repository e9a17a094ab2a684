//! TCP connections of a scenario, and what their users tell.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::{Scenario, sites};
use crate::sim::{Connection, Delivery, Simulator, TcpHosts, Way};
use crate::time::Instant;

/// Ports of the first connection's ends.
const CLIENT_PORT: u16 = 5_000;
const SERVER_PORT: u16 = 80;

/// What the user of one connection saw.
#[derive(Clone, Debug, Serialize)]
pub struct TcpReport {
    /// What carried it: `overlay` or `direct`.
    pub scheme: &'static str,
    /// The node of the sender and that of the receiver.
    pub from: u16,
    /// See there.
    pub to: u16,
    /// Bytes that came, in order.
    pub bytes: u64,
    /// The same in thousand bits for each second of the measured time.
    pub goodput_kbit_s: f64,
    /// Silences of a second or more while there was something to send.
    pub stalls: u64,
    /// All of them together, seconds.
    pub stalled_s: f64,
    /// The longest silence, seconds.
    pub longest_s: f64,
    /// Times when the sender's timer ran out.
    pub timeouts: u64,
    /// Segments that were sent again.
    pub repeated: u64,
    /// Bytes in each second.
    #[serde(skip)]
    pub seconds: Vec<u64>,
}

/// The connections while they run.
pub(super) struct Tcp {
    hosts: TcpHosts,
    /// By connection: what carries it, from where to where.
    told: Vec<(&'static str, u16, u16)>,
    start: Instant,
    /// Segments that were not what was sent.
    wrong: u64,
}

impl Tcp {
    /// Calls everybody.
    pub(super) fn new(scenario: &Scenario, addresses: &[IpAddr], now: Instant) -> Self {
        let mut tcp = Self { hosts: TcpHosts::default(), told: Vec::new(), start: now, wrong: 0 };
        for (port, flow) in (CLIENT_PORT..).zip(&scenario.tcp) {
            let [a, b] = [flow.from, flow.to].map(usize::from);
            let client = (a, (sites::host(a).0, port));
            let server = (b, (sites::host(b).0, SERVER_PORT));
            let ways =
                [("direct", Way::Direct(addresses[a], addresses[b])), ("overlay", Way::Overlay)];
            for (name, way) in ways {
                if scenario.schemes.iter().any(|scheme| scheme == name) {
                    tcp.hosts.add(way, Connection::new(now, client, server, flow.rate, None));
                    tcp.told.push((name, flow.from, flow.to));
                }
            }
        }
        tcp
    }

    /// Runs the simulation until `end`; what was delivered of other hosts. A segment that is not
    /// what was sent is counted, and as good as lost.
    pub(super) fn run_until(&mut self, simulator: &mut Simulator, end: Instant) -> Vec<Delivery> {
        let mut others = Vec::new();
        if self.hosts.is_empty() {
            simulator.run_until(end);
        }
        while simulator.now() < end {
            let (delivered, wrong) = self.hosts.run_until(simulator, end);
            others.extend(delivered);
            self.wrong += wrong.len() as u64;
        }
        others
    }

    /// What the users tell, and how many segments were not what was sent.
    pub(super) fn finish(&mut self, now: Instant) -> (Vec<TcpReport>, u64) {
        let seconds = (now - self.start).as_secs_f64();
        let report = |(&(scheme, from, to), (_, connection)): (_, &mut (Way, Connection))| {
            let seen = connection.finish(now);
            TcpReport {
                scheme,
                from,
                to,
                bytes: seen.bytes,
                goodput_kbit_s: seen.bytes as f64 * 8e-3 / seconds,
                stalls: seen.stalls,
                stalled_s: seen.stalled.as_secs_f64(),
                longest_s: seen.longest.as_secs_f64(),
                timeouts: seen.timeouts,
                repeated: seen.repeated,
                seconds: connection.seconds().to_vec(),
            }
        };
        (self.told.iter().zip(self.hosts.connections()).map(report).collect(), self.wrong)
    }
}

/// For people. Empty without connections.
pub(super) fn table(reports: &[TcpReport], wrong: u64) -> String {
    let mut text = String::new();
    if wrong > 0 {
        let _ = writeln!(text, "\nTCP segments that were not what was sent: {wrong}");
    }
    if !reports.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<12} {:<12} {:>10} {:>7} {:>9} {:>9} {:>9} {:>9}",
            "TCP BY", "FLOW", "kbit/s", "STALLS", "STALLED", "LONGEST", "TIMEOUTS", "REPEATED"
        );
    }
    for report in reports {
        let _ = writeln!(
            text,
            "{:<12} {:<12} {:>10.0} {:>7} {:>8.1}s {:>8.2}s {:>9} {:>9}",
            report.scheme,
            format!("n{} > n{}", report.from, report.to),
            report.goodput_kbit_s,
            report.stalls,
            report.stalled_s,
            report.longest_s,
            report.timeouts,
            report.repeated,
        );
    }
    text
}

/// What came in each second.
pub(super) fn csv(reports: &[TcpReport]) -> String {
    let mut text = "scheme,from,to,second,kbit\n".to_owned();
    for TcpReport { scheme, from, to, seconds, .. } in reports {
        for (second, bytes) in seconds.iter().enumerate() {
            let _ = writeln!(text, "{scheme},n{from},n{to},{second},{}", *bytes as f64 * 8e-3);
        }
    }
    text
}
