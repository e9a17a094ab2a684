//! Reading what the hosts' tools print.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The summary of `ping`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Round trip times in milliseconds; zero when nothing came back.
    pub min_ms: f64,
    /// The mean.
    pub avg_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// The result of one iperf3 run, as the client sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Iperf {
    /// Bits per second that arrived.
    pub bits_per_second: f64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// UDP: fraction lost, from 0 to 1.
    pub loss: f64,
}

/// One line of traceroute: who answered at this distance, if anyone did.
pub type Hop = Option<IpAddr>;

pub(crate) fn parse_ping(text: &str) -> Result<Ping> {
    let summary = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .with_context(|| format!("no summary of ping in:\n{text}"))?;
    let number_before = |word: &str| -> Option<u32> {
        summary.split(", ").find(|part| part.contains(word))?.split(' ').next()?.parse().ok()
    };
    let mut ping = Ping {
        sent: number_before("transmitted").context("ping: packets transmitted")?,
        received: number_before("received").context("ping: packets received")?,
        ..Ping::default()
    };
    if let Some(line) = text.lines().find(|line| line.starts_with("rtt ")) {
        let times = line.split(" = ").nth(1).context("ping: round trip times")?;
        let mut times = times.split(['/', ' ']).map_while(|time| time.parse().ok());
        for slot in [&mut ping.min_ms, &mut ping.avg_ms, &mut ping.max_ms] {
            *slot = times.next().context("ping: three times")?;
        }
    }
    Ok(ping)
}

pub(crate) fn parse_iperf(text: &str) -> Result<Iperf> {
    let report: Value =
        serde_json::from_str(text).with_context(|| format!("iperf3 printed no JSON:\n{text}"))?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let end = &report["end"];
    let received = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    Ok(Iperf {
        bits_per_second: received["bits_per_second"].as_f64().context("iperf3: no rate")?,
        bytes: received["bytes"].as_u64().context("iperf3: no bytes")?,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        loss: end["sum"]["lost_percent"].as_f64().unwrap_or(0.0) / 100.0,
    })
}

pub(crate) fn parse_traceroute(text: &str) -> Result<Vec<Hop>> {
    let mut hops = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("traceroute")) {
        let mut words = line.split_whitespace();
        let number: usize = words
            .next()
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("traceroute printed `{line}`"))?;
        if number != hops.len() + 1 {
            bail!("traceroute left out a hop before `{line}`");
        }
        hops.push(words.find_map(|word| word.parse().ok()));
    }
    Ok(hops)
}

/// The body and the trailer `CODE BYTES SECONDS` that we have curl write after it.
pub(crate) fn parse_curl(text: &str) -> Result<(String, u16, u64, f64)> {
    let (body, trailer) = text.rsplit_once('\n').context("curl wrote no trailer")?;
    let mut words = trailer.split(' ');
    let mut next = || words.next().with_context(|| format!("curl's trailer `{trailer}`"));
    let (code, bytes, seconds) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    Ok((body.into(), code, bytes, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_with_and_without_replies() {
        let text = "PING 10.2.0.11 (10.2.0.11) 56(84) bytes of data.\n\n\
            --- 10.2.0.11 ping statistics ---\n\
            5 packets transmitted, 4 received, 20% packet loss, time 804ms\n\
            rtt min/avg/max/mdev = 40.123/41.5/43.000/0.9 ms, pipe 2\n";
        let want = Ping { sent: 5, received: 4, min_ms: 40.123, avg_ms: 41.5, max_ms: 43.0 };
        assert_eq!(parse_ping(text).unwrap(), want);
        let text = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 1000ms";
        assert_eq!(parse_ping(text).unwrap(), Ping { sent: 2, ..Ping::default() });
        assert!(parse_ping("ping: unknown host").is_err());
    }

    #[test]
    fn iperf_of_both_kinds_and_of_failure() {
        let tcp = r#"{"end": {"sum_sent": {"retransmits": 3},
            "sum_received": {"bits_per_second": 1.5e6, "bytes": 1000}}}"#;
        let want = Iperf { bits_per_second: 1.5e6, bytes: 1000, retransmits: 3, loss: 0.0 };
        assert_eq!(parse_iperf(tcp).unwrap(), want);
        let udp = r#"{"end": {"sum": {"bits_per_second": 9.0, "bytes": 7, "lost_percent": 25.0}}}"#;
        assert!((parse_iperf(udp).unwrap().loss - 0.25).abs() < 1e-9);
        let error = parse_iperf(r#"{"error": "unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"));
    }

    #[test]
    fn traceroute_keeps_silent_hops() {
        let text = "traceroute to 203.0.113.80 (203.0.113.80), 30 hops max, 60 byte packets\n \
            1  10.1.0.1  0.05 ms\n 2  *\n 3  203.0.113.80  40.1 ms\n";
        let hops = parse_traceroute(text).unwrap();
        assert_eq!(hops.len(), 3);
        assert_eq!(hops[0], Some("10.1.0.1".parse().unwrap()));
        assert_eq!(hops[1], None);
        assert_eq!(hops[2], Some("203.0.113.80".parse().unwrap()));
    }

    #[test]
    fn curl_body_and_trailer() {
        let (body, code, bytes, seconds) = parse_curl("10.1.0.11\n\n200 10 0.25").unwrap();
        assert_eq!((body.as_str(), code, bytes), ("10.1.0.11\n", 200, 10));
        assert!((seconds - 0.25).abs() < 1e-9);
    }
}
