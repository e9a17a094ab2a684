//! The outer process: it makes the namespaces, waits for the demonstration inside, and ends
//! everything when it is interrupted.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use netns_tests::lab::process::run as run_tool;
use netns_tests::lab::programs::{find_gateway, find_program};
use netns_tests::lab::{enter, wait_until};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::geteuid;

/// Tells the inner process that it was started by root.
const REAL_ROOT: &str = "RONGATE_DEMO_ROOT";

/// The exit status after a signal, as shells have it for Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The device of all TUN interfaces.
const TUN: &str = "/dev/net/tun";

/// How long the inner process may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(2);

fn end_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Undoes for the inner process, and what it starts, what the outer one has set.
pub(crate) fn accept_signals() -> Result<()> {
    end_signals().thread_unblock()?;
    Ok(())
}

/// Whether the demonstration was started by root, asked on the inside.
pub(crate) fn real_root() -> bool {
    std::env::var_os(REAL_ROOT).is_some()
}

/// What ties the inner process to the outer one: an input that closes with it, however it ends.
#[derive(Debug)]
pub(crate) struct Leash {
    first: Receiver<String>,
    keeping: Arc<AtomicBool>,
}

impl Leash {
    /// From now on the end of the outer process ends this one, and everything here.
    pub(crate) fn new() -> Self {
        let (sender, first) = channel();
        let keeping = Arc::new(AtomicBool::new(false));
        let leash = Self { first, keeping: Arc::clone(&keeping) };
        thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                // Its reader is there until the end.
                let _ = sender.send(line);
            }
            if !keeping.load(Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        });
        leash
    }

    /// The number of this process, as it is known outside.
    pub(crate) fn first(&self) -> Result<String> {
        Ok(self.first.recv()?)
    }

    /// Waits for the end of the outer process, or until it asks for ours.
    pub(crate) fn wait(&self) {
        self.keeping.store(true, Ordering::Relaxed);
        while self.first.recv().is_ok() {}
    }
}

/// Runs the demonstration in namespaces of its own, to its end or until a signal comes.
pub(crate) fn run(keep: bool, rootless: bool) -> Result<ExitCode> {
    for program in ["wan-emulator", "lab-server", "lab-tick"] {
        find_program(program)?;
    }
    find_gateway()?;
    try_tun()?;
    try_namespaces(rootless)?;
    let signals = end_signals();
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;

    let mut command = enter::namespaced(std::env::current_exe()?, rootless);
    command.arg("--inside");
    if keep {
        command.arg("--keep");
    }
    if rootless {
        command.arg("--rootless");
    }
    if geteuid().is_root() {
        command.env(REAL_ROOT, "1");
    } else {
        command.env_remove(REAL_ROOT);
    }
    // A group of its own, so that Ctrl-C comes to us alone and the end is in order.
    let mut child = command.stdin(Stdio::piped()).process_group(0).spawn()?;
    let first = wait_until("namespaces", Duration::from_secs(5), || first_child(child.id()))?;
    if let Some(input) = &mut child.stdin {
        writeln!(input, "{first}")?;
    }
    let ended = watch(&mut child, &signals)?;
    let interrupted = ended.is_none();
    let status = match ended {
        Some(status) => status,
        None => end(&mut child)?,
    };
    wait_until("the end of all processes", END_LIMIT, || {
        ensure!(!fs::exists(format!("/proc/{first}"))?, "process {first} is still there");
        Ok(())
    })?;
    if interrupted {
        // Where the terminal is gone, nobody needs to be told.
        let _ = writeln!(std::io::stdout(), "\nEnded by a signal. Nothing is left behind.");
        if !keep || !status.success() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One clear sentence where there is no TUN device, or it is not for us.
fn try_tun() -> Result<()> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(TUN);
    let help = match geteuid().is_root() {
        true => "is the kernel module loaded (modprobe tun)?",
        false => "run it as root",
    };
    opened.map(drop).map_err(|error| anyhow!("cannot open {TUN} ({error}): {help}"))
}

/// One clear sentence where the kernel does not let us.
fn try_namespaces(rootless: bool) -> Result<()> {
    let mut command = enter::namespaced("true", rootless);
    let end = run_tool(&mut command, Duration::from_secs(5))?;
    if end.status.success() {
        return Ok(());
    }
    let words = end.stderr.trim();
    if geteuid().is_root() && !rootless {
        bail!("cannot make network namespaces: {words}");
    }
    bail!("this kernel gives ordinary users no namespaces of their own ({words}); run it as root");
}

/// Process 1 of the namespaces, as it is numbered out here.
fn first_child(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().next().context("not there yet")?.parse()?)
}

/// Waits for the end of the child; `None` if a signal came first.
fn watch(child: &mut Child, signals: &SignalFd) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, 50_u8)? > 0 {
            return Ok(None);
        }
    }
}

/// Ends the child by closing its input, or by force. Its end is the end of process 1 inside, and
/// with that of everything there.
fn end(child: &mut Child) -> Result<ExitStatus> {
    drop(child.stdin.take());
    let asked = wait_until("the end", END_LIMIT, || child.try_wait()?.context("it still runs"));
    if let Ok(status) = asked {
        return Ok(status);
    }
    child.kill()?;
    Ok(child.wait()?)
}
