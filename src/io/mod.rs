//! All that touches the host: TUN, sockets, clock, netlink, nftables, files, signals.
//!
//! Nothing here knows the overlay. The gateway composes these parts; `unsafe` code is allowed in
//! this folder alone, in small functions that state why they are sound.

pub(crate) mod clock;
pub(crate) mod files;
pub(crate) mod lan_server;
pub(crate) mod netlink;
pub(crate) mod nft;
pub(crate) mod signals;
pub(crate) mod stamps;
pub(crate) mod sysctl;
pub(crate) mod timer;
pub(crate) mod tun;
pub(crate) mod underlay;
