use super::*;
use crate::wan::segment::tests::{packet, train};
use crate::wan::vnet::UDP;

const MS: u64 = 1_000_000;

/// Remembers frames with the instant they were written at.
#[derive(Default)]
struct Record {
    now: u64,
    frames: Vec<(u64, usize, Vec<u8>)>,
}

impl Sink for Record {
    fn write(&mut self, site: usize, frame: &[u8]) {
        self.frames.push((self.now, site, frame.to_vec()));
    }
}

/// Sites a (192.0.2.1, 2001::1) and b (198.51.100.1, 2001::2) as in the packets of `segment`.
fn network(yaml: &str) -> Network {
    let site = |addresses: [&str; 2]| Site {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..Site::default()
    };
    let mut b = site(["198.51.100.1/24", "2001::2/128"]);
    b.interface = "wan1".into();
    let scenario = Scenario { seed: 7, ..Scenario::default() }
        .site("a", site(["192.0.2.1/24", "2001::1/128"]))
        .site("b", b)
        .link("a", "b", yaml)
        .unwrap();
    scenario.validate().unwrap();
    Network::new(&scenario).unwrap()
}

fn frame(vnet: Vnet, packet: &[u8]) -> Vec<u8> {
    [&vnet.bytes()[..], packet].concat()
}

fn plain(packet: &[u8]) -> Vec<u8> {
    frame(Vnet::default(), packet)
}

/// Sends frames from a, 1 ms apart, and runs until nothing is under way.
fn run(network: &mut Network, frames: &[Vec<u8>]) -> Record {
    let mut record = Record::default();
    for (number, sent) in frames.iter().enumerate() {
        deliver_until(network, &mut record, number as u64 * MS);
        record.now = number as u64 * MS;
        network.handle_frame(record.now, 0, &mut sent.clone(), &mut record);
    }
    deliver_until(network, &mut record, u64::MAX);
    record
}

fn deliver_until(network: &mut Network, record: &mut Record, end: u64) {
    while let Some(due) = network.next_due().filter(|due| *due <= end) {
        record.now = due;
        network.deliver_due(due, 4, record);
    }
}

fn counters(network: &Network) -> LinkCounters {
    network.report().link("a", "b")
}

#[test]
fn a_frame_without_effects_passes_untouched_at_once() {
    let mut network = network("{}");
    let (vnet, whole) = train(4, TCP, 0x18, &[7; 5000], 1448);
    let sent = frame(vnet, &whole);
    let record = run(&mut network, std::slice::from_ref(&sent));
    assert_eq!(record.frames, vec![(0, 1, sent)]);
    let counters = counters(&network);
    assert_eq!((counters.packets, counters.delivered, counters.segmented), (4, 4, 0));
    assert_eq!(counters.bytes, whole.len() as u64 + 3 * 52);
}

#[test]
fn delay_alone_keeps_a_train_whole() {
    let mut network = network("{delay: 20ms, jitter: 1ms, mtu: 1500}");
    let (vnet, whole) = train(6, UDP, 0, &[7; 5000], 1400);
    let sent = frame(vnet, &whole);
    let record = run(&mut network, std::slice::from_ref(&sent));
    assert_eq!(record.frames.len(), 1);
    let (at, site, got) = &record.frames[0];
    assert!((19 * MS..22 * MS).contains(at), "{at}");
    assert_eq!((*site, got), (1, &sent));
}

#[test]
fn the_unit_of_loss_is_a_packet() {
    let mut network = network("{loss: 0.2, delay: 1ms}");
    let (vnet, whole) = train(4, TCP, 0x18, &[7; 40_000], 1000);
    let frames = vec![frame(vnet, &whole); 50];
    let record = run(&mut network, &frames);
    let counters = counters(&network);
    assert_eq!((counters.segmented, counters.packets), (50, 2000));
    assert_eq!(counters.loss + counters.delivered, 2000);
    assert!((300..500).contains(&counters.loss), "{}", counters.loss);
    assert_eq!(record.frames.len() as u64, counters.delivered);
    assert!(record.frames.iter().all(|(_, _, f)| checksum::verify(&f[VNET_LEN..])));
}

#[test]
fn a_rate_spaces_the_packets_of_a_train() {
    // Packets of 1052 IP bytes at 8.416 Mbit/s: one each millisecond.
    let mut network = network("{rate: 8416kbit}");
    let (vnet, whole) = train(4, TCP, 0x18, &[7; 5000], 1000);
    let record = run(&mut network, &[frame(vnet, &whole)]);
    let times: Vec<u64> = record.frames.iter().map(|(at, ..)| at.div_ceil(MS / 10) / 10).collect();
    assert_eq!(times, [1, 2, 3, 4, 5]);
}

