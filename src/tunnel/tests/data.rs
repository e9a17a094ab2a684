use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;
use crate::wire::relay::HOP_LIMIT;

/// Both a data and a relay datagram from `a` to `b`.
fn samples(pair: &mut Pair) -> (Vec<u8>, Vec<u8>) {
    let data = seal(&mut pair.a, pair.now, PATH, b"some inner packet");
    let inner = seal(&mut pair.a, pair.now, PathId(0x8001), b"another inner packet");
    (data, relayed(pair, &inner))
}

fn repr() -> RelayRepr {
    let (src, dst) = (NodeId(1), NodeId(2));
    RelayRepr { src, dst, hop_limit: HOP_LIMIT, class: 1, flow_hash: 9 }
}

fn relayed(pair: &mut Pair, inner: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; RELAY_OVERHEAD], inner].concat();
    pair.a.seal_relay(pair.now, P, PATH, &repr(), &mut datagram).unwrap();
    datagram
}

/// A peer chooses its counters; their sums must not be a panic.
#[test]
fn the_highest_counters_are_added_up() {
    let mut pair = Pair::connected();
    let keys = pair.a.peers[0].current.as_mut().unwrap();
    *keys.data.sent.next_of(PATH).unwrap() = u64::MAX - 1;
    *keys.relay.sent.next_of(PATH).unwrap() = u64::MAX - 1;
    let data = seal(&mut pair.a, pair.now, PATH, b"far ahead");
    let relay = relayed(&mut pair, &data);
    assert!(open(&mut pair.b, pair.now, &data).is_ok());
    assert!(pair.b.open_relay(pair.now, &relay).is_ok());
    assert_eq!(pair.b.receive_stats(P, PATH).received, 3);
    // And when the keys are given up.
    pair.connect();
    pair.now += Duration::from_secs(200);
    pair.b.handle_timeout(pair.now);
    assert_eq!(pair.b.receive_stats(P, PATH).received, 4);
}

#[test]
fn keys_that_rest_cost_little_and_work_again_at_once() {
    let mut pair = Pair::connected();
    pair.connect();
    samples(&mut pair);
    let (_, relay) = samples(&mut pair);
    pair.b.open_relay(pair.now, &relay).unwrap();
    let ready = |node: &Tunnels| node.peers[0].current.as_ref().unwrap().ready();
    assert!(ready(&pair.a) >= 2 && ready(&pair.b) >= 1);
    for _ in 0..2 {
        pair.now += Duration::from_secs(11);
        let inner = seal(&mut pair.a, pair.now, PATH, b"in time");
        open(&mut pair.b, pair.now, &inner).unwrap();
        pair.a.handle_timeout(pair.now);
        pair.b.handle_timeout(pair.now);
    }
    assert_eq!((ready(&pair.a), ready(&pair.b)), (1, 1), "what is used stays ready");
    pair.now += Duration::from_secs(11);
    pair.a.handle_timeout(pair.now);
    pair.b.handle_timeout(pair.now);
    assert_eq!((ready(&pair.a), ready(&pair.b)), (0, 0));
    let (data, relay) = samples(&mut pair);
    assert!(open(&mut pair.b, pair.now, &data).is_ok());
    assert!(pair.b.open_relay(pair.now, &relay).is_ok());
}

/// Whatever was done to it, `datagram` must change nothing at `b`.
fn must_not_matter(pair: &mut Pair, datagram: &[u8], what: &str) {
    let before = digest(&pair.b);
    let now = pair.now;
    assert!(open(&mut pair.b, now, datagram).is_err(), "{what}");
    assert!(pair.b.open_relay(now, datagram).is_err(), "{what}");
    assert_eq!(digest(&pair.b), before, "{what}");
}

#[test]
fn replayed_changed_and_truncated_datagrams_change_nothing() {
    let mut pair = Pair::connected();
    let (data, relay) = samples(&mut pair);
    for at in 0..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 1;
        must_not_matter(&mut pair, &changed, &format!("data byte {at}"));
        must_not_matter(&mut pair, &data[..at], &format!("data of {at} bytes"));
    }
    let ciphertext = RELAY_OVERHEAD + 16..relay.len() - 16;
    for at in 0..relay.len() {
        let mut changed = relay.clone();
        changed[at] ^= 1;
        // The relay's tag does not cover the inner ciphertext: the inner tag does.
        if !ciphertext.contains(&at) {
            must_not_matter(&mut pair, &changed, &format!("relay byte {at}"));
        }
        must_not_matter(&mut pair, &relay[..at], &format!("relay of {at} bytes"));
    }
    assert!(open(&mut pair.b, pair.now, &data).is_ok());
    let opened = pair.b.open_relay(pair.now, &relay).unwrap();
    assert!(open(&mut pair.b, pair.now, &relay[opened.inner]).is_ok());
    must_not_matter(&mut pair, &data, "replayed data");
    must_not_matter(&mut pair, &relay, "replayed relay");
}

