//! The partition: a token of the standard, a member of a group; pure but for its store (DESIGN 4).
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};
use spec::messages::{Outcome, ReplyHeader, SeenMember};
use spec::record::{Manifest, ManifestMember, MemberRole};

use crate::batch::Touches;
use crate::contents::{Change, Contents, META_IDENTITY};
use crate::digest_tree::RecordHasher;
use crate::domain::DomainSecret;
use crate::error::{Error, Refusal};
use crate::follow::{self, Progress};
use crate::lease::LeaseCell;
use crate::random::{Random, SystemRandom, bytes};
use crate::roles::{Credentials, Opened, Remembered, Role, Turns, Verifier};
use crate::seal::Sealer;
use crate::session_objects::BlobCache;
use crate::settings::{PIN_BYTES_MAX, Settings};
use crate::sightings::Board;
use crate::store::{Key, Seq, Store, StoreError};

/// Who sends a request, as the link has proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The registered client: 32 bytes that name its registration.
    pub client: [u8; 32],
    /// The public key of the application's instance, proved on the link (RULES 2.6).
    pub instance: [u8; 32],
}

/// What the link knows beside the caller; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Whether the link is that of a peer: the replicator identity (HA 4.7, RULES 3.3).
    pub replicator: bool,
    /// When the appliance's server certificate ends, milliseconds since 1970; 0 when there is none.
    pub server_certificate_ends_ms: u64,
    /// When the client's certificate ends, milliseconds since 1970; 0 when there is none.
    pub client_certificate_ends_ms: u64,
    /// The wall clock in milliseconds since 1970, for people; 0 when it is the time of the request.
    pub wall_ms: u64,
    /// Where the appliance has last seen the members of the group, for its peers (HA 1.5).
    pub seen: Vec<SeenMember>,
}

/// A partition over a store.
pub struct Partition {
    pub(crate) serial: u64,
    pub(crate) label: String,
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Sealer,
    pub(crate) hasher: RecordHasher,
    pub(crate) contents: RwLock<Contents>,
    pub(crate) blobs: BlobCache,
    /// Where the other members were seen (HA 1.5).
    pub(crate) board: Board,
    /// Names credentials in Status (HA 2.7).
    pub(crate) credential_key: hmac::Key,
    /// Names PIN tries; of this process only.
    pub(crate) try_key: hmac::Key,
    /// PIN tries run one after another for each client in a role.
    pub(crate) turns: Turns,
    /// Right PINs of this process, for the logins after the first.
    pub(crate) remembered: Remembered,
    pub(crate) opened: Opened,
    pub(crate) lease: LeaseCell,
    pub(crate) touches: Touches,
    pub(crate) writer: Mutex<()>,
    /// How far the contents follow the store.
    pub(crate) progress: Progress,
    /// Draws ouids and incarnations.
    pub(crate) names: Box<dyn Random + Send + Sync>,
}

/// So often a change is decided anew because another process over the same store was first.
const CONFLICTS_MAX: usize = 20;
/// Longest label of a token in bytes (PKCS #11 v3.1, 3.2).
const LABEL_BYTES_MAX: usize = 32;

impl Partition {
    /// Makes a partition in an empty store: a group of one, with the PINs of the security officer and the Crypto
    /// Officer (RULES 2.19, 3.2).
    ///
    /// # Errors
    /// [`Error::Store`] when the store is not empty; [`Error::Argument`] for a label or PIN out of bounds, or
    /// settings that Argon2id refuses; [`Error::Medium`] when the store fails.
    #[allow(clippy::too_many_arguments, reason = "a birth needs all of them once")]
    pub fn create(
        store: Arc<dyn Store>,
        domain: DomainSecret,
        serial: u64,
        label: &str,
        so_pin: &[u8],
        co_pin: &[u8],
        settings: Settings,
        now_ms: u64,
        random: &dyn Random,
    ) -> Result<Partition, Error> {
        check_birth(&*store, serial, label, &[so_pin, co_pin], &settings)?;
        let manifest = Manifest {
            group: bytes::<16>(random).to_vec(),
            serial: 0,
            label: label.to_owned(),
            epoch: 1,
            generation: 1,
            members: vec![ManifestMember { serial, role: MemberRole::Active as i32, weight: 100 }],
            home: serial,
            tag: Vec::new(),
            credential_epoch: 1,
        };
        let verifier = |role, pin| {
            Verifier::make(role, pin, 1, &settings)
                .ok_or_else(|| Error::Argument("wanted settings that Argon2id takes, found others".into()))
        };
        let verifiers =
            vec![verifier(Role::SecurityOfficer, so_pin)?, verifier(Role::CryptoOfficer, co_pin)?];
        // Recovered incarnations compare unequal whatever the clock; it only helps an operator to read them.
        let incarnation = u64::from_be_bytes(bytes::<8>(random)) | 1;
        let change = Change {
            credentials: Some(Credentials { epoch: 1, verifiers, tag: Vec::new() }),
            incarnation: Some(incarnation),
            identity: Some(encode_identity(serial, label, now_ms)),
            manifest: Some(manifest),
            ..Change::default()
        };
        let unborn = Contents::unborn(change.manifest.as_ref().unwrap_or(&Manifest::default()));
        let partition = Self::assemble(store, &domain, serial, label.to_owned(), settings, unborn);
        partition
            .write(|contents| match contents.seq {
                0 => Ok((change.clone(), ())),
                _ => Err(Refusal::new(
                    Outcome::FAILED,
                    "another process has made a partition in this store meanwhile",
                )),
            })
            .map_err(|refusal| Error::Store(format!("the new partition was not stored: {}", refusal.text)))?;
        Ok(partition)
    }

