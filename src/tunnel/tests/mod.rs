//! Two or three nodes with virtual time, and what they must and must not do.

mod data;
mod handshake;
mod rekey;
mod soak;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::WallClock;
use crate::wire::{DATA_OVERHEAD, RELAY_OVERHEAD};

const P: PeerIndex = PeerIndex(0);
const PATH: PathId = PathId(0x01);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

const DIRECT: Source = Source::Direct(SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(192, 0, 2, 1),
    4710,
)));

fn identities(count: u8) -> Vec<Identity> {
    let mut identities: Vec<_> =
        (0..count).map(|i| Identity::generate(&mut Rng::new([i + 1; 32]))).collect();
    identities.sort_by_key(Identity::public);
    identities
}

fn config(own: &Identity, peers: &[&Identity]) -> TunnelConfig {
    TunnelConfig {
        identity: own.clone(),
        preshared_key: None,
        suites: Suites::default(),
        peers: peers.iter().map(|peer| peer.public()).collect(),
        load_threshold: 1_000,
    }
}

/// Two nodes; `a` has the lower key. For each the other is peer 0.
struct Pair {
    now: Instant,
    a: Tunnels,
    b: Tunnels,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    fn with(
        edit_a: impl FnOnce(&mut TunnelConfig),
        edit_b: impl FnOnce(&mut TunnelConfig),
    ) -> Self {
        let ids = identities(2);
        let now = Instant::from_micros(1_000_000);
        let mut for_a = config(&ids[0], &[&ids[1]]);
        let mut for_b = config(&ids[1], &[&ids[0]]);
        edit_a(&mut for_a);
        edit_b(&mut for_b);
        Self {
            now,
            a: Tunnels::new(now, for_a, Rng::new([11; 32])),
            b: Tunnels::new(now, for_b, Rng::new([12; 32])),
        }
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair
    }

    /// A handshake by `a`, confirmed.
    fn connect(&mut self) {
        let init = initiate(&mut self.a, self.now);
        let response = answer(&mut self.b, self.now, &init).expect("response");
        let outcome = take(&mut self.a, self.now, &response);
        assert_eq!(outcome.map(|o| o.kind), Ok(HandshakeKind::Established));
        let mut confirm = seal(&mut self.a, self.now, PATH, b"confirm");
        self.b.open(self.now, &mut confirm).expect("confirmation");
        drain(&mut self.a);
        drain(&mut self.b);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.a.handle_timeout(self.now);
        self.b.handle_timeout(self.now);
    }
}

fn wall(now: Instant) -> WallClock {
    WallClock(1_700_000_000_000_000_000 + now.as_micros() * 1_000)
}

fn initiate(node: &mut Tunnels, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    node.initiate(now, wall(now), P, &mut out).expect("initiation");
    out
}

fn take(node: &mut Tunnels, now: Instant, message: &[u8]) -> Result<HandshakeOutcome, DropReason> {
    node.handle_handshake(now, wall(now), DIRECT, message, &mut Vec::new())
}

fn answer(node: &mut Tunnels, now: Instant, message: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut reply = Vec::new();
    node.handle_handshake(now, wall(now), DIRECT, message, &mut reply).map(|_| reply)
}

fn room(plaintext: &[u8]) -> Vec<u8> {
    [&[0; 16], plaintext, &[0; 16]].concat()
}

fn seal(node: &mut Tunnels, now: Instant, path: PathId, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = room(plaintext);
    let mut sealer = node.sealer(now, P, path).expect("a sealer");
    sealer.seal(Flags::NONE, &mut datagram).expect("sealed");
    datagram
}

fn open(node: &mut Tunnels, now: Instant, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut copy = datagram.to_vec();
    node.open(now, &mut copy).map(|opened| copy[opened.plaintext].to_vec())
}

fn drain(node: &mut Tunnels) -> Vec<TunnelEvent> {
    std::iter::from_fn(|| node.poll_event()).collect()
}

/// Everything that a datagram could have changed.
fn digest(node: &Tunnels) -> String {
    let mut text =
        format!("{:?} {:?} {}\n", node.poll_timeout(), node.indices, node.last_timestamp);
    for peer in &node.peers {
        for keys in peer.all_keys() {
            for channel in [&keys.data, &keys.relay] {
                write!(text, "{:?} {:?} ", channel.sent, channel.windows).unwrap();
            }
            writeln!(text, "{} {} {}", keys.local_index, keys.remote_index, keys.sealed).unwrap();
        }
        let places = [&peer.next, &peer.current, &peer.previous[0], &peer.previous[1]];
        let places = places.map(|place| place.as_ref().map(|keys| keys.local_index));
        let initiation = peer.initiation.as_ref().map(|ours| ours.index);
        let answered = peer.answered.as_ref().map(|answered| answered.mac1);
        writeln!(text, "{places:?} {initiation:?} {answered:?}").unwrap();
        let times = (peer.retry_at, peer.unanswered_since, peer.last_received);
        let rest = (peer.cookie, peer.last_timestamp, peer.attempt, peer.asked);
        writeln!(text, "{times:?} {rest:?}").unwrap();
    }
    text
}
