//! Outage and quality traces in CSV: one change of a link per line.

use anyhow::{Context as _, Result, bail, ensure};

use super::scenario::{Event, settings};
use super::units::Time;

/// Most lines of a trace.
const LINES_MAX: usize = 1_000_000;

/// Reads a trace; see [`super::scenario::Trace`] for the format.
pub(crate) fn parse(text: &str, offset: Time) -> Result<Vec<Event>> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, header) = lines.next().context("no line with column names")?;
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    ensure!(columns.starts_with(&["at", "from", "to"]), "the first columns must be at,from,to");
    ensure!(columns.len() > 3, "no column with a link setting, such as `down`");
    let mut events = Vec::new();
    for (number, line) in lines {
        ensure!(events.len() < LINES_MAX, "more than {LINES_MAX} lines");
        let mut event = row(&columns, line).with_context(|| format!("line {number}"))?;
        event.at = Time(event.at.0.saturating_add(offset.0));
        events.push(event);
    }
    Ok(events)
}

fn row(columns: &[&str], line: &str) -> Result<Event> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    ensure!(cells.len() == columns.len(), "{} cells for {} columns", cells.len(), columns.len());
    let [at, from, to, values @ ..] = cells.as_slice() else { bail!("too few cells") };
    let set: Vec<String> = columns[3..]
        .iter()
        .zip(values)
        .filter(|(_, value)| !value.is_empty())
        .map(|(column, value)| format!("{column}: {value}"))
        .collect();
    let set = settings(&format!("{{{}}}", set.join(", ")))?;
    Ok(Event { at: seconds(at)?, from: (*from).into(), to: (*to).into(), both: false, set })
}

/// A time with unit, or a bare number of seconds.
fn seconds(text: &str) -> Result<Time> {
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let text = if bare { format!("{text}s") } else { text.to_owned() };
    text.parse().map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events() {
        let text = "# recorded\nat,from,to,down,delay\n\n1.5,a,b,true,\n 2s , a, b, false, 30ms\n";
        let events = parse(text, Time::from_millis(100)).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].at, Time::from_millis(1600));
        assert_eq!(events[0].set.down, Some(true));
        assert_eq!(events[0].set.delay, None);
        assert_eq!(events[1].set.delay, Some(Time::from_millis(30)));
    }

    #[test]
    fn mistakes_name_their_line() {
        let error = |text: &str| format!("{:#}", parse(text, Time(0)).unwrap_err());
        assert!(error("").contains("column names"));
        assert!(error("time,from,to,down\n").contains("at,from,to"));
        assert!(error("at,from,to,down\n1,a,b\n").contains("line 2: 3 cells"));
        assert!(error("at,from,to,down\n1,a,b,maybe\n").contains("line 2"));
        assert!(error("at,from,to,speed\n1,a,b,3\n").contains("speed"));
    }
}
