//! The Noise handshake, by `snow`, with our own source of chance and our own key schedule.
//!
//! Pattern IK, or IKpsk2 with a pre-shared key; 25519, ChaChaPoly, BLAKE2s (The Noise Protocol
//! Framework, revision 34, sections 7.5 and 9). The handshake's ciphers do not depend on the suite
//! of the tunnel. X25519 is that of aws-lc, which refuses an all-zero shared secret.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::{Zeroize as _, Zeroizing};

use super::cookie::mac32;
use super::identity::{Identity, PresharedKey};
use super::suite::Suite;
use crate::id::PublicKey;
use crate::rng::Rng;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const PATTERN_PSK: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"rongate v1";
const LABEL_DATA: &[u8] = b"rongate v1 data";
const LABEL_RELAY: &[u8] = b"rongate v1 relay";

/// Our random generator in the shape that `snow` asks for.
struct Chance(Rng);

impl Random for Chance {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill(dest);
        Ok(())
    }
}

/// Resolves the primitives; the generator begins at a seed, so that a run can be repeated.
struct Resolver {
    seed: Zeroizing<[u8; 32]>,
    ours: Arc<Agreements>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Chance(Rng::new(*self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => {
                Some(Box::new(X25519Dh { ours: self.ours.clone(), pair: Pair::None }))
            }
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// What two keys agree on.
type Secret = Zeroizing<[u8; 32]>;

/// A private key, which is wiped when dropped, with what agreeing by it needs.
struct KeyPair {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    key: PrivateKey,
}

impl KeyPair {
    /// `None` would be a fault of ours: every 32 bytes are a private key.
    fn new(private: &[u8; 32]) -> Option<Self> {
        let key = PrivateKey::from_private_key(&X25519, private).ok()?;
        let public = key.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { private: Zeroizing::new(*private), public, key })
    }

    fn agree(&self, public: &[u8; 32]) -> Option<Secret> {
        let theirs = UnparsedPublicKey::new(&X25519, public);
        agreement::agree(&self.key, theirs, (), |secret| {
            secret.try_into().map(Zeroizing::new).map_err(|_| ())
        })
        .ok()
    }
}

/// Our static key pair, and what it gives with the static keys of our peers: that is the same in
/// every handshake, and so worked out once, as WireGuard does.
pub(super) struct Agreements {
    own: Option<KeyPair>,
    /// By public key, sorted.
    peers: Vec<([u8; 32], OnceLock<Secret>)>,
}

impl Agreements {
    pub(super) fn new(identity: &Identity, peers: impl Iterator<Item = PublicKey>) -> Self {
        let mut peers: Vec<_> = peers.map(|peer| (peer.0, OnceLock::new())).collect();
        peers.sort_unstable_by_key(|peer| peer.0);
        Self { own: KeyPair::new(identity.private()), peers }
    }

    fn agree(&self, public: &[u8; 32]) -> Option<Secret> {
        let own = self.own.as_ref()?;
        let found = self.peers.binary_search_by_key(public, |peer| peer.0);
        let Some((_, known)) = found.ok().and_then(|at| self.peers.get(at)) else {
            return own.agree(public);
        };
        if let Some(known) = known.get() {
            return Some(known.clone());
        }
        let secret = own.agree(public)?;
        Some(known.get_or_init(|| secret).clone())
    }
}

/// Whose private key a [`X25519Dh`] has.
enum Pair {
    None,
    Ours,
    Other(KeyPair),
}

/// X25519 for `snow`, which asks for our static key anew in each handshake.
struct X25519Dh {
    ours: Arc<Agreements>,
    pair: Pair,
}

impl X25519Dh {
    fn pair(&self) -> Option<&KeyPair> {
        match &self.pair {
            Pair::None => None,
            Pair::Ours => self.ours.own.as_ref(),
            Pair::Other(pair) => Some(pair),
        }
    }
}

impl Dh for X25519Dh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let Ok(private) = <&[u8; 32]>::try_from(privkey) else { return };
        let is_ours = |own: &KeyPair| verify_slices_are_equal(&*own.private, private).is_ok();
        self.pair = match &self.ours.own {
            Some(own) if is_ours(own) => Pair::Ours,
            _ => KeyPair::new(private).map_or(Pair::None, Pair::Other),
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair().map_or(&[0; 32], |pair| &pair.public)
    }

    fn privkey(&self) -> &[u8] {
        self.pair().map_or(&[0; 32], |pair| &*pair.private)
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = pubkey.get(..32).and_then(|key| key.try_into().ok()).ok_or(Error::Dh)?;
        let secret = match &self.pair {
            Pair::None => None,
            Pair::Ours => self.ours.agree(public),
            Pair::Other(pair) => pair.agree(public),
        };
        let secret = secret.ok_or(Error::Dh)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(&*secret);
        Ok(())
    }
}

/// The X25519 public key of a private key.
pub(super) fn derive_public(private: &[u8; 32]) -> [u8; 32] {
    KeyPair::new(private).map(|pair| pair.public).unwrap_or_default()
}

/// What both ends put into a handshake.
pub(super) struct Setup<'a> {
    pub(super) identity: &'a Identity,
    /// Of the same identity.
    pub(super) agreements: &'a Arc<Agreements>,
    pub(super) preshared_key: Option<&'a PresharedKey>,
    /// The first bytes of the initiation; they are authenticated by the handshake.
    pub(super) init_header: &'a [u8],
}

