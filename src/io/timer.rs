//! A timer that the event loop can wait for, exact to microseconds.
//!
//! The loop's own timeout is rounded up to whole milliseconds, which is too coarse for pacing.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::clock::Clock;
use crate::time::Instant;

/// A timerfd that is set again only when it must fire earlier than already set.
pub(crate) struct Timer {
    fd: TimerFd,
    armed: Option<Instant>,
}

impl Timer {
    /// A timer on `clock`'s time base.
    pub(crate) fn new(clock: &Clock) -> io::Result<Self> {
        let id =
            if clock.is_boottime() { ClockId::CLOCK_BOOTTIME } else { ClockId::CLOCK_MONOTONIC };
        let fd = TimerFd::new(id, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self { fd, armed: None })
    }

    /// Makes the timer fire at `deadline` or before. A timer already set for an earlier instant is
    /// left alone: a needless turn is cheaper than a system call in each turn.
    pub(crate) fn arm(&mut self, deadline: Instant) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        // Zero would disarm it.
        let at = Duration::from_micros(deadline.as_micros().max(1));
        self.fd.set(
            Expiration::OneShot(TimeSpec::from_duration(at)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?;
        self.armed = Some(deadline);
        Ok(())
    }

    /// Takes note that it fired.
    pub(crate) fn acknowledge(&mut self) {
        let mut expirations = [0; 8];
        // Nothing to read is as good as read: the timer was set anew in between.
        let _ = nix::unistd::read(self.fd.as_fd(), &mut expirations);
        self.armed = None;
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallClock;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn fires_at_the_earliest_deadline_asked_for() {
        let clock = Clock::new(WallClock(0));
        let mut timer = Timer::new(&clock).unwrap();
        let start = clock.now();
        timer.arm(start + Duration::from_secs(60)).unwrap();
        timer.arm(start + Duration::from_millis(5)).unwrap();
        timer.arm(start + Duration::from_secs(30)).unwrap();
        let mut fds = [PollFd::new(timer.fd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)).unwrap(), 1);
        assert!(clock.now() - start >= Duration::from_millis(5));
        timer.acknowledge();
        assert_eq!(timer.armed, None);
    }
}