    /// Opens the partition of a store; everything is unsealed and checked against its digests.
    ///
    /// # Errors
    /// [`Error::Store`] when there is none or another serial number; [`Error::Domain`] under another secret;
    /// [`Error::Damaged`] when content and digests disagree; [`Error::Medium`] when the store fails.
    pub fn open(
        store: Arc<dyn Store>,
        domain: DomainSecret,
        serial: u64,
        settings: Settings,
    ) -> Result<Partition, Error> {
        let identity = store.read(&[Key::Meta(META_IDENTITY.into())], Seq(0))?.pop().flatten();
        let found = identity.as_ref().and_then(|entry| decode_identity(&entry.value));
        let Some((found, label)) = found else {
            return Err(Error::Store(
                "wanted a store with a partition in it, found none; create it first".into(),
            ));
        };
        if found != serial {
            return Err(Error::Store(format!(
                "wanted the store of partition {serial}, found that of {found}"
            )));
        }
        let (sealer, hasher) = (Sealer::new(&domain), hasher(&domain));
        let contents = follow::load(&*store, &sealer, &hasher)?;
        Ok(Self::assemble(store, &domain, serial, label, settings, contents))
    }

    fn assemble(
        store: Arc<dyn Store>,
        domain: &DomainSecret,
        serial: u64,
        label: String,
        settings: Settings,
        contents: Contents,
    ) -> Partition {
        Partition {
            serial,
            label,
            blobs: BlobCache::new(settings.blob_cache_entries, settings.blob_cache_bytes),
            settings,
            progress: Progress::watch(&*store, contents.seq),
            store,
            sealer: Sealer::new(domain),
            hasher: hasher(domain),
            contents: RwLock::new(contents),
            board: Board::new(domain),
            credential_key: hmac::Key::new(hmac::HMAC_SHA256, &*domain.derive(b"credential name", 1)),
            try_key: hmac::Key::new(hmac::HMAC_SHA256, &bytes::<32>(&SystemRandom)),
            turns: Turns::default(),
            remembered: Remembered::default(),
            opened: Opened::default(),
            lease: LeaseCell::default(),
            touches: Touches::default(),
            writer: Mutex::new(()),
            names: Box::new(SystemRandom),
        }
    }

    /// Draws the names of what it makes, ouids (HA 1.1) and incarnations (HA 1.5), from another source. They are no
    /// secrets, but their order decides between equal stamps: a simulation decides it by its seed.
    #[must_use]
    pub fn with_names(mut self, names: Box<dyn Random + Send + Sync>) -> Self {
        self.names = names;
        self
    }

    /// The serial number.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The partition's own label; the token's label is the manifest's.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The manifest as this member has it.
    pub fn manifest(&self) -> Manifest {
        self.contents.read().manifest.clone()
    }

    /// Live token objects.
    pub fn objects(&self) -> u64 {
        self.contents.read().index.live_count()
    }

    /// Whether it is recovering (HA 1.5).
    pub fn is_recovering(&self) -> bool {
        self.contents.read().recovering
    }

    /// Takes a new incarnation and, unless an operator says `adopt`, serves neither logins nor uses until it has been
    /// compared with a peer: after a restore, a clone or a roll-back (HA 1.5).
    ///
    /// # Errors
    /// [`Error::Store`] when it could not be written.
    pub fn reincarnate(&self, recovering: bool) -> Result<(), Error> {
        let change = self.another_incarnation(recovering);
        self.write(|_| Ok((change.clone(), ()))).map_err(|refusal| Error::Store(refusal.text))
    }

    pub(crate) fn another_incarnation(&self, recovering: bool) -> Change {
        let incarnation = u64::from_be_bytes(bytes::<8>(&*self.names)) | 1;
        Change { incarnation: Some(incarnation), recovering: Some(recovering), ..Change::default() }
    }

