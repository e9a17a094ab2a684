//! The Noise handshake, by `snow`, with our own source of chance and our own key schedule.
//!
//! Pattern IK, or IKpsk2 with a pre-shared key; 25519, ChaChaPoly, BLAKE2s (The Noise Protocol
//! Framework, revision 34, sections 7.5 and 9). The handshake's ciphers do not depend on the suite
//! of the tunnel. X25519 is that of aws-lc, which refuses an all-zero shared secret.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
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
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Chance(Rng::new(*self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519Dh::default())),
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

/// X25519 with a private key that is wiped when dropped.
#[derive(Default)]
struct X25519Dh {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
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
        if let Ok(private) = <[u8; 32]>::try_from(privkey) {
            self.private = Zeroizing::new(private);
            self.public = derive_public(&self.private);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let private =
            PrivateKey::from_private_key(&X25519, &*self.private).map_err(|_| Error::Dh)?;
        let (Some(pubkey), Some(out)) = (pubkey.get(..32), out.get_mut(..32)) else {
            return Err(Error::Dh);
        };
        agreement::agree(&private, UnparsedPublicKey::new(&X25519, pubkey), Error::Dh, |secret| {
            out.copy_from_slice(secret);
            Ok(())
        })
    }
}

/// The X25519 public key of a private key.
pub(super) fn derive_public(private: &[u8; 32]) -> [u8; 32] {
    let public = PrivateKey::from_private_key(&X25519, private)
        .ok()
        .and_then(|key| key.compute_public_key().ok());
    public.and_then(|key| key.as_ref().try_into().ok()).unwrap_or_default()
}

/// What both ends put into a handshake.
pub(super) struct Setup<'a> {
    pub(super) identity: &'a Identity,
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
        let resolver = Box::new(Resolver { seed });
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
        let setup = |identity| Setup { identity, preshared_key: None, init_header: &header };
        let mut initiator = setup(&a).initiator(&mut rng, &b.public()).unwrap();
        let mut responder = setup(&b).responder(&mut rng).unwrap();
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

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let mut dh = X25519Dh::default();
        dh.set(&[7; 32]);
        assert_eq!(dh.dh(&[0; 32], &mut [0; 32]), Err(Error::Dh));
    }
}
