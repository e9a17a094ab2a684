//! Which packet `explain` is asked about.

use std::net::{IpAddr, SocketAddr};

use super::Scene;
use crate::flow::{FlowKey, Marks};
use crate::gateway::status::PacketFields;
use crate::packet::protocol as ip;

/// A packet, as far as it decides about the class.
pub(super) struct Subject {
    pub(super) key: FlowKey,
    pub(super) marks: Marks,
    /// What was said of it, and what is assumed; none for a flow of which nothing else was said.
    pub(super) told: Option<String>,
}

const USAGE: &str = "expected an address, or PROTOCOL SOURCE DESTINATION like \
                     `tcp 10.1.0.2:5000 10.2.0.3:80` or `icmp 10.1.0.2 10.2.0.3`";
const FAMILIES: &str = "source and destination are of different families";

/// Reads an address, or a flow given as `PROTOCOL SOURCE DESTINATION`, and what was said besides.
pub(super) fn subject(
    scene: &Scene<'_>,
    text: &str,
    packet: &PacketFields,
) -> Result<Subject, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (key, mut told) = match words[..] {
        [address] => {
            let to: IpAddr = address.parse().map_err(|_| USAGE.to_owned())?;
            to_address(scene, to, packet)?
        }
        [protocol, source, destination] => {
            let PacketFields { dscp, flow_label, .. } = *packet;
            if *packet != (PacketFields { dscp, flow_label, ..PacketFields::default() }) {
                let what = "a flow says its protocol, its source and its ports itself";
                return Err(what.to_owned());
            }
            let parse = |text| endpoint(text).ok_or_else(|| USAGE.to_owned());
            let (source, destination) = (parse(source)?, parse(destination)?);
            let number = number(protocol, false).ok_or_else(|| USAGE.to_owned())?;
            let key = FlowKey::new(number, source, destination).ok_or(FAMILIES)?;
            (key, Vec::new())
        }
        _ => return Err(USAGE.to_owned()),
    };
    let marks = marks(&key, packet, &mut told)?;
    Ok(Subject { key, marks, told: (!told.is_empty()).then(|| told.join(", ")) })
}

/// A packet to an address. Who sends it, unless that is said, is the router itself.
fn to_address(
    scene: &Scene<'_>,
    to: IpAddr,
    packet: &PacketFields,
) -> Result<(FlowKey, Vec<String>), String> {
    if *packet == PacketFields::default() {
        let from = own(scene, to);
        let told = format!(
            "one of this router itself ({from}), without protocol: hosts' packets may be of other \
             classes (`explain --help`)"
        );
        return Ok((FlowKey::new(0, (from, 0), (to, 0)).ok_or(FAMILIES)?, vec![told]));
    }
    let mut told = Vec::new();
    let from = match (packet.from, &packet.interface) {
        (Some(from), Some(interface)) => {
            told.push(format!("from {from} behind {interface}"));
            from
        }
        (Some(from), None) => {
            told.push(format!("from {from}"));
            from
        }
        (None, Some(interface)) => {
            return Err(format!("`{interface}` is not known to have hosts behind it"));
        }
        (None, None) => {
            let from = own(scene, to);
            told.push(format!("from this router itself ({from})"));
            from
        }
    };
    let protocol = match &packet.protocol {
        Some(name) => {
            let unknown = || format!("unknown protocol `{name}`: write tcp, udp, icmp or a number");
            told.push(name.clone());
            number(name, to.is_ipv6()).ok_or_else(unknown)?
        }
        None => 0,
    };
    let ports = [packet.source_port, packet.destination_port];
    if ports != [None; 2] && ![ip::TCP, ip::UDP, SCTP].contains(&protocol) {
        return Err("ports are those of a protocol: say tcp, udp or sctp as well".to_owned());
    }
    for (word, port) in ["from port", "to port"].into_iter().zip(ports) {
        told.extend(port.map(|port| format!("{word} {port}")));
    }
    let [source_port, port] = ports.map(|port| port.unwrap_or(0));
    Ok((FlowKey::new(protocol, (from, source_port), (to, port)).ok_or(FAMILIES)?, told))
}

fn marks(key: &FlowKey, packet: &PacketFields, told: &mut Vec<String>) -> Result<Marks, String> {
    let mut marks = Marks::default();
    if let Some(dscp) = packet.dscp {
        if dscp > 63 {
            return Err(format!("{dscp} is no code point: use 0 to 63"));
        }
        told.push(format!("code point {dscp}"));
        marks.dscp = dscp;
    }
    if let Some(label) = packet.flow_label {
        if !key.is_ipv6() {
            return Err("IPv4 has no flow labels".to_owned());
        }
        if label > 0xf_ffff {
            return Err(format!("{label:#x} is no flow label: use 0x0 to 0xfffff"));
        }
        told.push(format!("flow label {label:#x}"));
        marks.flow_label = label;
    }
    Ok(marks)
}

/// The router's own overlay address of the destination's family.
fn own(scene: &Scene<'_>, to: IpAddr) -> IpAddr {
    let same_family = |ip: &IpAddr| ip.is_ipv6() == to.is_ipv6();
    let own = scene.config.tun.address.iter().map(|own| own.addr()).find(same_family);
    own.unwrap_or_else(|| crate::io::underlay::unspecified(to.is_ipv6()))
}

const SCTP: u8 = 132;

fn number(protocol: &str, ipv6: bool) -> Option<u8> {
    match protocol.to_ascii_lowercase().as_str() {
        "icmp" if ipv6 => Some(ip::ICMPV6),
        "tcp" => Some(ip::TCP),
        "udp" => Some(ip::UDP),
        "icmp" => Some(ip::ICMP),
        "icmp6" => Some(ip::ICMPV6),
        "sctp" => Some(SCTP),
        other => other.parse().ok(),
    }
}

fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    text.parse::<SocketAddr>()
        .map(|address| (address.ip(), address.port()))
        .or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 0)))
        .ok()
}