    /// An operator's word that a recovering member shall serve as it is (HA 1.5); whether it was recovering.
    ///
    /// # Errors
    /// [`Error::Store`] when it could not be written.
    pub fn adopt_as_it_is(&self) -> Result<bool, Error> {
        let decide = |contents: &Contents| {
            let change = Change { recovering: contents.recovering.then_some(false), ..Change::default() };
            Ok((change, contents.recovering))
        };
        self.write(decide).map_err(|refusal| Error::Store(refusal.text))
    }

    /// The member's standing now, as the header of a reply without a tag: for replies that are made outside of it.
    pub fn header(&self) -> ReplyHeader {
        self.reply_header(0)
    }

    /// The header of a reply: the member's standing now (HA 7).
    pub(crate) fn reply_header(&self, tag: u64) -> ReplyHeader {
        let contents = self.contents.read();
        ReplyHeader {
            tag,
            incarnation: contents.incarnation,
            seq: contents.seq,
            credential_epoch: contents.credentials.epoch,
            manifest_epoch: contents.manifest.epoch,
            window: self.settings.window,
            queue: 0,
        }
    }

    /// The one way to change what is held: decides on the contents, writes durably, and lets the contents follow.
    pub(crate) fn write<T>(
        &self,
        decide: impl Fn(&Contents) -> Result<(Change, T), Refusal>,
    ) -> Result<T, Refusal> {
        let _writer = self.writer.lock();
        if self.progress.is_behind() {
            self.catch_up()?;
        }
        for _ in 0..CONFLICTS_MAX {
            let (change, answer, transaction, digests, before) = {
                let contents = self.contents.read();
                let (change, answer) = decide(&contents)?;
                if change.is_empty() {
                    return Ok(answer);
                }
                let (transaction, digests) = contents.prepare(&change, &self.sealer, &self.hasher)?;
                (change, answer, transaction, digests, contents.seq)
            };
            match self.store.apply(&transaction) {
                // Others have committed in between, and the contents lack it. What cannot be read now is read before the
                // next write: this one is done.
                Ok(seq) if seq.0 != before + 1 => {
                    self.progress.hint(seq.0);
                    if seq.0 <= before {
                        self.catch_up()?;
                    } else {
                        let _ = self.catch_up();
                    }
                }
                Ok(seq) => {
                    self.contents.write().follow(change, &transaction, digests, seq.0);
                    self.progress.reached(seq.0);
                }
                // Another process was first with one of the keys: what it left is decided on.
                Err(StoreError::Conflict(_)) => {
                    self.catch_up()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(answer);
        }
        let text = format!(
            "wanted to change what no other process changes, found it changed {CONFLICTS_MAX} times in a row; repeat"
        );
        Err(Refusal::new(Outcome::FAILED, text))
    }
}

fn hasher(domain: &DomainSecret) -> RecordHasher {
    RecordHasher::new(&domain.derive(b"digest", 1))
}

fn check_birth(
    store: &dyn Store,
    serial: u64,
    label: &str,
    pins: &[&[u8]],
    settings: &Settings,
) -> Result<(), Error> {
    let existing = store.read(&[Key::Meta(META_IDENTITY.into())], Seq(0))?.pop().flatten();
    if existing.is_some() || store.seq()? != Seq(0) {
        return Err(Error::Store("wanted an empty store, found one that is in use; give another".into()));
    }
    if serial == 0 {
        return Err(Error::Argument("wanted a serial number above 0, found 0".into()));
    }
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(Error::Argument(format!(
            "wanted a label of 1 to {LABEL_BYTES_MAX} bytes, found {}",
            label.len()
        )));
    }
    let bytes = settings.pin_bytes_min as usize..=PIN_BYTES_MAX as usize;
    match pins.iter().find(|pin| !bytes.contains(&pin.len())) {
        None => Ok(()),
        Some(pin) => Err(Error::Argument(format!(
            "wanted PINs of {} to {} bytes, found {}",
            bytes.start(),
            bytes.end(),
            pin.len()
        ))),
    }
}

fn encode_identity(serial: u64, label: &str, now_ms: u64) -> Vec<u8> {
    [&serial.to_be_bytes()[..], &now_ms.to_be_bytes(), label.as_bytes()].concat()
}

fn decode_identity(bytes: &[u8]) -> Option<(u64, String)> {
    let (serial, rest) = bytes.split_at_checked(8)?;
    let (_born_ms, label) = rest.split_at_checked(8)?;
    Some((u64::from_be_bytes(serial.try_into().ok()?), String::from_utf8(label.to_vec()).ok()?))
}
