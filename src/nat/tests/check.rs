//! What must be true of the NAT's tables at any time.

use std::collections::BTreeSet;

use super::super::mapping::{Kind, Mapping, MappingId};
use super::super::session::{Session, State};
use super::super::table::Table;
use super::super::{Nat, PerTransport, Realm, Transport};

impl Nat {
    /// Panics when the tables contradict each other.
    pub(super) fn check(&self) {
        self.table.check();
    }
}

impl Table {
    /// Panics when the tables contradict each other.
    fn check(&self) {
        let mut outside = BTreeSet::new();
        let (mut sessions, mut timed) = (0, 0);
        for (id, mapping) in self.mappings.iter_from(0) {
            let end = self.outside(mapping);
            let transport = mapping.inside.transport;
            let alone = mapping.kind != Kind::Shared && self.is_ordinary(mapping.place());
            assert!(!alone || outside.insert((transport, end.socket())), "shared endpoint");
            assert_eq!(self.by_inside(&mapping.inside, mapping.remote), Some(MappingId(id)));
            let found = self.by_outside(transport, end, mapping.remote);
            assert_eq!(found, Some(MappingId(id)));
            let host = self.hosts.get(mapping.host).unwrap();
            assert_eq!(host.address, mapping.address);
            let (mut count, mut confirmed, mut next) = (0, 0, mapping.sessions);
            while let Some(session) = self.sessions.get(next) {
                assert_eq!(self.session(MappingId(id), session.remote), Some(next));
                assert_eq!(session.mapping, id);
                count += 1;
                confirmed += u32::from(session.confirmed);
                assert!(!session.confirmed || matches!(session.state, State::Tcp(_)));
                next = session.next;
            }
            assert_eq!((count, confirmed), (mapping.session_count, mapping.confirmed));
            let dynamic = matches!(mapping.kind, Kind::Dynamic | Kind::Shared);
            if dynamic {
                assert_eq!(transport == Transport::Tcp, confirmed > 0);
            }
            sessions += count as usize;
            let leased = mapping.kind == Kind::Leased;
            timed += usize::from(leased || dynamic && transport != Transport::Tcp);
            assert_eq!(leased, self.leases.contains_key(&id));
        }
        assert_eq!(sessions, self.sessions.len());
        assert_eq!(sessions, self.by_remote.len());
        assert_eq!(sessions, self.session_timers.len());
        assert_eq!(timed, self.mapping_timers.len());
        assert_eq!(self.mappings.len(), self.by_inside.len());
        assert_eq!(self.hosts.len(), self.by_host.len());
        let held = self.hosts.iter_from(0).map(|(_, host)| host.mappings as usize).sum::<usize>();
        assert_eq!(held, self.mappings.len());
        let held = self.hosts.iter_from(0).map(|(_, host)| host.sessions as usize).sum::<usize>();
        assert_eq!(held, sessions);
        let realms: BTreeSet<_> = self.hosts.iter_from(0).map(|(_, host)| host.realm).collect();
        let of = |realm: &Realm| self.realms.sessions_of(*realm) as usize;
        assert_eq!(realms.iter().map(of).sum::<usize>(), sessions);
        let held = realms.into_iter().map(|realm| self.realms.of(realm) as usize).sum::<usize>();
        assert_eq!(held, self.mappings.len());
        for (_, host) in self.hosts.iter_from(0) {
            let PerTransport { tcp, udp, icmp, other } = host.by_transport;
            assert_eq!(tcp + udp + icmp + other, host.mappings);
        }
        assert!(self.pool.used() >= outside.len() as u64);
    }

    /// Bytes of a mapping with its places in index, wheel and port space, the index half full.
    pub(super) const BYTES_PER_MAPPING: usize = size_of::<Option<Mapping>>() + 16 + 32 + 4 + 4;
    pub(super) const BYTES_PER_SESSION: usize = size_of::<Option<Session>>() + 16 + 32 + 4;
}
