//! All connections of a simulation, each packet at its instant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use super::Connection;
use crate::packet::Vnet;
use crate::sim::{Delivery, Fate, NodeNumber, Rest, Side, Simulator};
use crate::time::Instant;

/// What carries the packets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The nodes.
    Overlay,
    /// The underlay between these addresses of the sender and the receiver, without any node.
    Direct(IpAddr, IpAddr),
}

/// A packet on its way without nodes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Instant,
    order: u64,
    connection: usize,
    node: NodeNumber,
    packet: Vec<u8>,
    /// It is only before a link with a rate then.
    rest: Option<Rest>,
}

/// Connections, and their packets that no node carries.
#[derive(Debug, Default)]
pub struct TcpHosts {
    connections: Vec<(Way, Connection)>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
}

impl TcpHosts {
    /// One more.
    pub fn add(&mut self, way: Way, connection: Connection) {
        self.connections.push((way, connection));
    }

    /// True without connections.
    pub const fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// All connections in the order in which they were added.
    pub fn connections(&mut self) -> impl Iterator<Item = &mut (Way, Connection)> {
        self.connections.iter_mut()
    }

    /// Runs the simulation until `end`, or until packets come that are not what was sent. Returns
    /// what nodes delivered that is of no connection, and what is wrong with those packets, which
    /// are as good as lost.
    pub fn run_until(
        &mut self,
        simulator: &mut Simulator,
        end: Instant,
    ) -> (Vec<Delivery>, Vec<String>) {
        let (mut others, mut wrong) = (Vec::new(), Vec::new());
        loop {
            self.send(simulator);
            let due = self.due().map_or(end, |due| due.min(end));
            simulator.run_to_delivery(due.max(simulator.now()));
            let now = simulator.now();
            for delivery in simulator.take_deliveries() {
                match self.deliver(now, &delivery) {
                    Ok(true) => {}
                    Ok(false) => others.push(delivery),
                    Err(what) => wrong.push(what),
                }
            }
            self.arrive(simulator, &mut wrong);
            let due = |connection: &Connection| connection.deadline().is_some_and(|at| at <= now);
            for (_, connection) in self.connections.iter_mut().filter(|(_, c)| due(c)) {
                connection.on_time(now);
            }
            if now >= end || !wrong.is_empty() {
                self.send(simulator);
                return (others, wrong);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let deadlines = self.connections.iter().filter_map(|(_, c)| c.deadline());
        deadlines.chain(self.under_way.peek().map(|Reverse(first)| first.at)).min()
    }

    /// Hands what hosts sent to their nodes, or to the underlay.
    fn send(&mut self, simulator: &mut Simulator) {
        for index in 0..self.connections.len() {
            loop {
                let (way, connection) = &mut self.connections[index];
                let way = *way;
                let packets = connection.take_packets();
                let Some(&(node, _)) = packets.first() else { break };
                match way {
                    Way::Overlay => {
                        let (ours, theirs): (Vec<_>, Vec<_>) =
                            packets.into_iter().partition(|packet| packet.0 == node);
                        for frames in [ours, theirs].into_iter().filter(|some| !some.is_empty()) {
                            let node = frames[0].0;
                            let frames = frames.into_iter().map(|f| (f.1, Vnet::default()));
                            simulator.send_frames(node, frames.collect());
                        }
                    }
                    Way::Direct(a, b) => {
                        let (client, server) = connection.nodes();
                        for (from, packet) in packets {
                            let there = from == client;
                            let (ends, node) =
                                if there { ((a, b), server) } else { ((b, a), client) };
                            let (now, len) = (simulator.now(), packet.len());
                            let (a, b) = ends;
                            let fate = simulator.network.transit(now, a, b, Side::Direct, len);
                            self.goes(now, fate, index, node, packet);
                        }
                    }
                }
            }
        }
    }

    /// What becomes of a packet on the underlay alone.
    fn goes(
        &mut self,
        now: Instant,
        fate: Fate,
        connection: usize,
        node: NodeNumber,
        packet: Vec<u8>,
    ) {
        // Its checksum is wrong if it is corrupt.
        let Some(delay) = fate.delay.filter(|_| !fate.corrupt) else { return };
        for delay in fate.again.into_iter().chain([delay]) {
            self.order += 1;
            let (at, order, packet, rest) =
                (now + delay, self.order, packet.clone(), fate.rest.clone());
            self.under_way.push(Reverse(UnderWay { at, order, connection, node, packet, rest }));
        }
    }

    fn deliver(&mut self, now: Instant, delivery: &Delivery) -> Result<bool, String> {
        let told = |what| format!("{now} node {}: a TCP segment {what}", delivery.node);
        for (_, connection) in self.connections.iter_mut().filter(|(way, _)| *way == Way::Overlay) {
            if connection.on_packet(now, delivery.node, &delivery.packet).map_err(told)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn arrive(&mut self, simulator: &mut Simulator, wrong: &mut Vec<String>) {
        let now = simulator.now();
        while self.under_way.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(first)) = self.under_way.pop() else { break };
            if let Some(rest) = first.rest {
                let fate = simulator.network.go_on(now, rest);
                self.goes(now, fate, first.connection, first.node, first.packet);
            } else if let Some((_, connection)) = self.connections.get_mut(first.connection)
                && let Err(what) = connection.on_packet(now, first.node, &first.packet)
            {
                wrong.push(format!("{now}: a TCP segment {what}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::tcp::segment::{self, Segment};
    use crate::sim::{LinkModel, Mesh, host};

    /// A connection from site 0 to site 1 over the nodes and one beside them, 20 ms apart; the way
    /// between is cut from the tenth second to the twentieth.
    fn outage(rate_bps: Option<u64>) -> [super::super::Experience; 2] {
        let configs = Mesh { sites: 3, ..Mesh::default() }.configs();
        let mut simulator = Simulator::new(configs, LinkModel::default(), 5);
        simulator.run_for(Duration::from_secs(5));
        let mut hosts = TcpHosts::default();
        let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
        let ends = [0, 1].map(|site| (usize::from(site), (Mesh::host(site, 5).into(), 80)));
        let start = simulator.now();
        for way in [Way::Overlay, Way::Direct(a, b)] {
            hosts.add(way, Connection::new(start, ends[0], ends[1], rate_bps, None));
        }
        for (second, up) in [(10, true), (20, false), (40, true)] {
            simulator.network.set_both(a, b, |link| link.up = up);
            let end = start + Duration::from_secs(second);
            assert_eq!(hosts.run_until(&mut simulator, end), (vec![], vec![]));
        }
        let now = simulator.now();
        let all: Vec<_> = hosts.connections().map(|(_, c)| c.finish(now)).collect();
        all.try_into().unwrap()
    }

    #[test]
    fn an_outage_stalls_the_direct_way_and_hardly_the_overlay() {
        let [overlay, direct] = outage(None);
        // Ten seconds, and the rest of a time-out that has doubled meanwhile.
        assert!((10..26).contains(&direct.longest.as_secs()), "{direct:?}");
        assert!(overlay.longest < Duration::from_secs(2), "{overlay:?}");
        // 64 KiB for each round trip of 20 ms.
        assert!(overlay.bytes > 80_000_000, "{overlay:?}");
        assert!(direct.stalls >= 1 && direct.timeouts >= 3, "{direct:?}");
    }

    #[test]
    fn a_shared_link_with_a_rate_carries_just_that_and_the_overlay_does_not_slow_it_down() {
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let mut simulator = Simulator::new(configs, LinkModel::default(), 5);
        let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
        let model = LinkModel { rate_bps: Some(1_000_000), ..LinkModel::default() };
        simulator.network.share([model; 2].into_iter());
        simulator.network.set_route(a, b, Some(vec![0]));
        simulator.network.set_route(b, a, Some(vec![1]));
        simulator.run_for(Duration::from_secs(5));
        let mut hosts = TcpHosts::default();
        let ends = [0, 1].map(|site| (usize::from(site), (Mesh::host(site, 5).into(), 80)));
        let start = simulator.now();
        for way in [Way::Direct(a, b), Way::Overlay] {
            hosts.add(way, Connection::new(start, ends[0], ends[1], None, None));
        }
        let end = start + Duration::from_secs(20);
        assert_eq!(hosts.run_until(&mut simulator, end), (vec![], vec![]));
        let kbit_s: Vec<_> =
            hosts.connections().map(|(_, c)| c.finish(end).bytes * 8 / 20_000).collect();
        // Of the rate, headers take a part.
        assert!((850..=970).contains(&kbit_s[0]), "{kbit_s:?}");
        assert!((700..=930).contains(&kbit_s[1]), "{kbit_s:?}");
    }

    #[test]
    fn a_damaged_segment_is_told_and_takes_no_other_packet_with_it() {
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let mut simulator = Simulator::new(configs, LinkModel::default(), 5);
        simulator.run_for(Duration::from_secs(5));
        let mut hosts = TcpHosts::default();
        let ends = [0, 1].map(|site| (usize::from(site), (Mesh::host(site, 5).into(), 80)));
        let connection = Connection::new(simulator.now(), ends[0], ends[1], Some(400_000), None);
        hosts.add(Way::Overlay, connection);
        let [from, to] = [0, 1].map(|site| (Mesh::host(site, 6).into(), 90));
        let mut damaged = Segment {
            from,
            to,
            seq: 0,
            ack: 0,
            flags: 0,
            mss: None,
            payload: segment::bytes(1, 0..50),
        }
        .emit();
        damaged[60] ^= 1;
        simulator.send(0, &damaged);
        let letter = host::packet(from, to, 1, 100);
        simulator.send(0, &letter);
        let end = simulator.now() + Duration::from_secs(1);
        let (mut others, mut wrong) = (Vec::new(), Vec::new());
        while simulator.now() < end {
            let came = hosts.run_until(&mut simulator, end);
            others.extend(came.0.into_iter().map(|delivery| host::open(&delivery.packet)));
            wrong.extend(came.1);
        }
        assert!(matches!(&others[..], [Ok(Some(letter))] if letter.id == 1), "{others:?}");
        assert!(
            matches!(&wrong[..], [what] if what.ends_with("has a wrong checksum")),
            "{wrong:?}"
        );
        let (_, connection) = hosts.connections().next().unwrap();
        assert!(connection.finish(end).bytes > 40_000);
    }

    #[test]
    fn a_user_who_writes_slowly_gets_just_that() {
        let [overlay, direct] = outage(Some(400_000));
        assert!((1_950_000..=2_000_000).contains(&overlay.bytes), "{overlay:?}");
        assert!((1_950_000..=2_000_000).contains(&direct.bytes), "it catches up: {direct:?}");
        assert_eq!(overlay.stalls, 0, "{overlay:?}");
    }
}
