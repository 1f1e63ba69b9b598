//! A store in memory: for tests and for partitions that need not outlive the process.
use std::collections::BTreeMap;

use parking_lot::Mutex;
use spec::record::Ouid;

use super::{Commit, Entry, Hint, Key, Reserved, Seq, Store, StoreError, Transaction, Tries, TryRules};
use crate::digest_tree::{BUCKETS, Digest};

/// Keeps everything in memory and loses it when dropped.
pub struct MemoryStore {
    state: Mutex<State>,
    hints: Mutex<Vec<Hint>>,
}

#[derive(Clone)]
struct State {
    entries: BTreeMap<Key, Entry>,
    buckets: Vec<Digest>,
    commits: Vec<Commit>,
    tries: BTreeMap<(u64, [u8; 32]), Tries>,
    incarnation: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let state = State {
            entries: BTreeMap::new(),
            buckets: vec![Digest::ZERO; usize::from(BUCKETS)],
            commits: Vec::new(),
            tries: BTreeMap::new(),
            incarnation: 0,
        };
        Self { state: Mutex::new(state), hints: Mutex::default() }
    }

    /// Another store that holds what this one holds now: what a restore or a clone begins with.
    #[must_use]
    pub fn image(&self) -> Self {
        Self { state: Mutex::new(self.state.lock().clone()), hints: Mutex::default() }
    }
}

impl State {
    fn check(&self, transaction: &Transaction) -> Result<(), StoreError> {
        transaction.check_keys()?;
        for (key, version) in &transaction.expect {
            if self.entries.get(key).map(|entry| entry.version) != *version {
                return Err(StoreError::Conflict(key.clone()));
            }
        }
        match transaction.deltas.iter().find(|delta| delta.bucket >= BUCKETS) {
            Some(delta) => Err(StoreError::Failed(format!(
                "wanted a bucket below {BUCKETS}, found {}; this is a fault of the partition",
                delta.bucket
            ))),
            None => Ok(()),
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Seq {
        let seq = Seq(self.commits.len() as u64 + 1);
        for put in &transaction.puts {
            let entry =
                Entry { key: put.key.clone(), version: seq.0, value: put.value.clone(), state: put.state };
            self.entries.insert(put.key.clone(), entry);
        }
        for key in &transaction.removes {
            self.entries.remove(key);
        }
        for delta in &transaction.deltas {
            let bucket = &mut self.buckets[usize::from(delta.bucket)];
            *bucket = bucket.plus(&delta.difference);
        }
        if let Some(incarnation) = transaction.incarnation {
            self.incarnation = incarnation;
        }
        let puts = transaction.puts.iter().map(|put| &put.key);
        self.commits.push(Commit { seq, keys: puts.chain(&transaction.removes).cloned().collect() });
        seq
    }
}

impl Store for MemoryStore {
    fn apply(&self, transaction: &Transaction) -> Result<Seq, StoreError> {
        let seq = {
            let mut state = self.state.lock();
            state.check(transaction)?;
            state.commit(transaction)
        };
        self.hints.lock().iter().for_each(|hint| hint(seq));
        Ok(seq)
    }

    fn read(&self, keys: &[Key], at_least: Seq) -> Result<Vec<Option<Entry>>, StoreError> {
        let state = self.state.lock();
        let seq = Seq(state.commits.len() as u64);
        if seq < at_least {
            return Err(StoreError::Behind(seq));
        }
        Ok(keys.iter().map(|key| state.entries.get(key).cloned()).collect())
    }

    fn page(&self, after: Option<Ouid>, count: usize) -> Result<Vec<Entry>, StoreError> {
        let state = self.state.lock();
        let records = state.entries.values().filter(|entry| match entry.key {
            Key::Record(ouid) => after.is_none_or(|after| ouid > after),
            Key::Manifest | Key::Credentials | Key::Meta(_) => false,
        });
        Ok(records.take(count).cloned().collect())
    }

    fn since(&self, after: Seq, count: usize) -> Result<Vec<Commit>, StoreError> {
        let state = self.state.lock();
        Ok(state.commits.iter().filter(|commit| commit.seq > after).take(count).cloned().collect())
    }

    fn digest(&self, first: u16, last: u16) -> Result<Vec<Digest>, StoreError> {
        let state = self.state.lock();
        match state.buckets.get(usize::from(first)..=usize::from(last)) {
            Some(buckets) => Ok(buckets.to_vec()),
            None => {
                Err(StoreError::Failed(format!("wanted buckets below {BUCKETS}, found {first} to {last}")))
            }
        }
    }

    fn reserve_try(
        &self,
        role: u64,
        client: &[u8; 32],
        tag: &[u8; 32],
        now_ms: u64,
        rules: &TryRules,
    ) -> Result<Reserved, StoreError> {
        Ok(self.state.lock().tries.entry((role, *client)).or_default().reserve(tag, now_ms, rules))
    }

    fn settle_try(&self, role: u64, client: &[u8; 32]) -> Result<(), StoreError> {
        self.state.lock().tries.remove(&(role, *client));
        Ok(())
    }

    fn tries(&self, role: u64) -> Result<Vec<([u8; 32], Tries)>, StoreError> {
        let state = self.state.lock();
        let of_role = state.tries.iter().filter(|((of, _), _)| *of == role);
        Ok(of_role.map(|((_, client), tries)| (*client, tries.clone())).collect())
    }

    fn incarnation(&self) -> Result<u64, StoreError> {
        Ok(self.state.lock().incarnation)
    }

    fn watch(&self, hint: Hint) {
        self.hints.lock().push(hint);
    }

    fn seq(&self) -> Result<Seq, StoreError> {
        Ok(Seq(self.state.lock().commits.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_store_in_memory_keeps_the_contract() {
        super::super::contract::run(&|| Arc::new(MemoryStore::new()));
    }

    #[test]
    fn a_watcher_hears_of_each_commit() {
        super::super::contract::hints_at_each_commit(&MemoryStore::new());
    }
}
