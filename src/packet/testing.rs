//! Packets for tests, made and checked by etherparse, so that our arithmetic is not its own judge.

use std::net::IpAddr;

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header,
    Ipv4HeaderSlice, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket, TcpHeader, TransportSlice,
    UdpHeader,
};
use proptest::prelude::*;

use super::{Headers, Vnet, checksum, protocol, tcp_flag};

/// What a [`Sample`] carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    Tcp { seq: u32, ack: u32, flags: u8, options: Vec<u8> },
    Udp,
    EchoRequest,
    EchoReply,
}

/// A packet to be made.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ports: (u16, u16),
    pub(crate) tos: u8,
    pub(crate) hop_limit: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) upper: Upper,
    pub(crate) data: Vec<u8>,
}

impl Sample {
    pub(crate) fn new(ipv6: bool, upper: Upper, data: &[u8]) -> Self {
        let (source, destination) = if ipv6 {
            ("2001:db8::1".parse().unwrap(), "2001:db8:1::2".parse().unwrap())
        } else {
            ("192.0.2.1".parse().unwrap(), "198.51.100.2".parse().unwrap())
        };
        Self {
            source,
            destination,
            ports: (40_000, 443),
            tos: 0,
            hop_limit: 64,
            id: 7,
            dont_fragment: true,
            upper,
            data: data.to_vec(),
        }
    }

    pub(crate) fn tcp(ipv6: bool, seq: u32, flags: u8, data: &[u8]) -> Self {
        Self::new(ipv6, Upper::Tcp { seq, ack: 1, flags, options: vec![] }, data)
    }

    pub(crate) fn udp(ipv6: bool, data: &[u8]) -> Self {
        Self::new(ipv6, Upper::Udp, data)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let upper = self.upper_bytes();
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = (upper.len() + self.data.len()) as u16;
                let mut ip = Ipv4Header::new(
                    len,
                    self.hop_limit,
                    IpNumber(self.protocol()),
                    source.octets(),
                    destination.octets(),
                )
                .unwrap();
                ip.dscp = (self.tos >> 2).try_into().unwrap();
                ip.ecn = (self.tos & 3).try_into().unwrap();
                ip.identification = self.id;
                ip.dont_fragment = self.dont_fragment;
                ip.header_checksum = ip.calc_header_checksum();
                ip.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: (upper.len() + self.data.len()) as u16,
                next_header: IpNumber(self.protocol()),
                hop_limit: self.hop_limit,
                source: source.octets(),
                destination: destination.octets(),
            }
            .to_bytes()
            .to_vec(),
            (IpAddr::V4(_) | IpAddr::V6(_), _) => panic!("families differ"),
        };
        packet.extend_from_slice(&upper);
        packet.extend_from_slice(&self.data);
        packet
    }

    fn protocol(&self) -> u8 {
        match self.upper {
            Upper::Tcp { .. } => protocol::TCP,
            Upper::Udp => protocol::UDP,
            Upper::EchoRequest | Upper::EchoReply if self.source.is_ipv6() => protocol::ICMPV6,
            Upper::EchoRequest | Upper::EchoReply => protocol::ICMP,
        }
    }

    fn upper_bytes(&self) -> Vec<u8> {
        let echo = IcmpEchoHeader { id: self.ports.0, seq: 1 };
        match (&self.upper, self.source, self.destination) {
            (Upper::Tcp { seq, ack, flags, options }, source, destination) => {
                let mut tcp = TcpHeader::new(self.ports.0, self.ports.1, *seq, 1_000);
                tcp.acknowledgment_number = *ack;
                tcp.fin = flags & tcp_flag::FIN != 0;
                tcp.syn = flags & tcp_flag::SYN != 0;
                tcp.rst = flags & tcp_flag::RST != 0;
                tcp.psh = flags & tcp_flag::PSH != 0;
                tcp.ack = flags & tcp_flag::ACK != 0;
                tcp.urg = flags & tcp_flag::URG != 0;
                tcp.ece = flags & tcp_flag::ECE != 0;
                tcp.cwr = flags & tcp_flag::CWR != 0;
                tcp.set_options_raw(options).unwrap();
                tcp.checksum = tcp_checksum(&tcp, source, destination, &self.data);
                tcp.to_bytes().to_vec()
            }
            (Upper::Udp, IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = 8 + self.data.len() as u16;
                let ip =
                    Ipv4Header::new(len, 64, IpNumber::UDP, source.octets(), destination.octets())
                        .unwrap();
                let (src, dst) = self.ports;
                UdpHeader::with_ipv4_checksum(src, dst, &ip, &self.data)
                    .unwrap()
                    .to_bytes()
                    .to_vec()
            }
            (Upper::Udp, source, destination) => {
                let ip = Ipv6Header {
                    source: octets6(source),
                    destination: octets6(destination),
                    ..Ipv6Header::default()
                };
                let (src, dst) = self.ports;
                UdpHeader::with_ipv6_checksum(src, dst, &ip, &self.data)
                    .unwrap()
                    .to_bytes()
                    .to_vec()
            }
            (upper, IpAddr::V4(_), _) => {
                let kind = match upper {
                    Upper::EchoRequest => Icmpv4Type::EchoRequest(echo),
                    Upper::EchoReply | Upper::Tcp { .. } | Upper::Udp => {
                        Icmpv4Type::EchoReply(echo)
                    }
                };
                Icmpv4Header::with_checksum(kind, &self.data).to_bytes().to_vec()
            }
            (upper, source, destination) => {
                let kind = match upper {
                    Upper::EchoRequest => Icmpv6Type::EchoRequest(echo),
                    Upper::EchoReply | Upper::Tcp { .. } | Upper::Udp => {
                        Icmpv6Type::EchoReply(echo)
                    }
                };
                let (source, destination) = (octets6(source), octets6(destination));
                Icmpv6Header::with_checksum(kind, source, destination, &self.data)
                    .unwrap()
                    .to_bytes()
                    .to_vec()
            }
        }
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => panic!("families differ"),
    }
}

