//! Nebula, with the settings its documentation has for throughput.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::{End, PORT, Running, ask, ends, lan_of};
use crate::bench::contender::INNER_MTU;
use crate::bench::site::Site;
use crate::lab::enter;

/// Starts two; `nebula-cert` must be beside `program`.
pub(super) fn start(program: &Path, site: &Site) -> Result<Running> {
    let tool = program.with_file_name("nebula-cert");
    let certificate = |arguments: &[&str]| {
        ask(Command::new(&tool).current_dir(enter::DIRECTORY).args(arguments), "")
            .context("nebula-cert")
    };
    certificate(&["ca", "-name", "bench"])?;
    let ends = ends(site);
    let mut daemons = Vec::new();
    for (at, end) in ends.iter().enumerate() {
        let (address, lan) = (format!("{}/24", end.inside), lan_of(end.host));
        certificate(&["sign", "-name", end.name, "-ip", &address, "-subnets", &lan])?;
        let file = end.file(".yaml");
        fs::write(&file, serde_json::to_string(&config(end, &ends[1 - at]))?)?;
        daemons.push(end.spawn(program, &["-config", &file.to_string_lossy()])?);
    }
    Ok(Running::Other(daemons))
}

/// JSON is YAML too.
fn config(end: &End<'_>, other: &End<'_>) -> serde_json::Value {
    let anything = json!([{ "port": "any", "proto": "any", "host": "any" }]);
    let file = |suffix| end.file(suffix);
    let buffer = 10_485_760;
    json!({
        "pki": {
            "ca": Path::new(enter::DIRECTORY).join("ca.crt"),
            "cert": file(".crt"),
            "key": file(".key"),
        },
        "static_host_map": {
            (other.inside.to_string()): [format!("{}:{PORT}", other.underlay)],
        },
        "lighthouse": { "am_lighthouse": false, "hosts": [] },
        "listen": {
            "host": "0.0.0.0", "port": PORT, "read_buffer": buffer, "write_buffer": buffer,
        },
        "punchy": { "punch": true },
        "tun": {
            "dev": end.name,
            "mtu": INNER_MTU,
            "tx_queue": 500,
            "unsafe_routes": [{
                "route": lan_of(other.host), "via": other.inside.to_string(), "mtu": INNER_MTU,
            }],
        },
        "logging": { "level": "info", "format": "text" },
        "firewall": {
            "conntrack": { "tcp_timeout": "12m", "udp_timeout": "3m", "default_timeout": "10m" },
            "outbound": anything,
            "inbound": anything,
        },
    })
}
