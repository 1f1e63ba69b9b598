//! Right PINs remembered as keyed hashes in memory, so that a login after the first costs no Argon2id and no write (RULES 2.5).
//!
//! ```text
//! right PIN, verified and settled -> remembered for (role, client)
//! the same PIN again              -> accepted
//! any other PIN                   -> forgotten, then a try like the first
//! ```
//! A remembered PIN never helps to guess: whoever offers a wrong one makes the member forget, and spends a try. So nothing
//! is remembered of a client with failures, and a delay after failures holds for the right PIN too. The hash covers the
//! verifier, so that a change of the PIN, by whatever way it comes, ends what was remembered before it.
use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::Role;
use super::credentials::Verifier;
use crate::random::{SystemRandom, bytes};

/// A client in a role.
type Who = (u8, [u8; 32]);

/// What is remembered: at most one hash for each registered client in each role.
pub(crate) struct Remembered {
    /// Of this process only: what stands in memory is worth nothing elsewhere.
    key: hmac::Key,
    hashes: RwLock<BTreeMap<Who, [u8; 32]>>,
}

impl Default for Remembered {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes::<32>(&SystemRandom));
        Self { key, hashes: RwLock::default() }
    }
}

impl Remembered {
    /// Whether this PIN is the remembered one.
    pub(crate) fn knows(&self, role: Role, client: &[u8; 32], verifier: &Verifier, pin: &[u8]) -> bool {
        let who = (role.byte(), *client);
        let Some(held) = self.hashes.read().get(&who).copied() else { return false };
        bool::from(held[..].ct_eq(&self.hash(&who, verifier, pin)))
    }

    /// Forgets what is remembered of a client, before its try.
    pub(crate) fn forget(&self, role: Role, client: &[u8; 32]) {
        self.hashes.write().remove(&(role.byte(), *client));
    }

    /// Remembers a PIN that the verifier has accepted.
    pub(crate) fn remember(&self, role: Role, client: &[u8; 32], verifier: &Verifier, pin: &[u8]) {
        let who = (role.byte(), *client);
        let hash = self.hash(&who, verifier, pin);
        self.hashes.write().insert(who, hash);
    }

    /// Client and verifier have one length each, so the PIN may be last as it is.
    fn hash(&self, who: &Who, verifier: &Verifier, pin: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[who.0]);
        context.update(&who.1);
        context.update(&verifier.fingerprint());
        context.update(pin);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}
