//! What the member holds, unsealed, and the one way to change it.
//!
//! ```text
//! writer lock: read contents -> decide a Change -> transaction (expectations, seals, digest deltas) -> store.apply
//!              -> contents follow the store
//! ```
//! Readers never wait for the disk: the contents are locked only while they are looked at or moved forward.
use std::collections::BTreeMap;

use prost::Message;
use spec::Rv;
use spec::messages::SealedRecord;
use spec::record::{Manifest, Ouid, RECORD_FORMAT, Record};
use spec::wipe::discard_zeroizing;
use zeroize::Zeroizing;

use crate::canonical::{self, Sealed};
use crate::digest_tree::{Digest, RecordHasher};
use crate::error::{Error, Refusal};
use crate::index::{Held, Index};
use crate::left::LeftGroups;
use crate::loading;
use crate::roles::Credentials;
use crate::seal::{Context, Group, NotOpened, Sealer, What};
use crate::settings::Settings;
use crate::store::{Delta, Entry, Key, Put, Store, StoreError, Transaction};

/// The names of what is stored beside records.
pub(crate) const META_IDENTITY: &str = "identity";
const META_GROUP: &str = "group";
const META_RECOVERING: &str = "recovering";
const META_LEFT: &str = "left";

/// Everything that the member holds.
pub(crate) struct Contents {
    pub(crate) index: Index,
    pub(crate) manifest: Manifest,
    pub(crate) credentials: Credentials,
    pub(crate) recovering: bool,
    pub(crate) incarnation: u64,
    pub(crate) seq: u64,
    pub(crate) left: LeftGroups,
    group: Group,
    versions: BTreeMap<Key, u64>,
}

/// What a request changes; empty when it changes nothing.
#[derive(Clone, Default)]
pub(crate) struct Change {
    /// The new states of these records.
    pub(crate) records: Vec<Record>,
    /// Records forgotten without a trace: provisional ones of long ago.
    pub(crate) forget: Vec<Ouid>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) recovering: Option<bool>,
    /// The groups left, when one is left by this.
    pub(crate) left: Option<LeftGroups>,
    pub(crate) incarnation: Option<u64>,
    /// The identity of a partition at its birth.
    pub(crate) identity: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.forget.is_empty()
            && self.manifest.is_none()
            && self.credentials.is_none()
            && self.recovering.is_none()
            && self.left.is_none()
            && self.incarnation.is_none()
            && self.identity.is_none()
    }
}

/// The group of a manifest.
pub(crate) fn group_of(manifest: &Manifest) -> Group {
    let id = manifest.group.as_slice().try_into().unwrap_or([0; 16]);
    Group { id, generation: manifest.generation }
}

/// The seal of a record, as it lies on disk and travels between members.
pub(crate) fn seal_record(sealer: &Sealer, group: Group, record: &Record) -> Vec<u8> {
    let ouid = record.id().unwrap_or(Ouid([0; 16]));
    let what = What::Record { ouid, format: RECORD_FORMAT, maker: record.maker };
    let plain = Zeroizing::new(record.encode_to_vec());
    let envelope = sealer.seal(&Context { group, what }, &plain);
    SealedRecord { ouid: record.ouid.clone(), maker: record.maker, envelope }.encode_to_vec()
}

/// Opens a record and checks that the seal speaks of what is inside.
pub(crate) fn open_record(sealer: &Sealer, group: Group, sealed: &SealedRecord) -> Result<Record, NotOpened> {
    open_parts(sealer, group, &parts(sealed)).map(|opened| opened.record)
}

fn parts(sealed: &SealedRecord) -> Sealed<'_> {
    Sealed { ouid: &sealed.ouid, maker: sealed.maker, envelope: &sealed.envelope }
}

/// A record, and its encoding where that is known.
struct Opened {
    record: Record,
    encoding: Option<Zeroizing<Vec<u8>>>,
}

impl Opened {
    fn held(self, version: u64, hasher: &RecordHasher) -> Held {
        let Some(encoding) = self.encoding else {
            let digest = hasher.hash(&self.record);
            return Held::new(self.record, version, digest);
        };
        let digest = hasher.hash_encoded(self.record.state(), &encoding);
        let bytes = encoding.len() as u64;
        discard_zeroizing(encoding);
        Held::of_length(self.record, bytes, version, digest)
    }
}

fn open_parts(sealer: &Sealer, group: Group, sealed: &Sealed<'_>) -> Result<Opened, NotOpened> {
    let ouid = Ouid::from_bytes(sealed.ouid).ok_or(NotOpened)?;
    let what = What::Record { ouid, format: RECORD_FORMAT, maker: sealed.maker };
    let plain = sealer.open(&Context { group, what }, sealed.envelope)?;
    let opened = match canonical::record(&plain) {
        Some(record) => Opened { record, encoding: Some(plain) },
        None => {
            let record = Record::decode(plain.as_slice()).map_err(|_| NotOpened)?;
            Opened { record, encoding: None }
        }
    };
    let is_inside = opened.record.id() == Some(ouid) && opened.record.maker == sealed.maker;
    if is_inside { Ok(opened) } else { Err(NotOpened) }
}

