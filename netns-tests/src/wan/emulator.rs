//! The shell around [`Network`]: descriptors, clock, sleep, events, control, report.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike as _;

use super::attach::{Attachment, attach};
use super::control::{Reply, Request};
use super::histogram::Histogram;
use super::network::{Network, Sink};
use super::report::{Cpu, Report};
use super::scenario::{Change, Scenario};
use super::server::{CLIENTS_MAX, Server};
use super::sys::{self, now_ns};
use super::vnet::VNET_LEN;

/// Frames read from one site before the others have their turn.
const READS_PER_TURN: usize = 64;
/// Frames written between two looks at the clock.
const WRITES_PER_LOOK: usize = 16;
/// A super-packet of 64 KiB and its offload header.
const FRAME_MAX: usize = VNET_LEN + 65_536;

/// While there is traffic, the emulator wakes at least this often, to see how late it wakes.
const HEARTBEAT_NS: u64 = 5_000_000;
/// What counts as traffic: something was read within this time.
const TRAFFIC_NS: u64 = 1_000_000_000;

const STDIN: u64 = 1 << 32;
const SIGNAL: u64 = STDIN + 1;
const LISTENER: u64 = STDIN + 2;
const CLIENT: u64 = STDIN + 3;

/// What the command line adds to a scenario.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where to listen for control.
    pub control: Option<PathBuf>,
    /// End when standard input ends.
    pub until_eof: bool,
}

/// Runs a scenario until its end, a signal, or `stop`. `ready` is called when all interfaces are
/// there. Must be called while the process has one thread.
pub fn run(scenario: &Scenario, options: &Options, ready: impl FnOnce()) -> Result<Report> {
    scenario.validate()?;
    let mut emulator = Emulator::new(scenario, options)?;
    ready();
    emulator.run()?;
    Ok(emulator.report())
}

/// The interfaces, as the network's sink.
struct Sites {
    attachments: Vec<Attachment>,
    written: Vec<Written>,
}

#[derive(Clone, Default)]
struct Written {
    frames: u64,
    interface_down: u64,
    errors: u64,
}

impl Sink for Sites {
    fn write(&mut self, site: usize, frame: &[u8]) {
        let written = &mut self.written[site];
        match (&self.attachments[site].tun).write(frame) {
            Ok(_) => written.frames += 1,
            // EIO: the interface is down, which is the site's own doing. EBADFD: it was removed.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADFD)) => {
                written.interface_down += 1;
            }
            Err(_) => written.errors += 1,
        }
    }
}

struct Emulator<'a> {
    scenario: &'a Scenario,
    network: Network,
    sites: Sites,
    epoll: Epoll,
    signals: SignalFd,
    server: Option<Server>,
    changes: VecDeque<Change>,
    started: u64,
    /// What event times count from; `None` until `start`.
    origin: Option<u64>,
    stopping: bool,
    frame: Box<[u8]>,
    wakeup: Histogram,
    last_read: u64,
    stat: ProcStat,
}

impl<'a> Emulator<'a> {
    fn new(scenario: &'a Scenario, options: &Options) -> Result<Self> {
        let mut attachments = Vec::with_capacity(scenario.sites.len());
        for (name, site) in &scenario.sites {
            attachments.push(attach(name, site)?);
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        for (index, attachment) in attachments.iter().enumerate() {
            watch(&epoll, &attachment.tun, index as u64)?;
        }
        let signals = catch_signals()?;
        watch(&epoll, &signals, SIGNAL)?;
        if options.until_eof {
            watch(&epoll, io::stdin(), STDIN).context("--until-eof needs a pipe at stdin")?;
        }
        let server = options.control.as_deref().map(Server::new).transpose()?;
        if let Some(server) = &server {
            watch(&epoll, server.listener(), LISTENER)?;
        }
        prepare_scheduling(scenario)?;
        let started = now_ns();
        Ok(Self {
            network: Network::new(scenario)?,
            sites: Sites { written: vec![Written::default(); attachments.len()], attachments },
            epoll,
            signals,
            server,
            changes: scenario.changes()?.into(),
            started,
            origin: (!scenario.wait_for_start).then_some(started),
            stopping: false,
            frame: vec![0; FRAME_MAX].into(),
            wakeup: Histogram::new(),
            last_read: 0,
            stat: ProcStat::read(),
            scenario,
        })
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let end = self.scenario.duration.map(|time| self.started + time.0);
        while !self.stopping {
            let now = now_ns();
            self.apply_changes(now);
            self.deliver_due(now);
            if end.is_some_and(|end| now >= end) {
                break;
            }
            let n = self.sleep(end, &mut events)?;
            for event in &events[..n] {
                self.handle(event);
            }
        }
        Ok(())
    }

    /// Waits for events until something is due, less the time we rather spin.
    fn sleep(&mut self, end: Option<u64>, events: &mut [EpollEvent]) -> Result<usize> {
        let now = now_ns();
        let change = self.changes.front().zip(self.origin).map(|(c, origin)| origin + c.at.0);
        let busy = now < self.last_read + TRAFFIC_NS;
        let heartbeat = busy.then_some(now + HEARTBEAT_NS);
        let due = [self.network.next_due(), change, end, heartbeat].into_iter().flatten().min();
        let early = self.scenario.scheduling.spin.0;
        let timeout = due.map(|due| due.saturating_sub(now).saturating_sub(early));
        let n = sys::epoll_wait(self.epoll.0.as_fd(), events, timeout).context("epoll")?;
        if let (0, true, Some(timeout @ 1..)) = (n, busy, timeout) {
            self.wakeup.record(now_ns().saturating_sub(now + timeout));
        }
        Ok(n)
    }

    fn apply_changes(&mut self, now: u64) {
        let Some(origin) = self.origin else { return };
        while self.changes.front().is_some_and(|change| origin + change.at.0 <= now) {
            if let Some(change) = self.changes.pop_front() {
                self.network.apply(&change);
            }
        }
    }

    fn deliver_due(&mut self, mut now: u64) {
        while self.network.deliver_due(now, WRITES_PER_LOOK, &mut self.sites) {
            now = now_ns();
        }
    }

    fn handle(&mut self, event: &EpollEvent) {
        match event.data() {
            SIGNAL => {
                let _ = self.signals.read_signal();
                self.stopping = true;
            }
            STDIN => self.stopping |= stdin_ended(),
            LISTENER => self.accept(),
            place if place >= CLIENT => self.serve((place - CLIENT) as usize),
            site => self.read_site(site as usize),
        }
    }

    /// Reads what a site sent, and writes what becomes due meanwhile.
    fn read_site(&mut self, site: usize) {
        for _ in 0..READS_PER_TURN {
            let n = match (&self.sites.attachments[site].tun).read(&mut self.frame) {
                Ok(n) => n,
                Err(error) => {
                    if error.raw_os_error() == Some(libc::EBADFD) {
                        // The interface was removed; its descriptor would be ready for ever.
                        let _ = self.epoll.delete(&self.sites.attachments[site].tun);
                    }
                    return;
                }
            };
            let now = now_ns();
            self.last_read = now;
            self.network.handle_frame(now, site, &mut self.frame[..n], &mut self.sites);
            if self.network.next_due().is_some_and(|due| due <= now) {
                self.deliver_due(now);
            }
        }
    }

    fn accept(&mut self) {
        let Some(server) = self.server.as_mut() else { return };
        if let Some((place, fd)) = server.accept() {
            debug_assert!(place < CLIENTS_MAX);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, CLIENT + place as u64);
            let _ = self.epoll.add(fd, event);
        }
    }

