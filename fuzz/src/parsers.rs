//! Everything that takes foreign bytes apart; the first byte says what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rongate::batch::{Output, Part, RxBatch};
use rongate::id::{PeerIndex, PublicKey};
use rongate::nat::pcp::{MAX_LEN, PcpServer};
use rongate::nat::{Nat, NatConfig, NatLimits, Realm};
use rongate::packet::{
    Arrived, Coalescer, Ecn, Fragmenter, Gso, Headers, IcmpKind, Offload, Segmenter, Vnet,
    checksum, icmp, rewrite, siit,
};
use rongate::rng::Rng;
use rongate::sim::scenario::{Scenario, Trace};
use rongate::time::Instant;
use rongate::wire::{self, Control, ControlIter, ControlWriter, DataHeader, Flags, MessageType};
use rongate::wire::{Payload, RelayHeader, handshake};

use super::bytes::Bytes;

const NOW: Instant = Instant::from_micros(1_000_000);

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.u8() % 8 {
        0 => packet(&mut bytes),
        1 => datagram(bytes.rest()),
        2 => plaintext(bytes.u8(), bytes.rest()),
        3 => control(bytes.rest()),
        4 => text(&mut bytes),
        5 => train(&mut bytes),
        6 => nat(&mut bytes),
        _ => pcp(&mut bytes),
    }
}

/// A frame from the TUN: everything that is read out of it, written into it, or made of it.
fn packet(bytes: &mut Bytes<'_>) {
    let vnet = Vnet::parse(bytes.take(10)).unwrap_or_default();
    assert_eq!(Vnet::parse(&vnet.emit(false)), Ok(vnet));
    let (what, limit, port) = (bytes.u8(), usize::from(bytes.u16()), bytes.u16());
    let mut frame = bytes.rest().to_vec();
    let _ = Headers::parse_quoted(&frame);
    let Ok(headers) = Headers::parse(&frame) else { return };
    if what & 1 == 1 {
        checksum::complete(&mut frame, &headers);
        if !headers.is_ipv6() {
            checksum::fill_ipv4(&mut frame[..usize::from(headers.l4)]);
        }
        assert!(checksum::ipv4_is_right(&frame, &headers));
    }
    let mut out = vec![0; 65_536];
    let ours: IpAddr =
        if headers.is_ipv6() { "fd00::1".parse() } else { "10.0.0.1".parse() }.unwrap();
    let error = icmp::Error::TooBig { mtu: limit as u16 };
    let len = icmp::write_error(&mut out, error, ours, &frame, &headers);
    if len > 0 {
        let error = Headers::parse(&out[..len]).expect("our own errors are right");
        assert_eq!(error.icmp, Some(IcmpKind::Error));
        assert!(checksum::is_right(&out[..len], &error));
        let quoted = rewrite::quoted(&out[..len], &error).ok();
        assert!(quoted.is_none_or(|q| q.source == headers.source));
    }
    translate(&frame, &headers, &vnet);
    cut(&frame, &headers, vnet, limit, &mut out);
    fragment(&frame, &headers, limit, &mut out);
    change(&mut frame, &headers, &vnet, ours, (what & 2 == 2).then_some(port), limit);
}

fn cut(frame: &[u8], headers: &Headers, vnet: Vnet, limit: usize, out: &mut [u8]) {
    let Ok(segmenter) = Segmenter::new(frame, headers, vnet, limit) else { return };
    assert!(segmenter.count() >= 1);
    let mut payload = 0;
    // Fewer would do: each is made alike.
    for index in (0..segmenter.count()).take(50) {
        let len = segmenter.write(index, out);
        assert!(len == segmenter.segment_len(index) && len <= limit.max(frame.len()), "{len}");
        let cut = Headers::parse(&out[..len]).expect("a segment is a packet");
        assert_eq!((cut.source, cut.destination), (headers.source, headers.destination));
        payload += cut.payload_len();
    }
    if segmenter.count() <= 50 && vnet.gso != Gso::None {
        assert_eq!(payload, headers.payload_len());
    }
}

