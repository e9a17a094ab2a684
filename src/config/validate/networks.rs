//! Who has which addresses: no two owners may claim the same.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::de::At;
use crate::config::fault::{Faults, Position};

/// A network that somebody claims.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) net: IpNet,
    pub(super) key: String,
    position: Position,
    kind: Kind,
}

/// What a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An address inside the overlay, ours or a peer's.
    Address,
    /// The prefix of the TUN, in which such addresses lie.
    Prefix,
    /// A network behind a node, or the outside of the NAT.
    Network,
}

/// All claims, in the order of reading.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    pub(super) fn add(&mut self, net: IpNet, kind: Kind, at: &At<String>) {
        self.0.push(Claim { net: net.trunc(), key: at.key.clone(), position: at.position, kind });
    }

    /// The claim that routes `address` into the overlay, if there is one.
    pub(super) fn routed(&self, address: IpAddr) -> Option<&Claim> {
        let routed = |claim: &&Claim| claim.kind == Kind::Prefix || claim.key.starts_with("peers[");
        self.0.iter().filter(routed).find(|claim| claim.net.contains(&address))
    }

    /// Each claim against all before it; one fault for each is enough.
    pub(super) fn check(&self, faults: &mut Faults) {
        for (index, claim) in self.0.iter().enumerate() {
            let overlaps =
                |other: &&Claim| overlap(&claim.net, &other.net) && conflicts(claim, other);
            let Some(other) = self.0.iter().take(index).find(overlaps) else { continue };
            let (ours, key, line) = (show(&claim.net), &other.key, other.position.line);
            let message = if claim.net == other.net {
                format!("`{ours}` is taken by `{key}` in line {line}")
            } else {
                let theirs = show(&other.net);
                format!(
                    "`{ours}` overlaps `{theirs}` of `{key}` in line {line}: an address can have \
                     one place only"
                )
            };
            faults.push(claim.position, &claim.key, message);
        }
    }
}

/// A network, or a bare address if it is only one.
fn show(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Addresses lie inside the prefix of the TUN; everything else excludes each other.
fn conflicts(a: &Claim, b: &Claim) -> bool {
    !matches!((a.kind, b.kind), (Kind::Prefix, Kind::Address) | (Kind::Address, Kind::Prefix))
}

/// Refuses networks that cannot be somebody's: everything, or a special range.
pub(super) fn ordinary(at: &At<String>, net: IpNet, faults: &mut Faults) -> bool {
    let what = if net.prefix_len() == 0 {
        "the default route is not a network of hosts; the way to the Internet is `internet.via`"
    } else if !is_ordinary(net.network()) {
        "no hosts can be in this special range (unspecified, loopback, link-local, multicast)"
    } else {
        return true;
    };
    faults.at(at, format!("`{net}`: {what}"));
    false
}

/// Whether hosts may have this address.
pub(super) fn is_ordinary(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}