#[test]
fn an_outage_swallows_everything_and_ends() {
    let mut network = network("{delay: 5ms}");
    let sent = plain(&packet(4, UDP, 0, b"x"));
    let mut record = Record::default();
    let change = |down| Change {
        at: crate::wan::Time(0),
        links: vec![1],
        set: crate::wan::LinkSettings { down: Some(down), ..Default::default() },
    };
    network.handle_frame(0, 0, &mut sent.clone(), &mut record);
    network.apply(&change(true));
    network.handle_frame(MS, 0, &mut sent.clone(), &mut record);
    network.apply(&change(false));
    let mut last = sent;
    network.handle_frame(2 * MS, 0, &mut last, &mut record);
    deliver_until(&mut network, &mut record, u64::MAX);
    assert_eq!(record.frames.len(), 2, "what was under way still arrives");
    assert_eq!(counters(&network).down, 1);
}

#[test]
fn too_big_is_answered_once_for_a_train_or_not_at_all() {
    for (version, code) in [(4, [3u8, 4]), (6, [2, 0])] {
        for pmtud in [true, false] {
            let mut network = network(&format!("{{mtu: 1300, delay: 10ms, pmtud: {pmtud}}}"));
            let (vnet, whole) = train(version, TCP, 0x18, &[7; 3448], 1448);
            let record = run(&mut network, &[frame(vnet, &whole)]);
            let errors: Vec<_> = record.frames.iter().filter(|(_, site, _)| *site == 0).collect();
            assert_eq!(errors.len(), usize::from(pmtud));
            for (at, _, error) in errors {
                let packet = &error[VNET_LEN..];
                let ip = Ip::parse(packet).unwrap();
                assert!(checksum::verify(packet));
                assert_eq!(packet[ip.header..ip.header + 2], code);
                assert_eq!(packet[ip.header + 6..ip.header + 8], 1300u16.to_be_bytes());
                assert!(*at >= 10 * MS);
            }
            // The last packet of the train, 552 bytes of payload, fits.
            let passed = record.frames.iter().filter(|(_, site, _)| *site == 1).count();
            assert_eq!((counters(&network).too_big, passed), (2, 1));
        }
    }
}

#[test]
fn without_dont_fragment_a_big_packet_is_cut() {
    let mut network = network("{mtu: 576}");
    let (vnet, mut whole) = train(4, UDP, 0, &[7; 1400], 0);
    whole[6] = 0;
    checksum::write_ipv4(&mut whole);
    let record = run(&mut network, &[frame(vnet, &whole)]);
    assert_eq!(record.frames.len(), 3);
    let joined: Vec<u8> =
        record.frames.iter().flat_map(|(_, _, f)| f[VNET_LEN + 20..].to_vec()).collect();
    let mut whole_again = whole[..20].to_vec();
    whole_again.extend(joined);
    assert!(checksum::verify(&whole_again), "the UDP checksum was finished before the cut");
}

#[test]
fn routers_count_down_and_answer_when_nothing_is_left() {
    let mut network = network("{hops: 3, delay: 8ms}");
    let with_ttl = |ttl| {
        let mut packet = packet(4, UDP, 0, b"x");
        packet[8] = ttl;
        checksum::write_ipv4(&mut packet);
        plain(&packet)
    };
    let record = run(&mut network, &[with_ttl(2), with_ttl(3), with_ttl(4)]);
    let of = |site| record.frames.iter().filter(move |f| f.1 == site).map(|f| &f.2[VNET_LEN..]);
    let routers: Vec<[u8; 4]> = of(0).map(|p| p[12..16].try_into().unwrap()).collect();
    assert_eq!(routers, [[198, 18, 2, 2], [198, 18, 2, 3]]);
    let passed: Vec<&[u8]> = of(1).collect();
    assert_eq!((passed.len(), passed[0][8]), (1, 1));
    assert_eq!(checksum::sum(&passed[0][..20], 0), 0xffff);
}

