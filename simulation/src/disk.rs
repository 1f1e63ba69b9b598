//! A simulated disk: a store whose image can be copied, put back, lost in part or full; it watches what is written.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partition::digest_tree::{BUCKETS, Digest};
use partition::store::{
    Commit, Entry, Hint, Key, Reserved, Seq, Store, StoreError, Transaction, Tries, TryRules,
};
use spec::planted::{self, Bug};
use spec::record::{Ouid, State as Life};

/// What a disk holds.
#[derive(Clone)]
pub(crate) struct Image {
    entries: BTreeMap<Key, Entry>,
    buckets: Arc<Vec<Digest>>,
    commits: Vec<Commit>,
    tries: BTreeMap<(u64, [u8; 32]), Tries>,
    incarnation: u64,
}

impl Image {
    /// The state of an object, by its ouid.
    pub(crate) fn state(&self, ouid: Ouid) -> Option<i32> {
        self.entries.get(&Key::Record(ouid)).map(|entry| entry.state)
    }

    /// How many commits were written.
    pub(crate) fn seq(&self) -> u64 {
        self.commits.len() as u64
    }

    /// The objects that are committed or deleted here.
    pub(crate) fn lasting(&self) -> BTreeMap<Ouid, i32> {
        let records = self.entries.values().filter(|entry| entry.state >= Life::Committed as i32);
        let lasting = records.filter_map(|entry| match entry.key {
            Key::Record(ouid) => Some((ouid, entry.state)),
            Key::Manifest | Key::Credentials | Key::Meta(_) => None,
        });
        lasting.collect()
    }
}

/// See the head of this file.
pub(crate) struct Disk {
    state: Mutex<State>,
}

struct State {
    cache: Image,
    /// What a power failure leaves, where that is less than the cache.
    durable: Option<Image>,
    /// The power fails in the middle of so many commits from now.
    fails_in: Option<u64>,
    full: bool,
    /// The names of the PIN tries counted for each client, ever.
    counted: BTreeMap<[u8; 32], BTreeSet<[u8; 32]>>,
    /// What was written as each commit of each incarnation; nothing is noted once an image was put back unsaid.
    written: BTreeMap<(u64, u64), u64>,
    unsaid: bool,
    broken_laws: Vec<String>,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn empty() -> Arc<Self> {
        Self::of(Image {
            entries: BTreeMap::new(),
            buckets: Arc::new(vec![Digest::ZERO; usize::from(BUCKETS)]),
            commits: Vec::new(),
            tries: BTreeMap::new(),
            incarnation: 0,
        })
    }

    /// A disk with this on it.
    pub(crate) fn of(image: Image) -> Arc<Self> {
        let state = State {
            cache: image,
            durable: None,
            fails_in: None,
            full: false,
            counted: BTreeMap::new(),
            written: BTreeMap::new(),
            unsaid: false,
            broken_laws: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is there now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.state().cache)
    }

    /// What is there now.
    pub(crate) fn image(&self) -> Image {
        self.state().cache.clone()
    }

    /// What would be there after a power failure.
    pub(crate) fn durable(&self) -> Image {
        let state = self.state();
        state.durable.as_ref().unwrap_or(&state.cache).clone()
    }

    /// The state of an object that would be there after a power failure.
    pub(crate) fn durable_state(&self, ouid: Ouid) -> Option<i32> {
        let state = self.state();
        state.durable.as_ref().unwrap_or(&state.cache).state(ouid)
    }

    /// The power failed: what was not durable is gone.
    pub(crate) fn lose_power(&self) {
        let mut state = self.state();
        if let Some(durable) = state.durable.take() {
            state.cache = durable;
        }
        state.fails_in = None;
    }

    /// An older image is put in place; unless that is said to the member, it cannot know.
    pub(crate) fn put_back(&self, image: Image, said: bool) {
        let mut state = self.state();
        (state.cache, state.durable) = (image, None);
        state.unsaid |= !said;
    }

    /// The power fails in the middle of a commit, so many commits from now.
    pub(crate) fn fail_in(&self, commits: u64) {
        self.state().fails_in = Some(commits);
    }

    /// The power does not fail after all.
    pub(crate) fn power(&self) {
        self.state().fails_in = None;
    }

    /// No room is left, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// How many PIN tries of a client were ever counted here. One that is carried out late, after a right PIN, is counted
    /// for a second time (HA 4.2: two at most) and is no other try.
    pub(crate) fn tries_counted(&self, client: &[u8; 32]) -> usize {
        self.state().counted.get(client).map_or(0, BTreeSet::len)
    }

    /// What was written against HA 1.2 so far.
    pub(crate) fn broken_laws(&self) -> Vec<String> {
        self.state().broken_laws.clone()
    }
}

impl State {
    fn check(&self, transaction: &Transaction) -> Result<(), StoreError> {
        transaction.check_keys()?;
        for (key, version) in &transaction.expect {
            if self.cache.entries.get(key).map(|entry| entry.version) != *version {
                return Err(StoreError::Conflict(key.clone()));
            }
        }
        if self.full && !transaction.puts.is_empty() {
            return Err(StoreError::Failed("the disk is full; make room".into()));
        }
        Ok(())
    }

