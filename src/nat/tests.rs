//! The NAT through its frames. Every frame that comes out has its checksums verified by etherparse.

mod behaviour;
mod check;
mod frames;
mod icmp;
mod ipv6;
mod kinds;
mod lifetimes;
mod limits;
mod model;
mod pieces;
mod policy;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::*;
use crate::packet::testing::{Sample, Upper, assert_checksums};
use crate::packet::{Vnet, checksum, tcp_flag};
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wheel::Wheel;

const SYN: u8 = tcp_flag::SYN;
const ACK: u8 = tcp_flag::ACK;
const FIN: u8 = tcp_flag::FIN;
const RST: u8 = tcp_flag::RST;
const SITE: Realm = Realm(3);
const SERVER: &str = "203.0.113.80:443";

fn end(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn config() -> NatConfig {
    NatConfig {
        limits: NatLimits::of_mappings(500, 100),
        ..NatConfig::new(vec!["198.51.100.4/30".parse().unwrap()], 40_000..=40_999)
    }
}

/// A NAT with a clock.
struct Lab {
    nat: Nat,
    now: Instant,
}

impl Lab {
    fn new(config: &NatConfig) -> Self {
        let now = Instant::from_micros(77_777_777);
        Self { nat: Nat::new(now, config, Rng::new([5; 32])), now }
    }

    /// Lets time pass, and what is due expire.
    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        assert!(self.nat.expire(self.now, 1_000_000) > 0);
        self.nat.check();
    }

    fn send(&mut self, realm: Realm, packet: &mut [u8]) -> Result<(Outbound, Headers), DropReason> {
        let headers = Headers::parse(packet).unwrap();
        let to = self.nat.outbound(self.now, realm, packet, &headers, &Vnet::default())?;
        if headers.fragment.is_none() {
            assert_checksums(packet);
        }
        Ok((to, Headers::parse(packet).unwrap()))
    }

    fn arrive(&mut self, packet: &mut [u8]) -> Result<Arrival, DropReason> {
        let headers = Headers::parse(packet).unwrap();
        self.nat.inbound(self.now, packet, &headers, &Vnet::default())
    }

    fn receive(&mut self, packet: &mut [u8]) -> Result<(Inbound, Headers), DropReason> {
        let headers = Headers::parse(packet).unwrap();
        let arrival = self.arrive(packet)?;
        let Arrival::Inside(to) = arrival else { panic!("{arrival:?} instead of inside") };
        if headers.fragment.is_none() {
            assert_checksums(packet);
        }
        let headers = Headers::parse(packet).unwrap();
        assert_eq!(headers.destination, to.destination);
        Ok((to, headers))
    }

    /// Sends a packet from inside to the Internet and returns its outside source.
    fn out(
        &mut self,
        realm: Realm,
        from: &str,
        to: &str,
        upper: Upper,
    ) -> Result<SocketAddrV4, DropReason> {
        let (outbound, headers) = self.send(realm, &mut packet(end(from), end(to), upper))?;
        assert_eq!(outbound, Outbound::Internet);
        assert_eq!(headers.destination, *end(to).ip());
        Ok(source(&headers))
    }

    /// Sends a packet from the Internet and returns whom it reaches.
    fn back(
        &mut self,
        from: &str,
        to: SocketAddrV4,
        upper: Upper,
    ) -> Result<(Realm, SocketAddrV4), DropReason> {
        let mut packet = packet(end(from), to, upper);
        if packet[9] == protocol::ICMP {
            // Both ends of an echo have the identifier of the one.
            packet[24..26].copy_from_slice(&to.port().to_be_bytes());
            let headers = Headers::parse(&packet).unwrap();
            checksum::complete(&mut packet, &headers);
        }
        let (inbound, headers) = self.receive(&mut packet)?;
        Ok((inbound.realm, destination(&headers)))
    }
}

fn tcp(flags: u8) -> Upper {
    Upper::Tcp { seq: 1, ack: 2, flags, options: vec![] }
}

fn packet(from: SocketAddrV4, to: SocketAddrV4, upper: Upper) -> Vec<u8> {
    let mut sample = Sample::new(false, upper, b"some data");
    sample.source = (*from.ip()).into();
    sample.destination = (*to.ip()).into();
    sample.ports = (from.port(), to.port());
    sample.bytes()
}

fn socket(address: std::net::IpAddr, port: u16) -> SocketAddrV4 {
    match address {
        std::net::IpAddr::V4(address) => SocketAddrV4::new(address, port),
        std::net::IpAddr::V6(_) => panic!("not IPv4"),
    }
}

fn source(headers: &Headers) -> SocketAddrV4 {
    socket(headers.source, headers.ports.unwrap().src)
}

fn destination(headers: &Headers) -> SocketAddrV4 {
    socket(headers.destination, headers.ports.unwrap().dst)
}
