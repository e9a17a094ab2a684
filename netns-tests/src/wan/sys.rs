//! System calls that have no safe wrapper.
#![expect(unsafe_code, reason = "ioctls of /dev/net/tun, epoll_pwait2 and scheduling calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollEvent;
use nix::time::{ClockId, clock_gettime};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
/// Checksums, TSO for IPv4 and IPv6 with ECN, UDP segmentation for both.
const OFFLOAD_ALL: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;
/// Kernels before 6.2 know no UDP segmentation.
const OFFLOAD_TCP: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;

/// Turns an open `/dev/net/tun` into the interface `name` with an offload header.
pub(crate) fn make_tun(tun: &File, name: &str) -> io::Result<()> {
    /// `struct ifreq`: a name and a union of 24 bytes, of which the flags are the first two.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: i16,
        rest: [u8; 22],
    }
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request has the size and layout of `struct ifreq` and outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &mut request) })
}

/// Lets the kernel hand over super-packets. True if UDP's are among them.
pub(crate) fn set_offload(tun: &File) -> io::Result<bool> {
    // SAFETY: this ioctl takes a plain number.
    if check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOFFLOAD, OFFLOAD_ALL) }).is_ok() {
        return Ok(true);
    }
    // SAFETY: as above.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOFFLOAD, OFFLOAD_TCP) }).map(|()| false)
}

/// Waits for events, or until `timeout_ns` has passed. An interruption counts as no event.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [EpollEvent],
    timeout_ns: Option<u64>,
) -> io::Result<usize> {
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `EpollEvent` is a transparent `struct epoll_event`; the buffer and the timeout outlive
    // the call, and no signal mask is given.
    let n = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as libc::c_int,
            timeout,
            std::ptr::null::<libc::sigset_t>(),
            8usize,
        )
    };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}

/// Real-time priority, with a limit of 0.3 s on running without a sleep.
pub(crate) fn set_realtime(priority: u8) -> io::Result<()> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_RTTIME, 300_000, 300_000)?;
    let parameters = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: the parameters outlive the call; pid 0 is ourselves.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) })
}

/// Asks for short time slices in the normal class, which means to be woken sooner (Linux 6.12).
pub(crate) fn set_short_slice() -> io::Result<()> {
    /// `struct sched_attr`, first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: no pointers are involved; pid 0 is ourselves.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: 100_000,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the structure says its own size and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
    check(result as libc::c_int)
}

/// Monotonic time in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// A clock's time in nanoseconds.
pub(crate) fn clock_ns(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Waits until `fd` can be read.
pub(crate) fn readable_within(fd: &impl AsFd, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
