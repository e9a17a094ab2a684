//! The flow table.

use std::net::IpAddr;

use super::idle::Progress;
use super::key::{halves, octets};
use super::{ClassIndex, FlowKey, IdleTimes};
use crate::id::PeerIndex;
use crate::path::Path;
use crate::rng::Rng;
use crate::table::{Arena, HashIndex, HashSeed};
use crate::telemetry::{DropReason, Tally};
use crate::time::Instant;
use crate::wheel::Wheel;

/// Silence after which a flow counts as starting again.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// How much the table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows in all.
    pub max_flows: u32,
    /// Flows of one host.
    pub max_per_host: u32,
    /// When they are forgotten.
    pub idle: IdleTimes,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self { max_flows: 262_144, max_per_host: 16_384, idle: IdleTimes::default() }
    }
}

/// Names a flow as long as it lives; afterwards the id may name another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// Where a flow leaves the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Egress {
    /// Not decided yet.
    #[default]
    Undecided,
    /// At our own site.
    Local,
    /// At the site of a peer.
    Peer(PeerIndex),
    /// To the Internet, from here.
    LocalExit,
    /// To the Internet, from a peer.
    PeerExit(PeerIndex),
}

/// Which way a packet goes in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As the packet that began the flow.
    Forward,
    /// Back.
    Reply,
}

/// What the table knows of a flow. The public fields without a word on who sets them are the node's
/// to set.
#[derive(Clone, Debug)]
pub struct Flow {
    /// As seen at the ingress.
    pub key: FlowKey,
    /// Its class.
    pub class: ClassIndex,
    /// Where it leaves the overlay.
    pub egress: Egress,
    /// The path that it stays on while its class is spread over several.
    pub path: Option<Path>,
    /// Under which policy its class was found; zero before.
    pub policy: u32,
    /// Packets since the flow was last silent for a second or more, this one included (at most
    /// 255). Set by [`FlowTable::record`].
    pub burst: u8,
    /// When the first packet came. Set by the table.
    pub first_seen: Instant,
    /// When the latest packet came. Set by the table.
    pub last_seen: Instant,
    /// What went with it. Set by [`FlowTable::record`].
    pub forward: Tally,
    /// What came back. Set by [`FlowTable::record`].
    pub reply: Tally,
    progress: Progress,
    host: u32,
}

impl Flow {
    /// True when something came back.
    pub fn is_replied(&self) -> bool {
        self.progress.is_replied()
    }
}

/// What [`FlowTable::lookup_or_admit`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The flow.
    pub id: FlowId,
    /// True when it was entered just now: class and egress are still to be set.
    pub is_new: bool,
}

/// How many flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// In the table.
    pub active: u64,
    /// Entered since the start.
    pub created: u64,
    /// Removed since the start, for any reason.
    pub expired: u64,
}

/// A host with flows, for its share.
#[derive(Clone, Copy, Debug)]
struct Host {
    address: IpAddr,
    flows: u32,
}

/// All flows that our hosts began, by key. About 170 bytes for each, its part of the index and of
/// the timer wheel included.
#[derive(Debug)]
pub struct FlowTable {
    limits: FlowLimits,
    seed: HashSeed,
    flows: Arena<Flow>,
    by_key: HashIndex,
    hosts: Arena<Host>,
    by_address: HashIndex,
    timers: Wheel,
    created: u64,
    expired: u64,
}

impl FlowTable {
    /// An empty table. `now` is the earliest time it will be told.
    pub fn new(now: Instant, limits: FlowLimits, rng: &mut Rng) -> Self {
        let capacity = limits.max_flows as usize;
        Self {
            limits,
            seed: HashSeed::new(rng),
            flows: Arena::new(capacity),
            by_key: HashIndex::new(capacity),
            // Every host in it has a flow, so there cannot be more hosts than flows.
            hosts: Arena::new(capacity),
            by_address: HashIndex::new(capacity),
            timers: Wheel::new(now, capacity),
            created: 0,
            expired: 0,
        }
    }

