//! What a host is told when its packet cannot go on.

use std::net::IpAddr;

use super::Node;
use super::from_internet::Meeting;
use crate::batch::Output;
use crate::nat::{Outbound, Realm};
use crate::packet::{Headers, Vnet, icmp};
use crate::telemetry::DropReason;
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
            // Whoever cannot be told is not.
            let _ = self.answer_outside(now, realm, &mut reply[..len], out);
            return;
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

    /// Tells the sender of a packet that came in by a mapping of our NAT, in the addresses that it
    /// knows: one in the Internet, or another host behind the NAT.
    fn answer_outside(
        &mut self,
        now: Instant,
        realm: Realm,
        reply: &mut [u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let (headers, whole) = (Headers::parse(reply)?, Vnet::default());
        let exit = self.exit.as_mut().ok_or(DropReason::ExitRefused)?;
        match exit.nat.outbound(now, realm, reply, &headers, &whole)? {
            Outbound::Held => Ok(()),
            Outbound::Internet => {
                let headers = Headers::parse(reply)?;
                exit.aliases.put_on(reply, &headers, &whole)?;
                self.write_made(reply, out)
            }
            Outbound::Hairpin(inbound) => {
                let meeting = Meeting { from: realm, inbound };
                self.without_rest(|node| node.turn_round_whole(now, meeting, reply, &whole, out))
            }
        }
    }

    fn own_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}
