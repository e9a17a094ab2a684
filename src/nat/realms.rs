//! What the hosts of each realm have together: mappings and sessions, or ports that rest after them.

use super::Transport;
use super::config::Realm;
use super::mapping::InsideEnd;

/// TCP, UDP, ICMP and others; of each the outside families.
const KINDS: usize = 8;

/// Numbers by realm, kind of transport and outside family.
#[derive(Debug)]
pub(super) struct Realms {
    /// By the realm's number. Memory full of plain zeros is not touched when it is reserved.
    counts: Vec<[u32; KINDS]>,
    /// Sessions, likewise.
    sessions: Vec<u32>,
}

impl Realms {
    pub(super) fn new() -> Self {
        Self { counts: vec![[0; KINDS]; 1 << 16], sessions: vec![0; 1 << 16] }
    }

    /// Whether the realm of an inside end may have one more mapping of its kind, with so many ports
    /// and so many mappings at most.
    pub(super) fn has_room(&self, inside: &InsideEnd, ports: u64, all: u64) -> bool {
        let Some(counts) = self.counts.get(usize::from(inside.realm.0)) else { return false };
        let own = self.of_kind(inside);
        let within = u64::from(own) < ports || !inside.transport.has_ports();
        within && counts.iter().map(|&count| u64::from(count)).sum::<u64>() < all
    }

    /// Those of the same realm, kind and family.
    pub(super) fn of_kind(&self, inside: &InsideEnd) -> u32 {
        let counts = self.counts.get(usize::from(inside.realm.0));
        counts.map_or(0, |counts| counts[kind(inside.transport, inside.outside_v4)])
    }

    pub(super) fn add(&mut self, realm: Realm, transport: Transport, v4: bool) {
        if let Some(counts) = self.counts.get_mut(usize::from(realm.0)) {
            counts[kind(transport, v4)] += 1;
        }
    }

    pub(super) fn take_off(&mut self, realm: Realm, transport: Transport, v4: bool) {
        if let Some(counts) = self.counts.get_mut(usize::from(realm.0)) {
            counts[kind(transport, v4)] -= 1;
        }
    }

    pub(super) fn sessions_of(&self, realm: Realm) -> u32 {
        self.sessions.get(usize::from(realm.0)).copied().unwrap_or_default()
    }

    pub(super) fn add_session(&mut self, realm: Realm) {
        if let Some(sessions) = self.sessions.get_mut(usize::from(realm.0)) {
            *sessions += 1;
        }
    }

    pub(super) fn take_off_session(&mut self, realm: Realm) {
        if let Some(sessions) = self.sessions.get_mut(usize::from(realm.0)) {
            *sessions -= 1;
        }
    }

    /// Mappings of a realm.
    #[cfg(test)]
    pub(super) fn of(&self, realm: Realm) -> u32 {
        self.counts[usize::from(realm.0)].iter().sum()
    }
}

const fn kind(transport: Transport, v4: bool) -> usize {
    let class = match transport {
        Transport::Tcp => 0,
        Transport::Udp | Transport::UdpLite => 1,
        Transport::Icmp => 2,
        Transport::Other(_) => 3,
    };
    class * 2 + v4 as usize
}
