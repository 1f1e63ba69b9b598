//! Following a store that other processes write too (HA 7): a member is a store, and the partitions over it are one member.
//!
//! ```text
//! Store::watch -> hinted --- beyond followed, and nobody writes? --+
//! a write: before it decides; on a conflict; after a gap in seq ---+--> catch_up: since(seq) -> read -> unseal -> contents
//! a request that names a later commit (BEHIND) --------------------+
//! ```
//! A hint is never needed: expectations guard every rule, and whoever is behind finds out at the next write.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use spec::messages::{RequestHeader, SealedRecord};
use spec::record::Ouid;

use crate::contents::{Contents, open_record};
use crate::digest_tree::RecordHasher;
use crate::error::Error;
use crate::index::{Held, Index};
use crate::partition::Partition;
use crate::seal::Sealer;
use crate::store::{Key, Seq, Store};

/// Commits asked for at once.
const PAGE: usize = 1_000;
/// So often a look is begun again because others have committed meanwhile.
const TRIES: usize = 20;

/// All contents of a store that other processes may write to meanwhile.
///
/// # Errors
/// `Store` when they never stop; what the store or its contents are amiss with.
pub(crate) fn load(store: &dyn Store, sealer: &Sealer, hasher: &RecordHasher) -> Result<Contents, Error> {
    for _ in 0..TRIES {
        if let Some(contents) = at_rest(store, sealer, hasher)? {
            return Ok(contents);
        }
    }
    Err(never_at_rest())
}

/// All contents, if nobody writes meanwhile: what was read then is of several moments, and may look like damage.
fn at_rest(store: &dyn Store, sealer: &Sealer, hasher: &RecordHasher) -> Result<Option<Contents>, Error> {
    let before = store.seq()?;
    let contents = Contents::load(store, sealer, hasher);
    if store.seq()? == before { contents.map(Some) } else { Ok(None) }
}

fn never_at_rest() -> Error {
    let text =
        "wanted a moment at which no other process writes to the store, found none; let fewer share it";
    Error::Store(text.into())
}

/// How far the store is said to have come, and how far the contents have.
pub(crate) struct Progress {
    hinted: Arc<AtomicU64>,
    followed: AtomicU64,
}

impl Progress {
    /// Watches the store from now on; the contents stand at `seq`.
    pub(crate) fn watch(store: &dyn Store, seq: u64) -> Self {
        let hinted = Arc::new(AtomicU64::new(seq));
        let told = hinted.clone();
        store.watch(Box::new(move |seq| {
            told.fetch_max(seq.0, Ordering::AcqRel);
        }));
        Self { hinted, followed: AtomicU64::new(seq) }
    }

    /// The contents stand at this commit.
    pub(crate) fn reached(&self, seq: u64) {
        self.followed.store(seq, Ordering::Release);
    }

    /// Somebody has spoken of this commit.
    pub(crate) fn hint(&self, seq: u64) {
        self.hinted.fetch_max(seq, Ordering::AcqRel);
    }

    /// Whether somebody has spoken of a commit that the contents lack.
    pub(crate) fn is_behind(&self) -> bool {
        self.hinted.load(Ordering::Acquire) > self.followed.load(Ordering::Acquire)
    }
}

/// What others have changed, read at one moment.
struct Changed {
    /// Everything but the records.
    head: Contents,
    records: Vec<(Ouid, Option<Held>)>,
}

fn gone_back(wanted: u64, found: u64) -> Error {
    Error::Damaged(format!(
        "wanted a store at commit {wanted} or later, found it at {found}: it was put back under a running member; restart \
         the member, so that it is compared with the others"
    ))
}

impl Partition {
    /// Takes over what others have committed. For a hint of it nobody waits: while somebody here writes, nothing is done,
    /// for he looks himself. A request that knows of a later commit waits until that is known here, too.
    pub(crate) fn keep_up(&self, header: &RequestHeader) {
        self.look_for(header.incarnation, header.at_least);
        if !self.progress.is_behind() {
            return;
        }
        let Some(_writer) = self.writer.try_lock() else { return };
        // A store that cannot be read says so to the next write.
        let _ = self.catch_up();
    }

