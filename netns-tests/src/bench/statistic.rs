//! Medians, ratios within rounds, and the values that are looked at.

use super::contender::Mode;
use super::report::{Report, Row};
use super::sample::Sample;

/// A value of a sample, where it was measured.
pub(crate) type Value = fn(&Sample) -> Option<f64>;

/// A column, a plot or a demand is about one of these.
pub(crate) mod value {
    use super::Sample;

    pub(crate) fn tcp1(sample: &Sample) -> Option<f64> {
        sample.tcp1.as_ref().map(|tcp| tcp.mbit)
    }

    pub(crate) fn tcp4(sample: &Sample) -> Option<f64> {
        sample.tcp4.as_ref().map(|tcp| tcp.mbit)
    }

    /// Of all daemons together; nothing where the kernel does it.
    pub(crate) fn cpu1(sample: &Sample) -> Option<f64> {
        total(&sample.tcp1.as_ref()?.cpu_per_gb)
    }

    pub(crate) fn cpu4(sample: &Sample) -> Option<f64> {
        total(&sample.tcp4.as_ref()?.cpu_per_gb)
    }

    /// The relay's share, if there is one, as a ratio to the mean of the two ends.
    pub(crate) fn relay1(sample: &Sample) -> Option<f64> {
        relay(&sample.tcp1.as_ref()?.cpu_per_gb)
    }

    pub(crate) fn relay4(sample: &Sample) -> Option<f64> {
        relay(&sample.tcp4.as_ref()?.cpu_per_gb)
    }

    pub(crate) fn flood(sample: &Sample) -> Option<f64> {
        sample.flood.as_ref().map(|flood| flood.delivered / 1e3)
    }

    pub(crate) fn packet(sample: &Sample) -> Option<f64> {
        total(&sample.steady.as_ref()?.cpu_us)
    }

    pub(crate) fn idle_p50(sample: &Sample) -> Option<f64> {
        sample.rtt_idle.map(|rtt| rtt.p50_us)
    }

    pub(crate) fn idle_p99(sample: &Sample) -> Option<f64> {
        sample.rtt_idle.map(|rtt| rtt.p99_us)
    }

    pub(crate) fn load_p50(sample: &Sample) -> Option<f64> {
        sample.rtt_load.map(|rtt| rtt.p50_us)
    }

    pub(crate) fn load_p99(sample: &Sample) -> Option<f64> {
        sample.rtt_load.map(|rtt| rtt.p99_us)
    }

    pub(crate) fn connects(sample: &Sample) -> Option<f64> {
        sample.connects.map(|connects| connects.rate())
    }

    pub(crate) fn lost_connects(sample: &Sample) -> Option<f64> {
        sample.connects.map(|connects| f64::from(connects.lost))
    }

    /// The larger one of the daemons.
    pub(crate) fn idle_mb(sample: &Sample) -> Option<f64> {
        sample.idle_mb.iter().copied().reduce(f64::max)
    }

    pub(crate) fn resident_mb(sample: &Sample) -> Option<f64> {
        sample.resident_mb.iter().copied().reduce(f64::max)
    }

    /// With as many flows as were asked for; fewer do not count.
    pub(crate) fn table_mb(sample: &Sample) -> Option<f64> {
        let table = sample.table.as_ref().filter(|table| table.flows >= 99_000.0)?;
        table.resident_mb.iter().copied().reduce(f64::max)
    }

    fn total(of_each: &[f64]) -> Option<f64> {
        (!of_each.is_empty()).then(|| of_each.iter().sum())
    }

    fn relay(of_each: &[f64]) -> Option<f64> {
        let &[ingress, relay, egress] = of_each else { return None };
        let end = f64::midpoint(ingress, egress);
        (end > 0.0).then(|| relay / end)
    }
}

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, least, most, count: values.len() })
    }

    pub(crate) fn text(&self, decimals: usize) -> String {
        let Self { median, least, most, count } = *self;
        if count == 1 {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({least:.decimals$} - {most:.decimals$})")
    }
}

