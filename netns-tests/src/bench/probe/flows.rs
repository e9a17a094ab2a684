//! Many flows from one host: TCP connections that are begun, and single datagrams of many ports.
//!
//! Packets are made here and sent through raw sockets, from addresses that the host does not have,
//! so that the host's own TCP and the number of its ports limit nothing.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

use super::{LISTENING, SINK_BUFFER, tell};
use crate::lab::clock;
use crate::wan::checksum;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const HEADERS: usize = 40;
/// Flows of one address, within the limits that gateways have for one host.
const PER_ADDRESS: u32 = 4_096;
const FIRST_PORT: u16 = 10_000;
/// Connections that wait for their answer at one time.
const WINDOW: u32 = 256;
/// With no answer for so long, what is waited for is lost.
const PATIENCE_MS: u8 = 100;
/// A spread sends what is due this often.
const PACE: Duration = Duration::from_millis(1);

/// TCP connections that were begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connects {
    /// Those that were answered.
    pub answered: u32,
    /// Those that were not.
    pub lost: u32,
    /// Seconds for all.
    pub seconds: f64,
}

impl Connects {
    /// Answered connections in a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { f64::from(self.answered) / self.seconds } else { 0.0 }
    }
}

fn raw() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw);
    let raw = raw.context("open a raw socket")?;
    setsockopt(&raw, sockopt::SndBuf, &(1 << 20))?;
    Ok(raw)
}

/// A socket that sees every IPv4 packet that arrives, before the kernel judges it.
fn ear() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ear = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthIp);
    let ear = ear.context("open a packet socket")?;
    let forced = setsockopt(&ear, sockopt::RcvBufForce, &SINK_BUFFER);
    forced.or_else(|_| setsockopt(&ear, sockopt::RcvBuf, &SINK_BUFFER))?;
    Ok(ear)
}

/// The source of flow `number`: addresses from `first` on, some thousand ports of each.
fn source(first: Ipv4Addr, number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(first.to_bits().wrapping_add(number / PER_ADDRESS));
    SocketAddrV4::new(address, FIRST_PORT + (number % PER_ADDRESS) as u16)
}

/// The number of the flow whose source this is.
fn number(first: Ipv4Addr, source: SocketAddrV4) -> Option<u32> {
    let address = source.ip().to_bits().checked_sub(first.to_bits())?;
    let port = source.port().checked_sub(FIRST_PORT)?;
    let port = u32::from(port);
    (port < PER_ADDRESS).then(|| address.checked_mul(PER_ADDRESS)?.checked_add(port))?
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?))
}

fn port(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk::<2>()?))
}

/// Source, destination, TCP flags and sequence number of an IPv4 packet without options.
fn parse(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, u8, u32)> {
    if *packet.first()? != 0x45 || *packet.get(9)? != TCP {
        return None;
    }
    let source = SocketAddrV4::new(address(packet, 12)?, port(packet, 20)?);
    let destination = SocketAddrV4::new(address(packet, 16)?, port(packet, 22)?);
    let sequence = u32::from_be_bytes(*packet.get(24..)?.first_chunk::<4>()?);
    Some((source, destination, *packet.get(33)? & 0x3f, sequence))
}

fn ipv4(protocol: u8, source: SocketAddrV4, destination: SocketAddrV4, upper: &[u8]) -> Vec<u8> {
    let total = (20 + upper.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&source.ip().octets());
    packet.extend_from_slice(&destination.ip().octets());
    packet.extend_from_slice(upper);
    packet[20..22].copy_from_slice(&source.port().to_be_bytes());
    packet[22..24].copy_from_slice(&destination.port().to_be_bytes());
    checksum::write_ipv4(&mut packet);
    checksum::write_transport(&mut packet, 20, protocol);
    packet
}

