//! From bytes to [`Headers`].

use std::net::IpAddr;

use etherparse::{
    Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6Header, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, UdpHeaderSlice,
};

use super::Ecn;
use crate::telemetry::DropReason;

/// Protocol numbers that the code asks about (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: u8 = 136;
}

/// Bits of [`Headers::tcp_flags`].
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Begin of a connection.
    pub const SYN: u8 = 0x02;
    /// The connection is gone.
    pub const RST: u8 = 0x04;
    /// Hand the data on.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was seen (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// Most IPv6 extension headers that are walked; a packet with more is malformed to us.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const ICMP_HEADER_LEN: usize = 8;
const UDP_HEADER_LEN: usize = 8;

/// The two ports of a TCP, UDP or UDP-Lite packet. For an ICMP query both are its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The sender's.
    pub src: u16,
    /// The receiver's.
    pub dst: u16,
}

/// Which piece of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the pieces of one packet share (16 bits in IPv4).
    pub id: u32,
    /// Position of its first byte behind the unfragmentable part, in bytes.
    pub offset: u16,
    /// More pieces follow.
    pub more: bool,
}

/// What an ICMP or ICMPv6 message is, as far as forwarding cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// A query with an identifier: for an echo, or in IPv4 for a timestamp.
    Query,
    /// The answer to one.
    Reply,
    /// An error; the packet that it is about is quoted from [`Headers::payload`] on.
    Error,
    /// Anything else.
    Other,
}

impl IcmpKind {
    /// RFC 792: errors are destination unreachable, source quench, redirect, time exceeded and
    /// parameter problem. RFC 4443 section 2.1: errors are the types below 128.
    const fn of(ipv6: bool, kind: u8) -> Self {
        match (ipv6, kind) {
            (false, 8 | 13) | (true, 128) => Self::Query,
            (false, 0 | 14) | (true, 129) => Self::Reply,
            (false, 3 | 4 | 5 | 11 | 12) | (true, 0..=127) => Self::Error,
            _ => Self::Other,
        }
    }
}

/// What the headers of one inner packet say. Offsets count from the start of the IP header.
///
/// Source and destination are always of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The upper-layer protocol, behind any IPv6 extension headers.
    pub protocol: u8,
    /// Where the upper-layer header begins (in a later fragment, where its data begins).
    pub l4: u16,
    /// Where the upper-layer payload begins; equals `l4` for a protocol that is not looked into.
    pub payload: u16,
    /// Length of the packet; a frame may have padding behind it.
    pub total_len: u32,
    /// Set for a piece of a packet, absent for a whole one.
    pub fragment: Option<Fragment>,
    /// For TCP, UDP, UDP-Lite and ICMP queries, unless a later fragment.
    pub ports: Option<Ports>,
    /// For ICMP of the right family, unless a later fragment.
    pub icmp: Option<IcmpKind>,
    /// The byte of [`tcp_flag`]s; zero for all but TCP.
    pub tcp_flags: u8,
    /// The type-of-service or traffic-class byte.
    pub tos: u8,
    /// No router may fragment it (always so in IPv6).
    pub dont_fragment: bool,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Has IPv4 options or IPv6 extension headers.
    pub has_options: bool,
}

/// How much of the packet must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// Its beginning, as ICMP errors quote it.
    Quoted,
}

