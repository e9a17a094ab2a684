//! The AEAD suites of a tunnel, and which of them we accept.

/// The AEAD of a tunnel's data and relay datagrams. Both have 32-byte keys and 16-byte tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: the default, where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): for machines without them.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The suite that a handshake message names.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The name in the configuration and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// The suites that we propose, in order of preference; the same ones we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites {
    first: Suite,
    second: Option<Suite>,
}

impl Suites {
    /// Only one suite.
    pub const fn only(suite: Suite) -> Self {
        Self { first: suite, second: None }
    }

    /// `preferred`, and the other one as well.
    pub const fn preferring(preferred: Suite) -> Self {
        let second = match preferred {
            Suite::Aes256Gcm => Suite::ChaCha20Poly1305,
            Suite::ChaCha20Poly1305 => Suite::Aes256Gcm,
        };
        Self { first: preferred, second: Some(second) }
    }

    /// True when we accept `suite`.
    pub fn allows(&self, suite: Suite) -> bool {
        self.first == suite || self.second == Some(suite)
    }

    /// The suite to propose in the `attempt`th initiation in a row. Two at a time before it
    /// changes, so that a lost message is not taken for a refusal.
    pub(crate) fn proposal(&self, attempt: u32) -> Suite {
        match self.second {
            Some(second) if attempt / 2 % 2 == 1 => second,
            _ => self.first,
        }
    }
}

impl Default for Suites {
    fn default() -> Self {
        Self::preferring(Suite::Aes256Gcm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_change_only_after_two_failures() {
        let suites = Suites::default();
        let proposed: Vec<_> = (0..6).map(|n| suites.proposal(n) as u8).collect();
        assert_eq!(proposed, [1, 1, 2, 2, 1, 1]);
        let only = Suites::only(Suite::ChaCha20Poly1305);
        assert!((0..6).all(|n| only.proposal(n) == Suite::ChaCha20Poly1305));
        assert!(!only.allows(Suite::Aes256Gcm));
    }
}
