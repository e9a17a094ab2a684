//! Signals as something to read.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM or SIGINT: undo everything and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that the gateway handles, blocked and turned into a descriptor.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks them. Must be called before any thread is started, since threads inherit the mask.
    pub(crate) fn block() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal that came, if any.
    pub(crate) fn next(&self) -> Option<Order> {
        let info = self.0.read_signal().ok().flatten()?;
        if info.ssi_signo == Signal::SIGHUP as u32 {
            Some(Order::Reload)
        } else {
            Some(Order::Stop)
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
