//! What any relay in user space has to do, and nothing else: receives trains of datagrams and sends
//! them on as they are. It looks at nothing, keeps nothing, and trusts anybody.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use clap::Parser as _;
use yardsticks::trains::{Room, Train, Trains, serve};

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
    let socket = Trains::open(listen)?;
    let mut room = Room::default();
    let forward = |train: Train, datagrams: &mut [u8]| {
        if let Some(&other) = between.iter().find(|end| **end != train.other) {
            socket.send(Train { other, ..train }, datagrams);
        }
    };
    serve(&[socket.as_raw_fd()], |_| {
        while socket.receive(&mut room, forward)? {}
        Ok(())
    })
}
