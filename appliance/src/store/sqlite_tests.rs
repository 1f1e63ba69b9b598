//! Tests of the SQLite store: the contract of HA 7, durability and damage.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::path::PathBuf;
use std::sync::Arc;

use partition::store::Delta;

use super::*;

fn record(number: u8) -> Key {
    Key::Record(Ouid([number; 16]))
}

fn put(number: u8, value: &[u8]) -> Transaction {
    let puts = vec![Put { key: record(number), value: value.to_vec(), state: 1 }];
    let deltas = vec![Delta { bucket: u16::from(number), difference: Digest([number; 32]) }];
    Transaction { puts, deltas, ..Transaction::default() }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("p.sqlite");
    (place, path)
}

#[test]
fn ha_7_a_watcher_of_the_sqlite_store_hears_of_each_commit() {
    let (_place, path) = place();
    partition::store::contract::hints_at_each_commit(&SqliteStore::open(&path).unwrap());
}

#[test]
fn the_sqlite_store_keeps_the_contract() {
    let place = tempfile::tempdir().unwrap();
    let count = AtomicU64::new(0);
    partition::store::contract::run(&|| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Arc::new(SqliteStore::open(&place.path().join(format!("{number}.sqlite"))).unwrap())
    });
}

#[test]
fn everything_applied_is_there_after_opening_again() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    store.apply(&Transaction { incarnation: Some(u64::MAX), ..put(1, b"one") }).unwrap();
    store.apply(&put(2, b"two")).unwrap();
    let rules = TryRules { free_tries: 3, delay_ms_first: 1, delay_ms_max: 9 };
    store.reserve_try(1, &[1; 32], &[2; 32], u64::MAX, &rules).unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!((store.seq().unwrap(), store.incarnation().unwrap()), (Seq(2), u64::MAX));
    let entries = store.read(&[record(2), record(1), record(3)], Seq(2)).unwrap();
    let values: Vec<_> =
        entries.iter().map(|e| e.as_ref().map(|e| (e.version, e.value.as_slice()))).collect();
    assert_eq!(values, [Some((2, b"two".as_slice())), Some((1, b"one".as_slice())), None]);
    assert_eq!(store.digest(1, 2).unwrap(), [Digest([1; 32]), Digest([2; 32])]);
    assert_eq!(store.since(Seq(0), 9).unwrap().len(), 2);
    let tries = store.tries(1).unwrap();
    assert_eq!((tries.len(), tries[0].0, tries[0].1.failed, tries[0].1.last_ms), (1, [1; 32], 1, u64::MAX));
}

/// What a killed process leaves behind: database and log as they are at some moment, copied without closing.
#[test]
fn a_copy_of_the_files_at_any_moment_holds_every_acknowledged_transaction() {
    let (place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    for number in 1..=40_u8 {
        store.apply(&put(number, &[number; 700])).unwrap();
        let copy = place.path().join(format!("copy{number}.sqlite"));
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(
            place.path().join("p.sqlite-wal"),
            place.path().join(format!("copy{number}.sqlite-wal")),
        )
        .unwrap();
        let found = SqliteStore::open(&copy).unwrap();
        assert_eq!(found.seq().unwrap(), Seq(u64::from(number)));
        assert_eq!(found.page(None, 99).unwrap().len(), usize::from(number));
    }
}

#[test]
fn a_torn_end_of_the_log_loses_whole_transactions_only() {
    let (place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let wal = place.path().join("p.sqlite-wal");
    for number in 1..=5_u8 {
        store.apply(&put(number, &[number; 700])).unwrap();
    }
    let bytes = std::fs::read(&wal).unwrap();
    for cut in (0..bytes.len()).rev().step_by(1_499) {
        let copy = place.path().join("torn.sqlite");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(place.path().join(format!("torn.sqlite{end}")));
        }
        std::fs::copy(&path, &copy).unwrap();
        std::fs::write(place.path().join("torn.sqlite-wal"), &bytes[..cut]).unwrap();
        let Ok(found) = SqliteStore::open(&copy) else { continue };
        let seq = found.seq().unwrap().0 as usize;
        assert_eq!(found.page(None, 99).unwrap().len(), seq, "cut at {cut}");
        assert_eq!(found.since(Seq(0), 99).unwrap().len(), seq, "cut at {cut}");
        let digests = found.digest(1, 5).unwrap();
        assert_eq!(digests.iter().filter(|digest| **digest != Digest::ZERO).count(), seq, "cut at {cut}");
    }
}

#[test]
fn threads_that_apply_at_once_are_all_durable_and_conflicts_fail_alone() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..20_u8 {
                    store.apply(&put(thread * 20 + round, b"v")).unwrap();
                    let wrong = Transaction { expect: vec![(Key::Manifest, Some(1))], ..put(250, b"never") };
                    assert!(matches!(store.apply(&wrong), Err(StoreError::Conflict(Key::Manifest))));
                }
            });
        }
    });
    assert_eq!(store.seq().unwrap(), Seq(160));
    assert!(store.read(&[record(250)], Seq(160)).unwrap()[0].is_none());
    drop(store);
    assert_eq!(SqliteStore::open(&path).unwrap().page(None, 999).unwrap().len(), 160);
}

/// Bytes that stand nowhere else.
fn unique(number: u8, length: usize) -> Vec<u8> {
    let seed = [number; 32];
    (0..length)
        .flat_map(|at| {
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[&seed[..], &at.to_be_bytes()].concat())
                .as_ref()
                .to_vec()
        })
        .take(length)
        .collect()
}

/// Whether any sixteen bytes in a row of a value stand in some file of the folder.
fn is_anywhere(folder: &Path, value: &[u8]) -> bool {
    let pieces: std::collections::BTreeSet<&[u8]> = value.chunks_exact(16).collect();
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(16).any(|window| pieces.contains(window)))
}

