//! The appliance's own database: label, domains (wrapped by the root key), clients, partitions and assignments.
use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use spec::messages::SeenMember;

use crate::error::Error;
use crate::store::database;

/// The format of the data folder that this release writes; an older release refuses it.
pub const FORMAT: i64 = 2;

/// The database, step by step from format to format.
const STEPS: &[&str] = &[
    "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE domain (name TEXT PRIMARY KEY, wrapped BLOB NOT NULL, fingerprint BLOB NOT NULL) STRICT;
    CREATE TABLE domain_request (name TEXT PRIMARY KEY, public BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
    CREATE TABLE partition (serial INTEGER PRIMARY KEY, label TEXT NOT NULL UNIQUE,
        domain TEXT NOT NULL REFERENCES domain (name)) STRICT;
    CREATE TABLE client (name TEXT PRIMARY KEY, certificate BLOB NOT NULL,
        fingerprint BLOB NOT NULL UNIQUE) STRICT;
    CREATE TABLE assignment (client TEXT NOT NULL REFERENCES client (name),
        serial INTEGER NOT NULL REFERENCES partition (serial), PRIMARY KEY (client, serial)) STRICT;
    ",
    // A client has an identity and any number of certificates; peers; where members were last seen.
    "
    CREATE TABLE certificate (kind INTEGER NOT NULL, owner TEXT NOT NULL, fingerprint BLOB NOT NULL, der BLOB NOT NULL,
        PRIMARY KEY (kind, owner, fingerprint)) STRICT;
    INSERT INTO certificate SELECT 1, name, fingerprint, certificate FROM client;
    CREATE UNIQUE INDEX pinned ON certificate (fingerprint) WHERE kind IN (1, 3);
    ALTER TABLE client DROP COLUMN certificate;
    ALTER TABLE client RENAME COLUMN fingerprint TO identity;
    CREATE TABLE peer (name TEXT PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL,
        domain TEXT NOT NULL REFERENCES domain (name)) STRICT;
    CREATE TABLE seen (serial INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL,
        root BLOB NOT NULL) STRICT;
    ",
];

/// Whose certificate it is; the numbers stand in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's own, pinned.
    Client = 1,
    /// That of an authority which vouches for a client of this name.
    Authority = 2,
    /// A peer's own, pinned.
    Peer = 3,
}

/// A certificate as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// In DER.
    pub der: Vec<u8>,
}

impl Kept {
    /// A certificate in DER with its fingerprint.
    pub fn new(der: &[u8]) -> Self {
        Self { fingerprint: ntls::certificate::fingerprint(der), der: der.to_vec() }
    }
}

/// A registered client as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// The name under which the operator registered it.
    pub name: String,
    /// What tickets and seals are bound to: the fingerprint of its first certificate, or the hash of its name when an
    /// authority vouches for it. It stays when certificates change.
    pub identity: [u8; 32],
    /// Its certificates, in the order of their registration.
    pub certificates: Vec<Kept>,
    /// The authorities that vouch for certificates of this name.
    pub authorities: Vec<Kept>,
    /// Serial numbers of the partitions assigned to it, ascending.
    pub partitions: Vec<u64>,
}

