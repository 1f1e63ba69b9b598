//! Records (HA 1): an immutable core and a map of changeable attributes with a stamp each; the lattice
//! `provisional < committed < deleted` and its join; the manifest of a group.
//!
//! ```text
//! provisional --Commit--> committed --Destroy--> deleted (for ever)
//!      '-------------------Discard------------------^
//! ```
use std::cmp::Ordering;
use std::fmt;

use zeroize::Zeroizing;

use crate::attributes::{self, Join};
use crate::numbers::{AttributeType, ObjectClass};
use crate::planted::{self, Bug};
use crate::value::{Attribute, Template, as_ulong};

/// The format of records written by this release.
pub const RECORD_FORMAT: u32 = 1;
/// So many cores of one ouid are kept at most, the least by bytes (HA 1.7): no sequence of messages lets a record grow
/// beyond measure.
pub const CORES_MAX: usize = 8;

/// The unique id of an object for ever: 16 random bytes chosen by its maker (HA 1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ouid(pub [u8; 16]);

impl Ouid {
    /// Reads 16 bytes; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The digest bucket: the first 12 bits, 0..4096 (HA 1.6).
    pub fn bucket(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]]) >> 4
    }

    /// Lower-case hexadecimal: `CKA_UNIQUE_ID` (RULES 2.3).
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Ouid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// When and by whom an attribute was written; compared only within one object (HA 1.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Stamp {
    /// The writer's clock, milliseconds since 1970, or more.
    #[prost(uint64, tag = "1")]
    pub ms: u64,
    /// Breaks ties of one writer within a millisecond.
    #[prost(uint32, tag = "2")]
    pub counter: u32,
    /// The incarnation of the writer's store.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
}

impl Stamp {
    /// The next stamp: max of the own clock and the greatest stamp in the object, and one more (HA 1.4).
    pub fn next(now_ms: u64, greatest: Option<Stamp>, incarnation: u64) -> Stamp {
        match greatest {
            Some(seen) if seen.ms >= now_ms => match seen.counter.checked_add(1) {
                Some(counter) => Stamp { ms: seen.ms, counter, incarnation },
                None => Stamp { ms: seen.ms.saturating_add(1), counter: 0, incarnation },
            },
            _ => Stamp { ms: now_ms, counter: 0, incarnation },
        }
    }
}

/// Where a record stands in the lattice (HA 1.2); the greater state wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Stored, invisible and unusable until committed.
    Provisional = 0,
    /// Live.
    Committed = 1,
    /// A tombstone: terminal.
    Deleted = 2,
}

/// One changeable attribute.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Stamped {
    /// The attribute.
    #[prost(message, optional, tag = "1")]
    pub attribute: Option<Attribute>,
    /// When it was written.
    #[prost(message, optional, tag = "2")]
    pub stamp: Option<Stamp>,
}

impl fmt::Debug for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.attribute, self.stamp)
    }
}

/// An immutable core that was found under the ouid of another, kept aside for an operator (HA 1.7).
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Core {
    /// The immutable attributes, key material included.
    #[prost(message, optional, tag = "1")]
    pub core: Option<Template>,
    /// When it was made.
    #[prost(message, optional, tag = "2")]
    pub created: Option<Stamp>,
    /// The serial number of the partition that made it.
    #[prost(uint64, tag = "3")]
    pub maker: u64,
}

impl Core {
    /// The object's class; the vendor-defined number of all ones when the core names none.
    pub fn class(&self) -> ObjectClass {
        class_of(self.core.as_ref())
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a core made by {} at {:?}", self.maker, self.created)
    }
}

/// A stored, versioned object (HA 1.1). Both attribute lists are in ascending order of number.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Record {
    /// The format of this record.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub ouid: Vec<u8>,
    /// A [`State`].
    #[prost(enumeration = "State", tag = "3")]
    pub state: i32,
    /// The immutable core, key material included; empty in a tombstone.
    #[prost(message, optional, tag = "4")]
    pub core: Option<Template>,
    /// When it was made.
    #[prost(message, optional, tag = "5")]
    pub created: Option<Stamp>,
    /// The serial number of the partition that made it.
    #[prost(uint64, tag = "6")]
    pub maker: u64,
    /// The changeable attributes; empty in a tombstone.
    #[prost(message, repeated, tag = "7")]
    pub changeable: Vec<Stamped>,
    /// Reserved for the purge of tombstones (HA 1.8); carried and joined by maximum.
    #[prost(uint64, tag = "8")]
    pub floor: u64,
    /// Whether another core of the same ouid was seen (HA 1.7): unusable until an operator decides.
    #[prost(bool, tag = "9")]
    pub quarantined: bool,
    /// The other cores of a record in quarantine, in ascending order of their bytes; all are greater than `core`.
    #[prost(message, repeated, tag = "10")]
    pub aside: Vec<Core>,
}

