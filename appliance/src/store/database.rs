//! How every database of the appliance is opened: durable, private, of a known kind and format.
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::Connection;

use crate::error::Error;

/// `application_id` of the appliance's own database: "Hato".
pub const BOOK_ID: i32 = 0x4861_746f;
/// `application_id` of a partition's database: "Hatp".
pub const PARTITION_ID: i32 = 0x4861_7470;

/// Opens a database of one kind; the second value says whether it was made now. Format `n` is what the first `n` of
/// `steps` make; an older one is brought up to the last, all at once or not at all. WAL with full synchronisation: a
/// commit that has returned survives a power cut.
///
/// # Errors
/// When the file cannot be opened, is of another kind, or of a newer format than there are steps.
pub fn open(path: &Path, kind: i32, steps: &[&str]) -> Result<(Connection, bool), Error> {
    make_private(path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted or replaced is overwritten with zeros, in the database at once and in the log by `truncate_log`.
    connection.pragma_update(None, "secure_delete", true)?;
    let found_format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found_kind: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let format = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let new = found_format == 0 && found_kind == 0 && tables == 0;
    if !new && found_kind != kind {
        let text = format!("{}: wanted a database of hsmd, found one of another program", path.display());
        return Err(Error::damaged(text));
    }
    if found_format > format {
        return Err(Error::damaged(format!(
            "{}: wanted format {format} or older, found format {found_format} of a newer release; start that release \
             or bring back a backup",
            path.display()
        )));
    }
    let done = usize::try_from(found_format).unwrap_or(0);
    if done < steps.len() {
        let transaction = connection.transaction()?;
        for step in steps.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", kind)?;
        transaction.pragma_update(None, "user_version", format)?;
        transaction.commit()?;
    }
    Ok((connection, new))
}

/// Brings the write-ahead log into the database and cuts it to nothing, so that no page of before is left in it. Whether
/// that was done: a reader at the same time keeps it from being so.
///
/// # Errors
/// When the disk fails.
pub fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map(|busy| busy == 0)
}

/// SQLite gives its journal files the mode of the database: make that one first, and its name durable, for SQLite
/// does so only with files that it made itself.
fn make_private(path: &Path) -> Result<(), Error> {
    let make = || -> std::io::Result<()> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    make().map_err(|error| Error::environment(format!("cannot make {}: {error}", path.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const STEPS: [&str; 2] =
        ["CREATE TABLE t (x INTEGER) STRICT;", "ALTER TABLE t ADD COLUMN y INTEGER; UPDATE t SET y = x + 1;"];

    #[test]
    fn a_database_is_private_durable_and_made_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.sqlite");
        let (connection, new) = open(&path, BOOK_ID, &STEPS[..1]).unwrap();
        assert!(new);
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
        for file in ["x.sqlite", "x.sqlite-wal"] {
            let mode = std::fs::metadata(place.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
        drop(connection);
        assert!(!open(&path, BOOK_ID, &STEPS[..1]).unwrap().1);
    }

    #[test]
    fn an_older_format_is_brought_up_with_what_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.sqlite");
        let (connection, _) = open(&path, BOOK_ID, &STEPS[..1]).unwrap();
        connection.execute("INSERT INTO t VALUES (4)", []).unwrap();
        drop(connection);
        let (connection, new) = open(&path, BOOK_ID, &STEPS).unwrap();
        assert!(!new);
        assert_eq!(connection.query_row("SELECT y FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 5);
        drop(connection);
        assert!(open(&path, BOOK_ID, &STEPS[..1]).is_err(), "an older release refuses it from now on");
    }

    #[test]
    fn newer_foreign_and_garbled_databases_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.sqlite");
        drop(open(&path, BOOK_ID, &STEPS).unwrap());
        let error = open(&path, BOOK_ID, &STEPS[..1]).unwrap_err().to_string();
        assert!(error.contains("newer release"), "{error}");
        assert!(open(&path, PARTITION_ID, &STEPS).unwrap_err().to_string().contains("another program"));
        let garbled = place.path().join("y.sqlite");
        std::fs::write(&garbled, [7; 4096]).unwrap();
        assert!(open(&garbled, BOOK_ID, &STEPS[..1]).is_err());
    }
}