fn tcp_checksum(tcp: &TcpHeader, source: IpAddr, destination: IpAddr, data: &[u8]) -> u16 {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            tcp.calc_checksum_ipv4_raw(source.octets(), destination.octets(), data).unwrap()
        }
        (source, destination) => {
            tcp.calc_checksum_ipv6_raw(octets6(source), octets6(destination), data).unwrap()
        }
    }
}

/// Panics unless every checksum in the packet is what etherparse computes from scratch.
#[track_caller]
pub(crate) fn assert_checksums(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4HeaderSlice::from_slice(packet).unwrap().to_header();
        assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header checksum");
    }
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("not an IP packet"),
    };
    let (found, expected) = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            (header.checksum, tcp_checksum(&header, source, destination, tcp.payload()))
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let expected = match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => header.calc_checksum_ipv4_raw(
                    source.octets(),
                    destination.octets(),
                    udp.payload(),
                ),
                (source, destination) => header.calc_checksum_ipv6_raw(
                    octets6(source),
                    octets6(destination),
                    udp.payload(),
                ),
            };
            (header.checksum, expected.unwrap())
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let header = icmp.header();
            (header.checksum, header.icmp_type.calc_checksum(icmp.payload()))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let header = icmp.header();
            let (source, destination) = (octets6(source), octets6(destination));
            let expected = header.icmp_type.calc_checksum(source, destination, icmp.payload());
            (header.checksum, expected.unwrap())
        }
        Some(TransportSlice::Igmp(_)) | None => return,
    };
    assert_eq!(found, expected, "upper-layer checksum");
}

/// Makes the complete checksum of a TCP or UDP packet a partial one.
pub(crate) fn make_partial(packet: &mut [u8]) -> Vnet {
    let headers = Headers::parse(packet).unwrap();
    let at = headers.checksum_at().unwrap();
    let len = headers.total_len - u32::from(headers.l4);
    let sum =
        checksum::pseudo_header(headers.source, headers.destination, headers.protocol, len).fold();
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Vnet {
        needs_checksum: true,
        checksum_start: headers.l4,
        checksum_offset: (at - usize::from(headers.l4)) as u16,
        ..Vnet::default()
    }
}

/// Any packet that a host might send.
pub(crate) fn any_sample() -> impl Strategy<Value = Sample> {
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), prop_oneof![Just(vec![]), tcp_options()])
        .prop_map(|(seq, ack, flags, options)| Upper::Tcp { seq, ack, flags, options });
    let upper = prop_oneof![4 => tcp, 4 => Just(Upper::Udp), 1 => Just(Upper::EchoRequest), 1 => Just(Upper::EchoReply)];
    let ip = (any_addresses(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>());
    let data = prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..300);
    (ip, any::<(u16, u16)>(), upper, data).prop_map(|(ip, ports, upper, data)| {
        let ((source, destination), tos, hop_limit, id, dont_fragment) = ip;
        Sample { source, destination, ports, tos, hop_limit, id, dont_fragment, upper, data }
    })
}

/// Two addresses of one family.
pub(crate) fn any_addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ]
}

fn tcp_options() -> impl Strategy<Value = Vec<u8>> {
    (0..=10usize).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4))
}
