//! What paths were like, as a table: input of a scenario, output of `rongate record`.
//!
//! CSV with the header `time_s,from,to,loss,delay_ms`. A row says that from this time on (seconds
//! since the beginning) datagrams from one node to another are lost with this fraction (1 in an
//! outage) and take so many milliseconds, one way; an empty delay leaves it as it was. It holds
//! until the next row of the same two nodes in this direction. Lines that begin with `#` are
//! comments.

use std::fmt::Write as _;
use std::time::Duration;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Since the beginning.
    pub at: Duration,
    /// Positions in [`Trace::names`].
    pub from: usize,
    /// The same.
    pub to: usize,
    /// Fraction of datagrams that vanish.
    pub loss: f64,
    /// One way; `None` leaves it as it was.
    pub delay: Option<Duration>,
}

/// A trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The nodes, in the order in which they are first named.
    pub names: Vec<String>,
    /// In the order of time.
    pub rows: Vec<Row>,
}

impl Trace {
    /// The first line.
    pub const HEADER: &str = "time_s,from,to,loss,delay_ms";

    /// Reads a trace; an error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut trace = Self::default();
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some((_, line)) if line == Self::HEADER => {}
            Some((number, _)) => return Err(format!("line {number}: not {}", Self::HEADER)),
            None => return Err("it is empty".to_owned()),
        }
        for (number, line) in lines {
            let row = trace.row(line).map_err(|what| format!("line {number}: {what}"))?;
            trace.rows.push(row);
        }
        trace.rows.sort_by_key(|row| row.at);
        Ok(trace)
    }

    fn row(&mut self, line: &str) -> Result<Row, String> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [at, from, to, loss, delay] = fields[..] else {
            return Err(format!("{} fields instead of 5", fields.len()));
        };
        let number = |text: &str, most: f64| {
            let value = text.parse::<f64>().ok().filter(|v| (0.0..=most).contains(v));
            value.ok_or_else(|| format!("not a number from 0 to {most}: {text}"))
        };
        let at = Duration::from_secs_f64(number(at, 1e9)?);
        let loss = number(loss, 1.0)?;
        let delay = match delay {
            "" => None,
            text => Some(Duration::from_secs_f64(number(text, 60_000.0)? / 1e3)),
        };
        if from == to {
            return Err(format!("from {from} to itself"));
        }
        let (from, to) = (self.name(from), self.name(to));
        Ok(Row { at, from, to, loss, delay })
    }

    /// The position of a name.
    pub fn name(&mut self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// A row as a line.
    pub fn line(&self, row: &Row) -> String {
        let name = |index: usize| self.names.get(index).map_or("?", |name| name);
        let mut line = format!(
            "{:.3},{},{},{:.5},",
            row.at.as_secs_f64(),
            name(row.from),
            name(row.to),
            row.loss
        );
        if let Some(delay) = row.delay {
            let _ = write!(line, "{:.3}", delay.as_secs_f64() * 1e3);
        }
        line
    }
}
