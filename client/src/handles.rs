//! Object handles: one for each ouid, valid in every session for the life of the process (RULES 2.3).
//!
//! ```text
//! made or found -> issued --- destroyed, or known to be gone -----------> ended
//!                    |------- logout, if private (next find: a new one) --> ended
//!                    '------- its session closes, if a session object ----> ended
//! ```
//! The slab of handles survives a fork; the index by ouid stands in the `World` and is rebuilt from the slab.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use digests::{Hash, digest};
use spec::changes::Changes;
use spec::messages::{EncodedStamp, MadeObject, ObjectRef};
use spec::platform::Lock;
use spec::{AttributeType, HandleObject, Ouid, Rv, SlotId, Stamp, Template};

use crate::error::{Error, Result};
use crate::plans::Plans;
use crate::slab::{Entry, Slab};

/// Where an object lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// On the members.
    Token,
    /// In a sealed blob here; it belongs to the session with this handle (RULES 2.2).
    Session(u64),
}

/// What changes in an object's life, published at once.
pub(crate) struct State {
    /// The greatest stamp seen of it.
    pub(crate) version: Option<Stamp>,
    /// The same as uses carry it.
    version_encoded: Option<EncodedStamp>,
    /// What was seen changed of it (HA 3.1); nothing of session objects.
    seen: Changes,
    /// The same as requests carry it: empty for nothing.
    seen_encoded: Vec<u8>,
    /// Whether no member in reach had all of that when the key was used: uses do not ask for it any more, until a member has
    /// shown it again or something else was seen.
    is_given_up: bool,
    /// The sealed blob of a session object; empty for token objects.
    pub(crate) blob: Vec<u8>,
    /// SHA-256 of the blob; empty for token objects.
    blob_hash: Vec<u8>,
    /// The readable attributes of a session object; none for token objects.
    pub(crate) readable: Template,
}

impl State {
    /// SHA-256 of the blob; empty for token objects.
    pub(crate) fn blob_hash(&self) -> &[u8] {
        &self.blob_hash
    }

    fn of_token(version: Option<Stamp>, seen: Changes) -> Self {
        let seen_encoded = seen.encoded();
        Self {
            version,
            version_encoded: version.map(EncodedStamp::from),
            seen,
            seen_encoded,
            is_given_up: false,
            blob: Vec::new(),
            blob_hash: Vec::new(),
            readable: Template::default(),
        }
    }

    fn of_session(version: Option<Stamp>, blob: Vec<u8>, readable: Template) -> Self {
        Self { blob_hash: hash_of(&blob), blob, readable, ..Self::of_token(version, Changes::default()) }
    }

    /// What a member that uses the key must have: the least stamp and the changes, encoded (HA 3.1).
    pub(crate) fn wanted_of_a_use(&self) -> (Option<&EncodedStamp>, &[u8]) {
        match self.is_given_up || !self.blob.is_empty() {
            true => (None, &[]),
            false => (self.version_encoded.as_ref(), &self.seen_encoded),
        }
    }

    /// The version of which a plan is named: none while nobody in reach has the one that was seen.
    pub(crate) fn planned_version(&self) -> Option<Stamp> {
        self.version.filter(|_| !self.is_given_up)
    }

    /// This state and what a member has shown; `None` when that is nothing new.
    fn with(&self, version: Option<Stamp>, changed: Option<&Changes>) -> Option<Self> {
        let mut seen = self.seen.clone();
        let is_new = changed.is_some_and(|changed| seen.join(changed)) || version > self.version;
        let has_all =
            || version >= self.version && changed.map_or(&[][..], |changed| &changed.all) == seen.all;
        let is_found_again = self.is_given_up && has_all();
        (is_new || is_found_again).then(|| Self::of_token(version.max(self.version), seen))
    }
}

/// An object that a handle names.
pub(crate) struct Object {
    pub(crate) slot: SlotId,
    pub(crate) ouid: Ouid,
    pub(crate) private: bool,
    pub(crate) home: Home,
    /// What is remembered of its plans.
    pub(crate) plans: Plans,
    state: ArcSwap<State>,
}

/// A handle and its object.
pub(crate) type Handled = Arc<Entry<Object>>;

impl Object {
    /// The present state.
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// The object as a request names it that wants this state of it, with the blob when a member has asked for it.
    pub(crate) fn reference(&self, state: &State, with_blob: bool) -> ObjectRef {
        ObjectRef {
            ouid: self.ouid.0.to_vec(),
            least: if self.home == Home::Token { state.version } else { None },
            blob_hash: state.blob_hash.clone(),
            blob: if with_blob { state.blob.clone() } else { Vec::new() },
            changed: state.seen_encoded.clone(),
        }
    }

