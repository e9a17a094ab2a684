//! A tunnel as one first writes it: read a packet, seal it, send it; receive one, open it, write it.

use std::io;
use std::net::UdpSocket;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser as _;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};
use yardsticks::{HEADER, Opener, Options, Sealer, TAG};

/// More than any packet is long.
const ROOM: usize = 2_048;

fn main() -> Result<()> {
    let options = Options::parse();
    let tun = DeviceBuilder::new().name(&options.tun).layer(Layer::L3).build_sync();
    let tun = tun.context("make the TUN device")?;
    let socket = UdpSocket::bind(options.listen).context("listen")?;
    socket.connect(options.peer)?;
    let mut sealer = Sealer::new(&options.seal)?;
    let opener = Opener::new(&options.open)?;
    thread::scope(|scope| {
        let out = scope.spawn(|| outwards(&tun, &socket, &mut sealer));
        inwards(&tun, &socket, &opener)?;
        out.join().unwrap_or(Ok(()))
    })
}

fn outwards(tun: &SyncDevice, socket: &UdpSocket, sealer: &mut Sealer) -> Result<()> {
    let mut datagram = [0; ROOM];
    loop {
        let len = tun.recv(&mut datagram[HEADER..ROOM - TAG])?;
        let datagram = &mut datagram[..HEADER + len + TAG];
        sealer.seal(datagram)?;
        // What cannot be sent is lost, as in any network.
        let _ = socket.send(datagram);
    }
}

fn inwards(tun: &SyncDevice, socket: &UdpSocket, opener: &Opener) -> Result<()> {
    let mut datagram = [0; ROOM];
    loop {
        let len = match socket.recv(&mut datagram) {
            Ok(len) => len,
            // The other end is not there yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error.into()),
        };
        if let Some(packet) = opener.open(&mut datagram[..len]) {
            let _ = tun.send(packet);
        }
    }
}
