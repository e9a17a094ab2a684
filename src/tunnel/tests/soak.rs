//! Two nodes on a bad network for hours of virtual time, then on a good one.

use std::collections::BTreeMap;

use super::*;

struct World {
    pair: Pair,
    rng: Rng,
    /// What arrives when; the flag says that it goes to `a`.
    in_flight: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    sent: u64,
    /// Loss of each direction: towards `a`, towards `b`.
    loss: [f64; 2],
}

impl World {
    fn new(seed: u8) -> Self {
        Self {
            pair: Pair::new(),
            rng: Rng::new([seed; 32]),
            in_flight: BTreeMap::new(),
            sent: 0,
            loss: [0.0; 2],
        }
    }

    fn send(&mut self, to_a: bool, datagram: &[u8]) {
        let copies = if self.rng.chance(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.chance(self.loss[usize::from(!to_a)]) {
                let delay = ms(20 + u64::from(self.rng.below(80)));
                self.sent += 1;
                self.in_flight
                    .insert((self.pair.now + delay, self.sent), (to_a, datagram.to_vec()));
            }
        }
    }

    fn step(&mut self, by: Duration) {
        self.pair.advance(by);
        let later = self.in_flight.split_off(&(self.pair.now, 0));
        for (_, (to_a, datagram)) in std::mem::replace(&mut self.in_flight, later) {
            self.deliver(to_a, &datagram);
        }
        for of_a in [true, false] {
            self.act(of_a);
        }
    }

    fn deliver(&mut self, to_a: bool, datagram: &[u8]) {
        let now = self.pair.now;
        let node = if to_a { &mut self.pair.a } else { &mut self.pair.b };
        if datagram[0] == 4 {
            let _ = open(node, now, datagram);
        } else {
            let mut reply = Vec::new();
            let _ = node.handle_handshake(now, wall(now), DIRECT, datagram, &mut reply);
            if !reply.is_empty() {
                self.send(!to_a, &reply);
            }
        }
    }

    fn act(&mut self, of_a: bool) {
        let now = self.pair.now;
        let node = if of_a { &mut self.pair.a } else { &mut self.pair.b };
        let mut out = Vec::new();
        for event in drain(node) {
            match event {
                TunnelEvent::WantInitiate(_) => out.push(initiate(node, now)),
                TunnelEvent::Established(_) => out.push(seal(node, now, PATH, b"confirm")),
                TunnelEvent::Expired(_) => {}
            }
        }
        if node.is_up(now, P) {
            out.push(seal(node, now, PATH, b"probe"));
        }
        assert!(node.indices.held() <= 5, "{} indices", node.indices.held());
        for datagram in out {
            self.send(!of_a, &datagram);
        }
    }

    /// Whether a datagram sealed by each is opened by the other.
    fn works(&mut self) -> bool {
        let now = self.pair.now;
        if !self.pair.a.is_up(now, P) || !self.pair.b.is_up(now, P) {
            return false;
        }
        let there = seal(&mut self.pair.a, now, PATH, b"");
        let back = seal(&mut self.pair.b, now, PATH, b"");
        open(&mut self.pair.b, now, &there).is_ok() && open(&mut self.pair.a, now, &back).is_ok()
    }
}

#[test]
fn after_any_trouble_the_tunnel_works_within_the_longest_retry() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        for _ in 0..12 {
            let bad = [0.0, 0.3, 0.9, 1.0];
            world.loss = [bad[world.rng.below(4) as usize], bad[world.rng.below(4) as usize]];
            let length = 1 + u64::from(world.rng.below(400));
            for _ in 0..length * 5 {
                world.step(ms(200));
            }
            world.loss = [0.0; 2];
            let healed = world.pair.now;
            while !world.works() {
                world.step(ms(50));
                let waited = world.pair.now - healed;
                let longest = peer::RETRY_MAX + ms(500);
                assert!(waited < longest, "seed {seed}: not up {waited:?} after {length} s");
            }
        }
    }
}
