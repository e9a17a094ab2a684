//! Values of a scenario as users write them. A fault is told with its key, line and column.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};

use super::{NODES_MAX, Nodes};
use crate::config::{Rate, parse_duration};

/// A value written as text or as a number, whichever `read` takes.
struct Scalar<F> {
    /// What it should be.
    form: &'static str,
    read: F,
}

impl<'de, T, F: Fn(&str) -> Result<T, String>> Visitor<'de> for Scalar<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.form)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de, T, F: Fn(&str) -> Result<T, String>> DeserializeSeed<'de> for Scalar<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let read = |text: &str| parse_duration(text).map_err(|error| error.to_string());
    Scalar { form: "a duration like 5m", read }.deserialize(deserializer)
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Two durations, the smaller one first.
pub(super) fn durations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(Duration, Duration)>, D::Error> {
    let read = |text: &str| {
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let one = |text: &str| parse_duration(text).map_err(|error| error.to_string());
        let both = (one(low)?, one(high)?);
        if both.0 > both.1 {
            return Err("the first is the smaller one, like 5ms..60ms".to_owned());
        }
        Ok(Some(both))
    };
    Scalar { form: "durations like 5ms..60ms", read }.deserialize(deserializer)
}

fn rate_of(text: &str) -> Result<u64, String> {
    let rate = text.parse::<Rate>().map_err(|error| error.to_string())?.bits_per_second();
    if rate == 0 { Err("a rate is more than zero".to_owned()) } else { Ok(rate) }
}

/// Bits per second; the unit must be there.
pub(super) fn some_rate<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let read = |text: &str| rate_of(text).map(Some);
    Scalar { form: "a rate like 2mbit", read }.deserialize(deserializer)
}

/// Bits per second, with a unit or as a number.
pub(super) fn bits_per_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let read = |text: &str| match text.parse() {
        Ok(0) => Err("a rate is more than zero".to_owned()),
        Ok(rate) => Ok(rate),
        Err(_) => rate_of(text),
    };
    Scalar { form: "bits per second, or a rate like 33kbit", read }.deserialize(deserializer)
}

/// How many, or several such numbers.
struct Numbers {
    range: RangeInclusive<u16>,
    form: &'static str,
}

impl Numbers {
    fn one(&self) -> Scalar<impl Fn(&str) -> Result<u16, String>> {
        let read = |text: &str| {
            let number = text.parse().ok().filter(|number| self.range.contains(number));
            number.ok_or_else(|| self.form.to_owned())
        };
        Scalar { form: self.form, read }
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Nodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.form)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Nodes, E> {
        self.one().visit_str(text).map(Nodes::One)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Nodes, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Nodes, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Nodes, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Nodes, A::Error> {
        let mut several = Vec::new();
        while let Some(number) = all.next_element_seed(self.one())? {
            several.push(number);
        }
        if several.is_empty() {
            return Err(A::Error::custom(self.form));
        }
        Ok(Nodes::Several(several))
    }
}

pub(super) fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nodes, D::Error> {
    let form = "a number from 2 to 1000, or a list of such";
    deserializer.deserialize_any(Numbers { range: 2..=NODES_MAX, form })
}

pub(super) fn overlays<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nodes, D::Error> {
    let form = "a number from 1 to 500, or a list of such";
    deserializer.deserialize_any(Numbers { range: 1..=NODES_MAX / 2, form })
}
