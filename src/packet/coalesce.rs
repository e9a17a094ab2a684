//! Packets that came out of the tunnel into super-packets for the TUN (what GRO does).
//!
//! Only positions are kept: a train is its first packet, whose header is patched where it lies in
//! the receive buffer, and the payload ranges of the packets that follow it. The rules are those of
//! GRO in Linux: a train taken apart again gives the same packets, but for the identification of
//! IPv4 packets that may not be fragmented, which means nothing (RFC 6864).

mod train;

use std::collections::VecDeque;
use std::ops::Range;

use super::checksum;
use super::{Ecn, Headers, Vnet, protocol, tcp_flag};
use crate::batch::{Output, Part, RxBatch};
use crate::id::PeerIndex;
use train::Train;

const NO_HASH: u32 = 0;
const IPV4_LEN: usize = 2;
const IPV4_ID: usize = 4;
const IPV6_LEN: usize = 4;
const IPV6_HEADER_LEN: u32 = 40;
const TCP_HEADER_LEN: usize = 20;
const TCP_SEQ: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const UDP_LEN: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// Requests to a NAT are read one by one (RFC 6887 section 19).
const PCP_PORT: u16 = 5_351;

/// Flags with which a segment ends its train.
const ENDING: u8 = tcp_flag::FIN | tcp_flag::PSH;
/// Flags that a segment of a train may have.
const ALLOWED: u8 = ENDING | tcp_flag::ACK | tcp_flag::ECE | tcp_flag::CWR;

/// Which super-packets the TUN takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// TCP over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP (not before Linux 6.2).
    pub udp: bool,
}

/// A packet that came out of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Where it lies in a receive buffer.
    pub at: Part,
    /// What its headers say.
    pub headers: Headers,
    /// Who sealed it: packets of different peers are never merged.
    pub peer: PeerIndex,
    /// Its upper-layer checksum is a partial one (of TCP or UDP, not of a fragment).
    pub partial: bool,
}

/// A packet or super-packet that is complete.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Who sealed its packets.
    pub peer: PeerIndex,
    /// Those of the whole.
    pub headers: Headers,
    /// The offload header that goes with it.
    pub vnet: Vnet,
    /// Its pieces, a range of [`Output::parts`]. The first one holds all the headers.
    pub parts: Range<usize>,
    /// How many packets it is made of.
    pub packets: u32,
}

/// Merges the packets of one turn, given in the order of arrival, into as few super-packets as
/// possible. Within a flow the order is kept; between flows it may change.
///
/// What is complete waits in a queue; [`Self::pop`] is to be called after each [`Self::push`] and
/// [`Self::flush`] until it yields nothing.
#[derive(Debug)]
pub struct Coalescer {
    trains: Vec<Train>,
    /// A hash of each train's flow, beside each other for a quick search.
    hashes: [u32; Self::MAX_FLOWS],
    used: usize,
    /// The train that was last begun or continued, if it is still there.
    recent: usize,
    victim: usize,
    offload: Offload,
    ready: VecDeque<Merged>,
}

impl Coalescer {
    /// Most flows at a time; one more makes an older one leave.
    pub const MAX_FLOWS: usize = 64;
    /// Most packets in one super-packet: enough for 64 KiB of segments of 536 bytes.
    pub const MAX_PACKETS: usize = 128;
    /// Longest super-packet. With an Ethernet and two VLAN headers it stays below 65536 bytes: what
    /// is longer Linux cuts in software before the device that it is forwarded to.
    pub const MAX_LEN: u32 = 65_535 - 14 - 8;

    /// Empty. Allocates all that it ever needs.
    pub fn new(offload: Offload) -> Self {
        let nothing = Part { slot: 0, start: 0, end: 0 };
        let trains = (0..Self::MAX_FLOWS)
            .map(|_| Train {
                first: nothing,
                peer: PeerIndex(0),
                partial: false,
                headers: NO_HEADERS,
                segment_size: 0,
                total_len: 0,
                next_seq: 0,
                next_id: 0,
                last_flags: 0,
                checksum_ok: false,
                parts: Vec::with_capacity(Self::MAX_PACKETS),
            })
            .collect();
        let ready = VecDeque::with_capacity(4 * Self::MAX_FLOWS);
        Self {
            trains,
            hashes: [NO_HASH; Self::MAX_FLOWS],
            used: 0,
            recent: 0,
            victim: 0,
            offload,
            ready,
        }
    }