impl Headers {
    /// Parses the packet at the start of `frame`. Its lengths must agree with each other and lie
    /// within the frame; bytes behind it are ignored.
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        Self::parse_as(frame, Extent::Whole)
    }

    /// Parses the beginning of a packet, as ICMP errors quote it. The first eight bytes of the
    /// upper-layer header suffice; `total_len` and `payload` end with the quote.
    pub fn parse_quoted(quote: &[u8]) -> Result<Self, DropReason> {
        Self::parse_as(quote, Extent::Quoted)
    }

    fn parse_as(frame: &[u8], extent: Extent) -> Result<Self, DropReason> {
        let mut headers = match frame.first().map(|byte| byte >> 4) {
            Some(4) => Self::ipv4(frame, extent),
            Some(6) => Self::ipv6(frame, extent),
            _ => Err(DropReason::Malformed),
        }?;
        if let Some(fragment) = headers.fragment
            && usize::from(fragment.offset) + headers.payload_len() > usize::from(u16::MAX)
        {
            return Err(DropReason::Malformed);
        }
        if !headers.is_later_fragment() {
            let upper = usize::from(headers.l4)..headers.total_len as usize;
            let upper = frame.get(upper).ok_or(DropReason::Malformed)?;
            headers.upper_layer(upper, extent)?;
        }
        Ok(headers)
    }

    fn ipv4(frame: &[u8], extent: Extent) -> Result<Self, DropReason> {
        let ip = Ipv4HeaderSlice::from_slice(frame).map_err(|_| DropReason::Malformed)?;
        let header_len = ip.slice().len();
        let total_len = available(frame, usize::from(ip.total_len()), extent)?;
        if total_len < header_len {
            return Err(DropReason::Malformed);
        }
        let offset = ip.fragments_offset().byte_offset();
        let more = ip.more_fragments();
        Ok(Self {
            source: ip.source_addr().into(),
            destination: ip.destination_addr().into(),
            protocol: ip.protocol().0,
            l4: header_len as u16,
            payload: header_len as u16,
            total_len: total_len as u32,
            fragment: (offset != 0 || more).then(|| Fragment {
                id: u32::from(ip.identification()),
                offset,
                more,
            }),
            ports: None,
            icmp: None,
            tcp_flags: 0,
            tos: frame[1],
            dont_fragment: ip.dont_fragment(),
            hop_limit: ip.ttl(),
            has_options: !ip.options().is_empty(),
        })
    }

    fn ipv6(frame: &[u8], extent: Extent) -> Result<Self, DropReason> {
        let ip = Ipv6HeaderSlice::from_slice(frame).map_err(|_| DropReason::Malformed)?;
        let claimed = Ipv6Header::LEN + usize::from(ip.payload_length());
        let total_len = available(frame, claimed, extent)?;
        let mut headers = Self {
            source: ip.source_addr().into(),
            destination: ip.destination_addr().into(),
            protocol: ip.next_header().0,
            l4: Ipv6Header::LEN as u16,
            payload: Ipv6Header::LEN as u16,
            total_len: total_len as u32,
            fragment: None,
            ports: None,
            icmp: None,
            tcp_flags: 0,
            tos: ip.traffic_class(),
            dont_fragment: true,
            hop_limit: ip.hop_limit(),
            has_options: false,
        };
        headers.extensions(&frame[..total_len])?;
        Ok(headers)
    }

    /// Walks to the upper-layer header (RFC 8200 section 4). In a later fragment it ends behind the
    /// fragment header.
    fn extensions(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let mut at = usize::from(self.l4);
        let mut seen_fragment = false;
        for _ in 0..=MAX_EXTENSIONS {
            let rest = packet.get(at..).ok_or(DropReason::Malformed)?;
            let next = match self.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let header = Ipv6RawExtHeaderSlice::from_slice(rest)
                        .map_err(|_| DropReason::Malformed)?;
                    at += header.slice().len();
                    header.next_header()
                }
                FRAGMENT if !seen_fragment => {
                    let header = Ipv6FragmentHeaderSlice::from_slice(rest)
                        .map_err(|_| DropReason::Malformed)?;
                    at += header.slice().len();
                    seen_fragment = true;
                    self.fragment = header.is_fragmenting_payload().then(|| Fragment {
                        id: header.identification(),
                        offset: header.fragment_offset().byte_offset(),
                        more: header.more_fragments(),
                    });
                    header.next_header()
                }
                FRAGMENT => return Err(DropReason::Malformed),
                _ => return Ok(()),
            };
            self.protocol = next.0;
            self.has_options = true;
            self.l4 = at as u16;
            self.payload = self.l4;
            if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return Ok(());
            }
        }
        Err(DropReason::Malformed)
    }

    fn upper_layer(&mut self, upper: &[u8], extent: Extent) -> Result<(), DropReason> {
        let header_len = match self.protocol {
            protocol::TCP => self.tcp(upper, extent)?,
            protocol::UDP | protocol::UDP_LITE => self.udp(upper, extent)?,
            protocol::ICMP if !self.is_ipv6() => self.icmp(upper)?,
            protocol::ICMPV6 if self.is_ipv6() => self.icmp(upper)?,
            _ => 0,
        };
        self.payload = self.l4 + header_len as u16;
        Ok(())
    }

    fn tcp(&mut self, upper: &[u8], extent: Extent) -> Result<usize, DropReason> {
        match TcpHeaderSlice::from_slice(upper) {
            Ok(tcp) => {
                self.ports = Some(Ports { src: tcp.source_port(), dst: tcp.destination_port() });
                self.tcp_flags = tcp.slice()[13];
                Ok(tcp.slice().len())
            }
            Err(_) if extent == Extent::Quoted => {
                self.ports = Some(leading_ports(upper).ok_or(DropReason::Malformed)?);
                Ok(upper.len())
            }
            Err(_) => Err(DropReason::Malformed),
        }
    }

    /// UDP and UDP-Lite differ in the third field: a length and a checksum coverage.
    fn udp(&mut self, upper: &[u8], extent: Extent) -> Result<usize, DropReason> {
        let udp = UdpHeaderSlice::from_slice(upper).map_err(|_| DropReason::Malformed)?;
        self.ports = Some(Ports { src: udp.source_port(), dst: udp.destination_port() });
        if extent == Extent::Whole {
            let len = usize::from(udp.length());
            let whole_coverage = self.protocol == protocol::UDP_LITE && len == 0;
            let complete = self.fragment.is_none();
            if (len < UDP_HEADER_LEN && !whole_coverage) || (complete && len > upper.len()) {
                return Err(DropReason::Malformed);
            }
        }
        Ok(UDP_HEADER_LEN)
    }

    fn icmp(&mut self, upper: &[u8]) -> Result<usize, DropReason> {
        let header: &[u8; ICMP_HEADER_LEN] = upper.first_chunk().ok_or(DropReason::Malformed)?;
        let kind = IcmpKind::of(self.is_ipv6(), header[0]);
        self.icmp = Some(kind);
        if matches!(kind, IcmpKind::Query | IcmpKind::Reply) {
            let id = u16::from_be_bytes([header[4], header[5]]);
            self.ports = Some(Ports { src: id, dst: id });
        }
        Ok(ICMP_HEADER_LEN)
    }

    /// True for IPv6.
    pub const fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// The differentiated-services codepoint, `0..64`.
    pub const fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// The congestion notification bits.
    pub const fn ecn(&self) -> Ecn {
        Ecn::of_tos(self.tos)
    }

    /// Bytes of upper-layer payload.
    pub const fn payload_len(&self) -> usize {
        (self.total_len as usize).saturating_sub(self.payload as usize)
    }

    /// True when all bits of `flags` are set in a TCP header.
    pub const fn has_tcp_flags(&self, flags: u8) -> bool {
        self.tcp_flags & flags == flags
    }

    /// True for a fragment that does not begin with the upper-layer header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }

    /// Where the upper-layer checksum lies; `None` for a protocol whose checksum we do not know and
    /// for a later fragment.
    pub fn checksum_at(&self) -> Option<usize> {
        if self.is_later_fragment() {
            return None;
        }
        let offset = match self.protocol {
            protocol::TCP => 16,
            protocol::UDP | protocol::UDP_LITE => 6,
            _ if self.icmp.is_some() => 2,
            _ => return None,
        };
        Some(usize::from(self.l4) + offset)
    }
}

