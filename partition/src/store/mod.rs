//! The store of a member (HA 7): what the partition asks of a disk. Values are opaque sealed bytes; beside them stand
//! a few clear columns. One transaction either happens whole and durable, or not at all.
//!
//! ```text
//! apply(expect, puts, removes, deltas) -> seq + 1        one commit, one seq, no gap
//! reserve_try -> verifier runs -> settle_try             a PIN try is spent before the PIN is looked at
//! ```
use std::collections::BTreeSet;
use std::{error, fmt};

use spec::record::Ouid;

pub mod contract;
mod memory;
mod tries;

pub use memory::MemoryStore;
pub use tries::{Reserved, Tries, TryRules};

use crate::digest_tree::Digest;

/// A gap-free count of a store's commits (HA 1.5); 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// What a value is stored under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A record (HA 1.1).
    Record(Ouid),
    /// The manifest (HA 2.6).
    Manifest,
    /// The credentials (HA 2.7).
    Credentials,
    /// Anything else, by a short name of ASCII letters.
    Meta(String),
}

/// A value to be written, replacing what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub key: Key,
    /// Opaque bytes; the partition seals them.
    pub value: Vec<u8>,
    /// Of a record: its [`State`](spec::record::State) as a number. 0 for everything else.
    pub state: i32,
}

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Under what it is stored.
    pub key: Key,
    /// The seq of the commit that wrote it: its version for `expect`.
    pub version: u64,
    /// The opaque bytes.
    pub value: Vec<u8>,
    /// As in [`Put`].
    pub state: i32,
}

/// What a bucket's digest changes by; added modulo 2^256 (HA 1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// 0..4096.
    pub bucket: u16,
    /// The difference.
    pub difference: Digest,
}

/// One atomic change. Empty lists are allowed; even an empty transaction is one commit. A key stands at most once among
/// `puts` and `removes` together: its deltas are the difference to what is stored, so that a second one would count twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The versions that must still hold, `None` for "nothing is stored under this key"; otherwise nothing happens.
    pub expect: Vec<(Key, Option<u64>)>,
    /// What is written.
    pub puts: Vec<Put>,
    /// What is forgotten; a key that is not there is no error.
    pub removes: Vec<Key>,
    /// What the digest buckets change by.
    pub deltas: Vec<Delta>,
    /// A new incarnation (HA 1.5); absent to keep the one there is. The seq counts on.
    pub incarnation: Option<u64>,
}

impl Transaction {
    /// A key that is written or removed more than once, which every store refuses.
    pub fn repeated_key(&self) -> Option<&Key> {
        let mut seen = BTreeSet::new();
        self.puts.iter().map(|put| &put.key).chain(&self.removes).find(|key| !seen.insert(*key))
    }

    /// Errs with [`StoreError::Failed`] when a key is written or removed more than once; every `apply` begins with it.
    ///
    /// # Errors
    /// See above.
    pub fn check_keys(&self) -> Result<(), StoreError> {
        match self.repeated_key() {
            None => Ok(()),
            Some(key) => Err(StoreError::Failed(format!(
                "wanted each key once in a transaction, found two puts or removes of {key:?}; this is a fault of the \
                 partition"
            ))),
        }
    }
}

/// One commit as `since` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub seq: Seq,
    /// The keys that it wrote or removed, in the order of the transaction: puts, then removes.
    pub keys: Vec<Key>,
}

/// Why a store did not do it.
#[derive(Debug)]
pub enum StoreError {
    /// An expectation did not hold; nothing was written.
    Conflict(Key),
    /// The store has not reached the seq that was demanded.
    Behind(Seq),
    /// The disk, file or database failed; the text says what to do.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(key) => {
                write!(f, "wanted {key:?} unchanged, found another version; read it again and repeat")
            }
            Self::Behind(seq) => {
                write!(f, "wanted a later commit than {}, which is the last here; ask another member", seq.0)
            }
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl error::Error for StoreError {}

/// Hears of commits; see [`Store::watch`].
pub type Hint = Box<dyn Fn(Seq) + Send + Sync>;

/// A member's durable memory (HA 7). No lock of the process guards a rule of the store: every rule is an
/// expectation inside `apply`, or holds inside `reserve_try`.
///
/// Every method errs with [`StoreError::Failed`] when the medium fails.
pub trait Store: Send + Sync {
    /// Carries out a transaction, whole and durable before it returns, and answers the seq of that commit.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; [`StoreError::Failed`] when a key stands twice
    /// ([`Transaction::check_keys`]). Either way nothing has happened.
    fn apply(&self, transaction: &Transaction) -> Result<Seq, StoreError>;

    /// The entries under these keys, in that order, from one moment at which the store had reached `at_least`.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when it has not.
    fn read(&self, keys: &[Key], at_least: Seq) -> Result<Vec<Option<Entry>>, StoreError>;

    /// At most `count` records behind `after` in the order of their ouids.
    fn page(&self, after: Option<Ouid>, count: usize) -> Result<Vec<Entry>, StoreError>;

    /// At most `count` commits behind `after`, in order and without gaps. Errs when commits behind `after` were forgotten
    /// by `tidy`: then digests tell what differs (HA 1.6).
    fn since(&self, after: Seq, count: usize) -> Result<Vec<Commit>, StoreError>;

    /// The digests of the buckets `first..=last` (0..4096).
    fn digest(&self, first: u16, last: u16) -> Result<Vec<Digest>, StoreError>;

    /// Spends a PIN try before the verifier runs, durably, by the rules of [`Tries::reserve`]. It is no commit: the
    /// seq stays. `tag` names the try: the same one again spends nothing.
    fn reserve_try(
        &self,
        role: u64,
        client: &[u8; 32],
        tag: &[u8; 32],
        now_ms: u64,
        rules: &TryRules,
    ) -> Result<Reserved, StoreError>;

    /// The PIN was right: forgets the failures of this client in this role. It is no commit.
    fn settle_try(&self, role: u64, client: &[u8; 32]) -> Result<(), StoreError>;

    /// The clients with unsettled tries in a role, in any order.
    fn tries(&self, role: u64) -> Result<Vec<([u8; 32], Tries)>, StoreError>;

    /// The incarnation (HA 1.5); 0 before a transaction has set one.
    fn incarnation(&self) -> Result<u64, StoreError>;

    /// The seq of the last commit.
    fn seq(&self) -> Result<Seq, StoreError>;

    /// From now on `hint` hears of commits of every process, by their seq: soon after them, from any thread. It must
    /// not call the store. A hint only: it may come late, twice or never, and no rule hangs on it.
    fn watch(&self, hint: Hint);

    /// Housekeeping, now and then: nothing that was replaced or removed is left on the medium as far as the store can see
    /// to that, and commits of long ago are forgotten. It is no commit.
    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
