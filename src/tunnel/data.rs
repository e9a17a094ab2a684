//! Datagrams of established tunnels: data and relay.

use super::keys::{Keys, REJECT_AFTER_DATAGRAMS, REKEY_AFTER_DATAGRAMS, Sealer};
use super::peer::{REJECT_AFTER, STALL_AFTER};
use super::{Opened, RelayOpened, TunnelEvent, Tunnels};
use crate::id::PeerIndex;
use crate::path::PathId;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::data::DataHeader;
use crate::wire::relay::RelayHeader;
use crate::wire::{DATA_HEADER_LEN, RELAY_OVERHEAD, RelayRepr, TAG_LEN};

impl Tunnels {
    /// What seals datagrams for `peer` on `path` under the current keys. To be asked for once in
    /// each train.
    pub fn sealer(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        path: PathId,
    ) -> Result<Sealer<'_>, DropReason> {
        self.check_sealing(now, peer)?;
        let state = self.peers.get_mut(peer.usize()).ok_or(DropReason::NoTunnel)?;
        let keys = state.current.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        Sealer::new(keys, path)
    }

    /// The same for datagrams that go to `peer` by a relay, and what puts relay headers around them
    /// for the hop to it: `hop` with the path there.
    pub fn relayed_sealers(
        &mut self,
        now: Instant,
        (peer, path): (PeerIndex, PathId),
        (hop, hop_path): (PeerIndex, PathId),
    ) -> Result<(Sealer<'_>, RelaySealer<'_>), DropReason> {
        self.check_sealing(now, peer)?;
        self.check_sealing(now, hop)?;
        let both = self.peers.get_disjoint_mut([peer.usize(), hop.usize()]);
        let [state, hop] = both.map_err(|_| DropReason::NoTunnel)?;
        let keys = state.current.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        let hop_keys = hop.current.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        // A path more than there may be is found out before anything is sealed.
        hop_keys.relay.sent.next_of(hop_path)?;
        Ok((Sealer::new(keys, path)?, RelaySealer { keys: hop_keys, path: hop_path }))
    }

    /// What is sealed for `peer` now causes an answer, if it has our keys and there is a way. Nothing
    /// heard for a second means that it may have lost them. Answers, which end an exchange, and
    /// probes of a way that is known to be dead are not to be told here.
    pub fn expect_answer(&mut self, now: Instant, peer: PeerIndex) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        if state.unanswered_since.is_none() {
            state.unanswered_since = Some(now);
            self.expect(peer, now + STALL_AFTER, "no answer");
        }
    }

    /// Puts a relay header around an inner datagram that begins at byte 44 of `datagram`,
    /// authenticated for the peer `hop`. Also replaces the header of a datagram that is passed on.
    /// Returns the hop's counter.
    pub fn seal_relay(
        &mut self,
        now: Instant,
        hop: PeerIndex,
        hop_path: PathId,
        repr: &RelayRepr,
        datagram: &mut [u8],
    ) -> Result<u64, DropReason> {
        self.check_sealing(now, hop)?;
        let state = self.peers.get_mut(hop.usize()).ok_or(DropReason::NoTunnel)?;
        let keys = state.current.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        keys.seal_relay(hop_path, repr, datagram)
    }

    /// What puts relay headers for the hop to `hop` around datagrams; see [`Self::seal_relay`]. To
    /// be asked for once in each train.
    pub fn relay_sealer(
        &mut self,
        now: Instant,
        hop: PeerIndex,
        hop_path: PathId,
    ) -> Result<RelaySealer<'_>, DropReason> {
        self.check_sealing(now, hop)?;
        let state = self.peers.get_mut(hop.usize()).ok_or(DropReason::NoTunnel)?;
        let keys = state.current.as_deref_mut().ok_or(DropReason::NoTunnel)?;
        Ok(RelaySealer { keys, path: hop_path })
    }

    /// Leaves so few datagrams to the current keys of a peer.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self, peer: PeerIndex, left: u64) {
        let keys = self.peers[peer.usize()].current.as_deref_mut().unwrap();
        keys.sealed = REJECT_AFTER_DATAGRAMS - left;
    }

    /// Whether the current keys of a peer may seal; asks for new ones when they were used a lot.
    fn check_sealing(&mut self, now: Instant, peer: PeerIndex) -> Result<(), DropReason> {
        let state = self.peers.get_mut(peer.usize()).ok_or(DropReason::NoTunnel)?;
        let keys = state.current.as_deref().ok_or(DropReason::NoTunnel)?;
        if now >= keys.born + REJECT_AFTER || keys.sealed >= REJECT_AFTER_DATAGRAMS {
            return Err(DropReason::KeyExpired);
        }
        if keys.sealed >= REKEY_AFTER_DATAGRAMS && state.retry_at.is_none() {
            state.retry_at = Some(now);
            self.expect(peer, now, "rekey");
        }
        Ok(())
    }

    /// Opens a data datagram in place. Unless it was authentic and new, nothing changes but the
    /// bytes of `datagram`.
    pub fn open(&mut self, now: Instant, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        let header = DataHeader::parse(datagram)?;
        let (peer, keys) = self.keys_for(now, header.receiver_index)?;
        keys.open_data(now, &header, datagram)?;
        self.heard(now, peer, header.receiver_index);
        Ok(Opened {
            peer,
            path: header.path,
            flags: header.flags,
            counter: header.counter,
            plaintext: DATA_HEADER_LEN..datagram.len() - TAG_LEN,
        })
    }

    /// What opens data datagrams of one receiver index, to be asked for once in each train. After it
    /// opened something, [`Self::heard`] is to be called.
    pub fn opener(&mut self, now: Instant, receiver_index: u32) -> Result<Opener<'_>, DropReason> {
        let (peer, keys) = self.keys_for(now, receiver_index)?;
        Ok(Opener { peer, keys })
    }

    /// Authenticates the hop of a relay datagram. Whether the hop may send it, and the inner
    /// datagram, are for the caller to check. Unless it was authentic and new, nothing changes.
    pub fn open_relay(&mut self, now: Instant, datagram: &[u8]) -> Result<RelayOpened, DropReason> {
        let header = RelayHeader::parse(datagram)?;
        let (hop, keys) = self.keys_for(now, header.receiver_index)?;
        keys.open_relay(now, &header, datagram)?;
        self.heard(now, hop, header.receiver_index);
        Ok(RelayOpened {
            hop,
            hop_path: header.path,
            counter: header.counter,
            repr: header.repr,
            inner: RELAY_OVERHEAD..datagram.len(),
        })
    }

    /// The keys with one of our indices, unless they are too old.
    fn keys_for(&mut self, now: Instant, index: u32) -> Result<(PeerIndex, &mut Keys), DropReason> {
        let peer = self.indices.peer(index).ok_or(DropReason::UnknownReceiver)?;
        let state = self.peers.get_mut(peer.usize()).ok_or(DropReason::UnknownReceiver)?;
        let keys = state.keys_mut(index).ok_or(DropReason::UnknownReceiver)?;
        if now >= keys.born + REJECT_AFTER {
            return Err(DropReason::KeyExpired);
        }
        Ok((peer, keys))
    }

    /// Something authentic and new came from a peer, under the keys with this index.
    pub fn heard(&mut self, now: Instant, peer: PeerIndex, index: u32) {
        let Some(state) = self.peers.get_mut(peer.usize()) else { return };
        state.last_received = Some(now);
        if state.unanswered_since.take().is_some() && state.retry_at.is_some() {
            // It perhaps wants no keys any more: to be seen when others are looked at.
            self.due.look(peer);
        }
        if state.next.as_ref().is_some_and(|keys| keys.local_index == index) {
            for released in state.promote_next().into_iter().flatten() {
                self.indices.release(released);
            }
            self.event(TunnelEvent::Established(peer));
            self.expect(peer, now, "new keys");
        }
    }
}

