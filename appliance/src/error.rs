//! The crate's error, its variants named by fault (CONVENTIONS 14).
use std::fmt;

/// What went wrong in the appliance; the text says what was wanted, what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The operator or a client asked for something that cannot be done.
    Refused(String),
    /// The machine's state stands in the way: files, permissions, disk, addresses.
    Environment(String),
    /// Stored data is damaged or of another release.
    Damaged(String),
}

impl Error {
    /// A refusal of what was asked.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }

    /// A fault of the machine.
    pub fn environment(text: impl Into<String>) -> Self {
        Self::Environment(text.into())
    }

    /// Damaged or foreign data.
    pub fn damaged(text: impl Into<String>) -> Self {
        Self::Damaged(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) | Self::Environment(text) | Self::Damaged(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Environment(format!(
            "the database cannot be read or written: {error}; check the disk under data_dir"
        ))
    }
}
