//! What a host is told when its packet cannot go on.

use std::net::IpAddr;

use super::Node;
use super::exit::Exit;
use crate::batch::Output;
use crate::nat::{Outbound, Realm};
use crate::packet::{Headers, Vnet, icmp};
use crate::time::Instant;

impl Node {
    /// Tells the sender of a packet from the TUN what went wrong with it. One in the Internet, whose
    /// packet came in by a mapping of our NAT, is told in the addresses that it knows.
    pub(super) fn answer_host(
        &mut self,
        now: Instant,
        came_in_by: Option<Realm>,
        packet: &[u8],
        headers: &Headers,
        error: icmp::Error,
        out: &mut Output,
    ) {
        let Some(source) = self.own_address(headers.is_ipv6()) else { return };
        let mut reply = [0; icmp::MAX_LEN];
        let len = icmp::write_error(&mut reply, error, source, packet, headers);
        if let (1.., Some(realm)) = (len, came_in_by) {
            if headers.is_ipv6() && self.beyond(headers.source).is_ipv4() {
                if let Ok(headers) = Headers::parse(&reply[..len]) {
                    // Whoever cannot be told is not.
                    let whole = Vnet::default();
                    let _ = self.leave_as_ipv4(now, realm, &reply[..len], &headers, &whole, out);
                }
                return;
            }
            let Some(exit) = &mut self.exit else { return };
            if translate(exit, now, realm, &mut reply[..len]).is_none() {
                return;
            }
        }
        if len > 0 && out.write_generated(Vnet::default(), &reply[..len]) {
            self.counters.tun_tx.add(1, len as u64);
        }
    }

    /// Tells an inside host that our exit does not take its packet.
    pub(super) fn answer_inside(
        &mut self,
        now: Instant,
        realm: Realm,
        packet: &[u8],
        headers: &Headers,
        error: icmp::Error,
        out: &mut Output,
    ) {
        let Some(peer) = realm.peer() else {
            return self.answer_host(now, None, packet, headers, error, out);
        };
        let Some(source) = self.own_address(headers.is_ipv6()) else { return };
        let mut reply = [0; icmp::MAX_LEN];
        let len = icmp::write_error(&mut reply, error, source, packet, headers);
        let reply = &reply[..len];
        let Ok(headers) = Headers::parse(reply) else { return };
        // Whoever cannot be reached is not told.
        let _ = self.send_back(now, peer, reply, &headers, &Vnet::default(), out);
    }

    fn own_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

/// Gives an answer the addresses that the Internet knows; none when it may not leave.
fn translate(exit: &mut Exit, now: Instant, realm: Realm, reply: &mut [u8]) -> Option<()> {
    let (headers, whole) = (Headers::parse(reply).ok()?, Vnet::default());
    let sent = exit.nat.outbound(now, realm, reply, &headers, &whole).ok()?;
    let headers = Headers::parse(reply).ok().filter(|_| sent == Outbound::Internet)?;
    exit.aliases.put_on(reply, &headers, &whole).ok()
}
