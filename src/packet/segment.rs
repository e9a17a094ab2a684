//! A TUN frame into the packets that go through the tunnel (what a network card does for TSO and
//! USO), each with a complete checksum, or with the partial one that the far end's kernel completes.

use super::checksum::{self, Sum, put};
use super::{Gso, Headers, Vnet, protocol, tcp_flag};
use crate::telemetry::DropReason;

const IPV4_LEN: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LEN: usize = 4;
const IPV6_HEADER_LEN: usize = 40;
const TCP_SEQ: usize = 4;
const TCP_OFFSET_AND_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;
const UDP_LEN: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// Flags that only the last segment of a train keeps.
const LAST_ONLY: u16 = (tcp_flag::FIN | tcp_flag::PSH) as u16;
/// Flags that only the first one keeps (RFC 3168 section 6.1.2: a reduction is told once).
const FIRST_ONLY: u16 = tcp_flag::CWR as u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One packet, copied; its partial checksum is completed.
    Whole,
    Tcp,
    Udp,
}

/// Cuts one frame into packets. What they have in common is summed once; each packet then costs
/// one copy and the sum over its payload.
#[derive(Clone, Debug)]
pub struct Segmenter<'f> {
    frame: &'f [u8],
    headers: Headers,
    vnet: Vnet,
    kind: Kind,
    segment_size: usize,
    count: usize,
    /// IPv4 header without length, identification and checksum.
    ip_sum: Sum,
    /// Pseudo-header without length.
    pseudo_sum: Sum,
    /// That, and the upper-layer header without what differs by segment.
    upper_sum: Sum,
    /// Upper-layer checksums are left partial.
    partial: bool,
    /// Sequence number, or IPv4 identification, of the first segment.
    first_seq: u32,
    first_id: u16,
    flags: u16,
}

impl<'f> Segmenter<'f> {
    /// Most packets that one frame may become: a frame of 64 KiB with the smallest segments that
    /// Linux sends (48 bytes).
    pub const MAX_COUNT: usize = 1_366;

    /// Prepares to cut `frame`, which `headers` describes and which the kernel handed over with
    /// `vnet`, into packets of at most `max_packet` bytes (IP header included).
    ///
    /// A TCP train is cut to `max_packet` where its segments are bigger, and so is a single TCP
    /// segment. UDP datagrams keep their boundaries.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when a packet that may not be cut exceeds `max_packet`: the caller
    /// owes an ICMP error, or prepares again without limit and fragments.
    /// [`DropReason::BadOffload`] when `vnet` contradicts the packet, [`DropReason::BadChecksum`]
    /// when the checksums to be renewed are complete and wrong.
    pub fn new(
        frame: &'f [u8],
        headers: &Headers,
        vnet: Vnet,
        max_packet: usize,
    ) -> Result<Self, DropReason> {
        let total_len = headers.total_len as usize;
        let frame = frame.get(..total_len).ok_or(DropReason::Malformed)?;
        let too_big = total_len > max_packet;
        let (kind, offered) = match vnet.gso {
            Gso::Tcp { .. } => (Kind::Tcp, usize::from(vnet.segment_size)),
            Gso::Udp => (Kind::Udp, usize::from(vnet.segment_size)),
            Gso::None if too_big && may_cut(headers) => (Kind::Tcp, headers.payload_len()),
            Gso::None if too_big => return Err(DropReason::TooBig),
            Gso::None => (Kind::Whole, headers.payload_len().max(1)),
        };
        let header_len = usize::from(headers.payload);
        let segment_size = match kind {
            Kind::Whole => offered,
            Kind::Tcp => offered.min(max_packet.saturating_sub(header_len)),
            Kind::Udp if header_len + offered.min(headers.payload_len()) > max_packet => {
                return Err(DropReason::TooBig);
            }
            Kind::Udp => offered,
        };
        if segment_size == 0 {
            let reason = if offered == 0 { DropReason::BadOffload } else { DropReason::TooBig };
            return Err(reason);
        }
        let count = match kind {
            Kind::Whole => 1,
            Kind::Tcp | Kind::Udp => headers.payload_len().div_ceil(segment_size).max(1),
        };
        let mut segmenter = Self {
            frame,
            headers: *headers,
            vnet,
            kind,
            segment_size,
            count,
            ip_sum: Sum::ZERO,
            pseudo_sum: Sum::ZERO,
            upper_sum: Sum::ZERO,
            partial: false,
            first_seq: 0,
            first_id: 0,
            flags: 0,
        };
        segmenter.validate()?;
        segmenter.precompute();
        Ok(segmenter)
    }

