//! The page for readers.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::contender::{INNER_MTU, Kind, Mode};
use super::report::Report;
use super::statistic::{Spread, Value, value};

/// A column that holds a measured value: heading, value, decimals.
type Column = (&'static str, Value, usize);

const COLUMNS: &[Column] = &[
    ("TCP 1 stream, Mbit/s", value::tcp1, 0),
    ("TCP 4 streams, Mbit/s", value::tcp4, 0),
    ("CPU s/GB, 1 stream", value::cpu1, 2),
    ("CPU s/GB, 4 streams", value::cpu4, 2),
    ("UDP 100 B flood, delivered kpps", value::flood, 1),
    ("CPU us/packet at 20 kpps", value::packet, 1),
    ("RTT idle p50, us", value::idle_p50, 0),
    ("RTT idle p99, us", value::idle_p99, 0),
    ("RTT beside TCP p50, us", value::load_p50, 0),
    ("RTT beside TCP p99, us", value::load_p99, 0),
];

const FLOWS: &[Column] = &[
    ("new TCP flows/s", value::connects, 0),
    ("of those lost", value::lost_connects, 0),
    ("memory idle, MB", value::idle_mb, 1),
    ("memory after bulk, MB", value::resident_mb, 1),
    ("memory with 100,000 flows, MB", value::table_mb, 1),
];

/// How a contender stands to another one in the same round.
const RATIOS: &[(&str, Value)] = &[
    ("TCP 1", value::tcp1),
    ("TCP 4", value::tcp4),
    ("CPU/GB 1", value::cpu1),
    ("CPU/GB 4", value::cpu4),
    ("UDP pps", value::flood),
    ("CPU/packet", value::packet),
    ("RTT idle", value::idle_p50),
];

const README_BEGIN: &str = "<!-- written by scripts/bench.sh --write: begin -->\n";
const README_END: &str = "<!-- written by scripts/bench.sh --write: end -->\n";

fn text(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "-".into(), |spread| spread.text(decimals))
}

impl Report {
    /// The whole page.
    pub fn markdown(&self) -> String {
        let mut page = String::from(
            "# Benchmarks\n\nWritten by `scripts/bench.sh --write`. `scripts/bench.sh --quick` gives a first look at \
             your own machine.\n\n",
        );
        for line in &self.conditions {
            let _ = writeln!(page, "- {line}");
        }
        let _ = writeln!(
            page,
            "- Inner MTU {INNER_MTU} for all, underlay MTU 1500, TCP cubic, IPv4. Both hosts, both \
             gateways and the kernel's work for them share the processors, so throughput says how \
             much work the whole path is.\n\
             - CPU is the time of all daemons together, with all threads; 1 GB is 10^9 bytes that \
             arrived.\n\
             - Medians (smallest - largest) over interleaved rounds; ratios are taken within a \
             round. \"Others\" is the share of the machine that unrelated processes used \
             meanwhile.\n\
             - rongate joins the two sites as the other tunnels do; where it takes over the hosts' \
             default route as well, it says so.\n\
             - The naive tunnel reads, seals and sends one packet at a time; the one of stock \
             crates (tun-rs, quinn-udp, aws-lc-rs) uses every offload these have, with one send for \
             each read of the TUN; the tuned one lets trains run across reads. All \
             ([benches/yardsticks](../benches/yardsticks)) encrypt with AES-256-GCM under fixed keys \
             and do nothing else. The bare tunnel merges nothing: no tunnel on sockets can cost \
             much less.\n\n## What must be reached\n\n{}{}",
            self.bars(),
            self.against_tuned()
        );
        for mode in [Mode::Wire, Mode::Super] {
            if !self.names(mode).is_empty() {
                self.mode_section(&mut page, mode);
            }
        }
        if let Some(datapath) = &self.datapath {
            let _ = writeln!(
                page,
                "\n## Without input and output\n\n`cargo bench -p rongate --bench datapath`:\n\n```text\n{}\n```",
                datapath.trim()
            );
        }
        page
    }

