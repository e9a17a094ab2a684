//! What arrives of our traffic, as its receivers report it; and our reports to those who send.

use std::time::Duration;

use super::Node;
use super::copies::COPIES_PER_SUSPICION;
use super::peer::PathState;
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::metric::Liveness;
use crate::path::{Path, PathId};
use crate::time::Instant;
use crate::wire::{Control, ControlWriter, Report};

/// A turn that comes this much after a report was due: what is due may be in our own queues still.
const LATE: Duration = Duration::from_millis(20);
/// A report that waited so long for more to come tells of the past: half of the longest pause.
const STALE: Duration = Duration::from_millis(50);
/// Of the age in reports.
const AGE_UNIT: Duration = Duration::from_micros(100);

impl Node {
    /// The report that may ride on data to a peer now. It is owed until [`Self::note_reported`].
    pub(super) fn riding_report(&self, now: Instant, peer: PeerIndex) -> Option<Report> {
        let path = self.peers[peer.usize()].arrivals.riding(now)?;
        Some(self.make_report(now, peer, path))
    }

    /// A report leaves.
    pub(super) fn note_reported(&mut self, now: Instant, peer: PeerIndex, report: &Report) {
        self.peers[peer.usize()].arrivals.on_reported(now, report.path);
    }

    fn make_report(&self, now: Instant, peer: PeerIndex, path: PathId) -> Report {
        let stats = self.tunnels.receive_stats(peer, path);
        let age =
            self.peers[peer.usize()].arrivals.age(now, path).as_micros() / AGE_UNIT.as_micros();
        let age = u16::try_from(age).unwrap_or(u16::MAX);
        let (expected, received) = (stats.expected as u32, stats.received as u32);
        Report { path, age, expected, received }
    }

    /// Sends the reports that found nothing to ride on.
    pub(super) fn report_alone(&mut self, now: Instant, peer: PeerIndex, out: &mut Output) {
        while let Some(path) = self.peers[peer.usize()].arrivals.alone(now) {
            let report = self.make_report(now, peer, path);
            self.note_reported(now, peer, &report);
            let report = Control::Report(report);
            let mut body = [0; 16];
            let mut writer = ControlWriter::new(&mut body);
            if writer.push(&report) {
                let len = writer.len();
                self.send_body(now, peer, &body[..len], out);
            }
        }
    }

    /// A peer says what arrived of our traffic on one of our paths to it. The report came `by` a path.
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        by: Option<Path>,
        report: &Report,
    ) {
        let entry = &mut self.peers[peer.usize()];
        let round_trip = |state: &PathState| state.prober.estimator().rtt();
        let way_back = by.and_then(|path| entry.state(path)).and_then(round_trip);
        let state = entry.paths.iter_mut().find(|state| PathId::from(state.path) == report.path);
        let Some(state) = state else { return };
        if state.prober.state() == Liveness::Down {
            // What an outage swallowed is no loss.
            state.reported.restart();
            return;
        }
        let reported = state.reported.on_report(now, report.expected, report.received);
        let Some(reported) = reported else { return };
        let lossy = state.prober.estimator().is_lossy();
        state.prober.on_traffic_report(now, &reported);
        if !lossy && state.prober.estimator().is_lossy() {
            state.mtu.doubt(now);
            self.router_stale = true;
        }
        let Some(rtt) = state.prober.estimator().rtt().filter(|_| reported.grew) else { return };
        let suspect = state.prober.state() == Liveness::Suspect;
        let mut covered = now.before(rtt);
        if suspect {
            // What arrived before a failure may be reported long after it.
            let age = AGE_UNIT * report.age.into();
            if by == Some(state.path) {
                if age > STALE {
                    return;
                }
                covered = now.before(rtt + age);
            } else {
                covered = now.before(rtt.max(way_back.unwrap_or_default()) + age);
                if way_back.is_none() || covered < state.prober.since() {
                    return;
                }
            }
        }
        state.outstanding.on_growth(now, rtt, covered);
        if state.prober.on_progress(now, covered) == Some(Liveness::Up) {
            state.outstanding.be_patient();
            self.router_stale = true;
        }
    }

    /// Judges the silence on one path. Only what is due since a turn that was in time counts.
    pub(super) fn judge_silence(&mut self, now: Instant, peer: PeerIndex, at: usize) {
        let state = &mut self.peers[peer.usize()].paths[at];
        if let Some(proven) = state.prober.proven_at() {
            state.outstanding.cover(proven);
        }
        if state.prober.state() != Liveness::Up {
            return;
        }
        let rtt = state.prober.estimator().rtt();
        let due = rtt.and_then(|rtt| state.outstanding.due(rtt)).filter(|due| *due <= now);
        let (Some(due), Some(oldest)) = (due, state.outstanding.oldest()) else {
            state.excused_until = None;
            return;
        };
        if now - due > LATE {
            let until = *state.excused_until.get_or_insert(now + LATE);
            if now < until {
                return;
            }
        }
        state.excused_until = None;
        state.prober.on_silence(now, oldest);
        state.copy_credit = COPIES_PER_SUSPICION;
        state.mtu.doubt(now);
    }

    /// When [`Self::judge_silence`] has something to judge.
    pub(super) fn silence_due(state: &PathState) -> Option<Instant> {
        if state.prober.state() != Liveness::Up {
            return None;
        }
        state.outstanding.oldest()?;
        let due = state.outstanding.due(state.prober.estimator().rtt()?)?;
        Some(state.excused_until.map_or(due, |until| due.max(until)))
    }
}
