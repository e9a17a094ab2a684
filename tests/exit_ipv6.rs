//! IPv6 hosts at the exit of an overlay of real nodes in virtual time: to IPv4 (NAT64), and to IPv6
//! by a prefix (NPTv6) or with ports (NAT66).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rongate::addr::Nat64Prefix;
use rongate::id::PeerIndex;
use rongate::nat::{PrefixPair, Realm};
use rongate::node::{ExitVia, NodeConfig};
use rongate::packet::{Headers, checksum, icmp};
use rongate::sim::{Delivery, LinkModel, Mesh, Simulator};
use rongate::telemetry::DropReason;

const SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

fn ipv6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn host() -> Ipv6Addr {
    ipv6("fd00:a::11")
}

/// Site 0 has IPv6 hosts and uses the exit of site 1.
fn overlay(change: impl FnOnce(&mut [NodeConfig])) -> Simulator {
    let mesh = Mesh { sites: 2, exits: true, ..Mesh::default() };
    let mut configs = mesh.configs();
    configs[0].lan_networks.push("fd00:a::/48".parse().unwrap());
    configs[1].peers[0].networks.push("fd00:a::/48".parse().unwrap());
    for (site, config) in configs.iter_mut().enumerate() {
        config.addresses.push(ipv6(&format!("fd77::{}", site + 1)).into());
    }
    configs[0].peers[0].addresses.push(ipv6("fd77::2").into());
    configs[1].peers[0].addresses.push(ipv6("fd77::1").into());
    change(&mut configs);
    let mut simulator = Simulator::new(configs, LinkModel::default(), 1);
    simulator.run_for(Duration::from_secs(5));
    simulator.take_deliveries();
    simulator
}

fn delivered(simulator: &mut Simulator, node: usize) -> Vec<Vec<u8>> {
    simulator.run_for(Duration::from_millis(100));
    let at = |delivery: Delivery| (delivery.node == node).then_some(delivery.packet);
    simulator.take_deliveries().into_iter().filter_map(at).collect()
}

fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    support::udp(from, to, payload)
}

fn only(packets: &[Vec<u8>]) -> (Vec<u8>, Headers) {
    let [packet] = packets else { panic!("{packets:02x?}") };
    let headers = Headers::parse(packet).unwrap();
    assert!(checksum::is_right(packet, &headers));
    (packet.clone(), headers)
}

#[test]
fn an_ipv6_host_reaches_an_ipv4_server_and_is_answered() {
    let mut simulator = overlay(|_| ());
    let server = IpAddr::V6(Nat64Prefix::WELL_KNOWN.embed(SERVER));
    let asked = udp((host().into(), 5_000), (server, 53), b"question");
    simulator.send(0, &asked);
    let (_, out) = only(&delivered(&mut simulator, 1));
    assert_eq!((out.destination, out.ports.unwrap().dst), (SERVER.into(), 53));
    let outside = (out.source, out.ports.unwrap().src);

    simulator.send(1, &udp((SERVER.into(), 53), outside, b"answer"));
    let (packet, got) = only(&delivered(&mut simulator, 0));
    assert_eq!((got.source, got.destination), (server, host().into()));
    assert_eq!(got.ports.unwrap().dst, 5_000);
    assert!(packet.ends_with(b"answer"));

    // A long one that may be taken apart is, also without a checksum; one that may not is refused
    // with the size that fits.
    for with_checksum in [true, false] {
        let mut long = udp((SERVER.into(), 53), outside, &[7; 1_362]);
        long[6] = 0;
        if !with_checksum {
            long[26..28].fill(0);
        }
        checksum::fill_ipv4(&mut long[..20]);
        simulator.send(1, &long);
        let pieces = delivered(&mut simulator, 0);
        assert_eq!(pieces.len(), 2);
        let parsed: Vec<_> = pieces.iter().map(|piece| Headers::parse(piece).unwrap()).collect();
        assert!(parsed.iter().all(|piece| piece.destination == host() && piece.total_len <= 1_392));
        let sum = checksum::pseudo_header(server, host().into(), 17, 1_370);
        let sum = sum.bytes(&pieces[0][48..]).bytes(&pieces[1][48..]);
        assert_eq!(sum.fold(), 0xffff);
    }
    let long = udp((SERVER.into(), 53), outside, &[7; 1_450]);
    simulator.send(1, &long);
    let (told, headers) = only(&delivered(&mut simulator, 1));
    assert_eq!(headers.destination, SERVER, "the sender");
    assert_eq!(told[20..22], [3, 4], "fragmentation needed");
    assert_eq!(told[28..56], long[..28], "in its own words");
    let fits = usize::from(u16::from_be_bytes([told[26], told[27]]));
    assert!((1_260..long.len()).contains(&fits), "{fits}");
    simulator.send(1, &udp((SERVER.into(), 53), outside, &vec![7; fits - 28]));
    let (_, got) = only(&delivered(&mut simulator, 0));
    assert_eq!(got.total_len as usize, fits + 20, "and that one does");

    // What a router outside tells of the question reaches the host in its own words.
    let mut error = [0; icmp::MAX_LEN];
    let sent = udp(outside, (SERVER.into(), 53), b"question");
    let headers = Headers::parse(&sent).unwrap();
    let router = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
    let len = icmp::write_error(&mut error, icmp::Error::TimeExceeded, router, &sent, &headers);
    simulator.send(1, &error[..len]);
    let (told, _) = only(&delivered(&mut simulator, 0));
    assert_eq!(told[40], 3, "time exceeded");
    assert_eq!(told[48..56], asked[..8]);
    assert_eq!(told[56..], asked[8..], "about its own packet");
}

