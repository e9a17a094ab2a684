//! How well the emulator works on this machine: figures, not a test.
//!
//! Two threads enter new network namespaces, which therefore go away with the process; an emulator
//! joins them.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use nix::time::ClockId;
use serde::Serialize;

use super::process::WanEmulator;
use super::report::Report;
use super::scenario::{Guard, Scenario, Site};
use super::sys::{clock_ns, now_ns};

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PORT: u16 = 9000;

const DELAYS_MS: [u64; 4] = [0, 5, 20, 80];
const DELAY_PACKETS: u64 = 3000;
const DELAY_INTERVAL_NS: u64 = 1_000_000;

/// Delays (milliseconds) and packets per second.
const FLOODS: [(u64, u64); 8] = [
    (0, 50_000),
    (0, 100_000),
    (0, 150_000),
    (0, 200_000),
    (0, 250_000),
    (20, 50_000),
    (20, 100_000),
    (20, 150_000),
];
const FLOOD_SECONDS: u64 = 2;
/// IP bytes of a small packet.
const FLOOD_SIZE: usize = 100;
/// A flood was carried if it lost less than this.
const FLOOD_LOSS_MAX: f64 = 0.001;

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// One-way delay against what was asked, by the kernel's receive timestamps.
    pub delay: Vec<DelayFigures>,
    /// Floods of small packets.
    pub flood: Vec<FloodFigures>,
    /// The highest rate delivered without delay and with less than 0.1 % loss.
    pub flood_best_pps: f64,
    /// One TCP connection, super-packets passed whole.
    pub tcp_gbit_s: f64,
    /// One TCP connection over a link with `loss: 1e-9`, so that every train is cut.
    pub tcp_cut_gbit_s: f64,
    /// Why the emulator calls these figures invalid: the machine was too busy.
    pub problems: Vec<String>,
}

/// Errors of the delay in milliseconds.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct DelayFigures {
    pub asked_ms: u64,
    pub packets: usize,
    pub median_error_ms: f64,
    pub p90_error_ms: f64,
    pub p99_error_ms: f64,
}

/// One flood.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct FloodFigures {
    pub delay_ms: u64,
    pub offered_pps: f64,
    pub delivered_pps: f64,
    pub loss: f64,
    pub emulator_cpu_us_per_packet: f64,
}

