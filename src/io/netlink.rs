//! Interfaces, addresses, routes and rules, by rtnetlink.
//!
//! [`Netlink`] asks and orders, one answer at a time; [`Monitor`] tells the event loop that
//! something changed. Routes and rules name interfaces by name, because an index does not survive
//! the interface.

mod codec;
mod types;

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::Context as _;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

pub(crate) use types::{Address, Interface, MAIN_TABLE, Route, RouteKind, Rule};

/// The group of nftables notifications (`linux/netfilter/nfnetlink.h`).
const NFNLGRP_NFTABLES: u32 = 7;

/// A socket for requests.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket in the network namespace of the calling thread.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        socket.bind_auto().context("cannot bind a netlink socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("cannot connect to rtnetlink")?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 1 << 18] })
    }

    /// All interfaces.
    pub(crate) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        Ok(self.dump(codec::get_links())?.iter().filter_map(codec::interface).collect())
    }

    /// The interface `name`.
    pub(crate) fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        Ok(self.interfaces()?.into_iter().find(|interface| interface.name == name))
    }

    /// All addresses, those of IPv4 first.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let interfaces = self.interfaces()?;
        let answers = self.dump(codec::get_addresses())?;
        let mut addresses: Vec<_> =
            answers.iter().filter_map(|answer| codec::address(answer, &interfaces)).collect();
        addresses.sort_by_key(|address: &Address| address.network.addr().is_ipv6());
        Ok(addresses)
    }

    /// The routes of one table, IPv4 and IPv6.
    pub(crate) fn routes(&mut self, table: u32) -> io::Result<Vec<Route>> {
        let interfaces = self.interfaces()?;
        let mut routes = Vec::new();
        for ipv6 in [false, true] {
            let answers = self.dump(codec::get_routes(ipv6))?;
            routes.extend(
                answers
                    .iter()
                    .filter_map(|answer| codec::route(answer, &interfaces))
                    .filter(|route| route.table == table),
            );
        }
        Ok(routes)
    }

    /// All policy rules that we can express.
    pub(crate) fn rules(&mut self) -> io::Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for ipv6 in [false, true] {
            rules.extend(self.dump(codec::get_rules(ipv6))?.iter().filter_map(codec::rule));
        }
        Ok(rules)
    }

    /// Adds a route; one that is there already is no error.
    pub(crate) fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(codec::route_message(route)?);
        present_is_fine(self.order(message, NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Removes a route; one that is not there is no error.
    pub(crate) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        let message = match codec::route_message(route) {
            Ok(message) => RouteNetlinkMessage::DelRoute(message),
            // Its interface is gone, and it with it.
            Err(_) => return Ok(()),
        };
        absent_is_fine(self.order(message, 0))
    }

    /// Adds a rule; one that is there already is no error.
    pub(crate) fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRule(codec::rule_message(rule));
        present_is_fine(self.order(message, NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Removes a rule; one that is not there is no error.
    pub(crate) fn delete_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRule(codec::rule_message(rule));
        absent_is_fine(self.order(message, 0))
    }

    /// Gives the interface with this index an address.
    pub(crate) fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(codec::address_message(index, address));
        self.order(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sets the MTU of the interface with this index and brings it up.
    pub(crate) fn bring_up(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.order(RouteNetlinkMessage::SetLink(codec::link_up_message(index, mtu)), 0)
    }

    fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.collect(|_| {})
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut answers = Vec::new();
        self.collect(|answer| answers.push(answer))?;
        Ok(answers)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads answers to the last request until the end, or the acknowledgement, or the error.
    fn collect(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let len = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = &self.buffer[..len];
            while let Some(bytes) = next_message(&mut rest) {
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => message,
                    // A kernel newer than the decoder: one odd entry must not hide the others.
                    Err(error) => {
                        log::debug!("netlink message not understood: {error}");
                        continue;
                    }
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
                    }
                    NetlinkPayload::InnerMessage(answer) => take(answer),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                    _ => {}
                }
            }
        }
    }
}

/// Splits off the next message of a datagram.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    let message = rest.get(..len).filter(|_| len >= 16)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some(message)
}

fn present_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ESRCH | libc::ENOENT | libc::ENODEV | libc::EADDRNOTAVAIL)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Hears of changed interfaces, addresses, routes and rules.
pub(crate) struct Monitor(Socket);

impl Monitor {
    /// Subscribes to what rtnetlink tells.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE
            | libc::RTMGRP_IPV4_RULE;
        let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        socket
            .bind(&SocketAddr::new(0, groups as u32))
            .context("cannot subscribe to netlink notifications")?;
        socket.add_membership(libc::RTNLGRP_IPV6_RULE)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Subscribes to changes of nftables.
    pub(crate) fn open_nftables() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER).context("cannot open a netlink socket")?;
        socket.bind_auto()?;
        socket
            .add_membership(NFNLGRP_NFTABLES)
            .context("cannot subscribe to nftables notifications")?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Reads everything that waits. True when there was something, or when notifications were
    /// lost. What changed is found by looking: a dump is simpler than a replay.
    pub(crate) fn drain(&self) -> bool {
        let mut buffer = [0; 8_192];
        let mut changed = false;
        loop {
            match self.0.recv(&mut &mut buffer[..], 0) {
                Ok(_) => changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return changed,
            }
        }
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_and_its_address_are_found() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap().unwrap();
        assert!(lo.loopback && lo.index > 0);
        let addresses = netlink.addresses().unwrap();
        assert!(!lo.up || addresses.iter().any(|a| a.network.to_string() == "127.0.0.1/8"));
        assert!(netlink.rules().unwrap().iter().any(|rule| rule.table == MAIN_TABLE));
        netlink.routes(MAIN_TABLE).unwrap();
    }

    #[test]
    fn messages_are_split_and_rubbish_ends_the_split() {
        let mut bytes = Vec::new();
        for len in [18u32, 16] {
            let start = bytes.len();
            bytes.extend_from_slice(&len.to_ne_bytes());
            bytes.resize(start + (len as usize).next_multiple_of(4), 0);
        }
        bytes.extend_from_slice(&[3, 0, 0, 0]);
        let mut rest = &bytes[..];
        assert_eq!(next_message(&mut rest).map(<[u8]>::len), Some(18));
        assert_eq!(next_message(&mut rest).map(<[u8]>::len), Some(16));
        assert_eq!(next_message(&mut rest), None);
    }
}
