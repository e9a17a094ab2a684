//! One UDP socket for each uplink.
//!
//! Receiving takes many datagrams per system call (`recvmmsg`, UDP GRO), sending one train of equal
//! datagrams (UDP GSO). The kernel is told never to fragment and never to believe an ICMP message
//! about the path's MTU (`IP_PMTUDISC_PROBE`, RFC 8899).

mod message;
mod rest;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context as _, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use message::{Received, Receiver};
use rest::Rest;

use crate::batch::TxBatch;
use crate::telemetry::{DropReason, Tally};

/// What each socket may hold in each direction: some 30 ms at 1 Gbit/s, twice for bookkeeping.
const SOCKET_BUFFER: usize = 8 << 20;

/// An open uplink.
pub(crate) struct UnderlaySocket {
    socket: Socket,
    local: SocketAddr,
    gso: bool,
    rest: Rest,
    /// What had to wait and was not told yet.
    waited: Tally,
    /// [`message::send`], but in tests.
    send: Send,
}

/// Destination, type of service, datagrams, and the length at which the kernel is to cut them.
type Send = fn(RawFd, SocketAddr, u8, &[u8], Option<u16>) -> io::Result<()>;

impl UnderlaySocket {
    /// Binds to `local` on the interface `interface`. Without `gso` the kernel is never asked to
    /// cut trains: some versions damage one whose last datagram is as long as the others.
    pub(crate) fn open(interface: &str, local: SocketAddr, gso: bool) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))
            .context("cannot create a UDP socket")?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ENODEV) => anyhow!("there is no interface `{interface}`"),
                Some(libc::EPERM) => anyhow!(
                    "binding to the interface `{interface}` is not permitted: \
                     run as root or with CAP_NET_RAW"
                ),
                _ => anyhow!(error).context(format!("cannot bind to interface `{interface}`")),
            }
        })?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_buffers(&socket);
        set_options(&socket, local.is_ipv6()).context("cannot set socket options")?;
        socket.bind(&local.into()).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                anyhow!("UDP port {} of {} is taken by another program", local.port(), local.ip())
            }
            Some(libc::EADDRNOTAVAIL) => {
                anyhow!("the address {} is not on the interface `{interface}`", local.ip())
            }
            _ => anyhow!(error).context(format!("cannot bind to {local}")),
        })?;
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        Ok(Self {
            socket,
            local,
            gso,
            rest: Rest::new(),
            waited: Tally::default(),
            send: message::send,
        })
    }

    /// Address and port.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// For the poll, and for [`Receiver::receive`].
    pub(crate) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// True while something waits for room in the socket: it is to be watched for that, and then
    /// [`Self::send_rest`] to be called.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Sends what waits, as far as there is room. Says how much of it the kernel refused.
    pub(crate) fn send_rest(&mut self) -> Result<(), (DropReason, u64)> {
        let mut rest = std::mem::replace(&mut self.rest, Rest::EMPTY);
        let mut refused = None;
        rest.drain(|destination, tos, bytes, stride| {
            let (done, lost) = self.send_now(destination, tos, bytes, stride);
            refused = sum(refused, lost);
            done
        });
        self.rest = rest;
        refused.map_or(Ok(()), Err)
    }

    /// How many datagrams wait: they are lost when the socket is closed.
    pub(crate) fn rest(&self) -> u64 {
        self.rest.datagrams()
    }

    /// Takes the number of datagrams and bytes that had to wait since the last call.
    pub(crate) fn take_waited(&mut self) -> Tally {
        std::mem::take(&mut self.waited)
    }

    /// Sends datagrams of `stride` bytes each, the last one may be shorter. What the socket has no
    /// room for waits, up to a bound, and so does all that follows it. Says how many datagrams were
    /// refused, and why; the others left or wait.
    pub(crate) fn send(
        &mut self,
        destination: SocketAddr,
        tos: u8,
        bytes: &[u8],
        stride: usize,
    ) -> Result<(), (DropReason, u64)> {
        if destination.is_ipv6() != self.local.is_ipv6() || stride == 0 {
            return Err((DropReason::UnderlaySend, bytes.len().div_ceil(stride.max(1)) as u64));
        }
        let (done, mut refused) = match self.has_rest() {
            true => (0, None),
            false => self.send_now(destination, tos, bytes, stride),
        };
        let rest = &bytes[done..];
        if !rest.is_empty() {
            let count = rest.len().div_ceil(stride) as u64;
            if self.rest.keep(destination, tos, rest, stride) {
                self.waited.add(count, rest.len() as u64);
            } else {
                refused = sum(refused, Some((DropReason::UnderlayBusy, count)));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends until there is no room: of how many bytes it is rid, and what was refused of them.
    fn send_now(
        &mut self,
        destination: SocketAddr,
        tos: u8,
        bytes: &[u8],
        stride: usize,
    ) -> (usize, Option<Refused>) {
        let (mut done, mut refused) = (0, None);
        for train in bytes.chunks(stride * TxBatch::MAX_SEGMENTS) {
            let (sent, lost) = self.send_train(destination, tos, train, stride);
            done += sent;
            refused = sum(refused, lost);
            if sent < train.len() {
                break;
            }
        }
        (done, refused)
    }

    fn send_train(
        &mut self,
        destination: SocketAddr,
        tos: u8,
        train: &[u8],
        stride: usize,
    ) -> (usize, Option<Refused>) {
        let count = train.len().div_ceil(stride) as u64;
        let segment = (self.gso && count > 1).then_some(stride as u16);
        if count > 1 && segment.is_none() {
            return self.send_singly(destination, tos, train, stride);
        }
        match (self.send)(self.raw(), destination, tos, train, segment) {
            Ok(()) => (train.len(), None),
            // A device without checksum offload cannot segment for us (EIO); EINVAL has several
            // causes, so GSO is given up only if the datagrams leave one by one.
            Err(error)
                if segment.is_some()
                    && matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) =>
            {
                let result = self.send_singly(destination, tos, train, stride);
                if result.1.is_none() {
                    self.gso = false;
                    log::warn!(
                        "{}: the kernel does not segment here ({error}); sending datagrams singly",
                        self.local
                    );
                }
                result
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, None),
            Err(error) => (train.len(), Some((reason_for(&error), count))),
        }
    }

    fn send_singly(
        &self,
        destination: SocketAddr,
        tos: u8,
        train: &[u8],
        stride: usize,
    ) -> (usize, Option<Refused>) {
        let (mut done, mut refused) = (0, None);
        for datagram in train.chunks(stride) {
            match (self.send)(self.raw(), destination, tos, datagram, None) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => refused = sum(refused, Some((reason_for(&error), 1))),
                Ok(()) => {}
            }
            done += datagram.len();
        }
        (done, refused)
    }
}

