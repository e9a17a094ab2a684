//! One super-packet under way: what may continue it, and its header when it is complete.

use std::ops::Range;

use super::{
    Arrived, Coalescer, ENDING, IPV4_ID, IPV4_LEN, IPV6_HEADER_LEN, IPV6_LEN, Merged, TCP_CHECKSUM,
    TCP_FLAGS, TCP_HEADER_LEN, UDP_CHECKSUM, UDP_LEN, bytes, bytes_mut, single, tcp_seq,
};
use crate::batch::{Output, Part, RxBatch};
use crate::id::PeerIndex;
use crate::packet::checksum::{self, put};
use crate::packet::{Ecn, Gso, Headers, Vnet, protocol, tcp_flag};

/// One super-packet under way.
#[derive(Debug)]
pub(super) struct Train {
    pub(super) first: Part,
    pub(super) peer: PeerIndex,
    /// The first packet came with a partial checksum.
    pub(super) partial: bool,
    pub(super) headers: Headers,
    /// Payload bytes of each packet but the last.
    pub(super) segment_size: u32,
    /// Length of the super-packet.
    pub(super) total_len: u32,
    /// What the next packet must have.
    pub(super) next_seq: u32,
    pub(super) next_id: u16,
    /// Flags of the last packet.
    pub(super) last_flags: u8,
    /// The first packet's checksum is known to be right.
    pub(super) checksum_ok: bool,
    /// Payloads of the packets behind the first one.
    pub(super) parts: Vec<Part>,
}

impl Train {
    /// Appends the packet if it continues the train; its flow is known to be the same.
    pub(super) fn append(&mut self, rx: &RxBatch, packet: &Arrived) -> bool {
        let Arrived { at, headers, partial, .. } = packet;
        let len = headers.payload_len() as u32;
        if len > self.segment_size
            || self.total_len + len > Coalescer::MAX_LEN
            || headers.payload != self.headers.payload
        {
            return false;
        }
        let (Some(first), Some(packet)) = (bytes(rx, self.first), bytes(rx, *at)) else {
            return false;
        };
        if !self.continues(first, packet, headers) {
            return false;
        }
        if !self.checksum_ok {
            self.checksum_ok = checksum::is_right(first, &self.headers);
        }
        if !self.checksum_ok || !(*partial || checksum::is_right(packet, headers)) {
            return false;
        }
        self.parts.push(Part { start: at.start + u32::from(headers.payload), ..*at });
        self.total_len += len;
        self.next_seq = self.next_seq.wrapping_add(len);
        self.next_id = self.next_id.wrapping_add(1);
        self.last_flags = headers.tcp_flags;
        true
    }

    /// Appends the packet that lies at `at` if its bytes differ from those of the first one only
    /// where the bytes of two successive segments may. Its checksum is a partial one.
    pub(super) fn append_next(&mut self, rx: &RxBatch, at: Part, outer: Ecn) -> bool {
        let headers = &self.headers;
        if headers.protocol != protocol::TCP || !self.checksum_ok {
            return false;
        }
        let (l4, payload) = (usize::from(headers.l4), usize::from(headers.payload));
        let (Some(first), Some(packet)) = (bytes(rx, self.first), bytes(rx, at)) else {
            return false;
        };
        let len = packet.len();
        let (Some(first), Some(head)) = (first.get(..payload), packet.get(..payload)) else {
            return false;
        };
        let size = (len - payload) as u32;
        let claimed = checksum::get(head, if headers.is_ipv6() { IPV6_LEN } else { IPV4_LEN });
        let before = if headers.is_ipv6() { IPV6_HEADER_LEN as usize } else { 0 };
        if claimed.map(|claimed| usize::from(claimed) + before) != Some(len)
            || size == 0
            || size > self.segment_size
            || self.total_len + size > Coalescer::MAX_LEN
            || headers.ecn().decapsulate(outer) != Ok(headers.ecn())
            || !self.is_next(first, head, l4)
        {
            return false;
        }
        self.parts.push(Part { start: at.start + u32::from(headers.payload), ..at });
        self.total_len += size;
        self.next_seq = self.next_seq.wrapping_add(size);
        self.next_id = self.next_id.wrapping_add(1);
        self.last_flags = head[l4 + TCP_FLAGS];
        true
    }