/// The clear name of the group beside the seals that are bound to it.
fn encode_group(group: Group) -> Vec<u8> {
    [&group.id[..], &group.generation.to_be_bytes()].concat()
}

fn decode_group(bytes: &[u8]) -> Option<Group> {
    let (id, generation) = bytes.split_at_checked(16)?;
    Some(Group { id: id.try_into().ok()?, generation: u64::from_be_bytes(generation.try_into().ok()?) })
}

/// One record as the index holds it; none when the entry is something else.
fn unseal(
    entry: &Entry,
    group: Group,
    sealer: &Sealer,
    hasher: &RecordHasher,
) -> Result<Option<(Ouid, Held)>, Error> {
    let Key::Record(ouid) = entry.key else { return Ok(None) };
    let decoded;
    let sealed = match canonical::sealed(&entry.value) {
        Some(sealed) => sealed,
        None => {
            let damaged = |_| Error::Damaged(format!("record {ouid:?} cannot be read; restore the store"));
            decoded = SealedRecord::decode(entry.value.as_slice()).map_err(damaged)?;
            parts(&decoded)
        }
    };
    let opened = open_parts(sealer, group, &sealed).map_err(|NotOpened| Error::Domain)?;
    Ok(Some((ouid, opened.held(entry.version, hasher))))
}

impl Contents {
    /// Nothing yet: the state before a partition's birth.
    pub(crate) fn unborn(manifest: &Manifest) -> Self {
        Self {
            index: Index::new(),
            manifest: Manifest::default(),
            credentials: Credentials::default(),
            recovering: false,
            incarnation: 0,
            seq: 0,
            left: LeftGroups::default(),
            group: group_of(manifest),
            versions: BTreeMap::new(),
        }
    }

    /// Reads and unseals everything.
    pub(crate) fn load(store: &dyn Store, sealer: &Sealer, hasher: &RecordHasher) -> Result<Self, Error> {
        let mut contents = Self::load_head(store, sealer)?;
        contents.load_records(store, sealer, hasher)?;
        Ok(contents)
    }

    /// Reads and unseals everything but the records.
    pub(crate) fn load_head(store: &dyn Store, sealer: &Sealer) -> Result<Self, Error> {
        let keys = [
            Key::Meta(META_GROUP.into()),
            Key::Manifest,
            Key::Credentials,
            Key::Meta(META_RECOVERING.into()),
            Key::Meta(META_IDENTITY.into()),
            Key::Meta(META_LEFT.into()),
        ];
        let entries = store.read(&keys, crate::store::Seq(0))?;
        let missing = || {
            Error::Store(
                "wanted a store with a partition in it, found an unfinished one; create it anew".into(),
            )
        };
        let [Some(group), Some(manifest), Some(credentials), recovering, Some(_), left] = &entries[..] else {
            return Err(missing());
        };
        let group = decode_group(&group.value).ok_or_else(missing)?;
        let open = |what, entry: &Entry| {
            sealer.open(&Context { group, what }, &entry.value).map_err(|NotOpened| Error::Domain)
        };
        let damaged =
            |_| Error::Damaged("wanted a manifest and credentials of this release, found others".into());
        let manifest = Manifest::decode(open(What::Manifest, manifest)?.as_slice()).map_err(damaged)?;
        let credentials =
            Credentials::decode(open(What::Credentials, credentials)?.as_slice()).map_err(damaged)?;
        let left = left.as_ref().map(|entry| {
            LeftGroups::read(&entry.value).ok_or_else(|| {
                Error::Damaged(
                    "wanted the list of groups that were left, found another; restore the store".into(),
                )
            })
        });
        Ok(Self {
            index: Index::new(),
            left: left.transpose()?.unwrap_or_default(),
            manifest,
            credentials,
            recovering: recovering.as_ref().is_some_and(|entry| entry.value == [1]),
            incarnation: store.incarnation()?,
            seq: store.seq()?.0,
            group,
            versions: entries.iter().flatten().map(|entry| (entry.key.clone(), entry.version)).collect(),
        })
    }

    fn load_records(
        &mut self,
        store: &dyn Store,
        sealer: &Sealer,
        hasher: &RecordHasher,
    ) -> Result<(), Error> {
        let (group, index) = (self.group, &mut self.index);
        loading::load(
            |after, count| store.page(after, count),
            |entry| unseal(&entry, group, sealer, hasher),
            |ouid, held| index.put(ouid, held),
        )?;
        let kept = store.digest(0, crate::digest_tree::BUCKETS - 1)?;
        match self.index.tree.buckets().iter().zip(&kept).position(|(here, there)| here != there) {
            None => Ok(()),
            Some(bucket) => Err(Error::Damaged(format!(
                "wanted the records of bucket {bucket} to have the digest kept with them, found another; the store was \
                 changed from outside: restore it or repair it from a peer"
            ))),
        }
    }

