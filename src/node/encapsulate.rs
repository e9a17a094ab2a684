//! From a decided train to sealed datagrams in the send batch: the last step of a packet's way out.

mod seal;

use std::net::SocketAddr;

use super::Node;
use super::bundle::Bundles;
use crate::batch::{Output, Target};
use crate::id::PeerIndex;
use crate::nat::Realm;
use crate::packet::{self, Headers, Segmenter, Vnet};
use crate::path::{LinkId, Path, PathId};
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::{self, Flags, RelayRepr, Report, Split};
pub(super) use seal::with_report;
use seal::{Cut, WaySealer};

/// IPv6 demands that every link carries this much (RFC 8200 section 5); so does the TUN, always.
const INNER_MTU_MIN: usize = 1_280;

/// What a relay is told about the traffic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Label {
    pub(super) class: u8,
    pub(super) flow_hash: u16,
}

/// Most groups of the send batch that the pieces of one packet begin.
const GROUPS_OF_PIECES: usize = 4;

/// A train of which only the packets before `next` are sent: the send batch was full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsent {
    pub(super) route: Route,
    pub(super) vnet: Vnet,
    pub(super) next: usize,
    /// How many are left.
    pub(super) packets: u64,
}

impl Unsent {
    /// A whole train.
    const fn all(route: &Route, vnet: &Vnet) -> Self {
        Self { route: *route, vnet: *vnet, next: 0, packets: 0 }
    }

    /// What is left from packet `next` on.
    pub(super) fn from(&self, next: usize, segmenter: &Segmenter<'_>) -> Self {
        Self { next, packets: (segmenter.count() - next) as u64, ..*self }
    }
}

/// A path, resolved to the point where bytes can be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) peer: PeerIndex,
    pub(super) path: Path,
    pub(super) target: Target,
    /// The largest inner packet that it passes in one datagram.
    pub(super) mtu: usize,
    hop: Option<Hop>,
    came_in_by: Option<Realm>,
}

/// The first of two hops.
#[derive(Clone, Copy, Debug)]
struct Hop {
    relay: PeerIndex,
    path: PathId,
    repr: RelayRepr,
}

impl Route {
    /// The same for packets from the Internet that came in by a mapping of our NAT, so that what
    /// their senders are told is translated back.
    pub(super) fn of_mapping(self, came_in_by: Option<Realm>) -> Self {
        Self { came_in_by, ..self }
    }

    /// True when a packet for `other` may share a datagram with one for this.
    pub(super) fn is_same_way(&self, other: &Self) -> bool {
        (self.peer, self.path, self.target) == (other.peer, other.path, other.target)
            && self.hop.map(|hop| hop.repr.class) == other.hop.map(|hop| hop.repr.class)
    }

    /// Where the relay header ends and the tunnel's datagram begins.
    const fn offset(&self) -> usize {
        if self.hop.is_some() { wire::RELAY_OVERHEAD } else { 0 }
    }
}

/// The largest inner packet that fits into a tunnel datagram of a given length.
fn inner_mtu(datagram: u16) -> usize {
    usize::from(datagram) - wire::DATA_OVERHEAD - wire::COPY_ID_LEN
}

impl Node {
    /// Resolves a path to a peer. `None` when an address on the way is not known.
    pub(super) fn route(
        &self,
        peer: PeerIndex,
        path: Path,
        tos: u8,
        label: Label,
    ) -> Option<Route> {
        match path {
            Path::Direct(link) => {
                let state = self.peers[peer.usize()].state(path)?;
                let target =
                    Target { uplink: link.local, destination: state.endpoint.address()?, tos };
                let mtu = inner_mtu(state.mtu.proven());
                Some(Route { peer, path, target, mtu, hop: None, came_in_by: None })
            }
            Path::Via(relay) => {
                let link = self.router.link_to(relay)?;
                let destination = self.peers[relay.usize()].address(link)?;
                let repr = RelayRepr {
                    src: self.id,
                    dst: self.peers[peer.usize()].id,
                    hop_limit: wire::relay::HOP_LIMIT,
                    class: label.class,
                    flow_hash: label.flow_hash,
                };
                let hop = Hop { relay, path: Path::Direct(link).into(), repr };
                let target = Target { uplink: link.local, destination, tos };
                let mtu = self.proven_mtu(peer, path);
                Some(Route { peer, path, target, mtu, hop: Some(hop), came_in_by: None })
            }
        }
    }

