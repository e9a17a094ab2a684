//! `peers`: the other nodes, and references to them by name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::{Claims, Kind, is_ordinary};
use super::node::node_name;
use super::uplinks::networks;
use super::{hint, items, required, word};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawConfig, RawPeer};
use crate::config::types::{NodeSection, Peer, Uplink};
use crate::config::units::Endpoint;
use crate::id::{NodeId, PeerIndex, PublicKey, UplinkIndex};
use crate::routing::Router;

/// An advertisement has room for so many nodes.
const PEERS_MAX: usize = 400;

/// One entry for each peer of the file, none for a faulty one.
pub(super) fn peers(
    raw: &At<RawConfig>,
    node: Option<&NodeSection>,
    claims: &mut Claims,
    faults: &mut Faults,
) -> Vec<Option<Peer>> {
    let Some(list) = &raw.value.peers else {
        let what = "list the other nodes; `peers: []` for a node that is alone yet";
        faults.missing(raw.position, "peers", what);
        return Vec::new();
    };
    if list.value.len() > PEERS_MAX {
        let count = list.value.len();
        faults.at(list, format!("{count} peers are too many: at most {PEERS_MAX} are possible"));
    }
    let peers: Vec<_> = list.value.iter().map(|at| peer(at, claims, faults)).collect();
    check_names(raw, &list.value, faults);
    check_keys(&list.value, node, faults);
    peers
}

fn peer(section: &At<RawPeer>, claims: &mut Claims, faults: &mut Faults) -> Option<Peer> {
    let raw = &section.value;
    let what = "write the peer's `node.name`";
    let name =
        required(section, &raw.name, "name", what, faults).and_then(|at| node_name(at, faults));
    let what = "write what `rongate pubkey` prints on the peer";
    let public_key: Option<PublicKey> =
        required(section, &raw.public_key, "public_key", what, faults)
            .and_then(|at| word(at, faults));
    let listed = items(&raw.endpoints);
    if let Some(at) = listed.get(UplinkIndex::MAX_COUNT) {
        faults.at(at, format!("a peer has at most {} endpoints", UplinkIndex::MAX_COUNT));
    }
    let endpoints = listed.iter().filter_map(|at| word(at, faults)).collect();
    let address: Vec<IpAddr> =
        items(&raw.address).iter().filter_map(|at| peer_address(at, claims, faults)).collect();
    let networks = networks(items(&raw.networks), claims, faults);
    let egress = raw.egress.as_ref().is_some_and(|at| at.value);
    if items(&raw.address).is_empty() && items(&raw.networks).is_empty() && !egress {
        let relay_only = raw.relay.as_ref().is_some_and(|at| at.value);
        if !relay_only {
            let what = "write its address inside the overlay, like `10.77.0.2`";
            faults.missing(section.position, &section.key_of("address"), what);
        }
    }
    let public_key = public_key?;
    Some(Peer {
        name: name?,
        id: public_key.node_id(),
        public_key,
        endpoints,
        address,
        networks,
        relay: raw.relay.as_ref().is_some_and(|at| at.value),
        egress,
    })
}

fn peer_address(at: &At<String>, claims: &mut Claims, faults: &mut Faults) -> Option<IpAddr> {
    let address = match (at.value.parse::<IpAddr>(), at.value.parse::<IpNet>()) {
        (Ok(address), _) => address,
        (Err(_), Ok(net)) => {
            let message = format!(
                "`{net}` has a prefix length: write `{}`; what lies behind the peer goes into \
                 `networks`",
                net.addr()
            );
            faults.at(at, message);
            return None;
        }
        (Err(_), Err(_)) => {
            let value = at.value.escape_debug();
            faults.at(at, format!("`{value}` is not an address: write one like `10.77.0.2`"));
            return None;
        }
    };
    if !is_ordinary(address) {
        faults.at(at, format!("`{address}` is in a special range: choose a unicast address"));
        return None;
    }
    claims.add(IpNet::from(address), Kind::Address, at);
    Some(address)
}

