//! What any tunnel between a TUN and a UDP socket has to do, and nothing else: cuts super-packets to
//! datagrams, sends those in trains, and puts the super-packets together again.
//!
//! The receiver knows super-packets by their number instead of merging packets that fit each other;
//! what is lost takes the rest of its super-packet along; and there is one peer under fixed keys, or
//! with `--plain` no cipher at all. The difference to a tunnel is what that does on top.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use clap::Parser as _;
use tun_rs::{DeviceBuilder, Layer, VIRTIO_NET_HDR_LEN};
use yardsticks::trains::{Room, Train, Trains, serve};
use yardsticks::{HEADER, Opener, Options, Sealer, TAG};

/// In front of a packet, sealed with it: number of the super-packet (4 bytes), which datagram of how
/// many (2 and 2), length of the headers (2), the offload header.
const NOTE: usize = 10 + VNET;
const VNET: usize = 10;

#[derive(clap::Parser)]
struct Bare {
    #[command(flatten)]
    options: Options,
    /// Seals nothing.
    #[arg(long)]
    plain: bool,
}

fn main() -> Result<()> {
    let Bare { options, plain } = Bare::parse();
    let tun = DeviceBuilder::new().name(&options.tun).layer(Layer::L3).offload(true).build_sync();
    let tun = tun.context("make the TUN device")?;
    tun.set_nonblocking(true)?;
    let mut tun = File::from(tun.as_fd().try_clone_to_owned()?);
    let socket = Trains::open(options.listen)?;
    let (mut sealer, opener) = (Sealer::new(&options.seal)?, Opener::new(&options.open)?);
    let mut outwards = Outwards::new(options.peer);
    let mut inwards = Inwards::default();
    let mut room = Room::default();
    serve(&[tun.as_raw_fd(), socket.as_raw_fd()], |source| {
        if source == 0 {
            let seal = |datagram: &mut [u8]| match plain {
                true => Ok(()),
                false => sealer.seal(datagram),
            };
            return outwards.drain(&mut tun, &socket, seal);
        }
        while socket.receive(&mut room, |train, datagrams| {
            for datagram in datagrams.chunks_mut(train.stride) {
                let opened = match plain {
                    true => datagram.get(HEADER..datagram.len().saturating_sub(TAG)),
                    false => opener.open(datagram).map(|packet| &*packet),
                };
                opened.into_iter().for_each(|packet| inwards.take(packet, &mut tun));
            }
        })? {}
        Ok(())
    })
}

/// From the TUN to the socket.
struct Outwards {
    peer: SocketAddr,
    frame: Vec<u8>,
    /// Of the last super-packet.
    number: u32,
    train: Vec<u8>,
    stride: usize,
}

impl Outwards {
    fn new(peer: SocketAddr) -> Self {
        let frame = vec![0; VIRTIO_NET_HDR_LEN + 65_535];
        Self { peer, frame, number: 0, train: Vec::with_capacity(Trains::MAX_BYTES), stride: 0 }
    }

    fn drain(
        &mut self,
        tun: &mut File,
        socket: &Trains,
        mut seal: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            match tun.read(&mut self.frame) {
                Ok(len) => self.cut(len, socket, &mut seal)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !self.train.is_empty() {
            send(socket, self.peer, self.stride, &mut self.train);
        }
        Ok(())
    }

    fn cut(
        &mut self,
        len: usize,
        socket: &Trains,
        mut seal: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let (vnet, packet) =
            self.frame[..len].split_at_checked(VIRTIO_NET_HDR_LEN).context("a short frame")?;
        let headers = headers_len(vnet, packet).min(packet.len());
        let (headers, payload) = packet.split_at(headers);
        let word = |at: usize| usize::from(u16::from_le_bytes([vnet[at], vnet[at + 1]]));
        let most = if vnet[1] == 0 { payload.len() } else { word(4) }.max(1);
        let count = payload.len().div_ceil(most).max(1);
        self.number = self.number.wrapping_add(1);
        let mut note = [0; NOTE];
        note[..4].copy_from_slice(&self.number.to_be_bytes());
        note[6..8].copy_from_slice(&(count as u16).to_be_bytes());
        note[8..10].copy_from_slice(&(headers.len() as u16).to_be_bytes());
        note[10..].copy_from_slice(&vnet[..VNET]);
        for index in 0..count {
            let piece = &payload[index * most..payload.len().min((index + 1) * most)];
            note[4..6].copy_from_slice(&(index as u16).to_be_bytes());
            let len = HEADER + NOTE + headers.len() + piece.len() + TAG;
            let begun = self.train.len();
            if begun > 0
                && (len > self.stride
                    || !begun.is_multiple_of(self.stride)
                    || begun + len > Trains::MAX_BYTES
                    || begun / self.stride == socket.max_datagrams())
            {
                send(socket, self.peer, self.stride, &mut self.train);
            }
            if self.train.is_empty() {
                self.stride = len;
            }
            let begun = self.train.len();
            self.train.extend_from_slice(&[0; HEADER]);
            for part in [&note, headers, piece, &[0; TAG]] {
                self.train.extend_from_slice(part);
            }
            seal(&mut self.train[begun..])?;
        }
        Ok(())
    }
}

fn send(socket: &Trains, other: SocketAddr, stride: usize, train: &mut Vec<u8>) {
    socket.send(Train { other, stride, ecn: None }, train);
    train.clear();
}

/// Up to the payload of a super-packet; none where nothing is cut.
fn headers_len(vnet: &[u8], packet: &[u8]) -> usize {
    let start = usize::from(u16::from_le_bytes([vnet[6], vnet[7]]));
    match vnet[1] & 0x7f {
        0 => 0,
        5 => start + 8,
        _ => start + packet.get(start + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
    }
}

/// From the socket to the TUN.
#[derive(Default)]
struct Inwards {
    /// Offload header and packet, as far as they came.
    frame: Vec<u8>,
    number: u32,
    /// How many datagrams of it came.
    came: u16,
}

impl Inwards {
    fn take(&mut self, opened: &[u8], tun: &mut File) {
        let Some((note, packet)) = opened.split_at_checked(NOTE) else { return };
        let word = |at: usize| u16::from_be_bytes([note[at], note[at + 1]]);
        let number = u32::from_be_bytes([note[0], note[1], note[2], note[3]]);
        if word(4) == 0 {
            self.frame.clear();
            self.frame.extend_from_slice(&note[10..10 + VNET]);
            self.frame.resize(VIRTIO_NET_HDR_LEN, 0);
            self.frame.extend_from_slice(packet);
            (self.number, self.came) = (number, 1);
        } else if (number, word(4)) == (self.number, self.came) {
            self.frame.extend_from_slice(packet.get(usize::from(word(8))..).unwrap_or_default());
            self.came += 1;
        } else {
            return;
        }
        if self.came == word(6) {
            // The kernel refuses packets while the device is not up.
            let _ = tun.write(&self.frame);
        }
    }
}
