//! A store that behaves as another one but for what a test wants otherwise.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use partition::digest_tree::Digest;
use partition::store::{
    Commit, Entry, Hint, Key, MemoryStore, Reserved, Seq, Store, StoreError, Transaction, Tries, TryRules,
};
use spec::record::Ouid;

/// See the module.
pub struct Altered {
    pub store: Arc<dyn Store>,
    /// Counts the PIN tries reserved in it: each stands before one run of the verifier.
    pub reserved: AtomicU64,
    /// Nobody is told of commits.
    pub deaf: bool,
    /// It counts as one that was put back to its first commit.
    pub put_back: AtomicBool,
    /// At so many looks yet it has come further: another process writes all the time.
    pub restless: AtomicU64,
}

impl Default for Altered {
    fn default() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }
}

impl Altered {
    pub fn over(store: Arc<dyn Store>) -> Self {
        let (reserved, restless) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { store, reserved, deaf: false, put_back: AtomicBool::new(false), restless }
    }

    fn told(&self, seq: Seq) -> Seq {
        if self.put_back.load(Ordering::Relaxed) { Seq(1) } else { seq }
    }
}

impl Store for Altered {
    fn apply(&self, transaction: &Transaction) -> Result<Seq, StoreError> {
        Ok(self.told(self.store.apply(transaction)?))
    }
    fn read(&self, keys: &[Key], at_least: Seq) -> Result<Vec<Option<Entry>>, StoreError> {
        self.store.read(keys, at_least)
    }
    fn page(&self, after: Option<Ouid>, count: usize) -> Result<Vec<Entry>, StoreError> {
        self.store.page(after, count)
    }
    fn since(&self, after: Seq, count: usize) -> Result<Vec<Commit>, StoreError> {
        self.store.since(after, count)
    }
    fn digest(&self, first: u16, last: u16) -> Result<Vec<Digest>, StoreError> {
        self.store.digest(first, last)
    }
    fn reserve_try(
        &self,
        role: u64,
        client: &[u8; 32],
        tag: &[u8; 32],
        now_ms: u64,
        rules: &TryRules,
    ) -> Result<Reserved, StoreError> {
        self.reserved.fetch_add(1, Ordering::Relaxed);
        self.store.reserve_try(role, client, tag, now_ms, rules)
    }
    fn settle_try(&self, role: u64, client: &[u8; 32]) -> Result<(), StoreError> {
        self.store.settle_try(role, client)
    }
    fn tries(&self, role: u64) -> Result<Vec<([u8; 32], Tries)>, StoreError> {
        self.store.tries(role)
    }
    fn incarnation(&self) -> Result<u64, StoreError> {
        self.store.incarnation()
    }
    fn seq(&self) -> Result<Seq, StoreError> {
        let left = self.restless.load(Ordering::Relaxed);
        self.restless.store(left.saturating_sub(1), Ordering::Relaxed);
        Ok(self.told(Seq(self.store.seq()?.0 + left)))
    }
    fn watch(&self, hint: Hint) {
        if !self.deaf {
            self.store.watch(hint);
        }
    }
}