fn check_names(raw: &At<RawConfig>, list: &[At<RawPeer>], faults: &mut Faults) {
    let own = raw.value.node.as_ref().and_then(|section| section.value.name.as_ref());
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    if let Some(own) = own {
        names.insert(&own.value, &own.key);
    }
    for at in list.iter().filter_map(|section| section.value.name.as_ref()) {
        if let Some(first) = names.get(at.value.as_str()) {
            faults.at(at, format!("the name `{}` is taken by `{first}`", at.value));
        } else {
            names.insert(&at.value, &at.key);
        }
    }
}

/// Public keys must differ, and so must the node ids that follow from them.
fn check_keys(list: &[At<RawPeer>], node: Option<&NodeSection>, faults: &mut Faults) {
    let mut ids: BTreeMap<NodeId, (PublicKey, String)> = BTreeMap::new();
    if let Some(node) = node {
        ids.insert(node.id, (node.public_key, "this node".into()));
    }
    for at in list.iter().filter_map(|section| section.value.public_key.as_ref()) {
        let Ok(key) = at.value.parse::<PublicKey>() else { continue };
        let id = key.node_id();
        match ids.get(&id) {
            None => {
                ids.insert(id, (key, format!("`{}`", at.key)));
            }
            Some((other, _)) if *other == key && node.is_some_and(|n| n.public_key == key) => {
                faults
                    .at(at, "this is the key of this node itself: remove the entry, or correct it");
            }
            Some((other, owner)) if *other == key => {
                faults.at(at, format!("the same key as {owner}: each node has its own"));
            }
            Some((_, owner)) => {
                let message = format!(
                    "its node id {id} is also that of {owner}: make a new key for one of them"
                );
                faults.at(at, message);
            }
        }
    }
}

/// A peer must be reachable from some uplink of ours.
pub(super) fn check_families(
    raw: &At<RawConfig>,
    peers: &[Option<Peer>],
    uplinks: &[Option<Uplink>],
    faults: &mut Faults,
) {
    let has = |ipv6: bool| {
        uplinks
            .iter()
            .any(|uplink| uplink.as_ref().is_none_or(|uplink| uplink.listen.is_ipv6() == ipv6))
    };
    let (has_v4, has_v6) = (has(false), has(true));
    if uplinks.is_empty() {
        return;
    }
    let sections = raw.value.peers.iter().flat_map(|list| &list.value);
    for (section, peer) in sections.zip(peers) {
        let Some(peer) = peer else { continue };
        let usable = |endpoint: &Endpoint| {
            endpoint.address().is_none_or(|a| if a.is_ipv6() { has_v6 } else { has_v4 })
        };
        if peer.endpoints.is_empty() || peer.endpoints.iter().any(usable) {
            continue;
        }
        if let Some(at) = &section.value.endpoints {
            let (theirs, ours) = if has_v4 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
            let message = format!(
                "all are {theirs}, but every uplink here is {ours}: add an endpoint or an uplink \
                 of the other family"
            );
            faults.at(at, message);
        }
    }
}

/// No peer may have more links than are measured: one for each pair of an uplink and an endpoint of
/// one family. A name may turn out to be of either.
pub(super) fn check_links(
    raw: &At<RawConfig>,
    peers: &[Option<Peer>],
    uplinks: &[Option<Uplink>],
    faults: &mut Faults,
) {
    let ours = |ipv6: bool| {
        uplinks.iter().flatten().filter(|uplink| uplink.listen.is_ipv6() == ipv6).count()
    };
    let (v4, v6) = (ours(false), ours(true));
    let links = |endpoint: &Endpoint| match endpoint.address() {
        Some(address) if address.is_ipv6() => v6,
        Some(_) => v4,
        None => v4.max(v6),
    };
    let sections = raw.value.peers.iter().flat_map(|list| &list.value);
    for (section, peer) in sections.zip(peers) {
        let Some(peer) = peer else { continue };
        let count: usize = peer.endpoints.iter().map(links).sum();
        if let Some(at) = section.value.endpoints.as_ref().filter(|_| count > Router::MAX_LINKS) {
            let message = format!(
                "{count} links, one for each of them and each uplink here of its family, are too \
                 many: at most {} to one peer are possible",
                Router::MAX_LINKS
            );
            faults.at(at, message);
        }
    }
}

