//! A site's interface, made inside its network namespace and held from outside.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::scenario::Site;
use super::sys;

/// Our own namespace, by the calling thread: only it is ever moved.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// One attached interface.
pub(crate) struct Attachment {
    /// The TUN: frames with offload headers, non-blocking.
    pub(crate) tun: File,
    netns: File,
    interface: String,
}

/// Makes a site's interface, addresses and routes.
pub(crate) fn attach(name: &str, site: &Site) -> Result<Attachment> {
    let place = || format!("site {name}");
    let path = netns_path(site.netns.as_deref());
    let netns = File::open(&path)
        .with_context(|| format!("cannot open the network namespace {}", path.display()))
        .with_context(place)?;
    let tun = within(&netns, || make(site)).with_context(place)?;
    Ok(Attachment { tun, netns, interface: site.interface.clone() })
}

impl Attachment {
    /// Packets that the kernel dropped because we did not read them in time.
    pub(crate) fn tun_drops(&self) -> Result<u64> {
        let table =
            within(&self.netns, || Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(&self.interface)?.strip_prefix(':'))
            .context("the interface is gone")?;
        // Eight columns of receipt, then bytes, packets, errs, drop of transmission.
        let drops = line.split_whitespace().nth(11).context("no such column")?;
        Ok(drops.parse()?)
    }
}

fn netns_path(netns: Option<&str>) -> PathBuf {
    match netns {
        None => OWN_NETNS.into(),
        Some(path) if path.contains('/') => path.into(),
        Some(name) => match name.strip_prefix("pid:") {
            Some(pid) => format!("/proc/{pid}/ns/net").into(),
            None => format!("/run/netns/{name}").into(),
        },
    }
}

/// Runs `action` inside a network namespace and returns to our own.
fn within<T>(netns: &File, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = File::open(OWN_NETNS).context("cannot open our network namespace")?;
    setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let result = action();
    setns(&own, CloneFlags::CLONE_NEWNET).context("cannot return to our network namespace")?;
    result
}

fn make(site: &Site) -> Result<File> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    sys::make_tun(&tun, &site.interface)
        .with_context(|| format!("cannot make the interface {}", site.interface))?;
    if site.offload {
        sys::set_offload(&tun).context("the kernel refuses TUN offload")?;
    }
    configure(site)?;
    Ok(tun)
}

/// Gives the interface its MTU, addresses and routes.
fn configure(site: &Site) -> Result<()> {
    let Site { interface, mtu, txqueuelen, .. } = site;
    let mut commands = format!(
        "link set dev {interface} mtu {mtu} txqueuelen {txqueuelen} addrgenmode none\n\
         link set dev {interface} up\n"
    );
    for address in &site.addresses {
        let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
        commands.push_str(&format!("address add {address} dev {interface}{nodad}\n"));
    }
    if site.default_route {
        for (prefix, v4) in [("0.0.0.0/0", true), ("::/0", false)] {
            if site.addresses.iter().any(|address| address.addr().is_ipv4() == v4) {
                commands.push_str(&format!("route add {prefix} dev {interface}\n"));
            }
        }
    }
    ip_batch(&commands)
}

/// Runs lines of `ip` in one process, in the namespace we are in.
fn ip_batch(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip` (package iproute2)")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("ip failed: {}\n{lines}", words.trim());
    }
    Ok(())
}
