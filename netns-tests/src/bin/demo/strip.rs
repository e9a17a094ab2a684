//! What a host sees, live: a strip of pings, a new row whenever the world changes.
//!
//! ```text
//!     0.0 s  direct             ••••••••••••••••••••••••••••••   84 ms
//!     1.5 s  the link is cut    ××××××
//!     1.8 s  via mit            •••••••••••••••••••••••••••••••  105 ms
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use netns_tests::lab::{Host, Process, clock};

use super::screen::{Screen, Tone, pad};

/// Between two pings.
const INTERVAL: Duration = Duration::from_millis(50);

/// A ping is shown as lost when so many more have been sent before its answer: half a second.
const PATIENCE: u64 = 10;

/// Pings in a row of the strip.
const WIDTH: usize = 40;

/// A running `ping` and how much of it is on the screen.
#[derive(Debug)]
pub(crate) struct Strip {
    process: Process,
    start: Instant,
    answers: BTreeMap<u64, f64>,
    /// The latest ping that is known to be on its way, or answered. Counted, not timed: on a busy
    /// machine `ping` falls behind its own clock.
    sent: u64,
    /// The next ping to show; numbers from 1, as `ping` counts.
    next: u64,
    /// Changes of the world not yet on the screen, with the first ping after each.
    changes: VecDeque<(u64, String)>,
    row: Row,
    lost: u64,
}

/// The row that is growing.
#[derive(Debug, Default)]
struct Row {
    shown: usize,
    times: Vec<f64>,
}

impl Strip {
    /// Starts pinging, in the first row named `label`.
    pub(crate) fn start(from: &Host, to: Ipv4Addr, label: &str) -> Result<Self> {
        let target = to.to_string();
        let arguments = ["-n", "-O", "-i", "0.05", &target];
        let process = from.start("strip", Path::new("ping"), &arguments)?;
        Ok(Self {
            process,
            start: clock::now(),
            answers: BTreeMap::new(),
            sent: 0,
            next: 1,
            changes: VecDeque::from([(1, label.to_owned())]),
            row: Row::default(),
            lost: 0,
        })
    }

    /// Seconds since the first ping.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Something has changed: pings sent from now on, and those under way, get a row of their own.
    pub(crate) fn change(&mut self, label: &str) {
        self.read();
        let latest = self.answers.last_key_value().map_or(0.0, |(_, ms)| *ms);
        let under_way = (latest / 1e3 / INTERVAL.as_secs_f64()) as u64;
        self.changes.push_back(((self.sent + 1).saturating_sub(under_way), label.to_owned()));
    }

    /// Shows what has come for `time`, or until `done` says so.
    pub(crate) fn watch(
        &mut self,
        screen: &Screen,
        time: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        let end = clock::now() + time;
        loop {
            self.show(screen);
            if done(self)? {
                return Ok(true);
            }
            if clock::now() >= end {
                return Ok(false);
            }
            sleep(Duration::from_millis(40));
        }
    }

    /// Shows the pings up to now, ends the row, and returns how many were shown as lost.
    pub(crate) fn finish(mut self, screen: &Screen) -> Result<u64> {
        self.read();
        let last = self.sent;
        let due = |strip: &Self| strip.next <= last;
        self.watch(screen, 3 * INTERVAL * PATIENCE as u32, |strip| Ok(!due(strip)))?;
        self.process.ensure_running()?;
        self.row.end(screen);
        Ok(self.lost)
    }

    fn read(&mut self) {
        for line in self.process.log_text().lines() {
            self.answers.extend(answer(line));
            self.sent = self.sent.max(known_sent(line).unwrap_or(0));
        }
    }

    fn show(&mut self, screen: &Screen) {
        self.read();
        while self.answers.contains_key(&self.next) || self.sent > self.next + PATIENCE {
            self.show_next(screen);
        }
    }

    fn show_next(&mut self, screen: &Screen) {
        let mut label = None;
        while let Some((_, text)) = self.changes.pop_front_if(|(first, _)| *first <= self.next) {
            label = Some(text);
        }
        if label.is_some() || self.row.shown == WIDTH {
            self.row.end(screen);
            let at = (self.next - 1) as f64 * INTERVAL.as_secs_f64();
            self.row.begin(screen, at, label.as_deref().unwrap_or_default());
        }
        let answer = self.answers.get(&self.next).copied();
        self.row.show(screen, answer);
        self.lost += u64::from(answer.is_none());
        self.next += 1;
    }
}

impl Row {
    fn begin(&mut self, screen: &Screen, seconds: f64, label: &str) {
        screen.put(Tone::Dim, &format!("   {seconds:5.1} s  "));
        screen.put(Tone::Plain, &format!("{} ", pad(label, 18)));
    }

    fn show(&mut self, screen: &Screen, answer: Option<f64>) {
        match answer {
            Some(_) => screen.put(Tone::Good, "•"),
            None => screen.put(Tone::Bad, "×"),
        }
        self.shown += 1;
        self.times.extend(answer);
    }

    fn end(&mut self, screen: &Screen) {
        if self.shown > 0 {
            let blanks = " ".repeat(WIDTH.saturating_sub(self.shown));
            self.times.sort_unstable_by(f64::total_cmp);
            let middle = self.times.get(self.times.len() / 2);
            let time = middle.map(|ms| format!("{ms:4.0} ms")).unwrap_or_default();
            screen.put(Tone::Plain, &format!("{blanks} {time}\n"));
        }
        *self = Self::default();
    }
}

fn after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.split(' ').next()
}

/// Number and round trip time in a line of `ping`.
fn answer(line: &str) -> Option<(u64, f64)> {
    Some((after(line, "icmp_seq=")?.parse().ok()?, after(line, "time=")?.parse().ok()?))
}

/// The ping that a line of `ping` shows to have been sent: "no answer yet" is said of the one before.
fn known_sent(line: &str) -> Option<u64> {
    let number: u64 = after(line, "icmp_seq=")?.trim().parse().ok()?;
    Some(number + u64::from(line.starts_with("no answer yet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_other_lines() {
        let line = "64 bytes from 10.3.0.11: icmp_seq=12 ttl=62 time=84.3 ms";
        assert_eq!(answer(line), Some((12, 84.3)));
        assert_eq!(known_sent(line), Some(12));
        assert_eq!(known_sent("no answer yet for icmp_seq=7"), Some(8));
        assert_eq!(answer("no answer yet for icmp_seq=7"), None);
        assert_eq!(answer("From 10.1.0.1 icmp_seq=3 Destination Host Unreachable"), None);
        assert_eq!(answer("PING 10.3.0.11 (10.3.0.11) 56(84) bytes of data."), None);
    }
}
