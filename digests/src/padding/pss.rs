//! EMSA-PSS (RFC 8017, 9.1) with any hash, mask hash and salt length.

use super::mask;
use crate::{Hash, Running};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The choices of one PSS signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pss {
    /// The hash of the message.
    pub hash: Hash,
    /// The hash inside MGF1.
    pub mask_hash: Hash,
    /// Length of the salt in bytes.
    pub salt_bytes: usize,
}

impl Pss {
    /// Whether a modulus of so many bits has room for hash and salt.
    pub fn fits(&self, modulus_bits: usize) -> bool {
        let em_bytes = modulus_bits.saturating_sub(1).div_ceil(8);
        self.salt_bytes <= em_bytes && self.hash.len_bytes() + self.salt_bytes + 2 <= em_bytes
    }

    /// The encoded message of `digest`, in the bytes of the modulus. `None` if it does not fit or the salt has another length.
    pub fn encode(&self, digest: &[u8], salt: &[u8], modulus_bits: usize) -> Option<Zeroizing<Vec<u8>>> {
        if !self.fits(modulus_bits) || salt.len() != self.salt_bytes || digest.len() != self.hash.len_bytes()
        {
            return None;
        }
        let hash_bytes = self.hash.len_bytes();
        let (start, unused_bits) = shape(modulus_bits);
        let mut em = Zeroizing::new(vec![0; modulus_bits.div_ceil(8)]);
        let seal = self.seal(digest, salt);
        let (block, tail) = em[start..].split_at_mut(modulus_bits.div_ceil(8) - start - hash_bytes - 1);
        let separator = block.len() - salt.len() - 1;
        block[separator] = 1;
        block[separator + 1..].copy_from_slice(salt);
        mask(self.mask_hash, &seal, block);
        block[0] &= 0xff >> unused_bits;
        tail[..hash_bytes].copy_from_slice(&seal);
        tail[hash_bytes] = 0xbc;
        Some(em)
    }

    /// Whether `em`, in the bytes of the modulus, is an encoded message of `digest`.
    pub fn verifies(&self, digest: &[u8], em: &[u8], modulus_bits: usize) -> bool {
        let (start, unused_bits) = shape(modulus_bits);
        let sizes_right = em.len() == modulus_bits.div_ceil(8) && digest.len() == self.hash.len_bytes();
        if !self.fits(modulus_bits) || !sizes_right || em[..start].iter().any(|byte| *byte != 0) {
            return false;
        }
        let (block, tail) = em[start..].split_at(em.len() - start - self.hash.len_bytes() - 1);
        let (seal, trailer) = tail.split_at(self.hash.len_bytes());
        if trailer != [0xbc] || block[0] & !(0xff >> unused_bits) != 0 {
            return false;
        }
        let mut block = block.to_vec();
        mask(self.mask_hash, seal, &mut block);
        block[0] &= 0xff >> unused_bits;
        let (zeros, rest) = block.split_at(block.len() - self.salt_bytes - 1);
        let (separator, salt) = rest.split_at(1);
        let shaped = zeros.iter().all(|byte| *byte == 0) && separator == [1];
        shaped && bool::from(self.seal(digest, salt).ct_eq(seal))
    }

    /// H of RFC 8017, 9.1.1 step 6: the hash over eight zeros, the digest and the salt.
    fn seal(&self, digest: &[u8], salt: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut running = Running::new(self.hash);
        running.update(&[0; 8]);
        running.update(digest);
        running.update(salt);
        running.finish()
    }
}

/// Where the encoded message starts within the modulus' bytes, and how many of its first bits are unused.
fn shape(modulus_bits: usize) -> (usize, usize) {
    let em_bits = modulus_bits.saturating_sub(1);
    (modulus_bits.div_ceil(8) - em_bits.div_ceil(8), em_bits.div_ceil(8) * 8 - em_bits)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn encoded_messages_of_every_shape_verify_and_altered_ones_do_not() {
        for modulus_bits in [1024, 1025, 1030, 1031, 1032] {
            for (hash, mask_hash, salt_bytes) in [
                (Hash::Sha1, Hash::Sha1, 20),
                (Hash::Sha256, Hash::Sha1, 0),
                (Hash::Sha512, Hash::Sha384, 60),
            ] {
                let pss = Pss { hash, mask_hash, salt_bytes };
                let digest = vec![7; hash.len_bytes()];
                let em = pss.encode(&digest, &vec![9; salt_bytes], modulus_bits).unwrap();
                assert_eq!(em.len(), modulus_bits.div_ceil(8));
                assert!(pss.verifies(&digest, &em, modulus_bits));
                for i in 0..em.len() {
                    let mut altered = em.to_vec();
                    altered[i] ^= 0x80;
                    assert!(!pss.verifies(&digest, &altered, modulus_bits), "{modulus_bits} {i}");
                }
                assert!(!pss.verifies(&vec![8; hash.len_bytes()], &em, modulus_bits));
                let other = Pss { salt_bytes: salt_bytes + 1, ..pss };
                assert!(!other.verifies(&digest, &em, modulus_bits), "salt length is fixed");
            }
        }
    }

    #[test]
    fn salt_up_to_the_room_is_taken_and_more_refused() {
        let fitting = Pss { hash: Hash::Sha256, mask_hash: Hash::Sha256, salt_bytes: 128 - 32 - 2 };
        assert!(fitting.encode(&[1; 32], &[2; 94], 1024).is_some());
        for salt_bytes in [95, 1000, usize::MAX] {
            let pss = Pss { salt_bytes, ..fitting };
            assert!(!pss.fits(1024) && !pss.verifies(&[1; 32], &[0; 128], 1024));
        }
        assert!(fitting.encode(&[1; 31], &[2; 94], 1024).is_none());
        assert!(fitting.encode(&[1; 32], &[2; 93], 1024).is_none());
    }
}
