//! What any relay in user space has to do, and nothing else: receives trains of datagrams and sends
//! them on as they are. It looks at nothing, keeps nothing, and trusts anybody.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};
use clap::Parser as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

const SOCKET_BUFFER: usize = 4 << 20;

/// Sends what comes from either of two addresses to the other one.
#[derive(clap::Parser)]
struct Options {
    /// Where datagrams are received.
    #[arg(long)]
    listen: SocketAddr,
    /// The two.
    #[arg(long, num_args = 2, required = true)]
    between: Vec<SocketAddr>,
}

fn main() -> Result<()> {
    let Options { listen, between } = Options::parse();
    let socket = UdpSocket::bind(listen).context("listen")?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
    let state = UdpSocketState::new((&socket).into())?;
    let mut poll = Poll::new()?;
    let fd = socket.as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE)?;
    let mut received = vec![vec![0; 65_535]; BATCH_SIZE];
    let mut events = Events::with_capacity(8);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        forward(&socket, &state, &between, &mut received)?;
    }
}

fn forward(
    socket: &UdpSocket,
    state: &UdpSocketState,
    between: &[SocketAddr],
    received: &mut [Vec<u8>],
) -> Result<()> {
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let mut buffers: Vec<_> =
            received.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = match state.recv(socket.into(), &mut buffers, &mut meta) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error.into()),
        };
        for (buffer, meta) in received.iter().zip(&meta[..count]) {
            let Some(destination) = between.iter().find(|end| **end != meta.addr) else { continue };
            let transmit = Transmit {
                destination: *destination,
                ecn: meta.ecn,
                contents: &buffer[..meta.len],
                segment_size: Some(meta.stride).filter(|stride| *stride < meta.len),
                src_ip: None,
            };
            // What cannot be sent is lost, as in any network.
            let _ = state.try_send(socket.into(), &transmit);
        }
    }
}
