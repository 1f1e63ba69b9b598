//! The partitions of the appliance: opened at start, made by `hsm partition create`, found by serial number or label.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;
use parking_lot::{Mutex, RwLock};
use partition::{DomainSecret, Partition, Settings, SystemRandom};
use zeroize::Zeroizing;

use crate::book::{Book, PartitionRow};
use crate::config::{Config, LimitsOf};
use crate::domains::Domains;
use crate::error::Error;
use crate::handler::{Handler, now_ms};
use crate::link::Lookup;
use crate::served::Served;
use crate::store::SqliteStore;

const LABEL_BYTES_MAX: usize = 32;
/// Serial numbers have 13 digits, as the vendor's.
const SERIALS: (u64, u64) = (1_000_000_000_000, 9_999_999_999_999);

/// A partition in the book, open or not.
#[derive(Clone)]
pub struct Slot {
    /// What the book says.
    pub row: PartitionRow,
    /// What serves it, or why nothing does.
    pub handler: Result<Arc<dyn Handler>, String>,
}

/// All partitions of the appliance.
pub struct Partitions {
    book: Arc<Book>,
    domains: Arc<Domains>,
    folder: PathBuf,
    settings: Settings,
    limits: LimitsOf,
    slots: RwLock<BTreeMap<u64, Slot>>,
    making: Mutex<()>,
}

impl Partitions {
    /// Opens every partition of the book. One that cannot be opened is kept with the reason and keeps no other from
    /// being served.
    ///
    /// # Errors
    /// When the book cannot be read.
    pub fn open(
        book: Arc<Book>,
        domains: Arc<Domains>,
        folder: PathBuf,
        config: &Config,
    ) -> Result<Self, Error> {
        let settings = settings(config);
        let mut slots = BTreeMap::new();
        for row in book.partitions()? {
            let settings = with_limits(&settings, &config.limits, &row.label);
            let handler = open_one(&row, &domains, &folder, settings).map_err(|error| error.to_string());
            if let Err(reason) = &handler {
                tracing::error!(
                    serial = row.serial,
                    label = row.label,
                    reason,
                    "a partition cannot be opened"
                );
            }
            slots.insert(row.serial, Slot { row, handler });
        }
        let limits = config.limits.clone();
        Ok(Self {
            book,
            domains,
            folder,
            settings,
            limits,
            slots: RwLock::new(slots),
            making: Mutex::new(()),
        })
    }

    /// Makes a partition of a domain with its first PINs and answers its row.
    ///
    /// # Errors
    /// When label, domain or PINs are not acceptable, or it cannot be stored.
    pub fn create(
        &self,
        label: &str,
        domain: &str,
        so_pin: &[u8],
        co_pin: &[u8],
    ) -> Result<PartitionRow, Error> {
        let _one_at_a_time = self.making.lock();
        check_label(label)?;
        if self.slots.read().values().any(|slot| slot.row.label == label) {
            return Err(Error::refused(format!(
                "partition {label:?}: wanted a new label, found it on this appliance"
            )));
        }
        let secret = self.domains.secret(domain)?;
        let serial = self.new_serial()?;
        let row = PartitionRow { serial, label: label.to_owned(), domain: domain.to_owned() };
        let path = database(&self.folder, serial);
        let made = self.make(&row, &path, secret, so_pin, co_pin).and_then(|partition| {
            self.book.add_partition(&row)?;
            Ok(partition)
        });
        match made {
            Ok(partition) => {
                let slot = Slot { row: row.clone(), handler: Ok(Arc::new(Served::new(partition))) };
                self.slots.write().insert(serial, slot);
                Ok(row)
            }
            Err(error) => {
                for end in ["", "-wal", "-shm"] {
                    // The book does not name them: what cannot be removed is not opened either.
                    let _ = std::fs::remove_file(self.folder.join(format!("{serial}.sqlite{end}")));
                }
                Err(error)
            }
        }
    }

    fn make(
        &self,
        row: &PartitionRow,
        path: &Path,
        secret: Zeroizing<[u8; 32]>,
        so_pin: &[u8],
        co_pin: &[u8],
    ) -> Result<Partition, Error> {
        let store = Arc::new(SqliteStore::open(path)?);
        let domain = DomainSecret::new(secret);
        let settings = with_limits(&self.settings, &self.limits, &row.label);
        Partition::create(
            store,
            domain,
            row.serial,
            &row.label,
            so_pin,
            co_pin,
            settings,
            now_ms(),
            &SystemRandom,
        )
        .map_err(|error| Error::refused(format!("partition {:?}: {error}", row.label)))
    }

