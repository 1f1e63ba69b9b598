//! EME-OAEP (RFC 8017, 7.1) with any hash, mask hash and label. Decoding takes the same time for every block and has one
//! failure (CONVENTIONS 17, Manger's attack).

use super::mask;
use crate::{Hash, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

/// The choices of one OAEP encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oaep<'a> {
    /// The hash of the label.
    pub hash: Hash,
    /// The hash inside MGF1.
    pub mask_hash: Hash,
    /// The label, often empty.
    pub label: &'a [u8],
}

impl Oaep<'_> {
    /// Longest message in bytes for a modulus of `k` bytes; `None` if the modulus is too short for the hash.
    pub fn message_bytes_max(&self, k: usize) -> Option<usize> {
        k.checked_sub(2 * self.hash.len_bytes() + 2)
    }

    /// The encoded message. `seed` has the hash's length. `None` if something has a length it must not have.
    pub fn encode(&self, message: &[u8], seed: &[u8], k: usize) -> Option<Zeroizing<Vec<u8>>> {
        let hash_bytes = self.hash.len_bytes();
        if message.len() > self.message_bytes_max(k)? || seed.len() != hash_bytes {
            return None;
        }
        let mut em = Zeroizing::new(vec![0; k]);
        let (seed_at, block) = em[1..].split_at_mut(hash_bytes);
        let separator = block.len() - message.len() - 1;
        block[..hash_bytes].copy_from_slice(&digest(self.hash, self.label));
        block[separator] = 1;
        block[separator + 1..].copy_from_slice(message);
        mask(self.mask_hash, seed, block);
        seed_at.copy_from_slice(seed);
        mask(self.mask_hash, block, seed_at);
        Some(em)
    }

    /// The message in a decrypted block of k bytes; `None` for any other block.
    pub fn decode(&self, em: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.message_bytes_max(em.len())?;
        let mut em = Zeroizing::new(em.to_vec());
        let (first, rest) = em.split_at_mut(1);
        let (seed, block) = rest.split_at_mut(self.hash.len_bytes());
        mask(self.mask_hash, block, seed);
        mask(self.mask_hash, seed, block);
        let (label, padded) = block.split_at(self.hash.len_bytes());
        let mut valid = first[0].ct_eq(&0) & label.ct_eq(&digest(self.hash, self.label));
        let (mut searching, mut separator) = (Choice::from(1), 0u64);
        for (i, byte) in (0u64..).zip(padded) {
            let here = searching & byte.ct_eq(&1);
            separator.conditional_assign(&i, here);
            searching &= !here;
            valid &= !searching | byte.ct_eq(&0);
        }
        valid &= !searching;
        let start = usize::try_from(separator).ok()? + 1;
        bool::from(valid).then(|| Zeroizing::new(padded[start..].to_vec()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CHOICES: [(Hash, Hash, &[u8]); 3] = [
        (Hash::Sha1, Hash::Sha1, b""),
        (Hash::Sha256, Hash::Sha1, b"label"),
        (Hash::Sha384, Hash::Sha512, b"\0"),
    ];

    #[test]
    fn every_length_that_fits_comes_back_and_longer_ones_are_refused() {
        for (hash, mask_hash, label) in CHOICES {
            let oaep = Oaep { hash, mask_hash, label };
            let most = oaep.message_bytes_max(128).unwrap();
            let seed = vec![0x33; hash.len_bytes()];
            for bytes in [0, 1, most] {
                let message = vec![1; bytes];
                let em = oaep.encode(&message, &seed, 128).unwrap();
                assert_eq!(em.len(), 128);
                assert_eq!(*oaep.decode(&em).unwrap(), message);
            }
            assert!(oaep.encode(&vec![1; most + 1], &seed, 128).is_none());
            assert!(oaep.encode(b"", &seed[1..], 128).is_none());
        }
        let large = Oaep { hash: Hash::Sha512, mask_hash: Hash::Sha512, label: b"" };
        assert!(large.message_bytes_max(128).is_none() && large.decode(&[0; 128]).is_none());
    }

    #[test]
    fn altered_blocks_and_other_labels_are_refused() {
        for (hash, mask_hash, label) in CHOICES {
            let oaep = Oaep { hash, mask_hash, label };
            let em = oaep.encode(b"message", &vec![0x33; hash.len_bytes()], 128).unwrap();
            for i in 0..em.len() {
                let mut altered = em.to_vec();
                altered[i] ^= 1;
                assert!(oaep.decode(&altered).is_none(), "{i}");
            }
            assert!(Oaep { label: b"other", ..oaep }.decode(&em).is_none());
            // A block whose padding never ends.
            let mut endless = vec![0; 128];
            let (seed, block) = endless[1..].split_at_mut(hash.len_bytes());
            block[..hash.len_bytes()].copy_from_slice(&digest(hash, label));
            mask(mask_hash, seed, block);
            mask(mask_hash, block, seed);
            assert!(oaep.decode(&endless).is_none());
        }
    }
}