    /// The direct way over a link to an address that need not be the link's own.
    pub(super) fn route_to(
        &self,
        peer: PeerIndex,
        link: LinkId,
        destination: SocketAddr,
        tos: u8,
    ) -> Route {
        let target = Target { uplink: link.local, destination, tos };
        let path = Path::Direct(link);
        let mtu = self.proven_mtu(peer, path);
        Route { peer, path, target, mtu, hop: None, came_in_by: None }
    }

    /// Sends one plaintext of `len` bytes, written by `fill`, over `route`.
    pub(super) fn send(
        &mut self,
        now: Instant,
        route: &Route,
        flags: Flags,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let offset = route.offset();
        let total = offset + wire::DATA_OVERHEAD + len;
        // Keys are asked for first, so that nothing is queued that cannot be sealed.
        let mut sealer = WaySealer::new(&mut self.tunnels, now, route)?;
        let datagram = out.tx.push(route.target, total).ok_or(DropReason::BatchFull)?;
        let start = offset + wire::DATA_HEADER_LEN;
        fill(&mut datagram[start..start + len]);
        if let Err(reason) = sealer.seal(flags, datagram) {
            // What is not sealed must not stay: the whole batch is sent.
            datagram.fill(0);
            out.tx.take_back(route.target);
            return Err(reason);
        }
        if !flags.has(Flags::CONTROL) {
            self.tunnels.expect_answer(now, route.peer);
        }
        self.peers[route.peer.usize()].tx.add(1, total as u64);
        self.counters.underlay_tx.add(1, total as u64);
        Ok(())
    }

    /// Whether a peer has keys to seal with.
    pub(super) fn can_seal(&self, now: Instant, peer: PeerIndex) -> Result<(), DropReason> {
        if self.tunnels.is_up(now, peer) { Ok(()) } else { Err(DropReason::NoTunnel) }
    }

    fn proven_mtu(&self, peer: PeerIndex, path: Path) -> usize {
        let state = self.peers[peer.usize()].state(path);
        let base = || super::peer::base_datagram(path, false);
        inner_mtu(state.map_or_else(base, |state| state.mtu.proven()))
    }

    /// Cuts a train to what the path passes, seals it and queues it. What finds no room in the send
    /// batch is left in `unsent`.
    pub(super) fn encapsulate(
        &mut self,
        now: Instant,
        route: &Route,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        self.note_sent(now, route);
        self.encapsulate_from(now, &Unsent::all(route, vnet), frame, headers, out)
    }

    /// The same for what is left of a train.
    pub(super) fn encapsulate_from(
        &mut self,
        now: Instant,
        unsent: &Unsent,
        frame: &[u8],
        headers: &Headers,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Unsent { route, vnet, next, .. } = unsent;
        let mtu = route.mtu;
        let mut segmenter = match Segmenter::new(frame, headers, *vnet, mtu) {
            Ok(segmenter) => segmenter,
            Err(DropReason::TooBig) => {
                let whole = Segmenter::new(frame, headers, *vnet, usize::MAX)?;
                self.close_bundle(now, route.peer, out);
                return self.encapsulate_too_big(now, unsent, &whole, mtu, out);
            }
            Err(reason) => return Err(reason),
        };
        let flags = if segmenter.leave_partial() { Flags::NEEDS_CHECKSUM } else { Flags::NONE };
        if Bundles::suits(segmenter.segment_len(0), mtu) {
            return self.bundle_train(now, unsent, flags, &segmenter, mtu, out);
        }
        self.close_bundle(now, route.peer, out);
        let stopped = self.send_train(now, unsent, flags, &segmenter, mtu, out)?;
        let Some((index, reason)) = stopped else { return Ok(()) };
        // Those before are on their way.
        if reason == DropReason::BatchFull && index > *next {
            self.unsent = Some(unsent.from(index, &segmenter));
        } else {
            self.counters.drop_many(reason, (segmenter.count() - index) as u64);
        }
        Ok(())
    }

