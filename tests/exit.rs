//! The exit of an overlay of real nodes in virtual time: what a host and the Internet see of its NAT.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::nat::NatConfig;
use rongate::node::EgressConfig;
use rongate::sim::{Delivery, LinkModel, Mesh, Simulator};
use rongate::telemetry::DropReason;
use support::udp;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(8, 8, 8, 8), 53);

fn host() -> (Ipv4Addr, u16) {
    (Mesh::host(0, 11), 5_000)
}

/// Site 0 uses the exit of site 1, which is as `change` wants it.
fn overlay(change: impl FnOnce(&mut NatConfig)) -> Simulator {
    overlay_with(|egress| change(&mut egress.nat))
}

fn overlay_with(change: impl FnOnce(&mut EgressConfig)) -> Simulator {
    let mesh = Mesh { sites: 2, exits: true, ..Mesh::default() };
    let mut configs = mesh.configs();
    change(configs[1].egress.as_mut().unwrap());
    let mut simulator = Simulator::new(configs, LinkModel::default(), 1);
    simulator.run_for(Duration::from_secs(5));
    simulator.take_deliveries();
    simulator
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into()
}

/// What was delivered at a node meanwhile.
fn delivered(simulator: &mut Simulator, node: usize) -> Vec<Vec<u8>> {
    simulator.run_for(Duration::from_millis(100));
    let at = |delivery: Delivery| (delivery.node == node).then_some(delivery.packet);
    simulator.take_deliveries().into_iter().filter_map(at).collect()
}

/// The two halves of a packet with 64 bytes of data.
fn halves(whole: &[u8], id: u16) -> [Vec<u8>; 2] {
    let cut = 20 + 32;
    let second = [&whole[..20], &whole[cut..]].concat();
    [(whole[..cut].to_vec(), 0x2000_u16), (second, 32 / 8)].map(|(mut piece, field)| {
        let len = piece.len() as u16;
        piece[2..4].copy_from_slice(&len.to_be_bytes());
        piece[4..6].copy_from_slice(&id.to_be_bytes());
        piece[6..8].copy_from_slice(&field.to_be_bytes());
        rongate::packet::checksum::fill_ipv4(&mut piece[..20]);
        piece
    })
}

#[test]
fn fragments_pass_the_exit_in_any_order() {
    let mut simulator = overlay(|_| ());
    let [first, second] = halves(&udp(host(), SERVER, &[7; 64]), 0x1234);
    simulator.send(0, &second);
    assert!(delivered(&mut simulator, 1).is_empty(), "nothing without the first one");
    simulator.send(0, &first);
    let out = delivered(&mut simulator, 1);
    assert_eq!(out.len(), 2);
    assert_eq!(out[0][4..6], out[1][4..6], "one identification");
    assert!(out.iter().any(|piece| piece[20..] == second[20..]));
    let first = out.iter().find(|piece| piece[6] & 0x20 != 0).unwrap();
    let outside = (address(first, 12), u16::from_be_bytes([first[20], first[21]]));
    assert_ne!(outside.0, host().0);
    let [first, second] = halves(&udp(SERVER, outside, &[9; 64]), 0x4321);
    simulator.send(1, &second);
    assert!(delivered(&mut simulator, 0).is_empty());
    simulator.send(1, &first);
    let back = delivered(&mut simulator, 0);
    assert_eq!(back.len(), 2);
    assert!(back.iter().all(|piece| address(piece, 16) == host().0));
}

#[test]
fn a_host_whose_packet_is_refused_is_told() {
    let mut simulator = overlay(|nat| nat.limits.max_mappings_per_host = 1);
    simulator.send(0, &udp(host(), SERVER, b"one"));
    assert_eq!(delivered(&mut simulator, 1).len(), 1);
    let refused = udp((host().0, 5_001), SERVER, b"two");
    simulator.send(0, &refused);
    let told = delivered(&mut simulator, 0);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told[9], &told[20..22]), (1, &[3, 13][..]), "administratively prohibited");
    assert_eq!(address(told, 16), host().0);
    assert_eq!(told[28..], refused);
    // The first flow is as it was.
    simulator.send(0, &udp(host(), SERVER, b"one"));
    assert_eq!(delivered(&mut simulator, 1).len(), 1);
    // A flood of refused packets is told to few.
    for port in 6_000..7_000 {
        simulator.send(0, &udp((host().0, port), SERVER, b"flood"));
    }
    let told = delivered(&mut simulator, 0).len();
    assert!((10..100).contains(&told), "{told}");
}