    fn serve(&mut self, place: usize) {
        let Some(mut server) = self.server.take() else { return };
        server.serve(place, &mut |request| self.answer(request));
        self.server = Some(server);
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Set { from, to, both, set } => {
                let mut probe = super::LinkParams::default();
                set.apply(&mut probe);
                let links = match self.scenario.select(&from, &to, both) {
                    Ok(links) => links,
                    Err(error) => return Reply::refused(format!("{error:#}")),
                };
                if let Err(error) = probe.validate() {
                    return Reply::refused(error);
                }
                self.network.apply(&Change { at: super::Time(0), links, set: *set });
            }
            Request::Prefixes { site, prefixes } => {
                if !self.network.set_prefixes(&site, prefixes) {
                    return Reply::refused(format!("`{site}` is not a site"));
                }
            }
            Request::Counters => return Reply { report: Some(self.report()), ..Reply::done() },
            Request::Links => {
                return Reply { links: Some(self.network.link_params()), ..Reply::done() };
            }
            Request::Start => match self.scenario.changes() {
                Ok(changes) => {
                    self.changes = changes.into();
                    self.origin = Some(now_ns());
                }
                Err(error) => return Reply::refused(format!("{error:#}")),
            },
            Request::Stop => self.stopping = true,
        }
        Reply::done()
    }

    fn report(&self) -> Report {
        let mut report = self.network.report();
        let shell = self.sites.attachments.iter().zip(&self.sites.written);
        for (counters, (attachment, written)) in report.sites.values_mut().zip(shell) {
            counters.written_frames = written.frames;
            counters.interface_down = written.interface_down;
            counters.write_errors = written.errors;
            counters.tun_drops = attachment.tun_drops().ok();
        }
        report.wakeup = self.wakeup.summary();
        report.elapsed_s = (now_ns() - self.started) as f64 / 1e9;
        report.cpu = self.stat.cpu_since();
        report.judge(&self.scenario.guard);
        report
    }
}

fn watch(epoll: &Epoll, fd: impl std::os::fd::AsFd, data: u64) -> Result<()> {
    epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, data)).context("epoll")
}

/// SIGINT and SIGTERM end the run in an orderly way.
fn catch_signals() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_block().context("signals")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signalfd")
}

fn prepare_scheduling(scenario: &Scenario) -> Result<()> {
    let realtime = scenario.scheduling.realtime;
    if realtime > 0 {
        return sys::set_realtime(realtime).context("scheduling.realtime (needs root)");
    }
    // Both only help; the guards tell whether it was enough.
    let _ = sys::set_short_slice();
    let _ = nix::sys::prctl::set_timerslack(1);
    Ok(())
}

fn stdin_ended() -> bool {
    let mut buffer = [0; 256];
    !matches!(io::stdin().read(&mut buffer), Ok(1..))
}

/// The machine's processor time, to see what was stolen.
#[derive(Default)]
struct ProcStat {
    total: u64,
    steal: u64,
}

impl ProcStat {
    fn read() -> Self {
        let mut text = String::new();
        let read = File::open("/proc/stat").and_then(|mut file| file.read_to_string(&mut text));
        let first = read.ok().and_then(|_| text.lines().next()).unwrap_or_default();
        let ticks: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        Self { total: ticks.iter().sum(), steal: ticks.get(7).copied().unwrap_or(0) }
    }

    fn cpu_since(&self) -> Cpu {
        let stat = Self::read();
        let steal = stat.steal.saturating_sub(self.steal) as f64;
        let total = stat.total.saturating_sub(self.total).max(1) as f64;
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        match getrusage(UsageWho::RUSAGE_SELF) {
            Ok(usage) => Cpu {
                user_s: seconds(usage.user_time()),
                system_s: seconds(usage.system_time()),
                steal: steal / total,
            },
            Err(_) => Cpu { steal: steal / total, ..Cpu::default() },
        }
    }
}
