use super::*;
use crate::id::UplinkIndex;
use crate::node::tests::Net;
use crate::path::LinkId;

const FAR: PeerIndex = PeerIndex(3);
/// What a budget of 33 kbit/s ever gives one volley.
const MOST: u64 = 396_000;

fn at(ms: u64) -> Instant {
    Instant::from_micros(1_000_000 + ms * 1_000)
}

const fn path(number: u8) -> Path {
    Path::Direct(LinkId { local: UplinkIndex(number % 8), remote: UplinkIndex(number / 8) })
}

fn wanted(numbers: impl IntoIterator<Item = u8>) -> Vec<(PeerIndex, Path)> {
    numbers.into_iter().map(|number| (FAR, path(number))).collect()
}

fn volleys(numbers: impl IntoIterator<Item = u8>) -> Volleys {
    let mut volleys = Volleys::default();
    volleys.set_wanted(&wanted(numbers));
    volleys
}

/// A volley leaves on the path that is next.
fn send(volleys: &mut Volleys, ms: u64, bytes: u32) -> Option<(Path, u16, u8)> {
    let (place, count) = volleys.next(at(ms), MOST, |_, _| Some(bytes))?;
    let seq = volleys.next_seq.unwrap_or(0);
    volleys.next_seq = Some(seq.wrapping_add(1));
    let measured = &mut volleys.paths[place];
    measured.sent = Some(Sent { seq, bytes, count, at: at(ms) });
    measured.unanswered += 1;
    Some((measured.path, seq, count))
}

fn report(path: Path, seq: u16, arrived: u8, span_us: u32) -> VolleyReport {
    VolleyReport { path: path.into(), seq, arrived, span_us }
}

#[test]
fn a_path_that_cannot_be_sent_on_keeps_no_other_one_from_it() {
    let mut volleys = volleys(0..3);
    let ready = |_, candidate| (candidate != path(0)).then_some(1_500);
    let mut sent = Vec::new();
    for second in 0..20 {
        let now = at(second * 1_000);
        if let Some((place, count)) = volleys.next(now, MOST, ready) {
            volleys.paths[place].sent = Some(Sent { seq: 0, bytes: 1_500, count, at: now });
            sent.push(volleys.paths[place].path);
        }
    }
    let [first, second] = [path(1), path(2)];
    assert_eq!(sent, [first, second, first, second, first, second, first, second]);
}

#[test]
fn a_volley_is_as_long_as_can_be_paid_for_and_there_is_none_else() {
    let cases = [
        (1_500, 33_000, Some(4)),
        (9_000, 33_000, Some(4)),
        (9_000, 20_000, Some(3)),
        (9_000, 10_000, None),
        (1_500, 4_000, Some(4)),
        (1_500, 3_000, Some(3)),
        (1_500, 1_000, None),
        (1_500, 0, None),
    ];
    for (bytes, budget, count) in cases {
        let volleys = volleys([0]);
        let next = volleys.next(at(0), Volleys::most(budget), |_, _| Some(bytes));
        assert_eq!(next.map(|next| next.1), count, "{bytes} bytes of {budget} bit/s");
    }
}

#[test]
fn eight_are_sent_only_where_they_are_quick_and_three_after_a_silence() {
    // 12,000 bits each: 96 ms at 1 Mbit/s, 9.6 ms at 10 Mbit/s.
    for (span_us, long) in [(36_000, false), (3_600, true)] {
        let mut volleys = volleys([0]);
        for round in 0..3 {
            let (path, seq, count) = send(&mut volleys, round * 6_000, 1_500).unwrap();
            assert_eq!(count, 4);
            volleys.on_report(at(round * 6_000 + 50), FAR, &report(path, seq, 4, span_us));
        }
        let (path, seq, count) = send(&mut volleys, 140_000, 1_500).unwrap();
        assert_eq!(count, if long { 8 } else { 4 });
        // Not all came.
        volleys.on_report(at(140_050), FAR, &report(path, seq, 3, span_us));
        assert_eq!(send(&mut volleys, 280_000, 1_500).unwrap().2, 4);
        // No answer.
        assert_eq!(send(&mut volleys, 420_000, 1_500).unwrap().2, 3);
    }
}

