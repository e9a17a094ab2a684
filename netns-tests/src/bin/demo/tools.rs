//! What hosts do, as commands a reader knows.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Host, Process};

/// A download by `curl`, with the checksum of what arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fetched {
    /// SHA-256 in hexadecimal.
    pub(crate) sha256: String,
    /// Bytes that arrived.
    pub(crate) bytes: f64,
    /// Seconds from the beginning to the end.
    pub(crate) seconds: f64,
}

impl Fetched {
    /// Megabits a second, start and handshake included.
    pub(crate) fn mbit_per_second(&self) -> f64 {
        self.bytes * 8.0 / 1e6 / self.seconds.max(1e-3)
    }

    fn parse(text: &str) -> Result<Self> {
        // `sha256sum` writes "SUM  -", curl "BYTES SECONDS"; either may come first.
        let mut sum = None;
        let mut numbers = Vec::new();
        for word in text.split_whitespace() {
            if word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()) {
                sum = Some(word.to_owned());
            } else if let Ok(number) = word.parse::<f64>() {
                numbers.push(number);
            }
        }
        let [bytes, seconds] = numbers[..] else { anyhow::bail!("curl printed: {text}") };
        let sha256 = sum.with_context(|| format!("no checksum in: {text}"))?;
        Ok(Self { sha256, bytes, seconds })
    }
}

/// Time limit in seconds, rate as curl writes it, URL; prints curl's figures and the checksum.
const FETCH: &str = r#"set -o pipefail
curl -sS --fail --max-time "$1" --limit-rate "$2" -w '%{stderr}%{size_download} %{time_total}\n' "$3" |
    sha256sum"#;

/// Where `bytes` recognisable bytes can be downloaded.
pub(crate) fn bytes_url(server: Ipv4Addr, bytes: u64) -> String {
    format!("http://{server}/bytes/{bytes}")
}

/// Downloads as fast as it goes.
pub(crate) fn fetch(host: &Host, url: &str) -> Result<Fetched> {
    let arguments = ["-c", FETCH, "bash", "30", "100G", url];
    let end = host.run("bash", &arguments, Duration::from_secs(35))?.success()?;
    Fetched::parse(&format!("{} {}", end.stdout, end.stderr))
}

/// A download that runs beside everything else.
#[derive(Debug)]
pub(crate) struct Background(Process);

impl Background {
    /// Starts it, at `rate` as curl writes it.
    pub(crate) fn start(host: &Host, url: &str, rate: &str) -> Result<Self> {
        let arguments = ["-c", FETCH, "bash", "120", rate, url];
        Ok(Self(host.start("download", Path::new("bash"), &arguments)?))
    }

    /// Whether it is still under way.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.0.ended()?.is_none())
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Fetched> {
        let status = self.0.wait(Duration::from_secs(60))?;
        let text = self.0.log_text();
        ensure!(status.success(), "the download ended with {status}: {text}");
        Fetched::parse(&text)
    }
}

/// Fetches a page and its parts at once, as a browser does; returns how many came whole.
pub(crate) fn browse(host: &Host, server: Ipv4Addr, parts: u32) -> Result<(u32, f64)> {
    let page = format!("http://{server}/");
    let parts_url = format!("http://{server}/bytes/[20000-{}]", 20_000 + parts - 1);
    let arguments = [
        "-sS",
        "--fail",
        "-Z",
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}\\n",
        &page,
        &parts_url,
    ];
    let end = host.run("curl", &arguments, Duration::from_secs(25))?.success()?;
    let whole = end.stdout.lines().filter(|code| *code == "200").count();
    Ok((u32::try_from(whole)?, end.elapsed.as_secs_f64()))
}

/// The address that a server on the Internet sees.
pub(crate) fn whoami(host: &Host, server: Ipv4Addr) -> Result<IpAddr> {
    let url = format!("http://{server}/whoami");
    let reply = host.http_get(&url, Duration::from_secs(10))?;
    reply.body.trim().parse().with_context(|| format!("the server says {:?}", reply.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_checksum_come_in_any_order() {
        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let want = Fetched { sha256: sum.into(), bytes: 1e6, seconds: 0.5 };
        assert!((want.mbit_per_second() - 16.0).abs() < 1e-9);
        assert_eq!(Fetched::parse(&format!("{sum}  -\n1000000 0.5\n")).unwrap(), want);
        assert_eq!(Fetched::parse(&format!("1000000 0.5\n{sum}  -\n")).unwrap(), want);
        assert!(Fetched::parse("curl: (7) Failed to connect").is_err());
    }
}
