//! The few system calls of the laboratory that have no safe wrapper.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Has the kernel kill the child when the thread that starts it ends, however it ends.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    #[expect(unsafe_code, reason = "the hook makes one system call and touches no memory")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is one.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into))
    }
}

/// Frames that the kernel could not queue on a packet socket since the last call.
pub(crate) fn packet_socket_drops(socket: BorrowedFd<'_>) -> std::io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&stats)).unwrap_or(0);
    #[expect(unsafe_code, reason = "PACKET_STATISTICS has no safe wrapper")]
    // SAFETY: the kernel writes at most `length` bytes into `stats`, a plain C structure.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(stats.tp_drops) } else { Err(std::io::Error::last_os_error()) }
}
