//! Changing and reading a running emulation: a line of YAML (or JSON) in, a line of JSON out.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::params::{LinkParams, LinkSettings};
use super::report::Report;
use super::scenario::settings;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Changes links; names as in the scenario.
    Set {
        /// Sending site or `*`.
        from: String,
        /// Receiving site or `*`.
        to: String,
        /// The other direction too.
        #[serde(default)]
        both: bool,
        /// What changes.
        set: Box<LinkSettings>,
    },
    /// Replaces a site's extra `prefixes`.
    Prefixes {
        /// The site.
        site: String,
        /// Destinations sorted to it, beyond its addresses.
        prefixes: Vec<IpNet>,
    },
    /// The counters so far.
    Counters,
    /// The links' parameters.
    Links,
    /// Starts the clock of the events (again, if it runs).
    Start,
    /// Ends the emulation.
    Stop,
}

/// The answer: `ok`, or `error` in words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// To `counters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// To `links`, by `from>to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<BTreeMap<String, LinkParams>>,
}

impl Reply {
    pub(crate) fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    pub(crate) fn refused(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

/// How long an emulator may take to answer: it answers between packets, but may be starved.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of a running emulator's control socket.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// A client of the emulator that listens at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the emulator listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Changes the link from `from` to `to` (names or `*`), as in `set("mit", "utah", "{down: true}")`.
    pub fn set(&self, from: &str, to: &str, yaml: &str) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        self.ask(&Request::Set { from, to, both: false, set: settings(yaml)?.into() }).map(drop)
    }

    /// Changes both directions between two sites.
    pub fn set_both(&self, from: &str, to: &str, yaml: &str) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        self.ask(&Request::Set { from, to, both: true, set: settings(yaml)?.into() }).map(drop)
    }

    /// Replaces the prefixes that are sorted to `site`, beyond its addresses.
    pub fn set_prefixes(&self, site: &str, prefixes: &[IpNet]) -> Result<()> {
        let (site, prefixes) = (site.into(), prefixes.into());
        self.ask(&Request::Prefixes { site, prefixes }).map(drop)
    }

    /// The counters so far.
    pub fn counters(&self) -> Result<Report> {
        self.ask(&Request::Counters)?.report.context("the emulator sent no report")
    }

    /// The present parameters of all links, by `from>to`.
    pub fn links(&self) -> Result<BTreeMap<String, LinkParams>> {
        self.ask(&Request::Links)?.links.context("the emulator sent no links")
    }

    /// Starts the clock of the scenario's events.
    pub fn start(&self) -> Result<()> {
        self.ask(&Request::Start).map(drop)
    }

    /// Asks the emulator to end.
    pub fn stop(&self) -> Result<()> {
        self.ask(&Request::Stop).map(drop)
    }

    /// Sends one request and waits for its answer.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        let place = || format!("WAN emulator at {}", self.socket.display());
        let stream = UnixStream::connect(&self.socket).with_context(place)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).with_context(place)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).with_context(place)?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        (&stream).write_all(line.as_bytes()).with_context(place)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).with_context(place)?;
        let reply: Reply = serde_json::from_str(&answer).with_context(place)?;
        match reply.error {
            None if reply.ok => Ok(reply),
            error => Err(anyhow!(error.unwrap_or_else(|| "refused".into())).context(place())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_of_yaml_or_json() {
        let set: Request =
            serde_yaml::from_str("{op: set, from: mit, to: utah, set: {down: true}}").unwrap();
        let Request::Set { from, both, set, .. } = &set else { panic!("{set:?}") };
        assert_eq!((from.as_str(), *both, set.down), ("mit", false, Some(true)));
        assert_eq!(
            serde_yaml::from_str::<Request>(r#"{"op":"counters"}"#).unwrap(),
            Request::Counters
        );
        assert!(serde_yaml::from_str::<Request>("{op: set, from: a, to: b}").is_err());
        assert!(serde_yaml::from_str::<Request>("{op: reboot}").is_err());
    }
}