    /// Leaves the upper-layer checksums partial where that can be told in one bit: of TCP and UDP,
    /// and of a single packet only if it came so. Spares the sum over the payload. True when all
    /// packets have partial checksums now; whoever passes them on has to complete them.
    pub fn leave_partial(&mut self) -> bool {
        self.partial = match self.kind {
            Kind::Tcp | Kind::Udp => true,
            Kind::Whole => {
                matches!(self.headers.protocol, protocol::TCP | protocol::UDP)
                    && checksum::is_partial(&self.headers, &self.vnet)
            }
        };
        self.partial
    }

    /// Trusts nothing in the virtio header that the packet does not bear out.
    fn validate(&self) -> Result<(), DropReason> {
        let headers = &self.headers;
        if self.kind == Kind::Whole {
            if self.vnet.needs_checksum {
                checksum::checked_partial(self.frame, headers, &self.vnet)?;
            }
            return Ok(());
        }
        let fits = match self.kind {
            Kind::Tcp => {
                headers.protocol == protocol::TCP
                    && headers.tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0
            }
            Kind::Udp | Kind::Whole => {
                let len = checksum::get(self.frame, usize::from(headers.l4) + UDP_LEN);
                let upper_len = headers.total_len as usize - usize::from(headers.l4);
                headers.protocol == protocol::UDP && len.map(usize::from) == Some(upper_len)
            }
        };
        if !fits || headers.fragment.is_some() || self.count > Self::MAX_COUNT {
            return Err(DropReason::BadOffload);
        }
        if self.vnet.needs_checksum {
            let partial = checksum::is_partial(headers, &self.vnet);
            return if partial { Ok(()) } else { Err(DropReason::BadOffload) };
        }
        let right = checksum::is_right(self.frame, headers);
        if right { Ok(()) } else { Err(DropReason::BadChecksum) }
    }

    fn precompute(&mut self) {
        if self.kind == Kind::Whole {
            return;
        }
        let l4 = usize::from(self.headers.l4);
        let word = |at| checksum::get(self.frame, at).unwrap_or(0);
        if !self.headers.is_ipv6() {
            self.first_id = word(IPV4_ID);
            self.ip_sum = Sum::ZERO
                .bytes(&self.frame[..IPV4_LEN])
                .bytes(&self.frame[IPV4_ID + 2..IPV4_CHECKSUM])
                .bytes(&self.frame[IPV4_CHECKSUM + 2..l4]);
        }
        let Headers { source, destination, protocol, .. } = self.headers;
        let upper = &self.frame[l4..usize::from(self.headers.payload)];
        self.pseudo_sum = checksum::pseudo_header(source, destination, protocol, 0);
        self.upper_sum = self.pseudo_sum.bytes(&upper[..TCP_SEQ]);
        if self.kind == Kind::Tcp {
            let seq = [word(l4 + TCP_SEQ), word(l4 + TCP_SEQ + 2)];
            self.first_seq = u32::from(seq[0]) << 16 | u32::from(seq[1]);
            self.flags = word(l4 + TCP_OFFSET_AND_FLAGS);
            self.upper_sum = self
                .upper_sum
                .bytes(&upper[TCP_SEQ + 4..TCP_OFFSET_AND_FLAGS])
                .bytes(&upper[TCP_OFFSET_AND_FLAGS + 2..TCP_CHECKSUM])
                .bytes(&upper[TCP_CHECKSUM + 2..]);
        }
    }

    /// How many packets come out, at least one.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length of packet `index` with its headers; zero beyond the last one.
    pub fn segment_len(&self, index: usize) -> usize {
        match self.payload_of(index) {
            Some(payload) => usize::from(self.headers.payload) + payload.len(),
            None => 0,
        }
    }