#[test]
fn one_flipped_bit_breaks_the_checksum_unless_mended() {
    for (version, protocol) in [(4, TCP), (4, UDP), (6, TCP), (6, UDP)] {
        for mended in [false, true] {
            let mut network = network(&format!("{{corrupt: 1.0, corrupt_mended: {mended}}}"));
            let (vnet, whole) = train(version, protocol, 0x18, &[7; 900], 0);
            let mut clean = whole.clone();
            checksum::complete(&vnet, &mut clean).unwrap();
            for (_, _, got) in run(&mut network, &vec![frame(vnet, &whole); 20]).frames {
                let got = &got[VNET_LEN..];
                let ip = Ip::parse(got).unwrap();
                let changed = |from: usize| -> u32 {
                    clean[from..].iter().zip(&got[from..]).map(|(a, b)| (a ^ b).count_ones()).sum()
                };
                assert_eq!(clean[..ip.header], got[..ip.header]);
                assert_eq!(checksum::verify(got), mended);
                let headers = ip.header + if protocol == TCP { 32 } else { 8 };
                assert_eq!(changed(if mended { headers } else { ip.header }), 1);
            }
            assert_eq!(counters(&network).corrupted, 20);
        }
    }
}

#[test]
fn a_copy_arrives_beside_the_original() {
    let mut network = network("{duplicate: 1.0, delay: 3ms}");
    let sent = plain(&packet(4, UDP, 0, b"x"));
    let record = run(&mut network, std::slice::from_ref(&sent));
    assert_eq!(record.frames.len(), 2);
    assert!(record.frames.iter().all(|(_, _, frame)| *frame == sent));
    assert_eq!((counters(&network).packets, counters(&network).delivered), (1, 2));
}

#[test]
fn a_frame_that_is_due_never_overtakes_one_that_waits() {
    let mut network = network("{delay: 5ms}");
    let numbered = |n: u8| plain(&packet(4, UDP, 0, &[n]));
    let mut record = Record::default();
    network.handle_frame(0, 0, &mut numbered(1), &mut record);
    network.links[1].params.delay.0 = 0;
    network.handle_frame(6 * MS, 0, &mut numbered(2), &mut record);
    deliver_until(&mut network, &mut record, u64::MAX);
    let order: Vec<u8> = record.frames.iter().filter_map(|f| f.2.last().copied()).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn what_belongs_nowhere_is_counted() {
    let mut network = network("{}");
    let mut elsewhere = packet(4, UDP, 0, b"x");
    elsewhere[16..20].copy_from_slice(&[224, 0, 0, 1]);
    let mut own = packet(4, UDP, 0, b"x");
    own[16..20].copy_from_slice(&[192, 0, 2, 77]);
    let mut short = packet(4, UDP, 0, b"x");
    short.pop();
    let (mut lying, whole) = train(4, TCP, 0x18, &[7; 3000], 1000);
    lying.csum_start = 9000;
    let frames = [plain(&elsewhere), plain(&own), plain(&short), vec![0; 4], frame(lying, &whole)];
    assert!(run(&mut network, &frames).frames.is_empty());
    let site = network.report().sites["a"].clone();
    assert_eq!((site.read_frames, site.unroutable, site.malformed), (5, 2, 3));
}

#[test]
fn foreign_sources_are_dropped_where_asked() {
    let mut network = network("{}");
    network.filtered[0] = true;
    let mut foreign = packet(4, UDP, 0, b"x");
    foreign[12..16].copy_from_slice(&[10, 0, 0, 1]);
    let frames = [plain(&foreign), plain(&packet(4, UDP, 0, b"x"))];
    assert_eq!(run(&mut network, &frames).frames.len(), 1);
    assert_eq!(network.report().sites["a"].foreign_source, 1);
}

#[test]
fn memory_is_bounded() {
    let mut network = network("{delay: 1s}");
    network.bytes_waiting_max = 1000;
    let sent = plain(&packet(4, UDP, 0, &[7; 162]));
    let record = run(&mut network, &vec![sent; 10]);
    assert_eq!((record.frames.len(), counters(&network).memory_full), (5, 5));
    assert_eq!(network.bytes_waiting, 0);
}

#[test]
fn a_seed_repeats_every_fate() {
    let fates = |yaml: &str| {
        let mut network = network(yaml);
        let sent = plain(&packet(4, UDP, 0, b"x"));
        let record = run(&mut network, &vec![sent; 500]);
        record.frames.into_iter().map(|(at, ..)| at / MS).collect::<Vec<_>>()
    };
    assert_eq!(fates("{loss: 0.1, delay: 2ms}"), fates("{loss: 0.1, delay: 2ms}"));
    // Using another effect does not move the losses.
    assert_eq!(fates("{loss: 0.1, delay: 2ms}"), fates("{loss: 0.1, delay: 2ms, corrupt: 0.5}"));
}