#[test]
fn a_changed_inner_ciphertext_passes_the_relay_but_not_the_destination() {
    let mut pair = Pair::connected();
    let (_, mut relay) = samples(&mut pair);
    relay[RELAY_OVERHEAD + 20] ^= 1;
    let opened = pair.b.open_relay(pair.now, &relay).unwrap();
    let before = digest(&pair.b);
    assert_eq!(open(&mut pair.b, pair.now, &relay[opened.inner]), Err(DropReason::Forged));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn spliced_datagrams_change_nothing() {
    let mut pair = Pair::connected();
    let (first, second) = (samples(&mut pair), samples(&mut pair));
    let data_header = [&first.0[..16], &second.0[16..]].concat();
    must_not_matter(&mut pair, &data_header, "another data header");
    let relay_header = [&first.1[..16], &second.1[16..]].concat();
    must_not_matter(&mut pair, &relay_header, "another relay header");
    let inner = [&first.1[..RELAY_OVERHEAD], &second.1[RELAY_OVERHEAD..]].concat();
    must_not_matter(&mut pair, &inner, "another inner datagram");
    let longer = [&first.1[..], &[0]].concat();
    must_not_matter(&mut pair, &longer, "a longer inner datagram");
    let as_data = {
        let mut datagram = second.1[..RELAY_OVERHEAD].to_vec();
        datagram[0] = 4;
        datagram
    };
    must_not_matter(&mut pair, &as_data, "a relay header as data");
    let reflected = seal(&mut pair.b, pair.now, PATH, b"from b");
    must_not_matter(&mut pair, &reflected, "reflected");
}

#[test]
fn handshake_messages_travel_whole_over_a_relay() {
    let mut pair = Pair::connected();
    let inner = initiate(&mut pair.a, pair.now);
    let relay = relayed(&mut pair, &inner);
    for at in 0..relay.len() {
        let mut changed = relay.clone();
        changed[at] ^= 1;
        must_not_matter(&mut pair, &changed, &format!("byte {at}"));
    }
    let opened = pair.b.open_relay(pair.now, &relay).unwrap();
    assert_eq!((opened.hop, opened.hop_path, opened.repr), (P, PATH, repr()));
    assert_eq!(relay[opened.inner], inner);
}

#[test]
fn a_relay_replaces_the_header_in_place_and_the_inner_datagram_arrives() {
    let ids = identities(3);
    let now = Instant::from_micros(9);
    let node = |own: usize, first: usize, second: usize, seed| {
        let config = config(&ids[own], &[&ids[first], &ids[second]]);
        Tunnels::new(now, config, Rng::new([seed; 32]))
    };
    // For each node the first peer is the next one in the ring.
    let (mut a, mut r, mut b) = (node(0, 2, 1, 1), node(1, 0, 2, 2), node(2, 1, 0, 3));
    let (a_to_r, r_to_b, a_to_b) = (PeerIndex(1), PeerIndex(1), PeerIndex(0));
    handshake(&mut a, a_to_r, &mut r, now);
    handshake(&mut r, r_to_b, &mut b, now);
    handshake(&mut a, a_to_b, &mut b, now);
    let repr = RelayRepr { src: a.own_id(), dst: b.own_id(), ..repr() };
    let mut datagram = [&[0; RELAY_OVERHEAD][..], &room(b"payload")].concat();
    let mut sealer = a.sealer(now, a_to_b, PathId(0x8001)).unwrap();
    sealer.seal(Flags::NONE, &mut datagram[RELAY_OVERHEAD..]).unwrap();
    a.seal_relay(now, a_to_r, PATH, &repr, &mut datagram).unwrap();

    let at_relay = r.open_relay(now, &datagram).unwrap();
    assert_eq!(r.peer_id(at_relay.hop), Some(repr.src));
    let target = r.peer_by_id(at_relay.repr.dst).unwrap();
    let last_hop = RelayRepr { hop_limit: HOP_LIMIT - 1, ..at_relay.repr };
    r.seal_relay(now, target, PATH, &last_hop, &mut datagram).unwrap();

    let at_b = b.open_relay(now, &datagram).unwrap();
    assert_eq!((b.peer_id(at_b.hop), at_b.repr), (Some(r.own_id()), last_hop));
    let opened = b.open(now, &mut datagram[at_b.inner.clone()]).unwrap();
    assert_eq!(b.peer_id(opened.peer), Some(at_b.repr.src));
    assert_eq!(datagram[at_b.inner][opened.plaintext], *b"payload");
}

fn handshake(a: &mut Tunnels, peer: PeerIndex, b: &mut Tunnels, now: Instant) {
    let (mut message, mut reply) = (Vec::new(), Vec::new());
    a.initiate(now, wall(now), peer, &mut message).unwrap();
    b.handle_handshake(now, wall(now), DIRECT, &message, &mut reply).unwrap();
    a.handle_handshake(now, wall(now), DIRECT, &reply, &mut message).unwrap();
    let mut confirm = room(b"");
    a.sealer(now, peer, PATH).unwrap().seal(Flags::NONE, &mut confirm).unwrap();
    b.open(now, &mut confirm).unwrap();
}

#[test]
fn too_many_paths_are_refused_after_authentication() {
    let mut pair = Pair::connected();
    for path in 1..=256 {
        let datagram = seal(&mut pair.a, pair.now, PathId(path), b"");
        assert!(open(&mut pair.b, pair.now, &datagram).is_ok());
    }
    assert_eq!(pair.a.sealer(pair.now, P, PathId(999)).err(), Some(DropReason::TooManyPaths));
    let keys = pair.a.peers[0].current.as_mut().unwrap();
    keys.data.sent = keys::Counters::default();
    let one_more = seal(&mut pair.a, pair.now, PathId(999), b"");
    let before = digest(&pair.b);
    assert_eq!(open(&mut pair.b, pair.now, &one_more), Err(DropReason::TooManyPaths));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn no_key_and_nonce_ever_seal_twice() {
    let mut pair = Pair::connected();
    let mut seen = BTreeSet::new();
    let mut rng = Rng::new([5; 32]);
    // Type and receiver index stand for the key; path and counter are the nonce.
    let mut is_new = |datagram: &[u8]| seen.insert((datagram[0], datagram[2..16].to_vec()));
    for step in 0..3_000u64 {
        if step % 500 == 499 {
            pair.now += Duration::from_secs(100);
            pair.connect();
        }
        let path = PathId(rng.below(5) as u16);
        let data = seal(&mut pair.a, pair.now, path, b"x");
        assert!(is_new(&data), "step {step}");
        if rng.chance(0.5) {
            let mut relay = [&[0; RELAY_OVERHEAD][..], &data].concat();
            pair.a.seal_relay(pair.now, P, path, &repr(), &mut relay).unwrap();
            assert!(is_new(&relay), "step {step}");
        }
    }
}

#[test]
fn a_datagram_that_is_too_short_is_not_sealed_and_uses_no_counter() {
    let mut pair = Pair::connected();
    let sent = pair.a.sent(P, PATH);
    let mut short = [0; DATA_OVERHEAD - 1];
    let mut sealer = pair.a.sealer(pair.now, P, PATH).unwrap();
    assert_eq!(sealer.seal(Flags::NONE, &mut short), Err(DropReason::Truncated));
    let mut short = [0; RELAY_OVERHEAD + DATA_OVERHEAD - 1];
    let result = pair.a.seal_relay(pair.now, P, PATH, &repr(), &mut short);
    assert_eq!(result, Err(DropReason::Truncated));
    let mut nested = [5; RELAY_OVERHEAD + 100];
    let result = pair.a.seal_relay(pair.now, P, PATH, &repr(), &mut nested);
    assert_eq!(result, Err(DropReason::Malformed));
    assert_eq!(pair.a.sent(P, PATH), sent);
    let next = seal(&mut pair.a, pair.now, PATH, b"");
    assert_eq!(next[15], 1, "the second counter of this path");
}

#[test]
fn loss_shows_in_the_counts_of_a_path() {
    let mut pair = Pair::connected();
    let base = pair.b.receive_stats(P, PATH);
    for i in 0..100 {
        let data = seal(&mut pair.a, pair.now, PATH, b"d");
        let relay = relayed(&mut pair, &data);
        if i % 10 != 3 {
            open(&mut pair.b, pair.now, &data).unwrap();
            pair.b.open_relay(pair.now, &relay).unwrap();
        }
    }
    let stats = pair.b.receive_stats(P, PATH);
    assert_eq!(stats.expected - base.expected, 200);
    assert_eq!(stats.received - base.received, 180);
    assert_eq!(pair.a.sent(P, PATH), stats.expected);
    assert_eq!(pair.b.receive_stats(P, PathId(9)), ReceiveStats::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_datagrams_never_matter(
        kind in 1u8..6,
        known_index in any::<bool>(),
        mut bytes in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut pair = Pair::connected();
        bytes[0] = kind;
        if known_index && bytes.len() > 8 {
            let index = pair.b.peers[0].current.as_ref().unwrap().local_index;
            bytes[1] = 0;
            bytes[4..8].copy_from_slice(&index.to_be_bytes());
        }
        let before = digest(&pair.b);
        prop_assert!(pair.b.open(pair.now, &mut bytes.clone()).is_err());
        prop_assert!(pair.b.open_relay(pair.now, &bytes).is_err());
        prop_assert!(take(&mut pair.b, pair.now, &bytes).is_err());
        prop_assert_eq!(digest(&pair.b), before);
    }
}
