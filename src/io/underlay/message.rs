//! The raw calls: `sendmsg` and `recvmmsg` with control messages.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;
use std::ptr;

use crate::batch::RxBatch;
use crate::id::UplinkIndex;
use crate::io::stamps::Stamps;

/// Room for the control messages of one datagram, aligned as the kernel wants them.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 128]);

/// Sets an integer socket option.
#[expect(unsafe_code, reason = "no wrapper knows all of these options")]
pub(super) fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One `sendmsg`; with `segment`, the kernel cuts `bytes` into datagrams of that length.
#[expect(unsafe_code, reason = "control messages are laid out by hand")]
pub(super) fn send(
    fd: RawFd,
    destination: SocketAddr,
    tos: u8,
    bytes: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let (name, name_len) = to_raw(destination);
    let mut control = Control([0; 128]);
    let mut iovec =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw const name).cast_mut().cast();
    header.msg_namelen = name_len;
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;

    let (level, kind) = match destination {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    };
    let mut used = 0;
    // SAFETY: `header` points at `control`, which is aligned and has room for both messages
    // (CMSG_SPACE of an int and of a u16 are 24 bytes each); CMSG_NXTHDR stays inside it because
    // it is zeroed and longer.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(&raw const header);
        if tos != 0 {
            used += put(cmsg, level, kind, libc::c_int::from(tos));
            cmsg = libc::CMSG_NXTHDR(&raw const header, cmsg);
        }
        if let Some(segment) = segment {
            used += put(cmsg, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
    }
    header.msg_controllen = used as _;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
    loop {
        // SAFETY: every pointer in `header` refers to a live local or to `bytes`, none of which
        // the kernel writes to.
        let sent = unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Fills in one control message and says how much room it takes.
///
/// # Safety
/// `cmsg` must point at `CMSG_SPACE(size_of::<T>())` writable bytes, aligned for a `cmsghdr`.
#[expect(unsafe_code, reason = "control messages are laid out by hand")]
unsafe fn put<T>(
    cmsg: *mut libc::cmsghdr,
    level: libc::c_int,
    kind: libc::c_int,
    value: T,
) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: by this function's contract.
    unsafe {
        (*cmsg).cmsg_level = level;
        (*cmsg).cmsg_type = kind;
        (*cmsg).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(cmsg).cast(), value);
        libc::CMSG_SPACE(size) as usize
    }
}

/// Errors consumed in one call; a socket with more is broken.
const PENDING_ERRORS_MAX: usize = 64;

/// What came of filling receive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Some; there may be more.
    Some,
    /// Some or none, and nothing waits any more.
    Drained,
}

/// The arrays that `recvmmsg` needs, kept from call to call.
pub(crate) struct Receiver {
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    stamps: Stamps,
}

