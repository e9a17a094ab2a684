//! IPv6 hosts that reach IPv4 through our exit (NAT64). Their packets change their length, so they
//! leave from a buffer of their own.

use std::net::IpAddr;

use super::Node;
use super::deliver::Admitted;
use super::from_internet::Meeting;
use crate::addr::Nat64Prefix;
use crate::batch::Output;
use crate::nat::{self, Inbound, Outbound, Realm};
use crate::packet::{Fragmenter, Headers, Vnet, checksum};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// How much longer a packet may become: an IPv6 header for one of IPv4, and a fragment header.
const GROWTH: usize = 28;
/// The share of a fragment header in it.
const FRAGMENT_HEADER: usize = 8;

/// What stands between a host and IPv4.
#[derive(Debug)]
pub(super) struct Translation {
    /// Under which prefix our hosts and those of our users see IPv4; none when they do not.
    pub(super) prefix: Option<Nat64Prefix>,
    /// A packet that became IPv6.
    packet: Vec<u8>,
    /// A packet that became IPv4.
    ipv4: Vec<u8>,
    /// A piece of a packet in its own.
    piece: Vec<u8>,
    /// The packet is what found no room in the send batch.
    pub(super) is_unsent: bool,
}

impl Translation {
    pub(super) fn new(prefix: Option<Nat64Prefix>) -> Self {
        // All that a frame can become.
        let len = if prefix.is_some() { crate::batch::BUFFER_LEN + GROWTH } else { 0 };
        Self {
            prefix,
            packet: Vec::with_capacity(len),
            ipv4: Vec::with_capacity(len),
            piece: Vec::with_capacity(len),
            is_unsent: false,
        }
    }
}

impl Node {
    /// The IPv4 address that a destination stands for, or the destination itself.
    pub(super) fn beyond(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(ipv6) = address else { return address };
        let embedded = self.translation.prefix.and_then(|prefix| prefix.embedded(ipv6));
        embedded.map_or(address, IpAddr::V4)
    }

    /// Gives a packet of an IPv6 host for IPv4 its outside source, and lets it go.
    pub(super) fn leave_as_ipv4(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        let prefix = self.translation.prefix.ok_or(DropReason::NoRoute)?;
        let exit = self.exit.as_mut().ok_or(DropReason::ExitRefused)?;
        let mut packet = std::mem::take(&mut self.translation.ipv4);
        let left = exit.nat.outbound_64(now, realm, frame, headers, vnet, prefix, &mut packet);
        let result = match left {
            Ok((_, Outbound::Held)) => Ok(()),
            Ok((vnet, Outbound::Internet)) => self.write_ipv4(&mut packet, &vnet, out),
            Ok((vnet, Outbound::Hairpin(inbound))) => {
                let meeting = Meeting { from: realm, inbound };
                self.without_rest(|node| {
                    node.turn_round_whole(now, meeting, &mut packet, &vnet, out)
                })
            }
            Err(reason) => {
                self.tell_refused(now, realm, frame, headers, reason, out);
                Err(reason)
            }
        };
        self.translation.ipv4 = packet;
        if result.is_ok() && headers.fragment.is_some_and(|fragment| fragment.offset == 0) {
            self.pass_released(now, out);
        }
        result.map(|()| Admitted::Gone)
    }

    fn write_ipv4(
        &mut self,
        packet: &mut [u8],
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(packet)?;
        if let Some(exit) = &self.exit {
            exit.aliases.put_on(packet, &headers, vnet)?;
        }
        self.write_made_train(packet, &headers, vnet, out)
    }

    pub(super) fn turn_round_whole(
        &mut self,
        now: Instant,
        meeting: Meeting,
        packet: &mut [u8],
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if self.turn_round(now, meeting, packet, vnet, out)? == Admitted::ToTun {
            self.write_ipv4(packet, vnet, out)?;
        }
        Ok(())
    }

    /// Makes a packet from outside IPv6, as its host knows it, and hands it to `go` in as many pieces
    /// as it takes: where IPv4 allows it, what became too long is taken apart (RFC 7915 section 4).
    pub(super) fn arrive_as_ipv6(
        &mut self,
        frame: &mut [u8],
        vnet: &Vnet,
        inbound: Inbound,
        mut go: impl FnMut(&mut Self, &mut [u8], Headers, Vnet) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let IpAddr::V6(host) = inbound.destination else { return Err(DropReason::Malformed) };
        let prefix = self.translation.prefix.ok_or(DropReason::NoRoute)?;
        let headers = Headers::parse(frame)?;
        let mut packet = std::mem::take(&mut self.translation.packet);
        let mut one = |node: &mut Self, frame: &[u8], headers: &Headers, vnet: &Vnet| {
            let vnet = nat::to_ipv6(frame, headers, vnet, host, prefix, &mut packet)?;
            let headers = Headers::parse(&packet)?;
            go(node, &mut packet, headers, vnet)
        };
        let growth = if headers.fragment.is_some() { GROWTH } else { GROWTH - FRAGMENT_HEADER };
        let too_long = headers.total_len as usize + growth > self.mtu;
        let single = vnet.gso == crate::packet::Gso::None;
        let result = if !headers.dont_fragment && too_long && single {
            let mut piece = std::mem::take(&mut self.translation.piece);
            // In pieces it could not get the checksum any more that IPv6 demands.
            if checksum::is_absent(frame, &headers, vnet) {
                checksum::complete(frame, &headers);
            }
            let done = checksum::complete_partial(frame, &headers, vnet).and_then(|()| {
                let pieces = Fragmenter::new(frame, &headers, self.mtu - GROWTH)?;
                for index in 0..pieces.count() {
                    piece.resize(pieces.fragment_len(index), 0);
                    pieces.write(index, &mut piece);
                    let headers = Headers::parse(&piece)?;
                    one(self, &piece, &headers, &Vnet::default())?;
                }
                Ok(())
            });
            self.translation.piece = piece;
            done
        } else {
            one(self, frame, &headers, vnet)
        };
        self.translation.packet = packet;
        result
    }

    /// Goes on with a translated packet that found the send batch full. None when it was another.
    pub(super) fn take_unsent_translation(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.translation.is_unsent)
            .then(|| std::mem::take(&mut self.translation.packet))
    }

    pub(super) fn give_back_translation(&mut self, packet: Vec<u8>) {
        self.translation.packet = packet;
    }
}
