//! Changes of the outside: an address that is renumbered, and one that cannot be used for a while.

use std::net::{IpAddr, SocketAddr};

use super::end::wide;
use super::mapping::{MappingId, MappingView};
use super::pool::Place;
use super::table::Table;
use super::{Nat, Transport};

impl Nat {
    /// An outside address is another one of its family from now on; its mappings keep their ports.
    /// False when it is not in the pool, or the new one has another place there.
    pub fn rename(&mut self, old: IpAddr, new: IpAddr) -> bool {
        old.is_ipv4() == new.is_ipv4() && self.table.pool.rename(wide(old), wide(new))
    }

    /// The mapping that has an outside endpoint for all remote ends.
    pub fn mapping_at(&self, transport: Transport, outside: SocketAddr) -> Option<MappingView> {
        let address = self.table.pool.index_of(wide(outside.ip()))?;
        let place = Place { address, transport, port: outside.port() };
        let id = self.table.pool.mapping(place)?;
        self.table.iter_from(MappingId(id)).next().filter(|mapping| mapping.id.0 == id)
    }

    /// Whether new mappings may get an outside address. Hosts that have a closed one get another
    /// for their new mappings, if there is one; their old mappings stay as they are.
    pub fn set_usable(&mut self, address: IpAddr, usable: bool) {
        if let Some(index) = self.table.pool.index_of(wide(address)) {
            self.table.pool.set_open(index, usable);
        }
    }
}

impl Table {
    /// Gives a host whose outside address is closed another one.
    pub(super) fn move_host(&mut self, id: u32, transport: Transport) {
        let Some(&host) = self.hosts.get(id) else { return };
        if self.pool.is_open(host.address) {
            return;
        }
        let chosen = self.pool.choose(host.outside_v4, transport, false, &mut self.rng);
        if let (Some(address), Some(host)) = (chosen, self.hosts.get_mut(id)) {
            host.address = address;
        }
    }
}
