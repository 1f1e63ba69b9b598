//! The appliance's own database: label, domains (wrapped by the root key), clients, partitions and assignments.
use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Error;
use crate::store::database;

/// The format of the data folder that this release writes; an older release refuses it.
pub const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE domain (name TEXT PRIMARY KEY, wrapped BLOB NOT NULL, fingerprint BLOB NOT NULL) STRICT;
    CREATE TABLE domain_request (name TEXT PRIMARY KEY, public BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
    CREATE TABLE partition (serial INTEGER PRIMARY KEY, label TEXT NOT NULL UNIQUE,
        domain TEXT NOT NULL REFERENCES domain (name)) STRICT;
    CREATE TABLE client (name TEXT PRIMARY KEY, certificate BLOB NOT NULL,
        fingerprint BLOB NOT NULL UNIQUE) STRICT;
    CREATE TABLE assignment (client TEXT NOT NULL REFERENCES client (name),
        serial INTEGER NOT NULL REFERENCES partition (serial), PRIMARY KEY (client, serial)) STRICT;
";

/// A registered client as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// The name under which the operator registered it.
    pub name: String,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Serial numbers of the partitions assigned to it, ascending.
    pub partitions: Vec<u64>,
}

/// A partition as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The serial number.
    pub serial: u64,
    /// The label it was created with.
    pub label: String,
    /// The name of its domain.
    pub domain: String,
}

/// A domain as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRow {
    /// The domain's name on this appliance.
    pub name: String,
    /// The domain secret, wrapped by the root key.
    pub wrapped: Vec<u8>,
    /// The hash of the secret under a label.
    pub fingerprint: Vec<u8>,
}

/// The key pair of a pending request for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// The public key, which the request carries.
    pub public: Vec<u8>,
    /// The private key, wrapped by the root key.
    pub wrapped: Vec<u8>,
}

/// The database, one connection.
pub struct Book {
    connection: Mutex<Connection>,
}

impl Book {
    /// Opens or makes the database; the second value says whether it was made now.
    ///
    /// # Errors
    /// When it cannot be opened, is not ours or was written by a newer release.
    pub fn open(path: &Path) -> Result<(Book, bool), Error> {
        let (connection, new) = database::open(path, database::BOOK_ID, FORMAT, SCHEMA)?;
        Ok((Book { connection: Mutex::new(connection) }, new))
    }

