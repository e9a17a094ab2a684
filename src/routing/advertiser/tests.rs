use super::*;
use crate::metric::{Liveness, Loss};
use crate::routing::LinkStateDatabase;

type Entries = Vec<(NodeId, LinkReport)>;

fn at(ms: u64) -> Instant {
    Instant::from_micros(1_000_000 + ms * 1000)
}

fn up(rtt_ms: u32) -> LinkReport {
    LinkReport { latency_us: rtt_ms * 1000, jitter_us: 0, loss: Loss::NONE, state: Liveness::Up }
}

fn ids(n: u32) -> Vec<NodeId> {
    (0..n).map(NodeId).collect()
}

fn advertiser(n: u32) -> Advertiser {
    let config = AdvertiserConfig::for_budget(33_000, n as usize);
    let mut advertiser = Advertiser::new(at(0), config, 50, &ids(n));
    for peer in 0..n as u16 {
        advertiser.set_reachable(at(0), PeerIndex(peer), true);
    }
    advertiser
}

/// All that is due at `now`.
fn drain(advertiser: &mut Advertiser, now: Instant) -> Vec<(u16, Advertisement, Entries)> {
    let mut out = Vec::new();
    let mut entries = Vec::new();
    while let Some((peer, part)) = advertiser.poll(now, &mut entries) {
        out.push((peer.0, part, entries.clone()));
        assert!(out.len() < 10_000, "it never ends");
    }
    out
}

fn ack_all(advertiser: &mut Advertiser, now: Instant, n: u16) {
    let (epoch, seq) = advertiser.position();
    for peer in 0..n {
        advertiser.on_ack(now, PeerIndex(peer), epoch, seq);
    }
}

#[test]
fn all_at_first_then_only_changes() {
    let mut advertiser = advertiser(3);
    let first = drain(&mut advertiser, at(0));
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|(_, part, entries)| !part.delta && entries.len() == 3));
    ack_all(&mut advertiser, at(50), 3);
    assert!(drain(&mut advertiser, at(100)).is_empty());
    advertiser.update(at(100), PeerIndex(1), up(20));
    let changes = drain(&mut advertiser, at(100));
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|(_, part, _)| part.delta && part.seq == 2));
    assert_eq!(changes[0].2, [(NodeId(1), up(20))]);
}

#[test]
fn what_is_not_acknowledged_is_repeated_with_all_that_is_missing() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(50), 2);
    advertiser.update(at(100), PeerIndex(0), up(20));
    assert_eq!(drain(&mut advertiser, at(100)).len(), 2);
    advertiser.on_ack(at(150), PeerIndex(1), 50, 2);
    assert!(drain(&mut advertiser, at(399)).is_empty());
    assert_eq!(advertiser.poll_timeout(), Some((at(400), "advertise")));
    let again = drain(&mut advertiser, at(400));
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].0, again[0].1.seq), (0, 2));
    advertiser.update(at(450), PeerIndex(1), up(30));
    let more = drain(&mut advertiser, at(450));
    assert_eq!(more[0].2.len().max(more[1].2.len()), 2, "peer 0 lacks both changes");
    let sent = (0..60).map(|s| drain(&mut advertiser, at(1_000 + s * 1000)).len()).sum::<usize>();
    assert!((10..=34).contains(&sent), "{sent}: the pause doubles up to 5 s");
}

