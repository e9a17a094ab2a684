//! Where no path is known to be usable, packets still try what may only seem dead.

mod support;

use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::sim::{LinkModel, Mesh, Simulator};
use rongate::telemetry::DropReason;

const SECOND: Duration = Duration::from_secs(1);

/// Two sites and nobody who could relay.
fn pair() -> Simulator {
    let link = LinkModel { delay: Duration::from_millis(20), ..LinkModel::default() };
    let mut simulator = Simulator::new(Mesh { sites: 2, ..Mesh::default() }.configs(), link, 5);
    simulator.run_for(SECOND * 10);
    simulator
}

/// Packets from site 0 for so long, `rate` a second; how many arrived, and how many were sent.
fn send(simulator: &mut Simulator, span: Duration, rate: u32) -> (usize, usize) {
    let packet = support::udp((Mesh::host(0, 5), 4_000), (Mesh::host(1, 5), 4_001), &[0; 200]);
    let count = (span.as_secs() as u32 * rate) as usize;
    simulator.take_deliveries();
    for _ in 0..count {
        simulator.send(0, &packet);
        simulator.run_for(SECOND / rate);
    }
    let arrived = simulator.take_deliveries();
    (arrived.iter().filter(|arrival| arrival.node == 1).count(), count)
}

#[test]
fn what_is_sent_arrives_while_only_the_way_back_is_dead() {
    let mut simulator = pair();
    let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
    simulator.network.set(b, a, |link| link.up = false);
    let (arrived, sent) = send(&mut simulator, SECOND * 4, 50);
    let node = simulator.node(0).unwrap();
    assert_eq!(node.path(PeerIndex(0), Metric::Latency), None, "it is taken for dead");
    assert!(arrived + 2 >= sent, "{arrived} of {sent}");
}

#[test]
fn it_is_tried_for_a_while_and_with_a_bounded_rate() {
    let mut simulator = pair();
    let [a, b] = [0, 1].map(|site| Mesh::underlay(site, 0));
    simulator.network.set_both(a, b, |link| link.up = false);
    send(&mut simulator, SECOND * 2, 50);
    let no_path =
        |simulator: &Simulator| simulator.node(0).unwrap().counters().dropped(DropReason::NoPath);
    assert_eq!(no_path(&simulator), 0);
    // Packets of 228 bytes: a megabit is 548 of them.
    let before = no_path(&simulator);
    let (_, sent) = send(&mut simulator, SECOND * 2, 2_000);
    let refused = no_path(&simulator) - before;
    assert!((2_000..3_200).contains(&refused), "{refused} of {sent}");
    simulator.run_for(SECOND * 5);
    let before = no_path(&simulator);
    let (_, sent) = send(&mut simulator, SECOND, 50);
    assert_eq!(no_path(&simulator) - before, sent as u64, "hosts are told");
}
