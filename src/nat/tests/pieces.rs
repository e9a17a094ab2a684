//! Packets that come in pieces, or unfinished.

use super::*;
use crate::packet::testing::make_partial;

/// Cuts a whole packet in pieces of at most `size` bytes of data, a multiple of eight.
fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let data = &packet[20..];
    let count = data.chunks(size).count();
    (data.chunks(size).enumerate())
        .map(|(n, chunk)| {
            let mut piece = [&packet[..20], chunk].concat();
            piece[2..4].copy_from_slice(&(20 + chunk.len() as u16).to_be_bytes());
            let more = u16::from(n + 1 < count) << 13;
            piece[6..8].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
            checksum::fill_ipv4(&mut piece[..20]);
            piece
        })
        .collect()
}

fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = pieces[0].clone();
    for piece in &pieces[1..] {
        packet.extend_from_slice(&piece[20..]);
    }
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6..8].fill(0);
    checksum::fill_ipv4(&mut packet[..20]);
    packet
}

#[test]
fn later_fragments_follow_the_first_both_ways() {
    let mut lab = Lab::new(&config());
    let mut sample = Sample::udp(false, &[7; 500]);
    sample.source = Ipv4Addr::new(10, 2, 0, 1).into();
    sample.destination = (*end(SERVER).ip()).into();
    sample.dont_fragment = false;
    let mut pieces = fragments(&sample.bytes(), 96);
    for piece in &mut pieces {
        assert!(lab.send(SITE, piece).is_ok());
    }
    let whole = joined(&pieces);
    assert_checksums(&whole);
    let mapped = source(&Headers::parse(&whole).unwrap());
    let mut answer = sample.clone();
    (answer.source, answer.destination) = (sample.destination, (*mapped.ip()).into());
    answer.ports = (sample.ports.1, mapped.port());
    let mut pieces = fragments(&answer.bytes(), 200);
    let mut stray = pieces[1].clone();
    assert_eq!(lab.arrive(&mut stray), Ok(Arrival::Held), "before the first");
    for piece in &mut pieces {
        let (inbound, _) = lab.receive(piece).unwrap();
        assert_eq!(inbound.realm, SITE);
    }
    let whole = joined(&pieces);
    assert_checksums(&whole);
    assert_eq!(destination(&Headers::parse(&whole).unwrap()), end("10.2.0.1:40000"));
    let mut held = Vec::new();
    assert_eq!(lab.nat.take_released(&mut held), Some(None));
    assert_eq!(held, stray, "it goes as soon as the first one came");
    assert_eq!(lab.nat.take_released(&mut held), None);
    let mut pieces = fragments(&answer.bytes(), 200);
    lab.receive(&mut pieces[0]).unwrap();
    lab.wait(6);
    assert_eq!(lab.arrive(&mut pieces[1]), Ok(Arrival::Held), "too late");
    lab.wait(6);
    assert_eq!(lab.nat.take_lost_fragments(), 1);
}

#[test]
fn partial_checksums_stay_partial_and_right() {
    let mut lab = Lab::new(&config());
    for upper in [tcp(SYN), Upper::Udp] {
        let mut frame = packet(end("10.2.0.1:5000"), end(SERVER), upper);
        let vnet = make_partial(&mut frame);
        let headers = Headers::parse(&frame).unwrap();
        lab.nat.outbound(lab.now, SITE, &mut frame, &headers, &vnet).unwrap();
        let headers = Headers::parse(&frame).unwrap();
        checksum::complete_partial(&mut frame, &headers, &vnet).unwrap();
        assert_checksums(&frame);
    }
}
