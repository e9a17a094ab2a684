//! The encrypted association of two nodes.
//!
//! [`Tunnels`] holds our identity and a tunnel for each peer. A tunnel belongs to two nodes and to
//! no path: the same keys serve every link and relay between them. In the order of a tunnel's life:
//!
//! * `initiate` and `handle_handshake` (`handshake`): Noise IK, with a pre-shared key IKpsk2, by
//!   `noise`; defended by `cookie` and `limit` as WireGuard defends its own (Donenfeld, "WireGuard:
//!   Next Generation Kernel Network Tunnel", NDSS 2017, section 5.3).
//! * `keys`: what one handshake gives: a data key and a relay key for each direction, with
//!   counters and replay windows (`window`, RFC 6479) for each path.
//! * `peer`: which keys are current, previous and next; when to initiate again. Keys are replaced
//!   make-before-break: the responder sends nothing under new keys before they were used by the
//!   initiator, and old keys open what was in flight.
//! * `data`: data and relay datagrams are sealed and opened in place.
//!
//! A datagram that does not authenticate, or that was seen before, changes nothing here. The node
//! that owns the tunnels decides on which paths handshake messages travel.
//! `docs/protocol.md` is the normative description.

mod cookie;
mod data;
mod due;
mod handshake;
mod identity;
mod index;
mod keys;
mod limit;
mod noise;
mod peer;
mod suite;
#[cfg(test)]
mod tests;
mod tunnels;
mod window;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

pub use data::{Opener, RelaySealer};
pub use identity::{Identity, PresharedKey};
pub use keys::Sealer;
pub use suite::{Suite, Suites};
pub use tunnels::Tunnels;

use crate::id::{NodeId, PeerIndex, PublicKey};
use crate::path::PathId;
use crate::time::Instant;
use crate::wire::{Flags, RelayRepr};

/// What [`Tunnels`] needs to know.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// Our key pair.
    pub identity: Identity,
    /// The overlay's secret, if it has one.
    pub preshared_key: Option<PresharedKey>,
    /// The suites that we propose and accept.
    pub suites: Suites,
    /// The peers' public keys, in the order of their indices.
    pub peers: Vec<PublicKey>,
    /// Handshake messages a second, from all sources together, above which the sender of one must
    /// prove its address with a cookie.
    pub load_threshold: u32,
}

impl TunnelConfig {
    /// Default of `load_threshold`: less than a tenth of a core.
    pub const LOAD_THRESHOLD: u32 = 200;
}

/// Where a handshake message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the underlay.
    Direct(SocketAddr),
    /// Out of an authentic relay datagram.
    Relayed {
        /// The peer that relayed it.
        relay: PeerIndex,
        /// The source that the relay header names.
        src: NodeId,
    },
}

/// What a valid handshake message brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeOutcome {
    /// The peer that sent it.
    pub peer: PeerIndex,
    /// What it was.
    pub kind: HandshakeKind,
}

/// See [`HandshakeOutcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// A fresh initiation; the reply is our response. Its source is authentic. The new keys are
    /// used for sending once the peer has used them.
    Responded,
    /// The initiation that we answered a moment ago, on another path; the reply is the same
    /// response again. It may be a replay: its source proves nothing.
    Repeated,
    /// The response to our initiation: the tunnel is usable. Something should be sent at once, so
    /// that the peer can use it too.
    Established,
    /// A cookie was stored; an initiation with it falls due at once.
    Cookie,
}

/// A sealed datagram that was authentic and new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who sealed it.
    pub peer: PeerIndex,
    /// The path, as the sender names it.
    pub path: PathId,
    /// What the plaintext is; see [`crate::wire::Payload`].
    pub flags: Flags,
    /// The counter.
    pub counter: u64,
    /// Where in the datagram the plaintext lies.
    pub plaintext: Range<usize>,
}

/// A relay datagram whose hop was authentic and new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOpened {
    /// The peer that sent it to us.
    pub hop: PeerIndex,
    /// The path of the hop, as its sender names it.
    pub hop_path: PathId,
    /// The hop's counter.
    pub counter: u64,
    /// Who to whom.
    pub repr: RelayRepr,
    /// Where the inner datagram lies.
    pub inner: Range<usize>,
}

/// Datagrams of one path, counted since the tunnel began, across changes of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// Sent by the peer, as far as we know from the highest counters.
    pub expected: u64,
    /// Arrived.
    pub received: u64,
}

/// Something that the node should know or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEvent {
    /// An initiation is due: call [`Tunnels::initiate`] and send it wherever the peer may be
    /// reached. When that is nowhere, do nothing: this event comes again.
    WantInitiate(PeerIndex),
    /// New keys are in use for sending.
    Established(PeerIndex),
    /// The last keys grew too old; nothing can be sent.
    Expired(PeerIndex),
}

/// How a tunnel is, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelStatus {
    /// What it can do.
    pub state: TunnelState,
    /// Age of the keys in use.
    pub age: Option<Duration>,
    /// Suite of the keys in use.
    pub suite: Option<Suite>,
    /// When anything authentic was last heard.
    pub last_received: Option<Instant>,
}

/// See [`TunnelStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// No keys, and no handshake under way.
    Down,
    /// No keys yet; a handshake is under way.
    Connecting,
    /// Usable.
    Up,
    /// Usable; new keys are being agreed on.
    Rekeying,
}

impl TunnelState {
    /// The name that `status` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Rekeying => "rekeying",
        }
    }
}