fn tcp(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
) -> Vec<u8> {
    let mut upper = [0; 20];
    upper[4..8].copy_from_slice(&sequence.to_be_bytes());
    upper[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    (upper[12], upper[13]) = (0x50, flags);
    upper[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    ipv4(TCP, source, destination, &upper)
}

fn send(raw: &OwnedFd, packet: &[u8], to: SocketAddrV4) -> bool {
    // The port means nothing to a raw socket.
    let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
    sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).is_ok()
}

/// The next packet that is there already.
fn hear<'b>(ear: &OwnedFd, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
    loop {
        match recv(ear.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(len) => return Ok(Some(&buffer[..len])),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
}

/// Answers every SYN for `at`, until it is killed.
pub fn accept(at: SocketAddrV4) -> Result<()> {
    let (raw, ear) = (raw()?, ear()?);
    writeln!(io::stdout(), "{LISTENING}")?;
    io::stdout().flush()?;
    let mut buffer = [0; 2_048];
    loop {
        poll(&mut [PollFd::new(ear.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        while let Some(packet) = hear(&ear, &mut buffer)? {
            if let Some((source, destination, SYN, sequence)) = parse(packet)
                && destination == at
            {
                let answer = tcp(at, source, SYN | ACK, 1, sequence.wrapping_add(1));
                send(&raw, &answer, source);
            }
        }
    }
}

/// Begins `count` connections, a bounded number at a time, and counts the answers.
pub fn connect(from: Ipv4Addr, to: SocketAddrV4, count: u32) -> Result<()> {
    let (raw, ear) = (raw()?, ear()?);
    let mut answered = vec![false; count as usize];
    let (mut sent, mut given_up, mut result) = (0, 0, Connects::default());
    let mut buffer = [0; HEADERS + 64];
    let start = clock::now();
    let mut last = start;
    while result.answered + result.lost < count {
        while sent < count && sent - result.answered - result.lost < WINDOW {
            let own = source(from, sent);
            send(&raw, &tcp(own, to, SYN, sent, 0), to);
            sent += 1;
        }
        let ready = poll(
            &mut [PollFd::new(ear.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(PATIENCE_MS),
        )?;
        if ready == 0 {
            result.lost = sent - result.answered;
            given_up = sent;
        }
        while let Some(packet) = hear(&ear, &mut buffer)? {
            let Some((server, own, flags, _)) = parse(packet) else { continue };
            let Some(at) = number(from, own).filter(|&at| at >= given_up && at < sent) else {
                continue;
            };
            if server == to && flags == SYN | ACK && !answered[at as usize] {
                answered[at as usize] = true;
                result.answered += 1;
                last = clock::now();
            }
        }
    }
    result.seconds = last.duration_since(start).as_secs_f64();
    tell(&result)
}

/// Sends one small datagram from each of `count` sources, `rate` of them a second.
pub fn spread(from: Ipv4Addr, to: SocketAddrV4, count: u32, rate: u32) -> Result<()> {
    let raw = raw()?;
    let start = clock::now();
    let mut sent = 0;
    while sent < count {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while sent < due.min(count) {
            let mut upper = [0; 16];
            upper[5] = upper.len() as u8;
            let own = source(from, sent);
            send(&raw, &ipv4(UDP, own, to, &upper), to);
            sent += 1;
        }
        sleep(PACE);
    }
    let seconds = start.elapsed().as_secs_f64();
    tell(&super::Counted { packets: u64::from(sent), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_a_source_of_its_own() {
        let first = Ipv4Addr::new(10, 1, 0, 128);
        for at in [0, 1, PER_ADDRESS - 1, PER_ADDRESS, 99_999] {
            assert_eq!(number(first, source(first, at)), Some(at));
        }
        assert_eq!(source(first, PER_ADDRESS).ip(), &Ipv4Addr::new(10, 1, 0, 129));
        assert_eq!(number(first, SocketAddrV4::new(first, FIRST_PORT - 1)), None);
        assert_eq!(number(first, SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 11), 10_000)), None);
    }

    #[test]
    fn a_syn_is_read_as_it_was_made_and_has_right_checksums() {
        let source = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 128), 10_007);
        let server = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 80);
        let packet = tcp(source, server, SYN, 77, 0);
        assert_eq!(parse(&packet), Some((source, server, SYN, 77)));
        assert_eq!(packet.len(), HEADERS);
        assert_eq!(checksum::sum(&packet[..20], 0), 0xffff);
        let pseudo = checksum::pseudo_header(&packet, TCP, 20);
        assert_eq!(checksum::sum(&packet[20..], pseudo), 0xffff);
        assert_eq!(parse(&packet[..30]), None);
    }
}
