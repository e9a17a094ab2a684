//! Tables and plots of a run.

use std::fmt::Write as _;

use super::report::{PairReport, Report, SchemeReport};
use super::{TcpReport, plot, tcp};

/// Points of a cumulative distribution: values, and the fraction up to each.
type Points = Vec<(f64, f64)>;

impl Report {
    /// Tables and plots: names and contents of files.
    pub fn files(&self) -> Vec<(String, String)> {
        let losses = self.by_scheme(|scheme| (1.0 - scheme.availability) * 100.0);
        let cdf = |title, points: fn(&SchemeReport) -> Points, axis| {
            plot::cdf(title, &self.by_scheme(points), axis)
        };
        let mut files = vec![
            ("gaps.csv", self.gaps_csv()),
            ("latency.csv", self.latency_csv()),
            ("availability.csv", self.availability_csv()),
            ("loss.svg", plot::bars("packets lost, per cent", &losses)),
            (
                "availability.svg",
                plot::cdf(
                    "availability of a pair, per cent of its packets; fraction of all pairs up to it",
                    &self.availabilities(),
                    plot::Axis::Linear,
                ),
            ),
            (
                "gaps.svg",
                cdf(
                    "length of gaps, seconds",
                    |scheme| steps(&scheme.gap_list),
                    plot::Axis::Logarithmic,
                ),
            ),
            (
                "latency.svg",
                cdf(
                    "one-way latency, ms",
                    |scheme| scheme.latency_cdf.clone(),
                    plot::Axis::Logarithmic,
                ),
            ),
        ];
        if !self.tcp.is_empty() {
            let stalled = |flow: &TcpReport| {
                (format!("{} n{} n{}", flow.scheme, flow.from, flow.to), flow.stalled_s)
            };
            let stalled: Vec<_> = self.tcp.iter().map(stalled).collect();
            files.push(("tcp.csv", tcp::csv(&self.tcp)));
            files.push(("tcp.svg", plot::bars("TCP: seconds stalled", &stalled)));
        }
        if self.timeline.span().0 > 0 {
            files.push(("paths.svg", plot::timeline(&self.timeline)));
        }
        files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect()
    }

    fn by_scheme<T>(&self, value: impl Fn(&SchemeReport) -> T) -> Vec<(String, T)> {
        self.schemes.iter().map(|scheme| (scheme.name.clone(), value(scheme))).collect()
    }

    /// By scheme, named with its mean.
    fn availabilities(&self) -> Vec<(String, Points)> {
        let of = |scheme: &SchemeReport| {
            let percent = |pair: &PairReport| pair.availability() * 100.0;
            let mut pairs: Vec<f64> = scheme.pairs.iter().map(percent).collect();
            pairs.sort_by(f64::total_cmp);
            (format!("{} {:.3} %", scheme.name, scheme.availability * 100.0), steps(&pairs))
        };
        self.schemes.iter().map(of).collect()
    }

    fn gaps_csv(&self) -> String {
        let mut text = "scheme,seconds\n".to_owned();
        for scheme in &self.schemes {
            for seconds in &scheme.gap_list {
                let _ = writeln!(text, "{},{seconds}", scheme.name);
            }
        }
        text
    }

    fn latency_csv(&self) -> String {
        let mut text = "scheme,ms,fraction\n".to_owned();
        for scheme in &self.schemes {
            for (ms, fraction) in &scheme.latency_cdf {
                let _ = writeln!(text, "{},{ms:.3},{fraction:.6}", scheme.name);
            }
        }
        text
    }

    fn availability_csv(&self) -> String {
        let mut text = "scheme,from,to,sent,arrived\n".to_owned();
        for scheme in &self.schemes {
            for PairReport { from, to, sent, arrived } in &scheme.pairs {
                let _ = writeln!(text, "{},n{from},n{to},{sent},{arrived}", scheme.name);
            }
        }
        text
    }
}

/// Sorted values as a CDF.
fn steps(sorted: &[f64]) -> Points {
    let total = sorted.len() as f64;
    let mut points = Points::new();
    for (index, &value) in sorted.iter().enumerate() {
        let fraction = (index + 1) as f64 / total;
        match points.last_mut() {
            Some(last) if last.0 == value => last.1 = fraction,
            _ => points.push((value, fraction)),
        }
    }
    points
}