/// To the other family: what was right stays right.
fn translate(frame: &[u8], headers: &Headers, vnet: &Vnet) {
    let mut out = Vec::new();
    let v4 = siit::Ends {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 7),
    };
    let v6 = siit::Ends {
        source: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc000, 0x201),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
    };
    let error = headers.icmp == Some(IcmpKind::Error);
    let done = match (headers.is_ipv6(), error) {
        (true, true) => siit::error_to_ipv4(&mut out, frame, headers, v4, v4).ok(),
        (false, true) => siit::error_to_ipv6(&mut out, frame, headers, v6, v6).ok(),
        (true, false) => siit::to_ipv4(&mut out, frame, headers, vnet, v4).map(drop).ok(),
        (false, false) => siit::to_ipv6(&mut out, frame, headers, vnet, v6).map(drop).ok(),
    };
    if done.is_none() {
        return;
    }
    let after = Headers::parse(&out).expect("what is translated is a packet");
    assert_ne!(after.is_ipv6(), headers.is_ipv6());
    let whole = headers.fragment.is_none() && !checksum::is_partial(headers, vnet);
    if error {
        assert!(checksum::is_right(&out, &after));
    } else if whole && checksum::is_right(frame, headers) {
        assert!(checksum::is_right(&out, &after) && checksum::ipv4_is_right(&out, &after));
    }
}

fn fragment(frame: &[u8], headers: &Headers, limit: usize, out: &mut [u8]) {
    let Ok(fragmenter) = Fragmenter::new(frame, headers, limit) else { return };
    let mut covered = 0;
    for index in (0..fragmenter.count()).take(50) {
        let len = fragmenter.write(index, out);
        assert!(len == fragmenter.fragment_len(index) && len <= limit.max(28), "{len} of {limit}");
        covered += len;
    }
    assert!(fragmenter.count() > 50 || covered >= headers.total_len as usize);
}

fn change(
    frame: &mut [u8],
    headers: &Headers,
    vnet: &Vnet,
    address: IpAddr,
    port: Option<u16>,
    mtu: usize,
) {
    let right = headers.fragment.is_none()
        && !checksum::is_partial(headers, vnet)
        && checksum::is_right(frame, headers)
        && checksum::ipv4_is_right(frame, headers);
    let mut whole = rewrite::decrement_hop_limit(frame, headers).is_ok();
    whole &= rewrite::set_dscp(frame, headers, 46).is_ok();
    whole &= rewrite::set_source(frame, headers, vnet, address, port).is_ok();
    whole &= rewrite::set_destination(frame, headers, vnet, address, port).is_ok();
    rewrite::clamp_mss(frame, headers, vnet, mtu);
    if right && whole {
        let after = Headers::parse(frame).expect("it is still a packet");
        assert!(checksum::ipv4_is_right(frame, &after) && checksum::is_right(frame, &after));
    }
    if headers.icmp == Some(IcmpKind::Error) {
        let _ = rewrite::set_quoted_source(frame, headers, address, port);
        let _ = rewrite::set_quoted_destination(frame, headers, address, port);
    }
    let _ = rewrite::set_identification(frame, headers, 7);
    icmp::turn_echo(frame, headers, vnet);
    let _ = checksum::complete_partial(frame, headers, vnet);
}

fn datagram(bytes: &[u8]) {
    let Ok(kind) = wire::peek(bytes) else { return };
    match kind {
        MessageType::HandshakeInit => {
            let header = handshake::InitHeader::parse(bytes);
            assert_eq!(handshake::InitHeader::parse(&pad(&header.emit())), header);
        }
        MessageType::HandshakeResponse => {
            let header = handshake::ResponseHeader::parse(bytes);
            assert_eq!(handshake::ResponseHeader::parse(&pad(&header.emit())), header);
        }
        MessageType::CookieReply => {
            let reply = handshake::CookieReply::parse(bytes);
            assert_eq!(handshake::CookieReply::parse(&reply.emit()), reply);
        }
        MessageType::Data => {
            let Ok(header) = DataHeader::parse(bytes) else { return };
            assert_eq!(header.emit()[..], bytes[..16]);
        }
        MessageType::Relay => {
            let Ok(header) = RelayHeader::parse(bytes) else { return };
            let again = header.emit();
            assert_eq!(again[..], bytes[..again.len()]);
        }
    }
}

