//! The pure machine: frames in, frames out, all at instants that the caller names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::checksum;
use super::fragment;
use super::histogram::Histogram;
use super::icmp::{self, Complaint};
use super::link::{Link, Lost, Passage};
use super::params::LinkParams;
use super::report::{LinkCounters, Report, SiteCounters, link_name};
use super::routes::Routes;
use super::scenario::{Change, Routers, Scenario, Site};
use super::segment::Cutter;
use super::vnet::{Ip, TCP, VNET_LEN, Vnet, must_stay_whole};
use super::wheel::Wheel;

/// Where frames go.
pub trait Sink {
    /// Writes a frame (offload header and packet) to a site's interface.
    fn write(&mut self, site: usize, frame: &[u8]);
}

/// A frame on its way.
struct Waiting {
    due: u64,
    to: usize,
    /// The link and the number of packets to count; ICMP errors belong to none.
    link: Option<(usize, u64)>,
    frame: Box<[u8]>,
}

/// All sites and links.
pub struct Network {
    sites: BTreeMap<String, Site>,
    /// `filter_source` of each site.
    filtered: Vec<bool>,
    routes: Routes,
    routers: Routers,
    links: Vec<Link>,
    site_counters: Vec<SiteCounters>,
    wheel: Wheel<Waiting>,
    lateness: Histogram,
    bytes_waiting: u64,
    bytes_waiting_max: u64,
    /// Where super-packets are cut.
    scratch: Vec<u8>,
}

impl Network {
    /// A network with nothing under way.
    pub fn new(scenario: &Scenario) -> anyhow::Result<Self> {
        let names: Vec<&String> = scenario.sites.keys().collect();
        let links = scenario.link_table()?.into_iter().enumerate().map(|(index, params)| {
            let (from, to) = (names[index / names.len()], names[index % names.len()]);
            Link::new(params, scenario.seed, from, to)
        });
        Ok(Self {
            filtered: scenario.sites.values().map(|site| site.filter_source).collect(),
            routes: Routes::new(scenario.sites.values()),
            routers: scenario.routers.clone(),
            links: links.collect(),
            site_counters: vec![SiteCounters::default(); names.len()],
            wheel: Wheel::new(),
            lateness: Histogram::new(),
            bytes_waiting: 0,
            bytes_waiting_max: scenario.guard.memory,
            scratch: Vec::new(),
            sites: scenario.sites.clone(),
        })
    }

    /// Applies a change to its links.
    pub(crate) fn apply(&mut self, change: &Change) {
        for &link in &change.links {
            change.set.apply(&mut self.links[link].params);
        }
    }

    /// Replaces a site's extra prefixes. False if there is no such site.
    pub(crate) fn set_prefixes(&mut self, site: &str, prefixes: Vec<IpNet>) -> bool {
        let Some(site) = self.sites.get_mut(site) else { return false };
        site.prefixes = prefixes;
        self.routes = Routes::new(self.sites.values());
        true
    }

    /// The parameters of all links by name.
    pub(crate) fn link_params(&self) -> BTreeMap<String, LinkParams> {
        self.named_links().map(|(name, link)| (name, link.params.clone())).collect()
    }

    /// When the next frame must be written.
    pub fn next_due(&self) -> Option<u64> {
        self.wheel.next_due()
    }

    /// Writes at most `max` frames that are due; false when none is left.
    pub fn deliver_due(&mut self, now: u64, max: usize, sink: &mut dyn Sink) -> bool {
        for _ in 0..max {
            let Some(waiting) = self.wheel.pop_due(now) else { return false };
            self.lateness.record(now.saturating_sub(waiting.due));
            self.bytes_waiting -= waiting.frame.len() as u64;
            if let Some((link, packets)) = waiting.link {
                self.links[link].waiting -= 1;
                self.links[link].counters.delivered += packets;
            }
            sink.write(waiting.to, &waiting.frame);
        }
        true
    }

    /// Takes a frame (offload header and packet) that site `from` sent at `now`.
    pub fn handle_frame(&mut self, now: u64, from: usize, frame: &mut [u8], sink: &mut dyn Sink) {
        self.site_counters[from].read_frames += 1;
        let Some((vnet, packet)) = Vnet::split(frame) else {
            self.site_counters[from].malformed += 1;
            return;
        };
        let Some(ip) = Ip::parse(packet) else {
            self.site_counters[from].malformed += 1;
            return;
        };
        let Some(to) = self.routes.lookup(ip.destination).filter(|to| *to != from) else {
            self.site_counters[from].unroutable += 1;
            return;
        };
        if self.filtered[from] && self.routes.lookup(ip.source) != Some(from) {
            self.site_counters[from].foreign_source += 1;
            return;
        }
        let place = Place { now, from, to, link: from * self.sites.len() + to };
        if self.links[place.link].params.hops > 0 && !self.pass_hops(&place, &ip, packet) {
            return;
        }
        if vnet.is_train() {
            self.handle_train(&place, &vnet, frame, sink);
        } else {
            self.handle_packet(&place, frame, true, sink);
        }
    }