#[test]
fn what_is_wanted_displaces_only_what_is_not() {
    let mut volleys = volleys(0..32);
    for measured in &mut volleys.paths {
        (0..3).for_each(|_| measured.capacity.push(at(0), 5_000));
    }
    // One new path before all others, and one is wanted no more.
    volleys.set_wanted(&wanted([40].into_iter().chain(1..32)));
    assert_eq!(volleys.paths.len(), PATHS_MAX);
    let known = |number: u8| volleys.paths.iter().find(|m| m.path == path(number));
    assert!((1..32).all(|number| known(number).unwrap().capacity.kbit() == Some(5_000)));
    assert!(known(0).is_none());
    assert_eq!(known(40).unwrap().capacity.kbit(), None);
    // More than there is room for: those that are known go on.
    volleys.set_wanted(&wanted([50].into_iter().chain(1..32).chain([40])));
    assert!(volleys.paths.iter().all(|m| m.path != path(50)) && volleys.paths.len() == PATHS_MAX);
}

#[test]
fn what_a_path_carries_is_remembered_and_asked_again_rarely() {
    let mut volleys = volleys([0, 1]);
    for measured in &mut volleys.paths {
        (0..3).for_each(|_| measured.capacity.push(at(0), 5_000));
        measured.sent = Some(Sent { seq: 0, bytes: 1_500, count: 4, at: at(0) });
    }
    volleys.set_wanted(&wanted([1, 2]));
    let next = |volleys: &Volleys, ms| {
        volleys.next(at(ms), MOST, |_, _| Some(1_500)).map(|(place, _)| volleys.paths[place].path)
    };
    volleys.paths[2].sent = volleys.paths[1].sent;
    volleys.paths[2].unanswered = 255;
    assert_eq!(next(&volleys, 119_999), None);
    assert_eq!(next(&volleys, 120_000), Some(path(1)));
    volleys.paths[1].sent = None;
    volleys.set_wanted(&wanted([1]));
    volleys.paths[1].sent = Some(Sent { seq: 0, bytes: 1_500, count: 4, at: at(3_599_000) });
    assert_eq!(next(&volleys, 3_599_999), None);
    assert_eq!(next(&volleys, 3_600_000), Some(path(0)));
    assert_eq!(volleys.share_bps(33_000), 3_300);
    volleys.set_wanted(&[]);
    assert_eq!((next(&volleys, 9_000_000), volleys.paths.len()), (None, 2));
    assert_eq!(volleys.share_bps(33_000), 0, "nobody wants any");
}

#[test]
fn credit_begins_with_one_volley_and_grows_while_a_path_is_wanted() {
    let mut volleys = Volleys::default();
    let second = Duration::from_secs(1);
    volleys.earn(second * 1_000, 33_000);
    assert_eq!(volleys.credit, None);
    volleys.set_wanted(&wanted([0]));
    for expected in [48_000, 51_300, 54_600] {
        volleys.earn(second, 33_000);
        assert_eq!(volleys.credit, Some(expected));
    }
    volleys.earn(second * 10_000, 33_000);
    assert_eq!(volleys.credit, Some(MOST));
    volleys.credit = Some(7);
    volleys.set_wanted(&[]);
    volleys.earn(second * 10_000, 33_000);
    volleys.set_wanted(&wanted([0]));
    assert_eq!(volleys.credit, Some(7));
    volleys.earn(second, 1_000);
    assert_eq!(volleys.credit, Some(107));
}

