//! The TUN device: whole frames with their offload header, in and out.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use nix::net::if_::if_nametoindex;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::batch::{Output, RxBatch, TunWrite};
use crate::packet::{Gso, VNET_LEN, Vnet};
use crate::telemetry::DropReason;

/// Parts of one write that are handed to the kernel where they lie; a frame with more is copied.
const MAX_PARTS: usize = 96;

/// Which super-packets the kernel takes from us. A refused write turns one off for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunOffload {
    /// TCP super-packets.
    pub(crate) tcp: bool,
    /// UDP super-packets (Linux 6.2).
    pub(crate) udp: bool,
}

/// Queues that a TUN gets. The kernel puts a flow's frames into one of them by its hash; with more
/// of them, fewer flows share one.
const QUEUES: usize = 16;

/// An open TUN device. Closing it removes the interface.
pub(crate) struct Tun {
    /// What is written goes in here. With several queues it is none of them: else the kernel would
    /// move a flow to the queue that its answers were written to.
    file: File,
    queues: Vec<File>,
    scratch: Vec<u8>,
    offload: TunOffload,
}

impl Tun {
    /// Creates the interface `name`, without addresses and not yet up.
    pub(crate) fn create(name: &str) -> anyhow::Result<Self> {
        if !Path::new("/dev/net/tun").exists() {
            bail!("/dev/net/tun is missing: load the kernel module with `modprobe tun`");
        }
        // One that is there already would be joined, were we to ask for several queues.
        let several = if_nametoindex(name).is_err();
        if !several {
            log::warn!(
                "the TUN device `{name}` is there already and gives one queue only: small packets \
                 will wait behind bulk transfers; remove it, and the gateway makes its own"
            );
        }
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .offload(true)
            .multi_queue(several)
            .enable(false)
            .build_sync()
            .map_err(|error| explain(name, error))?;
        let file = file_of(&device)?;
        let mut queues = Vec::new();
        while several && queues.len() < QUEUES {
            match device.try_clone() {
                Ok(queue) => queues.push(file_of(&queue)?),
                Err(error) => {
                    log::warn!("the TUN device has {} queues only: {error}", queues.len());
                    break;
                }
            }
        }
        if queues.is_empty() || !detach_queue(file.as_raw_fd()) {
            queues.push(file_of(&device)?);
        }
        let offload = set_offload(file.as_raw_fd());
        Ok(Self { file, queues, scratch: Vec::new(), offload })
    }

    /// The queues, to be watched.
    pub(crate) fn queues(&self) -> Vec<RawFd> {
        self.queues.iter().map(File::as_raw_fd).collect()
    }

    /// What the kernel takes from us.
    pub(crate) fn offload(&self) -> TunOffload {
        self.offload
    }