#[test]
fn small_changes_wait_a_second_and_smaller_ones_are_not_told() {
    let mut advertiser = advertiser(2);
    advertiser.update(at(0), PeerIndex(0), up(100));
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(1), 2);
    advertiser.update(at(300), PeerIndex(0), up(105));
    assert!(drain(&mut advertiser, at(2_000)).is_empty(), "5 %");
    advertiser.update(at(2_000), PeerIndex(0), up(120));
    assert_eq!(drain(&mut advertiser, at(2_000)).len(), 2);
    ack_all(&mut advertiser, at(2_001), 2);
    advertiser.update(at(2_300), PeerIndex(0), up(150));
    assert!(drain(&mut advertiser, at(2_999)).is_empty());
    assert_eq!(advertiser.poll_timeout(), Some((at(3_000), "advertise")));
    assert_eq!(drain(&mut advertiser, at(3_000)).len(), 2);
    ack_all(&mut advertiser, at(3_001), 2);
    let down = LinkReport { state: Liveness::Down, ..up(150) };
    advertiser.update(at(3_100), PeerIndex(0), down);
    assert_eq!(drain(&mut advertiser, at(3_100)).len(), 2, "an outage does not wait");
    ack_all(&mut advertiser, at(3_101), 2);
    let suspect = LinkReport { state: Liveness::Suspect, ..up(150) };
    advertiser.update(at(5_000), PeerIndex(0), up(150));
    drain(&mut advertiser, at(5_000));
    ack_all(&mut advertiser, at(5_001), 2);
    advertiser.update(at(5_100), PeerIndex(0), suspect);
    advertiser.update(at(5_200), PeerIndex(0), up(150));
    assert!(drain(&mut advertiser, at(6_100)).is_empty(), "a suspicion that passed");
}

#[test]
fn a_peer_that_lost_everything_gets_all_again_at_a_bounded_pace() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(50), 2);
    advertiser.doubt(at(100), PeerIndex(0));
    for ms in [100, 400] {
        let question = drain(&mut advertiser, at(ms));
        assert!(question.len() == 1 && question[0].1.delta && question[0].2.is_empty());
        assert!(!advertiser.is_known_to(PeerIndex(0)), "asked until it answers");
    }
    advertiser.on_ack(at(450), PeerIndex(0), 50, 0);
    let all = drain(&mut advertiser, at(450));
    assert!(all.len() == 1 && !all[0].1.delta && all[0].2.len() == 2);
    let mut sent = 0;
    for ms in 100..10_100 {
        advertiser.on_ack(at(ms), PeerIndex(0), 50, 0);
        sent += drain(&mut advertiser, at(ms)).len();
    }
    assert!(sent <= 8, "{sent}: acknowledging nothing must not make a storm");
}

#[test]
fn an_earlier_life_is_jumped_over() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    advertiser.on_ack(at(10), PeerIndex(0), 70, 9);
    let again = drain(&mut advertiser, at(10));
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].0, again[0].1.epoch, again[0].1.delta), (0, 71, false));
}

#[test]
fn a_peer_that_lies_about_what_it_knows_harms_itself_alone() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    advertiser.on_ack(at(10), PeerIndex(1), 50, 1);
    for (epoch, seq) in [(u64::MAX - 1, 3), (u64::MAX, u32::MAX - 1), (u64::MAX, u32::MAX)] {
        advertiser.on_ack(at(20), PeerIndex(0), epoch, seq);
        drain(&mut advertiser, at(20));
    }
    assert!(advertiser.is_known_to(PeerIndex(1)));
    advertiser.update(at(30), PeerIndex(1), up(20));
    let told = drain(&mut advertiser, at(30));
    let honest = told.iter().find(|(peer, ..)| *peer == 1).expect("the other one is told");
    assert_eq!((honest.1.epoch, honest.1.seq, honest.1.delta), (50, 2, true));
    assert_eq!(honest.2, [(NodeId(1), up(20))]);
}

#[test]
fn unreachable_peers_cost_nothing_and_hear_at_once_when_they_are_back() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(1), 2);
    advertiser.set_reachable(at(10), PeerIndex(0), false);
    advertiser.update(at(20), PeerIndex(0), up(9));
    let sent = drain(&mut advertiser, at(20));
    assert!(sent.len() == 1 && sent[0].0 == 1);
    advertiser.on_ack(at(30), PeerIndex(1), 50, 2);
    advertiser.set_reachable(at(5_000), PeerIndex(0), true);
    assert_eq!(drain(&mut advertiser, at(5_000)).len(), 1);
    let mut none = Advertiser::new(at(0), advertiser.config, 1, &ids(2));
    assert_eq!((none.poll_timeout(), drain(&mut none, at(9)).len()), (None, 0));
}

