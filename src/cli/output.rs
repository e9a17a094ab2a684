//! Writing results to stdout, and figures as people read them.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

use super::{Failure, Outcome};

/// Writes `text` to stdout.
pub(super) fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::ClosedPipe),
        result => Ok(result.context("cannot write to stdout")?),
    }
}

/// Writes a JSON document to stdout.
pub(super) fn write_json(value: &serde_json::Value) -> Outcome {
    write(&format!("{value:#}\n"))
}

/// A figure that may be unknown, with `digits` behind the point.
pub(super) fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A fraction as percentage.
pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

/// Seconds as people say them: the two biggest units.
pub(super) fn span(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    // A float that is too big or no number becomes a bound, which is as good as any.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", whole % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A number with its decimal multiple: 1234567 is `1.23M`.
pub(super) fn count(value: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if value < 10_000 {
        return value.to_string();
    }
    let value = value as f64;
    let (scale, unit) = UNITS.into_iter().find(|(scale, _)| value >= *scale).unwrap_or((1.0, ""));
    let scaled = value / scale;
    let digits = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
    format!("{scaled:.digits$}{unit}")
}

/// The relay of a path.
pub(super) fn via(relay: Option<&str>) -> &str {
    relay.unwrap_or("direct")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(figure(None, 1), "-");
        assert_eq!(figure(Some(12.345), 1), "12.3");
        assert_eq!(percent(Some(0.0125)), "1.2%");
        assert_eq!(
            [0, 9_999, 10_000, 1_234_567, 99_950_000_000].map(count),
            ["0", "9999", "10.0k", "1.23M", "100.0G"].map(str::to_owned)
        );
        let spans = [0.25, 59.0, 61.0, 3_725.0, 90_000.0].map(|s| span(Some(s)));
        assert_eq!(spans, ["0.2s", "59s", "1m01s", "1h02m", "1d01h"].map(str::to_owned));
    }
}
