//! What paths were like, as a table: input of a scenario, output of `rongate record`.
//!
//! CSV with the header `time_s,from,to,loss,delay_ms`. A row says that from this time on (seconds
//! since the beginning) datagrams from one node to another are lost with this fraction (1 in an
//! outage) and take so many milliseconds, one way; an empty delay leaves it as it was. It holds
//! until the next row of the same two nodes in this direction. Lines that begin with `#` are
//! comments, but one: `# began at 1003622400.000` says what time of the calendar zero is, in seconds
//! since 1970. Where the header comes again a further part begins, with a zero of its own; all parts
//! are brought to the earliest one. A part that does not say when it began has that zero too.

use std::fmt::Write as _;
use std::time::Duration;

/// How the line of [`Trace::began`] begins.
const BEGAN: &str = "# began at";

/// What one recording says, among others.
struct Part {
    /// Its first row.
    first: usize,
    /// Its zero, since 1970.
    began: Option<Duration>,
}

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

    /// The line that says what time of the calendar zero is.
    pub fn began(at: Duration) -> String {
        format!("{BEGAN} {:.3}", at.as_secs_f64())
    }

    /// Reads a trace; an error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut trace = Self::default();
        let mut parts: Vec<Part> = Vec::new();
        // What is said before a header is said of the part that it begins.
        let mut began = None;
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            let told = |what| format!("line {number}: {what}");
            if let Some(at) = line.strip_prefix(BEGAN) {
                let at = Duration::from_secs_f64(number_to(at.trim(), 1e11).map_err(told)?);
                match parts.last_mut().filter(|part| part.first == trace.rows.len()) {
                    Some(part) => part.began = Some(at),
                    None => began = Some(at),
                }
            } else if line == Self::HEADER {
                parts.push(Part { first: trace.rows.len(), began: began.take() });
            } else if !line.is_empty() && !line.starts_with('#') {
                if parts.is_empty() {
                    return Err(told(format!("not {}", Self::HEADER)));
                }
                let row = trace.row(line).map_err(told)?;
                trace.rows.push(row);
            }
        }
        if parts.is_empty() {
            return Err("it is empty".to_owned());
        }
        trace.align(&parts);
        trace.rows.sort_by_key(|row| row.at);
        Ok(trace)
    }

    /// Gives all parts the earliest zero.
    fn align(&mut self, parts: &[Part]) {
        let Some(zero) = parts.iter().filter_map(|part| part.began).min() else { return };
        let ends = parts.iter().skip(1).map(|part| part.first).chain([self.rows.len()]);
        for (part, end) in parts.iter().zip(ends) {
            let later = part.began.map_or(Duration::ZERO, |began| began - zero);
            for row in &mut self.rows[part.first..end] {
                row.at += later;
            }
        }
    }

    fn row(&mut self, line: &str) -> Result<Row, String> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [at, from, to, loss, delay] = fields[..] else {
            return Err(format!("{} fields instead of 5", fields.len()));
        };
        let at = Duration::from_secs_f64(number_to(at, 1e9)?);
        let loss = number_to(loss, 1.0)?;
        let delay = match delay {
            "" => None,
            text => Some(Duration::from_secs_f64(number_to(text, 60_000.0)? / 1e3)),
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

fn number_to(text: &str, most: f64) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=most).contains(value));
    value.ok_or_else(|| format!("not a number from 0 to {most}: {text}"))
}