/// How much of a packet that claims `claimed` bytes can be used.
fn available(frame: &[u8], claimed: usize, extent: Extent) -> Result<usize, DropReason> {
    match extent {
        Extent::Whole if claimed > frame.len() => Err(DropReason::Malformed),
        Extent::Whole | Extent::Quoted => Ok(claimed.min(frame.len())),
    }
}

fn leading_ports(upper: &[u8]) -> Option<Ports> {
    let bytes: &[u8; 8] = upper.first_chunk()?;
    Some(Ports {
        src: u16::from_be_bytes([bytes[0], bytes[1]]),
        dst: u16::from_be_bytes([bytes[2], bytes[3]]),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, any_sample};

    #[test]
    fn a_tcp_packet_over_ipv4_is_understood() {
        let mut sample = Sample::tcp(false, 1, tcp_flag::ACK | tcp_flag::PSH, b"hello");
        sample.tos = 0b1011_1001;
        let headers = Headers::parse(&sample.bytes()).unwrap();
        assert_eq!(headers.ports, Some(Ports { src: 40_000, dst: 443 }));
        assert_eq!((headers.l4, headers.payload, headers.total_len), (20, 40, 45));
        assert_eq!((headers.dscp(), headers.ecn()), (0b10_1110, Ecn::Ect1));
        assert_eq!((headers.protocol, headers.hop_limit), (protocol::TCP, 64));
        assert!(headers.dont_fragment && headers.has_tcp_flags(tcp_flag::PSH));
        assert!(!headers.has_options && headers.fragment.is_none());
        assert_eq!(headers.checksum_at(), Some(36));
    }

    #[test]
    fn padding_is_ignored_and_missing_bytes_are_not() {
        for ipv6 in [false, true] {
            let mut packet = Sample::udp(ipv6, b"data").bytes();
            let whole = Headers::parse(&packet).unwrap();
            packet.extend_from_slice(&[0; 9]);
            assert_eq!(Headers::parse(&packet), Ok(whole));
            for len in 0..whole.total_len as usize {
                assert_eq!(Headers::parse(&packet[..len]), Err(DropReason::Malformed));
            }
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        let mut packet = Sample::udp(false, &[0; 32]).bytes();
        packet[6] = 0x20;
        let first = Headers::parse(&packet).unwrap();
        assert_eq!(first.fragment, Some(Fragment { id: 7, offset: 0, more: true }));
        assert!(first.ports.is_some() && first.checksum_at().is_some());
        packet[7] = 2;
        let later = Headers::parse(&packet).unwrap();
        assert_eq!(later.fragment, Some(Fragment { id: 7, offset: 16, more: true }));
        assert!(later.is_later_fragment() && later.ports.is_none());
        assert_eq!(later.checksum_at(), None);
        packet[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
        assert_eq!(Headers::parse(&packet), Err(DropReason::Malformed), "ends beyond 64 KiB");
    }

    /// `udp` over IPv6 behind `extensions`, the first of which is of kind `first`.
    fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut packet = Sample::udp(true, b"data").bytes();
        let upper = packet.split_off(40);
        packet.extend_from_slice(extensions);
        packet.extend_from_slice(&upper);
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet[6] = first;
        packet
    }

    #[test]
    fn ipv6_extension_headers_are_walked() {
        let mut extensions = vec![ROUTING, 0, 0, 0, 0, 0, 0, 0];
        extensions.extend_from_slice(&[FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        extensions.extend_from_slice(&[protocol::UDP, 0, 0, 1, 0, 0, 0, 9]);
        let packet = with_extensions(HOP_BY_HOP, &extensions);
        let headers = Headers::parse(&packet).unwrap();
        assert_eq!((headers.protocol, headers.l4), (protocol::UDP, 72));
        assert_eq!(headers.fragment, Some(Fragment { id: 9, offset: 0, more: true }));
        assert!(headers.has_options && headers.ports.is_some());

        let atomic = with_extensions(FRAGMENT, &[protocol::UDP, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(Headers::parse(&atomic).unwrap().fragment, None);
        let later = with_extensions(FRAGMENT, &[DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 9]);
        let later = Headers::parse(&later).unwrap();
        assert_eq!((later.protocol, later.l4, later.ports), (DESTINATION_OPTIONS, 48, None));
    }

    #[test]
    fn a_chain_of_extension_headers_has_an_end() {
        let one = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
        let mut extensions = one.repeat(MAX_EXTENSIONS);
        *extensions.iter_mut().rev().nth(7).unwrap() = protocol::UDP;
        let packet = with_extensions(DESTINATION_OPTIONS, &extensions);
        assert_eq!(Headers::parse(&packet).unwrap().protocol, protocol::UDP);
        extensions.splice(..0, one);
        let packet = with_extensions(DESTINATION_OPTIONS, &extensions);
        assert_eq!(Headers::parse(&packet), Err(DropReason::Malformed));
    }

    #[test]
    fn eight_bytes_of_a_quoted_header_suffice() {
        for ipv6 in [false, true] {
            let packet = Sample::tcp(ipv6, 1, 0, &[0; 100]).bytes();
            let l4 = if ipv6 { 40 } else { 20 };
            let quoted = Headers::parse_quoted(&packet[..l4 + 8]).unwrap();
            assert_eq!(quoted.ports, Some(Ports { src: 40_000, dst: 443 }));
            assert_eq!(quoted.total_len as usize, l4 + 8);
            assert_eq!(Headers::parse_quoted(&packet[..l4 + 7]), Err(DropReason::Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn damaged_packets_never_panic_and_keep_their_offsets_inside(
            sample in any_sample(),
            damage in prop::collection::vec((0..80usize, any::<u8>()), 0..6),
            cut in 0..400usize,
        ) {
            let mut packet = sample.bytes();
            for (at, byte) in damage {
                if let Some(place) = packet.get_mut(at) {
                    *place = byte;
                }
            }
            packet.truncate(cut.max(1));
            for headers in [Headers::parse(&packet), Headers::parse_quoted(&packet)].into_iter().flatten() {
                let end = headers.total_len as usize;
                prop_assert!(usize::from(headers.l4) <= usize::from(headers.payload));
                prop_assert!(usize::from(headers.payload) <= end && end <= packet.len());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), six: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            let _ = Headers::parse(&bytes);
            let _ = Headers::parse_quoted(&bytes);
        }

        #[test]
        fn what_etherparse_made_is_read_back(sample in any_sample()) {
            let packet = sample.bytes();
            let headers = Headers::parse(&packet).unwrap();
            prop_assert_eq!((headers.source, headers.destination), (sample.source, sample.destination));
            prop_assert_eq!((headers.tos, headers.hop_limit), (sample.tos, sample.hop_limit));
            prop_assert_eq!(&packet[usize::from(headers.payload)..], &sample.data[..]);
            prop_assert!(headers.ports.is_some());
        }
    }
}
