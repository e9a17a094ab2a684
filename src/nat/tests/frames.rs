//! Frames that nobody would send: real ones with bytes changed, cut, and with false offload headers.
//! They come to a NAT that has mappings for them, so that they get far.

use std::net::IpAddr;

use super::*;
use crate::addr::Nat64Prefix;
use crate::packet::{Gso, icmp};

const FRAMES: u32 = 12_000;
const HOST_V6: &str = "fd00:2::5";

/// How often a frame got through each door.
#[derive(Debug, Default)]
struct Passed {
    out: u32,
    out_64: u32,
    inside: u32,
    inside_v6: u32,
    held: u32,
}

fn config_of_all() -> NatConfig {
    let mut config = config();
    config.pool.push("2001:db8:4::/127".parse().unwrap());
    config.policy.reuse = Reuse::WhenFull;
    config.policy.udp.filtering = Dependence::Address;
    config.prefixes = vec![PrefixPair {
        realm: Realm(4),
        inside: "fd00:4::/48".parse().unwrap(),
        outside: "2001:db8:5::/48".parse().unwrap(),
    }];
    config
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A packet of one of the hosts.
fn sample(rng: &mut Rng) -> (Realm, Vec<u8>) {
    let upper = match rng.below(4) {
        0 => tcp(SYN),
        1 => tcp(ACK),
        2 => Upper::EchoRequest,
        _ => Upper::Udp,
    };
    let (realm, source, destination) = match rng.below(4) {
        0 => (SITE, ip("10.2.0.1"), ip("203.0.113.80")),
        1 => (SITE, ip(HOST_V6), Nat64Prefix::WELL_KNOWN.embed([203, 0, 113, 80].into()).into()),
        2 => (SITE, ip(HOST_V6), ip("2001:db8:ffff::80")),
        _ => (Realm(4), ip("fd00:4::5"), ip("2001:db8:ffff::80")),
    };
    let mut sample = Sample::new(source.is_ipv6(), upper, &[7; 40]);
    (sample.source, sample.destination, sample.ports) = (source, destination, (5_000, 443));
    sample.dont_fragment = rng.below(2) == 0;
    (realm, sample.bytes())
}

/// The answer to a packet that left, or an error about it.
fn answer(rng: &mut Rng, left: &[u8]) -> Option<Vec<u8>> {
    let headers = Headers::parse(left).ok()?;
    if rng.below(3) == 0 {
        let mut error = [0; icmp::MAX_LEN];
        let router = if headers.is_ipv6() { ip("2001:db8:ffff::1") } else { ip("192.0.2.1") };
        let cause = icmp::Error::TooBig { mtu: 1_300 };
        let len = icmp::write_error(&mut error, cause, router, left, &headers);
        return (len > 0).then(|| error[..len].to_vec());
    }
    let mut packet = left.to_vec();
    let middle = if headers.is_ipv6() { 8..40 } else { 12..20 };
    let half = middle.len() / 2;
    packet[middle].rotate_left(half);
    let l4 = usize::from(headers.l4);
    match (headers.ports, headers.icmp) {
        (Some(_), None) => packet[l4..l4 + 4].rotate_left(2),
        (_, Some(_)) => packet[l4] = if headers.is_ipv6() { 129 } else { 0 },
        (None, None) => {}
    }
    let turned = Headers::parse(&packet).ok()?;
    checksum::complete(&mut packet, &turned);
    Some(packet)
}

/// Changes a few bytes, or none.
fn spoil(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        let at = rng.below(frame.len() as u32) as usize;
        frame[at] = rng.next_u64() as u8;
    }
    match rng.below(8) {
        0 => frame.truncate(rng.below(frame.len() as u32) as usize),
        // A fragment.
        1 if frame.len() > 8 && frame[0] >> 4 == 4 => {
            frame[6] = [0x20, 0x00, 0x20][rng.below(3) as usize];
            frame[7] = [0, 3, 3][rng.below(3) as usize];
            checksum::fill_ipv4(&mut frame[..20]);
        }
        _ => {}
    }
}

fn vnet(rng: &mut Rng) -> Vnet {
    if rng.below(3) > 0 {
        return Vnet::default();
    }
    let gso = [Gso::None, Gso::Tcp { ecn: false }, Gso::Udp][rng.below(3) as usize];
    let mut word = || rng.next_u64() as u16 % 80;
    let (segment_size, checksum_start, checksum_offset) = (word(), word(), word());
    let needs_checksum = gso != Gso::None || word() > 40;
    Vnet { needs_checksum, gso, segment_size, checksum_start, checksum_offset, header_len: word() }
}

#[test]
fn no_frame_panics_or_leaves_the_tables_in_disorder() {
    let mut rng = Rng::new([3; 32]);
    let mut lab = Lab::new(&config_of_all());
    let mut passed = Passed::default();
    let prefix = Nat64Prefix::WELL_KNOWN;
    for number in 0..FRAMES {
        let (realm, mut frame) = sample(&mut rng);
        spoil(&mut rng, &mut frame);
        let vnet = vnet(&mut rng);
        let Ok(headers) = Headers::parse(&frame) else { continue };
        let mut left = Vec::new();
        if prefix.net().contains(&match headers.destination {
            IpAddr::V6(address) => address,
            IpAddr::V4(address) => address.to_ipv6_mapped(),
        }) {
            let now = lab.now;
            let sent = lab.nat.outbound_64(now, realm, &frame, &headers, &vnet, prefix, &mut left);
            passed.out_64 += u32::from(sent.is_ok());
        } else {
            let sent = lab.nat.outbound(lab.now, realm, &mut frame, &headers, &vnet);
            passed.out += u32::from(sent.is_ok());
            passed.held += u32::from(sent == Ok(Outbound::Held));
            left = frame;
        }
        let Some(mut back) = answer(&mut rng, &left) else { continue };
        spoil(&mut rng, &mut back);
        let Ok(headers) = Headers::parse(&back) else { continue };
        let arrived = lab.nat.inbound(lab.now, &mut back, &headers, &vnet);
        passed.held += u32::from(arrived == Ok(Arrival::Held));
        if let (Ok(Arrival::Inside(to)), Ok(headers)) = (arrived, Headers::parse(&back)) {
            passed.inside += 1;
            if let (IpAddr::V6(host), false) = (to.destination, headers.is_ipv6()) {
                let made = to_ipv6(&back, &headers, &vnet, host, prefix, &mut left);
                passed.inside_v6 += u32::from(made.is_ok());
            }
        }
        while lab.nat.take_released(&mut left).is_some() {}
        if number % 64 == 0 {
            lab.nat.check();
            lab.wait(1);
        }
    }
    lab.nat.check();
    // Most of them are not stopped at the first look.
    let Passed { out, out_64, inside, inside_v6, held } = passed;
    assert!(
        out > 3_000 && out_64 > 800 && inside > 2_000 && inside_v6 > 200 && held > 20,
        "{passed:?}"
    );
}