    /// Deleted is terminal, committed never goes back, and only what is provisional is forgotten (HA 1.2, 2.2).
    fn watch(&mut self, transaction: &Transaction) {
        let before = |key: &Key| self.cache.entries.get(key).map(|entry| entry.state);
        let mut broken = Vec::new();
        for put in &transaction.puts {
            if let (Key::Record(ouid), Some(state)) = (&put.key, before(&put.key))
                && put.state < state
            {
                broken.push(format!("object {ouid:?} went from state {state} back to {}", put.state));
            }
        }
        for key in &transaction.removes {
            if let (Key::Record(ouid), Some(state)) = (key, before(key))
                && state != Life::Provisional as i32
            {
                broken.push(format!("object {ouid:?} in state {state} was forgotten"));
            }
        }
        self.broken_laws.extend(broken);
    }

    /// Incarnation and seq name one content (HA 1.5).
    fn watch_position(&mut self, transaction: &Transaction) {
        let mut hasher = std::hash::DefaultHasher::new();
        for put in &transaction.puts {
            (&put.value, put.state).hash(&mut hasher);
        }
        let at = (self.cache.incarnation, self.cache.commits.len() as u64 + 1);
        let is = hasher.finish();
        let was = *self.written.entry(at).or_insert(is);
        if was != is && !self.unsaid && transaction.incarnation.is_none() {
            self.broken_laws
                .push(format!("commit {} of incarnation {:#x} was written twice (HA 1.5)", at.1, at.0));
        }
    }
}

impl Image {
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
        if !transaction.deltas.is_empty() {
            let buckets = Arc::make_mut(&mut self.buckets);
            for delta in &transaction.deltas {
                let bucket = &mut buckets[usize::from(delta.bucket)];
                *bucket = bucket.plus(&delta.difference);
            }
        }
        if let Some(incarnation) = transaction.incarnation {
            self.incarnation = incarnation;
        }
        let puts = transaction.puts.iter().map(|put| &put.key);
        self.commits.push(Commit { seq, keys: puts.chain(&transaction.removes).cloned().collect() });
        seq
    }
}

impl Store for Disk {
    fn apply(&self, transaction: &Transaction) -> Result<Seq, StoreError> {
        let mut state = self.state();
        state.check(transaction)?;
        match &mut state.fails_in {
            Some(0) => return Err(StoreError::Failed("the power is gone".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        state.watch(transaction);
        state.watch_position(transaction);
        if planted::is(Bug::AcknowledgeBeforeDurable) && state.durable.is_none() {
            state.durable = Some(state.cache.clone());
        }
        let seq = state.cache.commit(transaction);
        // Under this bug the cache is written out only now and then, and the answer does not wait for it.
        if seq.0.is_multiple_of(8) {
            state.durable = None;
        }
        Ok(seq)
    }

    fn read(&self, keys: &[Key], at_least: Seq) -> Result<Vec<Option<Entry>>, StoreError> {
        let state = self.state();
        let seq = Seq(state.cache.seq());
        if seq < at_least {
            return Err(StoreError::Behind(seq));
        }
        Ok(keys.iter().map(|key| state.cache.entries.get(key).cloned()).collect())
    }

    fn page(&self, after: Option<Ouid>, count: usize) -> Result<Vec<Entry>, StoreError> {
        let state = self.state();
        let records = state.cache.entries.values().filter(|entry| match entry.key {
            Key::Record(ouid) => after.is_none_or(|after| ouid > after),
            Key::Manifest | Key::Credentials | Key::Meta(_) => false,
        });
        Ok(records.take(count).cloned().collect())
    }

    fn since(&self, after: Seq, count: usize) -> Result<Vec<Commit>, StoreError> {
        let state = self.state();
        Ok(state.cache.commits.iter().filter(|commit| commit.seq > after).take(count).cloned().collect())
    }

    fn digest(&self, first: u16, last: u16) -> Result<Vec<Digest>, StoreError> {
        let state = self.state();
        let range = usize::from(first)..=usize::from(last);
        match state.cache.buckets.get(range) {
            Some(buckets) => Ok(buckets.to_vec()),
            None => Err(StoreError::Failed(format!("wanted buckets below {BUCKETS}, found {last}"))),
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
        let mut state = self.state();
        let reserved = state.cache.tries.entry((role, *client)).or_default().reserve(tag, now_ms, rules);
        if reserved == Reserved::Counted {
            state.counted.entry(*client).or_default().insert(*tag);
        }
        Ok(reserved)
    }

    fn settle_try(&self, role: u64, client: &[u8; 32]) -> Result<(), StoreError> {
        let mut state = self.state();
        state.cache.tries.remove(&(role, *client));
        Ok(())
    }

    fn tries(&self, role: u64) -> Result<Vec<([u8; 32], Tries)>, StoreError> {
        let state = self.state();
        let of_role = state.cache.tries.iter().filter(|((of, _), _)| *of == role);
        Ok(of_role.map(|((_, client), tries)| (*client, tries.clone())).collect())
    }

    fn incarnation(&self) -> Result<u64, StoreError> {
        Ok(self.state().cache.incarnation)
    }

    /// No other process writes to it.
    fn watch(&self, _hint: Hint) {}

    fn seq(&self) -> Result<Seq, StoreError> {
        Ok(Seq(self.state().cache.commits.len() as u64))
    }
}