    /// The key as a request to plan its use names it.
    pub(crate) fn reference_to_use(&self, state: &State, with_blob: bool) -> ObjectRef {
        let (least, changed) = state.wanted_of_a_use();
        let least = least.and(state.version);
        ObjectRef { least, changed: changed.to_vec(), ..self.reference(state, with_blob) }
    }

    /// No member in reach has this state: the key is used as it is where it is used, as long as nothing else is seen.
    pub(crate) fn give_up(&self, state: &Arc<State>) {
        tracing::warn!(ouid = ?self.ouid, "no member in reach has the state of a key that was seen: it is used in an older one");
        if self.home == Home::Token {
            let given_up = State { is_given_up: true, ..State::of_token(state.version, state.seen.clone()) };
            self.state.compare_and_swap(state, Arc::new(given_up));
            self.plans.forget();
        }
    }

    /// Forgets that this state of a token object was seen: the only member that is left has an older one.
    pub(crate) fn forget(&self, state: &Arc<State>) {
        tracing::warn!(ouid = ?self.ouid, "the only member in reach has an older state of an object than was seen");
        if self.home == Home::Token {
            self.state.compare_and_swap(state, Arc::new(State::of_token(None, Changes::default())));
        }
    }

    /// Takes note of a state of a token object that a member has shown: the greatest version stays, and the greatest stamp of
    /// each attribute (HA 3.1).
    pub(crate) fn learn(&self, version: Option<Stamp>, changed: Option<&Changes>) {
        if self.home == Home::Token && self.state.load().with(version, changed).is_some() {
            self.state.rcu(|state| state.with(version, changed).map_or_else(|| state.clone(), Arc::new));
        }
    }

    /// Publishes the changed blob of a session object.
    pub(crate) fn replace(&self, version: Option<Stamp>, blob: Vec<u8>, readable: Template) {
        self.state.store(Arc::new(State::of_session(version, blob, readable)));
    }

    /// Whether a session object matches every attribute of a template; what cannot be read matches nothing.
    pub(crate) fn matches(&self, template: &Template) -> bool {
        let state = self.state.load();
        template
            .attributes
            .iter()
            .all(|wanted| state.readable.get(wanted.kind()) == Some(wanted.value.as_slice()))
    }

    /// A readable truth value of a session object.
    pub(crate) fn readable_bool(&self, kind: AttributeType) -> Option<bool> {
        self.state.load().readable.bool(kind)
    }
}

fn hash_of(blob: &[u8]) -> Vec<u8> {
    if blob.is_empty() { Vec::new() } else { digest(Hash::Sha256, blob).to_vec() }
}

/// The keys of token objects by slot and ouid; part of the `World`.
#[derive(Default)]
pub(crate) struct Index(Lock<HashMap<(SlotId, Ouid), u64>>);

/// Every handle of the process.
#[derive(Default)]
pub(crate) struct Handles {
    slab: Slab<Object>,
}

impl Handles {
    /// The index of what is in the slab now.
    pub(crate) fn index(&self) -> Index {
        let tokens = self.slab.iter().filter(|entry| entry.home == Home::Token);
        Index(Lock::new(tokens.map(|entry| ((entry.slot, entry.ouid), entry.key)).collect()))
    }

    /// The handle of a token object: the one it has, or a new one.
    ///
    /// # Errors
    /// CKR_HOST_MEMORY when the slab is full.
    pub(crate) fn issue(
        &self,
        index: &Index,
        slot: SlotId,
        ouid: Ouid,
        private: bool,
        (version, changed): (Option<Stamp>, Option<&Changes>),
    ) -> Result<Handled> {
        let mut keys = index.0.lock();
        if let Some(entry) = keys.get(&(slot, ouid)).and_then(|key| self.slab.look_up(*key)) {
            entry.learn(version, changed);
            return Ok(entry);
        }
        let mut seen = Changes::default();
        if let Some(changed) = changed {
            seen.join(changed);
        }
        let state = State::of_token(version, seen);
        let entry = self.insert(Object {
            slot,
            ouid,
            private,
            home: Home::Token,
            plans: Plans::default(),
            state: ArcSwap::from_pointee(state),
        })?;
        keys.insert((slot, ouid), entry.key);
        Ok(entry)
    }