impl Record {
    /// The ouid; `None` when the record does not hold 16 bytes of it.
    pub fn id(&self) -> Option<Ouid> {
        Ouid::from_bytes(&self.ouid)
    }

    /// Whether the object can be seen and used.
    pub fn is_live(&self) -> bool {
        self.state() == State::Committed && !self.quarantined
    }

    /// The greatest stamp of the record: its version (RULES 1.1).
    pub fn version(&self) -> Option<Stamp> {
        self.changeable.iter().filter_map(|item| item.stamp).chain(self.created).max()
    }

    /// The canonical value of an attribute, core or changeable.
    pub fn get(&self, kind: AttributeType) -> Option<&[u8]> {
        self.core.as_ref().and_then(|core| core.get(kind)).or_else(|| {
            self.changeable
                .iter()
                .filter_map(|item| item.attribute.as_ref())
                .find(|attribute| attribute.number == kind.0)
                .map(|attribute| attribute.value.as_slice())
        })
    }

    /// The object's class; the vendor-defined number of all ones when the record names none.
    pub fn class(&self) -> ObjectClass {
        class_of(self.core.as_ref())
    }

    /// The tombstone of an object: nothing but its ouid (HA 1.2).
    pub fn tombstone(ouid: Ouid) -> Record {
        Record {
            format: RECORD_FORMAT,
            ouid: ouid.0.to_vec(),
            state: State::Deleted as i32,
            core: None,
            created: None,
            maker: 0,
            changeable: Vec::new(),
            floor: 0,
            quarantined: false,
            aside: Vec::new(),
        }
    }

    /// Its cores: one, or all that were found under its ouid when it is in quarantine (HA 1.7).
    pub fn cores(&self) -> impl Iterator<Item = Core> {
        let own = Core { core: self.core.clone(), created: self.created, maker: self.maker };
        std::iter::once(own).chain(self.aside.iter().cloned())
    }

    /// The least upper bound of two states of one ouid (HA 1.2, 1.3): associative, commutative, idempotent; never
    /// mints a stamp. Different cores set `quarantined`, and all are kept: the least by bytes in its place, the others
    /// aside (HA 1.7).
    ///
    /// ```text
    /// deleted | anything         = deleted
    /// committed | provisional    = committed, with the attributes of both
    /// ```
    pub fn join(&self, other: &Record) -> Record {
        let floor = self.floor.max(other.floor);
        if self.state() == State::Deleted || other.state() == State::Deleted {
            let changed = |record: &&Record| record.is_live() && record.version() > record.created;
            if planted::is(Bug::TombstoneByStamp)
                && let Some(live) = [self, other].into_iter().find(changed)
            {
                return live.clone();
            }
            let mut tombstone = Record::tombstone(Ouid::from_bytes(&self.ouid).unwrap_or(Ouid([0; 16])));
            tombstone.floor = floor;
            return tombstone;
        }
        let same_core = self.core == other.core && self.created == other.created && self.maker == other.maker;
        let is_plain = same_core && self.aside.is_empty() && other.aside.is_empty();
        let (base, aside) = if is_plain { (None, Vec::new()) } else { join_cores(self, other) };
        let base = base.unwrap_or_else(|| Core {
            core: self.core.clone(),
            created: self.created,
            maker: self.maker,
        });
        let class = base.class();
        let mut changeable = join_changeable(class, &self.changeable, &other.changeable);
        if planted::is(Bug::JoinMintsStamp) && self != other {
            let stamp = self.version().max(other.version()).map(|seen| Stamp::next(0, Some(seen), 7));
            changeable.iter_mut().for_each(|item| item.stamp = stamp);
        }
        Record {
            format: self.format.max(other.format),
            ouid: self.ouid.clone(),
            state: self.state.max(other.state),
            core: base.core,
            created: base.created,
            maker: base.maker,
            changeable,
            floor,
            quarantined: self.quarantined || other.quarantined || !same_core,
            aside,
        }
    }
}

/// The union of the cores of two records, the least first.
fn join_cores(left: &Record, right: &Record) -> (Option<Core>, Vec<Core>) {
    let keyed = |core: Core| (Zeroizing::new(prost::Message::encode_to_vec(&core)), core);
    let mut all: Vec<_> = left.cores().chain(right.cores()).map(keyed).collect();
    all.sort_by(|(left, _), (right, _)| left.as_slice().cmp(right.as_slice()));
    all.dedup_by(|(left, _), (right, _)| left == right);
    let mut all = all.into_iter().map(|(_, core)| core).take(CORES_MAX);
    (all.next(), all.collect())
}