#[test]
fn what_is_lacking_rides_on_other_datagrams() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(1), 2);
    let mut entries = Vec::new();
    assert_eq!(advertiser.poll_riding(at(2), PeerIndex(0), &mut entries), None);
    advertiser.update(at(2), PeerIndex(1), up(10));
    let part = advertiser.poll_riding(at(2), PeerIndex(0), &mut entries).unwrap();
    assert!(part.delta && entries == [(NodeId(1), up(10))]);
    assert_eq!(advertiser.poll_riding(at(3), PeerIndex(0), &mut entries), None);
    let others = drain(&mut advertiser, at(3));
    assert!(others.len() == 1 && others[0].0 == 1);
}

/// The other end of a lossy way, with the real database.
#[test]
fn four_hundred_peers_learn_all_in_parts_over_a_lossy_way() {
    let n = 400;
    let mut advertiser =
        Advertiser::new(at(0), AdvertiserConfig::for_budget(33_000, n), 50, &ids(n as u32));
    advertiser.set_reachable(at(0), PeerIndex(3), true);
    for peer in 0..n {
        advertiser.update(at(0), PeerIndex(peer as u16), up(10 + peer as u32));
    }
    // In the receiver's list we are peer 399, and it is not in it itself.
    let mut peers = ids(n as u32);
    peers.remove(3);
    peers.push(NodeId(7777));
    let mut database = LinkStateDatabase::new(NodeId(3), &peers, Duration::from_secs(60));
    let us = PeerIndex(399);
    let mut rng = crate::rng::Rng::new([5; 32]);
    let mut parts = 0;
    for ms in 0..60_000 {
        for (_, part, entries) in drain(&mut advertiser, at(ms)) {
            parts += 1;
            if rng.chance(0.5) {
                continue;
            }
            let applied = database.apply(at(ms), us, &part, entries, |_, _| ());
            if rng.chance(0.5) {
                advertiser.on_ack(at(ms), PeerIndex(3), applied.known.0, applied.known.1);
            }
        }
        if ms == 30_000 {
            for peer in 0..150 {
                advertiser.update(at(ms), PeerIndex(peer), up(500));
            }
        }
    }
    assert!(advertiser.is_known_to(PeerIndex(3)));
    assert!(parts < 200, "{parts}");
    assert_eq!(database.report_on_us(us), Some(up(500)));
    assert_eq!(database.report(us, PeerIndex(0)), Some(up(500)));
    assert_eq!(database.report(us, PeerIndex(398)), Some(up(409)));
}

#[test]
fn at_fifty_nodes_advertising_stays_within_its_share() {
    let n = 49;
    let mut advertiser = advertiser(n);
    let mut rng = crate::rng::Rng::new([9; 32]);
    let mut bytes = 0;
    let seconds = 3_600;
    for tick in 0..seconds * 4 {
        let now = at(tick * 250);
        let peer = PeerIndex(rng.below(n) as u16);
        advertiser.update(now, peer, up(20 + rng.below(100)));
        for (peer, part, entries) in drain(&mut advertiser, now) {
            bytes += AdvertiserConfig::OVERHEAD + entries.len() * AdvertiserConfig::ENTRY;
            if rng.chance(0.99) {
                advertiser.on_ack(now, PeerIndex(peer), part.epoch, part.seq);
            }
        }
    }
    let rate = 8.0 * bytes as f64 / seconds as f64;
    assert!(rate < 33_000.0 * 0.2, "{rate} bit/s although every link changes all the time");
}