fn pad(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(200, 0);
    padded
}

fn plaintext(flags: u8, bytes: &[u8]) {
    let Ok(flags) = Flags::from_bits(flags) else { return };
    let Ok(payload) = Payload::parse(flags, bytes) else { return };
    assert!(payload.body.start <= payload.body.end && payload.body.end <= bytes.len());
    let mut body = &bytes[payload.body];
    while let Ok(first) = wire::data::first_of_bundle(body) {
        let _ = Headers::parse(&body[first.clone()]);
        body = &body[first.end..];
    }
}

fn control(bytes: &[u8]) {
    let mut buffer = vec![0; 65_536];
    for message in ControlIter::new(bytes).take(1_000) {
        let Ok(message) = message else { return };
        if let Control::Advertisement(_, entries) = &message {
            assert_eq!(entries.iter().count(), entries.len());
        }
        let mut writer = ControlWriter::new(&mut buffer);
        if writer.push(&message) {
            let len = writer.len();
            let again = ControlIter::new(&buffer[..len]).next();
            assert_eq!(again, Some(Ok(message)));
        }
    }
}

fn text(bytes: &mut Bytes<'_>) {
    let kind = bytes.u8() % 8;
    let Ok(text) = std::str::from_utf8(bytes.rest()) else { return };
    match kind {
        0 => {
            if let Ok(trace) = Trace::parse(text) {
                let lines: Vec<_> = trace.rows.iter().map(|row| trace.line(row)).collect();
                let again = Trace::parse(&(Trace::HEADER.to_owned() + "\n" + &lines.join("\n")));
                assert_eq!(again.map(|again| again.rows.len()), Ok(trace.rows.len()));
            }
        }
        1 => {
            if let Ok(scenario) = Scenario::parse(text) {
                assert!(!scenario.sizes().is_empty());
            }
        }
        2 => {
            if let Ok(duration) = rongate::config::parse_duration(text) {
                let told = rongate::config::format_duration(duration);
                assert_eq!(rongate::config::parse_duration(&told), Ok(duration), "{told}");
            }
        }
        3 => drop(rongate::config::parse_ports(text)),
        4 => {
            if let Ok(rate) = text.parse::<rongate::config::Rate>() {
                assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }
        5 => {
            if let Ok(endpoint) = text.parse::<rongate::config::Endpoint>() {
                assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
        6 => {
            if let Ok(listen) = text.parse::<rongate::config::Listen>() {
                assert_eq!(listen.to_string().parse(), Ok(listen));
            }
        }
        _ => {
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_eq!(key.to_string().parse(), Ok(key));
            }
        }
    }
}

/// Packets of one turn, merged and taken apart again.
fn train(bytes: &mut Bytes<'_>) {
    let mut rx = RxBatch::new(1);
    let mut out = Output::new(1);
    let mut coalescer = Coalescer::new(Offload { tcp: true, udp: true });
    let (mut at, mut packets) = (0, 0);
    let mut template: Vec<u8> = Vec::new();
    while !bytes.is_empty() && packets < 100 {
        if bytes.u8() & 1 == 1 {
            template = bytes.some().to_vec();
        } else {
            // Like the one before, but for some bytes.
            for _ in 0..bytes.below(4) {
                let (place, value) = (bytes.below(template.len()), bytes.u8());
                if let Some(byte) = template.get_mut(place) {
                    *byte = value;
                }
            }
        }
        let flags = bytes.u8();
        let (fix, partial) = (flags & 1 == 0, flags & 2 == 2);
        let Ok(headers) = Headers::parse(&template) else { continue };
        if fix {
            if !headers.is_ipv6() {
                checksum::fill_ipv4(&mut template[..usize::from(headers.l4)]);
            }
            checksum::complete(&mut template, &headers);
        }
        let len = headers.total_len as usize;
        rx.slots[0].buffer[at..at + len].copy_from_slice(&template[..len]);
        let place = Part { slot: 0, start: at as u32, end: (at + len) as u32 };
        let next =
            partial && coalescer.push_next(&mut rx, &mut out, place, PeerIndex(0), Ecn::NotEct);
        if !next {
            let arrived = Arrived { at: place, headers, peer: PeerIndex(0), partial };
            coalescer.push(&mut rx, &mut out, &arrived);
        }
        at += len;
        packets += 1;
    }
    coalescer.flush(&mut rx, &mut out);
    let mut merged_packets = 0;
    while let Some(merged) = coalescer.pop() {
        merged_packets += merged.packets;
        let mut packet = Vec::new();
        for part in &out.parts[merged.parts.clone()] {
            packet.extend_from_slice(out.part(&rx, *part));
        }
        let headers = Headers::parse(&packet).expect("what was merged is a packet");
        assert_eq!(headers.total_len as usize, packet.len());
        if merged.packets > 1 {
            let cut = Segmenter::new(&packet, &headers, merged.vnet, 65_535);
            assert_eq!(cut.map(|cut| cut.count()), Ok(merged.packets as usize));
        }
    }
    assert_eq!(merged_packets, packets);
}

/// Packets from inside and outside.
fn nat(bytes: &mut Bytes<'_>) {
    let mut now = NOW;
    let pool = vec!["100.64.0.0/31".parse().unwrap(), "fd64::/127".parse().unwrap()];
    let limits = NatLimits::of_mappings(16, 8);
    let config = NatConfig { limits, ..NatConfig::new(pool, 40_000..=40_100) };
    let mut nat = Nat::new(now, &config, Rng::new([7; 32]));
    let mut answer = vec![0; MAX_LEN.max(65_536)];
    while !bytes.is_empty() {
        let what = bytes.u8();
        now += Duration::from_millis(u64::from(bytes.u8()).pow(2));
        let mut frame = bytes.some().to_vec();
        if let Ok(headers) = Headers::parse(&frame) {
            if what & 2 == 2 {
                if !headers.is_ipv6() {
                    checksum::fill_ipv4(&mut frame[..usize::from(headers.l4)]);
                }
                checksum::complete(&mut frame, &headers);
            }
            let vnet = Vnet::default();
            let _ = if what & 1 == 1 {
                nat.inbound(now, &mut frame, &headers, &vnet).map(drop)
            } else {
                let realm = if what & 4 == 4 { Realm::LOCAL } else { Realm(1) };
                nat.outbound(now, realm, &mut frame, &headers, &vnet).map(drop)
            };
        }
        let mut released = Vec::new();
        while nat.take_released(&mut released).is_some() {}
        nat.take_lost_fragments();
        while nat.take_answer(now, &mut answer) > 0 {}
        while nat.take_event().is_some() {}
        nat.expire(now, 100);
        assert!(nat.counts().mappings <= 16);
    }
}

fn pcp(bytes: &mut Bytes<'_>) {
    let pool = vec!["100.64.0.0/32".parse().unwrap()];
    let mut nat = Nat::new(NOW, &NatConfig::new(pool, 40_000..=40_010), Rng::new([7; 32]));
    let server = PcpServer::new(NOW);
    let client = SocketAddr::from((Ipv4Addr::new(10, 1, 0, 5), 1_000));
    let mut out = vec![0; MAX_LEN];
    while !bytes.is_empty() {
        let request = bytes.some();
        let len = server.handle(NOW, &mut nat, Realm::LOCAL, client, request, &mut out);
        assert!(len <= MAX_LEN && (len == 0 || out[1] & 0x80 != 0));
    }
}