    /// Takes the link's routers from the TTL; false if one of them drops the packet.
    fn pass_hops(&mut self, place: &Place, ip: &Ip, packet: &mut [u8]) -> bool {
        let link = &mut self.links[place.link];
        let hops = link.params.hops;
        if ip.ttl > hops {
            let at = if ip.is_v4() { 8 } else { 7 };
            packet[at] -= hops;
            if ip.is_v4() {
                checksum::write_ipv4(packet);
            }
            return true;
        }
        if !link.params.down {
            link.counters.packets += 1;
            link.counters.bytes += packet.len() as u64;
            link.counters.ttl_expired += 1;
            let delay = link.params.delay.0 * 2 * u64::from(ip.ttl) / (u64::from(hops) + 1);
            self.complain(place, ip, packet, ip.ttl, delay, Complaint::TimeExceeded);
        }
        false
    }

    /// A super-packet: whole if the link treats all its packets alike, else packet by packet.
    fn handle_train(&mut self, place: &Place, vnet: &Vnet, frame: &[u8], sink: &mut dyn Sink) {
        let Some(mut cutter) = Cutter::new(vnet, &frame[VNET_LEN..]) else {
            self.site_counters[place.from].malformed += 1;
            return;
        };
        let link = &mut self.links[place.link];
        let fits = link.params.mtu == 0 || cutter.packet_size() <= link.params.mtu as usize;
        if link.params.down || (fits && !link.params.tells_packets_apart()) {
            let packets = cutter.packets() as u64;
            link.counters.packets += packets;
            link.counters.bytes += cutter.total_size() as u64;
            if link.params.down {
                link.counters.down += packets;
            } else if let Ok(passage) = link.admit(place.now, frame.len() - VNET_LEN) {
                self.send(place, passage.due, packets, frame, sink);
            }
            return;
        }
        link.counters.segmented += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut first = true;
        while cutter.next(&mut scratch) {
            self.handle_packet(place, &mut scratch, first, sink);
            first = false;
        }
        self.scratch = scratch;
    }

    /// One packet. `complain`: an ICMP error may be sent about it.
    fn handle_packet(
        &mut self,
        place: &Place,
        frame: &mut [u8],
        complain: bool,
        sink: &mut dyn Sink,
    ) {
        let size = frame.len() - VNET_LEN;
        let link = &mut self.links[place.link];
        link.counters.packets += 1;
        link.counters.bytes += size as u64;
        if link.params.down {
            link.counters.down += 1;
            return;
        }
        let mtu = link.params.mtu;
        if mtu != 0 && size > mtu as usize {
            self.handle_big(place, frame, complain, sink);
            return;
        }
        self.handle_fitting(place, frame, sink);
    }

    /// A packet larger than the link's MTU.
    fn handle_big(&mut self, place: &Place, frame: &mut [u8], complain: bool, sink: &mut dyn Sink) {
        let Some((vnet, packet)) = Vnet::split(frame) else { return };
        let link = &mut self.links[place.link];
        let LinkParams { mtu, pmtud, hops, delay, .. } = link.params;
        if must_stay_whole(packet) {
            link.counters.too_big += 1;
            if let Some(ip) = Ip::parse(packet).filter(|_| complain && pmtud) {
                let router = hops / 2 + 1;
                self.complain(place, &ip, packet, router, delay.0, Complaint::TooBig(mtu));
            }
            return;
        }
        if checksum::complete(&vnet, packet).is_none() {
            self.site_counters[place.from].malformed += 1;
            return;
        }
        link.counters.fragmented += 1;
        let fragments = fragment::cut(packet, mtu as usize);
        link.counters.packets += fragments.len() as u64 - 1;
        for mut fragment in fragments {
            self.handle_fitting(place, &mut fragment, sink);
        }
    }

