use super::*;
use crate::wire::handshake::{INIT_LEN, mac2};

#[test]
fn a_handshake_gives_both_ends_keys_for_either_suite_with_and_without_secret() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for secret in [None, Some(PresharedKey::new([7; 32]))] {
            let edit = |config: &mut TunnelConfig| {
                config.suites = Suites::only(suite);
                config.preshared_key = secret.clone();
            };
            let mut pair = Pair::with(edit, edit);
            pair.connect();
            let now = pair.now;
            for plaintext in [&b""[..], b"x", &[9; 1400]] {
                let there = seal(&mut pair.a, now, PATH, plaintext);
                assert_eq!(open(&mut pair.b, now, &there).as_deref(), Ok(plaintext));
                let back = seal(&mut pair.b, now, PATH, plaintext);
                assert_eq!(open(&mut pair.a, now, &back).as_deref(), Ok(plaintext));
                assert_eq!(open(&mut pair.b, now, &back), Err(DropReason::UnknownReceiver));
            }
            assert_eq!(pair.a.status(now, P).state, TunnelState::Up);
            assert_eq!(pair.b.status(now, P).suite, Some(suite));
        }
    }
}

#[test]
fn the_responder_sends_nothing_before_the_new_keys_were_used() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    assert_eq!(pair.b.sealer(pair.now, P, PATH).err(), Some(DropReason::NoTunnel));
    assert_eq!(pair.b.status(pair.now, P).state, TunnelState::Connecting);
    take(&mut pair.a, pair.now, &response).unwrap();
    assert_eq!(drain(&mut pair.a), [TunnelEvent::Established(P)]);
    assert_eq!(drain(&mut pair.b), []);
    let first = seal(&mut pair.a, pair.now, PATH, b"");
    assert_eq!(open(&mut pair.b, pair.now, &first), Ok(vec![]));
    assert_eq!(drain(&mut pair.b), [TunnelEvent::Established(P)]);
    assert!(pair.b.sealer(pair.now, P, PATH).is_ok());
}