    /// Writes packet `index` to the beginning of `out` and returns its length. Zero when there is
    /// no such packet or `out` is too small for it.
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let Some(payload) = self.payload_of(index) else { return 0 };
        let header_len = usize::from(self.headers.payload);
        let len = header_len + payload.len();
        let Some(out) = out.get_mut(..len) else { return 0 };
        let (header, data) = out.split_at_mut(header_len);
        header.copy_from_slice(&self.frame[..header_len]);
        data.copy_from_slice(payload);
        match self.kind {
            Kind::Whole if self.partial => {}
            Kind::Whole => {
                // Was found to be possible when the segmenter was made.
                let _ = checksum::complete_partial(out, &self.headers, &self.vnet);
            }
            Kind::Tcp => {
                self.patch_ip(index, len, header);
                self.patch_tcp(index, len, header, data);
            }
            Kind::Udp => {
                self.patch_ip(index, len, header);
                self.patch_udp(len, header, data);
            }
        }
        len
    }

    fn payload_of(&self, index: usize) -> Option<&'f [u8]> {
        let payload = self.frame.get(usize::from(self.headers.payload)..)?;
        if index >= self.count {
            return None;
        }
        let start = index * self.segment_size;
        payload.get(start..payload.len().min(start + self.segment_size))
    }

    fn patch_ip(&self, index: usize, len: usize, header: &mut [u8]) {
        if self.headers.is_ipv6() {
            put(header, IPV6_LEN, (len - IPV6_HEADER_LEN) as u16);
            return;
        }
        let id = self.first_id.wrapping_add(index as u16);
        put(header, IPV4_LEN, len as u16);
        put(header, IPV4_ID, id);
        put(header, IPV4_CHECKSUM, self.ip_sum.word(len as u16).word(id).checksum());
    }

    fn patch_tcp(&self, index: usize, len: usize, header: &mut [u8], data: &[u8]) {
        let l4 = usize::from(self.headers.l4);
        let seq = self.first_seq.wrapping_add((index * self.segment_size) as u32);
        let mut flags = self.flags;
        if index + 1 < self.count {
            flags &= !LAST_ONLY;
        }
        if index > 0 {
            flags &= !FIRST_ONLY;
        }
        let (high, low) = ((seq >> 16) as u16, seq as u16);
        let sum = self.upper_sum.word((len - l4) as u16).word(high).word(low).word(flags);
        put(header, l4 + TCP_SEQ, high);
        put(header, l4 + TCP_SEQ + 2, low);
        put(header, l4 + TCP_OFFSET_AND_FLAGS, flags);
        let field = match self.partial {
            true => self.pseudo_sum.word((len - l4) as u16).fold(),
            false => sum.bytes(data).checksum(),
        };
        put(header, l4 + TCP_CHECKSUM, field);
    }

    fn patch_udp(&self, len: usize, header: &mut [u8], data: &[u8]) {
        let l4 = usize::from(self.headers.l4);
        let udp_len = (len - l4) as u16;
        put(header, l4 + UDP_LEN, udp_len);
        let field = if self.partial {
            self.pseudo_sum.word(udp_len).fold()
        } else {
            let sum = self.upper_sum.word(udp_len).word(udp_len).bytes(data);
            checksum::transport_field(protocol::UDP, sum.checksum())
        };
        put(header, l4 + UDP_CHECKSUM, field);
    }
}