    /// The demand is about the plain integration; this says how we stand to the tuned one.
    fn against_tuned(&self) -> String {
        let names = [Kind::Direct.name(), Kind::StockTuned.name()];
        let mut ratios = Vec::new();
        for mode in [Mode::Wire, Mode::Super] {
            for (streams, value) in [("1 stream", value::cpu1 as Value), ("4 streams", value::cpu4)]
            {
                if let Some(ratio) = self.ratio(mode, names, value) {
                    ratios.push(format!("{} ({}, {streams})", ratio.text(2), mode.name()));
                }
            }
        }
        if ratios.is_empty() {
            return String::new();
        }
        format!(
            "\nThe demand against the stock-crate tunnel is about the plain integration. Against the \
             tuned one, which has no flows, no NAT, no replay windows and one peer, the CPU ratios \
             are {}.\n",
            ratios.join(", ")
        )
    }

    fn mode_section(&self, page: &mut String, mode: Mode) {
        let title = match mode {
            Mode::Wire => "`wire`: every link carries packets of at most its MTU, as a cable does",
            Mode::Super => "`super`: super-packets of up to 64 KiB cross the links whole",
        };
        let _ = writeln!(page, "\n## {title}\n");
        if mode == Mode::Wire {
            for (name, what) in [
                ("throughput", "TCP throughput"),
                ("cost", "processor time per gigabyte"),
                ("small-packets", "small packets"),
                ("delay", "round trip times"),
            ] {
                let _ = writeln!(page, "![{what}](plots/{name}.svg)\n");
            }
        }
        self.value_table(page, mode, COLUMNS);
        self.gateways(page, mode);
        if mode == Mode::Wire {
            page.push_str("\nFlows and memory, of the larger daemon:\n\n");
            self.value_table(page, mode, FLOWS);
        }
        let best = self.best_peer(mode, value::tcp1);
        for base in [Kind::Plain, Kind::Stock, Kind::StockTuned]
            .map(|kind| Some(kind.name()))
            .into_iter()
            .chain([best])
        {
            if let Some(base) = base.filter(|base| self.names(mode).contains(base)) {
                self.ratio_table(page, mode, base);
            }
        }
        for row in self.rows.iter().filter(|row| row.mode == mode) {
            if let Some(error) = &row.error {
                let last = error.lines().last().unwrap_or_default();
                let _ = writeln!(page, "\n{} failed in round {}: {last}", row.name, row.round + 1);
            }
        }
    }

    /// Columns and lines without any value are left out.
    fn value_table(&self, page: &mut String, mode: Mode, columns: &[Column]) {
        let names = self.names(mode);
        let has = |name: &str, (_, value, _): &Column| self.spread(mode, name, *value).is_some();
        let columns: Vec<_> =
            columns.iter().filter(|column| names.iter().any(|name| has(name, column))).collect();
        page.push_str("| |");
        for (heading, ..) in &columns {
            let _ = write!(page, " {heading} |");
        }
        let _ = writeln!(page, " rounds | others |\n|---|{}", "---|".repeat(columns.len() + 2));
        for name in names.iter().filter(|name| columns.iter().any(|column| has(name, column))) {
            let _ = write!(page, "| {name} |");
            for (_, value, decimals) in &columns {
                let _ = write!(page, " {} |", text(self.spread(mode, name, *value), *decimals));
            }
            let others = Spread::of(self.of(mode, name).map(|row| row.others * 100.0));
            let rounds = self.of(mode, name).filter(|row| row.sample.is_some()).count();
            let _ = writeln!(page, " {rounds} | {} % |", text(others, 0));
        }
    }

    /// The cost of each gateway by itself.
    fn gateways(&self, page: &mut String, mode: Mode) {
        page.push_str(
            "\nCPU s/GB of each daemon, 1 stream, in the direction of the data:\n\n\
             | | first | relay | last |\n|---|---|---|---|\n",
        );
        for name in self.names(mode) {
            let of = |at: usize, count: usize| {
                let rows = self.of(mode, name).filter_map(|row| row.sample.as_ref()?.tcp1.as_ref());
                let each = rows.filter(|tcp| tcp.cpu_per_gb.len() == count);
                Spread::of(each.map(|tcp| tcp.cpu_per_gb[at]))
            };
            let cells = match (of(0, 2), of(0, 3)) {
                (Some(first), _) => [Some(first), None, of(1, 2)],
                (None, Some(first)) => [Some(first), of(1, 3), of(2, 3)],
                (None, None) => continue,
            };
            let [first, relay, last] = cells.map(|spread| text(spread, 2));
            let _ = writeln!(page, "| {name} | {first} | {relay} | {last} |");
        }
    }

