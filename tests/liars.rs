//! A path in use is judged end to end, whatever is advertised: a member whose links are good, and who
//! says so, does badly by what it relays.
//!
//! ```text
//!             .--- 1 ms --- site 2, the liar --- 1 ms ---.
//!   site 0 ----------------- 40 ms ------------------- site 1
//!             '--- 15 ms -- site 3, honest -- 15 ms ---'
//! ```

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rongate::id::PeerIndex;
use rongate::metric::Metric;
use rongate::path::Path;
use rongate::sim::{LinkModel, Mesh, RelayFault, Simulator};

const SECOND: Duration = Duration::from_secs(1);
/// Of two sites that send to each other: the other one, and the liar.
const FAR: PeerIndex = PeerIndex(0);
const LIAR: Path = Path::Via(PeerIndex(1));

fn overlay(seed: u64) -> Simulator {
    let configs = Mesh { sites: 4, ..Mesh::default() }.configs();
    let mut simulator = Simulator::new(configs, LinkModel::default(), seed);
    for (a, b, ms) in [(0, 1, 40), (0, 2, 1), (1, 2, 1), (0, 3, 15), (1, 3, 15), (2, 3, 15)] {
        let [a, b] = [a, b].map(|site| Mesh::underlay(site, 0));
        let delay = Duration::from_millis(ms);
        simulator.network.set_both(a, b, |link| link.delay = delay);
    }
    simulator.run_for(SECOND * 10);
    simulator
}

/// The paths of both sites to each other.
fn paths(simulator: &Simulator) -> [Option<Path>; 2] {
    [0, 1].map(|site| simulator.node(site).unwrap().path(FAR, Metric::Latency))
}

/// 100 packets a second each way for so long. How many were sent, and of those to site 1 how many
/// arrived; and for how long at most one of the two sites used the liar since the beginning.
fn traffic(simulator: &mut Simulator, span: Duration) -> (usize, usize, Duration) {
    let (begin, mut left) = (simulator.now(), Duration::ZERO);
    let [there, back] = [(0, 1), (1, 0)].map(|(from, to)| {
        support::udp((Mesh::host(from, 5), 4_000), (Mesh::host(to, 5), 4_000), &[0; 36])
    });
    let (mut sent, mut arrived) = (0, 0);
    while simulator.now() - begin < span {
        simulator.send(0, &there);
        simulator.send(1, &back);
        simulator.run_for(SECOND / 100);
        sent += 1;
        arrived += simulator.take_deliveries().iter().filter(|d| d.node == 1).count();
        if paths(simulator).contains(&Some(LIAR)) {
            left = simulator.now() - begin;
        }
    }
    (sent, arrived, left)
}

/// The liar's relaying goes bad: it is left within that time, and not returned to within 20 seconds.
fn left_within(fault: RelayFault, within: Duration, seed: u64) -> Simulator {
    let mut simulator = overlay(seed);
    traffic(&mut simulator, SECOND * 20);
    assert_eq!(paths(&simulator), [Some(LIAR); 2], "seed {seed}: by far the shortest way");
    simulator.set_relay_fault(2, fault);
    let (_, _, left) = traffic(&mut simulator, SECOND * 20);
    assert!(left <= within, "seed {seed}: in use until {left:?}");
    // What it tells is as good as ever: only who measures the whole way knows better.
    let node = simulator.node(0).unwrap();
    let why = node.explain(simulator.now(), PeerIndex(1), Metric::Latency).unwrap();
    let link = why.candidates.iter().find(|c| matches!(c.path, Path::Direct(_))).unwrap();
    assert!(link.report.loss.fraction() < 0.01 && link.report.latency_us < 5_000, "{link:?}");
    simulator
}

#[test]
fn who_drops_what_it_relays_is_left_and_stays_left() {
    for seed in 0..5 {
        let fault = RelayFault { loss: 0.4, ..RelayFault::default() };
        let mut simulator = left_within(fault, SECOND * 2, seed);
        let (sent, arrived, used) = traffic(&mut simulator, SECOND * 600);
        assert_eq!(used, Duration::ZERO, "seed {seed}: used again until {used:?}");
        assert!(arrived + sent / 1_000 >= sent, "seed {seed}: {arrived} of {sent}");
    }
}

/// What is not used is not measured for long, and then counts as its ends say; but not what would be
/// taken for that.
#[test]
fn who_delays_what_it_relays_is_left_for_as_long_as_it_does() {
    for seed in 5..10 {
        let fault = RelayFault { delay: Duration::from_millis(150), ..RelayFault::default() };
        let mut simulator = left_within(fault, SECOND * 3, seed);
        let (sent, arrived, used) = traffic(&mut simulator, SECOND * 600);
        assert_eq!(used, Duration::ZERO, "seed {seed}: used again until {used:?}");
        // What is on its way at the end arrives later.
        assert!(arrived + 25 >= sent, "seed {seed}: {arrived} of {sent}");
        // Once it does well, it is found out without any packet that tries.
        simulator.set_relay_fault(2, RelayFault::default());
        traffic(&mut simulator, SECOND * 240);
        assert_eq!(paths(&simulator), [Some(LIAR); 2], "seed {seed}");
    }
}
