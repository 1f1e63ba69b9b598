//! A hash in progress whose state can be written down, sealed and taken up by another process (RULES 1.8, RULES 4).
//!
//! ```text
//! new -> update* -> finish
//!          |  ^
//!   to_state  from_state (here, or on another member)
//! ```

use crate::Hash;
use sha2::digest::{Digest, common::hazmat::SerializableState};
use std::{error, fmt};
use zeroize::Zeroizing;

/// A hash in progress, wiped when dropped. Its state is as secret as what was put in: an HMAC's first block is its key.
#[derive(Clone)]
pub struct Running(State);

#[derive(Clone)]
enum State {
    Sha1(sha1::Sha1),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

/// Bytes that [`Running::to_state`] cannot have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadState;

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wanted a saved hash state, found other bytes; start the operation again")
    }
}

impl error::Error for BadState {}

/// Does the same with whichever hash is inside.
macro_rules! each {
    ($state:expr, $hash:ident => $does:expr) => {
        match $state {
            State::Sha1($hash) => $does,
            State::Sha224($hash) => $does,
            State::Sha256($hash) => $does,
            State::Sha384($hash) => $does,
            State::Sha512($hash) => $does,
        }
    };
}

impl Running {
    /// A hash of nothing yet.
    #[must_use]
    pub fn new(hash: Hash) -> Running {
        Running(match hash {
            Hash::Sha1 => State::Sha1(sha1::Sha1::new()),
            Hash::Sha224 => State::Sha224(sha2::Sha224::new()),
            Hash::Sha256 => State::Sha256(sha2::Sha256::new()),
            Hash::Sha384 => State::Sha384(sha2::Sha384::new()),
            Hash::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Which hash it is.
    #[must_use]
    pub fn hash(&self) -> Hash {
        match &self.0 {
            State::Sha1(_) => Hash::Sha1,
            State::Sha224(_) => Hash::Sha224,
            State::Sha256(_) => Hash::Sha256,
            State::Sha384(_) => Hash::Sha384,
            State::Sha512(_) => Hash::Sha512,
        }
    }

    /// Takes the next bytes of the message.
    pub fn update(&mut self, data: &[u8]) {
        each!(&mut self.0, hash => hash.update(data));
    }

    /// The digest of everything taken, `hash().len_bytes()` long.
    #[must_use]
    pub fn finish(self) -> Zeroizing<Vec<u8>> {
        self.finish_into(Zeroizing::default())
    }

    /// As [`Running::finish`], in memory that is used again; what it holds is replaced.
    #[must_use]
    pub fn finish_into(self, mut room: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        if room.capacity() < self.hash().len_bytes() {
            room = Zeroizing::new(Vec::with_capacity(self.hash().len_bytes()));
        }
        room.clear();
        each!(self.0, hash => room.extend_from_slice(&hash.finalize()));
        room
    }

    /// Everything needed to go on elsewhere: one byte that names the hash, then its state, of fixed length per hash. In clear.
    #[must_use]
    pub fn to_state(&self) -> Zeroizing<Vec<u8>> {
        let saved = each!(&self.0, hash => Zeroizing::new(hash.serialize().to_vec()));
        let mut out = Zeroizing::new(Vec::with_capacity(1 + saved.len()));
        out.push(number(self.hash()));
        out.extend_from_slice(&saved);
        out
    }

    /// Goes on from a saved state. Errs if the bytes cannot be one.
    pub fn from_state(state: &[u8]) -> Result<Running, BadState> {
        let (named, saved) = state.split_first().ok_or(BadState)?;
        let hash = Hash::ALL.into_iter().find(|hash| number(*hash) == *named).ok_or(BadState)?;
        Ok(Running(match hash {
            Hash::Sha1 => State::Sha1(restored(saved)?),
            Hash::Sha224 => State::Sha224(restored(saved)?),
            Hash::Sha256 => State::Sha256(restored(saved)?),
            Hash::Sha384 => State::Sha384(restored(saved)?),
            Hash::Sha512 => State::Sha512(restored(saved)?),
        }))
    }
}

fn restored<H: SerializableState>(saved: &[u8]) -> Result<H, BadState> {
    H::deserialize(saved.try_into().map_err(|_| BadState)?).map_err(|_| BadState)
}

/// The first byte of a saved state. Never reused for another hash.
fn number(hash: Hash) -> u8 {
    match hash {
        Hash::Sha1 => 1,
        Hash::Sha224 => 2,
        Hash::Sha256 => 3,
        Hash::Sha384 => 4,
        Hash::Sha512 => 5,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{digest, hash::known::*};

    #[test]
    fn running_digests_are_those_of_fips_180() {
        for (hash, abc, two_blocks, million) in ANSWERS {
            for (message, answer) in [(ABC, abc), (TWO_BLOCKS, two_blocks), (&[b'a'; 1_000_000], million)] {
                let mut running = Running::new(hash);
                message.chunks(977).for_each(|part| running.update(part));
                assert_eq!(hex(&running.finish()), answer, "{hash:?}");
            }
        }
    }

    #[test]
    fn state_taken_after_every_byte_goes_on_to_the_same_digest() {
        let message: Vec<u8> = (0..=255).chain(0..=63).collect();
        for hash in Hash::ALL {
            let mut running = Running::new(hash);
            let bytes = running.to_state().len();
            for byte in &message {
                running.update(std::slice::from_ref(byte));
                let state = running.to_state();
                assert_eq!(state.len(), bytes, "fixed size, RULES 1.9");
                running = Running::from_state(&state).unwrap();
            }
            assert_eq!(running.hash(), hash);
            assert_eq!(**running.finish(), *digest(hash, &message));
        }
    }

    #[test]
    fn state_of_another_length_or_hash_is_refused() {
        for hash in Hash::ALL {
            let state = Running::new(hash).to_state();
            assert!(Running::from_state(&state[..state.len() - 1]).is_err());
            assert!(Running::from_state(&[&state[..], &[0]].concat()).is_err());
            for wrong in [0, 6, 255] {
                assert!(Running::from_state(&[&[wrong], &state[1..]].concat()).is_err());
            }
        }
        assert_eq!(Running::from_state(&[]).err(), Some(BadState));
        // Every byte at its greatest: an impossible position in the block must not panic.
        assert!(Running::from_state(&[&[3], &[0xff; 104][..]].concat()).is_err());
    }
}
