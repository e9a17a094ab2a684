//! Explicit congestion notification: the codepoints, and how they cross a tunnel.

use crate::telemetry::DropReason;

/// The two low bits of the type-of-service or traffic-class byte (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The transport knows no ECN.
    #[default]
    NotEct = 0,
    /// ECN-capable transport, codepoint 1.
    Ect1 = 1,
    /// ECN-capable transport, codepoint 0.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// The codepoint in a type-of-service or traffic-class byte.
    pub const fn of_tos(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// What the outer header carries for this inner one: a copy (RFC 6040 section 4.1, normal
    /// mode).
    pub const fn encapsulate(self) -> Self {
        self
    }

    /// The inner header's codepoint after the tunnel, from what arrived inside (`self`) and outside
    /// (RFC 6040 section 4.2, figure 4).
    ///
    /// Congestion on a packet whose transport could not be told of it means that the packet must go.
    pub const fn decapsulate(self, outer: Self) -> Result<Self, DropReason> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => Err(DropReason::EcnMismatch),
            (Self::Ect0 | Self::Ect1, Self::Ce) => Ok(Self::Ce),
            (Self::Ect0, Self::Ect1) => Ok(Self::Ect1),
            (inner, _) => Ok(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ecn::{Ce, Ect0, Ect1, NotEct};

    #[test]
    fn decapsulation_follows_the_table_of_rfc_6040() {
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(inner.decapsulate(outer).ok(), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn codepoints_are_the_low_bits() {
        for tos in 0..=255u8 {
            assert_eq!(Ecn::of_tos(tos) as u8, tos & 3);
        }
    }
}
