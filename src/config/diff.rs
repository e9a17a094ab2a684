//! What a reload changes, and whether it can be applied to a running gateway.

use std::collections::BTreeMap;

use super::types::{Config, InternetVia, Peer};
use crate::flow::ExitPoint;
use crate::id::PeerIndex;

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path of the key, with a peer's name for its index, like `peers.utah.endpoints`.
    pub key: String,
    /// True if only a restart applies it.
    pub needs_restart: bool,
}

/// The keys that a reload applies: these and all inside them. The rest needs a restart.
pub(super) const RELOADED: [&str; 8] = [
    "classes",
    "internet.via",
    "internet.via_ipv6",
    "log",
    "peers.*.egress",
    "peers.*.relay",
    "relay",
    "routing",
];

impl Config {
    /// What would change if `new` took the place of `self`, in alphabetical order. Also returns
    /// `new` with the peers in our order, as it could take our place.
    pub fn diff(&self, new: &Self) -> (Vec<Change>, Self) {
        let new = new.in_order_of(self);
        let mut keys = Vec::new();
        self.diff_own(&new, &mut keys);
        self.diff_policy(&new, &mut keys);
        self.diff_peers(&new, &mut keys);
        keys.sort();
        let change = |key: String| Change { needs_restart: !is_reloaded(&key), key };
        (keys.into_iter().map(change).collect(), new)
    }

    /// Sections about this machine.
    fn diff_own(&self, new: &Self, keys: &mut Vec<String>) {
        let mut note = |changed: bool, key: &str| {
            if changed {
                keys.push(key.to_owned());
            }
        };
        let (a, b) = (&self.node, &new.node);
        note(a.name != b.name, "node.name");
        note(a.private_key != b.private_key, "node.private_key_file");
        note(a.preshared_key != b.preshared_key, "node.preshared_key_file");
        note(a.state_dir != b.state_dir, "node.state_dir");
        note(self.control != new.control, "control.socket");
        note(self.http != new.http, "http.listen");
        note(self.tun.name != new.tun.name, "tun.name");
        note(self.tun.address != new.tun.address, "tun.address");
        note(self.tun.mtu != new.tun.mtu, "tun.mtu");
        let (a, b) = (&self.lan, &new.lan);
        note(a.interfaces != b.interfaces, "lan.interfaces");
        note(a.networks != b.networks, "lan.networks");
        note(a.bypass != b.bypass, "lan.bypass");
        note(a.on_failure != b.on_failure, "lan.on_failure");
        note(self.uplinks != new.uplinks, "uplinks");
    }

    /// Sections about traffic. References to peers are compared by name.
    fn diff_policy(&self, new: &Self, keys: &mut Vec<String>) {
        let mut note = |changed: bool, key: &str| {
            if changed {
                keys.push(key.to_owned());
            }
        };
        match (&self.egress, &new.egress) {
            (Some(a), Some(b)) => {
                note(a.mode != b.mode, "egress.mode");
                note((&a.pool, &a.pool_ipv6) != (&b.pool, &b.pool_ipv6), "egress.pool");
                note(a.outside != b.outside, "egress.outside");
                note(a.ports != b.ports, "egress.ports");
                note(self.names(&a.allowed) != new.names(&b.allowed), "egress.for");
                note(a.deny != b.deny, "egress.deny");
                note(a.allow != b.allow, "egress.allow");
            }
            (a, b) => note(a.is_some() != b.is_some(), "egress.enabled"),
        }
        let (a, b) = (&self.relay, &new.relay);
        note(self.names(&a.allowed) != new.names(&b.allowed), "relay.for");
        note(a.rate != b.rate, "relay.rate");
        note(a.refused != b.refused, "relay.refuse");
        note(!self.same_classes(new), "classes");
        note(self.exit_names(&self.internet) != new.exit_names(&new.internet), "internet.via");
        let (a, b) = (&self.internet_ipv6, &new.internet_ipv6);
        note(self.exit_names(a) != new.exit_names(b), "internet.via_ipv6");
        note(self.servers != new.servers, "internet.servers");
        note(self.nat64 != new.nat64, "internet.nat64");
        note(self.probing != new.probing, "probing.budget");
        note(self.routing != new.routing, "routing");
        note(self.flows != new.flows, "flows");
        note(self.nat != new.nat, "nat");
        note(self.nat_log != new.nat_log, "nat_log");
        note(self.tunnel != new.tunnel, "tunnel.suites");
        note(self.log != new.log, "log");
    }

    fn diff_peers(&self, new: &Self, keys: &mut Vec<String>) {
        let by_name = |config: &Self| -> BTreeMap<String, Peer> {
            config.peers.iter().map(|peer| (peer.name.clone(), peer.clone())).collect()
        };
        let (old, mut new) = (by_name(self), by_name(new));
        for (name, a) in &old {
            let Some(b) = new.remove(name) else {
                keys.push(format!("peers.{name}"));
                continue;
            };
            let mut note = |changed: bool, key: &str| {
                if changed {
                    keys.push(format!("peers.{name}.{key}"));
                }
            };
            note(a.public_key != b.public_key, "public_key");
            note(a.endpoints != b.endpoints, "endpoints");
            note(a.address != b.address, "address");
            note(a.networks != b.networks, "networks");
            note(a.relay != b.relay, "relay");
            note(a.egress != b.egress, "egress");
        }
        keys.extend(new.into_keys().map(|name| format!("peers.{name}")));
    }

    /// Classes are compared as they are written: by the names of what they refer to.
    fn same_classes(&self, new: &Self) -> bool {
        let written = |config: &Self| serde_json::to_value(config).map(|mut c| c["classes"].take());
        written(self).ok() == written(new).ok()
    }

    fn names(&self, peers: &[PeerIndex]) -> Vec<&str> {
        let mut names: Vec<_> = peers.iter().filter_map(|index| self.peer_name(*index)).collect();
        names.sort_unstable();
        names
    }

    fn exit_names(&self, via: &InternetVia) -> Vec<&str> {
        match via {
            InternetVia::Auto => vec!["auto"],
            InternetVia::Ordered(exits) => exits
                .iter()
                .filter_map(|exit| match exit {
                    ExitPoint::Local => Some("local"),
                    ExitPoint::Peer(index) => self.peer_name(*index),
                })
                .collect(),
        }
    }
}

/// Whether a reload applies a change of `key`.
pub(super) fn is_reloaded(key: &str) -> bool {
    let key: Vec<_> = key.split('.').collect();
    RELOADED.iter().any(|reloaded| {
        let reloaded: Vec<_> = reloaded.split('.').collect();
        reloaded.len() <= key.len()
            && reloaded.iter().zip(&key).all(|(pattern, part)| *pattern == "*" || pattern == part)
    })
}
