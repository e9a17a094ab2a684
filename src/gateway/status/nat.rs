//! The mappings of our exit's NAT, in listings.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The most mappings or hosts in one answer.
pub const NAT_LIMIT_MAX: usize = 10_000;

/// The most places of the table that are looked at for one answer, so that the gateway is not held
/// up: a longer search goes on with the next question.
pub const NAT_SEARCH_MAX: u32 = 16_384;

/// Which mappings are asked for; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatFilter {
    /// The inside host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The site, by the name of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The protocol, as in [`NatMappingStatus::protocol`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The outside address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<IpAddr>,
    /// The outside port or identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A part of the table of mappings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NatMappingList {
    /// How many there are in all, whatever was asked for.
    pub total: u64,
    /// Those asked for.
    pub mappings: Vec<NatMappingStatus>,
    /// Where to go on, if there may be more.
    pub next: Option<u32>,
}

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NatMappingStatus {
    /// `tcp`, `udp`, `icmp`, `udplite`, or the protocol's number.
    pub protocol: String,
    /// The name of the node that the host is behind.
    pub site: String,
    /// The host with its port or identifier.
    pub inside: String,
    /// What the Internet sees.
    pub outside: String,
    /// `dynamic`, `shared`, `static` or `leased`.
    pub kind: String,
    /// Sessions that are followed.
    pub sessions: u32,
    /// Seconds since it was made.
    pub age_s: f64,
}

/// What inside hosts use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatHostList {
    /// The hosts.
    pub hosts: Vec<NatHostStatus>,
    /// Where to go on, if there may be more.
    pub next: Option<u32>,
}

/// What one inside host uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatHostStatus {
    /// The name of the node that it is behind.
    pub site: String,
    /// Its address.
    pub host: String,
    /// Its outside address.
    pub outside: String,
    /// Its mappings.
    pub mappings: u32,
    /// Of these TCP.
    pub tcp: u32,
    /// UDP and UDP-Lite.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// Other protocols.
    pub other: u32,
    /// Its sessions.
    pub sessions: u32,
}