fn class_of(core: Option<&Template>) -> ObjectClass {
    ObjectClass(core.and_then(|core| core.get(AttributeType::CLASS)).and_then(as_ulong).unwrap_or(u64::MAX))
}

/// Joins two ascending lists attribute by attribute.
fn join_changeable(class: ObjectClass, left: &[Stamped], right: &[Stamped]) -> Vec<Stamped> {
    let number = |item: &Stamped| item.attribute.as_ref().map_or(0, |attribute| attribute.number);
    let mut joined: Vec<Stamped> = Vec::with_capacity(left.len().max(right.len()));
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => return joined,
            (Some(_), None) => left.next().cloned(),
            (None, Some(_)) => right.next().cloned(),
            (Some(a), Some(b)) => match number(a).cmp(&number(b)) {
                Ordering::Less => left.next().cloned(),
                Ordering::Greater => right.next().cloned(),
                Ordering::Equal => {
                    let both = join_attribute(class, a, b);
                    left.next();
                    right.next();
                    Some(both)
                }
            },
        };
        joined.extend(next);
    }
}

/// Joins two writes of one attribute by its row (HA 1.3). Equal stamps with different values are decided by the
/// value, so that the result does not depend on the order; the stamp of a one-way result is the greater one.
fn join_attribute(class: ObjectClass, a: &Stamped, b: &Stamped) -> Stamped {
    let (Some(left), Some(right)) = (&a.attribute, &b.attribute) else {
        return if a.attribute.is_some() { a.clone() } else { b.clone() };
    };
    let stamp = a.stamp.max(b.stamp);
    let one_way = |wins: u8| {
        let value =
            if left.value == [wins] || right.value == [wins] { vec![wins] } else { left.value.clone() };
        Stamped { attribute: Some(Attribute { number: left.number, value }), stamp }
    };
    match attributes::join_of(class, left.kind()) {
        Join::TrueWins => one_way(1),
        Join::FalseWins if !planted::is(Bug::ExtractableByLastWriter) => one_way(0),
        Join::FalseWins | Join::HomeOnly | Join::GreaterStamp | Join::Core => {
            let a_key = (a.stamp, &left.value);
            let b_key = (b.stamp, &right.value);
            if a_key >= b_key { a.clone() } else { b.clone() }
        }
    }
}

/// The role of a member in its group (HA 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MemberRole {
    /// Serves.
    Active = 0,
    /// Serves when no active member lives.
    Standby = 1,
    /// Takes writes, is given no new work.
    Draining = 2,
}

/// One member in the manifest.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ManifestMember {
    /// The partition's serial number.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// A [`MemberRole`].
    #[prost(enumeration = "MemberRole", tag = "2")]
    pub role: i32,
    /// Its share of the load relative to the others; 100 is usual.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
}

