//! Every packet of every host, and what became of it: nothing may arrive where it does not belong,
//! changed, or twice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::sim::host::{self, Endpoint, Letter};
use crate::sim::{Delivery, NodeNumber};
use crate::time::Instant;

/// A server in the Internet.
pub(super) const SERVER: Endpoint = (Ipv4Addr::new(8, 8, 8, 8), 53);
/// An idle UDP mapping lives for five minutes by its node's clock.
const MAPPING_LIFE: Duration = Duration::from_secs(299);

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
    at: Instant,
    from: Endpoint,
    to_endpoint: Endpoint,
    to: To,
    arrived: Option<Instant>,
}

/// What was sent, by id, and the NATs' promises.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: Vec<Sent>,
    /// For each exit and outside endpoint: whose it is, and since when it was not used.
    outsides: BTreeMap<(NodeNumber, Endpoint), ((NodeNumber, Endpoint), Instant)>,
    arrived: u64,
}

impl Ledger {
    pub(super) const fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    pub(super) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// A packet from a host to a host of another site.
    pub(super) fn for_host(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        site: NodeNumber,
        len: usize,
    ) -> (u64, Vec<u8>) {
        self.enter(now, from, to, To::Host(site), len)
    }

    /// A packet from a host of `site` to the server.
    pub(super) fn for_internet(
        &mut self,
        now: Instant,
        from: Endpoint,
        site: NodeNumber,
        len: usize,
    ) -> Vec<u8> {
        self.enter(now, from, SERVER, To::Internet(site), len).1
    }

    fn enter(
        &mut self,
        at: Instant,
        from: Endpoint,
        to_endpoint: Endpoint,
        to: To,
        len: usize,
    ) -> (u64, Vec<u8>) {
        let id = self.sent.len() as u64;
        self.sent.push(Sent { at, from, to_endpoint, to, arrived: None });
        (id, host::packet(from, to_endpoint, id, len))
    }

    /// How long a packet took, if it arrived.
    pub(super) fn took(&self, id: u64) -> Option<Duration> {
        let sent = self.sent.get(id as usize)?;
        sent.arrived.map(|arrived| arrived - sent.at)
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
            Ok(None) => return Ok(None),
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
            To::Internet(_) => (delivery.node, letter.to == SERVER && letter.from != sent.from),
        };
        if node != delivery.node || !right {
            return Err(told(&format!("went astray: {letter:?}, sent as {sent:?}")));
        }
        match sent.to {
            To::Internet(site) => {
                self.outside(delivery, &letter, (site, sent.from)).map_err(|e| told(&e))?;
                let to = To::Back { site, host: sent.from };
                let len = delivery.packet.len();
                let (_, answer) = self.enter(delivery.at, SERVER, letter.from, to, len);
                Ok(Some((delivery.node, answer)))
            }
            To::Host(_) | To::Back { .. } => Ok(None),
        }
    }

    /// One outside endpoint never serves two inside ones.
    fn outside(
        &mut self,
        delivery: &Delivery,
        letter: &Letter,
        inside: (NodeNumber, Endpoint),
    ) -> Result<(), String> {
        let key = (delivery.node, letter.from);
        let before = self.outsides.insert(key, (inside, delivery.at));
        match before {
            Some((other, used)) if other != inside && delivery.at - used < MAPPING_LIFE => {
                Err(format!("shares {:?} of {other:?} with {inside:?}", letter.from))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);
    const HOSTS: [Endpoint; 3] = [
        (Ipv4Addr::new(10, 1, 0, 1), 1),
        (Ipv4Addr::new(10, 2, 0, 1), 2),
        (Ipv4Addr::new(10, 3, 0, 1), 2),
    ];

    fn at(node: NodeNumber, packet: &[u8]) -> Delivery {
        Delivery { at: NOW, node, packet: packet.to_vec() }
    }

    #[test]
    fn astray_doubled_and_changed_packets_are_seen() {
        let mut ledger = Ledger::default();
        let (id, mut packet) = ledger.for_host(NOW, HOSTS[0], HOSTS[1], 1, 100);
        assert_eq!(ledger.delivered(&at(1, &packet)), Ok(None));
        assert_eq!(ledger.took(id), Some(Duration::ZERO));
        assert!(ledger.delivered(&at(1, &packet)).unwrap_err().contains("twice"));
        let (_, other) = ledger.for_host(NOW, HOSTS[0], HOSTS[1], 1, 100);
        assert!(ledger.delivered(&at(2, &other)).unwrap_err().contains("astray"));
        packet[99] ^= 1;
        assert!(ledger.delivered(&at(1, &packet)).unwrap_err().contains("checksum"));
        let never = host::packet(HOSTS[0], HOSTS[1], 99, 100);
        assert!(ledger.delivered(&at(1, &never)).unwrap_err().contains("nobody"));
    }

    #[test]
    fn a_shared_outside_endpoint_is_seen() {
        let mut ledger = Ledger::default();
        let outside = (Ipv4Addr::new(100, 64, 3, 1), 40_000);
        ledger.for_internet(NOW, HOSTS[0], 0, 100);
        ledger.for_internet(NOW, HOSTS[1], 1, 100);
        let out = |id| host::packet(outside, SERVER, id, 100);
        let answer = ledger.delivered(&at(2, &out(0))).unwrap().unwrap();
        assert_eq!(answer.0, 2);
        assert!(ledger.delivered(&at(2, &out(1))).unwrap_err().contains("shares"));
    }
}