    /// Seals all packets of a train, asking for the keys once. Says which one could not go, and why.
    fn send_train(
        &mut self,
        now: Instant,
        unsent: &Unsent,
        flags: Flags,
        segmenter: &Segmenter<'_>,
        mtu: usize,
        out: &mut Output,
    ) -> Result<Option<(usize, DropReason)>, DropReason> {
        let route = &unsent.route;
        let last = segmenter.count() - 1;
        let report = self.report_for(now, route, segmenter.segment_len(last), mtu);
        let cut = Cut { unsent, flags, segmenter, report };
        let way = (route.peer, route.path.into());
        let (sent, stopped) = match &route.hop {
            None => {
                let mut sealer = self.tunnels.sealer(now, way.0, way.1)?;
                cut.seal::<0>(out, |flags, datagram| sealer.seal(flags, datagram).map(|_| ()))
            }
            Some(hop) => {
                let first = (hop.relay, hop.path);
                let (mut sealer, mut relay) = self.tunnels.relayed_sealers(now, way, first)?;
                cut.seal::<{ wire::RELAY_OVERHEAD }>(out, |flags, datagram| {
                    sealer.seal(flags, &mut datagram[wire::RELAY_OVERHEAD..])?;
                    relay.seal(&hop.repr, datagram)
                })
            }
        };
        if let (None, Some(report)) = (stopped, &report) {
            self.note_reported(now, route.peer, report);
        }
        self.tunnels.expect_answer(now, route.peer);
        self.peers[route.peer.usize()].tx.add(sent.packets, sent.bytes);
        self.counters.underlay_tx.add(sent.packets, sent.bytes);
        Ok(stopped)
    }

    /// The report that rides on the last packet of a train, when it is due and finds room.
    pub(super) fn report_for(
        &self,
        now: Instant,
        route: &Route,
        len: usize,
        mtu: usize,
    ) -> Option<Report> {
        let room = len + wire::control::REPORT_LEN <= mtu;
        if room { self.riding_report(now, route.peer) } else { None }
    }

    /// The packets of a train that no cutting of TCP could make small enough, one by one. Those
    /// that cannot go are counted here, and their sender is told once.
    fn encapsulate_too_big(
        &mut self,
        now: Instant,
        unsent: &Unsent,
        segmenter: &Segmenter<'_>,
        mtu: usize,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let route = &unsent.route;
        let mut packet = std::mem::take(&mut self.packet_scratch);
        let mut told = false;
        for index in unsent.next..segmenter.count() {
            // Its pieces are of two lengths, so each begins a group.
            if !out.tx.has_room(GROUPS_OF_PIECES) && index > unsent.next {
                self.unsent = Some(unsent.from(index, segmenter));
                break;
            }
            packet.resize(segmenter.segment_len(index), 0);
            segmenter.write(index, &mut packet);
            match self.send_one(now, route, &packet, mtu, out) {
                Err(DropReason::TooBig) if !std::mem::replace(&mut told, true) => {
                    self.counters.drop(DropReason::TooBig);
                    self.answer_too_big(now, route, &packet, mtu, out);
                }
                Err(reason) => self.counters.drop(reason),
                Ok(()) => {}
            }
        }
        self.packet_scratch = packet;
        Ok(())
    }

