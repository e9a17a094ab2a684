//! What an emulation did, and whether its figures can be trusted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scenario::Guard;

/// Counters of a run so far, or of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// False when a guard was exceeded: do not use the figures.
    pub valid: bool,
    /// Why not.
    pub problems: Vec<String>,
    /// Seconds since the start.
    pub elapsed_s: f64,
    /// How late packets were written, compared with the instant asked for.
    pub lateness: Lateness,
    /// How late the emulator woke while there was traffic. A packet that came meanwhile was seen, and
    /// its delay began, that much too late.
    pub wakeup: Lateness,
    /// What passed the interfaces, by site.
    pub sites: BTreeMap<String, SiteCounters>,
    /// What the links did, by `from>to`. Links that saw nothing are left out.
    pub links: BTreeMap<String, LinkCounters>,
    /// The processor's part.
    pub cpu: Cpu,
}

/// A distribution of lateness, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Lateness {
    pub count: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Processor time and what was taken from us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// User time of the emulator, in seconds.
    pub user_s: f64,
    /// System time of the emulator, in seconds.
    pub system_s: f64,
    /// Fraction of the machine's time that its host gave to others.
    pub steal: f64,
}

/// Frames at one site's interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteCounters {
    /// Frames (packets or super-packets) read from the site.
    pub read_frames: u64,
    /// Frames written to the site.
    pub written_frames: u64,
    /// Frames to destinations of no other site, multicast included.
    pub unroutable: u64,
    /// Frames that are no IP packet, or whose offload header lies.
    pub malformed: u64,
    /// Packets dropped because their source is not the site's.
    pub foreign_source: u64,
    /// Packets the kernel dropped before we could read them; absent when it cannot be asked.
    pub tun_drops: Option<u64>,
    /// Frames not written because the interface was down.
    pub interface_down: u64,
    /// Frames not written for any other reason.
    pub write_errors: u64,
}

/// Packets on one directed link. A super-packet counts as the packets in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Packets that entered.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// Packets written to the receiver's interface, copies included.
    pub delivered: u64,
    /// Lost while the link was down.
    pub down: u64,
    /// Lost independently.
    pub loss: u64,
    /// Lost by the Gilbert-Elliott model.
    pub burst_loss: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Larger than the MTU and not to be fragmented.
    pub too_big: u64,
    /// Dropped because the TTL ran out on the way.
    pub ttl_expired: u64,
    /// Dropped because too many bytes were under way.
    pub memory_full: u64,
    /// Packets that were sent twice.
    pub duplicated: u64,
    /// Packets held back to be overtaken.
    pub reordered: u64,
    /// Packets with a flipped bit.
    pub corrupted: u64,
    /// IPv4 packets cut into fragments.
    pub fragmented: u64,
    /// Super-packets cut into packets.
    pub segmented: u64,
    /// ICMP errors sent back.
    pub icmp_errors: u64,
}

impl Report {
    /// The counters of the link from `from` to `to`; zeros if it saw nothing.
    pub fn link(&self, from: &str, to: &str) -> LinkCounters {
        self.links.get(&link_name(from, to)).cloned().unwrap_or_default()
    }

    /// Packets the kernel dropped before the emulator could read them, at all sites.
    pub fn tun_drops(&self) -> u64 {
        self.sites.values().filter_map(|site| site.tun_drops).sum()
    }

    /// Compares the figures with `guard` and writes the verdict.
    pub(crate) fn judge(&mut self, guard: &Guard) {
        let mut problems = Vec::new();
        let limit_us = guard.lateness_p99.0 as f64 / 1e3;
        for (what, p99_us) in [
            ("packets were written", self.lateness.p99_us),
            ("the emulator woke", self.wakeup.p99_us),
        ] {
            if p99_us > limit_us {
                problems.push(format!("{what} late: p99 {p99_us:.0} us, limit {limit_us:.0} us"));
            }
        }
        let read: u64 = self.sites.values().map(|site| site.read_frames).sum();
        let share = self.tun_drops() as f64 / (read + self.tun_drops()).max(1) as f64;
        if share > guard.tun_drops {
            problems.push(format!(
                "the kernel dropped {} packets ({share:.5}) before they were read, \
                 the limit is {}",
                self.tun_drops(),
                guard.tun_drops
            ));
        }
        let errors: u64 = self.sites.values().map(|site| site.write_errors).sum();
        if errors > guard.write_errors {
            problems.push(format!("{errors} failed writes, the limit is {}", guard.write_errors));
        }
        let memory: u64 = self.links.values().map(|link| link.memory_full).sum();
        if memory > 0 {
            problems.push(format!("{memory} packets dropped: too many bytes under way"));
        }
        self.valid = problems.is_empty();
        self.problems = problems;
    }
}

/// The name of a link in reports: `from>to`.
pub(crate) fn link_name(from: &str, to: &str) -> String {
    format!("{from}>{to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let site = SiteCounters { read_frames: 10_000, ..SiteCounters::default() };
        report.sites.insert("a".into(), site);
        report
    }

    fn problems(change: impl Fn(&mut Report)) -> Vec<String> {
        let mut report = report();
        change(&mut report);
        report.judge(&Guard::default());
        assert_eq!(report.valid, report.problems.is_empty());
        report.problems
    }

    #[test]
    fn guards_reject_a_run() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        assert!(problems(|r| r.lateness.p99_us = 20_001.0)[0].contains("written late"));
        assert!(problems(|r| r.wakeup.p99_us = 20_001.0)[0].contains("woke late"));
        let drops = |n| move |r: &mut Report| r.sites.get_mut("a").unwrap().tun_drops = Some(n);
        assert!(problems(drops(9)).is_empty());
        assert!(problems(drops(20))[0].contains("dropped 20"));
        assert_eq!(problems(|r| r.sites.get_mut("a").unwrap().write_errors = 1).len(), 1);
        let full = LinkCounters { memory_full: 1, ..LinkCounters::default() };
        let with_full = move |r: &mut Report| r.links.extend([("a>b".into(), full.clone())]);
        assert_eq!(problems(with_full).len(), 1);
    }
}
