//! Signatures that are about to be filled in.

use super::*;

/// Every tunnel of a node.
#[derive(Debug)]
pub struct Tunnels {}

/// Seals datagrams for one peer and path; see [`Tunnels::sealer`].
#[derive(Debug)]
pub struct Sealer<'t> {
    _tunnels: &'t mut Tunnels,
}

impl Sealer<'_> {
    /// Seals `datagram` in place: 16 bytes of room for the header, the plaintext, 16 bytes of room
    /// for the tag. Returns the counter.
    pub fn seal(&mut self, _flags: Flags, _datagram: &mut [u8]) -> Result<u64, DropReason> {
        Err(DropReason::NoTunnel)
    }
}

impl Tunnels {
    /// No tunnel is up yet; an initiation is due for every peer at once.
    pub fn new(_now: Instant, _config: TunnelConfig, _rng: Rng) -> Self {
        Self {}
    }

    /// Our identity's node id.
    pub fn own_id(&self) -> NodeId {
        NodeId(0)
    }

    /// The node id of a peer.
    pub fn peer_id(&self, _peer: PeerIndex) -> Option<NodeId> {
        None
    }

    /// The peer with a node id.
    pub fn peer_by_id(&self, _id: NodeId) -> Option<PeerIndex> {
        None
    }

    /// Writes an initiation for `peer` into `out`, replacing what is there. The same message may
    /// be sent on several paths at once. Must be sent at once, or not at all.
    pub fn initiate(
        &mut self,
        _now: Instant,
        _wall: WallClock,
        _peer: PeerIndex,
        _out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        Err(DropReason::NoTunnel)
    }

    /// A new way to the peer appeared: an initiation that waits for its turn is due at once.
    pub fn hasten(&mut self, _now: Instant, _peer: PeerIndex) {}

    /// Takes in a message of type 1, 2 or 3. Whatever the result, a `reply` that is not empty
    /// afterwards must be sent back the way the message came.
    pub fn handle_handshake(
        &mut self,
        _now: Instant,
        _wall: WallClock,
        _source: Source,
        _datagram: &[u8],
        _reply: &mut Vec<u8>,
    ) -> Result<HandshakeOutcome, DropReason> {
        Err(DropReason::HandshakeUnexpected)
    }

    /// What seals datagrams for `peer` on `path` under the current keys.
    pub fn sealer(
        &mut self,
        _now: Instant,
        _peer: PeerIndex,
        _path: PathId,
    ) -> Result<Sealer<'_>, DropReason> {
        Err(DropReason::NoTunnel)
    }

    /// Opens a data datagram in place.
    pub fn open(&mut self, _now: Instant, _datagram: &mut [u8]) -> Result<Opened, DropReason> {
        Err(DropReason::UnknownReceiver)
    }

    /// Puts a relay header around an inner datagram that begins at byte 44 of `datagram`,
    /// authenticated for the peer `hop`. Also replaces the header of a datagram that is passed on.
    pub fn seal_relay(
        &mut self,
        _now: Instant,
        _hop: PeerIndex,
        _hop_path: PathId,
        _repr: &RelayRepr,
        _datagram: &mut [u8],
    ) -> Result<u64, DropReason> {
        Err(DropReason::NoTunnel)
    }

    /// Authenticates the hop of a relay datagram.
    pub fn open_relay(
        &mut self,
        _now: Instant,
        _datagram: &[u8],
    ) -> Result<RelayOpened, DropReason> {
        Err(DropReason::UnknownReceiver)
    }

    /// Datagrams (data and relay) that came from `peer` on a path, as the peer names it.
    pub fn receive_stats(&self, _peer: PeerIndex, _path: PathId) -> ReceiveStats {
        ReceiveStats::default()
    }

    /// Datagrams (data and relay) that we sealed for `peer` on a path.
    pub fn sent(&self, _peer: PeerIndex, _path: PathId) -> u64 {
        0
    }

    /// The last handshake timestamp used. The shell stores it, so that those of the next
    /// incarnation are greater.
    pub fn last_timestamp(&self) -> u64 {
        0
    }

    /// The timestamp that the shell had stored.
    pub fn set_stored_timestamp(&mut self, _timestamp: u64) {}

    /// How a tunnel is.
    pub fn status(&self, _now: Instant, _peer: PeerIndex) -> TunnelStatus {
        TunnelStatus { state: TunnelState::Down, age: None, suite: None, last_received: None }
    }

    /// Drops all keys of a peer. It may be connected again.
    pub fn forget(&mut self, _now: Instant, _peer: PeerIndex) {}

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        None
    }
}
