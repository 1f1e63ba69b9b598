//! The appliance as a whole: what `hsmd` opens at its start, in order, and what the operator's verbs work on.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ntls::certificate::Identity;
use parking_lot::RwLock;
use rustls::ServerConfig;

use crate::book::Book;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::domains::Domains;
use crate::error::Error;
use crate::link::Limits;
use crate::listener::{Acceptor, Connections};
use crate::partitions::Partitions;
use crate::peers::Peers;
use crate::registry::{Registry, ends_ms};
use crate::root_key::RootKey;
use crate::server_identity::ServerIdentity;
use crate::sightings::Sightings;

/// A value wrapped at the first start: opening it proves that the root key is still the same.
const ROOT_CHECK: &str = "root key check";

/// Everything that is open while the server runs.
pub struct Appliance {
    /// The settings.
    pub config: Config,
    /// The appliance's database.
    pub book: Arc<Book>,
    /// The domains.
    pub domains: Arc<Domains>,
    /// The partitions.
    pub partitions: Arc<Partitions>,
    /// The clients.
    pub registry: Arc<Registry>,
    /// The server's certificate and key.
    pub identity: Arc<ServerIdentity>,
    /// The TLS of new connections.
    pub acceptor: Arc<Acceptor>,
    /// Where the members on other appliances were last seen (HA 1.5).
    pub seen: Arc<Sightings>,
    /// The other appliances that this one keeps step with.
    pub peers: Arc<Peers>,
    /// Connections there are.
    pub connections: Connections,
    /// Addresses that are listened on, once they are.
    pub listening: RwLock<Vec<SocketAddr>>,
    /// When the server started.
    pub started: Instant,
    _data: DataDir,
}

impl Appliance {
    /// Opens the data folder and everything in it.
    ///
    /// # Errors
    /// When anything of it is missing, damaged, too open, in use or of a newer release.
    pub fn open(config: Config) -> Result<Appliance, Error> {
        let data = DataDir::open(&config.data_dir)?;
        let (book, _) = Book::open(&data.path().join("appliance.sqlite"))?;
        let book = Arc::new(book);
        let root = Arc::new(open_root(&book, &config)?);
        let domains = Arc::new(Domains::new(book.clone(), root));
        let partitions =
            Arc::new(Partitions::open(book.clone(), domains.clone(), data.partitions()?, &config)?);
        let registry = Arc::new(Registry::load(book.clone())?);
        let identity = Arc::new(ServerIdentity::load_or_make(&data, &config)?);
        let current = identity.current();
        let acceptor = Acceptor::new(tls(&current, &registry)?, ends_ms(current.certificate()));
        let seen = Arc::new(Sightings::load(book.clone())?);
        let trust = data.path().join("peers.pem");
        let peers = Peers::new(
            registry.clone(),
            partitions.clone(),
            seen.clone(),
            identity.clone(),
            config.peers,
            trust,
        );
        Ok(Appliance {
            peers: Arc::new(peers),
            seen,
            connections: Connections::new(
                config.links_max,
                config.links_per_client_max,
                config.handshakes_max,
            ),
            acceptor: Arc::new(acceptor),
            partitions,
            listening: RwLock::new(Vec::new()),
            started: Instant::now(),
            config,
            book,
            domains,
            registry,
            identity,
            _data: data,
        })
    }

    /// Puts the prepared certificate into service (`hsm sysconf activateCert`): new connections get it from now on, links
    /// that are up go on.
    ///
    /// # Errors
    /// When none is prepared or it cannot be used; then nothing has changed.
    pub fn activate_certificate(&self, issued: Option<&str>) -> Result<(), Error> {
        let identity = self.identity.activate(issued)?;
        self.acceptor.replace(tls(&identity, &self.registry)?, ends_ms(identity.certificate()));
        // Our own links to peers are made anew with it.
        self.registry.tell_changed();
        Ok(())
    }

    /// The bounds of links.
    pub fn limits(&self) -> Limits {
        let idle = self.config.idle_seconds;
        Limits {
            window: self.config.window,
            link_bytes: self.config.link_bytes_max,
            idle: (idle > 0).then(|| Duration::from_secs(idle)),
            handshake: Duration::from_secs(self.config.handshake_seconds),
        }
    }
}

fn tls(identity: &Identity, registry: &Arc<Registry>) -> Result<ServerConfig, Error> {
    ntls::tls::server_config(identity, registry.clone()).map_err(|error| {
        Error::environment(format!("the server's certificate and key cannot be used: {error}"))
    })
}

