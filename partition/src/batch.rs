//! Batches: made by one member, stored with the same bytes on all, committed or discarded as one (HA 2.1, 2.2).
//!
//! ```text
//! Make -> sealed batch -> Store(provisional) -> Commit      minimum copies above one
//!                      '-> Store ----------------------> committed at once
//!                          Store(provisional) -> Discard -> tombstones, which a late Store meets
//! ```
use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use prost::Message;
use spec::messages::{Commit, Discard, Done, Outcome, Store};
use spec::planted::{self, Bug};
use spec::record::{Record, State};
use spec::{Ouid, Rv};
use zeroize::Zeroizing;

use crate::bounds;
use crate::contents::Change;
use crate::error::Refusal;
use crate::partition::{Caller, Partition};
use crate::roles::Access;
use crate::seal::{Context, Group, NotOpened, What};
use crate::session_objects::is_private;

/// What is inside a batch's seal.
#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Record>,
}

/// How long a provisional batch is kept untouched (HA 2.2), in milliseconds.
const PROVISIONAL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

fn unknown(ouid: Ouid) -> Refusal {
    Refusal::new(Outcome::UNKNOWN, "this member does not hold the batch; store the same bytes again")
        .about(ouid)
}

fn destroyed(ouid: Ouid) -> Refusal {
    Refusal::new(Outcome::DESTROYED, "the batch was discarded or its object destroyed, for ever").about(ouid)
}

/// Whether a batch has ended: every object of it is destroyed. One that is left is stored and committed all the same,
/// because the client counts this member's answer as an acknowledgement of it (HA 2.2).
#[derive(Default)]
struct End {
    alive: bool,
    destroyed: Option<Ouid>,
}

impl End {
    fn note(&mut self, ouid: Ouid, held: Option<State>) {
        match held {
            Some(State::Deleted) => self.destroyed = Some(ouid),
            None | Some(State::Provisional | State::Committed) => self.alive = true,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.destroyed {
            Some(ouid) if !self.alive => Err(destroyed(ouid)),
            _ => Ok(()),
        }
    }
}

/// The ouids of a request: bounded, of 16 bytes, each once.
fn ouids(bytes: &[Vec<u8>]) -> Result<Vec<Ouid>, Refusal> {
    bounds::at_most("objects in a batch", bytes.len(), bounds::BATCH_OBJECTS_MAX)?;
    if bytes.is_empty() {
        return Err(Refusal::malformed("wanted the ouids of a batch, found none"));
    }
    let ouids = bytes.iter().map(|bytes| bounds::ouid(bytes)).collect::<Result<Vec<_>, _>>()?;
    if ouids.iter().collect::<BTreeSet<_>>().len() < ouids.len() {
        return Err(Refusal::malformed("wanted each object of a batch once, found one twice"));
    }
    Ok(ouids)
}

impl Partition {
    /// Seals made records for this client's Store with this tag.
    pub(crate) fn seal_batch(
        &self,
        group: Group,
        caller: &Caller,
        tag: &[u8],
        records: Vec<Record>,
    ) -> Vec<u8> {
        let what = What::Batch { client: &caller.client, tag };
        let plain = Zeroizing::new(Batch { records }.encode_to_vec());
        self.sealer.seal(&Context { group, what }, &plain)
    }

    fn open_batch(&self, group: Group, caller: &Caller, store: &Store) -> Result<Vec<Record>, Refusal> {
        let what = What::Batch { client: &caller.client, tag: &store.tag };
        let plain = self.sealer.open(&Context { group, what }, &store.batch)?;
        let batch = Batch::decode(plain.as_slice()).map_err(|_| NotOpened)?;
        Ok(batch.records)
    }

    /// Stores all of a batch or none, durably: each object is joined with what is held, so that a tombstone of one
    /// takes nothing from the others (HA 1.2). A batch of which every object is destroyed is refused.
    pub(crate) fn store_batch(
        &self,
        access: &Access<'_>,
        store: &Store,
        now_ms: u64,
    ) -> Result<Done, Refusal> {
        bounds::tag(&store.tag)?;
        if planted::is(Bug::PairAsTwoRecords) {
            self.store_part(access, store, now_ms, |place| place == 0)?;
            return self.store_part(access, store, now_ms, |place| place > 0);
        }
        self.store_part(access, store, now_ms, |_| true)
    }

