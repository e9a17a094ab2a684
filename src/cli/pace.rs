//! How often a command looks at a gateway.

use std::time::Duration;

use clap::Args;

use crate::config::parse_duration;

/// More often than this costs the gateway more than it tells the operator.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The options of commands that look again and again.
#[derive(Args, Debug)]
pub(super) struct Pace {
    /// Time between two looks, 100ms or more
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(super) interval: Duration,
    /// Look so often, then end
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Pace {
    /// Whether there is another look after so many.
    pub(super) fn goes_on(&self, looks: u64) -> bool {
        self.count.is_none_or(|count| looks < count)
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration < INTERVAL_MIN { Err("use 100ms or more".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_not_too_many_and_end_when_told_to() {
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        assert!(interval("50ms").is_err() && interval("1").is_err());
        let of = |count| Pace { interval: INTERVAL_MIN, count };
        assert!(of(None).goes_on(u64::MAX) && of(Some(2)).goes_on(1));
        assert!(!of(Some(2)).goes_on(2) && !of(Some(0)).goes_on(0));
    }
}
