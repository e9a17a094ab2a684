//! What is wrong with a link is told apart in what is shown: one direction, one uplink, one size.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use rongate::node::{Event, Extent, FaultKind, LinkFault};
use rongate::sim::{LinkModel, Mesh, Simulator};

const SECOND: Duration = Duration::from_secs(1);

fn site(site: u8) -> IpAddr {
    Mesh::underlay(site, 0)
}

/// Four sites that have known each other for a while.
fn mesh(uplinks: u8) -> Simulator {
    let link = LinkModel { delay: Duration::from_millis(15), ..LinkModel::default() };
    let mut simulator = Simulator::new(Mesh { uplinks, ..Mesh::default() }.configs(), link, 3);
    simulator.run_for(SECOND * 20);
    simulator.take_events();
    simulator
}

/// What site `from` says of its link number `link` to site `to`.
fn fault(simulator: &Simulator, from: usize, to: usize, link: usize) -> Option<LinkFault> {
    let node = simulator.node(from).unwrap();
    let index = if to > from { to - 1 } else { to };
    node.peers(simulator.now())[index].links[link].fault
}

const fn of_link(kind: FaultKind) -> Option<LinkFault> {
    Some(LinkFault { kind, extent: Extent::Link })
}

/// The events of a site since the last call that are about links.
fn told(simulator: &mut Simulator, site: usize) -> Vec<String> {
    let of_links = |(_, node, event): &(_, usize, Event)| {
        *node == site && matches!(event, Event::LinkChanged { .. })
    };
    let events = simulator.take_events().into_iter().filter(of_links);
    events.map(|(_, _, event)| event.to_string()).collect()
}

#[test]
fn each_end_knows_in_which_direction_nothing_passes() {
    let mut simulator = mesh(1);
    assert_eq!(fault(&simulator, 0, 1, 0), None);
    simulator.network.set(site(0), site(1), |link| link.up = false);
    simulator.run_for(SECOND * 10);
    assert_eq!(fault(&simulator, 0, 1, 0), of_link(FaultKind::There));
    assert_eq!(fault(&simulator, 1, 0, 0), of_link(FaultKind::Back));
    assert_eq!(fault(&simulator, 0, 2, 0), None, "others are well");
    let events = told(&mut simulator, 0);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("what we send does not arrive"), "{events:?}");
    // The other direction, too.
    simulator.network.set(site(1), site(0), |link| link.up = false);
    simulator.run_for(SECOND * 70);
    for (a, b) in [(0, 1), (1, 0)] {
        assert_eq!(fault(&simulator, a, b, 0), of_link(FaultKind::Both), "{a}");
    }
    simulator.network.set_both(site(0), site(1), |link| link.up = true);
    simulator.run_for(SECOND * 15);
    assert_eq!(fault(&simulator, 0, 1, 0), None);
    let events = told(&mut simulator, 0);
    assert!(events.iter().any(|event| event.contains("nothing passes")), "{events:?}");
    assert!(events.last().unwrap().ends_with(": works"), "{events:?}");
}

#[test]
fn the_deaf_end_of_a_link_knows_the_direction_while_another_link_works() {
    let mut simulator = mesh(2);
    let first = |simulator: &Simulator| [fault(simulator, 0, 1, 0), fault(simulator, 1, 0, 0)];
    simulator.network.set(site(1), site(0), |link| link.up = false);
    simulator.run_for(SECOND * 10);
    assert_eq!(first(&simulator), [of_link(FaultKind::Back), of_link(FaultKind::There)]);
    for link in 1..4 {
        assert_eq!(fault(&simulator, 0, 1, link), None, "{link}");
        assert_eq!(fault(&simulator, 1, 0, link), None, "{link}");
    }
    let events = told(&mut simulator, 0);
    assert!(events.last().unwrap().contains("what it sends does not arrive"), "{events:?}");
    // It stays so.
    simulator.run_for(SECOND * 60);
    assert_eq!(first(&simulator), [of_link(FaultKind::Back), of_link(FaultKind::There)]);
    // Now neither hears the other.
    simulator.network.set(site(0), site(1), |link| link.up = false);
    simulator.run_for(SECOND * 70);
    assert_eq!(first(&simulator), [of_link(FaultKind::Both); 2]);
    simulator.network.set_both(site(0), site(1), |link| link.up = true);
    simulator.run_for(SECOND * 15);
    assert_eq!(first(&simulator), [None; 2]);
}