/// Who belongs to a group: a record of the domain, changed at the home only (HA 2.6).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Manifest {
    /// The group's id, 16 bytes; bound into every seal.
    #[prost(bytes = "vec", tag = "1")]
    pub group: Vec<u8>,
    /// The serial number that applications see; 0 while the partition is a group of one without a name.
    #[prost(uint64, tag = "2")]
    pub serial: u64,
    /// The group's label: the token label.
    #[prost(string, tag = "3")]
    pub label: String,
    /// Counts the changes.
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    /// The group generation (RULES 2.9).
    #[prost(uint64, tag = "5")]
    pub generation: u64,
    /// The members.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<ManifestMember>,
    /// The serial number of the home member.
    #[prost(uint64, tag = "7")]
    pub home: u64,
    /// The tag of the change that made this epoch (HA 2.7).
    #[prost(bytes = "vec", tag = "8")]
    pub tag: Vec<u8>,
    /// The version of the credentials when this epoch was made: who adopts the manifest takes no older ones (HA 2.7).
    #[prost(uint64, tag = "9")]
    pub credential_epoch: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::attributes::ROWS;

    fn stamp(ms: u64) -> Stamp {
        Stamp { ms, counter: 0, incarnation: 7 }
    }

    fn record(state: State, changeable: Vec<(AttributeType, u8, u64)>) -> Record {
        Record {
            format: RECORD_FORMAT,
            ouid: vec![1; 16],
            state: state as i32,
            core: Some(Template::from(vec![Attribute::ulong(AttributeType::CLASS, 4)])),
            created: Some(stamp(1)),
            maker: 5,
            changeable: changeable
                .into_iter()
                .map(|(kind, value, ms)| Stamped {
                    attribute: Some(Attribute::new(kind, vec![value])),
                    stamp: Some(stamp(ms)),
                })
                .collect(),
            floor: 0,
            quarantined: false,
            aside: Vec::new(),
        }
    }

    /// Every state, every pair of values and stamps of every changeable attribute.
    fn samples(kind: AttributeType) -> Vec<Record> {
        let mut all = vec![Record::tombstone(Ouid([1; 16]))];
        for state in [State::Provisional, State::Committed] {
            for value in [0, 1] {
                for ms in [2, 3] {
                    all.push(record(state, vec![(kind, value, ms)]));
                }
            }
        }
        all
    }

    #[test]
    fn ha_1_2_join_is_associative_commutative_and_idempotent() {
        for row in ROWS.iter().filter(|row| row.join != Join::Core) {
            let samples = samples(row.attribute);
            for a in &samples {
                assert_eq!(&a.join(a), a);
                for b in &samples {
                    assert_eq!(a.join(b), b.join(a));
                    for c in &samples {
                        assert_eq!(a.join(b).join(c), a.join(&b.join(c)));
                    }
                }
            }
        }
    }

    #[test]
    fn ha_1_2_deleted_beats_every_live_state_whatever_the_stamps() {
        let live = record(State::Committed, vec![(AttributeType::LABEL, 1, u64::MAX)]);
        let joined = live.join(&Record::tombstone(Ouid([1; 16])));
        assert_eq!(joined.state(), State::Deleted);
        assert!(joined.core.is_none() && joined.changeable.is_empty());
    }

    #[test]
    fn ha_1_3_a_join_is_never_weaker_than_either_side() {
        for row in ROWS {
            let strong = match row.join {
                Join::TrueWins => 1,
                Join::FalseWins => 0,
                Join::Core | Join::HomeOnly | Join::GreaterStamp => continue,
            };
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for (at, bt) in [(2, 3), (3, 2), (2, 2)] {
                    let left = record(State::Committed, vec![(row.attribute, a, at)]);
                    let right = record(State::Committed, vec![(row.attribute, b, bt)]);
                    let joined = left.join(&right);
                    let expected = if a == strong || b == strong { strong } else { a };
                    assert_eq!(joined.get(row.attribute), Some([expected].as_slice()), "{:?}", row.attribute);
                }
            }
        }
    }

    #[test]
    fn ha_1_4_a_new_stamp_is_greater_than_all_in_the_object_even_when_the_clock_stands_still() {
        let seen = Stamp { ms: 50, counter: u32::MAX, incarnation: 9 };
        assert!(Stamp::next(10, Some(seen), 1) > seen);
        assert!(Stamp::next(50, Some(stamp(50)), 1) > stamp(50));
        assert_eq!(Stamp::next(60, Some(seen), 1), Stamp { ms: 60, counter: 0, incarnation: 1 });
    }

    #[test]
    fn ha_1_7_two_cores_of_one_ouid_are_quarantined_from_either_side() {
        let left = record(State::Committed, vec![]);
        let mut right = left.clone();
        right.core = Some(Template::from(vec![Attribute::ulong(AttributeType::CLASS, 3)]));
        assert!(left.join(&right).quarantined);
        assert_eq!(left.join(&right), right.join(&left));
        assert!(!left.join(&right).is_live());
    }

    #[test]
    fn ha_1_7_every_core_of_one_ouid_is_kept_whatever_the_order_up_to_a_bound() {
        let made = |class: u64| {
            let mut record = record(State::Committed, vec![]);
            record.core = Some(Template::from(vec![Attribute::ulong(AttributeType::CLASS, class)]));
            record
        };
        let one = made(3);
        assert_eq!(one.join(&one).aside, []);
        let joined = one.join(&made(4)).join(&made(5));
        assert_eq!(joined, made(5).join(&made(4).join(&one)));
        assert_eq!(joined.join(&one), joined);
        assert_eq!(joined.join(&joined), joined);
        let classes: Vec<_> = joined.cores().map(|core| core.class().0).collect();
        assert_eq!(classes, [3, 4, 5]);
        let many =
            (0..2 * CORES_MAX as u64).rev().fold(one.clone(), |joined, class| joined.join(&made(class)));
        assert_eq!(many.cores().count(), CORES_MAX);
        assert_eq!(many, (0..2 * CORES_MAX as u64).fold(one, |joined, class| joined.join(&made(class))));
        assert_eq!(joined.join(&Record::tombstone(Ouid([1; 16]))), Record::tombstone(Ouid([1; 16])));
    }

    #[test]
    fn buckets_are_the_first_twelve_bits() {
        let mut bytes = [0; 16];
        bytes[0] = 0xab;
        bytes[1] = 0xcd;
        assert_eq!(Ouid(bytes).bucket(), 0xabc);
        assert_eq!(Ouid::from_bytes(&[0; 15]), None);
    }
}