#[test]
fn ha_1_2_of_what_was_destroyed_replaced_or_forgotten_nothing_is_left_in_any_file() {
    let (place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    // Small ones share pages with others; large ones have pages of their own.
    for number in 1..60 {
        store
            .apply(&put(number, &unique(number, if number.is_multiple_of(3) { 20_000 } else { 300 })))
            .unwrap();
    }
    store.tidy().unwrap();
    let value = |number: u8| unique(number, if number.is_multiple_of(3) { 20_000 } else { 300 });
    assert!(
        (1..60).all(|number| is_anywhere(place.path(), &value(number))),
        "the search finds what is there"
    );
    for number in 10..30 {
        // As the partition destroys: a tombstone in the place of the record.
        store
            .apply(&Transaction {
                expect: vec![(record(number), Some(number.into()))],
                ..put(number, b"tombstone")
            })
            .unwrap();
    }
    for number in 30..40 {
        store.apply(&Transaction { removes: vec![record(number)], ..Transaction::default() }).unwrap();
    }
    store.tidy().unwrap();
    for number in 1..60 {
        let kept = !(10..40).contains(&number);
        assert_eq!(is_anywhere(place.path(), &value(number)), kept, "record {number}");
    }
}

#[test]
fn commits_of_long_ago_are_forgotten_and_since_says_so() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    for number in 1..=9 {
        store.apply(&put(number, b"v")).unwrap();
    }
    store.tidy().unwrap();
    assert_eq!(store.since(Seq(0), 99).unwrap().len(), 9, "so few are kept");
    store.forget_history(3).unwrap();
    let told: Vec<_> = store.since(Seq(6), 99).unwrap().iter().map(|commit| commit.seq.0).collect();
    assert_eq!(told, [7, 8, 9]);
    let error = store.since(Seq(5), 99).unwrap_err().to_string();
    assert!(error.contains("compare digests"), "{error}");
    assert_eq!(store.page(None, 99).unwrap().len(), 9, "what they wrote stays");
    store.forget_history(0).unwrap();
    assert_eq!(store.since(Seq(9), 99).unwrap(), []);
}

#[test]
fn a_failed_commit_poisons_the_store() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    store.apply(&put(1, b"one")).unwrap();
    // A commit that the database refuses stands for a sync that fails.
    let veto = "CREATE TABLE a (x INTEGER PRIMARY KEY);
        CREATE TABLE b (x INTEGER REFERENCES a (x) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER veto AFTER INSERT ON history BEGIN INSERT INTO b VALUES (1); END;";
    store.writer.lock().execute_batch(veto).unwrap();
    assert!(matches!(store.apply(&put(2, b"two")), Err(StoreError::Failed(_))));
    store.writer.lock().execute_batch("DROP TRIGGER veto").unwrap();
    assert!(store.is_poisoned());
    let error = store.apply(&put(3, b"three")).unwrap_err().to_string();
    assert!(error.contains("restart hsmd"), "{error}");
    assert!(store.settle_try(1, &[0; 32]).is_err());
    assert_eq!(store.read(&[record(1)], Seq(1)).unwrap().len(), 1, "reads go on");
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.apply(&put(2, b"two")).unwrap(), Seq(2));
}

#[test]
fn a_full_disk_refuses_the_change_and_recovers() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    store.apply(&put(1, b"one")).unwrap();
    let pages: i64 = store.writer.lock().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |pages: i64| {
        let connection = store.writer.lock();
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
            .unwrap();
    };
    limit(pages);
    assert!(matches!(store.apply(&put(2, &[2; 100_000])), Err(StoreError::Failed(_))));
    assert!(!store.is_poisoned());
    limit(1_000_000);
    assert_eq!(store.apply(&put(2, &[2; 100_000])).unwrap(), Seq(2));
}

/// A file system of two MiB; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// None where this user may not mount one.
    fn mount() -> Option<Small> {
        let place = tempfile::tempdir().unwrap();
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(place.path())
            .output();
        done.is_ok_and(|output| output.status.success()).then(|| Small(place))
    }

    /// Fills what is left of it.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_really_full_refuses_changes_serves_reads_and_recovers_with_room() {
    let Some(disk) = Small::mount() else {
        return eprintln!("not run: this user may not mount a small file system");
    };
    let path = disk.0.path().join("p.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.apply(&put(1, b"one")).unwrap();
    let filler = disk.fill();
    for round in 0..5 {
        let error = store.apply(&put(2, &[2; 50_000])).unwrap_err().to_string();
        assert!(error.contains("make room"), "{round}: {error}");
        assert!(!store.is_poisoned());
        assert_eq!(store.read(&[record(1)], Seq(1)).unwrap()[0].as_ref().unwrap().value, b"one");
    }
    std::fs::remove_file(filler).unwrap();
    assert_eq!(store.apply(&put(2, &[2; 50_000])).unwrap(), Seq(2));
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!((store.seq().unwrap(), store.page(None, 9).unwrap().len()), (Seq(2), 2));
}

#[test]
fn two_puts_of_one_key_are_refused_and_nothing_is_written() {
    let (_place, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let mut twice = put(1, b"one");
    twice.puts.extend([put(2, b"two").puts, put(1, b"other").puts].concat());
    assert!(matches!(store.apply(&twice), Err(StoreError::Failed(_))));
    assert_eq!((store.seq().unwrap(), store.page(None, 9).unwrap().len()), (Seq(0), 0));
    assert_eq!(store.digest(1, 1).unwrap(), [Digest::ZERO]);
    twice.puts.pop();
    assert_eq!(store.apply(&twice).unwrap(), Seq(1));
}
