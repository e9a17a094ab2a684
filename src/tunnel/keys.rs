//! What one handshake gives: keys, counters and replay windows.

use std::cell::OnceCell;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::noise::KeyMaterial;
use super::suite::Suite;
use super::window::{PATHS_MAX, Windows};
use crate::path::PathId;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::data::DataHeader;
use crate::wire::relay::{AAD_MAX, RelayHeader, TAG_AT, associated_data};
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, Flags, RELAY_OVERHEAD, RelayRepr, TAG_LEN};

/// Datagrams sealed under one set of keys after which it is replaced.
pub(super) const REKEY_AFTER_DATAGRAMS: u64 = 1 << 26;
/// Datagrams after which a set of keys seals no more. AES-GCM keeps its promises well beyond: at
/// 1500 bytes these are 2^34.6 blocks of the 2^64 allowed by its birthday bound.
pub(super) const REJECT_AFTER_DATAGRAMS: u64 = 1 << 28;

/// An AEAD key of either suite. What the cipher makes of it, some 600 bytes, is made when it is
/// first used: between most pairs of nodes only data keys ever are, and only for a time.
pub(super) struct AeadKey {
    suite: Suite,
    secret: Zeroizing<[u8; 32]>,
    ready: OnceCell<LessSafeKey>,
}

impl AeadKey {
    fn new(suite: Suite, secret: &[u8; 32]) -> Self {
        Self { suite, secret: Zeroizing::new(*secret), ready: OnceCell::new() }
    }

    /// An error would be a fault of ours: every 32 bytes are a key.
    fn ready(&self) -> Result<&LessSafeKey, DropReason> {
        if let Some(key) = self.ready.get() {
            return Ok(key);
        }
        self.make_ready()
    }

    #[cold]
    fn make_ready(&self) -> Result<&LessSafeKey, DropReason> {
        let algorithm = match self.suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &*self.secret).map_err(|_| DropReason::KeyExpired)?;
        Ok(self.ready.get_or_init(|| LessSafeKey::new(key)))
    }

    /// It will hardly be used again.
    fn rest(&mut self) {
        self.ready.take();
    }
}

fn seal(
    key: &LessSafeKey,
    (path, counter): (PathId, u64),
    aad: &[u8],
    body: &mut [u8],
    tag: &mut [u8],
) {
    let sealed = key.seal_in_place_separate_tag(nonce(path, counter), Aad::from(aad), body);
    // Only a body beyond the AEAD's limit of 2^36 bytes fails: no datagram is that long.
    match sealed {
        Ok(value) => tag.copy_from_slice(value.as_ref()),
        Err(_) => body.fill(0),
    }
}

fn open(
    key: &LessSafeKey,
    (path, counter): (PathId, u64),
    aad: &[u8],
    body: &mut [u8],
    tag: &[u8],
) -> Result<(), DropReason> {
    key.open_in_place_separate_tag(nonce(path, counter), Aad::from(aad), tag, body)
        .map(|_| ())
        .map_err(|_| DropReason::Forged)
}

/// `u32(path) | u64(counter)`. Counters of one (key, path) never repeat, so nonces do not.
fn nonce(path: PathId, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[2..4].copy_from_slice(&path.0.to_be_bytes());
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// The next counter of each path, sorted by path.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    entries: Vec<(PathId, u64)>,
    hint: usize,
}

impl Counters {
    pub(super) fn next_of(&mut self, path: PathId) -> Result<&mut u64, DropReason> {
        let found = match self.entries.get(self.hint) {
            Some(entry) if entry.0 == path => Ok(self.hint),
            _ => self.entries.binary_search_by_key(&path, |entry| entry.0),
        };
        let at = match found {
            Ok(at) => at,
            Err(_) if self.entries.len() >= PATHS_MAX => return Err(DropReason::TooManyPaths),
            Err(at) => {
                self.entries.reserve_exact(1);
                self.entries.insert(at, (path, 0));
                at
            }
        };
        self.hint = at;
        Ok(&mut self.entries[at].1)
    }

    pub(super) fn get(&self, path: PathId) -> u64 {
        let found = self.entries.binary_search_by_key(&path, |entry| entry.0);
        found.map_or(0, |at| self.entries[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathId, u64)> + '_ {
        self.entries.iter().copied()
    }
}

/// One purpose of a set of keys, data or relaying, with both directions.
pub(super) struct Channel {
    seal: AeadKey,
    open: AeadKey,
    pub(super) sent: Counters,
    pub(super) windows: Windows,
    /// What was sealed and opened when [`Self::rest_if_idle`] was last called.
    looked_at: (u64, u64),
}

impl Channel {
    fn new(suite: Suite, seal: &[u8; 32], open: &[u8; 32]) -> Self {
        Self {
            seal: AeadKey::new(suite, seal),
            open: AeadKey::new(suite, open),
            sent: Counters::default(),
            windows: Windows::default(),
            looked_at: (0, 0),
        }
    }

