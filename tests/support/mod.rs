//! Packets that several test programs send.

use std::net::SocketAddr;

/// A whole UDP packet, IPv4 (not to be fragmented) or IPv6 as its addresses are.
pub(crate) fn udp(
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    let (from, to) = (from.into(), to.into());
    let builder = match (from, to) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => {
            etherparse::PacketBuilder::ipv4(a.ip().octets(), b.ip().octets(), 64)
        }
        (SocketAddr::V6(a), SocketAddr::V6(b)) => {
            etherparse::PacketBuilder::ipv6(a.ip().octets(), b.ip().octets(), 64)
        }
        _ => panic!("both ends speak one version of IP"),
    };
    builder.udp(from.port(), to.port()).write(&mut packet, payload).expect("a vector takes it");
    packet
}
