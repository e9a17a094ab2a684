//! What the tunnels among the yardsticks share: options, and datagrams under two fixed AES-256-GCM keys.
//!
//! Each program is what one builds in a day: `naive-tunnel` reads a packet, seals it and sends it;
//! `stock-tunnel` does the same with the offloads of the crates tun-rs and quinn-udp. Neither has a
//! handshake, a replay window, flows, NAT or more than one peer, so what the gateway costs beyond
//! `stock-tunnel` is the price of all that. `bare-relay` is the least that a relay in user space can
//! do, `bare-tunnel` the least that a tunnel can do. They say how fast the gateway is; they protect nothing.

pub mod trains;

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes before the sealed packet: its number in the last eight, zeros in the first. As long as
/// the gateway's data header.
pub const HEADER: usize = 16;
/// Bytes after the sealed packet.
pub const TAG: usize = 16;
/// What a datagram is longer than its packet.
pub const OVERHEAD: usize = HEADER + TAG;

/// The command line of the tunnels.
#[derive(Clone, Debug, clap::Parser)]
pub struct Options {
    /// The TUN device to make. Addresses, routes and its MTU are the caller's business.
    #[arg(long)]
    pub tun: String,
    /// Where we listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The other end.
    #[arg(long)]
    pub peer: SocketAddr,
    /// Key of what we send, 64 hexadecimal digits.
    #[arg(long)]
    pub seal: String,
    /// Key of what we receive.
    #[arg(long)]
    pub open: String,
}

/// Seals datagrams, each under the next number.
#[derive(Debug)]
pub struct Sealer {
    key: LessSafeKey,
    number: u64,
}

/// Opens datagrams.
#[derive(Debug)]
pub struct Opener {
    key: LessSafeKey,
}

fn key(hex: &str) -> Result<LessSafeKey> {
    ensure!(hex.len() == 64 && hex.is_ascii(), "a key has 64 hexadecimal digits");
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).context("a key is hexadecimal")?;
    }
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| anyhow!("not a key"))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(number: [u8; 8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(nonce)
}

impl Sealer {
    /// A sealer under a key in hexadecimal.
    pub fn new(hex: &str) -> Result<Self> {
        Ok(Self { key: key(hex)?, number: 0 })
    }

    /// Seals `datagram` in place: [`HEADER`] bytes for the header, the packet, [`TAG`] bytes for
    /// the tag. A shorter one is an error.
    pub fn seal(&mut self, datagram: &mut [u8]) -> Result<()> {
        let (header, rest) = datagram.split_at_mut_checked(HEADER).context("no header")?;
        let packet = rest.len().checked_sub(TAG).context("no tag")?;
        let (packet, tag) = rest.split_at_mut(packet);
        let number = self.number.to_be_bytes();
        self.number += 1;
        header[..8].fill(0);
        header[8..].copy_from_slice(&number);
        let sealed =
            self.key.seal_in_place_separate_tag(nonce(number), Aad::from(&*header), packet);
        tag.copy_from_slice(sealed.map_err(|_| anyhow!("too long to seal"))?.as_ref());
        Ok(())
    }
}

impl Opener {
    /// An opener under a key in hexadecimal.
    pub fn new(hex: &str) -> Result<Self> {
        Ok(Self { key: key(hex)? })
    }

    /// The packet of a datagram, opened in place; `None` if nobody with our key has sealed it.
    pub fn open<'d>(&self, datagram: &'d mut [u8]) -> Option<&'d mut [u8]> {
        let (header, sealed) = datagram.split_first_chunk_mut::<HEADER>()?;
        let number = *header.last_chunk::<8>()?;
        self.key.open_in_place(nonce(number), Aad::from(&*header), sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_nothing_else() {
        let hex = "5a".repeat(32);
        let (mut sealer, opener) = (Sealer::new(&hex).unwrap(), Opener::new(&hex).unwrap());
        let mut first = [7; OVERHEAD + 100];
        sealer.seal(&mut first).unwrap();
        let mut second = [7; OVERHEAD + 100];
        sealer.seal(&mut second).unwrap();
        assert_ne!(first, second, "each has a number of its own");
        assert_eq!(opener.open(&mut first).unwrap(), [7; 100]);
        second[15] ^= 1;
        assert!(opener.open(&mut second).is_none());
        assert!(opener.open(&mut [0; 20]).is_none());
        assert!(sealer.seal(&mut [0; 20]).is_err());
        assert!(Sealer::new("short").is_err());
    }
}
