//! The store of a partition in one SQLite file (HA 7): write-ahead log, full synchronisation, one durable commit for each
//! transaction.
//!
//! ```text
//! apply -> lock of the writer -> expectations hold?  no: Conflict, rolled back
//!                                yes: written, committed, synchronised
//! a disk that is full refuses the change and nothing has happened; changes go on once there is room
//! a commit that failed otherwise poisons the store: what is on the disk is not known, nothing more is written until a restart
//! ```
//! A partition decides and applies under its own writer lock, so there is never a second transaction of it to share a
//! commit with; partitions have files of their own and commit side by side.
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use partition::digest_tree::{BUCKETS, Digest};
use partition::store::{
    Commit, Entry, Hint, Key, Put, Reserved, Seq, Store, StoreError, Transaction, Tries, TryRules,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use spec::record::Ouid;

use super::{columns, database};
use crate::error::Error;

/// Commits that `since` can tell of; those before are forgotten by and by.
const HISTORY_MAX: u64 = 100_000;

/// A partition's database, step by step from format to format.
const STEPS: &[&str] = &["
    CREATE TABLE standing (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,
        incarnation INTEGER NOT NULL) STRICT;
    INSERT INTO standing VALUES (1, 0, 0);
    CREATE TABLE entry (key BLOB PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL,
        state INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE history (seq INTEGER PRIMARY KEY, keys BLOB NOT NULL) STRICT;
    CREATE TABLE bucket (number INTEGER PRIMARY KEY, digest BLOB NOT NULL) STRICT;
    CREATE TABLE tries (role INTEGER NOT NULL, client BLOB NOT NULL, failed INTEGER NOT NULL,
        last_ms INTEGER NOT NULL, last_tag BLOB NOT NULL, PRIMARY KEY (role, client)) STRICT, WITHOUT ROWID;
"];

/// One partition's database. This process alone uses the file (the lock of the data folder).
pub struct SqliteStore {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    seq: AtomicU64,
    incarnation: AtomicU64,
    poisoned: AtomicBool,
    /// Whether something was written since the log was last cut.
    stale: AtomicBool,
    hints: Mutex<Vec<Hint>>,
}

impl SqliteStore {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be opened, is not a partition's, or was written by a newer release.
    pub fn open(path: &Path) -> Result<SqliteStore, Error> {
        let (writer, _) = database::open(path, database::PARTITION_ID, STEPS)?;
        let (reader, _) = database::open(path, database::PARTITION_ID, STEPS)?;
        reader.pragma_update(None, "query_only", true)?;
        let (seq, incarnation) = writer.query_row("SELECT seq, incarnation FROM standing", [], |row| {
            Ok((number(row, 0)?, number(row, 1)?))
        })?;
        Ok(SqliteStore {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            seq: AtomicU64::new(seq),
            incarnation: AtomicU64::new(incarnation),
            poisoned: AtomicBool::new(false),
            hints: Mutex::default(),
            stale: AtomicBool::new(true),
        })
    }

    /// Whether a commit has failed, after which nothing is written any more.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn healthy(&self) -> Result<(), StoreError> {
        if !self.is_poisoned() {
            return Ok(());
        }
        Err(StoreError::Failed(
            "wanted a healthy disk, found that an earlier commit failed; check the disk and restart hsmd"
                .to_owned(),
        ))
    }

    /// A full disk keeps a commit from being written, and SQLite takes back what it has begun: when the database says so,
    /// the store is as it was and goes on. After any other failure nobody knows.
    fn commit_failed(&self, connection: &Connection, error: &rusqlite::Error) -> StoreError {
        let seq = || connection.query_row("SELECT seq FROM standing", [], |row| number(row, 0));
        let is_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        if is_full
            && connection.is_autocommit()
            && seq().is_ok_and(|seq| seq == self.seq.load(Ordering::Acquire))
        {
            return failed(error);
        }
        self.poison(error)
    }

    /// A commit or sync failed: the disk may hold either state, so this process writes nothing more.
    fn poison(&self, error: &rusqlite::Error) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        tracing::error!(%error, "a commit failed: the partition takes no more changes until hsmd is restarted");
        failed(error)
    }

    /// Forgets the commits of long ago; what they wrote stays.
    fn forget_history(&self, kept: u64) -> Result<(), StoreError> {
        let last = self.seq.load(Ordering::Acquire).saturating_sub(kept);
        if last == 0 {
            return Ok(());
        }
        self.change(|transaction| {
            transaction
                .prepare_cached("DELETE FROM history WHERE seq <= ?1")?
                .execute([last.cast_signed()])
                .map(|_| ())
        })
    }

    /// A small durable change outside the count of commits.
    fn change<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.writer.lock();
        // Under the lock: who waited for a commit that failed writes nothing either.
        self.healthy()?;
        let transaction = connection.transaction().map_err(|error| failed(&error))?;
        let value = work(&transaction).map_err(|error| failed(&error))?;
        let committed = transaction.commit();
        committed.map_err(|error| self.commit_failed(&connection, &error))?;
        Ok(value)
    }
}

