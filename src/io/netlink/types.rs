//! Plain values for what rtnetlink knows.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The number of the table `main`.
pub(crate) const MAIN_TABLE: u32 = 254;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its number; a new one after re-creation.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Bytes of the largest IP packet.
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// A loopback.
    pub(crate) loopback: bool,
}

/// An address of an interface with its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The interface.
    pub(crate) interface: String,
    /// Address and prefix length.
    pub(crate) network: IpNet,
    /// Of global scope and usable as a source: neither tentative nor deprecated.
    pub(crate) usable: bool,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RouteKind {
    /// Sends.
    Unicast,
    /// Answers "unreachable".
    Unreachable,
    /// Anything else.
    Other,
}

/// A route. Its text is what `ip route` takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Where to.
    pub(crate) destination: IpNet,
    /// In which table.
    pub(crate) table: u32,
    /// What it does.
    pub(crate) kind: RouteKind,
    /// Through which router.
    pub(crate) gateway: Option<IpAddr>,
    /// Out of which interface.
    pub(crate) interface: Option<String>,
    /// The source address that the router itself uses.
    pub(crate) source: Option<IpAddr>,
    /// Lower wins; 0 lets the kernel choose.
    pub(crate) metric: u32,
    /// The longest packet that is forwarded that way, in bytes; none for what the interface takes.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    /// Who made it (`RTPROT_*`).
    pub(crate) protocol: u8,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == RouteKind::Unreachable {
            f.write_str("unreachable ")?;
        }
        if self.destination.prefix_len() == 0 {
            f.write_str(if self.destination.addr().is_ipv6() { "::/0" } else { "default" })?;
        } else {
            write!(f, "{}", self.destination)?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(interface) = &self.interface {
            write!(f, " dev {interface}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

/// A policy rule that looks a table up. Its text is what `ip rule` takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// For IPv6.
    pub(crate) ipv6: bool,
    /// Lower is looked at earlier.
    pub(crate) preference: u32,
    /// Packets that came in here.
    pub(crate) iif: Option<String>,
    /// Packets from there.
    pub(crate) from: Option<IpNet>,
    /// Packets to there.
    pub(crate) to: Option<IpNet>,
    /// Packets with this mark.
    pub(crate) mark: Option<u32>,
    /// The table.
    pub(crate) table: u32,
    /// Results with a prefix of at most this length do not count.
    pub(crate) suppress_prefix_length: Option<u32>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ipv6 {
            f.write_str("-6 ")?;
        }
        write!(f, "pref {}", self.preference)?;
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        match self.table {
            MAIN_TABLE => f.write_str(" lookup main")?,
            table => write!(f, " lookup {table}")?,
        }
        if let Some(length) = self.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        Ok(())
    }
}
