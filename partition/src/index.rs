//! The index in memory of everything the member holds: records unsealed and parsed, in ouid order, found by class,
//! label and id; rebuilt when the partition opens.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use prost::Message;
use spec::flags::mechanism as bits;
use spec::record::{Ouid, Record, Stamp, State};
use spec::{AttributeType, KeyType, Rv, Template};

use crate::digest_tree::{Digest, DigestTree};
use crate::engine;
use crate::objects::{flag, key_type_of};
use crate::session_objects::is_private;

/// A record as the member holds it.
pub(crate) struct Held {
    pub(crate) record: Record,
    /// The store's version of it, for expectations.
    pub(crate) version: u64,
    /// Its part of its bucket.
    pub(crate) digest: Digest,
    /// The length of the record, encoded.
    bytes: u64,
    /// The parsed key, made at first use and kept while the core stays the same.
    key: Arc<OnceLock<Result<Arc<engine::Key>, Rv>>>,
    /// What uses ask of the record, worked out at the first.
    facts: OnceLock<Box<Facts>>,
}

/// What every use asks of a record.
pub(crate) struct Facts {
    /// The greatest stamp (RULES 1.1).
    pub(crate) version: Option<Stamp>,
    pub(crate) private: bool,
    /// None when it is no key.
    pub(crate) key_type: Option<KeyType>,
    /// The functions that its attributes permit, as bits of `spec::flags::mechanism`.
    pub(crate) functions: u64,
    pub(crate) always_authenticate: bool,
    /// Whether CKA_ALLOWED_MECHANISMS is there.
    pub(crate) limited: bool,
}

impl Facts {
    fn of(record: &Record) -> Self {
        let permitted = FUNCTIONS.iter().filter(|(attribute, _)| flag(record, *attribute));
        Self {
            version: record.version(),
            private: is_private(record),
            key_type: key_type_of(record),
            functions: permitted.fold(0, |all, (_, bit)| all | bit),
            always_authenticate: flag(record, AttributeType::ALWAYS_AUTHENTICATE),
            limited: record.get(AttributeType::ALLOWED_MECHANISMS).is_some(),
        }
    }
}

/// The functions of a key: its attributes and their bits in the rows of mechanisms.
const FUNCTIONS: [(AttributeType, u64); 4] = [
    (AttributeType::SIGN, bits::SIGN),
    (AttributeType::VERIFY, bits::VERIFY),
    (AttributeType::ENCRYPT, bits::ENCRYPT),
    (AttributeType::DECRYPT, bits::DECRYPT),
];

impl Held {
    pub(crate) fn new(record: Record, version: u64, digest: Digest) -> Self {
        let bytes = record.encoded_len() as u64;
        Self::of_length(record, bytes, version, digest)
    }

    /// The same for a record whose encoding is known to have so many bytes.
    pub(crate) fn of_length(record: Record, bytes: u64, version: u64, digest: Digest) -> Self {
        Self { record, version, digest, bytes, key: Arc::default(), facts: OnceLock::new() }
    }

    /// What uses ask of the record.
    pub(crate) fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| Box::new(Facts::of(&self.record)))
    }

    /// The parsed key.
    pub(crate) fn key(&self) -> Result<Arc<engine::Key>, Rv> {
        self.key.get_or_init(|| engine::Key::parse(&self.record).map(Arc::new)).clone()
    }
}

/// The attributes that have an index of their own.
const INDEXED: [AttributeType; 3] = [AttributeType::CLASS, AttributeType::LABEL, AttributeType::ID];

