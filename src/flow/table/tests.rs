use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::packet::{protocol, tcp_flag};
use crate::rng::Rng;

const ONE: Tally = Tally { packets: 1, bytes: 100 };

fn seconds(s: u64) -> Instant {
    Instant::from_micros(s * 1_000_000)
}

fn table(max_flows: u32, max_per_host: u32) -> FlowTable {
    let limits = FlowLimits { max_flows, max_per_host, idle: IdleTimes::default() };
    FlowTable::new(Instant::ZERO, limits, &mut Rng::new([3; 32]))
}

fn host(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, n).into()
}

fn key(protocol: u8, from: u8, port: u16) -> FlowKey {
    FlowKey::new(protocol, (host(from), port), (Ipv4Addr::new(192, 0, 2, 1).into(), 80)).unwrap()
}

fn admit(table: &mut FlowTable, now: Instant, key: FlowKey) -> FlowId {
    table.lookup_or_admit(now, key, key.source()).unwrap().id
}

/// The whole second at which the flow is gone, if nothing more happens.
fn gone_at(table: &mut FlowTable, id: FlowId) -> u64 {
    while table.get(id).is_some() {
        let next = table.next_deadline().unwrap();
        table.expire(next, 1_000);
        if table.get(id).is_none() {
            return next.as_micros() / 1_000_000;
        }
    }
    unreachable!("it was there");
}

#[test]
fn a_flow_is_found_by_its_key_and_by_that_of_its_answers() {
    let mut table = table(8, 8);
    let key = key(protocol::UDP, 1, 5000);
    let first = table.lookup_or_admit(Instant::ZERO, key, host(1)).unwrap();
    assert!(first.is_new);
    let again = table.lookup_or_admit(Instant::ZERO, key, host(1)).unwrap();
    assert_eq!(again, Lookup { id: first.id, is_new: false });
    let answer = key.reversed();
    assert_eq!(table.lookup(&answer.reversed()), Some(first.id));
    assert_eq!(table.lookup(&answer), None);
}

#[test]
fn idle_times_follow_protocol_and_state() {
    let cases = [
        (protocol::UDP, vec![], 30),
        (protocol::UDP, vec![(Direction::Reply, 0)], 300),
        (protocol::ICMP, vec![(Direction::Reply, 0)], 60),
        (protocol::ICMPV6, vec![], 60),
        (47, vec![], 300),
        (protocol::TCP, vec![(Direction::Forward, tcp_flag::SYN)], 240),
        (protocol::TCP, vec![(Direction::Reply, tcp_flag::SYN | tcp_flag::ACK)], 7_440),
        (
            protocol::TCP,
            vec![(Direction::Reply, tcp_flag::ACK), (Direction::Forward, tcp_flag::FIN)],
            7_440,
        ),
        (
            protocol::TCP,
            vec![(Direction::Reply, tcp_flag::FIN), (Direction::Forward, tcp_flag::FIN)],
            240,
        ),
        (
            protocol::TCP,
            vec![(Direction::Reply, tcp_flag::ACK), (Direction::Reply, tcp_flag::RST)],
            240,
        ),
        (
            protocol::TCP,
            vec![
                (Direction::Reply, tcp_flag::RST),
                (Direction::Forward, tcp_flag::SYN),
                (Direction::Reply, tcp_flag::SYN | tcp_flag::ACK),
            ],
            7_440,
        ),
    ];
    for (protocol, packets, expected) in cases {
        let mut table = table(8, 8);
        let id = admit(&mut table, Instant::ZERO, key(protocol, 1, 1));
        for &(direction, flags) in &packets {
            table.record(Instant::ZERO, id, direction, ONE, flags);
        }
        let gone = gone_at(&mut table, id);
        assert!((expected..=expected + 1).contains(&gone), "{protocol} {packets:?}: {gone}");
        assert_eq!(table.counts(), FlowCounts { active: 0, created: 1, expired: 1 });
    }
}