    /// A packet that fits the link: the models decide.
    fn handle_fitting(&mut self, place: &Place, frame: &mut [u8], sink: &mut dyn Sink) {
        let link = &mut self.links[place.link];
        let Passage { due, twice, corrupt, held_back } =
            match link.admit(place.now, frame.len() - VNET_LEN) {
                Ok(passage) => passage,
                Err(reason) => {
                    match reason {
                        Lost::Loss => link.counters.loss += 1,
                        Lost::BurstLoss => link.counters.burst_loss += 1,
                        Lost::QueueFull => link.counters.queue_full += 1,
                    }
                    return;
                }
            };
        link.counters.reordered += u64::from(held_back);
        link.counters.duplicated += u64::from(twice);
        if twice {
            self.send(place, due, 1, frame, sink);
        }
        if corrupt {
            self.corrupt(place.link, frame);
        }
        self.send(place, due, 1, frame, sink);
    }

    /// Flips one bit behind the IP header, or in the payload alone if the checksum is to be mended.
    fn corrupt(&mut self, link: usize, frame: &mut [u8]) {
        let Some((vnet, packet)) = Vnet::split(frame) else { return };
        let Some(ip) = Ip::parse(packet) else { return };
        if checksum::complete(&vnet, packet).is_none() {
            return;
        }
        let link = &mut self.links[link];
        let mended = link.params.corrupt_mended.then(|| checksum::transport(packet, &ip)).flatten();
        let start = match mended {
            Some((l4, TCP)) => (l4 + usize::from(packet[l4 + 12] >> 4) * 4).min(packet.len()),
            Some((l4, _)) => l4 + 8,
            None => ip.header,
        };
        if start < packet.len() {
            let bit = link.bits.below((packet.len() - start) as u64 * 8) as usize;
            packet[start + bit / 8] ^= 1 << (bit % 8);
            link.counters.corrupted += 1;
        }
        if let Some((l4, protocol)) = mended {
            checksum::write_transport(packet, l4, protocol);
        }
        // The checksum is whole now: nothing is left to offload.
        frame[..VNET_LEN].fill(0);
    }

    /// Writes a frame at once if it is due and none waits before it, else lets it wait.
    fn send(&mut self, place: &Place, due: u64, packets: u64, frame: &[u8], sink: &mut dyn Sink) {
        let link = &mut self.links[place.link];
        if due <= place.now && link.waiting == 0 {
            link.counters.delivered += packets;
            sink.write(place.to, frame);
        } else if self.bytes_waiting + frame.len() as u64 > self.bytes_waiting_max {
            link.counters.memory_full += packets;
        } else {
            link.waiting += 1;
            self.wait(due, place.to, Some((place.link, packets)), frame.into());
        }
    }

    /// Sends an ICMP error back from the link's router number `number`.
    fn complain(
        &mut self,
        place: &Place,
        ip: &Ip,
        packet: &[u8],
        number: u8,
        delay: u64,
        complaint: Complaint,
    ) {
        let host = ((place.to as u32 + 1) << 8) | u32::from(number);
        let router: IpAddr = match ip.source {
            IpAddr::V4(_) => Ipv4Addr::from(u32::from(self.routers.v4) | host).into(),
            IpAddr::V6(_) => Ipv6Addr::from(u128::from(self.routers.v6) | u128::from(host)).into(),
        };
        let room = self.bytes_waiting < self.bytes_waiting_max;
        if let Some(frame) = icmp::error(packet, ip, router, complaint).filter(|_| room) {
            self.links[place.link].counters.icmp_errors += 1;
            self.wait(place.now + delay, place.from, None, frame.into());
        }
    }

    fn wait(&mut self, due: u64, to: usize, link: Option<(usize, u64)>, frame: Box<[u8]>) {
        self.bytes_waiting += frame.len() as u64;
        self.wheel.insert(due, Waiting { due, to, link, frame });
    }

    fn named_links(&self) -> impl Iterator<Item = (String, &Link)> {
        let n = self.sites.len();
        let names: Vec<&String> = self.sites.keys().collect();
        let real = self.links.iter().enumerate().filter(move |(index, _)| index / n != index % n);
        real.map(move |(index, link)| (link_name(names[index / n], names[index % n]), link))
    }

    /// The counters so far; what only the shell knows is left at zero.
    pub(crate) fn report(&self) -> Report {
        let seen = self.named_links().filter(|(_, link)| link.counters != LinkCounters::default());
        Report {
            lateness: self.lateness.summary(),
            sites: self.sites.keys().cloned().zip(self.site_counters.iter().cloned()).collect(),
            links: seen.map(|(name, link)| (name, link.counters.clone())).collect(),
            ..Report::default()
        }
    }
}

/// Which link a packet is on, and when it entered.
struct Place {
    now: u64,
    from: usize,
    to: usize,
    link: usize,
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
