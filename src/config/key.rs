//! Key files: base64 of 32 bytes, as `rongate keygen` writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize as _, Zeroizing};

use super::types::Secret;
use crate::id::{ParseKeyError, PublicKey};
use crate::tunnel::Identity;

/// Where key files come from. The configuration is pure; reading files is the caller's part.
pub trait KeySource {
    /// The text of `file`, a path as written in the configuration.
    fn read(&self, file: &str) -> Result<Zeroizing<String>, KeyFileError>;
}

/// Why a key file was not read. `path` is the path that was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no file `{path}`")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Others than its owner have access to it.
    #[error(
        "others may access the file `{path}` (mode {mode:04o}): run `chmod 600 {path}`, and make \
         a new key if somebody may have read it"
    )]
    ReadableByOthers {
        /// The path.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read.
    #[error("cannot read the file `{path}`: {reason}")]
    Unreadable {
        /// The path.
        path: String,
        /// What the system says.
        reason: String,
    },
}

impl Secret {
    /// Reads a key in base64, with or without white space around it.
    pub fn from_base64(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim()).map_err(|_| ParseKeyError)?);
        let mut secret = Self([0; 32]);
        if bytes.len() != secret.0.len() {
            return Err(ParseKeyError);
        }
        secret.0.copy_from_slice(&bytes);
        Ok(secret)
    }

    /// Writes the key in base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.0))
    }

    /// The public key of this private key.
    pub fn public_key(&self) -> PublicKey {
        Identity::from_private(self.0).public()
    }

    /// True for a key of zeros, which is no secret.
    pub(super) fn is_trivial(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }
}

impl From<[u8; 32]> for Secret {
    fn from(mut bytes: [u8; 32]) -> Self {
        let secret = Self(bytes);
        bytes.zeroize();
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: the keys of Alice.
    #[test]
    fn the_public_key_is_that_of_the_curve() {
        let secret = Secret::from_base64("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        assert_eq!(secret.public_key().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(*secret.to_base64(), "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(..)");
        assert_eq!(Secret::from_base64("AAAA"), Err(ParseKeyError));
    }
}
