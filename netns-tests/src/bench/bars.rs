//! What must be reached, what we aim at, and what was measured.

use std::fmt::Write as _;

use super::contender::{Kind, Mode};
use super::report::Report;
use super::statistic::{Spread, Value, value};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    AtLeast,
    AtMost,
}

/// One demand.
struct Bar {
    what: &'static str,
    /// Where it holds, in words.
    place: &'static str,
    wanted: Wanted,
    bar: f64,
    aim: f64,
    decimals: usize,
    figure: Figure,
}

/// How its figure is found.
enum Figure {
    /// A value of one contender.
    Of(Mode, Kind, Value),
    /// A ratio of our gateway to another contender within a round.
    To(Mode, Kind, Value),
    /// What our gateway adds to plain forwarding within a round.
    Added(Mode, Value),
    /// A ratio to the peer that is best by the second value.
    ToBestPeer(Mode, Value, Value),
    /// From the benchmark without input and output.
    NoIo(&'static str),
}

const fn at_least(
    what: &'static str,
    place: &'static str,
    [bar, aim]: [f64; 2],
    decimals: usize,
    figure: Figure,
) -> Bar {
    Bar { what, place, wanted: Wanted::AtLeast, bar, aim, decimals, figure }
}

const fn at_most(
    what: &'static str,
    place: &'static str,
    [bar, aim]: [f64; 2],
    decimals: usize,
    figure: Figure,
) -> Bar {
    Bar { what, place, wanted: Wanted::AtMost, bar, aim, decimals, figure }
}

use Figure::{Added, NoIo, Of, To, ToBestPeer};
use Mode::{Super, Wire};

const CPU_TO_STOCK: &str = "CPU of both gateways, ratio to the stock-crate tunnel";
const CPU: &str = "CPU of both gateways, s/GB";
const TO_PLAIN: &str = "TCP throughput, ratio to plain forwarding";
const TO_PEER: &str = "TCP throughput, ratio to the fastest peer";
const CONNECTS: &str = "new TCP flows through the NAT, per second";
const MEMORY: &str = "resident memory with 100,000 flows, MB";

/// TCP with one and with four streams.
const BULK: &[Bar] = &[
    at_most(CPU_TO_STOCK, "wire, 1 stream", [0.8, 0.65], 2, To(Wire, Kind::Stock, value::cpu1)),
    at_most(CPU_TO_STOCK, "wire, 4 streams", [0.8, 0.65], 2, To(Wire, Kind::Stock, value::cpu4)),
    at_most(CPU_TO_STOCK, "super, 1 stream", [0.8, 0.65], 2, To(Super, Kind::Stock, value::cpu1)),
    at_most(CPU_TO_STOCK, "super, 4 streams", [0.8, 0.65], 2, To(Super, Kind::Stock, value::cpu4)),
    at_most(CPU, "wire, 1 stream", [2.5, 2.0], 2, Of(Wire, Kind::Direct, value::cpu1)),
    at_most(CPU, "wire, 4 streams", [2.5, 2.0], 2, Of(Wire, Kind::Direct, value::cpu4)),
    at_most(CPU, "super, 1 stream", [1.5, 1.25], 2, Of(Super, Kind::Direct, value::cpu1)),
    at_most(CPU, "super, 4 streams", [1.5, 1.25], 2, Of(Super, Kind::Direct, value::cpu4)),
    at_least(TO_PLAIN, "wire, 1 stream", [0.5, 0.65], 2, To(Wire, Kind::Plain, value::tcp1)),
    at_least(TO_PLAIN, "wire, 4 streams", [0.5, 0.65], 2, To(Wire, Kind::Plain, value::tcp4)),
    at_least(TO_PLAIN, "super, 1 stream", [0.35, 0.5], 2, To(Super, Kind::Plain, value::tcp1)),
    at_least(TO_PLAIN, "super, 4 streams", [0.35, 0.5], 2, To(Super, Kind::Plain, value::tcp4)),
    at_least(TO_PEER, "wire", [1.2, 1.5], 2, ToBestPeer(Wire, value::tcp1, value::tcp1)),
    at_least(TO_PEER, "super", [2.5, 3.5], 2, ToBestPeer(Super, value::tcp1, value::tcp1)),
    at_most(
        "CPU per GB, ratio to the fastest peer",
        "wire",
        [1.0 / 3.0, 0.25],
        2,
        ToBestPeer(Wire, value::cpu1, value::tcp1),
    ),
    at_most(
        "CPU of a relay, ratio to an end node",
        "wire, 1 stream",
        [0.5, 0.35],
        2,
        Of(Wire, Kind::Relay, value::relay1),
    ),
    at_most(
        "CPU of a relay, ratio to an end node",
        "wire, 4 streams",
        [0.5, 0.35],
        2,
        Of(Wire, Kind::Relay, value::relay4),
    ),
];

/// Everything else.
const REST: &[Bar] = &[
    at_least(
        "100-byte UDP at overload: delivered, ratio to plain forwarding",
        "wire",
        [0.9, 1.0],
        2,
        To(Wire, Kind::Plain, value::flood),
    ),
    at_least(
        "100-byte UDP at overload: delivered, ratio to the best peer",
        "wire",
        [1.3, 1.6],
        2,
        ToBestPeer(Wire, value::flood, value::flood),
    ),
    at_most(
        "CPU of both gateways per small packet at 20 kpps, us",
        "wire",
        [14.0, 8.0],
        1,
        Of(Wire, Kind::Direct, value::packet),
    ),
    at_most(
        "idle RTT added by two gateways, p50, us",
        "wire",
        [120.0, 80.0],
        0,
        Added(Wire, value::idle_p50),
    ),
    at_most(
        "RTT beside bulk TCP, p50, us",
        "wire",
        [2_000.0, 1_000.0],
        0,
        Of(Wire, Kind::Direct, value::load_p50),
    ),
    at_most(
        "NAT at the egress, extra per train, ns",
        "no I/O",
        [150.0, 100.0],
        0,
        NoIo("nat_extra_ns"),
    ),
    at_most(
        "user space without cipher per 1388-byte segment, out, ns",
        "no I/O",
        [60.0, 45.0],
        1,
        NoIo("out_segment_ns"),
    ),
    at_most(
        "user space without cipher per 1388-byte segment, in, ns",
        "no I/O",
        [50.0, 40.0],
        1,
        NoIo("in_segment_ns"),
    ),
    at_least(CONNECTS, "no I/O", [200_000.0, 400_000.0], 0, NoIo("connects_per_s")),
    at_least(
        CONNECTS,
        "wire, mode rewrite",
        [20_000.0, 40_000.0],
        0,
        Of(Wire, Kind::Exit, value::connects),
    ),
    at_least(
        CONNECTS,
        "wire, mode routed",
        [20_000.0, 40_000.0],
        0,
        Of(Wire, Kind::ExitRouted, value::connects),
    ),
    at_most(
        "resident memory, idle, MB",
        "wire",
        [20.0, 12.0],
        1,
        Of(Wire, Kind::Direct, value::idle_mb),
    ),
    at_most(MEMORY, "wire, direct", [60.0, 40.0], 1, Of(Wire, Kind::Direct, value::table_mb)),
    at_most(MEMORY, "wire, NAT", [60.0, 40.0], 1, Of(Wire, Kind::ExitRouted, value::table_mb)),
];

impl Bar {
    fn measured(&self, report: &Report) -> Option<(Spread, Option<String>)> {
        let own = Kind::Direct.name();
        let alone = |spread: Spread| (spread, None);
        match self.figure {
            Of(mode, kind, value) => report.spread(mode, kind.name(), value).map(alone),
            To(mode, kind, value) => report.ratio(mode, [own, kind.name()], value).map(alone),
            Added(mode, value) => {
                let names = [own, Kind::Plain.name()];
                report.beside(mode, names, value, |own, plain| own - plain).map(alone)
            }
            ToBestPeer(mode, value, best_by) => {
                let peer = report.best_peer(mode, best_by)?;
                Some((report.ratio(mode, [own, peer], value)?, Some(peer.to_owned())))
            }
            NoIo(name) => Spread::of(report.figures().get(name).copied()).map(alone),
        }
    }