/// All records.
pub(crate) struct Index {
    records: BTreeMap<Ouid, Arc<Held>>,
    live: BTreeSet<Ouid>,
    deleted: BTreeSet<Ouid>,
    by_value: HashMap<(u64, Vec<u8>), BTreeSet<Ouid>>,
    quarantined: BTreeSet<Ouid>,
    /// Bytes of everything that is no tombstone.
    bytes: u64,
    pub(crate) tree: DigestTree,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            records: BTreeMap::new(),
            live: BTreeSet::new(),
            deleted: BTreeSet::new(),
            by_value: HashMap::new(),
            quarantined: BTreeSet::new(),
            bytes: 0,
            tree: DigestTree::new(),
        }
    }

    /// The record of an ouid, whatever its state.
    pub(crate) fn get(&self, ouid: &Ouid) -> Option<&Arc<Held>> {
        self.records.get(ouid)
    }

    /// Every record in ouid order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Ouid, &Arc<Held>)> {
        self.records.iter()
    }

    /// The records of one digest bucket.
    pub(crate) fn bucket(&self, bucket: u16) -> impl Iterator<Item = (&Ouid, &Arc<Held>)> {
        let mut first = [0; 16];
        first[..2].copy_from_slice(&(bucket << 4).to_be_bytes());
        let from = Ouid(first);
        self.records.range(from..).take_while(move |(ouid, _)| ouid.bucket() == bucket)
    }

    /// Live objects.
    pub(crate) fn live_count(&self) -> u64 {
        self.live.len() as u64
    }

    /// Records that are no tombstones, and their bytes.
    pub(crate) fn stored(&self) -> (u64, u64) {
        ((self.records.len() - self.deleted.len()) as u64, self.bytes)
    }

    /// Records in quarantine.
    pub(crate) fn quarantined_count(&self) -> u64 {
        self.quarantined.len() as u64
    }

    /// The records in quarantine, in ouid order.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.quarantined.iter().filter_map(|ouid| self.records.get(ouid))
    }

    /// Whether nothing but tombstones is held.
    pub(crate) fn is_empty_but_for_tombstones(&self) -> bool {
        self.records.len() == self.deleted.len()
    }

    /// Live records behind `after` in ouid order that may match: those of the smallest index that the template names.
    pub(crate) fn candidates<'a>(
        &'a self,
        template: &Template,
        after: Option<Ouid>,
    ) -> impl Iterator<Item = &'a Arc<Held>> + use<'a> {
        static NOTHING: BTreeSet<Ouid> = BTreeSet::new();
        let named = INDEXED.iter().filter_map(|kind| {
            let value = template.get(*kind)?;
            Some(self.by_value.get(&(kind.0, value.to_vec())).unwrap_or(&NOTHING))
        });
        let smallest = named.min_by_key(|set| set.len()).unwrap_or(&self.live);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        smallest.range((from, Bound::Unbounded)).filter_map(|ouid| self.records.get(ouid))
    }

    /// Tombstones behind `after` and up to `last`, at most `count`.
    pub(crate) fn tombstones(&self, after: Option<Ouid>, last: Option<Ouid>, count: usize) -> Vec<Ouid> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.map_or(Bound::Unbounded, Bound::Included);
        if last.is_some() && last <= after {
            return Vec::new();
        }
        self.deleted.range((from, to)).take(count).copied().collect()
    }

    /// Puts a record in the place of what was held of its ouid; the digest follows.
    pub(crate) fn put(&mut self, ouid: Ouid, mut held: Held) {
        let before = self.take(&ouid);
        if let Some(before) = before.filter(|before| before.record.core == held.record.core) {
            held.key = before.key.clone();
        }
        self.tree.add(ouid.bucket(), &held.digest);
        if held.record.quarantined {
            self.quarantined.insert(ouid);
        }
        if held.record.state() == State::Deleted {
            self.deleted.insert(ouid);
        } else {
            self.bytes += held.bytes;
        }
        if held.record.is_live() {
            self.live.insert(ouid);
            for entry in indexed(&held.record) {
                self.by_value.entry(entry).or_default().insert(ouid);
            }
        }
        self.records.insert(ouid, Arc::new(held));
    }

    /// Takes a record out; the digest follows.
    pub(crate) fn take(&mut self, ouid: &Ouid) -> Option<Arc<Held>> {
        let held = self.records.remove(ouid)?;
        self.tree.add(ouid.bucket(), &Digest::ZERO.minus(&held.digest));
        self.quarantined.remove(ouid);
        if !self.deleted.remove(ouid) {
            self.bytes -= held.bytes;
        }
        if self.live.remove(ouid) {
            for entry in indexed(&held.record) {
                if let Some(set) = self.by_value.get_mut(&entry) {
                    set.remove(ouid);
                    if set.is_empty() {
                        self.by_value.remove(&entry);
                    }
                }
            }
        }
        Some(held)
    }
}

fn indexed(record: &Record) -> impl Iterator<Item = (u64, Vec<u8>)> {
    INDEXED.iter().filter_map(|kind| Some((kind.0, record.get(*kind)?.to_vec())))
}

#[cfg(test)]
mod tests {
    use spec::{Attribute, ObjectClass};

    use super::*;

    fn held(label: &[u8], state: State) -> Held {
        let core = Template::from(vec![Attribute::ulong(AttributeType::CLASS, ObjectClass::DATA.0)]);
        let stamped = spec::record::Stamped {
            attribute: Some(Attribute::new(AttributeType::LABEL, label)),
            stamp: Some(spec::Stamp::default()),
        };
        let mut record = Record { core: Some(core), changeable: vec![stamped], ..Record::default() };
        record.set_state(state);
        Held::new(record, 1, Digest([label[0]; 32]))
    }

    fn search(index: &Index, label: &[u8]) -> usize {
        let template = Template::from(vec![
            Attribute::ulong(AttributeType::CLASS, ObjectClass::DATA.0),
            Attribute::new(AttributeType::LABEL, label),
        ]);
        index.candidates(&template, None).count()
    }

    #[test]
    fn changed_labels_move_and_provisional_records_are_not_found() {
        let mut index = Index::new();
        let ouid = Ouid([7; 16]);
        index.put(ouid, held(b"a", State::Provisional));
        assert_eq!((search(&index, b"a"), index.live_count()), (0, 0));
        index.put(ouid, held(b"a", State::Committed));
        assert_eq!((search(&index, b"a"), index.live_count()), (1, 1));
        index.put(ouid, held(b"bb", State::Committed));
        assert_eq!((search(&index, b"a"), search(&index, b"bb")), (0, 1));
        index.put(ouid, held(b"bb", State::Deleted));
        assert_eq!((search(&index, b"bb"), index.live_count()), (0, 0));
        assert_eq!(index.tombstones(None, None, 9), [ouid]);
        index.take(&ouid);
        assert_eq!(index.tombstones(None, None, 9), []);
        assert!(index.tree.buckets().iter().all(|bucket| *bucket == Digest::ZERO));
    }

    #[test]
    fn buckets_hold_the_records_of_their_prefix() {
        let mut index = Index::new();
        for first in [0x00, 0x10, 0x1F, 0xFF] {
            let mut ouid = [0; 16];
            (ouid[0], ouid[1]) = (first, 0x1F);
            index.put(Ouid(ouid), held(b"x", State::Committed));
        }
        assert_eq!(index.bucket(0x001).count(), 1);
        assert_eq!(index.bucket(0x101).count(), 1);
        assert_eq!(index.bucket(0xFF1).count(), 1);
        assert_eq!(index.bucket(0x100).count(), 0);
    }
}
