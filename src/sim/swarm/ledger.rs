//! Every packet of every host, and what became of it: nothing may arrive where it does not belong,
//! changed, or twice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::plan::Plan;
use crate::packet::{Headers, IcmpKind, checksum, rewrite};
use crate::sim::host::{self, Endpoint, Letter};
use crate::sim::{Delivery, Mesh, NodeNumber};
use crate::time::Instant;

/// A server in the Internet, by either family.
const SERVERS: [Endpoint; 2] = [
    (IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), 53),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x53)), 53),
];
/// Clocks differ by no more than this while a mapping lives.
const CLOCKS_DIFFER: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
enum To {
    /// A host of the site with this number.
    Host(NodeNumber),
    /// The server, by some exit; the site it is from.
    Internet(NodeNumber),
    /// From the server to the host that wrote to it.
    Back { site: NodeNumber, host: Endpoint },
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    from: Endpoint,
    to_endpoint: Endpoint,
    to: To,
    arrived: Option<Instant>,
    /// What answers it.
    answer: Option<u64>,
}

/// What was sent, by id, and the NATs' promises.
#[derive(Debug)]
pub(super) struct Ledger {
    /// For so long an idle mapping of any exit lives at least.
    mapping_life: Duration,
    /// What exits give away.
    ports: RangeInclusive<u16>,
    /// There are exits.
    exits: bool,
    sent: Vec<Sent>,
    /// For each exit and outside endpoint: whose it is, and since when it was not used.
    outsides: BTreeMap<(NodeNumber, Endpoint), ((NodeNumber, Endpoint), Instant)>,
    arrived: u64,
}

impl Ledger {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            mapping_life: plan.settings.mapping_life() - CLOCKS_DIFFER,
            ports: plan.settings.ports(),
            exits: plan.exits,
            sent: Vec::new(),
            outsides: BTreeMap::new(),
            arrived: 0,
        }
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    pub(super) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// A packet from a host to a host of another site: its number.
    pub(super) fn for_host(&mut self, from: Endpoint, to: Endpoint, site: NodeNumber) -> u64 {
        self.enter(from, to, To::Host(site))
    }

    /// A packet from a host of `site` to the server: its number.
    pub(super) fn for_internet(&mut self, from: Endpoint, site: NodeNumber) -> u64 {
        self.enter(from, server(from), To::Internet(site))
    }

    fn enter(&mut self, from: Endpoint, to_endpoint: Endpoint, to: To) -> u64 {
        let id = self.sent.len() as u64;
        self.sent.push(Sent { from, to_endpoint, to, arrived: None, answer: None });
        id
    }

    /// True when a packet arrived, and what answers it too.
    pub(super) fn is_done(&self, id: u64) -> bool {
        let Some(sent) = self.sent.get(id as usize) else { return false };
        let answered = |id: u64| self.sent.get(id as usize).is_some_and(|s| s.arrived.is_some());
        match sent.to {
            To::Internet(_) => sent.answer.is_some_and(answered),
            To::Host(_) | To::Back { .. } => sent.arrived.is_some(),
        }
    }

    /// A gateway lost its memory.
    pub(super) fn forget(&mut self, exit: NodeNumber) {
        self.outsides.retain(|(node, _), _| *node != exit);
    }

    /// Checks what a gateway wrote to its TUN. What answers it, if it came to the server: the exit
    /// that gets the answer, and the answer.
    pub(super) fn delivered(
        &mut self,
        delivery: &Delivery,
    ) -> Result<Option<(NodeNumber, Vec<u8>)>, String> {
        let told = |what: &str| format!("{} node {}: a packet {what}", delivery.at, delivery.node);
        let letter = match host::open(&delivery.packet) {
            Ok(Some(letter)) => letter,
            Ok(None) => return self.error(delivery).map(|()| None).map_err(told),
            Err(what) => return Err(told(what)),
        };
        let Some(sent) = self.sent.get_mut(letter.id as usize) else {
            return Err(told("that nobody sent was delivered"));
        };
        if sent.arrived.replace(delivery.at).is_some() {
            return Err(told(&format!("was delivered twice: {letter:?}")));
        }
        self.arrived += 1;
        let sent = *sent;
        let (node, right) = match sent.to {
            To::Host(site) => (site, letter.from == sent.from && letter.to == sent.to_endpoint),
            To::Back { site, host } => (site, letter.from == sent.from && letter.to == host),
            To::Internet(_) => {
                let right = letter.to == server(sent.from) && letter.from != sent.from;
                (delivery.node, right)
            }
        };
        if node != delivery.node || !right {
            return Err(told(&format!("went astray: {letter:?}, sent as {sent:?}")));
        }
        match sent.to {
            To::Internet(site) => {
                self.outside(delivery, &letter, (site, sent.from)).map_err(|e| told(&e))?;
                let to = To::Back { site, host: sent.from };
                let server = server(sent.from);
                let answer = self.enter(server, letter.from, to);
                self.sent[letter.id as usize].answer = Some(answer);
                let packet = host::packet(server, letter.from, answer, delivery.packet.len());
                Ok(Some((delivery.node, packet)))
            }
            To::Host(_) | To::Back { .. } => Ok(None),
        }
    }

    /// What is no packet of a host must be an ICMP error that tells one of the node's own hosts, or
    /// the server, what became of its packet.
    fn error(&self, delivery: &Delivery) -> Result<(), &'static str> {
        let headers = Headers::parse(&delivery.packet).map_err(|_| "does not parse")?;
        if headers.icmp != Some(IcmpKind::Error) {
            return Err("is neither a host's nor an ICMP error");
        }
        if !checksum::ipv4_is_right(&delivery.packet, &headers)
            || !checksum::is_right(&delivery.packet, &headers)
        {
            return Err("with an ICMP error has a wrong checksum");
        }
        let quoted = rewrite::quoted(&delivery.packet, &headers);
        if !quoted.is_ok_and(|quoted| quoted.source == headers.destination) {
            return Err("with an ICMP error quotes another's packet");
        }
        let to = headers.destination;
        let is_server = self.exits && SERVERS.iter().any(|server| server.0 == to);
        if is_server || Mesh::is_behind(delivery.node as u8, to) {
            return Ok(());
        }
        Err("with an ICMP error went astray")
    }

    /// One outside endpoint never serves two inside ones.
    fn outside(
        &mut self,
        delivery: &Delivery,
        letter: &Letter,
        inside: (NodeNumber, Endpoint),
    ) -> Result<(), String> {
        let key = (delivery.node, letter.from);
        if !Mesh::outside(delivery.node as u8).contains(&letter.from.0)
            || !self.ports.contains(&letter.from.1)
        {
            return Err(format!("left with {:?}, which is not its exit's", letter.from));
        }
        let before = self.outsides.insert(key, (inside, delivery.at));
        match before {
            Some((other, used)) if other != inside && delivery.at - used < self.mapping_life => {
                Err(format!("shares {:?} of {other:?} with {inside:?}", letter.from))
            }
            _ => Ok(()),
        }
    }
}