    /// The group that every seal here is bound to.
    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// Refuses what would pass the bounds of what may be stored: the records as they shall be.
    pub(crate) fn check_room(&self, records: &[Record], settings: &Settings) -> Result<(), Refusal> {
        let (mut objects, mut bytes) = self.index.stored();
        let (objects_before, bytes_before) = (objects, bytes);
        for record in records {
            bytes += record.encoded_len() as u64;
            match record.id().and_then(|ouid| self.index.get(&ouid)) {
                Some(held) => bytes -= held.record.encoded_len() as u64,
                None => objects += 1,
            }
        }
        if objects > objects_before && objects > settings.objects_max {
            let text = format!("wanted room for an object, found the {} there are", settings.objects_max);
            return Err(Refusal::rv(
                Rv::DEVICE_MEMORY,
                text + "; destroy some, or let the operator raise objects_max",
            ));
        }
        if bytes > bytes_before && bytes > settings.bytes_max {
            let text = format!("wanted room for {bytes} bytes of objects, found {}", settings.bytes_max);
            return Err(Refusal::rv(
                Rv::DEVICE_MEMORY,
                text + "; destroy some, or let the operator raise bytes_max",
            ));
        }
        Ok(())
    }

    fn version(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Record(ouid) => self.index.get(ouid).map(|held| held.version),
            Key::Manifest | Key::Credentials | Key::Meta(_) => self.versions.get(key).copied(),
        }
    }

    /// The transaction that carries out a change, and the digests of its records. Errs when the change names a record
    /// twice: the second difference would be to a state that is not stored yet.
    pub(crate) fn prepare(
        &self,
        change: &Change,
        sealer: &Sealer,
        hasher: &RecordHasher,
    ) -> Result<(Transaction, Vec<Digest>), StoreError> {
        let group = change.manifest.as_ref().map_or(self.group, group_of);
        let mut transaction = Transaction { incarnation: change.incarnation, ..Transaction::default() };
        let mut digests = Vec::with_capacity(change.records.len());
        for record in &change.records {
            let ouid = record.id().unwrap_or(Ouid([0; 16]));
            let digest = hasher.hash(record);
            let before = self.index.get(&ouid).map_or(Digest::ZERO, |held| held.digest);
            transaction.deltas.push(Delta { bucket: ouid.bucket(), difference: digest.minus(&before) });
            transaction.puts.push(Put {
                key: Key::Record(ouid),
                value: seal_record(sealer, group, record),
                state: record.state,
            });
            digests.push(digest);
        }
        for ouid in &change.forget {
            if let Some(held) = self.index.get(ouid) {
                let difference = Digest::ZERO.minus(&held.digest);
                transaction.deltas.push(Delta { bucket: ouid.bucket(), difference });
                transaction.removes.push(Key::Record(*ouid));
            }
        }
        let mut put = |key, value| transaction.puts.push(Put { key, value, state: 0 });
        if let Some(manifest) = &change.manifest {
            put(
                Key::Manifest,
                sealer.seal(&Context { group, what: What::Manifest }, &manifest.encode_to_vec()),
            );
            put(Key::Meta(META_GROUP.into()), encode_group(group));
        }
        if let Some(credentials) = &change.credentials {
            let plain = Zeroizing::new(credentials.encode_to_vec());
            put(Key::Credentials, sealer.seal(&Context { group, what: What::Credentials }, &plain));
        }
        if let Some(recovering) = change.recovering {
            put(Key::Meta(META_RECOVERING.into()), vec![u8::from(recovering)]);
        }
        if let Some(left) = &change.left {
            put(Key::Meta(META_LEFT.into()), left.encode());
        }
        if let Some(identity) = &change.identity {
            put(Key::Meta(META_IDENTITY.into()), identity.clone());
        }
        // What every decision reads beside what it writes: whose group the seals are of, and who is let in.
        let read = [Key::Manifest, Key::Credentials];
        let touched = transaction.puts.iter().map(|put| &put.key).chain(&transaction.removes);
        let others = read.iter().filter(|key| touched.clone().all(|touched| touched != *key));
        transaction.expect =
            touched.clone().chain(others).map(|key| (key.clone(), self.version(key))).collect();
        transaction.check_keys()?;
        Ok((transaction, digests))
    }

    /// Follows a transaction that the store has carried out as commit `seq`.
    pub(crate) fn follow(
        &mut self,
        change: Change,
        transaction: &Transaction,
        digests: Vec<Digest>,
        seq: u64,
    ) {
        self.seq = seq;
        for put in &transaction.puts {
            if !matches!(put.key, Key::Record(_)) {
                self.versions.insert(put.key.clone(), seq);
            }
        }
        for (record, digest) in change.records.into_iter().zip(digests) {
            let ouid = record.id().unwrap_or(Ouid([0; 16]));
            self.index.put(ouid, Held::new(record, seq, digest));
        }
        for ouid in &change.forget {
            self.index.take(ouid);
        }
        if let Some(manifest) = change.manifest {
            self.group = group_of(&manifest);
            self.manifest = manifest;
        }
        self.credentials = change.credentials.unwrap_or_else(|| std::mem::take(&mut self.credentials));
        self.recovering = change.recovering.unwrap_or(self.recovering);
        self.left = change.left.unwrap_or_else(|| std::mem::take(&mut self.left));
        self.incarnation = change.incarnation.unwrap_or(self.incarnation);
    }
}