#[test]
fn every_packet_keeps_a_flow_alive() {
    let mut table = table(8, 8);
    let id = admit(&mut table, Instant::ZERO, key(protocol::UDP, 1, 1));
    for s in 1..100 {
        table.record(seconds(s * 20), id, Direction::Forward, ONE, 0);
        table.expire(seconds(s * 20), 100);
        assert!(table.get(id).is_some());
    }
    assert_eq!(table.get(id).unwrap().forward.packets, 99);
    assert!((2_010..=2_011).contains(&gone_at(&mut table, id)));
}

#[test]
fn a_greedy_host_takes_no_more_than_its_share_and_gets_it_back() {
    let mut table = table(10, 3);
    let ids: Vec<_> =
        (0..3).map(|p| admit(&mut table, Instant::ZERO, key(protocol::UDP, 1, p))).collect();
    let refused = table.lookup_or_admit(Instant::ZERO, key(protocol::UDP, 1, 9), host(1));
    assert_eq!(refused, Err(DropReason::FlowLimit));
    assert!(table.lookup_or_admit(Instant::ZERO, key(protocol::UDP, 2, 9), host(2)).is_ok());
    table.remove(ids[0]);
    assert!(table.lookup_or_admit(Instant::ZERO, key(protocol::UDP, 1, 9), host(1)).is_ok());
}

#[test]
fn a_full_table_refuses_and_keeps_what_lives() {
    let mut table = table(2, 2);
    let ids = [1, 2].map(|from| admit(&mut table, Instant::ZERO, key(protocol::TCP, from, 1)));
    let refused = table.lookup_or_admit(seconds(100), key(protocol::TCP, 3, 1), host(3));
    assert_eq!(refused, Err(DropReason::FlowLimit));
    assert!(ids.iter().all(|&id| table.get(id).is_some()));
    assert_eq!(table.hosts.len(), 2);
}

#[test]
fn a_burst_begins_again_after_a_second_of_silence() {
    let mut table = table(8, 8);
    let id = admit(&mut table, Instant::ZERO, key(protocol::UDP, 1, 1));
    let mut burst_at = |ms: u64, packets| {
        let tally = Tally { packets, bytes: 1 };
        table.record(Instant::from_micros(ms * 1_000), id, Direction::Forward, tally, 0);
        table.get(id).unwrap().burst
    };
    assert_eq!([burst_at(0, 1), burst_at(900, 1), burst_at(1_899, 44)], [1, 2, 46]);
    assert_eq!([burst_at(2_899, 1), burst_at(2_900, 9_000)], [1, 255]);
}

#[test]
fn pages_join_without_gap_or_repetition() {
    let mut table = table(100, 100);
    let ids: Vec<_> =
        (0..50).map(|p| admit(&mut table, Instant::ZERO, key(protocol::UDP, 1, p))).collect();
    for id in ids.iter().step_by(3) {
        table.remove(*id);
    }
    let mut seen = Vec::new();
    let mut first = FlowId(0);
    loop {
        let page: Vec<_> = table.iter_from(first).take(7).map(|(id, _)| id).collect();
        let Some(last) = page.last() else { break };
        first = FlowId(last.0 + 1);
        seen.extend(page);
    }
    let expected: Vec<_> = table.iter_from(FlowId(0)).map(|(id, _)| id).collect();
    assert_eq!(seen, expected);
    assert_eq!(seen.len() as u64, table.counts().active);
}

#[test]
fn a_flow_takes_at_most_200_bytes() {
    // Option adds nothing; the wheel's node is 16 bytes, the index at most 32 for a full table, and
    // the free list 4.
    let whole = size_of::<Option<Flow>>() + 16 + 32 + 4;
    assert!(whole <= 200, "{whole}");
}

#[derive(Clone, Debug)]
enum Step {
    Packet(Direction, FlowKey, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // UDP-Lite, GRE.
    let protocols = [protocol::TCP, protocol::TCP, protocol::UDP, protocol::ICMP, 136, 47];
    let flow = (prop::sample::select(protocols.to_vec()), 1u8..4, 0u16..3)
        .prop_map(|(protocol, from, port)| key(protocol, from, port));
    let flags = prop::sample::select(vec![0, 1, 2, 2, 4, 16, 18, 17, 3]);
    let way = prop::sample::select(vec![Direction::Forward, Direction::Forward, Direction::Reply]);
    prop_oneof![
        8 => (way, flow, flags).prop_map(|(way, key, flags)| Step::Packet(
            way,
            key,
            if key.protocol == protocol::TCP { flags } else { 0 }
        )),
        2 => prop_oneof![0u64..70, 200u64..320, 5_000u64..8_000].prop_map(Step::Wait),
    ]
}

/// A flow of the naive model: all that was ever seen of it.
struct Modelled {
    last_seen: Instant,
    story: Vec<(Direction, u8)>,
}

impl Modelled {
    fn note(&mut self, now: Instant, direction: Direction, flags: u8) {
        self.last_seen = now;
        self.story.push((direction, flags));
    }