    /// One packet as it is, in two halves, or in fragments.
    fn send_one(
        &mut self,
        now: Instant,
        route: &Route,
        packet: &[u8],
        mtu: usize,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if packet.len() <= mtu {
            let fill = |place: &mut [u8]| place.copy_from_slice(packet);
            return self.send(now, route, Flags::NONE, packet.len(), fill, out);
        }
        if packet.len() <= INNER_MTU_MIN {
            return self.send_split(now, route, packet, out);
        }
        let headers = Headers::parse(packet)?;
        let fragments = packet::Fragmenter::new(packet, &headers, mtu)?;
        for index in 0..fragments.count() {
            let len = fragments.fragment_len(index);
            let fill = |place: &mut [u8]| {
                fragments.write(index, place);
            };
            self.send(now, route, Flags::NONE, len, fill, out)?;
        }
        Ok(())
    }

    fn answer_too_big(
        &mut self,
        now: Instant,
        route: &Route,
        packet: &[u8],
        mtu: usize,
        out: &mut Output,
    ) {
        let Ok(headers) = Headers::parse(packet) else { return };
        let mtu = mtu.max(INNER_MTU_MIN) as u16;
        let error = packet::icmp::Error::TooBig { mtu };
        self.answer_host(now, route.came_in_by, packet, &headers, error, out);
    }