    /// One transaction: all objects of the batch, or in a planted bug those at some places.
    fn store_part(
        &self,
        access: &Access<'_>,
        store: &Store,
        now_ms: u64,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Done, Refusal> {
        self.write(|contents| {
            let mut records = Vec::new();
            let mut provisional = Vec::new();
            let mut end = End::default();
            let batch = self.open_batch(contents.group(), access.caller, store)?;
            for (_, mut record) in batch.into_iter().enumerate().filter(|(place, _)| wanted(*place)) {
                access.writer(is_private(&record))?;
                let ouid = bounds::ouid(&record.ouid)?;
                record.set_state(if store.provisional { State::Provisional } else { State::Committed });
                let held = contents.index.get(&ouid).map(|held| &held.record);
                end.note(ouid, held.map(Record::state));
                let joined = held.map_or_else(|| record.clone(), |held| held.join(&record));
                if joined.state() == State::Provisional {
                    provisional.push(ouid);
                }
                if held != Some(&joined) {
                    records.push(joined);
                }
            }
            end.check()?;
            contents.check_room(&records, &self.settings)?;
            // Also one that changes nothing: the client is still at it.
            self.touches.touch(provisional.into_iter(), now_ms);
            Ok((Change { records, ..Change::default() }, Done {}))
        })
    }

    /// Makes a stored batch visible, all of it or none; what of it was destroyed meanwhile stays so.
    pub(crate) fn commit_batch(&self, access: &Access<'_>, commit: &Commit) -> Result<Done, Refusal> {
        bounds::tag(&commit.tag)?;
        let ouids = ouids(&commit.ouids)?;
        if planted::is(Bug::PairAsTwoRecords) {
            return ouids.chunks(1).try_fold(Done {}, |_, ouid| self.commit_objects(access, ouid));
        }
        self.commit_objects(access, &ouids)
    }

    fn commit_objects(&self, access: &Access<'_>, ouids: &[Ouid]) -> Result<Done, Refusal> {
        let done = self.write(|contents| {
            let mut records = Vec::new();
            let mut end = End::default();
            for &ouid in ouids {
                let held = contents.index.get(&ouid).ok_or_else(|| unknown(ouid))?;
                end.note(ouid, Some(held.record.state()));
                if held.record.state() == State::Provisional {
                    access.writer(is_private(&held.record))?;
                    let mut record = held.record.clone();
                    record.set_state(State::Committed);
                    records.push(record);
                }
            }
            end.check()?;
            Ok((Change { records, ..Change::default() }, Done {}))
        })?;
        self.touches.forget(ouids);
        Ok(done)
    }

    /// Tombstones a batch of which no Commit was sent. One that is committed here says that a Commit was sent.
    pub(crate) fn discard_batch(&self, access: &Access<'_>, discard: &Discard) -> Result<Done, Refusal> {
        bounds::tag(&discard.tag)?;
        let ouids = ouids(&discard.ouids)?;
        self.write(|contents| {
            let mut records = Vec::new();
            for &ouid in &ouids {
                let held = contents.index.get(&ouid).ok_or_else(|| unknown(ouid))?;
                match held.record.state() {
                    State::Deleted => {}
                    State::Committed => {
                        let text =
                            "wanted a provisional batch, found it committed; destroy the object instead";
                        return Err(Refusal::rv(Rv::ACTION_PROHIBITED, text).about(ouid));
                    }
                    State::Provisional => {
                        access.writer(is_private(&held.record))?;
                        records.push(Record::tombstone(ouid));
                    }
                }
            }
            Ok((Change { records, ..Change::default() }, Done {}))
        })
    }

    /// Housekeeping of the store ([`crate::store::Store::tidy`]): what was destroyed leaves the medium. The appliance calls
    /// it often.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tidy_store(&self) -> Result<(), crate::Error> {
        Ok(self.store.tidy()?)
    }

    /// Forgets provisional batches that no Store has touched for more than 24 hours (HA 2.2) and answers how many records
    /// that were; `now_ms` is the clock of the requests. The appliance calls it now and then. What was stored before the
    /// partition was opened counts as touched when this is called first: a restart makes no batch older than it is.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_provisional(&self, now_ms: u64) -> Result<usize, crate::Error> {
        let forget = self.write(|contents| {
            let provisional =
                contents.index.all().filter(|(_, held)| held.record.state() == State::Provisional);
            let forget = self.touches.untouched(provisional.map(|(ouid, _)| *ouid), now_ms);
            let count = forget.len();
            Ok((Change { forget, ..Change::default() }, count))
        });
        forget.map_err(|refusal| crate::Error::Store(refusal.text))
    }
}

/// When each provisional record was stored last, by the member's clock in milliseconds. It is kept in memory only and is no
/// safety rule: a batch that is forgotten too early is stored again (HA 2.2).
#[derive(Default)]
pub(crate) struct Touches(Mutex<BTreeMap<Ouid, u64>>);

impl Touches {
    fn touch(&self, ouids: impl Iterator<Item = Ouid>, now_ms: u64) {
        self.0.lock().extend(ouids.map(|ouid| (ouid, now_ms)));
    }

    fn forget(&self, ouids: &[Ouid]) {
        let mut touched = self.0.lock();
        ouids.iter().for_each(|ouid| {
            touched.remove(ouid);
        });
    }

    /// Which of the provisional records were not touched for too long; what is no longer provisional is dropped.
    fn untouched(&self, provisional: impl Iterator<Item = Ouid>, now_ms: u64) -> Vec<Ouid> {
        let mut touched = self.0.lock();
        let before = std::mem::take(&mut *touched);
        // A clock that was ahead has made no batch younger than now.
        touched
            .extend(provisional.map(|ouid| (ouid, before.get(&ouid).map_or(now_ms, |at| (*at).min(now_ms)))));
        let old = touched.iter().filter(|(_, at)| at.saturating_add(PROVISIONAL_MS_MAX) < now_ms);
        old.map(|(ouid, _)| *ouid).collect()
    }
}
