//! What a verb answers, and how it is shown: text for people or JSON for programs, complaints to standard error.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

/// Exit code of a verb that did what was asked.
pub(crate) const OK: u8 = 0;
/// Exit code of a verb that failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code for arguments that cannot be understood.
pub(crate) const USAGE: u8 = 2;
/// Exit code of a comparison that found differences.
pub(crate) const DIFFERENT: u8 = 3;

/// What a verb found or did.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) document: Value,
    /// What is amiss although the verb has an answer; to standard error.
    pub(crate) complaints: Vec<String>,
    /// The exit code.
    pub(crate) exit: u8,
}

impl Answer {
    /// A good answer. The document must be a plain structure with text keys.
    pub(crate) fn new(text: String, document: impl Serialize) -> Answer {
        let document = serde_json::to_value(document).expect("documents have text keys and plain values");
        Answer { text, document, complaints: Vec::new(), exit: OK }
    }

    /// Whether the verb did what was asked.
    #[cfg(test)]
    pub(crate) fn good(&self) -> bool {
        self.exit == OK
    }
}

/// Why a verb did not do what was asked: wanted, found, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// A failure in the three parts of every message.
    pub(crate) fn new(
        wanted: impl fmt::Display,
        found: impl fmt::Display,
        action: impl fmt::Display,
    ) -> Failure {
        Failure(format!("wanted {wanted}, found {found}; {action}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<client::conf::Error> for Failure {
    fn from(error: client::conf::Error) -> Failure {
        Failure(error.to_string())
    }
}

/// [`OK`] or [`FAILED`].
pub(crate) fn exit(good: bool) -> u8 {
    if good { OK } else { FAILED }
}

/// Prints the result of a verb, with what else is amiss, and gives the exit code.
pub(crate) fn show(json: bool, (result, amiss): (Result<Answer, Failure>, Vec<String>)) -> ExitCode {
    let (text, document, complaints, exit) = match result {
        Ok(answer) => (answer.text, answer.document, answer.complaints, answer.exit),
        Err(failure) => (String::new(), json!({ "error": failure.0 }), vec![failure.0], FAILED),
    };
    let shown = if json { format!("{document:#}\n") } else { text };
    // A reader that has gone (a closed pipe) leaves nobody to tell.
    let _ = std::io::stdout().lock().write_all(shown.as_bytes());
    for complaint in complaints.into_iter().chain(amiss) {
        let _ = writeln!(std::io::stderr().lock(), "vtl: {complaint}");
    }
    ExitCode::from(exit)
}
