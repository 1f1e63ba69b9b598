//! The hashes of FIPS 180-4 that are supported, with their facts and a one-shot digest.

use std::ops::Deref;

use aws_lc_rs::digest as aws;

/// A hash of FIPS 180-4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1. Collisions are known; it is here because the standard's mechanisms name it.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// Every hash, weakest first.
    pub const ALL: [Hash; 5] = [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// Length of a digest in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha224 => 28,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// Length of a block in bytes, the B of HMAC (RFC 2104, 2).
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha224 | Hash::Sha256 => 64,
            Hash::Sha384 | Hash::Sha512 => 128,
        }
    }

    /// What stands before the digest in the DER encoding of `DigestInfo` (RFC 8017, 9.2 note 1).
    #[must_use]
    pub const fn digest_info_prefix(self) -> &'static [u8] {
        match self {
            Hash::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Hash::Sha224 => b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
            Hash::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
            Hash::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
            Hash::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        }
    }

    /// The number of the digest mechanism, a `CKM_` (PKCS #11 v3.1, 6.19 to 6.23).
    #[must_use]
    pub const fn mechanism(self) -> u64 {
        match self {
            Hash::Sha1 => 0x220,
            Hash::Sha224 => 0x255,
            Hash::Sha256 => 0x250,
            Hash::Sha384 => 0x260,
            Hash::Sha512 => 0x270,
        }
    }

    /// The hash of a digest mechanism's number; `None` for any other number.
    #[must_use]
    pub fn from_mechanism(number: u64) -> Option<Hash> {
        Hash::ALL.into_iter().find(|hash| hash.mechanism() == number)
    }

    fn algorithm(self) -> &'static aws::Algorithm {
        match self {
            Hash::Sha1 => &aws::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => &aws::SHA224,
            Hash::Sha256 => &aws::SHA256,
            Hash::Sha384 => &aws::SHA384,
            Hash::Sha512 => &aws::SHA512,
        }
    }
}

/// A digest, in place.
#[derive(Clone, Copy)]
pub struct Digest(aws::Digest);

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// The digest of `data`, `hash.len_bytes()` long, in one step.
#[must_use]
pub fn digest(hash: Hash, data: &[u8]) -> Digest {
    Digest(aws::digest(hash.algorithm(), data))
}

#[cfg(test)]
pub(crate) mod known {
    //! Known answers: the examples of FIPS 180-2 (appendices A to C), its change notice 1 (SHA-224) and RFC 3174.
    use super::Hash;

    /// The message of one block.
    pub(crate) const ABC: &[u8] = b"abc";
    /// The message of two blocks of 64 bytes.
    pub(crate) const TWO_BLOCKS: &[u8] = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";

    /// Hash, digest of `ABC`, digest of `TWO_BLOCKS`, digest of a million letters a.
    pub(crate) const ANSWERS: [(Hash, &str, &str, &str); 5] = [
        (
            Hash::Sha1,
            "a9993e364706816aba3e25717850c26c9cd0d89d",
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            "34aa973cd4c4daa4f61eeb2bdbad27316534016f",
        ),
        (
            Hash::Sha224,
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            "75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525",
            "20794655980c91d8bbb4c1ea97618a4bf03f42581948b2ee4ee7ad67",
        ),
        (
            Hash::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
        (
            Hash::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "3391fdddfc8dc7393707a65b1b4709397cf8b1d162af05abfe8f450de5f36bc6b0455a8520bc4e6f5fe95b1fe3c8452b",
            "9d0e1809716474cb086e834e310a4a1ced149e9c00f248527972cec5704c2a5b07b8b3dc38ecc4ebae97ddd87f3d8985",
        ),
        (
            Hash::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "204a8fc6dda82f0a0ced7beb8e08a41657c16ef468b228a8279be331a703c33596fd15c13b1b07f9aa1d3bea57789ca031ad85c7a71dd70354ec631238ca3445",
            "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973ebde0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b",
        ),
    ];

    /// Lower-case hexadecimal.
    pub(crate) fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{known::*, *};

    #[test]
    fn one_shot_digests_are_those_of_fips_180() {
        for (hash, abc, two_blocks, million) in ANSWERS {
            assert_eq!(hex(&digest(hash, ABC)), abc, "{hash:?}");
            assert_eq!(hex(&digest(hash, TWO_BLOCKS)), two_blocks, "{hash:?}");
            assert_eq!(hex(&digest(hash, &[b'a'; 1_000_000])), million, "{hash:?}");
        }
    }

    #[test]
    fn mechanism_numbers_map_back_and_unknown_ones_to_nothing() {
        for hash in Hash::ALL {
            assert_eq!(Hash::from_mechanism(hash.mechanism()), Some(hash));
            assert_eq!(digest(hash, b"").len(), hash.len_bytes());
        }
        assert_eq!(Hash::from_mechanism(0x210), None);
    }

    #[test]
    fn digest_info_prefix_announces_the_digest_that_follows() {
        for hash in Hash::ALL {
            let prefix = hash.digest_info_prefix();
            assert_eq!(usize::from(prefix[1]), prefix.len() - 2 + hash.len_bytes(), "outer length");
            assert_eq!(usize::from(prefix[prefix.len() - 1]), hash.len_bytes(), "inner length");
        }
    }
}
