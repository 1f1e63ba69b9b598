//! What was changed of an object since it was made: the stamp of each attribute (HA 1.4). It names a state that was seen, so
//! that a later request can ask for one that lacks nothing of it (HA 3.1); the greatest stamp alone does not, since a member
//! may hold a later change of one attribute and lack an earlier one of another.
use prost::Message;

use crate::record::{Record, Stamp};

/// When one attribute was written.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AttributeStamp {
    /// `CKA_*`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its stamp.
    #[prost(message, optional, tag = "2")]
    pub stamp: Option<Stamp>,
}

/// The attributes that were written since the object was made, in ascending order of number, each once; none for most objects.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Changes {
    /// The attributes and their stamps.
    #[prost(message, repeated, tag = "1")]
    pub all: Vec<AttributeStamp>,
}

impl Changes {
    /// So many at most: more than any object has attributes that may change.
    pub const MAX: usize = 64;
    /// Bytes of so many, encoded: keys and lengths, a number of 64 bits, and a stamp of two such and one of 32 bits.
    pub const BYTES_MAX: usize = Self::MAX * (2 + 11 + 2 + 11 + 6 + 11);

    /// Those of a record; `None` when nothing was changed.
    pub fn of(record: &Record) -> Option<Self> {
        let later = record.changeable.iter().filter(|item| item.stamp > record.created);
        let all: Vec<AttributeStamp> = later
            .filter_map(|item| {
                let number = item.attribute.as_ref()?.number;
                Some(AttributeStamp { number, stamp: item.stamp })
            })
            .collect();
        (!all.is_empty()).then_some(Self { all })
    }

    /// Whether a record holds every one of these changes, or a later one of the same attribute.
    pub fn are_in(&self, record: &Record) -> bool {
        self.all.iter().all(|seen| {
            let is_it = |number: u64| number == seen.number;
            let held = record
                .changeable
                .iter()
                .find(|item| item.attribute.as_ref().is_some_and(|attribute| is_it(attribute.number)));
            held.is_some_and(|item| item.stamp >= seen.stamp)
        })
    }

    /// As an [`ObjectRef`](crate::messages::ObjectRef) carries them; empty for none.
    pub fn encoded(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Takes in others, the greater stamp of each attribute; whether that changed anything. Beyond [`Changes::MAX`] attributes,
    /// which no object has, nothing is taken in.
    pub fn join(&mut self, others: &Changes) -> bool {
        let mut has_changed = false;
        for other in &others.all {
            match self.all.binary_search_by_key(&other.number, |own| own.number) {
                Ok(at) => {
                    if let Some(own) = self.all.get_mut(at).filter(|own| own.stamp < other.stamp) {
                        own.stamp = other.stamp;
                        has_changed = true;
                    }
                }
                Err(at) if self.all.len() < Self::MAX => {
                    self.all.insert(at, *other);
                    has_changed = true;
                }
                Err(_) => {}
            }
        }
        has_changed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::classes::{Change, rows};
    use crate::numbers::{KeyType, ObjectClass};
    use crate::record::Stamped;
    use crate::value::Attribute;

    fn stamp(ms: u64) -> Option<Stamp> {
        Some(Stamp { ms, counter: 0, incarnation: 1 })
    }

    fn record(changeable: &[(u64, u64)]) -> Record {
        let stamped = |(number, ms): &(u64, u64)| Stamped {
            attribute: Some(Attribute { number: *number, value: vec![1] }),
            stamp: stamp(*ms),
        };
        Record {
            created: stamp(5),
            changeable: changeable.iter().map(stamped).collect(),
            ..Record::default()
        }
    }

    fn changes(all: &[(u64, u64)]) -> Changes {
        Changes {
            all: all
                .iter()
                .map(|(number, ms)| AttributeStamp { number: *number, stamp: stamp(*ms) })
                .collect(),
        }
    }

    #[test]
    fn what_was_not_changed_since_an_object_was_made_is_no_change() {
        assert_eq!(Changes::of(&record(&[(1, 5), (2, 5)])), None);
        assert_eq!(Changes::of(&record(&[(1, 5), (2, 9), (3, 7)])), Some(changes(&[(2, 9), (3, 7)])));
    }

    #[test]
    fn ha_3_1_a_later_change_of_one_attribute_does_not_stand_for_a_change_of_another() {
        let seen = Changes::of(&record(&[(1, 7), (2, 5)])).unwrap();
        let other = record(&[(1, 5), (2, 9)]);
        assert!(other.version() > stamp(7), "the greatest stamp alone says that nothing is missing");
        assert!(!seen.are_in(&other));
        assert!(seen.are_in(&record(&[(1, 7), (2, 5)])) && seen.are_in(&record(&[(1, 8), (2, 5)])));
        assert!(!seen.are_in(&record(&[(2, 9)])), "an attribute that is not there");
        assert!(Changes::default().are_in(&other));
    }

    #[test]
    fn a_join_keeps_the_order_and_the_greater_stamps_and_its_bound() {
        let mut all = changes(&[(2, 5), (4, 9)]);
        assert!(all.join(&changes(&[(1, 3), (2, 7), (4, 8)])));
        assert_eq!(all, changes(&[(1, 3), (2, 7), (4, 9)]));
        assert!(!all.clone().join(&changes(&[(1, 3), (4, 9)])));
        let many: Vec<(u64, u64)> = (10..10_000).map(|number| (number, 1)).collect();
        all.join(&changes(&many));
        assert_eq!(all.all.len(), Changes::MAX);
        assert!(all.all.is_sorted_by_key(|one| one.number));
    }

    #[test]
    fn the_changes_of_any_object_fit() {
        let key_types = || KeyType::ALL.iter().copied().map(Some).chain([None]);
        let all = ObjectClass::ALL.iter().flat_map(|class| key_types().filter_map(|key| rows(*class, key)));
        let changeable = all.map(|rows| rows.iter().filter(|row| row.change == Change::Always).count());
        assert!(changeable.max().unwrap() <= Changes::MAX);
        let greatest = AttributeStamp {
            number: u64::MAX,
            stamp: Some(Stamp { ms: u64::MAX, counter: u32::MAX, incarnation: u64::MAX }),
        };
        let full = Changes { all: vec![greatest; Changes::MAX] };
        assert!(full.encoded_len() <= Changes::BYTES_MAX);
    }
}
