//! The behaviours of a partition as a client meets them: encoded requests in, encoded replies out.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, unreachable_pub)]

/// A message with some fields replaced; messages that wipe themselves cannot be taken apart by `..`.
macro_rules! changed {
    ($base:expr; $($field:ident: $value:expr),*) => {{
        let mut message = $base;
        $(message.$field = $value;)*
        message
    }};
}

mod bench;
mod copies;
mod creates;
mod hostile;
mod login;
mod manifest;
mod mechanisms;
mod objects;
mod peers;
mod refusals;
mod remembered;
mod repair;
mod restart;
mod session_objects;
mod shared_store;
mod stores;
mod uses;