#[test]
fn special_places_stay_closed_under_the_prefix() {
    let mut simulator = overlay(|_| ());
    for place in [[127, 0, 0, 1], [10, 2, 0, 5], [192, 168, 1, 1]] {
        let to = Nat64Prefix::WELL_KNOWN.embed(place.into());
        simulator.send(0, &udp((host().into(), 5_000), (to.into(), 53), b"x"));
        assert!(delivered(&mut simulator, 1).is_empty());
    }
    // The exit does not trust its user to have looked: this one takes the prefix for any other.
    let prefix = Nat64Prefix::new("2001:db8:64::/96".parse().unwrap()).unwrap();
    let mut simulator = overlay(|configs| {
        configs[0].nat64 = None;
        configs[0].internet_via_ipv6 = vec![ExitVia::Peer(PeerIndex(0))];
        configs[1].nat64 = Some(prefix);
    });
    let places = [[127, 0, 0, 1], [10, 2, 0, 5], [192, 168, 1, 1]];
    for place in places {
        let to = prefix.embed(place.into());
        simulator.send(0, &udp((host().into(), 5_000), (to.into(), 53), b"x"));
        assert!(delivered(&mut simulator, 1).is_empty());
    }
    let exit = simulator.node(1).unwrap();
    let refused = exit.counters().drops().find(|(reason, _)| *reason == DropReason::ExitForbidden);
    assert_eq!(refused, Some((DropReason::ExitForbidden, places.len() as u64)));
    assert_eq!(exit.nat().unwrap().counts().mappings, 0);
    let to = prefix.embed(SERVER);
    simulator.send(0, &udp((host().into(), 5_000), (to.into(), 53), b"x"));
    assert_eq!(only(&delivered(&mut simulator, 1)).1.destination, SERVER, "others it takes");
}

#[test]
fn without_the_prefix_or_an_exit_for_ipv6_a_host_is_told_so() {
    let mut simulator = overlay(|configs| configs[0].nat64 = None);
    let server = Nat64Prefix::WELL_KNOWN.embed(SERVER);
    for to in [server, ipv6("2001:db8:ffff::80")] {
        let asked = udp((host().into(), 5_000), (to.into(), 53), b"x");
        simulator.send(0, &asked);
        simulator.run_for(Duration::from_millis(100));
        let deliveries = simulator.take_deliveries();
        assert!(deliveries.iter().all(|delivery| delivery.node == 0));
        let packets: Vec<_> = deliveries.into_iter().map(|delivery| delivery.packet).collect();
        let (told, headers) = only(&packets);
        assert_eq!(headers.destination, host());
        assert_eq!(told[40..42], [1, 0], "no route");
        assert_eq!(told[48..], asked, "to that");
    }
}

#[test]
fn an_ipv6_flow_leaves_with_the_outside_prefix_or_an_outside_endpoint() {
    let remote = IpAddr::V6(ipv6("2001:db8:ffff::80"));
    for by_prefix in [true, false] {
        let mut simulator = overlay(|configs| {
            configs[0].internet_via_ipv6 = vec![ExitVia::Peer(PeerIndex(0))];
            let nat = &mut configs[1].egress.as_mut().unwrap().nat;
            if by_prefix {
                nat.prefixes.push(PrefixPair {
                    realm: Realm(0),
                    inside: "fd00:a::/48".parse().unwrap(),
                    outside: "2001:db8:a::/48".parse().unwrap(),
                });
            } else {
                nat.pool.push("2001:db8:a::/127".parse().unwrap());
            }
        });
        simulator.send(0, &udp((host().into(), 5_000), (remote, 53), b"question"));
        let (_, out) = only(&delivered(&mut simulator, 1));
        assert!(out.source.to_string().starts_with("2001:db8:a:"), "{out:?}");
        let outside = (out.source, out.ports.unwrap().src);
        assert_eq!(outside.1 == 5_000, by_prefix);
        simulator.send(1, &udp((remote, 53), outside, b"answer"));
        let (packet, got) = only(&delivered(&mut simulator, 0));
        assert_eq!((got.destination, got.ports.unwrap().dst), (host().into(), 5_000));
        assert!(packet.ends_with(b"answer"));
        let mappings = simulator.node(1).unwrap().nat().unwrap().counts().mappings;
        assert_eq!(mappings, u64::from(!by_prefix));
    }
}
