//! What could be used to reach a peer, and what it costs, before any preference for the present.

use super::Router;
use crate::id::PeerIndex;
use crate::metric::{LinkReport, Liveness, Metric};
use crate::path::{LinkId, Path};
use crate::routing::cost::{packets_per_second, preference, weighted};
use crate::routing::explain::{Candidate, Standing};
use crate::time::Instant;

/// A relay that has so much left has as good as no limit. What others have is weighed against no more.
const PLENTY_KBIT: u32 = 1_000_000;

/// The direct link to a peer and what it is like, if there is one.
pub(super) type Hop = Option<(LinkId, LinkReport)>;

impl Router {
    pub(super) fn gather_direct(&self, index: usize, candidates: &mut Vec<Candidate>) {
        let links = self.peers[index].links.iter();
        candidates.extend(links.map(|(id, ours)| self.direct(index, *id, *ours)));
    }

    fn direct(&self, index: usize, id: LinkId, ours: LinkReport) -> Candidate {
        let report = self.with_other_end(index, ours);
        let standing = match report.state {
            Liveness::Up => Standing::Eligible,
            Liveness::Suspect => Standing::StayOnly,
            Liveness::Down => Standing::Down,
        };
        candidate(Path::Direct(id), standing, report, false)
    }

    /// One path, as it is gathered.
    pub(super) fn gather_one(&self, index: usize, path: Path) -> Option<Candidate> {
        match path {
            Path::Direct(id) => Some(self.direct(index, id, self.peers[index].link(id)?)),
            Path::Via(relay) if relay.usize() < self.peers.len() => {
                let measured = self.peers[index].relayed.iter().find(|m| m.0 == relay);
                let measured = measured.map(|measured| measured.1.0);
                Some(self.through(index, relay, self.hop(relay.usize()), measured))
            }
            Path::Via(_) => None,
        }
    }

    /// Our report on a direct link, time and loss at least as bad as the peer says. With several
    /// links we cannot tell which of them the peer speaks of.
    fn with_other_end(&self, index: usize, ours: LinkReport) -> LinkReport {
        match self.peers[index].links.len() {
            1 => ours.measured_worse(self.database.report_on_us(PeerIndex(index as u16))),
            _ => ours,
        }
    }

    /// The direct link to use towards each peer, with what both ends say of it: the first hops.
    pub(super) fn hops(&self) -> impl Iterator<Item = Hop> {
        (0..self.peers.len()).map(|index| self.hop(index))
    }

    pub(super) fn hop(&self, index: usize) -> Hop {
        let (link, report) = self.peers[index].hop_link()?;
        Some((link, self.with_other_end(index, report)))
    }

    /// `hops` as [`Self::hops`] gives them.
    pub(super) fn gather_relayed(
        &self,
        index: usize,
        hops: &[Hop],
        candidates: &mut Vec<Candidate>,
    ) {
        let state = &self.peers[index];
        // Both are in the order of the relays.
        let mut all_measured = state.relayed.iter().peekable();
        for (via, hop) in (0..).map(PeerIndex).zip(hops) {
            let measured = all_measured.next_if(|measured| measured.0 == via);
            if via.usize() != index {
                let measured = measured.map(|measured| measured.1.0);
                candidates.push(self.through(index, via, *hop, measured));
            }
        }
    }

    pub(super) fn through(
        &self,
        index: usize,
        via: PeerIndex,
        hop: Hop,
        measured: Option<LinkReport>,
    ) -> Candidate {
        let (standing, report) = self.relayed(index, via, hop, measured);
        let [to, relay] = [index, via.usize()].map(|peer| self.peers[peer].info.id.0);
        let preference = preference(self.seed, to, relay);
        let found = candidate(Path::Via(via), standing, report, measured.is_some());
        Candidate { preference, ..found }
    }

    /// What the two links of the path to `peer` through `relay` are said to be like.
    pub fn promised(&self, peer: PeerIndex, relay: PeerIndex) -> Option<LinkReport> {
        let (_, hop) = (relay.usize() < self.peers.len()).then(|| self.hop(relay.usize()))??;
        Some(hop.then(self.database.link(relay, peer)?))
    }