/// Endpoints must differ, be others' than ours, and not lie inside the overlay.
pub(super) fn check_endpoints(raw: &At<RawConfig>, claims: &Claims, faults: &mut Faults) {
    let mut seen: BTreeMap<Endpoint, &str> = BTreeMap::new();
    for section in raw.value.uplinks.iter().flat_map(|list| &list.value) {
        let Some(at) = &section.value.listen else { continue };
        let Ok(address) = at.value.parse::<std::net::SocketAddr>() else { continue };
        check_routed(at, address.ip(), claims, faults);
        seen.insert(Endpoint::Address(address), &at.key);
    }
    for section in raw.value.peers.iter().flat_map(|list| &list.value) {
        for at in items(&section.value.endpoints) {
            let Ok(endpoint) = at.value.parse::<Endpoint>() else { continue };
            if let Some(address) = endpoint.address() {
                check_routed(at, address.ip(), claims, faults);
            }
            match seen.get(&endpoint) {
                Some(first) => faults.at(at, format!("`{endpoint}` is taken by `{first}`")),
                None => {
                    seen.insert(endpoint, &at.key);
                }
            }
        }
    }
}

/// Refuses an underlay address that the overlay would take.
fn check_routed(at: &At<String>, address: IpAddr, claims: &Claims, faults: &mut Faults) {
    let Some(claim) = claims.routed(address) else { return };
    let message = format!(
        "`{}` lies in `{}` of `{}`, which is routed into the overlay: the tunnel would run \
         through itself",
        at.value, claim.net, claim.key
    );
    faults.at(at, message);
}

/// The names of the peers, faulty entries included, so that references to them resolve.
#[derive(Debug)]
pub(super) struct Names<'r>(Vec<(Option<&'r str>, bool)>);

impl<'r> Names<'r> {
    pub(super) fn new(raw: &'r At<RawConfig>) -> Self {
        let sections = raw.value.peers.iter().flat_map(|list| &list.value);
        let entry = |section: &'r At<RawPeer>| {
            let peer = &section.value;
            let name = peer.name.as_ref().map(|at| at.value.as_str());
            (name, peer.egress.as_ref().is_some_and(|at| at.value))
        };
        Self(sections.map(entry).collect())
    }

    /// Every peer.
    pub(super) fn all(&self) -> Vec<PeerIndex> {
        (0..).map(PeerIndex).take(self.0.len()).collect()
    }

    /// The peers that may be our way to the Internet.
    pub(super) fn exits(&self) -> impl Iterator<Item = PeerIndex> {
        (0..).map(PeerIndex).zip(&self.0).filter(|(_, (_, egress))| *egress).map(|(i, _)| i)
    }

    /// The peer that is named; a fault if there is none.
    pub(super) fn resolve(
        &self,
        at: &At<String>,
        also: &[&'r str],
        faults: &mut Faults,
    ) -> Option<PeerIndex> {
        let found = self.0.iter().position(|(name, _)| *name == Some(at.value.as_str()));
        if let Some(index) = found {
            return u16::try_from(index).ok().map(PeerIndex);
        }
        let value = at.value.escape_debug();
        let names = || self.0.iter().filter_map(|(name, _)| *name).chain(also.iter().copied());
        if names().next().is_none() {
            faults.at(at, format!("there is no peer `{value}`, and no other"));
        } else {
            faults.at(at, format!("there is no peer `{value}`: {}", hint(&at.value, names)));
        }
        None
    }

    /// The peers of a list, ascending; all of them when there is no list.
    pub(super) fn resolve_all(
        &self,
        list: Option<&At<Vec<At<String>>>>,
        faults: &mut Faults,
    ) -> Vec<PeerIndex> {
        let Some(list) = list else { return self.all() };
        let mut found = Vec::new();
        for at in &list.value {
            let Some(index) = self.resolve(at, &[], faults) else { continue };
            if found.contains(&index) {
                faults.at(at, format!("`{}` is listed twice", at.value));
            } else {
                found.push(index);
            }
        }
        found.sort_unstable();
        found
    }
}
