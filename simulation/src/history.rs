//! What the application was told about each object, and what must therefore hold (HA 8).
use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Error;
use spec::{HandleObject, Ouid, Rv};

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
    /// Of the object, or of the private key of a pair.
    pub(crate) handle: Option<HandleObject>,
    /// Of the public key of a pair.
    pub(crate) public: Option<HandleObject>,
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
    /// The value of CKA_ID that was last set, and what became of that.
    pub(crate) id: Option<(u8, Fate)>,
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

/// Everything that the application was told.
#[derive(Default)]
pub(crate) struct History(Mutex<Vec<Object>>);

impl History {
    /// All objects so far.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Vec<Object>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new object is asked for; its place.
    pub(crate) fn begin(&self, process: usize, parts: usize) -> (usize, Vec<u8>) {
        let mut objects = self.objects();
        let label = format!("object {}", objects.len()).into_bytes();
        objects.push(Object {
            label: label.clone(),
            process,
            handle: None,
            public: None,
            ouids: Vec::new(),
            parts,
            create: Fate::Running,
            destroy: Fate::Not,
            harden: Fate::Not,
            id: None,
            mac: None,
        });
        (objects.len() - 1, label)
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
    matches!(error, Error::Outage(_) | Error::OutcomeUnknown(_) | Error::BelowMinimum(_) | Error::Protocol(_))
}

/// Whether an error says that there is no such object.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Gone)
        || matches!(error, Error::Rv(rv) if [Rv::OBJECT_HANDLE_INVALID, Rv::KEY_HANDLE_INVALID].contains(rv))
}
