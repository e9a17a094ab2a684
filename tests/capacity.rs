//! What paths carry is found out by volleys, and flows are spread in proportion to it.
//!
//! ```text
//!   site 0 ---- 20 ms, 10 Mbit/s ----- site 1      uplink 0 to uplink 0
//!          ---- 25 ms, 100 Mbit/s ----             uplink 1 to uplink 1
//! ```

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rongate::flow::{Class, Classes};
use rongate::id::{PeerIndex, UplinkIndex};
use rongate::metric::{Liveness, Metric};
use rongate::node::Event;
use rongate::path::{LinkId, Path};
use rongate::sim::{LinkModel, Mesh, Simulator};

const FAR: PeerIndex = PeerIndex(0);
const SECOND: Duration = Duration::from_secs(1);
/// Of the first packet on; each port is a flow.
const PORT: u16 = 9_000;

const fn link(uplink: u8) -> Path {
    Path::Direct(LinkId { local: UplinkIndex(uplink), remote: UplinkIndex(uplink) })
}

const NARROW: Path = link(0);
const WIDE: Path = link(1);

/// Two sites whose uplinks do not reach each other crosswise.
fn overlay(class: Class, seed: u64) -> Simulator {
    let mut configs = Mesh { sites: 2, uplinks: 2, ..Mesh::default() }.configs();
    for config in &mut configs {
        config.classes = Classes::new(vec![class.clone()]);
    }
    let mut simulator = Simulator::new(configs, LinkModel::default(), seed);
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let ends = [Mesh::underlay(0, a), Mesh::underlay(1, b)];
        let (ms, mbit) = if a == 0 { (20, 10) } else { (25, 100) };
        simulator.network.set_both(ends[0], ends[1], |link| {
            *link = LinkModel {
                delay: Duration::from_millis(ms),
                rate_bps: Some(mbit * 1_000_000),
                up: a == b,
                ..LinkModel::default()
            };
        });
    }
    simulator.run_for(SECOND * 10);
    simulator
}

/// So many packets of 1,250 bytes in all for each millisecond, in 64 flows.
fn traffic(simulator: &mut Simulator, span: Duration, every_ms: u64) {
    let end = simulator.now() + span;
    let mut number = 0;
    while simulator.now() < end {
        let to = (Mesh::host(1, 5), PORT + number % 64);
        simulator.send(0, &support::udp((Mesh::host(0, 5), 700), to, &[0; 1_222]));
        number = number.wrapping_add(1);
        simulator.run_for(Duration::from_millis(every_ms));
        simulator.take_deliveries();
    }
}

/// What site 0 knows of the path, in kbit/s.
fn capacity(simulator: &Simulator, path: Path) -> Option<u32> {
    let node = simulator.node(0).unwrap();
    let why = node.explain(simulator.now(), FAR, Metric::Latency).unwrap();
    why.candidates.iter().find(|c| c.path == path).unwrap().capacity_kbit
}

fn assert_near(kbit: Option<u32>, mbit: u32, context: u64) {
    let kbit = kbit.unwrap();
    assert!(kbit.abs_diff(mbit * 1_000) <= mbit * 250, "{context}: {kbit} of {mbit},000");
}

#[test]
fn paths_that_flows_are_spread_over_are_measured_and_get_their_part() {
    for seed in 0..5 {
        let mut simulator = overlay(Class { multipath: true, ..Class::default() }, seed);
        assert_eq!(capacity(&simulator, NARROW), None, "nobody asks");
        // 1 Mbit/s, on both paths.
        traffic(&mut simulator, SECOND * 90, 10);
        assert_near(capacity(&simulator, NARROW), 10, seed);
        assert_near(capacity(&simulator, WIDE), 100, seed);
        // New flows go by it.
        for port in 20_000..20_200 {
            let to = (Mesh::host(1, 5), port);
            simulator.send(0, &support::udp((Mesh::host(0, 5), 700), to, &[0; 100]));
        }
        simulator.run_for(SECOND);
        let node = simulator.node(0).unwrap();
        let new = node
            .flows_from(rongate::flow::FlowId(0))
            .filter(|(_, flow)| flow.key.destination_port >= 20_000);
        let paths: Vec<_> = new.map(|(_, flow)| flow.path).collect();
        let wide = paths.iter().filter(|path| **path == Some(WIDE)).count();
        assert_eq!(paths.len(), 200);
        // Ten elevenths are 182; by latency and loss alone it would be less than half.
        assert!((165..=197).contains(&wide), "seed {seed}: {wide} of 200");
    }
}

