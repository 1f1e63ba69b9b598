//! The credentials of a partition: one Argon2id verifier for each role that has a PIN; sealed, versioned, changed at
//! the home only (HA 2.7).
use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{digest, hmac};
use prost::Message as _;
use spec::record::Manifest;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::Role;
use crate::random::{SystemRandom, bytes};
use crate::settings::Settings;

/// One role's verifier (RFC 9106).
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Verifier {
    /// [`Role::byte`].
    #[prost(uint32, tag = "1")]
    pub(crate) role: u32,
    #[prost(bytes = "vec", tag = "2")]
    salt: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    hash: Vec<u8>,
    #[prost(uint32, tag = "4")]
    memory_kib: u32,
    #[prost(uint32, tag = "5")]
    passes: u32,
    #[prost(uint32, tag = "6")]
    lanes: u32,
    /// Raised by whatever ends this role's tickets (RULES 2.6); a changed PIN does not.
    #[prost(uint64, tag = "7")]
    pub(crate) revocation: u64,
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.hash.zeroize();
    }
}

/// All verifiers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Credentials {
    /// The term of the home that set them, in the upper 32 bits, and a count of changes (`next_epoch`).
    #[prost(uint64, tag = "1")]
    pub(crate) epoch: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) verifiers: Vec<Verifier>,
    /// Names the change that made this epoch (HA 2.7): a hash of client and tag.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) tag: Vec<u8>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verifier of role {}", self.role)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of epoch {}", self.epoch)
    }
}

impl Verifier {
    /// A verifier for a PIN, with a fresh salt.
    pub(crate) fn make(role: Role, pin: &[u8], revocation: u64, settings: &Settings) -> Option<Verifier> {
        let mut verifier = Verifier {
            role: u32::from(role.byte()),
            salt: bytes::<16>(&SystemRandom).to_vec(),
            hash: Vec::new(),
            memory_kib: settings.argon2_memory_kib,
            passes: settings.argon2_passes,
            lanes: settings.argon2_lanes,
            revocation,
        };
        verifier.hash = verifier.hash_of(pin)?.to_vec();
        Some(verifier)
    }

    fn hash_of(&self, pin: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok()?;
        let mut hash = Zeroizing::new([0; 32]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(pin, &self.salt, &mut *hash).ok()?;
        Some(hash)
    }

    /// Names this verifier: another PIN, or the same PIN set anew, has another fingerprint.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.salt);
        context.update(&self.hash);
        context.update(&self.revocation.to_be_bytes());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }

    /// Whether the PIN is right; the comparison takes the same time for every wrong one.
    pub(crate) fn accepts(&self, pin: &[u8]) -> bool {
        self.hash_of(pin).is_some_and(|hash| bool::from(hash[..].ct_eq(&self.hash)))
    }
}

/// The epoch of the next credentials: the manifest's term in the upper half, so that of two homes the promoted one wins,
/// and within it the count of changes (HA 2.7).
pub(crate) fn next_epoch(held: &Credentials, manifest: &Manifest) -> u64 {
    (held.epoch + 1).max(manifest.epoch >> 32 << 32)
}

impl Credentials {
    /// Whether these take the place of those held: by the greater epoch, and of two homes that set one epoch at a time by
    /// the tag and then by the content, so that all members end with the same (HA 2.7).
    pub(crate) fn is_newer(&self, held: &Credentials) -> bool {
        self.rank() > held.rank()
    }

    fn rank(&self) -> (u64, &[u8], [u8; 32]) {
        let plain = Zeroizing::new(self.encode_to_vec());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &plain).as_ref());
        (self.epoch, &self.tag, hash)
    }

    /// A name of the credentials that says nothing about them to whoever has no key of the domain.
    pub(crate) fn name(&self, key: &hmac::Key) -> Vec<u8> {
        hmac::sign(key, &Zeroizing::new(self.encode_to_vec())).as_ref().to_vec()
    }

    /// The verifier of a role; none when it has no PIN.
    pub(crate) fn verifier(&self, role: Role) -> Option<&Verifier> {
        self.verifiers.iter().find(|verifier| verifier.role == u32::from(role.byte()))
    }

    /// The revocation number of a role; 0 when it has no PIN.
    pub(crate) fn revocation(&self, role: Role) -> u64 {
        self.verifier(role).map_or(0, |verifier| verifier.revocation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_accepts_its_pin_and_no_other() {
        let settings = Settings::for_tests();
        let verifier = Verifier::make(Role::CryptoOfficer, b"1234", 1, &settings).unwrap();
        assert!(verifier.accepts(b"1234"));
        for wrong in [&b"1235"[..], b"123", b"12345", b""] {
            assert!(!verifier.accepts(wrong));
        }
        let other = Verifier::make(Role::CryptoOfficer, b"1234", 1, &settings).unwrap();
        assert_ne!(other.hash, verifier.hash, "salts differ");
    }

    /// RFC 9106, appendix, is for 32-byte passwords with secret and associated data; this is the test vector of the
    /// reference implementation (phc-winner-argon2, test.c): t=2, m=65536, p=1, "password", "somesalt".
    #[test]
    fn the_verifier_is_argon2id_of_the_reference_implementation() {
        let verifier = Verifier {
            role: 2,
            salt: b"somesalt".to_vec(),
            hash: Vec::new(),
            memory_kib: 65_536,
            passes: 2,
            lanes: 1,
            revocation: 0,
        };
        let hash: String =
            verifier.hash_of(b"password").unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
    }
}