impl Setup<'_> {
    /// The state of an initiator towards `peer`. `None` would be a fault of ours.
    pub(super) fn initiator(&self, rng: &mut Rng, peer: &PublicKey) -> Option<HandshakeState> {
        self.build(rng, |builder| builder.remote_public_key(&peer.0)?.build_initiator())
    }

    /// The state of a responder.
    pub(super) fn responder(&self, rng: &mut Rng) -> Option<HandshakeState> {
        self.build(rng, |builder| builder.build_responder())
    }

    fn build<F>(&self, rng: &mut Rng, finish: F) -> Option<HandshakeState>
    where
        F: for<'b> FnOnce(Builder<'b>) -> Result<HandshakeState, Error>,
    {
        let pattern = if self.preshared_key.is_some() { PATTERN_PSK } else { PATTERN };
        let prologue = [PROLOGUE, self.init_header].concat();
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        let resolver = Box::new(Resolver { seed, ours: self.agreements.clone() });
        let mut builder = Builder::with_resolver(pattern.parse().ok()?, resolver)
            .local_private_key(self.identity.private())
            .and_then(|builder| builder.prologue(&prologue))
            .ok()?;
        if let Some(key) = self.preshared_key {
            builder = builder.psk(2, key.bytes()).ok()?;
        }
        finish(builder).ok()
    }
}

/// The four keys of a finished handshake, as one end uses them. Wiped when dropped.
pub(super) struct KeyMaterial {
    pub(super) seal_data: Zeroizing<[u8; 32]>,
    pub(super) open_data: Zeroizing<[u8; 32]>,
    pub(super) seal_relay: Zeroizing<[u8; 32]>,
    pub(super) open_relay: Zeroizing<[u8; 32]>,
}

impl KeyMaterial {
    /// Derives the keys: for each direction `BLAKE2s(key = k, label | suite)`, where `k` is the
    /// direction's key of the Noise split.
    pub(super) fn derive(mut state: HandshakeState, suite: Suite) -> Self {
        let initiator = state.is_initiator();
        let (mut to_responder, mut to_initiator) = state.dangerously_get_raw_split();
        let (seal, open) =
            if initiator { (&to_responder, &to_initiator) } else { (&to_initiator, &to_responder) };
        let derive = |key: &[u8; 32], label| mac32(key, &[label, &[suite as u8]]);
        let material = Self {
            seal_data: derive(seal, LABEL_DATA),
            open_data: derive(open, LABEL_DATA),
            seal_relay: derive(seal, LABEL_RELAY),
            open_relay: derive(open, LABEL_RELAY),
        };
        to_responder.zeroize();
        to_initiator.zeroize();
        material
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_derive_the_same_four_distinct_keys() {
        let mut rng = Rng::new([1; 32]);
        let (a, b) = (Identity::generate(&mut rng), Identity::generate(&mut rng));
        let header = [1, 1, 0, 1, 0, 0, 0, 9];
        // One knows the other beforehand, the other does not: that makes no difference.
        let of_a = Arc::new(Agreements::new(&a, [b.public()].into_iter()));
        let of_b = Arc::new(Agreements::new(&b, std::iter::empty()));
        let setup = |identity, agreements| Setup {
            identity,
            agreements,
            preshared_key: None,
            init_header: &header,
        };
        let mut initiator = setup(&a, &of_a).initiator(&mut rng, &b.public()).unwrap();
        let mut responder = setup(&b, &of_b).responder(&mut rng).unwrap();
        let (mut message, mut payload) = ([0; 200], [0; 200]);
        let len = initiator.write_message(b"hello", &mut message).unwrap();
        responder.read_message(&message[..len], &mut payload).unwrap();
        assert_eq!(responder.get_remote_static(), Some(&a.public().0[..]));
        let len = responder.write_message(b"", &mut message).unwrap();
        initiator.read_message(&message[..len], &mut payload).unwrap();
        let ours = KeyMaterial::derive(initiator, Suite::Aes256Gcm);
        let theirs = KeyMaterial::derive(responder, Suite::Aes256Gcm);
        assert_eq!(ours.seal_data, theirs.open_data);
        assert_eq!(ours.seal_relay, theirs.open_relay);
        assert_eq!(ours.open_data, theirs.seal_data);
        assert_eq!(ours.open_relay, theirs.seal_relay);
        let mut keys = [ours.seal_data, ours.open_data, ours.seal_relay, ours.open_relay];
        keys.sort_unstable_by_key(|key| **key);
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }

    /// With a peer that is known beforehand and one that is not.
    #[test]
    fn what_is_worked_out_once_is_the_same_each_time() {
        let us = Identity::from_private([8; 32]);
        let bob = Identity::from_private([9; 32]);
        let expected = KeyPair::new(bob.private()).unwrap().agree(&us.public().0).unwrap();
        for peers in [vec![], vec![bob.public()]] {
            let ours = Arc::new(Agreements::new(&us, peers.into_iter()));
            let mut dh = X25519Dh { ours, pair: Pair::None };
            dh.set(us.private());
            for _ in 0..2 {
                let mut secret = [0; 32];
                dh.dh(&bob.public().0, &mut secret).unwrap();
                assert_eq!(secret, *expected);
            }
        }
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let us = Identity::from_private([7; 32]);
        let nobody = PublicKey([0; 32]);
        for peers in [vec![], vec![nobody]] {
            let ours = Arc::new(Agreements::new(&us, peers.into_iter()));
            for private in [[7; 32], [8; 32]] {
                let mut dh = X25519Dh { ours: ours.clone(), pair: Pair::None };
                assert_eq!(dh.dh(&us.public().0, &mut [0; 32]), Err(Error::Dh), "no key yet");
                dh.set(&private);
                assert_eq!(matches!(dh.pair, Pair::Ours), private == [7; 32]);
                for _ in 0..2 {
                    assert_eq!(dh.dh(&nobody.0, &mut [0; 32]), Err(Error::Dh));
                }
            }
        }
    }
}