#[test]
fn beside_a_load_of_a_third_the_order_is_right() {
    for seed in 0..5 {
        let mut simulator = overlay(Class { multipath: true, ..Class::default() }, seed);
        traffic(&mut simulator, SECOND * 3, 10);
        // Another 3 Mbit/s on the narrow path, from elsewhere: both ends share it with our flows.
        traffic(&mut simulator, SECOND * 90, 2);
        assert_near(capacity(&simulator, NARROW), 10, seed);
        assert_near(capacity(&simulator, WIDE), 100, seed);
    }
}

#[test]
fn a_class_for_throughput_leaves_a_narrow_path_for_a_wide_longer_one() {
    let class = Class { metric: Metric::Throughput, ..Class::default() };
    let mut simulator = overlay(class, 1);
    // Far shorter, and narrow.
    let ends = [Mesh::underlay(0, 0), Mesh::underlay(1, 0)];
    simulator.network.set_both(ends[0], ends[1], |link| {
        (link.delay, link.rate_bps) = (Duration::from_millis(2), Some(1_000_000));
    });
    let path = |simulator: &Simulator| simulator.node(0).unwrap().path(FAR, Metric::Throughput);
    simulator.run_for(SECOND * 20);
    assert_eq!(path(&simulator), Some(NARROW), "nothing is measured without traffic");
    traffic(&mut simulator, SECOND * 90, 50);
    assert_eq!(path(&simulator), Some(WIDE), "{:?}", capacity(&simulator, NARROW));
}

/// A queue of four datagrams, or three, loses nothing of a thin flow but when a volley fills it.
#[test]
fn volleys_that_a_short_queue_loses_make_no_path_bad() {
    for (queue_ms, seed) in [(36, 1), (24, 2)] {
        let class = Class { multipath: true, ..Class::default() };
        let mut simulator = overlay(class, seed);
        for uplink in 0..2 {
            let ends = [Mesh::underlay(0, uplink), Mesh::underlay(1, uplink)];
            simulator.network.set_both(ends[0], ends[1], |link| {
                // 12 ms for 1,500 bytes.
                link.rate_bps = Some(1_000_000);
                link.queue = Duration::from_millis(queue_ms);
            });
        }
        simulator.take_events();
        for _ in 0..150 {
            traffic(&mut simulator, SECOND, 100);
            let node = simulator.node(0).unwrap();
            for link in &node.peers(simulator.now())[0].links {
                if [NARROW, WIDE].contains(&Path::Direct(link.link)) {
                    assert_eq!(link.report.state, Liveness::Up, "{queue_ms} ms");
                    assert_eq!(link.report.loss.0, 0, "{queue_ms} ms");
                }
            }
        }
        // Throughput goes by what was found, path by path.
        let is_right =
            |event: &Event| matches!(event, Event::PathChanged { metric: Metric::Throughput, .. });
        let mut events = simulator.take_events();
        // Where the queue is shorter than a volley, the far end may miss an answer to a probe of its own.
        events.retain(|(_, node, event)| (*node == 0 || queue_ms == 36) && !is_right(event));
        assert!(events.is_empty(), "{queue_ms} ms: {events:?}");
        if queue_ms == 36 {
            assert_near(capacity(&simulator, NARROW), 1, seed);
        }
    }
}

/// Nothing is sent that nobody needs, and what is sent keeps to the budget.
#[test]
fn volleys_keep_to_their_share_of_the_budget() {
    let sent = |class: Class| {
        let mut simulator = overlay(class, 3);
        traffic(&mut simulator, SECOND * 600, 1_000);
        let counters = simulator.node(0).unwrap().counters();
        counters.underlay_tx.bytes * 8 / 600
    };
    let plain = sent(Class::default());
    let spread = sent(Class { multipath: true, ..Class::default() });
    // The share, and what of the traffic goes twice over a path that is used now and then.
    assert!(spread <= plain + 3_300 + 700, "{plain} and {spread} bit/s");
    assert!(spread > plain, "{plain} and {spread} bit/s: none was sent");
}