    /// Standing and report of the path to `index` through a relay, given the first hop to that.
    fn relayed(
        &self,
        index: usize,
        via: PeerIndex,
        hop: Hop,
        measured: Option<LinkReport>,
    ) -> (Standing, LinkReport) {
        let unknown = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
        let to = PeerIndex(index as u16);
        if !self.peers[via.usize()].info.may_relay {
            return (Standing::MayNotRelay, unknown);
        }
        let hop = hop.map(|hop| hop.1).filter(|hop| hop.state != Liveness::Down);
        let Some(hop) = hop else { return (Standing::RelayUnreachable, unknown) };
        let advertised = self.database.link(via, to);
        let sum = advertised.map(|advertised| hop.then(advertised));
        // A path in use is judged end to end, whatever anyone advertises; only our own first hop
        // may tell of trouble earlier. One that is not in use has a short history of its own, at first
        // a single round trip, which must not look better than the long one of its hops.
        let measured = measured.map(|m| {
            let promised = sum.filter(|_| !self.is_in_use(index, Path::Via(via)));
            let works = promised.filter(|promised| promised.state != Liveness::Down);
            LinkReport {
                latency_us: works.map_or(m.latency_us, |said| said.latency_us.max(m.latency_us)),
                state: m.state.max(hop.state),
                loss: promised.map_or(m.loss, |promised| promised.loss.max(m.loss)),
                ..m
            }
        });
        let Some(report) = measured.or(sum) else { return (Standing::NotAdvertised, unknown) };
        let standing = match (report.state, advertised.map(|a| a.state)) {
            (Liveness::Down, Some(Liveness::Down)) => Standing::AdvertisedDown,
            (Liveness::Down, _) => Standing::Down,
            (Liveness::Suspect, _) => Standing::StayOnly,
            (Liveness::Up, Some(Liveness::Up)) => match self.database.spare_relay_kbit(via) {
                0 => Standing::RelayFull,
                spare if spare <= self.peers[index].need_kbit => Standing::RelayShort,
                _ => Standing::Eligible,
            },
            (Liveness::Up, _) => Standing::StayOnly,
        };
        (standing, report)
    }

    /// Some demand goes by this path.
    fn is_in_use(&self, index: usize, path: Path) -> bool {
        let state = &self.peers[index];
        state.selections.iter().any(|selection| selection.chosen == Some(path))
            || state.spreads.iter().any(|spread| spread.contains(path))
    }

    /// Costs, ranks and back-offs under one metric. Returns the metric that was used: without any
    /// value from an application, latency decides. `most` is what [`Self::most_spare`] says of all
    /// candidates.
    pub(super) fn weigh(
        &self,
        now: Instant,
        index: usize,
        metric: Metric,
        most: u32,
        candidates: &mut [Candidate],
    ) -> Metric {
        let state = &self.peers[index];
        let metric = self.effective(index, metric, candidates);
        let mut least = f64::INFINITY;
        for candidate in &mut *candidates {
            candidate.cost = match metric {
                Metric::App => candidate.app_value.unwrap_or(f64::INFINITY),
                Metric::Latency | Metric::Loss | Metric::Throughput => {
                    self.config.cost.cost(metric, &candidate.report)
                }
            };
            candidate.doubt = match metric {
                Metric::Latency => {
                    self.config.hysteresis.jitter * f64::from(candidate.report.jitter_us)
                }
                Metric::Loss | Metric::Throughput | Metric::App => 0.0,
            };
            if !self.capacities.is_empty() {
                candidate.capacity_kbit = self.capacity(PeerIndex(index as u16), candidate.path);
                if let Some(kbit) = candidate.capacity_kbit
                    && metric == Metric::Throughput
                {
                    candidate.cost = candidate.cost.max(1.0 / packets_per_second(kbit));
                }
            }
            if candidate.standing == Standing::Eligible {
                least = least.min(candidate.cost);
            }
        }
        let near = if least.is_finite() { self.margin(metric).near(least) } else { 0.0 };
        // Who has no limit must not make all that have one look full.
        let spare = |kbit: u32| f64::from(kbit.min(PLENTY_KBIT));
        let most = spare(most.max(1));
        for candidate in &mut *candidates {
            // Nobody looks at the rank of those that are never chosen.
            let relay = candidate.path.relay().filter(|_| may_ever_serve(candidate.standing));
            let order = relay.map_or(0.0, |relay| {
                let share = spare(self.database.spare_relay_kbit(relay)) / most;
                weighted(candidate.preference, share)
            });
            candidate.rank = candidate.cost + near * order;
        }
        if !state.flaps.is_empty() {
            for candidate in candidates {
                let path = candidate.path;
                candidate.barred_until = state.flaps.barred_until(now, &self.config.flap, path);
                candidate.failures = state.flaps.failures(path);
            }
        }
        metric
    }

