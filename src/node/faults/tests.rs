use super::*;
use crate::batch::Target;
use crate::id::UplinkIndex;
use crate::node::tests::Net;

#[test]
fn a_fault_is_told_once_it_lasts_and_so_is_its_end() {
    let at = |ms: u64| Instant::from_micros(ms * 1_000);
    let fault = |kind| Some(LinkFault { kind, extent: Extent::Link });
    let mut told = Told::default();
    assert!(!told.observe(at(0), None));
    assert!(!told.observe(at(100), fault(FaultKind::Both)));
    assert!(!told.observe(at(900), fault(FaultKind::There)), "it was taken for another");
    assert!(!told.observe(at(1_800), fault(FaultKind::There)));
    assert!(told.observe(at(1_900), fault(FaultKind::There)));
    assert!(!told.observe(at(2_900), fault(FaultKind::There)), "it is known");
    assert!(told.observe(at(3_000), None));
    assert!(!told.observe(at(3_100), fault(FaultKind::Large(1_300))));
    assert!(!told.observe(at(3_200), None), "it did not last");
}

#[test]
fn a_peer_is_told_more_and_more_rarely_and_believes_it_until_the_next_time() {
    let at = |s: u64| Instant::from_micros(s * 1_000_000);
    for lost in 1..6 {
        let (mut told, mut deaf) = (Told::default(), Told::default());
        assert!(!told.owes_heard(at(0)));
        told.set_in_vain(true);
        let mut times = Vec::new();
        for second in 0..70 {
            if told.owes_heard(at(second)) {
                told.note_heard_told(at(second));
                if times.len() != lost {
                    deaf.on_heard(at(second));
                }
                times.push(second);
            }
            assert!(deaf.is_heard_there(at(second)), "{second}, {lost} was lost");
        }
        assert_eq!(times, [0, 4, 12, 28, 44, 60]);
        assert!(!deaf.is_heard_there(at(60 + 52)), "nothing more comes");
    }
    let mut told = Told::default();
    told.set_in_vain(true);
    told.note_heard_told(at(60));
    assert!(!told.owes_heard(at(60)));
    told.set_in_vain(false);
    told.set_in_vain(true);
    assert!(told.owes_heard(at(60)), "it begins anew");
}

/// Links on which a peer was told that it is heard, and how often in all.
fn told(node: &Node, peer: usize) -> (usize, u32) {
    let times = node.peers[peer].links().filter_map(|(_, state)| state.told.heard_told);
    times.fold((0, 0), |(links, all), (_, times)| (links + 1, all + u32::from(times)))
}

fn hear_in_vain(node: &mut Node, peer: usize) {
    for state in &mut node.peers.aside(peer).paths {
        state.told.set_in_vain(state.path.relay().is_none());
    }
}

#[test]
fn a_datagram_tells_of_eight_links() {
    let mut net = Net::joined(2, 4);
    hear_in_vain(&mut net.nodes[0], 0);
    for (links, datagrams) in [(8, 1), (16, 1), (16, 0)] {
        let mut out = Output::new(64);
        net.nodes[0].tell_heard(net.now, &mut out);
        assert_eq!(told(&net.nodes[0], 0), (links, links as u32));
        assert_eq!(out.tx.transmits().iter().map(|sent| sent.segments).sum::<usize>(), datagrams);
        net.deliver(0, &mut out);
        let heard = net.nodes[1].peers[0].links();
        let heard = heard.filter(|(_, state)| state.told.is_heard_there(net.now)).count();
        assert_eq!(heard, links, "what was told arrives");
    }
}

#[test]
fn what_could_not_be_sent_was_not_told() {
    let mut net = Net::joined(2, 4);
    let (now, node) = (net.now, &mut net.nodes[0]);
    hear_in_vain(node, 0);
    let mut full = Output::new(1);
    let elsewhere = ([192, 0, 2, 99], 9).into();
    full.tx.push(Target { uplink: UplinkIndex(0), destination: elsewhere, tos: 0 }, 9);
    node.tell_heard(now, &mut full);
    assert_eq!(told(node, 0), (0, 0));
    node.tell_heard(now, &mut Output::new(64));
    assert_eq!(told(node, 0), (8, 8));
}

#[test]
fn peers_are_told_in_turn() {
    let mut net = Net::joined(4, 1);
    let node = &mut net.nodes[0];
    (0..3).for_each(|peer| hear_in_vain(node, peer));
    for round in 1..6 {
        // By then all are to be told again.
        let now = net.now + Duration::from_secs(17) * round;
        let mut out = Output::new(64);
        node.tell_heard(now, &mut out);
        assert_eq!(out.tx.transmits().len(), HEARD_DATAGRAMS);
        let times: Vec<_> = (0..3).map(|peer| told(node, peer).1).collect();
        assert_eq!(times.iter().sum::<u32>(), 2 * round);
        let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
        assert!(spread <= 1, "{times:?} after {round}");
    }
}

#[test]
fn links_beyond_the_limit_are_refused_and_told_of_once() {
    let mut net = Net::joined(2, 1);
    let (now, node) = (net.now, &mut net.nodes[0]);
    while node.poll_event().is_some() {}
    let mut taken = 0;
    for (local, remote) in (0..16).flat_map(|local| (0..16).map(move |remote| (local, remote))) {
        let link = LinkId { local: UplinkIndex(local), remote: UplinkIndex(remote) };
        taken += usize::from(node.ensure_link(now, PeerIndex(0), link));
    }
    assert_eq!((taken, node.peers[0].links().count()), (64, 64));
    let events: Vec<_> = std::iter::from_fn(|| node.poll_event()).collect();
    assert_eq!(events, [Event::LinksRefused { peer: node.peers[0].name.clone() }]);
}