    /// A key that was not used since this was last called keeps only its 32 bytes; the next datagram
    /// finds out the rest again, in less time than it takes to send one.
    fn rest_if_idle(&mut self) {
        let sealed = self.sent.iter().map(|(_, count)| count).fold(0, u64::wrapping_add);
        let opened = self.windows.iter().map(|(_, window)| window.received()).sum();
        let before = std::mem::replace(&mut self.looked_at, (sealed, opened));
        if sealed == before.0 {
            self.seal.rest();
        }
        if opened == before.1 {
            self.open.rest();
        }
    }
}

/// One set of keys: the fruit of one handshake.
pub(super) struct Keys {
    pub(super) local_index: u32,
    pub(super) remote_index: u32,
    pub(super) suite: Suite,
    pub(super) born: Instant,
    /// When to initiate new ones.
    pub(super) rekey_at: Instant,
    /// Datagrams sealed, data and relay, on all paths.
    pub(super) sealed: u64,
    pub(super) data: Channel,
    pub(super) relay: Channel,
}

impl Keys {
    pub(super) fn new(
        material: &KeyMaterial,
        suite: Suite,
        (local_index, remote_index): (u32, u32),
        born: Instant,
        rekey_at: Instant,
    ) -> Self {
        let data = Channel::new(suite, &material.seal_data, &material.open_data);
        let relay = Channel::new(suite, &material.seal_relay, &material.open_relay);
        Self { local_index, remote_index, suite, born, rekey_at, sealed: 0, data, relay }
    }

    /// Nothing is sealed with these keys any more: newer ones took their place.
    pub(super) fn stop_sealing(&mut self) {
        self.data.seal.rest();
        self.relay.seal.rest();
    }

    /// Gives back what idle paths and keys need no longer. To be called now and then.
    pub(super) fn give_back(&mut self, now: Instant) {
        for channel in [&mut self.data, &mut self.relay] {
            channel.windows.shrink_idle(now);
            channel.rest_if_idle();
        }
    }

    /// How many of the four keys are ready to use.
    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        let keys = [&self.data.seal, &self.data.open, &self.relay.seal, &self.relay.open];
        keys.iter().filter(|key| key.ready.get().is_some()).count()
    }

    /// Opens a data datagram whose header was parsed, and marks it as seen.
    pub(super) fn open_data(
        &mut self,
        now: Instant,
        header: &DataHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let channel = &mut self.data;
        channel.windows.check(header.path, header.counter)?;
        let (aad, rest) = datagram.split_at_mut(DATA_HEADER_LEN);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        open(channel.open.ready()?, (header.path, header.counter), aad, body, tag)?;
        channel.windows.commit(now, header.path, header.counter)
    }

    /// Puts the relay header and tag in front of the inner datagram.
    pub(super) fn seal_relay(
        &mut self,
        hop_path: PathId,
        repr: &RelayRepr,
        datagram: &mut [u8],
    ) -> Result<u64, DropReason> {
        if datagram.len() < RELAY_OVERHEAD + DATA_OVERHEAD {
            return Err(DropReason::Truncated);
        }
        let next = self.relay.sent.next_of(hop_path)?;
        let counter = *next;
        let receiver_index = self.remote_index;
        let header = RelayHeader { path: hop_path, receiver_index, counter, repr: *repr };
        datagram[..TAG_AT].copy_from_slice(&header.emit());
        let mut buffer = [0; AAD_MAX];
        let aad = associated_data(datagram, &mut buffer).ok_or(DropReason::Malformed)?;
        let tag = &mut datagram[TAG_AT..RELAY_OVERHEAD];
        seal(self.relay.seal.ready()?, (hop_path, counter), aad, &mut [], tag);
        *next += 1;
        self.sealed += 1;
        Ok(counter)
    }

    /// Authenticates the hop of a relay datagram whose header was parsed, and marks it as seen.
    pub(super) fn open_relay(
        &mut self,
        now: Instant,
        header: &RelayHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let channel = &mut self.relay;
        channel.windows.check(header.path, header.counter)?;
        let mut buffer = [0; AAD_MAX];
        let aad = associated_data(datagram, &mut buffer).ok_or(DropReason::Malformed)?;
        let tag = &datagram[TAG_AT..RELAY_OVERHEAD];
        open(channel.open.ready()?, (header.path, header.counter), aad, &mut [], tag)?;
        channel.windows.commit(now, header.path, header.counter)
    }
}

/// Seals datagrams for one peer and path; see [`super::Tunnels::sealer`].
pub struct Sealer<'t> {
    key: &'t LessSafeKey,
    next: &'t mut u64,
    sealed: &'t mut u64,
    path: PathId,
    receiver_index: u32,
}

impl<'t> Sealer<'t> {
    pub(super) fn new(keys: &'t mut Keys, path: PathId) -> Result<Self, DropReason> {
        Ok(Self {
            key: keys.data.seal.ready()?,
            next: keys.data.sent.next_of(path)?,
            sealed: &mut keys.sealed,
            path,
            receiver_index: keys.remote_index,
        })
    }

    /// Seals `datagram` in place: 16 bytes of room for the header, the plaintext, 16 bytes of room
    /// for the tag. Returns the counter. On an error nothing was sealed and it must not be sent.
    pub fn seal(&mut self, flags: Flags, datagram: &mut [u8]) -> Result<u64, DropReason> {
        if *self.sealed >= REJECT_AFTER_DATAGRAMS {
            return Err(DropReason::KeyExpired);
        }
        if datagram.len() < DATA_OVERHEAD {
            return Err(DropReason::Truncated);
        }
        let counter = *self.next;
        let (path, receiver_index) = (self.path, self.receiver_index);
        let header = DataHeader { flags, path, receiver_index, counter };
        let (aad, rest) = datagram.split_at_mut(DATA_HEADER_LEN);
        aad.copy_from_slice(&header.emit());
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        seal(self.key, (path, counter), aad, body, tag);
        *self.next += 1;
        *self.sealed += 1;
        Ok(counter)
    }
}

impl std::fmt::Debug for Sealer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}
