//! Quantities as people write them: `20ms`, `50mbit`, `64kB`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A span of time in nanoseconds, written with a unit: `500us`, `20ms`, `1.5s`, `2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// `us` microseconds.
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }
}

/// A bit rate in bits per second, written `50mbit`, `1gbit`; `0` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// The bound of a link's queue: by waiting time (`50ms`) or by size (`64kB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// A packet that would wait longer than this before its first bit leaves is dropped.
    Time(Time),
    /// A packet that finds more than this many bytes before it is dropped.
    Bytes(u64),
}

const TIME_UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
const RATE_UNITS: &[(&str, f64)] = &[("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
const SIZE_UNITS: &[(&str, f64)] =
    &[("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("KiB", 1024.0), ("MiB", 1_048_576.0)];

/// Reads a number and one of `units`; a bare `0` needs no unit.
fn quantity(text: &str, units: &[(&str, f64)], example: &str) -> Result<u64, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = units.iter().find(|(name, _)| *name == unit.trim()).map(|(_, scale)| *scale);
    match (number.parse::<f64>(), scale) {
        (Ok(number), Some(scale)) if number * scale < 1e18 => Ok((number * scale).round() as u64),
        _ => Err(format!("`{text}` is not a quantity like `{example}`")),
    }
}

fn written(value: u64, units: &[(&str, f64)]) -> String {
    let exact = |scale: f64| value != 0 && value.is_multiple_of(scale as u64);
    let unit = units.iter().rev().find(|(_, scale)| exact(*scale));
    unit.map_or_else(
        || value.to_string(),
        |(name, scale)| format!("{}{name}", value / *scale as u64),
    )
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        quantity(text, TIME_UNITS, "20ms").map(Self)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        quantity(text, RATE_UNITS, "50mbit").map(Self)
    }
}

impl FromStr for Queue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = quantity(text, TIME_UNITS, "50ms").map(|ns| Self::Time(Time(ns)));
        time.or_else(|_| quantity(text, SIZE_UNITS, "50ms` or `64kB").map(Self::Bytes))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0, TIME_UNITS))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0, RATE_UNITS))
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Bytes(bytes) => f.write_str(&written(*bytes, SIZE_UNITS)),
        }
    }
}

/// Serde through the written form; plain numbers are taken as their digits.
macro_rules! as_text {
    ($type:ty, $expecting:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

as_text!(Time, "a time like 20ms");
as_text!(Rate, "a rate like 50mbit, or 0 for no limit");
as_text!(Queue, "a queue bound like 50ms or 64kB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written_with_units() {
        assert_eq!("20ms".parse(), Ok(Time(20_000_000)));
        assert_eq!("1.5s".parse(), Ok(Time(1_500_000_000)));
        assert_eq!("50mbit".parse(), Ok(Rate(50_000_000)));
        assert_eq!("64kB".parse(), Ok(Queue::Bytes(64_000)));
        assert_eq!("50ms".parse(), Ok(Queue::Time(Time::from_millis(50))));
        for text in ["20ms", "1500us", "3h", "7ns", "0"] {
            assert_eq!(text.parse::<Time>().map(|t| t.to_string()).as_deref(), Ok(text));
        }
        for text in ["0", "9600bit", "100mbit"] {
            assert_eq!(text.parse::<Rate>().map(|t| t.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn missing_or_foreign_units_are_refused() {
        for text in ["20", "20 mbit", "", "ms", "-1ms", "1..2s", "99999999999h"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!("50ms".parse::<Rate>().is_err());
        assert!("50mbit".parse::<Queue>().is_err());
    }
}
