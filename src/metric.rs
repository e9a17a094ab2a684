//! What a class of flows asks of a path.

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
}

impl Metric {
    /// Every metric, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Latency, Self::Loss, Self::Throughput];

    /// The name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Loss => "loss",
            Self::Throughput => "throughput",
        }
    }

    /// For indexing an array with an entry for each metric.
    pub const fn usize(self) -> usize {
        self as usize
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
            assert_eq!(Metric::ALL[metric.usize()], metric);
        }
        assert_eq!("jitter".parse::<Metric>(), Err(ParseMetricError));
    }
}
