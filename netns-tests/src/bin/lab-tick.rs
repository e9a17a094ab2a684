//! `lab-tick`: sends numbered datagrams at a steady rate, or receives them and reports gaps, loss,
//! disorder and delay as one line of JSON.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use netns_tests::lab::clock::monotonic_ns;
use netns_tests::lab::tick::{Collector, MIN_SIZE, PORT, Report, Tick};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

/// Measure how a stream of datagrams passes.
///
/// Every command ends at the end of its standard input or after --seconds, and prints one line of
/// JSON.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Send to a receiver.
    Send(Sending),
    /// Send to a UDP echo service and measure what comes back.
    Echo(Sending),
    /// Receive, and report what arrived.
    Receive {
        /// Address to receive at.
        #[arg(long, default_value_t = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT))]
        listen: SocketAddr,
        /// End after this time.
        #[arg(long)]
        seconds: Option<f64>,
    },
}

#[derive(Args)]
struct Sending {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// Datagrams a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Bytes of payload.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Type of service byte, as in 184 for DSCP EF.
    #[arg(long, default_value_t = 0)]
    tos: u8,
    /// Local address.
    #[arg(long)]
    from: Option<SocketAddr>,
    /// End after this time.
    #[arg(long)]
    seconds: Option<f64>,
}

fn main() -> Result<()> {
    let report = match Cli::parse().command {
        Mode::Send(sending) => send(&sending)?,
        Mode::Echo(sending) => echo(&sending)?,
        Mode::Receive { listen, seconds } => receive(listen, seconds)?,
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

fn deadline(seconds: Option<f64>) -> Result<u64> {
    let limit = seconds.map_or(u64::MAX / 2, |seconds| (seconds * 1e9) as u64);
    Ok(monotonic_ns()?.saturating_add(limit))
}

/// What ended a wait.
struct Ready {
    input_closed: bool,
    socket: bool,
}

/// Waits until `until_ns`, a datagram, or the end of the input.
fn wait(socket: Option<&UdpSocket>, until_ns: u64) -> Result<Ready> {
    let timeout = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()?).min(1_000_000_000));
    let stdin = std::io::stdin();
    let mut files = vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    files.extend(socket.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
    ppoll(&mut files, Some(TimeSpec::from_duration(timeout)), None)?;
    let mut input_closed = false;
    if files[0].any() == Some(true) {
        input_closed = nix::unistd::read(stdin.as_fd(), &mut [0; 256])? == 0;
    }
    Ok(Ready { input_closed, socket: files.get(1).and_then(PollFd::any) == Some(true) })
}

fn open(sending: &Sending) -> Result<UdpSocket> {
    let any = if sending.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let local = sending.from.map_or_else(|| any.parse(), Ok)?;
    let socket = UdpSocket::bind(local).with_context(|| format!("bind {local}"))?;
    if sending.to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4Tos, &i32::from(sending.tos))?;
    } else {
        setsockopt(&socket, sockopt::Ipv6TClass, &i32::from(sending.tos))?;
    }
    ensure!((1..=1_000_000).contains(&sending.rate), "--rate: from 1 to 1000000");
    ensure!((MIN_SIZE..=65_000).contains(&sending.size), "--size: from {MIN_SIZE} to 65000");
    Ok(socket)
}

fn send(sending: &Sending) -> Result<Report> {
    let socket = open(sending)?;
    let mut source = Source::new(sending)?;
    let end = deadline(sending.seconds)?;
    loop {
        source.send_due(&socket)?;
        if wait(None, source.next_ns)?.input_closed || monotonic_ns()? >= end {
            return Ok(Report { sent: source.sequence, ..Report::default() });
        }
    }
}

fn echo(sending: &Sending) -> Result<Report> {
    let socket = open(sending)?;
    let mut source = Source::new(sending)?;
    let mut collector = Collector::default();
    let mut end = deadline(sending.seconds)?;
    let mut last_echo = false;
    loop {
        if !last_echo {
            source.send_due(&socket)?;
        }
        let until = if last_echo { end } else { source.next_ns };
        let ready = wait((!last_echo || end > monotonic_ns()?).then_some(&socket), until)?;
        if ready.socket {
            collect(&socket, source.stream, &mut collector)?;
        }
        if last_echo && monotonic_ns()? >= end {
            return Ok(collector.report(source.sequence));
        }
        if !last_echo && (ready.input_closed || monotonic_ns()? >= end) {
            // What is on its way still counts.
            last_echo = true;
            end = monotonic_ns()? + 500_000_000;
        }
    }
}

fn receive(listen: SocketAddr, seconds: Option<f64>) -> Result<Report> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("bind {listen}"))?;
    let mut collector = Collector::default();
    writeln!(std::io::stdout(), "listening on {listen}")?;
    let end = deadline(seconds)?;
    loop {
        let ready = wait(Some(&socket), end)?;
        if ready.socket {
            collect(&socket, 0, &mut collector)?;
        }
        if ready.input_closed || monotonic_ns()? >= end {
            return Ok(collector.report(0));
        }
    }
}

/// Takes in what has arrived; of any stream if `stream` is zero.
fn collect(socket: &UdpSocket, stream: u32, collector: &mut Collector) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 65_536];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) => {
                let tick = Tick::parse(&buffer[..length]);
                if let Some(tick) = tick.filter(|tick| stream == 0 || tick.stream == stream) {
                    collector.arrived(tick, monotonic_ns()?);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error about something we sent.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => bail!("receive: {error}"),
        }
    }
}

/// The steady stream.
struct Source {
    stream: u32,
    to: SocketAddr,
    interval_ns: u64,
    next_ns: u64,
    sequence: u64,
    datagram: Vec<u8>,
}

impl Source {
    fn new(sending: &Sending) -> Result<Self> {
        Ok(Self {
            stream: std::process::id(),
            to: sending.to,
            interval_ns: 1_000_000_000 / u64::from(sending.rate),
            next_ns: monotonic_ns()?,
            sequence: 0,
            datagram: vec![b'.'; sending.size],
        })
    }

    /// Sends every tick whose time has come. A tick that the kernel refuses counts as sent: for
    /// the receiver it is lost.
    fn send_due(&mut self, socket: &UdpSocket) -> Result<()> {
        while self.next_ns <= monotonic_ns()? {
            let tick =
                Tick { stream: self.stream, sequence: self.sequence, sent_ns: monotonic_ns()? };
            tick.emit(&mut self.datagram);
            drop(socket.send_to(&self.datagram, self.to));
            self.sequence += 1;
            self.next_ns += self.interval_ns;
        }
        Ok(())
    }
}
