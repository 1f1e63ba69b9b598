//! XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM with 192-bit nonces, which may be random without counting.
//! The key of each message is CMAC-AES256 of half the nonce; the other half is the nonce of GCM.
use aws_lc_rs::{aead, cmac};
use zeroize::Zeroizing;

use super::{NONCE_BYTES, NotOpened};

/// A key of XAES-256-GCM.
pub(super) struct Xaes(cmac::Key);

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(cmac::Key::new(cmac::AES_256, key).expect("32 bytes are a key of AES-256"))
    }

    /// The key and nonce of one message (SP 800-108r1 in counter mode with CMAC, label "X").
    fn message_key(&self, nonce: &[u8; NONCE_BYTES]) -> (aead::LessSafeKey, aead::Nonce) {
        let mut key = Zeroizing::new([0; 32]);
        for (counter, half) in (1..=2).zip(key.chunks_exact_mut(16)) {
            let mut message = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            message[4..].copy_from_slice(&nonce[..12]);
            let tag = cmac::sign(&self.0, &message).expect("AES-CMAC of one block cannot fail");
            half.copy_from_slice(tag.as_ref());
        }
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &*key).expect("32 bytes are a key of AES-256");
        let mut rest = [0; 12];
        rest.copy_from_slice(&nonce[12..]);
        (aead::LessSafeKey::new(key), aead::Nonce::assume_unique_for_key(rest))
    }

    /// Encrypts in place and appends the tag.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], body: &mut Vec<u8>) {
        let (key, nonce) = self.message_key(nonce);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(associated), body)
            .expect("a message below 64 GiB can be sealed");
    }

    /// Checks and decrypts ciphertext and tag.
    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (key, nonce) = self.message_key(nonce);
        let mut plain = Zeroizing::new(body.to_vec());
        let length =
            key.open_in_place(nonce, aead::Aad::from(associated), &mut plain).map_err(|_| NotOpened)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aes_gcm::aead::{Aead, KeyInit, Payload};

    use super::*;

    /// The vectors of c2sp.org/XAES-256-GCM, "Test vectors": key byte, associated data, ciphertext and tag.
    const PUBLISHED: [(u8, &[u8], &str); 2] = [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ];
    const NONCE: &[u8; 24] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sealed_messages_are_the_published_ones() {
        for (key, associated, expected) in PUBLISHED {
            let xaes = Xaes::new(&[key; 32]);
            let mut body = b"XAES-256-GCM".to_vec();
            xaes.seal(NONCE, associated, &mut body);
            assert_eq!(hex(&body), expected);
            assert_eq!(**xaes.open(NONCE, associated, &body).unwrap(), *b"XAES-256-GCM");
            assert!(xaes.open(NONCE, b"other", &body).is_err());
        }
    }

    /// The published message key of the first vector, used with another implementation of GCM.
    #[test]
    fn another_gcm_under_the_published_message_key_opens_it() {
        let key: Vec<u8> = (0..32)
            .map(|at| {
                let hex = "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b";
                u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()
            })
            .collect();
        for bytes in [0, 1, 15, 16, 17, 1000] {
            let plain = vec![0x5A; bytes];
            let mut body = plain.clone();
            Xaes::new(&[1; 32]).seal(NONCE, b"context", &mut body);
            let other = aes_gcm::Aes256Gcm::new_from_slice(&key).unwrap();
            let payload = Payload { msg: &body, aad: b"context" };
            assert_eq!(
                other.decrypt((&<[u8; 12]>::try_from(&NONCE[12..]).unwrap()).into(), payload).unwrap(),
                plain
            );
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let xaes = Xaes::new(&[7; 32]);
        let mut body = b"secret".to_vec();
        xaes.seal(NONCE, b"", &mut body);
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(xaes.open(NONCE, b"", &damaged).is_err());
        }
        assert!(xaes.open(NONCE, b"", &[]).is_err());
    }
}
