//! What is told of our exit's NAT, and done with it at an operator's word.

use std::net::SocketAddr;

use super::Node;
use crate::nat::{HostView, MappingId, MappingView, NatEvent, Transport};
use crate::time::Instant;

impl Node {
    /// Mappings in the order of their ids, from `first` on; none when we are no exit.
    pub fn nat_mappings_from(&self, first: MappingId) -> impl Iterator<Item = MappingView> {
        self.exit.iter().flat_map(move |exit| exit.nat.iter_from(first))
    }

    /// Inside hosts in the order of their ids, from `first` on.
    pub fn nat_hosts_from(&self, first: u32) -> impl Iterator<Item = HostView> {
        self.exit.iter().flat_map(move |exit| exit.nat.hosts_from(first))
    }

    /// The mapping that has an outside endpoint for all remote ends.
    pub fn nat_mapping_at(&self, transport: Transport, outside: SocketAddr) -> Option<MappingView> {
        self.exit.as_ref()?.nat.mapping_at(transport, outside)
    }

    /// Ends a mapping. False when there is none.
    pub fn remove_nat_mapping(&mut self, now: Instant, id: MappingId) -> bool {
        self.touch();
        self.exit.as_mut().is_some_and(|exit| exit.nat.remove(now, id))
    }

    /// The oldest beginning or end of a mapping that nobody took; there are none unless the NAT's
    /// policy asks for them.
    pub fn take_nat_event(&mut self) -> Option<NatEvent> {
        self.exit.as_mut()?.nat.take_event()
    }

    /// Such events that were lost because nobody took them in time.
    pub fn lost_nat_events(&self) -> u64 {
        self.exit.as_ref().map_or(0, |exit| exit.nat.lost_events())
    }
}