    /// The handle of a session object that a member has just made for a session.
    ///
    /// # Errors
    /// CKR_DEVICE_ERROR for an ouid that is none, CKR_HOST_MEMORY when the slab is full.
    pub(crate) fn issue_session(&self, slot: SlotId, owner: u64, made: &MadeObject) -> Result<Handled> {
        let readable = made.readable.clone().unwrap_or_default();
        let state = State::of_session(made.version, made.blob.clone(), readable);
        self.insert(Object {
            slot,
            ouid: ouid_of(&made.ouid)?,
            private: made.private,
            home: Home::Session(owner),
            plans: Plans::default(),
            state: ArcSwap::from_pointee(state),
        })
    }

    fn insert(&self, object: Object) -> Result<Handled> {
        self.slab.insert(|_| object).ok_or(Error::Rv(Rv::HOST_MEMORY))
    }

    /// The object of a handle in one slot.
    pub(crate) fn look_up(&self, slot: SlotId, handle: HandleObject) -> Option<Handled> {
        self.slab.look_up(handle.0).filter(|entry| entry.slot == slot)
    }

    /// Forgets the plans of all objects.
    pub(crate) fn forget_plans(&self) {
        self.slab.iter().for_each(|entry| entry.plans.forget());
    }

    /// Ends one handle.
    pub(crate) fn end(&self, index: &Index, entry: &Entry<Object>) -> bool {
        if entry.home == Home::Token {
            let mut keys = index.0.lock();
            if keys.get(&(entry.slot, entry.ouid)) == Some(&entry.key) {
                keys.remove(&(entry.slot, entry.ouid));
            }
        }
        self.slab.remove(entry.key).is_some()
    }

    /// Ends every handle that the choice picks.
    pub(crate) fn end_where(&self, index: &Index, choice: impl Fn(&Object) -> bool) {
        for entry in self.slab.iter().filter(|entry| choice(entry)) {
            self.end(index, &entry);
        }
    }

    /// The session objects of a slot.
    pub(crate) fn session_objects(&self, slot: SlotId) -> impl Iterator<Item = Handled> + '_ {
        self.slab.iter().filter(move |entry| entry.slot == slot && entry.home != Home::Token)
    }
}

/// The ouid in an answer.
///
/// # Errors
/// CKR_DEVICE_ERROR unless it is 16 bytes.
pub(crate) fn ouid_of(bytes: &[u8]) -> Result<Ouid> {
    Ouid::from_bytes(bytes).ok_or_else(|| {
        Error::Protocol(format!("wanted an ouid of 16 bytes in an answer, found {}", bytes.len()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SLOT: SlotId = SlotId(0);

    fn stamp(ms: u64) -> Option<Stamp> {
        Some(Stamp { ms, counter: 0, incarnation: 1 })
    }

    #[test]
    fn an_ouid_has_one_handle_in_the_process_and_keeps_its_greatest_version() {
        let handles = Handles::default();
        let index = handles.index();
        let first = handles.issue(&index, SLOT, Ouid([1; 16]), false, (stamp(5), None)).unwrap();
        let again = handles.issue(&index, SLOT, Ouid([1; 16]), false, (stamp(3), None)).unwrap();
        assert_eq!(first.key, again.key);
        assert_eq!(again.state().version, stamp(5));
        let elsewhere = handles.issue(&index, SlotId(1), Ouid([1; 16]), false, (None, None)).unwrap();
        assert_ne!(elsewhere.key, first.key);
        assert!(handles.look_up(SlotId(1), HandleObject(first.key)).is_none());
    }

    #[test]
    fn an_index_rebuilt_after_a_fork_finds_the_same_handles() {
        let handles = Handles::default();
        let before = handles.issue(&handles.index(), SLOT, Ouid([1; 16]), true, (None, None)).unwrap();
        let rebuilt = handles.index();
        assert_eq!(handles.issue(&rebuilt, SLOT, Ouid([1; 16]), true, (None, None)).unwrap().key, before.key);
    }

    #[test]
    fn a_private_handle_ended_by_logout_comes_back_as_another() {
        let handles = Handles::default();
        let index = handles.index();
        let private = handles.issue(&index, SLOT, Ouid([1; 16]), true, (None, None)).unwrap();
        let public = handles.issue(&index, SLOT, Ouid([2; 16]), false, (None, None)).unwrap();
        handles.end_where(&index, |object| object.private);
        assert!(handles.look_up(SLOT, HandleObject(private.key)).is_none());
        assert!(handles.look_up(SLOT, HandleObject(public.key)).is_some());
        let found = handles.issue(&index, SLOT, Ouid([1; 16]), true, (None, None)).unwrap();
        assert_ne!(found.key, private.key);
    }
}