    /// In whole seconds, as RFC 4787, 5382 and 5508 have them.
    fn idle_time(&self, protocol: u8) -> u64 {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        let fin = |life: &[(Direction, u8)], of| {
            life.iter().any(|&(way, flags)| way == of && flags & FIN != 0)
        };
        let over = |life: &[(Direction, u8)]| {
            life.iter().any(|&(_, flags)| flags & RST != 0)
                || fin(life, Direction::Forward) && fin(life, Direction::Reply)
        };
        // A host that opens a connection where one was over begins a new life.
        let mut begin = 0;
        for (at, &(way, flags)) in self.story.iter().enumerate() {
            let opens = way == Direction::Forward && flags & SYN != 0 && flags & ACK == 0;
            if opens && over(&self.story[begin..at]) {
                begin = at;
            }
        }
        let life = &self.story[begin..];
        let replied = life.iter().any(|(way, _)| *way == Direction::Reply);
        match protocol {
            6 if replied && !over(life) => 7_440,
            6 => 240,
            17 | 136 if replied => 300,
            17 | 136 => 30,
            1 => 60,
            _ => 300,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn behaves_like_a_map_with_deadlines(steps in prop::collection::vec(step(), 1..150)) {
        let mut table = table(9, 4);
        let mut model: BTreeMap<FlowKey, Modelled> = BTreeMap::new();
        let mut now = Instant::ZERO;
        for step in steps {
            match step {
                Step::Packet(Direction::Forward, key, flags) => {
                    let of_host = model.keys().filter(|k| k.source() == key.source()).count();
                    let room = model.len() < 9 && of_host < 4;
                    let result = table.lookup_or_admit(now, key, key.source());
                    prop_assert_eq!(result.is_ok(), model.contains_key(&key) || room);
                    if let Ok(found) = result {
                        prop_assert_eq!(found.is_new, !model.contains_key(&key));
                        table.record(now, found.id, Direction::Forward, ONE, flags);
                        let new = || Modelled { last_seen: now, story: Vec::new() };
                        let flow = model.entry(key).or_insert_with(new);
                        flow.note(now, Direction::Forward, flags);
                    }
                }
                Step::Packet(Direction::Reply, key, flags) => {
                    let found = table.lookup(&key);
                    prop_assert_eq!(found.is_some(), model.contains_key(&key));
                    if let (Some(id), Some(flow)) = (found, model.get_mut(&key)) {
                        table.record(now, id, Direction::Reply, ONE, flags);
                        flow.note(now, Direction::Reply, flags);
                    }
                }
                Step::Wait(s) => {
                    now += Duration::from_secs(s);
                    table.expire(now, 10_000);
                    model.retain(|key, flow| {
                        let idle = Duration::from_secs(flow.idle_time(key.protocol));
                        let due = flow.last_seen + idle;
                        // Within the wheel's resolution both answers are right.
                        due > now || due + Wheel::RESOLUTION > now && table.lookup(key).is_some()
                    });
                }
            }
            prop_assert_eq!(table.counts().active, model.len() as u64);
            for key in model.keys() {
                prop_assert!(table.lookup(key).is_some());
            }
            let hosts: std::collections::BTreeSet<_> = model.keys().map(FlowKey::source).collect();
            prop_assert_eq!(table.hosts.len(), hosts.len());
            prop_assert_eq!(table.by_key.len(), model.len());
            prop_assert_eq!(table.by_address.len(), hosts.len());
            prop_assert_eq!(table.timers.len(), model.len());
        }
    }
}
