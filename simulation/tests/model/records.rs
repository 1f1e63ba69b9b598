//! The records of the model: real ones, joined by the real join, each known by a small number.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prost::Message;
use spec::record::{RECORD_FORMAT, Record, Stamp, Stamped, State};
use spec::{Attribute, AttributeType as A, ObjectClass, Ouid, Template};

use crate::rules::Break;

/// A record by its number; two records are the same exactly when their numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u8);

/// The member holds nothing under this ouid.
pub(crate) const NOTHING: Id = Id(0);

/// Every record that the model has met.
pub(crate) struct Book {
    pages: Mutex<Pages>,
    broken: Option<Break>,
}

#[derive(Default)]
struct Pages {
    records: Vec<Record>,
    facts: Vec<Facts>,
    ids: HashMap<Vec<u8>, Id>,
    joins: HashMap<(Id, Id), Id>,
}

/// What the model asks of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) state: State,
    /// CKA_EXTRACTABLE is still true; false in a tombstone.
    pub(crate) extractable: bool,
    /// CKA_LABEL: 0 as made, 1 and 2 by the writers of changes.
    pub(crate) label: u8,
    pub(crate) label_stamp: Stamp,
    pub(crate) version: Stamp,
}

impl Book {
    pub(crate) fn new(broken: Option<Break>) -> Self {
        Self { pages: Mutex::new(Pages::default()), broken }
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a record.
    pub(crate) fn id(&self, record: &Record) -> Id {
        let mut pages = self.pages();
        let next = Id(u8::try_from(pages.records.len() + 1).expect("the model knows fewer than 256 records"));
        let id = *pages.ids.entry(record.encode_to_vec()).or_insert(next);
        if id == next {
            pages.records.push(record.clone());
            pages.facts.push(facts(record));
        }
        id
    }

    /// The record of a number; `None` for nothing.
    pub(crate) fn record(&self, id: Id) -> Option<Record> {
        let at = usize::from(id.0).checked_sub(1)?;
        self.pages().records.get(at).cloned()
    }

    pub(crate) fn facts(&self, id: Id) -> Option<Facts> {
        let at = usize::from(id.0).checked_sub(1)?;
        self.pages().facts.get(at).copied()
    }

    pub(crate) fn state(&self, id: Id) -> Option<State> {
        self.facts(id).map(|facts| facts.state)
    }

    /// The record that a Store brings for one of the batch's objects.
    pub(crate) fn provisional(&self, slot: usize) -> Id {
        self.id(&made(slot, State::Provisional))
    }

    pub(crate) fn tombstone(&self, slot: usize) -> Id {
        self.id(&Record::tombstone(ouid(slot)))
    }

    /// What Commit makes of a record.
    pub(crate) fn committed(&self, id: Id) -> Id {
        let Some(mut record) = self.record(id) else { return NOTHING };
        if record.state() == State::Provisional {
            record.set_state(State::Committed);
        }
        self.id(&record)
    }

    /// The join of `spec::record`, or what a deliberate break makes of it.
    pub(crate) fn join(&self, held: Id, incoming: Id) -> Id {
        if held == NOTHING {
            return incoming;
        }
        if let Some(joined) = self.pages().joins.get(&(held, incoming)) {
            return *joined;
        }
        let (Some(left), Some(right)) = (self.record(held), self.record(incoming)) else { return held };
        let joined = self.id(&broken_join(self.broken, &left, &right).unwrap_or_else(|| left.join(&right)));
        self.pages().joins.insert((held, incoming), joined);
        joined
    }

    /// The record with other attributes under a new stamp, as `partition` changes it (HA 1.4, 2.3): a resend leaves
    /// what has been stamped since `seen`.
    pub(crate) fn changed(
        &self,
        id: Id,
        writes: &[(A, u8)],
        incarnation: u64,
        seen: Option<Stamp>,
    ) -> Option<Id> {
        let mut record = self.record(id)?;
        let stamp = Stamp::next(0, record.version(), incarnation);
        for (kind, value) in writes {
            let item = record.changeable.iter_mut().find(|item| number(item) == kind.0)?;
            let same = item.attribute.as_ref().is_some_and(|attribute| attribute.value == [*value]);
            if *kind == A::EXTRACTABLE && *value == 1 && !same {
                return None;
            }
            let since = seen.is_some_and(|seen| item.stamp > Some(seen));
            let restamps = !same || self.broken == Some(Break::ExtractableByLastWriter);
            if restamps && !since {
                *item = stamped(*kind, *value, stamp);
            }
        }
        Some(self.id(&record))
    }
}

fn broken_join(broken: Option<Break>, held: &Record, incoming: &Record) -> Option<Record> {
    match broken? {
        Break::JoinReplaces => Some(incoming.clone()),
        Break::TombstoneByStamp if held.state() != incoming.state() => {
            let changed = |record: &Record| record.version() > Some(CREATED);
            [held, incoming].into_iter().find(|record| changed(record)).cloned()
        }
        Break::JoinMintsStamp if held != incoming && held.state() != State::Deleted => {
            let mut joined = held.join(incoming);
            let stamp = Stamp::next(0, joined.version(), 9);
            joined.changeable.iter_mut().for_each(|item| item.stamp = Some(stamp));
            // Bounded, so that the model stays finite: the property fails long before.
            (stamp.counter < 5).then_some(joined)
        }
        Break::ExtractableByLastWriter => {
            let mut joined = held.join(incoming);
            let last = [held, incoming].into_iter().max_by_key(|record| extractable(record)?.stamp)?;
            let place = joined.changeable.iter_mut().find(|item| number(item) == A::EXTRACTABLE.0)?;
            *place = extractable(last)?.clone();
            Some(joined)
        }
        _ => None,
    }
}

fn extractable(record: &Record) -> Option<&Stamped> {
    record.changeable.iter().find(|item| number(item) == A::EXTRACTABLE.0)
}

/// When the object was made.
pub(crate) const CREATED: Stamp = Stamp { ms: 0, counter: 0, incarnation: 1 };

fn ouid(slot: usize) -> Ouid {
    Ouid([u8::try_from(slot).expect("a batch has two objects"); 16])
}

fn number(item: &Stamped) -> u64 {
    item.attribute.as_ref().map_or(0, |attribute| attribute.number)
}

fn stamped(kind: A, value: u8, stamp: Stamp) -> Stamped {
    Stamped { attribute: Some(Attribute::new(kind, vec![value])), stamp: Some(stamp) }
}

fn made(slot: usize, state: State) -> Record {
    Record {
        format: RECORD_FORMAT,
        ouid: ouid(slot).0.to_vec(),
        state: state as i32,
        core: Some(Template::from(vec![Attribute::ulong(A::CLASS, ObjectClass::SECRET_KEY.0)])),
        created: Some(CREATED),
        maker: 1,
        changeable: vec![stamped(A::LABEL, 0, CREATED), stamped(A::EXTRACTABLE, 1, CREATED)],
        floor: 0,
        quarantined: false,
        aside: Vec::new(),
    }
}

fn facts(record: &Record) -> Facts {
    let value = |kind| record.get(kind).and_then(|value| value.first().copied()).unwrap_or(0);
    let label = record.changeable.iter().find(|item| number(item) == A::LABEL.0);
    Facts {
        state: record.state(),
        extractable: value(A::EXTRACTABLE) == 1,
        label: value(A::LABEL),
        label_stamp: label.and_then(|item| item.stamp).unwrap_or_default(),
        version: record.version().unwrap_or_default(),
    }
}