    /// Changes which super-packets are made, for a kernel that refused one. What is under way is
    /// not affected.
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Takes a packet that lies in a receive buffer and is described by its headers. One that is not
    /// to be merged is complete by itself, behind those of its flow that came before.
    ///
    /// Its complete checksum is verified before it is merged; a partial one its sender, who
    /// authenticated it, vouches for.
    pub fn push(&mut self, rx: &mut RxBatch, out: &mut Output, packet: &Arrived) {
        let headers = &packet.headers;
        let at = Part { end: packet.at.start + headers.total_len, ..packet.at };
        let packet = Arrived { at, ..*packet };
        let Some(bytes) = bytes(rx, at) else {
            debug_assert!(false, "the packet lies in no receive buffer");
            return;
        };
        if headers.ports.is_none() || headers.fragment.is_some() {
            // A fragment does not say to which flow it belongs.
            self.flush_between(rx, out, headers);
            return self.emit_single(out, &packet);
        }
        let mergeable = self.is_mergeable(bytes, headers);
        let hash = flow_hash(headers);
        if let Some(index) = self.find(hash, packet.peer, headers) {
            if mergeable && self.trains[index].append(rx, &packet) {
                self.recent = index;
                if self.trains[index].is_complete() {
                    self.emit(index, rx, out);
                }
                return;
            }
            self.emit(index, rx, out);
        }
        if !mergeable || headers.tcp_flags & ENDING != 0 {
            return self.emit_single(out, &packet);
        }
        self.begin(rx, out, hash, &packet);
    }

    /// Takes the packet that lies at `at` and came with a partial checksum, if its bytes show that it
    /// is the next one of the train that was continued last: then nothing of it need be parsed. False
    /// when that cannot be said; then nothing was changed. `outer` is the mark of the datagram.
    pub fn push_next(
        &mut self,
        rx: &mut RxBatch,
        out: &mut Output,
        at: Part,
        peer: PeerIndex,
        outer: Ecn,
    ) -> bool {
        let index = self.recent;
        if index >= self.used || self.trains[index].peer != peer {
            return false;
        }
        let train = &mut self.trains[index];
        if !train.append_next(rx, at, outer) {
            return false;
        }
        if train.is_complete() {
            self.emit(index, rx, out);
        }
        true
    }

    /// Completes all that is under way; to be called before the receive buffers are reused.
    pub fn flush(&mut self, rx: &mut RxBatch, out: &mut Output) {
        for train in &mut self.trains[..self.used] {
            self.ready.push_back(train.finish(rx, out));
        }
        self.used = 0;
    }

    /// The next one that is complete.
    pub fn pop(&mut self) -> Option<Merged> {
        self.ready.pop_front()
    }

    /// Those that are complete, in the order in which [`Self::pop`] yields them.
    pub fn ready(&self) -> impl ExactSizeIterator<Item = &Merged> {
        self.ready.iter()
    }

    /// True when it is time to call [`Self::pop`].
    pub fn is_crowded(&self) -> bool {
        self.ready.len() >= Self::MAX_FLOWS
    }

    /// True when nothing is under way.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// True for a packet that may be part of a train at all.
    fn is_mergeable(&self, packet: &[u8], headers: &Headers) -> bool {
        if headers.has_options || headers.payload_len() == 0 {
            return false;
        }
        match headers.protocol {
            protocol::TCP => {
                let flags = headers.tcp_flags;
                self.offload.tcp && flags & tcp_flag::ACK != 0 && flags & !ALLOWED == 0
            }
            protocol::UDP => {
                let l4 = usize::from(headers.l4);
                let len = checksum::get(packet, l4 + UDP_LEN).map(usize::from);
                let ports = headers.ports;
                self.offload.udp
                    && ports.is_none_or(|ports| ports.dst != PCP_PORT)
                    && len == Some(headers.payload_len() + 8)
                    && checksum::get(packet, l4 + UDP_CHECKSUM) != Some(0)
            }
            _ => false,
        }
    }

    fn find(&self, hash: u32, peer: PeerIndex, headers: &Headers) -> Option<usize> {
        let hashes = self.hashes.get(..self.used)?;
        let same = |train: &Train| {
            train.headers.ports == headers.ports
                && train.peer == peer
                && train.headers.protocol == headers.protocol
                && train.headers.source == headers.source
                && train.headers.destination == headers.destination
        };
        let matches = |(index, &found): (usize, &u32)| found == hash && same(&self.trains[index]);
        hashes.iter().enumerate().position(matches)
    }

