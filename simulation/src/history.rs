//! What the application was told about each object, and what must therefore hold (HA 8).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Error;
use spec::{HandleObject, Ouid, Rv};

use crate::members::CO_PIN;
use crate::register::Seen;

/// What is known about one request of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Fate {
    /// Never asked for.
    #[default]
    Not,
    /// Asked for and not answered.
    Running,
    /// Answered: done.
    Done,
    /// Answered: it may or may not have happened.
    Unknown,
    /// Answered: it did not happen.
    Failed,
}

impl Fate {
    /// What an answer says about the request.
    pub(crate) fn of<T>(answer: &client::Result<T>) -> Fate {
        match answer {
            Ok(_) => Fate::Done,
            Err(Error::OutcomeUnknown(_) | Error::Protocol(_)) => Fate::Unknown,
            Err(_) => Fate::Failed,
        }
    }
}

/// One object, or a pair under one label.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Unique.
    pub(crate) label: Vec<u8>,
    /// Who made it.
    pub(crate) process: usize,
    /// Of the object, or of the private key of a pair, by process.
    pub(crate) handles: BTreeMap<usize, HandleObject>,
    /// Known once the create was answered.
    pub(crate) ouids: Vec<Ouid>,
    /// How many objects it has: 1, or 2 for a pair.
    pub(crate) parts: usize,
    /// Its making.
    pub(crate) create: Fate,
    /// Its end.
    pub(crate) destroy: Fate,
    /// CKA_EXTRACTABLE was set to false.
    pub(crate) harden: Fate,
    /// The processes that were told so.
    pub(crate) hardened: Vec<usize>,
    /// What each process has written to CKA_ID and read there.
    pub(crate) ids: BTreeMap<usize, Vec<Seen>>,
    /// Its maker has forked since: the child knows what it wrote as little as another process does (HA 3.4).
    pub(crate) inherited: bool,
    /// What it once signed: a key must sign the same for ever.
    pub(crate) mac: Option<Vec<u8>>,
}

impl Object {
    /// Whether it is there for sure.
    pub(crate) fn is_there(&self) -> bool {
        self.create == Fate::Done && self.destroy == Fate::Not
    }

    /// Whether it is gone for sure.
    pub(crate) fn is_gone(&self) -> bool {
        self.destroy == Fate::Done || self.create == Fate::Failed
    }
}

/// The Crypto Officer's PINs as the application knows them.
pub(crate) struct Pins {
    /// Those that may hold now, the likeliest first.
    pub(crate) candidates: Vec<Vec<u8>>,
    /// Whether a call that gives a PIN is going on.
    pub(crate) busy: bool,
    /// Whether anybody has ever tried to change it.
    pub(crate) changed: bool,
}

/// Everything that the application was told.
pub(crate) struct History {
    objects: Mutex<Vec<Object>>,
    pins: Mutex<Pins>,
    values: AtomicU64,
    drawn: Mutex<BTreeSet<[u8; 8]>>,
    sends: Mutex<Vec<u64>>,
}

impl Default for History {
    fn default() -> Self {
        let pins = Pins { candidates: vec![CO_PIN.to_vec()], busy: false, changed: false };
        Self {
            objects: Mutex::default(),
            pins: Mutex::new(pins),
            values: AtomicU64::new(0),
            drawn: Mutex::default(),
            sends: Mutex::default(),
        }
    }
}

impl History {
    /// All objects so far.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Vec<Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The PINs.
    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no eight bytes of these were drawn before; they have been now.
    pub(crate) fn are_new(&self, drawn: &[u8]) -> bool {
        let mut all = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn
            .windows(8)
            .filter_map(|window| window.try_into().ok())
            .filter(|window| !all.insert(*window))
            .count()
            == 0
    }

    /// A number that no other call gets.
    pub(crate) fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A signature took so many messages.
    pub(crate) fn note_sends(&self, sends: u64) {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).push(sends);
    }

    /// How many messages each signature took.
    pub(crate) fn sends(&self) -> Vec<u64> {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A process has written or read CKA_ID.
    pub(crate) fn saw_id(&self, place: usize, process: usize, seen: Seen) {
        self.set(place, |object| object.ids.entry(process).or_default().push(seen));
    }

    /// A new object is asked for; its place.
    pub(crate) fn begin(&self, process: usize, parts: usize) -> (usize, Vec<u8>) {
        let mut objects = self.objects();
        let label = format!("object {}", objects.len()).into_bytes();
        objects.push(Object {
            label: label.clone(),
            process,
            handles: BTreeMap::new(),
            ouids: Vec::new(),
            parts,
            create: Fate::Running,
            destroy: Fate::Not,
            harden: Fate::Not,
            hardened: Vec::new(),
            ids: BTreeMap::new(),
            inherited: false,
            mac: None,
        });
        (objects.len() - 1, label)
    }

    /// A process has forked: its handles cross, and what it has seen does not.
    pub(crate) fn forked(&self, process: usize) {
        for object in self.objects().iter_mut() {
            object.inherited |= object.process == process;
            object.hardened.retain(|of| *of != process);
            object.ids.remove(&process);
        }
    }

    /// An object as it is now.
    pub(crate) fn get(&self, place: usize) -> Object {
        self.objects()[place].clone()
    }

    /// Changes what is known of an object.
    pub(crate) fn set(&self, place: usize, change: impl FnOnce(&mut Object)) {
        change(&mut self.objects()[place]);
    }
}

/// Whether an error only says that members could not be reached, or not well.
pub(crate) fn is_of_the_world(error: &Error) -> bool {
    matches!(
        error,
        Error::Outage(_)
            | Error::Undecided(_)
            | Error::Late(_)
            | Error::OutcomeUnknown(_)
            | Error::BelowMinimum(_)
            | Error::Protocol(_)
    )
}

/// Whether an error says that there is no such object.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Gone)
        || matches!(error, Error::Rv(rv) if [Rv::OBJECT_HANDLE_INVALID, Rv::KEY_HANDLE_INVALID].contains(rv))
}

/// Whether an error says that nobody is logged in any more: all tickets were ended.
pub(crate) fn is_logged_out(error: &Error) -> bool {
    matches!(error, Error::Rv(rv) if [Rv::USER_NOT_LOGGED_IN, Rv::DEVICE_REMOVED].contains(rv))
}
