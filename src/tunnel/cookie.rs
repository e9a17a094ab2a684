//! The two MACs of a handshake message and the cookies of a responder under load.
//!
//! As in WireGuard (section 5.4.4 and 5.4.7 of its paper), with two differences: a cookie is bound
//! to the port as well as to the address, and a cookie reply is sealed by ChaCha20-Poly1305 under a
//! key made from its nonce.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use blake2::digest::Mac;
use blake2::digest::consts::{U16, U32};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use zeroize::Zeroizing;

use crate::id::PublicKey;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::TAG_LEN;
use crate::wire::handshake::{
    COOKIE_LEN, COOKIE_NONCE_LEN, CookieReply, MAC_LEN, mac1, mac1_input, mac2, mac2_input,
};

/// A secret for cookies serves so long, and a cookie as well.
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(120);

const LABEL_MAC1: &[u8] = b"rongate v1 mac1";
const LABEL_COOKIE: &[u8] = b"rongate v1 cookie";

/// BLAKE2s with a key and a 16-byte result.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let Ok(mut mac) = <Blake2sMac<U16> as Mac>::new_from_slice(key) else { return [0; 16] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// BLAKE2s with a key and a 32-byte result.
pub(super) fn mac32(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let Ok(mut mac) = <Blake2sMac<U32> as Mac>::new_from_slice(key) else {
        return Zeroizing::new([0; 32]);
    };
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// What follows from a receiver's public key: who does not know it cannot make it work.
#[derive(Clone, Debug)]
pub(super) struct Recipient {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
}

impl Recipient {
    pub(super) fn new(key: &PublicKey) -> Self {
        Self { mac1_key: hash(&[LABEL_MAC1, &key.0]), cookie_key: hash(&[LABEL_COOKIE, &key.0]) }
    }

    /// Writes both MACs at the end of a message for this receiver; the second one is zero without
    /// a cookie.
    pub(super) fn put_macs(&self, message: &mut [u8], cookie: Option<&[u8; COOKIE_LEN]>) {
        let first = mac(&self.mac1_key, &[mac1_input(message)]);
        let at = message.len() - 2 * MAC_LEN;
        message[at..at + MAC_LEN].copy_from_slice(&first);
        let second = cookie.map_or([0; 16], |cookie| mac(cookie, &[mac2_input(message)]));
        message[at + MAC_LEN..].copy_from_slice(&second);
    }

    /// Whether the first MAC of a message is right for this receiver.
    pub(super) fn accepts(&self, message: &[u8]) -> bool {
        let expected = mac(&self.mac1_key, &[mac1_input(message)]);
        verify_slices_are_equal(&expected, &mac1(message)).is_ok()
    }

    fn reply_key(&self, nonce: &[u8; COOKIE_NONCE_LEN]) -> Option<LessSafeKey> {
        let key = mac32(&self.cookie_key, &[nonce]);
        UnboundKey::new(&CHACHA20_POLY1305, &*key).ok().map(LessSafeKey::new)
    }

    /// Opens this receiver's answer to a message that had `mac1`.
    pub(super) fn open_cookie(
        &self,
        reply: &CookieReply,
        mac1: &[u8; MAC_LEN],
    ) -> Option<[u8; COOKIE_LEN]> {
        let mut sealed = reply.sealed;
        let key = self.reply_key(&reply.nonce)?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let cookie = key.open_in_place(nonce, Aad::from(mac1), &mut sealed).ok()?;
        (&*cookie).try_into().ok()
    }

    fn seal_cookie(
        &self,
        cookie: [u8; COOKIE_LEN],
        nonce: &[u8; COOKIE_NONCE_LEN],
        mac1: &[u8; MAC_LEN],
    ) -> Option<[u8; COOKIE_LEN + TAG_LEN]> {
        let mut sealed = [0; COOKIE_LEN + TAG_LEN];
        let (body, place) = sealed.split_at_mut(COOKIE_LEN);
        body.copy_from_slice(&cookie);
        let key = self.reply_key(nonce)?;
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(zero, Aad::from(mac1), body).ok()?;
        place.copy_from_slice(tag.as_ref());
        Some(sealed)
    }
}

/// Makes and checks the cookies that we demand.
#[derive(Clone)]
pub(super) struct CookieJar {
    secret: Zeroizing<[u8; 32]>,
    made: Option<Instant>,
    rng: Rng,
}

impl CookieJar {
    pub(super) fn new(rng: Rng) -> Self {
        Self { secret: Zeroizing::new([0; 32]), made: None, rng }
    }

    fn cookie(&mut self, now: Instant, source: SocketAddr) -> [u8; COOKIE_LEN] {
        if self.made.is_none_or(|made| now - made >= COOKIE_LIFE) {
            self.rng.fill(&mut *self.secret);
            self.made = Some(now);
        }
        let port = source.port().to_be_bytes();
        match source.ip().to_canonical() {
            IpAddr::V4(ip) => mac(&*self.secret, &[&[4], &ip.octets(), &port]),
            IpAddr::V6(ip) => mac(&*self.secret, &[&[6], &ip.octets(), &port]),
        }
    }

    /// Whether a message carries the cookie of its source.
    pub(super) fn proves(&mut self, now: Instant, source: SocketAddr, message: &[u8]) -> bool {
        let cookie = self.cookie(now, source);
        let expected = mac(&cookie, &[mac2_input(message)]);
        verify_slices_are_equal(&expected, &mac2(message)).is_ok()
    }

    /// The cookie reply of `own` to a message from `source` whose sender index is given.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        source: SocketAddr,
        own: &Recipient,
        message: &[u8],
        sender_index: u32,
    ) -> Option<CookieReply> {
        let cookie = self.cookie(now, source);
        let mut nonce = [0; COOKIE_NONCE_LEN];
        self.rng.fill(&mut nonce);
        let sealed = own.seal_cookie(cookie, &nonce, &mac1(message))?;
        Some(CookieReply { receiver_index: sender_index, nonce, sealed })
    }
}