    fn begin(&mut self, rx: &mut RxBatch, out: &mut Output, hash: u32, packet: &Arrived) {
        if self.used == Self::MAX_FLOWS {
            self.victim = (self.victim + 1) % Self::MAX_FLOWS;
            self.emit(self.victim, rx, out);
        }
        let headers = &packet.headers;
        let Some(bytes) = bytes(rx, packet.at) else { return };
        let train = &mut self.trains[self.used];
        self.hashes[self.used] = hash;
        self.recent = self.used;
        self.used += 1;
        train.first = packet.at;
        train.peer = packet.peer;
        train.partial = packet.partial;
        train.headers = *headers;
        train.segment_size = headers.payload_len() as u32;
        train.total_len = headers.total_len;
        train.next_seq = seq_of(bytes, headers).wrapping_add(headers.payload_len() as u32);
        train.next_id = checksum::get(bytes, IPV4_ID).unwrap_or(0).wrapping_add(1);
        train.last_flags = headers.tcp_flags;
        train.checksum_ok = packet.partial;
        train.parts.clear();
    }

    /// Completes the trains between the two hosts of `headers`.
    pub fn flush_between(&mut self, rx: &mut RxBatch, out: &mut Output, headers: &Headers) {
        for index in (0..self.used).rev() {
            let train = &self.trains[index].headers;
            if train.source == headers.source && train.destination == headers.destination {
                self.emit(index, rx, out);
            }
        }
    }

    /// A packet by itself.
    fn emit_single(&mut self, out: &mut Output, packet: &Arrived) {
        let Arrived { at, headers, peer, partial } = *packet;
        self.ready.push_back(single(out, at, headers, peer, partial));
    }

    /// Completes one train; the last one takes its place in the table.
    fn emit(&mut self, index: usize, rx: &mut RxBatch, out: &mut Output) {
        self.ready.push_back(self.trains[index].finish(rx, out));
        self.used -= 1;
        self.trains.swap(index, self.used);
        self.hashes.swap(index, self.used);
    }
}

/// Stands in an unused entry of the table.
const NO_HEADERS: Headers = Headers {
    source: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    destination: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    protocol: 0,
    l4: 0,
    payload: 0,
    total_len: 0,
    fragment: None,
    ports: None,
    icmp: None,
    tcp_flags: 0,
    tos: 0,
    dont_fragment: false,
    hop_limit: 0,
    has_options: false,
};

/// One packet as it is.
fn single(out: &mut Output, at: Part, headers: Headers, peer: PeerIndex, partial: bool) -> Merged {
    let first = out.parts.len();
    out.parts.push(at);
    let vnet = if partial { checksum::partial_vnet(&headers) } else { None };
    let vnet = vnet.unwrap_or_default();
    Merged { peer, headers, vnet, parts: first..first + 1, packets: 1 }
}

fn bytes(rx: &RxBatch, at: Part) -> Option<&[u8]> {
    rx.slots.get(usize::from(at.slot))?.buffer.get(at.start as usize..at.end as usize)
}

fn bytes_mut(rx: &mut RxBatch, at: Part) -> Option<&mut [u8]> {
    rx.slots.get_mut(usize::from(at.slot))?.buffer.get_mut(at.start as usize..at.end as usize)
}

fn seq_of(packet: &[u8], headers: &Headers) -> u32 {
    match packet.get(headers.l4.into()..) {
        Some(tcp) if headers.protocol == protocol::TCP => tcp_seq(tcp),
        _ => 0,
    }
}

fn tcp_seq(tcp: &[u8]) -> u32 {
    tcp.get(TCP_SEQ..).and_then(<[u8]>::first_chunk).map_or(0, |seq| u32::from_be_bytes(*seq))
}

