//! A tunnel from well-kept crates with all the offloads they offer: tun-rs splits and merges
//! super-packets, quinn-udp sends and receives trains of datagrams, one mio loop joins them.
//!
//! As one first joins them, what one read of the TUN gave leaves in one send. With `--tuned` trains run
//! on across the reads of a turn.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};
use clap::Parser as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tun_rs::{DeviceBuilder, GROTable, IDEAL_BATCH_SIZE, Layer, SyncDevice, VIRTIO_NET_HDR_LEN};
use yardsticks::{HEADER, OVERHEAD, Opener, Options, Sealer, TAG};

const TUN: Token = Token(0);
const SOCKET: Token = Token(1);
/// Room for a packet of the usual size.
const PACKET: usize = 2_048;
/// The most that one UDP send takes; if a train with its headers does not fit 65,535 bytes, Linux cuts
/// it in software.
const DATAGRAMS: usize = 65_400;
const SOCKET_BUFFER: usize = 4 << 20;

#[derive(clap::Parser)]
struct Stock {
    #[command(flatten)]
    options: Options,
    /// Lets trains run across reads of the TUN.
    #[arg(long)]
    tuned: bool,
}

fn main() -> Result<()> {
    let Stock { options, tuned } = Stock::parse();
    let tun = DeviceBuilder::new().name(&options.tun).layer(Layer::L3).offload(true).build_sync();
    let tun = tun.context("make the TUN device")?;
    tun.set_nonblocking(true)?;
    let socket = UdpSocket::bind(options.listen).context("listen")?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
    let state = UdpSocketState::new((&socket).into())?;

    let mut poll = Poll::new()?;
    for (fd, token) in [(tun.as_raw_fd(), TUN), (socket.as_raw_fd(), SOCKET)] {
        poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
    }
    let sealer = Sealer::new(&options.seal)?;
    let mut outwards = Outwards::new(sealer, options.peer, tuned);
    let mut inwards = Inwards::new(Opener::new(&options.open)?);
    let mut events = Events::with_capacity(8);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                TUN => outwards.drain(&tun, &socket, &state)?,
                _ => inwards.drain(&tun, &socket, &state)?,
            }
        }
    }
}

/// From the TUN to the socket.
struct Outwards {
    sealer: Sealer,
    peer: SocketAddr,
    across_reads: bool,
    frame: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    /// Datagrams of `segment` bytes, the last one perhaps shorter.
    train: Vec<u8>,
    segment: usize,
}

impl Outwards {
    fn new(sealer: Sealer, peer: SocketAddr, across_reads: bool) -> Self {
        Self {
            sealer,
            peer,
            across_reads,
            frame: vec![0; VIRTIO_NET_HDR_LEN + 65_535],
            packets: vec![vec![0; PACKET]; IDEAL_BATCH_SIZE],
            sizes: vec![0; IDEAL_BATCH_SIZE],
            train: Vec::with_capacity(DATAGRAMS),
            segment: 0,
        }
    }

    fn drain(
        &mut self,
        tun: &SyncDevice,
        socket: &UdpSocket,
        state: &UdpSocketState,
    ) -> Result<()> {
        loop {
            let read = tun.recv_multiple(&mut self.frame, &mut self.packets, &mut self.sizes, 0);
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            for at in 0..count {
                self.push(at, socket, state)?;
            }
            if !self.across_reads {
                self.flush(socket, state);
            }
        }
        self.flush(socket, state);
        Ok(())
    }

    /// Seals a packet behind the others, which leave first where it does not fit them.
    fn push(&mut self, at: usize, socket: &UdpSocket, state: &UdpSocketState) -> Result<()> {
        let len = self.sizes[at] + OVERHEAD;
        let begun = self.train.len();
        let ends = begun > 0
            && (len > self.segment
                || !begun.is_multiple_of(self.segment)
                || begun / self.segment == state.max_gso_segments()
                || begun + len > DATAGRAMS);
        if ends {
            self.flush(socket, state);
        }
        let begun = self.train.len();
        if begun == 0 {
            self.segment = len;
        }
        self.train.extend_from_slice(&[0; HEADER]);
        self.train.extend_from_slice(&self.packets[at][..self.sizes[at]]);
        self.train.extend_from_slice(&[0; TAG]);
        self.sealer.seal(&mut self.train[begun..])
    }

    fn flush(&mut self, socket: &UdpSocket, state: &UdpSocketState) {
        if self.train.is_empty() {
            return;
        }
        let transmit = Transmit {
            destination: self.peer,
            ecn: None,
            contents: &self.train,
            segment_size: Some(self.segment),
            src_ip: None,
        };
        // What cannot be sent is lost, as in any network.
        let _ = state.try_send(socket.into(), &transmit);
        self.train.clear();
    }
}

/// From the socket to the TUN.
struct Inwards {
    opener: Opener,
    received: Vec<Vec<u8>>,
    /// Packets behind room for the header of a super-packet, and room to merge others into them.
    packets: Vec<Vec<u8>>,
    merge: GROTable,
}

impl Inwards {
    fn new(opener: Opener) -> Self {
        let room = || Vec::with_capacity(2 * VIRTIO_NET_HDR_LEN + 65_535);
        Self {
            opener,
            received: vec![vec![0; 65_535]; BATCH_SIZE],
            packets: (0..IDEAL_BATCH_SIZE).map(|_| room()).collect(),
            merge: GROTable::new(),
        }
    }

    fn drain(
        &mut self,
        tun: &SyncDevice,
        socket: &UdpSocket,
        state: &UdpSocketState,
    ) -> Result<()> {
        let Self { opener, received, packets, merge } = self;
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let mut buffers: Vec<_> =
                received.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let count = match state.recv(socket.into(), &mut buffers, &mut meta) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The other end is not there yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            let mut waiting = 0;
            for (buffer, meta) in received.iter_mut().zip(&meta[..count]) {
                for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                    let Some(packet) = opener.open(datagram) else { continue };
                    let slot = &mut packets[waiting];
                    slot.clear();
                    slot.resize(VIRTIO_NET_HDR_LEN, 0);
                    slot.extend_from_slice(packet);
                    waiting += 1;
                    if waiting == packets.len() {
                        write(tun, merge, &mut packets[..waiting]);
                        waiting = 0;
                    }
                }
            }
            write(tun, merge, &mut packets[..waiting]);
        }
    }
}

fn write(tun: &SyncDevice, merge: &mut GROTable, packets: &mut [Vec<u8>]) {
    // The kernel refuses packets while the device is not up.
    let _ = tun.send_multiple(merge, packets, VIRTIO_NET_HDR_LEN);
}