    /// Two halves, for a path that is too small for what must pass.
    fn send_split(
        &mut self,
        now: Instant,
        route: &Route,
        packet: &[u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let peer = &mut self.peers[route.peer.usize()];
        let id = peer.next_split;
        peer.next_split = id.wrapping_add(1);
        let (first, second) = packet.split_at(packet.len().div_ceil(2));
        for (part, body) in [(0, first), (1, second)] {
            let split = Split { packet: id, part, parts: 2 };
            let fill = |place: &mut [u8]| {
                let (head, rest) = place.split_at_mut(Split::LEN);
                head.copy_from_slice(&split.emit());
                rest.copy_from_slice(body);
            };
            self.send(now, route, Flags::SPLIT, Split::LEN + body.len(), fill, out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RxBatch;
    use crate::id::UplinkIndex;
    use crate::node::TunVerdict;
    use crate::sim::Mesh;
    use crate::time::WallClock;

    const NOW: Instant = Instant::from_micros(1_000_000);

    /// Carries what `out` holds to `to`.
    fn carry(out: &mut Output, to: &mut Node, answer: &mut Output) {
        let mut rx = RxBatch::new(1);
        for transmit in out.tx.transmits() {
            let slot = &mut rx.slots[0];
            slot.buffer[..transmit.bytes().len()].copy_from_slice(transmit.bytes());
            (slot.len, slot.stride) = (transmit.bytes().len(), transmit.stride);
            rx.filled = 1;
            to.handle_datagrams(NOW, &mut rx, answer);
        }
        out.clear();
    }

    /// A node that has a tunnel to its only peer.
    fn connected() -> Node {
        let configs = Mesh { sites: 2, ..Mesh::default() }.configs();
        let mut nodes =
            configs.into_iter().map(|config| Node::new(config, [3; 32], NOW, WallClock(1)));
        let (mut a, mut b) = (nodes.next().unwrap(), nodes.next().unwrap());
        let (mut from_a, mut from_b) = (Output::new(8), Output::new(8));
        a.handle_timeout(NOW, WallClock(1), &mut from_a);
        carry(&mut from_a, &mut b, &mut from_b);
        carry(&mut from_b, &mut a, &mut from_a);
        assert_eq!(a.can_seal(NOW, PeerIndex(0)), Ok(()));
        a
    }

    #[test]
    fn what_cannot_be_sealed_leaves_no_trace_in_the_batch() {
        let mut node = connected();
        let mut out = Output::new(64);
        let target = Target {
            uplink: UplinkIndex(0),
            destination: SocketAddr::from(([192, 0, 2, 2], 4710)),
            tos: 0,
        };
        let mut results = Vec::new();
        for relay in 0..300 {
            let path = Path::Via(PeerIndex(relay));
            let route =
                Route { peer: PeerIndex(0), path, target, mtu: 1_392, hop: None, came_in_by: None };
            let fill = |place: &mut [u8]| place.fill(0xaa);
            results.push(node.send(NOW, &route, Flags::NONE, 100, fill, &mut out));
        }
        let sent = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(results.last(), Some(&Err(DropReason::TooManyPaths)));
        let segments: usize = out.tx.transmits().iter().map(|transmit| transmit.segments).sum();
        assert_eq!(segments, sent);
        for transmit in out.tx.transmits() {
            assert!(!transmit.bytes().windows(16).any(|bytes| bytes == [0xaa; 16]));
        }
    }

    fn direct() -> Route {
        let target = Target {
            uplink: UplinkIndex(0),
            destination: SocketAddr::from(([192, 0, 2, 2], 4710)),
            tos: 0,
        };
        let path = Path::Direct(LinkId { local: UplinkIndex(0), remote: UplinkIndex(0) });
        Route { peer: PeerIndex(0), path, target, mtu: 1_392, hop: None, came_in_by: None }
    }

    /// A train of UDP packets of 500 bytes each, the last one of the rest.
    fn udp_train(payload: &[u8]) -> (Vec<u8>, Vnet) {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 1, 0, 5], [10, 2, 0, 5], 64)
            .udp(1, 2)
            .write(&mut frame, payload)
            .unwrap();
        let vnet = Vnet {
            needs_checksum: true,
            gso: packet::Gso::Udp,
            header_len: 28,
            segment_size: 500,
            checksum_start: 20,
            checksum_offset: 6,
        };
        (frame, vnet)
    }

    #[test]
    fn a_train_whose_keys_run_out_stops_and_leaves_no_cleartext() {
        let mut node = connected();
        let mut out = Output::new(8);
        let route = direct();
        let (frame, vnet) = udp_train(&[0xaa; 3 * 500]);
        let headers = Headers::parse(&frame).unwrap();
        node.tunnels.wear_out(PeerIndex(0), 1);
        node.encapsulate(NOW, &route, &frame, &headers, &vnet, &mut out).unwrap();
        let drops: Vec<_> = node.counters.drops().filter(|drop| drop.1 > 0).collect();
        assert_eq!(drops, [(DropReason::KeyExpired, 2)]);
        assert_eq!(out.tx.transmits().iter().map(|transmit| transmit.segments).sum::<usize>(), 1);
        let sealed = out.tx.transmits()[0].bytes().to_vec();
        // The place of the one that failed is the next one's.
        let place = out.tx.push(route.target, sealed.len()).unwrap();
        for bytes in [&sealed[..], &*place] {
            assert!(!bytes.windows(16).any(|bytes| bytes == [0xaa; 16]));
        }
    }

    #[test]
    fn what_finds_the_batch_full_leaves_after_a_flush() {
        let mut node = connected();
        let mut out = Output::new(1);
        let route = direct();
        let (mut frame, vnet) = udp_train(&[7; 99 * 500 + 300]);
        let headers = Headers::parse(&frame).unwrap();
        node.peers[0].arrivals.on_data(NOW, route.path.into(), 100);
        node.encapsulate(NOW, &route, &frame, &headers, &vnet, &mut out).unwrap();
        assert_eq!(out.tx.transmits()[0].segments, 64);
        assert!(node.riding_report(NOW, PeerIndex(0)).is_some(), "it rides on the last one");
        assert_eq!(node.unsent.map(|unsent| unsent.packets), Some(36));
        out.clear();
        assert_eq!(node.resume_tun_frame(NOW, &mut frame, &mut out), TunVerdict::Consumed);
        assert_eq!(out.tx.transmits()[0].segments, 36);
        assert!(node.riding_report(NOW, PeerIndex(0)).is_none(), "it is told");
        assert_eq!(node.counters.drops().map(|drop| drop.1).sum::<u64>(), 0);
    }
}