    /// True when the bytes of two TCP headers, with the IP headers before them, are alike but for
    /// lengths, checksums, and what counts up. Both are as long as those of the first packet, which
    /// has neither IP options nor extension headers.
    fn is_next(&self, first: &[u8], head: &[u8], l4: usize) -> bool {
        let same = |range: Range<usize>| first[range.clone()] == head[range];
        let ip = if self.headers.is_ipv6() {
            same(0..4) && same(6..40)
        } else {
            let in_order = checksum::get(head, IPV4_ID) == Some(self.next_id);
            same(0..2) && same(6..10) && same(12..20) && (self.headers.dont_fragment || in_order)
        };
        let flags = head[l4 + TCP_FLAGS];
        ip && same(l4..l4 + 4)
            && tcp_seq(&head[l4..]) == self.next_seq
            && flags & tcp_flag::CWR == 0
            && (flags ^ self.headers.tcp_flags) & !(ENDING | tcp_flag::CWR) == 0
            && same(l4 + 8..l4 + TCP_FLAGS)
            && same(l4 + 14..l4 + 16)
            && same(l4 + 18..first.len())
    }

    /// True when the headers differ only where those of two successive segments may.
    fn continues(&self, first: &[u8], packet: &[u8], headers: &Headers) -> bool {
        let ip = if headers.is_ipv6() {
            // Version, traffic class, flow label; next header and hop limit.
            first[..4] == packet[..4] && first[6..8] == packet[6..8]
        } else {
            let in_order = checksum::get(packet, IPV4_ID) == Some(self.next_id);
            first[..2] == packet[..2]
                && first[6..10] == packet[6..10]
                && (headers.dont_fragment || in_order)
        };
        if headers.protocol != protocol::TCP {
            return ip;
        }
        let (first, packet) = (&first[headers.l4.into()..], &packet[headers.l4.into()..]);
        let options = TCP_HEADER_LEN..usize::from(headers.payload - headers.l4);
        let flags = headers.tcp_flags;
        ip && tcp_seq(packet) == self.next_seq
            && flags & tcp_flag::CWR == 0
            && (flags ^ self.headers.tcp_flags) & !(ENDING | tcp_flag::CWR) == 0
            // Acknowledgement and header length; window; urgent pointer; options.
            && first[8..13] == packet[8..13]
            && first[14..16] == packet[14..16]
            && first[18..20] == packet[18..20]
            && first[options.clone()] == packet[options]
    }

    pub(super) fn finish(&mut self, rx: &mut RxBatch, out: &mut Output) -> Merged {
        if self.parts.is_empty() {
            return single(out, self.first, self.headers, self.peer, self.partial);
        }
        let vnet = self.patch_header(rx);
        let first = out.parts.len();
        out.parts.push(self.first);
        out.parts.extend_from_slice(&self.parts);
        let flags = self.headers.tcp_flags | self.last_flags & ENDING;
        Merged {
            peer: self.peer,
            headers: Headers { total_len: self.total_len, tcp_flags: flags, ..self.headers },
            vnet,
            parts: first..out.parts.len(),
            packets: self.parts.len() as u32 + 1,
        }
    }

    /// True when nothing may follow.
    pub(super) fn is_complete(&self) -> bool {
        let last = self.parts.last().map_or(self.segment_size, |part| part.end - part.start);
        last < self.segment_size
            || self.last_flags & ENDING != 0
            || self.parts.len() + 1 >= Coalescer::MAX_PACKETS
    }

    /// Makes the first packet's header that of the super-packet, with a partial checksum.
    fn patch_header(&mut self, rx: &mut RxBatch) -> Vnet {
        let headers = &self.headers;
        let l4 = usize::from(headers.l4);
        let upper_len = self.total_len - u32::from(headers.l4);
        let Headers { source, destination, protocol, .. } = *headers;
        let partial = checksum::pseudo_header(source, destination, protocol, upper_len).fold();
        let tcp = protocol == protocol::TCP;
        let offset = if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        if let Some(packet) = bytes_mut(rx, self.first) {
            if headers.is_ipv6() {
                put(packet, IPV6_LEN, (self.total_len - IPV6_HEADER_LEN) as u16);
            } else {
                put(packet, IPV4_LEN, self.total_len as u16);
                checksum::fill_ipv4(&mut packet[..l4]);
            }
            if tcp {
                packet[l4 + TCP_FLAGS] |= self.last_flags & ENDING;
            } else {
                put(packet, l4 + UDP_LEN, upper_len as u16);
            }
            put(packet, l4 + offset, partial);
        }
        let ecn = headers.tcp_flags & tcp_flag::CWR != 0;
        Vnet {
            needs_checksum: true,
            gso: if tcp { Gso::Tcp { ecn } } else { Gso::Udp },
            header_len: headers.payload,
            segment_size: self.segment_size as u16,
            checksum_start: headers.l4,
            checksum_offset: offset as u16,
        }
    }
}
