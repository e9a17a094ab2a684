//! Watching the underlay for bytes that must not be there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};

use super::netns::Netns;
use super::sys;

const BUFFER: usize = 8 << 20;

/// A running capture of all frames, in and out, of one interface.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Captured>>,
    place: String,
}

/// What a capture saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Frames seen.
    pub frames: u64,
    /// Bytes seen.
    pub bytes: u64,
    /// Frames that the capture could not keep up with.
    pub missed: u32,
    /// Frames with one of the patterns in them.
    pub matches: u64,
    /// The start of the first such frame, in hexadecimal.
    pub example: Option<String>,
}

impl Capture {
    /// Starts to look for any of `patterns` on `interface`.
    pub fn start(netns: &Netns, interface: &str, patterns: &[&[u8]]) -> Result<Self> {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_vec()).collect();
        ensure!(patterns.iter().all(|pattern| pattern.len() >= 4), "a pattern is too short");
        let socket = netns.within(|| {
            let index = nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface} in {}", netns.name()))?;
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
            let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)
                .context("open a packet socket")?;
            // Allowed only to true root; a user namespace lives with the ordinary limit.
            if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
            }
            Ok((socket, index))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (socket, index) = socket;
            watch(&socket, index as usize, &patterns, &stopped)
        });
        Ok(Self { stop, thread, place: format!("{interface} of {}", netns.name()) })
    }

    /// Ends the capture.
    pub fn stop(self) -> Result<Captured> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the capture on {} panicked", self.place))?
    }

    /// Ends the capture and fails if it saw a pattern, saw nothing at all, or missed frames.
    pub fn expect_nothing(self) -> Result<Captured> {
        let place = self.place.clone();
        let captured = self.stop()?;
        ensure!(captured.matches == 0, "plaintext on {place}: {captured:?}");
        ensure!(captured.frames > 0, "the capture on {place} saw no frame");
        ensure!(captured.missed == 0, "the capture on {place} missed frames: {captured:?}");
        Ok(captured)
    }
}

fn watch(
    socket: &OwnedFd,
    index: usize,
    patterns: &[Vec<u8>],
    stop: &AtomicBool,
) -> Result<Captured> {
    let mut seen = Captured::default();
    let mut buffer = vec![0; 70_000];
    loop {
        // Read the flag first: what arrived before it was set is still looked at.
        let last_round = stop.load(Ordering::Relaxed);
        loop {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    if from.is_some_and(|from| from.ifindex() == index) {
                        look(&buffer[..length], patterns, &mut seen);
                    }
                }
                Err(Errno::EAGAIN) => break,
                // The interface went down; it may come back.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error).context("read from a packet socket"),
            }
        }
        if last_round {
            seen.missed = sys::packet_socket_drops(socket.as_fd())?;
            return Ok(seen);
        }
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(20_u8))?;
    }
}

fn look(frame: &[u8], patterns: &[Vec<u8>], seen: &mut Captured) {
    seen.frames += 1;
    seen.bytes += frame.len() as u64;
    if patterns.iter().any(|pattern| contains(frame, pattern)) {
        seen.matches += 1;
        seen.example.get_or_insert_with(|| {
            frame.iter().take(96).map(|byte| format!("{byte:02x}")).collect()
        });
    }
}

fn contains(frame: &[u8], pattern: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else { return true };
    let mut from = 0;
    while let Some(at) = frame[from..].iter().position(|&byte| byte == first) {
        from += at + 1;
        if frame[from..].starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere() {
        assert!(contains(b"xxabcd", b"abcd"));
        assert!(contains(b"aabcd", b"abcd"));
        assert!(contains(b"abcdxx", b"abcd"));
        assert!(!contains(b"abcabc", b"abcd"));
        assert!(!contains(b"abc", b"abcd"));
    }
}
