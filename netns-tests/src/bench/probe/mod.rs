//! The small programs that hosts run: echo and ping-pong, flood and sink. Each is a process of its
//! own and prints one line of JSON.

pub mod flows;

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::lab::clock;

/// Bytes of a ping-pong's datagram.
const PING_LEN: usize = 64;
/// How long a lost round trip is waited for.
const PING_LIMIT: Duration = Duration::from_millis(500);
/// A sink that hears nothing for so long has seen the end.
const SINK_SILENCE: Duration = Duration::from_millis(700);
/// What a sink's socket holds while the sink waits for a processor.
const SINK_BUFFER: usize = 16 << 20;
/// A paced flood sends what is due this often.
const PACE: Duration = Duration::from_micros(250);

/// What a probe says when it is ready to receive.
pub const LISTENING: &str = "listening";

/// Round trip times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rtt {
    /// Median in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// Smallest in microseconds.
    pub min_us: f64,
    /// Round trips that came to an end.
    pub answered: u32,
    /// Those that did not.
    pub lost: u32,
}

/// What a flood sent or a sink received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Datagrams.
    pub packets: u64,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

impl Counted {
    /// Datagrams in a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.packets as f64 / self.seconds } else { 0.0 }
    }
}

fn tell(result: &impl Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(result)?)?;
    Ok(())
}

/// Reads what a probe has printed.
pub(crate) fn told<T: DeserializeOwned>(text: &str) -> Result<T> {
    let line = text.lines().last().context("a probe printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("a probe printed:\n{text}"))
}

fn listen(at: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(at).with_context(|| format!("listen at {at}"))?;
    let forced = setsockopt(&socket, sockopt::RcvBufForce, &SINK_BUFFER);
    forced.or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SINK_BUFFER))?;
    writeln!(io::stdout(), "{LISTENING}")?;
    io::stdout().flush()?;
    Ok(socket)
}

/// Sends every datagram back, until it is killed.
pub fn echo(at: SocketAddr) -> Result<()> {
    let socket = listen(at)?;
    let mut buffer = [0; 2_048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

/// Ping-pong with [`echo`]: `count` round trips, each begun `interval` after the last one's end.
pub fn ping(to: SocketAddr, count: u32, interval: Duration) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PING_LIMIT))?;
    let mut times = Vec::new();
    for number in 0..count {
        let mut datagram = [0; PING_LEN];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        let start = clock::now();
        socket.send(&datagram)?;
        if await_echo(&socket, &datagram)? {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        sleep(interval);
    }
    tell(&summary(times, count))
}

/// False when the answer did not come in time.
fn await_echo(socket: &UdpSocket, sent: &[u8; PING_LEN]) -> Result<bool> {
    let mut answer = [0; PING_LEN];
    loop {
        match socket.recv(&mut answer) {
            Ok(_) if answer == *sent => return Ok(true),
            // A late answer to an earlier one.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("waiting for an answer"),
        }
    }
}

fn summary(mut times: Vec<f64>, count: u32) -> Rtt {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let answered = times.len() as u32;
    let (p50_us, p99_us, min_us) = (at(0.5), at(0.99), at(0.0));
    Rtt { p50_us, p99_us, min_us, answered, lost: count - answered }
}

/// Sends datagrams of `size` bytes for a time: `rate` of them a second, or as fast as it can.
pub fn flood(to: SocketAddr, size: usize, time: Duration, rate: Option<u32>) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    socket.connect(to)?;
    let datagram = vec![0x5a; size];
    let start = clock::now();
    let mut packets = 0u64;
    let due = |start: Instant| match rate {
        Some(rate) => (start.elapsed().as_secs_f64() * f64::from(rate)) as u64,
        None => u64::MAX,
    };
    while start.elapsed() < time {
        // Looked at the clock once for several of them.
        for _ in 0..16 {
            if packets >= due(start) {
                sleep(PACE);
                break;
            }
            match socket.send(&datagram) {
                Ok(_) => packets += 1,
                // The queue is full, or an ICMP error came back.
                Err(_) => break,
            }
        }
    }
    tell(&Counted { packets, seconds: start.elapsed().as_secs_f64() })
}

/// Counts datagrams until there are no more.
pub fn sink(at: SocketAddr) -> Result<()> {
    let socket = listen(at)?;
    let mut buffer = [0; 2_048];
    let mut packets = 0u64;
    socket.recv(&mut buffer)?;
    let first = clock::now();
    let mut last = first;
    socket.set_read_timeout(Some(SINK_SILENCE))?;
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                packets += 1;
                if packets.is_multiple_of(16) {
                    last = clock::now();
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("counting"),
        }
    }
    tell(&Counted { packets, seconds: last.duration_since(first).as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_what_was_answered() {
        let rtt = summary((1..=100).rev().map(f64::from).collect(), 101);
        assert_eq!((rtt.min_us, rtt.p50_us, rtt.p99_us), (1.0, 51.0, 100.0));
        assert_eq!((rtt.answered, rtt.lost), (100, 1));
        assert_eq!(summary(Vec::new(), 3).lost, 3);
    }

    #[test]
    fn the_last_line_is_the_result() {
        let counted: Counted = told("listening\n{\"packets\": 50, \"seconds\": 0.5}\n").unwrap();
        assert!((counted.rate() - 100.0).abs() < 1e-9);
        assert!(told::<Counted>("").is_err());
    }
}