impl std::fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieJar(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::INIT_LEN;

    const NOW: Instant = Instant::from_micros(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn macs_bind_message_receiver_and_cookie() {
        let own = Recipient::new(&PublicKey([1; 32]));
        let other = Recipient::new(&PublicKey([2; 32]));
        let mut message = [7; INIT_LEN];
        own.put_macs(&mut message, None);
        assert!(own.accepts(&message) && !other.accepts(&message));
        assert_eq!(mac2(&message), [0; 16]);
        message[20] ^= 1;
        assert!(!own.accepts(&message));
    }

    #[test]
    fn a_cookie_proves_address_and_port_until_the_secret_changes() {
        let own = Recipient::new(&PublicKey([1; 32]));
        let mut jar = CookieJar::new(Rng::new([4; 32]));
        let here = address("192.0.2.1:4710");
        let mut message = [7; INIT_LEN];
        own.put_macs(&mut message, None);
        assert!(!jar.proves(NOW, here, &message));
        let reply = jar.reply(NOW, here, &own, &message, 99).unwrap();
        assert_eq!(reply.receiver_index, 99);
        assert_eq!(own.open_cookie(&reply, &[0; 16]), None, "bound to the message");
        let cookie = own.open_cookie(&reply, &mac1(&message)).unwrap();
        own.put_macs(&mut message, Some(&cookie));
        assert!(jar.proves(NOW, here, &message));
        assert!(jar.proves(NOW, address("[::ffff:192.0.2.1]:4710"), &message));
        assert!(!jar.proves(NOW, address("192.0.2.1:4711"), &message));
        assert!(!jar.proves(NOW, address("192.0.2.2:4710"), &message));
        assert!(!jar.proves(NOW + COOKIE_LIFE, here, &message));
    }
}
