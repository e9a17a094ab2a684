use super::*;
use proptest::prelude::*;

fn written(messages: &[Control<'_>]) -> Vec<u8> {
    let mut buffer = [0; 1400];
    let mut writer = ControlWriter::new(&mut buffer);
    for message in messages {
        assert!(writer.push(message));
    }
    let len = writer.len();
    buffer[..len].to_vec()
}

#[test]
#[rustfmt::skip]
fn messages_are_these_bytes() {
    let messages = [
        Control::Probe(Probe { seq: 1, sent_us: 2 }),
        Control::ProbeReply(ProbeReply {
            seq: 1, sent_us: 2, hold_us: 3, path: PathId(0x21), loss: 4,
        }),
        Control::AdvertisementAck(AdvertisementAck { epoch: 5, seq: 6, part: 7 }),
        Control::PathChallenge(8),
        Control::PathResponse(8),
        Control::MtuProbe(1400),
        Control::MtuAck(1400),
        Control::Close(9),
        Control::Report(Report { path: PathId(1), age: 2, expected: 3, received: 4 }),
        Control::Heard(PathId(0x12)),
        Control::Volley(Volley { seq: 1, index: 2, count: 8 }),
        Control::VolleyReport(VolleyReport { path: PathId(1), seq: 2, arrived: 7, span_us: 4 }),
    ];
    let bytes = written(&messages);
    let expected: &[&[u8]] = &[
        &[1, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
        &[2, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0x21, 0, 4],
        &[5, 0, 13, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 7],
        &[6, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
        &[7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8],
        &[8, 0, 2, 0x05, 0x78],
        &[9, 0, 2, 0x05, 0x78],
        &[10, 0, 1, 9],
        &[3, 0, 12, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4],
        &[12, 0, 2, 0, 0x12],
        &[13, 0, 4, 0, 1, 2, 8],
        &[14, 0, 9, 0, 1, 0, 2, 7, 0, 0, 0, 4],
    ];
    assert_eq!(bytes, expected.concat());
    let parsed: Result<Vec<_>, _> = ControlIter::new(&bytes).collect();
    assert_eq!(parsed, Ok(messages.to_vec()));
}

#[test]
fn an_advertisement_of_a_hundred_entries_fits_a_small_underlay() {
    let entries: Vec<_> = (0..100)
        .map(|i| AdvertisementEntry {
            node: NodeId(i),
            latency_us: 1000 * i,
            loss: 7,
            flags: AdvertisementEntry::UP,
        })
        .collect();
    let head = Advertisement {
        epoch: 1,
        seq: 2,
        part: 3,
        parts: 4,
        flags: Advertisement::DELTA,
        spare_relay_kbit: 5,
    };
    let mut buffer = [0; 1280 - 40 - 8 - crate::wire::DATA_OVERHEAD];
    let mut writer = ControlWriter::new(&mut buffer);
    assert!(writer.push_advertisement(&head, &entries));
    let len = writer.len();
    #[rustfmt::skip]
    assert_eq!(buffer[..33], [
        4, 0x04, 0x5f,
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 3, 4, 1, 0, 0, 0, 5,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1,
    ]);
    let Some(Ok(Control::Advertisement(parsed, list))) = ControlIter::new(&buffer[..len]).next()
    else {
        panic!("no advertisement");
    };
    assert_eq!(parsed, head);
    assert_eq!(list.len(), 100);
    assert_eq!(list.iter().collect::<Vec<_>>(), entries);
}

#[test]
fn unknown_types_and_longer_bodies_are_skipped_over() {
    let mut bytes = vec![0x77, 0, 2, 1, 2, 10, 0, 3, 9, 8, 7, 0, 0, 1, 0];
    bytes.extend(written(&[Control::PathChallenge(1)]));
    let parsed: Result<Vec<_>, _> = ControlIter::new(&bytes).collect();
    assert_eq!(parsed, Ok(vec![Control::Close(9), Control::PathChallenge(1)]));
}

#[test]
fn short_bodies_end_the_list_with_an_error() {
    for bytes in [&[1][..], &[1, 0], &[1, 0, 12, 0], &[10, 0, 0], &[1, 0, 11, 0, 0]] {
        let parsed: Vec<_> = ControlIter::new(bytes).collect();
        assert_eq!(parsed, [Err(DropReason::BadControl)], "{bytes:?}");
    }
    let head = [4, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 5, 1];
    let parsed: Vec<_> = ControlIter::new(&head).collect();
    assert_eq!(parsed, [Err(DropReason::BadControl)], "a broken entry");
}

#[test]
fn a_full_buffer_refuses_and_padding_fills_exactly() {
    let mut buffer = [0; 40];
    let mut writer = ControlWriter::new(&mut buffer);
    assert!(writer.push(&Control::MtuProbe(1)));
    assert!(!writer.pad_to(4) && !writer.pad_to(7) && !writer.pad_to(41));
    assert!(writer.pad_to(40));
    assert!(writer.pad_to(40));
    assert!(!writer.push(&Control::Close(0)));
    assert_eq!(writer.len(), 40);
    let parsed: Vec<_> = ControlIter::new(&buffer).collect();
    assert_eq!(parsed, [Ok(Control::MtuProbe(1))]);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let frames = ControlIter::new(&bytes).count();
        prop_assert!(frames <= bytes.len() / FRAME_HEADER_LEN + 1);
    }
}