#[test]
fn what_is_left_to_relay_is_told_at_once() {
    let mut advertiser = advertiser(2);
    drain(&mut advertiser, at(0));
    ack_all(&mut advertiser, at(50), 2);
    assert!(advertiser.poll_timeout().is_none_or(|(due, _)| due > at(2_000)));
    advertiser.set_spare_relay(at(2_000), 500);
    assert!(advertiser.poll_timeout().is_some_and(|(due, _)| due <= at(2_000)));
    let told = drain(&mut advertiser, at(2_000));
    assert!(told.len() == 2 && told.iter().all(|(_, part, _)| part.spare_relay_kbit == 500));
}

/// What a peer says that it knows, given the epoch, the number and the milliseconds.
type Claim = fn(u64, u32, u64) -> (u64, u32);

/// What leaves in `span` while every peer acknowledges all at once, but for `liar`. For each peer the
/// longest time without anything, and the bytes in all.
fn silences(
    advertiser: &mut Advertiser,
    n: u16,
    span: std::ops::Range<u64>,
    liar: Option<(u16, Claim)>,
) -> (Vec<Duration>, usize) {
    let mut last = vec![at(span.start); usize::from(n)];
    let mut longest = vec![Duration::ZERO; usize::from(n)];
    let mut bytes = 0;
    for ms in span.step_by(100) {
        for (peer, part, entries) in drain(advertiser, at(ms)) {
            let silence = at(ms) - std::mem::replace(&mut last[usize::from(peer)], at(ms));
            let place = &mut longest[usize::from(peer)];
            *place = silence.max(*place);
            bytes += AdvertiserConfig::OVERHEAD + entries.len() * AdvertiserConfig::ENTRY;
            advertiser.on_ack(at(ms), PeerIndex(peer), part.epoch, part.seq);
        }
        if let Some((peer, says)) = liar {
            let (epoch, seq) = advertiser.position();
            let (epoch, seq) = says(epoch, seq, ms);
            advertiser.on_ack(at(ms), PeerIndex(peer), epoch, seq);
        }
    }
    (longest, bytes)
}

#[test]
fn others_do_not_forget_us_after_many_links_came_up_at_once() {
    for n in [35, 50, 100, 400] {
        let mut advertiser = advertiser(n);
        let expiry = advertiser.config.expiry();
        for peer in 0..n as u16 {
            let ms = u64::from(peer) * 20;
            advertiser.update(at(ms), PeerIndex(peer), up(20));
            for (peer, part, _) in drain(&mut advertiser, at(ms)) {
                advertiser.on_ack(at(ms), PeerIndex(peer), part.epoch, part.seq);
            }
        }
        let (longest, bytes) =
            silences(&mut advertiser, n as u16, 20 * u64::from(n)..1_800_000, None);
        let worst = longest.iter().max().unwrap();
        assert!(*worst < expiry * 3 / 4, "{n} peers: {worst:?} of {expiry:?}");
        let allowed = advertiser.config.bytes_per_second * 1_800.0;
        assert!((bytes as f64) < allowed, "{n} peers: {bytes} of {allowed}");
    }
}

#[test]
fn a_peer_that_asks_for_all_again_and_again_silences_us_to_nobody() {
    let lies: [Claim; 3] = [
        |epoch, _, ms| (epoch + ms, 9),
        |epoch, _, _| (epoch, 0),
        |epoch, seq, ms| if ms % 200 == 0 { (epoch, seq) } else { (epoch + ms, 9) },
    ];
    for (which, lie) in lies.into_iter().enumerate() {
        let n = 200;
        let mut advertiser = advertiser(n);
        for peer in 0..n as u16 {
            advertiser.update(at(0), PeerIndex(peer), up(20));
        }
        let expiry = advertiser.config.expiry();
        let liar = Some((7, lie));
        let (longest, bytes) = silences(&mut advertiser, n as u16, 0..1_200_000, liar);
        let worst = longest.iter().max().unwrap();
        assert!(*worst < expiry * 3 / 4, "lie {which}: {worst:?} of {expiry:?}");
        let allowed = advertiser.config.bytes_per_second * 1_200.0 * 1.25 + 400e3;
        assert!((bytes as f64) < allowed, "lie {which}: {bytes} of {allowed}");
    }
}
