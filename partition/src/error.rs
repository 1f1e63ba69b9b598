//! Why a partition cannot be made or opened, and how a single request is refused.
use std::{error, fmt};

use spec::messages::{Outcome, ReplyBody};
use spec::{Ouid, Rv};

use crate::seal::NotOpened;
use crate::store::StoreError;

/// Why a partition cannot be created or opened.
#[derive(Debug)]
pub enum Error {
    /// The store holds a partition already, or none, or another one.
    Store(String),
    /// The store failed.
    Medium(StoreError),
    /// What is stored does not open under this domain secret.
    Domain,
    /// What is stored opens but is not what was written: damage within the store.
    Damaged(String),
    /// An argument breaks a bound.
    Argument(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(text) | Self::Damaged(text) | Self::Argument(text) => f.write_str(text),
            Self::Medium(error) => write!(f, "the store failed: {error}"),
            Self::Domain => f.write_str(
                "wanted a store sealed under this domain secret, found another; give the partition the domain that \
                 it was made with",
            ),
        }
    }
}

impl error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Medium(error)
    }
}

/// How a request ends when it is not carried out.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) outcome: Outcome,
    pub(crate) rv: Rv,
    pub(crate) object: Option<Ouid>,
    pub(crate) text: String,
}

impl Refusal {
    /// Decided by the standard's rules.
    pub(crate) fn rv(rv: Rv, text: impl Into<String>) -> Self {
        Self { outcome: Outcome::RV, rv, object: None, text: text.into() }
    }

    /// Decided by ours.
    pub(crate) fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        Self { outcome, rv: Rv::OK, object: None, text: text.into() }
    }

    /// Cannot be read or breaks a bound.
    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::new(Outcome::MALFORMED, text)
    }

    /// About this object.
    pub(crate) fn about(mut self, ouid: Ouid) -> Self {
        self.object = Some(ouid);
        self
    }

    /// The body of the reply.
    pub(crate) fn into_reply(self) -> ReplyBody {
        ReplyBody {
            outcome: self.outcome.0,
            rv: self.rv.0,
            object: self.object.map(|ouid| ouid.0.to_vec()).unwrap_or_default(),
            text: self.text,
            answer: None,
        }
    }
}

impl From<Rv> for Refusal {
    fn from(rv: Rv) -> Self {
        Self::rv(rv, "")
    }
}

impl From<NotOpened> for Refusal {
    fn from(_: NotOpened) -> Self {
        Self::new(
            Outcome::NOT_OPENED,
            "wanted something sealed for this group, client and use, found another; it cannot be used here",
        )
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(Outcome::FAILED, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(Outcome::FAILED, error.to_string())
    }
}