#[test]
fn a_wrong_or_missing_secret_fails() {
    let secret = |byte| {
        move |config: &mut TunnelConfig| {
            config.preshared_key = Some(PresharedKey::new([byte; 32]));
        }
    };
    let mut pair = Pair::with(secret(1), secret(2));
    let init = initiate(&mut pair.a, pair.now);
    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    let before = digest(&pair.a);
    assert_eq!(take(&mut pair.a, pair.now, &response), Err(DropReason::Forged));
    assert_eq!(digest(&pair.a), before);

    let mut pair = Pair::with(secret(1), |_| {});
    let init = initiate(&mut pair.a, pair.now);
    let before = digest(&pair.b);
    assert_eq!(take(&mut pair.b, pair.now, &init), Err(DropReason::HandshakeUnknownPeer));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn a_suite_that_is_not_allowed_is_named_as_such() {
    let mut pair = Pair::with(
        |config| config.suites = Suites::only(Suite::ChaCha20Poly1305),
        |config| config.suites = Suites::only(Suite::Aes256Gcm),
    );
    let init = initiate(&mut pair.a, pair.now);
    let before = digest(&pair.b);
    assert_eq!(take(&mut pair.b, pair.now, &init), Err(DropReason::HandshakeSuite));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn a_node_that_knows_both_suites_finds_the_one_that_its_peer_allows() {
    let mut pair =
        Pair::with(|_| {}, |config| config.suites = Suites::only(Suite::ChaCha20Poly1305));
    let mut refused = 0;
    for _ in 0..10 {
        pair.advance(Duration::from_secs(5));
        if drain(&mut pair.a).is_empty() {
            continue;
        }
        let init = initiate(&mut pair.a, pair.now);
        match answer(&mut pair.b, pair.now, &init) {
            Ok(response) => {
                take(&mut pair.a, pair.now, &response).unwrap();
                break;
            }
            Err(reason) => {
                assert_eq!(reason, DropReason::HandshakeSuite);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 2);
    assert_eq!(pair.a.status(pair.now, P).suite, Some(Suite::ChaCha20Poly1305));
}

#[test]
fn a_changed_suite_or_version_does_not_authenticate() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let before = digest(&pair.b);
    let mut changed = init.clone();
    changed[1] = Suite::ChaCha20Poly1305 as u8;
    pair.b.recipient.put_macs(&mut changed, None);
    assert_eq!(take(&mut pair.b, pair.now, &changed), Err(DropReason::HandshakeUnknownPeer));
    changed[3] = 2;
    assert_eq!(take(&mut pair.b, pair.now, &changed), Err(DropReason::HandshakeSuite));
    let mut index = init;
    index[7] ^= 1;
    pair.b.recipient.put_macs(&mut index, None);
    assert_eq!(take(&mut pair.b, pair.now, &index), Err(DropReason::HandshakeUnknownPeer));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn strangers_and_other_recipients_are_told_apart() {
    let ids = identities(4);
    let now = Instant::from_micros(5);
    let mut stranger = Tunnels::new(now, config(&ids[2], &[&ids[1]]), Rng::new([1; 32]));
    let mut node = Tunnels::new(now, config(&ids[1], &[&ids[0]]), Rng::new([2; 32]));
    let init = initiate(&mut stranger, now);
    assert_eq!(take(&mut node, now, &init), Err(DropReason::HandshakeUnknownPeer));
    let mut other = Tunnels::new(now, config(&ids[3], &[&ids[2]]), Rng::new([3; 32]));
    assert_eq!(take(&mut other, now, &init), Err(DropReason::HandshakeMac));
}

#[test]
fn every_changed_byte_of_a_handshake_message_is_noticed_and_changes_nothing() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let before = digest(&pair.b);
    for at in 0..INIT_LEN {
        let mut changed = init.clone();
        changed[at] ^= 0x10;
        let second_mac = at >= INIT_LEN - 16;
        if second_mac {
            continue;
        }
        assert!(take(&mut pair.b, pair.now, &changed).is_err(), "plain change at {at}");
        pair.b.recipient.put_macs(&mut changed, None);
        let repaired_mac = (INIT_LEN - 32..INIT_LEN).contains(&at);
        if !repaired_mac {
            assert!(take(&mut pair.b, pair.now, &changed).is_err(), "with new MAC at {at}");
        }
    }
    for len in 0..INIT_LEN {
        assert!(take(&mut pair.b, pair.now, &init[..len]).is_err());
    }
    assert_eq!(digest(&pair.b), before);

    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    let before = digest(&pair.a);
    for at in (0..4).chain(8..68) {
        let mut changed = response.clone();
        changed[at] ^= 0x10;
        assert!(take(&mut pair.a, pair.now, &changed).is_err(), "plain change at {at}");
        pair.a.recipient.put_macs(&mut changed, None);
        assert!(take(&mut pair.a, pair.now, &changed).is_err(), "with new MAC at {at}");
    }
    assert_eq!(digest(&pair.a), before);
    // The index in the header is a copy of the authenticated one: a change is of no consequence.
    let mut changed = response;
    changed[7] ^= 1;
    pair.a.recipient.put_macs(&mut changed, None);
    take(&mut pair.a, pair.now, &changed).unwrap();
    let first = seal(&mut pair.a, pair.now, PATH, b"hi");
    assert_eq!(open(&mut pair.b, pair.now, &first).as_deref(), Ok(&b"hi"[..]));
}

#[test]
fn a_copy_of_an_initiation_gets_the_same_response_for_a_while_and_changes_nothing() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    let before = digest(&pair.b);
    let mut reply = Vec::new();
    let outcome =
        pair.b.handle_handshake(pair.now, wall(pair.now), DIRECT, &init, &mut reply).unwrap();
    assert_eq!((outcome.kind, &reply), (HandshakeKind::Repeated, &response));
    pair.now += Duration::from_secs(3);
    assert_eq!(take(&mut pair.b, pair.now, &init), Err(DropReason::HandshakeReplay));
    assert_eq!(digest(&pair.b), before);
    take(&mut pair.a, pair.now, &response).unwrap();
    assert_eq!(take(&mut pair.a, pair.now, &response), Err(DropReason::HandshakeUnexpected));
}

#[test]
fn copies_of_an_initiation_are_answered_only_so_often() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let answered = (0..100).filter(|_| take(&mut pair.b, pair.now, &init).is_ok()).count();
    assert_eq!(answered, 1 + usize::from(peer::REPEATS_MAX));
}

#[test]
fn older_initiations_are_refused_after_newer_ones() {
    let mut pair = Pair::new();
    let old = initiate(&mut pair.a, pair.now);
    let new = initiate(&mut pair.a, pair.now + ms(1));
    take(&mut pair.b, pair.now, &new).unwrap();
    let before = digest(&pair.b);
    assert_eq!(take(&mut pair.b, pair.now, &old), Err(DropReason::HandshakeReplay));
    assert_eq!(digest(&pair.b), before);
}

#[test]
fn a_clock_that_went_back_locks_nobody_out_thanks_to_the_stored_timestamp() {
    let ids = identities(2);
    let mut pair = Pair::connected();
    let stored = pair.a.last_timestamp();
    let past = WallClock(1_000);
    let mut out = Vec::new();
    pair.a.initiate(pair.now, past, P, &mut out).unwrap();
    assert!(take(&mut pair.b, pair.now, &out).is_ok(), "within one incarnation");

    let restarted =
        |seed| Tunnels::new(pair.now, config(&ids[0], &[&ids[1]]), Rng::new([seed; 32]));
    let mut forgetful = restarted(21);
    forgetful.initiate(pair.now, past, P, &mut out).unwrap();
    assert_eq!(take(&mut pair.b, pair.now, &out), Err(DropReason::HandshakeReplay));
    let mut careful = restarted(22);
    careful.set_stored_timestamp(stored + 1);
    careful.initiate(pair.now, past, P, &mut out).unwrap();
    assert!(take(&mut pair.b, pair.now, &out).is_ok());
}

#[test]
fn under_load_an_initiator_proves_its_address_and_is_served() {
    let mut pair = Pair::with(|_| {}, |config| config.load_threshold = 2);
    let from = |port| Source::Direct(address(port));
    let mut reply = Vec::new();
    let mut init = Vec::new();
    for _ in 0..3 {
        init = initiate(&mut pair.a, pair.now);
        let _ = pair.b.handle_handshake(pair.now, wall(pair.now), from(1), &init, &mut reply);
    }
    assert_eq!(reply.len(), 64, "a cookie reply");
    let before = digest(&pair.b);
    let result = pair.b.handle_handshake(pair.now, wall(pair.now), from(1), &init, &mut reply);
    assert_eq!(result, Err(DropReason::HandshakeCookieRequired));
    assert_eq!(digest(&pair.b), before);

    let mut forged = reply.clone();
    forged[40] ^= 1;
    let unchanged = digest(&pair.a);
    assert_eq!(take(&mut pair.a, pair.now, &forged), Err(DropReason::HandshakeUnexpected));
    assert_eq!(digest(&pair.a), unchanged);
    drain(&mut pair.a);
    let outcome = take(&mut pair.a, pair.now, &reply);
    assert_eq!(outcome.map(|o| o.kind), Ok(HandshakeKind::Cookie));
    pair.a.handle_timeout(pair.now);
    assert_eq!(drain(&mut pair.a), [TunnelEvent::WantInitiate(P)], "at once");

    let init = initiate(&mut pair.a, pair.now);
    assert_ne!(mac2(&init), [0; 16]);
    let elsewhere = pair.b.handle_handshake(pair.now, wall(pair.now), from(2), &init, &mut reply);
    assert_eq!(elsewhere, Err(DropReason::HandshakeCookieRequired), "bound to the port");
    let outcome = pair.b.handle_handshake(pair.now, wall(pair.now), from(1), &init, &mut reply);
    assert_eq!(outcome.map(|o| o.kind), Ok(HandshakeKind::Responded));
    assert_eq!(take(&mut pair.a, pair.now, &reply).map(|o| o.kind), Ok(HandshakeKind::Established));
}

#[test]
fn a_cookie_that_does_not_help_makes_no_storm() {
    let mut pair = Pair::with(|_| {}, |config| config.load_threshold = 0);
    let mut initiations = 0;
    let mut port = 0;
    for _ in 0..1_000 {
        pair.advance(ms(10));
        for _ in drain(&mut pair.a) {
            initiations += 1;
            // A NAT that changes the port each time: no cookie ever fits.
            port += 1;
            let init = initiate(&mut pair.a, pair.now);
            let mut reply = Vec::new();
            let source = Source::Direct(address(port));
            let _ = pair.b.handle_handshake(pair.now, wall(pair.now), source, &init, &mut reply);
            let _ = take(&mut pair.a, pair.now, &reply);
        }
    }
    assert!((3..16).contains(&initiations), "{initiations} initiations in 10 s");
}

#[test]
fn a_relayed_initiation_needs_no_cookie_but_its_true_source() {
    let third = Identity::generate(&mut Rng::new([99; 32]));
    let mut pair = Pair::with(
        |_| {},
        |config| {
            config.load_threshold = 0;
            config.peers.push(third.public());
        },
    );
    let now = pair.now;
    let init = initiate(&mut pair.a, now);
    let relayed = |src| Source::Relayed { relay: PeerIndex(1), src };
    let before = digest(&pair.b);
    let mut reply = Vec::new();
    for (src, reason) in
        [(NodeId(5), DropReason::HandshakeUnknownPeer), (third.id(), DropReason::RelaySpoofed)]
    {
        let result = pair.b.handle_handshake(now, wall(now), relayed(src), &init, &mut reply);
        assert_eq!(result, Err(reason));
        assert!(reply.is_empty());
    }
    assert_eq!(digest(&pair.b), before);
    let honest = relayed(pair.a.own_id());
    let result = pair.b.handle_handshake(now, wall(now), honest, &init, &mut reply);
    assert_eq!(result.map(|o| o.kind), Ok(HandshakeKind::Responded));
    let answer = relayed(pair.b.own_id());
    let result = pair.a.handle_handshake(now, wall(now), answer, &reply, &mut vec![]);
    assert_eq!(result.map(|o| o.kind), Ok(HandshakeKind::Established));
}

#[test]
fn one_source_behind_a_relay_cannot_use_up_the_others_share() {
    let third = Identity::generate(&mut Rng::new([99; 32]));
    let mut pair = Pair::with(|_| {}, |config| config.peers.push(third.public()));
    let relayed = |src| Source::Relayed { relay: PeerIndex(1), src };
    let mut limited = 0;
    for _ in 0..50 {
        let init = initiate(&mut pair.a, pair.now);
        let source = relayed(third.id());
        let result = pair.b.handle_handshake(pair.now, wall(pair.now), source, &init, &mut vec![]);
        limited += u32::from(result == Err(DropReason::HandshakeRateLimited));
    }
    assert_eq!(limited, 40);
    let init = initiate(&mut pair.a, pair.now);
    let source = relayed(pair.a.own_id());
    let result = pair.b.handle_handshake(pair.now, wall(pair.now), source, &init, &mut vec![]);
    assert!(result.is_ok());
}

#[test]
fn of_simultaneous_initiations_the_lower_keys_stands() {
    let mut pair = Pair::new();
    let from_a = initiate(&mut pair.a, pair.now);
    let from_b = initiate(&mut pair.b, pair.now);
    assert_eq!(take(&mut pair.a, pair.now, &from_b), Err(DropReason::HandshakeSimultaneous));
    let response = answer(&mut pair.b, pair.now, &from_a).unwrap();
    take(&mut pair.a, pair.now, &response).unwrap();
    let before = digest(&pair.a);
    assert_eq!(take(&mut pair.a, pair.now, &from_b), Err(DropReason::HandshakeReplay));
    assert_eq!(digest(&pair.a), before, "the one that gave way is of no use to a recorder");
    let first = seal(&mut pair.a, pair.now, PATH, b"1");
    assert!(open(&mut pair.b, pair.now, &first).is_ok());
    drain(&mut pair.a);
    drain(&mut pair.b);
    for _ in 0..100 {
        pair.advance(ms(100));
        let there = seal(&mut pair.a, pair.now, PATH, b"2");
        assert!(open(&mut pair.b, pair.now, &there).is_ok());
        let back = seal(&mut pair.b, pair.now, PATH, b"3");
        assert!(open(&mut pair.a, pair.now, &back).is_ok());
    }
    assert_eq!((drain(&mut pair.a), drain(&mut pair.b)), (vec![], vec![]), "and no more");
}

#[test]
fn when_the_lower_keys_initiation_cannot_arrive_the_others_is_accepted() {
    let mut pair = Pair::new();
    let mut accepted_after = None;
    for step in 0..300 {
        pair.advance(ms(10));
        for _ in drain(&mut pair.a) {
            initiate(&mut pair.a, pair.now);
        }
        for event in drain(&mut pair.b) {
            if event != TunnelEvent::WantInitiate(P) {
                continue;
            }
            let init = initiate(&mut pair.b, pair.now);
            if let Ok(response) = answer(&mut pair.a, pair.now, &init) {
                take(&mut pair.b, pair.now, &response).unwrap();
                accepted_after.get_or_insert(step * 10);
            }
        }
    }
    assert!(accepted_after.is_some_and(|ms| ms < 1_500), "{accepted_after:?}");
}

#[test]
fn when_both_handshakes_complete_each_end_opens_what_the_other_seals() {
    let mut pair = Pair::new();
    let from_b = initiate(&mut pair.b, pair.now);
    pair.now += ms(600);
    let from_a = initiate(&mut pair.a, pair.now);
    pair.now += ms(600);
    let to_b = answer(&mut pair.a, pair.now, &from_b).unwrap();
    let to_a = answer(&mut pair.b, pair.now, &from_a).unwrap();
    take(&mut pair.a, pair.now, &to_a).unwrap();
    take(&mut pair.b, pair.now, &to_b).unwrap();
    for _ in 0..5 {
        let there = seal(&mut pair.a, pair.now, PATH, b"x");
        let back = seal(&mut pair.b, pair.now, PATH, b"y");
        let late = seal(&mut pair.b, pair.now, PATH, b"z");
        assert!(open(&mut pair.b, pair.now, &there).is_ok());
        assert!(open(&mut pair.a, pair.now, &back).is_ok());
        assert!(open(&mut pair.a, pair.now, &late).is_ok());
    }
}
