//! A tunnel from well-kept crates with all the offloads they offer: tun-rs splits and merges
//! super-packets, quinn-udp sends and receives trains of datagrams, one mio loop joins them.
//!
//! As one first joins them, what one read of the TUN gave leaves in one send. With `--tuned` trains run
//! on across the reads of a turn.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};
use clap::Parser as _;
use tun_rs::{DeviceBuilder, GROTable, IDEAL_BATCH_SIZE, Layer, SyncDevice, VIRTIO_NET_HDR_LEN};
use yardsticks::trains::{Room, Train, Trains, serve};
use yardsticks::{HEADER, OVERHEAD, Opener, Options, Sealer, TAG};

/// Room for a packet of the usual size.
const PACKET: usize = 2_048;

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
    let socket = Trains::open(options.listen)?;
    let sealer = Sealer::new(&options.seal)?;
    let mut outwards = Outwards::new(sealer, options.peer, tuned);
    let mut inwards = Inwards::new(Opener::new(&options.open)?);
    serve(&[tun.as_raw_fd(), socket.as_raw_fd()], |source| match source {
        0 => outwards.drain(&tun, &socket),
        _ => inwards.drain(&tun, &socket),
    })
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
            train: Vec::with_capacity(Trains::MAX_BYTES),
            segment: 0,
        }
    }

    fn drain(&mut self, tun: &SyncDevice, socket: &Trains) -> Result<()> {
        loop {
            let read = tun.recv_multiple(&mut self.frame, &mut self.packets, &mut self.sizes, 0);
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            for at in 0..count {
                self.push(at, socket)?;
            }
            if !self.across_reads {
                self.flush(socket);
            }
        }
        self.flush(socket);
        Ok(())
    }

    /// Seals a packet behind the others, which leave first where it does not fit them.
    fn push(&mut self, at: usize, socket: &Trains) -> Result<()> {
        let len = self.sizes[at] + OVERHEAD;
        let begun = self.train.len();
        let ends = begun > 0
            && (len > self.segment
                || !begun.is_multiple_of(self.segment)
                || begun / self.segment == socket.max_datagrams()
                || begun + len > Trains::MAX_BYTES);
        if ends {
            self.flush(socket);
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

    fn flush(&mut self, socket: &Trains) {
        if self.train.is_empty() {
            return;
        }
        socket.send(Train { other: self.peer, stride: self.segment, ecn: None }, &self.train);
        self.train.clear();
    }
}

/// From the socket to the TUN.
struct Inwards {
    opener: Opener,
    room: Room,
    /// Packets behind room for the header of a super-packet, and room to merge others into them.
    packets: Vec<Vec<u8>>,
    merge: GROTable,
}

impl Inwards {
    fn new(opener: Opener) -> Self {
        let room = || Vec::with_capacity(2 * VIRTIO_NET_HDR_LEN + 65_535);
        Self {
            opener,
            room: Room::default(),
            packets: (0..IDEAL_BATCH_SIZE).map(|_| room()).collect(),
            merge: GROTable::new(),
        }
    }

    fn drain(&mut self, tun: &SyncDevice, socket: &Trains) -> Result<()> {
        let Self { opener, room, packets, merge } = self;
        let mut waiting = 0;
        while socket.receive(room, |train, datagrams| {
            for datagram in datagrams.chunks_mut(train.stride) {
                let Some(packet) = opener.open(datagram) else { continue };
                let slot = &mut packets[waiting];
                slot.clear();
                slot.resize(VIRTIO_NET_HDR_LEN, 0);
                slot.extend_from_slice(packet);
                waiting += 1;
                if waiting == packets.len() {
                    write(tun, merge, packets);
                    waiting = 0;
                }
            }
        })? {
            write(tun, merge, &mut packets[..waiting]);
            waiting = 0;
        }
        Ok(())
    }
}

fn write(tun: &SyncDevice, merge: &mut GROTable, packets: &mut [Vec<u8>]) {
    // The kernel refuses packets while the device is not up.
    let _ = tun.send_multiple(merge, packets, VIRTIO_NET_HDR_LEN);
}
