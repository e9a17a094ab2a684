//! A UDP socket at a port of one LAN interface: what hosts ask the router itself.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

/// The socket. It never blocks.
#[derive(Debug)]
pub(crate) struct LanServer(UdpSocket);

impl LanServer {
    /// Listens for both families, or for IPv4 alone where there is no IPv6.
    pub(crate) fn open(interface: &str, port: u16) -> anyhow::Result<Self> {
        let both = listen(AddressFamily::Inet6, interface, (Ipv6Addr::UNSPECIFIED, port).into());
        let opened = both.or_else(|_| {
            listen(AddressFamily::Inet, interface, SocketAddr::from(([0, 0, 0, 0], port)))
        });
        let fd = opened.with_context(|| format!("cannot listen at port {port} of {interface}"))?;
        Ok(Self(UdpSocket::from(fd)))
    }

    /// For the poll.
    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The next datagram and its sender; none when there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.0.recv_from(buffer) {
                Ok((len, from)) => return Some((len, from)),
                // What an earlier answer met.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }

    /// Answers. Whoever cannot be answered asks again.
    pub(crate) fn send(&self, packet: &[u8], to: SocketAddr) {
        let _ = self.0.send_to(packet, to);
    }
}

fn listen(family: AddressFamily, interface: &str, at: SocketAddr) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::BindToDevice, &interface.into())?;
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(fd)
}