    fn ratio_table(&self, page: &mut String, mode: Mode, base: &str) {
        let _ = write!(page, "\nAgainst {base}, ratios within a round:\n\n| |");
        for (heading, _) in RATIOS {
            let _ = write!(page, " {heading} |");
        }
        let _ = writeln!(page, "\n|---|{}", "---|".repeat(RATIOS.len()));
        for name in self.names(mode).into_iter().filter(|name| *name != base) {
            let ratio = |value| self.ratio(mode, [name, base], value);
            if RATIOS.iter().all(|(_, value)| ratio(*value).is_none()) {
                continue;
            }
            let _ = write!(page, "| {name} |");
            for (_, value) in RATIOS {
                let _ = write!(page, " {} |", text(ratio(*value), 2));
            }
            page.push('\n');
        }
    }

    /// The few figures for the first page, between marks that `readme` must have.
    pub fn put_into(&self, readme: &str) -> Result<String> {
        let (before, rest) = readme.split_once(README_BEGIN).context("no mark for the figures")?;
        let (_, after) = rest.split_once(README_END).context("no end mark of the figures")?;
        Ok(format!("{before}{README_BEGIN}{}{README_END}{after}", self.compact()))
    }

    fn compact(&self) -> String {
        const SHOWN: &[Column] = &[
            ("TCP, Mbit/s", value::tcp1, 0),
            ("CPU s/GB", value::cpu1, 2),
            ("100 B UDP, kpps", value::flood, 0),
            ("CPU us/packet", value::packet, 1),
            ("RTT idle, us", value::idle_p50, 0),
            ("RTT beside TCP, us", value::load_p50, 0),
        ];
        let mut out = String::from("| |");
        for (heading, ..) in SHOWN {
            let _ = write!(out, " {heading} |");
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(SHOWN.len()));
        for name in self.names(Mode::Wire) {
            let spread = |value| self.spread(Mode::Wire, name, value);
            if spread(value::tcp1).is_none() {
                continue;
            }
            let _ = write!(out, "| {name} |");
            for (_, value, decimals) in SHOWN {
                let cell = spread(*value)
                    .map_or_else(|| "-".into(), |s| format!("{:.*}", decimals, s.median));
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::row;

    fn report() -> Report {
        let rows = vec![
            row(Kind::Plain, 0, Some(1_000.0)),
            row(Kind::Direct, 0, Some(500.0)),
            row(Kind::Plain, 1, Some(4_000.0)),
            row(Kind::Direct, 1, Some(1_000.0)),
            row(Kind::Direct, 2, None),
        ];
        Report { conditions: vec!["a machine".into()], rows, ..Report::default() }
    }

    #[test]
    fn the_page_has_values_ratios_and_failures() {
        let page = report().markdown();
        assert!(page.contains("- a machine\n"), "{page}");
        assert!(page.contains("| rongate | 750 (500 - 1000) | 2 | 10 (10 - 10) % |"), "{page}");
        assert!(page.contains("| rongate | 0.38 (0.25 - 0.50) | - |"), "{page}");
        assert!(page.contains("rongate failed in round 3: no tunnel"), "{page}");
        assert!(!page.contains("`super`"), "{page}");
    }

    #[test]
    fn the_first_page_keeps_everything_around_the_figures() {
        let readme = format!("before\n{README_BEGIN}old\n{README_END}after\n");
        let new = report().put_into(&readme).unwrap();
        assert!(new.starts_with("before\n<!--") && new.ends_with("-->\nafter\n"), "{new}");
        assert!(new.contains("| rongate | 750 | - |") && !new.contains("old"), "{new}");
        assert_eq!(report().put_into(&new).unwrap(), new);
        assert!(report().put_into("nothing").is_err());
    }
}