impl Receiver {
    /// For batches of up to `slots` buffers. Times of arrival are told by the clock of `stamps`.
    #[expect(unsafe_code, reason = "C structures start zeroed")]
    pub(crate) fn new(slots: usize, stamps: Stamps) -> Self {
        // SAFETY: all-zero is valid for these plain C structures.
        let (header, iovec, name) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            headers: vec![header; slots],
            iovecs: vec![iovec; slots],
            names: vec![name; slots],
            controls: vec![Control([0; 128]); slots],
            stamps,
        }
    }

    /// Fills at most `budget` free slots of `rx` from the socket. A pending error of the socket is
    /// consumed and reading goes on.
    pub(crate) fn receive(
        &mut self,
        fd: RawFd,
        uplink: UplinkIndex,
        rx: &mut RxBatch,
        budget: usize,
    ) -> Received {
        let free = rx.slots.len() - rx.filled;
        let count = free.min(budget).min(self.headers.len());
        if count == 0 {
            return Received::Some;
        }
        // Errors of earlier datagrams surface here, one for each call.
        for _ in 0..PENDING_ERRORS_MAX {
            match self.call(fd, rx, count) {
                Ok(received) => {
                    self.take(uplink, rx, received);
                    // Less than asked for is all there was: nothing cuts a call short, because
                    // errors of sent datagrams are not reported to a socket that is not connected.
                    return if received < count { Received::Drained } else { Received::Some };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Received::Drained;
                }
                Err(error) => log::trace!("receive: {error}"),
            }
        }
        Received::Drained
    }

    #[expect(unsafe_code, reason = "no wrapper receives into our slots")]
    fn call(&mut self, fd: RawFd, rx: &mut RxBatch, count: usize) -> io::Result<usize> {
        let slots = &mut rx.slots[rx.filled..rx.filled + count];
        for (i, slot) in slots.iter_mut().enumerate() {
            self.iovecs[i] = libc::iovec {
                iov_base: slot.buffer.as_mut_ptr().cast(),
                iov_len: slot.buffer.len(),
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = self.controls[i].0.len() as _;
        }
        // SAFETY: the first `count` headers were just pointed at distinct live buffers whose
        // lengths they carry; nothing else refers to those during the call.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// Describes the received datagrams in their slots. Those without a usable sender, and empty
    /// ones, are left out.
    fn take(&mut self, uplink: UplinkIndex, rx: &mut RxBatch, received: usize) {
        self.stamps.begin();
        let first = rx.filled;
        for i in 0..received {
            let header = &self.headers[i];
            let len = (header.msg_len as usize).min(rx.slots[first + i].buffer.len());
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let Some(source) = from_raw(&self.names[i]) else { continue };
            if len == 0 || truncated {
                continue;
            }
            let Told { stride, tos, stamp } = read_control(&header.msg_hdr);
            let stride = stride.filter(|&stride| stride > 0 && stride <= len).unwrap_or(len);
            // What is measured by its time of arrival is no part of a train.
            let stamp = stamp.filter(|_| stride == len);
            let received_at = stamp.and_then(|stamp| self.stamps.place(stamp));
            // An earlier one was left out: keep the filled slots together.
            rx.slots.swap(rx.filled, first + i);
            let slot = &mut rx.slots[rx.filled];
            slot.len = len;
            slot.stride = stride;
            slot.uplink = uplink;
            slot.source = source;
            slot.tos = tos;
            slot.received_at = received_at;
            rx.filled += 1;
        }
    }
}

/// What the kernel tells beside the bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Of datagrams that were merged (GRO).
    stride: Option<usize>,
    tos: u8,
    /// When they came, in nanoseconds since 1970.
    stamp: Option<i64>,
}

#[expect(unsafe_code, reason = "control messages are laid out by hand")]
fn read_control(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel filled in `header` together with the control buffer it points at, which
    // lives as long as the receiver; the CMSG macros stay within its length, and each value is
    // read with the size the kernel documents for its type.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            let data = libc::CMSG_DATA(cmsg);
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    told.stride =
                        usize::try_from(ptr::read_unaligned(data.cast::<libc::c_int>())).ok();
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => told.tos = *data,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    told.tos = ptr::read_unaligned(data.cast::<libc::c_int>()) as u8;
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = ptr::read_unaligned(data.cast::<libc::timespec>());
                    told.stamp = Some(time.tv_sec * 1_000_000_000 + time.tv_nsec);
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    told
}

#[expect(unsafe_code, reason = "C unions of address families")]
fn to_raw(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_in6.
    let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            let small = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_in is shorter than a sockaddr_in6 and no more strictly aligned.
            unsafe { ptr::write((&raw mut raw).cast(), small) };
            (raw, size_of::<libc::sockaddr_in>() as _)
        }
        SocketAddr::V6(v6) => {
            raw.sin6_family = libc::AF_INET6 as _;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_addr = libc::in6_addr { s6_addr: v6.ip().octets() };
            raw.sin6_scope_id = v6.scope_id();
            (raw, size_of::<libc::sockaddr_in6>() as _)
        }
    }
}

#[expect(unsafe_code, reason = "C unions of address families")]
fn from_raw(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is, and the storage is large enough.
            let v4: &libc::sockaddr_in = unsafe { &*ptr::from_ref(raw).cast() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: &libc::sockaddr_in6 = unsafe { &*ptr::from_ref(raw).cast() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