    /// This node's own order of relays: a number in `0.0..1.0`.
    pub(super) fn order(&self, index: usize, path: Path) -> f64 {
        let id = |place: usize| self.peers[place].info.id.0;
        path.relay().map_or(0.0, |relay| preference(self.seed, id(index), id(relay.usize())))
    }

    /// What the relay can bear that can bear most of those that may be chosen, in kbit/s.
    pub(super) fn most_spare(&self, candidates: &[Candidate]) -> u32 {
        let eligible = candidates.iter().filter(|c| c.standing == Standing::Eligible);
        let spare =
            eligible.filter_map(|c| c.path.relay()).map(|r| self.database.spare_relay_kbit(r));
        spare.max().unwrap_or(0)
    }

    /// Notes the values of applications, if they are asked for and any usable path has one.
    fn effective(&self, index: usize, metric: Metric, candidates: &mut [Candidate]) -> Metric {
        if metric != Metric::App {
            return metric;
        }
        let values = &self.peers[index].app_values;
        let mut any = false;
        for candidate in candidates {
            let value = values.iter().find(|entry| entry.0 == candidate.path);
            candidate.app_value = value.map(|entry| entry.1.0);
            any |= candidate.app_value.is_some() && candidate.standing == Standing::Eligible;
        }
        if any { Metric::App } else { Metric::Latency }
    }
}

const fn candidate(
    path: Path,
    standing: Standing,
    report: LinkReport,
    measured: bool,
) -> Candidate {
    Candidate {
        path,
        standing,
        report,
        measured,
        app_value: None,
        capacity_kbit: None,
        preference: 0.0,
        cost: 0.0,
        rank: 0.0,
        doubt: 0.0,
        barred_until: None,
        failures: 0,
    }
}

/// True for what is chosen at least when there is nothing better.
const fn may_ever_serve(standing: Standing) -> bool {
    !matches!(
        standing,
        Standing::MayNotRelay
            | Standing::RelayUnreachable
            | Standing::NotAdvertised
            | Standing::Forbidden
    )
}

/// What a candidate's state says about flapping: one that is not usable has failed.
pub(super) const fn observed(candidate: &Candidate) -> Liveness {
    match candidate.standing {
        Standing::Eligible => Liveness::Up,
        Standing::StayOnly
        | Standing::MayNotRelay
        | Standing::RelayFull
        | Standing::RelayShort
        | Standing::Forbidden => Liveness::Suspect,
        Standing::Down
        | Standing::RelayUnreachable
        | Standing::NotAdvertised
        | Standing::AdvertisedDown => Liveness::Down,
    }
}

/// True when two paths use the same uplink of ours or, both being direct, of the peer.
pub(super) fn share(hops: &[Hop], a: Path, b: Path) -> bool {
    let first_hop = |path| match path {
        Path::Direct(link) => Some(link.local),
        Path::Via(relay) => hops.get(relay.usize())?.map(|hop| hop.0.local),
    };
    shares_uplink(a, b) || first_hop(a) == first_hop(b)
}

pub(super) fn shares_uplink(a: Path, b: Path) -> bool {
    match (a, b) {
        (Path::Direct(a), Path::Direct(b)) => a.local == b.local || a.remote == b.remote,
        _ => false,
    }
}
