//! What arrived from a peer and was not reported to it yet: when a report rides on data that goes
//! back anyway, and when one is sent alone.

use std::time::Duration;

use crate::path::PathId;
use crate::time::Instant;

/// Arrivals on one path of a peer, as the peer names it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    path: PathId,
    /// When the first datagram came that no report covers.
    since: Option<Instant>,
    bytes: u64,
    reported_at: Option<Instant>,
    used_at: Instant,
}

/// The paths on which a peer's data comes in, and what is owed to it of reports.
///
/// Data makes a report due; control messages do not, so that reports never answer reports.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    entries: Vec<Entry>,
    hint: usize,
}

impl Arrivals {
    /// A peer sends over two paths at once, and over another two while it changes over.
    const PATHS: usize = 4;
    /// A report rides at most so often for each path.
    pub const RIDING: Duration = Duration::from_millis(5);
    /// A report waits so long for something to ride on.
    const PATIENCE: Duration = Duration::from_millis(12);
    /// At most so often goes one alone, ...
    pub const ALONE: Duration = Duration::from_millis(100);
    /// ... unless that is less than a hundredth of the data, ...
    const ALONE_BYTES: u64 = 9_000;
    /// ... and then so often.
    const ALONE_FAST: Duration = Duration::from_millis(15);

    /// A data datagram of `len` bytes came in on `path`.
    pub fn on_data(&mut self, now: Instant, path: PathId, len: usize) {
        let entry = self.entry(now, path);
        entry.since = entry.since.or(Some(now));
        entry.bytes = entry.bytes.saturating_add(len as u64);
        entry.used_at = now;
    }

    fn entry(&mut self, now: Instant, path: PathId) -> &mut Entry {
        let found = match self.entries.get(self.hint) {
            Some(entry) if entry.path == path => Some(self.hint),
            _ => self.entries.iter().position(|entry| entry.path == path),
        };
        let fresh = Entry { path, since: None, bytes: 0, reported_at: None, used_at: now };
        self.hint = match found {
            Some(at) => at,
            None if self.entries.len() < Self::PATHS => {
                self.entries.push(fresh);
                self.entries.len() - 1
            }
            None => {
                let ages = self.entries.iter().enumerate();
                let at = ages.min_by_key(|(_, entry)| entry.used_at).map_or(0, |(at, _)| at);
                self.entries[at] = fresh;
                at
            }
        };
        &mut self.entries[self.hint]
    }

    /// How long ago data last came in on `path`.
    pub fn age(&self, now: Instant, path: PathId) -> Duration {
        let entry = self.entries.iter().find(|entry| entry.path == path);
        entry.map_or(Duration::MAX, |entry| now - entry.used_at)
    }

    /// When data last came in, of the paths that are remembered.
    pub fn used_at(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.used_at).max()
    }

    /// The path whose report may ride on data that leaves now, if one is wanted.
    pub fn riding(&self, now: Instant) -> Option<PathId> {
        let ripe = |entry: &&Entry| {
            entry.since.is_some() && entry.reported_at.is_none_or(|at| now - at >= Self::RIDING)
        };
        self.entries.iter().filter(ripe).min_by_key(|entry| entry.since).map(|entry| entry.path)
    }

    /// The path whose report nothing could be found to ride on.
    pub fn alone(&self, now: Instant) -> Option<PathId> {
        let due = |entry: &&Entry| Self::due_of(entry).is_some_and(|due| due <= now);
        self.entries.iter().find(due).map(|entry| entry.path)
    }

    /// A report on `path` leaves.
    pub fn on_reported(&mut self, now: Instant, path: PathId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.path == path) {
            entry.since = None;
            entry.bytes = 0;
            entry.reported_at = Some(now);
        }
    }

    /// When [`Self::alone`] has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.iter().filter_map(Self::due_of).min()
    }

    fn due_of(entry: &Entry) -> Option<Instant> {
        let patient = entry.since? + Self::PATIENCE;
        let pause = if entry.bytes >= Self::ALONE_BYTES { Self::ALONE_FAST } else { Self::ALONE };
        Some(entry.reported_at.map_or(patient, |at| patient.max(at + pause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    const PATH: PathId = PathId(1);

    #[test]
    fn a_report_rides_when_it_can_and_goes_alone_when_it_must() {
        let mut arrivals = Arrivals::default();
        assert_eq!((arrivals.riding(at(0)), arrivals.poll_timeout()), (None, None));
        arrivals.on_data(at(0), PATH, 100);
        assert_eq!(arrivals.riding(at(0)), Some(PATH));
        assert_eq!(arrivals.alone(at(11)), None);
        assert_eq!(arrivals.alone(at(12)), Some(PATH));
        assert_eq!(arrivals.age(at(12), PATH), Duration::from_millis(12));
        arrivals.on_reported(at(12), PATH);
        assert_eq!(arrivals.riding(at(12)), None, "there is nothing new");
        arrivals.on_data(at(13), PATH, 100);
        assert_eq!(arrivals.riding(at(16)), None);
        assert_eq!(arrivals.riding(at(17)), Some(PATH));
        assert_eq!(arrivals.poll_timeout(), Some(at(112)));
    }

    /// Stand-alone reports are at most ten a second or a hundredth of the data.
    #[test]
    fn reports_alone_are_bounded() {
        for (len, pause_us) in [(100, 5_000), (1_400, 5_000), (1_400, 100), (60, 100)] {
            let mut arrivals = Arrivals::default();
            let (mut reports, mut data) = (0u64, 0u64);
            for step in 0..(10_000_000 / pause_us) {
                let now = Instant::from_micros(step * pause_us);
                arrivals.on_data(now, PATH, len);
                data += len as u64;
                if let Some(path) = arrivals.alone(now) {
                    arrivals.on_reported(now, path);
                    reports += 1;
                }
            }
            let limit = (data / 100 / 87).max(101);
            assert!(reports <= limit, "{len} bytes every {pause_us} us: {reports} of {limit}");
            assert!(reports >= 90, "{reports}");
        }
    }

    #[test]
    fn the_path_that_was_silent_longest_gives_way() {
        let mut arrivals = Arrivals::default();
        for path in 0..100 {
            arrivals.on_data(at(path), PathId(path as u16), 100);
        }
        assert_eq!(arrivals.entries.len(), Arrivals::PATHS);
        assert_eq!(arrivals.riding(at(100)), Some(PathId(96)));
    }
}
