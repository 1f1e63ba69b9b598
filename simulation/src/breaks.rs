//! How a link breaks when a request was carried out, before its reply arrives.
use spec::calls::{CALLS, Class};

/// How a link is to break before a reply.
#[derive(Clone, Copy)]
pub(crate) struct Breaks {
    pub(crate) how: Break,
    /// The reply to which request is worth it.
    pub(crate) of: Worth,
}

/// How it breaks.
#[derive(Clone, Copy)]
pub(crate) enum Break {
    /// At once.
    Plain,
    /// For so many nanoseconds nothing passes and nobody is told; then the reply comes.
    Silent(u64),
    /// The same, and then it breaks: the reply is lost.
    Late(u64),
}

/// A reply that is worth it.
#[derive(Clone, Copy)]
pub(crate) enum Worth {
    /// To anything but a probe.
    Any,
    /// To a request that writes.
    Write,
    /// To a change of attributes.
    Change,
    /// To a change of a PIN, or a try at one.
    Pin,
}

impl Worth {
    /// Whether the reply to this call is worth it.
    pub(crate) fn fits(self, call: u32) -> bool {
        match self {
            Worth::Any => call_name(call) != "Status",
            Worth::Write => writes(call),
            Worth::Change => call_name(call) == "SetAttributes",
            Worth::Pin => call_name(call) == "SetPin",
        }
    }
}

/// Whether a call waits for the disk.
pub(crate) fn writes(number: u32) -> bool {
    let class = CALLS.iter().find(|row| row.number == number).map(|row| row.class);
    matches!(class, Some(Class::Store | Class::Change | Class::Destroy | Class::Role))
}

/// The name of a call.
pub(crate) fn call_name(number: u32) -> &'static str {
    CALLS.iter().find(|row| row.number == number).map_or("?", |row| row.name)
}
