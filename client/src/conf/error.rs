//! What can be wrong with a configuration file, said with file, line, column, wanted, found and what to do (RULES 2.13).

use std::fmt;
use std::path::{Path, PathBuf};

/// A fault of the configuration file or of its surroundings. Every text says what was wanted, what was found, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The file's content breaks the grammar, a bound, or the range of an option (RULES 2.13).
    Malformed(Box<Malformed>),
    /// The operating system refused to read, write or replace the file.
    Environment(Box<Environment>),
    /// A caller asked for a name or value to be written that the grammar cannot hold.
    Unwritable(Box<Unwritable>),
}

/// A place in a configuration file and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The file as it was opened.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What would have been right.
    pub wanted: String,
    /// What stands there.
    pub found: String,
    /// What the operator should do.
    pub action: String,
}

/// A refusal by the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The file or folder that was touched.
    pub file: PathBuf,
    /// What was wanted, as a verb phrase ("read the configuration").
    pub wanted: &'static str,
    /// What the operating system answered.
    pub found: String,
    /// What the operator should do.
    pub action: String,
}

/// A text that cannot stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritable {
    /// What was to be written ("value of ServerName00").
    pub what: String,
    /// What would have been right.
    pub wanted: &'static str,
    /// What was given, shortened.
    pub found: String,
}

impl Error {
    /// The refusal of one operation by the operating system.
    pub(crate) fn environment(
        file: &Path,
        wanted: &'static str,
        error: &std::io::Error,
        action: impl Into<String>,
    ) -> Error {
        Error::Environment(Box::new(Environment {
            file: file.to_path_buf(),
            wanted,
            found: error.to_string(),
            action: action.into(),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(at) => write!(
                out,
                "{}:{}:{}: wanted {}, found {}; {}",
                at.file.display(),
                at.line,
                at.column,
                at.wanted,
                at.found,
                at.action
            ),
            Error::Environment(at) => {
                write!(
                    out,
                    "{}: wanted to {}, found: {}; {}",
                    at.file.display(),
                    at.wanted,
                    at.found,
                    at.action
                )
            }
            Error::Unwritable(at) => {
                write!(out, "{}: wanted {}, found {}; choose another text", at.what, at.wanted, at.found)
            }
        }
    }
}

impl std::error::Error for Error {}

/// Quotes a text for an error message: control characters escaped, cut to 40 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