    /// All partitions, by serial number.
    pub fn list(&self) -> Vec<Slot> {
        self.slots.read().values().cloned().collect()
    }

    /// The partition of that serial number or label.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<Slot, Error> {
        let slots = self.slots.read();
        let by_serial = name.parse().ok().and_then(|serial: u64| slots.get(&serial));
        by_serial.or_else(|| slots.values().find(|slot| slot.row.label == name)).cloned().ok_or_else(|| {
            Error::refused(format!(
                "partition {:?}: wanted the label or serial number of a partition here, found none; see `hsm partition \
                 list`",
                name.chars().take(64).collect::<String>()
            ))
        })
    }

    /// Requests run by all partitions since the start, by the call's name.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (name, count) in self.handlers().iter().flat_map(|handler| handler.requests()) {
            *all.entry(name.to_owned()).or_insert(0) += count;
        }
        all
    }

    /// Housekeeping of every partition.
    pub fn tidy(&self, now_ms: u64) {
        self.handlers().iter().for_each(|handler| handler.tidy(now_ms));
    }

    /// What was destroyed leaves the files of every partition.
    pub fn clean(&self) {
        self.handlers().iter().for_each(|handler| handler.clean());
    }

    fn handlers(&self) -> Vec<Arc<dyn Handler>> {
        self.slots.read().values().filter_map(|slot| slot.handler.clone().ok()).collect()
    }

    fn new_serial(&self) -> Result<u64, Error> {
        loop {
            let mut bytes = [0; 8];
            rand::fill(&mut bytes).map_err(|_| Error::environment("the system gives no random bytes"))?;
            // 2^64 is so much greater than the range that its remainder's unevenness is nothing.
            let serial = SERIALS.0 + u64::from_be_bytes(bytes) % (SERIALS.1 - SERIALS.0 + 1);
            if !self.slots.read().contains_key(&serial) && !database(&self.folder, serial).exists() {
                return Ok(serial);
            }
        }
    }
}

impl Lookup for Partitions {
    fn handler(&self, serial: u64) -> Option<Arc<dyn Handler>> {
        self.slots.read().get(&serial).and_then(|slot| slot.handler.clone().ok())
    }

    fn label(&self, serial: u64) -> Option<String> {
        self.slots.read().get(&serial).filter(|slot| slot.handler.is_ok()).map(|slot| slot.row.label.clone())
    }

    fn appliance(&self) -> String {
        self.book.label().ok().flatten().unwrap_or_default()
    }
}

fn open_one(
    row: &PartitionRow,
    domains: &Domains,
    folder: &Path,
    settings: Settings,
) -> Result<Arc<dyn Handler>, Error> {
    let path = database(folder, row.serial);
    if !path.exists() {
        return Err(Error::damaged(format!("wanted its database {}, found no file", path.display())));
    }
    let store = Arc::new(SqliteStore::open(&path)?);
    let domain = DomainSecret::new(domains.secret(&row.domain)?);
    let partition = Partition::open(store, domain, row.serial, settings)
        .map_err(|error| Error::damaged(error.to_string()))?;
    Ok(Arc::new(Served::new(partition)))
}

fn database(folder: &Path, serial: u64) -> PathBuf {
    folder.join(format!("{serial}.sqlite"))
}

fn settings(config: &Config) -> Settings {
    Settings {
        argon2_memory_kib: config.argon2_memory_kib,
        argon2_passes: config.argon2_passes,
        argon2_lanes: config.argon2_lanes,
        pin_bytes_min: config.pin_bytes_min,
        retry_delay_ms_max: config.retry_delay_ms_max,
        window: config.window,
        ..Settings::default()
    }
}

fn with_limits(settings: &Settings, limits: &LimitsOf, label: &str) -> Settings {
    let quota = limits.quota(label);
    Settings {
        mechanisms_off: limits.mechanisms_off(label),
        objects_max: quota.objects_max,
        bytes_max: quota.bytes_max,
        hash_in_member: quota.hash_in_member,
        ..settings.clone()
    }
}

fn check_label(label: &str) -> Result<(), Error> {
    let good = !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.chars().any(char::is_control)
        && label.trim() == label
        && label.parse::<u64>().is_err();
    if good {
        return Ok(());
    }
    Err(Error::refused(format!(
        "partition label: wanted 1 to {LABEL_BYTES_MAX} bytes without blanks at its ends and not only digits, found \
         {:?} of {} bytes",
        label.chars().take(LABEL_BYTES_MAX).collect::<String>(),
        label.len()
    )))
}