/// What no transaction may hold, whatever is stored.
fn check(wanted: &Transaction) -> Result<(), StoreError> {
    if let Some(delta) = wanted.deltas.iter().find(|delta| delta.bucket >= BUCKETS) {
        return Err(StoreError::Failed(format!(
            "wanted a bucket below {BUCKETS}, found {}; this is a fault of the partition",
            delta.bucket
        )));
    }
    wanted.check_keys()
}

fn version_of(connection: &Connection, key: &Key) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT version FROM entry WHERE key = ?1")?
        .query_row([columns::encode(key)], |row| number(row, 0))
        .optional()
}

fn write(connection: &Connection, wanted: &Transaction) -> rusqlite::Result<u64> {
    let seq: u64 = connection
        .prepare_cached(
            "UPDATE standing SET seq = seq + 1, incarnation = coalesce(?1, incarnation) RETURNING seq",
        )?
        .query_row([wanted.incarnation.map(u64::cast_signed)], |row| number(row, 0))?;
    for Put { key, value, state } in &wanted.puts {
        connection
            .prepare_cached("INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![columns::encode(key), seq.cast_signed(), value, state])?;
    }
    for key in &wanted.removes {
        connection.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([columns::encode(key)])?;
    }
    for delta in &wanted.deltas {
        let sum = bucket(connection, delta.bucket)?.plus(&delta.difference);
        connection
            .prepare_cached("INSERT OR REPLACE INTO bucket VALUES (?1, ?2)")?
            .execute(params![delta.bucket, sum.0])?;
    }
    let keys = columns::encode_list(wanted.puts.iter().map(|put| &put.key).chain(&wanted.removes));
    connection
        .prepare_cached("INSERT INTO history VALUES (?1, ?2)")?
        .execute(params![seq.cast_signed(), keys])?;
    Ok(seq)
}

fn bucket(connection: &Connection, number: u16) -> rusqlite::Result<Digest> {
    let found = connection
        .prepare_cached("SELECT digest FROM bucket WHERE number = ?1")?
        .query_row([number], |row| row.get(0).map(Digest))
        .optional()?;
    Ok(found.unwrap_or(Digest::ZERO))
}

fn tries_of(connection: &Connection, role: u64, client: &[u8; 32]) -> rusqlite::Result<Option<Tries>> {
    connection
        .prepare_cached("SELECT failed, last_ms, last_tag FROM tries WHERE role = ?1 AND client = ?2")?
        .query_row(params![role.cast_signed(), client], tries)
        .optional()
}

fn tries(row: &Row<'_>) -> rusqlite::Result<Tries> {
    Ok(Tries { failed: row.get(0)?, last_ms: number(row, 1)?, last_tag: row.get(2)? })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let bytes: Vec<u8> = row.get(0)?;
    let key = columns::decode(&bytes).ok_or(rusqlite::Error::InvalidQuery)?;
    Ok(Entry { key, version: number(row, 1)?, value: row.get(2)?, state: row.get(3)? })
}

/// SQLite's integers are signed: the same 64 bits, read as unsigned.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn failed(error: &rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
        tracing::error!(
            "the disk under data_dir is full: changes are refused until there is room, uses go on"
        );
        return StoreError::Failed(
            "wanted room on the disk under data_dir, found it full; nothing was changed: make room there, and repeat"
                .to_owned(),
        );
    }
    StoreError::Failed(format!(
        "the database failed: {error}; check space and health of the disk under data_dir"
    ))
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Store for SqliteStore {
    fn apply(&self, transaction: &Transaction) -> Result<Seq, StoreError> {
        check(transaction)?;
        let mut connection = self.writer.lock();
        self.healthy()?;
        // Dropped without a commit, it is rolled back.
        let change = connection.transaction().map_err(|error| failed(&error))?;
        for (key, version) in &transaction.expect {
            if version_of(&change, key).map_err(|error| failed(&error))? != *version {
                return Err(StoreError::Conflict(key.clone()));
            }
        }
        let seq = write(&change, transaction).map_err(|error| failed(&error))?;
        let committed = change.commit();
        committed.map_err(|error| self.commit_failed(&connection, &error))?;
        if let Some(incarnation) = transaction.incarnation {
            self.incarnation.store(incarnation, Ordering::Release);
        }
        self.seq.store(seq, Ordering::Release);
        self.stale.store(true, Ordering::Release);
        drop(connection);
        self.hints.lock().iter().for_each(|hint| hint(Seq(seq)));
        Ok(Seq(seq))
    }

    fn watch(&self, hint: Hint) {
        self.hints.lock().push(hint);
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.forget_history(HISTORY_MAX)?;
        if !self.stale.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // No reader of this process at the same time, and there is no other process.
        let (writer, _reader) = (self.writer.lock(), self.reader.lock());
        self.healthy()?;
        let cut = database::truncate_log(&writer);
        if !matches!(cut, Ok(true)) {
            self.stale.store(true, Ordering::Release);
        }
        cut.map(drop).map_err(|error| failed(&error))
    }

    fn read(&self, keys: &[Key], at_least: Seq) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut connection = self.reader.lock();
        let moment = connection.transaction().map_err(|error| failed(&error))?;
        let read = || -> rusqlite::Result<_> {
            let seq = moment.query_row("SELECT seq FROM standing", [], |row| number(row, 0))?;
            let mut statement =
                moment.prepare_cached("SELECT key, version, value, state FROM entry WHERE key = ?1")?;
            let entries = keys
                .iter()
                .map(|key| statement.query_row([columns::encode(key)], entry).optional())
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((Seq(seq), entries))
        };
        let (seq, entries) = read().map_err(|error| failed(&error))?;
        if seq < at_least { Err(StoreError::Behind(seq)) } else { Ok(entries) }
    }

    fn page(&self, after: Option<Ouid>, count: usize) -> Result<Vec<Entry>, StoreError> {
        let from =
            after.map_or_else(|| columns::RECORDS.0.to_vec(), |ouid| columns::encode(&Key::Record(ouid)));
        let connection = self.reader.lock();
        let read = || -> rusqlite::Result<Vec<Entry>> {
            connection
                .prepare_cached(
                    "SELECT key, version, value, state FROM entry WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3",
                )?
                .query_map(params![from, columns::RECORDS.1, limit(count)], entry)?
                .collect()
        };
        read().map_err(|error| failed(&error))
    }

    fn since(&self, after: Seq, count: usize) -> Result<Vec<Commit>, StoreError> {
        let connection = self.reader.lock();
        let first =
            connection.query_row("SELECT min(seq) FROM history", [], |row| row.get::<_, Option<i64>>(0));
        let first = first.map_err(|error| failed(&error))?.map_or(0, i64::cast_unsigned);
        if after.0.saturating_add(1) < first {
            return Err(StoreError::Failed(format!(
                "wanted the commits behind {}, found those before {first} forgotten; compare digests instead",
                after.0
            )));
        }
        let read = || -> rusqlite::Result<Vec<Commit>> {
            connection
                .prepare_cached("SELECT seq, keys FROM history WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
                .query_map(params![after.0.cast_signed(), limit(count)], |row| {
                    let keys: Vec<u8> = row.get(1)?;
                    let keys = columns::decode_list(&keys).ok_or(rusqlite::Error::InvalidQuery)?;
                    Ok(Commit { seq: Seq(number(row, 0)?), keys })
                })?
                .collect()
        };
        read().map_err(|error| failed(&error))
    }

    fn digest(&self, first: u16, last: u16) -> Result<Vec<Digest>, StoreError> {
        if first > last || last >= BUCKETS {
            return Err(StoreError::Failed(format!(
                "wanted buckets below {BUCKETS}, found {first} to {last}"
            )));
        }
        let mut digests = vec![Digest::ZERO; usize::from(last - first) + 1];
        let connection = self.reader.lock();
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = connection
                .prepare_cached("SELECT number, digest FROM bucket WHERE number BETWEEN ?1 AND ?2")?;
            let mut rows = statement.query(params![first, last])?;
            while let Some(row) = rows.next()? {
                let number: u16 = row.get(0)?;
                if let Some(digest) = digests.get_mut(usize::from(number.saturating_sub(first))) {
                    *digest = Digest(row.get(1)?);
                }
            }
            Ok(())
        };
        read().map_err(|error| failed(&error))?;
        Ok(digests)
    }

    fn reserve_try(
        &self,
        role: u64,
        client: &[u8; 32],
        tag: &[u8; 32],
        now_ms: u64,
        rules: &TryRules,
    ) -> Result<Reserved, StoreError> {
        self.change(|transaction| {
            let before = tries_of(transaction, role, client)?.unwrap_or_default();
            let mut tries = before.clone();
            let reserved = tries.reserve(tag, now_ms, rules);
            if tries == before {
                return Ok(reserved);
            }
            transaction.prepare_cached("INSERT OR REPLACE INTO tries VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                params![
                    role.cast_signed(),
                    client,
                    tries.failed,
                    tries.last_ms.cast_signed(),
                    tries.last_tag
                ],
            )?;
            Ok(reserved)
        })
    }

    fn settle_try(&self, role: u64, client: &[u8; 32]) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction
                .prepare_cached("DELETE FROM tries WHERE role = ?1 AND client = ?2")?
                .execute(params![role.cast_signed(), client])
                .map(|_| ())
        })
    }

    fn tries(&self, role: u64) -> Result<Vec<([u8; 32], Tries)>, StoreError> {
        let connection = self.reader.lock();
        let read = || -> rusqlite::Result<Vec<([u8; 32], Tries)>> {
            connection
                .prepare_cached("SELECT failed, last_ms, last_tag, client FROM tries WHERE role = ?1")?
                .query_map([role.cast_signed()], |row| Ok((row.get(3)?, tries(row)?)))?
                .collect()
        };
        read().map_err(|error| failed(&error))
    }

    fn incarnation(&self) -> Result<u64, StoreError> {
        Ok(self.incarnation.load(Ordering::Acquire))
    }

    fn seq(&self) -> Result<Seq, StoreError> {
        Ok(Seq(self.seq.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