    fn reached(&self, figure: f64, mark: f64) -> bool {
        match self.wanted {
            Wanted::AtLeast => figure >= mark,
            Wanted::AtMost => figure <= mark,
        }
    }

    fn line(&self, report: &Report) -> String {
        let (sign, decimals) = match self.wanted {
            Wanted::AtLeast => ("≥", self.decimals),
            Wanted::AtMost => ("≤", self.decimals),
        };
        let (figure, verdict) = match self.measured(report) {
            None => ("not measured".into(), ""),
            Some((spread, peer)) => {
                let peer = peer.map_or_else(String::new, |peer| format!(", {peer}"));
                let verdict = if self.reached(spread.median, self.aim) {
                    "aim reached"
                } else if self.reached(spread.median, self.bar) {
                    "met"
                } else {
                    "**not met**"
                };
                (format!("{}{peer}", spread.text(decimals)), verdict)
            }
        };
        format!(
            "| {} | {} | {sign} {:.decimals$} | {:.decimals$} | {figure} | {verdict} |",
            self.what, self.place, self.bar, self.aim
        )
    }
}

impl Report {
    /// Each demand, and whether its bar and its aim are reached by the median.
    pub(crate) fn bars(&self) -> String {
        let mut text =
            String::from("| what | where | bar | aim | measured | |\n|---|---|---|---|---|---|\n");
        for bar in BULK.iter().chain(REST) {
            let _ = writeln!(text, "{}", bar.line(self));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::row;

    #[test]
    fn a_bar_is_met_missed_or_not_measured() {
        let line = |text: &str, what: &str| {
            let found = text.lines().find(|line| line.contains(what));
            found.unwrap_or_default().to_owned()
        };
        let rows = vec![
            row(Kind::Plain, 0, Some(1_000.0)),
            row(Kind::Direct, 0, Some(550.0)),
            row(Kind::Nebula, 0, Some(500.0)),
        ];
        let datapath = Some("figure nat_extra_ns 99.0\n".into());
        let text = Report { rows, datapath, ..Report::default() }.bars();
        let plain = line(&text, "ratio to plain forwarding | wire, 1 stream");
        assert!(plain.ends_with("| ≥ 0.50 | 0.65 | 0.55 | met |"), "{plain}");
        let peer = line(&text, "ratio to the fastest peer | wire");
        assert!(peer.ends_with("| 1.10, nebula | **not met** |"), "{peer}");
        assert!(line(&text, "extra per train").ends_with("| 99 | aim reached |"), "{text}");
        assert!(line(&text, "wire, NAT").ends_with("| not measured |  |"), "{text}");
    }

    #[test]
    fn every_aim_is_beyond_its_bar() {
        for bar in BULK.iter().chain(REST) {
            assert!(bar.reached(bar.aim, bar.bar) && bar.aim != bar.bar, "{}", bar.what);
        }
    }
}