/// Datagrams that the kernel did not take, and why the last of them.
type Refused = (DropReason, u64);

fn sum(before: Option<Refused>, more: Option<Refused>) -> Option<Refused> {
    let Some((reason, count)) = more else { return before };
    Some((reason, count + before.map_or(0, |(_, count)| count)))
}

fn reason_for(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::ENOMEM) => DropReason::UnderlayBusy,
        Some(libc::EMSGSIZE) => DropReason::UnderlayTooBig,
        _ => DropReason::UnderlaySend,
    }
}

/// Big buffers if we may, the host's limit otherwise.
fn set_buffers(socket: &Socket) {
    let size = SOCKET_BUFFER as libc::c_int;
    for (force, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if message::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, force, size).is_err()
            && let Err(error) =
                message::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, plain, size)
        {
            log::debug!("socket buffers stay small: {error}");
        }
    }
}

fn set_options(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if ipv6 {
        let probe = libc::IPV6_PMTUDISC_PROBE;
        message::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
        message::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
        message::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    } else {
        let probe = libc::IP_PMTUDISC_PROBE;
        message::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe)?;
        message::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    }
    if let Err(error) = message::set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1) {
        log::debug!("no receive timestamps: {error}");
    }
    if let Err(error) = message::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1) {
        log::warn!("no UDP GRO ({error}): receiving will cost more");
    }
    Ok(())
}

/// The address family's wildcard, for tests and messages.
pub(crate) fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

#[cfg(test)]
mod tests;
