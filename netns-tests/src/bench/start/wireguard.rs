//! Programs that speak WireGuard and are configured by `wg`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{PORT, READY, Running, TOOL, ask, ends, lan_of};
use crate::bench::site::Site;
use crate::lab::process::run;
use crate::lab::wait_until;

/// Starts two of them.
pub(super) fn start(program: &Path, options: &[&str], site: &Site) -> Result<Running> {
    // Where the daemons have their control sockets; some do not make it.
    fs::create_dir_all("/run/wireguard")?;
    let ends = ends(site);
    let mut daemons = Vec::new();
    let mut keys = Vec::new();
    for end in &ends {
        daemons.push(end.spawn(program, &[options, &[end.name]].concat())?);
        let private = ask(Command::new("wg").arg("genkey"), "")?;
        let public = ask(Command::new("wg").arg("pubkey"), &private)?;
        keys.push((private, public));
    }
    for (at, end) in ends.iter().enumerate() {
        let other = &ends[1 - at];
        wait_until(&format!("{} is up", end.name), TOOL, || {
            daemons[at].ensure_running()?;
            let socket = format!("/run/wireguard/{}.sock", end.name);
            ensure!(Path::new(&socket).exists(), "no {socket}");
            Ok(())
        })?;
        let file = end.file(".conf");
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n\
             Endpoint = {}:{PORT}\nAllowedIPs = {}/32, {}\n",
            keys[at].0,
            keys[1 - at].1,
            other.underlay,
            other.inside,
            lan_of(other.host),
        );
        fs::write(&file, text)?;
        let mut set = end.netns.command("wg");
        run(set.args(["setconf", end.name]).arg(&file), TOOL)?.success()?;
        end.address(end.name, other)?;
    }
    site.gw_a.wait_reachable(IpAddr::V4(ends[1].inside), READY)?;
    Ok(Running::Other(daemons))
}
