//! What the viewer reads: headings, lines, a strip of pings that grows, and the table at the end.
//!
//! Text only ever grows at its end, so a terminal, a pipe and a log file show the same; colours
//! are for terminals.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use netns_tests::lab::clock;

/// Where the demonstration writes.
#[derive(Debug)]
pub(crate) struct Screen {
    start: Instant,
    color: bool,
    unicode: bool,
    act: u8,
    claims: Vec<Claim>,
}

/// Something the demonstration says of itself, with its figure, and whether it is so.
#[derive(Debug)]
struct Claim {
    what: String,
    figure: String,
    holds: bool,
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Like everything else.
    Plain,
    /// As it should be.
    Good,
    /// An outage, or something that is not as it should be.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Screen {
    /// Colours for a terminal, unless `NO_COLOR` is set; symbols beyond ASCII where the locale has
    /// them.
    pub(crate) fn new() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = locale.map(|name| name.to_ascii_lowercase().replace('-', ""));
        Self {
            start: clock::now(),
            color: io::stdout().is_terminal() && set("NO_COLOR").is_none(),
            unicode: utf8.is_some_and(|name| name.contains("utf8")),
            act: 0,
            claims: Vec::new(),
        }
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Text without an end of line, at once on the screen. A viewer who has gone away is no reason
    /// to stop.
    pub(crate) fn put(&self, tone: Tone, text: &str) {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "\x1b[32m",
            Tone::Bad => "\x1b[31m",
            Tone::Dim => "\x1b[2m",
            Tone::Bold => "\x1b[1m",
        };
        let mut text = text.to_owned();
        if !self.unicode {
            text = text.chars().map(ascii).collect();
        }
        let mut out = io::stdout().lock();
        let _ = if self.color && !code.is_empty() {
            write!(out, "{code}{text}\x1b[0m")
        } else {
            write!(out, "{text}")
        };
        let _ = out.flush();
    }

    /// A numbered heading.
    pub(crate) fn act(&mut self, title: &str) {
        self.act += 1;
        self.put(Tone::Bold, &format!("\n{}. {title}\n", self.act));
    }

    /// An indented line.
    pub(crate) fn line(&self, tone: Tone, text: &str) {
        for line in text.lines() {
            self.put(tone, &format!("   {line}\n"));
        }
    }

    /// A line of two columns: what was done, and what came of it.
    pub(crate) fn result(&self, what: &str, came: &str) {
        self.put(Tone::Plain, &format!("   {}  ", pad(what, 38)));
        self.put(Tone::Bold, &format!("{came}\n"));
    }

    /// A claim for the table at the end; one that does not hold is shown at once as well.
    pub(crate) fn claim(&mut self, holds: bool, what: &str, figure: &str) {
        if !holds {
            self.line(Tone::Bad, &format!("NOT as claimed: {what}: {figure}"));
        }
        self.claims.push(Claim { what: what.into(), figure: figure.into(), holds });
    }

    /// The table of all claims; whether every one of them holds.
    pub(crate) fn summary(&self) -> bool {
        self.put(Tone::Bold, &format!("\nSummary, after {:.0} s\n", self.elapsed().as_secs_f64()));
        for claim in &self.claims {
            self.put(Tone::Plain, "   ");
            match claim.holds {
                true => self.put(Tone::Good, "ok  "),
                false => self.put(Tone::Bad, "NO  "),
            }
            self.put(Tone::Plain, &format!("{}  {}\n", pad(&claim.what, 41), claim.figure));
        }
        self.claims.iter().all(|claim| claim.holds)
    }
}

/// `text` with blanks up to a width in characters.
pub(crate) fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

/// The nearest to a symbol that every terminal has.
fn ascii(symbol: char) -> char {
    match symbol {
        '·' | '•' => '.',
        '×' => 'x',
        '═' => '=',
        '─' | '┴' => '-',
        '│' => '|',
        '→' => '>',
        other => other,
    }
}