fn open_root(book: &Book, config: &Config) -> Result<RootKey, Error> {
    let check = book.fact(ROOT_CHECK)?;
    let root = RootKey::load(&config.root_key, check.is_none())?;
    match check {
        Some(check) => {
            root.unwrap(ROOT_CHECK, &check)?;
        }
        None => book.set_fact(ROOT_CHECK, &root.wrap(ROOT_CHECK, b"hatoki"))?,
    }
    Ok(root)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(place: &tempfile::TempDir, more: &str) -> Config {
        let text = format!("data_dir = \"data\"\nargon2_memory_kib = 64\nargon2_passes = 1\n{more}");
        Config::parse(&text, &place.path().join("hsmd.toml")).unwrap()
    }

    #[test]
    fn everything_made_is_there_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let appliance = Appliance::open(config(&place, "")).unwrap();
        appliance.domains.create("default").unwrap();
        let row = appliance.partitions.create("par0", "default", b"so-pin-1", b"co-pin-1").unwrap();
        assert!((1_000_000_000_000..=9_999_999_999_999).contains(&row.serial));
        assert!(Appliance::open(config(&place, "")).is_err(), "the folder is in use");
        drop(appliance);
        let appliance = Appliance::open(config(&place, "")).unwrap();
        let slot = appliance.partitions.find("par0").unwrap();
        assert_eq!(slot.row, row);
        assert!(slot.handler.is_ok());
        assert_eq!(appliance.partitions.find(&row.serial.to_string()).unwrap().row, row);
    }

    #[test]
    fn another_root_key_is_refused_at_the_start() {
        let place = tempfile::tempdir().unwrap();
        drop(Appliance::open(config(&place, "")).unwrap());
        let other = place.path().join("other.key");
        drop(RootKey::load(&crate::config::RootKeySource::File(other), true).unwrap());
        let error = Appliance::open(config(&place, "root_key = \"other.key\"")).err().unwrap().to_string();
        assert!(error.contains("root_key"), "{error}");
        let error = Appliance::open(config(&place, "root_key = \"missing.key\"")).err().unwrap().to_string();
        assert!(error.contains("found no file"), "{error}");
        Appliance::open(config(&place, "")).unwrap();
    }

    #[test]
    fn a_folder_of_a_newer_release_is_refused() {
        let place = tempfile::tempdir().unwrap();
        drop(Appliance::open(config(&place, "")).unwrap());
        let connection = rusqlite::Connection::open(place.path().join("data/appliance.sqlite")).unwrap();
        connection.pragma_update(None, "user_version", crate::book::FORMAT + 1).unwrap();
        drop(connection);
        let error = Appliance::open(config(&place, "")).err().unwrap().to_string();
        assert!(error.contains("newer release"), "{error}");
    }

    #[test]
    fn a_damaged_partition_is_shown_and_keeps_no_other_down() {
        let place = tempfile::tempdir().unwrap();
        let appliance = Appliance::open(config(&place, "")).unwrap();
        appliance.domains.create("default").unwrap();
        let first = appliance.partitions.create("par0", "default", b"so-pin-1", b"co-pin-1").unwrap();
        appliance.partitions.create("par1", "default", b"so-pin-1", b"co-pin-1").unwrap();
        drop(appliance);
        std::fs::remove_file(place.path().join(format!("data/partitions/{}.sqlite", first.serial))).unwrap();
        let appliance = Appliance::open(config(&place, "")).unwrap();
        let reason = appliance.partitions.find("par0").unwrap().handler.err().unwrap();
        assert!(reason.contains("found no file"), "{reason}");
        assert!(appliance.partitions.find("par1").unwrap().handler.is_ok());
    }

    #[test]
    fn unacceptable_partitions_are_refused_and_leave_nothing() {
        let place = tempfile::tempdir().unwrap();
        let appliance = Appliance::open(config(&place, "")).unwrap();
        appliance.domains.create("default").unwrap();
        let create = |label: &str, domain: &str, co_pin: &[u8]| {
            appliance.partitions.create(label, domain, b"so-pin-1", co_pin)
        };
        for label in ["", &"x".repeat(33), " par0", "par\n0", "1234567890123"] {
            assert!(create(label, "default", b"co-pin-1").is_err(), "{label:?}");
        }
        assert!(create("par0", "other", b"co-pin-1").unwrap_err().to_string().contains("other"));
        let error = create("par0", "default", b"q7z").unwrap_err().to_string();
        assert!(!error.contains("q7z"), "a PIN is in {error}");
        assert_eq!(std::fs::read_dir(place.path().join("data/partitions")).unwrap().count(), 0);
        create("par0", "default", b"co-pin-1").unwrap();
        assert!(create("par0", "default", b"co-pin-1").is_err(), "labels are unique");
    }
}
