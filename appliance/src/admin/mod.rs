//! The operator's side of `hsmd`: a Unix socket, lines of JSON, one verb a line.
mod certificates;
pub mod protocol;
pub mod socket;
pub mod verbs;
