//! Reference models: naive, obviously right, and compared with the real thing after every step of
//! a random sequence. Here: the link-state database, the choice of paths over time
//! (`models/routing.rs`), a policy put in force while the overlay runs (`models/reload.rs`). Further
//! ones stand beside their subjects: the timer wheel (`src/wheel.rs`), the replay window
//! (`src/tunnel/window.rs`), the flow table, the first choice of a path, the coalescer and segmenter,
//! the NAT (`src/nat/tests/model.rs`).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rongate::id::{NodeId, PeerIndex};
use rongate::metric::{LinkReport, Liveness, Loss};
use rongate::routing::{Advertisement, LinkStateDatabase};
use rongate::time::Instant;

#[path = "models/reload.rs"]
mod reload;
#[path = "models/routing.rs"]
mod routing;

const ME: NodeId = NodeId(99);
const PEERS: [NodeId; 3] = [NodeId(30), NodeId(10), NodeId(20)];
const EXPIRY: Duration = Duration::from_secs(60);

/// One origin as the model knows it: everything is kept, nothing is packed.
#[derive(Clone, Debug, Default)]
struct Origin {
    /// Incarnation and number of the newest part.
    newest: (u64, u32),
    /// The parts of that number that came, and how it was cut.
    parts: BTreeSet<u8>,
    cut: (u8, bool),
    /// The newest number of this incarnation of which all parts came.
    complete: u32,
    heard: Option<Instant>,
    links: BTreeMap<NodeId, LinkReport>,
    spare: u32,
    /// What was named of a new incarnation, until all of it is there.
    named: Option<Vec<NodeId>>,
}

#[derive(Clone, Debug)]
enum Step {
    Part { origin: usize, epoch: u64, seq: u32, part: u8, parts: u8, delta: bool, spare: u32 },
    Wait(u64),
}

fn report(number: u32) -> LinkReport {
    let states = [Liveness::Up, Liveness::Suspect, Liveness::Down];
    LinkReport {
        latency_us: number * 100,
        jitter_us: 0,
        loss: Loss([0, 1, 700, 0, 65_535, 300, 0, 20_000, 699][number as usize]),
        state: states[number as usize % 3],
    }
}

fn step() -> impl Strategy<Value = Step> {
    let part = (0..3usize, 0..3u64, 0..5u32, 0..4u8, 0..4u8, any::<bool>(), 0..4u32).prop_map(
        |(origin, epoch, seq, part, parts, delta, spare)| Step::Part {
            origin,
            epoch,
            seq,
            part,
            parts,
            delta,
            spare,
        },
    );
    prop_oneof![8 => part, 1 => (0..70u64).prop_map(Step::Wait)]
}

impl Origin {
    /// Takes a part in. True when it counts.
    fn take(
        &mut self,
        now: Instant,
        part: &Advertisement,
        entries: &[(NodeId, LinkReport)],
        own: NodeId,
    ) -> bool {
        if part.parts == 0 || part.part >= part.parts {
            return false;
        }
        let newest = (part.epoch, part.seq);
        if self.heard.is_some() && newest < self.newest {
            return false;
        }
        // A change of something that we do not have.
        if part.delta && (part.epoch != self.newest.0 || self.complete == 0) {
            return false;
        }
        if newest.0 != self.newest.0 {
            self.complete = 0;
            self.named = Some(Vec::new());
        }
        if newest != self.newest || self.cut != (part.parts, part.delta) {
            self.parts.clear();
        }
        (self.newest, self.cut) = (newest, (part.parts, part.delta));
        self.parts.insert(part.part);
        if self.parts.len() == usize::from(part.parts) {
            self.complete = part.seq;
        }
        (self.heard, self.spare) = (Some(now), part.spare_relay_kbit);
        for (node, report) in entries {
            let known = PEERS.contains(node) || *node == ME;
            if known && *node != own {
                self.links.insert(*node, *report);
                self.named.iter_mut().for_each(|named| named.push(*node));
            }
        }
        if let Some(named) = self.named.take_if(|_| self.complete > 0) {
            let gone = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
            for (node, report) in &mut self.links {
                if !named.contains(node) && report.state != Liveness::Down {
                    *report = gone;
                }
            }
        }
        true
    }

    /// An origin that was silent for too long is as good as unknown; its incarnation is kept, so
    /// that nothing builds on what is gone.
    fn expire(&mut self, now: Instant) {
        if self.heard.is_some_and(|at| now - at > EXPIRY) {
            *self = Self { newest: (self.newest.0, 0), cut: self.cut, ..Self::default() };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_link_state_database_is_what_each_origin_said_last(
        steps in prop::collection::vec((step(), prop::collection::vec((0..6u32, 0..9u32), 0..4)), 1..60),
    ) {
        let mut database = LinkStateDatabase::new(ME, &PEERS, EXPIRY);
        let mut model: [Origin; 3] = Default::default();
        let mut now = Instant::from_micros(1_000_000);
        for (step, entries) in steps {
            match step {
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    database.expire(now);
                    model.iter_mut().for_each(|origin| origin.expire(now));
                }
                Step::Part { origin, epoch, seq, part, parts, delta, spare } => {
                    // Peers, ourselves, the origin itself, and strangers.
                    let nodes = [PEERS[0], PEERS[1], PEERS[2], ME, NodeId(7), PEERS[origin]];
                    let entries: Vec<_> = entries
                        .iter()
                        .map(|&(node, number)| (nodes[node as usize], report(number)))
                        .collect();
                    let part =
                        Advertisement { epoch, seq, part, parts, delta, spare_relay_kbit: spare };
                    let applied =
                        database.apply(now, PeerIndex(origin as u16), &part, entries.clone(), |_, _| ());
                    let before = model[origin].links.clone();
                    let counts = model[origin].take(now, &part, &entries, PEERS[origin]);
                    prop_assert!(counts || !applied.changed && !applied.urgent);
                    if model[origin].links != before {
                        prop_assert!(applied.changed);
                    }
                    if counts {
                        prop_assert_eq!(applied.known, (epoch, model[origin].complete));
                    }
                }
            }
            agree(&database, &model)?;
        }
    }
}

fn agree(database: &LinkStateDatabase, model: &[Origin; 3]) -> Result<(), TestCaseError> {
    for (index, origin) in model.iter().enumerate() {
        let peer = PeerIndex(index as u16);
        let known = origin.heard.map(|at| (origin.newest.0, origin.complete, at));
        prop_assert_eq!(database.known(peer), known);
        prop_assert_eq!(database.spare_relay_kbit(peer), origin.spare);
        prop_assert_eq!(database.report_on_us(peer), origin.links.get(&ME).copied());
        for (other, id) in PEERS.iter().enumerate() {
            let to = PeerIndex(other as u16);
            let said = origin.links.get(id).copied();
            prop_assert_eq!(database.report(peer, to), said);
            // Time and loss are the worse of both ends', the state is the origin's word.
            // An end that does not hear the other has nothing to say of time; its loss counts.
            let back = model[other].links.get(&PEERS[index]);
            let lossier = said.map(|said| said.loss.max(back.map_or(Loss::NONE, |b| b.loss)));
            let back = back.filter(|back| back.state != Liveness::Down);
            let link = database.link(peer, to);
            prop_assert_eq!(link.map(|link| link.state), said.map(|said| said.state));
            let slower = said.map(|said| said.latency_us.max(back.map_or(0, |b| b.latency_us)));
            prop_assert_eq!(link.map(|link| link.latency_us), slower);
            prop_assert_eq!(link.map(|link| link.loss), lossier);
        }
    }
    Ok(())
}
