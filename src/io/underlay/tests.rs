use std::cell::Cell;
use std::time::Duration;

use super::message::Received;
use super::*;
use crate::batch::RxBatch;
use crate::id::UplinkIndex;
use crate::io::clock::Clock;
use crate::io::stamps::Stamps;
use crate::time::WallClock;

fn pair(ip: &str) -> (UnderlaySocket, UnderlaySocket) {
    let local = SocketAddr::new(ip.parse().unwrap(), 0);
    let open = || UnderlaySocket::open("lo", local, true).unwrap();
    (open(), open())
}

fn receiver() -> Receiver {
    Receiver::new(8, Stamps::new(Clock::new(WallClock(0))))
}

fn receive_all(socket: &UnderlaySocket, rx: &mut RxBatch) {
    let mut receiver = receiver();
    while receiver.receive(socket.raw(), UplinkIndex(3), rx, 8) == Received::Some {
        assert!(rx.filled < rx.slots.len(), "more slots than datagrams are needed to drain");
    }
}

#[test]
fn a_train_arrives_with_its_stride_its_sender_and_its_tos() {
    for ip in ["127.0.0.1", "::1"] {
        let (mut from, to) = pair(ip);
        let mut train = vec![0u8; 1_000 * 7 + 300];
        for (i, datagram) in train.chunks_mut(1_000).enumerate() {
            datagram.fill(i as u8);
        }
        from.send(to.local(), 0xb9, &train, 1_000).unwrap();
        let mut rx = RxBatch::new(32);
        receive_all(&to, &mut rx);
        let mut bytes = Vec::new();
        for slot in &rx.slots[..rx.filled] {
            assert_eq!((slot.uplink, slot.source, slot.tos), (UplinkIndex(3), from.local(), 0xb9));
            assert!(slot.stride == 1_000 || slot.len <= 1_000);
            bytes.extend_from_slice(&slot.buffer[..slot.len]);
        }
        assert_eq!(bytes, train);
    }
}

#[test]
fn without_gso_the_same_datagrams_leave_one_by_one() {
    let (mut from, to) = pair("127.0.0.1");
    from.gso = false;
    from.send(to.local(), 0, &[7; 250], 100).unwrap();
    let mut rx = RxBatch::new(8);
    receive_all(&to, &mut rx);
    let total: usize = rx.slots[..rx.filled].iter().map(|slot| slot.len).sum();
    assert_eq!(total, 250);
    assert!(rx.slots[..rx.filled].iter().all(|slot| slot.tos == 0 && slot.stride <= 100));
}