    /// The flow with this key.
    pub fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        let flows = &self.flows;
        self.by_key
            .find(self.seed.hash(key.words()), |id| flows.get(id).is_some_and(|f| f.key == *key))
            .map(FlowId)
    }

    /// The flow with this key; if there is none, a new one on the account of `host` (normally the
    /// key's source). [`DropReason::FlowLimit`] when the table is full or the host has its share.
    pub fn lookup_or_admit(
        &mut self,
        now: Instant,
        key: FlowKey,
        host: IpAddr,
    ) -> Result<Lookup, DropReason> {
        if let Some(id) = self.lookup(&key) {
            return Ok(Lookup { id, is_new: false });
        }
        self.admit(now, key, host).map(|id| Lookup { id, is_new: true })
    }

    fn admit(&mut self, now: Instant, key: FlowKey, host: IpAddr) -> Result<FlowId, DropReason> {
        if self.flows.is_full() {
            return Err(DropReason::FlowLimit);
        }
        let host = self.charge(host)?;
        let flow = Flow {
            key,
            class: ClassIndex::default(),
            egress: Egress::default(),
            path: None,
            policy: 0,
            burst: 0,
            first_seen: now,
            last_seen: now,
            forward: Tally::default(),
            reply: Tally::default(),
            progress: Progress::default(),
            host,
        };
        let idle = flow.progress.idle_time(key.protocol, &self.limits.idle);
        let id = self.flows.insert(flow).ok_or(DropReason::FlowLimit)?;
        self.by_key.insert(self.seed.hash(key.words()), id);
        self.timers.schedule(id, now + idle);
        self.created += 1;
        Ok(FlowId(id))
    }

    /// Counts one more flow for the host.
    fn charge(&mut self, address: IpAddr) -> Result<u32, DropReason> {
        let hash = self.host_hash(address);
        let hosts = &self.hosts;
        let known =
            self.by_address.find(hash, |h| hosts.get(h).is_some_and(|h| h.address == address));
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.hosts.insert(Host { address, flows: 0 });
                let id = id.ok_or(DropReason::FlowLimit)?;
                self.by_address.insert(hash, id);
                id
            }
        };
        let host = self.hosts.get_mut(id).ok_or(DropReason::FlowLimit)?;
        if host.flows >= self.limits.max_per_host.max(1) {
            return Err(DropReason::FlowLimit);
        }
        host.flows += 1;
        Ok(id)
    }

    fn host_hash(&self, address: IpAddr) -> u64 {
        let [high, low] = halves(octets(address));
        self.seed.hash([high, low, u64::from(address.is_ipv6())])
    }

    /// Counts packets of a flow and keeps it alive. `tcp_flags` is zero for all but TCP. Called
    /// before the packet's path is chosen, [`Flow::burst`] includes it.
    pub fn record(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        tally: Tally,
        tcp_flags: u8,
    ) {
        let Some(flow) = self.flows.get_mut(id.0) else { return };
        let before = flow.progress.idle_time(flow.key.protocol, &self.limits.idle);
        flow.progress.note(direction, tcp_flags);
        let after = flow.progress.idle_time(flow.key.protocol, &self.limits.idle);
        if now - flow.last_seen >= SILENCE {
            flow.burst = 0;
        }
        flow.last_seen = flow.last_seen.max(now);
        match direction {
            Direction::Forward => {
                let packets = u8::try_from(tally.packets).unwrap_or(u8::MAX);
                flow.burst = flow.burst.saturating_add(packets);
                flow.forward.add(tally.packets, tally.bytes);
            }
            Direction::Reply => flow.reply.add(tally.packets, tally.bytes),
        }
        // A deadline that moved later is found when the timer fires.
        if after < before {
            self.timers.schedule(id.0, now + after);
        }
    }

    /// The flow with this id.
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.0)
    }

    /// The flow with this id, for the node to set what it decided.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id.0)
    }

    /// Forgets a flow.
    pub fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(id.0)?;
        self.by_key.remove(self.seed.hash(flow.key.words()), id.0);
        self.timers.cancel(id.0);
        self.expired += 1;
        if let Some(host) = self.hosts.get_mut(flow.host) {
            host.flows -= 1;
            if host.flows == 0 {
                let address = host.address;
                self.hosts.remove(flow.host);
                self.by_address.remove(self.host_hash(address), flow.host);
            }
        }
        Some(flow)
    }

    /// Forgets flows that were idle for long enough, in at most `budget` steps. Returns the steps
    /// left; none left means that it should be called again soon.
    pub fn expire(&mut self, now: Instant, mut budget: usize) -> usize {
        while let Some(id) = self.timers.pop(now, &mut budget) {
            let Some(flow) = self.flows.get(id) else { continue };
            let idle = flow.progress.idle_time(flow.key.protocol, &self.limits.idle);
            let deadline = flow.last_seen + idle;
            if deadline > now {
                self.timers.schedule(id, deadline);
            } else {
                self.remove(FlowId(id));
            }
        }
        budget
    }

    /// When [`FlowTable::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// How many flows there are and were.
    pub fn counts(&self) -> FlowCounts {
        FlowCounts { active: self.flows.len() as u64, created: self.created, expired: self.expired }
    }

    /// Flows in the order of their ids, beginning with `first`: a page is what the caller takes,
    /// the next one begins behind its last id.
    pub fn iter_from(&self, first: FlowId) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.flows.iter_from(first.0).map(|(id, flow)| (FlowId(id), flow))
    }
}

#[cfg(test)]
mod tests;
