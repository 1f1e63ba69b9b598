//! The digest of a member's content (HA 1.6): 4,096 buckets by ouid prefix, each the sum modulo 2^256 of keyed hashes
//! of the canonical joined state of committed and deleted objects; the root is the hash of the buckets.
use std::sync::OnceLock;

use aws_lc_rs::{digest, hmac};
use prost::Message;
use spec::record::{Record, State};

/// How many buckets there are.
pub const BUCKETS: u16 = 4096;

/// 256 bits: a number, most significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of nothing.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The sum modulo 2^256.
    #[must_use]
    pub fn plus(&self, other: &Digest) -> Digest {
        let mut sum = [0; 32];
        let mut carry = false;
        for (index, byte) in sum.iter_mut().enumerate().rev() {
            let (half, first) = self.0[index].overflowing_add(other.0[index]);
            let (whole, second) = half.overflowing_add(u8::from(carry));
            *byte = whole;
            carry = first || second;
        }
        Digest(sum)
    }

    /// The difference modulo 2^256.
    #[must_use]
    pub fn minus(&self, other: &Digest) -> Digest {
        let mut difference = [0; 32];
        let mut borrow = false;
        for (index, byte) in difference.iter_mut().enumerate().rev() {
            let (half, first) = self.0[index].overflowing_sub(other.0[index]);
            let (whole, second) = half.overflowing_sub(u8::from(borrow));
            *byte = whole;
            borrow = first || second;
        }
        Digest(difference)
    }
}

/// Hashes records under the domain's digest key.
pub(crate) struct RecordHasher(hmac::Key);

impl RecordHasher {
    /// The key is the domain's, so that equal contents have equal digests on all members and mean nothing elsewhere.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The record's part of its bucket: zero while it is provisional, for provisional batches are forgotten one day.
    pub(crate) fn hash(&self, record: &Record) -> Digest {
        match record.state() {
            State::Provisional => Digest::ZERO,
            state @ (State::Committed | State::Deleted) => {
                self.hash_encoded(state, &zeroize::Zeroizing::new(record.encode_to_vec()))
            }
        }
    }

    /// The same of a record in this state whose encoding is known.
    pub(crate) fn hash_encoded(&self, state: State, encoded: &[u8]) -> Digest {
        if state == State::Provisional {
            return Digest::ZERO;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, encoded).as_ref());
        Digest(hash)
    }
}

/// The buckets and their root.
pub(crate) struct DigestTree {
    buckets: Vec<Digest>,
    /// Computed when it is asked for, by a reader; forgotten by a change.
    root: OnceLock<Digest>,
}

impl DigestTree {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![Digest::ZERO; usize::from(BUCKETS)], root: OnceLock::new() }
    }

    /// Adds a difference to a bucket.
    pub(crate) fn add(&mut self, bucket: u16, difference: &Digest) {
        if let Some(held) = self.buckets.get_mut(usize::from(bucket)) {
            *held = held.plus(difference);
            self.root = OnceLock::new();
        }
    }

    /// All buckets in order.
    pub(crate) fn buckets(&self) -> &[Digest] {
        &self.buckets
    }

    /// The root, computed when needed.
    pub(crate) fn root(&self) -> Digest {
        *self.root.get_or_init(|| {
            let mut context = digest::Context::new(&digest::SHA256);
            self.buckets.iter().for_each(|bucket| context.update(&bucket.0));
            let mut hash = [0; 32];
            hash.copy_from_slice(context.finish().as_ref());
            Digest(hash)
        })
    }
}

#[cfg(test)]
mod tests {
    use spec::record::Ouid;

    use super::*;

    #[test]
    fn ha_1_6_sums_do_not_depend_on_the_order_and_differences_undo_them() {
        let (a, b) = (Digest([0xFF; 32]), Digest([0x81; 32]));
        assert_eq!(a.plus(&b), b.plus(&a));
        assert_eq!(a.plus(&b).minus(&b), a);
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(a.plus(&Digest(one)), Digest::ZERO);
        assert_eq!(Digest::ZERO.minus(&Digest(one)), a);
    }

    #[test]
    fn ha_1_6_provisional_records_do_not_count_and_other_keys_give_other_hashes() {
        let hasher = RecordHasher::new(&[1; 32]);
        let mut record = Record::tombstone(Ouid([5; 16]));
        assert_ne!(hasher.hash(&record), Digest::ZERO);
        assert_ne!(hasher.hash(&record), RecordHasher::new(&[2; 32]).hash(&record));
        record.set_state(State::Provisional);
        assert_eq!(hasher.hash(&record), Digest::ZERO);
    }

    #[test]
    fn ha_1_6_the_root_follows_the_buckets() {
        let mut tree = DigestTree::new();
        let empty = tree.root();
        tree.add(4095, &Digest([3; 32]));
        assert_ne!(tree.root(), empty);
        tree.add(4095, &Digest::ZERO.minus(&Digest([3; 32])));
        assert_eq!(tree.root(), empty);
    }
}
