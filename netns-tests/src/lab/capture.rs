//! Watching the underlay for bytes that must not be there, and tampering with it as an attacker.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvfrom,
    setsockopt, socket, sockopt,
};

use super::netns::Netns;
use super::{clock, sys};

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
        let (socket, index) = open(netns, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Captured::default();
            watch(&socket, index, |frame| {
                look(frame, &patterns, &mut seen);
                stopped.load(Ordering::Relaxed)
            })?;
            seen.missed = sys::packet_socket_drops(socket.as_fd())?;
            Ok(seen)
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

/// A packet socket that sees all frames of a namespace, and the interface's index there.
fn open(netns: &Netns, interface: &str) -> Result<(OwnedFd, usize)> {
    netns.within(|| {
        let index = if_nametoindex(interface)
            .with_context(|| format!("no interface {interface} in {}", netns.name()))?;
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)
            .context("open a packet socket")?;
        // Allowed only to true root; a user namespace lives with the ordinary limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        }
        Ok((socket, index as usize))
    })
}

/// Shows every frame of the interface to `look`, and at least every 20 ms nothing at all (an empty
/// frame), until it returns true. What has arrived by then is still shown.
fn watch(socket: &OwnedFd, index: usize, mut look: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let mut buffer = vec![0; 70_000];
    loop {
        let last_round = look(&[]);
        loop {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    if from.is_some_and(|from| from.ifindex() == index) {
                        look(&buffer[..length]);
                    }
                }
                Err(Errno::EAGAIN) => break,
                // The interface went down; it may come back.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error).context("read from a packet socket"),
            }
        }
        if last_round {
            return Ok(());
        }
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(20_u8))?;
    }
}

/// A UDP datagram seen on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom it is for.
    pub to: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A running record of single UDP datagrams to one port.
#[derive(Debug)]
pub struct Recording {
    socket: OwnedFd,
    index: usize,
    port: u16,
}

impl Recording {
    /// Starts to record on a TUN interface (frames without link header).
    pub fn start(netns: &Netns, interface: &str, port: u16) -> Result<Self> {
        let (socket, index) = open(netns, interface)?;
        Ok(Self { socket, index, port })
    }

    /// The datagrams up to now, the latest last, and those that still come until there are `count`
    /// of them; at most for `limit`.
    pub fn collect(&self, count: usize, limit: Duration) -> Result<Vec<Datagram>> {
        let start = clock::now();
        let mut found = Vec::new();
        watch(&self.socket, self.index, |frame| {
            found.extend(parse_udp(frame).filter(|datagram| datagram.to.port() == self.port));
            found.len() >= count || start.elapsed() > limit
        })?;
        ensure!(found.len() >= count, "{} of {count} datagrams within {limit:?}", found.len());
        Ok(found)
    }
}

/// Sends a datagram from within `netns` with any IPv4 source address, as an attacker would.
pub fn inject(netns: &Netns, datagram: &Datagram) -> Result<()> {
    netns.within(|| {
        ensure!(datagram.from.is_ipv4(), "only IPv4 sources can be forged here");
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
        let socket = UdpSocket::from(socket);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(datagram.from))?;
        socket.send_to(&datagram.payload, datagram.to)?;
        Ok(())
    })
}

/// A whole UDP datagram from an IP packet without options or extension headers.
fn parse_udp(packet: &[u8]) -> Option<Datagram> {
    let (from, to, udp): (IpAddr, IpAddr, &[u8]) = match packet.first()? {
        0x45 if packet.get(9) == Some(&17) => {
            let from = <[u8; 4]>::try_from(packet.get(12..16)?).ok()?;
            let to = <[u8; 4]>::try_from(packet.get(16..20)?).ok()?;
            (from.into(), to.into(), packet.get(20..)?)
        }
        0x60..=0x6f if packet.get(6) == Some(&17) => {
            let from = <[u8; 16]>::try_from(packet.get(8..24)?).ok()?;
            let to = <[u8; 16]>::try_from(packet.get(24..40)?).ok()?;
            (from.into(), to.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*udp.get(at..)?.first_chunk()?));
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    let payload = udp.get(8..usize::from(port(4)?))?.to_vec();
    Some(Datagram { from, to, payload })
}

fn look(frame: &[u8], patterns: &[Vec<u8>], seen: &mut Captured) {
    if frame.is_empty() {
        return;
    }
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
    fn datagrams_are_cut_out_of_packets() {
        let mut packet = vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend_from_slice(&[192, 0, 2, 9, 192, 0, 2, 17]);
        packet.extend_from_slice(&[0x12, 0x66, 0x12, 0x66, 0, 11, 0, 0, b'a', b'b', b'c']);
        let datagram = parse_udp(&packet).unwrap();
        assert_eq!(datagram.from, "192.0.2.9:4710".parse().unwrap());
        assert_eq!(datagram.to, "192.0.2.17:4710".parse().unwrap());
        assert_eq!(datagram.payload, b"abc");
        assert_eq!(parse_udp(&packet[..30]), None);
        packet[9] = 6;
        assert_eq!(parse_udp(&packet), None);
        assert_eq!(parse_udp(&[]), None);
    }

    #[test]
    fn a_pattern_is_found_anywhere() {
        assert!(contains(b"xxabcd", b"abcd"));
        assert!(contains(b"aabcd", b"abcd"));
        assert!(contains(b"abcdxx", b"abcd"));
        assert!(!contains(b"abcabc", b"abcd"));
        assert!(!contains(b"abc", b"abcd"));
    }
}
