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

use arc_swap::ArcSwap;
use digests::{Hash, digest};
use spec::messages::{MadeObject, ObjectRef};
use spec::platform::Lock;
use spec::{AttributeType, HandleObject, Ouid, Rv, SlotId, Stamp, Template};

use crate::error::{Error, Result};
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
}

/// An object that a handle names.
pub(crate) struct Object {
    pub(crate) slot: SlotId,
    pub(crate) ouid: Ouid,
    pub(crate) private: bool,
    pub(crate) home: Home,
    state: ArcSwap<State>,
}

/// A handle and its object.
pub(crate) type Handled = Arc<Entry<Object>>;

impl Object {
    /// The present state.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The object as a request names it, with the blob when a member has asked for it.
    pub(crate) fn reference(&self, with_blob: bool) -> ObjectRef {
        let state = self.state.load();
        ObjectRef {
            ouid: self.ouid.0.to_vec(),
            least: self.least(&state),
            blob_hash: state.blob_hash.clone(),
            blob: if with_blob { state.blob.clone() } else { Vec::new() },
        }
    }

    /// The least stamp that a member's state must have: token objects alone have one.
    pub(crate) fn least(&self, state: &State) -> Option<Stamp> {
        if self.home == Home::Token { state.version } else { None }
    }

    /// Takes note of a version; the greatest stays.
    pub(crate) fn learn(&self, version: Option<Stamp>) {
        if version <= self.state.load().version {
            return;
        }
        self.state.rcu(|state| State {
            version: version.max(state.version),
            blob: state.blob.clone(),
            blob_hash: state.blob_hash.clone(),
            readable: state.readable.clone(),
        });
    }

    /// Publishes the changed blob of a session object.
    pub(crate) fn replace(&self, version: Option<Stamp>, blob: Vec<u8>, readable: Template) {
        self.state.store(Arc::new(State { version, blob_hash: hash_of(&blob), blob, readable }));
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
    if blob.is_empty() { Vec::new() } else { digest(Hash::Sha256, blob) }
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
        version: Option<Stamp>,
    ) -> Result<Handled> {
        let mut keys = index.0.lock();
        if let Some(entry) = keys.get(&(slot, ouid)).and_then(|key| self.slab.look_up(*key)) {
            entry.learn(version);
            return Ok(entry);
        }
        let state = State { version, blob: Vec::new(), blob_hash: Vec::new(), readable: Template::default() };
        let entry = self.insert(Object {
            slot,
            ouid,
            private,
            home: Home::Token,
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
        let state = State {
            version: made.version,
            blob_hash: hash_of(&made.blob),
            blob: made.blob.clone(),
            readable: made.readable.clone().unwrap_or_default(),
        };
        self.insert(Object {
            slot,
            ouid: ouid_of(&made.ouid)?,
            private: made.private,
            home: Home::Session(owner),
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
        let first = handles.issue(&index, SLOT, Ouid([1; 16]), false, stamp(5)).unwrap();
        let again = handles.issue(&index, SLOT, Ouid([1; 16]), false, stamp(3)).unwrap();
        assert_eq!(first.key, again.key);
        assert_eq!(again.state().version, stamp(5));
        let elsewhere = handles.issue(&index, SlotId(1), Ouid([1; 16]), false, None).unwrap();
        assert_ne!(elsewhere.key, first.key);
        assert!(handles.look_up(SlotId(1), HandleObject(first.key)).is_none());
    }

    #[test]
    fn an_index_rebuilt_after_a_fork_finds_the_same_handles() {
        let handles = Handles::default();
        let before = handles.issue(&handles.index(), SLOT, Ouid([1; 16]), true, None).unwrap();
        let rebuilt = handles.index();
        assert_eq!(handles.issue(&rebuilt, SLOT, Ouid([1; 16]), true, None).unwrap().key, before.key);
    }

    #[test]
    fn a_private_handle_ended_by_logout_comes_back_as_another() {
        let handles = Handles::default();
        let index = handles.index();
        let private = handles.issue(&index, SLOT, Ouid([1; 16]), true, None).unwrap();
        let public = handles.issue(&index, SLOT, Ouid([2; 16]), false, None).unwrap();
        handles.end_where(&index, |object| object.private);
        assert!(handles.look_up(SLOT, HandleObject(private.key)).is_none());
        assert!(handles.look_up(SLOT, HandleObject(public.key)).is_some());
        let found = handles.issue(&index, SLOT, Ouid([1; 16]), true, None).unwrap();
        assert_ne!(found.key, private.key);
    }
}