    /// Whether a request with this header has to wait for the store: it knows of a commit that is not known here.
    pub fn lacks(&self, header: &RequestHeader) -> bool {
        self.is_lacking(header.incarnation, header.at_least)
    }

    fn is_lacking(&self, incarnation: u64, seq: u64) -> bool {
        seq > self.progress.followed.load(Ordering::Acquire)
            && incarnation == self.contents.read().incarnation
    }

    /// Somebody has heard of this commit: another process over the same store may have made it.
    pub(crate) fn look_for(&self, incarnation: u64, seq: u64) {
        if self.is_lacking(incarnation, seq) {
            let _writer = self.writer.lock();
            // Whoever had the lock may have caught up. A store that cannot be read says so to the next write.
            let _ = if self.is_lacking(incarnation, seq) { self.catch_up() } else { Ok(()) };
        }
    }

    /// Brings the contents to the store's last commit. Only who holds the lock of writers calls it.
    pub(crate) fn catch_up(&self) -> Result<(), Error> {
        for _ in 0..TRIES {
            let (from, group) = {
                let contents = self.contents.read();
                (contents.seq, contents.group())
            };
            match self.store.seq()?.0 {
                seq if seq == from => return Ok(()),
                seq if seq < from => return Err(gone_back(from, seq)),
                _ => {}
            }
            // Seals are bound to the group, and commits of long ago are forgotten: then everything is read.
            let fresh = match self.changes_since(from) {
                Ok(Some(changed)) if changed.head.group() == group => Some(changed),
                Ok(None) => continue,
                Ok(Some(_)) | Err(_) => None,
            };
            let seq = match fresh {
                Some(changed) => self.take_over(changed),
                None => {
                    let Some(whole) = at_rest(&*self.store, &self.sealer, &self.hasher)? else { continue };
                    let seq = whole.seq;
                    *self.contents.write() = whole;
                    seq
                }
            };
            self.progress.reached(seq);
            return Ok(());
        }
        Err(never_at_rest())
    }

    /// What the commits behind `from` have touched, as it is now; `None` when the store went on meanwhile.
    fn changes_since(&self, from: u64) -> Result<Option<Changed>, Error> {
        let (mut last, mut keys) = (Seq(from), BTreeSet::new());
        loop {
            let commits = self.store.since(last, PAGE)?;
            let Some(end) = commits.last() else { break };
            last = end.seq;
            keys.extend(commits.into_iter().flat_map(|commit| commit.keys));
        }
        let keys: Vec<Key> = keys.into_iter().filter(|key| matches!(key, Key::Record(_))).collect();
        let head = Contents::load_head(&*self.store, &self.sealer)?;
        let entries = self.store.read(&keys, last)?;
        if head.seq != last.0 || self.store.seq()? != last {
            return Ok(None);
        }
        let mut records = Vec::with_capacity(keys.len());
        for (key, entry) in keys.into_iter().zip(entries) {
            let Key::Record(ouid) = key else { continue };
            let held = entry.map(|entry| {
                let sealed = SealedRecord::decode(entry.value.as_slice())
                    .map_err(|_| Error::Damaged(format!("record {ouid:?} cannot be read")))?;
                let record = open_record(&self.sealer, head.group(), &sealed).map_err(|_| Error::Domain)?;
                let digest = self.hasher.hash(&record);
                Ok::<_, Error>(Held::new(record, entry.version, digest))
            });
            records.push((ouid, held.transpose()?));
        }
        Ok(Some(Changed { head, records }))
    }

    fn take_over(&self, changed: Changed) -> u64 {
        let Changed { mut head, records } = changed;
        let mut contents = self.contents.write();
        head.index = std::mem::replace(&mut contents.index, Index::new());
        for (ouid, held) in records {
            match held {
                Some(held) => head.index.put(ouid, held),
                None => drop(head.index.take(&ouid)),
            }
        }
        *contents = head;
        contents.seq
    }
}