#[test]
fn a_kernel_that_refuses_to_cut_a_train_gets_its_datagrams_one_by_one() {
    let (mut from, to) = pair("127.0.0.1");
    // Linux cuts no trains for a socket without checksums (EINVAL).
    message::set_option(from.raw(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let segment = Some(100);
    let refused = message::send(from.raw(), to.local(), 0, &[7; 250], segment).unwrap_err();
    assert!(matches!(refused.raw_os_error(), Some(libc::EINVAL | libc::EIO)), "{refused}");
    assert_eq!(from.send(to.local(), 0, &[7; 250], 100), Ok(()));
    assert!(!from.gso);
    let mut rx = RxBatch::new(8);
    receive_all(&to, &mut rx);
    let lens: Vec<_> = rx.slots[..rx.filled].iter().map(|slot| slot.len).collect();
    assert_eq!(lens, [100, 100, 50]);
}

#[test]
fn one_datagram_that_is_too_big_does_not_end_the_cutting_of_trains() {
    let (mut from, to) = pair("127.0.0.1");
    let too_big = vec![0; 65_530];
    let result = from.send(to.local(), 0, &too_big, too_big.len());
    assert_eq!(result, Err((DropReason::UnderlayTooBig, 1)));
    assert!(from.gso);
}

#[test]
fn lack_of_room_is_told_from_a_refusal() {
    for (code, reason) in [
        (libc::ENOBUFS, DropReason::UnderlayBusy),
        (libc::EMSGSIZE, DropReason::UnderlayTooBig),
        (libc::ENETUNREACH, DropReason::UnderlaySend),
    ] {
        assert_eq!(reason_for(&io::Error::from_raw_os_error(code)), reason);
    }
}

#[test]
fn refused_datagrams_are_told_with_reason_and_number() {
    let (mut from, to) = pair("127.0.0.1");
    let v6 = SocketAddr::new(unspecified(true), 9);
    assert_eq!(from.send(v6, 0, &[0; 30], 10), Err((DropReason::UnderlaySend, 3)));
    let too_big = vec![0; 65_530];
    let result = from.send(to.local(), 0, &too_big, too_big.len());
    assert_eq!(result, Err((DropReason::UnderlayTooBig, 1)));
}

#[test]
fn slots_are_filled_only_within_the_budget_and_the_batch() {
    let (mut from, to) = pair("127.0.0.1");
    from.gso = false;
    for len in 1..=5 {
        from.send(to.local(), 0, &vec![1; len * 10], len * 10).unwrap();
    }
    let mut receiver = receiver();
    let mut rx = RxBatch::new(3);
    assert_eq!(receiver.receive(to.raw(), UplinkIndex(0), &mut rx, 2), Received::Some);
    assert_eq!(rx.filled, 2);
    assert_eq!(receiver.receive(to.raw(), UplinkIndex(0), &mut rx, 2), Received::Some);
    assert_eq!(rx.filled, 3);
    let lens: Vec<_> = rx.slots.iter().map(|slot| slot.len).collect();
    assert_eq!(lens, [10, 20, 30]);
}

#[test]
fn a_taken_port_is_one_clear_sentence() {
    let (from, _) = pair("127.0.0.1");
    let error = UnderlaySocket::open("lo", from.local(), true).err().unwrap().to_string();
    assert!(error.contains("is taken by another program"), "{error}");
    let foreign = "192.0.2.77:4710".parse().unwrap();
    let error = UnderlaySocket::open("lo", foreign, true).err().unwrap().to_string();
    assert_eq!(error, "the address 192.0.2.77 is not on the interface `lo`");
    let error = UnderlaySocket::open("nope0", foreign, true).err().unwrap().to_string();
    assert_eq!(error, "there is no interface `nope0`");
}

#[test]
fn the_time_of_arrival_is_the_kernels_and_not_that_of_the_reading() {
    for ip in ["127.0.0.1", "::1"] {
        let (mut from, to) = pair(ip);
        let clock = Clock::new(WallClock(0));
        // The kernel begins to take times a while after it was first asked to, and none is believed
        // when the clocks could not be read: then it is tried again.
        let told = (0..50).any(|_| {
            let sent = clock.now();
            from.send(to.local(), 0, &[7; 100], 100).unwrap();
            to.socket.set_nonblocking(false).unwrap();
            to.socket.peek(&mut [std::mem::MaybeUninit::uninit(); 8]).unwrap();
            to.socket.set_nonblocking(true).unwrap();
            // It is there by now; only then time passes.
            let there = clock.now();
            while clock.now() - there < Duration::from_millis(2) {}
            let passed = clock.now() - there;
            let mut rx = RxBatch::new(8);
            receive_all(&to, &mut rx);
            let at = rx.slots[0].received_at;
            at.is_some_and(|at| sent < at + passed / 2 && at < there + passed / 2)
        });
        assert!(told, "{ip}");
    }
}

thread_local! {
    /// Bytes that the socket under test has room for.
    static ROOM: Cell<usize> = const { Cell::new(0) };
}

/// Sends like the kernel does whose socket has room for [`ROOM`] bytes.
fn send_into_room(
    fd: RawFd,
    destination: SocketAddr,
    tos: u8,
    bytes: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let room = ROOM.get().checked_sub(bytes.len()).ok_or(io::ErrorKind::WouldBlock)?;
    ROOM.set(room);
    message::send(fd, destination, tos, bytes, segment)
}

#[test]
fn lone_datagrams_that_waited_leave_whole() {
    let (mut from, to) = pair("127.0.0.1");
    from.send = send_into_room;
    ROOM.set(0);
    // More than the kernel takes at once.
    for number in 0..60 {
        assert_eq!(from.send(to.local(), 0, &[number; 1_400], 1_400), Ok(()));
    }
    ROOM.set(1_000_000);
    assert_eq!(from.send_rest(), Ok(()));
    assert!(!from.has_rest());
    let mut rx = RxBatch::new(64);
    receive_all(&to, &mut rx);
    let marks = rx.slots[..rx.filled].iter().flat_map(|slot| &slot.buffer[..slot.len]);
    assert!(marks.copied().eq((0..60).flat_map(|number| [number; 1_400])));
}

#[test]
fn what_the_socket_has_no_room_for_waits_in_order_and_within_bounds() {
    for gso in [true, false] {
        let (mut from, to) = pair("127.0.0.1");
        (from.send, from.gso) = (send_into_room, gso);
        ROOM.set(5_500);
        let (mut trains, mut refused) = (0u8, 0);
        while refused == 0 {
            let result = from.send(to.local(), trains, &[trains; 3_500], 1_000);
            if let Err((reason, count)) = result {
                assert_eq!(reason, DropReason::UnderlayBusy);
                refused += count;
            }
            trains += 1;
        }
        assert!(from.has_rest());
        assert_eq!(refused, 4);
        let waited = from.take_waited();
        assert!(waited.bytes <= Rest::BYTES as u64 && waited.packets >= 200, "{waited:?}");
        // Without GSO two datagrams of the second train still found room.
        let left = trains as u64 * 4 - 4 - waited.packets;
        assert_eq!(left, if gso { 4 } else { 6 });
        let mut rx = RxBatch::new(1_024);
        for room in [0, 30_000, 1_000_000] {
            ROOM.set(room);
            assert_eq!(from.send_rest(), Ok(()));
            receive_all(&to, &mut rx);
        }
        assert!(!from.has_rest());
        let marks = rx.slots[..rx.filled].iter().flat_map(|slot| &slot.buffer[..slot.len]);
        let expected = (0..trains - 1).flat_map(|train| [train; 3_500]);
        assert!(marks.copied().eq(expected), "in order, and nothing is missing");
        assert_eq!(from.take_waited(), Tally::default());
    }
}
