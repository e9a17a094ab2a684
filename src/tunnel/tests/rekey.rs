use super::*;

/// Carries messages out at once, both ways; counts the initiations.
fn run(pair: &mut Pair, until: Instant, step: Duration, mut traffic: bool) -> u32 {
    let mut initiations = 0;
    while pair.now < until {
        pair.advance(step);
        for from_a in [true, false] {
            let (from, to) =
                if from_a { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
            let events = drain(from);
            if events.contains(&TunnelEvent::WantInitiate(P)) {
                initiations += 1;
                let init = initiate(from, pair.now);
                if let Ok(response) = answer(to, pair.now, &init) {
                    take(from, pair.now, &response).unwrap();
                    traffic = true;
                }
            }
            if traffic && from.is_up(pair.now, P) {
                let datagram = seal(from, pair.now, PATH, b"traffic");
                assert!(open(to, pair.now, &datagram).is_ok(), "lost at {}", pair.now);
            }
        }
    }
    initiations
}

#[test]
fn keys_are_replaced_by_the_initiator_and_nothing_is_lost() {
    let mut pair = Pair::connected();
    let first = pair.a.peers[0].current.as_ref().unwrap().local_index;
    let start = pair.now;
    let initiations = run(&mut pair, start + Duration::from_secs(119), ms(100), true);
    assert_eq!(initiations, 0);
    let initiations = run(&mut pair, start + Duration::from_secs(1_200), ms(100), true);
    assert!((8..=10).contains(&initiations), "{initiations} in 20 minutes");
    assert_ne!(pair.a.peers[0].current.as_ref().unwrap().local_index, first);
    assert!(pair.a.indices.held() <= 3 && pair.b.indices.held() <= 3);
}

#[test]
fn what_is_in_flight_during_a_change_of_keys_is_opened() {
    let mut pair = Pair::connected();
    pair.now += Duration::from_secs(121);
    let old_there = seal(&mut pair.a, pair.now, PATH, b"1");
    let old_back = seal(&mut pair.b, pair.now, PATH, b"2");
    let init = initiate(&mut pair.a, pair.now);
    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    let still_old = seal(&mut pair.b, pair.now, PATH, b"3");
    take(&mut pair.a, pair.now, &response).unwrap();
    let new_there = seal(&mut pair.a, pair.now, PATH, b"4");
    assert!(open(&mut pair.b, pair.now, &new_there).is_ok());
    let new_back = seal(&mut pair.b, pair.now, PATH, b"5");
    assert!(open(&mut pair.a, pair.now, &new_back).is_ok());
    assert!(open(&mut pair.b, pair.now, &old_there).is_ok());
    assert!(open(&mut pair.a, pair.now, &old_back).is_ok());
    assert!(open(&mut pair.a, pair.now, &still_old).is_ok());
    for old in [&old_there, &new_there] {
        assert_eq!(open(&mut pair.b, pair.now, old), Err(DropReason::Replay));
    }
}

#[test]
fn a_relay_datagram_under_new_keys_confirms_them_too() {
    let mut pair = Pair::new();
    let init = initiate(&mut pair.a, pair.now);
    let response = answer(&mut pair.b, pair.now, &init).unwrap();
    take(&mut pair.a, pair.now, &response).unwrap();
    let mut datagram = [&[0; RELAY_OVERHEAD][..], &seal(&mut pair.a, pair.now, PATH, b"")].concat();
    let (src, dst) = (NodeId(1), NodeId(2));
    let repr = RelayRepr { src, dst, hop_limit: 2, class: 0, flow_hash: 0 };
    pair.a.seal_relay(pair.now, P, PATH, &repr, &mut datagram).unwrap();
    pair.b.open_relay(pair.now, &datagram).unwrap();
    assert!(pair.b.is_up(pair.now, P));
}

#[test]
fn old_keys_neither_seal_nor_open_and_are_given_up() {
    let mut pair = Pair::connected();
    let late = seal(&mut pair.a, pair.now, PATH, b"");
    pair.now += Duration::from_secs(180);
    assert_eq!(pair.a.sealer(pair.now, P, PATH).err(), Some(DropReason::KeyExpired));
    assert_eq!(open(&mut pair.b, pair.now, &late), Err(DropReason::KeyExpired));
    assert!(!pair.a.is_up(pair.now, P));
    pair.advance(ms(1));
    assert!(drain(&mut pair.a).contains(&TunnelEvent::Expired(P)));
    assert_eq!(pair.a.sealer(pair.now, P, PATH).err(), Some(DropReason::NoTunnel));
    assert_eq!(open(&mut pair.b, pair.now, &late), Err(DropReason::UnknownReceiver));
    assert_eq!((pair.a.indices.held(), pair.b.indices.held()), (0, 0));
}

#[test]
fn much_used_keys_are_replaced_and_then_refused() {
    let mut pair = Pair::connected();
    let start = pair.now;
    run(&mut pair, start + ms(100), ms(10), true);
    pair.a.peers[0].current.as_mut().unwrap().sealed = 1 << 26;
    assert!(pair.a.sealer(pair.now, P, PATH).is_ok());
    pair.advance(ms(1));
    assert_eq!(drain(&mut pair.a), [TunnelEvent::WantInitiate(P)]);
    let keys = pair.a.peers[0].current.as_mut().unwrap();
    keys.sealed = (1 << 28) - 1;
    let mut sealer = pair.a.sealer(pair.now, P, PATH).unwrap();
    assert!(sealer.seal(Flags::NONE, &mut room(b"")).is_ok());
    assert_eq!(sealer.seal(Flags::NONE, &mut room(b"")), Err(DropReason::KeyExpired));
    assert_eq!(pair.a.sealer(pair.now, P, PATH).err(), Some(DropReason::KeyExpired));
}

#[test]
fn unanswered_initiations_are_repeated_for_ever_at_growing_intervals() {
    let mut pair = Pair::new();
    let start = pair.now;
    let mut times = Vec::new();
    for _ in 0..60_000 {
        pair.advance(ms(10));
        for _ in drain(&mut pair.a) {
            times.push((pair.now - start).as_millis() as u64);
            initiate(&mut pair.a, pair.now);
        }
    }
    assert!(times[0] <= 10);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((180..=260).contains(&gaps[0]), "{gaps:?}");
    assert!((370..=510).contains(&gaps[1]), "{gaps:?}");
    let longest = peer::RETRY_MAX.as_millis() as u64;
    let steady = longest * 3 / 4 - 10..=longest + 10;
    assert!(gaps[10..].iter().all(|gap| steady.contains(gap)), "{gaps:?}");
    assert!(times.len() as u64 > 600_000 / longest);
    assert_eq!(pair.a.indices.held(), 1);
}

#[test]
fn an_initiation_that_the_node_cannot_send_is_asked_for_again_without_piling_up() {
    let mut pair = Pair::new();
    for _ in 0..1_000 {
        pair.advance(ms(100));
    }
    assert_eq!(drain(&mut pair.a), [TunnelEvent::WantInitiate(P)]);
    let mut asked = 0;
    for _ in 0..600 {
        pair.advance(ms(100));
        asked += drain(&mut pair.a).len();
    }
    let least = 60_000 / peer::RETRY_MAX.as_millis() as usize - 1;
    assert!((least..=least * 3 / 2).contains(&asked), "{asked} in a minute");
}

#[test]
fn a_restarted_peer_is_back_at_once() {
    let ids = identities(2);
    let mut pair = Pair::connected();
    pair.now += ms(500);
    pair.b = Tunnels::new(pair.now, config(&ids[1], &[&ids[0]]), Rng::new([33; 32]));
    pair.b.handle_timeout(pair.now);
    assert_eq!(drain(&mut pair.b), [TunnelEvent::WantInitiate(P)]);
    let init = initiate(&mut pair.b, pair.now);
    let response = answer(&mut pair.a, pair.now, &init).unwrap();
    take(&mut pair.b, pair.now, &response).unwrap();
    let there = seal(&mut pair.b, pair.now, PATH, b"back");
    assert!(open(&mut pair.a, pair.now, &there).is_ok());
    let back = seal(&mut pair.a, pair.now, PATH, b"welcome");
    assert!(open(&mut pair.b, pair.now, &back).is_ok());
}

#[test]
fn a_peer_that_restarted_but_cannot_call_us_is_called_within_two_seconds() {
    let ids = identities(2);
    let mut pair = Pair::connected();
    let start = pair.now;
    run(&mut pair, start + Duration::from_secs(10), ms(50), true);
    pair.b = Tunnels::new(pair.now, config(&ids[1], &[&ids[0]]), Rng::new([33; 32]));
    let restart = pair.now;
    while !pair.b.is_up(pair.now, P) {
        pair.advance(ms(50));
        assert!(pair.now - restart < Duration::from_secs(2), "not back in time");
        if drain(&mut pair.a).contains(&TunnelEvent::WantInitiate(P)) {
            let init = initiate(&mut pair.a, pair.now);
            let response = answer(&mut pair.b, pair.now, &init).unwrap();
            take(&mut pair.a, pair.now, &response).unwrap();
        }
        let datagram = seal(&mut pair.a, pair.now, PATH, b"");
        pair.a.expect_answer(pair.now, P);
        let _ = open(&mut pair.b, pair.now, &datagram);
    }
}

#[test]
fn the_last_word_of_an_exchange_waits_for_no_answer() {
    let mut pair = Pair::connected();
    drain(&mut pair.a);
    let question = seal(&mut pair.b, pair.now, PATH, b"probe");
    assert!(open(&mut pair.a, pair.now, &question).is_ok());
    seal(&mut pair.a, pair.now, PATH, b"reply");
    for _ in 0..100 {
        pair.advance(ms(100));
        assert_eq!(drain(&mut pair.a), []);
    }
}

#[test]
fn counts_go_on_across_changes_of_keys() {
    let mut pair = Pair::connected();
    let start = pair.now;
    run(&mut pair, start + Duration::from_secs(2_000), ms(1_000), true);
    let stats = pair.b.receive_stats(P, PATH);
    assert_eq!(stats.expected, stats.received);
    assert_eq!(pair.a.sent(P, PATH), stats.expected);
    assert!(stats.expected > 1_990);
    // Keys that are gone give their index back: an initiation and four sets of keys at most.
    for tunnels in [&pair.a, &pair.b] {
        assert!(tunnels.indices.held() <= 5, "{}", tunnels.indices.held());
    }
}

#[test]
fn keys_that_make_room_for_newer_ones_give_their_index_back() {
    let mut pair = Pair::connected();
    for _ in 0..8 {
        pair.advance(ms(5_000));
        pair.connect();
    }
    // Those in use, and two sets before them.
    assert_eq!((pair.a.indices.held(), pair.b.indices.held()), (3, 3));
    // Keys made as responder make an initiation of one's own needless.
    pair.advance(ms(5_000));
    initiate(&mut pair.b, pair.now);
    assert_eq!(pair.b.indices.held(), 4);
    pair.connect();
    assert_eq!(pair.b.indices.held(), 3);
}

#[test]
fn a_forgotten_tunnel_is_gone_and_asked_for_again_after_a_pause() {
    let mut pair = Pair::connected();
    pair.a.forget(pair.now, P);
    assert_eq!(pair.a.indices.held(), 0);
    assert_eq!(pair.a.status(pair.now, P).state, TunnelState::Down);
    pair.advance(ms(500));
    assert_eq!(drain(&mut pair.a), []);
    pair.a.hasten(pair.now, P);
    pair.advance(ms(1));
    assert_eq!(drain(&mut pair.a), [TunnelEvent::WantInitiate(P)]);
}

#[test]
fn an_initiation_that_cannot_be_made_is_tried_again_when_it_is_due() {
    let mut pair = Pair::new();
    pair.a.handle_timeout(pair.now);
    drain(&mut pair.a);
    let rng = &mut Rng::new([1; 32]);
    while pair.a.indices.allocate(rng, P).is_some() {}
    // Chance decides how soon each time.
    for attempt in 0..20 {
        let made = pair.a.initiate(pair.now, wall(pair.now), P, &mut Vec::new());
        assert_eq!(made, Err(DropReason::NoTunnel));
        let due = pair.a.poll_timeout().map(|(at, _)| at);
        assert!(due <= pair.a.peers[0].retry_at, "{attempt}: {due:?}");
    }
}