/// The server's end for a host's family.
pub(super) const fn server(host: Endpoint) -> Endpoint {
    SERVERS[host.0.is_ipv6() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::icmp;

    const NOW: Instant = Instant::from_micros(1_000_000);
    const HOSTS: [Endpoint; 3] = [
        (IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), 1),
        (IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)), 2),
        (IpAddr::V4(Ipv4Addr::new(10, 3, 0, 1)), 2),
    ];

    fn at(node: NodeNumber, packet: &[u8]) -> Delivery {
        Delivery { at: NOW, node, packet: packet.to_vec() }
    }

    #[test]
    fn astray_doubled_and_changed_packets_are_seen() {
        let mut ledger = Ledger::new(&Plan::draw(1));
        let mut written = || {
            let id = ledger.for_host(HOSTS[0], HOSTS[1], 1);
            host::packet(HOSTS[0], HOSTS[1], id, 100)
        };
        let (mut packet, other) = (written(), written());
        assert_eq!(ledger.delivered(&at(1, &packet)), Ok(None));
        assert!(ledger.is_done(0) && !ledger.is_done(1));
        assert!(ledger.delivered(&at(1, &packet)).unwrap_err().contains("twice"));
        assert!(ledger.delivered(&at(2, &other)).unwrap_err().contains("astray"));
        packet[99] ^= 1;
        assert!(ledger.delivered(&at(1, &packet)).unwrap_err().contains("checksum"));
        let never = host::packet(HOSTS[0], HOSTS[1], 99, 100);
        assert!(ledger.delivered(&at(1, &never)).unwrap_err().contains("nobody"));
    }

    #[test]
    fn what_is_neither_a_hosts_packet_nor_an_error_for_its_sender_is_seen() {
        let mut ledger = Ledger::new(&Plan::draw(1));
        let id = ledger.for_host(HOSTS[0], HOSTS[1], 1);
        let packet = host::packet(HOSTS[0], HOSTS[1], id, 100);
        let headers = Headers::parse(&packet).unwrap();
        let mut error = [0; icmp::MAX_LEN];
        let source = IpAddr::from([10, 77, 0, 1]);
        let len =
            icmp::write_error(&mut error, icmp::Error::NetUnreachable, source, &packet, &headers);
        assert_eq!(ledger.delivered(&at(0, &error[..len])), Ok(None));
        assert!(ledger.delivered(&at(1, &error[..len])).unwrap_err().contains("astray"));
        error[len - 1] ^= 1;
        assert!(ledger.delivered(&at(0, &error[..len])).unwrap_err().contains("checksum"));
        // A host's packet whose protocol was changed, or that was cut short, is none any more.
        let short = [&packet[..28], &[0; 4]].concat();
        let mut other = packet;
        other[9] = 50;
        for packet in [other, short] {
            assert!(ledger.delivered(&at(1, &packet)).is_err());
        }
    }

    #[test]
    fn a_shared_outside_endpoint_is_seen_and_an_answer_is_waited_for() {
        let mut ledger = Ledger::new(&Plan::draw(1));
        let outside = (IpAddr::from([100, 64, 3, 1]), 40_000);
        ledger.for_internet(HOSTS[0], 0);
        ledger.for_internet(HOSTS[1], 1);
        let out = |id| host::packet(outside, server(outside), id, 100);
        let (exit, answer) = ledger.delivered(&at(2, &out(0))).unwrap().unwrap();
        assert_eq!(exit, 2);
        assert!(!ledger.is_done(0));
        let id = host::open(&answer).unwrap().unwrap().id;
        let back = host::packet(server(outside), HOSTS[0], id, 100);
        assert_eq!(ledger.delivered(&at(0, &back)), Ok(None));
        assert!(ledger.is_done(0));
        assert!(ledger.delivered(&at(2, &out(1))).unwrap_err().contains("shares"));
        // Of another exit's addresses, or beyond what it gives away.
        for (outside, node) in [(outside, 1), ((outside.0, 39_999), 2)] {
            let id = ledger.for_internet(HOSTS[0], 0);
            let packet = host::packet(outside, server(outside), id, 100);
            assert!(ledger.delivered(&at(node, &packet)).unwrap_err().contains("its exit's"));
        }
    }
}