/// Spreads flows; whoever makes them collide gains nothing but longer comparisons.
fn flow_hash(headers: &Headers) -> u32 {
    let fold = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => u64::from(address.to_bits()),
        std::net::IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(17)
        }
    };
    let ports = headers.ports.map_or(0, |ports| u32::from(ports.src) << 16 | u32::from(ports.dst));
    let key = fold(headers.source).rotate_left(29)
        ^ fold(headers.destination)
        ^ u64::from(ports) << 24
        ^ u64::from(headers.protocol);
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::Gso;
    use crate::packet::Segmenter;
    use crate::packet::checksum::put;
    use crate::packet::testing::{Sample, Upper, assert_checksums};

    const ALL: Offload = Offload { tcp: true, udp: true };

    /// A coalescer with the buffers around it.
    struct Bench {
        rx: RxBatch,
        out: Output,
        coalescer: Coalescer,
        ends: [u32; 2],
        pushed: usize,
        merged: Vec<Merged>,
        peer: PeerIndex,
        /// Packets are offered to `push_next` first.
        quick: bool,
    }

    impl Bench {
        fn new(offload: Offload) -> Self {
            let (rx, out) = (RxBatch::new(2), Output::new(1));
            let coalescer = Coalescer::new(offload);
            let (ends, peer) = ([0; 2], PeerIndex(0));
            Self { rx, out, coalescer, ends, pushed: 0, merged: vec![], peer, quick: true }
        }

        fn push(&mut self, packet: &[u8], partial: bool) {
            // Several in a row in one receive buffer, some bytes between them.
            let slot = self.pushed / 5 % 2;
            let start = self.ends[slot] + 48;
            let end = start + packet.len() as u32;
            self.rx.slots[slot].buffer[start as usize..end as usize].copy_from_slice(packet);
            (self.ends[slot], self.pushed) = (end, self.pushed + 1);
            let at = Part { slot: slot as u16, start, end };
            let Self { rx, out, .. } = self;
            if self.quick
                && partial
                && self.coalescer.push_next(rx, out, at, self.peer, Ecn::NotEct)
            {
                self.merged.extend(std::iter::from_fn(|| self.coalescer.pop()));
                return;
            }
            let headers = Headers::parse(packet).unwrap();
            self.take(&Arrived { at, headers, peer: self.peer, partial });
        }

        fn take(&mut self, packet: &Arrived) {
            self.coalescer.push(&mut self.rx, &mut self.out, packet);
            self.merged.extend(std::iter::from_fn(|| self.coalescer.pop()));
        }

        /// Each TUN write: its offload header, its bytes, its number of packets.
        fn finish(mut self) -> Vec<(Vnet, Vec<u8>, u32)> {
            self.coalescer.flush(&mut self.rx, &mut self.out);
            assert!(self.coalescer.is_empty());
            self.merged.extend(std::iter::from_fn(|| self.coalescer.pop()));
            let writes = self.merged.iter().map(|merged| {
                let parts = self.out.parts[merged.parts.clone()].iter();
                let frame: Vec<u8> =
                    parts.flat_map(|&part| self.out.part(&self.rx, part)).copied().collect();
                assert_eq!(Headers::parse(&frame), Ok(merged.headers));
                (merged.vnet, frame, merged.packets)
            });
            writes.collect()
        }
    }

    fn segments((vnet, frame, count): &(Vnet, Vec<u8>, u32)) -> Vec<Vec<u8>> {
        let headers = Headers::parse(frame).unwrap();
        assert_eq!(headers.total_len as usize, frame.len());
        assert!(checksum::ipv4_is_right(frame, &headers));
        let segmenter = Segmenter::new(frame, &headers, *vnet, usize::MAX).unwrap();
        assert_eq!(segmenter.count(), *count as usize);
        let packets = (0..segmenter.count()).map(|index| {
            let mut packet = vec![0; segmenter.segment_len(index)];
            segmenter.write(index, &mut packet);
            packet
        });
        packets.collect()
    }

    /// TCP segments of `lens` bytes in sequence, the last one with PSH.
    fn tcp_train(ipv6: bool, lens: &[usize]) -> Vec<Vec<u8>> {
        let mut seq = u32::MAX - 150;
        let mut packets = vec![];
        for (i, &len) in lens.iter().enumerate() {
            let last = i + 1 == lens.len();
            let flags = tcp_flag::ACK | if last { tcp_flag::PSH } else { 0 };
            let mut sample = Sample::tcp(ipv6, seq, flags, &vec![i as u8; len]);
            sample.id = 7 + i as u16;
            packets.push(sample.bytes());
            seq = seq.wrapping_add(len as u32);
        }
        packets
    }

    #[test]
    fn segments_in_sequence_become_one_write_and_come_back_as_they_were() {
        for ipv6 in [false, true] {
            let packets = tcp_train(ipv6, &[100, 100, 100, 60]);
            let mut bench = Bench::new(ALL);
            packets.iter().for_each(|packet| bench.push(packet, false));
            let writes = bench.finish();
            assert_eq!(writes.len(), 1);
            let (vnet, frame, count) = &writes[0];
            assert_eq!((vnet.gso, vnet.segment_size, *count), (Gso::Tcp { ecn: false }, 100, 4));
            assert_eq!(vnet.header_len as usize + 360, frame.len());
            let headers = Headers::parse(frame).unwrap();
            assert!(checksum::is_partial(&headers, vnet));
            let mut completed = frame.clone();
            checksum::complete_partial(&mut completed, &headers, vnet).unwrap();
            assert_checksums(&completed);
            assert_eq!(segments(&writes[0]), packets);
        }
    }

    #[test]
    fn datagrams_of_one_size_become_one_write_until_a_shorter_one() {
        for ipv6 in [false, true] {
            let mut bench = Bench::new(ALL);
            let mut packets = vec![];
            for (i, len) in [80, 80, 30, 80, 90].into_iter().enumerate() {
                let mut sample = Sample::udp(ipv6, &vec![i as u8; len]);
                (sample.id, sample.dont_fragment) = (7 + i as u16, false);
                packets.push(sample.bytes());
                bench.push(packets.last().unwrap(), false);
            }
            let writes = bench.finish();
            let shape: Vec<_> = writes.iter().map(|(vnet, _, n)| (vnet.gso, *n)).collect();
            assert_eq!(shape, [(Gso::Udp, 3), (Gso::None, 1), (Gso::None, 1)]);
            assert_eq!(writes.iter().flat_map(segments).collect::<Vec<_>>(), packets);
        }
    }

    #[test]
    fn what_is_switched_off_is_not_merged() {
        for (tcp, udp) in [(false, true), (true, false)] {
            let mut bench = Bench::new(Offload { tcp, udp });
            tcp_train(false, &[50, 50]).iter().for_each(|packet| bench.push(packet, false));
            for id in 7..9 {
                let sample = Sample { id, ..Sample::udp(true, &[1; 50]) };
                bench.push(&sample.bytes(), false);
            }
            let counts: Vec<_> = bench.finish().iter().map(|(_, _, n)| *n).collect();
            assert_eq!(counts.len(), 3);
            assert_eq!(counts.contains(&2), tcp || udp);
        }
    }

    #[test]
    fn a_wrong_checksum_keeps_a_packet_out_of_trains_unless_it_is_vouched_for() {
        let mut packets = tcp_train(false, &[50, 50, 50]);
        packets[1][60] ^= 1;
        for (vouched, expected) in [(false, vec![1, 1, 1]), (true, vec![3])] {
            let mut bench = Bench::new(ALL);
            packets.iter().for_each(|packet| bench.push(packet, vouched));
            let writes = bench.finish();
            assert_eq!(writes.iter().map(|write| write.2).collect::<Vec<_>>(), expected);
            if !vouched {
                assert_eq!(writes[1].1, packets[1], "the receiver judges it");
            }
        }
    }

    /// The packet as a sender leaves it that completes nothing.
    fn partial(mut packet: Vec<u8>) -> Vec<u8> {
        crate::packet::testing::make_partial(&mut packet);
        packet
    }

    #[test]
    fn partial_and_complete_checksums_mix_in_a_train() {
        for ipv6 in [false, true] {
            for first in [true, false] {
                let packets = tcp_train(ipv6, &[50, 50, 50, 50]);
                let mut bench = Bench::new(ALL);
                for (index, packet) in packets.iter().enumerate() {
                    if (index % 2 == 0) == first {
                        bench.push(&partial(packet.clone()), true);
                    } else {
                        bench.push(packet, false);
                    }
                }
                let writes = bench.finish();
                assert_eq!(writes.iter().map(|write| write.2).collect::<Vec<_>>(), [4]);
                assert_eq!(segments(&writes[0]), packets);
            }
        }
    }

    #[test]
    fn a_partial_packet_that_stays_alone_is_left_to_the_kernel() {
        let packet = Sample::udp(true, &[1; 50]).bytes();
        let mut bench = Bench::new(ALL);
        bench.push(&partial(packet.clone()), true);
        let writes = bench.finish();
        assert!(writes[0].0.needs_checksum);
        assert_eq!(segments(&writes[0]), [packet]);
    }

    #[test]
    fn requests_to_a_nat_are_not_merged() {
        let mut bench = Bench::new(ALL);
        for id in 7..9 {
            let mut sample = Sample { id, ..Sample::udp(false, &[1; 24]) };
            sample.ports.1 = PCP_PORT;
            bench.push(&sample.bytes(), false);
        }
        let counts: Vec<_> = bench.finish().iter().map(|write| write.2).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn packets_of_different_peers_are_not_merged() {
        let packets = tcp_train(false, &[50, 50, 50]);
        let mut bench = Bench::new(ALL);
        for (index, packet) in packets.iter().enumerate() {
            bench.peer = PeerIndex(index as u16 / 2);
            bench.push(packet, true);
        }
        let mut counts: Vec<_> = bench.finish().iter().map(|write| write.2).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn a_udp_checksum_of_none_stays_none() {
        let mut bench = Bench::new(ALL);
        let mut packet = Sample::udp(false, &[1; 50]).bytes();
        put(&mut packet, 26, 0);
        for _ in 0..2 {
            bench.push(&packet, false);
        }
        let writes = bench.finish();
        assert_eq!(writes.iter().map(|write| write.2).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(writes[0].1, packet);
    }

    #[test]
    fn a_fragment_comes_behind_what_its_hosts_sent_before() {
        let mut bench = Bench::new(ALL);
        let before = tcp_train(false, &[50, 50, 50])[..2].to_vec();
        before.iter().for_each(|packet| bench.push(packet, false));
        let mut fragment = Sample::udp(false, &[1; 64]).bytes();
        fragment[7] = 8;
        bench.push(&fragment, false);
        let writes = bench.finish();
        assert_eq!(writes.iter().map(|write| write.2).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(writes[1].1, fragment);
    }

    #[test]
    fn more_flows_than_the_table_holds_lose_nothing() {
        let mut bench = Bench::new(ALL);
        let flows = Coalescer::MAX_FLOWS as u16 + 20;
        for round in 0..2 {
            for port in 0..flows {
                let mut sample = Sample::udp(false, &[round; 20]);
                (sample.ports.0, sample.id) = (port, 7 + u16::from(round));
                bench.push(&sample.bytes(), true);
            }
        }
        let writes = bench.finish();
        assert_eq!(writes.iter().map(|write| write.2).sum::<u32>(), 2 * u32::from(flows));
    }

    #[test]
    fn a_super_packet_has_its_limits() {
        let mut bench = Bench::new(ALL);
        let lens = vec![24; Coalescer::MAX_PACKETS + 10];
        tcp_train(false, &lens).iter().for_each(|packet| bench.push(packet, true));
        let counts: Vec<_> = bench.finish().iter().map(|write| write.2).collect();
        assert_eq!(counts, [Coalescer::MAX_PACKETS as u32, 10]);
        let mut bench = Bench::new(ALL);
        let lens = vec![1_400; 48];
        let packets = tcp_train(true, &lens);
        packets.iter().for_each(|packet| bench.push(packet, true));
        let writes = bench.finish();
        assert_eq!(writes.len(), 2);
        assert!(writes.iter().all(|(_, frame, _)| frame.len() <= Coalescer::MAX_LEN as usize));
        assert_eq!(writes.iter().flat_map(segments).collect::<Vec<_>>(), packets);
    }

    #[test]
    fn the_next_segment_is_known_by_its_bytes() {
        for ipv6 in [false, true] {
            let packets = tcp_train(ipv6, &[50, 50, 50]);
            let mut bench = Bench::new(ALL);
            bench.push(&partial(packets[0].clone()), true);
            let next = partial(packets[1].clone());
            let end = 1_000 + next.len() as u32;
            let at = Part { slot: 1, start: 1_000, end };
            bench.rx.slots[1].buffer[1_000..end as usize].copy_from_slice(&next);
            let Bench { rx, out, coalescer, .. } = &mut bench;
            // Its mark would have to be changed, or the packet dropped.
            assert!(!coalescer.push_next(rx, out, at, PeerIndex(0), Ecn::Ce));
            assert!(!coalescer.push_next(rx, out, at, PeerIndex(1), Ecn::NotEct));
            let short = Part { end: end - 1, ..at };
            assert!(!coalescer.push_next(rx, out, short, PeerIndex(0), Ecn::NotEct));
            assert!(coalescer.push_next(rx, out, at, PeerIndex(0), Ecn::NotEct));
            assert!(!coalescer.push_next(rx, out, at, PeerIndex(0), Ecn::NotEct), "twice");
            assert_eq!(bench.finish()[0].2, 2);
        }
    }

    /// One step of a random stream: which flow sends, how much, and what is odd about it.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        flow: usize,
        len: usize,
        oddity: u8,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![6 => Just(60), 1 => Just(0), 1 => 1..80usize];
        let oddity = prop_oneof![8 => Just(0u8), 3 => 1..14u8];
        (0..6usize, len, oddity).prop_map(|(flow, len, oddity)| Step { flow, len, oddity })
    }

    /// Makes the packet of a step; `seq` and `id` are the flow's own.
    fn packet_of(step: Step, seq: &mut u32, id: &mut u16) -> Vec<u8> {
        let data = vec![step.oddity ^ step.len as u8; step.len];
        let ipv6 = step.flow % 2 == 1;
        let mut flags = tcp_flag::ACK;
        let (mut ack, mut options) = (1, vec![]);
        match step.oddity {
            1 => flags |= tcp_flag::PSH,
            2 => flags |= tcp_flag::FIN,
            3 => flags |= tcp_flag::CWR,
            4 => flags |= tcp_flag::ECE,
            5 => flags = tcp_flag::SYN,
            6 => flags |= tcp_flag::RST,
            7 => ack = 2,
            8 => options = vec![1, 1, 1, 1],
            9 => *seq = seq.wrapping_add(1),
            10 => *id = id.wrapping_add(9),
            _ => {}
        }
        let upper = match step.flow {
            0..4 => Upper::Tcp { seq: *seq, ack, flags, options },
            _ => Upper::Udp,
        };
        let mut sample = Sample::new(ipv6, upper, &data);
        sample.ports.0 = step.flow as u16;
        sample.id = *id;
        sample.dont_fragment = step.flow < 2;
        match step.oddity {
            11 => sample.tos = 2,
            12 => sample.hop_limit = 3,
            13 => sample.dont_fragment ^= true,
            _ => {}
        }
        *seq = seq.wrapping_add(step.len as u32);
        *id = id.wrapping_add(1);
        sample.bytes()
    }

    /// Without the identification where it means nothing, and the checksum that covers it.
    fn essence(mut packet: Vec<u8>) -> Vec<u8> {
        if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn damaged_packets_are_neither_lost_nor_a_reason_to_panic(
            steps in prop::collection::vec((any_step(), 0..70usize, any::<u8>()), 1..60),
            partial: bool,
        ) {
            let mut bench = Bench::new(ALL);
            let mut other = Bench { quick: false, ..Bench::new(ALL) };
            let mut state = [(u32::MAX - 100, u16::MAX - 3); 6];
            let mut pushed = 0;
            for (step, at, byte) in steps {
                let (seq, id) = &mut state[step.flow];
                let mut packet = packet_of(step, seq, id);
                if step.oddity % 2 == 1 && at < packet.len() {
                    packet[at] = byte;
                }
                if Headers::parse(&packet).is_ok() {
                    bench.push(&packet, partial);
                    other.push(&packet, partial);
                    pushed += 1;
                }
            }
            let writes = bench.finish();
            prop_assert_eq!(&writes, &other.finish(), "what need not be parsed is merged alike");
            prop_assert_eq!(writes.iter().map(|write| write.2).sum::<u32>(), pushed);
        }

        #[test]
        fn taken_apart_again_each_flow_is_what_it_was(
            steps in prop::collection::vec(any_step(), 1..80),
            vouched: bool,
        ) {
            let mut bench = Bench::new(ALL);
            let mut state = [(u32::MAX - 100, u16::MAX - 3); 6];
            let mut expected: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
            for step in steps {
                let (seq, id) = &mut state[step.flow];
                let packet = packet_of(step, seq, id);
                let pushed = if vouched { partial(packet.clone()) } else { packet.clone() };
                bench.push(&pushed, vouched);
                expected.entry(step.flow as u16).or_default().push(essence(packet));
            }
            let mut found: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
            for packet in bench.finish().iter().flat_map(segments) {
                let flow = Headers::parse(&packet).unwrap().ports.unwrap().src;
                found.entry(flow).or_default().push(essence(packet));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
