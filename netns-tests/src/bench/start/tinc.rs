//! Tinc 1.0 with its default cipher and digest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{End, PORT, Running, ends, lan_of};
use crate::bench::contender::INNER_MTU;
use crate::bench::site::Site;
use crate::lab::process::run;

/// Making a key takes long at times.
const KEY: Duration = Duration::from_secs(20);

/// Starts two.
pub(super) fn start(program: &Path, site: &Site) -> Result<Running> {
    let ends = ends(site);
    for (at, end) in ends.iter().enumerate() {
        configure(program, end, &ends[1 - at])?;
    }
    for (at, end) in ends.iter().enumerate() {
        let host = name(&ends[1 - at]);
        let public = ends[1 - at].file("/hosts").join(&host);
        fs::copy(public, end.file("/hosts").join(host))?;
    }
    let mut daemons = Vec::new();
    for end in &ends {
        let (directory, pid) = (end.file(""), end.file(".pid"));
        let pid = format!("--pidfile={}", pid.display());
        daemons.push(end.spawn(program, &["-c", &directory.to_string_lossy(), "-D", &pid])?);
    }
    Ok(Running::Other(daemons))
}

/// Names in tinc have no hyphens.
fn name(end: &End<'_>) -> String {
    end.name.replace('-', "_")
}

fn configure(program: &Path, end: &End<'_>, other: &End<'_>) -> Result<()> {
    let directory = end.file("");
    fs::create_dir_all(directory.join("hosts"))?;
    let (own, peer, device) = (name(end), name(other), end.name);
    fs::write(
        directory.join("tinc.conf"),
        format!("Name = {own}\nInterface = {device}\nAddressFamily = ipv4\nConnectTo = {peer}\n"),
    )?;
    fs::write(
        directory.join("hosts").join(&own),
        format!(
            "Address = {} {PORT}\nPort = {PORT}\nSubnet = {}/32\nSubnet = {}\n",
            end.underlay,
            end.inside,
            lan_of(end.host)
        ),
    )?;
    let script = directory.join("tinc-up");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\nip addr add {}/24 dev {device}\nip link set {device} mtu {INNER_MTU} up\n\
             ip route add {} dev {device}\n",
            end.inside,
            lan_of(other.host)
        ),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut keys = Command::new(program);
    run(keys.arg("-c").arg(&directory).args(["-K", "2048"]), KEY)?.success()?;
    Ok(())
}