/// Measures; takes about half a minute. Needs root, or makes itself root of a user namespace.
pub fn run() -> Result<Figures> {
    if !nix::unistd::geteuid().is_root() {
        let program = std::env::current_exe()?;
        let error = Command::new("unshare").arg("-Urn").arg(program).arg("selftest").exec();
        return Err(error).context("cannot run `unshare` (package util-linux)");
    }
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    let site = |namespace: &Namespace, address: Ipv4Addr| Site {
        netns: Some(namespace.path.to_string_lossy().into_owned()),
        addresses: vec![ipnet::Ipv4Net::new_assert(address, 24).into()],
        default_route: true,
        ..Site::default()
    };
    // The floods go beyond what can be carried: that is no fault here.
    let guard = Guard { tun_drops: 1.0, ..Guard::default() };
    let scenario =
        Scenario { guard, ..Scenario::default() }.site("a", site(&a, A)).site("b", site(&b, B));
    let mut emulator = WanEmulator::spawn_program(&std::env::current_exe()?, &scenario)?;
    let control = emulator.control().clone();
    let mut delay = Vec::new();
    for asked in DELAYS_MS {
        control.set("a", "b", &format!("{{delay: {asked}ms}}"))?;
        delay.push(measure_delay(&a, &b, asked)?);
    }
    let mut flood = Vec::new();
    for (delay_ms, rate) in FLOODS {
        control.set("a", "b", &format!("{{delay: {delay_ms}ms}}"))?;
        flood.push(measure_flood(&a, &b, delay_ms, rate, &emulator)?);
    }
    control.set_both("a", "b", "{delay: 0}")?;
    let tcp_gbit_s = measure_tcp(&a, &b)?;
    control.set_both("a", "b", "{loss: 1.0e-9}")?;
    let tcp_cut_gbit_s = measure_tcp(&a, &b)?;
    let carried = flood.iter().filter(|flood| flood.delay_ms == 0 && flood.loss < FLOOD_LOSS_MAX);
    let flood_best_pps = carried.map(|flood| flood.delivered_pps).fold(0.0, f64::max);
    let problems = emulator.stop()?.problems;
    Ok(Figures { delay, flood, flood_best_pps, tcp_gbit_s, tcp_cut_gbit_s, problems })
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace that lives as long as a thread, which runs jobs in it.
struct Namespace {
    path: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    fn new() -> Result<Self> {
        let (ready, is_ready) = channel();
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let thread = std::thread::spawn(move || {
            let path =
                format!("/proc/{}/task/{}/ns/net", nix::unistd::getpid(), nix::unistd::gettid());
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| PathBuf::from(path));
            if ready.send(made).is_ok() {
                queue.iter().for_each(|job| job());
            }
        });
        let path = is_ready.recv()?.context("cannot make a network namespace")?;
        Ok(Self { path, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Starts `job` inside the namespace.
    fn start<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (sender, result) = channel();
        let job: Job = Box::new(move || drop(sender.send(job())));
        drop(self.jobs.as_ref().map(|jobs| jobs.send(job)));
        result
    }

    /// A bound UDP socket of the namespace.
    fn udp(&self, address: Ipv4Addr) -> Result<UdpSocket> {
        Ok(self.start(move || UdpSocket::bind((address, PORT))).recv()??)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn measure_delay(a: &Namespace, b: &Namespace, asked_ms: u64) -> Result<DelayFigures> {
    let (sender, receiver) = (a.udp(A)?, b.udp(B)?);
    sender.connect((B, PORT))?;
    setsockopt(&receiver, ReceiveTimestampns, &true)?;
    receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
    let errors = std::thread::spawn(move || receive_delays(&receiver, asked_ms));
    let start = now_ns();
    for number in 1..=DELAY_PACKETS {
        sleep_until(start + number * DELAY_INTERVAL_NS);
        let stamp = clock_ns(ClockId::CLOCK_REALTIME).to_be_bytes();
        sender.send(&stamp)?;
    }
    let mut errors = errors.join().map_err(|_| anyhow!("the receiver failed"))??;
    ensure!(!errors.is_empty(), "nothing arrived");
    errors.sort_unstable();
    let at = |q: f64| errors[((errors.len() - 1) as f64 * q) as usize] as f64 / 1e6;
    Ok(DelayFigures {
        asked_ms,
        packets: errors.len(),
        median_error_ms: at(0.5),
        p90_error_ms: at(0.9),
        p99_error_ms: at(0.99),
    })
}

/// Delay errors in nanoseconds, until nothing comes any more.
fn receive_delays(socket: &UdpSocket, asked_ms: u64) -> Result<Vec<i64>> {
    let mut errors = Vec::new();
    let mut data = [0; 8];
    let mut space = nix::cmsg_space!(libc::timespec);
    loop {
        let mut buffers = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::empty();
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags);
        let Ok(message) = message else { return Ok(errors) };
        let received = message.cmsgs()?.find_map(|message| {
            let ControlMessageOwned::ScmTimestampns(time) = message else { return None };
            Some(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
        });
        let sent = i64::from_be_bytes(data);
        let received = received.context("no receive timestamp")?;
        errors.push(received - sent - asked_ms as i64 * 1_000_000);
    }
}

fn measure_flood(
    a: &Namespace,
    b: &Namespace,
    delay_ms: u64,
    rate: u64,
    emulator: &WanEmulator,
) -> Result<FloodFigures> {
    // Nobody reads: what is counted is what the emulator wrote into the other kernel.
    let (sender, _receiver) = (a.udp(A)?, b.udp(B)?);
    sender.connect((B, PORT))?;
    let before = emulator.control().counters()?;
    let payload = [0; FLOOD_SIZE - 28];
    let start = now_ns();
    let mut sent = 0;
    while now_ns() < start + FLOOD_SECONDS * 1_000_000_000 {
        let due = (now_ns() - start) * rate / 1_000_000_000;
        // After a pause, catch up gently: a burst would only test the length of the TUN's queue.
        let burst = due.saturating_sub(sent).min(500);
        for _ in 0..burst {
            let (buffers, flags) = ([IoSlice::new(&payload)], MsgFlags::empty());
            // A refusal shows as a packet that did not arrive.
            let _ = sendmsg::<()>(sender.as_raw_fd(), &buffers, &[], flags, None);
        }
        sent += burst;
        std::thread::sleep(Duration::from_micros(200));
    }
    let elapsed = (now_ns() - start) as f64 / 1e9;
    std::thread::sleep(Duration::from_millis(100));
    let after = emulator.control().counters()?;
    let delivered = after.link("a", "b").delivered - before.link("a", "b").delivered;
    let cpu = |report: &Report| report.cpu.user_s + report.cpu.system_s;
    Ok(FloodFigures {
        delay_ms,
        offered_pps: sent as f64 / elapsed,
        delivered_pps: delivered as f64 / elapsed,
        loss: 1.0 - delivered as f64 / sent.max(1) as f64,
        emulator_cpu_us_per_packet: (cpu(&after) - cpu(&before)) * 1e6 / delivered.max(1) as f64,
    })
}

/// Two seconds of one connection, counted by the receiver.
fn measure_tcp(a: &Namespace, b: &Namespace) -> Result<f64> {
    let listener = b.start(|| TcpListener::bind((B, PORT))).recv()??;
    let sink = std::thread::spawn(move || -> std::io::Result<(u64, u64)> {
        let (mut stream, _) = listener.accept()?;
        let (mut bytes, start) = (0, now_ns());
        let mut buffer = vec![0; 1 << 18];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((bytes, now_ns() - start)),
                n => bytes += n as u64,
            }
        }
    });
    let target = SocketAddrV4::new(B, PORT).into();
    let timeout = Duration::from_secs(2);
    let mut stream = a.start(move || TcpStream::connect_timeout(&target, timeout)).recv()??;
    let data = vec![0; 1 << 18];
    let end = now_ns() + 2_000_000_000;
    while now_ns() < end {
        stream.write_all(&data)?;
    }
    drop(stream);
    let (bytes, ns) = sink.join().map_err(|_| anyhow!("the receiver failed"))??;
    Ok(bytes as f64 * 8.0 / ns as f64)
}

fn sleep_until(instant: u64) {
    let now = now_ns();
    std::thread::sleep(Duration::from_nanos(instant.saturating_sub(now)));
}