    /// Reads one frame of a queue into `frame` and its offload header into `vnet`; its length.
    /// `Ok(None)` when none waits there.
    pub(crate) fn read(
        &mut self,
        queue: usize,
        vnet: &mut RawVnet,
        frame: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let Some(file) = self.queues.get_mut(queue) else { return Ok(None) };
        loop {
            let mut parts = [IoSliceMut::new(&mut vnet.0), IoSliceMut::new(frame)];
            match file.read_vectored(&mut parts) {
                Ok(len) => return Ok(Some(len.saturating_sub(VNET_LEN))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes one frame that lies in one piece.
    pub(crate) fn write(&mut self, vnet: &Vnet, packet: &[u8]) -> Result<(), DropReason> {
        let header = vnet.emit(packet.first().is_some_and(|first| first >> 4 == 6));
        let result = write_parts(&mut self.file, &[IoSlice::new(&header), IoSlice::new(packet)]);
        self.judge(vnet.gso, result)
    }

    /// Writes one frame from its parts.
    pub(crate) fn write_parts(
        &mut self,
        out: &Output,
        rx: &RxBatch,
        write: &TunWrite,
    ) -> Result<(), DropReason> {
        let header = write.vnet.emit(write.ipv6);
        let parts = &out.parts[write.parts.clone()];
        let result = if let [part] = *parts {
            let slices = [IoSlice::new(&header), IoSlice::new(out.part(rx, part))];
            write_parts(&mut self.file, &slices)
        } else if parts.len() <= MAX_PARTS {
            let mut slices = [IoSlice::new(&[]); MAX_PARTS + 1];
            slices[0] = IoSlice::new(&header);
            for (slice, &part) in slices[1..].iter_mut().zip(parts) {
                *slice = IoSlice::new(out.part(rx, part));
            }
            write_parts(&mut self.file, &slices[..=parts.len()])
        } else {
            self.scratch.clear();
            self.scratch.extend_from_slice(&header);
            for &part in parts {
                self.scratch.extend_from_slice(out.part(rx, part));
            }
            write_parts(&mut self.file, &[IoSlice::new(&self.scratch)])
        };
        self.judge(write.vnet.gso, result)
    }

    /// A super-packet refused as invalid means that this kernel does not take its kind.
    fn judge(&mut self, gso: Gso, result: io::Result<()>) -> Result<(), DropReason> {
        let Err(error) = result else { return Ok(()) };
        log::trace!("TUN write refused: {error}");
        if error.raw_os_error() == Some(libc::EINVAL) {
            match gso {
                Gso::None => {}
                Gso::Tcp { .. } => self.offload.tcp = false,
                Gso::Udp => self.offload.udp = false,
            }
        }
        Err(DropReason::TunWrite)
    }
}

/// A file of its own for an open queue, that never blocks.
fn file_of(device: &SyncDevice) -> anyhow::Result<File> {
    device.set_nonblocking(true).context("cannot make the TUN device non-blocking")?;
    let fd = device.as_fd().try_clone_to_owned().context("cannot keep the TUN device")?;
    Ok(File::from(fd))
}

/// The offload header as read; parsing may refuse it, which must not end the reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawVnet([u8; VNET_LEN]);

impl RawVnet {
    /// Parses it.
    pub(crate) fn parse(&self) -> Result<Vnet, DropReason> {
        Vnet::parse(&self.0)
    }
}

fn write_parts(file: &mut File, parts: &[IoSlice<'_>]) -> io::Result<()> {
    loop {
        match file.write_vectored(parts) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One sentence for what an operator can mend.
fn explain(name: &str, error: io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => anyhow!(
            "creating the TUN device `{name}` is not permitted: run as root or with CAP_NET_ADMIN"
        ),
        Some(libc::EBUSY | libc::EINVAL | libc::EEXIST) => {
            anyhow!("the name `{name}` (tun.name) is taken by another interface")
        }
        _ => anyhow!(error).context(format!("cannot create the TUN device `{name}`")),
    }
}

/// Asks for all the offloads we can handle, then for fewer.
fn set_offload(fd: RawFd) -> TunOffload {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let ecn = libc::TUN_F_TSO_ECN;
    for (mask, offload) in [
        (tcp | ecn | udp, TunOffload { tcp: true, udp: true }),
        (tcp | ecn, TunOffload { tcp: true, udp: false }),
        (tcp, TunOffload { tcp: true, udp: false }),
    ] {
        if tun_set_offload(fd, mask) {
            return offload;
        }
    }
    tun_set_offload(fd, 0);
    TunOffload { tcp: false, udp: false }
}

#[expect(unsafe_code, reason = "no wrapper sets all the offload flags")]
fn tun_set_offload(fd: RawFd, mask: libc::c_uint) -> bool {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD as _, libc::c_ulong::from(mask)) == 0 }
}

/// Takes a queue out of use; frames can still be written to it.
#[expect(unsafe_code, reason = "no wrapper detaches queues")]
fn detach_queue(fd: RawFd) -> bool {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = libc::IFF_DETACH_QUEUE as libc::c_short;
    // SAFETY: TUNSETQUEUE reads an ifreq, which lives as long as the call.
    unsafe { libc::ioctl(fd, libc::TUNSETQUEUE as _, &raw const request) == 0 }
}