#[test]
fn a_report_counts_once_in_time_of_the_last_volley_by_its_peer() {
    let good = report(path(0), 0, 4, 3_600);
    let cases = [
        ("in time", 5_000, FAR, good, true),
        ("late", 5_001, FAR, good, false),
        ("of another peer", 50, PeerIndex(4), good, false),
        ("of another path", 50, FAR, VolleyReport { path: path(1).into(), ..good }, false),
        ("of another volley", 50, FAR, VolleyReport { seq: 1, ..good }, false),
        ("of too little", 50, FAR, VolleyReport { arrived: 2, ..good }, false),
        ("of more than was sent", 50, FAR, VolleyReport { arrived: 5, ..good }, false),
    ];
    for (what, ms, peer, told, counts) in cases {
        let mut volleys = volleys([0]);
        assert_eq!(send(&mut volleys, 0, 1_500), Some((path(0), 0, 4)));
        for _ in 0..2 {
            assert_eq!(volleys.on_report(at(ms), peer, &told), None, "{what}: one is not believed");
            assert_eq!(volleys.paths[0].capacity.volleys(), usize::from(counts), "{what}");
        }
    }
}

/// Only the peer that a volley went to can say how it arrived, once, and only of the last one.
#[test]
fn a_report_that_answers_no_volley_of_ours_changes_nothing() {
    let mut net = Net::joined(3, 1);
    // Site 0's peers are sites 1 and 2.
    let (near, far) = (PeerIndex(0), PeerIndex(1));
    let path = path(0);
    let mut believed = Vec::new();
    for volley in 0..Capacity::BELIEVED {
        net.now += Duration::from_secs(6);
        let mut out = Output::new(64);
        let node = &mut net.nodes[0];
        node.volleys.credit = Some(MOST);
        node.volleys.set_wanted(&[(near, path)]);
        node.send_volley(net.now, 0, 4, &mut out);
        let lengths: Vec<_> = out.tx.transmits().iter().map(|sent| sent.stride).collect();
        let [first, ..] = lengths[..] else { panic!("nothing was sent") };
        assert_eq!(lengths, [first, first + 1, first + 2, first + 3], "nobody merges them");
        // It does not arrive.
        out.clear();
        let seq = node.volleys.paths[0].sent.unwrap().seq;
        let mut says = |net: &mut Net, site: usize, report| {
            let mut body = [0; 32];
            let mut writer = wire::ControlWriter::new(&mut body);
            assert!(writer.push(&Control::VolleyReport(report)));
            let len = writer.len();
            // Of each other site, ours is the first peer.
            assert!(net.nodes[site].send_body(net.now, PeerIndex(0), &body[..len], &mut out));
            net.deliver(site, &mut out);
            net.nodes[0].volleys.paths[0].capacity.volleys()
        };
        for other in [seq.wrapping_sub(1), seq.wrapping_add(1), seq ^ 0x8000] {
            assert_eq!(says(&mut net, 1, report(path, other, 4, 90)), volley, "another number");
        }
        let elsewhere =
            PathId::from(Path::Direct(LinkId { local: UplinkIndex(1), remote: UplinkIndex(0) }));
        let of_no_path = VolleyReport { path: elsewhere, ..report(path, seq, 4, 90) };
        assert_eq!(says(&mut net, 1, of_no_path), volley, "another path");
        assert_eq!(says(&mut net, 2, report(path, seq, 4, 90)), volley, "another peer says it");
        assert_eq!(says(&mut net, 1, report(path, seq, 4, 4_500)), volley + 1);
        assert_eq!(says(&mut net, 1, report(path, seq, 4, 90)), volley + 1, "said again");
        believed.push(net.nodes[0].router.capacity(near, path));
        assert_eq!(net.nodes[0].router.capacity(far, path), None);
    }
    // 1280 bytes, or as much as the path was found to pass, in 1.5 ms each.
    let kbit = believed.pop().unwrap().unwrap();
    assert!((6_000..9_000).contains(&kbit) && believed == [None, None], "{kbit} {believed:?}");
}
