//! What is measured of a link or path, and what a class of flows asks of it.
//!
//! Plain types that `link` produces, advertisements carry, `routing` weighs and flow classes name.

use std::fmt;
use std::str::FromStr;

/// What the best path is best at (RON section 4: latency, loss and throughput optimizers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Lowest smoothed round-trip time, with a penalty for loss.
    #[default]
    Latency,
    /// Fewest lost packets.
    Loss,
    /// Highest score `sqrt(1.5) / (rtt * sqrt(p))`.
    Throughput,
    /// Lowest value that an application gave the path (RON section 3.1); latency where there is
    /// none.
    App,
}

impl Metric {
    /// Every metric that we measure, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Latency, Self::Loss, Self::Throughput];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Loss => "loss",
            Self::Throughput => "throughput",
            Self::App => "app",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric: use `latency`, `loss` or `throughput`")]
pub struct ParseMetricError;

impl FromStr for Metric {
    type Err = ParseMetricError;

    fn from_str(text: &str) -> Result<Self, ParseMetricError> {
        Self::ALL.into_iter().find(|metric| metric.name() == text).ok_or(ParseMetricError)
    }
}

/// A fraction of packets lost, in units of 1/65535: the form in which it is advertised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loss(pub u16);

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self(0);
    /// Everything is lost.
    pub const ALL: Self = Self(u16::MAX);

    /// From a fraction; values outside `0..=1` are clamped, not-a-number counts as 0.
    pub fn from_fraction(fraction: f64) -> Self {
        Self((fraction.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16)
    }

    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    /// The loss over two links in a row, if they lose independently.
    pub fn then(self, next: Self) -> Self {
        if self == Self::NONE || next == Self::NONE {
            return self.max(next);
        }
        Self::from_fraction(1.0 - (1.0 - self.fraction()) * (1.0 - next.fraction()))
    }
}

/// Whether a link or path carries packets, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// Probes are answered.
    Up,
    /// The last answer that was due did not come; it is being found out why.
    Suspect,
    /// An outage, or never heard of yet.
    #[default]
    Down,
}

impl Liveness {
    /// The name in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A summary of one link or path as its sender measures it; exactly what is advertised, so that
/// routing has one kind of input for our own links and those of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Smoothed round-trip time in microseconds.
    pub latency_us: u32,
    /// Smoothed variation of it in microseconds. Not advertised: zero in a peer's report.
    pub jitter_us: u32,
    /// Loss, of the worse direction where the two can be told apart.
    pub loss: Loss,
    /// Liveness.
    pub state: Liveness,
}

impl LinkReport {
    /// The worse of what the two ends of a link say of it, in each respect.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            latency_us: self.latency_us.max(other.latency_us),
            jitter_us: self.jitter_us.max(other.jitter_us),
            loss: self.loss.max(other.loss),
            state: self.state.max(other.state),
        }
    }

    /// This report with time and loss at least as bad as the other end's; the state is left as it is.
    /// Of a link that the other end sees no answers on, the loss counts that it found before.
    #[must_use]
    pub fn measured_worse(self, other_end: Option<Self>) -> Self {
        match other_end {
            Some(other) if other.state == Liveness::Down => {
                Self { loss: self.loss.max(other.loss), ..self }
            }
            Some(other) => Self { state: self.state, ..self.worse(other) },
            None => self,
        }
    }

    /// Two links in a row: times add up, and so do losses; the worse state counts.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            latency_us: self.latency_us.saturating_add(next.latency_us),
            jitter_us: self.jitter_us.saturating_add(next.jitter_us),
            loss: self.loss.then(next.loss),
            state: self.state.max(next.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
            assert_eq!(Metric::ALL[metric as usize], metric);
        }
        assert_eq!("jitter".parse::<Metric>(), Err(ParseMetricError));
    }

    #[test]
    fn loss_is_a_clamped_fraction_and_adds_up_over_links() {
        assert_eq!(Loss::from_fraction(-1.0), Loss::NONE);
        assert_eq!(Loss::from_fraction(7.0), Loss::ALL);
        assert_eq!(Loss::from_fraction(f64::NAN), Loss::NONE);
        let both = Loss::from_fraction(0.1).then(Loss::from_fraction(0.2));
        assert!((both.fraction() - 0.28).abs() < 1e-4);
        assert_eq!(Loss::ALL.then(Loss::NONE), Loss::ALL);
    }

    #[test]
    fn a_row_of_links_is_as_alive_as_its_worst() {
        let up = LinkReport { latency_us: 10, state: Liveness::Up, ..LinkReport::default() };
        let suspect = LinkReport { latency_us: 30, state: Liveness::Suspect, ..up };
        assert_eq!(up.then(suspect).state, Liveness::Suspect);
        assert_eq!(up.then(suspect).latency_us, 40);
        assert_eq!(up.worse(suspect).latency_us, 30);
        assert!(Liveness::Up < Liveness::Suspect && Liveness::Suspect < Liveness::Down);
    }
}
