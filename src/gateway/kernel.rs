//! What the gateway asks of the kernel: addresses, routes, rules, nftables, parameters.
//!
//! [`plan`](plan::plan) computes it as a value from the configuration and what the host looks like;
//! [`KernelSetup`] makes the host match a plan, remembers what it did in a file, and undoes it.
//! A gateway that was killed leaves its routes behind on purpose: the `unreachable` ones keep the
//! hosts' packets from leaving in plaintext. Its successor finds the file, adds what is missing,
//! and only then removes what is no longer wanted, so that there is no gap.

mod apply;
mod obstacles;
mod outside;
mod plan;
mod rewrite;
mod ruleset;
mod uplinks;

use std::io;

use crate::io::netlink::{Address, Interface, MAIN_TABLE, Netlink, Route};

pub(crate) use apply::KernelSetup;
pub(crate) use obstacles::{conflict, missing_command, missing_interface};
pub(crate) use outside::{OutsidePair, outside_pairs};
pub(crate) use plan::{KernelPlan, plan, tun_mtu, uplink_address};

/// What the host looks like, as far as the plan depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// All interfaces.
    pub(crate) interfaces: Vec<Interface>,
    /// All addresses.
    pub(crate) addresses: Vec<Address>,
    /// The routes of the table `main`.
    pub(crate) main_routes: Vec<Route>,
}

impl HostFacts {
    /// Looks.
    pub(crate) fn gather(netlink: &mut Netlink) -> io::Result<Self> {
        Ok(Self { main_routes: netlink.routes(MAIN_TABLE)?, ..Self::gather_addresses(netlink)? })
    }

    /// Looks at interfaces and addresses only. A border router's routes may be many.
    pub(crate) fn gather_addresses(netlink: &mut Netlink) -> io::Result<Self> {
        Ok(Self {
            interfaces: netlink.interfaces()?,
            addresses: netlink.addresses()?,
            main_routes: Vec::new(),
        })
    }

    /// The interface of this name.
    pub(crate) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}

/// A site for tests: the configuration of these parts, and a host that it fits.
#[cfg(test)]
pub(super) fn test_site(parts: &[&str]) -> (crate::config::Config, HostFacts) {
    (plan::tests::config(parts), plan::tests::facts())
}
