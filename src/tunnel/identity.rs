//! Our own key pair, and the overlay's pre-shared key.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

use super::noise::derive_public;
use crate::id::{NodeId, PublicKey};
use crate::rng::Rng;

/// A node's static X25519 key pair. The private half is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Identity {
    private: Zeroizing<[u8; 32]>,
    public: PublicKey,
    id: NodeId,
}

impl Identity {
    /// A new key pair.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut private = [0; 32];
        rng.fill(&mut private);
        // RFC 7748, section 5: the form in which scalars are used anyway.
        private[0] &= 0xf8;
        private[31] = private[31] & 0x7f | 0x40;
        let identity = Self::from_private(private);
        private.zeroize();
        identity
    }

    /// The key pair of a stored private key.
    pub fn from_private(private: [u8; 32]) -> Self {
        let public = PublicKey(derive_public(&private));
        Self { private: Zeroizing::new(private), public, id: public.node_id() }
    }

    /// The public key.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The node id.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// The private key, for the key file and the handshake.
    pub fn private(&self) -> &[u8; 32] {
        &self.private
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A secret that all nodes of an overlay share, on top of their key pairs. Wiped when dropped.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PresharedKey {
    /// Wraps the 32 bytes of a key file.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn public_key_is_that_of_the_rfc() {
        let private = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(Identity::from_private(private).public(), PublicKey(public));
    }

    #[test]
    fn generated_keys_differ_and_survive_storage() {
        let mut rng = Rng::new([1; 32]);
        let first = Identity::generate(&mut rng);
        let second = Identity::generate(&mut rng);
        assert_ne!(first.public(), second.public());
        assert_eq!(Identity::from_private(*first.private()).public(), first.public());
        assert_eq!(first.id(), first.public().node_id());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let identity = Identity::from_private([0x5a; 32]);
        assert!(!format!("{identity:?}").contains("90, 90"));
        assert!(!format!("{:?}", PresharedKey::new([0x5a; 32])).contains("90"));
    }
}