/// Another appliance with members of the same groups (HA 4.7), as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The name under which the operator registered it.
    pub name: String,
    /// Where its hsmd listens.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The domain whose partitions it may repair.
    pub domain: String,
    /// Its certificates: what it shows as server and, when it connects here, as client.
    pub certificates: Vec<Kept>,
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
        let (connection, new) = database::open(path, database::BOOK_ID, STEPS)?;
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

    /// Every client with its certificates and assignments, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn clients(&self) -> Result<Vec<ClientRow>, Error> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare_cached("SELECT name, identity FROM client ORDER BY name")?;
        let rows = statement.query_map([], |row| {
            Ok(ClientRow {
                name: row.get(0)?,
                identity: row.get(1)?,
                certificates: Vec::new(),
                authorities: Vec::new(),
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
            client.certificates = certificates(&connection, Kind::Client, &client.name)?;
            client.authorities = certificates(&connection, Kind::Authority, &client.name)?;
        }
        Ok(clients)
    }

    /// Keeps a client with its certificates and authorities, without assignments.
    ///
    /// # Errors
    /// When its name, its identity or one of its certificates is registered.
    pub fn add_client(&self, client: &ClientRow) -> Result<(), Error> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        let added = change.execute(
            "INSERT OR IGNORE INTO client (name, identity) VALUES (?1, ?2)",
            params![client.name, client.identity],
        )?;
        let mut all = added == 1;
        for certificate in &client.certificates {
            all &= put_certificate(&change, Kind::Client, &client.name, certificate)?;
        }
        for authority in &client.authorities {
            all &= put_certificate(&change, Kind::Authority, &client.name, authority)?;
        }
        if all {
            return Ok(change.commit()?);
        }
        Err(Error::refused(format!(
            "client {}: wanted a name, an identity and a certificate that are not registered, found one of them \
             registered; see `hsm client list`",
            client.name
        )))
    }

    /// Keeps one more certificate of a client or peer; `false` when it is registered already.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_certificate(&self, kind: Kind, owner: &str, certificate: &Kept) -> Result<bool, Error> {
        put_certificate(&self.connection.lock(), kind, owner, certificate)
    }

    /// Forgets a certificate of a client or peer; `false` when there was none.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove_certificate(&self, kind: Kind, owner: &str, fingerprint: &[u8; 32]) -> Result<bool, Error> {
        let sql = "DELETE FROM certificate WHERE kind = ?1 AND owner = ?2 AND fingerprint = ?3";
        Ok(self.connection.lock().execute(sql, params![kind as i64, owner, fingerprint])? == 1)
    }

    /// Every peer, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn peers(&self) -> Result<Vec<PeerRow>, Error> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT name, host, port, domain FROM peer ORDER BY name")?;
        let rows = statement.query_map([], |row| {
            Ok(PeerRow {
                name: row.get(0)?,
                host: row.get(1)?,
                port: row.get(2)?,
                domain: row.get(3)?,
                certificates: Vec::new(),
            })
        })?;
        let mut peers: Vec<PeerRow> = rows.collect::<Result<_, _>>()?;
        for peer in &mut peers {
            peer.certificates = certificates(&connection, Kind::Peer, &peer.name)?;
        }
        Ok(peers)
    }

    /// Keeps a peer as it is given, with all its certificates.
    ///
    /// # Errors
    /// When its domain is not known here, or a certificate is registered for somebody else.
    pub fn put_peer(&self, peer: &PeerRow) -> Result<(), Error> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM certificate WHERE kind = 3 AND owner = ?1", [&peer.name])?;
        change.execute(
            "INSERT OR REPLACE INTO peer VALUES (?1, ?2, ?3, ?4)",
            params![peer.name, peer.host, peer.port, peer.domain],
        )?;
        for certificate in &peer.certificates {
            if !put_certificate(&change, Kind::Peer, &peer.name, certificate)? {
                return Err(Error::refused(format!(
                    "peer {}: wanted a certificate that no client and no other peer has, found one that is registered; \
                     see `hsm peer list` and `hsm client list`",
                    peer.name
                )));
            }
        }
        Ok(change.commit()?)
    }

    /// Forgets a peer and its certificates; `false` when there was none.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove_peer(&self, name: &str) -> Result<bool, Error> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM certificate WHERE kind = 3 AND owner = ?1", [name])?;
        let removed = change.execute("DELETE FROM peer WHERE name = ?1", [name])?;
        change.commit()?;
        Ok(removed == 1)
    }

    /// Where members of other appliances were last seen (HA 1.5).
    ///
    /// # Errors
    /// Those of the database.
    pub fn seen(&self) -> Result<Vec<SeenMember>, Error> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT serial, incarnation, seq, root FROM seen ORDER BY serial")?;
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let rows = statement.query_map([], |row| {
            Ok(SeenMember {
                proof: Vec::new(),
                said_ms: 0,
                serial: number(row, 0)?,
                incarnation: number(row, 1)?,
                seq: number(row, 2)?,
                root: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps where members were seen.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_seen(&self, seen: &[SeenMember]) -> Result<(), Error> {
        let mut connection = self.connection.lock();
        let change = connection.transaction()?;
        for one in seen {
            change.prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4)")?.execute(
                params![
                    one.serial.cast_signed(),
                    one.incarnation.cast_signed(),
                    one.seq.cast_signed(),
                    one.root
                ],
            )?;
        }
        Ok(change.commit()?)
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

fn certificates(connection: &Connection, kind: Kind, owner: &str) -> Result<Vec<Kept>, Error> {
    let sql = "SELECT fingerprint, der FROM certificate WHERE kind = ?1 AND owner = ?2 ORDER BY rowid";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![kind as i64, owner], |row| {
        Ok(Kept { fingerprint: row.get(0)?, der: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether it was not registered yet.
fn put_certificate(connection: &Connection, kind: Kind, owner: &str, kept: &Kept) -> Result<bool, Error> {
    let sql = "INSERT OR IGNORE INTO certificate VALUES (?1, ?2, ?3, ?4)";
    let added = connection.execute(sql, params![kind as i64, owner, kept.fingerprint, kept.der])?;
    Ok(added == 1)
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
            identity: [mark; 32],
            certificates: vec![Kept { fingerprint: [mark; 32], der: vec![mark; 9] }],
            authorities: vec![],
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

    #[test]
    fn a_certificate_belongs_to_one_client_or_peer_and_outlives_a_restart() {
        let (place, book) = book();
        book.add_domain(&DomainRow { name: "d".into(), wrapped: vec![1], fingerprint: vec![3] }).unwrap();
        book.add_client(&client("c1", 1)).unwrap();
        book.add_client(&client("c2", 2)).unwrap();
        let kept = |mark| Kept { fingerprint: [mark; 32], der: vec![mark] };
        assert!(book.add_certificate(Kind::Client, "c1", &kept(3)).unwrap());
        assert!(!book.add_certificate(Kind::Client, "c2", &kept(3)).unwrap());
        let mut peer = PeerRow {
            name: "hsm2".into(),
            host: "h".into(),
            port: 1792,
            domain: "d".into(),
            certificates: vec![kept(3)],
        };
        assert!(book.put_peer(&peer).is_err(), "it is a client's");
        assert!(book.peers().unwrap().is_empty());
        peer.certificates = vec![kept(4), kept(5)];
        book.put_peer(&peer).unwrap();
        assert!(book.put_peer(&PeerRow { domain: "x".into(), ..peer.clone() }).is_err());
        assert!(book.remove_certificate(Kind::Client, "c1", &[1; 32]).unwrap());
        let seen = SeenMember {
            serial: 7,
            incarnation: u64::MAX,
            seq: 3,
            root: vec![8; 32],
            ..SeenMember::default()
        };
        book.set_seen(std::slice::from_ref(&seen)).unwrap();
        drop(book);
        let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        assert_eq!(book.clients().unwrap()[0].certificates, [kept(3)]);
        assert_eq!((book.peers().unwrap(), book.seen().unwrap()), (vec![peer], vec![seen]));
        assert!(book.remove_peer("hsm2").unwrap() && !book.remove_peer("hsm2").unwrap());
        assert!(book.add_certificate(Kind::Client, "c1", &kept(4)).unwrap(), "free again");
    }

    #[test]
    fn clients_of_the_first_format_keep_their_identity_and_certificate() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("appliance.sqlite");
        let (old, _) = database::open(&path, database::BOOK_ID, &STEPS[..1]).unwrap();
        old.execute("INSERT INTO client VALUES ('c1', ?1, ?2)", params![vec![1_u8; 9], [1_u8; 32]]).unwrap();
        drop(old);
        let (book, new) = Book::open(&path).unwrap();
        assert!(!new);
        assert_eq!(book.clients().unwrap(), [client("c1", 1)]);
        assert_eq!(usize::try_from(FORMAT).unwrap(), STEPS.len());
    }
}
