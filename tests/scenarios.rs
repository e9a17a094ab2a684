//! What an overlay must survive, in virtual time: restarts, lost uplinks, small underlays, exits.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use rongate::metric::Metric;
use rongate::path::Path;
use rongate::sim::{LinkModel, Mesh, Simulator};

/// A UDP packet with `len` bytes of payload, the first one being `mark`.
fn udp(from: Ipv4Addr, to: Ipv4Addr, mark: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len];
    payload[0] = mark;
    let mut packet = support::udp((from, 4000), (to, 53), &payload);
    // The builder forbids fragmenting.
    packet[6] &= !0x40;
    set_ipv4_checksum(&mut packet);
    packet
}

fn addresses(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    (address(12), address(16))
}

fn ports(packet: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([packet[20], packet[21]]), u16::from_be_bytes([packet[22], packet[23]]))
}

/// Sends one packet and says whether it arrived unchanged within a second.
fn passes(simulator: &mut Simulator, from: u8, to: u8, len: usize) -> bool {
    let packet = udp(Mesh::host(from, 5), Mesh::host(to, 5), 1, len);
    simulator.take_deliveries();
    simulator.send(usize::from(from), &packet);
    simulator.run_for(Duration::from_secs(1));
    let wanted = |node, bytes: &[u8]| node == usize::from(to) && bytes == packet;
    simulator.take_deliveries().iter().any(|d| wanted(d.node, &d.packet))
}

fn settled(mesh: Mesh) -> Simulator {
    let mut simulator = Simulator::new(mesh.configs(), LinkModel::default(), 3);
    simulator.run_for(Duration::from_secs(5));
    simulator
}

#[test]
fn a_killed_node_is_back_within_two_seconds_of_its_start() {
    let mut simulator = settled(Mesh::default());
    for down in [1, 30, 400] {
        simulator.kill(1);
        simulator.run_for(Duration::from_secs(down));
        assert!(passes(&mut simulator, 0, 2, 100), "others carry on");
        simulator.start(1);
        simulator.run_for(Duration::from_secs(1));
        assert!(passes(&mut simulator, 0, 1, 100), "after {down} s towards it");
        assert!(passes(&mut simulator, 1, 0, 100), "after {down} s from it");
    }
}

#[test]
fn the_other_uplink_takes_over_when_one_dies() {
    let mut simulator = settled(Mesh { sites: 2, uplinks: 2, ..Mesh::default() });
    let before = direct_link(&simulator);
    for remote in 0..2 {
        let [a, b] = [Mesh::underlay(0, before.0), Mesh::underlay(1, remote)];
        simulator.network.set_both(a, b, |link| link.up = false);
    }
    simulator.run_for(Duration::from_secs(3));
    assert!(passes(&mut simulator, 0, 1, 100));
    assert!(passes(&mut simulator, 1, 0, 100));
    assert_ne!(direct_link(&simulator).0, before.0);
}

fn direct_link(simulator: &Simulator) -> (u8, u8) {
    let node = simulator.node(0).unwrap();
    let peer = node.peers(simulator.now()).first().unwrap().index;
    match node.path(peer, Metric::Latency) {
        Some(Path::Direct(link)) => (link.local.0, link.remote.0),
        other => panic!("{other:?}"),
    }
}

/// The sizes that a 1500-byte host behind a gateway may send (the TUN's MTU is 1392) cross
/// underlays down to the smallest one, whole.
#[test]
fn every_packet_of_the_tun_crosses_every_underlay() {
    for underlay in [1500, 1400, 1300, 1280] {
        let payload = underlay - 28;
        let link = LinkModel { max_payload: payload, ..LinkModel::default() };
        let mesh = Mesh::default();
        let mut simulator = Simulator::new(mesh.configs(), link, 5);
        simulator.run_for(Duration::from_secs(12));
        // Without DF every size passes, in fragments where need be.
        for len in [1, 1000, 1100, 1200, 1364] {
            let packet = udp(Mesh::host(0, 5), Mesh::host(1, 5), 1, len);
            simulator.take_deliveries();
            simulator.send(0, &packet);
            simulator.run_for(Duration::from_secs(1));
            let bytes: usize = simulator
                .take_deliveries()
                .iter()
                .filter(|d| d.node == 1)
                .map(|d| d.packet.len() - 20)
                .sum();
            assert_eq!(bytes, len + 8, "{len} bytes over an underlay of {underlay}");
        }
        // With DF what is too big is answered, never lost silently.
        let mut packet = udp(Mesh::host(0, 5), Mesh::host(1, 5), 1, 1364);
        packet[6] |= 0x40;
        set_ipv4_checksum(&mut packet);
        simulator.send(0, &packet);
        simulator.run_for(Duration::from_secs(1));
        let deliveries = simulator.take_deliveries();
        let whole = deliveries.iter().any(|d| d.node == 1 && d.packet == packet);
        let told = deliveries.iter().find(|d| d.node == 0 && d.packet[20..22] == [3, 4]);
        assert_ne!(whole, told.is_some(), "underlay {underlay}");
        if let Some(told) = told {
            let mtu = u16::from_be_bytes([told.packet[26], told.packet[27]]);
            let fits = usize::from(mtu) - 28;
            assert!(mtu >= 1280, "{mtu}");
            assert!(passes(&mut simulator, 0, 1, fits), "{mtu} was promised on {underlay}");
        }
    }
}

fn set_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum: u32 =
        packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn a_host_reaches_the_internet_through_the_other_sites_exit() {
    let mut simulator = settled(Mesh { sites: 2, exits: true, ..Mesh::default() });
    let (host, server) = (Mesh::host(0, 9), Ipv4Addr::new(203, 0, 113, 80));
    simulator.take_deliveries();
    simulator.send(0, &udp(host, server, 1, 40));
    simulator.run_for(Duration::from_secs(1));
    let out = simulator.take_deliveries();
    assert_eq!(out.len(), 1);
    let (outside, destination) = addresses(&out[0].packet);
    assert_eq!((out[0].node, destination), (1, server));
    assert_eq!(outside, Ipv4Addr::new(100, 64, 2, 1));
    let (port, _) = ports(&out[0].packet);
    assert!((40_000..60_000).contains(&port));

    // The answer finds its way back, a stranger's packet to a free port does not.
    let mut answer = udp(server, outside, 2, 40);
    let fields = [53u16.to_be_bytes(), port.to_be_bytes()].concat();
    answer[20..24].copy_from_slice(&fields);
    answer[26..28].fill(0);
    simulator.send(1, &answer);
    let mut stray = answer.clone();
    stray[22..24].copy_from_slice(&(port ^ 1).to_be_bytes());
    simulator.send(1, &stray);
    simulator.run_for(Duration::from_secs(1));
    let back = simulator.take_deliveries();
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].node, addresses(&back[0].packet)), (0, (server, host)));
    assert_eq!(ports(&back[0].packet), (53, 4000));
}

#[test]
fn an_exit_refuses_private_destinations_and_its_own_router() {
    let mut simulator = settled(Mesh { sites: 2, exits: true, ..Mesh::default() });
    let host = Mesh::host(0, 9);
    for forbidden in ["192.168.1.1", "169.254.169.254", "127.0.0.1", "224.0.0.1", "100.64.9.9"] {
        simulator.take_deliveries();
        simulator.send(0, &udp(host, forbidden.parse().unwrap(), 1, 40));
        simulator.run_for(Duration::from_secs(1));
        let reached = simulator.take_deliveries().iter().any(|d| d.node == 1);
        assert!(!reached, "{forbidden}");
    }
}
