//! A socket for trains of datagrams, and the loop around it.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

const SOCKET_BUFFER: usize = 4 << 20;

/// Receives trains (UDP GRO) and sends them (UDP GSO).
#[derive(Debug)]
pub struct Trains {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Room for what one call receives.
#[derive(Debug)]
pub struct Room(Vec<Vec<u8>>);

impl Default for Room {
    fn default() -> Self {
        Self(vec![vec![0; 65_535]; BATCH_SIZE])
    }
}

/// What is known of a train.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// Who sent it, or who is to get it.
    pub other: SocketAddr,
    /// Bytes of each datagram but the last.
    pub stride: usize,
    /// Its congestion mark.
    pub ecn: Option<quinn_udp::EcnCodepoint>,
}

impl Trains {
    /// The most bytes of one send; if a train with its headers does not fit 65,535 bytes, Linux
    /// cuts it in software.
    pub const MAX_BYTES: usize = 65_400;

    /// Opens a socket.
    pub fn open(listen: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(listen).context("listen")?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
        setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    /// The most datagrams of one send.
    pub fn max_datagrams(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends a train. What cannot be sent is lost, as in any network.
    pub fn send(&self, train: Train, datagrams: &[u8]) {
        let _ = self.state.try_send((&self.socket).into(), &transmit(train, datagrams));
    }

    /// Receives some trains and hands them over; false when none waits.
    pub fn receive(&self, room: &mut Room, mut take: impl FnMut(Train, &mut [u8])) -> Result<bool> {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut buffers: Vec<_> = room.0.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = match self.state.recv((&self.socket).into(), &mut buffers, &mut meta) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // The other end is not there yet.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for (buffer, meta) in room.0.iter_mut().zip(&meta[..count]) {
            let train = Train { other: meta.addr, stride: meta.stride.max(1), ecn: meta.ecn };
            take(train, &mut buffer[..meta.len]);
        }
        Ok(true)
    }
}

impl AsRawFd for Trains {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn transmit(train: Train, contents: &[u8]) -> Transmit<'_> {
    Transmit {
        destination: train.other,
        ecn: train.ecn,
        contents,
        segment_size: Some(train.stride).filter(|stride| *stride < contents.len()),
        src_ip: None,
    }
}

/// Calls `ready` with the position of each source that has something, which it is to drain.
pub fn serve(sources: &[RawFd], mut ready: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut poll = Poll::new()?;
    for (at, source) in sources.iter().enumerate() {
        poll.registry().register(&mut SourceFd(source), Token(at), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(8);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            ready(event.token().0)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_arrives_with_its_datagrams() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut room = Room::default();
        let [a, b] = [local, local].map(|local| Trains::open(local).unwrap());
        let to = b.socket.local_addr().unwrap();
        let sent: Vec<u8> = (0..250).collect();
        a.send(Train { other: to, stride: 100, ecn: None }, &sent);
        let mut lens = Vec::new();
        let mut came = Vec::new();
        while came.len() < sent.len() {
            b.receive(&mut room, |train, bytes| {
                assert_eq!(train.other, a.socket.local_addr().unwrap());
                lens.extend(bytes.chunks(train.stride).map(<[u8]>::len));
                came.extend_from_slice(bytes);
            })
            .unwrap();
        }
        assert_eq!((lens, came), (vec![100, 100, 50], sent));
        assert!(!b.receive(&mut room, |_, _| panic!("nothing waits")).unwrap());
    }
}