impl Report {
    /// The contenders of a mode, as they were first met.
    pub(crate) fn names(&self, mode: Mode) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.mode == mode) {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        names
    }

    pub(crate) fn of<'r>(
        &'r self,
        mode: Mode,
        name: &'r str,
    ) -> impl Iterator<Item = &'r Row> + Clone {
        self.rows.iter().filter(move |row| row.mode == mode && row.name == name)
    }

    pub(crate) fn spread(&self, mode: Mode, name: &str, value: Value) -> Option<Spread> {
        Spread::of(self.of(mode, name).filter_map(|row| value(row.sample.as_ref()?)))
    }

    fn in_round(&self, mode: Mode, name: &str, round: u32, value: Value) -> Option<f64> {
        let row = self.of(mode, name).find(|row| row.round == round)?;
        value(row.sample.as_ref()?)
    }

    /// Joins a contender's value with another one's of the same round.
    pub(crate) fn beside(
        &self,
        mode: Mode,
        [name, base]: [&str; 2],
        value: Value,
        join: fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        let rounds = self.of(mode, name).map(|row| row.round);
        Spread::of(rounds.filter_map(|round| {
            let base = self.in_round(mode, base, round, value)?;
            (base > 0.0).then_some(())?;
            Some(join(self.in_round(mode, name, round, value)?, base))
        }))
    }

    /// A contender's value as a ratio to that of another one in the same round.
    pub(crate) fn ratio(&self, mode: Mode, names: [&str; 2], value: Value) -> Option<Spread> {
        self.beside(mode, names, value, |own, base| own / base)
    }

    /// The peer that is best by the median of a value of which more is better.
    pub(crate) fn best_peer(&self, mode: Mode, value: Value) -> Option<&str> {
        let is_peer = |name: &&str| self.of(mode, name).any(|row| row.kind.is_peer());
        let peers = self.names(mode).into_iter().filter(is_peer);
        let medians = peers.filter_map(|name| Some((self.spread(mode, name, value)?.median, name)));
        medians.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::Kind;
    use crate::bench::report::tests::row;

    #[test]
    fn medians_and_ranges() {
        let text = |values: &[f64], decimals| {
            Spread::of(values.iter().copied()).map(|spread| spread.text(decimals))
        };
        assert_eq!(text(&[3.0, 1.0, 2.0], 1).unwrap(), "2.0 (1.0 - 3.0)");
        assert_eq!(text(&[1.0, 2.0], 1).unwrap(), "1.5 (1.0 - 2.0)");
        assert_eq!(text(&[7.0], 0).unwrap(), "7");
        assert_eq!(text(&[], 0), None);
    }

    #[test]
    fn ratios_are_those_within_a_round_and_failed_samples_have_none() {
        let mut rows = vec![
            row(Kind::Plain, 0, Some(1_000.0)),
            row(Kind::Direct, 0, Some(500.0)),
            row(Kind::Plain, 1, Some(4_000.0)),
            row(Kind::Direct, 1, Some(1_000.0)),
            row(Kind::Plain, 2, Some(1_000.0)),
        ];
        rows.push(row(Kind::Direct, 2, None));
        let report = Report { rows, ..Report::default() };
        let names = [Kind::Direct.name(), Kind::Plain.name()];
        let ratio = report.ratio(Mode::Wire, names, value::tcp1).unwrap();
        assert_eq!((ratio.least, ratio.most, ratio.count), (0.25, 0.5, 2));
    }

    #[test]
    fn the_best_peer_is_none_of_ours() {
        let rows = vec![
            row(Kind::Stock, 0, Some(9_000.0)),
            row(Kind::Tinc, 0, Some(300.0)),
            row(Kind::Nebula, 0, Some(600.0)),
        ];
        let report = Report { rows, ..Report::default() };
        assert_eq!(report.best_peer(Mode::Wire, value::tcp1), Some("nebula"));
        assert_eq!(report.best_peer(Mode::Super, value::tcp1), None);
    }

    #[test]
    fn a_relay_is_compared_with_the_mean_of_the_ends() {
        let mut sample = Sample::default();
        let tcp =
            super::super::sample::Tcp { cpu_per_gb: vec![1.0, 0.5, 3.0], ..Default::default() };
        sample.tcp1 = Some(tcp);
        assert_eq!(value::relay1(&sample), Some(0.25));
        assert_eq!(value::cpu1(&sample), Some(4.5));
        assert_eq!(value::relay4(&sample), None);
    }
}
