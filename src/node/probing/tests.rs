use super::*;
use crate::metric::LinkReport;
use crate::node::tests::Net;

const FAR: PeerIndex = PeerIndex(0);

const fn up(ms: u32) -> LinkReport {
    let loss = crate::metric::Loss::NONE;
    LinkReport { latency_us: ms * 1_000, jitter_us: 0, loss, state: Liveness::Up }
}

/// A path through a relay is measured, and does worse than the direct one.
fn measure(node: &mut Node, now: Instant, relay: u16) {
    node.measure_path(now, FAR, PeerIndex(relay));
    node.router.update_relayed(now, FAR, PeerIndex(relay), Some(up(200)));
}

/// The relays through which paths stay measured, after those that nothing wants were forgotten.
fn measured(node: &mut Node, now: Instant) -> Vec<u16> {
    node.forget_unwanted(now, FAR);
    let relays = node.peers[FAR.usize()].paths.iter().filter_map(|state| state.path.relay());
    relays.map(|relay| relay.0).collect()
}

/// Whatever their ends say, and whenever they were wanted last.
#[test]
fn few_paths_that_nothing_wants_stay_measured_however_good_their_ends_are() {
    let mut net = Net::joined(9, 1);
    let (node, now) = (&mut net.nodes[0], net.now);
    let Path::Direct(link) = node.peers[FAR.usize()].paths[0].path else { panic!("no link") };
    node.router.update_direct(now, FAR, link, Some(up(100)));
    for relay in 1..7 {
        measure(node, now + Duration::from_secs(relay.into()), relay);
    }
    let at = |secs: u64| now + Duration::from_secs(secs);
    assert_eq!(measured(node, at(30)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(measured(node, at(34)), [1, 2, 3, 4, 5, 6], "four are kept");
    for secs in 35..200 {
        let kept = measured(node, at(secs));
        assert!(kept.len() <= BELIED_MAX + usize::from(secs < 36), "{secs}: {kept:?}");
    }
    // One that is used takes no place from the others.
    let kept = measured(node, at(200));
    assert_eq!(kept.len(), BELIED_MAX, "{kept:?}");
    let used = Path::Via(PeerIndex(kept[0]));
    node.peers[FAR.usize()].state_mut(used).unwrap().used_at = Some(at(220));
    measure(node, at(180), 7);
    assert_eq!(measured(node, at(240)).len(), BELIED_MAX + 1);
    for secs in 281..400 {
        assert_eq!(measured(node, at(secs)).len(), BELIED_MAX, "{secs}");
    }
}
