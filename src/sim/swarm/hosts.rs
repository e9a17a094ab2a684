//! What the hosts of a world send.

use std::net::IpAddr;

use super::ledger::server;
use super::world::World;
use crate::packet::Vnet;
use crate::sim::host::{self, Endpoint, LEN_MIN};
use crate::sim::{Frame, Mesh};

impl World<'_> {
    /// Some packets of some hosts, now and then.
    pub(super) fn traffic(&mut self) {
        if !self.rng.chance(self.plan.traffic) {
            return;
        }
        let from = self.rng.below(u32::from(self.plan.sites)) as u8;
        let burst = self.rng.chance(self.plan.bursts);
        let count = if burst { 2 + self.rng.below(11) } else { 1 };
        let mut ends = self.ends(from);
        let mut frames = Vec::new();
        for _ in 0..count {
            if self.rng.chance(0.5) {
                ends = self.ends(from);
            }
            let small = burst && self.rng.chance(0.7);
            let len = LEN_MIN + self.rng.below(if small { 200 } else { 1_150 }) as usize;
            let packets = if burst && self.rng.chance(0.2) { 2 + self.rng.below(7) } else { 1 };
            frames.push(self.frame(from, ends, packets, len));
        }
        self.simulator.send_frames(usize::from(from), frames);
    }

    /// Two ends of a conversation that a host of the site begins.
    fn ends(&mut self, from: u8) -> (Endpoint, To) {
        let ipv6 = self.plan.ipv6 && self.rng.chance(0.5);
        let source = self.endpoint(from, ipv6);
        if self.plan.exits && self.rng.chance(0.3) {
            return (source, To::Server);
        }
        let sites = u32::from(self.plan.sites);
        let to = (u32::from(from) + 1 + self.rng.below(sites - 1)) % sites;
        (source, To::Host(to as u8, self.endpoint(to as u8, ipv6)))
    }

    /// Packets of a host, all alike, as one frame.
    fn frame(&mut self, from: u8, ends: (Endpoint, To), packets: u32, len: usize) -> Frame {
        let (source, to) = ends;
        let ids: Vec<_> = (0..packets)
            .map(|_| match to {
                To::Host(site, end) => self.ledger.for_host(source, end, usize::from(site)),
                To::Server => self.ledger.for_internet(source, usize::from(from)),
            })
            .collect();
        let destination = match to {
            To::Host(_, end) => end,
            To::Server => server(source),
        };
        match ids[..] {
            [id] => (host::packet(source, destination, id, len), Vnet::default()),
            _ => host::train(source, destination, &ids, len),
        }
    }

    fn endpoint(&mut self, site: u8, ipv6: bool) -> Endpoint {
        let host = 1 + self.rng.below(8) as u8;
        (address(site, host, ipv6), 1_000 + self.rng.below(8) as u16)
    }

    /// A packet to another site, as small as they come: its number.
    pub(super) fn write_to(&mut self, from: u8, to: u8) -> u64 {
        let ipv6 = self.plan.ipv6 && self.rng.chance(0.5);
        let (source, destination) = (self.endpoint(from, ipv6), self.endpoint(to, ipv6));
        let site = usize::from(to);
        let id = self.ledger.for_host(source, destination, site);
        let packet = host::packet(source, destination, id, LEN_MIN);
        self.simulator.send(usize::from(from), &packet);
        id
    }

    /// A packet to the Internet from a host that sends nothing else: its number.
    pub(super) fn write_to_server(&mut self, from: u8) -> u64 {
        let ipv6 = self.plan.ipv6 && self.rng.chance(0.5);
        let source = (address(from, 9, ipv6), 3_000);
        let id = self.ledger.for_internet(source, usize::from(from));
        let packet = host::packet(source, server(source), id, LEN_MIN);
        self.simulator.send(usize::from(from), &packet);
        id
    }
}

/// Where a packet goes.
#[derive(Clone, Copy)]
enum To {
    /// To a host behind another site.
    Host(u8, Endpoint),
    /// To the Internet.
    Server,
}

pub(super) fn address(site: u8, host: u8, ipv6: bool) -> IpAddr {
    if ipv6 { Mesh::host6(site, host).into() } else { Mesh::host(site, host).into() }
}
