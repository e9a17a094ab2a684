//! `internet.servers`: what anybody may reach behind us.

use std::net::SocketAddr;

use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::RawConfig;
use crate::config::types::LanSection;
use crate::packet::protocol;

/// Each packet that nobody asked for is looked up among them.
const SERVERS_MAX: usize = 256;

/// Endpoints of our hosts that the Internet may reach, like `tcp 10.1.0.5:443`.
pub(super) fn servers(
    raw: &At<RawConfig>,
    lan: &LanSection,
    faults: &mut Faults,
) -> Vec<(SocketAddr, u8)> {
    let section = raw.value.internet.as_ref();
    let Some(list) = section.and_then(|section| section.value.servers.as_ref()) else {
        return Vec::new();
    };
    if list.value.len() > SERVERS_MAX {
        faults.at(list, format!("{} are too many: at most {SERVERS_MAX}", list.value.len()));
    }
    let mut servers = Vec::new();
    for at in &list.value {
        let parsed = at.value.split_once(' ').and_then(|(name, end)| {
            let number = match name {
                "tcp" => protocol::TCP,
                "udp" => protocol::UDP,
                _ => return None,
            };
            Some((end.trim().parse::<SocketAddr>().ok()?, number))
        });
        let Some((end, number)) = parsed else {
            super::refuse(at, "not a protocol and an endpoint: write `tcp 10.1.0.5:443`", faults);
            continue;
        };
        if !lan.networks.iter().any(|net| net.contains(&end.ip())) {
            super::refuse(at, "not in one of `lan.networks`", faults);
        }
        servers.push((end, number));
    }
    servers
}