/// True for a TCP segment that may be sent as several smaller ones.
fn may_cut(headers: &Headers) -> bool {
    let single = tcp_flag::SYN | tcp_flag::RST | tcp_flag::URG;
    headers.protocol == protocol::TCP
        && headers.fragment.is_none()
        && headers.tcp_flags & single == 0
        && headers.payload_len() > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, Upper, any_sample, assert_checksums, make_partial};

    fn cut(frame: &[u8], vnet: Vnet, max_packet: usize) -> Result<Vec<Vec<u8>>, DropReason> {
        let headers = Headers::parse(frame)?;
        let segmenter = Segmenter::new(frame, &headers, vnet, max_packet)?;
        let packets = (0..segmenter.count()).map(|index| {
            let mut out = vec![0xaa; segmenter.segment_len(index)];
            assert_eq!(segmenter.write(index, &mut out), out.len());
            out
        });
        Ok(packets.collect())
    }

    fn train(sample: &Sample, segment_size: u16) -> (Vec<u8>, Vnet) {
        let mut frame = sample.bytes();
        let vnet = make_partial(&mut frame);
        let gso = if sample.upper == Upper::Udp { Gso::Udp } else { Gso::Tcp { ecn: false } };
        (frame, Vnet { gso, segment_size, ..vnet })
    }

    #[test]
    fn a_tcp_train_becomes_segments_with_their_own_sequence_and_flags() {
        let data: Vec<u8> = (0..250).collect();
        let flags = tcp_flag::ACK | tcp_flag::PSH | tcp_flag::FIN | tcp_flag::CWR;
        for ipv6 in [false, true] {
            let (frame, vnet) = train(&Sample::tcp(ipv6, u32::MAX - 99, flags, &data), 100);
            let packets = cut(&frame, vnet, 1_500).unwrap();
            let expected = [
                (u32::MAX - 99, tcp_flag::ACK | tcp_flag::CWR, &data[..100]),
                (0, tcp_flag::ACK, &data[100..200]),
                (100, tcp_flag::ACK | tcp_flag::PSH | tcp_flag::FIN, &data[200..]),
            ];
            assert_eq!(packets.len(), expected.len());
            for (i, (packet, (seq, flags, data))) in packets.iter().zip(expected).enumerate() {
                let mut sample = Sample::tcp(ipv6, seq, flags, data);
                sample.id = 7 + i as u16;
                assert_eq!(packet, &sample.bytes(), "segment {i}");
            }
        }
    }

    #[test]
    fn a_udp_train_keeps_its_datagrams() {
        let data: Vec<u8> = (0..250).collect();
        for ipv6 in [false, true] {
            let (frame, vnet) = train(&Sample::udp(ipv6, &data), 100);
            let packets = cut(&frame, vnet, 1_500).unwrap();
            assert_eq!(packets.len(), 3);
            for (i, (packet, data)) in packets.iter().zip(data.chunks(100)).enumerate() {
                let mut sample = Sample::udp(ipv6, data);
                sample.id = 7 + i as u16;
                assert_eq!(packet, &sample.bytes());
            }
            let header = packets[0].len() - 100;
            assert_eq!(cut(&frame, vnet, header + 99), Err(DropReason::TooBig));
            assert!(cut(&frame, vnet, header + 100).is_ok());
        }
    }

    #[test]
    fn a_smaller_path_cuts_tcp_but_nothing_else() {
        let (frame, vnet) = train(&Sample::tcp(false, 5, tcp_flag::ACK, &[1; 300]), 150);
        let packets = cut(&frame, vnet, 140).unwrap();
        let lens: Vec<_> = packets.iter().map(Vec::len).collect();
        assert_eq!(lens, [140, 140, 140]);
        assert_eq!(cut(&frame, vnet, 40), Err(DropReason::TooBig));

        let single = Sample::tcp(false, 5, tcp_flag::ACK | tcp_flag::PSH, &[1; 300]).bytes();
        let packets = cut(&single, Vnet::default(), 240).unwrap();
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [240, 140]);
        packets.iter().for_each(|packet| assert_checksums(packet));
        let mut damaged = single;
        damaged[50] ^= 1;
        assert_eq!(cut(&damaged, Vnet::default(), 240), Err(DropReason::BadChecksum));

        let udp = Sample::udp(false, &[1; 300]).bytes();
        assert_eq!(cut(&udp, Vnet::default(), 240), Err(DropReason::TooBig));
        let syn = Sample::tcp(false, 5, tcp_flag::SYN, &[1; 300]).bytes();
        assert_eq!(cut(&syn, Vnet::default(), 240), Err(DropReason::TooBig));
    }

    #[test]
    fn a_virtio_header_that_contradicts_the_packet_is_refused() {
        let (tcp, vnet) = train(&Sample::tcp(false, 5, tcp_flag::ACK, &[1; 300]), 100);
        let (udp, udp_vnet) = train(&Sample::udp(true, &[1; 300]), 100);
        let bad = Err(DropReason::BadOffload);
        assert_eq!(cut(&tcp, Vnet { gso: Gso::Udp, ..vnet }, 1_500), bad);
        assert_eq!(cut(&udp, Vnet { gso: Gso::Tcp { ecn: false }, ..udp_vnet }, 1_500), bad);
        assert_eq!(cut(&tcp, Vnet { segment_size: 0, ..vnet }, 1_500), bad);
        assert_eq!(cut(&tcp, Vnet { checksum_start: 22, ..vnet }, 1_500), bad);
        assert_eq!(cut(&tcp, Vnet { checksum_offset: 6, ..vnet }, 1_500), bad);
        assert_eq!(cut(&tcp, Vnet { gso: Gso::None, checksum_start: 8, ..vnet }, 1_500), bad);
        let (syn, vnet) = train(&Sample::tcp(false, 5, tcp_flag::SYN, &[1; 300]), 100);
        assert_eq!(cut(&syn, vnet, 1_500), bad);
        let (many, vnet) = train(&Sample::tcp(false, 5, tcp_flag::ACK, &[1; 2_000]), 1);
        assert_eq!(cut(&many, vnet, 1_500), bad);
        let mut wrong_len = udp;
        wrong_len[45] -= 1;
        assert_eq!(cut(&wrong_len, udp_vnet, 1_500), bad);
    }

    #[test]
    fn what_came_with_a_complete_checksum_keeps_it() {
        let none = Sample::udp(false, &[1; 30]);
        let mut without = none.bytes();
        put(&mut without, 26, 0);
        let echo = Sample::new(false, Upper::EchoRequest, &[1; 30]).bytes();
        for packet in [without, echo, Sample::tcp(true, 5, tcp_flag::ACK, &[1; 30]).bytes()] {
            let headers = Headers::parse(&packet).unwrap();
            let mut segmenter = Segmenter::new(&packet, &headers, Vnet::default(), 1_500).unwrap();
            assert!(!segmenter.leave_partial());
            let mut out = vec![0; packet.len()];
            segmenter.write(0, &mut out);
            assert_eq!(out, packet);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_payload_stream_is_kept_and_every_checksum_is_right(
            sample in any_sample(),
            segment_size in 20..400u16,
            max_packet in 120..1500usize,
        ) {
            let mut sample = sample;
            if let Upper::Tcp { flags, .. } = &mut sample.upper {
                *flags &= !(tcp_flag::SYN | tcp_flag::RST);
            } else {
                sample.upper = Upper::Udp;
            }
            let (frame, vnet) = train(&sample, segment_size);
            let packets = match cut(&frame, vnet, max_packet) {
                Ok(packets) => packets,
                Err(reason) => {
                    prop_assert_eq!(reason, DropReason::TooBig);
                    return Ok(());
                }
            };
            let mut stream = vec![];
            for packet in &packets {
                prop_assert!(packet.len() <= max_packet);
                assert_checksums(packet);
                stream.extend_from_slice(&packet[Headers::parse(packet).unwrap().payload.into()..]);
            }
            prop_assert_eq!(stream, sample.data);
        }

        #[test]
        fn partial_checksums_completed_are_the_complete_ones(
            sample in any_sample(),
            segment_size in 20..400u16,
            max_packet in 120..1500usize,
            whole: bool,
        ) {
            let mut sample = sample;
            if let Upper::Tcp { flags, .. } = &mut sample.upper {
                *flags &= !(tcp_flag::SYN | tcp_flag::RST);
            } else {
                sample.upper = Upper::Udp;
            }
            let (frame, mut vnet) = train(&sample, segment_size);
            if whole {
                vnet.gso = Gso::None;
            }
            let headers = Headers::parse(&frame).unwrap();
            let Ok(complete) = cut(&frame, vnet, max_packet) else { return Ok(()) };
            let mut segmenter = Segmenter::new(&frame, &headers, vnet, max_packet).unwrap();
            prop_assert!(segmenter.leave_partial());
            for (index, expected) in complete.iter().enumerate() {
                let mut packet = vec![0; segmenter.segment_len(index)];
                segmenter.write(index, &mut packet);
                let headers = Headers::parse(&packet).unwrap();
                let vnet = checksum::partial_vnet(&headers).unwrap();
                checksum::complete_partial(&mut packet, &headers, &vnet).unwrap();
                prop_assert_eq!(&packet, expected);
            }
        }

        #[test]
        fn a_single_packet_is_completed_and_otherwise_the_same(sample in any_sample(), partial: bool) {
            let expected = sample.bytes();
            let mut frame = expected.clone();
            let partial = partial && matches!(sample.upper, Upper::Tcp { .. } | Upper::Udp);
            let vnet = if partial { make_partial(&mut frame) } else { Vnet::default() };
            frame.extend_from_slice(&[9; 3]);
            let packets = cut(&frame, vnet, 1_500).unwrap();
            prop_assert_eq!(packets, [expected]);
        }

        #[test]
        fn damaged_frames_never_panic(
            sample in any_sample(),
            damage in prop::collection::vec((0..80usize, any::<u8>()), 0..6),
            vnet: [u8; 10],
            kind in 0..6u8,
            max_packet in 0..400usize,
        ) {
            let mut frame = sample.bytes();
            for (at, byte) in damage {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            let mut vnet = vnet;
            vnet[1] = kind;
            vnet[5] &= 1;
            vnet[7] = 0;
            vnet[9] = 0;
            if let Ok(vnet) = Vnet::parse(&vnet) {
                let _ = cut(&frame, vnet, max_packet);
            }
        }
    }
}