    /// A named fact of the appliance.
    ///
    /// # Errors
    /// Those of the database.
    pub fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let connection = self.connection.lock();
        Ok(connection
            .query_row("SELECT value FROM fact WHERE name = ?1", [name], |row| row.get(0))
            .optional()?)
    }

    /// Writes a named fact.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_fact(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        let sql = "INSERT INTO fact VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
        self.connection.lock().execute(sql, params![name, value])?;
        Ok(())
    }

    /// The appliance's label; `None` before `hsm init`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn label(&self) -> Result<Option<String>, Error> {
        Ok(self.fact("label")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Every domain, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn domains(&self) -> Result<Vec<DomainRow>, Error> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT name, wrapped, fingerprint FROM domain ORDER BY name")?;
        let rows = statement.query_map([], |row| {
            Ok(DomainRow { name: row.get(0)?, wrapped: row.get(1)?, fingerprint: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a domain and forgets the request that asked for it.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_domain(&self, domain: &DomainRow) -> Result<(), Error> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        let added = transaction.execute(
            "INSERT OR IGNORE INTO domain VALUES (?1, ?2, ?3)",
            params![domain.name, domain.wrapped, domain.fingerprint],
        )?;
        if added == 0 {
            return Err(Error::refused(format!(
                "domain {}: wanted a new name, found it on this appliance",
                domain.name
            )));
        }
        transaction.execute("DELETE FROM domain_request WHERE name = ?1", [&domain.name])?;
        transaction.commit()?;
        Ok(())
    }

    /// Keeps the key pair of a request for a domain; a newer request replaces an older one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_request(&self, name: &str, public: &[u8], wrapped: &[u8]) -> Result<(), Error> {
        let sql = "INSERT INTO domain_request VALUES (?1, ?2, ?3)
                   ON CONFLICT (name) DO UPDATE SET public = ?2, wrapped = ?3";
        self.connection.lock().execute(sql, params![name, public, wrapped])?;
        Ok(())
    }

    /// The key pair of a pending request.
    ///
    /// # Errors
    /// Those of the database.
    pub fn request(&self, name: &str) -> Result<Option<RequestRow>, Error> {
        let sql = "SELECT public, wrapped FROM domain_request WHERE name = ?1";
        let connection = self.connection.lock();
        Ok(connection
            .query_row(sql, [name], |row| Ok(RequestRow { public: row.get(0)?, wrapped: row.get(1)? }))
            .optional()?)
    }

    /// Every partition, by serial number.
    ///
    /// # Errors
    /// Those of the database.
    pub fn partitions(&self) -> Result<Vec<PartitionRow>, Error> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT serial, label, domain FROM partition ORDER BY serial")?;
        let rows = statement.query_map([], |row| {
            Ok(PartitionRow {
                serial: row.get::<_, i64>(0)?.cast_unsigned(),
                label: row.get(1)?,
                domain: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a partition.
    ///
    /// # Errors
    /// When the label or the serial number is taken.
    pub fn add_partition(&self, partition: &PartitionRow) -> Result<(), Error> {
        let added = self.connection.lock().execute(
            "INSERT OR IGNORE INTO partition VALUES (?1, ?2, ?3)",
            params![partition.serial.cast_signed(), partition.label, partition.domain],
        )?;
        if added == 1 {
            return Ok(());
        }
        Err(Error::refused(format!(
            "partition {:?}: wanted a new label, found it on this appliance",
            partition.label
        )))
    }

    /// Every client with its assignments, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn clients(&self) -> Result<Vec<ClientRow>, Error> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT name, certificate, fingerprint FROM client ORDER BY name")?;
        let rows = statement.query_map([], |row| {
            Ok(ClientRow {
                name: row.get(0)?,
                certificate: row.get(1)?,
                fingerprint: row.get(2)?,
                partitions: Vec::new(),
            })
        })?;
        let mut clients: Vec<ClientRow> = rows.collect::<Result<_, _>>()?;
        let mut assigned =
            connection.prepare_cached("SELECT serial FROM assignment WHERE client = ?1 ORDER BY serial")?;
        for client in &mut clients {
            let rows = assigned.query_map([&client.name], |row| row.get::<_, i64>(0))?;
            client.partitions =
                rows.map(|serial| serial.map(i64::cast_unsigned)).collect::<Result<_, rusqlite::Error>>()?;
        }
        Ok(clients)
    }

    /// Keeps a client without assignments.
    ///
    /// # Errors
    /// When its name or its certificate is registered.
    pub fn add_client(&self, client: &ClientRow) -> Result<(), Error> {
        let added = self.connection.lock().execute(
            "INSERT OR IGNORE INTO client VALUES (?1, ?2, ?3)",
            params![client.name, client.certificate, client.fingerprint],
        )?;
        if added == 1 {
            return Ok(());
        }
        Err(Error::refused(format!(
            "client {}: wanted a name and a certificate that are not registered, found one of them registered; see \
             `hsm client list`",
            client.name
        )))
    }

    /// Lets a client use a partition; `false` when it already might.
    ///
    /// # Errors
    /// When either is not known.
    pub fn assign(&self, client: &str, serial: u64) -> Result<bool, Error> {
        let sql = "INSERT OR IGNORE INTO assignment VALUES (?1, ?2)";
        Ok(self.connection.lock().execute(sql, params![client, serial.cast_signed()])? == 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn book() -> (tempfile::TempDir, Book) {
        let place = tempfile::tempdir().unwrap();
        let (book, new) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        assert!(new);
        (place, book)
    }

    fn client(name: &str, mark: u8) -> ClientRow {
        ClientRow {
            name: name.into(),
            certificate: vec![mark; 9],
            fingerprint: [mark; 32],
            partitions: vec![],
        }
    }

    #[test]
    fn everything_written_is_there_after_opening_again() {
        let (place, book) = book();
        let domain = DomainRow { name: "default".into(), wrapped: vec![1, 2], fingerprint: vec![3] };
        let partition =
            PartitionRow { serial: 1_234_567_890_123, label: "par0".into(), domain: "default".into() };
        book.set_fact("label", b"hsm1").unwrap();
        book.set_request("default", b"public", b"wrapped").unwrap();
        book.add_domain(&domain).unwrap();
        book.add_partition(&partition).unwrap();
        book.add_client(&client("c1", 1)).unwrap();
        assert!(book.assign("c1", partition.serial).unwrap());
        assert!(!book.assign("c1", partition.serial).unwrap());
        drop(book);
        let (book, new) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        assert!(!new);
        assert_eq!(book.label().unwrap().unwrap(), "hsm1");
        assert_eq!(book.domains().unwrap(), [domain]);
        assert_eq!(book.partitions().unwrap(), std::slice::from_ref(&partition));
        assert_eq!(
            book.clients().unwrap(),
            [ClientRow { partitions: vec![partition.serial], ..client("c1", 1) }]
        );
        assert!(book.request("default").unwrap().is_none(), "an answered request is forgotten");
    }

    #[test]
    fn names_certificates_and_labels_are_unique_and_assignments_need_both_sides() {
        let (_place, book) = book();
        let domain = DomainRow { name: "d".into(), wrapped: vec![1], fingerprint: vec![3] };
        book.add_domain(&domain).unwrap();
        assert!(book.add_domain(&domain).is_err());
        let partition = PartitionRow { serial: 5, label: "par0".into(), domain: "d".into() };
        book.add_partition(&partition).unwrap();
        assert!(book.add_partition(&PartitionRow { serial: 6, ..partition.clone() }).is_err());
        assert!(book.add_partition(&PartitionRow { label: "par1".into(), ..partition }).is_err());
        book.add_client(&client("c1", 1)).unwrap();
        assert!(book.add_client(&client("c1", 2)).is_err());
        assert!(book.add_client(&client("c2", 1)).is_err());
        assert!(book.assign("c1", 7).is_err());
        assert!(book.assign("c3", 5).is_err());
    }
}