#[test]
fn an_unsolicited_syn_is_answered_after_six_seconds() {
    let mut simulator = overlay(|_| ());
    simulator.send(0, &udp(host(), SERVER, b"query"));
    let outside = address(&delivered(&mut simulator, 1)[0], 12);
    let mut knock = Vec::new();
    etherparse::PacketBuilder::ipv4(SERVER.0.octets(), outside.octets(), 64)
        .tcp(4_000, 40_001, 7, 1_000)
        .syn()
        .write(&mut knock, &[])
        .unwrap();
    simulator.send(1, &knock);
    simulator.run_for(Duration::from_millis(5_800));
    assert!(simulator.take_deliveries().is_empty());
    simulator.run_for(Duration::from_secs(1));
    let told = delivered(&mut simulator, 1);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told[9], &told[20..22]), (1, &[3, 3][..]), "port unreachable");
    assert_eq!((address(told, 12), address(told, 16)), (outside, SERVER.0));
    assert_eq!(told[28..], knock);
}

#[test]
fn a_bypassed_destination_sees_the_inside_address() {
    let bypassed = (Ipv4Addr::new(9, 9, 9, 9), 53);
    let mut simulator = overlay(|nat| nat.bypass = vec!["9.9.9.0/24".parse().unwrap()]);
    let asked = udp(host(), bypassed, b"query");
    simulator.send(0, &asked);
    assert_eq!(delivered(&mut simulator, 1), [asked]);
    let answer = udp(bypassed, host(), b"answer");
    simulator.send(1, &answer);
    assert_eq!(delivered(&mut simulator, 0), [answer]);
    simulator.send(0, &udp(host(), SERVER, b"query"));
    assert_ne!(address(&delivered(&mut simulator, 1)[0], 12), host().0, "others are translated");
}

#[test]
fn a_host_of_another_site_gets_a_mapping_by_asking_the_exit() {
    let mut simulator = overlay_with(|egress| egress.pcp = true);
    let server = (Mesh::overlay(1), 5_351);
    // NAT-PMP: TCP, inside port 22, outside port 40022, 600 s.
    let request = [&[0, 2, 0, 0][..], &[0, 22], &40_022_u16.to_be_bytes(), &[0, 0, 2, 88]].concat();
    simulator.send(0, &udp(host(), server, &request));
    let told = delivered(&mut simulator, 0);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((address(told, 12), address(told, 16)), (server.0, host().0));
    let ports = [server.1.to_be_bytes(), host().1.to_be_bytes()].concat();
    assert_eq!(told[20..24], ports);
    assert_eq!(told[28..32], [0, 130, 0, 0], "done");
    assert_eq!(told[38..40], 40_022_u16.to_be_bytes());
    let nat = simulator.node(1).unwrap().nat().unwrap();
    assert_eq!(nat.iter_from(rongate::nat::MappingId(0)).count(), 1);
    // Where the server is off, the request goes to the router as any packet for it.
    let mut off = overlay(|_| ());
    off.send(0, &udp(host(), server, &request));
    assert_eq!(delivered(&mut off, 1).len(), 1);
}

#[test]
fn what_an_exit_denies_is_out_of_reach() {
    let mut simulator =
        overlay_with(|egress| egress.denied.push("203.0.113.128/25".parse().unwrap()));
    let before = forbidden(&simulator);
    for (address, passes) in [([203, 0, 113, 127], 1), ([203, 0, 113, 128], 0)] {
        simulator.send(0, &udp(host(), (Ipv4Addr::from(address), 53), b"may I?"));
        assert_eq!(delivered(&mut simulator, 1).len(), passes, "{address:?}");
    }
    assert_eq!(forbidden(&simulator), before + 1);
}

fn forbidden(simulator: &Simulator) -> u64 {
    simulator.node(1).unwrap().counters().dropped(DropReason::ExitForbidden)
}
