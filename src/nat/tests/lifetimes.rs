//! How long a mapping lives.

use super::*;

/// Seconds for which a mapping lives after what `drive` does with it.
fn lifetime(drive: impl FnOnce(&mut Lab, SocketAddrV4), upper: Upper) -> u64 {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, upper).unwrap();
    drive(&mut lab, mapped);
    let start = lab.now;
    while lab.nat.counts().mappings > 0 {
        let next = lab.nat.next_deadline().unwrap();
        assert!(next > lab.now, "a deadline that moves on");
        lab.now = next;
        lab.wait(0);
    }
    (lab.now - start).as_secs()
}

#[test]
fn udp_lives_five_minutes_from_the_last_packet_from_inside() {
    assert_eq!(lifetime(|_, _| {}, Upper::Udp), 300);
    let outbound = |lab: &mut Lab, _| {
        lab.wait(299);
        lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    };
    assert_eq!(lifetime(outbound, Upper::Udp), 300);
    let inbound = |lab: &mut Lab, mapped| {
        lab.wait(200);
        lab.back(SERVER, mapped, Upper::Udp).unwrap();
    };
    assert_eq!(lifetime(inbound, Upper::Udp), 100);
}

#[test]
fn udp_may_be_kept_alive_from_outside_where_that_is_configured() {
    let mut config = config();
    config.timers.udp_inbound_refresh = true;
    let mut lab = Lab::new(&config);
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, Upper::Udp).unwrap();
    for _ in 0..5 {
        lab.wait(200);
        assert!(lab.back(SERVER, mapped, Upper::Udp).is_ok());
    }
}

#[test]
fn an_echo_lives_a_minute() {
    assert_eq!(lifetime(|_, _| {}, Upper::EchoRequest), 60);
}

#[test]
fn tcp_lives_by_its_state() {
    let from = "10.2.0.1:5000";
    assert_eq!(lifetime(|_, _| {}, tcp(SYN)), 240, "half open");
    let open = |lab: &mut Lab, mapped| {
        lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
        lab.out(SITE, from, SERVER, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(open, tcp(SYN)), 7_440, "established");
    let refreshed = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.wait(7_000);
        lab.back(SERVER, mapped, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(refreshed, tcp(SYN)), 7_440, "established, used");
    let half_closed = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.back(SERVER, mapped, tcp(FIN | ACK)).unwrap();
    };
    assert_eq!(lifetime(half_closed, tcp(SYN)), 7_440, "half closed");
    let closed = |lab: &mut Lab, mapped| {
        half_closed(lab, mapped);
        lab.out(SITE, from, SERVER, tcp(FIN | ACK)).unwrap();
        lab.back(SERVER, mapped, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(closed, tcp(SYN)), 240, "closed");
    let closed_late = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.wait(1_000);
        lab.back(SERVER, mapped, tcp(FIN | ACK)).unwrap();
        lab.out(SITE, from, SERVER, tcp(FIN | ACK)).unwrap();
    };
    assert_eq!(lifetime(closed_late, tcp(SYN)), 240, "closed after a long time");
    let reset = |lab: &mut Lab, mapped| {
        open(lab, mapped);
        lab.back(SERVER, mapped, tcp(RST)).unwrap();
    };
    assert_eq!(lifetime(reset, tcp(SYN)), 240, "reset");
    let injected = |lab: &mut Lab, mapped| {
        reset(lab, mapped);
        lab.wait(100);
        lab.out(SITE, from, SERVER, tcp(ACK)).unwrap();
    };
    assert_eq!(lifetime(injected, tcp(SYN)), 7_440, "a reset that the inside did not accept");
    let reopened = |lab: &mut Lab, mapped| {
        closed(lab, mapped);
        lab.wait(100);
        lab.out(SITE, from, SERVER, tcp(SYN)).unwrap();
        lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
    };
    assert_eq!(lifetime(reopened, tcp(SYN)), 7_440, "the same five-tuple again");
}

#[test]
fn a_connection_that_ends_does_not_end_the_others_of_its_mapping() {
    let mut lab = Lab::new(&config());
    let from = "10.2.0.1:5000";
    let mapped = lab.out(SITE, from, SERVER, tcp(SYN)).unwrap();
    lab.back(SERVER, mapped, tcp(SYN | ACK)).unwrap();
    assert_eq!(lab.out(SITE, from, "203.0.113.9:22", tcp(SYN)), Ok(mapped));
    assert_eq!(lab.nat.counts().sessions, 2);
    lab.wait(300);
    assert_eq!(lab.nat.counts().sessions, 1);
    assert!(lab.back(SERVER, mapped, tcp(ACK)).is_ok());
}

#[test]
fn knocking_from_outside_does_not_keep_a_mapping() {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    for n in 0..20 {
        if lab.back(&format!("203.0.113.66:{}", 1000 + n), mapped, tcp(SYN)).is_err() {
            break;
        }
        lab.wait(100);
    }
    assert_eq!(lab.nat.counts().mappings, 0);
    assert_eq!(lab.nat.counts().sessions, 0);
}

#[test]
fn a_call_from_outside_can_be_answered() {
    let mut lab = Lab::new(&config());
    let mapped = lab.out(SITE, "10.2.0.1:5000", SERVER, tcp(SYN)).unwrap();
    let caller = "203.0.113.66:999";
    assert_eq!(lab.back(caller, mapped, tcp(SYN)), Ok((SITE, end("10.2.0.1:5000"))));
    assert_eq!(lab.out(SITE, "10.2.0.1:5000", caller, tcp(SYN | ACK)), Ok(mapped));
    lab.wait(7_000);
    assert!(lab.back(caller, mapped, tcp(ACK)).is_ok(), "established");
}