#[test]
fn what_a_peer_heard_is_not_believed_once_it_is_reached_no_more() {
    let mut simulator = mesh(1);
    simulator.network.set(site(1), site(0), |link| link.up = false);
    simulator.run_for(SECOND * 10);
    assert_eq!(fault(&simulator, 0, 1, 0), of_link(FaultKind::Back));
    for other in [2, 3] {
        simulator.network.set(site(1), site(other), |link| link.up = false);
    }
    simulator.run_for(SECOND * 70);
    assert_eq!(fault(&simulator, 0, 1, 0), of_link(FaultKind::Both));
}

#[test]
fn a_link_does_not_work_because_its_keys_are_gone() {
    let mut simulator = mesh(1);
    simulator.kill(1);
    simulator.run_for(SECOND * 200);
    assert_eq!(fault(&simulator, 0, 1, 0), of_link(FaultKind::Both));
    let events = simulator.take_events();
    let of_site = || events.iter().filter(|(_, node, _)| *node == 0).map(|(_, _, event)| event);
    assert!(of_site().any(|event| matches!(event, Event::TunnelLost { .. })), "{events:?}");
    let links: Vec<_> = of_site().filter(|e| matches!(e, Event::LinkChanged { .. })).collect();
    assert_eq!(links.len(), 1, "{links:?}");
    simulator.start(1);
    simulator.run_for(SECOND * 30);
    assert_eq!(fault(&simulator, 0, 1, 0), None);
    let events = told(&mut simulator, 0);
    assert!(events.last().unwrap().ends_with(": works"), "{events:?}");
}

#[test]
fn a_black_hole_for_large_packets_is_told_from_an_outage() {
    let mut simulator = mesh(1);
    simulator.network.set_both(site(0), site(1), |link| link.max_payload = 1_300 - 28);
    // Nobody looks for it before a packet is lost.
    let large = support::udp((Mesh::host(0, 5), 4_000), (Mesh::host(1, 5), 5_001), &[0; 1_352]);
    for _ in 0..1_000 {
        simulator.send(0, &large);
        simulator.run_for(SECOND / 100);
    }
    let fault = fault(&simulator, 0, 1, 0).unwrap();
    assert!(matches!(fault.kind, FaultKind::Large(1_290..=1_300)), "{fault}");
    let events = told(&mut simulator, 0);
    assert!(events.iter().any(|event| event.contains("packets over some 1300")), "{events:?}");
}

#[test]
fn an_uplink_that_fails_is_told_from_a_link() {
    let mut simulator = mesh(2);
    // All links of the first uplink of site 0, and one link between others.
    for (other, uplink) in [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)] {
        let far = Mesh::underlay(other, uplink);
        simulator.network.set_both(site(0), far, |link| link.up = false);
    }
    simulator.network.set_both(site(2), site(3), |link| link.up = false);
    simulator.run_for(SECOND * 15);
    for peer in 1..4 {
        let fault = fault(&simulator, 0, peer, 0).unwrap();
        assert_eq!((fault.kind, fault.extent), (FaultKind::Both, Extent::OurUplink), "{peer}");
    }
    assert_eq!(fault(&simulator, 0, 1, 2), None, "the other uplink is well");
    assert_eq!(fault(&simulator, 1, 0, 0).unwrap().extent, Extent::TheirUplink);
    assert_eq!(fault(&simulator, 2, 3, 0), of_link(FaultKind::Both));
    let events = told(&mut simulator, 0);
    assert!(events.iter().any(|event| event.ends_with("all of our uplink")), "{events:?}");
}
