use super::*;
use crate::packet::rewrite;

const ROUTER: &str = "192.0.2.1:0";

/// An ICMP error of a kind about a packet, of which `quoted` bytes are quoted.
fn error(kind: u8, from: SocketAddrV4, to: Ipv4Addr, about: &[u8], quoted: usize) -> Vec<u8> {
    let quote = &about[..about.len().min(quoted)];
    let mut sample = Sample::new(false, Upper::EchoReply, quote);
    (sample.source, sample.destination) = ((*from.ip()).into(), to.into());
    let mut bytes = sample.bytes();
    bytes[20] = kind;
    bytes[24..28].fill(0);
    let headers = Headers::parse(&bytes).unwrap();
    checksum::complete(&mut bytes, &headers);
    bytes
}

fn quoted(packet: &[u8]) -> Headers {
    rewrite::quoted(packet, &Headers::parse(packet).unwrap()).unwrap()
}

#[test]
fn errors_from_outside_reach_the_host_about_its_own_packet() {
    let mut lab = Lab::new(&config());
    for upper in [tcp(SYN), Upper::Udp, Upper::EchoRequest] {
        let original = packet(end("10.2.0.1:5000"), end(SERVER), upper);
        let mut sent = original.clone();
        let (_, headers) = lab.send(SITE, &mut sent).unwrap();
        let mapped = source(&headers);
        for kind in [3, 11, 12] {
            for length in [28, 1_000] {
                let mut error = error(kind, end(ROUTER), *mapped.ip(), &sent, length);
                let (inbound, headers) = lab.receive(&mut error).unwrap();
                assert_eq!(inbound.realm, SITE);
                assert_eq!(headers.source, *end(ROUTER).ip());
                assert_eq!(headers.destination, *end("10.2.0.1:0").ip());
                let quote = &error[usize::from(headers.payload)..];
                assert_eq!(quote, &original[..quote.len()], "as the host has sent it");
            }
        }
    }
}

#[test]
fn errors_from_inside_leave_with_the_outside_endpoint() {
    let mut lab = Lab::new(&config());
    for (upper, answer) in [(tcp(SYN), tcp(SYN | ACK)), (Upper::Udp, Upper::Udp)] {
        let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, upper).unwrap();
        let original = packet(end(SERVER), mapped, answer);
        let mut received = original.clone();
        lab.receive(&mut received).unwrap();
        // From the host itself, and from a router of the site.
        for sender in ["10.2.0.1:0", "10.2.255.1:0"] {
            let mut error = error(3, end(sender), *end(SERVER).ip(), &received, 1_000);
            let (to, headers) = lab.send(SITE, &mut error).unwrap();
            assert_eq!(to, Outbound::Internet);
            assert_eq!(headers.source, *mapped.ip());
            let quote = &error[usize::from(headers.payload)..];
            assert_eq!(quote, original, "as the server has sent it");
        }
    }
}

#[test]
fn errors_about_hairpinned_packets_are_translated_twice() {
    let mut lab = Lab::new(&config());
    let a = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    let b = lab.out(SITE, "10.2.0.2:6000", SERVER, Upper::Udp).unwrap();
    let original = packet(end("10.2.0.1:5000"), b, Upper::Udp);
    let mut received = original.clone();
    lab.send(SITE, &mut received).unwrap();
    let mut error = error(3, end("10.2.0.2:0"), *a.ip(), &received, 1_000);
    let (to, headers) = lab.send(SITE, &mut error).unwrap();
    let inbound = Inbound { realm: SITE, destination: [10, 2, 0, 1].into() };
    assert_eq!(to, Outbound::Hairpin(inbound));
    assert_eq!(headers.source, *b.ip());
    assert_eq!(&error[usize::from(headers.payload)..], original);
    assert_eq!(quoted(&error).ports.unwrap().src, 5000);
}

#[test]
fn errors_about_nothing_of_ours_are_dropped() {
    let mut lab = Lab::new(&config());
    let mut sent = packet(end("10.2.0.1:5000"), end(SERVER), Upper::Udp);
    let (_, headers) = lab.send(SITE, &mut sent).unwrap();
    let mapped = source(&headers);
    let unrelated = DropReason::UnrelatedIcmpError;
    // Another port, another transport, another addressee than the quoted sender.
    let stranger = packet(SocketAddrV4::new(*mapped.ip(), 1), end(SERVER), Upper::Udp);
    let mut packets = [
        error(3, end(ROUTER), *mapped.ip(), &stranger, 1_000),
        error(3, end(ROUTER), *mapped.ip(), &packet(mapped, end(SERVER), tcp(SYN)), 1_000),
        error(3, end(ROUTER), Ipv4Addr::from_bits(mapped.ip().to_bits() ^ 1), &sent, 1_000),
    ];
    for packet in &mut packets {
        assert_eq!(lab.receive(packet), Err(unrelated));
    }
    let about_nothing = packet(end(SERVER), end("10.2.0.9:1"), Upper::Udp);
    let mut from_inside = error(3, end("10.2.0.9:0"), *end(SERVER).ip(), &about_nothing, 1_000);
    assert_eq!(lab.send(SITE, &mut from_inside), Err(unrelated));
    // The right endpoint, but of another realm.
    let about = packet(end(SERVER), end("10.2.0.1:5000"), Upper::Udp);
    let mut elsewhere = error(3, end("10.2.0.1:0"), *end(SERVER).ip(), &about, 1_000);
    assert_eq!(lab.send(Realm(9), &mut elsewhere), Err(unrelated));
    let mut forged = error(3, end(ROUTER), *mapped.ip(), &sent, 1_000);
    forged[30] ^= 1;
    assert_eq!(lab.receive(&mut forged), Err(DropReason::BadChecksum));
    for kind in [4, 5] {
        let mut redirect = error(kind, end(ROUTER), *mapped.ip(), &sent, 1_000);
        assert_eq!(lab.receive(&mut redirect), Err(DropReason::UnsupportedProtocol));
    }
}

#[test]
fn errors_neither_keep_nor_end_anything() {
    let mut lab = Lab::new(&config());
    let mut sent = packet(end("10.2.0.1:5000"), end(SERVER), tcp(SYN));
    let (_, headers) = lab.send(SITE, &mut sent).unwrap();
    let mapped = source(&headers);
    lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
    for _ in 0..70 {
        let mut error = error(3, end(ROUTER), *mapped.ip(), &sent, 1_000);
        lab.receive(&mut error).unwrap();
        assert_eq!(lab.nat.counts().sessions, 1);
        lab.wait(100);
    }
    lab.wait(441);
    assert_eq!(lab.nat.counts().mappings, 0, "2 h 4 min after the last packet, errors or not");
}