/// Opens data datagrams that one set of keys sealed; see [`Tunnels::opener`].
pub struct Opener<'t> {
    peer: PeerIndex,
    keys: &'t mut Keys,
}

impl Opener<'_> {
    /// Whose keys they are.
    pub const fn peer(&self) -> PeerIndex {
        self.peer
    }

    /// Opens a datagram in place; `header` is its own, with the receiver index of this opener.
    /// Unless it was authentic and new, nothing changes but its bytes.
    pub fn open(
        &mut self,
        now: Instant,
        header: &DataHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        debug_assert_eq!(header.receiver_index, self.keys.local_index, "other keys");
        self.keys.open_data(now, header, datagram)
    }

    /// Authenticates the hop of a relay datagram; else as [`Self::open`].
    pub fn open_relay(
        &mut self,
        now: Instant,
        header: &RelayHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        debug_assert_eq!(header.receiver_index, self.keys.local_index, "other keys");
        self.keys.open_relay(now, header, datagram)
    }
}

/// Seals relay headers for one hop; see [`Tunnels::relay_sealer`].
pub struct RelaySealer<'t> {
    keys: &'t mut Keys,
    path: PathId,
}

impl RelaySealer<'_> {
    /// Puts a header on a datagram, as [`Tunnels::seal_relay`] does.
    pub fn seal(&mut self, repr: &RelayRepr, datagram: &mut [u8]) -> Result<(), DropReason> {
        if self.keys.sealed >= REJECT_AFTER_DATAGRAMS {
            return Err(DropReason::KeyExpired);
        }
        self.keys.seal_relay(self.path, repr, datagram).map(|_| ())
    }
}

impl std::fmt::Debug for RelaySealer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelaySealer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("peer", &self.peer).finish_non_exhaustive()
    }
}
